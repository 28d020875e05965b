"""Trace: running a function on arrays without values, to learn its graph.

While a trace is under way, `bind` hands every op to it. Arrays that are not arguments are captured by identity: their
values are read when the program runs, so a changed parameter is seen. Writing to a captured array becomes an update at
the end of the program. With recording on, the same tape as in eager mode notes the ops, on stand-ins for the captured
arrays; so the backward of a trace is traced by the ordinary tape walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gluonish.hybrid.graph import Graph, Node, Origin, TraceError, apply
from gluonish.hybrid.prints import Print
from gluonish.hybrid.recorded import recognize_recorded
from gluonish.hybrid.writes import Writes
from gluonish.nd import dispatch
from gluonish.nd.array import Gradient, NDArray
from gluonish.nd.dispatch import EachRun
from gluonish.nd.errors import user_line
from gluonish.nd.op import Op, Spec
from gluonish.nd.ops.elementwise import cast
from gluonish.nd.ops.random import advance_op
from gluonish.nd.size import SizeLike, SizeScope, hint


class TracedGradient(Gradient):
    """Stands for the gradient of an array during a trace: a `backward` inside it is delivered after each run.

    original: the captured array, or the position of the argument.
    """

    __slots__ = ("trace", "original")

    def __init__(self, trace: Trace, original: NDArray | int) -> None:
        super().__init__("write")
        self.trace = trace
        self.original = original

    def receive(self, value: NDArray) -> None:
        """Notes that the program must hand `value` to the original array's gradient."""
        self.trace.deliveries.append((self.original, value))
        if isinstance(self.original, NDArray) and self.original.grad_req == "add":
            value = (self.before() if self.value is None else self.value) + value
        self.value = value

    def before(self) -> NDArray:
        """The gradient that the captured array has when the program begins."""
        assert isinstance(self.original, NDArray) and self.original._grad is not None
        return self.original._grad.present(self.original)


