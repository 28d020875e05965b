"""Gather and scatter ops: elements chosen by an array of indices.

Every index is checked: one that is out of range raises an IndexError naming the op, the position and the value.
Negative indices count from the end. Scatters add in index order, so they are deterministic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import BOOL, Op, Sample, Shape, Spec, refuse, register
from gluonish.nd.size import SizeLike


def check_indices(name: str, indices: np.ndarray, size: int) -> None:
    """Raises IndexError for the first index outside [-size, size)."""
    bad = (indices < -size) | (indices >= size)
    if bad.any():
        place = np.unravel_index(int(np.argmax(bad)), indices.shape)
        raise out_of_range(name, tuple(int(i) for i in place), int(indices[place]), size)


def out_of_range(name: str, place: tuple[int, ...], value: int, size: int, line: str = "") -> IndexError:
    """The error for one bad index, at the user's line (that of a traced op is not the present one)."""
    where = place[0] if len(place) == 1 else place
    line = line or user_line()
    return IndexError(f"{name}: index {value} at position {where} is out of range for size {size} ({line})")


def _integers(name: str, *specs: Any) -> None:
    if specs[1].dtype.kind not in "iu":
        raise TypeError(f"{name}: indices must be integers, got {specs[1].dtype} ({user_line()})")


def _take_forward(x: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    _integers("take", x, indices)
    check_indices("take", indices, x.shape[axis])
    return np.take(x, indices.astype(np.int64, copy=False), axis)


def _take_rule(x: Spec, indices: Spec, axis: int) -> Spec:
    _integers("take", x, indices)
    return Spec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)


def _index_add_rule(values: Spec, indices: Spec, shape: Shape, axis: int) -> Spec:
    _integers("index_add", values, indices)
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
    _integers("pick", x, indices)
    if x.shape[:-1] != indices.shape:
        raise refuse("pick", "indices must have the shape of x without its last dimension", x, indices)
    return Spec(indices.shape, x.dtype)


def _pick_forward(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    _pick_rule(x, indices)  # type: ignore[arg-type]
    check_indices("pick", indices, x.shape[-1])
    return np.take_along_axis(x, indices[..., None].astype(np.int64), -1)[..., 0]


def _unpick_rule(g: Spec, indices: Spec, size: SizeLike) -> Spec:
    _integers("unpick", g, indices)
    if len(g.shape) != len(indices.shape) or any(a != b for a, b in zip(g.shape, indices.shape)):
        raise refuse("unpick", "values and indices must have the same shape", g, indices)
    return Spec((*indices.shape, size), g.dtype)


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
