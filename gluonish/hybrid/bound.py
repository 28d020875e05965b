"""Bound: a program at concrete sizes, ready to run: memory planned, arguments filled in, table of calls built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from sys import getrefcount
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.dependencies import Region
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Node, concrete
from gluonish.hybrid.plan import Place, aligned, plan_arena
from gluonish.hybrid.step import Step, worth_sharing
from gluonish.hybrid.together import found_waves, with_waves, within_memory
from gluonish.hybrid.waves import Wave
from gluonish.hybrid.workspace import Workspace, block
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.pointers import OBJECT, RESOLVE, address_of
from gluonish.nd.array import NDArray
from gluonish.nd.ops.gather import out_of_range
from gluonish.nd.size import Size, product

if TYPE_CHECKING:
    from gluonish.hybrid.program import Program

ROW = 4  # words of a table row: function, arguments, tiles, share
ALONE = 64  # short kernel calls in a row that keep the GIL
RECYCLED = 1 << 18  # bytes of an output from which on its memory is used again
Layout = Sequence[tuple[tuple[int, ...], np.dtype, int]]  # shape, dtype and offset of each kept value
empty = np.empty


def _whole_lines(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """An array that begins with a cache line, and the memory that it is a view of."""
    count = prod(shape) * dtype.itemsize
    memory, base = block(count)
    begin = base - address_of(memory)
    return memory[begin : begin + count].view(dtype).reshape(shape), memory


class Kept:
    """Memory of what one call keeps for its backward, and the layout of it."""

    __slots__ = ("memory", "base", "layout")

    def __init__(self, count: int, layout: Layout) -> None:
        self.memory, self.base = block(count)
        self.layout = layout


class Recycler:
    """Output arrays that are used again once nobody else refers to them: fresh memory costs a page fault every 4 KB.

    Holds at most two arrays for an output: who keeps a result until the next one is there (`y = net(x)` in a loop, a
    gradient) has them in turns. Views, and whatever else was made of an array, keep a reference to it or to its memory.
    Arrays begin with a cache line: else each vector stored touches two, 5 % of the time of a first layer.
    """

    def __init__(self, returned: Sequence[tuple[tuple[int, ...], np.dtype]]) -> None:
        self.returned = returned
        self.last: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in returned]

    def take(self) -> list[np.ndarray]:
        """Arrays for the outputs of one run."""
        taken = []
        for held, (shape, dtype) in zip(self.last, self.returned):
            for i in range(len(held)):
                # only `held` and the question refer to the array, and to its memory no view but the array itself
                if getrefcount(held[i][0]) == 2 and getrefcount(held[i][1]) == 3:
                    held.append(held.pop(i))
                    break
            else:
                if len(held) > 1:
                    del held[0]
                held.append(_whole_lines(shape, dtype))
            taken.append(held[-1][0])
        return taken


class Bound:
    """See the module docstring. Used by one call at a time; the program keeps several where threads overlap.

    held_layout: the `kept_layout` of the forward, for a backward. space: where it runs; alone it has memory of its own.
    planned_only: no memory, no kernels; to be looked at.
    """

    def __init__(
        self,
        program: Program,
        sizes: tuple[int, ...],
        prepared: bool = False,
        held_layout: Layout = (),
        space: Workspace | None = None,
        planned_only: bool = False,
    ) -> None:
        self.program = program
        self.sizes = sizes
        self.held_layout = held_layout
        self.table_of_sizes = program.size_table(sizes) if not prepared else {}
        steps = program.prepared.steps if prepared else program.main
        self.steps: list[Step] = [s for s in steps if s.asked([self.number(size) for size in s.sizes])]
        self.numbers: dict[int, tuple[int, ...]] = {}
        self.kept: list[Kept] = []  # of the last calls
        self.inputs = 0 if prepared else len(program.graph.inputs)
        self.captured_data: list[Any] = [None] * len(program.captured)
        self.stamp = -1
        self.checked = any(step.checks for step in self.steps)
        self.updated = [] if prepared else program.updated
        self.updates = not prepared and bool(program.graph.updates)
        self._lay_out_results([] if prepared else program.returned, [] if prepared else program.kept_nodes)
        whole = len(self.steps) == len(program.main)
        self._plan(() if prepared else program.regions if whole else program.regions_of(self.steps))
        if not planned_only:
            self.arena, self.arena_base = (space or Workspace()).room(self.arena_size)
            self._fill()

    # --- sizes --------------------------------------------------------------------------------------------------------
    def number(self, size: Any) -> Any:
        """A size as a number."""
        return self.table_of_sizes[str(size)] if isinstance(size, Size) else size

    def shape(self, node: Node) -> tuple[int, ...]:
        """A node's shape in numbers."""
        found = self.numbers.get(id(node))
        if found is None:
            if node.kind == "temp":
                found = tuple(node.attrs["shape"]([self.number(s) for s in node.attrs["sizes"]]))
            else:
                found = tuple([self.number(s) for s in node.shape])
            self.numbers[id(node)] = found
        return found

    def bytes_of(self, node: Node) -> int:
        """A node's size in memory."""
        count = node.dtype.itemsize
        for size in self.shape(node):
            count *= size
        return int(count)

    # --- layout -------------------------------------------------------------------------------------------------------
    def _lay_out_results(self, returned: Sequence[Node], kept: Sequence[Node]) -> None:
        self.returned = [(self.shape(n), n.dtype) for n in returned]
        large = any(self.bytes_of(n) >= RECYCLED for n in returned)
        self.recycler = Recycler(self.returned) if large else None
        self.kept_layout: list[tuple[tuple[int, ...], np.dtype, int]] = []
        self.kept_places: dict[int, Place] = {}
        offset = 0
        for node in kept:
            self.kept_layout.append((self.shape(node), node.dtype, offset))
            self.kept_places[id(root_of(node))] = Place("kept", offset)
            offset += aligned(self.bytes_of(node))
        self.kept_size = offset

    def _plan(self, regions: Sequence[Region]) -> None:
        self.plans: list[Plan | None] = []
        self.kernels: list[Kernel | None] = []
        for step in self.steps:
            self.kernels.append(step.chosen([self.number(s) for s in step.sizes]) if step.kernel is not None else None)
            if step.kernel is None:
                self.plans.append(None)
                continue
            ins, outs = [self.shape(n) for n in step.reads], [self.shape(n) for n in step.writes]
            assert step.plan is not None
            self.plans.append(step.plan(ins, outs, [self.number(s) for s in step.sizes]))
        scratch = [p.scratch if p is not None else 0 for p in self.plans]
        places = {**self.kept_places, **self.program.places}

        def planned(waves: Sequence[Wave]) -> Any:
            return plan_arena(self.steps, places, self.bytes_of, scratch, [wave.region for wave in waves])

        self.waves, (self.places, self.scratch_at, self.arena_size) = within_memory(found_waves(self, regions), planned)
        # steps that run side by side note errors apart, so that the first one in the program is told
        apart = [n for wave in self.waves for n in wave.region if self.steps[n].checks]
        self.cells = {number: i + 1 for i, number in enumerate(apart)}
        self.errors = np.zeros(4 * (1 + len(apart)), np.int64)

    def _fill(self) -> None:
        """Arguments of all steps in one array, and a row of the table for each step."""
        words: list[int] = []
        rows: list[tuple[int, int, int, int]] = []
        self.outer: dict[tuple[str, int], list[int]] = {}  # where addresses go that differ per call
        self.parts: list[Any] = []  # (first row, rows) or a function to call between
        self.shared: list[bool] = []
        begun = 0
        for number, (step, plan) in enumerate(zip(self.steps, self.plans)):
            if step.kernel is None:
                call = self._numpy(step.fallback) if step.control is None else self._control(step)  # type: ignore[arg-type]
                self.parts += [(begun, len(rows)), call]
                begun = len(rows)
                continue
            assert plan is not None
            start = len(words)
            for node in (*step.reads, *step.writes):
                words.append(self._pointer(node, len(words)))
            if step.checks:
                words.append(address_of(self.errors) + 32 * self.cells.get(number, 0))
            words.append(self.arena_base + self.scratch_at[number] if plan.scratch else 0)
            words += [int(v) for v in plan.scalars]
            words += [int(self.number(s)) for s in step.extra]
            if step.checks:
                words.append(number)
            self.shared.append(self.long(step, plan))
            kernel = self.kernels[number]
            assert kernel is not None
            rows.append((kernel.address, start, plan.tiles, int(plan.tiles > 1 and self.shared[-1])))
            if step.checks and self.updates:  # nothing may be updated by what comes of a wrong index
                self.parts += [(begun, len(rows)), self._stop_if_wrong]
                begun = len(rows)
        self.parts.append((begun, len(rows)))
        self.words = np.array(words or [0], np.int64)
        self._build_table(rows)

    def _build_table(self, rows: list[tuple[int, int, int, int]]) -> None:
        """The table of calls; its first row resolves the addresses of this call's arrays."""
        base = address_of(self.words)
        slots = self._number_slots()
        entries = []
        for place, spots in self.outer.items():
            how = place[1] if place[0] in ("kept", "held") else OBJECT
            entries += [(slots[place], base + 8 * spot, how) for spot in spots]
        self.entries = np.array(entries or [(0, 0, 0)], np.int64)
        self.resolve_words = np.array([address_of(self.objects), address_of(self.entries), len(entries)], np.int64)
        first = (RESOLVE.address, address_of(self.resolve_words), 1, 0)
        self.table = np.array([first, *((f, base + 8 * a, t, s) for f, a, t, s in rows)], np.int64)
        # what runs is a table of its own where there are waves, with one row for each; `moved` says where rows went.
        # `table` has every step by itself, for timing, verify and replace
        self.run_table, self.moved = self.table, list(range(len(rows) + 2))
        if self.waves:
            row_of = list(accumulate((s.kernel is not None for s in self.steps), initial=0))
            self.run_table, self.moved, self.wave_tables = with_waves(self.table, self.waves, row_of)
            for wave in self.waves:
                self.shared[row_of[wave.region.first]] = True
        self.calls = [call for part in self.parts if (call := self._call(part, rows)) is not None]

    def _number_slots(self) -> dict[tuple[str, int], int]:
        """Where in the list of objects each array is: a call's inputs, its outputs, then what it finds itself."""
        slots = {("input", i): i for i in range(self.inputs)}
        slots |= {("output", i): len(slots) + i for i in range(len(self.returned))}
        slots |= {place: len(slots) + i for i, place in enumerate(p for p in self.outer if p not in slots)}
        self.objects = np.zeros(len(slots) + 1, np.int64)
        self.slots = memoryview(self.objects)  # type: ignore[arg-type]  # an array has a buffer; its stubs forget it
        self.captured_slots = [(slots[place], place[1]) for place in self.outer if place[0] == "captured"]
        self.kept_slots, self.held_slots, self.key_slots = (
            [slots[place] for place in self.outer if place[0] == area] for area in ("kept", "held", "key")
        )
        return slots

    def _call(self, part: Any, rows: list[tuple[int, int, int, int]]) -> Any:
        """What runs a part: a function that evaluates one op with NumPy, or [an entry]."""
        if callable(part):
            return part
        begin, end = part
        first = begin == 0  # the resolving row goes before it; row numbers of the others move on by one
        if begin == end and not first:
            return None
        place = 0 if first else self.moved[begin + 1]
        release = end - begin > ALONE or any(self.shared[begin:end])
        count = self.moved[end + 1] - place
        return [entry(address_of(self.run_table) + place * ROW * 8, count, address_of(self.objects), release)]

    def long(self, step: Step, plan: Plan) -> bool:
        """Whether threads should share a step."""
        if step.work is None:
            return True
        return worth_sharing(step.work([self.shape(n) for n in step.reads], [self.shape(n) for n in step.writes], plan))

    def _pointer(self, node: Node, spot: int) -> int:
        place = self.places[id(root_of(node))]
        if place.area == "arena":
            return self.arena_base + place.at
        if place.area == "prepared":
            return self.program.prepared.base + place.at
        if place.area == "input" and place.at in self.program.held_inputs:
            place = Place("held", self.held_layout[place.at - self.program.held_inputs.start][2])
        self.outer.setdefault((place.area, place.at), []).append(spot)
        return 0

    # --- running ------------------------------------------------------------------------------------------------------
    def run(
        self, data: Sequence[Any], key: Any, held: Kept | None = None, into: list[Any] | None = None
    ) -> tuple[list[np.ndarray], Kept | None]:
        """Runs all steps; see `Program.run`."""
        slots = self.slots
        if len(self.calls) > 1:  # Python runs in between, and a thread may give an NDArray other memory then
            data = [in_order(x) for x in data]
        if into is not None:
            outputs = into
        elif self.recycler is None:
            outputs = []
            for shape, dtype in self.returned:  # no comprehension: it would cost as much as the array
                outputs.append(empty(shape, dtype))
        else:
            outputs = self.recycler.take()
        kept = None
        if self.kept_layout:
            kept = self._free_memory()
            for slot in self.kept_slots:
                slots[slot] = kept.base
        if held is not None:
            for slot in self.held_slots:
                slots[slot] = held.base
        copies = None
        if self.stamp != self.program.stamp:
            copies = self._point_to_captured()
        if key is not None:
            for slot in self.key_slots:
                slots[slot] = id(key)
        try:
            for call in self.calls:
                if type(call) is not list:
                    call(data, outputs, kept, key, held)
                elif call[0](*data, *outputs) is False:  # the first call, which has done nothing
                    data = [in_order(x) for x in data]
                    call[0](*data, *outputs)
        except BaseException:
            self.errors[:] = 0  # the next run begins anew
            raise
        finally:
            for array in self.updated:  # whatever happened, they may have changed
                array._version[0] += 1
        if copies:
            for original, copy in copies:
                if any(original is array._data for array in self.updated):
                    original[...] = copy
        if self.checked and (self.errors[0] or (self.cells and self.errors.any())):
            self._raise()
        return outputs, kept

    def _free_memory(self) -> Kept:
        """Memory to keep values in: that of an earlier call if nobody needs it any more."""
        for i in range(len(self.kept)):
            if getrefcount(self.kept[i]) == 2:  # that of the list, and that of the question
                return self.kept[i]
        kept = Kept(self.kept_size, self.kept_layout)
        self.kept.append(kept)
        if len(self.kept) > 4:
            del self.kept[0]
        return kept

    def _point_to_captured(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Looks where the captured arrays lie now; gives those not contiguous, with their copies for this run."""
        copies = []
        self.stamp = self.program.stamp
        for slot, at in self.captured_slots:
            x = self.program.captured[at].array._data
            self.captured_data[at] = x  # alive as long as its address is in use
            if not x.flags.c_contiguous:
                copies.append((x, np.ascontiguousarray(x)))
                x = copies[-1][1]
                self.stamp = -1  # copied anew each time
            self.slots[slot] = id(x)
        return copies

    def _stop_if_wrong(self, *arrays: Any) -> None:
        if self.errors.any():
            self._raise()

    def _raise(self) -> None:
        noted = [cell for cell in self.errors.reshape(-1, 4).tolist() if cell[0]]
        number, position, value, size = min(noted)
        self.errors[:] = 0
        step = self.steps[number - 1]
        indexed = step.indexed or step.nodes[0]
        indices = indexed.inputs[min(1, len(indexed.inputs) - 1)]
        place = tuple(int(i) for i in np.unravel_index(position, self.shape(indices)))
        raise out_of_range(step.checks, place, value, size, indexed.line)

    def _numpy(self, node: Node) -> Callable[..., None]:
        """A function that evaluates one op with NumPy on the program's memory."""
        assert node.op is not None
        forward = node.op.forward
        attrs = {k: concrete(v, self.number) for k, v in node.attrs.items()}

        def evaluate(data: Any, outputs: Any, kept: Any, key: Any, held: Any) -> None:
            def array(x: Any) -> Any:
                return self._array(x, data, outputs, kept, key, held) if isinstance(x, Node) else self.number(x)

            array(node)[...] = forward(*[array(x) for x in node.inputs], **attrs)

        return evaluate

    def _control(self, step: Step) -> Callable[..., None]:
        """A function that runs a loop or branch on the program's memory."""
        control = step.control
        length = self.number(step.sizes[0]) if step.sizes else 0

        def run(data: Any, outputs: Any, kept: Any, key: Any, held: Any) -> None:
            for program in control.programs:
                program.stamp = self.program.stamp
            reads = [self._array(n, data, outputs, kept, key, held) for n in step.reads]
            writes = [self._array(n, data, outputs, kept, key, held) for n in step.writes]
            reads = [x if x.flags.c_contiguous else np.ascontiguousarray(x) for x in reads]
            control.run(reads, writes, self.sizes, length)

        return run

    def _array(self, node: Node, data: Any, outputs: Any, kept: Any, key: Any, held: Any) -> np.ndarray:
        place = self.places[id(root_of(node))]
        shape = self.shape(node)
        if place.area == "input":
            if place.at in self.program.held_inputs:
                offset = self.held_layout[place.at - self.program.held_inputs.start][2]
                return np.ndarray(shape, node.dtype, held.memory, held.base - address_of(held.memory) + offset)
            return _begin(in_order(data[place.at]), shape)
        if place.area == "output":
            return _begin(outputs[place.at], shape)
        if place.area == "captured":
            return _begin(self.program.captured[place.at].array._data, shape)
        if place.area == "key":
            return key
        areas: dict[str, tuple[np.ndarray, int]] = {
            "arena": (self.arena, self.arena_base),
            "prepared": (self.program.prepared.memory, self.program.prepared.base),
        }
        memory, base = (kept.memory, kept.base) if place.area == "kept" else areas[place.area]
        return np.ndarray(shape, node.dtype, memory, base - address_of(memory) + place.at)


def in_order(x: Any) -> Any:
    """A NumPy array in C order with the values of an array, itself where that is possible; None is None."""
    return None if x is None else np.asarray(x._data if isinstance(x, NDArray) else x, order="C")


def _begin(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array's memory in another shape, perhaps without its end."""
    count = product(shape)
    return x.reshape(shape) if x.size == count else x.reshape(-1)[:count].reshape(shape)
