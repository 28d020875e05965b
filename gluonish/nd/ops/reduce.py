"""Reduce ops: many elements become one along some axes.

A record has, beside the NumPy forward, a `Reduction` that kernels read: the value to start from and the elementwise op
that combines two partial results. Sums of half-width floats accumulate in float32. An empty sum is 0, an empty product
1; an empty maximum is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gluonish.nd.dtypes import is_float, is_half
from gluonish.nd.errors import user_line
from gluonish.nd.op import BOOL, FLOAT, INDEX, Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops.elementwise import cast, equal, where
from gluonish.nd.ops.move import broadcast_op, normal_axis, reshape_op
from gluonish.nd.size import SizeLike, product

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Reduction:
    """How a loop reduces: start from `initial` (a float, "lowest" or "highest") and fold with the op `combine`.

    "variance" is no op: kernels give each partial result with its mean and number, and combine those.
    """

    initial: float | str
    combine: str


REDUCTIONS: dict[str, Reduction] = {}


def normal_axes(name: str, axis: Any, rank: int) -> Axes:
    """None, an int or a tuple of ints as a sorted tuple of axes."""
    if axis is None:
        return tuple(range(rank))
    axes = sorted(normal_axis(name, a, rank) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{name}: axis {axis} names a dimension twice ({user_line()})")
    return tuple(axes)


def reduced_shape(shape: tuple[SizeLike, ...], axes: Axes, keepdims: bool) -> tuple[SizeLike, ...]:
    """The shape after the axes are reduced: gone, or kept as 1."""
    if keepdims:
        return tuple(1 if i in axes else s for i, s in enumerate(shape))
    return tuple(s for i, s in enumerate(shape) if i not in axes)


def spread(value: Any, x: Any, axes: Axes, keepdims: bool) -> Any:
    """A reduced value broadcast back over the shape of x."""
    if not keepdims:
        value = reshape_op(value, shape=reduced_shape(x.shape, axes, True))
    return broadcast_op(value, shape=x.shape)


def _sample(rng: np.random.Generator) -> list[Sample]:
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    return [
        Sample((x,), {"axes": (1,), "keepdims": False}),
        Sample((x,), {"axes": (0, 2), "keepdims": True}),
        Sample((x,), {"axes": (2,), "keepdims": True}),
        Sample((x,), {"axes": (0, 1, 2), "keepdims": False}),
        Sample((x.reshape(2, 2, 3, 5),), {"axes": (0, 1, 2), "keepdims": False}),
        Sample((rng.standard_normal((7, 33)).astype(np.float32),), {"axes": (0,), "keepdims": False}),
    ]


def _empty_sample(rng: np.random.Generator) -> list[Sample]:
    return [*_sample(rng), Sample((np.zeros((3, 0), np.float32),), {"axes": (1,), "keepdims": False})]


def _reduction(
    name: str, ufunc: Callable[..., Any], initial: float | str, combine: str, vjp: Any, doc: str, smooth: bool = True
) -> Op:
    REDUCTIONS[name] = Reduction(initial, combine)

    def forward(x: np.ndarray, axes: Axes, keepdims: bool) -> np.ndarray:
        if isinstance(initial, str):
            return ufunc(x, axis=axes, keepdims=keepdims)
        wide = FLOAT if is_half(x.dtype) else x.dtype
        return ufunc(x, axis=axes, keepdims=keepdims, dtype=wide).astype(x.dtype, copy=False)

    def rule(x: Spec, axes: Axes, keepdims: bool) -> Spec:
        if any(a >= len(x.shape) for a in axes):
            raise refuse(name, f"has no axes {axes}", x)
        if isinstance(initial, str) and any(x.shape[a] == 0 for a in axes):
            raise refuse(name, f"an empty dimension has no {name} (axes {axes})", x)
        return Spec(reduced_shape(x.shape, axes, keepdims), x.dtype)

    sample = _sample if isinstance(initial, str) else _empty_sample
    accepts = "any" if isinstance(initial, str) else "number"
    more = {"accepts": accepts, "doc": doc, "sample": sample, "smooth": smooth}
    return register(Op(name, "reduce", quiet(forward), rule, vjp, **more))  # type: ignore[arg-type]


sum_op = _reduction(
    "sum", np.sum, 0.0, "add", (lambda g, y, x, axes, keepdims: spread(g, x, axes, keepdims),), "The sum over the axes."
)
prod_op = _reduction(
    "prod",
    np.prod,
    1.0,
    "multiply",
    (lambda g, y, x, axes, keepdims: spread(g * y, x, axes, keepdims) / x,),
    "The product over the axes; its gradient divides by x, so it is NaN where x is 0.",
)


def _extreme_vjp(g: Any, y: Any, x: Any, axes: Axes, keepdims: bool) -> Any:
    # several equal extremes share the gradient evenly
    hit = cast(equal(x, spread(y, x, axes, keepdims)), dtype=x.dtype)
    return spread(g, x, axes, keepdims) * hit / spread(sum_op(hit, axes=axes, keepdims=keepdims), x, axes, keepdims)


max_op = _reduction(
    "max",
    np.max,
    "lowest",
    "maximum",
    (_extreme_vjp,),
    "The largest over the axes; NaN if any is NaN. Equal ones share the gradient.",
)
min_op = _reduction(
    "min",
    np.min,
    "highest",
    "minimum",
    (_extreme_vjp,),
    "The smallest over the axes; NaN if any is NaN. Equal ones share the gradient.",
)


def _variance_forward(x: np.ndarray, axes: Axes, keepdims: bool) -> np.ndarray:
    wide = x.astype(FLOAT) if is_half(x.dtype) else x
    count = np.asarray(product(x.shape[a] for a in axes), wide.dtype)
    distance = wide - wide.sum(axes, keepdims=True) / count
    return (np.sum(distance * distance, axes, keepdims=keepdims) / count).astype(x.dtype, copy=False)


def _variance_rule(x: Spec, axes: Axes, keepdims: bool) -> Spec:
    if not is_float(x.dtype):
        raise refuse("variance", "wants floats", x)
    if any(a >= len(x.shape) for a in axes):
        raise refuse("variance", f"has no axes {axes}", x)
    return Spec(reduced_shape(x.shape, axes, keepdims), x.dtype)


def distance_from_mean(x: Any, axes: Axes) -> Any:
    """x minus its mean over the axes."""
    return x - sum_op(x, axes=axes, keepdims=True) / product(x.shape[a] for a in axes)


REDUCTIONS["variance"] = Reduction(0.0, "variance")
variance_op = register(
    Op(
        "variance",
        "reduce",
        quiet(_variance_forward),
        _variance_rule,
        (
            lambda g, y, x, axes, keepdims: (
                distance_from_mean(x, axes) * spread(g * 2 / product(x.shape[a] for a in axes), x, axes, keepdims)
            ),
        ),
        accepts="float",
        doc="The mean of the squared distance from the mean over the axes, which is taken first; NaN of nothing.",
        sample=_sample,
    )
)


def _arg_op(name: str, function: Callable[..., Any], doc: str) -> Op:
    def rule(x: Spec, axis: int) -> Spec:
        if x.shape[axis] == 0:
            raise refuse(name, f"dimension {axis} is empty", x)
        return Spec(reduced_shape(x.shape, (axis,), False), INDEX)

    def sample(rng: np.random.Generator) -> list[Sample]:
        x = rng.standard_normal((4, 3, 5)).astype(np.float32)
        return [Sample((x,), {"axis": axis}) for axis in range(3)]

    return register(
        Op(name, "arg_reduce", lambda x, axis: function(x, axis), rule, doc=doc, sample=sample, smooth=False)
    )


argmax_op = _arg_op("argmax", np.argmax, "The position of the first largest element along the axis; int64.")
argmin_op = _arg_op("argmin", np.argmin, "The position of the first smallest element along the axis; int64.")


def truth(x: Any) -> Any:
    """0/1 integers for the reductions `any` and `all`."""
    return where(x if x.dtype == BOOL else x != 0, 1, 0)
