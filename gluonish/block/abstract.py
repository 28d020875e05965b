"""Running a function on arrays that have shapes and no values: how shapes are inferred without computing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gluonish.nd import NDArray
from gluonish.nd.abstract import Abstract, AbstractTrace
from gluonish.nd.dispatch import state


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
