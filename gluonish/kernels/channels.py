"""Walks of a window channel by channel: emitters, used as Numba intrinsics, for pooling over NHWC memory.

A window is `rows` x `columns` pixels, both at least 1, that all lie in the image; `row_step` and `pixel_step` are in
bytes. Each intrinsic treats all channels of one window: four vectors at a time while there are that many, then one by
one, the last under a mask.

Deliberately not here: where windows lie (`pooling.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gluonish.kernels.lanes import I32, Lanes, i64, intrinsic_of, loop
from gluonish.kernels.tiling import tile_of

Values = list[Any]
WIDE = 4  # vectors at a time


class _Window:
    """One window and a group of `vectors` vectors of channels, `offset` bytes into a pixel."""

    def __init__(self, lanes: Lanes, arguments: Values, vectors: int, offset: Any, mask: Any) -> None:
        self.lanes, self.b, self.vectors, self.offset, self.mask = lanes, lanes.builder, vectors, offset, mask
        self.row_step, self.pixel_step, self.rows, self.columns = arguments

    def load(self, address: ir.Value) -> Values:
        start = self.lanes.at(self.lanes.pointer(address), self.offset)
        return [self.lanes.load(self.lanes.at(start, self._step(v)), self.mask) for v in range(self.vectors)]

    def store(self, values: Values, address: ir.Value) -> None:
        start = self.lanes.at(self.lanes.pointer(address), self.offset)
        for v, value in enumerate(values):
            self.lanes.store(value, self.lanes.at(start, self._step(v)), self.mask)

    def _step(self, v: int) -> int:
        return v * self.lanes.count * self.lanes.size

    def walk(self, carried: Values, visit: Callable[[ir.Value, ir.Value, Values], Values]) -> Values:
        """Goes through the pixels in order; visit(byte offset, number of the pixel, values) gives the next values."""
        b = self.b

        def row(y: ir.Value, values: Values) -> Values:
            start, number = b.mul(y, self.row_step), b.mul(y, self.columns)

            def pixel(x: ir.Value, values: Values) -> Values:
                return visit(b.add(start, b.mul(x, self.pixel_step)), b.add(number, x), values)

            return loop(b, self.columns, values, pixel)

        return loop(b, self.rows, carried, row)


def _over_channels(dtype: str, builder: ir.IRBuilder, arguments: Values, channels: ir.Value, treat: Any) -> None:
    """Emits treat(window) for groups of vectors until all channels are done."""
    b, lanes = builder, Lanes(builder, dtype, tile_of(dtype).lanes)
    wide = lanes.count * WIDE
    groups = b.sdiv(channels, i64(wide))

    def group(turn: ir.Value, held: Values) -> Values:
        treat(_Window(lanes, arguments, WIDE, b.mul(turn, i64(wide * lanes.size)), None))
        return []

    loop(b, groups, [], group)
    done = b.mul(groups, i64(wide))

    def single(turn: ir.Value, held: Values) -> Values:
        first = b.add(done, b.mul(turn, i64(lanes.count)))
        treat(_Window(lanes, arguments, 1, b.mul(first, i64(lanes.size)), lanes.below(b.sub(channels, first))))
        return []

    loop(b, b.sdiv(b.add(b.sub(channels, done), i64(lanes.count - 1)), i64(lanes.count)), [], single)


def _greater(b: ir.IRBuilder, x: ir.Value, best: ir.Value) -> ir.Value:
    """Where x takes the place of the best so far: it is greater, or the first NaN."""
    return b.and_(b.fcmp_unordered(">", x, best), b.fcmp_ordered("ord", best, best))


def window_max(dtype: str) -> Any:
    """(source, row_step, pixel_step, rows, columns, channels, place): the maximum; NaN if there is one."""

    def emit(b: ir.IRBuilder, arguments: Values) -> None:
        source, *geometry, channels, place = arguments

        def treat(window: _Window) -> None:
            def visit(offset: ir.Value, number: ir.Value, best: Values) -> Values:
                values = window.load(b.add(source, offset))
                return [b.select(_greater(b, x, y), x, y) for x, y in zip(values, best, strict=True)]

            window.store(window.walk(window.load(source), visit), place)

        _over_channels(dtype, b, geometry, channels, treat)

    return intrinsic_of(7, emit)


def window_mean(dtype: str) -> Any:
    """(source, row_step, pixel_step, rows, columns, channels, place, divisor): the sum / divisor (an integer)."""

    def emit(b: ir.IRBuilder, arguments: Values) -> None:
        source, *geometry, channels, place, divisor = arguments

        def treat(window: _Window) -> None:
            lanes = window.lanes

            def visit(offset: ir.Value, number: ir.Value, sums: Values) -> Values:
                return [b.fadd(x, y) for x, y in zip(window.load(b.add(source, offset)), sums, strict=True)]

            sums = window.walk([lanes.zero] * window.vectors, visit)
            count = lanes.splat(b.sitofp(divisor, lanes.number), lanes.vector)
            window.store([b.fdiv(x, count) for x in sums], place)

        _over_channels(dtype, b, geometry, channels, treat)

    return intrinsic_of(8, emit)


def window_max_gradient(dtype: str) -> Any:
    """Adds a window's gradient at its first maximum, or its first NaN.

    Arguments: source, row_step, pixel_step, rows, columns, channels, gradient (of the output, at the window), place (of
    the window in the gradient of the image), row_begin, row_end (only these rows of the window are written).
    """

    def emit(b: ir.IRBuilder, arguments: Values) -> None:
        source, *geometry, channels, gradient, place, row_begin, row_end = arguments

        def treat(window: _Window) -> None:
            lanes, n = window.lanes, window.vectors
            kind = ir.VectorType(I32, lanes.count)

            def visit(offset: ir.Value, number: ir.Value, held: Values) -> Values:
                best, first = held[:n], held[n:]
                values = window.load(b.add(source, offset))
                greater = [_greater(b, x, y) for x, y in zip(values, best, strict=True)]
                here = lanes.splat(b.trunc(number, I32), kind)
                best = [b.select(g, x, y) for g, x, y in zip(greater, values, best, strict=True)]
                return best + [b.select(g, here, i) for g, i in zip(greater, first, strict=True)]

            found = window.walk(window.load(source) + [ir.Constant(kind, [0] * lanes.count)] * n, visit)[n:]
            flow = window.load(gradient)
            written = _part(window, row_begin, row_end)

            def give(offset: ir.Value, number: ir.Value, held: Values) -> Values:
                number = b.add(number, b.mul(row_begin, window.columns))
                address = b.add(b.add(place, offset), b.mul(row_begin, window.row_step))
                here = lanes.splat(b.trunc(number, I32), kind)
                share = [
                    b.select(b.icmp_signed("==", i, here), g, lanes.zero) for i, g in zip(found, flow, strict=True)
                ]
                window.store([b.fadd(x, y) for x, y in zip(window.load(address), share, strict=True)], address)
                return []

            written.walk([], give)

        _over_channels(dtype, b, geometry, channels, treat)

    return intrinsic_of(10, emit)


def window_mean_gradient(dtype: str) -> Any:
    """(gradient, row_step, pixel_step, rows, columns, channels, place, divisor): adds gradient / divisor everywhere."""

    def emit(b: ir.IRBuilder, arguments: Values) -> None:
        gradient, *geometry, channels, place, divisor = arguments

        def treat(window: _Window) -> None:
            lanes = window.lanes
            count = lanes.splat(b.sitofp(divisor, lanes.number), lanes.vector)
            share = [b.fdiv(x, count) for x in window.load(gradient)]

            def give(offset: ir.Value, number: ir.Value, held: Values) -> Values:
                address = b.add(place, offset)
                window.store([b.fadd(x, y) for x, y in zip(window.load(address), share, strict=True)], address)
                return []

            window.walk([], give)

        _over_channels(dtype, b, geometry, channels, treat)

    return intrinsic_of(8, emit)


def fill(dtype: str, number: float) -> Any:
    """(place, count): puts a number into `count` places."""

    def emit(b: ir.IRBuilder, arguments: Values) -> None:
        place, count = arguments

        def treat(window: _Window) -> None:
            kind = window.lanes.vector
            window.store([ir.Constant(kind, [number] * kind.count)] * window.vectors, place)

        _over_channels(dtype, b, [i64(0)] * 4, count, treat)

    return intrinsic_of(2, emit)


def _part(window: _Window, row_begin: ir.Value, row_end: ir.Value) -> _Window:
    b = window.b
    geometry = [window.row_step, window.pixel_step, b.sub(row_end, row_begin), window.columns]
    return _Window(window.lanes, geometry, window.vectors, window.offset, window.mask)
