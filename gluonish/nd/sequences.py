"""Functions that depend on the order of elements: scans, sorting, the k largest, searching, rolling.

They bring the axis into its place and call one op. NaN counts as larger than every number. Deliberately not here:
gradient rules (`ops/scan.py`, `ops/sort.py`), reductions (`functions.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.create import array, as_dtype
from gluonish.nd.errors import user_line
from gluonish.nd.op import INDEX, Op
from gluonish.nd.ops.along import take_along_axis_op
from gluonish.nd.ops.create import full_op
from gluonish.nd.ops.move import concat_op, index_op, normal_axis, permute_op, reshape_op
from gluonish.nd.ops.scan import (
    cumulative_max_op,
    cumulative_min_op,
    cumulative_prod_op,
    cumulative_sum_op,
    linear_scan_op,
)
from gluonish.nd.ops.sort import argsort_op, argtopk_op, searchsorted_op, sort_op
from gluonish.nd.size import product

Array = NDArray
_WIDE = {"b": INDEX, "i": INDEX, "u": np.dtype("uint64")}


# --- scans -----------------------------------------------------------------------------------------------------------
def _scanned(op: Op, x: Any, axis: Any, reverse: bool) -> Array:
    x = dispatch.as_array(x)
    if axis is None:
        return op(reshape_op(x, shape=(product(x.shape),)), axis=0, reverse=reverse)
    return op(x, axis=normal_axis(op.name, axis, x.ndim), reverse=reverse)


def _counted(op: Op, x: Any, axis: Any, dtype: Any, initial: float | None, reverse: bool) -> Array:
    """A running sum or product in the dtype asked for; bools and integers count in 64 bits."""
    x = dispatch.as_array(x)
    wanted = as_dtype(dtype) if dtype is not None else _WIDE.get(x.dtype.kind, x.dtype)
    out = _scanned(op, x if x.dtype == wanted else x.astype(wanted), axis, reverse)
    if initial is None:
        return out
    place = 0 if axis is None else normal_axis(op.name, axis, out.ndim)
    first = full_op(shape=(*out.shape[:place], 1, *out.shape[place + 1 :]), value=initial, dtype=out.dtype)
    return concat_op(*((out, first) if reverse else (first, out)), axis=place)


def cumulative_sum(
    x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False, reverse: bool = False
) -> Array:
    """The sums of all elements up to each one along the axis, or in the flattened array.

    Bools and integers add up in 64 bits. include_initial: a 0 comes first. reverse: from each element to the end.
    """
    return _counted(cumulative_sum_op, x, axis, dtype, 0 if include_initial else None, reverse)


def cumulative_prod(
    x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False, reverse: bool = False
) -> Array:
    """The products of all elements up to each one along the axis, or in the flattened array.

    The gradient is exact where x has zeros, too. Arguments as of `cumulative_sum`; include_initial: a 1 comes first.
    """
    return _counted(cumulative_prod_op, x, axis, dtype, 1 if include_initial else None, reverse)


def cumulative_max(x: Any, axis: int | None = None, reverse: bool = False) -> Array:
    """The largest element up to each one along the axis, or in the flattened array; NaN from the first NaN on."""
    return _scanned(cumulative_max_op, x, axis, reverse)


def cumulative_min(x: Any, axis: int | None = None, reverse: bool = False) -> Array:
    """The smallest element up to each one along the axis, or in the flattened array; NaN from the first NaN on."""
    return _scanned(cumulative_min_op, x, axis, reverse)


def linear_scan(factors: Any, terms: Any, axis: int = -1, reverse: bool = False) -> Array:
    """The linear recurrence y[i] = factors[i] * y[i - 1] + terms[i] along the axis, with nothing before the first.

    Shapes: factors and terms alike -> the same. reverse: from the end, y[i] = factors[i] * y[i + 1] + terms[i].
    """
    factors, terms = linear_scan_op.prepared((factors, terms))
    return linear_scan_op(factors, terms, axis=normal_axis("linear_scan", axis, terms.ndim), reverse=reverse)


# --- order -----------------------------------------------------------------------------------------------------------
def _last(axis: int, rank: int) -> tuple[int, ...]:
    return (*[i for i in range(rank) if i != axis], axis)


def _back(axis: int, rank: int) -> tuple[int, ...]:
    return (*range(axis), rank - 1, *range(axis, rank - 1))


def _ordered(op: Op, x: Any, axis: int | None, **attrs: Any) -> Array:
    """An op along the last axis, applied along another one."""
    x = dispatch.as_array(x)
    if axis is None:
        return op(reshape_op(x, shape=(product(x.shape),)), **attrs)
    axis = normal_axis(op.name, axis, x.ndim)
    if axis == x.ndim - 1:
        return op(x, **attrs)
    return permute_op(op(permute_op(x, axes=_last(axis, x.ndim)), **attrs), axes=_back(axis, x.ndim))


def sort(x: Any, axis: int | None = -1, descending: bool = False, stable: bool = True) -> Array:
    """The elements along the axis (None: of the flattened array) in order; NaN counts as the largest.

    It is always stable, so `stable` changes nothing.
    """
    return _ordered(sort_op, x, axis, descending=bool(descending))


def argsort(x: Any, axis: int | None = -1, descending: bool = False, stable: bool = True) -> Array:
    """The places of the elements along the axis in the order of `sort`; int64. Of equal ones, the first comes first."""
    return _ordered(argsort_op, x, axis, descending=bool(descending))


class TopK(NamedTuple):
    """What `topk` gives."""

    values: Array
    indices: Array


def topk(x: Any, k: int, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest (or smallest) elements along the axis, in order, and their places.

    Of equal elements the first comes first; NaN counts as the largest. Shapes: (..., N, ...) -> values and int64
    indices (..., k, ...). Raises: ValueError if there are fewer than k.
    """
    x = dispatch.as_array(x)
    axis = normal_axis("topk", axis, x.ndim)
    places = _ordered(argtopk_op, x, axis, k=k, largest=bool(largest))
    return TopK(take_along_axis_op(x, places, axis=axis), places)


