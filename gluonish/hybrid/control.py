"""Control flow in a graph: three ops whose attributes hold graphs.

`loop` runs a body once a step, `branch` one of two bodies; both give a bundle of arrays, from which `part` takes one. A
bundle has no memory of its own, its parts have. A loop's operands are: the number of steps if that is counted, the data
it goes along, the first states, and what the body reads besides; a branch's are its predicate and what the bodies read.
The results of a body are its outputs (stacked over the steps), then the states.

These ops are not in the registry: nobody calls them, traces make them (`loops.py`, `branch.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gluonish.hybrid.graph import Graph, Node, interpret, text
from gluonish.nd.op import Op, Shape, Spec
from gluonish.nd.size import SizeLike

Run = Callable[[list[Any], "list[Any] | None"], list[Any]]  # (arrays, where the results go or None) -> results
BUNDLE = np.dtype("object")
_numbers = itertools.count(1)


class Body:
    """A graph as an attribute of a node. Compared by identity; prints as its number, `text` as the graph."""

    __slots__ = ("graph", "number")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.number = next(_numbers)

    def __repr__(self) -> str:
        return f"<body {self.number}>"

    @property
    def text(self) -> str:
        """The graph as text."""
        return text(self.graph)

    def at_sizes(self, sizes: Callable[[Any], Any]) -> Run:
        """The graph by NumPy, its symbolic sizes replaced by numbers."""

        def run(arrays: list[Any], into: list[Any] | None) -> list[Any]:
            found = interpret(self.graph, dict(zip(map(id, self.graph.inputs), arrays)), sizes)
            return [found[id(n)] for n in self.graph.outputs]

        return run


@dataclass(frozen=True)
class LoopShape:
    """What a loop is beside its body. counts: of the data, states and outputs. reverse: from the last slice to the
    first. while_true: the last state says whether there is another step. counted: the first operand says how many
    steps there are."""

    data: int
    states: int
    outputs: int
    reverse: bool = False
    while_true: bool = False
    counted: bool = False


def roll(
    run: Run, shape: LoopShape, length: int, operands: Sequence[Any], stacks: Sequence[Any], spare: Any
) -> tuple[list[Any], int]:
    """Runs a loop: fills the stacks of outputs, gives the last states and how many steps were done.

    operands: as the module docstring says. spare: two lists of arrays that states may be written to in turn, or None.
    """
    first = int(shape.counted)
    data, rest = operands[first : first + shape.data], operands[first + shape.data :]
    states, others = list(rest[: shape.states]), rest[shape.states :]
    count = int(operands[0]) if shape.counted else length
    done = 0
    for i in range(count - 1, -1, -1) if shape.reverse else range(count):
        if shape.while_true and not states[-1]:
            break
        outs = [stack[i, ...] for stack in stacks]
        arrays = [*[d[i, ...] for d in data], *states, *others]
        results = run(arrays, None if spare is None else [*outs, *spare[done & 1]])
        if spare is None:
            for out, value in zip(outs, results):
                out[...] = value
        states = results[len(outs) :]
        done += 1
    for stack in stacks:
        stack[done:] = 0
    return states, done


# --- the ops ----------------------------------------------------------------------------------------------------------
def _loop_forward(*operands: Any, body: Run, shape: LoopShape, length: int, specs: Any) -> np.ndarray:
    stacks = [np.zeros(s, d) for s, d in specs[: shape.outputs]]
    states, done = roll(body, shape, length, operands, stacks, None)
    return _bundle([*stacks, *states, np.asarray(done)])


def _branch_forward(predicate: Any, *others: Any, then: Run, otherwise: Run, specs: Any) -> np.ndarray:
    return _bundle((then if predicate else otherwise)(list(others), None))


def _bundle(values: Sequence[Any]) -> np.ndarray:
    out = np.empty(len(values), BUNDLE)
    for i, value in enumerate(values):
        out[i] = value
    return out


def _loop_rule(*operands: Spec, body: Body, shape: LoopShape, length: SizeLike, specs: Any) -> Spec:
    return Spec((len(specs),), BUNDLE)


def _branch_rule(*operands: Spec, then: Body, otherwise: Body, specs: Any) -> Spec:
    return Spec((len(specs),), BUNDLE)


def _part_rule(bundle: Spec, index: int, shape: Shape, dtype: np.dtype) -> Spec:
    return Spec(shape, dtype)


LOOP = Op("loop", "control", _loop_forward, _loop_rule, promote=False)
BRANCH = Op("branch", "control", _branch_forward, _branch_rule, promote=False)
PART = Op("part", "control", lambda bundle, index, shape, dtype: bundle[index], _part_rule, promote=False)


def parts(op: Op, inputs: Sequence[Node], attrs: dict[str, Any], specs: Sequence[Spec], line: str) -> list[Node]:
    """A loop or branch, as the nodes of all its results."""
    attrs = {**attrs, "specs": tuple((s.shape, s.dtype) for s in specs)}
    bundle = Node("op", Spec((len(specs),), BUNDLE), op, inputs, attrs, line)
    return [
        Node("op", spec, PART, (bundle,), {"index": i, "shape": spec.shape, "dtype": spec.dtype}, line)
        for i, spec in enumerate(specs)
    ]
