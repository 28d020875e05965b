"""Functions on arrays that are not ops themselves: argument handling around one op, and compositions of several.

Deliberately not here: anything with a gradient rule of its own (that is an op) or with state (that is a Block).
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.create import as_dtype, ones_like
from gluonish.nd.dtypes import is_float, is_half
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import BOOL, FLOAT, INDEX, result_dtype
from gluonish.nd.ops import elementwise as e
from gluonish.nd.ops.contract import integer_matmul_op, matmul_op
from gluonish.nd.ops.move import broadcast_op, concat_op, index_op, normal_axis, permute_op, place_op, reshape_op
from gluonish.nd.ops.reduce import (
    argmax_op,
    argmin_op,
    max_op,
    min_op,
    normal_axes,
    prod_op,
    reduced_shape,
    sum_op,
    truth,
    variance_op,
)
from gluonish.nd.size import Size, hint, product, same

Array = NDArray


# --- shapes ----------------------------------------------------------------------------------------------------------
def reshape(x: Array, *shape: Any) -> Array:
    """The same elements in another shape; one dimension may be -1."""
    wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return reshape_op(x, shape=wanted)


def flatten(x: Array) -> Array:
    """Shapes: (N, ...) -> (N, product of the rest), as in Gluon."""
    if x.ndim == 0:
        raise ValueError(f"flatten: needs at least one dimension, got {x.spec} ({user_line()})")
    return reshape_op(x, shape=(x.shape[0], product(x.shape[1:])))


def permute_dims(x: Array, *axes: Any) -> Array:
    """The dimensions in another order; reversed if no axes are given."""
    order = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    order = order if order and order != (None,) else tuple(range(x.ndim))[::-1]
    return permute_op(x, axes=tuple(normal_axis("permute_dims", a, x.ndim) for a in order))


def swapaxes(x: Array, first: int, second: int) -> Array:
    """Two dimensions exchanged."""
    order = list(range(x.ndim))
    a, b = normal_axis("swapaxes", first, x.ndim), normal_axis("swapaxes", second, x.ndim)
    order[a], order[b] = order[b], order[a]
    return permute_op(x, axes=tuple(order))


def expand_dims(x: Array, axis: int) -> Array:
    """A dimension of size 1 inserted at `axis`."""
    place = normal_axis("expand_dims", axis, x.ndim + 1)
    return reshape_op(x, shape=(*x.shape[:place], 1, *x.shape[place:]))


def squeeze(x: Array, axis: Any = None) -> Array:
    """Dimensions of size 1 removed: all of them, or those named.

    Raises: ValueError if a named one is not 1.
    """
    axes = [i for i, s in enumerate(x.shape) if s == 1] if axis is None else normal_axes("squeeze", axis, x.ndim)
    for a in axes:
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: dimension {a} of {shape_text(x.shape)} is not 1 ({user_line()})")
    return reshape_op(x, shape=tuple(s for i, s in enumerate(x.shape) if i not in axes))


def broadcast_to(x: Array, shape: Any) -> Array:
    """Dimensions of size 1 repeated to `shape`."""
    return broadcast_op(x, shape=tuple(shape))


def flip(x: Array, axis: Any = None) -> Array:
    """The elements in reverse order along the axes."""
    axes = normal_axes("flip", axis, x.ndim)
    return index_op(x, key=tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim)))


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays joined along an existing axis."""
    arrays = _same_dtype("concat", arrays)
    return concat_op(*arrays, axis=normal_axis("concat", axis, arrays[0].ndim))


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays joined along a new axis."""
    return concat([expand_dims(x, axis) for x in _same_dtype("stack", arrays)], axis)


def split(x: Array, sections: int | Sequence[int], axis: int = 0) -> list[Array]:
    """Equal parts along an axis, or parts cut at the given positions.

    Raises: ValueError if the parts would not be equal.
    """
    axis = normal_axis("split", axis, x.ndim)
    size = x.shape[axis]
    if isinstance(sections, (int, np.integer, Size)):
        if sections <= 0 or size % sections != 0:
            raise ValueError(f"split: {hint(size)} elements do not make {sections} equal parts ({user_line()})")
        step = size // sections
        edges = [step * i for i in range(sections + 1)]
    else:
        edges = [0, *sections, size]
    whole = [slice(None)] * axis
    return [index_op(x, key=(*whole, slice(a, b))) for a, b in zip(edges, edges[1:])]


def repeat(x: Array, repeats: int, axis: int) -> Array:
    """Each element repeated along an axis."""
    axis = normal_axis("repeat", axis, x.ndim)
    shape = x.shape
    wide = broadcast_to(expand_dims(x, axis + 1), (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    return reshape_op(wide, shape=(*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


def tile(x: Array, reps: Any) -> Array:
    """The whole array repeated `reps` times along each axis."""
    reps = tuple(reps) if isinstance(reps, (tuple, list)) else (reps,)
    rank = builtins.max(len(reps), x.ndim)
    reps = (1,) * (rank - len(reps)) + reps
    shape = (1,) * (rank - x.ndim) + tuple(x.shape)
    pairs = reshape_op(x, shape=tuple(s for size in shape for s in (1, size)))
    wide = broadcast_to(pairs, tuple(s for r, size in zip(reps, shape) for s in (r, size)))
    return reshape_op(wide, shape=tuple(r * size for r, size in zip(reps, shape)))


def pad(x: Array, widths: Sequence[tuple[int, int]], value: float = 0.0, mode: str = "constant") -> Array:
    """More elements around x: widths is a (before, after) pair per dimension.

    mode: "constant" (`value`), "edge" (the last element repeated), "reflect" (mirrored at the last element),
    "symmetric" (mirrored beyond it), "wrap" (from the other end).
    """
    if len(widths) != x.ndim or builtins.any(w < 0 for pair in widths for w in pair):
        raise ValueError(f"pad: {x.ndim} dimensions need {x.ndim} (before, after) pairs, got {widths} ({user_line()})")
    if mode != "constant":
        from gluonish.nd.images import mirrored

        if mode not in ("edge", "reflect", "symmetric", "wrap"):
            raise ValueError(
                f"pad: unknown mode {mode!r}; there are constant, edge, reflect, symmetric, wrap ({user_line()})"
            )
        return mirrored(x, widths, mode)
    shape = tuple(before + size + after for (before, after), size in zip(widths, x.shape))
    key = tuple(slice(before, before + size) for (before, _), size in zip(widths, x.shape))
    placed = place_op(x, shape=shape, key=key)
    if value == 0:
        return placed
    return e.where(place_op(ones_like(x, BOOL), shape=shape, key=key), placed, value)


def _same_dtype(name: str, arrays: Sequence[Any]) -> list[Array]:
    arrays = [dispatch.as_array(x) for x in arrays]
    if not arrays:
        raise ValueError(f"{name} needs at least one array ({user_line()})")
    return list(concat_op.prepared(arrays))


# --- reductions ------------------------------------------------------------------------------------------------------
def _reduce(op: Any, x: Any, axis: Any, keepdims: bool) -> Array:
    x = dispatch.as_array(x)
    return op(x, axes=normal_axes(op.name, axis, x.ndim), keepdims=keepdims)


def _counting(x: Any) -> Array:
    """x with bools and small integers in 64 bits, so that adding them up does not overflow."""
    x = dispatch.as_array(x)
    wide = {"b": INDEX, "i": INDEX, "u": np.dtype("uint64")}.get(x.dtype.kind)
    return x if wide is None else x.astype(wide)


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Array:  # noqa: A001
    """The sum over the axes, all by default; bools and integers add up in 64 bits."""
    return _reduce(sum_op, _counting(x), axis, keepdims)


def prod(x: Any, axis: Any = None, keepdims: bool = False) -> Array:
    """The product over the axes, all by default; bools and integers in 64 bits."""
    return _reduce(prod_op, _counting(x), axis, keepdims)


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Array:  # noqa: A001
    """The largest element over the axes, all by default. Raises: ValueError if there is none."""
    return _reduce(max_op, x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Array:  # noqa: A001
    """The smallest element over the axes, all by default. Raises: ValueError if there is none."""
    return _reduce(min_op, x, axis, keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Array:
    """The mean over the axes, all by default; NaN if there are no elements."""
    x = dispatch.as_array(x)
    if is_half(x.dtype):  # a sum of many would overflow
        return mean(x.astype(FLOAT), axis, keepdims).astype(x.dtype)
    axes = normal_axes("mean", axis, x.ndim)
    return sum(x, axes, keepdims) / product(x.shape[a] for a in axes)


def var(x: Any, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Array:
    """The variance over the axes: the mean of the squared distance from the mean (in two passes)."""
    x = dispatch.as_array(x)
    if is_half(x.dtype):
        return var(x.astype(FLOAT), axis, keepdims, correction).astype(x.dtype)
    axes = normal_axes("var", axis, x.ndim)
    if not is_float(x.dtype):
        x = x.astype(FLOAT)
    out = variance_op(x, axes=axes, keepdims=keepdims)
    if correction == 0:
        return out
    count = product(x.shape[a] for a in axes)
    return out * count / (count - correction)


def std(x: Any, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Array:
    """The standard deviation: the square root of `var`."""
    return e.sqrt(var(x, axis, keepdims, correction))


def any(x: Any, axis: Any = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Whether any element over the axes is true."""
    x = dispatch.as_array(x)
    return _reduce(max_op, truth(x), axis, keepdims) != 0 if product(x.shape) != 0 else sum(x, axis, keepdims) != 0


