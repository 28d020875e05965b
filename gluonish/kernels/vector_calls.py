"""Functions of two numbers whose bodies have loops: an internal LLVM function, called for each lane of a vector.

Deliberately not here: the bodies (`vector_division.py`, `vector_powers.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from gluonish.kernels.value import Value


def by_lane(name: str, body: Callable[[ir.IRBuilder, Value, Value], None], x: Value, y: Value) -> Value:
    """A function of two numbers whose body has loops, for each lane of a vector in turn."""
    builder, kind = x.builder, x.value.type
    if not isinstance(kind, ir.VectorType):
        return x.of(builder.call(_function(name, body, x), [x.value, y.value]))
    result = ir.Constant(kind, ir.Undefined)
    for lane in range(kind.count):
        place = ir.Constant(ir.IntType(32), lane)
        one = x.of(builder.extract_element(x.value, place))
        other = y.of(builder.extract_element(y.value, place))
        result = builder.insert_element(result, by_lane(name, body, one, other).value, place)
    return x.of(result)


def _function(name: str, body: Callable[[ir.IRBuilder, Value, Value], None], x: Value) -> ir.Function:
    """The internal function of a body, made once in a module."""
    module, kind = x.builder.module, x.value.type
    full = f"gluonish_{name}_{x.code}"
    if full in module.globals:
        return module.globals[full]
    function = ir.Function(module, ir.FunctionType(kind, [kind, kind]), full)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    body(builder, *(Value(builder, argument, x.code) for argument in function.args))
    return function
