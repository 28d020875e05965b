"""`pow`: of floats as the exponential of a logarithm that is more precise than its result, of integers by squaring.

Deliberately not here: `square` and the roots (`vector_arithmetic.py`).
"""

from __future__ import annotations

import math

from llvmlite import ir

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs, floor  # noqa: A004
from gluonish.kernels.vector_calls import by_lane
from gluonish.kernels.vector_steps import (
    F32,
    F64,
    Format,
    Operand,
    at_least,
    at_most,
    copysign,
    enter,
    exact_product,
    exponent_and_mantissa,
    fma,
    pair,
    polynomial,
    power_of_two,
    reduced_exp,
    times_power_of_two,
    to_float,
)

# (2 atanh(s) - 2 s) / s^3 by s^2, for sqrt(1/2) <= (1 + s) / (1 - s) <= sqrt(2): short, for float32's pow
_ATANH_SHORT = (0.66666666676274022, 0.39999995441085495, 0.2857213020110137, 0.22175237844793966, 0.1959878499054504)
# (2 atanh(s) - 2 s - 2/3 s^3) / s^5 by s^2, for float64's pow
_ATANH_TAIL = (
    0.39999999999999974, 0.28571428571446317, 0.22222222217244667, 0.18181818905995115, 0.15384554444883611,
    0.13336410455832362, 0.116729359139708, 0.12004642933015326,
)  # fmt: skip
# (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, for float32's pow
_EXP_SHORT = (
    0.50000000001065237, 0.16666666754922829, 0.041666665946750774, 0.0083332887880111731, 0.0013888985810856307,
    0.00019905100272760975, 2.4796383481248442e-05,
)  # fmt: skip
# as a sum of two numbers
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def pow(x: Operand, y: Operand) -> Value:  # noqa: A001
    """x to the power y, with C's values at the edges; of integers, 0 for a negative y unless x is 1 or -1."""
    a, b = pair("pow", x, y)
    if a.code == "b1":
        return a | ~b
    if not a.floating:
        return _integer_power(a, b)
    f, base = enter("pow", a)
    exponent = b.strict()
    size = _power_32(base, exponent) if f is F32 else _power_64(base, exponent)
    whole = floor(exponent) == exponent
    odd = whole & (floor(exponent * 0.5) * 2 != exponent)
    signed = choose(odd, copysign(size, base), size)
    undefined = (base < 0) & (base > -math.inf) & ~whole
    signed = choose(undefined, base.constant(math.nan), signed)
    one = (exponent == 0) | (base == 1) | ((base == -1) & (abs(exponent) == math.inf))
    return choose(one, base.constant(1), signed).relaxed(a)


# --- floats ---------------------------------------------------------------------------------------------------------


def _power_32(base: Value, exponent: Value) -> Value:
    """|base| to the power exponent, through float64: its digits are enough for the product."""
    f = F64
    size, power = abs(base).astype("f64"), exponent.astype("f64")
    n, mantissa = exponent_and_mantissa(f, size)
    rest = mantissa - 1
    s = rest / (rest + 2)
    z = s * s
    turns = to_float(f, n)
    logarithm = fma(turns, s.constant(math.log(2)), fma(s * z, polynomial(z, _ATANH_SHORT), s + s))
    product = at_most(at_least(power * _infinite_log(size, logarithm), -150.0), 150.0)
    n, r, q = reduced_exp(f, product, _EXP_SHORT)
    return ((q + 1) * power_of_two(f, n)).astype("f32")


def _power_64(base: Value, exponent: Value) -> Value:
    f = F64
    size = abs(base)
    denormal = size < 2.0 ** (1 - f.bias)
    n, mantissa = exponent_and_mantissa(f, choose(denormal, size * 2.0**54, size))
    n = choose(denormal, n - 54, n)
    high, low = precise_log(f, n, mantissa - 1)
    high = _infinite_log(size, high)
    power = at_most(at_least(exponent, -(2.0**70)), 2.0**70)  # beyond, the result is 0, 1 or Inf already
    product, error = exact_product(power, high)
    error = fma(power, low, error)
    clamped = at_most(at_least(product, f.underflow), f.overflow)
    error = choose(product == clamped, error, error.constant(0))
    n, r, _ = reduced_exp(f, clamped, (0.0,))
    r = r + error
    q = fma(r * r, polynomial(r, f.exp), r)
    return times_power_of_two(f, q + 1, n)


def precise_log(f: Format, n: Value, rest: Value) -> tuple[Value, Value]:
    """n ln 2 + log(1 + rest) as a sum of two numbers, the second far below the first's last place."""
    below = rest + 2
    lost = rest - (below - 2)
    s = rest / below
    back, error = exact_product(s, below)
    s_low = ((rest - back) - error - s * lost) / below
    # log = s (2 + z t), z = s^2, t = 2/3 + z tail
    z, z_low = exact_product(s, s)
    z_low = fma(s + s, s_low, z_low)
    t, t_low = _sum(s.constant(_TWO_THIRDS[0]), z * polynomial(z, _ATANH_TAIL))
    t_low = t_low + _TWO_THIRDS[1]
    u, u_low = exact_product(z, t)
    u_low = u_low + (z * t_low + z_low * t)
    factor, factor_low = _sum(s.constant(2), u)
    factor_low = factor_low + u_low
    high, low = exact_product(s, factor)
    low = low + (s * factor_low + s_low * factor)
    turns = to_float(f, n)
    whole, whole_low = _full_sum(turns * f.ln2[0], high)
    return _sum(whole, whole_low + (low + turns * f.ln2[1]))


def _infinite_log(size: Value, logarithm: Value) -> Value:
    logarithm = choose(size < math.inf, logarithm, size)
    return choose(size == 0, size.constant(-math.inf), logarithm)


def _sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and what its rounding lost, for |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


def _full_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and what its rounding lost."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


# --- integers -------------------------------------------------------------------------------------------------------


def _integer_power(base: Value, exponent: Value) -> Value:
    result = by_lane("power", _emit_power, base, exponent)
    if base.scalar.kind == "u":
        return result
    odd = (exponent & 1) == 1
    inverse = choose(base == 1, base, choose(base == -1, choose(odd, base, -base), base.constant(0)))
    return choose(exponent < 0, inverse, result)


def _emit_power(builder: ir.IRBuilder, base: Value, exponent: Value) -> None:
    """Square and multiply, while digits of the exponent are left."""
    kind, start = base.value.type, builder.block
    loop, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    result, factor, left = (builder.phi(kind) for _ in range(3))
    power = choose((base.of(left) & 1) == 1, base.of(result) * base.of(factor), base.of(result))
    rest = base.of(builder.lshr(left, base.constant(1).value))
    for phi, first, later in (
        (result, base.constant(1), power),
        (factor, base, base.of(factor) * base.of(factor)),
        (left, exponent, rest),
    ):
        phi.add_incoming(first.value, start)
        phi.add_incoming(later.value, loop)
    builder.cbranch((rest != 0).value, loop, end)
    builder.position_at_end(end)
    builder.ret(power.value)
