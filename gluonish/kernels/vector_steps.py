"""What the functions of `vector_math.py` share: checks of operands, float formats, polynomials, range reductions.

Deliberately not here: the functions themselves, and constants that one of them alone needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gluonish.kernels import target
from gluonish.kernels.value import Number, Value, choose, declare, suffix

Operand = Value | Number


# --- float formats --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """A float type: bits of the mantissa, bias of the exponent, and the constants that depend on them."""

    mantissa: int
    bias: int
    shift: float  # adding it rounds to an integer, which then stands in the low bits
    ln2: tuple[float, float]  # the first part times any exponent is exact
    exp: tuple[float, ...]  # (e^r - 1 - r) / r^2 for |r| <= ln(2)/2
    sin: tuple[float, ...]  # (sin r - r) / r^3 by r^2, for |r| <= pi/4
    cos: tuple[float, ...]  # (cos r - 1 + r^2/2) / r^4 by r^2
    overflow: float  # exp is Inf from a little below here
    underflow: float  # exp is 0 from a little above here
    tanh_one: float  # tanh is 1 from here


F32 = Format(
    mantissa=23,
    bias=127,
    shift=1.5 * 2.0**23,
    ln2=(0.693359375, -2.12194440e-4),
    exp=(0.5, 0.166666657, 0.0416663587, 0.00833338965, 0.00139408233, 0.000198458947),
    sin=(-0.166666672, 0.00833332911, -0.000198393231, 2.71819999e-06),
    cos=(0.0416666679, -0.00138888834, 2.47995085e-05, -2.72092024e-07),
    overflow=88.8,
    underflow=-104.0,
    tanh_one=9.02,
)
F64 = Format(
    mantissa=52,
    bias=1023,
    shift=1.5 * 2.0**52,
    ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
    exp=(
        0.5, 0.16666666666666677, 0.041666666666666505, 0.0083333333333215128, 0.0013888888888963428,
        0.00019841269886479112, 2.4801587171175121e-05, 2.7557243802463566e-06, 2.7557403189849876e-07,
        2.5109195684329514e-08, 2.0875350077312569e-09,
    ),
    sin=(
        -0.16666666666666666, 0.0083333333333333228, -0.00019841269841254914, 2.7557319214109518e-06,
        -2.5052104890100991e-08, 1.6058363840090443e-10, -7.5785573177901525e-13,
    ),
    cos=(
        0.041666666666666664, -0.0013888888888888874, 2.4801587301571303e-05, -2.7557319215291159e-07,
        2.0876754346800304e-09, -1.147029103820185e-11, 4.738007177150805e-14,
    ),
    overflow=709.9,
    underflow=-746.0,
    tanh_one=20.0,
)  # fmt: skip

_SHIFT_BITS = 0x4338000000000000  # of the float64 1.5 * 2^52


# --- operands -------------------------------------------------------------------------------------------------------


def pair(name: str, x: Operand, y: Operand) -> tuple[Value, Value]:
    """Two operands as Values of one type; an error if both are Python numbers."""
    if isinstance(x, Value):
        return x, x._lift(y)
    if isinstance(y, Value):
        return y.constant(x), y
    raise TypeError(f"m.{name} of two Python numbers has no type; make one of them a kernel value")


def floating(name: str, x: Value) -> Value:
    """The value itself; an error if it is not of a float type."""
    if not isinstance(x, Value) or not x.floating:
        kind = x.scalar.name if isinstance(x, Value) else "a Python number"
        raise TypeError(f"m.{name} of {kind}; cast it to a float type first")
    return x


def enter(name: str, x: Value) -> tuple[Format, Value]:
    """The constants of a value's type, and the value for strict arithmetic."""
    return format_of(floating(name, x)), x.strict()


def format_of(x: Value) -> Format:
    """The constants of a float value's type."""
    return F32 if x.code == "f32" else F64


# --- arithmetic -----------------------------------------------------------------------------------------------------


