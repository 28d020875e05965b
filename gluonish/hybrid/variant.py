"""Variant: one trace of a function with its guards and its compiled programs, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.gradient import cut
from gluonish.hybrid.graph import Graph, Node
from gluonish.hybrid.passes import run_passes
from gluonish.hybrid.program import Program
from gluonish.hybrid.trace import Trace, tracing
from gluonish.hybrid.tree import flatten, unflatten
from gluonish.nd import autograd, dispatch, random
from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.op import Spec
from gluonish.nd.size import checker, evaluator

if TYPE_CHECKING:
    from gluonish.hybrid.function import CompiledFunction


def _wants(array: NDArray) -> bool:
    return array._grad is not None or array._entry is not None


class Variant:
    """One trace. `mode` is (structure of the arguments, training, recording)."""

    def __init__(self, owner: CompiledFunction, mode: Any, arrays: Sequence[NDArray], trace: Trace) -> None:
        self.owner = owner
        self.mode = mode
        self.reason = ""
        self.recording = mode[2]
        self.specs = [(x.ndim, x.dtype, _wants(x)) for x in arrays]
        self.captured = list(trace.originals.values())
        # what the call itself updates is no input of its backward, which reads a kept copy
        self.on_tape = [a for a in self.captured if id(a) not in trace.updated]
        self.captured_specs = [(a._data.shape, a.dtype, _wants(a)) for a in self.captured]
        self.arguments = list(trace.arguments)
        self._sizes(trace)
        self.count_blocks = evaluator([trace.blocks], self.symbols)
        self.draws = trace.key is not None
        self.reads: Any = None
        self.seen_changes = -1
        self.traced: Graph
        self.optimised: Graph
        self.program: Program
        self.backward: Backward | None = None
        self.structure: Any = None
        self.deliveries: list[NDArray] = []
        self.differentiable: list[bool] = []

    def _sizes(self, trace: Trace) -> None:
        symbols = list(trace.sizes.hints)
        places = {}
        self.fixed: list[tuple[int, int, int]] = []  # (argument, axis, size): sizes 0 and 1 are structure
        for i, array in enumerate(trace.arguments):
            for axis, size in enumerate(array.shape):
                if isinstance(size, int):
                    self.fixed.append((i, axis, size))
                else:
                    places[str(size)] = (i, axis)
        self.symbols = symbols
        self.places = [places[s] for s in symbols]
        self.guards = list(trace.sizes.guards.values())
        self.holds = checker(self.guards, symbols) if self.guards else None
        self.scope = trace.sizes

    # --- guards -------------------------------------------------------------------------------------------------------
    def fits(self, arrays: Sequence[NDArray]) -> bool:
        """Whether the trace is valid for these arguments now."""
        for x, (rank, dtype, wanted) in zip(arrays, self.specs):
            data = x._data
            if data.ndim != rank or data.dtype is not dtype and data.dtype != dtype:
                return False
            if self.recording and _wants(x) != wanted:
                return False
        for i, axis, size in self.fixed:
            if arrays[i]._data.shape[axis] != size:
                return False
        sizes = self.sizes_of(arrays)
        for s in sizes:
            if s <= 1:
                return False
        if self.holds is not None and not self.holds(*sizes):
            return False
        return self._attributes_hold() and self._captured_hold()

    def sizes_of(self, arrays: Sequence[NDArray]) -> tuple[int, ...]:
        """The values of the symbols."""
        return tuple([arrays[i]._data.shape[axis] for i, axis in self.places])

    def _attributes_hold(self) -> bool:
        if self.reads is None:
            return True
        now = self.owner.watch.changes()
        if now == self.seen_changes and not self.reads.volatile:
            return True
        if not self.reads.hold():
            return False
        self.seen_changes = now
        return True

    def _captured_hold(self) -> bool:
        for a, (shape, dtype, wanted) in zip(self.captured, self.captured_specs):
            data = a._data
            if data.dtype is not dtype and data.dtype != dtype or data.shape != shape:
                return False
            if self.recording and (a._grad is not None or a._entry is not None) != wanted:
                return False
        return True

    def misfit(self, arrays: Sequence[NDArray]) -> str:
        """Why these arguments do not fit, in words."""
        for i, (x, (rank, dtype, wanted)) in enumerate(zip(arrays, self.specs)):
            if x.ndim != rank:
                return f"argument {i} has {x.ndim} dimensions, not {rank}"
            if x.dtype != dtype:
                return f"argument {i} is {x.dtype}, not {dtype}"
            if self.recording and _wants(x) != wanted:
                return f"argument {i} {'wants' if _wants(x) else 'does not want'} a gradient"
        for i, axis, size in self.fixed:
            if arrays[i].shape[axis] != size:
                return f"size {arrays[i].shape[axis]} of argument {i}, dimension {axis}, was {size}"
        sizes = self.sizes_of(arrays)
        for (i, axis), s in zip(self.places, sizes):
            if s <= 1:
                return f"size {s} of argument {i}, dimension {axis}"
        for guard in self.guards:
            if not checker([guard], self.symbols)(*sizes):
                return f"a size on which Python branched: {guard} no longer holds"
        if self.reads is not None and not self.reads.hold():
            return f"attribute changed: {self.reads.changed()}"
        return "a captured array has another shape or dtype, or wants a gradient now"

    # --- calls ----------------------------------------------------------------------------------------------------------
    def call(self, arrays: Sequence[NDArray]) -> Any:
        """Runs the forward program; under recording, notes the call on the tape."""
        sizes = self.sizes_of(arrays)
        key = random.default.reserve(self.count_blocks(*sizes)[0]) if self.draws else None
        data = [x._data for x in arrays]
        results, kept = self.program.run(data, sizes, key)
        count = len(self.differentiable)
        outputs = [NDArray(d) for d in results[:count]]
        for original, value in zip(self.deliveries, results[count:]):
            original._grad.receive(NDArray(value))  # type: ignore[union-attr]
        if self.backward is not None:
            note_call(Call(self, sizes, data, kept, key, arrays), outputs, self.differentiable)
        return unflatten(self.structure, iter(outputs))

    def explain(self) -> list[str]:
        """Lines on guards, fallbacks and kernels."""
        rows = [f"relies on {guard}" for guard in self.guards]
        if self.symbols:
            names = ", ".join(f"{s}=size of argument {i}, dimension {a}" for s, (i, a) in zip(self.symbols, self.places))
            rows.append(f"any size: {names}")
        rows += self.program.explain()
        if self.backward is not None and self.backward.ready is not None:
            rows += [f"backward: {line}" for line in self.backward.ready.explain()]
        return rows


class Backward:
    """The backward of a variant: its graph, compiled when it first runs."""

    def __init__(self, graph: Graph, heads: int, targets: list[int]) -> None:
        self.graph = graph
        self.heads = heads
        self.targets = targets  # positions among the call's inputs (arguments, then captured arrays)
        self.ready: Program | None = None

    def program(self) -> Program:
        """The compiled program."""
        if self.ready is None:
            self.ready = Program(self.graph)
        return self.ready


class Call:
    """One recorded call: stands on the tape where an op would, and knows how to give gradients."""

    vjp = True

    def __init__(
        self, variant: Variant, sizes: tuple[int, ...], data: list[np.ndarray], kept: Any, key: Any, arrays: Sequence[NDArray]
    ) -> None:
        self.variant = variant
        self.name = variant.owner.name
        self.sizes = sizes
        self.data = data
        self.kept = kept
        self.key = key
        self.arrays = list(arrays)
        self.specs: list[Spec] = []

    def gradients(self, grads: dict[int, NDArray], inputs: Any, attrs: Any, wanted: Sequence[bool]) -> list[Any]:
        """The gradient of every input (arguments, then captured arrays); None where there is none."""
        variant = self.variant
        backward = variant.backward
        assert backward is not None
        if state.recording or state.trace is not None:
            return self._eager_gradients(grads, inputs)
        heads = []
        for i, differentiable in enumerate(variant.differentiable):
            if differentiable:
                given = grads.get(i)
                heads.append(np.zeros(*self.specs[i]) if given is None else given._data)
        results, _ = backward.program().run([*heads, *(self.kept.arrays() if self.kept is not None else ()), *self.data], self.sizes, self.key)
        out: list[Any] = [None] * len(inputs)
        for position, value in zip(backward.targets, results):
            out[position] = NDArray(value)
        return out

    def _eager_gradients(self, grads: dict[int, NDArray], inputs: Any) -> list[Any]:
        """Gradients that can themselves be differentiated: the call is repeated eagerly, with the same random numbers."""
        variant = self.variant
        before = random.default.position
        if self.key is not None:
            random.default.position = int(self.key[1])
        try:
            args, kwargs = unflatten(variant.mode[0], iter(self.arrays))
            with autograd.record(variant.mode[1]):
                outputs: list[NDArray] = []
                flatten(variant.owner.function(*args, **kwargs), outputs)
        finally:
            random.default.position = before
        heads = [outputs[i] for i in grads]
        return autograd.grad(heads, list(inputs), [grads[i] for i in grads], create_graph=True)


def note_call(call: Call, outputs: list[NDArray], differentiable: list[bool]) -> None:
    """Puts a compiled call on the tape: one entry with several outputs."""
    inputs = (*call.arrays, *call.variant.on_tape)
    versions = sum(x._version[0] for x in inputs)
    number = next(dispatch.order)
    call.specs = [Spec(x.shape, x.dtype) for x in outputs]
    for index, (out, wanted) in enumerate(zip(outputs, differentiable)):
        if wanted:
            out._entry = (number, call, inputs, {}, None, versions, index)


# --- tracing ---------------------------------------------------------------------------------------------------------------
def trace_variant(owner: CompiledFunction, mode: Any, structure: Any, arrays: Sequence[NDArray]) -> Variant:
    """Traces the owner's function for such arguments and compiles the forward."""
    recording = mode[2]
    trace = Trace()
    watching = owner.watch.watching() if owner.watch is not None else nullcontext()
    with tracing(trace, recording), watching as reads:
        stand_ins = [trace.argument(x.spec, f"x{i}", recording and _wants(x)) for i, x in enumerate(arrays)]
        args, kwargs = unflatten(structure, iter(stand_ins))
        results: list[NDArray] = []
        shape_of_results = flatten(owner.function(*args, **kwargs), results)
        results = [trace.capture(r) for r in results]
        differentiable = [recording and r.dtype.kind == "f" and _wants(r) for r in results]
        heads, gradients = _trace_backward(trace, results, differentiable) if any(differentiable) else ([], [])
    deliveries = [v for _, v in trace.deliveries]
    outputs = [*results, *deliveries, *(value for _, value in gradients)]
    variant = Variant(owner, mode, arrays, trace)
    variant.reads = reads
    variant.seen_changes = owner.watch.changes() if owner.watch is not None else 0
    variant.structure = shape_of_results
    variant.differentiable = differentiable
    variant.deliveries = [original for original, _ in trace.deliveries]
    variant.traced = trace.graph(outputs, owner.name)
    variant.traced.inputs += [h._data for h in heads]
    variant.optimised = run_passes(variant.traced)
    _compile(variant, trace, heads, gradients, len(results) + len(deliveries))
    return variant


def _trace_backward(
    trace: Trace, results: list[NDArray], differentiable: list[bool]
) -> tuple[list[NDArray], list[tuple[NDArray, NDArray]]]:
    heads = []
    walk = autograd.Walk()
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
        variant.program = Program(variant.optimised)
        variant.differentiable = [False] * len(variant.differentiable)
        return
    leaves = [id(a) for a in [*trace.arguments, *captured]]
    parts = cut(variant.optimised, [h._data for h in heads], outputs)
    variant.program = Program(parts.forward, kept=len(parts.kept))
    variant.backward = Backward(parts.backward, len(heads), [leaves.index(id(leaf)) for leaf, _ in gradients])


