"""Gather and scatter ops: elements chosen by an array of indices.

Every index is checked: one that is out of range raises an IndexError naming the op, the position and the value.
Negative indices count from the end. Scatters add in index order, so they are deterministic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import BOOL, INDEX, Op, Sample, Shape, Spec, refuse, register
from gluonish.nd.ops.create import arange_op, full_op
from gluonish.nd.ops.elementwise import equal, where
from gluonish.nd.ops.move import reshape_op
from gluonish.nd.size import SizeLike, product


def check_indices(name: str, indices: np.ndarray, size: int) -> None:
    """Raises IndexError for the first index outside [-size, size)."""
    bad = (indices < -size) | (indices >= size)
    if bad.any():
        place = np.unravel_index(int(np.argmax(bad)), indices.shape)
        raise out_of_range(name, tuple(int(i) for i in place), int(indices[place]), size)


FAR = 1 << 62  # taken from negative indices where they do not count from the end: every lookup refuses the rest


def out_of_range(name: str, place: tuple[int, ...], value: int, size: int, line: str = "") -> IndexError:
    """The error for one bad index, at the user's line (that of a traced op is not the present one)."""
    where = place[0] if len(place) == 1 else place
    line = line or user_line()
    value += FAR if value < -FAR // 2 else 0  # the index as it was asked for
    return IndexError(f"{name}: index {value} at position {where} is out of range for size {size} ({line})")


def require_integers(name: str, indices: Any) -> None:
    """Raises TypeError for indices that are not integers."""
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: indices must be integers, got {indices.dtype} ({user_line()})")


def _take_forward(x: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    require_integers("take", indices)
    check_indices("take", indices, x.shape[axis])
    return np.take(x, indices.astype(np.int64, copy=False), axis)


def _take_rule(x: Spec, indices: Spec, axis: int) -> Spec:
    require_integers("take", indices)
    return Spec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)


def _index_add_rule(values: Spec, indices: Spec, shape: Shape, axis: int) -> Spec:
    require_integers("index_add", indices)
    if values.dtype == BOOL:
        raise refuse("index_add", "bools do not add up", values)
    wanted = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    if len(wanted) != len(values.shape) or any(a != b for a, b in zip(wanted, values.shape)):
        raise refuse("index_add", f"values must have shape {shape_text(wanted)}", values, indices)
    return Spec(shape, values.dtype)


def _index_add_forward(values: np.ndarray, indices: np.ndarray, shape: Any, axis: int) -> np.ndarray:
    _index_add_rule(values, indices, shape, axis)  # type: ignore[arg-type]  # arrays have all that a Spec has
    check_indices("index_add", indices, shape[axis])
    out = np.zeros(shape, values.dtype)
    flat = np.moveaxis(values.reshape(*shape[:axis], indices.size, *shape[axis + 1 :]), axis, 0)
    np.add.at(np.moveaxis(out, axis, 0), indices.astype(np.int64).ravel(), flat)
    return out


def _take_sample(rng: np.random.Generator) -> list[Sample]:
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)
    return [
        Sample((x, np.array([0, 2, 2, -1])), {"axis": 0}),
        Sample((x, np.array([[3, 0], [1, 1]], np.int32)), {"axis": 1}),
    ]


take_op = register(
    Op(
        "take",
        "gather",
        _take_forward,
        _take_rule,
        (lambda g, y, x, indices, axis: index_add_op(g, indices, shape=x.shape, axis=axis), None),
        promote=False,
        doc="Slices of x along `axis`, one per index. Raises: IndexError for an index out of range.",
        sample=_take_sample,
    )
)
index_add_op: Op = register(
    Op(
        "index_add",
        "scatter",
        _index_add_forward,
        _index_add_rule,
        (lambda g, y, values, indices, shape, axis: take_op(g, indices, axis=axis), None),
        promote=False,
        doc="Zeros with each slice of `values` added at its index along `axis`: the gradient of `take`.",
        sample=lambda rng: [
            Sample(
                (rng.standard_normal((4, 3)).astype(np.float32), np.array([1, 0, 1, -1])), {"shape": (6, 3), "axis": 0}
            ),
            Sample(
                (rng.standard_normal((2, 3, 2)).astype(np.float32), np.array([1, 4, 1])),
                {"shape": (2, 6, 2), "axis": 1},
            ),
        ],
    )
)


