"""Scans, sorting, searching, changes by index against NumPy, hybridized and not: NaN, ties, all dtypes, no elements.

What the laws cannot know of these ops: which order is the right one, and that long rows are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd
from gluonish.hybrid import bound, hybridize
from gluonish.kernels import pool

DTYPES = ("float32", "float64", "int32", "uint64", "bool")


def awkward(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    """Numbers with many ties and all kinds of extremes."""
    x = np.round(rng.standard_normal(shape) * 20, int(rng.integers(2)))
    if dtype == "bool":
        return x > 0
    if dtype[0] == "f":
        for value in (np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42):
            x = np.where(rng.random(shape) < 0.03, value, x)
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    whole = x.astype("int64").astype(dtype)
    for value in (limits.min, limits.max):
        whole = np.where(rng.random(shape) < 0.05, np.array(value, dtype), whole)
    return whole


def both(function: Callable[..., Any], *inputs: np.ndarray) -> np.ndarray:
    """What a function gives hybridized, after seeing that it is what it gives eagerly; sharing even small steps."""
    arrays = [nd.NDArray(x) for x in inputs]
    eager, hybrid = function(*arrays), hybridize(function)(*arrays)
    assert (eager.shape, eager.dtype) == (hybrid.shape, hybrid.dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-12}.get(eager.dtype.name, 0)
    scale = np.abs(eager.asnumpy()[np.isfinite(eager.asnumpy())]).max(initial=1) if tolerance else 0
    assert np.allclose(eager.asnumpy(), hybrid.asnumpy(), tolerance, tolerance * scale, equal_nan=True)
    return hybrid.asnumpy()


# --- order ------------------------------------------------------------------------------------------------------------
def descending(x: np.ndarray) -> np.ndarray:
    """The stable descending order, element by element."""
    number = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(object)
    key = np.array([np.inf if v != v else v for v in number], object)
    nan = [v != v for v in number]
    return np.array(sorted(range(len(x)), key=lambda i: (not nan[i], -int(key[i]) if x.dtype.kind != "f" else -key[i])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_order(dtype: str, rng: np.random.Generator) -> None:
    """Rows that are ranked, rows in radix passes, and rows that all threads sort together."""
    for shape in [(4, 9), (3, 130), (2, 700), (1, 131_200)]:
        x = awkward(rng, dtype, *shape)
        order = np.argsort(x, -1, kind="stable")
        assert np.array_equal(both(lambda x: nd.argsort(x), x), order)
        down = both(lambda x: nd.argsort(x, descending=True), x)
        if shape[1] < 1000:
            assert np.array_equal(down, [descending(row) for row in x])
        if dtype not in ("float32", "uint64"):  # the others take the same ways
            continue
        assert np.array_equal(both(lambda x: nd.sort(x), x), np.sort(x), equal_nan=dtype[0] == "f")
        values = both(lambda x: nd.sort(x, descending=True), x)
        assert np.array_equal(values, np.take_along_axis(x, down, -1), equal_nan=dtype[0] == "f")
        k = 5 if shape[1] < 700 else 70
        assert np.array_equal(both(lambda x, k=k: nd.topk(x, k).indices, x), down[:, :k])
        assert np.array_equal(both(lambda x, k=k: nd.topk(x, k, largest=False).indices, x), order[:, :k])


def test_a_row_that_gets_better_all_the_time(rng: np.random.Generator) -> None:
    x = np.arange(300_000, dtype=np.float32)
    for k in (3, 200):
        assert np.array_equal(both(lambda x, k=k: nd.topk(x, k).values, x), x[::-1][:k])
        assert np.array_equal(both(lambda x, k=k: nd.topk(x, k).indices, np.zeros_like(x)), np.arange(k))


def test_order_along_any_axis_of_any_memory(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 4, 6)).transpose(2, 0, 1)[::-1]
    for axis in (0, 1, 2, -2, None):
        assert np.array_equal(both(lambda x, axis=axis: nd.sort(x, axis), x), np.sort(x, axis))
        assert np.array_equal(both(lambda x, axis=axis: nd.argsort(x, axis), x), np.argsort(x, axis, kind="stable"))
    found = nd.topk(nd.NDArray(x), 2, axis=1)
    assert np.array_equal(found.values.asnumpy(), -np.sort(-x, 1)[:, :2])
    assert found.indices.dtype == np.int64


def test_nothing_to_sort_or_to_find() -> None:
    for shape in [(0,), (3, 0), (0, 3)]:
        x = np.zeros(shape, np.float32)
        assert both(lambda x: nd.sort(x), x).shape == shape
        assert both(lambda x: nd.argsort(x, descending=True), x).dtype == np.int64
        assert both(lambda x: nd.topk(x, 0).values, x).shape == (*shape[:-1], 0)
        assert both(lambda x: nd.cumsum(x, -1), x).shape == shape
        assert both(lambda x: nd.cumulative_max(x, 0), x).shape == shape
    assert both(lambda x, v: nd.searchsorted(x, v), np.zeros(0), np.ones(3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"topk: there are no 4 elements along the axis; got \(2, 3\).*test_sequences"):
        nd.topk(nd.ones((2, 3)), 4)
    with pytest.raises(ValueError, match=r"sort: axis 2 is out of range|argsort: axis 2"):
        nd.argsort(nd.ones((2, 3)), 2)


def test_gradients_of_order(rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.permutation(40).reshape(4, 10).astype(np.float64))
    head = rng.standard_normal((4, 3))
    for function in (lambda x: nd.topk(x, 3).values, hybridize(lambda x: nd.topk(x, 3).values)):
        x.attach_grad()
        with autograd.record():
            out = function(x)
        out.backward(nd.NDArray(head))
        wanted = np.zeros((4, 10))
        np.put_along_axis(wanted, np.argsort(-x.asnumpy(), 1)[:, :3], head, 1)
        assert np.array_equal(x.grad.asnumpy(), wanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_searching(side: Any, rng: np.random.Generator) -> None:
    for dtype in ("float32", "int32"):
        x, values = awkward(rng, dtype, 200), awkward(rng, dtype, 7, 5)
        order = np.argsort(x, kind="stable")
        wanted = np.searchsorted(x[order], values, side)
        assert np.array_equal(both(lambda x, v: nd.searchsorted(x, v, side), x[order], values), wanted)
        found = nd.searchsorted(nd.NDArray(x), nd.NDArray(values), side, sorter=nd.NDArray(order))
        assert np.array_equal(found.asnumpy(), wanted)


def test_distinct_values(rng: np.random.Generator) -> None:
    x = rng.integers(0, 5, (4, 6))
    found = nd.unique_all(nd.NDArray(x))
    for mine, theirs in zip(found, np.unique(x, True, True, True)):
        assert np.array_equal(mine.asnumpy(), theirs.reshape(mine.shape))
    assert nd.unique([3, 1, 3]).tolist() == [1, 3]
    assert [p.tolist() for p in nd.nonzero(nd.array([[0.0, 2.0], [3.0, 0.0]]))] == [[0, 1], [1, 0]]
    for function in (lambda x: nd.unique_values(x), lambda x: nd.nonzero(x)[0]):
        with pytest.raises(
            Exception, match=r"\(the shape depends on values\) needs the values.*test_sequences.*nd.where"
        ):
            hybridize(function)(nd.NDArray(x))


# --- scans ------------------------------------------------------------------------------------------------------------
SCANS: dict[str, tuple[Callable[..., Any], Any]] = {
    "sum": (nd.cumsum, np.cumsum),
    "prod": (nd.cumprod, np.cumprod),
    "max": (nd.cumulative_max, np.maximum.accumulate),
    "min": (nd.cumulative_min, np.minimum.accumulate),
}


@pytest.mark.parametrize("name", SCANS)
def test_scans(name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, columns and blocks; the oracle is NumPy on float64, and any number of threads gives the same bits."""
    monkeypatch.setattr(bound, "worth_sharing", lambda nanoseconds: True)
    ours, theirs = SCANS[name]
    for shape, axis in [((3, 50), 1), ((2, 37, 5), 1), ((150_001,), 0), ((2, 40_000, 1), 1)]:
        x = rng.standard_normal(shape).astype(np.float32)
        if name == "prod":
            x = np.sign(x + 0.2) * (1 + x / 1000)
        for reverse in (False, True):
            turned = np.flip(x, axis) if reverse else x
            wanted = theirs(turned.astype(np.float64), axis=axis)
            wanted = np.flip(wanted, axis) if reverse else wanted
            compiled = hybridize(lambda x, axis=axis, reverse=reverse: ours(x, axis, reverse=reverse))
            found = []
            for threads in (1, 2, 8):
                with pool.num_threads(threads):
                    found.append(compiled(nd.NDArray(x)).asnumpy())
            assert all(np.array_equal(f, found[0]) for f in found)
            assert np.abs(found[0] - wanted).max() <= (5e-4 if name == "prod" else 2e-5) * np.abs(wanted).max()


