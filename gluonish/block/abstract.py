"""Running a function on arrays that have shapes and no values: how shapes are inferred without computing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gluonish.nd import NDArray
from gluonish.nd.dispatch import EachRun, state
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
    """A trace that only applies shape rules."""

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

    def note_values(self, array: NDArray) -> None:
        """Values are read at once; nothing relies on them later."""

    def random_key(self, blocks: Any) -> NDArray:
        """A key that draws nothing."""
        return NDArray(self.data((2,), np.dtype("int64")))


def stand_in(array: Any) -> Any:
    """An array of the same shape and dtype without values; a tuple of ints is taken as a float32 shape."""
    if isinstance(array, NDArray):
        return NDArray(Abstract(array.shape, array.dtype))
    if isinstance(array, tuple) and all(isinstance(s, int) for s in array):
        return NDArray(Abstract(array, np.dtype("float32")))
    return array


@contextmanager
def abstract_run() -> Iterator[None]:
    """Within it ops apply shape rules instead of computing."""
    before = state.trace, state.recording
    state.trace, state.recording = AbstractTrace(), False
    try:
        yield
    finally:
        state.trace, state.recording = before


@contextmanager
def outside_of_traces() -> Iterator[None]:
    """Within it ops compute, whatever trace or tape is under way around it."""
    before = state.trace, state.recording
    state.trace, state.recording = None, False
    try:
        yield
    finally:
        state.trace, state.recording = before
