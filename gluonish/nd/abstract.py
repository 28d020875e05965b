"""Arrays that have shapes and no values, and the trace that computes with them: op rules alone.

Deliberately not here: Parameters whose shapes are not known yet (`block/abstract.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import EachRun
from gluonish.nd.errors import user_line
from gluonish.nd.op import Op


class Abstract:
    """Stands for the data of an array of which only shape and dtype are known."""

    __slots__ = ("shape", "dtype")

    def __init__(self, shape: tuple[Any, ...], dtype: np.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    def no_value(self, asked: str) -> TypeError:
        """The error for code that wants values."""
        return TypeError(f"{asked} needs the values of an array, but infer_shape computes shapes only ({user_line()})")


class AbstractTrace:
    """A trace that only applies shape rules. `blocks`: how many random blocks it was asked for."""

    def __init__(self) -> None:
        self.blocks: Any = 0
        self.owner: Any = None
        self.cause: Any = None
        self.wanted: dict[int, list[Any]] = {}
        self.computes = False

    def bind(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> NDArray:
        """An array of the shape that the op's rule gives."""
        spec = op.rule(*[x.spec if isinstance(x, NDArray) else x for x in inputs], **attrs)
        return NDArray(self.data(*spec))

    def data(self, shape: Any, dtype: np.dtype) -> Abstract:
        """The data of such an array."""
        return Abstract(tuple(shape or ()), dtype)

    def capture(self, array: NDArray) -> NDArray:
        """Arrays stay what they are."""
        return array

    def gradient(self, array: NDArray) -> NDArray | None:
        """An array of the same shape."""
        return NDArray(self.data(array.shape, array.dtype)) if array._grad is not None else None

    def given(self, array: NDArray) -> bool:
        """No backward gives values here."""
        return False

    def at_each_run(self, work: EachRun) -> None:
        """There are no runs."""

    def refuse_change(self, array: NDArray, what: str) -> None:
        """Nothing changes here."""

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """Nothing changes values here."""

    def before_backward(self, heads: list[NDArray]) -> None:
        """Nothing: the tape stays as it is."""

    def note_values(self, array: NDArray) -> None:
        """Values are read at once; nothing relies on them later."""

    def print_later(self, values: tuple[Any, ...], options: dict[str, Any]) -> None:
        """There is nothing to print."""

    def random_key(self, blocks: Any) -> NDArray:
        """A key that draws nothing."""
        self.blocks = self.blocks + blocks
        return NDArray(self.data((2,), np.dtype("int64")))

    def loop(
        self,
        step: Callable[..., Any],
        data: Sequence[NDArray],
        states: Sequence[NDArray],
        length: Any,
        while_true: bool,
    ) -> tuple[list[NDArray], list[NDArray]]:
        """The shapes of one step, and a first dimension for its outputs."""
        outs, new = step([NDArray(self.data(d.shape[1:], d.dtype)) for d in data], list(states))
        return [NDArray(self.data((length, *o.shape), o.dtype)) for o in outs], new

    def branch(self, predicate: NDArray, choices: Sequence[Callable[[], list[NDArray]]]) -> list[NDArray]:
        """The shapes of the first choice; the others must have the same."""
        return [choice() for choice in choices][0]
