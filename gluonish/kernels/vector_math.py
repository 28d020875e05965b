"""The math namespace of op bodies as vector instructions; `nd/math.py` is the same namespace on NumPy arrays.

This module itself is `m`: `body(vector_math, *values)`. Its functions take Values (scalars or vectors of float32 or
float64; the simple ones also integers and bools) and Python numbers. But for the float remainder and the integer power
they have no branch and no call, and so become vector code in a loop that LLVM widens as well as in a microkernel's
epilogue. They are right for NaN, Inf, signed zeros and denormals, to 2 units in the last place. The range of `sin`,
`cos` and `tan` is limited: see there.

Method: Cody and Waite's range reductions, then polynomials that are minimax in the relative error of the function (made
with Remez' algorithm in 60 digits), evaluated by Horner's rule. Everything is computed on `strict` Values: a compiler
that reassociates would undo the reductions.
Source: W. J. Cody, W. Waite, Software Manual for the Elementary Functions, 1980; the logarithms follow the argument
reduction by atanh described there, pow carries its logarithm in two numbers (T. J. Dekker, A floating-point technique
for extending the available precision, 1971), erf uses the scaled complement of M. M. Shepherd and J. G. Laframboise,
Math. Comp. 36 (1981).

The functions live in the `vector_*` files imported below and are `m`'s by name; here are the two ways in for those who
emit code.

Deliberately not here: reductions, and anything that depends on a neighbouring element.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from gluonish.kernels.value import Value, declare, llvm_type  # noqa: F401  (the interface)
from gluonish.kernels.vector_arcs import acos, asin, atan, atan2  # noqa: F401  (the namespace)
from gluonish.kernels.vector_arithmetic import (  # noqa: F401  (the namespace)
    abs,  # noqa: A004
    ceil,
    copysign,
    floor,
    isfinite,
    isinf,
    isnan,
    logical_not,
    maximum,
    minimum,
    round,  # noqa: A004
    rsqrt,
    sign,
    sqrt,
    square,
    trunc,
    where,
)
from gluonish.kernels.vector_bases import cbrt, exp2, hypot, log2, log10  # noqa: F401  (the namespace)
from gluonish.kernels.vector_division import floor_divide, fmod, remainder  # noqa: F401  (the namespace)
from gluonish.kernels.vector_exponentials import erf, exp, expm1, sigmoid, tanh  # noqa: F401  (the namespace)
from gluonish.kernels.vector_hyperbolic import acosh, asinh, atanh, cosh, sinh  # noqa: F401  (the namespace)
from gluonish.kernels.vector_logarithms import log, log1p  # noqa: F401  (the namespace)
from gluonish.kernels.vector_powers import pow  # noqa: A004, F401  (the namespace)
from gluonish.kernels.vector_steps import narrow, polynomial, short, wide  # noqa: F401  (the namespace)
from gluonish.kernels.vector_trigonometry import cos, sin, sine_and_cosine, tan  # noqa: F401  (the namespace)


def emit(body: Callable[..., Any], builder: ir.IRBuilder, codes: Sequence[str], values: Sequence[ir.Value]) -> Value:
    """Applies an op body to LLVM values of the given types."""
    # exact: what two kernels compute alike is the same number in both (gradients of `max` look for it again)
    operands = [Value(builder, value, code, exact=True) for value, code in zip(values, codes, strict=True)]
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
    return sys.modules[__name__]
