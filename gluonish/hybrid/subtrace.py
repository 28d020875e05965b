"""SubTrace: the trace of a body of control flow, inside another trace.

It shares the sizes of the trace around it. What it finds of that trace, or captures, becomes an operand: a leaf of the
body's graph, linked to the array outside, so that gradients find their way back. What a body assigns to captured arrays
(running statistics) is handed on as results.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from gluonish.hybrid.graph import Node, TraceError
from gluonish.hybrid.guards import wants
from gluonish.hybrid.trace import Trace
from gluonish.nd.array import Gradient, NDArray
from gluonish.nd.dispatch import EachRun
from gluonish.nd.errors import user_line
from gluonish.nd.op import Op, Spec

KEY = Spec((2,), np.dtype("int64"))


class Wanted(Gradient):
    """Marks a leaf of a body whose gradient is wanted outside."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("write")

    def receive(self, value: NDArray) -> None:
        """Raises TraceError: a step cannot put a gradient into an array outside."""
        raise TraceError(
            f"backward() inside the body of a loop or branch cannot be traced; use autograd.grad, or call backward() "
            f"outside ({user_line()})"
        )


class SubTrace(Trace):
    """See the module docstring. `entered`: id of a node outside -> it and the leaf that stands for it here; `links`:
    arrays outside with their stand-ins here."""

    def __init__(self, outer: Trace) -> None:
        super().__init__()
        self.outer = outer
        self.sizes = outer.sizes
        self.own: dict[int, Node] = {}
        self.entered: dict[int, tuple[Node, Node]] = {}
        self.links: list[tuple[NDArray, NDArray]] = []

    # --- leaves -------------------------------------------------------------------------------------------------------
    def place(self, spec: Spec, name: str, wanted: bool = False) -> NDArray:
        """A new leaf, as an array."""
        array = NDArray(self._leaf(spec, name))
        if wanted:
            array._grad = Wanted()
        return array

    def _leaf(self, spec: Spec, name: str) -> Node:
        node = Node("input", spec, name=name)
        self.own[id(node)] = node
        return node

    def capture(self, array: NDArray) -> NDArray:
        """The stand-in of an array from outside; one of this trace itself."""
        data: Any = array._data
        if id(data) in self.own:
            if self.writes.overwritten:
                self.writes.refuse_stale(data)
            return array
        if id(data) in self.writes.updated:
            return self.writes.updated[id(data)]
        found = self.captured.get(id(array))
        if found is None:
            found = self._enter(array)
            self.captured[id(array)] = found
            self.originals[id(array)] = array
        return found

    def _enter(self, array: NDArray) -> NDArray:
        outside = self.outer.capture(array)
        node: Any = outside._data
        if id(node) not in self.entered:
            leaf = self._leaf(outside.spec, node.name or f"c{len(self.entered)}")
            self.entered[id(node)] = (node, leaf)
        leaf = self.entered[id(node)][1]
        found = NDArray(leaf)
        if wants(outside):
            found._grad = Wanted()
        if not isinstance(array._data, Node):
            leaf.array = array
            self.leaves[id(array._data)] = leaf
        self.links.append((outside, found))
        return found

    def outside(self, leaf: Node) -> Node:
        """What a leaf made by `capture` stands for."""
        return next(node for node, inner in self.entered.values() if inner is leaf)

    # --- what ops and arrays ask --------------------------------------------------------------------------------------
    def bind(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> NDArray:
        """A node of the body."""
        out = super().bind(op, inputs, attrs)
        self.note_own(out)
        self.outer.recorded = self.outer.recorded or self.recorded
        return out

    def note_own(self, array: NDArray) -> None:
        """Tells that an array belongs to this trace."""
        node: Any = array._data
        self.own[id(node)] = node

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """`array[:] = value`: an update of a captured array, or a new value of one of the body's own.

        Raises: TraceError for other arrays from outside, and for slices and states.
        """
        node: Any = array._data
        if isinstance(node, Node) and (id(node) not in self.own or node.kind == "input"):
            raise TraceError(
                f"the body of a loop or branch cannot write to a slice, a state or an array computed outside; give the "
                f"new value back as a state or a result: `h = h + x` instead of `h += x` ({user_line()})"
            )
        super().assign(array, key, value)

    def gradient(self, array: NDArray) -> NDArray | None:
        """`array.grad` of one of the body's own arrays. Raises: TraceError for others."""
        if isinstance(self.capture(array)._grad, Wanted):
            self._refuse("the .grad of an array from outside")
        return super().gradient(array)

    def given(self, array: NDArray) -> bool:
        """No backward inside a body gives gradients to arrays outside."""
        return False

    def print_later(self, values: tuple[Any, ...], options: dict[str, Any]) -> NoReturn:
        """Raises TraceError."""
        self._refuse("gl.print")

    def at_each_run(self, work: EachRun) -> None:
        """Raises TraceError."""
        self._refuse("Trainer.step()")

    def _refuse(self, what: str) -> NoReturn:
        raise TraceError(f"{what} cannot be traced in the body of a loop or branch; put it outside ({user_line()})")

    def note_values(self, array: NDArray) -> None:
        """The whole trace relies on them."""
        self.outer.note_values(array)

    def _first_key(self) -> NDArray:
        return self.place(KEY, "key")

    # --- the end ------------------------------------------------------------------------------------------------------
    def updated(self) -> list[tuple[NDArray, Node, NDArray]]:
        """The captured arrays that the body assigned to: the array outside, its leaf, its new value."""
        found = []
        for memory, value in self.writes.updated.items():
            leaf = self.leaves[memory]
            found.append((leaf.array, leaf, value))
        return found