def all(x: Any, axis: Any = None, keepdims: bool = False) -> Array:  # noqa: A001
    """Whether all elements over the axes are true."""
    return e.logical_not(any(e.logical_not(dispatch.as_array(x)), axis, keepdims))


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Array:
    """The position of the first largest element, along the axis or in the flattened array; int64."""
    return _arg(argmax_op, x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Array:
    """The position of the first smallest element, along the axis or in the flattened array; int64."""
    return _arg(argmin_op, x, axis, keepdims)


def _arg(op: Any, x: Any, axis: int | None, keepdims: bool) -> Array:
    x = dispatch.as_array(x)
    if axis is None:
        out = op(reshape_op(x, shape=(product(x.shape),)), axis=0)
        return reshape_op(out, shape=(1,) * x.ndim) if keepdims else out
    axis = normal_axis(op.name, axis, x.ndim)
    out = op(x, axis=axis)
    return expand_dims(out, axis) if keepdims else out


def sum_to(x: Array, shape: tuple[Any, ...]) -> Array:
    """x summed over the dimensions that broadcasting had added or stretched from `shape`."""
    lead = x.ndim - len(shape)
    sizes = enumerate(shape, lead)
    stretched = [i for i, s in sizes if same(s, 1) and not same(x.shape[i], 1)]
    if stretched or lead:
        x = sum_op(x, axes=(*range(lead), *stretched), keepdims=True)
    return reshape_op(x, shape=tuple(shape)) if lead else x


# --- products --------------------------------------------------------------------------------------------------------
def matmul(a: Any, b: Any, dtype: Any = None) -> Array:
    """Matrix product by NumPy's rules: vectors too, leading dimensions broadcast.

    dtype: of the result. Half-width floats are summed in float32, so dtype "float32" keeps what their own dtype would
    round away. Two int8 arrays with dtype "int32" give the exact product of integers; without it, integers are
    multiplied as float32.

    >>> from gluonish import nd
    >>> a = nd.array([[100, 27]], dtype="int8")
    >>> nd.matmul(a, a.T, dtype="int32").tolist()
    [[10729]]
    """
    a, b = dispatch.as_array(a), dispatch.as_array(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: needs vectors or matrices, got {a.spec} and {b.spec} ({user_line()})")
    left = expand_dims(a, 0) if a.ndim == 1 else a
    right = expand_dims(b, 1) if b.ndim == 1 else b
    out = _product(left, right, None if dtype is None else as_dtype(dtype))
    drop = ([out.ndim - 2] if a.ndim == 1 else []) + ([out.ndim - 1] if b.ndim == 1 else [])
    return reshape_op(out, shape=reduced_shape(out.shape, tuple(drop), False)) if drop else out


def _product(left: Array, right: Array, dtype: Any) -> Array:
    if dtype is None:
        return matmul_op(left, right)
    if dtype == np.int32:
        return integer_matmul_op(left, right)
    if not is_float(dtype):
        raise TypeError(f"matmul: a product has a float dtype, or int32 for int8 arrays, not {dtype} ({user_line()})")
    if dtype != result_dtype([left.dtype, right.dtype]):
        if dtype == FLOAT and is_half(left.dtype) and left.dtype == right.dtype:
            return matmul_op(left, right, dtype=dtype)
        left, right = left.astype(dtype), right.astype(dtype)
    return matmul_op(left, right)


def dot(a: Any, b: Any) -> Array:
    """Gluon's dot: the last axis of a with the first of b."""
    a, b = dispatch.as_array(a), dispatch.as_array(b)
    if a.ndim <= 2 and b.ndim <= 2:
        return matmul(a, b)
    left = reshape_op(a, shape=(-1, a.shape[-1]))
    right = reshape_op(b, shape=(b.shape[0], -1))
    return reshape_op(matmul_op(left, right), shape=(*a.shape[:-1], *b.shape[1:]))


# --- small compositions ----------------------------------------------------------------------------------------------
def clip(x: Any, low: Any = None, high: Any = None) -> Array:
    """x limited to [low, high]; None leaves a side open."""
    x = dispatch.as_array(x)
    x = x if low is None else e.maximum(x, low)
    return x if high is None else e.minimum(x, high)


def lerp(start: Any, end: Any, weight: Any) -> Array:
    """start + weight * (end - start), elementwise; weight may be a number."""
    start, end = dispatch.as_array(start), dispatch.as_array(end)
    return start + (end - start) * weight


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """NaN replaced by `nan`, infinities by the numbers given, by default the largest and the smallest of the dtype."""
    x = dispatch.as_array(x)
    if not is_float(x.dtype):
        return x
    most = float(np.finfo(x.dtype).max)
    x = e.where(e.equal(x, np.inf), most if posinf is None else posinf, x)
    x = e.where(e.equal(x, -np.inf), -most if neginf is None else neginf, x)
    return e.where(e.isnan(x), nan, x)


def softmax(x: Any, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along the axis, without overflow."""
    x = dispatch.as_array(x)
    powers = e.exp(x - dispatch.as_array(max(x, axis, True)).detach())
    return powers * (1 / sum(powers, axis, True))


def log_softmax(x: Any, axis: int = -1) -> Array:
    """log(softmax(x)) along the axis, without overflow."""
    x = dispatch.as_array(x)
    shifted = x - max(x, axis, True).detach()
    return shifted - e.log(sum(e.exp(shifted), axis, True))


def leaky_relu(x: Any, slope: float = 0.01) -> Array:
    """x where positive, slope * x elsewhere."""
    x = dispatch.as_array(x)
    return e.where(x > 0, x, x * slope)


def elu(x: Any, alpha: float = 1.0) -> Array:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    x = dispatch.as_array(x)
    return e.where(x > 0, x, e.expm1(e.minimum(x, 0)) * alpha)


def norm(x: Any, axis: Any = None, keepdims: bool = False) -> Array:
    """The Euclidean length over the axes."""
    x = dispatch.as_array(x)
    return e.sqrt(sum(x * x, axis, keepdims))
