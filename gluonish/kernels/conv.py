"""Convolutions over NHWC images with weights (kh, kw, cin / groups, cout), and their data and weight gradients.

    out[n, y, x, o] = sum over i, j, c of image[n, y * sy + i * dy - py, x * sx + j * dx - px, c] * weight[i, j, c, o]

Weights are packed first (`packing.pack_convolution_kernel`), so once for each version of them. Geometry is only in the
plan: every stride, padding, dilation and kernel size runs the same compiled code. The output must not share memory with
inputs. Sums run in one order whatever the number of threads and tiles.

Deliberately not here: how to walk (`window.py`, `weight_gradient.py`), Winograd (`winograd.py`), depthwise convolutions
(`depthwise.py`, `depthwise_rows.py`; here each group is treated as a convolution of its own).
"""

from __future__ import annotations

from dataclasses import dataclass

from gluonish.kernels import weight_gradient, window
from gluonish.kernels.epilogue import Epilogue
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.tiling import ceil_div, tile_of
from gluonish.kernels.window import Phase, Unit, Walk

Shapes = list[tuple[int, ...]]
Pair = tuple[int, int]
RUN_BELOW = 8  # channels below which a row of taps is one unit
LONGEST_RUN = window.ZEROS // 8  # numbers in such a row of taps: there must be as many zeros


@dataclass(frozen=True)
class Geometry:
    """How a window moves: kernel (kh, kw), stride, padding before the first row and column, dilation; groups."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def taps(self) -> list[Pair]:
        """Row and column of each tap, in the order of the weights."""
        return [(i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1])]


def conv2d_kernel(dtype: str, geometry: Geometry, epilogue: Epilogue = ()) -> Kernel:
    """out = epilogue(convolution of image with weight).

    Inputs: image, packed weight, the epilogue's operands. Output: out.

    Shapes: image (N, H, W, cin); packed weight (packed_convolution_size(weight, groups),); out (N, OH, OW, cout), where
    OH and OW may be anything: windows that leave the image read zeros.
    """

    tile = tile_of(dtype)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        return window.plan_of(_forward(geometry, ins[0], outs[0]), tile)

    return Kernel("convolution", *window.source_of(dtype, tile, epilogue), plan)


def conv2d_data_gradient_kernel(dtype: str, geometry: Geometry, epilogue: Epilogue = ()) -> Kernel:
    """The gradient of the image from that of the output; also the transposed convolution.

    Inputs: out's gradient, weight packed with `gradient=True`, the epilogue's operands. Output: the image's gradient.

    Shapes: out's gradient (N, OH, OW, cout); the image's (N, H, W, cin).
    """

    tile = tile_of(dtype)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        return window.plan_of(_backward(geometry, ins[0], outs[0]), tile)

    return Kernel("convolution", *window.source_of(dtype, tile, epilogue), plan)


def conv2d_weight_gradient_kernel(dtype: str, geometry: Geometry) -> Kernel:
    """The gradient of the weights from the image and the gradient of the output.

    Shapes: image (N, H, W, cin); out's gradient (N, OH, OW, cout); weight's (kh, kw, cin / groups, cout).
    """

    tile = tile_of(dtype)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        return weight_gradient.plan_of(_forward(geometry, ins[0], ins[1]), tile)

    return Kernel("weight_gradient", *weight_gradient.source_of(dtype, tile), plan)


def _forward(g: Geometry, image: tuple[int, ...], out: tuple[int, ...]) -> Walk:
    images, height, width, channels = image
    _, out_height, out_width, columns = out
    depth = channels // g.groups
    whole_rows = depth < RUN_BELOW and g.groups == 1 and g.dilation[1] == 1 and g.kernel[1] * depth <= LONGEST_RUN
    run = g.kernel[1] if whole_rows else 1
    units = [
        Unit(i * g.dilation[0] - g.padding[0], j * g.dilation[1] - g.padding[1], (i * g.kernel[1] + j) * depth)
        for i, j in g.taps()
        if j % run == 0
    ]
    phase = Phase(out_height, out_width, 0, out_width * columns, columns, tuple(units))
    rows, out_image = g.kernel[0] * g.kernel[1] * depth, out_height * out_width * columns
    return Walk(
        images, height, width, depth, columns // g.groups, g.groups, rows, run, g.stride, out_image, (phase,)
    )  # fmt: skip


def _backward(g: Geometry, gradient: tuple[int, ...], image: tuple[int, ...]) -> Walk:
    images, height, width, channels = gradient
    _, out_height, out_width, columns = image
    depth = channels // g.groups
    phases = []
    for y in range(min(g.stride[0], out_height)):
        for x in range(min(g.stride[1], out_width)):
            units = []
            for i, j in g.taps():
                from_y, from_x = y + g.padding[0] - i * g.dilation[0], x + g.padding[1] - j * g.dilation[1]
                if from_y % g.stride[0] == 0 and from_x % g.stride[1] == 0:
                    start = (i * g.kernel[1] + j) * depth
                    units.append(Unit(from_y // g.stride[0], from_x // g.stride[1], start))
            grid = ceil_div(out_height - y, g.stride[0]), ceil_div(out_width - x, g.stride[1])
            steps = (y * out_width + x) * columns, g.stride[0] * out_width * columns, g.stride[1] * columns
            phases.append(Phase(*grid, *steps, tuple(units)))
    rows, out_image = g.kernel[0] * g.kernel[1] * depth, out_height * out_width * columns
    return Walk(
        images, height, width, depth, columns // g.groups, g.groups, rows, 1, (1, 1), out_image, tuple(phases)
    )  # fmt: skip
