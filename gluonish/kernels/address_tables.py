"""Tables of addresses, written in whole vectors: where each pixel of a block lies, and where a unit of a window reads.

A loop over pixels in a kernel's source leaves what does not fill several vectors to single steps; for a block of tens
of pixels these took as long as a tenth of the products of a first layer.

Deliberately not here: which pixels and units, and rows of taps of which only a part exists (`window.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gluonish.kernels.lanes import I64, PTR, Lanes, i64, intrinsic_of, loop


def count_on(lanes: int) -> Any:
    """The Numba intrinsic `(place, first, step, count)`: stores first, first + step, ... as int64, in whole vectors:
    fewer than `lanes` numbers too many."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        place, first, step, count = arguments
        vector = _Integers(b, lanes)
        begun = b.add(vector.splat(first), b.mul(vector.splat(step), vector.numbers))
        further = vector.splat(b.mul(step, i64(lanes)))

        def store(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            vector.store(held[0], place, turn)
            return [b.add(held[0], further)]

        loop(b, vector.turns(count), [begun], store)

    return intrinsic_of(4, emit, apart=True)


def unit_addresses(lanes: int) -> Any:
    """The Numba intrinsic that stores where a unit reads for each of `count` pixels, in whole vectors.

    Arguments: place, bases, ys, xs, count, y, x, height, width, shift, zero: tables of the pixels' addresses, rows and
    columns; what the unit adds to them; above which rows and columns it leaves the image, where the address is `zero`.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        place, bases, ys, xs, count, *values = arguments
        vector = _Integers(b, lanes)
        y, x, height, width, shift, zero = (vector.splat(value) for value in values)

        def store(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            base, row, column = (vector.load(table, turn) for table in (bases, ys, xs))
            rows = b.icmp_unsigned("<", b.add(row, y), height)  # below 0 is above any height
            columns = b.icmp_unsigned("<", b.add(column, x), width)
            vector.store(b.select(b.and_(rows, columns), b.add(base, shift), zero), place, turn)
            return []

        loop(b, vector.turns(count), [], store)

    return intrinsic_of(11, emit, apart=True)


class _Integers:
    """Emits accesses to vectors of int64."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.b, self.lanes = builder, lanes
        self.kind = ir.VectorType(I64, lanes)
        self.numbers = ir.Constant(self.kind, list(range(lanes)))

    def splat(self, value: ir.Value) -> ir.Value:
        return Lanes(self.b, "float32", self.lanes).splat(value, self.kind)

    def turns(self, count: ir.Value) -> ir.Value:
        return self.b.sdiv(self.b.add(count, i64(self.lanes - 1)), i64(self.lanes))

    def place(self, table: ir.Value, turn: ir.Value) -> ir.Value:
        return self.b.inttoptr(self.b.add(table, self.b.mul(turn, i64(8 * self.lanes))), PTR)

    def load(self, table: ir.Value, turn: ir.Value) -> ir.Value:
        return self.b.load(self.place(table, turn), align=8, typ=self.kind)

    def store(self, value: ir.Value, table: ir.Value, turn: ir.Value) -> None:
        self.b.store(value, self.place(table, turn), align=8)
