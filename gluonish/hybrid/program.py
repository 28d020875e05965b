"""Program: a graph lowered to steps, bound to concrete sizes and run.

What depends on captured arrays alone (packed weights, folded batch norms) is computed by a program of its own, once per
version of those arrays. The rest runs at every call: a table of kernel calls that the pool's executor walks without
Python. Binding to new sizes plans memory and fills tables; it compiles nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gluonish.hybrid.bound import Bound, Kept
from gluonish.hybrid.compiling import compile_kernels
from gluonish.hybrid.dependencies import Region, regions
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Graph, Node, apply
from gluonish.hybrid.lower import lower
from gluonish.hybrid.lower_moves import copy_step, strides_of
from gluonish.hybrid.passes.batch_norm import captured_only
from gluonish.hybrid.plan import Place, aligned, last_readers
from gluonish.hybrid.remat import recompute_late
from gluonish.hybrid.step import Step
from gluonish.hybrid.together import wave_rows
from gluonish.hybrid.workspace import Workspace
from gluonish.kernels.facts import Facts
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import address_of
from gluonish.kernels.wave import WAVE
from gluonish.nd.ops.elementwise import cast
from gluonish.nd.size import Size, evaluator


class Program:
    """A compiled graph. The last `kept` outputs are values for the backward: they live in one block per call, which the
    backward's program gets as `held` and reads at the places `held_inputs` of its inputs. `steady`: captured arrays
    change rarely, so what depends on them alone is computed apart. `remat`: a backward that computes much of the
    forward again, late."""

    def __init__(
        self, graph: Graph, kept: int = 0, held_inputs: range = range(0), steady: bool = True, remat: bool = False
    ) -> None:
        self.graph = _with_own_outputs(graph)
        self.held_inputs = held_inputs
        outputs = self.graph.outputs
        self.returned, self.kept_nodes = outputs[: len(outputs) - kept], outputs[len(outputs) - kept :]
        self.fixed = captured_only(self.graph)
        self.steps = lower(self.graph, steady)
        if remat:
            self.steps = recompute_late(self.steps, {id(n) for n in self.graph.inputs[: held_inputs.start]})
        self.captured = [n for n in self.graph.leaves() if n.kind == "captured"]
        updated = [leaf for leaf, _ in self.graph.updates if leaf.kind == "captured"]
        self.captured += [leaf for leaf in updated if leaf not in self.captured]
        self.places = self._outer_places()
        self._place_updates()
        self._number_sizes()
        self.prepared = Prepared(self, steady)
        apart = {id(s) for s in self.prepared.steps}
        self.main = [s for s in self.steps if id(s) not in apart]
        self.updated = [leaf.array for leaf in updated]
        self._late = remat
        self.regions = self.regions_of(self.main)
        self._free: list[Workspace] = []  # where nothing runs now
        self.stamp = 0  # another number whenever a captured array may have got other memory
        self._lock = threading.Lock()
        self._compiled = False

    def regions_of(self, steps: Sequence[Step]) -> list[Region]:
        """Where some of these steps may run side by side."""
        if self._late:  # computing late spares memory, running side by side takes some
            return []
        return regions(steps, self.places, [s.kernel is None or bool(s.checks and self.graph.updates) for s in steps])

    # --- building -----------------------------------------------------------------------------------------------------
    def _outer_places(self) -> dict[int, Place]:
        places: dict[int, Place] = {}
        for i, node in enumerate(self.graph.inputs):
            places[id(node)] = Place("input", i)
        for i, node in enumerate(self.captured):
            places[id(node)] = Place("captured", i)
        for node in self.graph.leaves():
            if node.kind == "key":
                places[id(node)] = Place("key", 0)
        for i, node in enumerate(self.returned):
            places[id(root_of(node))] = Place("output", i)
        return places

    def _place_updates(self) -> None:
        """New values of updated arrays are written in place where nobody needs the old ones any more, else copied."""
        kept = {id(root_of(k)) for k in self.kept_nodes}
        writers, readers = _first_writers(self.steps), last_readers(self.steps)
        for leaf, value in self.graph.updates:
            root = root_of(value)
            writer = writers.get(id(root), -1)
            free = id(root) not in self.places and id(root) not in kept and writer >= 0
            over = self.steps[writer].over
            # nobody reads the old value later
            last = free and self.steps[writer].in_place and readers.get(id(leaf), -1) <= writer
            if last and (over is None or root_of(over) is leaf):
                self.places[id(root)] = self.places[id(leaf)]
            elif root is not leaf:
                strides = strides_of(leaf.shape)
                self.steps.append(copy_step(value, leaf, leaf.shape, strides, strides, node=value))

    def _number_sizes(self) -> None:
        """All symbolic sizes get one function that computes them from the symbols."""
        found: dict[str, Any] = {}

        def collect(value: Any) -> None:
            if isinstance(value, Size):
                found.setdefault(str(value), value)
            elif isinstance(value, (tuple, list)):
                for v in value:
                    collect(v)
            elif isinstance(value, slice):
                collect((value.start, value.stop, value.step))

        for node in [*self.graph.inputs, *self.graph.results()]:
            collect(node.shape)
        for step in self.steps:
            collect((step.sizes, step.extra))
            for node in (*step.reads, *step.writes):
                collect(node.shape)
                collect(root_of(node).shape)
                collect(node.attrs.get("sizes", ()))
            if step.indexed is not None:
                collect(step.indexed.inputs[1].shape)
            if step.fallback is not None:
                collect((list(step.fallback.attrs.values()), list(step.fallback.inputs)))
        symbols = next((list(v.scope.hints) for v in found.values()), [])
        self.symbol_count = len(symbols)
        self.size_names = list(found)
        self.evaluate = evaluator(found.values(), symbols) if found else None

    # --- running ------------------------------------------------------------------------------------------------------
    def run(
        self,
        data: Sequence[Any],
        sizes: tuple[int, ...],
        key: Any = None,
        held: Kept | None = None,
        into: list[Any] | None = None,
    ) -> tuple[list[np.ndarray], Kept | None]:
        """Runs the program on arrays, NumPy's or NDArrays: the outputs, and what is kept for the backward. into:
        C-contiguous arrays that the outputs are written to, instead of new ones.

        Raises: IndexError for an index out of range.
        """
        free = self._free
        try:
            space = free.pop()
        except IndexError:  # the first call, or another thread is running
            space = Workspace()
        try:
            bound = space.bounds.get(sizes) or self._bind(sizes, held, space)
            prepared = self.prepared
            if prepared.steps and not (prepared.stamp == self.stamp and prepared.same()):
                prepared.refresh()
            return bound.run(data, key, held, into)
        finally:
            free.append(space)

    def _bind(self, sizes: tuple[int, ...], held: Kept | None, space: Workspace) -> Bound:
        if not self._compiled:
            compile_kernels(self.kernels(), self.graph.name)
            self._compiled = True
        bound = Bound(self, sizes, held_layout=() if held is None else held.layout, space=space)
        space.keep(sizes, bound)
        return bound

    def kernels(self) -> list[Kernel]:
        """What must be compiled before it can run."""
        return [*(kernel for s in self.steps for kernel in s.kernels), *([WAVE] if self.regions else [])]

    def rebind(self) -> None:
        """Steps have other kernels now: tables are filled anew at the next run."""
        self._free = []  # a call that is running brings its workspace back to the old list
        self.prepared.bound = None
        self.prepared.stamp = -1

    def size_table(self, sizes: tuple[int, ...]) -> dict[str, int]:
        """The values of all symbolic sizes, by their text."""
        if self.evaluate is None:
            return {}
        return dict(zip(self.size_names, self.evaluate(*sizes[: self.symbol_count])))

    def steps_at(self, sizes: tuple[int, ...]) -> list[Step]:
        """The steps that are done at these sizes."""
        table = self.size_table(sizes)
        return [s for s in self.steps if s.asked([table[str(z)] if isinstance(z, Size) else z for z in s.sizes])]

    def explain(self) -> list[str]:
        """Lines on the steps, and on what runs slower than it could."""
        count = len(self.prepared.steps)
        main = [s for s in self.main if s.asked([z.hint if isinstance(z, Size) else z for z in s.sizes])]
        rows = [f"{len(main)} kernel calls, {count} more when a captured array changes"]
        bounds = [bound for space in self._free for bound in space.bounds.values()]
        rows += [row for bound in bounds[-1:] for row in wave_rows(bound)]
        for control in (s.control for s in self.steps if s.control is not None):
            for program in control.programs:
                rows += [f"{control.name} ({control.line}): {row}" for row in program.explain()]
        slow = [s for s in self.steps if s.fallback is not None]
        rows += [f"slower: {s.name} has no kernel and runs through NumPy ({s.fallback.line})" for s in slow]  # type: ignore[union-attr]
        return rows


class Prepared:
    """The steps that depend on captured arrays alone, run again only when one of those changes."""

    def __init__(self, program: Program, steady: bool) -> None:
        self.steps: list[Step] = []
        known = {id(n) for n in program.captured if id(n) in program.fixed}
        sources: dict[int, Any] = {}
        own: dict[int, Node] = {}  # the values that these steps write
        kept = {id(root_of(n)) for n in program.kept_nodes}
        writers: dict[int, list[Step]] = {}
        for step in program.steps:
            for w in step.writes:
                writers.setdefault(id(root_of(w)), []).append(step)
        for step in program.steps if steady else ():
            roots = [root_of(r) for r in step.reads]
            targets = {id(root_of(w)) for w in step.writes}
            # a value that several steps write part by part is made here as a whole or not at all
            reads = [id(root_of(r)) for t in targets for s in writers[t] for r in s.reads]
            if (
                step.kernel is None
                or step.checks
                or not known.issuperset(reads)
                or not (reads or targets <= program.fixed)
            ):
                continue
            if not _is_static(step):
                continue
            if targets & kept or any(t in program.places for t in targets):
                continue
            self.steps.append(step)
            own |= {id(root_of(w)): root_of(w) for w in step.writes}
            known |= targets
            sources |= {id(r.array): r.array for r in roots if r.kind == "captured"}
        self.sources = list(sources.values())
        size = self._place(program, own)
        self.memory = np.empty(size + 64, np.uint8)
        self.base = -(-address_of(self.memory) // 64) * 64
        self.program = program
        self.bound: Bound | None = None
        self.facts: Facts  # the versions of the sources when the steps were run; `same` asks for them
        self.same: Callable[[], bool]
        self.stamp = -1
        self._lock = threading.Lock()

    def _place(self, program: Program, own: dict[int, Node]) -> int:
        """Gives memory that stays to the values that other steps read; the rest is gone once these steps have run."""
        apart = {id(s) for s in self.steps}
        read = {id(root_of(r)) for s in program.steps if id(s) not in apart for r in s.reads}
        size = 0
        for key, root in own.items():
            if key in read:
                program.places[key] = Place("prepared", size)
                size += aligned(max(1, _static_bytes(root)))
        return size

    def refresh(self) -> None:
        """Runs the steps if an array they read has changed."""
        with self._lock:
            stamp, versions = self.program.stamp, [a._version[0] for a in self.sources]
            if stamp == self.stamp and self.same():  # another thread was quicker, and may be reading already
                return
            if self.bound is None:
                self.bound, self.facts = Bound(self.program, (), prepared=True), Facts()
                for a in self.sources:
                    self.facts.item(a._version)
                self.same = self.facts.question()
            self.bound.stamp = -1
            self.bound.run([], None)
            self.facts.renew(versions)
            self.stamp = stamp


def _first_writers(steps: list[Step]) -> dict[int, int]:
    """id of a value's root -> the first step that writes it."""
    out: dict[int, int] = {}
    for number, step in enumerate(steps):
        for node in step.writes:
            out.setdefault(id(root_of(node)), number)
    return out


