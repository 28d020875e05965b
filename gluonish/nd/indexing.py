"""Indexing and its relatives: `x[...]`, and choosing or changing elements by arrays of indices.

Every index is checked; negative ones count from the end. Nothing here changes an array in place: what writes gives a
new array. Deliberately not here: `x[...] = value` (`array.py`), and ops (`ops/gather.py`, `ops/along.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.create import array, as_dtype, ones_like
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import BOOL, INDEX
from gluonish.nd.ops import elementwise as e
from gluonish.nd.ops.along import add_along_axis_op, put_along_axis_op, take_along_axis_op
from gluonish.nd.ops.create import full_op
from gluonish.nd.ops.gather import (
    FAR,
    checked_index_op,
    index_add_op,
    index_add_to_op,
    index_update_op,
    pick_op,
    take_op,
    unpick_op,
)
from gluonish.nd.ops.move import (
    broadcast_op,
    index_op,
    index_rule,
    normal_axis,
    permute_op,
    place_op,
    reshape_op,
)
from gluonish.nd.size import product, same, stretches

Array = NDArray
_EVERYTHING = slice(None)
_DEPENDS = "boolean indexing (the shape depends on values)"


# --- x[...] ----------------------------------------------------------------------------------------------------------
def getitem(x: Array, key: Any) -> Array:
    """NumPy indexing: ints, slices, None and Ellipsis (views), arrays of integers (copies), masks (eager only).

    Raises: IndexError for an index out of range and for keys that mean nothing.
    """
    full = basic_key(x, key)
    return _by_arrays(x, key if isinstance(key, tuple) else (key,)) if full is None else index_op(x, key=full)


def basic_key(x: Array, key: Any) -> tuple[Any, ...] | None:
    """The key of `index_op` for x[key]; None where arrays take part.

    Raises: IndexError for keys that mean nothing.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(p, (NDArray, np.ndarray, list)) for p in parts):
        return None
    return tuple(_basic(p) for p in _full_key(x, parts))


def _full_key(x: Array, parts: tuple[Any, ...]) -> list[Any]:
    """The key with slices in the place of its Ellipsis."""
    given = sum(1 for p in parts if p is not None and p is not Ellipsis)
    if given > x.ndim or sum(1 for p in parts if p is Ellipsis) > 1:
        raise IndexError(f"index {parts} has too many parts for shape {shape_text(x.shape)} ({user_line()})")
    out: list[Any] = []
    for p in parts:
        out += [_EVERYTHING] * (x.ndim - given) if p is Ellipsis else [p]
    return out


def _basic(part: Any) -> Any:
    if part is None or isinstance(part, slice):
        return part
    if isinstance(part, bool) or not hasattr(part, "__index__"):
        raise IndexError(f"cannot index with {part!r} ({user_line()})")
    return int(part) if isinstance(part, np.integer) else part


def _by_arrays(x: Array, parts: tuple[Any, ...]) -> Array:
    """Basic indexing first, with whole dimensions where arrays stand, then one `take`."""
    given = [_index_array(p) if isinstance(p, (np.ndarray, list)) else p for p in parts]
    if len(given) == 1 and given[0].dtype == BOOL:
        return _select_by_mask(x, given[0])
    given = _without_masks(x, given)
    together = _neighbours(given)
    full = _full_key(x, tuple(given))
    basic = tuple(p if p is None or isinstance(p, slice) else _EVERYTHING for p in full)
    y = x if all(isinstance(p, slice) and p == _EVERYTHING for p in basic) else index_op(x, key=basic)
    places = [i for i, p in enumerate(full) if p is not None and not isinstance(p, slice)]
    indices = [_integers(full[i]) for i in places]
    if not together:  # NumPy's rule: their common shape then comes first
        y = permute_op(y, axes=(*places, *[i for i in range(y.ndim) if i not in places]))
        places = list(range(len(places)))
    return _take_at(y, indices, places[0])


def _neighbours(parts: list[Any]) -> bool:
    """Whether the numbers and arrays of a key stand side by side."""
    kinds = [p is None or p is Ellipsis or isinstance(p, slice) for p in parts]
    inside = kinds[kinds.index(False) : len(kinds) - kinds[::-1].index(False)]
    return not any(inside)


