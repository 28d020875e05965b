"""Sort ops: orders along the last axis. All are stable: equal elements keep the order they have.

NaN counts as larger than every number (NumPy's order), so it comes last, and first where the order is descending. All
NaNs are equal, and so are 0 and -0, but for `sort`, which puts -0 before 0 where a kernel does it. Deliberately not
here: other axes (`nd/sequences.py`), and anything whose result's shape depends on values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.op import INDEX, Op, Sample, Spec, refuse, register
from gluonish.nd.ops.along import add_along_axis_op


def _descending_order(x: np.ndarray) -> np.ndarray:
    """The stable order from the largest to the smallest along the last axis."""
    # what is last among equals comes first in the reversed array, so its ascending order read backwards is stable
    size = x.shape[-1]
    return size - 1 - np.argsort(x[..., ::-1], -1, kind="stable")[..., ::-1]


def _order(x: np.ndarray, descending: bool) -> np.ndarray:
    return _descending_order(x) if descending else np.argsort(x, -1, kind="stable")


def _line_rule(name: str, x: Any) -> None:
    if not x.shape:
        raise refuse(name, "needs at least one dimension", x)


def _sort_rule(x: Spec, descending: bool) -> Spec:
    _line_rule("sort", x)
    return Spec(x.shape, x.dtype)


def _argsort_rule(x: Spec, descending: bool) -> Spec:
    _line_rule("argsort", x)
    return Spec(x.shape, INDEX)


def _sort_forward(x: np.ndarray, descending: bool) -> np.ndarray:
    _sort_rule(x, descending)  # type: ignore[arg-type]  # arrays have all that a Spec has
    return np.take_along_axis(x, _descending_order(x), -1) if descending else np.sort(x, -1, kind="stable")


def _argsort_forward(x: np.ndarray, descending: bool) -> np.ndarray:
    _argsort_rule(x, descending)  # type: ignore[arg-type]
    return _order(x, descending).astype(np.int64, copy=False)


def _lines(rng: np.random.Generator) -> list[np.ndarray]:
    x = rng.standard_normal((3, 2, 7)).astype(np.float32)
    return [x, rng.permutation(150).reshape(2, 75).astype(np.float32)]


def _sample(rng: np.random.Generator) -> list[Sample]:
    return [Sample((x,), {"descending": bool(i)}) for i, x in enumerate(_lines(rng))]


sort_op = register(
    Op(
        "sort",
        "sort",
        _sort_forward,
        _sort_rule,
        (
            lambda g, y, x, descending: add_along_axis_op(
                g, argsort_op(x, descending=descending), axis=len(x.shape) - 1, size=x.shape[-1]
            ),
        ),
        doc="The elements along the last axis in order; NaN counts as the largest.",
        sample=_sample,
    )
)
argsort_op: Op = register(
    Op(
        "argsort",
        "sort",
        _argsort_forward,
        _argsort_rule,
        doc="The places of the elements in the order of `sort`; of equal ones, the first comes first. int64.",
        sample=_sample,
        smooth=False,
    )
)


# --- the k first -----------------------------------------------------------------------------------------------------
def _top_rule(x: Spec, k: int, largest: bool) -> Spec:
    _line_rule("topk", x)
    if k < 0 or k > x.shape[-1]:
        raise refuse("topk", f"there are no {k} elements along the axis", x)
    return Spec((*x.shape[:-1], k), INDEX)


def _top_forward(x: np.ndarray, k: int, largest: bool) -> np.ndarray:
    _top_rule(x, k, largest)  # type: ignore[arg-type]
    return np.ascontiguousarray(_order(x, largest)[..., :k]).astype(np.int64, copy=False)


argtopk_op = register(
    Op(
        "argtopk",
        "sort",
        _top_forward,
        _top_rule,
        doc="The places of the k largest (or smallest) elements along the last axis, in their order; int64.",
        sample=lambda rng: [
            Sample((x,), {"k": k, "largest": largest})
            for x, k, largest in zip(_lines(rng) * 2, (3, 60, 7, 2), (True, True, False, False))
        ],
        smooth=False,
    )
)


# --- searching -------------------------------------------------------------------------------------------------------
def _search_rule(x: Spec, values: Spec, right: bool) -> Spec:
    if len(x.shape) != 1 or x.dtype != values.dtype:
        raise refuse("searchsorted", "x must have one dimension, and x and values one dtype", x, values)
    return Spec(values.shape, INDEX)


def _search_forward(x: np.ndarray, values: np.ndarray, right: bool) -> np.ndarray:
    _search_rule(x, values, right)  # type: ignore[arg-type]
    return np.asarray(np.searchsorted(x, values, "right" if right else "left"), np.int64)


searchsorted_op = register(
    Op(
        "searchsorted",
        "sort",
        _search_forward,
        _search_rule,
        doc="Where each value would be put into the sorted x: before its equals, or after them (`right`); int64.",
        sample=lambda rng: [
            Sample(
                # equal numbers: sorted also where the laws repeat them
                (np.full(9, 0.25, np.float32), rng.standard_normal((2, 5)).astype(np.float32)),
                {"right": right},
            )
            for right in (False, True)
        ],
        smooth=False,
    )
)
