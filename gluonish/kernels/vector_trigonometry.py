"""`sin`, `cos` and `tan`, by the number of quarter turns and the angle that is left.

Deliberately not here: a reduction for angles of any size; `sin` says how far this one is accurate.
"""

from __future__ import annotations

import math

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_steps import F32, F64, Format, at_least, at_most, enter, fma, polynomial

# pi/2 in parts whose products with the number of quarter turns are exact: up to 2^29 turns, and up to 2^20
_HALF_PI_24 = (1.5707962512969971, 7.549789415861596e-08, 5.390302858158119e-15)
_HALF_PI_33 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)

# (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4 by r^2 for |r| <= pi/4: to 2^-37, for a tangent in float32
_SIN_SHORT = (-0.16666666640797764, 0.008333329304868724, -0.00019839312265777125, 2.718121521156447e-06)
_COS_SHORT = (0.041666666619491415, -0.0013888883500073224, 2.4799460152581868e-05, -2.7205753969949895e-07)


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


def tan(x: Value) -> Value:
    """The tangent of x radians, sine by cosine in float64; accurate where `sin` is."""
    f, inner = enter("tan", x)
    quarter, r, low = _quarter_turns_64(f, inner)
    z = r * r
    sine_tail = fma(z * r, polynomial(z, _SIN_SHORT if f is F32 else F64.sin), low)
    sine = r + sine_tail
    straight = 1 - z * 0.5
    cosine_tail = fma(z * z, polynomial(z, _COS_SHORT if f is F32 else F64.cos), fma(-r, low, (1 - straight) - z * 0.5))
    cosine = straight + cosine_tail
    odd = (quarter & 1) == 1
    top, below = choose(odd, -cosine, sine), choose(odd, sine, cosine)
    result = top / below
    if f is not F32:  # what rounding sine and cosine has cost
        sine_low, cosine_low = sine_tail - (sine - r), cosine_tail - (cosine - straight)
        top_low, below_low = choose(odd, -cosine_low, sine_low), choose(odd, sine_low, cosine_low)
        result = result + (top_low - result * below_low) / below
    return choose(inner == 0, inner, result.astype(x.code)).relaxed(x)


def _quarter_turns(f: Format, x: Value) -> tuple[Value, Value, Value]:
    """The number of quarter turns, the angle that is left, and what its rounding lost."""
    quarter, left, low = _quarter_turns_64(f, x)
    return quarter.astype("i32" if f is F32 else "i64"), left.astype(x.code), low.astype(x.code)


def _quarter_turns_64(f: Format, x: Value) -> tuple[Value, Value, Value]:
    """The same in float64 for both types."""
    wide = x.astype("f64")
    shifted = fma(wide, wide.constant(2 / math.pi), wide.constant(F64.shift))
    turns = shifted - F64.shift
    parts = _HALF_PI_24 if f is F32 else _HALF_PI_33
    r = fma(turns, wide.constant(-parts[0]), wide)
    least = turns * parts[2]
    if f is F32:
        r = fma(turns, wide.constant(-parts[1]), r)
    else:  # the second product is exact, but the difference is not
        second = turns * parts[1]
        before, r = r, r - second
        least = least - ((before - r) - second)
    left = r - least
    low = (r - left) - least
    bounded = at_most(at_least(left, -1.0), 1.0)  # for numbers so large that nothing is left of them
    low, left = choose(bounded == left, low, low.constant(0)), bounded
    return shifted.bits(), left, low


def _sine_or_cosine(f: Format, quarter: Value, r: Value, low: Value) -> Value:
    z = r * r
    sine = r + fma(z * r, polynomial(z, f.sin), low)
    cosine = fma(z * z, polynomial(z, f.cos), fma(-r, low, z * -0.5)) + 1
    result = choose((quarter & 1) == 1, cosine, sine)
    return choose((quarter & 2) == 2, -result, result)