def _integers(part: Any) -> Array:
    if isinstance(part, bool) or not (isinstance(part, NDArray) or hasattr(part, "__index__")):
        raise IndexError(f"cannot index with {part!r} ({user_line()})")
    index = dispatch.as_array(part)
    if index.dtype.kind not in "iu":
        raise IndexError(f"index arrays must be integers or masks, got {index.spec} ({user_line()})")
    return index


def _take_at(x: Array, indices: list[Array], first: int) -> Array:
    """x at places given by an array for each dimension from `first` on."""
    if len(indices) == 1:
        return take_op(x, indices[0], axis=first)
    sizes = x.shape[first : first + len(indices)]
    flat: Any = 0
    for index, size in zip(indices, sizes):  # x[i, j] is row i * J + j of x with these dimensions merged
        flat = flat * size + checked_index_op(index, size=size)
    merged = reshape_op(x, shape=(*x.shape[:first], product(sizes), *x.shape[first + len(indices) :]))
    return take_op(merged, flat, axis=first)


def _index_array(values: Any) -> Array:
    found = dispatch.as_array(values)
    return found.astype(INDEX) if isinstance(values, list) and found.size == 0 else found  # NumPy makes floats of []


def _without_masks(x: Array, parts: list[Any]) -> list[Any]:
    """The key with masks replaced by the places where they are true, an array for each of their dimensions."""
    taken = sum(
        p.ndim if getattr(p, "dtype", None) == BOOL else 1 for p in parts if p is not None and p is not Ellipsis
    )
    out: list[Any] = []
    axis = 0
    for p in parts:
        if getattr(p, "dtype", None) == BOOL and isinstance(p, NDArray):
            _check_mask(x, p, axis)
            out += [array(places) for places in np.nonzero(p._values(_DEPENDS))]
            axis += p.ndim
        else:
            out.append(p)
            axis += x.ndim - taken if p is Ellipsis else int(p is not None)
    return out


def _check_mask(x: Array, mask: Array, axis: int) -> None:
    wanted = tuple(x.shape[axis : axis + mask.ndim])
    if len(wanted) != mask.ndim or tuple(mask.shape) != wanted:  # in a trace perhaps a guard
        raise IndexError(f"mask {shape_text(mask.shape)} does not fit shape {shape_text(x.shape)} ({user_line()})")


def _select_by_mask(x: Array, mask: Array) -> Array:
    places = np.flatnonzero(mask._values(_DEPENDS))
    _check_mask(x, mask, 0)
    merged = reshape_op(x, shape=(mask.size, *x.shape[mask.ndim :]))
    return take_op(merged, array(places), axis=0)


# --- x[...] = value, as a new array --------------------------------------------------------------------------------
def replaced(x: Array, key: Any, value: Array) -> Array | None:
    """A new array: what x is after x[key] = value; None for keys that mix slices and arrays, or several arrays.

    Shapes: value is one number, or broadcasts to x[key]; its dtype is that of x. Raises: IndexError for an index out of
    range, ValueError for a value that does not fit.
    """
    full = basic_key(x, key)
    if full is not None:
        chosen = index_rule(x.spec, full).shape
        whole = full_op(shape=chosen, value=True, dtype=BOOL)
        while value.ndim > len(chosen) and value.shape[0] == 1:
            value = reshape_op(value, shape=value.shape[1:])
        changed = place_op(_stretched(value, chosen), shape=x.shape, key=full)
        return e.where(place_op(whole, shape=x.shape, key=full), changed, x)
    (first, *rest) = key if isinstance(key, tuple) else (key,)
    if rest:
        return None
    given = _index_array(first)
    if given.dtype != BOOL:
        index = _integers(given)
        return index_update_op(x, index, _stretched(value, (*index.shape, *x.shape[1:])), axis=0)
    _check_mask(x, given, 0)
    if value.ndim > x.ndim - given.ndim:  # a value for each element chosen: how many there are depends on values
        return None
    return e.where(reshape_op(given, shape=(*given.shape, *(1,) * (x.ndim - given.ndim))), value, x)


