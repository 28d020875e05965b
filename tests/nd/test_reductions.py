"""Reductions against NumPy: axes, keepdims, empties, NaN, small dtypes that must not overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import nd

AXES: list[Any] = [None, 0, 1, -1, (0, 2), (2, 0), (-1,), (), (0, 1, 2)]
NAMES = ("sum", "prod", "max", "min", "mean", "var", "std", "any", "all")


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_like_numpy(name: str, axis: Any, keepdims: bool, rng: np.random.Generator) -> None:
    a = rng.uniform(0.5, 2, (2, 3, 4)).astype(np.float32)
    a *= rng.random(a.shape) < 0.7 if name in ("any", "all") else 1
    out, wanted = getattr(nd, name)(nd.array(a), axis, keepdims), getattr(np, name)(a, axis=axis, keepdims=keepdims)
    assert out.shape == wanted.shape and out.dtype == wanted.dtype
    assert np.allclose(out.asnumpy(), wanted, rtol=1e-5)
    method = getattr(nd.array(a), name)(axis=axis, keepdims=keepdims)
    assert np.array_equal(method.asnumpy(), out.asnumpy())


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name: str, axis: Any, keepdims: bool, rng: np.random.Generator) -> None:
    a = rng.integers(0, 3, (3, 4, 5))
    out, wanted = getattr(nd, name)(nd.array(a), axis, keepdims), getattr(np, name)(a, axis=axis, keepdims=keepdims)
    assert out.dtype == np.int64 and np.array_equal(out.asnumpy(), wanted) and out.shape == wanted.shape


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "uint32"])
def test_whole_numbers_add_up_without_overflow(dtype: str, rng: np.random.Generator) -> None:
    a = rng.integers(0, 2 if dtype == "bool" else 127, 1000).astype(dtype)
    x = nd.array(a)
    assert x.sum().item() == a.astype(object).sum() and x.sum().dtype == ("uint64" if dtype[0] == "u" else "int64")
    assert x.mean().dtype == np.float32 and abs(x.mean().item() - a.mean()) < 1e-4
    assert abs(x.var().item() - a.astype(float).var()) < 1e-2
    assert nd.prod(nd.full(9, 3, dtype="int32")).item() == 3**9
    assert x.max().dtype == np.dtype(dtype) and x.max().item() == a.max()


def test_accuracy_as_people_write_it() -> None:
    assert (nd.array([1, 2, 3, 4]) == nd.array([1, 2, 0, 0])).mean().item() == 0.5
    assert (nd.array([1, 2, 3, 4]) == nd.array([1, 2, 0, 0])).sum().item() == 2


def test_halves_accumulate_in_single_precision() -> None:
    x = nd.full(100_000, 1.0, dtype="float16")
    assert x.mean().dtype == np.float16 and x.mean().item() == 1.0 and x.var().item() == 0.0
    tenths = nd.full((4096, 2), 0.1, dtype="float16")
    assert abs(tenths.sum(0)[0].item() - 4096 * float(np.float16(0.1))) < 0.5


def test_variance_with_correction_and_far_from_zero(rng: np.random.Generator) -> None:
    a = rng.standard_normal((5, 7))
    assert np.allclose(nd.var(nd.array(a), 0, correction=1).asnumpy(), a.var(0, ddof=1))
    assert np.allclose(nd.std(nd.array(a), correction=1).item(), a.std(ddof=1))
    far = (1e4 + rng.standard_normal(1000)).astype(np.float32)
    assert abs(nd.var(nd.array(far)).item() - far.astype(float).var()) < 1e-2


def test_nothing_to_reduce() -> None:
    empty = nd.zeros((0, 3))
    assert empty.sum().item() == 0 and empty.sum(0).tolist() == [0, 0, 0] and empty.sum(1).shape == (0,)
    assert empty.prod().item() == 1
    assert np.isnan(empty.mean().item()) and np.isnan(empty.mean(0).asnumpy()).all() and empty.mean(1).shape == (0,)
    assert nd.any(empty).item() is False and nd.all(empty).item() is True and nd.all(empty, 0).tolist() == [True] * 3
    assert empty.max(1).shape == (0,)
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(ValueError, match=rf"{name}: .*empty.*test_reductions.py"):
            getattr(nd, name)(empty, 0)
    with pytest.raises(ValueError, match="max: .*empty"):
        empty.max()


def test_nan_and_infinity() -> None:
    x = nd.array([[1.0, np.nan, 3.0], [np.inf, 2.0, -np.inf]])
    for name in ("sum", "prod", "max", "min", "mean", "var", "std", "norm"):
        assert np.isnan(getattr(nd, name)(x, 1)[0].item()), name
    assert x.max(1)[1].item() == np.inf and x.min(1)[1].item() == -np.inf
    assert x.argmax(1).tolist() == [1, 0]
    assert nd.any(x, 1).tolist() == [True, True]


def test_norm_and_clip(rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 4)).astype(np.float32)
    x = nd.array(a)
    assert np.allclose(nd.norm(x).item(), np.linalg.norm(a), rtol=1e-5)
    assert np.allclose(x.norm(1, True).asnumpy(), np.linalg.norm(a, axis=1, keepdims=True), rtol=1e-5)
    for low, high in ((-0.5, 0.5), (None, 0.0), (0.0, None)):
        assert np.array_equal(nd.clip(x, low, high).asnumpy(), np.clip(a, low, high))
    assert np.isnan(nd.clip(nd.array(np.nan), 0, 1).item())
    assert nd.clip(nd.array([1, 9]), 2, 5).tolist() == [2, 5]


def test_bad_axes() -> None:
    for axis in (2, -3, 1.5, "a", (0, 0)):
        with pytest.raises(ValueError, match=r"axis.*test_reductions.py"):
            nd.ones((2, 3)).sum(axis)
    with pytest.raises(ValueError, match="argmax: axis 2 is out of range"):
        nd.argmax(nd.ones((2, 3)), 2)
