"""Variant: one trace of a function with its guards and its compiled programs, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.bound import in_order
from gluonish.hybrid.compiling import Pending
from gluonish.hybrid.gradient import cut
from gluonish.hybrid.graph import Graph, Node, TraceError, check_closed, ordered
from gluonish.hybrid.guards import Argument, Captured, matcher, wants
from gluonish.hybrid.lower_attention import written_out
from gluonish.hybrid.names import Names
from gluonish.hybrid.numerics import precision
from gluonish.hybrid.passes import run_passes
from gluonish.hybrid.prints import Print
from gluonish.hybrid.program import Program
from gluonish.hybrid.trace import Trace, tracing
from gluonish.hybrid.verify import Verified, verified_gradients
from gluonish.kernels.facts import Facts
from gluonish.kernels.pointers import address_of
from gluonish.nd import autograd, collector, dispatch, random
from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_float
from gluonish.nd.op import Op, Spec
from gluonish.nd.size import checker, evaluator
from gluonish.nd.tree import flatten, unflatten

if TYPE_CHECKING:
    from gluonish.hybrid.function import CompiledFunction


class Variant:
    """One trace. `mode` is (structure of the arguments, training, recording, precision)."""

    def __init__(self, owner: CompiledFunction, mode: Any, arrays: Sequence[NDArray], trace: Trace) -> None:
        self.owner = owner
        self.mode = mode
        self.reason = ""
        self.recording = mode[2] or trace.recorded
        self.captured = list(trace.originals.values())
        # what the call itself updates is no input of its backward, which reads a kept copy
        self.on_tape = [a for a in self.captured if id(a._data) not in trace.writes.updated]
        self._sizes(trace, arrays)
        self.blocks = trace.blocks
        self.count_blocks = evaluator([trace.blocks], self.symbols)
        self.draws = trace.key is not None
        self.reads: Any = None
        self.names = Names()
        self.seen_changes = -1
        self.watch: Any = None
        self.traced: Graph
        self.optimised: Graph
        self.program: Program
        self.instead: Callable[[Sequence[NDArray], tuple[int, ...]], Any] | None = None  # of running the program
        self.refused = ""  # why calls run eagerly for good
        self.log: list[tuple[Op, Node]] = []
        self.backward: Backward | None = None
        self.structure: Any = None
        self.single = False
        self.heads: list[int] = []
        self.values_read = trace.read
        self.each_run = trace.each_run
        self.deliveries: list[NDArray | int] = []  # whose gradients the function itself computed
        self.written: list[int] = []  # arguments that it assigned to: their values are among the outputs
        self.in_place: list[int] = []  # the same, but the program writes to their memory
        self.prints: list[Print] = []
        self.differentiable: list[bool] = []
        self.relied: list[NDArray] = []  # arrays that the call updates and whose values before it decide its results

    def _sizes(self, trace: Trace, arrays: Sequence[NDArray]) -> None:
        self.scope = trace.sizes
        self.symbols = list(trace.sizes.hints)
        self.guards = list(trace.sizes.guards.values())
        wanted = [wants(x) if self.recording else None for x in arrays]
        self.arguments = [Argument(a.shape, a.dtype, w) for a, w in zip(trace.arguments, wanted)]
        self.found = Captured(self.captured, self.recording, self._moved)
        self.match = matcher(self.arguments, self.guards, self.symbols, self.found)

    # --- guards -------------------------------------------------------------------------------------------------------
    def fits(self, arrays: Sequence[NDArray]) -> Any:
        """The sizes of a call if the trace is valid for it now, else None."""
        sizes = self.match(arrays)
        if sizes is None or not self._attributes_hold():
            return None
        for work in self.each_run:
            if not work.holds():
                return None
        if self.names.names and not self.names.hold():
            return None
        return sizes if not self.values_read or self._values_hold() else None

    def note(self, facts: Facts) -> list[Callable[[], bool]] | None:
        """Notes what `fits` looks at beside the arguments. Gives the questions that are asked all the same, or None
        where there is no way around `fits`."""
        if not self.found.note(facts):
            return None
        for array, _, _ in self.values_read:
            facts.slot(array, "_data")
            facts.item(array._version)
        questions = [work.holds for work in self.each_run] + self.names.note(facts)
        if self.reads is not None:
            facts.item(self.watch.latest)
            questions += [self.reads.hold] if self.reads.volatile else []
        return questions

    def _values_hold(self) -> bool:
        return all(a._version[0] == version and a._data is data for a, version, data in self.values_read)

    def _attributes_hold(self) -> bool:
        if self.reads is None:
            return True
        now = self.watch.changes()
        if now == self.seen_changes and not self.reads.volatile:
            return True
        if not self.reads.hold():
            return False
        self.seen_changes = now
        return True

    def _moved(self) -> None:
        """A captured array has other memory now."""
        self.program.stamp += 1
        if self.backward is not None and self.backward.ready is not None:
            self.backward.ready.stamp += 1

    def misfit(self, arrays: Sequence[NDArray]) -> str:
        """Why these arguments do not fit, in words."""
        symbols: dict[str, int] = {}
        for i, (x, argument) in enumerate(zip(arrays, self.arguments)):
            if x.ndim != len(argument.shape):
                return f"argument {i} has {x.ndim} dimensions, not {len(argument.shape)}"
            if x.dtype != argument.dtype:
                return f"argument {i} is {x.dtype}, not {argument.dtype}"
            if argument.wanted is not None and wants(x) != argument.wanted:
                return f"argument {i} {'wants' if wants(x) else 'does not want'} a gradient"
            for axis, (size, expected) in enumerate(zip(x.shape, argument.shape)):
                if isinstance(expected, int) and size != expected:
                    return f"size {size} of argument {i}, dimension {axis}, was {expected}"
                if not isinstance(expected, int) and size == 0:
                    return f"size {size} of argument {i}, dimension {axis}"
                symbols[str(expected)] = size
        sizes = [symbols[s] for s in self.symbols]
        for guard in self.guards:
            if not checker([guard], self.symbols)(*sizes):
                return f"a size on which Python branched: {guard} no longer holds"
        if self.reads is not None and not self.reads.hold():
            return f"attribute changed: {self.reads.changed()}"
        if not self.names.hold():
            return f"changed: {self.names.changed()}"
        if not all(work.holds() for work in self.each_run):
            return "what Python does at each run has changed"
        if not self._values_hold():
            return "the values of an array that Python read have changed"
        return "a captured array has another shape or dtype, or wants a gradient now"

    # --- calls --------------------------------------------------------------------------------------------------------
    def call(self, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Any:
        """Runs the forward program, or what stands in for it."""
        return self.run(arrays, sizes) if self.instead is None else self.instead(arrays, sizes)

    def run(self, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Any:
        """Runs the forward program; under recording, notes the call on the tape."""
        key = random.default.reserve(self.count_blocks(*sizes)[0]) if self.draws else None
        if self.each_run:
            for work in self.each_run:
                work.before()
        was = [a._data.copy() for a in self.relied] if self.relied else ()
        if self.in_place:
            results, kept = self._run_in_place(arrays, sizes, key)
        else:
            results, kept = self.program.run(arrays, sizes, key)
        outputs = []
        for data in results:  # no comprehension: it would cost as much as the array
            outputs.append(NDArray(data))
        if self.deliveries or self.written or self.prints:
            self._deliver(arrays, outputs, sizes)
        if self.each_run:
            for work in self.each_run:
                work.after()
        if self.backward is not None:
            note_call(Call(self, sizes, kept, key, arrays, was), outputs, self.differentiable)
        return outputs[0] if self.single else unflatten(self.structure, iter(outputs))

    def _run_in_place(self, arrays: Sequence[NDArray], sizes: tuple[int, ...], key: Any) -> Any:
        """Runs the program where it writes to arguments."""
        data = [in_order(x) for x in arrays]
        try:
            apart(data, self.in_place)
            return self.program.run(data, sizes, key)
        finally:  # whatever happened, they may have changed
            for position in self.in_place:
                taken_back(arrays[position], data[position])

    def _deliver(self, arrays: Sequence[NDArray], outputs: list[NDArray], sizes: tuple[int, ...]) -> None:
        """Hands out gradients and the values of arguments that the function assigned to; prints what it printed."""
        values = iter(outputs[len(self.differentiable) :])
        for whose in self.deliveries:
            original = arrays[whose] if isinstance(whose, int) else whose
            original._grad.receive(next(values))  # type: ignore[union-attr]
        for position in self.written:
            arrays[position][:] = next(values)
        if not state.silent:
            for each in self.prints:
                each.show(values, dict(zip(self.symbols, sizes)))

    def explain(self) -> list[str]:
        """Lines on guards, fallbacks and kernels."""
        rows = [f"runs eagerly: {self.refused}"] if self.refused else []
        waits = isinstance(self.instead, Pending) and not self.instead.done.is_set()
        rows += ["runs eagerly until its kernels are compiled"] if waits else []
        rows += [f"relies on {guard}" for guard in [*self.guards, *self.names.rows()]]
        if self.symbols:
            rows.append(f"any size of: {', '.join(self._places())}")
        rows += self.program.explain() + written_out(self.optimised)
        if self.backward is not None and self.backward.ready is not None:
            rows += [f"backward: {line}" for line in self.backward.ready.explain()]
        return rows

    def arguments_and_captured(self) -> list[Any]:
        """What the targets of a backward count: for each argument None, then the captured arrays."""
        return [*(None for _ in self.arguments), *self.on_tape]

    def _places(self) -> list[str]:
        return [
            f"argument {i}, dimension {axis} ({size})"
            for i, argument in enumerate(self.arguments)
            for axis, size in enumerate(argument.shape)
            if not isinstance(size, int)
        ]


def apart(data: list[np.ndarray], written: list[int]) -> None:
    """Gives arguments that will be written to memory of their own where another argument lies in theirs."""
    ends = [(start := address_of(d), start + d.nbytes, i) for i, d in enumerate(data)]
    own = set(written)
    before = (0, 0, -1)
    for one in sorted(ends):
        if one[0] < before[1]:
            for i in {one[2], before[2]} & own:
                data[i] = data[i].copy()
        before = max(before, one, key=lambda e: e[1])


def taken_back(array: NDArray, written: np.ndarray) -> None:
    """An argument has what a program wrote, to its memory or to a copy of it."""
    if written is not array._data:
        array._data[...] = written
    array._version[0] += 1


class Backward:
    """The backward of a variant: its graph, compiled when it first runs."""

    def __init__(self, graph: Graph, held: range, targets: list[int], exactness: str, remat: bool = False) -> None:
        self.graph = graph
        self.remat = remat
        self.exactness = exactness
        self.held = held
        self.gap = [None] * len(held)  # where a run's inputs are in the forward's kept memory
        self.targets = targets  # positions among the call's inputs (arguments, then captured arrays)
        self.ready: Program | None = None

    def program(self) -> Program:
        """The compiled program."""
        if self.ready is None:
            with precision(self.exactness), collector.at_rest():  # as at the time of the forward
                self.ready = Program(self.graph, held_inputs=self.held, steady=False, remat=self.remat)
        return self.ready


class Call:
    """One recorded call: stands on the tape where an op would, and knows how to give gradients."""

    vjp = True
    __slots__ = ("variant", "sizes", "kept", "key", "arrays", "was", "specs", "eager")

    def __init__(
        self,
        variant: Variant,
        sizes: tuple[int, ...],
        kept: Any,
        key: Any,
        arrays: Sequence[NDArray],
        was: Sequence[np.ndarray],
    ) -> None:
        self.variant = variant
        self.sizes = sizes
        self.kept = kept
        self.key = key
        self.arrays = arrays
        self.was = was  # the values before the call of what the variant relies on
        self.specs: list[Spec] = []
        self.eager: list[NDArray] | None = None  # the same results by an eager run, to compare gradients with

    @property
    def name(self) -> str:
        """The function's name."""
        return self.variant.owner.name

    def gradients(self, grads: dict[int, NDArray], inputs: Any) -> list[tuple[NDArray, NDArray]]:
        """The inputs (arguments, then captured arrays) that have a gradient, each with it."""
        variant = self.variant
        backward = variant.backward
        assert backward is not None
        if state.recording or state.trace is not None:
            return self._eager_gradients(grads, inputs)
        program = backward.ready or backward.program()
        results, _ = program.run(self.backward_data(grads), self.sizes, self.key, self.kept)
        found = []
        for position, value in zip(backward.targets, results):  # no comprehension: it would cost more
            found.append((inputs[position], NDArray(value)))
        return found if self.eager is None else verified_gradients(self, grads, inputs, found)

    def backward_data(self, grads: dict[int, NDArray]) -> list[Any]:
        """The inputs of the backward program."""
        data: list[Any] = []
        for i in self.variant.heads:
            given = grads.get(i)
            data.append(np.zeros(*self.specs[i]) if given is None else given)
        return [*data, *self.variant.backward.gap, *self.arrays]  # type: ignore[union-attr]

    def _eager_gradients(self, grads: dict[int, NDArray], inputs: Any) -> list[tuple[NDArray, NDArray]]:
        """Gradients that can be differentiated again: the call is repeated eagerly, with the same random numbers."""
        variant = self.variant
        before = random.default.position
        changed = variant.program.updated
        now = [a._data.copy() for a in changed]
        for array, values in zip(variant.relied, self.was):
            array._data[...] = values
        if self.key is not None:
            random.default.position = int(self.key[1])
        try:
            args, kwargs = unflatten(variant.mode[0], iter(self.arrays))
            state.silent, silent = True, state.silent
            with autograd.record(variant.mode[1]):
                outputs: list[NDArray] = []
                flatten(variant.owner.function(*args, **kwargs), outputs)
        finally:
            state.silent = silent
            random.default.position = before
            for array, values in zip(changed, now):  # the call has updated them already, once is enough
                if not np.array_equal(array._data, values, equal_nan=is_float(array.dtype)):
                    array._version[0] += 1  # a later call has, too: a gradient that reads the array is an error
                array._data[...] = values
        # eagerly, a loop of no steps gives results that depend on nothing
        heads = [i for i in grads if wants(outputs[i])]
        wanted = [x for x in inputs if wants(x)] if heads else []
        given = [grads[i] for i in heads]
        return list(zip(wanted, autograd.grad([outputs[i] for i in heads], wanted, given, create_graph=True)))


