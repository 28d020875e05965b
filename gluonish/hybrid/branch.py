"""Branches in a trace: both bodies traced, of which one runs; and their gradient, a branch by the same predicate.

The gradient of what a body reads is computed from the body's tape, its forward again included; what a body does not
read has zeros from it.

Deliberately not here: loops (`loops.py`), running (`lower_control.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gluonish.hybrid.control import BRANCH, Body, parts
from gluonish.hybrid.graph import Graph, Node, TraceError, check_closed, ordered
from gluonish.hybrid.guards import wants
from gluonish.hybrid.loops import zeros_like
from gluonish.hybrid.subtrace import SubTrace
from gluonish.hybrid.trace import Trace, tracing
from gluonish.nd import autograd, dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.size import same


@dataclass
class Choice:
    """One body: what stands in it for the operands that both have by name, and what it gives."""

    inner: SubTrace
    operands: list[NDArray] = field(default_factory=list)
    results: list[NDArray] = field(default_factory=list)


@dataclass
class Branch:
    """Two choices, of which the first is for true."""

    choices: list[Choice]
    line: str

    def emit(self, outer: Trace, predicate: NDArray, operands: Sequence[NDArray]) -> list[NDArray]:
        """Puts the branch into the trace around it, and on the tape under recording; gives its results."""
        given = [outer.capture(x) for x in operands]
        read = self._read(len(operands))
        graphs = [self._graph(choice, read) for choice in self.choices]
        for graph in graphs:
            check_closed(graph)
        inputs = [outer.capture(predicate)._data, *(x._data for x in given), *read.values()]
        attrs = {"then": Body(graphs[0]), "otherwise": Body(graphs[1])}
        specs = [x.spec for x in self.choices[0].results]
        results = [NDArray(node) for node in parts(BRANCH, inputs, attrs, specs, self.line)]
        for x in results:
            outer.note_own(x)
        linked = [outside for choice in self.choices for outside, _ in choice.inner.links]
        if state.recording and any(wants(x) for x in (*given, *linked)):
            outer.recorded = True
            call = BranchCall(self, predicate, given)
            inputs_on_tape = (*given, *linked)
            versions = sum(x._version[0] for x in inputs_on_tape)
            number = next(dispatch.order)
            for index, out in enumerate(results):
                if is_float(out.dtype) and any(wants(choice.results[index]) for choice in self.choices):
                    out._entry = (number, call, inputs_on_tape, {}, None, versions, index)
        return results

    def _read(self, operands: int) -> dict[int, Node]:
        """The nodes outside that either body reads, by their ids."""
        read: dict[int, Node] = {}
        for choice in self.choices:
            needed = {id(n) for n in ordered([x._data for x in choice.results])}
            read |= {id(n): n for n, leaf in choice.inner.entered.values() if id(leaf) in needed}
        return read

    def _graph(self, choice: Choice, read: dict[int, Node]) -> Graph:
        entered = choice.inner.entered
        leaves = [entered[i][1] if i in entered else Node("input", n.spec, name="unused") for i, n in read.items()]
        name = "then" if choice is self.choices[0] else "otherwise"
        own: list[Any] = [x._data for x in choice.operands]
        return Graph([*own, *leaves], [x._data for x in choice.results], [], name)


def trace_branch(outer: Trace, predicate: NDArray, choices: Sequence[Callable[[], list[NDArray]]]) -> list[NDArray]:
    """See `TraceLike.branch`.

    Raises: ValueError if the choices give different shapes or dtypes, or draw different amounts of random numbers.
    """
    found = []
    for function in choices:
        choice = Choice(SubTrace(outer))
        with tracing(choice.inner, state.recording):
            choice.results = [choice.inner.capture(x) for x in function()]
            if state.recording:
                choice.inner.recognize(choice.results)
        found.append(choice)
    _check(*found)
    count = len(found[0].results)
    targets = {id(array): array for choice in found for array, _, _ in choice.inner.updated()}
    for choice in found:
        with tracing(choice.inner):
            choice.results += [choice.inner.capture(array) for array in targets.values()]
    operands = _keys(outer, found)
    results = Branch(found, user_line()).emit(outer, outer.capture(predicate), operands)
    for array, value in zip(targets.values(), results[count:]):
        outer.assign(array, Ellipsis, value)
    return results[:count]


def _check(then: Choice, otherwise: Choice) -> None:
    for number, (a, b) in enumerate(zip(then.results, otherwise.results)):
        if a.dtype != b.dtype or a.shape != b.shape:  # sizes not known to be equal: asked, which is a guard
            raise ValueError(
                f"cond: both functions must give the same shapes and dtypes, but result {number} is "
                f"{shape_text(a.shape)} {a.dtype} or {shape_text(b.shape)} {b.dtype} ({user_line()})"
            )
    if not same(then.inner.blocks, otherwise.inner.blocks):
        raise ValueError(
            f"cond: both functions must draw equally many random numbers, or later draws would depend on values; draw "
            f"them before, and choose by nd.where or in the functions ({user_line()})"
        )


def _keys(outer: Trace, choices: list[Choice]) -> list[NDArray]:
    """The random key, where the choices draw: the same for both."""
    if choices[0].inner.key is None:
        return []
    for choice in choices:
        assert choice.inner.key is not None
        choice.operands.append(choice.inner.key)
    return [outer.random_key(choices[0].inner.blocks)]


class BranchCall:
    """A branch on the tape: stands where an op would, and knows how to give gradients."""

    vjp = True
    name = "cond"

    def __init__(self, branch: Branch, predicate: NDArray, operands: list[NDArray]) -> None:
        self.branch = branch
        self.predicate = predicate
        self.operands = operands

    def gradients(self, grads: dict[int, NDArray], inputs: Any) -> list[tuple[NDArray, NDArray]]:
        """The arrays outside that get a gradient, each with it."""
        outer: Any = state.trace
        if outer is None:
            raise TraceError(f"a traced branch is differentiated within its trace ({user_line()})")
        choices, found = [], []
        for choice in self.branch.choices:
            inner = choice.inner
            inner.writes.overwritten.clear()  # the rules of gradients read values as they were
            with tracing(inner, state.recording):
                heads = {i: inner.place(choice.results[i].spec, f"head{i}", state.recording) for i in grads}
                found.append(self._walk(choice, heads))
            choices.append(Choice(inner, [*choice.operands, *heads.values()]))
        targets = {id(x): x for gradients in found for x, _ in gradients.values()}
        for choice, gradients in zip(choices, found):
            with tracing(choice.inner, state.recording):
                for number, x in targets.items():
                    choice.results.append(gradients[number][1] if number in gradients else zeros_like(x))
        back = Branch(choices, self.branch.line)
        results = back.emit(outer, self.predicate, [*self.operands, *grads.values()])
        return [pair for pair in zip(targets.values(), results) if wants(pair[0])]

    def _walk(self, choice: Choice, heads: dict[int, NDArray]) -> dict[int, tuple[NDArray, NDArray]]:
        """id of an array outside -> it and its gradient by way of one body."""
        walk = autograd.Walk()
        for i, head in heads.items():
            if wants(choice.results[i]):
                walk.give(choice.results[i], head)
        leaves = {id(array): value for array, value in walk.run()}
        out: dict[int, tuple[NDArray, NDArray]] = {}
        for outside, leaf in (*zip(self.operands, choice.operands), *choice.inner.links):
            if id(leaf) in leaves:
                out[id(outside)] = (outside, leaves[id(leaf)])
        return out
