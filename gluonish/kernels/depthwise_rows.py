"""Depthwise convolutions of the usual kind: no dilation along rows, short steps, at least a vector of channels.

The sums are those of `depthwise.py`, tap by tap in the same order. Here the width of the window and the stride along
rows are part of the code: a block of neighbouring outputs loads a column of the image once for all windows that hold
it. Rows follow each other for one vector of channels before the next vector comes, so that what neighbouring windows
share is still in the first cache. Columns that leave the image read zeros; rows that do are left out.

Where channels do not fill the last vector, it begins earlier and computes some of them again: no masks.

Deliberately not here: fewer channels than a vector, dilation along rows, steps wider than the window.
"""

from __future__ import annotations

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
WORTH = 1 << 16  # multiply-adds of a tile that are worth a thread's while
TILES = 32  # tiles that a large image has at least
BANDS = (14, 7, 4, 2, 1)  # rows of a tile: the taller, the fewer are read twice
WIDEST = 7  # columns of a window
HELD = 1 << 15  # bytes of the rows under a row of windows, which stay in the first cache

SOURCE = """
def depthwise(args, begin, end):
    image, weight, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, {out})
    extras, s, zero = args + 16, args + 8 * {s}, zeros()
    height, width, channels, out_height = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    out_width, window_height, window_width = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6)
    y_stride, y_pad, x_pad, y_step = load_i64(s, 7), load_i64(s, 8), load_i64(s, 9), load_i64(s, 10)
    turned, band, group, together = load_i64(s, 11), load_i64(s, 12), load_i64(s, 13), load_i64(s, 14)
    pixel = channels * {size}
    direction = pixel if turned == 0 else -pixel
    bands = (out_height + band - 1) // band
    vectors = (channels + {VL} - 1) // {VL}
    groups = (vectors + group - 1) // group
    for tile in range(begin, end):
        number = tile // (groups * bands)
        first_line = tile // groups % bands * band
        first_vector = tile % groups * group
        last_vector = min(first_vector + group, vectors)
        for begin_vector in range(first_vector, last_vector, together):
            for line in range(first_line, min(first_line + band, out_height)):
                y = line * y_stride - y_pad
                i_begin, rows = 0, window_height
                if y < 0:
                    i_begin = (y_step - 1 - y) // y_step
                if y + (window_height - 1) * y_step >= height:
                    rows = (height - y + y_step - 1) // y_step
                rows -= i_begin
                source = image + (number * height + y + i_begin * y_step) * width * pixel
                weights = weight + (0 if turned == 0 else window_height * window_width - 1) * pixel
                weights += i_begin * window_width * direction
                for vector in range(begin_vector, min(begin_vector + together, last_vector)):
                    shift = min(vector * {VL}, channels - {VL}) * {size}
                    row_of_outputs(source + shift, y_step * width * pixel, pixel, width, x_pad, zero,
                                   weights + shift, window_width * direction, direction, rows,
                                   out, (number * out_height + line) * out_width * pixel + shift, out_width, shift,
                                   extras)
"""


def serves(geometry: Geometry, channels: int, dtype: str) -> bool:
    """Whether this kernel can compute a depthwise convolution."""
    columns = geometry.kernel[1]
    return (
        geometry.dilation[1] == 1
        and geometry.stride[1] <= columns <= WIDEST
        and channels >= tile_of(dtype).lanes
    )  # fmt: skip