def test_scans_of_special_values(rng: np.random.Generator) -> None:
    x = np.where(rng.random((40, 150)) < 0.01, np.nan, rng.standard_normal((40, 150))).astype(np.float32)
    x[3, 7], x[3, 90], x[4, 0] = np.inf, -np.inf, -0.0
    for ours, theirs in SCANS.values():
        with np.errstate(all="ignore"):
            wanted = theirs(x, axis=1)
        assert np.array_equal(np.isnan(both(lambda x, f=ours: f(x, 1), x)), np.isnan(wanted))
    assert np.signbit(both(lambda x: nd.cumsum(x, 1), x)[4, 0])


def test_what_scans_of_integers_give() -> None:
    x = np.array([[100, 100], [100, 27]], np.uint8)
    assert both(lambda x: nd.cumsum(x), x).tolist() == [100, 200, 300, 327]
    assert nd.cumsum(nd.NDArray(x)).dtype == np.uint64
    assert both(lambda x: nd.cumulative_sum(x, 1, include_initial=True), x > 50).tolist() == [[0, 1, 2], [0, 1, 1]]
    assert both(lambda x: nd.cumprod(x, 0, dtype="float32"), x).tolist() == [[100, 100], [10000, 2700]]
    assert both(lambda x: nd.cumulative_max(x, 1, reverse=True), x).tolist() == [[100, 100], [100, 27]]


