"""Writes: what assignments inside a trace do. A graph has values, not memory, so each write makes a new value.

Writing to a captured array becomes an update at the end of the program, writing to an argument is delivered to the
caller's array after the run, and a computed array goes on with the new value under all its names. What cannot be said
with values is refused: a view that is read after its array was written, and the other way round.

Deliberately not here: writes to parts of arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.graph import Node, TraceError
from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.ops.elementwise import cast

if TYPE_CHECKING:
    from gluonish.hybrid.trace import Trace

VIEWS = ("reshape", "permute_dims", "index", "broadcast_to")


class Writes:
    """The writes of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.updated: dict[int, NDArray] = {}  # id of a captured array's memory -> its value at the end
        self.arguments: dict[int, NDArray] = {}  # position of an argument -> the array that has its value at the end
        self.overwritten: dict[int, Node] = {}  # by id, values that their array no longer has

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """`array[:] = value`.

        Raises: TraceError for other keys.
        """
        if key is not Ellipsis and not (isinstance(key, slice) and key == slice(None)):
            raise TraceError(
                f"only whole arrays can be assigned while tracing: write `array[:] = value`, or choose with nd.where "
                f"({user_line()})"
            )
        array = self._owner(array)
        value = value if isinstance(value, NDArray) else NDArray(np.asarray(value, array.dtype))
        self._check_tape(array, value)
        current = self.trace.capture(array)
        with quiet_tape():
            value = cast(self.trace.capture(value), dtype=array.dtype)
            if tuple(value.shape) != tuple(current.shape):
                value = value.broadcast_to(current.shape)
        if isinstance(array._data, Node):
            self._change(array, value)
        else:
            self.overwritten[id(current._data)] = current._data
            self.updated[id(array._data)] = value

    def _owner(self, array: NDArray) -> NDArray:
        """The captured array itself for a detached name of it."""
        node: Any = array._data
        if not isinstance(node, Node):
            return array
        leaves = [self.trace.leaves[memory] for memory, value in self.updated.items() if value._data is node]
        leaf = leaves[0] if leaves else node
        return leaf.array if leaf.kind == "captured" else array

    def _check_tape(self, array: NDArray, value: NDArray) -> None:
        recording = dispatch.state.recording
        if array._entry is not None or (recording and (array._grad or value._grad or value._entry) is not None):
            raise ValueError(
                f"an array that is on the tape cannot be assigned to, nor, under autograd.record(), one that needs a "
                f"gradient, or a value that needs one (shape {shape_text(array.shape)}); assign value.detach() or use "
                f"nd.where ({user_line()})"
            )

    def _change(self, array: NDArray, value: NDArray) -> None:
        """An argument or a computed array has another value from now on."""
        old: Any = array._data
        root = old
        while root.is_op(*VIEWS):
            root = root.inputs[0]
        if root.kind != "op" and root is not old:
            raise TraceError(
                f"writing to a view of an argument or of a captured array cannot be traced; write to the whole array "
                f"({user_line()})"
            )
        self.overwritten |= {id(old): old, id(root): root}
        position = next((i for i, leaf in enumerate(self.trace.inputs) if leaf is old), None)
        if position is not None:
            self.arguments[position] = array
        array._data = value._data
        array._version[0] += 1

    def refuse_stale(self, node: Node) -> None:
        """Raises TraceError for a value that its array no longer has: eager code would find the new one there."""
        while id(node) not in self.overwritten and node.is_op(*VIEWS):
            node = node.inputs[0]
        if id(node) in self.overwritten:
            raise TraceError(
                f"a view of an array is read after the array was written, which cannot be traced; make the view after "
                f"the write, or keep the old values with `* 1` ({user_line()})"
            )


@contextmanager
def quiet_tape() -> Iterator[None]:
    """Nothing goes on the tape inside."""
    before = dispatch.state.recording
    dispatch.state.recording = False
    try:
        yield
    finally:
        dispatch.state.recording = before
