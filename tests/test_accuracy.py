"""The table of errors: its arithmetic, its verdicts, and a small sample of every function."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # benchmarks are not installed; last, so that a gluonish that is installed comes first

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import accuracy  # noqa: E402


def f4(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def f8(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_units_are_those_of_the_exact_result() -> None:
    next_to_one = np.nextafter(np.float32(1), np.float32(2))
    assert accuracy.units(f4(next_to_one), f8(1.0)) == 1
    assert accuracy.units(f4(1.0), f8(1 - 2.0**-25)) == 0.5
    assert accuracy.units(f4(3e-45), f8(2.0**-149)) == 1  # denormals have one unit
    assert accuracy.units(f4(np.inf), f8(2.0**128 - 2.0**104)) == 1


@pytest.mark.parametrize(
    ("got", "exact"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (0.0, -0.0), (-np.inf, np.inf), (0.0, 1.0)]
)
def test_wrong_kinds_are_found(got: float, exact: float) -> None:
    result = accuracy.judge(f4(1.0, got), f8(1.0, exact), [f4(5.0, 7.0)])
    assert (result.wrong == 1 and result.first_wrong == (7.0,)) or result.worst > 1e6


def test_right_kinds_are_not() -> None:
    values = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, 1e-45, 3e38)
    result = accuracy.judge(f4(*values), f4(*values).astype(np.float64), [f4(*values)])
    assert (result.worst, result.wrong, result.count) == (0, 0, 8)


def test_a_sample_has_every_exponent_and_all_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    function = accuracy.FUNCTIONS[0]
    x = np.concatenate([chunk[0] for chunk in accuracy.chunks(function, False, 0)])
    assert len(x) == accuracy.SAMPLED and len(np.unique(x.view(np.uint32) >> 23)) == 512
    monkeypatch.setattr(accuracy, "PATTERNS", 1 << 20)
    every = np.concatenate([chunk[0] for chunk in accuracy.chunks(function, True, 0)])
    np.testing.assert_array_equal(every.view(np.uint32), np.arange(1 << 20))


@pytest.mark.parametrize("function", accuracy.FUNCTIONS, ids=lambda function: function.name)
def test_functions_keep_their_bounds(function: accuracy.Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "SAMPLED", 1 << 17)
    result = accuracy.measure(function, seed=int(np.random.default_rng().integers(1 << 30)))
    assert result.worst <= function.bound and not result.wrong, result
    monkeypatch.setattr(accuracy, "SAMPLED_DOUBLES", 1 << 13)
    if accuracy.EXTENDED:
        result = accuracy.measure_doubles(function, seed=int(np.random.default_rng().integers(1 << 30)))
        assert result.worst <= function.bound + 1.5 and not result.wrong, result


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(accuracy, "SAMPLED", 1 << 16)
    monkeypatch.setattr(accuracy, "SAMPLED_DOUBLES", 1 << 13)
    assert command.main(["accuracy", "exp", "atan2"]) == 0
    rows = capsys.readouterr().out.splitlines()
    wanted = [(name, dtype) for name in ("exp", "atan2") for dtype in ("float32", "float64")[: 1 + accuracy.EXTENDED]]
    assert [tuple(row.split()[:2]) for row in rows[1:]] == wanted
    assert all("right" in row for row in rows[1:])
    assert command.main(["accuracy", "nonsense"]) == 2
    planted = accuracy.Function("exp", lambda x: np.exp(x) * (1 + 1e-6))
    monkeypatch.setattr(accuracy, "FUNCTIONS", [planted])
    assert command.main(["accuracy"]) == 1
    assert "over its bound" in capsys.readouterr().out
