"""Functions of neural networks: convolution, pooling and dropout in Gluon's layouts.

Signals are (N, C, L), images (N, C, H, W) and volumes (N, C, D, H, W) to the user. The ops underneath work on
channels-last images, so a result is a permuted view of their memory and a chain of these functions moves no data
between layouts. A signal is an image of height 1; a volume is a stack of images, its depth one of the images' places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import random
from gluonish.nd.array import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.functions import pad as padded
from gluonish.nd.op import Op
from gluonish.nd.ops.contract import conv_data_gradient_op, conv_op, window_size
from gluonish.nd.ops.elementwise import greater_equal, where
from gluonish.nd.ops.move import index_op, permute_op, reshape_op
from gluonish.nd.ops.window import average_pool_op, max_pool_op

LAYOUTS = {1: "N, C, L", 2: "N, C, H, W", 3: "N, C, D, H, W"}
WINDOWS = {1: "K", 2: "KH, KW", 3: "KD, KH, KW"}


def whole_numbers(value: Any, name: str, count: int) -> tuple[int, ...]:
    """An int for every direction, or one for each of `count`. Raises: ValueError for anything else."""
    out = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    if len(out) != count or not all(isinstance(v, (int, np.integer)) for v in out):
        many = {1: "or a tuple of one int", 2: "or a pair of ints"}.get(count, f"or {count} ints")
        raise ValueError(f"{name} must be an int {many}, got {value!r} ({user_line()})")
    return tuple(int(v) for v in out)


def _directions(name: str, x: NDArray, most: int = 3) -> int:
    """How many directions the windows move in."""
    if not 3 <= x.ndim <= 2 + most:
        forms = " or ".join(f"({LAYOUTS[n]})" for n in range(1, most + 1))
        raise ValueError(f"{name} expects an input of shape {forms}, got {shape_text(x.shape)} ({user_line()})")
    return x.ndim - 2


def _last(x: NDArray) -> NDArray:
    """Channels last."""
    return permute_op(x, axes=(0, *range(2, x.ndim), 1))


def _first(x: NDArray) -> NDArray:
    """Channels after the batch, where they are to the user."""
    return permute_op(x, axes=(0, x.ndim - 1, *range(1, x.ndim - 1)))


# --- convolution -----------------------------------------------------------------------------------------------------
def convolution(
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None = None,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> NDArray:
    """Convolution (cross-correlation) of signals, images or volumes.

    stride, pad, dilation: an int, or one per direction.

    Shapes: x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (N, O, OH, OW); likewise (N, C, L) with
    (O, C / groups, K), and (N, C, D, H, W) with (O, C / groups, KD, KH, KW).
    Raises: ValueError if they do not fit.
    """
    moves = _directions("convolution", x)
    weight = _taps("convolution", x, weight, "O, C")
    names = ("stride", "pad", "dilation")
    window = {name: whole_numbers(v, name, moves) for name, v in zip(names, (stride, pad, dilation))}
    out = (_signals, _images, _volumes)[moves - 1](_last(x), weight, {**window, "groups": groups})
    if bias is not None:
        out = out + bias
    return _first(out)


def _taps(name: str, x: NDArray, weight: NDArray, channels: str) -> NDArray:
    """The weight as the ops read it: (..., KH, KW, second, first)."""
    moves = x.ndim - 2
    if weight.ndim != x.ndim:
        raise ValueError(
            f"{name} of an input {shape_text(x.shape)} ({LAYOUTS[moves]}) expects a weight "
            f"({channels}, {WINDOWS[moves]}), got {shape_text(weight.shape)} ({user_line()})"
        )
    return permute_op(weight, axes=(*range(2, weight.ndim), 1, 0))


def _images(x: NDArray, weight: NDArray, window: dict[str, Any]) -> NDArray:
    return conv_op(x, weight, **window)


def _signals(x: NDArray, weight: NDArray, window: dict[str, Any]) -> NDArray:
    out = conv_op(_flat(x), reshape_op(weight, shape=(1, *weight.shape)), **_flat_window(window))
    return reshape_op(out, shape=(out.shape[0], *out.shape[2:]))


def _flat(x: NDArray) -> NDArray:
    """Signals (N, L, C) as images of height 1."""
    return reshape_op(x, shape=(x.shape[0], 1, *x.shape[1:]))


def _flat_window(window: dict[str, Any]) -> dict[str, Any]:
    still = {"kernel": 1, "stride": 1, "pad": 0, "dilation": 1}
    return {k: (still[k], *v) if k in still else v for k, v in window.items()}


def _volumes(x: NDArray, weight: NDArray, window: dict[str, Any]) -> NDArray:
    """The sum over the depth of the window of convolutions of images."""
    (stride, pad, dilation), images = _of_depth(window, "stride", "pad", "dilation")
    depths = int(weight.shape[0])
    deep = window_size(x.shape[1], depths, stride, pad, dilation)
    if min(stride, dilation) < 1 or pad < 0 or deep <= 0:
        raise ValueError(
            f"convolution: no window of depth {depths} with stride {stride}, padding {pad} and dilation {dilation} "
            f"fits {shape_text(x.shape)} (N, D, H, W, C) ({user_line()})"
        )
    x = _deeper(x, pad)
    total: Any = None
    for depth in range(depths):
        start = depth * dilation
        slices = slice(start, start + (deep - 1) * stride + 1, stride)
        part = index_op(x, key=(slice(None), slices, *[slice(None)] * 3))
        tap = index_op(weight, key=(depth, *[slice(None)] * 4))
        out = conv_op(reshape_op(part, shape=(x.shape[0] * deep, *x.shape[2:])), tap, **images)
        total = out if total is None else total + out
    return reshape_op(total, shape=(x.shape[0], deep, *total.shape[1:]))


def _of_depth(window: dict[str, Any], *names: str) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The numbers for the direction of depth, and the window over images that is left."""
    return tuple(window[name][0] for name in names), {k: v[1:] if k in names else v for k, v in window.items()}