# --- slices by index -------------------------------------------------------------------------------------------------
def take(x: Array, indices: Any, axis: int = 0) -> Array:
    """Slices of x along `axis`, one per index. Raises: IndexError for an index out of range."""
    return take_op(x, indices, axis=normal_axis("take", axis, dispatch.as_array(x).ndim))


def _with_values(x: Any, values: Any) -> tuple[Array, Array]:
    """x and values in the dtype of x."""
    x, values = dispatch.as_array(x), dispatch.as_array(values)
    return x, values if values.dtype == x.dtype else values.astype(x.dtype)


def _slices(name: str, x: Any, indices: Any, values: Any, axis: int) -> tuple[Array, Array, Array, int]:
    x, values = _with_values(x, values)
    indices, axis = dispatch.as_array(indices), normal_axis(name, axis, x.ndim)
    return x, indices, _stretched(values, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])), axis


def index_add(x: Any, indices: Any, values: Any, axis: int = 0) -> Array:
    """A new array: x with each slice of `values` added at its index along `axis`.

    An index may come several times; sums are in the order of the indices. Shapes: values (or what broadcasts to it) has
    the shape of nd.take(x, indices, axis). Raises: IndexError for an index out of range.
    """
    x, indices, values, axis = _slices("index_add", x, indices, values, axis)
    return index_add_to_op(x, indices, values, axis=axis)


def index_update(x: Any, indices: Any, values: Any, axis: int = 0) -> Array:
    """A new array: x with the slices at the indices along `axis` replaced by `values`.

    Of several slices for one place the last stays. Shapes: as for `index_add`. Raises: IndexError for an index out of
    range.
    """
    x, indices, values, axis = _slices("index_update", x, indices, values, axis)
    return index_update_op(x, indices, values, axis=axis)


def gather_nd(x: Any, indices: Any) -> Array:
    """The slices of x at the coordinates indices[0], indices[1], ...: as many leading dimensions as `indices` has rows.

    Shapes: x (d0, d1, ..., rest), indices (M, ...) -> (..., rest). Raises: IndexError for an index out of range.
    """
    x, indices = dispatch.as_array(x), dispatch.as_array(indices)
    count = _coordinates("gather_nd", indices, x.ndim)
    return _take_at(x, [_integers(index_op(indices, key=(i,))) for i in range(count)], 0)


def scatter_nd(values: Any, indices: Any, shape: Any) -> Array:
    """Zeros of `shape` with each slice of values added at its coordinates: the gradient of `gather_nd`.

    Shapes: values (..., rest), indices (M, ...) -> shape. Raises: IndexError for an index out of range.
    """
    values, indices, shape = dispatch.as_array(values), dispatch.as_array(indices), tuple(shape)
    count = _coordinates("scatter_nd", indices, len(shape))
    flat: Any = 0
    for i in range(count):
        flat = flat * shape[i] + checked_index_op(_integers(index_op(indices, key=(i,))), size=shape[i])
    return reshape_op(index_add_op(values, flat, shape=(product(shape[:count]), *shape[count:]), axis=0), shape=shape)


def _coordinates(name: str, indices: Array, rank: int) -> int:
    if indices.ndim < 1 or not 1 <= indices.shape[0] <= rank:
        raise ValueError(f"{name}: the first dimension of indices counts coordinates, 1 to {rank}; got {indices.spec} "
                         f"({user_line()})")  # fmt: skip
    return int(indices.shape[0])


def strict(indices: Array) -> Array:
    """Indices as int64 of which negative ones are refused, for they are mistakes: class numbers, tokens, lengths.

    Floats, which Gluon's labels often are, must be whole: 1.5 is a mistake, not class 1.
    """
    if is_float(indices.dtype):
        # NaN is refused: its int64 is negative
        indices = e.where(e.equal(indices, e.floor(indices)), indices, float("nan"))
    indices = indices.astype(INDEX)
    return e.where(e.less(indices, 0), e.subtract(indices, FAR), indices)


