"""Special functions in long doubles, for judging ours: erfc, erfinv, gamma and its relatives.

They share nothing with what they judge: Stirling's series from 24 on with Bernoulli's numbers, and recurrence down from
there; the power series and the continued fraction of the error function; a step of Newton's method for its inverse.
Source: Abramowitz & Stegun, Handbook of Mathematical Functions, chapters 6 and 7.

Deliberately not here: what NumPy has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LONG = np.longdouble
PI = LONG("3.14159265358979323846264338327950288")
# of Bernoulli's numbers B2, B4, ...
_BERNOULLI = [LONG(a) / LONG(b) for a, b in (
    (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798), (-174611, 330),
)]  # fmt: skip
_FROM = 24
# near zeros, where the other ways cancel: zeta(k) - 1 from k = 2 on, and digamma's Taylor coefficients at its zero
_ZETA_LESS_ONE = [LONG(text) for text in (
    "0.6449340668482264364724", "0.2020569031595942853997", "0.082323233711138191516", "0.03692775514336992633137",
    "0.01734306198444913971452", "0.008349277381922826839798", "0.004077356197944339378685",
    "0.002008392826082214417853", "0.000994575127818085337146", "0.0004941886041194645587023",
    "0.000246086553308048298638", "0.0001227133475784891467518", "0.00006124813505870482925855",
    "0.00003058823630702049355173", "0.00001528225940865187173257", "0.0000076371976378997622736",
    "0.000003817293264999839856462", "0.000001908212716553938925657", "9.53962033872796113152e-7",
    "4.769329867878064631167e-7", "2.384505027277329900036e-7", "1.192199259653110730678e-7",
    "5.960818905125947961244e-8", "2.980350351465228018606e-8", "1.490155482836504123466e-8",
)]  # fmt: skip
_LESS_EULER = LONG("0.4227843350984671393935")  # 1 - Euler's constant
_ROOT = LONG("1.4616321449683623412626")
_AT_ROOT = [LONG(text) for text in (
    "0.9676722454476211704274", "-0.4427631689835921060929", "0.2584997609556510106244",
    "-0.1639427054424065275043", "0.1078240506912623657572", "-0.07219956125645471092612",
    "0.04880428816414310722509", "-0.03316112647484735929226", "0.02259764823221810465962",
    "-0.0154247659049489591388", "0.01053879161661217538812", "-0.00720453438635686824097",
    "0.004926781395729853446354", "-0.003369801655439328082793", "0.002305126326734927836938",
    "-0.001576936771430197259271", "0.001078825201916296580692", "-0.000738070938996005129566",
    "0.0005049532658346020351774", "-0.0003454680251063076995556", "0.0002363560156402705279237",
)]  # fmt: skip


def gamma(x: Any) -> Any:
    """The gamma function; NaN at negative integers."""
    x = np.asarray(x, LONG)
    right, y, steps = _far(np.minimum(x, 1000))  # beyond, long doubles overflow, too
    y = np.minimum(y, 1000)
    product = np.ones_like(y)
    for step in steps:
        product = product * np.where(step < _FROM - right, right + step, 1)
    half = np.power(y, (y - LONG(0.5)) / 2)
    far = half * np.exp(-y) * half * np.sqrt(2 * PI) * np.exp(_stirling(y)) / product
    value = np.where(x < 0, PI / (_sine(x) * np.where(x < 0, far, 1)), far)
    value = np.where((x < 0) & (x == np.rint(x)), LONG(np.nan), value)
    return np.where(x == 0, np.copysign(LONG(np.inf), x), np.where(x == np.inf, x, value))


def gammaln(x: Any) -> Any:
    """The logarithm of |gamma(x)|; Inf at its poles and at both infinities."""
    x = np.asarray(x, LONG)
    right, y, steps = _far(x)
    product = np.ones_like(y)
    for step in steps:
        product = product * np.where(step < _FROM - right, right + step, 1)
    far = (y - LONG(0.5)) * np.log(y) - y + np.log(2 * PI) / 2 + _stirling(y) - np.log(product)
    value = np.where(x < 0, np.log(PI / np.abs(_sine(x))) - far, far)
    for zero in (1, 2):  # Abramowitz & Stegun 6.1.33
        e = np.where(np.abs(x - zero) < LONG(0.25), x - zero, 0)
        near = e * _LESS_EULER + sum((-e) ** k * z / k for k, z in enumerate(_ZETA_LESS_ONE, 2))
        value = np.where(np.abs(x - zero) < LONG(0.25), near - (np.log1p(e) if zero == 1 else 0), value)
    return np.where(np.isinf(x), LONG(np.inf), value)


def digamma(x: Any) -> Any:
    """The derivative of gammaln; NaN at negative integers."""
    x = np.asarray(x, LONG)
    right, y, steps = _far(x)
    value = np.log(y) - 1 / (2 * y) - sum(b / (2 * n * y ** (2 * n)) for n, b in enumerate(_BERNOULLI, 1))
    for step in steps:
        value = value - np.where(step < _FROM - right, 1 / (right + step), 0)
    d = np.where(np.abs(x - _ROOT) < LONG(0.1), x - _ROOT, 0)
    value = np.where(d != 0, sum(c * d**k for k, c in enumerate(_AT_ROOT, 1)), value)
    turn = x - np.rint(x)
    reflected = np.where(turn == 0, LONG(np.nan), value - PI / np.tan(PI * turn))
    return np.where(x == np.inf, x, np.where(x < 0, reflected, value))


def trigamma(x: Any) -> Any:
    """The second derivative of gammaln."""
    x = np.asarray(x, LONG)
    right, y, steps = _far(x)
    value = 1 / y + 1 / (2 * y * y) + sum(b / y ** (2 * n + 1) for n, b in enumerate(_BERNOULLI, 1))
    for step in steps:
        value = value + np.where(step < _FROM - right, 1 / (right + step) ** 2, 0)
    return np.where(x < 0, (PI / _sine(x)) ** 2 - value, value)


def tetragamma(x: Any) -> Any:
    """The third derivative of gammaln."""
    x = np.asarray(x, LONG)
    right, y, steps = _far(x)
    value = -1 / y**2 - 1 / y**3 - sum((2 * n + 1) * b / y ** (2 * n + 2) for n, b in enumerate(_BERNOULLI, 1))
    for step in steps:
        value = value - np.where(step < _FROM - right, 2 / (right + step) ** 3, 0)
    turn = x - np.rint(x)
    ratio = PI / np.sin(PI * turn)
    reflected = np.where(turn == 0, LONG(np.nan), value - 2 * ratio**3 * np.cos(PI * turn))
    return np.where(x < 0, reflected, value)


def erf(x: Any) -> Any:
    """The error function for |x| up to 3."""
    # 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 3 ... (2n+1)): all terms positive
    size = np.minimum(np.abs(np.asarray(x, LONG)), 3)
    term, total = size, size
    for n in range(1, 80):
        term = term * (2 * size * size / (2 * n + 1))
        total = total + term
    return np.copysign(2 / np.sqrt(PI) * np.exp(-size * size) * total, x)


def erfc(x: Any) -> Any:
    """1 - erf(x)."""
    x = np.asarray(x, LONG)
    size = np.minimum(np.abs(x), 120)
    fraction = far = np.maximum(size, 2)
    for n in range(160, 0, -1):
        fraction = far + n / (2 * fraction)
    tail = np.where(size < 2, 1 - erf(size), np.exp(-far * far) / np.sqrt(PI) / fraction)
    return np.where(x < 0, 2 - tail, tail)


def erfinv(x: Any) -> Any:
    """The number whose erf is x."""
    from gluonish import nd

    x = np.asarray(x, LONG)
    size = np.abs(x)
    z = np.asarray(nd.erfinv(nd.NDArray(np.asarray(size, np.float64))).asnumpy(), LONG)
    slope = 2 / np.sqrt(PI) * np.exp(-z * z)
    step = np.where(size < LONG(0.5), erf(z) - size, (1 - size) - erfc(z)) / slope
    return np.copysign(np.where(np.isinf(z) | np.isnan(z), z, z - step), x)


def _far(x: Any) -> tuple[Any, Any, range]:
    """x reflected to the right, what is at least 24 from there, and the steps in between."""
    right = np.where(x < 0, 1 - x, x)
    return right, np.where(right < _FROM, right + np.ceil(_FROM - np.minimum(right, _FROM)), right), range(_FROM)


def _stirling(y: Any) -> Any:
    return sum(b / (2 * n * (2 * n - 1) * y ** (2 * n - 1)) for n, b in enumerate(_BERNOULLI, 1))


def _sine(x: Any) -> Any:
    nearest = np.rint(x)
    return np.sin(PI * (x - nearest)) * np.where(np.remainder(nearest, 2) == 0, 1, -1)
