"""Few and very long rows: their loops cut into chunks that threads share, one reduction after the other.

What a rows kernel does for a row in one thread becomes steps: for every reduction (or those that do not wait for each
other) partial results of chunks and their combination, then the outputs as a map. Sizes decide which of both runs.

Deliberately not here: rows with results of their own, or lookups, which stay whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.graph import Node
from gluonish.hybrid.step import Step, temp
from gluonish.kernels import column_loops, long_rows, loops
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.loops import Array, Fold, Line, Loop, Output, Pick
from gluonish.kernels.scalars import SCALARS
from gluonish.nd.size import SizeLike, product

if TYPE_CHECKING:
    from gluonish.hybrid.lower_loops import _Lowering


def may_be_cut(loop: Loop, dims: Sequence[SizeLike]) -> bool:
    """Whether this loop along rows can be cut, for some sizes."""
    if isinstance(dims[-1], int) and not long_rows.cut(1, dims[-1]):
        return False
    plain = all(isinstance(x, (Line, Fold)) and not (isinstance(x, Fold) and x.down) for x in loop.lines)
    keys = any(x.code == "key" for x in loop.inputs)
    places = any(isinstance(x, Line) and {"index", "column"} & set(x.operands) for x in loop.lines)
    halves = ({x.code for x in loop.inputs} | {o.code for o in loop.outputs}) & {"f16", "bf16"}
    full = all(not o.row for o in loop.outputs)
    return loop.rank == 2 and plain and full and not (loop.checks or keys or places or halves)


def is_cut(sizes: Sequence[int]) -> bool:
    """Whether rows of these sizes are."""
    return long_rows.cut(int(product(sizes[:-1])), sizes[-1])


@dataclass
class _Row:
    """A value of rows that is known: the node that holds it."""

    fold: Fold
    node: Node


def cut_steps(lowering: _Lowering, loop: Loop, dims: list[SizeLike], writes: list[Node]) -> list[Step]:
    """The steps that do the work of the rows kernel of this loop."""
    return _Cut(lowering, loop, dims, writes).run()


class _Cut:
    def __init__(self, lowering: _Lowering, loop: Loop, dims: list[SizeLike], writes: list[Node]) -> None:
        self.lowering, self.loop, self.dims, self.writes = lowering, loop, dims, writes
        self.known: list[_Row] = []
        self.steps: list[Step] = []

    def run(self) -> list[Step]:
        """All steps."""
        waiting = long_rows.levels(self.loop)
        while waiting:
            folds = waiting.pop(0)
            pair = long_rows.exponentials(self.loop, folds[0]) if len(folds) == 1 else None
            if pair is not None and waiting and waiting[0] == [pair]:
                waiting.pop(0)
                self._exponentials(folds[0], pair)
            else:
                self._folds(folds)
        loop = self._part(self.loop.lines, self.loop.outputs, "map")
        self._step(loops.map_kernel(loop), loop, self.writes, loops.map_plan)
        for step in self.steps:
            step.when = is_cut
        return self.steps

    def _part(self, lines: Sequence[Any], outputs: tuple[Output, ...], kind: str, more: Sequence[Fold] = ()) -> Loop:
        """The loop of a step: folds that are known by now are inputs, one number a row."""
        count = len(self.loop.inputs)
        names = {row.fold.name: f"x{count + i}" for i, row in enumerate(self.known)}
        kept = [replace(x, operands=tuple(names.get(o, o) for o in x.operands)) for x in lines if isinstance(x, Line)]
        folds = [replace(f, operand=names.get(f.operand, f.operand)) for f in more]
        needed = _needed(kept, [*(f.operand for f in folds), *(o.value for o in outputs if not more)])
        inputs = (*self.loop.inputs, *(Array(row.fold.code, (True, False)) for row in self.known))
        renamed = tuple(replace(o, value=names.get(o.value, o.value)) for o in outputs)
        name = self.loop.name.replace("rows_", f"{kind}_", 1)
        own: list[Line | Fold | Pick] = [x for x in kept if x.name in needed]
        return replace(self.loop, name=name, inputs=inputs, lines=(*own, *folds), outputs=renamed)

    def _step(self, kernel: Kernel, loop: Loop, writes: list[Node], plan: Any) -> None:
        step = self.lowering._step(kernel, loop, self.dims, writes, plan, False)
        step.reads = [*step.reads, *(row.node for row in self.known)]
        self.steps.append(step)

    def _temp(self, fold: Fold, count: Any) -> Node:
        return temp(self.writes[0], tuple(self.dims), count, np.dtype(SCALARS[fold.code].name))

    def _folds(self, folds: list[Fold]) -> None:
        loop = self._part(self.loop.lines, self.loop.outputs, "columns", folds)
        weight = loop.weight
        inner = [x for x in loop.lines if isinstance(x, Fold)]
        partials = [self._temp(f, lambda z: (_partial_count(z, weight),)) for f in inner for _ in column_loops.parts(f)]
        results = [self._temp(f, lambda z: (int(z[0]),)) for f in inner]
        self._step(column_loops.columns_kernel(loop), loop, partials, column_loops.columns_plan)

        def plan(ins: Any, outs: Any, sizes: Any) -> Plan:
            return column_loops.combine_plan(tuple(sizes), weight)

        kernel = column_loops.combine_kernel(inner)
        self.steps.append(Step(list(partials), results, kernel, plan, tuple(self.dims), nodes=self.writes))
        self.known += [_Row(f, node) for f, node in zip(folds, results, strict=True)]

    def _exponentials(self, largest: Fold, total: Fold) -> None:
        loop = self._part(self.loop.lines, self.loop.outputs, "columns", [largest, total])
        weight = loop.weight
        partials = [self._temp(largest, lambda z: (_partial_count(z, weight),)) for _ in range(2)]
        results = [self._temp(largest, lambda z: (int(z[0]),)) for _ in range(2)]
        top, summed = (x for x in loop.lines if isinstance(x, Fold))
        self._step(long_rows.exponentials_kernel(loop, top, summed), loop, partials, column_loops.columns_plan)

        def plan(ins: Any, outs: Any, sizes: Any) -> Plan:
            return Plan((column_loops.chunks_in(tuple(sizes), weight),), sizes[0])

        kernel = long_rows.combine_exponentials_kernel(top, summed)
        self.steps.append(Step(list(partials), results, kernel, plan, tuple(self.dims), nodes=self.writes))
        self.known += [_Row(largest, results[0]), _Row(total, results[1])]


def _partial_count(dims: Sequence[int], weight: int) -> int:
    return int(dims[0]) * column_loops.chunks_in(tuple(dims), weight)


def _needed(lines: Sequence[Line], names: Sequence[str]) -> set[str]:
    """Everything that these values are computed from."""
    operands = {x.name: x.operands for x in lines}
    found: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(operands.get(name, ()))
    return found
