"""Elementwise ops: each output element depends on the elements at the same place of its (broadcast) inputs.

One definition per op: `body(m, *values)` runs on NumPy in eager mode and becomes vector instructions in kernels.
The vjp rules name only the local derivative; the tape walk undoes broadcasting.
"""

from __future__ import annotations

import math as constants
from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.nd import math
from gluonish.nd.dtypes import is_float
from gluonish.nd.op import BOOL, Op, Sample, Spec, quiet, refuse, register, result_dtype
from gluonish.nd.size import SizeLike, stretches

Body = Callable[..., Any]


def broadcast_shapes(name: str, *specs: Any) -> tuple[SizeLike, ...]:
    """The common shape by NumPy's rule; raises the error that names the op."""
    shapes = [s.shape for s in specs if hasattr(s, "shape")]
    rank = max((len(s) for s in shapes), default=0)
    out: list[SizeLike] = []
    for axis in range(-rank, 0):
        size: SizeLike = 1
        for shape in shapes:
            if len(shape) < -axis:
                continue
            candidate = shape[axis]
            if stretches(size, candidate):
                size = candidate
            elif not stretches(candidate, size) and size != candidate:
                raise refuse(name, "shapes do not broadcast (dimensions must be equal or 1)", *specs)
        out.append(size)
    return tuple(out)


def _dtype_of(specs: tuple[Any, ...], fallback: np.dtype) -> np.dtype:
    dtypes = [s.dtype for s in specs if hasattr(s, "dtype")]
    return result_dtype(dtypes) if dtypes else fallback


def elementwise(
    name: str,
    body: Body,
    vjp: Any = None,
    *,
    doc: str,
    forward: Callable[..., Any] | None = None,
    accepts: str = "any",
    gives: str = "same",
    domain: tuple[float, float] = (-3.0, 3.0),
    arity: int = 1,
    smooth: bool = True,
) -> Op:
    """Registers an elementwise op. `gives` "same" (the inputs' dtype) or "bool"; `domain` bounds the sample inputs."""

    def rule(*specs: Any) -> Spec:
        shape = broadcast_shapes(name, *specs)
        return Spec(shape, BOOL if gives == "bool" else _dtype_of(specs, np.dtype("float32")))

    def sample(rng: np.random.Generator) -> list[Sample]:
        def draw(*shape: int) -> np.ndarray:
            return rng.uniform(*domain, shape).astype(np.float32)

        if arity == 1:
            return [Sample((draw(3, 5),)), Sample((draw(),)), Sample((draw(0, 4),))]
        shapes = [((3, 5), (3, 5)), ((4, 1, 3), (5, 1)), ((), (2, 3))]
        return [Sample((draw(*a), draw(*b))) for a, b in shapes]

    forward = forward or quiet(lambda *values: body(math, *values))
    return register(
        Op(name, "elementwise", forward, rule, vjp, body, accepts=accepts, doc=doc, sample=sample, smooth=smooth)
    )


def smooth_function(name: str, body: Body, slope: Callable[..., Any], doc: str, **more: Any) -> Op:
    """A smooth function of one float: the rule multiplies the gradient by `slope(output, input)`."""
    return elementwise(name, body, (lambda g, y, x: g * slope(y, x),), doc=doc, accepts="float", **more)


# --- arithmetic -----------------------------------------------------------------------------------------------------
add = elementwise(
    "add",
    lambda m, x, y: x + y,
    (lambda g, z, x, y: g, lambda g, z, x, y: g),
    forward=np.add,
    accepts="number",
    arity=2,
    doc="x + y.",
)
subtract = elementwise(
    "subtract",
    lambda m, x, y: x - y,
    (lambda g, z, x, y: g, lambda g, z, x, y: -g),
    forward=np.subtract,
    accepts="number",
    arity=2,
    doc="x - y.",
)
multiply = elementwise(
    "multiply",
    lambda m, x, y: x * y,
    (lambda g, z, x, y: g * y, lambda g, z, x, y: g * x),
    forward=np.multiply,
    accepts="number",
    arity=2,
    doc="x * y.",
)
divide = elementwise(
    "divide",
    lambda m, x, y: x / y,
    (lambda g, z, x, y: g / y, lambda g, z, x, y: -g * z / y),
    accepts="float",
    arity=2,
    domain=(0.5, 3.0),
    doc="x / y; integers are divided as float32.",
)
power = elementwise(
    "power",
    lambda m, x, y: m.pow(x, y),
    (lambda g, z, x, y: g * _power_slope(x, y), lambda g, z, x, y: g * where(equal(x, 0), 0.0, z * log(x))),
    accepts="number",
    arity=2,
    domain=(0.5, 2.0),
    doc="x to the power y.",
)


