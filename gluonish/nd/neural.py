"""Functions of neural networks: convolution, pooling and dropout in Gluon's layouts.

Images are (N, C, H, W) to the user. The ops underneath work on channels-last memory, so a result is a permuted view of
it and a chain of these functions moves no data between layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import random
from gluonish.nd.array import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.ops.contract import conv_op
from gluonish.nd.ops.elementwise import greater_equal, where
from gluonish.nd.ops.move import permute_op
from gluonish.nd.ops.window import average_pool_op, max_pool_op

LAST = (0, 2, 3, 1)  # NCHW -> NHWC
FIRST = (0, 3, 1, 2)  # NHWC -> NCHW


def pair(value: Any, name: str) -> tuple[int, int]:
    """An int for both directions, or a pair of ints."""
    out = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(out) != 2 or not all(isinstance(v, (int, np.integer)) for v in out):
        raise ValueError(f"{name} must be an int or a pair of ints, got {value!r} ({user_line()})")
    return int(out[0]), int(out[1])


def _image(name: str, x: NDArray) -> None:
    if x.ndim != 4:
        raise ValueError(f"{name} expects images of shape (N, C, H, W), got {shape_text(x.shape)} ({user_line()})")


def convolution(
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None = None,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> NDArray:
    """2-D convolution (cross-correlation).

    Shapes: x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (N, O, OH, OW).
    Raises: ValueError if they do not fit.
    """
    _image("convolution", x)
    if weight.ndim != 4:
        raise ValueError(f"convolution expects a weight (O, C, KH, KW), got {shape_text(weight.shape)} ({user_line()})")
    attrs = {"stride": pair(stride, "stride"), "pad": pair(pad, "pad"), "dilation": pair(dilation, "dilation")}
    out = conv_op(permute_op(x, axes=LAST), permute_op(weight, axes=(2, 3, 1, 0)), groups=groups, **attrs)
    if bias is not None:
        out = out + bias
    return permute_op(out, axes=FIRST)


def max_pool(x: NDArray, kernel: Any, stride: Any = None, pad: Any = 0, ceil_mode: bool = False) -> NDArray:
    """The largest element of each window. Shapes: (N, C, H, W) -> (N, C, OH, OW)."""
    _image("max_pool", x)
    out = max_pool_op(permute_op(x, axes=LAST), **_window(kernel, stride, pad, ceil_mode))
    return permute_op(out, axes=FIRST)


def average_pool(
    x: NDArray,
    kernel: Any,
    stride: Any = None,
    pad: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> NDArray:
    """The mean of each window; padding counts as zeros unless told otherwise.

    Shapes: (N, C, H, W) -> (N, C, OH, OW).
    """
    _image("average_pool", x)
    window = _window(kernel, stride, pad, ceil_mode)
    out = average_pool_op(permute_op(x, axes=LAST), include_pad=count_include_pad, **window)
    return permute_op(out, axes=FIRST)


def _window(kernel: Any, stride: Any, pad: Any, ceil_mode: bool) -> dict[str, Any]:
    kernel = pair(kernel, "kernel")
    stride = kernel if stride is None else pair(stride, "stride")
    return {"kernel": kernel, "stride": stride, "pad": pair(pad, "pad"), "ceil": bool(ceil_mode)}


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
