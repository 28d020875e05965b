"""What kernel sources may call: memory access, casts, atomics, calls by address, and the elementwise ops by name.

Memory. Addresses and indices are int64; an index counts elements. T is a short name of `scalars.py` (f32, i64, b1...).

    load_T(address, index)           store_T(address, index, value)
    read_T(address, index)           write_T(address, index, value)

`load` and `store` carry a promise: in the innermost loop that holds them, no iteration touches an element that another
iteration stores. Such a loop becomes full-width vector code without any check at run time, for any number of pointers.
The promise allows an output that IS an input (the same element, loaded before it is stored), outputs that are
accumulated once an iteration (`store_f32(o, j, load_f32(o, j) + v)` in a loop over j), and everything in loops that
hold other loops. It forbids partly overlapping arrays, running sums through memory, and scatters with repeated indices:
use `read` and `write`, the plain accesses, there (one of them in a loop withdraws the promise for that loop). Nothing
is promised about alignment beyond that of the element.

Arithmetic. The operators of the kernel language are Numba's: on floats they may be reassociated and contracted, which
is what makes `total = total + load_f32(x, i)` a vector loop; NaN, Inf and zeros stay right. An op by its name
(`add(a, b)`, `tanh(a)`, `maximum(a, b)`) emits exactly its body, each step rounded as written: what two kernels compute
alike is the same number. All operands of an op have the same type. Python float constants are float64: wrap them,
`float32(0.5)`.

    min(a, b), max(a, b)             of int64
    load_bf16, store_bf16, ...       bfloat16 and (f16) float16 exist in memory only: loads give a float32, stores round
                                     one; cast_bf16(value) gives the float32 that a store and a load would give
    cast_T(value)                    NumPy's conversions; a float without a place in an integer type gives its minimum
    atomic_load(address), atomic_store(address, v), atomic_add(address, v), atomic_exchange(address, v),
    atomic_compare_exchange(address, expected, v)     on int64, sequentially consistent; the last three give what was
                                     there before
    spin_pause()                     tells the core that this is a waiting loop
    call_tiles(fn, args, begin, end) calls a kernel by its address
    call_function(fn, a, b)          calls a C function of up to two integers by its address
    call_integer(fn, a, b, c, d)     calls a C function of up to four, which gives an integer; of an `int` only the low
                                     32 bits mean something

Deliberately not here: contractions (`microkernel.py`) and the meaning of ops (`nd`, `vector_math.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError

from gluonish.kernels import dots, loop_metadata, target, vector_math
from gluonish.kernels.contexts import intrinsic
from gluonish.kernels.scalars import HALVES, SCALARS, Scalar

unliteral = types.unliteral  # type: ignore[attr-defined]
I64 = ir.IntType(64)
POINTER = ir.PointerType()
NUMBA = {
    s.code: getattr(types, "boolean" if s.code == "b1" else s.name) for s in SCALARS.values() if s.name not in HALVES
}
CODE = {t: code for code, t in NUMBA.items()}
NAMES = {("boolean" if c == "b1" else SCALARS[c].name): t for c, t in NUMBA.items()}  # casting types in kernel sources


def pointer_to(builder: ir.IRBuilder, address: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
    """The pointer to element `index` at an int64 address."""
    return builder.gep(builder.inttoptr(address, POINTER), [index], inbounds=True, source_etype=element)


def load_element(builder: ir.IRBuilder, code: str, address: ir.Value, index: ir.Value, promise: bool) -> ir.Value:
    """One element in a register."""
    scalar = SCALARS[code]
    memory = memory_type(scalar)
    pointer = pointer_to(builder, address, index, memory)
    value = builder.load(pointer, align=scalar.size, typ=memory)
    if promise:
        loop_metadata.promise(value)
    return builder.icmp_unsigned("!=", value, ir.Constant(memory, 0)) if scalar.kind == "b" else value


def store_element(
    builder: ir.IRBuilder, code: str, address: ir.Value, index: ir.Value, value: ir.Value, promise: bool
) -> None:
    """Puts one element into memory."""
    scalar = SCALARS[code]
    memory = memory_type(scalar)
    pointer = pointer_to(builder, address, index, memory)
    value = builder.zext(value, memory) if scalar.kind == "b" else value
    stored = builder.store(value, pointer, align=scalar.size)
    if promise:
        loop_metadata.promise(stored)


def memory_type(scalar: Scalar) -> ir.Type:
    """The LLVM type of an element in memory."""
    return ir.IntType(8) if scalar.kind == "b" else vector_math.llvm_type(scalar.code)


def _loader(code: str, promise: bool) -> Any:
    result = NUMBA[code]

    def load(typing: Any, address: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return load_element(builder, code, args[0], args[1], promise)

        return result(types.int64, types.int64), emit

    return intrinsic(load)


def _storer(code: str, promise: bool) -> Any:
    element = NUMBA[code]

    def store(typing: Any, address: Any, index: Any, value: Any) -> Any:
        _check_stored(code, value)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            store_element(builder, code, args[0], args[1], args[2], promise)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, element), emit

    return intrinsic(store)


def _check_stored(code: str, value: Any) -> None:
    value = unliteral(value)
    integers = SCALARS[code].kind in "iu" and isinstance(value, types.Integer)  # index arithmetic is all int64
    if value is not NUMBA[code] and not integers:
        raise TypingError(f"store_{code} got a value of type {value}; cast it with cast_{code}")


def _caster(code: str) -> Any:
    def cast(typing: Any, value: Any) -> Any:
        source = unliteral(value)
        if source not in CODE:
            raise TypingError(f"cast_{code} got a value of type {value}")

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return vector_math.Value(builder, args[0], CODE[source]).astype(code).value

        return NUMBA[code](source), emit

    return intrinsic(cast)


def _chooser(name: str, operator: str) -> Any:
    # Numba's own min and max are compiled as functions apart, which costs more than the rest of a small kernel
    def pick(typing: Any, a: Any, b: Any) -> Any:
        if not (isinstance(a, types.Integer) and isinstance(b, types.Integer)):
            raise TypingError(f"{name} is for integers; for floats use the op {name}imum")

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(operator, args[0], args[1]), args[0], args[1])

        return types.int64(types.int64, types.int64), emit

    return intrinsic(pick)


@cache
def op_intrinsic(name: str, body: Callable[..., Any], count: int) -> Any:
    """The intrinsic that emits `body(m, *values)` for `count` values of any types."""

    def define(operands: tuple[Any, ...]) -> Any:
        operands = tuple(unliteral(t) for t in operands)
        if any(t not in CODE for t in operands):
            raise TypingError(f"op {name} got {', '.join(map(str, operands))}")
        codes = tuple(CODE[t] for t in operands)
        try:
            result = vector_math.result_code(body, codes)
        except TypeError as error:
            raise TypingError(f"op {name} on ({', '.join(codes)}): {error}") from None

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return vector_math.emit(body, builder, codes, args).value

        return NUMBA[result](*operands), emit

    names = ", ".join(f"x{i}" for i in range(count))
    space: dict[str, Any] = {"define": define}
    # Numba asks for the number of arguments of an intrinsic, so each arity needs its own function
    exec(f"def {name}(typing, {names}): return define(({names},))", space)
    return intrinsic(space[name])


def intrinsic_of(op_name: str) -> Any:
    """The intrinsic of a registered elementwise op; KeyError where there is no such op."""
    import inspect

    from gluonish.nd.op import OPS

    body = OPS[op_name].body
    if body is None:
        raise KeyError(op_name)
    return op_intrinsic(op_name, body, len(inspect.signature(body).parameters) - 1)


def math_intrinsic(name: str, count: int = 1) -> Any:
    """An external: the function `name` of `m`, of `count` values, as ("f", "intrinsics:math_intrinsic", ("exp", 1))."""
    return op_intrinsic(name, _math_body(name), count)


@cache
def _math_body(name: str) -> Callable[..., Any]:
    return lambda m, *values: getattr(m, name)(*values)


@intrinsic
def atomic_add(typing, address, value):  # type: ignore[no-untyped-def]
    """Adds to an int64 and gives what was there before."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", builder.inttoptr(args[0], POINTER), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def atomic_exchange(typing, address, value):  # type: ignore[no-untyped-def]
    """Puts an int64 and gives what was there before."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("xchg", builder.inttoptr(args[0], POINTER), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def atomic_compare_exchange(typing, address, expected, value):  # type: ignore[no-untyped-def]
    """Puts an int64 if the expected one is there, and gives what was there before."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pair = builder.cmpxchg(builder.inttoptr(args[0], POINTER), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.int64(types.int64, types.int64, types.int64), emit


