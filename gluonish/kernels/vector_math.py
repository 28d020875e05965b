"""The math namespace of op bodies as vector instructions; `nd/math.py` is the same namespace on NumPy arrays.

Use this module itself as `m`: `body(vector_math, *values)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from gluonish.kernels.value import Number, Value, choose, declare, llvm_type  # noqa: F401  (part of the interface)

Operand = Value | Number


def emit(body: Callable[..., Any], builder: ir.IRBuilder, codes: Sequence[str], values: Sequence[ir.Value]) -> Value:
    """Applies an op body to LLVM values of the given types."""
    operands = [Value(builder, value, code) for value, code in zip(values, codes, strict=True)]
    result = body(_self(), *operands)
    return result if isinstance(result, Value) else operands[0].constant(result)


@cache
def result_code(body: Callable[..., Any], codes: tuple[str, ...]) -> str:
    """The type of a body's result, found by emitting it once for nothing."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [llvm_type(code) for code in codes]), "scratch")
    builder = ir.IRBuilder(function.append_basic_block())
    return emit(body, builder, codes, function.args).code


def _self() -> Any:
    import sys

    return sys.modules[__name__]


def where(condition: Operand, x: Operand, y: Operand) -> Value:
    """x where the condition holds, else y."""
    x, y = _pair("where", x, y)
    return choose(condition, x, y)


def sqrt(x: Value) -> Value:
    """The square root, correctly rounded."""
    return x.call("llvm.sqrt")


def maximum(x: Operand, y: Operand) -> Value:
    """The larger; NaN if either is NaN."""
    x, y = _pair("maximum", x, y)
    if not x.floating:
        return choose(x > y, x, y)
    return x.call("llvm.maximum", y)


def minimum(x: Operand, y: Operand) -> Value:
    """The smaller; NaN if either is NaN."""
    x, y = _pair("minimum", x, y)
    if not x.floating:
        return choose(x < y, x, y)
    return x.call("llvm.minimum", y)


def _pair(name: str, x: Operand, y: Operand) -> tuple[Value, Value]:
    if isinstance(x, Value):
        return x, x._lift(y)
    if isinstance(y, Value):
        return y.constant(x), y
    raise TypeError(f"m.{name} of two Python numbers has no type; make one of them a kernel value")