def _power_slope(x: Any, y: Any) -> Any:
    if not hasattr(y, "dtype"):
        return y * x ** (y - 1) if y != 0 else 0.0
    return where(equal(y, 0), 0.0, y * x ** (y - 1))  # x**0 is 1 everywhere: at x = 0 the formula would say 0 * inf


floor_divide = elementwise(
    "floor_divide",
    lambda m, x, y: m.floor_divide(x, y),
    accepts="number",
    arity=2,
    domain=(0.5, 3.0),
    smooth=False,
    doc="The quotient rounded down; 0 for an integer divided by 0.",
)
remainder = elementwise(
    "remainder",
    lambda m, x, y: m.remainder(x, y),
    (lambda g, z, x, y: g, lambda g, z, x, y: -g * floor_divide(x, y)),
    accepts="number",
    arity=2,
    domain=(0.5, 3.0),
    doc="x - floor(x / y) * y, with the sign of y.",
)
maximum = elementwise(
    "maximum",
    lambda m, x, y: m.maximum(x, y),
    (lambda g, z, x, y: where(greater_equal(x, y), g, 0.0), lambda g, z, x, y: where(greater_equal(x, y), 0.0, g)),
    arity=2,
    doc="The larger of the two; NaN if either is NaN.",
)
minimum = elementwise(
    "minimum",
    lambda m, x, y: m.minimum(x, y),
    (lambda g, z, x, y: where(less_equal(x, y), g, 0.0), lambda g, z, x, y: where(less_equal(x, y), 0.0, g)),
    arity=2,
    doc="The smaller of the two; NaN if either is NaN.",
)
negative = elementwise("negative", lambda m, x: -x, (lambda g, y, x: -g,), accepts="number", doc="-x.")
abs = elementwise(  # noqa: A001 - the array API's name
    "abs", lambda m, x: m.abs(x), (lambda g, y, x: g * sign(x),), accepts="number", doc="The absolute value."
)
sign: Op = elementwise("sign", lambda m, x: m.sign(x), accepts="number", doc="-1, 0 or 1; NaN for NaN.", smooth=False)
square = elementwise("square", lambda m, x: x * x, (lambda g, y, x: g * x * 2,), accepts="number", doc="x * x.")

