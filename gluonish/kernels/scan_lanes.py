"""A running fold of a stretch of memory in vectors: the inner loop of scans along rows.

Within a vector, log2(lanes) shifts and folds give the running fold of its lanes; what came before the vector is one
operand more. The total of a stretch is always the fold of its vectors' totals one after the other, each rounded as
written, so that computing it alone (`store` off) gives the very number that the scan went through.
Source: W. D. Hillis, G. L. Steele, Data parallel algorithms, Communications of the ACM 29, 1986.

Deliberately not here: how stretches are shared among threads (`scan.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from gluonish.kernels import target, vector_math
from gluonish.kernels.contexts import intrinsic
from gluonish.kernels.intrinsics import NUMBA, pointer_to
from gluonish.kernels.lanes import I32, i64, loop
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.value import Value, choose
from gluonish.nd.op import OPS


def identity(code: str, combine: str) -> float | int:
    """The number that changes nothing in a fold.

    For sums of floats that is -0 (0 would change -0); shifting zeros in would also take four times as long on AVX-512,
    for LLVM knows a bad instruction for just that (vexpandps).
    """
    scalar = SCALARS[code]
    if combine == "multiply":
        return 1
    if combine == "add":
        return -0.0 if scalar.kind == "f" else 0
    low = combine == "maximum"
    if scalar.kind == "f":
        return float("-inf") if low else float("inf")
    if scalar.kind == "u":
        return 0 if low else 2**scalar.bits - 1
    return -(2 ** (scalar.bits - 1)) if low else 2 ** (scalar.bits - 1) - 1


def identity_of(code: str, combine: str) -> Any:
    """The Numba intrinsic `f()`: the number that changes nothing in a fold."""

    def typed(typing: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return ir.Constant(vector_math.llvm_type(code), identity(code, combine))

        return NUMBA[code](), emit

    return intrinsic(typed)


def running_fold(code: str, combine: str, reverse: bool, store: bool) -> Any:
    """The Numba intrinsic `f(source, target, count, before)`: gives the fold of `count` elements.

    With `store` it writes, for each element, the fold of `before` and all elements up to it (from it on if `reverse`).
    """
    element = NUMBA[code]

    def typed(typing: Any, source: Any, into: Any, count: Any, before: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return _Fold(builder, code, combine, reverse, store).emit(*args)

        return element(types.int64, types.int64, types.int64, element), emit

    return intrinsic(typed)


class _Fold:
    """Emits one fold. Extremes of floats are found among integers of the same order, in a third of the time."""

    def __init__(self, builder: ir.IRBuilder, code: str, combine: str, reverse: bool, store: bool) -> None:
        self.builder, self.reverse, self.stores = builder, reverse, store
        self.body = OPS[combine].body
        self.memory = vector_math.llvm_type(code)
        self.size = SCALARS[code].size
        self.ordered = SCALARS[code].kind == "f" and combine in ("maximum", "minimum")
        self.largest = combine == "maximum"
        self.code = f"i{8 * self.size}" if self.ordered else code
        self.number = vector_math.llvm_type(self.code)
        self.lanes = max(2, target.current().vector_bytes // self.size)
        self.vector = ir.VectorType(self.number, self.lanes)
        self.nothing = ir.Constant(self.number, identity(self.code, combine))

    def emit(self, source: ir.Value, into: ir.Value, count: ir.Value, before: ir.Value) -> ir.Value:
        """Whole vectors, then single elements."""
        b = self.builder
        whole = b.sdiv(count, i64(self.lanes))
        total = self._spread(self.nothing)
        before = self._entered(before)
        base = self._spread(before)

        def vectors(turn: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            first = b.mul(turn, i64(self.lanes))
            if self.reverse:
                first = b.sub(b.sub(count, first), i64(self.lanes))
            folded = self._within(self._load(source, first, self.lanes))
            if self.stores:
                result = self._combine(base, self._combine(carried[0], folded))
                b.store(self._left(result), pointer_to(b, into, first, self.memory), align=self.size)
            end = 0 if self.reverse else self.lanes - 1
            return [self._combine(carried[0], self._shuffled(folded, [end] * self.lanes))]

        (total,) = loop(b, whole, [total], vectors)
        first_lane = b.extract_element(total, ir.Constant(I32, 0))
        done = b.mul(whole, i64(self.lanes))

        def single(turn: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            place = b.add(done, turn)
            if self.reverse:
                place = b.sub(b.sub(count, place), i64(1))
            folded = self._combine(carried[0], self._load(source, place))
            if self.stores:
                result = self._left(self._combine(before, folded))
                b.store(result, pointer_to(b, into, place, self.memory), align=self.size)
            return [folded]

        (result,) = loop(b, b.sub(count, done), [first_lane], single)
        return self._left(result)

    def _load(self, source: ir.Value, place: ir.Value, lanes: int = 0) -> ir.Value:
        kind = ir.VectorType(self.memory, lanes) if lanes else self.memory
        return self._entered(self.builder.load(pointer_to(self.builder, source, place, self.memory), align=self.size,
                                               typ=kind))  # fmt: skip

    def _entered(self, value: ir.Value) -> ir.Value:
        """Floats as integers in the same order, NaN beyond all others."""
        if not self.ordered:
            return value
        number = vector_math.Value(self.builder, value)
        limit = 2 ** (8 * self.size - 1) - 1
        return choose(number != number, number.bits().constant(limit if self.largest else -limit - 1),
                      self._turned(number.bits())).value  # fmt: skip

    def _left(self, value: ir.Value) -> ir.Value:
        """The way back; what NaN became is a NaN's bits."""
        if not self.ordered:
            return value
        return self._turned(vector_math.Value(self.builder, value)).from_bits().value

    def _turned(self, bits: Value) -> Value:
        """The order of negative floats turned round, or back."""
        return bits ^ ((bits >> (8 * self.size - 1)) & (2 ** (8 * self.size - 1) - 1))

    def _within(self, value: ir.Value) -> ir.Value:
        """The running fold of the lanes of a vector."""
        step = 1
        while step < self.lanes:
            lanes = [i + step if self.reverse else i - step for i in range(self.lanes)]
            moved = self._shuffled(value, [i if 0 <= i < self.lanes else self.lanes for i in lanes])
            value = self._combine(moved, value)
            step *= 2
        return value

    def _combine(self, left: ir.Value, right: ir.Value) -> ir.Value:
        assert self.body is not None
        return vector_math.emit(self.body, self.builder, (self.code, self.code), (left, right)).value

    def _shuffled(self, value: ir.Value, lanes: list[int]) -> ir.Value:
        """The lanes of `value` by number; one more than there are means the identity."""
        others = ir.Constant(self.vector, [self.nothing] * self.lanes)
        mask = ir.Constant(ir.VectorType(I32, self.lanes), lanes)
        return self.builder.shuffle_vector(value, others, mask)

    def _spread(self, value: ir.Value) -> ir.Value:
        """A number in every lane."""
        empty = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))