def _deeper(x: NDArray, more: int) -> NDArray:
    """Volumes (N, D, H, W, C) with zeros before and after."""
    return padded(x, [(more, more) if axis == 1 else (0, 0) for axis in range(5)]) if more else x


def convolution_transpose(
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None = None,
    stride: Any = 1,
    pad: Any = 0,
    output_pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> NDArray:
    """What the gradient of a convolution with this weight is to its input, of signals or images: each element of x adds
    its multiple of the window to the result. Also called fractionally strided convolution, or deconvolution.

    output_pad: rows added at the end of the result, which the stride leaves open; less than the stride.

    Shapes: x (N, C, H, W), weight (C, O / groups, KH, KW), bias (O,) -> (N, O, OH, OW) with
    OH = (H - 1) stride - 2 pad + dilation (KH - 1) + 1 + output_pad; likewise (N, C, L) with (C, O / groups, K).
    Raises: ValueError if they do not fit.
    Source: Zeiler et al., "Deconvolutional networks", CVPR 2010.
    """
    moves = _directions("convolution_transpose", x, 2)
    taps = _taps("convolution_transpose", x, weight, "C, O")
    x = _last(x)
    names = ("stride", "pad", "output_pad", "dilation")
    given = zip(names, (stride, pad, output_pad, dilation))
    window: dict[str, Any] = {name: whole_numbers(value, name, moves) for name, value in given}
    more = window.pop("output_pad")
    if any(not 0 <= m < s for m, s in zip(more, window["stride"])):
        raise ValueError(
            f"convolution_transpose: output padding {more} must be at least 0 and less than the stride "
            f"{window['stride']} ({user_line()})"
        )
    sizes = [
        (x.shape[1 + i] - 1) * s - 2 * p + d * (taps.shape[i] - 1) + 1 + m
        for i, (s, p, d, m) in enumerate(zip(window["stride"], window["pad"], window["dilation"], more))
    ]
    if moves == 1:
        x, taps, window, sizes = _flat(x), reshape_op(taps, shape=(1, *taps.shape)), _flat_window(window), [1, *sizes]
    if any(size <= 0 for size in sizes):
        raise ValueError(
            f"convolution_transpose: padding {pad} leaves nothing of {shape_text(x.shape)} (N, H, W, C) with window "
            f"{shape_text(taps.shape[:2])} ({user_line()})"
        )
    out = conv_data_gradient_op(x, taps, size=tuple(sizes), groups=groups, **window)
    if moves == 1:
        out = reshape_op(out, shape=(out.shape[0], *out.shape[2:]))
    return _first(out if bias is None else out + bias)


# --- pooling ---------------------------------------------------------------------------------------------------------
def max_pool(x: NDArray, kernel: Any, stride: Any = None, pad: Any = 0, ceil_mode: bool = False) -> NDArray:
    """The largest element of each window, of signals, images or volumes. kernel, stride, pad: an int, or one per
    direction; ceil_mode: a last partial window counts.

    Shapes: (N, C, H, W) -> (N, C, OH, OW); likewise (N, C, L) and (N, C, D, H, W).
    """
    moves = _directions("max_pool", x)
    return _first(_pooled(max_pool_op, _last(x), _window(moves, kernel, stride, pad, ceil_mode)))


def average_pool(
    x: NDArray,
    kernel: Any,
    stride: Any = None,
    pad: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> NDArray:
    """The mean of each window, of signals, images or volumes; padding counts as zeros unless told otherwise.

    Shapes: (N, C, H, W) -> (N, C, OH, OW); likewise (N, C, L) and (N, C, D, H, W).
    """
    moves = _directions("average_pool", x)
    window = {**_window(moves, kernel, stride, pad, ceil_mode), "include_pad": count_include_pad}
    return _first(_pooled(average_pool_op, _last(x), window))


def _window(moves: int, kernel: Any, stride: Any, pad: Any, ceil_mode: bool) -> dict[str, Any]:
    kernel = whole_numbers(kernel, "kernel", moves)
    stride = kernel if stride is None else whole_numbers(stride, "stride", moves)
    return {"kernel": kernel, "stride": stride, "pad": whole_numbers(pad, "pad", moves), "ceil": bool(ceil_mode)}


def _pooled(op: Op, x: NDArray, window: dict[str, Any]) -> NDArray:
    """Pools channels-last x. A volume is pooled image by image, and what that gives along the depth: the largest of the
    largest, or the mean of means of equally many elements."""
    if x.ndim == 4:
        return op(x, **window)
    if x.ndim == 3:
        out = op(_flat(x), **_flat_window(window))
        return reshape_op(out, shape=(out.shape[0], *out.shape[2:]))
    (kernel, stride, pad), images = _of_depth(window, "kernel", "stride", "pad")
    batch, deep, channels = x.shape[0], x.shape[1], x.shape[4]
    flat = op(reshape_op(x, shape=(batch * deep, *x.shape[2:])), **images)
    height, width = flat.shape[1:3]
    column = {**window, "kernel": (kernel, 1), "stride": (stride, 1), "pad": (pad, 0)}
    out = op(reshape_op(flat, shape=(batch, deep, height * width, channels)), **column)
    return reshape_op(out, shape=(batch, out.shape[1], height, width, channels))


# --- dropout ---------------------------------------------------------------------------------------------------------
def dropout(x: NDArray, rate: float) -> NDArray:
    """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate), in any mode.

    Source: Srivastava et al., "Dropout", JMLR 15 (2014), in the inverted form.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be in [0, 1), got {rate} ({user_line()})")
    if rate == 0:
        return x
    keep = greater_equal(random.uniform(shape=x.shape), rate)
    return where(keep, x * (1 / (1 - rate)), 0.0)