# --- functions of one float -----------------------------------------------------------------------------------------
exp = smooth_function("exp", lambda m, x: m.exp(x), lambda y, x: y, "e to the power x.")
expm1 = smooth_function("expm1", lambda m, x: m.expm1(x), lambda y, x: y + 1, "exp(x) - 1, exact near 0.")
log: Op = smooth_function("log", lambda m, x: m.log(x), lambda y, x: 1 / x, "The natural logarithm.", domain=(0.2, 4.0))
log1p = smooth_function(
    "log1p", lambda m, x: m.log1p(x), lambda y, x: 1 / (x + 1), "log(1 + x), exact near 0.", domain=(-0.5, 4.0)
)
sqrt = smooth_function("sqrt", lambda m, x: m.sqrt(x), lambda y, x: 0.5 / y, "The square root.", domain=(0.2, 4.0))
rsqrt = smooth_function("rsqrt", lambda m, x: m.rsqrt(x), lambda y, x: -0.5 * y / x, "1 / sqrt(x).", domain=(0.2, 4.0))
sin = smooth_function("sin", lambda m, x: m.sin(x), lambda y, x: cos(x), "The sine; x in radians.")
cos: Op = smooth_function("cos", lambda m, x: m.cos(x), lambda y, x: -sin(x), "The cosine; x in radians.")
tan = smooth_function(
    "tan", lambda m, x: m.tan(x), lambda y, x: y * y + 1, "The tangent; x in radians.", domain=(-1.4, 1.4)
)
_INSIDE = (-0.95, 0.95)
asin = smooth_function(
    "asin",
    lambda m, x: m.asin(x),
    lambda y, x: rsqrt((1 - x) * (1 + x)),
    "The angle between -pi/2 and pi/2 whose sine is x; NaN beyond 1.",
    domain=_INSIDE,
)
acos = smooth_function(
    "acos",
    lambda m, x: m.acos(x),
    lambda y, x: -rsqrt((1 - x) * (1 + x)),
    "The angle between 0 and pi whose cosine is x; NaN beyond 1.",
    domain=_INSIDE,
)
atan = smooth_function(
    "atan", lambda m, x: m.atan(x), lambda y, x: 1 / (x * x + 1), "The angle between -pi/2 and pi/2 whose tangent is x."
)
atan2 = elementwise(
    "atan2",
    lambda m, y, x: m.atan2(y, x),
    (lambda g, z, y, x: g * x / (x * x + y * y), lambda g, z, y, x: -g * y / (x * x + y * y)),
    accepts="float",
    arity=2,
    domain=(0.3, 2.0),
    doc="The angle of the point (x, y) between -pi and pi; the first argument is y.",
)
sinh: Op = smooth_function("sinh", lambda m, x: m.sinh(x), lambda y, x: cosh(x), "The hyperbolic sine.")
cosh: Op = smooth_function("cosh", lambda m, x: m.cosh(x), lambda y, x: sinh(x), "The hyperbolic cosine.")
asinh = smooth_function(
    "asinh", lambda m, x: m.asinh(x), lambda y, x: rsqrt(x * x + 1), "The number whose hyperbolic sine is x."
)
acosh = smooth_function(
    "acosh",
    lambda m, x: m.acosh(x),
    lambda y, x: rsqrt((x - 1) * (x + 1)),
    "The number not below 0 whose hyperbolic cosine is x; NaN below 1.",
    domain=(1.2, 4.0),
)
atanh = smooth_function(
    "atanh",
    lambda m, x: m.atanh(x),
    lambda y, x: 1 / ((1 - x) * (1 + x)),
    "The number whose hyperbolic tangent is x; Inf at 1, NaN beyond.",
    domain=_INSIDE,
)
tanh = smooth_function("tanh", lambda m, x: m.tanh(x), lambda y, x: 1 - y * y, "The hyperbolic tangent.")
sigmoid = smooth_function("sigmoid", lambda m, x: m.sigmoid(x), lambda y, x: y * (1 - y), "1 / (1 + exp(-x)).")
erf = smooth_function(
    "erf",
    lambda m, x: m.erf(x),
    lambda y, x: exp(-x * x) * (2 / constants.sqrt(constants.pi)),
    "The error function: 2 / sqrt(pi) times the integral of exp(-t*t) from 0 to x.",
)
relu_gradient: Op = elementwise(
    "relu_gradient",
    lambda m, g, y: m.where(y > 0, g, y * 0),
    (lambda h, z, g, y: relu_gradient(h, y), None),
    accepts="number",
    arity=2,
    doc="g where y, the output of relu, is positive, else 0 (NaN for NaN): one op, so that a product can end in it.",
)
relu = elementwise(
    "relu",
    lambda m, x: m.maximum(x, 0),
    (lambda g, y, x: relu_gradient(g, y),),
    accepts="number",
    doc="max(x, 0).",
)
softplus = smooth_function(
    "softplus",
    lambda m, x: m.maximum(x, 0) + m.log1p(m.exp(-m.abs(x))),
    lambda y, x: sigmoid(x),
    "log(1 + exp(x)), without overflow.",
)
silu = smooth_function(
    "silu", lambda m, x: x * m.sigmoid(x), lambda y, x: sigmoid(x) * (1 + x - y), "x * sigmoid(x), also called swish."
)
gelu = smooth_function(
    "gelu",
    lambda m, x: x * 0.5 * (1 + m.erf(x * constants.sqrt(0.5))),
    lambda y, x: (
        0.5 * (1 + erf(x * constants.sqrt(0.5))) + x * exp(-0.5 * x * x) * (1 / constants.sqrt(2 * constants.pi))
    ),
    "x times the standard normal distribution function of x. Source: Hendrycks & Gimpel, 2016.",
)
_TANH_SCALE = constants.sqrt(2 / constants.pi)
gelu_tanh = smooth_function(
    "gelu_tanh",
    lambda m, x: x * 0.5 * (1 + m.tanh(_TANH_SCALE * (x + 0.044715 * x * x * x))),
    lambda y, x: _gelu_tanh_slope(x),
    "GELU with the tanh approximation. Source: Hendrycks & Gimpel, 2016.",
)


