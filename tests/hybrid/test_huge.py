"""Arrays of more than 2^31 elements, and of more than 4 GB: places are counted in 64 bits everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import nd
from gluonish.hybrid import compile_function

ROWS = (1 << 31) + 4099  # of one byte
FLOATS = (1 << 30) + 1027  # of four bytes: more than 4 GB
PLACES = [0, 1, 77, (1 << 30) - 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, -1, -2, -1000]


def memory_free() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def needs(gigabytes: int) -> pytest.MarkDecorator:
    free = memory_free() / 1e9
    return pytest.mark.skipif(free < gigabytes, reason=f"needs {gigabytes} GB of free memory; there are {free:.0f}")


def check(function: Callable[..., Any], *inputs: np.ndarray, wanted: Callable[[Any], Any]) -> None:
    """The compiled function's result against `wanted(place)` at some places."""
    out = compile_function(function)(*[nd.NDArray(x) for x in inputs]).asnumpy()
    flat = out.reshape(-1)
    for place in PLACES:
        if -flat.size <= place < flat.size:
            assert flat[place] == wanted(place % flat.size), (place, flat[place], wanted(place % flat.size))


@needs(9)
@pytest.mark.slow
def test_elementwise_on_more_than_2_31_elements() -> None:
    x = np.arange(ROWS, dtype=np.int8)  # wraps around
    check(lambda x: x + x + 1, x, wanted=lambda i: (2 * i + 1 + 128) % 256 - 128)


@needs(9)
@pytest.mark.slow
def test_a_transposed_copy_of_more_than_2_31_elements() -> None:
    rows, columns = (1 << 16) + 3, (1 << 15) + 1
    x = np.arange(rows * columns, dtype=np.int8).reshape(rows, columns)
    check(
        lambda x: nd.transpose(x, (1, 0)) + 0,
        x,
        wanted=lambda i: (((i % rows) * columns + i // rows + 128) % 256) - 128,
    )


@needs(10)
@pytest.mark.slow
def test_sums_and_extremes_of_more_than_4_gigabytes() -> None:
    x = np.ones(FLOATS, np.float32)
    x[-1], x[1 << 29] = 5, -3
    out = compile_function(lambda x: nd.max(x))(nd.NDArray(x))
    assert out.item() == 5
    assert compile_function(lambda x: nd.min(x))(nd.NDArray(x)).item() == -3
    total = compile_function(lambda x: x.sum())(nd.NDArray(x)).item()
    assert abs(total - FLOATS) < 1e-5 * FLOATS
    assert compile_function(lambda x: nd.argmax(x))(nd.NDArray(x)).item() == FLOATS - 1
    rows = x[: FLOATS - FLOATS % 4].reshape(-1, 4)
    sums = compile_function(lambda x: x.sum(1))(nd.NDArray(rows)).asnumpy()
    assert sums[1 << 27] == 0 and sums[0] == 4 and sums[-1] == 4


@needs(10)
@pytest.mark.slow
def test_rows_taken_from_beyond_4_gigabytes() -> None:
    width = 1027
    table = np.zeros((FLOATS // width + 9, width), np.float32)
    table[:, 0] = np.arange(len(table))
    index = np.array([0, 5, len(table) - 1, len(table) - 7, (1 << 30) // width])
    out = compile_function(lambda t, i: nd.take(t, i))(nd.NDArray(table), nd.NDArray(index)).asnumpy()
    np.testing.assert_array_equal(out[:, 0], index)


@needs(14)
@pytest.mark.slow
def test_a_product_with_rows_beyond_4_gigabytes(rng: np.random.Generator) -> None:
    rows = (1 << 26) + 37  # of 17 numbers: 4.6 GB
    x = np.zeros((rows, 17), np.float32)
    places = [0, 1, rows // 2, (1 << 30) // 17, (1 << 30) // 17 + 1, rows - 2, rows - 1]
    x[places] = rng.standard_normal((len(places), 17))
    w = rng.standard_normal((17, 5)).astype(np.float32)
    out = compile_function(lambda x, w: x @ w)(nd.NDArray(x), nd.NDArray(w)).asnumpy()
    np.testing.assert_allclose(out[places], x[places] @ w, rtol=1e-5, atol=1e-5)
    assert not out[rows // 3].any()
