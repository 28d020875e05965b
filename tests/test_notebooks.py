"""The notebooks run from top to bottom, and what is stored in them is what they print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _execute() -> Any:
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def _kinds(notebook: Any) -> list[list[str]]:
    """For each cell the kinds of its outputs, such as "stream" or "image/svg+xml"."""
    out = []
    for cell in notebook.cells:
        kinds: list[str] = []
        for output in cell.get("outputs", []):
            kinds += sorted(output.get("data", {output.output_type: None}))
        out.append(kinds)
    return out


def _text(notebook: Any) -> str:
    return "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def test_there_is_a_quickstart() -> None:
    assert [path.name for path in NOTEBOOKS][:1] == ["01_quickstart.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs_and_its_stored_outputs_are_of_this_kind(path: Path, tmp_path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    fresh = _execute().executed(path, tmp_path)  # raises for the first cell that fails
    assert _kinds(stored) == _kinds(fresh), "run `python notebooks/execute.py` to renew the stored outputs"
    assert any("image/svg+xml" in kinds for kinds in _kinds(stored))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_outputs_are_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = _text(notebook)
    assert not re.search(r"/(home|root|tmp|usr|opt|work|Users)/|\\Users\\| at 0x[0-9a-f]{6}", text)
    assert "Traceback" not in text and "Warning" not in text
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_the_quickstart_learns_what_it_says() -> None:
    text = _text(nbformat.read(FOLDER / "01_quickstart.ipynb", as_version=4))
    found = re.search(r"accuracy on the test images: ([\d.]+) %", text)
    assert found and float(found[1]) >= 98
    assert "same predictions: True" in text
    slopes = re.findall(r"by (?:backward\(\)|hand) +\[([^\]]+)\]", text)
    left, right = ([float(v) for v in values.split(",")] for values in slopes)
    assert left == pytest.approx(right, rel=1e-5)


def test_a_failing_cell_fails(tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    bad = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(bad, tmp_path / "bad.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        _execute().executed(tmp_path / "bad.ipynb", tmp_path)