def searchsorted(x: Any, values: Any, side: str = "left", sorter: Any = None) -> Array:
    """Where each value would be put into the sorted x so that it stays sorted; int64.

    side: "left" before equal elements, "right" after them. sorter: the order that sorts x, as `argsort` gives it.
    Shapes: x (N,), values (...) -> (...).
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', got {side!r} ({user_line()})")
    x, values = concat_op.prepared((x, values))
    if sorter is not None:
        x = take_along_axis_op(x, sorter, axis=0)
    return searchsorted_op(x, values, right=side == "right")


# --- shapes that depend on values ------------------------------------------------------------------------------------
class Unique(NamedTuple):
    """What `unique_all` gives: the values in order, where each is first, where each element's value is, how often."""

    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


def unique_all(x: Any) -> Unique:
    """The distinct elements in order, the place of the first of each, which one each element is, and their numbers.

    The shape depends on values, so a compiled function cannot have it. NaNs are distinct.
    """
    data = dispatch.as_array(x)._values("unique (the shape depends on values)")
    values, indices, inverse, counts = np.unique(data, True, True, True, equal_nan=False)
    return Unique(*(array(part) for part in (values, indices, inverse.reshape(data.shape), counts)))


def unique_values(x: Any) -> Array:
    """The distinct elements, in order; see `unique_all`."""
    return unique_all(x).values


def unique_counts(x: Any) -> tuple[Array, Array]:
    """The distinct elements, in order, and how often each is there; see `unique_all`."""
    found = unique_all(x)
    return found.values, found.counts


def unique_inverse(x: Any) -> tuple[Array, Array]:
    """The distinct elements, in order, and for each element of x which one it is; see `unique_all`."""
    found = unique_all(x)
    return found.values, found.inverse_indices


# --- rolling ---------------------------------------------------------------------------------------------------------
def roll(x: Any, shift: Any, axis: Any = None) -> Array:
    """The elements moved on along the axis (or several); those pushed out at its end come in at its start.

    Without an axis, the flattened array is rolled and gets its shape back.
    """
    x = dispatch.as_array(x)
    if axis is None:
        return reshape_op(roll(reshape_op(x, shape=(product(x.shape),)), shift, 0), shape=x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(axes) != len(shifts):
        raise ValueError(f"roll: {len(shifts)} shifts for {len(axes)} axes ({user_line()})")
    for step, a in zip(shifts, axes):
        place = normal_axis("roll", a, x.ndim)
        size = x.shape[place]
        if product(x.shape) != 0 and step % size != 0:
            whole, cut = [slice(None)] * place, size - step % size
            parts = [index_op(x, key=(*whole, part)) for part in (slice(cut, None), slice(0, cut))]
            x = concat_op(*parts, axis=place)
    return x