# --- elements by index -----------------------------------------------------------------------------------------------
def _lines(name: str, x: Any, indices: Any, axis: int) -> tuple[Array, Array, int]:
    """x and indices broadcast against each other but along the axis."""
    x, indices = dispatch.as_array(x), dispatch.as_array(indices)
    axis = normal_axis(name, axis, x.ndim)
    if indices.ndim != x.ndim:
        raise ValueError(f"{name}: indices must have {x.ndim} dimensions, got {indices.spec} ({user_line()})")
    shape = [a if stretches(b, a) else b for a, b in zip(x.shape, indices.shape)]
    x, indices = (
        _stretched(z, tuple(z.shape[i] if i == axis else size for i, size in enumerate(shape))) for z in (x, indices)
    )
    return x, indices, axis


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Array:
    """The element at each index along the axis: x[i, indices[i, j]] for two dimensions.

    Shapes: indices as x, but of any size along `axis`; dimensions of 1 broadcast. Raises: IndexError for an index out
    of range.
    """
    x, indices, axis = _lines("take_along_axis", x, indices, axis)
    return take_along_axis_op(x, indices, axis=axis)


def put_along_axis(x: Any, indices: Any, values: Any, axis: int = -1) -> Array:
    """A new array: x with the elements at the indices along the axis replaced by `values`.

    Of several values for one place the last stays. Shapes: as for `take_along_axis`; values as indices, or what
    broadcasts to them. Raises: IndexError for an index out of range.
    """
    x, values = _with_values(x, values)
    x, indices, axis = _lines("put_along_axis", x, indices, axis)
    return put_along_axis_op(x, indices, _stretched(values, indices.shape), axis=axis)


def scatter_add(x: Any, indices: Any, values: Any, axis: int = -1) -> Array:
    """A new array: x with each of `values` added at its index along the axis.

    An index may come several times. Shapes: as for `put_along_axis`. Raises: IndexError for an index out of range.
    """
    x, values = _with_values(x, values)
    x, indices, axis = _lines("scatter_add", x, indices, axis)
    return x + add_along_axis_op(_stretched(values, indices.shape), indices, axis=axis, size=x.shape[axis])


def _stretched(x: Array, shape: tuple[Any, ...]) -> Array:
    alike = len(x.shape) == len(shape) and all(same(a, b) for a, b in zip(x.shape, shape))
    return x if alike else broadcast_op(x, shape=tuple(shape))


def pick(x: Array, indices: Any, axis: int = -1, keepdims: bool = False) -> Array:
    """One element per row of `axis`. Float indices (Gluon's habit) are truncated. Raises: IndexError out of range."""
    x, indices = dispatch.as_array(x), dispatch.as_array(indices)
    axis = normal_axis("pick", axis, x.ndim)
    if is_float(indices.dtype):
        indices = indices.astype("int64")
    if axis != x.ndim - 1:
        x = permute_op(x, axes=(*[i for i in range(x.ndim) if i != axis], axis))
    out = pick_op(x, indices)
    return reshape_op(out, shape=(*out.shape[:axis], 1, *out.shape[axis:])) if keepdims else out


def one_hot(indices: Any, depth: int, dtype: Any = None) -> Array:
    """Rows of `depth` zeros with a one at the index. Raises: IndexError for an index out of range."""
    indices = dispatch.as_array(indices)
    if is_float(indices.dtype):
        indices = indices.astype("int64")
    return unpick_op(ones_like(indices, as_dtype(dtype, np.dtype("float32"))), indices, size=depth)


# --- shapes that depend on values ------------------------------------------------------------------------------------
def nonzero(x: Any) -> tuple[Array, ...]:
    """The places of the elements that are not 0: for each dimension an int64 array.

    The shape depends on values, so a compiled function cannot have it: there, choose with nd.where, or take the k
    largest with nd.topk. Raises: ValueError for an array without dimensions.
    """
    x = dispatch.as_array(x)
    if x.ndim == 0:
        raise ValueError(f"nonzero: needs at least one dimension, got {x.spec} ({user_line()})")
    return tuple(array(places) for places in np.nonzero(x._values("nonzero (the shape depends on values)")))
