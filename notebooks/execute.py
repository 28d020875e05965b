"""Runs the notebooks from top to bottom: `python notebooks/execute.py` renews the outputs that are stored in them.

The tests run them the same way. Outputs are cleaned of what differs from machine to machine without meaning anything:
times of execution, folders, numbers of objects in memory.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

import gluonish

FOLDER = Path(__file__).resolve().parent


def executed(path: Path, folder: Path) -> Any:
    """The notebook with fresh outputs, run in `folder`. Raises: CellExecutionError for the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place, coalesce_streams=True)
    client.execute(env={**os.environ, "PYTHONPATH": str(Path(gluonish.__file__).resolve().parent.parent)})
    _clean(notebook)
    return notebook


def _clean(notebook: Any) -> None:
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            for holder, kind in ((output, "text"), (output.get("data", {}), "text/plain")):
                if kind in holder:
                    holder[kind] = re.sub(r"(/[\w.-]+)+/(?=[\w.-]+)| at 0x[0-9a-f]+", "", holder[kind])


def main() -> None:
    """Renews every notebook."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
        print(path.name)


if __name__ == "__main__":
    sys.exit(main())
