"""The math namespace of op bodies, on NumPy arrays.

An elementwise op has one definition, `body(m, *values)`. Here is the `m` of eager mode; `kernels/vector_math.py` has
the `m` that emits vector instructions. Functions give the dtype of their arguments.

Deliberately not here: anything that is not the same function of each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gluonish.nd.dtypes import is_float
from gluonish.nd.erf import erf  # noqa: F401  (part of the namespace)

exp, expm1, log, log1p = np.exp, np.expm1, np.log, np.log1p
sqrt, square, abs, sign = np.sqrt, np.square, np.abs, np.sign  # noqa: A001
floor, ceil, round, trunc = np.floor, np.ceil, np.round, np.trunc  # noqa: A001
maximum, minimum, pow = np.maximum, np.minimum, np.power  # noqa: A001
sin, cos, tan = np.sin, np.cos, np.tan
asin, acos, atan, atan2 = np.arcsin, np.arccos, np.arctan, np.arctan2
sinh, cosh, tanh = np.sinh, np.cosh, np.tanh
asinh, acosh, atanh = np.arcsinh, np.arccosh, np.arctanh
exp2, log2, log10, cbrt = np.exp2, np.log2, np.log10, np.cbrt
hypot, fmod, copysign = np.hypot, np.fmod, np.copysign
isnan, isinf, isfinite, logical_not = np.isnan, np.isinf, np.isfinite, np.logical_not


def rsqrt(x: Any) -> Any:
    """1 / sqrt(x)."""
    return 1 / np.sqrt(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow: exp only ever sees a non-positive number."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(np.asarray(x).dtype, copy=False)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y; Python numbers take the other's dtype."""
    return np.where(condition, x, y)


def floor_divide(x: Any, y: Any) -> Any:
    """The quotient rounded down; 0 for an integer division by 0."""
    return np.floor_divide(x, y)


def remainder(x: Any, y: Any) -> Any:
    """x - floor(x / y) * y, with the sign of y; 0 for an integer division by 0."""
    return np.remainder(x, y)


# --- what bodies that compute in float64 are made of -----------------------------------------------------------------
def short(x: Any) -> bool:
    """Whether results of this type have fewer digits than float64, so that shorter polynomials do."""
    return np.asarray(x).dtype != np.float64


def wide(x: Any) -> Any:
    """The same numbers in float64."""
    return np.asarray(x, np.float64)


def narrow(result: Any, like: Any) -> Any:
    """Rounded to the dtype of `like`."""
    like = np.asarray(like)
    return np.asarray(result).astype(like.dtype if is_float(like.dtype) else np.float32, copy=False)


def sine_and_cosine(x: Any) -> Any:
    """Both of an angle of a few turns."""
    return np.sin(x), np.cos(x)


def polynomial(x: Any, terms: Sequence[float]) -> Any:
    """terms[0] + terms[1] x + terms[2] x^2 + ..."""
    result = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        result = result * x + term
    return result
