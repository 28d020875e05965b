"""Convolution against loops in float64 that read like its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd


def naive(x: np.ndarray, w: np.ndarray, stride: Any, pad: Any, dilation: Any, groups: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    o, per_group, kh, kw = w.shape
    oh, ow = ((x.shape[2 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    out = np.zeros((x.shape[0], o, oh, ow))
    for k in range(o):
        first = k // (o // groups) * per_group
        for i in range(oh):
            for j in range(ow):
                rows = slice(i * stride[0], i * stride[0] + dilation[0] * (kh - 1) + 1, dilation[0])
                columns = slice(j * stride[1], j * stride[1] + dilation[1] * (kw - 1) + 1, dilation[1])
                window = x[:, first : first + per_group, rows, columns]
                out[:, k, i, j] = (window * w[k]).sum((1, 2, 3))
    return out


CASES: list[Any] = [  # image, weight, stride, pad, dilation, groups
    ((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 3, 7, 8), (2, 3, 3, 2), (2, 3), (1, 0), (1, 1), 1),
    ((1, 2, 9, 9), (2, 2, 3, 3), (1, 2), (2, 2), (2, 3), 1),
    ((2, 4, 5, 5), (6, 2, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    ((2, 4, 5, 5), (4, 1, 3, 3), (2, 2), (1, 1), (1, 1), 4),
    ((2, 3, 4, 4), (5, 3, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 4, 4), (5, 3, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    ((1, 1, 1, 1), (1, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((0, 3, 5, 5), (2, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 2, 8, 5), (3, 2, 5, 4), (3, 2), (2, 2), (1, 1), 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_like_the_definition(case: Any, dtype: str, rng: np.random.Generator) -> None:
    image, weight, stride, pad, dilation, groups = case
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (image, weight, weight[:1]))
    out = nd.convolution(nd.array(x), nd.array(w), nd.array(b), stride, pad, dilation, groups)
    wanted = naive(x.astype(float), w.astype(float), stride, pad, dilation, groups) + b[:, None, None]
    assert out.shape == wanted.shape and out.dtype == np.dtype(dtype)
    assert np.allclose(out.asnumpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Any, rng: np.random.Generator) -> None:
    image, weight, stride, pad, dilation, groups = case
    x, w, b = (nd.array(rng.standard_normal(s)) for s in (image, weight, weight[:1]))
    for array in (x, w, b):
        array.attach_grad()
    with autograd.record():
        out = nd.convolution(x, w, b, stride, pad, dilation, groups)
    head = rng.standard_normal(out.shape)
    out.backward(nd.array(head))
    dx, dw = rng.standard_normal(image), rng.standard_normal(weight)
    rest = (stride, pad, dilation, groups)
    assert np.isclose(np.sum(x.grad.asnumpy() * dx), np.sum(naive(dx, w.asnumpy(), *rest) * head))  # it is linear
    assert np.isclose(np.sum(w.grad.asnumpy() * dw), np.sum(naive(x.asnumpy(), dw, *rest) * head))
    assert np.allclose(b.grad.asnumpy(), head.sum((0, 2, 3)))


def test_numbers_stand_for_pairs(rng: np.random.Generator) -> None:
    x, w = nd.array(rng.standard_normal((1, 2, 9, 9))), nd.array(rng.standard_normal((3, 2, 3, 3)))
    pairs = nd.convolution(x, w, stride=(2, 2), pad=(1, 1), dilation=(2, 2))
    assert np.array_equal(nd.convolution(x, w, stride=2, pad=1, dilation=2).asnumpy(), pairs.asnumpy())


def test_nan_reaches_the_windows_that_see_it() -> None:
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 0, 0] = np.nan
    out = nd.convolution(nd.array(x), nd.ones((1, 1, 3, 3)), pad=1).asnumpy()[0, 0]
    assert np.isnan(out[:2, :2]).all() and not np.isnan(out[2:]).any() and not np.isnan(out[:, 2:]).any()


X, W = (2, 3, 5, 5), (4, 3, 3, 3)
REFUSED: list[Any] = [
    ((3, 5, 5), W, {}, r"input \(3, 5, 5\) \(N, C, L\) expects a weight \(O, C, K\), got"),
    ((5, 5), W, {}, r"\(N, C, L\) or \(N, C, H, W\) or \(N, C, D, H, W\), got \(5, 5\)"),
    (X, (4, 3, 3), {}, r"a weight \(O, C, KH, KW\), got \(4, 3, 3\)"),
    (X, (4, 2, 3, 3), {}, "does not fit 3 channels in 1 group"),
    (X, W, {"groups": 2}, "does not fit"),
    (X, (4, 3, 7, 7), {}, "the window is larger than the image"),
    (X, W, {"stride": 0}, "no window with stride"),
    (X, W, {"pad": -1}, "no window with"),
    (X, W, {"dilation": 0}, "no window with"),
    (X, W, {"groups": 0}, "no window|does not fit"),
    (X, W, {"stride": (1, 1, 1)}, "stride must be an int or a pair of ints"),
    (X, W, {"pad": 0.5}, "pad must be an int or a pair of ints"),
    (X, W, {"stride": "ab"}, "stride must be"),
]


@pytest.mark.parametrize(("image", "weight", "more", "text"), REFUSED, ids=str)
def test_refusals(image: Any, weight: Any, more: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        nd.convolution(nd.ones(image), nd.ones(weight), **more)
    assert "test_convolution.py:" in str(caught.value)
