"""Division with a floor and its remainder, of integers and of floats.

Deliberately not here: the true quotient, which is Value's operator.
"""

from __future__ import annotations

import math

from llvmlite import ir

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs, floor  # noqa: A004
from gluonish.kernels.vector_calls import by_lane
from gluonish.kernels.vector_steps import Operand, copysign, pair


def floor_divide(x: Operand, y: Operand) -> Value:
    """The quotient rounded down, as NumPy's; an integer divided by 0 gives 0."""
    a, b = pair("floor_divide", x, y)
    if not a.floating:
        return _integer_division(a, b)[0]
    exact, by = a.strict(), b.strict()
    rest = _fmod(exact, by)
    down = (rest != 0) & ((rest < 0) != (by < 0))
    quotient = (exact - rest) / by
    quotient = choose(down, quotient - 1, quotient)
    near = floor(quotient)
    near = choose(quotient - near > 0.5, near + 1, near)
    near = choose(quotient == 0, copysign(quotient.constant(0), exact / by), near)
    return choose(by == 0, exact / by, near).relaxed(a)


def remainder(x: Operand, y: Operand) -> Value:
    """x - floor(x / y) y, with the sign of y, as NumPy's; an integer by 0 gives 0."""
    a, b = pair("remainder", x, y)
    if not a.floating:
        return _integer_division(a, b)[1]
    exact, by = a.strict(), b.strict()
    rest = _fmod(exact, by)
    other = choose((rest < 0) != (by < 0), rest + by, rest)
    return choose(rest == 0, copysign(rest.constant(0), by), other).relaxed(a)


def fmod(x: Operand, y: Operand) -> Value:
    """x - trunc(x / y) y, exact, with the sign of x; an integer by 0 gives 0."""
    a, b = pair("fmod", x, y)
    if a.floating:
        return _fmod(a.strict(), b.strict()).relaxed(a)
    rest = _integer_division(a, b)[1]  # with the sign of b, if it is not 0
    return choose((rest != 0) & ((rest ^ a) < 0), rest - b, rest) if a.scalar.kind == "i" else rest


def _integer_division(a: Value, b: Value) -> tuple[Value, Value]:
    if a.code == "b1":
        raise TypeError("division of bool; cast the operands first")
    signed = a.scalar.kind == "i"
    zero = b == 0
    # the two divisions that trap are by 0, and of the minimum by -1, whose quotient wraps to itself
    trap = zero | ((b == -1) & (a == -(1 << (a.scalar.bits - 1)))) if signed else zero
    safe = choose(trap, b.constant(1), b)
    builder = a.builder
    quotient = a.of((builder.sdiv if signed else builder.udiv)(a.value, safe.value))
    rest = a.of((builder.srem if signed else builder.urem)(a.value, safe.value))
    if signed:
        down = (rest != 0) & ((rest ^ safe) < 0)
        quotient, rest = choose(down, quotient - 1, quotient), choose(down, rest + safe, rest)
    none = a.constant(0)
    return choose(zero, none, quotient), choose(zero, none, rest)


def _fmod(x: Value, y: Value) -> Value:
    """x - trunc(x / y) y, exact, though the quotient may have hundreds of digits."""
    return by_lane("fmod", _emit_fmod, x, y)


def _emit_fmod(builder: ir.IRBuilder, x: Value, y: Value) -> None:
    kind, start, function = x.value.type, builder.block, builder.function
    up, down, double, end = (function.append_basic_block(label) for label in ("up", "down", "double", "end"))
    a, b = abs(x.strict()), abs(y.strict())
    builder.cbranch(((a < math.inf) & (b > 0)).value, up, end)

    builder.position_at_end(up)  # double the divisor until twice as much would be too much
    step = builder.phi(kind)
    step.add_incoming(b.value, start)
    scaled = a.of(step)
    builder.cbranch((scaled <= a * 0.5).value, double, down)
    builder.position_at_end(double)
    step.add_incoming((scaled + scaled).value, double)
    builder.branch(up)

    builder.position_at_end(down)  # subtract it wherever it fits, and halve it until it is the divisor again
    rest, divisor = builder.phi(kind), builder.phi(kind)
    rest.add_incoming(a.value, up)
    divisor.add_incoming(step, up)
    left, by = a.of(rest), a.of(divisor)
    left = choose(left >= by, left - by, left)
    rest.add_incoming(left.value, down)
    divisor.add_incoming((by * 0.5).value, down)
    builder.cbranch((by > b).value, down, end)

    builder.position_at_end(end)
    result = builder.phi(kind)
    result.add_incoming(a.constant(math.nan).value, start)
    result.add_incoming(left.value, down)
    builder.ret(copysign(a.of(result), x).value)
