"""Where the first extreme of a stretch of floats is, in vectors: every lane keeps its best and that one's place.

Deliberately not here: other types and other axes (`arg_reduce.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gluonish.kernels import target
from gluonish.kernels.lanes import I64, Lanes, i64, intrinsic_of, loop
from gluonish.kernels.value import declare

SIDE = 2  # vectors that go on side by side


def first_extreme(code: str, largest: bool) -> Any:
    """The Numba intrinsic `first_extreme(address, count)`: the place of the first largest (or smallest) of so many
    floats, one at least; -1 if there is a NaN among them."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> ir.Value:
        return _Search(b, code, largest).run(*arguments)

    return intrinsic_of(2, emit, gives=True)


class _Search:
    def __init__(self, b: ir.IRBuilder, code: str, largest: bool) -> None:
        self.b, self.largest = b, largest
        size = 4 if code == "f32" else 8
        self.lanes = target.current().vector_bytes // size
        self.tools = Lanes(b, "float32" if code == "f32" else "float64", self.lanes)
        self.number = ir.IntType(8 * size)
        self.places = ir.VectorType(self.number, self.lanes)
        self.bits = ir.VectorType(ir.IntType(1), self.lanes)
        self.worst = ir.Constant(self.tools.vector, [float("-inf") if largest else float("inf")] * self.lanes)

    def run(self, address: ir.Value, count: ir.Value) -> ir.Value:
        """The place."""
        b, step = self.b, SIDE * self.lanes
        first = [ir.Constant(self.places, [side * self.lanes + n for n in range(self.lanes)]) for side in range(SIDE)]
        carried = [*[self.worst] * SIDE, *first, ir.Constant(self.bits, [0] * self.lanes)]
        whole = b.sdiv(count, i64(step))
        start = self.tools.pointer(address)

        def body(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            at = b.mul(turn, i64(step))
            values = [
                self.tools.load(self.tools.at(start, b.mul(b.add(at, i64(side * self.lanes)), i64(self.tools.size))))
                for side in range(SIDE)
            ]
            return self._further(at, values, held)

        held = loop(b, whole, carried, body)
        begun = b.mul(whole, i64(step))
        left = b.sub(count, begun)

        def rest(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            values = []
            for side in range(SIDE):  # lanes beyond the end are not touched
                mask = self.tools.below(b.sub(left, i64(side * self.lanes)))
                at = b.mul(b.add(begun, i64(side * self.lanes)), i64(self.tools.size))
                values.append(b.select(mask, self.tools.load(self.tools.at(start, at), mask), self.worst))
            return self._further(begun, values, held)

        any_left = b.zext(b.icmp_signed(">", left, i64(0)), I64)
        return self._settled(loop(b, any_left, held, rest))

    def _further(self, at: ir.Value, values: list[ir.Value], held: list[ir.Value]) -> list[ir.Value]:
        """Bests, their places and where there was a NaN, with more values taken in."""
        b = self.b
        bests, places, nans = held[:SIDE], held[SIDE : 2 * SIDE], held[-1]
        turn = self.tools.splat(b.trunc(at, self.number) if self.number != I64 else at, self.places)
        for side, value in enumerate(values):
            better = b.fcmp_ordered(">" if self.largest else "<", value, bests[side])
            lanes = ir.Constant(self.places, [side * self.lanes + n for n in range(self.lanes)])
            bests[side] = b.select(better, value, bests[side])
            places[side] = b.select(better, b.add(turn, lanes), places[side])
            nans = b.or_(nans, b.fcmp_unordered("uno", value, value))
        return [*bests, *places, nans]

    def _settled(self, held: list[ir.Value]) -> ir.Value:
        b = self.b
        bests, places, nans = held[:SIDE], held[SIDE : 2 * SIDE], held[-1]
        best, place = bests[0], places[0]
        for other, where in zip(bests[1:], places[1:]):
            equal_first = b.and_(b.fcmp_ordered("==", other, best), b.icmp_signed("<", where, place))
            better = b.or_(b.fcmp_ordered(">" if self.largest else "<", other, best), equal_first)
            best, place = b.select(better, other, best), b.select(better, where, place)
        top = self._reduced("fmax" if self.largest else "fmin", best, fastmath=("nnan",))
        hit = b.fcmp_ordered("==", best, self.tools.splat(top, best.type))
        far = ir.Constant(self.places, [(1 << (self.number.width - 1)) - 1] * self.lanes)
        found = self._reduced("smin", b.select(hit, place, far))
        found = b.sext(found, I64) if self.number != I64 else found
        return b.select(self._reduced("or", nans), i64(-1), found)

    def _reduced(self, how: str, value: ir.Value, **flags: Any) -> ir.Value:
        element = value.type.element
        letter = "f" if isinstance(element, (ir.FloatType, ir.DoubleType)) else "i"
        width = {ir.FloatType(): 32, ir.DoubleType(): 64}.get(element) or element.width
        name = f"llvm.vector.reduce.{how}.v{value.type.count}{letter}{width}"
        return self.b.call(declare(self.b, name, element, [value.type]), [value], **flags)
