"""The natural logarithms: `log`, `log1p`.

Deliberately not here: the logarithm in two numbers, which only `pow` needs (`vector_powers.py`).
"""

from __future__ import annotations

import math

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs  # noqa: A004
from gluonish.kernels.vector_steps import (
    F32,
    F64,
    Format,
    enter,
    exponent_and_mantissa,
    fma,
    polynomial,
    power_of_two,
    to_float,
)

# (log(1 + f) - f + f^2/2) / f^3 for sqrt(1/2) <= 1 + f <= sqrt(2), float32
_LOG = (
    0.333333135, -0.250000089, 0.200021341, -0.166680068, 0.142192245, -0.124051355, 0.118903235, -0.116796523,
    0.0674659759,
)  # fmt: skip
# (2 atanh(s) - 2 s) / s^3 by s^2, for the same range of (1 + s) / (1 - s): float64
_ATANH = (
    0.66666666666666663, 0.40000000000006702, 0.28571428568940122, 0.22222222668770661, 0.18181773905994683,
    0.15387167734035728, 0.13248381622561584, 0.13267125872893273,
)  # fmt: skip


def log(x: Value) -> Value:
    """The natural logarithm; NaN below 0."""
    f, inner = enter("log", x)
    tiny = 2.0 ** (1 - f.bias)
    denormal = inner < tiny
    usual = choose(denormal, inner * 2.0 ** (f.mantissa + 1), inner)
    n, mantissa = exponent_and_mantissa(f, usual)
    n = choose(denormal, n - (f.mantissa + 1), n)
    return log_edges(inner, _log_of(f, n, mantissa - 1)).relaxed(x)


def log1p(x: Value) -> Value:
    """The natural logarithm of 1 + x; accurate near 0."""
    f, inner = enter("log1p", x)
    total = inner + 1
    # what the sum lost, scaled like the mantissa
    lost = choose(abs(inner) < 1, inner - (total - 1), 1 - (total - inner))
    n, mantissa = exponent_and_mantissa(f, total)
    scale = power_of_two(f, choose(n > f.bias, n.constant(-f.bias), -n))
    result = log_edges(total, _log_of(f, n, (mantissa - 1) + lost * scale))
    return choose(abs(inner) < 2.0 ** -(f.mantissa + 2), inner, result).relaxed(x)


def log1p_of_sum(u: Value, low: Value, doublings: Value) -> Value:
    """log(1 + u + low) + doublings ln 2 in float64, where low is less than the last place of u >= 0."""
    f = F64
    total = u + 1
    lost = choose(u < 1, u - (total - 1), 1 - (total - u)) + low
    n, mantissa = exponent_and_mantissa(f, total)
    scale = power_of_two(f, choose(n > f.bias, n.constant(-f.bias), -n))
    return log_edges(total, _log_of(f, n + doublings, (mantissa - 1) + lost * scale))


def _log_of(f: Format, n: Value, rest: Value) -> Value:
    """n ln 2 + log(1 + rest)."""
    turns = to_float(f, n)
    if f is F32:
        cube = rest * rest * rest
        tail = fma(cube, polynomial(rest, _LOG), turns * f.ln2[1])
        tail = fma(rest * rest, rest.constant(-0.5), tail)
        return fma(turns, rest.constant(f.ln2[0]), rest + tail)
    # log(1 + rest) = rest - (half - s (half + series)) with half = rest^2 / 2, which loses nothing for a small rest
    s = rest / (rest + 2)
    z = s * s
    half = 0.5 * rest * rest
    series = z * polynomial(z, _ATANH)
    inner = fma(s, half + series, turns * f.ln2[1])
    return fma(turns, rest.constant(f.ln2[0]), rest - (half - inner))


def log_edges(x: Value, result: Value) -> Value:
    """The result of a logarithm of x, or what it is for 0, negative numbers, Inf and NaN."""
    result = choose(x < math.inf, result, x)  # Inf and NaN
    result = choose(x == 0, x.constant(-math.inf), result)
    return choose(x < 0, x.constant(math.nan), result)
