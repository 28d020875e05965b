"""The inverse trigonometric functions: `asin`, `acos`, `atan`, `atan2`.

float32 is computed in float64 with shorter polynomials, which rounds once; float64 keeps what the roots and the angles
that are added lose.
Source: W. J. Cody, W. Waite, Software Manual for the Elementary Functions, 1980 (reductions to |t| <= 1/2); the split
root is that of FDLIBM's asin (K. C. Ng, 1993).

Deliberately not here: the functions they invert (`vector_trigonometry.py`).
"""

from __future__ import annotations

import math

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs  # noqa: A004
from gluonish.kernels.vector_steps import F32, Operand, copysign, enter, fma, pair, polynomial

# (asin t - t) / t^3 by t^2 for |t| <= 1/2
_ASIN = (
    0.16666666627480403, 0.07500004965304162, 0.04464071411723254, 0.030426411647794804, 0.02186676597948859,
    0.02064099709335444, 0.00199335943565466, 0.03289647642959134,
)  # fmt: skip
_ASIN_64 = (
    0.1666666666666666, 0.07500000000002498, 0.0446428571397277, 0.03038194464241127, 0.022372151678993087,
    0.017352943590312194, 0.013961899384848616, 0.011585706976032431, 0.00948391955758306, 0.010009716238017373,
    0.0006825952908761485, 0.024825066796977796, -0.0261474414915954, 0.03364247799268645,
)  # fmt: skip
# (atan t - t) / t^3 by t^2 for |t| <= 1/2
_ATAN = (
    -0.3333333292672551, 0.19999957643583707, -0.14284213255221062, 0.11085643476616684, -0.0885569992901784,
    0.06455275928436074, -0.02992298043008181,
)  # fmt: skip
_ATAN_64 = (
    -0.3333333333333333, 0.1999999999999954, -0.14285714285654985, 0.11111111107247405, -0.09090908941327411,
    0.07692303933342878, -0.0666660197425644, 0.05881564695716968, -0.05256224722328746, 0.047174946846601826,
    -0.041407682030329185, 0.03303821980134545, -0.0204421156643959, 0.006933749125137565,
)  # fmt: skip
# multiples of pi/4, and what is left of them
_LEFT = (0.0, 3.061616997868383e-17, 6.123233995736766e-17, 9.184850993605148e-17, 1.2246467991473532e-16)
_ANGLES = tuple((k * math.pi / 4, rest) for k, rest in enumerate(_LEFT))
_PI_4, _PI_2, _PI_2_LOW = math.pi / 4, math.pi / 2, 6.123233995736766e-17


def asin(x: Value) -> Value:
    """The angle between -pi/2 and pi/2 whose sine is x; NaN beyond 1."""
    wide, size, large, root, rest, tail = _root_and_tail("asin", x)
    high, low = _split(root, rest, large)
    beyond = _PI_4 - (((root + root) * tail - (_PI_2_LOW - (low + low))) - (_PI_4 - (high + high)))
    return _narrow(copysign(choose(large, beyond, fma(size, tail, size)), wide), x)


def acos(x: Value) -> Value:
    """The angle between 0 and pi whose cosine is x; NaN beyond 1."""
    wide, size, large, root, rest, tail = _root_and_tail("acos", x)
    high, low = _split(root, rest, large)
    near_one = (high + fma(root, tail, low)) * 2
    near_minus_one = (_PI_2 - (root + fma(root, tail, root.constant(-_PI_2_LOW)))) * 2
    middle = _PI_2 - (wide - (_PI_2_LOW - wide * tail))
    return _narrow(choose(large, choose(wide < 0, near_minus_one, near_one), middle), x)


def atan(x: Value) -> Value:
    """The angle between -pi/2 and pi/2 whose tangent is x."""
    f, inner = enter("atan", x)
    wide = inner.astype("f64")
    size = abs(wide)
    far, middle = size > 2, size > 0.5
    top = choose(far, wide.constant(-1), choose(middle, size - 1, size))
    below = choose(far, size, choose(middle, size + 1, wide.constant(1)))
    base = choose(far, wide.constant(_PI_2), choose(middle, wide.constant(_PI_4), wide.constant(0)))
    base_low = choose(far, wide.constant(_PI_2_LOW), choose(middle, wide.constant(_PI_2_LOW / 2), wide.constant(0)))
    t = top / below
    result = base + (fma(t, _atan_tail(f is F32, t), base_low) + t)
    return _narrow(copysign(result, wide), x)


def atan2(y: Operand, x: Operand) -> Value:
    """The angle of the point (x, y) between -pi and pi, with C's values at the edges."""
    a, b = pair("atan2", y, x)
    f, rise = enter("atan2", a)
    up, along = rise.astype("f64"), b.strict().astype("f64")
    m, d = abs(up), abs(along)
    steep = m > d
    small, large = choose(steep, d, m), choose(steep, m, d)
    both = small == math.inf
    small, large = choose(both, small.constant(1), small), choose(both, large.constant(1), large)
    if f is not F32:  # the sum below must not overflow
        shrink = choose(large > 2.0**1000, large.constant(2.0**-10), large.constant(1))
        small, large = small * shrink, large * shrink
    middle = small > large * 0.5
    t = choose(middle, small - large, small) / choose(middle, small + large, large)
    t = choose(large == 0, t.constant(0), t)
    backwards = along.bits() < 0  # a zero has a side, too
    steps = choose(middle, t.constant(1), t.constant(0))
    steps = choose(steep, 2 - steps, steps)
    steps = choose(backwards, 4 - steps, steps)
    base, base_low = t.constant(0), t.constant(0)
    for count, (angle, rest) in enumerate(_ANGLES[1:], 1):
        base = choose(steps == count, t.constant(angle), base)
        base_low = choose(steps == count, t.constant(rest), base_low)
    turned = choose(steep, -t, t)
    turned = choose(backwards, -turned, turned)
    result = base + (fma(turned, _atan_tail(f is F32, t), base_low) + turned)
    result = copysign(result, up)
    return _narrow(choose((up == up) & (along == along), result, up + along), a)


def _atan_tail(short: bool, t: Value) -> Value:
    """atan(t) / t - 1."""
    z = t * t
    return z * polynomial(z, _ATAN if short else _ATAN_64)


def _root_and_tail(name: str, x: Value) -> tuple[Value, Value, Value, Value, Value, Value]:
    """x and |x| in float64, whether |x| > 1/2, then t = sqrt(z) with z = (1 - |x|) / 2, z, and asin(t) / t - 1; for a
    small x t is |x| itself."""
    f, inner = enter(name, x)
    wide = inner.astype("f64")
    size = abs(wide)
    large = size > 0.5
    z = choose(large, (1 - size) * 0.5, size * size)
    root = choose(large, z.call("llvm.sqrt"), size)
    return wide, size, large, root, z, z * polynomial(z, _ASIN if f is F32 else _ASIN_64)


def _split(root: Value, z: Value, large: Value) -> tuple[Value, Value]:
    """sqrt(z) as the sum of two numbers, the first with so few digits that its square is exact."""
    high = (root.bits() & -(1 << 32)).from_bits()
    low = (z - high * high) / (root + high)
    return high, choose(large & (root > 0), low, low.constant(0))


def _narrow(result: Value, like: Value) -> Value:
    return result.astype(like.code).relaxed(like)
