"""The math namespace of op bodies as vector instructions; `nd/math.py` is the same namespace on NumPy arrays.

This module itself is `m`: `body(vector_math, *values)`. Its functions take Values (scalars or vectors of float32 or
float64; the simple ones also integers and bools) and Python numbers. But for the float remainder and the integer power
they have no branch and no call, and so become vector code in a loop that LLVM widens as well as in a microkernel's
epilogue. They are right for NaN, Inf, signed zeros and denormals, to 2 units in the last place (`tanh` and `sigmoid`:
2.5). The range of `sin` and `cos` is limited: see there.

Method: Cody and Waite's range reductions, then polynomials that are minimax in the relative error of the function (made
with Remez' algorithm in 60 digits), evaluated by Horner's rule. Everything is computed on `strict` Values: a compiler
that reassociates would undo the reductions.
Source: W. J. Cody, W. Waite, Software Manual for the Elementary Functions, 1980; the logarithms follow the argument
reduction by atanh described there, pow carries its logarithm in two numbers (T. J. Dekker, A floating-point technique
for extending the available precision, 1971), erf uses the scaled complement of M. M. Shepherd and J. G. Laframboise,
Math. Comp. 36 (1981).

Deliberately not here: reductions, and anything that depends on a neighbouring element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir

from gluonish.kernels import target
from gluonish.kernels.value import Number, Value, choose, declare, llvm_type, suffix  # noqa: F401  (the interface)

Operand = Value | Number


# --- for those who emit code ----------------------------------------------------------------------------------------


def emit(body: Callable[..., Any], builder: ir.IRBuilder, codes: Sequence[str], values: Sequence[ir.Value]) -> Value:
    """Applies an op body to LLVM values of the given types."""
    operands = [Value(builder, value, code) for value, code in zip(values, codes, strict=True)]
    result = body(_namespace(), *operands)
    return result if isinstance(result, Value) else operands[0].constant(result)


@cache
def result_code(body: Callable[..., Any], codes: tuple[str, ...]) -> str:
    """The type of a body's result, found by emitting it once for nothing."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [llvm_type(code) for code in codes]), "scratch")
    builder = ir.IRBuilder(function.append_basic_block())
    return emit(body, builder, codes, function.args).code


def _namespace() -> Any:
    import sys

    return sys.modules[__name__]


# --- constants ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Format:
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


