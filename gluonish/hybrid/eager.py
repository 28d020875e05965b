"""Eager runs of functions that are compiled otherwise: with everything below them eager too, and a log where wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.nd import dispatch, random
from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import EachRun, state
from gluonish.nd.errors import user_line
from gluonish.nd.op import Op
from gluonish.nd.tree import unflatten

if TYPE_CHECKING:
    from gluonish.hybrid.variant import Variant


def eager_call(variant: Variant, arrays: Sequence[NDArray], silent: bool = False, log: EagerLog | None = None) -> Any:
    """A call of a variant's function, op by op. silent: `gl.print` prints nothing. log: notes all ops."""
    args, kwargs = unflatten(variant.mode[0], iter(arrays))
    before = state.eager, state.silent, state.trace
    state.eager, state.silent = True, silent or state.silent
    if log is not None:
        state.trace = log
    try:
        return variant.owner.function(*args, **kwargs)
    finally:
        state.eager, state.silent, state.trace = before


class EagerLog:
    """Where a trace would be: computes each op at once and, with `keep`, notes it, its result and the user's line."""

    def __init__(self, keep: bool = True) -> None:
        self.owner: Any = None
        self.cause: Any = None
        self.wanted: dict[int, list[Any]] = {}
        self.computes = True
        self.blocks = 0
        self.keep = keep
        self.before: list[tuple[NDArray, np.ndarray]] = []  # what written arrays held
        self.calls: list[tuple[Op, np.ndarray, str]] = []

    def bind(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> NDArray:
        """The output of one op call, computed now."""
        state.trace = None
        try:
            out = dispatch.bind(op, inputs, attrs)
        finally:
            state.trace = self
        if self.keep:
            self.calls.append((op, out._data, user_line()))
        return out

    def capture(self, array: NDArray) -> NDArray:
        """Arrays are what they are."""
        return array

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """`array[key] = value`."""
        if not self.keep:
            self.before.append((array, array._data.copy()))
        state.trace = None
        try:
            array[key] = value
        finally:
            state.trace = self

    def undo(self) -> None:
        """Takes back what was written to arrays; for a log that keeps nothing else."""
        for array, values in reversed(self.before):
            array._data[...] = values
            array._version[0] += 1
        self.before.clear()

    def gradient(self, array: NDArray) -> NDArray | None:
        """`array.grad`."""
        return None if array._grad is None else array._grad.present(array)

    def refuse_change(self, array: NDArray, what: str) -> None:
        """Changes are what they are."""

    def given(self, array: NDArray) -> bool:
        """No backward is looked at here."""
        return False

    def at_each_run(self, work: EachRun) -> None:
        """There is one run."""

    def before_backward(self, heads: list[NDArray]) -> None:
        """Nothing: the tape stays as it is."""

    def note_values(self, array: NDArray) -> None:
        """Values are read at once."""

    def print_later(self, values: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Prints at once, unless the thread is silent."""
        if not state.silent:
            print(*values, **options)

    def loop(self, step: Any, data: Any, states: Any, length: Any, while_true: bool) -> Any:
        """Never asked: where arrays have values, loops run."""
        raise AssertionError

    def branch(self, predicate: NDArray, choices: Any) -> list[NDArray]:
        """The choice that the predicate makes."""
        return choices[not predicate]()

    def random_key(self, blocks: Any) -> NDArray:
        """The key that an eager draw takes."""
        return NDArray(random.default.reserve(int(blocks)))