def _is_static(step: Step) -> bool:
    """Whether a step is the same for all sizes of the arguments."""
    shapes = [n.attrs["sizes"] if n.kind == "temp" else n.shape for n in (*step.reads, *step.writes)]
    return all(isinstance(size, int) for sizes in (step.sizes, step.extra, *shapes) for size in sizes)


def _static_bytes(node: Node) -> int:
    shape = node.attrs["shape"](node.attrs["sizes"]) if node.kind == "temp" else node.shape
    count = node.dtype.itemsize
    for size in shape:
        count *= size
    return count


def _with_own_outputs(graph: Graph) -> Graph:
    """Every output has memory of its own: copies where two share it, or where it belongs to an argument. So has the
    new value of an updated array that was an array itself: another update may be about to change that one."""
    seen: set[int] = set()
    outputs = []
    for node in graph.outputs:
        root = root_of(node)
        if root.kind != "op" or id(root) in seen:
            node = root = apply(cast, (node,), {"dtype": node.dtype}, node.line)
        seen.add(id(root))
        outputs.append(node)
    updates = [
        (leaf, value if root_of(value).kind == "op" else apply(cast, (value,), {"dtype": value.dtype}, value.line))
        for leaf, value in graph.updates
    ]
    return Graph(graph.inputs, outputs, updates, graph.name)
