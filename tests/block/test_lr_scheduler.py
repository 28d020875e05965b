"""Schedulers: the rates that MXNet 1.9.1 gave, and mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from gluonish import lr_scheduler as s

MEASURED: list[tuple[Any, list[float]]] = [
    (
        s.FactorScheduler(step=3, factor=0.5, base_lr=1, warmup_steps=2),
        [0.0, 0.5, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125],
    ),
    (s.MultiFactorScheduler([2, 5], 0.1, base_lr=1), [1, 1, 1, 0.1, 0.1, 0.1, *[0.01] * 7]),
    (
        s.PolyScheduler(10, 1.0, 2, 0.1, warmup_steps=2),
        [0.0, 0.5, 1.0, 0.78906, 0.60625, 0.45156, 0.325, 0.22656, 0.15625, 0.11406, 0.1, 0.1, 0.1],
    ),
    (
        s.CosineScheduler(10, 1.0, 0.1, warmup_steps=2, warmup_begin_lr=0.2),
        [0.2, 0.6, 1.0, 0.96575, 0.8682, 0.72221, 0.55, 0.37779, 0.2318, 0.13425, 0.1, 0.1, 0.1],
    ),
]


@pytest.mark.parametrize(("scheduler", "wanted"), MEASURED, ids=lambda v: type(v).__name__)
def test_rates_of_mxnet(scheduler: Any, wanted: list[float]) -> None:
    assert [scheduler(i) for i in range(13)] == pytest.approx(wanted, abs=1e-5)
    assert scheduler(4) == pytest.approx(wanted[4], abs=1e-5)  # no memory


def test_constant_warmup_and_floor() -> None:
    assert [s.LRScheduler(1.0, 2, 0.3, "constant")(i) for i in range(3)] == [0.3, 0.3, 1.0]
    assert s.FactorScheduler(1, 0.1, stop_factor_lr=0.05, base_lr=1)(9) == 0.05


@pytest.mark.parametrize(
    "make",
    [
        lambda: s.FactorScheduler(0),
        lambda: s.FactorScheduler(1, 2.0),
        lambda: s.MultiFactorScheduler([3, 2]),
        lambda: s.PolyScheduler(2, warmup_steps=2),
        lambda: s.CosineScheduler(10, 0.1, warmup_steps=2, warmup_begin_lr=0.5),
        lambda: s.LRScheduler(warmup_mode="slow"),
    ],
)
def test_mistakes(make: Any) -> None:
    with pytest.raises(ValueError, match="test_lr_scheduler.py"):
        make()
