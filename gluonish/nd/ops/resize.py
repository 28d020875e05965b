"""Resizing along one axis: each output is the nearest input, or a mean of two neighbours weighted by distance.

Positions are counted in whole numbers, so that eager mode and kernels agree to the last bit on which input is meant.
Element j of an output of size m lies at top / bottom in the input of size n:

    aligned (corners to corners)    j (n - 1)               / (m - 1)
    half_pixel (centres)            ((2 j + 1) n - m)       / (2 m)      linear; clipped at 0
                                    (2 j + 1) n             / (2 m)      nearest, rounded down
    edge                            j n                     / m          nearest, rounded down

Spreading is the transpose of resizing: they are each other's gradients.

Deliberately not here: several axes (`nd/images.py` goes one by one), cubic curves, areas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.dtypes import is_float
from gluonish.nd.op import Op, Sample, Spec, refuse, register
from gluonish.nd.size import SizeLike

GRIDS = ("aligned", "half_pixel", "edge")


def steps(size: SizeLike, out: SizeLike, linear: bool, grid: str) -> tuple[SizeLike, SizeLike, SizeLike]:
    """start, step and bottom: output j lies at (start + step j) / bottom."""
    if grid == "aligned":
        return 0, size - 1, out - 1
    if grid == "half_pixel":
        return (size - out if linear else size), 2 * size, 2 * out
    return 0, size, out


def _places(size: int, out: int, linear: bool, grid: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output the two inputs and the weight of the second."""
    start, step, bottom = steps(size, out, linear, grid)
    top = np.maximum(start + step * np.arange(out), 0)
    bottom = max(int(bottom), 1)
    first = np.minimum(top // bottom, size - 1)
    weight = (top % bottom) / bottom if linear else np.zeros(out)
    return first, np.minimum(first + 1, size - 1), weight


def _columns(weight: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    shape = [1] * x.ndim
    shape[axis] = -1
    return weight.astype(x.dtype).reshape(shape)


def _rule(x: Any, axis: int, size: SizeLike, linear: bool, grid: str) -> Spec:
    if linear and not is_float(x.dtype):
        raise refuse("resize", "only floats can be interpolated; use mode='nearest' or astype", x)
    if size < 1 or x.shape[axis] < 1:
        raise refuse("resize", f"no axis of size {x.shape[axis]} can become one of size {size}", x)
    return Spec((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)


def _forward(x: np.ndarray, axis: int, size: int, linear: bool, grid: str) -> np.ndarray:
    _rule(x, axis, size, linear, grid)
    first, second, weight = _places(x.shape[axis], int(size), linear, grid)
    low = np.take(x, first, axis)
    if not linear:
        return low
    share = _columns(weight, x, axis)
    with np.errstate(all="ignore"):
        # an input of weight 0 says nothing, be it NaN
        return np.where(share == 0, low, low * (1 - share) + np.take(x, second, axis) * share).astype(x.dtype)


def _spread_rule(g: Any, axis: int, size: SizeLike, linear: bool, grid: str) -> Spec:
    if not is_float(g.dtype):
        raise refuse("resize_spread", "only floats have gradients", g)
    if size < 1 or g.shape[axis] < 1:
        raise refuse("resize_spread", f"no axis of size {size} can become one of size {g.shape[axis]}", g)
    return Spec((*g.shape[:axis], size, *g.shape[axis + 1 :]), g.dtype)


def _spread_forward(g: np.ndarray, axis: int, size: int, linear: bool, grid: str) -> np.ndarray:
    _spread_rule(g, axis, size, linear, grid)
    first, second, weight = _places(int(size), g.shape[axis], linear, grid)
    out = np.zeros((*g.shape[:axis], int(size), *g.shape[axis + 1 :]), g.dtype)
    moved, source = np.moveaxis(out, axis, 0), np.moveaxis(g, axis, 0)
    for j in range(g.shape[axis]):
        if weight[j] == 0:
            moved[first[j]] += source[j]
        else:
            share = weight[j].astype(g.dtype)
            moved[first[j]] += source[j] * (1 - share)
            moved[second[j]] += source[j] * share
    return out


def _sample(rng: np.random.Generator) -> list[Sample]:
    cases = [
        ((2, 5, 3), 1, 8, True, "half_pixel"),
        ((4, 6), 1, 4, True, "aligned"),
        ((3, 4, 2), 0, 7, False, "edge"),
        ((2, 7), 1, 3, False, "half_pixel"),
        ((1, 1, 3), 1, 4, True, "half_pixel"),
        ((0, 4), 1, 2, True, "edge"),
    ]
    return [
        Sample((rng.standard_normal(s).astype("f4"),), {"axis": a, "size": n, "linear": linear, "grid": grid})
        for s, a, n, linear, grid in cases
    ]


resize_op: Op = register(
    Op(
        "resize",
        "window",
        _forward,
        _rule,
        (lambda g, y, x, axis, size, **how: resize_spread_op(g, axis=axis, size=x.shape[axis], **how),),
        doc="One axis in another size, by the nearest element or between two.",
        sample=_sample,
    )
)
resize_spread_op: Op = register(
    Op(
        "resize_spread",
        "window",
        _spread_forward,
        _spread_rule,
        (lambda h, z, g, axis, size, **how: resize_op(h, axis=axis, size=g.shape[axis], **how),),
        doc="The transpose of resize: each element is given to those of the axis of `size` that resize makes it of.",
        sample=_sample,
    )
)