def test_the_gradient_of_a_product_with_zeros(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 6))
    x[0, 2] = x[1, 1] = x[1, 4] = 0
    head = rng.standard_normal(x.shape)
    wanted = np.zeros_like(x)
    for i in range(6):  # d y[k] / d x[i], one factor left out
        others = x.copy()
        others[:, i] = 1
        wanted[:, i] = (head * np.cumprod(others, 1))[:, i:].sum(1)
    for function in (lambda x: nd.cumprod(x, 1), hybridize(lambda x: nd.cumprod(x, 1))):
        array = nd.NDArray(x)
        array.attach_grad()
        with autograd.record():
            y = function(array)
        y.backward(nd.NDArray(head))
        assert np.allclose(array.grad.asnumpy(), wanted)


# --- changes by index -------------------------------------------------------------------------------------------------
def test_changes_by_index(rng: np.random.Generator) -> None:
    for shape, axis, count in [((40, 6), 0, 30), ((3, 50, 300), 1, 70), ((5000,), 0, 9000), ((300, 700), 0, 100)]:
        x = rng.standard_normal(shape)
        index = rng.integers(-shape[axis], shape[axis], count)
        values = rng.standard_normal((*shape[:axis], count, *shape[axis + 1 :]))
        added, put = np.moveaxis(x.copy(), axis, 0), np.moveaxis(x.copy(), axis, 0)
        for i, value in zip(index, np.moveaxis(values, axis, 0)):
            added[i] += value
            put[i] = value
        out = both(lambda x, i, v, a=axis: nd.index_add(x, i, v, a), x, index, values)
        assert np.allclose(out, np.moveaxis(added, 0, axis))
        out = both(lambda x, i, v, a=axis: nd.index_update(x, i, v, a), x, index, values)
        assert np.array_equal(out, np.moveaxis(put, 0, axis))


def test_elements_by_index(rng: np.random.Generator) -> None:
    for shape, axis, count in [((4, 6), 1, 9), ((3, 50, 20), 1, 7), ((30_000,), 0, 40_000)]:
        x = rng.standard_normal(shape)
        size = shape[axis]
        lines = (*shape[:axis], count, *shape[axis + 1 :])
        index = rng.integers(-size, size, lines)
        values = rng.standard_normal(lines)
        out = both(lambda x, i, a=axis: nd.take_along_axis(x, i, a), x, index)
        assert np.array_equal(out, np.take_along_axis(x, index, axis))
        put, added = (np.moveaxis(x.copy(), axis, -1) for _ in range(2))
        for place in np.ndindex(*lines):
            line = tuple(p for i, p in enumerate(place) if i != axis)
            put[line][index[place]] = values[place]
            added[line][index[place]] += values[place]
        out = both(lambda x, i, v, a=axis: nd.put_along_axis(x, i, v, a), x, index, values)
        assert np.array_equal(out, np.moveaxis(put, -1, axis))
        out = both(lambda x, i, v, a=axis: nd.scatter_add(x, i, v, a), x, index, values)
        assert np.allclose(out, np.moveaxis(added, -1, axis))


def test_broadcast_and_coordinates(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 2))
    index = np.array([[[1], [0]]])
    out = both(lambda x, i: nd.take_along_axis(x, i, 1), x, index)
    assert np.array_equal(out, np.take_along_axis(x, np.broadcast_to(index, (3, 2, 2)), 1))
    assert (
        both(lambda x: nd.put_along_axis(x, nd.array([[[2]]]), 7.0, 1), x)[:, 2].tolist() == np.full((3, 2), 7).tolist()
    )
    where = np.array([[0, 2, -1], [3, 0, 1]])
    out = both(lambda x, i: nd.gather_nd(x, i), x, where)
    assert np.array_equal(out, x[where[0], where[1]])
    back = both(lambda v, i: nd.scatter_nd(v, i, (3, 4, 2)), out, where)
    wanted = np.zeros_like(x)
    np.add.at(wanted, (where[0], where[1]), out)
    assert np.allclose(back, wanted)
    assert both(lambda x: nd.index_update(x, [0, 0], 5, axis=1), x)[:, 0].tolist() == np.full((3, 2), 5).tolist()


def test_rolling(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 5))
    for shift, axis in [(2, None), (-1, 0), (7, 1), ((1, 2), (0, 1)), (0, 1), (2, (0, 1))]:
        wanted = np.roll(x, shift, axis)
        assert np.array_equal(both(lambda x, s=shift, a=axis: nd.roll(x, s, a), x), wanted)