@intrinsic
def atomic_load(typing, address):  # type: ignore[no-untyped-def]
    """An int64 as the other threads last left it."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.inttoptr(args[0], POINTER), "seq_cst", 8, typ=I64)

    return types.int64(types.int64), emit


@intrinsic
def atomic_store(typing, address, value):  # type: ignore[no-untyped-def]
    """Puts an int64 where other threads read it."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store_atomic(args[1], builder.inttoptr(args[0], I64.as_pointer()), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def spin_pause(typing):  # type: ignore[no-untyped-def]
    """A hint to the core; no effect on memory."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        machine = target.current()
        void = ir.VoidType()
        if machine.x86:
            builder.call(vector_math.declare(builder, "llvm.x86.sse2.pause", void, []), [])
        elif machine.arm64:
            hint = vector_math.declare(builder, "llvm.aarch64.hint", void, [ir.IntType(32)])
            builder.call(hint, [ir.Constant(ir.IntType(32), 1)])
        return context.get_dummy_value()

    return types.void(), emit


def _caller(count: int, result: ir.Type | None = None) -> Callable[..., Any]:
    function = ir.FunctionType(result or ir.VoidType(), [I64] * count)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        callee = builder.inttoptr(args[0], function.as_pointer())
        value = builder.call(callee, args[1:])
        return value if result else context.get_dummy_value()

    return emit


@intrinsic
def call_tiles(typing, function, args, begin, end):  # type: ignore[no-untyped-def]
    """Runs tiles begin..end-1 of the kernel at an address."""
    return types.void(*[types.int64] * 4), _caller(3)


@intrinsic
def call_function(typing, function, a, b):  # type: ignore[no-untyped-def]
    """Calls a C function of up to two integers or pointers; its result is dropped."""
    return types.void(*[types.int64] * 3), _caller(2)


@intrinsic
def call_integer(typing, function, a, b, c, d):  # type: ignore[no-untyped-def]
    """Calls a C function of up to four integers or pointers; gives its integer or pointer."""
    return types.int64(*[types.int64] * 5), _caller(4, I64)


def _half_loader(dtype: str, promise: bool) -> Any:
    def load(typing: Any, address: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return dots.widened(builder, load_element(builder, "u16", args[0], args[1], promise), dtype)

        return types.float32(types.int64, types.int64), emit

    return intrinsic(load)


def _half_storer(dtype: str, promise: bool) -> Any:
    def store(typing: Any, address: Any, index: Any, value: Any) -> Any:
        _check_stored("f32", value)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bits = dots.narrowed(builder, args[2], dtype)
            store_element(builder, "u16", args[0], args[1], bits, promise)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.float32), emit

    return intrinsic(store)


def _half_caster(dtype: str) -> Any:
    def cast(typing: Any, value: Any) -> Any:
        source = unliteral(value)
        if source not in CODE:
            raise TypingError(f"cast to {dtype} got a value of type {value}")

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            single = vector_math.Value(builder, args[0], CODE[source]).astype("f32").value
            return dots.widened(builder, dots.narrowed(builder, single, dtype), dtype)

        return types.float32(source), emit

    return intrinsic(cast)


INTRINSICS: dict[str, Any] = {
    "atomic_add": atomic_add,
    "atomic_exchange": atomic_exchange,
    "atomic_compare_exchange": atomic_compare_exchange,
    "atomic_load": atomic_load,
    "atomic_store": atomic_store,
    "spin_pause": spin_pause,
    "call_tiles": call_tiles,
    "call_function": call_function,
    "call_integer": call_integer,
    "min": _chooser("min", "<"),
    "max": _chooser("max", ">"),
}
for _code in NUMBA:
    INTRINSICS[f"load_{_code}"] = _loader(_code, promise=True)
    INTRINSICS[f"read_{_code}"] = _loader(_code, promise=False)
    INTRINSICS[f"store_{_code}"] = _storer(_code, promise=True)
    INTRINSICS[f"write_{_code}"] = _storer(_code, promise=False)
    INTRINSICS[f"cast_{_code}"] = _caster(_code)
for _dtype, _code in HALVES.items():
    INTRINSICS[f"load_{_code}"] = _half_loader(_dtype, promise=True)
    INTRINSICS[f"read_{_code}"] = _half_loader(_dtype, promise=False)
    INTRINSICS[f"store_{_code}"] = _half_storer(_dtype, promise=True)
    INTRINSICS[f"write_{_code}"] = _half_storer(_dtype, promise=False)
    INTRINSICS[f"cast_{_code}"] = _half_caster(_dtype)
