"""bfloat16 arrays: making, promotion, rounding, files, and what is said where its package is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gluonish import autograd, nd

BF16 = np.dtype(ml_dtypes.bfloat16)


def test_making() -> None:
    assert nd.bfloat16 == BF16
    for x in (
        nd.array([1.5, -2.0], dtype="bfloat16"),
        nd.array(np.array([1.5, -2.0], BF16)),
        nd.array([1.5, -2.0]).astype(nd.bfloat16),
        nd.array([1.5, -2.0]).astype(ml_dtypes.bfloat16),
    ):
        assert x.dtype == BF16 and x.tolist() == [1.5, -2.0]
    assert nd.ones((2, 3), "bfloat16").sum().item() == 6
    assert nd.arange(4, dtype="bfloat16").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("other", "common"),
    [
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int64", "bfloat16"),
        ("bool", "bfloat16"),
    ],
)
def test_promotion(other: str, common: str) -> None:
    x, y = nd.ones((2,), "bfloat16"), nd.ones((2,), other)
    assert (x + y).dtype.name == common and (y * x).dtype.name == common


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_ops_round_once(half: str, rng: np.random.Generator) -> None:
    """What float32 gives, rounded: in ops of several steps, sums of many, products; numbers beside are not rounded."""
    x = nd.array(rng.standard_normal((3, 2000))).astype(half)
    wide = x.astype("float32")
    for function in (nd.gelu, nd.sigmoid, lambda v: v.sum(1), lambda v: v @ v.T, lambda v: v * 0.1, lambda v: 1 / v):
        assert function(x).dtype.name == half
        assert np.array_equal(function(x).asnumpy(), function(wide).astype(half).asnumpy())
    assert nd.ones((3000,), half).sum().item() in (3008.0, 3000.0)  # the nearest that each has


def test_gradients_have_the_dtype(rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((4, 5))).astype("bfloat16")
    x.attach_grad()
    with autograd.record():
        loss = (nd.matmul(x, x.T, dtype="float32") * 0.5).sum() + nd.tanh(x).sum().astype("float32")
    loss.backward()
    assert x.grad.dtype == BF16
    wide = x.asnumpy().astype(float)
    wanted = np.broadcast_to(wide.sum(0), wide.shape) + 1 - np.tanh(wide) ** 2
    assert np.allclose(x.grad.asnumpy().astype(float), wanted, rtol=0.02, atol=0.05)


def test_files(tmp_path: Path) -> None:
    x = nd.array([[1.5, np.nan, -np.inf]]).astype("bfloat16")
    nd.save(tmp_path / "x.safetensors", {"x": x})
    assert b'"BF16"' in (tmp_path / "x.safetensors").read_bytes()
    back = nd.load(tmp_path / "x.safetensors")["x"]
    assert back.dtype == BF16 and back.asnumpy().tobytes() == x.asnumpy().tobytes()


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    asked: list[Any] = [
        lambda: nd.bfloat16,
        lambda: nd.ones((2,), "bfloat16"),
        lambda: nd.ones((2,)).astype("bfloat16"),
    ]
    for ask in asked:
        with pytest.raises(ImportError, match=r"pip install 'gluonish\[bfloat16\]' .*test_bfloat16.py"):
            ask()
