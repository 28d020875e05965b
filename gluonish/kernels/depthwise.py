"""Depthwise convolutions over NHWC images: every channel has a window of its own, weights (kh, kw, 1, channels).

    out[n, y, x, c] = sum over i, j of image[n, y * sy + i * dy - py, x * sx + j * dx - px, c] * weight[i, j, c]

Channels are the lanes. A block of neighbouring output pixels of a row stays in registers while the window's taps pass
by; rows and columns of taps that leave the image are left out. With the taps in turned order it is the data gradient of
a convolution of stride 1.

Deliberately not here: the usual windows (`depthwise_rows.py`); several outputs for each channel, the weight gradient,
and data gradients of other strides: those go by `conv.py`, group by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.epilogue import Epilogue, checked, operand_count, result_of
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.lanes import Lanes, i64, intrinsic_of, loop
from gluonish.kernels.tiling import ceil_div, tile_of

if TYPE_CHECKING:
    from gluonish.kernels.conv import Geometry

Shapes = list[tuple[int, ...]]
WORTH = 1 << 15  # multiply-adds of a tile that are worth a thread's while: about a microsecond
BLOCKS = ((8, 1), (4, 2), (2, 4), (1, 4))  # output pixels of a block, and vectors of channels at once

SOURCE = """
def depthwise(args, begin, end):
    image, weight, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, {out})
    extras, s = args + 16, args + 8 * {s}
    lines, height, width, channels = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    out_height, out_width, window_height, window_width = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6), load_i64(s, 7)
    y_stride, x_stride, y_pad, x_pad = load_i64(s, 8), load_i64(s, 9), load_i64(s, 10), load_i64(s, 11)
    y_step, x_step, turned, lines_block = load_i64(s, 12), load_i64(s, 13), load_i64(s, 14), load_i64(s, 15)
    pixel = channels * {size}
    direction = pixel if turned == 0 else -pixel
    # output columns at which the whole width of the window lies in the image
    inner_begin = (x_pad + x_stride - 1) // x_stride
    inner_end = min((width - 1 - (window_width - 1) * x_step + x_pad) // x_stride + 1, out_width)
    for line in range(begin * lines_block, min(end * lines_block, lines)):
        y = line % out_height * y_stride - y_pad
        i_begin = max((y_step - 1 - y) // y_step, 0)
        rows = min((height - y + y_step - 1) // y_step, window_height) - i_begin
        source_row = image + (line // out_height * height + y + i_begin * y_step) * width * pixel
        weights = weight + (0 if turned == 0 else window_height * window_width - 1) * pixel
        weights += i_begin * window_width * direction
        place = line * out_width * pixel
        x = 0
        while x < out_width:
            column = x * x_stride - x_pad
            source = source_row + column * pixel
            if (x >= inner_begin) & (x + 1 < inner_end):
                left = inner_end - x
                if left >= 8:
                    block_8(source, x_stride * pixel, y_step * width * pixel, x_step * pixel, weights,
                            window_width * direction, direction, rows, window_width, out, place + x * pixel, pixel,
                            channels, extras)
                    x += 8
                elif left >= 4:
                    block_4(source, x_stride * pixel, y_step * width * pixel, x_step * pixel, weights,
                            window_width * direction, direction, rows, window_width, out, place + x * pixel, pixel,
                            channels, extras)
                    x += 4
                else:
                    block_2(source, x_stride * pixel, y_step * width * pixel, x_step * pixel, weights,
                            window_width * direction, direction, rows, window_width, out, place + x * pixel, pixel,
                            channels, extras)
                    x += 2
            else:
                j_begin = max((x_step - 1 - column) // x_step, 0)
                columns = min((width - column + x_step - 1) // x_step, window_width) - j_begin
                block_1(source + j_begin * x_step * pixel, 0, y_step * width * pixel, x_step * pixel,
                        weights + j_begin * direction, window_width * direction, direction, rows, columns, out,
                        place + x * pixel, pixel, channels, extras)
                x += 1
"""


def depthwise_kernel(dtype: str, geometry: Geometry, epilogue: Epilogue = (), turned: bool = False) -> Kernel:
    """out = epilogue(depthwise convolution of image with weight).

    Inputs: image, weight, the epilogue's operands. Output: out. turned: as the data gradient of a convolution with
    stride 1; the geometry is that convolution's.

    Shapes: image (N, H, W, channels); weight (kh, kw, 1, channels); out (N, OH, OW, channels).
    """
    tile, epilogue = tile_of(dtype), checked(epilogue)
    inputs = 2 + operand_count(epilogue)
    source = SOURCE.format(out=inputs, s=inputs + 2, size=tile.size)
    externals = tuple(
        (f"block_{pixels}", "depthwise:block", (dtype, tile.lanes, pixels, vectors, epilogue))
        for pixels, vectors in BLOCKS
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        images, height, width, channels = ins[0]
        _, out_height, out_width, _ = outs[0]
        taps = geometry.kernel[0] * geometry.kernel[1]
        lines = images * out_height
        block = max(1, min(WORTH // max(1, out_width * channels * taps), ceil_div(lines, 8)))
        padding = geometry.padding
        if turned:
            reach = zip(geometry.kernel, geometry.dilation, padding, strict=True)
            padding = tuple(d * (k - 1) - p for k, d, p in reach)  # type: ignore[assignment]
        scalars = (lines, height, width, channels, out_height, out_width, *geometry.kernel, *geometry.stride, *padding)
        return Plan((*scalars, *geometry.dilation, int(turned), block), ceil_div(lines, block))

    return Kernel("depthwise", source, externals, plan)


def block(dtype: str, count: int, pixels: int, vectors: int, epilogue: Epilogue) -> Any:
    """The Numba intrinsic that computes a block of output pixels of one row, for all channels.

    Arguments: source, pixel_step, row_step, column_step: the address of the first pixel's first tap in the image, and
    the bytes from output pixel to output pixel, and from tap to tap; weights, their row_step and column_step; rows and
    columns of taps; out, offset, out_step: the address of the output, and in it the bytes to the first pixel and from
    pixel to pixel; channels; extras: the addresses of the epilogue's operands.
    """
    emitter = _Block(dtype, count, pixels, checked(epilogue))

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        emitter.emit(b, arguments, vectors)

    return intrinsic_of(14, emit)


class _Block:
    """Emits the code of one kind of block."""

    def __init__(self, dtype: str, count: int, pixels: int, epilogue: Epilogue) -> None:
        self.dtype, self.count, self.pixels, self.epilogue = dtype, count, pixels, epilogue
        self.fused = targets.current().fma

    def emit(self, b: ir.IRBuilder, arguments: list[ir.Value], vectors: int) -> None:
        """Groups of vectors, single vectors, and what is left under a mask."""
        lanes = self.lanes = Lanes(b, self.dtype, self.count)
        self.b, self.arguments = b, arguments
        channels = arguments[12]
        done: ir.Value = i64(0)
        for width in dict.fromkeys((vectors, 1)):
            step = width * self.count
            turns = b.sdiv(b.sub(channels, done), i64(step))

            def turn(index: ir.Value, held: Any, start: ir.Value = done, step: int = step, width: int = width) -> Any:
                self.group(b.add(start, b.mul(index, i64(step))), width, None)
                return []

            loop(b, turns, [], turn)
            done = b.add(done, b.mul(turns, i64(step)))
        rest = b.sub(channels, done)
        with b.if_then(b.icmp_signed(">", rest, i64(0))):
            self.group(done, 1, lanes.below(rest))

    def group(self, channel: ir.Value, vectors: int, mask: ir.Value | None) -> None:
        """All pixels of the block for some vectors of channels; three columns of taps, the usual, are unrolled."""
        with self.b.if_else(self.b.icmp_signed("==", self.arguments[8], i64(3))) as (usual, other):
            with usual:
                self.taps(channel, vectors, mask, 3)
            with other:
                self.taps(channel, vectors, mask, 0)

    def taps(self, channel: ir.Value, vectors: int, mask: ir.Value | None, known: int) -> None:
        """`group` for a number of columns that is known, or not (0)."""
        b, lanes = self.b, self.lanes
        source, pixel_step, row_step, column_step, weights, w_row, w_column, rows, columns = self.arguments[:9]
        shift = b.mul(channel, i64(lanes.size))
        width = self.count * lanes.size
        starts = [lanes.pointer(b.add(b.add(source, shift), b.mul(pixel_step, i64(p)))) for p in range(self.pixels)]
        first = lanes.pointer(b.add(weights, shift))

        def row(i: ir.Value, sums: list[ir.Value]) -> Sequence[ir.Value]:
            here, weight = b.mul(i, row_step), b.mul(i, w_row)

            def tap(j: ir.Value, sums: list[ir.Value]) -> Sequence[ir.Value]:
                at, of = b.add(here, b.mul(j, column_step)), b.add(weight, b.mul(j, w_column))
                result = []
                for v in range(vectors):
                    factor = lanes.load(lanes.at(lanes.at(first, of), v * width), mask)
                    for p, start in enumerate(starts):
                        value = lanes.load(lanes.at(lanes.at(start, at), v * width), mask)
                        result.append(lanes.fma(value, factor, sums[v * self.pixels + p], self.fused))
                return result

            if not known:
                return loop(b, columns, sums, tap)
            for j in range(known):
                sums = list(tap(i64(j), sums))
            return sums

        sums = loop(b, rows, [lanes.zero] * (vectors * self.pixels), row)
        for v in range(vectors):
            for p in range(self.pixels):
                self.finish(sums[v * self.pixels + p], p, b.add(shift, i64(v * width)), mask)

    def finish(self, value: ir.Value, pixel: int, shift: ir.Value, mask: ir.Value | None) -> None:
        """Stores one vector through the epilogue."""
        b, lanes = self.b, self.lanes
        out, offset, out_step, _, extras = self.arguments[9:]
        place = b.add(b.add(offset, b.mul(out_step, i64(pixel))), shift)
        if self.epilogue:
            table = lanes.pointer(extras)
            operands = [value]
            for i, kind in enumerate(self.epilogue[0]):
                base = lanes.pointer(lanes.integer(table, i))
                if kind == "scalar":
                    operands.append(lanes.broadcast(base))
                else:
                    operands.append(lanes.load(lanes.at(base, place if kind == "full" else shift), mask))
            value = result_of(self.epilogue, b, operands)
        lanes.store(value, lanes.at(lanes.pointer(out), place), mask)
