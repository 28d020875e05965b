"""Loops along rows and down columns: softmax, norms, losses and reductions of awkward sizes and values, in few kernels.

The oracle is eager mode on float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, loss, nd, nn
from gluonish.hybrid import hybridize
from gluonish.kernels import pool

Function = Callable[[nd.NDArray], nd.NDArray]


def layer_norm(x: Any) -> Any:
    return nd.normalize(x, axes=(x.ndim - 1,), epsilon=1e-5) * 1.5 + 0.25


def batch_norm(x: Any) -> Any:
    return nd.normalize(x, axes=tuple(range(x.ndim - 1)), epsilon=1e-5) * 1.5


ROWS: dict[str, Function] = {
    "softmax": lambda x: nd.softmax(x),
    "log softmax": lambda x: nd.log_softmax(x * 2),
    "layer norm": layer_norm,
    "several folds": lambda x: (
        nd.exp(x - x.max(-1, keepdims=True)) * x.min(-1, keepdims=True) + x.sum(-1, keepdims=True)
    ),
    "two costly values": lambda x: (
        nd.exp(x) / nd.exp(x).sum(-1, keepdims=True) - nd.tanh(x) * nd.tanh(x).mean(-1, True)
    ),
}
COLUMNS: dict[str, Function] = {
    "batch norm": batch_norm,
    "variance": lambda x: nd.var(x, 0),
    "sums": lambda x: nd.sum(x * x, 0) + nd.max(x, 0) - nd.min(nd.abs(x), 0),
    "everything": lambda x: (x * x).sum() + x.max() * nd.var(x),
}


def numbers(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def value_and_gradient(function: Function, x: np.ndarray, head: Any = None) -> tuple[np.ndarray, np.ndarray]:
    array = nd.NDArray(x)
    array.attach_grad()
    with autograd.record():
        out = function(array)
    if head is None:
        head = np.cos(np.arange(out.size)).reshape(out.shape)
    out.backward(nd.NDArray(head.astype(out.dtype)))
    return out.asnumpy(), array.grad.asnumpy()


def agrees(function: Function, x: np.ndarray) -> None:
    """Hybrid values and gradients are those of eager mode, up to the rounding of the dtype."""
    wanted = value_and_gradient(function, x.astype(np.float64))
    for found, exact in zip(value_and_gradient(hybridize(function), x), wanted, strict=True):
        assert found.dtype == x.dtype and found.shape == exact.shape
        scale = np.abs(exact).max(initial=1.0)
        tolerance = 2e-5 if x.dtype == np.float32 else 1e-12
        assert np.allclose(found / scale, exact / scale, rtol=0, atol=tolerance), np.abs(found - exact).max() / scale


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 1003])
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_any_length(name: str, length: int, rng: np.random.Generator) -> None:
    x = numbers(rng, 5, length)
    agrees(ROWS[name], x + apart(length) if length < 5 else x)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 3), (17, 1), (1030, 3), (67, 130), (5, 2051), (3, 4, 5)])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_any_shape(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = numbers(rng, *shape)
    agrees(COLUMNS[name], x + apart(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) if shape[0] < 5 else x)


def apart(count: int) -> np.ndarray:
    """Steps between a few numbers: the variance of two that are nearly equal would magnify their rounding."""
    return 4 * np.arange(count, dtype=np.float32)


@pytest.mark.parametrize("name", [*ROWS, *COLUMNS])
def test_float64(name: str, rng: np.random.Generator) -> None:
    agrees({**ROWS, **COLUMNS}[name], numbers(rng, 37, 19, dtype="float64"))


@pytest.mark.parametrize("shape", [(0, 5), (0, 1)])
@pytest.mark.parametrize("name", ROWS)
def test_no_rows(name: str, shape: tuple[int, ...]) -> None:
    out, gradient = value_and_gradient(hybridize(ROWS[name]), np.zeros(shape, np.float32))
    assert out.shape == gradient.shape == shape


def test_empty_columns_are_what_numpy_says() -> None:
    x = np.zeros((0, 3), np.float32)
    assert np.isnan(hybridize(lambda a: nd.var(a, 0))(nd.NDArray(x)).asnumpy()).all()
    assert hybridize(lambda a: a.sum(0))(nd.NDArray(x)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["softmax", "log softmax", "layer norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_special_values_stay_in_their_row(name: str, value: float, rng: np.random.Generator) -> None:
    x = numbers(rng, 4, 37)
    x[1, 20] = value
    x[3] = value
    with np.errstate(all="ignore"):
        eager = ROWS[name](nd.NDArray(x)).asnumpy()
    hybrid = hybridize(ROWS[name])(nd.NDArray(x)).asnumpy()
    assert np.array_equal(np.isnan(hybrid), np.isnan(eager))
    assert np.allclose(hybrid, eager, 1e-5, 1e-5, equal_nan=True)
    assert np.isfinite(hybrid[[0, 2]]).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_an_extreme_of_a_row_with_nan_is_nan(axis: int, rng: np.random.Generator) -> None:
    x = numbers(rng, 40, 40)
    x[7, 9] = np.nan
    for name in ("max", "min"):
        found = hybridize(lambda a, name=name: getattr(nd, name)(a, axis))(nd.NDArray(x)).asnumpy()
        assert np.array_equal(found, getattr(np, name)(x, axis), equal_nan=True)


@pytest.mark.parametrize("shape", [(3000, 5), (3000, 300), (2, 3, 900, 2)])
def test_a_variance_far_from_zero_keeps_its_digits(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """The mean is 10,000 times the deviation: the mean square minus the squared mean would have no digit left."""
    x = (numbers(rng, *shape, dtype="float64") + 1e4).astype(np.float32)
    for axes in {(0,), tuple(sorted({0, len(shape) - 2})), tuple(range(len(shape) - 1)), None}:
        found = hybridize(lambda a, axes=axes: nd.var(a, axes))(nd.NDArray(x)).asnumpy()
        assert np.allclose(found, x.astype(np.float64).var(axes), rtol=1e-3, atol=1e-3)


def test_an_outlier_first_does_not_spoil_a_variance(rng: np.random.Generator) -> None:
    x = numbers(rng, 5000, 3)
    x[0] = 1e4
    found = hybridize(lambda a: nd.var(a, 0))(nd.NDArray(x)).asnumpy()
    assert np.allclose(found, x.astype(np.float64).var(0), rtol=1e-5)


@pytest.mark.slow
def test_one_long_row(rng: np.random.Generator) -> None:
    for name in ("softmax", "layer norm"):
        agrees(ROWS[name], numbers(rng, 1, 1_000_003))


# --- lookups ----------------------------------------------------------------------------------------------------------
def cross_entropy(labels: np.ndarray, **options: Any) -> Function:
    block = loss.SoftmaxCrossEntropyLoss(**options)
    return lambda x: block(x, nd.NDArray(labels))


@pytest.mark.parametrize("shape", [(1, 1), (4, 10), (3, 5, 17), (33, 1003)])
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float32"])
def test_cross_entropy(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    labels = rng.integers(0, min(shape[-1], 256), shape[:-1]).astype(dtype)
    agrees(cross_entropy(labels), numbers(rng, *shape))


def test_cross_entropy_of_distributions(rng: np.random.Generator) -> None:
    labels = nd.softmax(nd.NDArray(numbers(rng, 6, 33, dtype="float64"))).asnumpy()
    agrees(cross_entropy(labels, sparse_label=False), numbers(rng, 6, 33))


def test_a_label_out_of_range_is_named(rng: np.random.Generator) -> None:
    for bad in (10, -1):
        labels = np.array([1, 2, bad, 3])
        block = loss.SoftmaxCrossEntropyLoss()
        block.hybridize()
        with pytest.raises(IndexError, match=f"label {bad} at position 2"):
            block(nd.NDArray(numbers(rng, 4, 10)), nd.NDArray(labels))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_a_pick_in_a_row_checks_its_index(dtype: str, rng: np.random.Generator) -> None:
    function = hybridize(lambda x, i: nd.pick(nd.softmax(x), i))
    x = nd.NDArray(numbers(rng, 2, 3, 7))
    good = np.array([[0, 6, 3], [1, 2, 5]], dtype)
    assert np.allclose(function(x, nd.NDArray(good)).asnumpy(), nd.pick(nd.softmax(x), nd.NDArray(good)).asnumpy())
    bad = good.copy()
    bad[1, 2] = 7
    with pytest.raises(IndexError, match=r"pick: index 7 at position \(1, 2\) is out of range for size 7"):
        function(x, nd.NDArray(bad))
    assert np.isfinite(function(x, nd.NDArray(good)).asnumpy()).all()  # the error does not stay


def test_one_hot_joins_its_neighbours(rng: np.random.Generator) -> None:
    x, index = numbers(rng, 5, 9), np.array([0, -1, 8, 3, -9])
    function = lambda a: (nd.one_hot(nd.NDArray(index), 9) - nd.softmax(a)) * 2  # noqa: E731
    agrees(function, x)
    assert len(hybridize(function).kernels(nd.NDArray(x))) <= 2  # the row's, and what is captured alone


# --- how many kernels -------------------------------------------------------------------------------------------------
def count(function: Any, *arrays: nd.NDArray) -> int:
    return len(hybridize(function).kernels(*arrays))


def test_chains_that_meet_are_one_kernel(rng: np.random.Generator) -> None:
    x, y = nd.NDArray(numbers(rng, 6, 8)), nd.NDArray(numbers(rng, 6, 8))
    assert count(lambda a, b: (nd.exp(a) + 1) * (nd.tanh(b) - a), x, y) == 1
    assert count(lambda a, b: (nd.exp(a), nd.tanh(a)), x, y) == 1
    assert count(lambda a, b: (nd.exp(a), nd.tanh(b)), x, y) == 2  # nothing to share


def test_losses_and_norms_are_few_kernels(rng: np.random.Generator) -> None:
    x, labels = nd.NDArray(numbers(rng, 6, 8)), nd.NDArray(np.arange(6))
    block = loss.SoftmaxCrossEntropyLoss()
    assert count(lambda a, b: block(a, b), x, labels) == 1
    net = nn.LayerNorm(in_channels=8)
    net.initialize()
    net.hybridize()
    assert len(net.kernels(x)) == 1
    x.attach_grad()
    with autograd.record():
        out = net(x)
    out.backward()
    [variant] = [v for v in net._compiled.variants if v.backward is not None]
    names = [step.name for step in variant.backward.program().steps]
    assert len(names) == 2 and names[1] == "combine_columns"  # gradients of gamma and beta come with that of x


def test_values_computed_twice_are_written_once(rng: np.random.Generator) -> None:
    """What a reduction down columns computes again is not written on its behalf."""
    x = nd.NDArray(numbers(rng, 50, 8))
    kernels = hybridize(lambda a: (lambda c: c * nd.rsqrt((c * c).mean(0) + 1))(a - a.mean(0))).kernels(x)
    whole = [
        w for call in kernels for w in call.step.writes if w.kind == "op" and len(w.shape) == 2 and w.shape[0] != 1
    ]
    assert len(whole) == 1


@pytest.mark.parametrize("name", ["layer norm", "batch norm", "sums"])
def test_threads_change_no_bit(name: str, rng: np.random.Generator) -> None:
    function = {**ROWS, **COLUMNS}[name]
    x = numbers(rng, 700, 300)
    before = pool.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            pool.set_num_threads(threads)
            found.append(value_and_gradient(hybridize(function), x))
    finally:
        pool.set_num_threads(before)
    for values, gradient in found[1:]:
        assert np.array_equal(values, found[0][0]) and np.array_equal(gradient, found[0][1])


# --- positions of extremes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(5,), (4, 17), (3, 16, 5), (2, 3, 2100), (7, 1, 3)])
def test_positions_of_extremes(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 5, shape).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(shape) < 0.1] = np.nan
        x[rng.random(shape) < 0.1] = np.inf
    for axis in range(len(shape)):
        for name in ("argmax", "argmin"):
            found = hybridize(lambda a, name=name, axis=axis: getattr(nd, name)(a, axis))(nd.NDArray(x)).asnumpy()
            assert np.array_equal(found, getattr(np, name)(x, axis)), (name, axis)


def test_dropout_beside_rows_draws_the_same_numbers(rng: np.random.Generator) -> None:
    x = nd.NDArray(numbers(rng, 33, 1025))

    def function(a: Any) -> Any:
        return nd.dropout(nd.softmax(a), 0.3) + nd.dropout(a, 0.5)

    from gluonish.nd import random

    random.seed(5)
    eager = function(x).asnumpy()
    random.seed(5)
    assert np.allclose(hybridize(function)(x).asnumpy(), eager, 1e-5, 1e-6)