def depthwise_rows_kernel(dtype: str, geometry: Geometry, epilogue: Epilogue = (), turned: bool = False) -> Kernel:
    """`depthwise.depthwise_kernel` where `serves` says that this one can do it; the arguments are the same."""
    tile, epilogue = tile_of(dtype), checked(epilogue)
    inputs = 2 + operand_count(epilogue)
    source = SOURCE.format(out=inputs, s=inputs + 2, size=tile.size, VL=tile.lanes)
    columns, stride = geometry.kernel[1], geometry.stride[1]
    outputs = 8 if targets.current().registers >= 32 or columns <= 5 else 4
    externals = (
        ("row_of_outputs", "depthwise_rows:row_of_outputs", (dtype, tile.lanes, outputs, columns, stride, epilogue)),
        ("zeros", "microkernel:zeros", (tile.lanes * tile.size,)),
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        images, height, width, channels = ins[0]
        _, out_height, out_width, _ = outs[0]
        padding = geometry.padding
        if turned:
            reach = zip(geometry.kernel, geometry.dilation, padding, strict=True)
            padding = tuple(d * (k - 1) - p for k, d, p in reach)  # type: ignore[assignment]
        work = images * out_height * out_width * channels * geometry.kernel[0] * columns
        vectors = ceil_div(channels, tile.lanes)
        band, group = _blocks(images, out_height, vectors, min(TILES, work // WORTH))
        scalars = (height, width, channels, out_height, out_width, *geometry.kernel, geometry.stride[0], *padding)
        tiles = images * ceil_div(out_height, band) * ceil_div(vectors, group)
        held = geometry.kernel[0] * width * tile.lanes * tile.size
        together = min(max(1, HELD // max(1, held)), group)
        return Plan((*scalars, geometry.dilation[0], int(turned), band, group, together), tiles)

    return Kernel("depthwise", source, externals, plan)


def _blocks(images: int, out_height: int, vectors: int, wanted: int) -> tuple[int, int]:
    """Rows and vectors of channels in a tile of the pool."""
    for band in BANDS:
        bands = max(1, images * ceil_div(out_height, band))
        group = max(1, vectors * bands // max(1, wanted))
        if bands * ceil_div(vectors, group) >= wanted:
            break
    return band, min(group, vectors)


def row_of_outputs(dtype: str, count: int, outputs: int, columns: int, stride: int, epilogue: Epilogue) -> Any:
    """The Numba intrinsic that computes a row of outputs for one vector of channels.

    Arguments: source, row_step, pixel: the address of the image's row under the first row of taps, and the bytes from
    one row of taps to the next and from pixel to pixel; width of the image; pad: columns that the first window lies
    before the image; zero: address of a vector of zeros; weights, their row_step and column_step; rows of taps; out,
    offset: the address of the output, and in it the bytes to the row; out_width; shift: bytes to the channels in a
    pixel; extras: the addresses of the epilogue's operands.
    """
    emitter = _Row(dtype, count, outputs, columns, stride, checked(epilogue))
    return intrinsic_of(15, lambda b, arguments: emitter.emit(b, arguments), apart=True)


class _Row:
    """Emits the code of `row_of_outputs`."""

    def __init__(self, dtype: str, count: int, outputs: int, columns: int, stride: int, epilogue: Epilogue) -> None:
        self.dtype, self.count, self.epilogue = dtype, count, epilogue
        self.outputs, self.columns, self.stride = outputs, columns, stride
        self.span = (outputs - 1) * stride + columns  # columns of the image under a block of outputs
        self.fused = targets.current().fma

    def emit(self, b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        """Blocks of outputs: those whose windows lie in the image, and those that look at each column and output."""
        self.b, self.lanes = b, Lanes(b, self.dtype, self.count)
        self.source, self.row_step, self.pixel, self.width, self.pad, self.zero = arguments[:6]
        self.weights, self.weight_row, self.weight_column, self.rows = arguments[6:10]
        self.out, self.offset, self.out_width, self.shift, extras = arguments[10:]
        self.operands = self.fixed_operands(self.lanes.pointer(extras))

        def block(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            first = b.mul(turn, i64(self.outputs))
            column = b.sub(b.mul(first, i64(self.stride)), self.pad)
            inside = b.and_(
                b.icmp_signed(">=", column, i64(0)),
                b.icmp_signed("<=", b.add(column, i64(self.span)), self.width),
            )
            left = b.sub(self.out_width, first)
            whole = b.and_(inside, b.icmp_signed(">=", left, i64(self.outputs)))
            with b.if_else(whole) as (inner, edge):
                with inner:
                    self.finish(self.sums(column, None), first, None)
                with edge:
                    kept = [b.icmp_unsigned("<", b.add(column, i64(c)), self.width) for c in range(self.span)]
                    self.finish(self.sums(column, kept), first, left)
            return []

        loop(b, b.sdiv(b.add(self.out_width, i64(self.outputs - 1)), i64(self.outputs)), [], block)

    def fixed_operands(self, table: ir.Value) -> list[tuple[str, ir.Value]]:
        """The epilogue's operands: vectors where they are the same for all pixels, else pointers."""
        lanes, result = self.lanes, []
        for i, kind in enumerate(self.epilogue[0] if self.epilogue else ()):
            base = lanes.pointer(lanes.integer(table, i))
            if kind == "column":
                result.append((kind, lanes.load(lanes.at(base, self.shift))))
            else:
                result.append((kind, lanes.broadcast(base) if kind == "scalar" else base))
        return result

    def sums(self, column: ir.Value, kept: list[ir.Value] | None) -> list[ir.Value]:
        """The sums over all taps of a block of outputs. kept: which columns are in the image, if not all."""
        b, lanes = self.b, self.lanes
        begin = b.add(self.source, b.mul(column, self.pixel))

        def row(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            here, weight, *sums = held
            factors = [
                lanes.load(lanes.pointer(b.add(weight, b.mul(self.weight_column, i64(j))))) for j in range(self.columns)
            ]
            for c in range(self.span):
                uses = [(c - j) // self.stride for j in range(self.columns) if (c - j) % self.stride == 0]
                if not any(0 <= p < self.outputs for p in uses):
                    continue
                address = b.add(here, b.mul(self.pixel, i64(c)))
                if kept is not None:
                    address = b.select(kept[c], address, self.zero)
                value = lanes.load(lanes.pointer(address))
                for j in range(self.columns):
                    p, rest = divmod(c - j, self.stride)
                    if rest == 0 and 0 <= p < self.outputs:
                        sums[p] = lanes.fma(value, factors[j], sums[p], self.fused)
            return [b.add(here, self.row_step), b.add(weight, self.weight_row), *sums]

        return loop(b, self.rows, [begin, self.weights, *[lanes.zero] * self.outputs], row)[2:]

    def finish(self, sums: list[ir.Value], first: ir.Value, left: ir.Value | None) -> None:
        """Stores the outputs through the epilogue. left: how many exist, if not all."""
        b = self.b
        place = b.add(self.offset, b.mul(first, self.pixel))
        for p, value in enumerate(sums):
            at = b.add(place, b.mul(self.pixel, i64(p)))
            if left is None or p == 0:
                self.store(value, at)
            else:
                with b.if_then(b.icmp_signed("<", i64(p), left)):
                    self.store(value, at)

    def store(self, value: ir.Value, place: ir.Value) -> None:
        """Stores one vector, `place` bytes behind the output's begin."""
        lanes = self.lanes
        if self.epilogue:
            operands = [lanes.load(lanes.at(x, place)) if kind == "full" else x for kind, x in self.operands]
            value = result_of(self.epilogue, self.b, [value, *operands])
        lanes.store(value, lanes.at(lanes.pointer(self.out), place))
