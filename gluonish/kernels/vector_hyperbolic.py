"""The hyperbolic functions and their inverses: `sinh`, `cosh`, `asinh`, `acosh`, `atanh` (`tanh` is an exponential).

float32 is computed in float64, which rounds once. The inverses are logarithms of 1 + u, where u keeps its digits when
it is small.

Deliberately not here: the exponential and the logarithm (`vector_exponentials.py`, `vector_logarithms.py`).
"""

from __future__ import annotations

import math

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs  # noqa: A004
from gluonish.kernels.vector_logarithms import log1p_of_sum
from gluonish.kernels.vector_steps import (
    F32,
    F64,
    at_most,
    copysign,
    enter,
    exact_product,
    fma,
    polynomial,
    reduced_exp,
    times_power_of_two,
)

# (sinh x - x) / x^3 by x^2 for |x| <= 1
_SINH = (0.16666666496574828, 0.008333350057506631, 0.0001983615986364614, 2.816950902452188e-06)
_SINH_64 = (
    0.16666666666666666, 0.008333333333333333, 0.000198412698412696, 2.755731922411629e-06, 2.5052108346508572e-08,
    1.6059050601327995e-10, 7.646482890861454e-13, 2.8482331481923804e-15,
)  # fmt: skip
_HUGE = 2.0**500  # beyond, 1 is nothing beside x^2, which may overflow


def sinh(x: Value) -> Value:
    """The hyperbolic sine, (exp(x) - exp(-x)) / 2."""
    f, inner = enter("sinh", x)
    wide = inner.astype("f64")
    size = abs(wide)
    z = wide * wide
    small = fma(wide * z, polynomial(z, _SINH if f is F32 else _SINH_64), wide)
    half, low = _half_exp(size)
    large = half - (0.25 / half - low)
    return choose(size < 1, small, copysign(large, wide)).astype(x.code).relaxed(x)


def cosh(x: Value) -> Value:
    """The hyperbolic cosine, (exp(x) + exp(-x)) / 2."""
    _, inner = enter("cosh", x)
    half, low = _half_exp(abs(inner.astype("f64")))
    return (half + (0.25 / half + low)).astype(x.code).relaxed(x)


def asinh(x: Value) -> Value:
    """The number whose hyperbolic sine is x."""
    _, inner = enter("asinh", x)
    wide = inner.astype("f64")
    size = abs(wide)
    huge = size > _HUGE
    square = size * size
    more = square / ((square + 1).call("llvm.sqrt") + 1)  # sqrt(x^2 + 1) - 1
    u = choose(huge, size, size + more)
    low = choose(size < 1, size - (u - more), more - (u - size))
    result = log1p_of_sum(u, choose(huge, low.constant(0), low), _one_where(huge))
    return copysign(choose(size < 2.0**-28, size, result), wide).astype(x.code).relaxed(x)


def acosh(x: Value) -> Value:
    """The number not below 0 whose hyperbolic cosine is x; NaN below 1."""
    f, inner = enter("acosh", x)
    wide = inner.astype("f64")
    huge = wide > _HUGE
    more = wide - 1
    above = more + 2
    square, lost = exact_product(more, above)
    root = square.call("llvm.sqrt")
    u = choose(huge, wide, more + root)
    low = more - (u - root)
    if f is not F32:  # what the root and its square have lost
        back, error = exact_product(root, root)
        rest = ((square - back) - error) + (lost + more * (more - (above - 2)))
        low = low + choose(root == 0, rest, rest / (root + root))
    low = choose(huge, u.constant(0), low)
    result = log1p_of_sum(u, low, _one_where(huge))
    return choose(wide < 1, wide.constant(math.nan), result).astype(x.code).relaxed(x)


def atanh(x: Value) -> Value:
    """The number whose hyperbolic tangent is x; Inf at 1, NaN beyond."""
    _, inner = enter("atanh", x)
    wide = inner.astype("f64")
    size = abs(wide)
    below = 1 - size
    u = (size + size) / below
    low = -u * ((1 - below) - size) / below
    result = log1p_of_sum(u, choose(below == 0, low.constant(0), low), _one_where(size < 0)) * 0.5
    return copysign(choose(size < 2.0**-28, size, result), wide).astype(x.code).relaxed(x)


def _half_exp(size: Value) -> tuple[Value, Value]:
    """exp(x) / 2 for x >= 0 as a sum of two numbers, in float64."""
    n, _, q = reduced_exp(F64, at_most(size, 711.0), F64.exp)
    high = q + 1
    return times_power_of_two(F64, high, n - 1), times_power_of_two(F64, q - (high - 1), n - 1)


def _one_where(condition: Value) -> Value:
    return condition.astype("i64")
