"""Lowering of control flow: a body becomes a program of its own, which the program around it calls once a step.

Arrays that the program has captured stay captured in the bodies' programs, so that weights are packed once and not in
every step. The calls are made by Python, between the program's own kernel calls, for about a microsecond a step.

Deliberately not here: what the ops mean (`control.py`), how they are traced (`loops.py`, `branch.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gluonish.hybrid.control import Body, LoopShape, roll
from gluonish.hybrid.graph import Graph, Node, replaced
from gluonish.hybrid.passes import run_passes
from gluonish.hybrid.program import Program
from gluonish.hybrid.step import Step


def lower_control(node: Node, parts: Sequence[Node], updated: set[int]) -> list[Step]:
    """The step of a loop or a branch. parts: those of its results that are wanted; updated: ids of captured arrays that
    the program around it changes."""
    wanted = sorted(parts, key=lambda n: n.attrs["index"])
    control = (LoopStep if node.is_op("loop") else BranchStep)(node, [n.attrs["index"] for n in wanted], updated)
    sizes = (node.attrs["length"],) if node.is_op("loop") else ()
    return [Step(control.reads, list(wanted), control=control, sizes=sizes, nodes=[node])]


def _program(
    body: Body, operands: Sequence[Node], results: Sequence[int], updated: set[int]
) -> tuple[Program, list[int]]:
    """The program of a body, and which operands it still takes: captured arrays it has by itself."""
    graph = body.graph
    known = {
        id(leaf): node
        for leaf, node in zip(graph.inputs, operands)
        if node.kind == "captured" and id(node) not in updated
    }
    taken = [i for i, leaf in enumerate(graph.inputs) if id(leaf) not in known]
    outputs = replaced([graph.outputs[i] for i in results], known)
    own = Graph([graph.inputs[i] for i in taken], outputs, [], graph.name)
    return Program(run_passes(own)), taken


class LoopStep:
    """A loop, ready to run for any sizes."""

    def __init__(self, node: Node, wanted: list[int], updated: set[int]) -> None:
        shape: LoopShape = node.attrs["shape"]
        self.name = "loop"
        self.line = node.line
        used = [i for i in wanted if i < shape.outputs]
        results = [*used, *range(shape.outputs, shape.outputs + shape.states)]
        first = int(shape.counted)
        moving = shape.data + shape.states
        operands = [*[Node("input", n.spec) for n in node.parents[first : first + moving]]]
        operands += node.parents[first + moving :]
        self.program, taken = _program(node.attrs["body"], operands, results, updated)
        self.programs = [self.program]
        self.reads = [*node.parents[:first], *(node.parents[first + i] for i in taken)]
        self.shape = LoopShape(shape.data, shape.states, len(used), shape.reverse, shape.while_true, shape.counted)
        self.ends = [(len(used) + k, i - shape.outputs) for k, i in enumerate(wanted[len(used) :])]

    def run(self, reads: list[np.ndarray], writes: list[np.ndarray], sizes: tuple[int, ...], length: int) -> None:
        """All steps of the loop, from `reads` into `writes`."""
        shape = self.shape
        begin = int(shape.counted) + shape.data
        states = reads[begin : begin + shape.states]
        spare = [[np.empty_like(s) for s in states] for _ in range(2)]
        program = self.program

        def step(arrays: list[Any], into: Any) -> list[Any]:
            return program.run(arrays, sizes, into=into)[0]

        last, done = roll(step, shape, length, reads, writes[: shape.outputs], spare)
        for place, state in self.ends:
            writes[place][...] = done if state == shape.states else last[state]


class BranchStep:
    """A branch, ready to run for any sizes."""

    def __init__(self, node: Node, wanted: list[int], updated: set[int]) -> None:
        self.name = "cond"
        self.line = node.line
        operands = node.parents[1:]
        self.reads = node.parents
        made = [_program(node.attrs[name], operands, wanted, updated) for name in ("then", "otherwise")]
        self.programs = [program for program, _ in made]
        self.taken = [taken for _, taken in made]

    def run(self, reads: list[np.ndarray], writes: list[np.ndarray], sizes: tuple[int, ...], length: int) -> None:
        """Runs one of the bodies, from `reads` into `writes`."""
        chosen = int(not reads[0])
        self.programs[chosen].run([reads[1 + i] for i in self.taken[chosen]], sizes, into=writes)
