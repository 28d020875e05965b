"""StepRun: a program run one step at a time, its memory looked at in between.

The same kernels on the same memory as in an ordinary run, but each in a call of its own; who asks sees every value
right after it was written. Deliberately not here: what is looked for (`verify.py`, `timing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gluonish.hybrid.bound import ROW, Bound, Kept, in_order
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Node
from gluonish.hybrid.program import Program
from gluonish.hybrid.step import Step
from gluonish.kernels.entry import entry
from gluonish.kernels.pointers import address_of


class StepRun:
    """A run of a program at concrete sizes on concrete arrays; `run` may be asked several times.

    prepared: of the steps that depend on captured arrays alone.
    """

    def __init__(
        self,
        program: Program,
        data: Sequence[Any],
        sizes: tuple[int, ...],
        key: Any = None,
        held: Kept | None = None,
        prepared: bool = False,
    ) -> None:
        self.program = program
        if program.prepared.steps:
            program.prepared.refresh()
        self.bound = Bound(program, sizes, prepared, () if held is None else held.layout)
        self.data = [in_order(x) for x in data]
        self.outputs = [np.empty(shape, dtype) for shape, dtype in self.bound.returned]
        self.kept = Kept(self.bound.kept_size, self.bound.kept_layout) if self.bound.kept_layout else None
        self.key, self.held = key, held
        self.works = [(step, self._work(number)) for number, step in enumerate(self.bound.steps)]

    def _work(self, number: int) -> Callable[..., Any]:
        """What runs one step."""
        bound, step = self.bound, self.bound.steps[number]
        if step.kernel is None:
            evaluate = bound._numpy(step.fallback)  # type: ignore[arg-type]
            return lambda: evaluate(self.data, self.outputs, self.kept, self.key, self.held)
        row = sum(s.kernel is not None for s in bound.steps[:number])
        return entry(address_of(bound.table) + (row + 1) * ROW * 8, 1, address_of(bound.objects))

    def run(self) -> Iterator[tuple[Step, Callable[[], Any]]]:
        """Each step with the function that runs it, which the caller calls."""
        bound = self.bound
        for slots, base in ((bound.kept_slots, self.kept), (bound.held_slots, self.held)):
            for slot in slots:
                assert base is not None
                bound.slots[slot] = base.base
        copies = bound._point_to_captured()
        for slot in bound.key_slots:
            bound.slots[slot] = id(self.key)
        entry(address_of(bound.table), 1, address_of(bound.objects))(*self.data, *self.outputs)
        yield from self.works
        bound.errors[:] = 0
        for original, copy in copies:
            if any(original is array._data for array in bound.updated):
                original[...] = copy

    def value(self, node: Node) -> np.ndarray:
        """What stands in the memory of a node now; to be copied before the next step runs."""
        return np.asarray(self.bound._array(node, self.data, self.outputs, self.kept, self.key, self.held))

    def place(self, node: Node) -> Any:
        """Where a node's memory is."""
        return self.bound.places[id(root_of(node))]
