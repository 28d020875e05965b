"""`sin` and `cos`, by the number of quarter turns and the angle that is left.

Deliberately not here: a reduction for angles of any size; `sin` says how far this one is accurate.
"""

from __future__ import annotations

import math

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_steps import F32, F64, Format, at_least, at_most, enter, fma, polynomial

# pi/2 in parts whose products with the number of quarter turns are exact: up to 2^29 turns, and up to 2^20
_HALF_PI_24 = (1.5707962512969971, 7.549789415861596e-08, 5.390302858158119e-15)
_HALF_PI_33 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def sin(x: Value) -> Value:
    """The sine of x radians.

    Accurate for |x| up to 8e8 (float32) or 1.6e6 (float64). Beyond, the error grows with x; the result stays between -1
    and 1. NaN of Inf.
    """
    f, inner = enter("sin", x)
    quarter, r, low = _quarter_turns(f, inner)
    result = _sine_or_cosine(f, quarter, r, low)
    return choose(inner == 0, inner, result).relaxed(x)  # keeps the sign of a zero


def cos(x: Value) -> Value:
    """The cosine of x radians; accurate where `sin` is."""
    f, inner = enter("cos", x)
    quarter, r, low = _quarter_turns(f, inner)
    return _sine_or_cosine(f, quarter + 1, r, low).relaxed(x)


def _quarter_turns(f: Format, x: Value) -> tuple[Value, Value, Value]:
    """The number of quarter turns, the angle that is left, and what its rounding lost; in float64 for both types."""
    wide = x.astype("f64")
    shifted = fma(wide, wide.constant(2 / math.pi), wide.constant(F64.shift))
    turns = shifted - F64.shift
    parts = _HALF_PI_24 if f is F32 else _HALF_PI_33
    r = fma(turns, wide.constant(-parts[0]), wide)
    r = fma(turns, wide.constant(-parts[1]), r)
    least = turns * parts[2]
    left = r - least
    low = (r - left) - least
    bounded = at_most(at_least(left, -1.0), 1.0)  # for numbers so large that nothing is left of them
    low, left = choose(bounded == left, low, low.constant(0)), bounded
    quarter = shifted.bits().astype("i32" if f is F32 else "i64")
    return quarter, left.astype(x.code), low.astype(x.code)


def _sine_or_cosine(f: Format, quarter: Value, r: Value, low: Value) -> Value:
    z = r * r
    sine = r + fma(z * r, polynomial(z, f.sin), low)
    cosine = fma(z * z, polynomial(z, f.cos), fma(-r, low, z * -0.5)) + 1
    result = choose((quarter & 1) == 1, cosine, sine)
    return choose((quarter & 2) == 2, -result, result)
