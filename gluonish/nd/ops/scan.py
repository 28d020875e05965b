"""Scan ops: running sums, products, extremes and linear recurrences along one axis.

A record has, beside the NumPy forward, the elementwise op that combines what came before with the next element, in
`SCANS`; kernels read it. Every scan also runs backwards (`reverse`), which is what the gradients of scans need. Half
floats accumulate in float32. Deliberately not here: argument handling (`nd/sequences.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.nd.dtypes import is_half
from gluonish.nd.op import FLOAT, INDEX, Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops.create import arange_op, full_op
from gluonish.nd.ops.elementwise import equal, logical_not, where
from gluonish.nd.ops.move import broadcast_op, concat_op, index_op, reshape_op

SCANS: dict[str, str] = {}  # name of a scan -> the op that combines two partial results


def shifted(x: Any, axis: int, reverse: bool, first: Any) -> Any:
    """What comes before each element along the axis: `first`, one slice of x's shape, then x without its last slice."""
    whole = [slice(None)] * axis
    if reverse:
        return concat_op(index_op(x, key=(*whole, slice(1, None))), first, axis=axis)
    return concat_op(first, index_op(x, key=(*whole, slice(None, -1))), axis=axis)


def _end(x: Any, axis: int, reverse: bool) -> Any:
    """The slice that a scan of x begins with; empty if x is."""
    part = slice(-1, None) if reverse else slice(0, 1)
    return index_op(x, key=(*[slice(None)] * axis, part))


def _slice_of(value: float, x: Any, axis: int) -> Any:
    return full_op(shape=_end(x, axis, False).shape, value=value, dtype=x.dtype)


def _along(x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    return np.flip(x, axis) if reverse else x


def _sample(rng: np.random.Generator) -> list[Sample]:
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    return [
        Sample((x,), {"axis": 1, "reverse": False}),
        Sample((x,), {"axis": 2, "reverse": True}),
        Sample((x,), {"axis": 0, "reverse": True}),
        Sample((rng.standard_normal((2, 70)).astype(np.float32),), {"axis": 1, "reverse": False}),
        Sample((np.zeros((3, 0), np.float32),), {"axis": 1, "reverse": False}),
    ]


def _scan(name: str, ufunc: Any, combine: str, vjp: Callable[..., Any], doc: str) -> Op:
    SCANS[name] = combine

    def forward(x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
        wide = FLOAT if is_half(x.dtype) else x.dtype
        more = {} if combine in ("maximum", "minimum") else {"dtype": wide}
        out = ufunc.accumulate(_along(x, axis, reverse), axis, **more)
        return _along(out, axis, reverse).astype(x.dtype, copy=False)

    def rule(x: Spec, axis: int, reverse: bool) -> Spec:
        if not 0 <= axis < len(x.shape):
            raise refuse(name, f"has no axis {axis}", x)
        return Spec(x.shape, x.dtype)

    return register(Op(name, "scan", quiet(forward), rule, (vjp,), accepts="number", doc=doc, sample=_sample))


cumulative_sum_op: Op = _scan(
    "cumulative_sum",
    np.add,
    "add",
    lambda g, y, x, axis, reverse: cumulative_sum_op(g, axis=axis, reverse=not reverse),
    "The sum of all elements up to each one along the axis, or from each one on (`reverse`).",
)


def _product_vjp(g: Any, y: Any, x: Any, axis: int, reverse: bool) -> Any:
    # d y[k] / d x[i] = y[i - 1] * x[i + 1] * ... * x[k]: exact also where x has zeros, as nothing is divided
    ones = _slice_of(1, x, axis)
    factors = shifted(x, axis, not reverse, ones)
    return shifted(y, axis, reverse, ones) * linear_scan_op(factors, g, axis=axis, reverse=not reverse)


cumulative_prod_op: Op = _scan(
    "cumulative_prod",
    np.multiply,
    "multiply",
    _product_vjp,
    "The product of all elements up to each one along the axis, or from each one on (`reverse`).",
)


def _extreme_vjp(g: Any, y: Any, x: Any, axis: int, reverse: bool) -> Any:
    # where a running extreme is no longer what it was, it is the element itself; all that follow look back to the last
    # such place
    from gluonish.nd.ops.along import add_along_axis_op

    size = x.shape[axis]
    lined = reshape_op(
        arange_op(count=size, start=0, step=1, dtype=INDEX),
        shape=tuple(size if i == axis else 1 for i in range(len(x.shape))),
    )
    places = broadcast_op(lined, shape=x.shape)
    before = shifted(y, axis, reverse, _end(y, axis, reverse))
    none = size - 1 if reverse else 0
    begun = where(logical_not(equal(y, before)), places, none)
    follow = cumulative_min_op if reverse else cumulative_max_op
    return add_along_axis_op(g, follow(begun, axis=axis, reverse=reverse), axis=axis, size=size)


cumulative_max_op: Op = _scan(
    "cumulative_max",
    np.maximum,
    "maximum",
    _extreme_vjp,
    "The largest element up to each one along the axis, NaN from a NaN on; the first of equals has the gradient.",
)
cumulative_min_op: Op = _scan(
    "cumulative_min",
    np.minimum,
    "minimum",
    _extreme_vjp,
    "The smallest element up to each one along the axis, NaN from a NaN on; the first of equals has the gradient.",
)


# --- linear recurrences ----------------------------------------------------------------------------------------------
def _linear_rule(factors: Spec, terms: Spec, axis: int, reverse: bool) -> Spec:
    same = len(factors.shape) == len(terms.shape) and all(a == b for a, b in zip(factors.shape, terms.shape))
    if not same or not 0 <= axis < len(factors.shape):
        raise refuse("linear_scan", f"factors and terms must have one shape, with an axis {axis}", factors, terms)
    return Spec(terms.shape, terms.dtype)


def _linear_forward(factors: np.ndarray, terms: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    _linear_rule(factors, terms, axis, reverse)  # type: ignore[arg-type]  # arrays have all that a Spec has
    wide = FLOAT if is_half(terms.dtype) else terms.dtype
    out = np.empty(terms.shape, wide)
    a, b, y = (np.moveaxis(_along(z, axis, reverse), axis, 0) for z in (factors, terms, out))
    for i in range(len(b)):
        y[i] = a[i] * y[i - 1] + b[i] if i else b[i]
    return out.astype(terms.dtype, copy=False)


def _linear_vjp(position: int, g: Any, y: Any, factors: Any, terms: Any, axis: int, reverse: bool) -> Any:
    nothing = _slice_of(0, factors, axis)
    back = linear_scan_op(shifted(factors, axis, not reverse, nothing), g, axis=axis, reverse=not reverse)
    return back if position == 1 else back * shifted(y, axis, reverse, nothing)


def _linear_sample(rng: np.random.Generator) -> list[Sample]:
    draw = [rng.standard_normal((2, 3, 6)).astype(np.float32) for _ in range(2)]
    return [Sample(tuple(draw), {"axis": 2, "reverse": False}), Sample(tuple(draw), {"axis": 1, "reverse": True})]


SCANS["linear_scan"] = "linear"
linear_scan_op: Op = register(
    Op(
        "linear_scan",
        "scan",
        quiet(_linear_forward),
        _linear_rule,
        _linear_vjp,
        accepts="number",
        doc="y[i] = factors[i] * y[i - 1] + terms[i] along the axis, from y[-1] = 0; from the end if `reverse`.",
        sample=_linear_sample,
    )
)
