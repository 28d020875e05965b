"""Maximum and average pooling over NHWC images, and their gradients; vectors run over channels.

Windows are cut at the border of the image. Padding counts in an average only if `count_include_pad`, and then as far as
the padding goes: a window that hangs over it (as the last one may when the output's size is rounded up) counts what
lies in the image and its padding. The gradient of a maximum goes to the first one in the window, row by row, or to its
first NaN; it is found again from the image, so there is no array of indices.

Deliberately not here: global pooling, which is a reduction; rounding of output sizes, which the caller's shapes decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.tiling import ceil_div, tile_of

Shapes = list[tuple[int, ...]]
Pair = tuple[int, int]
TILE = 1 << 15  # bytes of the image that a tile of the pool reads, about


@dataclass(frozen=True)
class Window:
    """kernel (rows, columns), stride, padding on every side."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    count_include_pad: bool = True


HEAD = """
def {name}(args, begin, end):
    s = args + 8 * ({arrays} + 1)
    images, height, width, channels = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    out_height, out_width, lines = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6)
    kernel_y, kernel_x, stride_y, stride_x = load_i64(s, 7), load_i64(s, 8), load_i64(s, 9), load_i64(s, 10)
    pad_y, pad_x, include_pad = load_i64(s, 11), load_i64(s, 12), load_i64(s, 13)
    pixel = channels * {size}
"""
COUNT = """
{indent}if include_pad == 1:
{indent}    count = (min(y + kernel_y, height + pad_y) - y) * (min(x + kernel_x, width + pad_x) - x)
{indent}else:
{indent}    count = (y_end - y_begin) * (x_end - x_begin)
"""
FORWARD = """
    image, out = load_i64(args, 0), load_i64(args, 1)
    for line in range(begin * lines, min(end * lines, images * out_height)):
        y = line % out_height * stride_y - pad_y
        y_begin, y_end = max(y, 0), min(y + kernel_y, height)
        for out_x in range(out_width):
            x = out_x * stride_x - pad_x
            x_begin, x_end = max(x, 0), min(x + kernel_x, width)
            source = image + ((line // out_height * height + y_begin) * width + x_begin) * pixel
            place = out + (line * out_width + out_x) * pixel
            if (y_begin < y_end) & (x_begin < x_end):{treat}
            else:
                fill(place, channels)
"""
BACKWARD = """
    image, gradient, out = load_i64(args, 0), load_i64(args, {arrays} - 2), load_i64(args, {arrays} - 1)
    bands = (height + lines - 1) // lines
    for tile in range(begin, end):  # a band of rows of one image, written by nobody else
        number = tile // bands
        band_begin = tile % bands * lines
        band_end = min(band_begin + lines, height)
        fill(out + (number * height + band_begin) * width * pixel, (band_end - band_begin) * width * channels)
        first = max((band_begin + pad_y - kernel_y) // stride_y + 1, 0)
        for out_y in range(first, min((band_end - 1 + pad_y) // stride_y + 1, out_height)):
            y = out_y * stride_y - pad_y
            y_begin, y_end = max(y, 0), min(y + kernel_y, height)
            row_begin, row_end = max(band_begin - y_begin, 0), min(band_end, y_end) - y_begin
            for out_x in range(out_width):
                x = out_x * stride_x - pad_x
                x_begin, x_end = max(x, 0), min(x + kernel_x, width)
                place = ((number * height + y_begin) * width + x_begin) * pixel
                flow = gradient + ((number * out_height + out_y) * out_width + out_x) * pixel
                if (row_begin < row_end) & (x_begin < x_end):{treat}
"""
MAX = """
                window_max(source, width * pixel, pixel, y_end - y_begin, x_end - x_begin, channels, place)"""
MEAN = """
                window_mean(source, width * pixel, pixel, y_end - y_begin, x_end - x_begin, channels, place, count)"""
MAX_GRADIENT = """
                    window_max_gradient(image + place, width * pixel, pixel, y_end - y_begin, x_end - x_begin, channels,
                                        flow, out + place, row_begin, row_end)"""
MEAN_GRADIENT = """
                    window_mean_gradient(flow, width * pixel, pixel, row_end - row_begin, x_end - x_begin, channels,
                                         out + place + row_begin * width * pixel, count)"""


def max_pool2d_kernel(dtype: str, window: Window) -> Kernel:
    """out = the maximum of each window; NaN if one is in it, -Inf if it lies all in the padding.

    Shapes: image (N, H, W, C); out (N, OH, OW, C).
    """
    return _kernel("max_pool", dtype, window, FORWARD, "window_max", MAX, -math.inf)


def avg_pool2d_kernel(dtype: str, window: Window) -> Kernel:
    """out = the mean of each window; 0 if it lies all in the padding.

    Shapes: image (N, H, W, C); out (N, OH, OW, C).
    """
    return _kernel("avg_pool", dtype, window, FORWARD, "window_mean", COUNT.format(indent=" " * 16) + MEAN, 0.0)


def max_pool2d_gradient_kernel(dtype: str, window: Window) -> Kernel:
    """The gradient of the image: each window's goes to its first maximum, or its first NaN.

    Shapes: image (N, H, W, C); out's gradient (N, OH, OW, C); the image's gradient (N, H, W, C).
    """
    return _kernel("max_pool_gradient", dtype, window, BACKWARD, "window_max_gradient", MAX_GRADIENT, 0.0)


def avg_pool2d_gradient_kernel(dtype: str, window: Window) -> Kernel:
    """The gradient of the image: each window's is spread over its pixels.

    Shapes: out's gradient (N, OH, OW, C); the image's gradient (N, H, W, C).
    """
    treat = COUNT.format(indent=" " * 20) + MEAN_GRADIENT
    return _kernel("avg_pool_gradient", dtype, window, BACKWARD, "window_mean_gradient", treat, 0.0)


def _kernel(name: str, dtype: str, window: Window, body: str, visit: str, treat: str, empty: float) -> Kernel:
    backward = body is BACKWARD
    arrays = 3 if visit == "window_max_gradient" else 2
    source = (HEAD.rstrip() + body).format(name=name, arrays=arrays, size=tile_of(dtype).size, treat=treat)
    externals: tuple[External, ...] = (
        (visit, f"channels:{visit}", (dtype,)),
        ("fill", "channels:fill", (dtype, empty)),
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        image, out = (outs[0], ins[-1]) if backward else (ins[0], outs[0])
        return _plan(dtype, window, image, out, backward)

    return Kernel(name, source, externals, plan)


def _plan(dtype: str, window: Window, image: tuple[int, ...], out: tuple[int, ...], backward: bool) -> Plan:
    images, height, width, channels = image
    _, out_height, out_width, _ = out
    line = max(width * channels * tile_of(dtype).size, 1)
    if backward:  # windows that reach into two bands are searched twice
        lines = max(TILE // line, 2 * window.stride[0], 1)
        tiles = images * ceil_div(height, lines)
    else:
        lines = max(TILE // (line * window.stride[0]), 1)
        tiles = ceil_div(images * out_height, lines)
    sizes = (*image, out_height, out_width, lines)
    return Plan((*sizes, *window.kernel, *window.stride, *window.padding, int(window.count_include_pad)), tiles)
