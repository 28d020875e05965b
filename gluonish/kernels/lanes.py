"""Vectors of one type in LLVM: loads, stores, masks and loops, as the emitters of contractions need them.

Addresses are int64 in kernels and pointers here; offsets are in bytes. Deliberately not here: arithmetic (`value.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from gluonish.kernels.value import declare

I8, I32, I64, PTR, VOID = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType(), ir.VoidType()


def i64(value: int) -> ir.Constant:
    """An int64 constant."""
    return ir.Constant(I64, value)


_NUMBERS: dict[str, tuple[ir.Type, int, str]] = {
    "float32": (ir.FloatType(), 4, "f32"),
    "float64": (ir.DoubleType(), 8, "f64"),
    "int32": (I32, 4, "i32"),
    "bfloat16": (ir.IntType(16), 2, "i16"),  # as bits
    "float16": (ir.IntType(16), 2, "i16"),
}


class Lanes:
    """Emits accesses to vectors of `count` numbers of a dtype."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, count: int) -> None:
        self.builder, self.count = builder, count
        self.number, self.size, name = _NUMBERS[dtype]
        self.vector = ir.VectorType(self.number, count)
        self.zero = ir.Constant(self.vector, [0.0 if name[0] == "f" else 0] * count)
        self._suffix = f"v{count}{name}.p0"
        self._align = ir.Constant(I32, self.size)

    def pointer(self, address: ir.Value) -> ir.Value:
        """The pointer of an int64 address."""
        return self.builder.inttoptr(address, PTR)

    def at(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        """The pointer that many bytes further."""
        return self.builder.gep(pointer, [i64(offset) if isinstance(offset, int) else offset], source_etype=I8)

    def integer(self, pointer: ir.Value, index: int = 0) -> ir.Value:
        """An int64 of a table."""
        return self.builder.load(self.at(pointer, 8 * index), align=8, typ=I64)

    def load(self, pointer: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """A vector; zeros where the mask is off, and that memory is not touched."""
        if mask is None:
            return self.builder.load(pointer, align=self.size, typ=self.vector)
        kinds = [PTR, I32, mask.type, self.vector]
        function = declare(self.builder, f"llvm.masked.load.{self._suffix}", self.vector, kinds)
        return self.builder.call(function, [pointer, self._align, mask, self.zero])

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None) -> None:
        """Puts a vector, or the lanes of it where the mask is on."""
        if mask is None:
            self.builder.store(value, pointer, align=self.size)
            return
        kinds = [self.vector, PTR, I32, mask.type]
        function = declare(self.builder, f"llvm.masked.store.{self._suffix}", VOID, kinds)
        self.builder.call(function, [value, pointer, self._align, mask])

    def broadcast(self, pointer: ir.Value) -> ir.Value:
        """One number from memory, in every lane."""
        return self.splat(self.builder.load(pointer, align=self.size, typ=self.number), self.vector)

    def splat(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        """A number in every lane of a vector type."""
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))

    def below(self, limit: ir.Value) -> ir.Value:
        """The mask of the lanes whose number is below an int64 limit."""
        kind = ir.VectorType(I32, self.count)
        lanes = ir.Constant(kind, list(range(self.count)))
        return self.builder.icmp_signed("<", lanes, self.splat(self.builder.trunc(limit, I32), kind))

    def fma(self, x: ir.Value, y: ir.Value, z: ir.Value, fused: bool) -> ir.Value:
        """x * y + z, rounded once if fused."""
        if not fused:
            return self.builder.fadd(self.builder.fmul(x, y), z)
        function = declare(self.builder, f"llvm.fma.v{self.count}f{self.size * 8}", self.vector, [self.vector] * 3)
        return self.builder.call(function, [x, y, z])


def loop(
    builder: ir.IRBuilder,
    turns: ir.Value,
    carried: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """Emits a loop of `turns` turns (none if that is not positive) and gives what the carried values end as.

    body: from the number of the turn and the carried values, the carried values of the next turn.
    """
    before, inside, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("loop.end")
    builder.cbranch(builder.icmp_signed(">", turns, i64(0)), inside, after)
    builder.position_at_end(inside)
    initial = [i64(0), *carried]
    phis = [phi(builder, (value, before)) for value in initial]
    results = list(body(phis[0], phis[1:]))
    following, end = [builder.add(phis[0], i64(1)), *results], builder.block
    for held, value in zip(phis, following, strict=True):
        held.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following[0], turns), inside, after)
    builder.position_at_end(after)
    return [phi(builder, (value, before), (result, end)) for value, result in zip(carried, results, strict=True)]


def prefetch(builder: ir.IRBuilder, pointer: ir.Value, write: bool = False) -> None:
    """Fetches the cache line of an address, which need not exist, to the second cache."""
    function = declare(builder, "llvm.prefetch.p0", VOID, [PTR, I32, I32, I32])
    builder.call(function, [pointer, *(ir.Constant(I32, number) for number in (int(write), 2, 1))])


def phi(builder: ir.IRBuilder, *incoming: tuple[ir.Value, ir.Block]) -> Any:
    """The value that comes with the block from which control comes."""
    result = builder.phi(incoming[0][0].type)
    for value, block in incoming:
        result.add_incoming(value, block)
    return result


@dataclass(frozen=True)
class Part:
    """Code that may stand in a function of its own: from `arity` int64 to an int64 or nothing."""

    arity: int
    emit: Callable[[ir.IRBuilder, list[ir.Value]], ir.Value | None]
    gives: bool

    def function(self, module: ir.Module, name: str) -> ir.Function:
        """Its declaration in a module."""
        kind = ir.FunctionType(I64 if self.gives else VOID, [I64] * self.arity)
        return module.globals.get(name) or ir.Function(module, kind, name)

    def define(self, module: ir.Module, name: str) -> None:
        """The function, to be inlined wherever it is called."""
        function = self.function(module, name)
        function.linkage = "internal"
        function.attributes.add("alwaysinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        result = self.emit(builder, list(function.args))
        builder.ret(result) if self.gives else builder.ret_void()


def number(value: int) -> Any:
    """The Numba intrinsic `() -> value`: a constant that kernels with the same source may differ in."""
    return intrinsic_of(0, lambda builder, arguments: i64(value), gives=True, apart=True)


def intrinsic_of(
    arity: int,
    emit: Callable[[ir.IRBuilder, list[ir.Value]], ir.Value | None],
    gives: bool = False,
    apart: bool = False,
) -> Any:
    """The Numba intrinsic of `arity` int64 arguments that emits code; it gives an int64 or nothing.

    apart: the code may be emitted as a function of its own, so that kernels that differ only in it share the rest (see
    `frontend.py`). Not for what gives memory of the caller's stack, nor for code with metadata.
    """
    from numba.core import types

    from gluonish.kernels.contexts import intrinsic

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        result = emit(builder, list(arguments))
        return result if gives else context.get_dummy_value()

    signature = (types.int64 if gives else types.void)(*[types.int64] * arity)
    names = "".join(f", x{i}" for i in range(arity))
    space: dict[str, Any] = {"typed": (signature, codegen)}
    # Numba asks for the number of arguments of an intrinsic, so each arity needs its own function
    exec(f"def emitted(typing{names}): return typed", space)
    made = intrinsic(space["emitted"])
    made.part = Part(arity, emit, gives) if apart else None
    return made
