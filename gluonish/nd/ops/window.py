"""Pooling over windows of channels-last images (N, H, W, C).

Max pooling is "select": it takes, per window, the element of one array at the place where another is largest (the
first of equals; NaN counts as largest). Selecting and its transpose, spreading, are each other's gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text
from gluonish.nd.op import Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops.contract import Pair, patches
from gluonish.nd.size import SizeLike


def pooled_size(size: SizeLike, kernel: int, stride: int, pad: int, ceil: bool) -> SizeLike:
    """How many windows fit along one dimension; with `ceil` a last partial window counts if it starts inside."""
    span = size + 2 * pad - kernel
    if not ceil:
        return span // stride + 1
    count = (span + stride - 1) // stride + 1
    return count - 1 if (count - 1) * stride >= size + pad else count


def _pooled(x: Any, kernel: Pair, stride: Pair, pad: Pair, ceil: bool, op: str) -> Spec:
    """What pooling x gives; x is a Spec or an array."""
    if len(x.shape) != 4:
        raise refuse(op, "needs a 4-dimensional image batch", x)
    if min(*kernel, *stride) < 1 or min(pad) < 0:
        raise refuse(op, f"no window {kernel} with stride {stride} and padding {pad}", x)
    if any(2 * p > k for p, k in zip(pad, kernel)):
        raise refuse(op, f"padding {pad} is more than half of the window {kernel}", x)
    oh, ow = (pooled_size(x.shape[1 + i], kernel[i], stride[i], pad[i], ceil) for i in (0, 1))
    if oh <= 0 or ow <= 0:
        raise refuse(op, f"the window {kernel} is larger than the image with padding {pad}", x)
    return Spec((x.shape[0], oh, ow, x.shape[3]), x.dtype)


def _same_shape(op: str, what: str, given: Any, wanted: Any) -> None:
    if len(given.shape) != len(wanted.shape) or any(a != b for a, b in zip(given.shape, wanted.shape)):
        raise refuse(op, f"{what} must have shape {shape_text(wanted.shape)}", given)


def _select_rule(values: Any, x: Any, **a: Any) -> Spec:
    _same_shape("max_pool_select", "the values", values, x)
    return Spec(_pooled(x, op="max_pool_select", **a).shape, values.dtype)


def _spread_rule(g: Any, x: Any, **a: Any) -> Spec:
    _same_shape("max_pool_spread", "the gradient", g, _pooled(x, op="max_pool_spread", **a))
    return Spec(x.shape, g.dtype)


def _average_spread_rule(g: Any, size: Pair, include_pad: bool, **a: Any) -> Spec:
    if len(g.shape) != 4:
        raise refuse("average_pool_spread", "needs a 4-dimensional gradient", g)
    x = Spec((g.shape[0], *size, g.shape[3]), g.dtype)
    _same_shape("average_pool_spread", "the gradient", g, _pooled(x, op="average_pool_spread", **a))
    return x


def _lowest(dtype: np.dtype) -> Any:
    return -np.inf if is_float(dtype) else False if dtype.kind == "b" else np.iinfo(dtype).min


def _windows(x: np.ndarray, kernel: Pair, stride: Pair, pad: Pair, ceil: bool, fill: Any, op: str = "") -> np.ndarray:
    """(N, OH, OW, KH*KW, C); what lies outside the image is `fill`."""
    oh, ow = _pooled(x, kernel, stride, pad, ceil, op).shape[1:3]
    more = [max(0, (o - 1) * s + k - n - 2 * p) for o, s, k, n, p in zip((oh, ow), stride, kernel, x.shape[1:3], pad)]
    x = np.pad(x, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), constant_values=fill)
    out = patches(x, kernel, stride, pad, (1, 1), fill)[:, :oh, :ow]
    return out.reshape(*out.shape[:3], kernel[0] * kernel[1], out.shape[5])


def _winner(x: np.ndarray, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> np.ndarray:
    """Per window and channel, the position in the window of its first largest element."""
    return np.argmax(_windows(x, kernel, stride, pad, ceil, _lowest(x.dtype)), 3)[:, :, :, None]


def _max_forward(x: np.ndarray, **a: Any) -> np.ndarray:
    return _windows(x, fill=_lowest(x.dtype), op="max_pool", **a).max(3)


def _select_forward(values: np.ndarray, x: np.ndarray, **a: Any) -> np.ndarray:
    _select_rule(values, x, **a)
    return np.take_along_axis(_windows(values, fill=0.0, **a), _winner(x, **a), 3)[:, :, :, 0]


def _add_windows(parts: np.ndarray, shape: tuple[int, ...], kernel: Pair, stride: Pair, pad: Pair) -> np.ndarray:
    """Adds windows (N, OH, OW, KH*KW, C) back into an image batch of the given shape."""
    n, oh, ow, _, c = parts.shape
    reach = [max(s + 2 * p, (o - 1) * t + k) for s, p, o, t, k in zip(shape[1:3], pad, (oh, ow), stride, kernel)]
    out = np.zeros((n, *reach, c), parts.dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows, cols = slice(i, i + stride[0] * oh, stride[0]), slice(j, j + stride[1] * ow, stride[1])
            out[:, rows, cols] += parts[:, :, :, i * kernel[1] + j]
    return out[:, pad[0] : pad[0] + shape[1], pad[1] : pad[1] + shape[2]]


def _spread_forward(g: np.ndarray, x: np.ndarray, kernel: Pair, stride: Pair, pad: Pair, ceil: bool) -> np.ndarray:
    _spread_rule(g, x, kernel=kernel, stride=stride, pad=pad, ceil=ceil)
    parts = np.zeros((*g.shape[:3], kernel[0] * kernel[1], g.shape[3]), g.dtype)
    np.put_along_axis(parts, _winner(x, kernel, stride, pad, ceil), g[:, :, :, None], 3)
    return _add_windows(parts, x.shape, kernel, stride, pad)


def _counts(x: np.ndarray, kernel: Pair, stride: Pair, pad: Pair, ceil: bool, include_pad: bool) -> np.ndarray:
    """How many elements each window averages over: (1, OH, OW, 1)."""
    ones = np.ones((1, *x.shape[1:3], 1), x.dtype)
    if include_pad:  # padding counts, what a ceil-mode window reaches beyond it does not
        ones = np.pad(ones, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)), constant_values=1)
        oh, ow = _pooled(x, kernel, stride, pad, ceil, "average_pool").shape[1:3]
        more = [max(0, (o - 1) * s + k - n) for o, s, k, n in zip((oh, ow), stride, kernel, ones.shape[1:3])]
        ones = np.pad(ones, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
        return patches(ones, kernel, stride, (0, 0), (1, 1))[:, :oh, :ow].sum((3, 4))
    return _windows(ones, kernel, stride, pad, ceil, 0.0).sum(3)


def _average_forward(x: np.ndarray, include_pad: bool, **a: Any) -> np.ndarray:
    return _windows(x, fill=0.0, op="average_pool", **a).sum(3) / _counts(x, include_pad=include_pad, **a)


def _average_spread_forward(g: np.ndarray, size: Pair, include_pad: bool, **a: Any) -> np.ndarray:
    _average_spread_rule(g, size, include_pad, **a)
    kernel = a["kernel"]
    shape = (g.shape[0], int(size[0]), int(size[1]), g.shape[3])
    share = g / _counts(np.empty(shape[:3] + (1,), g.dtype), include_pad=include_pad, **a)
    parts = np.repeat(share[:, :, :, None], kernel[0] * kernel[1], 3)
    return _add_windows(parts, shape, kernel, a["stride"], a["pad"])


def _attrs() -> list[dict[str, Any]]:
    return [
        {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0), "ceil": False},
        {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1), "ceil": False},
        {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 0), "ceil": True},
    ]


def _image(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape or (2, 6, 5, 3)).astype(np.float32)


def _select_sample(rng: np.random.Generator) -> list[Sample]:
    return [Sample((_image(rng), _image(rng)), a) for a in _attrs()]


def _spread_sample(rng: np.random.Generator) -> list[Sample]:
    return [Sample((_max_forward(_image(rng), **a), _image(rng)), a) for a in _attrs()]


max_pool_op = register(
    Op(
        "max_pool",
        "window",
        quiet(_max_forward),
        lambda x, **a: _pooled(x, op="max_pool", **a),
        (lambda g, y, x, **a: max_spread_op(g, x, **a),),
        doc="The largest element of each window. Shapes: (N, H, W, C) -> (N, OH, OW, C).",
        sample=lambda rng: [Sample((_image(rng),), a) for a in _attrs()],
    )
)
max_select_op = register(
    Op(
        "max_pool_select",
        "window",
        quiet(_select_forward),
        _select_rule,
        (lambda g, y, values, x, **a: max_spread_op(g, x, **a), None),
        doc="Per window, the element of `values` where x is largest.",
        sample=_select_sample,
    )
)
max_spread_op: Op = register(
    Op(
        "max_pool_spread",
        "window",
        quiet(_spread_forward),
        _spread_rule,
        (lambda h, y, g, x, **a: max_select_op(h, x, **a), None),
        doc="Zeros with each window's g added where x is largest in the window: the gradient of max pooling.",
        sample=_spread_sample,
    )
)
average_pool_op = register(
    Op(
        "average_pool",
        "window",
        quiet(_average_forward),
        lambda x, include_pad, **a: _pooled(x, op="average_pool", **a),
        (lambda g, y, x, **a: average_spread_op(g, size=(x.shape[1], x.shape[2]), **a),),
        accepts="float",
        doc="The mean of each window; padding counts with `include_pad`. Shapes: (N, H, W, C) -> (N, OH, OW, C).",
        sample=lambda rng: [Sample((_image(rng),), {**a, "include_pad": p}) for a in _attrs() for p in (True, False)],
    )
)
average_spread_op: Op = register(
    Op(
        "average_pool_spread",
        "window",
        quiet(_average_spread_forward),
        _average_spread_rule,
        (lambda h, y, g, size, **a: average_pool_op(h, **a),),
        accepts="float",
        doc="Each g shared evenly over its window: the gradient of average pooling.",
        sample=lambda rng: [
            Sample((_average_forward(_image(rng), include_pad=p, **a),), {"size": (6, 5), **a, "include_pad": p})
            for a in _attrs()
            for p in (True, False)
        ],
    )
)
