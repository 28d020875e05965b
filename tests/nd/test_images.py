"""Resizing against a matrix of weights made pixel by pixel, padding against NumPy: eager and hybridized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd


def weights(n: int, m: int, mode: str, align: bool) -> np.ndarray:
    """Row j: how much each of n inputs counts in output j of m, from the definition in real numbers."""
    out = np.zeros((m, n))
    for j in range(m):
        if mode == "nearest":
            out[j, min(int(np.floor(j * n / m + 1e-9)), n - 1)] = 1
        elif mode == "nearest-exact":
            out[j, min(int(np.floor((j + 0.5) * n / m + 1e-9)), n - 1)] = 1
        else:
            at = j * (n - 1) / (m - 1) if align and m > 1 else 0.0 if align else max((j + 0.5) * n / m - 0.5, 0.0)
            low = min(int(np.floor(at + 1e-9)), n - 1)
            out[j, low] += 1 - (at - low)
            out[j, min(low + 1, n - 1)] += at - low
    return out


MODES = [("bilinear", False), ("bilinear", True), ("nearest", False), ("nearest-exact", False)]


@pytest.mark.parametrize(("mode", "align"), MODES, ids=["half pixels", "corners", "nearest", "nearest-exact"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resize_and_its_gradient(mode: str, align: bool, layout: str, dtype: str, rng: np.random.Generator) -> None:
    def resized(x: Any) -> Any:
        return nd.resize(x, size, mode=mode, align_corners=align, layout=layout)

    for (h, w), size in [((5, 7), (8, 3)), ((1, 4), (6, 1)), ((6, 6), (3, 12)), ((3, 2), (3, 1100))]:
        a = rng.standard_normal((2, 3, h, w)).astype(dtype)
        rows, columns = weights(h, size[0], mode, align), weights(w, size[1], mode, align)
        head = rng.standard_normal((2, 3, *size)).astype(dtype)
        order = (0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1)
        wanted = np.einsum("ih,jw,nchw->ncij", rows, columns, a).transpose(order)
        slope = np.einsum("ih,jw,ncij->nchw", rows, columns, head).transpose(order)
        for function in (resized, gl.hybridize(resized)):
            x = nd.NDArray(a.transpose(order))  # not contiguous
            x.attach_grad()
            with autograd.record():
                y = function(x)
            y.backward(nd.array(head.transpose(order), dtype=dtype))
            tolerance = 1e-5 if dtype == "float32" else 1e-12
            np.testing.assert_allclose(y.asnumpy(), wanted, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(x.grad.asnumpy(), slope, rtol=tolerance * 100, atol=tolerance * 100)


def test_resize_of_whole_numbers_signals_and_volumes() -> None:
    x = nd.array(np.arange(6).reshape(1, 1, 6), dtype="uint8")
    for function in (nd.resize, gl.hybridize(nd.resize)):
        out = function(x, 4, mode="nearest", layout="NCW")
        assert out.dtype == np.uint8 and out.asnumpy().tolist() == [[[0, 1, 3, 4]]]
    assert nd.resize(nd.ones((1, 2, 3, 4, 5)), scale=(2, 1, 1.5), mode="trilinear", layout="NCDHW").shape == (
        1,
        2,
        6,
        4,
        7,
    )
    assert nd.bilinear_resize_2d(nd.array([[[[0.0, 3.0]]]]), 1, 4).tolist() == [[[[0.0, 1.0, 2.0, 3.0]]]]


def test_a_bad_pixel_stays_where_it_is() -> None:
    x = np.zeros((1, 1, 8, 8), np.float32)
    x[0, 0, 2, 2] = np.nan
    for function in (nd.resize, gl.hybridize(nd.resize)):
        lost = np.isnan(function(nd.array(x), 16).asnumpy())
        assert 9 <= lost.sum() <= 16 and not lost[0, 0, :3].any() and not lost[0, 0, 8:].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 4, "layout": "NCW"}, "layout 'NCW' does not fit"),
        ({}, "either size or scale"),
        ({"size": (2, 2, 2)}, "2 spatial axes"),
        ({"size": 4, "mode": "cubic"}, "unknown mode 'cubic'"),
        ({"size": 4, "mode": "nearest", "align_corners": True}, "align_corners"),
        ({"scale": -1}, "positive"),
        ({"size": 0}, "can become"),
        ({"size": 2.5}, "integers"),
    ],
)
def test_resize_says_what_is_wrong(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nd.resize(nd.ones((1, 1, 3, 3)), **arguments)
    with pytest.raises(ValueError, match="only floats"):
        nd.resize(nd.array([[[[1, 2]]]], dtype="int32"), 3)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_pad(mode: str, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 5)).astype("f4")
    for widths in (((0, 0), (2, 1)), ((1, 2), (3, 0)), ((0, 0), (0, 0))):
        for function in (nd.pad, gl.hybridize(nd.pad)):
            x = nd.array(a)
            x.attach_grad()
            with autograd.record():
                y = function(x, widths, mode=mode)
            y.backward()
            np.testing.assert_array_equal(y.asnumpy(), np.pad(a, widths, mode=mode))
            counts = np.pad(np.arange(1, 21).reshape(4, 5), widths, mode=mode).ravel()
            np.testing.assert_array_equal(x.grad.asnumpy().ravel(), np.bincount(counts, minlength=21)[1:])


def test_pad_says_what_is_wrong() -> None:
    x = nd.ones((2, 3))
    for mode, words in (("reflect", "cannot add 3"), ("round", "unknown mode 'round'")):
        with pytest.raises(ValueError, match=words):
            nd.pad(x, ((0, 0), (3, 0)), mode=mode)


@pytest.mark.parametrize("shape", [(3, 5), (33, 17), (130, 200), (3, 4099), (4099, 4), (2, 700), (700, 2), (37, 12)])
def test_transposes_of_every_kind_of_element(shape: tuple[int, int], rng: np.random.Generator) -> None:
    """Blocks, their edges, and a few elements side by side, in rows, columns and planes."""
    swapped = gl.hybridize(lambda x: x.transpose(0, 2, 1))
    for dtype in ("float32", "float64", "uint8", "int32", "bool", "float16"):
        a = (rng.standard_normal((2, *shape)) * 50).astype(dtype)
        np.testing.assert_array_equal(swapped(nd.array(a, dtype=dtype)).asnumpy(), a.transpose(0, 2, 1))


def test_every_order_of_four_dimensions(rng: np.random.Generator) -> None:
    from itertools import permutations

    a = rng.standard_normal((3, 20, 4, 18)).astype("f4")
    orders = list(permutations(range(4)))
    outs = gl.hybridize(lambda x: [x.transpose(order) for order in orders])(nd.array(a))
    for order, out in zip(orders, outs, strict=True):
        np.testing.assert_array_equal(out.asnumpy(), a.transpose(order))