def _gelu_tanh_slope(x: Any) -> Any:
    t = tanh(_TANH_SCALE * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (_TANH_SCALE * (1 + 3 * 0.044715 * x * x))


# --- rounding and predicates -----------------------------------------------------------------------------------------
def _rounding(name: str, body: Body, doc: str) -> Op:
    return elementwise(name, body, accepts="number", doc=doc, smooth=False)


floor = _rounding("floor", lambda m, x: m.floor(x), "Rounded down.")
ceil = _rounding("ceil", lambda m, x: m.ceil(x), "Rounded up.")
round = _rounding("round", lambda m, x: m.round(x), "Rounded to the nearest, ties to even.")  # noqa: A001
trunc = _rounding("trunc", lambda m, x: m.trunc(x), "Rounded towards zero.")


def _question(name: str, body: Body, doc: str, arity: int = 1, accepts: str = "any") -> Op:
    return elementwise(name, body, doc=doc, gives="bool", arity=arity, accepts=accepts, smooth=False)


isnan = _question("isnan", lambda m, x: m.isnan(x), "Whether NaN.", accepts="float")
isinf = _question("isinf", lambda m, x: m.isinf(x), "Whether infinite.", accepts="float")
isfinite = _question("isfinite", lambda m, x: m.isfinite(x), "Whether neither NaN nor infinite.", accepts="float")
logical_not = _question("logical_not", lambda m, x: x == 0, "Whether zero or False.")
equal: Op = _question("equal", lambda m, x, y: x == y, "x == y.", 2)
not_equal = _question("not_equal", lambda m, x, y: x != y, "x != y.", 2)
less = _question("less", lambda m, x, y: x < y, "x < y.", 2)
less_equal: Op = _question("less_equal", lambda m, x, y: x <= y, "x <= y.", 2)
greater: Op = _question("greater", lambda m, x, y: x > y, "x > y.", 2)
greater_equal: Op = _question("greater_equal", lambda m, x, y: x >= y, "x >= y.", 2)
logical_and = _question("logical_and", lambda m, x, y: (x != 0) & (y != 0), "Whether both are true.", 2)
logical_or = _question("logical_or", lambda m, x, y: (x != 0) | (y != 0), "Whether one is true.", 2)
logical_xor = _question("logical_xor", lambda m, x, y: (x != 0) != (y != 0), "Whether exactly one is true.", 2)


# --- choice and conversion: their dtype rules are their own ----------------------------------------------------------
def _where_forward(condition: Any, x: Any, y: Any) -> Any:
    dtype = np.result_type(x, y) if hasattr(x, "dtype") or hasattr(y, "dtype") else np.dtype("float32")
    return np.where(condition, x, y).astype(dtype, copy=False)


def _where_rule(condition: Any, x: Any, y: Any) -> Spec:
    return Spec(broadcast_shapes("where", condition, x, y), _dtype_of((x, y), np.dtype("float32")))


class _Where(Op):
    """`where` promotes its two values, never the condition."""

    def prepared(self, inputs: Any) -> tuple[Any, ...]:
        if len(inputs) != 3:
            raise TypeError(f"where takes a condition and two values, got {len(inputs)} arguments")
        condition, x, y = inputs
        from gluonish.nd import dispatch

        condition = dispatch.as_array(condition)
        values = super().prepared((x, y))
        return (condition if condition.dtype == BOOL else not_equal(condition, 0), *values)


def _where_sample(rng: np.random.Generator) -> list[Sample]:
    condition = rng.random((3, 5)) < 0.5
    return [Sample((condition, rng.standard_normal((3, 5)).astype("f4"), rng.standard_normal(5).astype("f4")))]


where: Op = register(
    _Where(
        "where",
        "elementwise",
        _where_forward,
        _where_rule,
        (None, lambda g, z, c, x, y: where(c, g, 0.0), lambda g, z, c, x, y: where(c, 0.0, g)),
        lambda m, c, x, y: m.where(c, x, y),
        doc="x where the condition holds, else y.",
        sample=_where_sample,
    )
)


def _cast_forward(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x.astype(dtype)


cast = register(
    Op(
        "cast",
        "elementwise",
        _cast_forward,
        lambda x, dtype: Spec(x.shape, np.dtype(dtype)),
        (lambda g, y, x, dtype: g.astype(x.dtype) if is_float(x.dtype) and is_float(y.dtype) else None,),
        doc="The same values in another dtype; floats become integers towards zero.",
        sample=lambda rng: [
            Sample((rng.standard_normal((3, 4)).astype("f4"),), {"dtype": np.dtype("float64")}),
            Sample((np.array([0, 2, -3]),), {"dtype": np.dtype("float32")}),
        ],
        smooth=False,
    )
)