def note_call(call: Call, outputs: list[NDArray], differentiable: list[bool]) -> None:
    """Puts a compiled call on the tape: one entry with several outputs."""
    inputs = (*call.arrays, *call.variant.on_tape)
    versions = 0
    for x in inputs:
        versions += x._version[0]
    number = next(dispatch.order)
    if len(outputs) > 1:
        call.specs = [Spec(x.shape, x.dtype) for x in outputs]
    for index, (out, wanted) in enumerate(zip(outputs, differentiable)):
        if wanted:
            out._entry = (number, call, inputs, {}, None, versions, index)


# --- tracing ----------------------------------------------------------------------------------------------------------
def trace_variant(owner: CompiledFunction, mode: Any, structure: Any, arrays: Sequence[NDArray]) -> Variant:
    """Traces the owner's function for such arguments and compiles the forward."""
    recording = mode[2]
    trace = Trace()
    watch = dispatch.watch()
    names = Names()
    names.look_into(owner.function)
    watching = watch.watching(names.look_into) if watch is not None else nullcontext()
    with tracing(trace, recording), watching as reads, _noting(reads, names):
        wanted = [wants(x) if recording else x._grad is not None for x in arrays]
        stand_ins = [trace.argument(x.spec, f"x{i}", w) for i, (x, w) in enumerate(zip(arrays, wanted))]
        args, kwargs = unflatten(structure, iter(stand_ins))
        results: list[NDArray] = []
        shape_of_results = flatten(owner.function(*args, **kwargs), results)
        results = [trace.capture(r) for r in results]
        differentiable = [recording and is_float(r.dtype) and wants(r) for r in results]
        heads, gradients = _trace_backward(trace, results, differentiable) if any(differentiable) else ([], [])
    written = trace.writes.arguments
    in_place = {} if gradients else written  # a backward reads arguments as they were
    deliveries = [v for _, v in trace.deliveries] + ([] if in_place else list(written.values()))
    deliveries += [a for each in trace.prints for a in each.arrays]
    outputs = [*results, *deliveries, *(value for _, value in gradients)]
    variant = Variant(owner, mode, arrays, trace)
    variant.reads = reads
    variant.names = names
    variant.watch = watch
    variant.seen_changes = watch.changes() if watch is not None else 0
    variant.structure = shape_of_results
    variant.single = len(results) == 1 and not isinstance(shape_of_results, tuple)
    variant.differentiable = differentiable
    variant.deliveries = [original for original, _ in trace.deliveries]
    variant.written, variant.in_place = [] if in_place else list(written), list(in_place)
    variant.prints = trace.prints
    variant.traced = trace.graph(outputs, owner.name)
    variant.traced.updates += [(trace.inputs[i], trace.capture(value)._data) for i, value in in_place.items()]
    variant.traced.inputs += [h._data for h in heads]
    check_closed(variant.traced)
    if gradients:
        variant.relied = _relied(variant.traced, len(results))
    variant.optimised = run_passes(variant.traced)
    _compile(variant, trace, heads, gradients, len(results) + len(deliveries))
    if owner.options.verify:
        variant.log = trace.log
        variant.instead = Verified(variant)
    if owner.options.background:
        variant.instead = Pending(variant, variant.instead)
    return variant


