"""Short rows go side by side and very long ones in chunks: the same answers as eager mode, whatever the sizes ask for.

The oracle of floats is eager mode on float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hybrid.test_rows import ROWS, agrees, numbers
from hybrid.test_thread_counts import same_bits

from gluonish import loss, nd
from gluonish.hybrid import bound, hybridize
from gluonish.kernels import long_rows, pool
from gluonish.kernels.row_loops import GROUP, SHORT

LENGTHS = (2, 3, 16, 17, 100, SHORT)
COUNTS = (16, GROUP, 2 * GROUP + 3)


@pytest.mark.parametrize("name", ["softmax", "layer norm", "several folds"])
def test_rows_side_by_side(name: str, rng: np.random.Generator) -> None:
    spread = 16 * np.arange(
        SHORT, dtype=np.float32
    )  # the variance of a few numbers that are nearly equal has no digits
    function = hybridize(ROWS[name])
    for length in LENGTHS:
        for count in COUNTS:
            agrees(function, numbers(rng, count, length) + (spread[:length] if length < 5 else 0))


def test_rows_side_by_side_of_doubles_and_with_sums_down_the_columns(rng: np.random.Generator) -> None:
    agrees(ROWS["layer norm"], numbers(rng, 77, 19, dtype="float64"))
    scale = rng.standard_normal((130, 11)).astype(np.float32)
    agrees(lambda x: nd.sum(nd.softmax(x) * nd.NDArray(scale), 0) + nd.sum(x * x, 0), numbers(rng, 130, 11))


def test_one_function_for_short_and_long_rows(rng: np.random.Generator) -> None:
    function = hybridize(lambda x: nd.softmax(x))
    for shape in ((40, 7), (40, SHORT + 1), (15, 7), (40, 8), (0, 7), (40, 1)):
        x = numbers(rng, *shape)
        assert np.allclose(function(nd.NDArray(x)).asnumpy(), nd.softmax(nd.NDArray(x)).asnumpy(), 1e-5, 1e-7)
    shown = function.kernels(nd.NDArray(numbers(rng, 40, 7)))[0].source
    assert "of 2 to 128 elements: rows_" in shown


def test_a_replaced_kernel_is_for_all_sizes(rng: np.random.Generator) -> None:
    function = hybridize(lambda x: nd.softmax(x) * 2)
    x = nd.NDArray(numbers(rng, 40, 7))
    wanted = function(x).asnumpy()
    [kernel] = function.kernels(x)
    kernel.replace(kernel.source.replace("outer = d0", "outer = d0 * 1"))
    assert "_abreast(" not in kernel.step.kernel.name and kernel.step.aside is None
    assert np.allclose(function(x).asnumpy(), wanted, 1e-5, 1e-7)


def test_results_and_their_sums_down_the_columns(rng: np.random.Generator) -> None:
    def both(x: Any) -> Any:
        y = nd.softmax(x) * 2.0 - 0.25  # the exponentials are kept where this goes
        return y, nd.sum(y, 0)

    x = nd.NDArray(numbers(rng, 130, 10))
    for eager, compiled in zip(both(x), hybridize(both)(x), strict=True):
        assert np.allclose(eager.asnumpy(), compiled.asnumpy(), 1e-5, 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_special_values_stay_in_their_short_row(value: float, rng: np.random.Generator) -> None:
    x = numbers(rng, 70, 9)
    x[1, 4] = x[69, 0] = value
    x[40] = value
    for name in ("softmax", "log softmax", "layer norm"):
        with np.errstate(all="ignore"):
            eager = ROWS[name](nd.NDArray(x)).asnumpy()
        hybrid = hybridize(ROWS[name])(nd.NDArray(x)).asnumpy()
        assert np.allclose(hybrid, eager, 1e-4, 1e-5, equal_nan=True)
        assert np.isfinite(np.delete(hybrid, [1, 40, 69], 0)).all()


def test_labels_of_short_rows(rng: np.random.Generator) -> None:
    criterion = loss.SoftmaxCrossEntropyLoss()
    x, labels = numbers(rng, 150, 10), rng.integers(0, 10, 150)
    array = nd.NDArray(labels)
    agrees(lambda x: criterion(x, array), x)
    fast = hybridize(lambda x, y: criterion(x, y))
    assert np.allclose(fast(nd.NDArray(x), array).asnumpy(), criterion(nd.NDArray(x), array).asnumpy(), 1e-4, 1e-5)
    labels[131] = 10
    with pytest.raises(IndexError, match=r"10.*131|131.*10"):
        fast(nd.NDArray(x), nd.NDArray(labels))


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_places_of_extremes(dtype: str, rng: np.random.Generator) -> None:
    for name in ("argmax", "argmin"):
        functions = {axis: hybridize(lambda x, name=name, axis=axis: getattr(nd, name)(x, axis)) for axis in (0, 1)}
        for shape in ((16, 2), (130, 16), (17, SHORT), (3000, 33), (70_000, 3), (2, 140_000)):
            x = rng.integers(-9, 9, shape).astype(dtype)  # with many equals, of which the first counts
            if dtype == "float32":
                x.flat[rng.integers(0, x.size, 3)] = np.nan
            for axis, function in functions.items():
                assert np.array_equal(function(nd.NDArray(x)).asnumpy(), getattr(np, name)(x, axis)), (shape, axis)


@pytest.fixture
def small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_rows, "LEAST", 4000)


@pytest.mark.usefixtures("small_cuts")
@pytest.mark.parametrize("name", ["softmax", "two costly values"])
def test_long_rows_in_chunks(name: str, rng: np.random.Generator) -> None:
    function = hybridize(ROWS[name])
    agrees(function, numbers(rng, 2, 40_003))
    agrees(function, numbers(rng, 2, 37))
    assert len(function.kernels(nd.NDArray(numbers(rng, 2, 40_003)))) >= 3


@pytest.mark.usefixtures("small_cuts")
def test_special_values_in_long_rows(rng: np.random.Generator) -> None:
    for name in ("softmax", "log softmax"):
        function = hybridize(ROWS[name])
        for value in (np.nan, np.inf, -np.inf):
            x = numbers(rng, 3, 50_000)
            x[1, 100:45_000] = x[2] = value  # whole chunks, and a whole row
            with np.errstate(all="ignore"):
                eager = ROWS[name](nd.NDArray(x)).asnumpy()
            assert np.allclose(function(nd.NDArray(x)).asnumpy(), eager, 1e-4, 1e-7, equal_nan=True)


@pytest.mark.usefixtures("small_cuts")
def test_same_bits_for_all_numbers_of_threads(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "worth_sharing", lambda nanoseconds: True)
    arrays = [nd.NDArray(numbers(rng, *shape)) for shape in ((1, 150_001), (3001, 10), (200, 100))]

    def both(x: Any) -> Any:
        return nd.softmax(x) + x.sum(-1, keepdims=True), nd.argmax(x, 1)

    function = hybridize(both)
    with pool.num_threads(1):
        same_bits(lambda: [y.asnumpy() for x in arrays for y in function(x)], "rows side by side and in chunks")