class Trace:
    """One trace: the symbols of its sizes, its arguments, what it captured and what it updates."""

    def __init__(self) -> None:
        self.owner: Any = None
        self.cause: NDArray | None = None
        self.computes = False
        self.wanted: dict[int, list[Any]] = {}
        self.prints: list[Print] = []
        self.sizes = SizeScope()
        self.arguments: list[NDArray] = []
        self.inputs: list[Node] = []  # their values at the beginning
        self.captured: dict[int, NDArray] = {}  # id of the real array -> its stand-in
        self.originals: dict[int, NDArray] = {}  # id of the real array -> the real array (kept alive)
        self.leaves: dict[int, Node] = {}  # id of the memory (detached arrays share it) -> its leaf
        self.writes = Writes(self)
        self.read: list[tuple[NDArray, int, Any]] = []  # arrays whose values Python read: array, version, memory
        self.deliveries: list[tuple[NDArray | int, NDArray]] = []
        self.each_run: list[EachRun] = []
        self.recorded = False  # whether which arrays want gradients made a difference
        self.key: NDArray | None = None
        self.blocks: SizeLike = 0  # how many random blocks a run draws
        self.log: list[tuple[Op, Node]] = []  # the ops that Python called, in its order

    # --- what arrays become -------------------------------------------------------------------------------------------
    def argument(self, spec: Spec, name: str, wants_gradient: bool = False) -> NDArray:
        """A stand-in for an argument, its sizes symbolic."""
        shape = tuple(self.sizes.symbol(int(s)) for s in spec.shape)
        self.inputs.append(Node("input", Spec(shape, spec.dtype), name=name))
        array = NDArray(self.inputs[-1])
        if wants_gradient:
            array._grad = TracedGradient(self, len(self.arguments))
        self.arguments.append(array)
        return array

    def capture(self, array: NDArray) -> NDArray:
        """The stand-in for an array of this trace (itself) or for a real one."""
        if isinstance(array._data, Node):
            if self.writes.overwritten:
                self.writes.refuse_stale(array._data)
            return array
        memory = id(array._data)
        if memory in self.writes.updated:
            return self.writes.updated[memory]
        found = self.captured.get(id(array))
        if found is None:
            if memory not in self.leaves:
                name = getattr(array, "name", "") or f"c{len(self.captured)}"
                self.leaves[memory] = Node("captured", array.spec, name=str(name), array=array)
            found = NDArray(self.leaves[memory])
            if array._grad is not None or array._entry is not None:
                found._grad = TracedGradient(self, array)
            self.captured[id(array)] = found
            self.originals[id(array)] = array
        return found

    # --- what `bind` and NDArray ask of a trace -----------------------------------------------------------------------
    def bind(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> NDArray:
        """A node for one op call."""
        stand_ins = tuple(self.capture(x) if isinstance(x, NDArray) else x for x in inputs)
        if op.parts is not None:
            return self._composed(op, stand_ins, attrs)
        nodes = _in_range(op, [x._data if isinstance(x, NDArray) else x for x in stand_ins])
        shape, dtype = op.rule(*[x.spec if isinstance(x, Node) else x for x in nodes], **attrs)
        # nothing is computed of an empty array: a computed size of 0 becomes a number, and a guard
        spec = Spec(tuple(int(s) if hint(s) == 0 else s for s in shape), dtype)
        out = NDArray(Node("op", spec, op, nodes, attrs, self.origin()))
        self.log.append((op, out._data))
        if dispatch.state.recording:
            self.recorded = True
            dispatch.note(op, stand_ins, attrs, out)
        return out

    def origin(self) -> Origin:
        """Where the op at hand comes from; a gradient comes from where the array was computed whose gradient it is."""
        node = None if self.cause is None else self.cause._data
        if isinstance(node, Node) and isinstance(node.line, Origin):
            return node.line
        return Origin(user_line(), self.owner)

    def _composed(self, op: Op, stand_ins: tuple[Any, ...], attrs: dict[str, Any]) -> NDArray:
        """A composite op: its parts stand in the graph, itself on the tape, for its own gradient."""
        op.rule(*[x.spec if isinstance(x, NDArray) else x for x in stand_ins], **attrs)
        recording, dispatch.state.recording = dispatch.state.recording, False
        before = len(self.log)
        try:
            assert op.parts is not None
            out = NDArray(op.parts(*stand_ins, **attrs)._data)
        finally:
            dispatch.state.recording = recording
        self.log[before:] = [(op, out._data)]
        if recording:
            self.recorded = True
            dispatch.note(op, stand_ins, attrs, out)
        return out

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """`array[:] = value`; see `Writes`."""
        self.writes.assign(array, key, value)

    def gradient(self, array: NDArray) -> NDArray | None:
        """What `array.grad` is here: what a backward of this trace gave, else what stands there when the program runs.

        Raises: TraceError for the gradient that an argument brings.
        """
        stand_in = self.capture(array)
        own = stand_in._grad
        if not isinstance(own, TracedGradient):
            return own.value if own is not None else None
        if own.value is None and isinstance(own.original, int):
            raise TraceError(
                f"the gradient that argument {own.original} has from outside is not known in a compiled function; pass "
                f"x.grad as an argument, or call backward() inside first ({user_line()})"
            )
        return own.value if own.value is not None else own.before()

    def before_backward(self, heads: list[NDArray]) -> None:
        """Attentions written out are replaced on the tape before their gradients are traced."""
        self.recognize([x for x in heads if isinstance(x._data, Node)])

    def recognize(self, results: Sequence[NDArray]) -> None:
        """The same, on the tape of results of this trace."""
        graph = Graph(list(self.inputs), [x._data for x in results], [], "taped")
        recognize_recorded(graph, results, self.note_own)

    def given(self, array: NDArray) -> bool:
        """Whether a backward of this trace gave the array a gradient."""
        own = self.capture(array)._grad
        return own is not None and own.value is not None

    def at_each_run(self, work: EachRun) -> None:
        """Python's part of what is being traced: asked whether it holds, and called before and after each run."""
        self.each_run.append(work)

    def refuse_change(self, array: NDArray, what: str) -> None:
        """Raises TraceError for what would change the gradient of an array from outside only once, now."""
        if not isinstance(array._data, Node) or isinstance(array._grad, TracedGradient):
            raise TraceError(f"{what} cannot be traced; do it outside the compiled function ({user_line()})")

    def random_key(self, blocks: SizeLike) -> NDArray:
        """The key for the next draw: the program's key moved on by what the trace has drawn so far."""
        if self.key is None:
            self.key = self._first_key()
        key = (
            self.key if isinstance(self.blocks, int) and self.blocks == 0 else advance_op(self.key, blocks=self.blocks)
        )
        self.blocks = self.blocks + blocks
        return key

    def _first_key(self) -> NDArray:
        return NDArray(Node("key", Spec((2,), np.dtype("int64")), name="key"))

    def loop(
        self, step: Any, data: Sequence[NDArray], states: Sequence[NDArray], length: SizeLike, while_true: bool
    ) -> tuple[list[NDArray], list[NDArray]]:
        """A loop with a body of its own; see `loops.py`."""
        from gluonish.hybrid.loops import trace_loop  # whose traces of bodies are Traces: importing it here is a circle

        return trace_loop(self, step, data, states, length, while_true)

    def branch(self, predicate: NDArray, choices: Sequence[Any]) -> list[NDArray]:
        """Two bodies of which one runs; see `branch.py`."""
        from gluonish.hybrid.branch import trace_branch

        return trace_branch(self, predicate, choices)

    def note_own(self, array: NDArray) -> None:
        """Tells that an array belongs to this trace; in the outermost one all do."""

    def print_later(self, values: tuple[Any, ...], options: dict[str, Any]) -> None:
        """`gl.print`: its arrays become results of the program, and are printed after each run."""
        self.prints.append(Print(values, options, lambda a: NDArray(self.capture(a)._data)))

    def note_values(self, array: NDArray) -> None:
        """Python reads the values of a real array: the trace holds only as long as they stay."""
        self.read.append((array, array._version[0], array._data))

    # --- the end ------------------------------------------------------------------------------------------------------
    def graph(self, outputs: Sequence[NDArray], name: str, updates: bool = True) -> Graph:
        """The graph of the given outputs."""
        changes = [(self.leaves[i], v._data) for i, v in self.writes.updated.items()] if updates else []
        nodes = [self.capture(x)._data for x in outputs]
        return Graph(list(self.inputs), nodes, changes, name)


def _in_range(op: Op, nodes: list[Any]) -> list[Any]:
    """Operands with Python integers in the range of their dtype: where one is not, a comparison (which has an answer
    all the same) goes on in int64.

    Raises: OverflowError for other ops, as NumPy does.
    """
    dtype = next((x.dtype for x in nodes if isinstance(x, Node)), None)
    if op.family != "elementwise" or dtype is None or dtype.kind not in "iu":
        return nodes
    limits = np.iinfo(dtype)
    wrong = next((x for x in nodes if type(x) is int and not limits.min <= x <= limits.max), None)
    if wrong is None:
        return nodes
    if (
        op.rule(*[x.spec if isinstance(x, Node) else x for x in nodes]).dtype != np.bool_
        or not -(2**63) <= wrong < 2**63
    ):
        raise OverflowError(f"{op.name}: Python integer {wrong} out of bounds for {dtype} ({user_line()})")
    wide = {"dtype": np.dtype("int64")}
    return [apply(cast, (x,), wide, user_line()) if isinstance(x, Node) else x for x in nodes]


@contextmanager
def tracing(trace: Trace, recording: bool = False) -> Iterator[Trace]:
    """Makes `trace` the one under way on this thread."""
    state = dispatch.state
    before = state.trace, state.recording
    state.trace, state.recording = trace, recording
    try:
        yield trace
    finally:
        state.trace, state.recording = before
