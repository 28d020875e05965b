"""Writing rows in the middle of an array, as a cache of keys and values grows.

An op has a value, not an effect: here the result is the array with other rows. Compiled programs write them into the
memory that the array has wherever nobody needs its old rows, and move nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.op import INDEX, Op, Sample, Spec, refuse, register
from gluonish.nd.ops.create import arange_op, full_op
from gluonish.nd.ops.gather import out_of_range, take_op
from gluonish.nd.ops.move import reshape_op


def _rule(x: Spec, start: Spec, values: Spec) -> Spec:
    rank = len(x.shape)
    if rank < 2 or len(values.shape) != rank or values.dtype != x.dtype:
        raise refuse("set_rows", "x and values need the same dtype and number of dimensions, at least 2", x, values)
    if any(a != b for i, (a, b) in enumerate(zip(x.shape, values.shape)) if i != rank - 2):
        raise refuse("set_rows", "x and values may differ in their number of rows only", x, values)
    if start.dtype != INDEX or start.shape != (1,):
        raise refuse("set_rows", "start must be one int64, of shape (1,)", start)
    return x


def _checked(x: np.ndarray, start: np.ndarray, values: np.ndarray) -> int:
    """The first row."""
    _rule(x, start, values)  # type: ignore[arg-type]  # arrays have all that a Spec has
    first, count, rows = int(start[0]), values.shape[-2], x.shape[-2]
    if first < 0 or first + count > rows:
        raise out_of_range("set_rows", (0,), first if first < 0 else first + count - 1, rows)
    return first


def _forward(x: np.ndarray, start: np.ndarray, values: np.ndarray) -> np.ndarray:
    first = _checked(x, start, values)
    out = x.copy()
    out[..., first : first + values.shape[-2], :] = values
    return out


def _vjp(position: int, g: Any, y: Any, x: Any, start: Any, values: Any) -> Any:
    if position == 1:
        return None
    if position == 0:
        return set_rows_op(g, start, full_op(shape=tuple(values.shape), value=0.0, dtype=values.dtype))
    places = start + arange_op(count=values.shape[-2], start=0, step=1, dtype=INDEX)
    return take_op(g, places, axis=len(values.shape) - 2)


def _sample(rng: np.random.Generator) -> list[Sample]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        Sample((draw(2, 3, 6, 4), np.array([2]), draw(2, 3, 3, 4))),
        Sample((draw(5, 3), np.array([4]), draw(1, 3))),
        Sample((draw(2, 4, 3), np.array([0]), draw(2, 4, 3))),
    ]


set_rows_op: Op = register(
    Op(
        "set_rows",
        "scatter",
        _forward,
        _rule,
        _vjp,
        promote=False,
        doc="x with the rows from `start` on replaced by `values`; rows are the last dimension but one. Raises: "
        "IndexError where there are no such rows.",
        sample=_sample,
    )
)


def write_rows(x: Any, start: Any, values: Any) -> None:
    """Puts `values` into x, in place, from row `start` on; rows are the last dimension but one.

    start: one integer, as an array or a number; an array lets a compiled function take any number without a new trace.
    Compiled, only these rows are moved if x is an argument or an array of the function's surroundings.

    Shapes: x (..., S, D), values (..., T, D).

    >>> from gluonish import nd
    >>> x = nd.zeros((3, 2)); nd.write_rows(x, nd.array([1]), nd.ones((1, 2))); x.tolist()
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]

    Raises: IndexError for rows that do not exist, ValueError for shapes that do not fit and for arrays on the tape.
    """
    x, start, values = (dispatch.as_array(v) for v in (x, start, values))
    start = reshape_op(start.astype(INDEX), shape=(1,))
    if dispatch.state.trace is not None:
        x[:] = set_rows_op(x, start, values)
        return
    first = _checked(x._data, start._data, values._data)
    x[..., first : first + values.shape[-2], :] = values
