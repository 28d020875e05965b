"""Powers and logarithms of the bases 2 and 10, roots: `exp2`, `log2`, `log10`, `cbrt`, `hypot`.

float32 is computed in float64 where that is the shorter way to its last place.

Deliberately not here: the natural ones (`vector_exponentials.py`, `vector_logarithms.py`), `sqrt`.
"""

from __future__ import annotations

import math

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs, maximum  # noqa: A004
from gluonish.kernels.vector_exponentials import exp
from gluonish.kernels.vector_logarithms import log, log_edges
from gluonish.kernels.vector_powers import precise_log
from gluonish.kernels.vector_steps import (
    F32,
    F64,
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
    times_power_of_two,
)

# 1 / log(2) and 1 / log(10), each as a sum of two numbers
_LOG2_E = (1.4426950408889634, 2.0355273740931033e-17)
_LOG10_E = (0.4342944819032518, 1.098319650216765e-17)


def exp2(x: Value) -> Value:
    """2 to the power x."""
    f, inner = enter("exp2", x)
    inner = at_most(at_least(inner, f.underflow * 1.5), f.overflow * 1.5)
    shifted = inner + f.shift
    n = shifted.bits() - inner.constant(f.shift).bits()
    r = (inner - (shifted - f.shift)) * math.log(2)
    q = fma(r * r, polynomial(r, f.exp), r)
    return times_power_of_two(f, q + 1, n).relaxed(x)


def log2(x: Value) -> Value:
    """The logarithm to base 2; NaN below 0."""
    return _logarithm("log2", x, _LOG2_E)


def log10(x: Value) -> Value:
    """The logarithm to base 10; NaN below 0."""
    return _logarithm("log10", x, _LOG10_E)


def _logarithm(name: str, x: Value, factor: tuple[float, float]) -> Value:
    f, inner = enter(name, x)
    if f is F32:
        return (log(inner.astype("f64")) * factor[0]).astype("f32").relaxed(x)
    denormal = inner < 2.0 ** (1 - f.bias)
    n, mantissa = exponent_and_mantissa(f, choose(denormal, inner * 2.0**54, inner))
    high, low = precise_log(f, choose(denormal, n - 54, n), mantissa - 1)
    product, lost = exact_product(high, high.constant(factor[0]))
    return log_edges(inner, product + (lost + (high * factor[1] + low * factor[0]))).relaxed(x)


def cbrt(x: Value) -> Value:
    """The number whose cube is x."""
    f, inner = enter("cbrt", x)
    wide = inner.astype("f64")
    size = abs(wide)
    near = exp(log(size) * (1 / 3))
    if f is not F32:  # a step of Newton's method
        near = near - (near - size / (near * near)) * (1 / 3)
    ordinary = (size > 0) & (size < math.inf)
    return copysign(choose(ordinary, near, size), wide).astype(x.code).relaxed(x)


def hypot(x: Operand, y: Operand) -> Value:
    """sqrt(x^2 + y^2) without overflow; Inf if either is infinite, even beside NaN."""
    a, b = pair("hypot", x, y)
    f, first = enter("hypot", a)
    u, v = abs(first.astype("f64")), abs(b.strict().astype("f64"))
    scale = None
    if f is not F32:
        exponent = maximum(u, v).bits() & (0x7FF << F64.mantissa)
        # 2^-e of the larger one, at the ends of the range only near it
        exponent = choose(exponent < (60 << F64.mantissa), exponent.constant(60 << F64.mantissa), exponent)
        exponent = choose(exponent > (1986 << F64.mantissa), exponent.constant(1986 << F64.mantissa), exponent)
        scale = exponent.from_bits()
        inverse = ((2046 << F64.mantissa) - exponent).from_bits()
        u, v = u * inverse, v * inverse
    result = fma(u, u, v * v).call("llvm.sqrt")
    if scale is not None:
        result = result * scale
    infinite = (u == math.inf) | (v == math.inf)
    return choose(infinite, result.constant(math.inf), result).astype(a.code).relaxed(a)
