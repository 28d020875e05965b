"""Loops in a trace: the body traced once, and its gradient, which is a loop that goes back.

A loop on the tape keeps the states that each step began with, as outputs of its own. Going back, a step computes its
forward again from those and walks the body's tape: its data are the slices, the states kept and the gradients of the
outputs, its states the gradients of the states and the sums of the gradients of what the body reads. Such a loop may be
on the tape too, and so on.

Deliberately not here: branches (`branch.py`), running (`control.py`, `lower_control.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gluonish.hybrid.control import LOOP, Body, LoopShape, parts
from gluonish.hybrid.graph import Graph, Node, TraceError, check_closed, ordered
from gluonish.hybrid.guards import wants
from gluonish.hybrid.subtrace import SubTrace
from gluonish.hybrid.trace import Trace, tracing
from gluonish.hybrid.writes import VIEWS
from gluonish.nd import autograd, dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.create import zeros
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import user_line
from gluonish.nd.op import Spec
from gluonish.nd.ops.random import advance_op
from gluonish.nd.size import SizeLike

Step = Callable[[Sequence[NDArray], Sequence[NDArray]], tuple[list[NDArray], list[NDArray]]]
COUNT = Spec((), np.dtype("int64"))


@dataclass
class Loop:
    """A traced body: what stands for the data, the states and the number of steps, and what it gives.

    extra: further outputs, the states that each step began with, where the loop is on the tape.
    """

    inner: SubTrace
    length: SizeLike
    reverse: bool
    while_true: bool
    data: list[NDArray]
    states: list[NDArray]
    outputs: list[NDArray] = field(default_factory=list)
    new_states: list[NDArray] = field(default_factory=list)
    line: str = ""

    def emit(
        self, outer: Trace, data: Sequence[NDArray], first: Sequence[NDArray], count: NDArray | None = None
    ) -> tuple[list[NDArray], list[NDArray]]:
        """Puts the loop into the trace around it: the outputs, and the last states.

        Under recording it goes on the tape if a gradient can flow through it.
        """
        given = [outer.capture(x) for x in (*data, *first)]
        linked = [outside for outside, _ in self.inner.links]
        taped = state.recording and any(wants(x) for x in (*given, *linked))
        outputs = [*self.outputs, *(self.states if taped else ())]
        leaves = [x._data for x in (*self.data, *self.states)]
        graph = Graph(leaves, [x._data for x in (*outputs, *self.new_states)], [], f"{outer_name(self)} body")
        others = _read_besides(graph, self.inner)
        graph.inputs = [*leaves, *(leaf for _, leaf in others)]
        check_closed(graph)
        shape = LoopShape(
            len(self.data), len(self.states), len(outputs), self.reverse, self.while_true, count is not None
        )
        operands = [*([count] if count is not None else []), *given]
        inputs = [*(outer.capture(x)._data for x in operands), *(node for node, _ in others)]
        specs = [Spec((self.length, *x.shape), x.dtype) for x in outputs] + [x.spec for x in self.states] + [COUNT]
        attrs = {"body": Body(graph), "shape": shape, "length": self.length}
        results = [NDArray(node) for node in parts(LOOP, inputs, attrs, specs, self.line)]
        for x in results:
            outer.note_own(x)
        if taped:
            outer.recorded = True
            steps = count if count is not None else results[-1] if self.while_true else None
            self._note(LoopCall(self, given[: len(data)], given[len(data) :], results, steps), results, linked)
        return results[: len(self.outputs)], results[len(outputs) : -1]

    def _note(self, call: LoopCall, results: list[NDArray], linked: list[NDArray]) -> None:
        inputs = (*call.data, *call.first, *linked)
        versions = sum(x._version[0] for x in inputs)
        number = next(dispatch.order)
        inner = [*self.outputs, *self.states, *self.new_states]
        for index, (out, x) in enumerate(zip(results, inner)):
            if is_float(x.dtype) and wants(x):
                out._entry = (number, call, inputs, {}, None, versions, index)


def outer_name(loop: Loop) -> str:
    """What the loop is, for people."""
    return "while_loop" if loop.while_true else "foreach"


def _read_besides(graph: Graph, inner: SubTrace) -> list[tuple[Node, Node]]:
    """The nodes outside that the body reads, beside data and states, with their leaves."""
    needed = {id(n) for n in ordered(graph.outputs)}
    own = {id(n) for n in graph.inputs}
    return [(node, leaf) for node, leaf in inner.entered.values() if id(leaf) in needed and id(leaf) not in own]


# --- tracing ----------------------------------------------------------------------------------------------------------
def trace_loop(
    outer: Trace, step: Step, data: Sequence[NDArray], states: Sequence[NDArray], length: SizeLike, while_true: bool
) -> tuple[list[NDArray], list[NDArray]]:
    """See `TraceLike.loop`."""
    data, states = [outer.capture(x) for x in data], [outer.capture(x) for x in states]
    wanted = [is_float(x.dtype) and wants(x) for x in states]
    while True:
        loop = _traced(outer, step, data, states, wanted, length, while_true)
        late = [is_float(x.dtype) and wants(x) for x in loop.new_states[: len(states)]]
        if not state.recording or not any(b and not a for a, b in zip(wanted, late)):
            break
        wanted = [a or b for a, b in zip(wanted, late)]  # a state that comes to need a gradient needs it from the start
    if state.recording:
        loop.inner.recognize([*loop.outputs, *loop.new_states])
    _refuse_aliases(loop, [*data, *states])
    first = list(states)
    targets = [array for array, _, _ in loop.inner.updated()]
    for _, leaf, value in loop.inner.updated():
        loop.states.append(NDArray(leaf))
        loop.new_states.append(value)
        first.append(NDArray(loop.inner.outside(leaf)))
    if loop.inner.key is not None:
        _carry_key(loop, outer, first)
    if while_true:  # the flag stays the last of the states
        for values in (loop.states, loop.new_states, first):
            values.append(values.pop(len(states) - 1))
    outs, last = loop.emit(outer, data, first)
    count = len(states) - int(while_true)
    for array, value in zip(targets, last[count:]):
        outer.assign(array, Ellipsis, value)
    return outs, [*last[:count], *last[len(last) - int(while_true) :]]


def _traced(
    outer: Trace,
    step: Step,
    data: Sequence[NDArray],
    states: Sequence[NDArray],
    wanted: Sequence[bool],
    length: SizeLike,
    while_true: bool,
) -> Loop:
    inner = SubTrace(outer)
    slices = [inner.place(Spec(x.shape[1:], x.dtype), f"slice{i}", wants(x)) for i, x in enumerate(data)]
    leaves = [inner.place(x.spec, f"state{i}", w) for i, (x, w) in enumerate(zip(states, wanted))]
    loop = Loop(inner, length, False, while_true, slices, leaves, line=user_line())
    with tracing(inner, state.recording):
        outs, new = step(slices, leaves)
        loop.outputs = [inner.capture(x) for x in outs]
        loop.new_states = [inner.capture(x) for x in new]
    return loop


def _refuse_aliases(loop: Loop, arrays: Sequence[NDArray]) -> None:
    """Raises TraceError for a body that writes to memory which the loop goes along or begins with."""
    written = {id(loop.inner.outside(leaf)) for _, leaf, _ in loop.inner.updated()}
    for x in arrays if written else ():
        node: Any = x._data
        while node.is_op(*VIEWS):
            node = node.inputs[0]
        if id(node) in written:
            raise TraceError(
                f"the body of a loop writes to an array that is also its data or a first state; pass `x * 1` instead "
                f"({user_line()})"
            )


def _carry_key(loop: Loop, outer: Trace, first: list[NDArray]) -> None:
    """The random key as a state: every step goes on where the one before ended, as eager steps do."""
    inner = loop.inner
    assert inner.key is not None
    loop.states.append(inner.key)
    with tracing(inner):
        loop.new_states.append(advance_op(inner.key, blocks=inner.blocks))
    first.append(outer.random_key(inner.blocks * loop.length))


# --- the gradient -----------------------------------------------------------------------------------------------------
class LoopCall:
    """A loop on the tape: stands where an op would, and knows how to give gradients.

    results: its outputs, the states kept, the last states, the count. steps: how many were done, where only that tells.
    """

    vjp = True
    name = "loop"

    def __init__(
        self, loop: Loop, data: list[NDArray], first: list[NDArray], results: list[NDArray], steps: NDArray | None
    ) -> None:
        self.loop = loop
        self.data = data
        self.first = first
        self.kept = results[len(loop.outputs) : len(loop.outputs) + len(loop.states)]
        self.steps = steps
        pairs = enumerate(zip(loop.states, loop.new_states))
        self.carried = [i for i, (old, new) in pairs if is_float(new.dtype) and (wants(old) or wants(new))]

    def gradients(self, grads: dict[int, NDArray], inputs: Any) -> list[tuple[NDArray, NDArray]]:
        """The arrays outside that get a gradient, each with it."""
        outer: Any = state.trace
        if outer is None:
            raise TraceError(f"a traced loop is differentiated within its trace ({user_line()})")
        loop = self.loop
        stacked = [i for i in range(len(loop.outputs) + len(loop.states)) if i in grads]
        with tracing(loop.inner, state.recording):
            back, moving, read = self._back(stacked)
        ends = [grads.get(len(loop.outputs) + len(loop.states) + i) for i in self.carried]
        first = [zeros_like(self.first[i]) if end is None else end for i, end in zip(self.carried, ends)]
        first += [zeros_like(x) for x in read]
        outs, last = back.emit(outer, [*self.data, *self.kept, *(grads[i] for i in stacked)], first, self.steps)
        pairs = [*zip(moving, outs), *((self.first[i], value) for i, value in zip(self.carried, last))]
        return [pair for pair in (*pairs, *zip(read, last[len(self.carried) :])) if wants(pair[0])]

    def _back(self, stacked: Sequence[int]) -> tuple[Loop, list[NDArray], list[NDArray]]:
        """The loop that goes back; the data that get gradients as its outputs, the arrays that the body reads that get
        them as its last states. stacked: which outputs have gradients."""
        loop, inner = self.loop, self.loop.inner
        inner.writes.overwritten.clear()  # the rules of gradients read values as they were
        outputs = [*loop.outputs, *loop.states]
        heads = [inner.place(outputs[i].spec, f"head{i}", state.recording) for i in stacked]
        states = [inner.place(loop.states[i].spec, f"gradient{i}", state.recording) for i in self.carried]
        walk = autograd.Walk()
        for array, head in (
            *zip((outputs[i] for i in stacked), heads),
            *zip((loop.new_states[i] for i in self.carried), states),
        ):
            if wants(array):
                walk.give(array, head)
        found = {id(array): value for array, value in walk.run()}
        back = Loop(
            inner, loop.length, not loop.reverse, False, [*loop.data, *loop.states, *heads], states, line=loop.line
        )
        moving = [(x, found[id(leaf)]) for x, leaf in zip(self.data, loop.data) if id(leaf) in found]
        back.outputs = [value for _, value in moving]
        for i in self.carried:
            old = loop.states[i]
            back.new_states.append(found[id(old)] if id(old) in found else zeros_like(old))
        read = [(outside, found[id(leaf)]) for outside, leaf in inner.links if id(leaf) in found]
        for _, value in read:
            back.states.append(inner.place(value.spec, "sum", state.recording))
            back.new_states.append(back.states[-1] + value)
        return back, [x for x, _ in moving], [x for x, _ in read]


def zeros_like(x: NDArray) -> NDArray:
    """Zeros in the shape and dtype of an array, in the trace under way."""
    return zeros(x.shape, dtype=x.dtype)
