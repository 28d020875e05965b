"""Gather and scatter ops with one index for each element: along an axis, in every line of it its own places.

Indices are checked, and negative ones count from the end, as in `gather.py`. Where an index comes twice, what comes
later along the axis is added later, or stays: results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.errors import shape_text
from gluonish.nd.op import BOOL, INDEX, Op, Sample, Spec, refuse, register
from gluonish.nd.ops.create import arange_op, full_op
from gluonish.nd.ops.elementwise import equal, where
from gluonish.nd.ops.gather import check_indices, require_integers
from gluonish.nd.ops.move import broadcast_op, reshape_op
from gluonish.nd.size import SizeLike


def _fits(name: str, x: Any, indices: Any, axis: int, values: Any = None) -> None:
    require_integers(name, indices)
    same = [len(x.shape) == len(indices.shape), 0 <= axis < len(x.shape)]
    if not all(same) or any(a != b for i, (a, b) in enumerate(zip(x.shape, indices.shape)) if i != axis):
        raise refuse(name, f"indices must have the shape of x but along axis {axis}", x, indices)
    if values is not None:
        _alike(name, values, indices)


def _alike(name: str, values: Any, indices: Any) -> None:
    if len(values.shape) != len(indices.shape) or any(a != b for a, b in zip(values.shape, indices.shape)):
        raise refuse(name, f"values must have the indices' shape {shape_text(indices.shape)}", values, indices)


def _take_rule(x: Spec, indices: Spec, axis: int) -> Spec:
    _fits("take_along_axis", x, indices, axis)
    return Spec(indices.shape, x.dtype)


def _take_forward(x: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    _fits("take_along_axis", x, indices, axis)
    check_indices("take_along_axis", indices, x.shape[axis])
    return np.take_along_axis(x, indices.astype(np.int64, copy=False), axis)


def _draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


take_along_axis_op: Op = register(
    Op(
        "take_along_axis",
        "gather",
        _take_forward,
        _take_rule,
        (lambda g, y, x, indices, axis: add_along_axis_op(g, indices, axis=axis, size=x.shape[axis]), None),
        promote=False,
        doc="Along the axis, the element at each index: x[i, indices[i, j]] for two dimensions and axis 1.",
        sample=lambda rng: [
            Sample((_draw(rng, 3, 5), rng.integers(-5, 5, (3, 4))), {"axis": 1}),
            Sample((_draw(rng, 4, 3, 2), rng.integers(0, 4, (6, 3, 2)).astype(np.int32)), {"axis": 0}),
        ],
    )
)


# --- adding ----------------------------------------------------------------------------------------------------------
def _add_rule(values: Spec, indices: Spec, axis: int, size: SizeLike) -> Spec:
    require_integers("add_along_axis", indices)
    _alike("add_along_axis", values, indices)
    if values.dtype == BOOL:
        raise refuse("add_along_axis", "bools do not add up", values)
    return Spec((*values.shape[:axis], size, *values.shape[axis + 1 :]), values.dtype)


def _add_forward(values: np.ndarray, indices: np.ndarray, axis: int, size: int) -> np.ndarray:
    _add_rule(values, indices, axis, size)  # type: ignore[arg-type]  # arrays have all that a Spec has
    check_indices("add_along_axis", indices, size)
    out = np.zeros((*values.shape[:axis], size, *values.shape[axis + 1 :]), values.dtype)
    np.add.at(out, _grid(indices, axis), values)
    return out


def _grid(indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """NumPy's key for one element of each index."""
    key: list[np.ndarray] = list(np.indices(indices.shape, sparse=True))
    key[axis] = indices.astype(np.int64, copy=False)
    return tuple(key)


add_along_axis_op: Op = register(
    Op(
        "add_along_axis",
        "scatter",
        _add_forward,
        _add_rule,
        (lambda g, y, values, indices, axis, size: take_along_axis_op(g, indices, axis=axis), None),
        promote=False,
        doc="Zeros of `size` along the axis, each value added at its index: the gradient of `take_along_axis`.",
        sample=lambda rng: [
            Sample((_draw(rng, 3, 4), rng.integers(-5, 5, (3, 4))), {"axis": 1, "size": 5}),
            Sample((_draw(rng, 6, 3, 2), rng.integers(0, 4, (6, 3, 2)).astype(np.int32)), {"axis": 0, "size": 4}),
        ],
    )
)


# --- replacing -------------------------------------------------------------------------------------------------------
def _put_rule(x: Spec, indices: Spec, values: Spec, axis: int) -> Spec:
    _fits("put_along_axis", x, indices, axis, values)
    if x.dtype != values.dtype:
        raise refuse("put_along_axis", "x and values must have one dtype", x, values)
    return Spec(x.shape, x.dtype)


def _put_forward(x: np.ndarray, indices: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    _put_rule(x, indices, values, axis)  # type: ignore[arg-type]
    check_indices("put_along_axis", indices, x.shape[axis])
    out = np.array(x, order="C")
    lines, places, given = (np.moveaxis(z, axis, 0) for z in (out, indices.astype(np.int64), values))
    for place, value in zip(places, given):  # one after the other: NumPy leaves open which of two writes stays
        np.put_along_axis(lines, place[None], value[None], 0)
    return out


def _put_vjp(position: int, g: Any, y: Any, x: Any, indices: Any, values: Any, axis: int) -> Any:
    if position == 0:
        return put_along_axis_op(g, indices, full_op(shape=values.shape, value=0, dtype=values.dtype), axis=axis)
    if position == 1:
        return None
    count = indices.shape[axis]  # of several writes to one place, only the last counts
    shape = tuple(count if i == axis else 1 for i in range(len(indices.shape)))
    order = reshape_op(arange_op(count=count, start=0, step=1, dtype=INDEX), shape=shape)
    order = broadcast_op(order, shape=indices.shape)
    nobody = full_op(shape=x.shape, value=0, dtype=INDEX)
    last = take_along_axis_op(put_along_axis_op(nobody, indices, order, axis=axis), indices, axis=axis)
    return where(equal(last, order), take_along_axis_op(g, indices, axis=axis), 0)


put_along_axis_op: Op = register(
    Op(
        "put_along_axis",
        "scatter",
        _put_forward,
        _put_rule,
        _put_vjp,
        promote=False,
        doc="x with the elements at the indices along the axis replaced by values; of several for one place, the last.",
        sample=lambda rng: [
            Sample((_draw(rng, 3, 5), rng.integers(-5, 5, (3, 4)), _draw(rng, 3, 4)), {"axis": 1}),
            Sample((_draw(rng, 4, 3), rng.integers(0, 4, (6, 3)).astype(np.int32), _draw(rng, 6, 3)), {"axis": 0}),
        ],
    )
)
