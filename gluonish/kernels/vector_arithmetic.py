"""Functions of a few instructions: selection, absolute value and sign, roots, extremes, questions, rounding.

Deliberately not here: operators (`value.py`), division with a floor (`vector_division.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gluonish.kernels import target
from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_steps import Operand, floating, format_of, pair
from gluonish.kernels.vector_steps import copysign as with_sign


def where(condition: Value, x: Operand, y: Operand) -> Value:
    """x where the condition holds, else y."""
    return choose(condition, *pair("where", x, y))


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


def copysign(x: Operand, y: Operand) -> Value:
    """|x| with the sign of y."""
    a, b = pair("copysign", x, y)
    return with_sign(floating("copysign", a), b)


def square(x: Value) -> Value:
    """x * x."""
    return x & x if x.code == "b1" else x * x


def sqrt(x: Value) -> Value:
    """The square root, correctly rounded."""
    return floating("sqrt", x).call("llvm.sqrt")


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
    a, b = pair(name, x, y)
    larger = name == "maximum"
    if not a.floating:
        return choose(a > b if larger else a < b, a, b)
    for number, value in ((x, b), (y, a)):
        if not isinstance(number, Value) and number == number:  # a constant that is not NaN: one instruction
            constant = value.constant(number)
            return choose(constant > value if larger else constant < value, constant, value)
    return a.call(f"llvm.{name}", b)


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
        return choose(abs(near) > abs(of), near - with_sign(near.constant(1), of), near)

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
    limit = 2.0 ** format_of(x).mantissa
    near = with_sign((abs(exact) + limit) - limit, exact)
    near = with_sign(correct(near, exact), exact)
    return choose(abs(exact) < limit, near, exact).relaxed(x)
