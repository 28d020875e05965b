"""Writes: what assignments inside a trace do. A graph has values, not memory, so each write makes a new value.

Writing to a captured array becomes an update at the end of the program, writing to an argument is delivered to the
caller's array after the run, and a computed array goes on with the new value under all its names. What cannot be said
with values is refused: a view that is read after its array was written, and the other way round.

A write to a part makes a whole new array, too (`nd/indexing.py`), so it takes the time of a copy.
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
from gluonish.nd.indexing import basic_key, replaced
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
        self.through: dict[int, tuple[NDArray, Node]] = {}  # by id, values changed through one view only: it, as it was

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """`array[key] = value`.

        Raises: TraceError for keys that mix slices and arrays, and for masks with a value for each element chosen.
        """
        array = self._owner(array)
        self._written_back(array, key, value)
        value = value if isinstance(value, NDArray) else NDArray(np.asarray(value, array.dtype))
        self._check_tape(array, value)
        current = self.trace.capture(array)
        with quiet_tape():
            value = cast(self.trace.capture(value), dtype=array.dtype)
            if key is not Ellipsis and not (isinstance(key, slice) and key == slice(None)):
                value = self._replaced(current, key, value)
            if tuple(value.shape) != tuple(current.shape):
                value = value.broadcast_to(current.shape)
        if isinstance(array._data, Node):
            self._change(array, value)
        else:
            self.overwritten[id(current._data)] = current._data
            self.updated[id(array._data)] = value

    def _written_back(self, array: NDArray, key: Any, value: Any) -> None:
        """Python makes of `y[k] += v` a write to the view y[k] and an assignment of that view to y[k]: then the second
        of them brings y up to date."""
        node: Any = array._data
        view, before = self.through.pop(id(node), (None, None))
        if before is None or view is not value or not before.is_op("index") or before.inputs[0] is not node:
            return
        if before.attrs["key"] == basic_key(array, key):
            del self.overwritten[id(node)]

    def _replaced(self, current: NDArray, key: Any, value: NDArray) -> NDArray:
        """The whole array after a write to a part of it."""
        whole = replaced(current, key, value)
        if whole is None:
            raise TraceError(
                f"this assignment cannot be traced: it mixes slices and index arrays, or has a value for each element "
                f"of a mask; choose with nd.where, or write nd.index_update(x, i, values, axis) ({user_line()})"
            )
        return whole

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
        if root is not old and id(root) not in self.overwritten:
            self.through[id(root)] = (array, old)
        else:
            self.through.pop(id(root), None)
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