def _pick_rule(x: Spec, indices: Spec) -> Spec:
    require_integers("pick", indices)
    if x.shape[:-1] != indices.shape:
        raise refuse("pick", "indices must have the shape of x without its last dimension", x, indices)
    return Spec(x.shape[:-1], x.dtype)  # a fused kernel must see that these are the rows of x


def _pick_forward(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    _pick_rule(x, indices)  # type: ignore[arg-type]
    check_indices("pick", indices, x.shape[-1])
    return np.take_along_axis(x, indices[..., None].astype(np.int64), -1)[..., 0]


def _unpick_rule(g: Spec, indices: Spec, size: SizeLike) -> Spec:
    require_integers("unpick", indices)
    if len(g.shape) != len(indices.shape) or any(a != b for a, b in zip(g.shape, indices.shape)):
        raise refuse("unpick", "values and indices must have the same shape", g, indices)
    return Spec((*g.shape, size), g.dtype)


def _unpick_forward(g: np.ndarray, indices: np.ndarray, size: int) -> np.ndarray:
    _unpick_rule(g, indices, size)  # type: ignore[arg-type]
    check_indices("unpick", indices, size)
    out = np.zeros((*indices.shape, size), g.dtype)
    np.put_along_axis(out, indices[..., None].astype(np.int64), g[..., None], -1)
    return out


pick_op = register(
    Op(
        "pick",
        "gather",
        _pick_forward,
        _pick_rule,
        (lambda g, y, x, indices: unpick_op(g, indices, size=x.shape[-1]), None),
        promote=False,
        doc="One element of the last axis per row: x[..., indices[...]]. Raises: IndexError for an index out of range.",
        sample=lambda rng: [
            Sample((rng.standard_normal((4, 5)).astype(np.float32), np.array([0, 4, -1, 2]))),
            Sample((rng.standard_normal((2, 3, 7)).astype(np.float32), rng.integers(0, 7, (2, 3)).astype(np.int32))),
        ],
    )
)
unpick_op: Op = register(
    Op(
        "unpick",
        "scatter",
        _unpick_forward,
        _unpick_rule,
        (lambda g, y, values, indices, size: pick_op(g, indices), None),
        promote=False,
        doc="Rows of zeros with one value each, at the index of the row: the gradient of `pick`.",
        sample=lambda rng: [
            Sample((rng.standard_normal((4,)).astype(np.float32), np.array([0, 4, -1, 2])), {"size": 5}),
        ],
    )
)


# --- replacing and adding to slices ----------------------------------------------------------------------------------
def _slices_rule(name: str) -> Any:
    def rule(x: Spec, indices: Spec, values: Spec, axis: int) -> Spec:
        require_integers(name, indices)
        if x.dtype != values.dtype or (x.dtype == BOOL and name == "index_add_to"):
            raise refuse(name, "x and values must have one dtype, and bools do not add up", x, values)
        wanted = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        if (
            axis >= len(x.shape)
            or len(wanted) != len(values.shape)
            or any(a != b for a, b in zip(wanted, values.shape))
        ):
            raise refuse(name, f"values must have shape {shape_text(wanted)}", x, indices, values)
        return Spec(x.shape, x.dtype)

    return rule


_add_to_rule, _update_rule = _slices_rule("index_add_to"), _slices_rule("index_update")


def _lined_up(x: np.ndarray, indices: np.ndarray, values: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """A copy of x, the flat indices, and the values one for each index; the axis first."""
    out = np.array(x, order="C")
    flat = values.reshape(*x.shape[:axis], indices.size, *x.shape[axis + 1 :])
    return out, np.moveaxis(out, axis, 0), indices.astype(np.int64).ravel(), np.moveaxis(flat, axis, 0)


def _add_to_forward(x: np.ndarray, indices: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    _add_to_rule(x, indices, values, axis)
    check_indices("index_add_to", indices, x.shape[axis])
    out, lines, places, given = _lined_up(x, indices, values, axis)
    np.add.at(lines, places, given)
    return out


def _update_forward(x: np.ndarray, indices: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    _update_rule(x, indices, values, axis)
    check_indices("index_update", indices, x.shape[axis])
    out, lines, places, given = _lined_up(x, indices, values, axis)
    places = np.where(places < 0, places + x.shape[axis], places)
    last = np.full(x.shape[axis], -1)
    np.maximum.at(last, places, np.arange(len(places)))  # NumPy leaves open which of two writes stays
    written = np.flatnonzero(last >= 0)
    lines[written] = given[last[written]]
    return out


def _update_vjp(position: int, g: Any, y: Any, x: Any, indices: Any, values: Any, axis: int) -> Any:
    if position == 1:
        return None
    if position == 0:
        return index_update_op(g, indices, full_op(shape=values.shape, value=0, dtype=values.dtype), axis=axis)
    # of several writes to one place, only the last counts
    order = reshape_op(arange_op(count=product(indices.shape), start=0, step=1, dtype=INDEX), shape=indices.shape)
    writer = index_update_op(full_op(shape=(x.shape[axis],), value=0, dtype=INDEX), indices, order, axis=0)
    last = equal(take_op(writer, indices, axis=0), order)
    rank = len(indices.shape)
    lined = (*(1,) * axis, *indices.shape, *(1,) * (len(values.shape) - axis - rank))
    return where(reshape_op(last, shape=lined), take_op(g, indices, axis=axis), 0)


def _slices_sample(rng: np.random.Generator) -> list[Sample]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        Sample((draw(6, 3), np.array([1, 0, 1, -1]), draw(4, 3)), {"axis": 0}),
        Sample((draw(2, 6, 2), np.array([[1, 4, 1]], np.int32), draw(2, 1, 3, 2)), {"axis": 1}),
    ]


index_add_to_op: Op = register(
    Op(
        "index_add_to",
        "scatter",
        _add_to_forward,
        _add_to_rule,
        (
            lambda g, y, x, indices, values, axis: g,
            None,
            lambda g, y, x, indices, values, axis: take_op(g, indices, axis=axis),
        ),
        promote=False,
        doc="x with each slice of `values` added at its index along `axis`. Raises: IndexError for one out of range.",
        sample=_slices_sample,
    )
)
index_update_op: Op = register(
    Op(
        "index_update",
        "scatter",
        _update_forward,
        _update_rule,
        _update_vjp,
        promote=False,
        doc="x with the slices at the indices along `axis` replaced by `values`; of several for one place, the last.",
        sample=_slices_sample,
    )
)


# --- checking --------------------------------------------------------------------------------------------------------
def _checked_forward(indices: np.ndarray, size: int, what: str = "indexing") -> np.ndarray:
    require_integers(what, indices)
    check_indices(what, indices, size)
    wide = indices.astype(np.int64)
    return np.where(wide < 0, wide + size, wide)


def _checked_rule(indices: Spec, size: SizeLike, what: str = "indexing") -> Spec:
    require_integers(what, indices)
    return Spec(indices.shape, INDEX)


checked_index_op = register(
    Op(
        "indexing",
        "gather",
        _checked_forward,
        _checked_rule,
        promote=False,
        doc="Indices counted from the start, int64. what: who asks. Raises: IndexError for one outside [-size, size).",
        sample=lambda rng: [
            Sample((rng.integers(-5, 5, (3, 4)),), {"size": 5}),
            Sample((np.array([0, 4, -1], np.int8),), {"size": 5}),
        ],
        smooth=False,
    )
)