def _relied(graph: Graph, results: int) -> list[NDArray]:
    """The captured arrays that the graph updates and that its first results depend on."""
    needed = {id(n) for n in ordered(graph.outputs[:results])}
    return [leaf.array for leaf, _ in graph.updates if leaf.kind == "captured" and id(leaf) in needed]


@contextmanager
def _noting(reads: Any, names: Names) -> Iterator[None]:
    """Tells an error of the trace what the trace had read."""
    try:
        yield
    except TraceError as error:
        error.relied = (reads, names)
        raise


def _trace_backward(
    trace: Trace, results: list[NDArray], differentiable: list[bool]
) -> tuple[list[NDArray], list[tuple[NDArray, NDArray]]]:
    heads: list[NDArray] = []
    trace.recognize([r for r in results if isinstance(r._data, Node)])
    walk = autograd.Walk()
    trace.writes.overwritten.clear()  # the rules of gradients read values as they were
    with autograd.pause(state.training):
        for r, wanted in zip(results, differentiable):
            if wanted:
                head = NDArray(Node("input", r.spec, name=f"head{len(heads)}"))
                heads.append(head)
                walk.give(r, head)
        return heads, walk.run()


def _compile(
    variant: Variant, trace: Trace, heads: list[NDArray], gradients: list[tuple[NDArray, NDArray]], outputs: int
) -> None:
    captured = [trace.captured[id(a)] for a in variant.on_tape]
    if not gradients:
        variant.program = Program(variant.optimised, steady=not variant.recording)
        variant.differentiable = [False] * len(variant.differentiable)
        return
    leaves = [id(a) for a in [*trace.arguments, *captured]]
    remat = variant.owner.options.remat
    parts = cut(variant.optimised, [h._data for h in heads], outputs, remat)
    variant.heads = [i for i, differentiable in enumerate(variant.differentiable) if differentiable]
    variant.program = Program(parts.forward, kept=len(parts.kept), steady=False)
    held = range(len(heads), len(heads) + len(parts.kept))
    targets = [leaves.index(id(leaf)) for leaf, _ in gradients]
    variant.backward = Backward(parts.backward, held, targets, variant.mode[3], remat)