def fma(a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once where the machine can."""
    return a.call("llvm.fmuladd", b, c)


def exact_product(a: Value, b: Value) -> tuple[Value, Value]:
    """a * b in float64 and what its rounding lost."""
    total = a * b
    if target.current().fma:
        return total, a.call("llvm.fma", b, -total)
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return total, ((a1 * b1 - total) + a1 * b2 + a2 * b1) + a2 * b2


def _halves(x: Value) -> tuple[Value, Value]:
    scaled = x * (2.0**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high


def polynomial(x: Value, terms: Sequence[float]) -> Value:
    """terms[0] + terms[1] x + terms[2] x^2 + ..."""
    result = x.constant(terms[-1])
    for term in reversed(terms[:-1]):
        result = fma(result, x, x.constant(term))
    return result


def to_float(f: Format, n: Value) -> Value:
    """A small integer as a float of the format, exactly."""
    if f is F32:
        return n.astype("f32")
    # 64-bit integers convert in vector code only on AVX-512; small ones do by the bits of the shift
    return (n + _SHIFT_BITS).from_bits() - f.shift


def copysign(size: Value, sign_of: Value) -> Value:
    """The first with the sign of the second."""
    return size.call("llvm.copysign", sign_of)


def short(x: Value) -> bool:
    """Whether results of this type have fewer digits than float64, so that shorter polynomials do."""
    return floating("short", x).code != "f64"


def wide(x: Value) -> Value:
    """The same numbers in float64, for strict arithmetic."""
    return floating("wide", x).strict().astype("f64")


def narrow(result: Value, like: Value) -> Value:
    """Rounded to the type of `like`."""
    return result.astype(like.code).relaxed(like)


def at_most(x: Value, limit: float) -> Value:
    """The smaller of a value and a limit; a NaN stays."""
    bound = x.constant(limit)
    return choose(bound < x, bound, x)


def at_least(x: Value, limit: float) -> Value:
    """The larger of a value and a limit; a NaN stays."""
    bound = x.constant(limit)
    return choose(bound > x, bound, x)


# --- range reductions -----------------------------------------------------------------------------------------------


def reduced_exp(f: Format, x: Value, terms: Sequence[float]) -> tuple[Value, Value, Value]:
    """n, r, e^r - 1 with x = n ln 2 + r."""
    shifted = fma(x, x.constant(1 / math.log(2)), x.constant(f.shift))
    n = shifted.bits() - x.constant(f.shift).bits()
    turns = shifted - f.shift
    r = fma(turns, x.constant(-f.ln2[1]), fma(turns, x.constant(-f.ln2[0]), x))
    return n, r, fma(r * r, polynomial(r, terms), r)


def exponent_and_mantissa(f: Format, x: Value) -> tuple[Value, Value]:
    """n and a mantissa in sqrt(1/2)..sqrt(2) with x = mantissa 2^n, for an ordinary positive x."""
    offset = x.constant(math.sqrt(0.5)).bits()
    bits = x.bits() - offset
    n = bits >> f.mantissa
    low = (1 << f.mantissa) - 1
    return n, ((bits & low) + offset).from_bits()


def power_of_two(f: Format, n: Value) -> Value:
    """2^n, for an n that is the exponent of an ordinary number."""
    return ((n + f.bias) << f.mantissa).from_bits()


def times_power_of_two(f: Format, x: Value, n: Value) -> Value:
    """x times 2^n, rounded once where that is a denormal number or Inf."""
    if f is F32 and target.current().vector_bytes == 64:  # one instruction there, a call of the C library elsewhere
        kinds = [x.value.type, n.value.type]
        name = f"llvm.ldexp.{suffix(kinds[0])}.{suffix(kinds[1])}"
        return x.of(x.builder.call(declare(x.builder, name, kinds[0], kinds), [x.value, n.value]))
    # in two steps, each an ordinary number
    half = n >> 1
    return x * power_of_two(f, half) * power_of_two(f, n - half)
