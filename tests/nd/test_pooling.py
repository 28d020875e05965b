"""Pooling against loops: padding, ceil mode, what counts in a mean, NaN, integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd


def naive(x: np.ndarray, kernel: Any, stride: Any, pad: Any, ceil: bool, how: str) -> np.ndarray:
    n, c, h, w = x.shape
    sizes = []
    for size, k, s, p in zip((h, w), kernel, stride, pad):
        count = (math.ceil if ceil else math.floor)((size + 2 * p - k) / s) + 1
        if ceil and (count - 1) * s >= size + p:  # a window that starts in the far padding
            count -= 1
        sizes.append(count)
    out = np.zeros((n, c, *sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            top, left = i * stride[0] - pad[0], j * stride[1] - pad[1]
            rows = slice(max(0, top), min(h, top + kernel[0]))
            columns = slice(max(0, left), min(w, left + kernel[1]))
            window = x[:, :, rows, columns]
            padded = (min(h + pad[0], top + kernel[0]) - top) * (min(w + pad[1], left + kernel[1]) - left)
            if how == "max":
                out[:, :, i, j] = window.max((2, 3))
            else:
                out[:, :, i, j] = window.sum((2, 3)) / (padded if how == "all" else window.shape[2] * window.shape[3])
    return out


CASES: list[Any] = [  # image, kernel, stride, pad
    ((2, 3, 6, 6), (2, 2), (2, 2), (0, 0)),
    ((1, 2, 7, 5), (3, 2), (2, 1), (1, 1)),
    ((2, 1, 5, 5), (3, 3), (2, 2), (1, 1)),
    ((1, 1, 5, 5), (2, 2), (3, 3), (0, 0)),
    ((1, 2, 4, 4), (4, 4), (1, 1), (0, 0)),
    ((1, 1, 1, 1), (2, 2), (2, 2), (1, 1)),
    ((1, 1, 8, 8), (3, 3), (3, 3), (1, 0)),
    ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0)),
]


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_like_the_definition(case: Any, ceil: bool, rng: np.random.Generator) -> None:
    image, kernel, stride, pad = case
    a = rng.standard_normal(image).astype(np.float32)
    x = nd.array(a)
    for how, out in (
        ("max", nd.max_pool(x, kernel, stride, pad, ceil)),
        ("all", nd.average_pool(x, kernel, stride, pad, ceil)),
        ("inside", nd.average_pool(x, kernel, stride, pad, ceil, count_include_pad=False)),
    ):
        wanted = naive(a, kernel, stride, pad, ceil, how)
        assert out.shape == wanted.shape and out.dtype == np.float32
        assert np.allclose(out.asnumpy(), wanted, atol=1e-6), how


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("how", ["max", "all", "inside"])
def test_gradients(case: Any, ceil: bool, how: str, rng: np.random.Generator) -> None:
    image, kernel, stride, pad = case
    x = nd.array(rng.standard_normal(image))
    x.attach_grad()
    with autograd.record():
        if how == "max":
            out = nd.max_pool(x, kernel, stride, pad, ceil)
        else:
            out = nd.average_pool(x, kernel, stride, pad, ceil, how == "all")
    head = rng.standard_normal(out.shape)
    out.backward(nd.array(head))
    step = 1e-7 * rng.standard_normal(image)
    ends = [np.sum(naive(x.asnumpy() + sign * step, kernel, stride, pad, ceil, how) * head) for sign in (1, -1)]
    assert np.isclose(np.sum(x.grad.asnumpy() * step), (ends[0] - ends[1]) / 2, rtol=1e-5, atol=1e-12)


def test_the_first_of_equals_gets_the_gradient() -> None:
    x = nd.zeros((1, 1, 2, 2))
    x.attach_grad()
    with autograd.record():
        out = nd.max_pool(x, 2)
    out.backward()
    assert x.grad.tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


def test_nan_and_infinity() -> None:
    a = np.arange(16.0, dtype=np.float32).reshape(1, 1, 4, 4)
    a[0, 0, 0, 0], a[0, 0, 3, 3] = np.nan, -np.inf
    for out in (nd.max_pool(nd.array(a), 2), nd.average_pool(nd.array(a), 2)):
        assert np.isnan(out.asnumpy()[0, 0]).tolist() == [[True, False], [False, False]]
    assert nd.average_pool(nd.array(a), 2)[0, 0, 1, 1].item() == -np.inf
    assert nd.max_pool(nd.full((1, 1, 3, 3), -np.inf), 3, 1, 1).asnumpy().max() == -np.inf


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool"])
def test_integers(dtype: str, rng: np.random.Generator) -> None:
    a = rng.integers(-9 if dtype[0] == "i" else 0, 2, (1, 2, 5, 5)).astype(dtype)
    out = nd.max_pool(nd.array(a), 3, 2, 1)
    assert out.dtype == np.dtype(dtype)
    assert np.array_equal(out.asnumpy(), naive(a, (3, 3), (2, 2), (1, 1), False, "max"))
    assert nd.average_pool(nd.array(a), 2).dtype == np.float32


def test_strides_are_the_window_by_default() -> None:
    assert nd.max_pool(nd.ones((1, 1, 6, 9)), (2, 3)).shape == (1, 1, 3, 3)


REFUSED: list[Any] = [
    ((2, 3), {"kernel": 2}, r"input of shape \(N, C, L\) or \(N, C, H, W\)"),
    ((1, 1, 4, 4), {"kernel": 5}, r"the window \(5, 5\) is larger than the image"),
    ((1, 1, 4, 4), {"kernel": 3, "pad": 2}, "padding .* is more than half of the window"),
    ((1, 1, 4, 4), {"kernel": 2, "stride": 0}, "no window"),
    ((1, 1, 4, 4), {"kernel": 0}, "no window"),
    ((1, 1, 4, 4), {"kernel": 2, "pad": -1}, "no window"),
    ((1, 1, 4, 4), {"kernel": 2.5}, "kernel must be an int or a pair"),
]


@pytest.mark.parametrize(("image", "more", "text"), REFUSED, ids=str)
def test_refusals(image: Any, more: Any, text: str) -> None:
    for function in (nd.max_pool, nd.average_pool):
        with pytest.raises(ValueError, match=text) as caught:
            function(nd.ones(image), **more)
        assert "test_pooling.py:" in str(caught.value) and function.__name__ in str(caught.value) or "kernel" in text
