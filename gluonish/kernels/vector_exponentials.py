"""The exponential and what is computed from it: `exp`, `expm1`, `tanh`, `sigmoid`, `erf`.

Deliberately not here: the reduction of the argument (`vector_steps.py`), powers of another base (`vector_powers.py`).
"""

from __future__ import annotations

from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs  # noqa: A004
from gluonish.kernels.vector_steps import (
    F32,
    F64,
    at_least,
    at_most,
    copysign,
    enter,
    fma,
    polynomial,
    power_of_two,
    reduced_exp,
    times_power_of_two,
)

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

# (tanh x - x) / x^3 by x^2 below 0.55
_TANH_SMALL = (-0.333333164, 0.13332586, -0.053852316, 0.0210717004, -0.00627426105)
_TANH_SMALL_64 = (
    -0.3333333333333333, 0.13333333333333067, -0.05396825396804401, 0.021869488527839976, -0.008863235336544829,
    0.00359212516668151, -0.0014558058810665232, 0.0005898332137499122, -0.00023821464316664241,
    9.396816800878738e-05, -3.296672593939053e-05, 7.449004238912852e-06,
)  # fmt: skip
# (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, float32, to 2^-26: enough inside of a quotient
_EXP_SHORT = (0.5, 0.166665435, 0.0416662805, 0.00836659689, 0.00139464764)


def exp(x: Value) -> Value:
    """e to the power x."""
    f, inner = enter("exp", x)
    inner = at_most(at_least(inner, f.underflow), f.overflow)
    n, r, q = reduced_exp(f, inner, f.exp)
    return times_power_of_two(f, q + 1, n).relaxed(x)


def expm1(x: Value) -> Value:
    """e to the power x, minus 1; accurate near 0."""
    f, inner = enter("expm1", x)
    inner = at_most(at_least(inner, -2.0 * f.tanh_one), f.overflow)
    n, r, q = reduced_exp(f, inner, f.exp)
    half = power_of_two(f, n - 1)
    # 2^n (q + 1) - 1 by halves, as 2^n itself may be too large; n = 0 apart, for denormals
    result = choose(n == 0, q, (fma(half, q, half - 0.5)) * 2)
    return copysign(result, x.strict()).relaxed(x)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent: 1 - 2 / (exp(2 |x|) + 1), by a polynomial near 0."""
    f, inner = enter("tanh", x)
    size = at_most(abs(inner), f.tanh_one)
    z = size * size
    small = fma(size * z, polynomial(z, _TANH_SMALL if f is F32 else _TANH_SMALL_64), size)
    n, r, q = reduced_exp(f, size + size, _EXP_SHORT if f is F32 else f.exp)
    scale = power_of_two(f, n)
    large = 1 - 2 / (fma(scale, q, scale) + 1)
    return copysign(choose(size < 0.55, small, large), inner).relaxed(x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow."""
    f, exact = enter("sigmoid", x)
    n, r, q = reduced_exp(f, at_least(-abs(exact), f.underflow), _EXP_SHORT if f is F32 else f.exp)
    e = times_power_of_two(f, q + 1, n)
    total = e + 1
    result = choose(exact < 0, e, e.constant(1)) / total
    # what rounding the sum has cost, by 1 / total = 1 - e / total; for x > 0 a part of it, as more is not needed
    return fma(result * ((total - 1) - e), 1 - result, result).relaxed(x)


def erf(x: Value) -> Value:
    """The error function."""
    f, inner = enter("erf", x)
    size = at_most(abs(inner), 4.0 if f is F32 else 6.0)
    if f is F32:
        small = fma(inner, polynomial(size * size, _ERF_SMALL), inner)
        n, r, q = reduced_exp(f, -(size * polynomial(size, _ERF_LARGE)), f.exp)
        split = 0.9
    else:
        small = fma(inner, polynomial(size * size, _ERF_SMALL_64), inner)
        n, r, q = reduced_exp(f, -(size * size), f.exp)
        split = 1.0
    scale = power_of_two(f, n)
    tail = fma(scale, q, scale)
    if f is F64:
        tail = tail * (polynomial((size - 3) / (size + 3), _ERF_LARGE_64) / (size + size + 1))
    return choose(size < split, small, copysign(1 - tail, inner)).relaxed(x)