_F32 = _Format(
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
_F64 = _Format(
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

# (log(1 + f) - f + f^2/2) / f^3 for sqrt(1/2) <= 1 + f <= sqrt(2), float32
_LOG = (
    0.333333135, -0.250000089, 0.200021341, -0.166680068, 0.142192245, -0.124051355, 0.118903235, -0.116796523,
    0.0674659759,
)  # fmt: skip
# (2 atanh(s) - 2 s) / s^3 by s^2, for the same range of (1 + s) / (1 - s): float64; short, for float32's pow
_ATANH = (
    0.66666666666666663, 0.40000000000006702, 0.28571428568940122, 0.22222222668770661, 0.18181773905994683,
    0.15387167734035728, 0.13248381622561584, 0.13267125872893273,
)  # fmt: skip
_ATANH_SHORT = (0.66666666676274022, 0.39999995441085495, 0.2857213020110137, 0.22175237844793966, 0.1959878499054504)
# (2 atanh(s) - 2 s - 2/3 s^3) / s^5 by s^2, for float64's pow
_ATANH_TAIL = (
    0.39999999999999974, 0.28571428571446317, 0.22222222217244667, 0.18181818905995115, 0.15384554444883611,
    0.13336410455832362, 0.116729359139708, 0.12004642933015326,
)  # fmt: skip
_EXP_SHORT = (
    0.50000000001065237, 0.16666666754922829, 0.041666665946750774, 0.0083332887880111731, 0.0013888985810856307,
    0.00019905100272760975, 2.4796383481248442e-05,
)  # fmt: skip
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)

# erf(x)/x - 1 by x^2 below the split; beyond it -log(erfc(x))/x (float32) or (1 + 2x) exp(x^2) erfc(x) by (x-3)/(x+3)
_ERF_SMALL = (0.128379166, -0.376126349, 0.112837151, -0.0268605091, 0.00520385941, -0.000817563967, 8.51310469e-05)
_ERF_LARGE = (1.12866783, 0.635060966, 0.106407873, -0.0239300504, 0.00373272132, -0.000347941852, 1.406516e-05)
_ERF_SMALL_64 = (
    0.12837916709551259, -0.37612638903183748, 0.11283791670954857, -0.026866170645072896, 0.0052239776247808749,
    -0.00085483269787425971, 0.00012055331036911902, -1.4925593507147635e-05, 1.6460972820674074e-06,
    -1.6350025257252504e-07, 1.4657880052504533e-08, -1.1365666702331524e-09, 5.9452628971412274e-11,
)  # fmt: skip
_ERF_LARGE_64 = (
    1.2530080582697296, -0.13562110612456643, -0.047562294352854091, 0.12964515871106927, -0.11927366337129307,
    0.068308027278489225, -0.023770516807791357, 0.0025293839121639282, 0.001888690101815253, -0.00077972943663292768,
    -0.00010482361978327067, 0.0001253081616372516, 3.6020157162628621e-06, -2.4298397548384617e-05,
    -6.3117065869751289e-06,
)  # fmt: skip

_SHIFT_BITS = 0x4338000000000000  # of the float64 1.5 * 2^52

# pi/2 in parts whose products with the number of quarter turns are exact: up to 2^29 turns, and up to 2^20
_HALF_PI_24 = (1.5707962512969971, 7.549789415861596e-08, 5.390302858158119e-15)
_HALF_PI_33 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


# --- arithmetic -----------------------------------------------------------------------------------------------------


def where(condition: Value, x: Operand, y: Operand) -> Value:
    """x where the condition holds, else y."""
    return choose(condition, *_pair("where", x, y))


def abs(x: Value) -> Value:  # noqa: A001
    """The absolute value; the minimum of an integer type has none and stays."""
    if x.floating:
        return x.call("llvm.fabs")
    return choose(x < 0, -x, x) if x.scalar.kind == "i" else x


def sign(x: Value) -> Value:
    """-1, 0 or 1; NaN of NaN."""
    if x.code == "b1":
        return x
    positive = choose(x > 0, x.constant(1), choose(x == 0, x.constant(0), x))
    return choose(x < 0, x.constant(-1), positive) if x.scalar.kind != "u" else positive


def square(x: Value) -> Value:
    """x * x."""
    return x & x if x.code == "b1" else x * x


def sqrt(x: Value) -> Value:
    """The square root, correctly rounded."""
    return _float("sqrt", x).call("llvm.sqrt")


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x)."""
    return 1 / sqrt(x)


def maximum(x: Operand, y: Operand) -> Value:
    """The larger; NaN if either is NaN."""
    return _extreme("maximum", x, y)


def minimum(x: Operand, y: Operand) -> Value:
    """The smaller; NaN if either is NaN."""
    return _extreme("minimum", x, y)


def isnan(x: Value) -> Value:
    """Whether it is NaN."""
    return x != x


def isinf(x: Value) -> Value:
    """Whether it is Inf or -Inf."""
    return abs(x) == math.inf if x.floating else x != x


def isfinite(x: Value) -> Value:
    """Whether it is neither Inf nor NaN."""
    return abs(x) < math.inf if x.floating else x == x


def logical_not(x: Value) -> Value:
    """Whether it is zero (for a bool: false)."""
    return ~x if x.code == "b1" else x == 0


def _extreme(name: str, x: Operand, y: Operand) -> Value:
    a, b = _pair(name, x, y)
    larger = name == "maximum"
    if not a.floating:
        return choose(a > b if larger else a < b, a, b)
    for number, value in ((x, b), (y, a)):
        if not isinstance(number, Value) and number == number:  # a constant that is not NaN: one instruction
            constant = value.constant(number)
            return choose(constant > value if larger else constant < value, constant, value)
    return a.call(f"llvm.{name}", b)


def _pair(name: str, x: Operand, y: Operand) -> tuple[Value, Value]:
    if isinstance(x, Value):
        return x, x._lift(y)
    if isinstance(y, Value):
        return y.constant(x), y
    raise TypeError(f"m.{name} of two Python numbers has no type; make one of them a kernel value")


def _float(name: str, x: Value) -> Value:
    if not isinstance(x, Value) or not x.floating:
        kind = x.scalar.name if isinstance(x, Value) else "a Python number"
        raise TypeError(f"m.{name} of {kind}; cast it to a float type first")
    return x


# --- rounding -------------------------------------------------------------------------------------------------------


def floor(x: Value) -> Value:
    """The largest integer value not above x."""
    return _round("floor", x, lambda near, of: choose(near > of, near - 1, near))


def ceil(x: Value) -> Value:
    """The smallest integer value not below x."""
    return _round("ceil", x, lambda near, of: choose(near < of, near + 1, near))


def trunc(x: Value) -> Value:
    """The integer part."""

    def correct(near: Value, of: Value) -> Value:
        return choose(abs(near) > abs(of), near - _copysign(near.constant(1), of), near)

    return _round("trunc", x, correct)


def round(x: Value) -> Value:  # noqa: A001
    """The nearest integer value, the even one of two."""
    return _round("roundeven", x, lambda near, of: near)


def _round(name: str, x: Value, correct: Callable[[Value, Value], Value]) -> Value:
    if not x.floating:
        return x
    if target.current().rounding:
        return x.call(f"llvm.{name}")
    # baseline x86 would call the C library: adding and subtracting 2^mantissa rounds what is smaller
    exact = x.strict()
    limit = 2.0 ** _format(x).mantissa
    near = _copysign((abs(exact) + limit) - limit, exact)
    near = _copysign(correct(near, exact), exact)
    return choose(abs(exact) < limit, near, exact).relaxed(x)


# --- exponentials ---------------------------------------------------------------------------------------------------


def exp(x: Value) -> Value:
    """e to the power x."""
    f, inner = _enter("exp", x)
    inner = _at_most(_at_least(inner, f.underflow), f.overflow)
    n, r, q = _reduced_exp(f, inner, f.exp)
    return _scale(f, q + 1, n).relaxed(x)


def expm1(x: Value) -> Value:
    """e to the power x, minus 1; accurate near 0."""
    f, inner = _enter("expm1", x)
    inner = _at_most(_at_least(inner, -2.0 * f.tanh_one), f.overflow)
    n, r, q = _reduced_exp(f, inner, f.exp)
    half = _power_of_two(f, n - 1)
    # 2^n (q + 1) - 1 by halves, as 2^n itself may be too large; n = 0 apart, for denormals
    result = choose(n == 0, q, (_fma(half, q, half - 0.5)) * 2)
    return _copysign(result, x.strict()).relaxed(x)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent: e / (e + 2) with e = expm1(2 |x|)."""
    f, inner = _enter("tanh", x)
    size = _at_most(abs(inner), f.tanh_one)
    n, r, q = _reduced_exp(f, size + size, f.exp)
    scale = _power_of_two(f, n)
    e = _fma(scale, q, scale - 1)
    return _copysign(e / (e + 2), inner).relaxed(x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow."""
    exact = _float("sigmoid", x).strict()
    e = exp(-abs(exact))
    return (choose(exact < 0, e, e.constant(1)) / (e + 1)).relaxed(x)


def erf(x: Value) -> Value:
    """The error function."""
    f, inner = _enter("erf", x)
    size = _at_most(abs(inner), 4.0 if f is _F32 else 6.0)
    if f is _F32:
        small = _fma(inner, _polynomial(size * size, _ERF_SMALL), inner)
        n, r, q = _reduced_exp(f, -(size * _polynomial(size, _ERF_LARGE)), f.exp)
        split = 0.9
    else:
        small = _fma(inner, _polynomial(size * size, _ERF_SMALL_64), inner)
        n, r, q = _reduced_exp(f, -(size * size), f.exp)
        split = 1.0
    scale = _power_of_two(f, n)
    tail = _fma(scale, q, scale)
    if f is _F64:
        tail = tail * (_polynomial((size - 3) / (size + 3), _ERF_LARGE_64) / (size + size + 1))
    return choose(size < split, small, _copysign(1 - tail, inner)).relaxed(x)


def _reduced_exp(f: _Format, x: Value, terms: Sequence[float]) -> tuple[Value, Value, Value]:
    """n, r, e^r - 1 with x = n ln 2 + r."""
    shifted = _fma(x, x.constant(1 / math.log(2)), x.constant(f.shift))
    n = shifted.bits() - x.constant(f.shift).bits()
    turns = shifted - f.shift
    r = _fma(turns, x.constant(-f.ln2[1]), _fma(turns, x.constant(-f.ln2[0]), x))
    return n, r, _fma(r * r, _polynomial(r, terms), r)


def _power_of_two(f: _Format, n: Value) -> Value:
    return ((n + f.bias) << f.mantissa).from_bits()


def _scale(f: _Format, x: Value, n: Value) -> Value:
    """x times 2^n in two steps, each an ordinary number, so that denormals and Inf come out rounded once."""
    half = n >> 1
    return x * _power_of_two(f, half) * _power_of_two(f, n - half)


# --- logarithms -----------------------------------------------------------------------------------------------------


def log(x: Value) -> Value:
    """The natural logarithm; NaN below 0."""
    f, inner = _enter("log", x)
    tiny = 2.0 ** (1 - f.bias)
    denormal = inner < tiny
    usual = choose(denormal, inner * 2.0 ** (f.mantissa + 1), inner)
    n, mantissa = _split(f, usual)
    n = choose(denormal, n - (f.mantissa + 1), n)
    return _log_edges(inner, _log_of(f, n, mantissa - 1)).relaxed(x)


def log1p(x: Value) -> Value:
    """The natural logarithm of 1 + x; accurate near 0."""
    f, inner = _enter("log1p", x)
    total = inner + 1
    # what the sum lost, scaled like the mantissa
    lost = choose(abs(inner) < 1, inner - (total - 1), 1 - (total - inner))
    n, mantissa = _split(f, total)
    scale = _power_of_two(f, choose(n > f.bias, n.constant(-f.bias), -n))
    result = _log_edges(total, _log_of(f, n, (mantissa - 1) + lost * scale))
    return choose(abs(inner) < 2.0 ** -(f.mantissa + 2), inner, result).relaxed(x)


def _split(f: _Format, x: Value) -> tuple[Value, Value]:
    """n and a mantissa in sqrt(1/2)..sqrt(2) with x = mantissa 2^n, for an ordinary positive x."""
    offset = x.constant(math.sqrt(0.5)).bits()
    bits = x.bits() - offset
    n = bits >> f.mantissa
    low = (1 << f.mantissa) - 1
    return n, ((bits & low) + offset).from_bits()


def _log_of(f: _Format, n: Value, rest: Value) -> Value:
    """n ln 2 + log(1 + rest)."""
    turns = _to_float(f, n)
    if f is _F32:
        cube = rest * rest * rest
        tail = _fma(cube, _polynomial(rest, _LOG), turns * f.ln2[1])
        tail = _fma(rest * rest, rest.constant(-0.5), tail)
        return _fma(turns, rest.constant(f.ln2[0]), rest + tail)
    # log(1 + rest) = rest - (half - s (half + series)) with half = rest^2 / 2, which loses nothing for a small rest
    s = rest / (rest + 2)
    z = s * s
    half = 0.5 * rest * rest
    series = z * _polynomial(z, _ATANH)
    inner = _fma(s, half + series, turns * f.ln2[1])
    return _fma(turns, rest.constant(f.ln2[0]), rest - (half - inner))


def _log_edges(x: Value, result: Value) -> Value:
    result = choose(x < math.inf, result, x)  # Inf and NaN
    result = choose(x == 0, x.constant(-math.inf), result)
    return choose(x < 0, x.constant(math.nan), result)


# --- powers ---------------------------------------------------------------------------------------------------------


def pow(x: Operand, y: Operand) -> Value:  # noqa: A001
    """x to the power y, with C's values at the edges; of integers, 0 for a negative y unless x is 1 or -1."""
    a, b = _pair("pow", x, y)
    if a.code == "b1":
        return a | ~b
    if not a.floating:
        return _integer_power(a, b)
    f, base = _enter("pow", a)
    exponent = b.strict()
    size = _power_32(base, exponent) if f is _F32 else _power_64(base, exponent)
    whole = floor(exponent) == exponent
    odd = whole & (floor(exponent * 0.5) * 2 != exponent)
    signed = choose(odd, _copysign(size, base), size)
    undefined = (base < 0) & (base > -math.inf) & ~whole
    signed = choose(undefined, base.constant(math.nan), signed)
    one = (exponent == 0) | (base == 1) | ((base == -1) & (abs(exponent) == math.inf))
    return choose(one, base.constant(1), signed).relaxed(a)


def _power_32(base: Value, exponent: Value) -> Value:
    """|base| to the power exponent, through float64: its digits are enough for the product."""
    f = _F64
    size, power = abs(base).astype("f64"), exponent.astype("f64")
    n, mantissa = _split(f, size)
    rest = mantissa - 1
    s = rest / (rest + 2)
    z = s * s
    turns = _to_float(f, n)
    logarithm = _fma(turns, s.constant(math.log(2)), _fma(s * z, _polynomial(z, _ATANH_SHORT), s + s))
    product = _at_most(_at_least(power * _infinite_log(size, logarithm), -150.0), 150.0)
    n, r, q = _reduced_exp(f, product, _EXP_SHORT)
    return ((q + 1) * _power_of_two(f, n)).astype("f32")


def _power_64(base: Value, exponent: Value) -> Value:
    f = _F64
    size = abs(base)
    denormal = size < 2.0 ** (1 - f.bias)
    n, mantissa = _split(f, choose(denormal, size * 2.0**54, size))
    n = choose(denormal, n - 54, n)
    high, low = _precise_log(f, n, mantissa - 1)
    high = _infinite_log(size, high)
    power = _at_most(_at_least(exponent, -(2.0**70)), 2.0**70)  # beyond, the result is 0, 1 or Inf already
    product, error = _product(power, high)
    error = _fma(power, low, error)
    clamped = _at_most(_at_least(product, f.underflow), f.overflow)
    error = choose(product == clamped, error, error.constant(0))
    n, r, _ = _reduced_exp(f, clamped, (0.0,))
    r = r + error
    q = _fma(r * r, _polynomial(r, f.exp), r)
    return _scale(f, q + 1, n)


def _precise_log(f: _Format, n: Value, rest: Value) -> tuple[Value, Value]:
    """n ln 2 + log(1 + rest) as a sum of two numbers, the second far below the first's last place."""
    below = rest + 2
    lost = rest - (below - 2)
    s = rest / below
    back, error = _product(s, below)
    s_low = ((rest - back) - error - s * lost) / below
    # log = s (2 + z t), z = s^2, t = 2/3 + z tail
    z, z_low = _product(s, s)
    z_low = _fma(s + s, s_low, z_low)
    t, t_low = _sum(s.constant(_TWO_THIRDS[0]), z * _polynomial(z, _ATANH_TAIL))
    t_low = t_low + _TWO_THIRDS[1]
    u, u_low = _product(z, t)
    u_low = u_low + (z * t_low + z_low * t)
    factor, factor_low = _sum(s.constant(2), u)
    factor_low = factor_low + u_low
    high, low = _product(s, factor)
    low = low + (s * factor_low + s_low * factor)
    turns = _to_float(f, n)
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


def _product(a: Value, b: Value) -> tuple[Value, Value]:
    """a * b and what its rounding lost."""
    total = a * b
    if target.current().fma:
        return total, a.call("llvm.fma", b, -total)
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return total, ((a1 * b1 - total) + a1 * b2 + a2 * b1) + a2 * b2


def _halves(x: Value) -> tuple[Value, Value]:
    scaled = x * (2.0**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high


def _integer_power(base: Value, exponent: Value) -> Value:
    result = _by_lane("power", _emit_power, base, exponent)
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


# --- division with a floor ------------------------------------------------------------------------------------------


def floor_divide(x: Operand, y: Operand) -> Value:
    """The quotient rounded down, as NumPy's; an integer divided by 0 gives 0."""
    a, b = _pair("floor_divide", x, y)
    if not a.floating:
        return _integer_division(a, b)[0]
    exact, by = a.strict(), b.strict()
    rest = _fmod(exact, by)
    down = (rest != 0) & ((rest < 0) != (by < 0))
    quotient = (exact - rest) / by
    quotient = choose(down, quotient - 1, quotient)
    near = floor(quotient)
    near = choose(quotient - near > 0.5, near + 1, near)
    near = choose(quotient == 0, _copysign(quotient.constant(0), exact / by), near)
    return choose(by == 0, exact / by, near).relaxed(a)


def remainder(x: Operand, y: Operand) -> Value:
    """x - floor(x / y) y, with the sign of y, as NumPy's; an integer by 0 gives 0."""
    a, b = _pair("remainder", x, y)
    if not a.floating:
        return _integer_division(a, b)[1]
    exact, by = a.strict(), b.strict()
    rest = _fmod(exact, by)
    other = choose((rest < 0) != (by < 0), rest + by, rest)
    return choose(rest == 0, _copysign(rest.constant(0), by), other).relaxed(a)


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
    return _by_lane("fmod", _emit_fmod, x, y)


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
    builder.ret(_copysign(a.of(result), x).value)


def _by_lane(name: str, body: Callable[[ir.IRBuilder, Value, Value], None], x: Value, y: Value) -> Value:
    """A function of two numbers whose body has loops, for each lane of a vector in turn."""
    builder, kind = x.builder, x.value.type
    if not isinstance(kind, ir.VectorType):
        return x.of(builder.call(_function(name, body, x), [x.value, y.value]))
    result = ir.Constant(kind, ir.Undefined)
    for lane in range(kind.count):
        place = ir.Constant(ir.IntType(32), lane)
        one = x.of(builder.extract_element(x.value, place))
        other = y.of(builder.extract_element(y.value, place))
        result = builder.insert_element(result, _by_lane(name, body, one, other).value, place)
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


# --- trigonometry ---------------------------------------------------------------------------------------------------


def sin(x: Value) -> Value:
    """The sine of x radians.

    Accurate for |x| up to 8e8 (float32) or 1.6e6 (float64). Beyond, the error grows with x; the result stays between -1
    and 1. NaN of Inf.
    """
    f, inner = _enter("sin", x)
    quarter, r, low = _quarter_turns(f, inner)
    result = _sine_or_cosine(f, quarter, r, low)
    return choose(inner == 0, inner, result).relaxed(x)  # keeps the sign of a zero


def cos(x: Value) -> Value:
    """The cosine of x radians; accurate where `sin` is."""
    f, inner = _enter("cos", x)
    quarter, r, low = _quarter_turns(f, inner)
    return _sine_or_cosine(f, quarter + 1, r, low).relaxed(x)


def _quarter_turns(f: _Format, x: Value) -> tuple[Value, Value, Value]:
    """The number of quarter turns, the angle that is left, and what its rounding lost; in float64 for both types."""
    wide = x.astype("f64")
    shifted = _fma(wide, wide.constant(2 / math.pi), wide.constant(_F64.shift))
    turns = shifted - _F64.shift
    parts = _HALF_PI_24 if f is _F32 else _HALF_PI_33
    r = _fma(turns, wide.constant(-parts[0]), wide)
    r = _fma(turns, wide.constant(-parts[1]), r)
    least = turns * parts[2]
    left = r - least
    low = (r - left) - least
    bounded = _at_most(_at_least(left, -1.0), 1.0)  # for numbers so large that nothing is left of them
    low, left = choose(bounded == left, low, low.constant(0)), bounded
    quarter = shifted.bits().astype("i32" if f is _F32 else "i64")
    return quarter, left.astype(x.code), low.astype(x.code)


def _sine_or_cosine(f: _Format, quarter: Value, r: Value, low: Value) -> Value:
    z = r * r
    sine = r + _fma(z * r, _polynomial(z, f.sin), low)
    cosine = _fma(z * z, _polynomial(z, f.cos), _fma(-r, low, z * -0.5)) + 1
    result = choose((quarter & 1) == 1, cosine, sine)
    return choose((quarter & 2) == 2, -result, result)


# --- shared steps ---------------------------------------------------------------------------------------------------


def _enter(name: str, x: Value) -> tuple[_Format, Value]:
    """The constants of a value's type, and the value for strict arithmetic."""
    return _format(_float(name, x)), x.strict()


def _format(x: Value) -> _Format:
    return _F32 if x.code == "f32" else _F64


def _fma(a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once where the machine can."""
    return a.call("llvm.fmuladd", b, c)


def _polynomial(x: Value, terms: Sequence[float]) -> Value:
    """terms[0] + terms[1] x + terms[2] x^2 + ..."""
    result = x.constant(terms[-1])
    for term in reversed(terms[:-1]):
        result = _fma(result, x, x.constant(term))
    return result


def _to_float(f: _Format, n: Value) -> Value:
    if f is _F32:
        return n.astype("f32")
    # 64-bit integers convert in vector code only on AVX-512; small ones do by the bits of the shift
    return (n + _SHIFT_BITS).from_bits() - f.shift


def _copysign(size: Value, sign_of: Value) -> Value:
    return size.call("llvm.copysign", sign_of)


def _at_most(x: Value, limit: float) -> Value:
    bound = x.constant(limit)
    return choose(bound < x, bound, x)  # a NaN stays


def _at_least(x: Value, limit: float) -> Value:
    bound = x.constant(limit)
    return choose(bound > x, bound, x)
