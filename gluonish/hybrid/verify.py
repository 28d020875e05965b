"""Verify: is what a variant computes what the eager function computes, and if not, which op is the first to differ?

`hybridize(verify=True)` compares each new variant with an eager run: results, updated arrays, and at the first backward
the gradients. A difference beyond rounding is traced back, from the kernels outwards: each step is compared with NumPy
on the very values that it read; then the graph before and after each pass; then the ops that the eager run called with
those of the trace. So the op that is named is wrong by itself, not by what it was given.

A function that runs a whole training step cannot be run twice; of it the steps alone are compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.eager import EagerLog, eager_call
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Graph, Node, concrete, interpret, ordered
from gluonish.hybrid.passes import run_passes
from gluonish.hybrid.program import Program
from gluonish.hybrid.step_run import StepRun
from gluonish.nd import random
from gluonish.nd.array import NDArray
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text
from gluonish.nd.op import OPS, Spec
from gluonish.nd.size import evaluator
from gluonish.nd.tree import flatten

if TYPE_CHECKING:
    from gluonish.hybrid.variant import Call, Variant

CLOSE = 1e-4  # of the largest value: below it, results are the same up to rounding and nothing is looked for
SURELY = 1e-2  # beyond it, a difference is told even if no op can be blamed


class VerifyWarning(UserWarning):
    """A compiled variant computed something else than the eager function, which is used in its place."""


@dataclass
class Difference:
    """The first op whose result is wrong."""

    op: str
    line: str
    inputs: str
    found: str
    cause: str

    def __str__(self) -> str:
        return f"first op that differs: {self.op} at {self.line}, inputs {self.inputs}; {self.found} ({self.cause})"


# --- comparing --------------------------------------------------------------------------------------------------------
def distance(found: Any, wanted: Any, least: float = 1e-30) -> float:
    """The largest difference as a part of the largest value; infinite where NaN or Inf or a shape differ.

    least: what counts as the largest value where all are smaller.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    if not is_float(found.dtype):
        return 0.0 if np.array_equal(found, wanted) else float("inf")
    finite = np.isfinite(wanted)
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
    return float(np.abs(a - b).max()) / max(float(np.abs(b).max()), least)


def largest(values: Any) -> float:
    """The largest finite absolute value, at least 1e-30."""
    values = np.abs(np.asarray(values).astype(np.float64))
    return float(np.max(values, initial=1e-30, where=np.isfinite(values)))


def _coarse(dtype: np.dtype) -> float:
    return {"float16": 1e-2, "bfloat16": 5e-2, "float64": 1e-9}.get(dtype.name, CLOSE)


def _differ(found: Sequence[Any], wanted: Sequence[Any], least: float = 1e-30) -> float:
    """The largest distance in units of what counts as rounding."""
    if len(found) != len(wanted):
        return float("inf")
    return max((distance(a, b, least) / _coarse(np.asarray(b).dtype) for a, b in zip(found, wanted)), default=0.0)


def _surely_differ(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether gradients differ beyond rounding, though every op is right by itself.

    Some gradients are 0 but for rounding, as that of a bias before BatchNorm: what is left of terms that cancel has no
    digits to compare, and is measured by the largest gradient of all.
    """
    if _differ(found, wanted) * CLOSE <= SURELY:
        return False
    return _differ(found, wanted, max(map(largest, wanted))) > 1


# --- calls ------------------------------------------------------------------------------------------------------------
class Verified:
    """Stands in for a variant's call until it is known to be right, and for good where it is not."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant

    def __call__(self, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Any:
        """The first call: both ways, compared; the compiled result if they agree, else the eager one."""
        variant = self.variant
        if variant.each_run or variant.deliveries or variant.written or variant.in_place:
            return self._by_steps(arrays, sizes)
        updated = variant.program.updated
        before, position = [a._data.copy() for a in updated], random.default.position
        eager = eager_call(variant, arrays, silent=True)
        after, later = [a._data.copy() for a in updated], random.default.position
        _write(updated, before)
        random.default.position = position
        result = variant.run(arrays, sizes)
        wanted, found = _arrays(eager), _arrays(result)
        apart = _differ([*found, *(a._data for a in updated)], [*wanted, *after])
        if apart > 1:
            found_state = [a._data.copy() for a in updated]
            _write(updated, before)
            random.default.position = position
            difference = _blame(variant, arrays, sizes)
            if difference is not None or apart * CLOSE > SURELY:
                _write(updated, after)
                random.default.position = later
                refuse(variant, difference)
                return eager
            _write(updated, found_state)
            random.default.position = later
        variant.instead = None
        if variant.backward is not None:
            _check_backward(result, eager)
        return result

    def _by_steps(self, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Any:
        variant = self.variant
        updated = variant.program.updated
        before, position = [a._data.copy() for a in updated], random.default.position
        difference = _blame_steps(variant, arrays, sizes)
        _write(updated, before)
        random.default.position = position
        if difference is not None:
            refuse(variant, difference)
            return variant.instead(arrays, sizes)  # type: ignore[misc]
        variant.instead = None
        return variant.run(arrays, sizes)


def refuse(variant: Variant, difference: Difference | None) -> None:
    """From now on calls of the variant run eagerly; a warning says why."""
    what = str(difference) if difference is not None else "no single op differs by itself, but the results do"
    variant.refused = f"compiled and eager results differ: {what}"
    variant.instead = lambda arrays, sizes: eager_call(variant, arrays)
    warnings.warn(
        f"hybridize(verify=True): {variant.owner.name} computes something else compiled than eagerly, and goes on "
        f"eagerly; {what}",
        VerifyWarning,
        stacklevel=2,
    )


def _write(arrays: Sequence[NDArray], values: Sequence[np.ndarray]) -> None:
    for array, value in zip(arrays, values):
        array._data[...] = value
        array._version[0] += 1


def _arrays(result: Any) -> list[np.ndarray]:
    out: list[NDArray] = []
    flatten(result, out)
    return [a._data for a in out]


# --- gradients --------------------------------------------------------------------------------------------------------
def _check_backward(result: Any, eager: Any) -> None:
    """Leaves the eager results with the recorded call: its first backward compares."""
    out: list[NDArray] = []
    flatten(result, out)
    call = next((a._entry[1] for a in out if a._entry is not None), None)
    if call is not None:
        call.eager = []
        flatten(eager, call.eager)


def verified_gradients(
    call: Call, grads: dict[int, NDArray], inputs: Any, found: list[tuple[NDArray, NDArray]]
) -> list[tuple[NDArray, NDArray]]:
    """The gradients of a compiled backward if the eager ones agree, else those; see `Call.gradients`."""
    from gluonish.nd import autograd

    eager, call.eager = call.eager, None
    assert eager is not None
    targets = [x for x, _ in found]
    heads = [eager[i] for i in grads]
    seeds = [grads[i] for i in grads]
    wanted = autograd.grad(heads, targets, seeds)
    values, right = [g._data for _, g in found], [g._data for g in wanted]
    if _differ(values, right) <= 1:
        return found
    variant = call.variant
    assert variant.backward is not None
    data = call.backward_data(grads)
    program = variant.backward.program()
    difference = first_difference(program, data, call.sizes, variant.symbols, call.key, call.kept)
    if difference is None and not _surely_differ(values, right):
        return found
    refuse(variant, difference)
    return list(zip(targets, wanted))


# --- blame ------------------------------------------------------------------------------------------------------------
def _blame(variant: Variant, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Difference | None:
    return (
        _blame_steps(variant, arrays, sizes)
        or _blame_passes(variant, arrays, sizes)
        or _blame_trace(variant, arrays, sizes)
    )


def _key(variant: Variant, sizes: tuple[int, ...]) -> Any:
    return random.default.reserve(variant.count_blocks(*sizes)[0]) if variant.draws else None


def _blame_steps(variant: Variant, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Difference | None:
    position = random.default.position
    before = [a._data.copy() for a in variant.program.updated]
    for work in variant.each_run:
        work.before()
    data = [np.array(x._data, order="C") for x in arrays]  # a copy: the program may write to arguments
    try:
        return first_difference(variant.program, data, sizes, variant.symbols, _key(variant, sizes))
    finally:
        random.default.position = position
        _write(variant.program.updated, before)


def first_difference(
    program: Program,
    data: Sequence[Any],
    sizes: tuple[int, ...],
    symbols: Sequence[str],
    key: Any = None,
    held: Any = None,
) -> Difference | None:
    """Runs a program step by step; the first op whose result is not what NumPy makes of the values that it read."""
    number = numbers(symbols, sizes)
    run = whole = StepRun(program, data, sizes, key, held)
    known: dict[int, np.ndarray] = {}
    for leaf, value in zip(program.graph.inputs, data):
        known[id(leaf)] = np.array(value) if value is not None else run.value(leaf).copy()
    for leaf in program.captured:
        known[id(leaf)] = leaf.array._data.copy()
    known |= {id(leaf): key for leaf in program.graph.leaves() if leaf.kind == "key"}
    values = Values(known, number)
    left: dict[int, int] = {}
    for step in (*program.prepared.steps, *run.bound.steps):
        for w in step.writes:
            left[id(root_of(w))] = left.get(id(root_of(w)), 0) + 1

    parts: dict[int, list[Node]] = {}  # by temporary value: the ops whose partial results are in it

    def check(step: Any) -> Difference | None:
        nodes = [*(n for r in step.reads for n in parts.get(id(r), ())), *step.nodes]
        parts.update((id(w), nodes) for w in step.writes if w.kind == "temp")
        for w in map(root_of, step.writes):
            left[id(w)] -= 1
            if w.kind != "op" or left[id(w)]:
                continue
            wanted, exact = values.of(w), values.exactly(w, nodes)
            found = run.value(w).astype(w.dtype, copy=True)
            noise = distance(wanted, exact.astype(w.dtype)) if exact is not None else 0.0
            apart = distance(found, wanted)
            if apart > 2 * _coarse(w.dtype) + (64 * noise if np.isfinite(noise) else 0):
                return _located(step, nodes, w, found, wanted, values)
            values.put(w, found)
        return None

    apart = StepRun(program, [], (), prepared=True) if program.prepared.steps else None
    for part in (apart, whole):
        run = part or whole
        for step, work in part.run() if part is not None else ():
            work()
            difference = check(step)
            if difference is not None:
                return difference
    return None


def numbers(symbols: Sequence[str], sizes: tuple[int, ...]) -> Callable[[Any], Any]:
    """A function that gives a symbolic size as a number."""
    return lambda size: evaluator([size], symbols)(*sizes)[0] if hasattr(size, "terms") else size


class Values:
    """Values of nodes: those that were seen, and what NumPy makes of them."""

    def __init__(self, known: dict[int, np.ndarray], number: Callable[[Any], Any]) -> None:
        self.known = known
        self.number = number
        self.kept: list[Node] = []  # alive, so that no other node takes its id

    def put(self, node: Node, value: np.ndarray) -> None:
        """Notes a value that was seen."""
        self.known[id(node)] = value
        self.kept.append(node)

    def of(self, node: Node) -> np.ndarray:
        """The value of a node, from what is known."""
        for each in self._missing(node, self.known):
            self.put(each, self._evaluate(each, self.known).astype(each.dtype, copy=False))
        return self.known[id(node)]

    def exactly(self, node: Node, nodes: Sequence[Node]) -> np.ndarray | None:
        """The same with the last step's part of it in float64: how far the two are apart is what rounding can do."""
        if node.dtype != np.float32:
            return None
        inside = {id(n) for n in nodes} | {id(node)}
        exact: dict[int, np.ndarray] = {}
        outside = {k: v for k, v in self.known.items() if k not in inside}
        for each in self._missing(node, outside):
            for parent in each.parents:
                if id(parent) not in exact:
                    value = outside[id(parent)]
                    exact[id(parent)] = value.astype(np.float64) if value.dtype == np.float32 else value
            exact[id(each)] = self._evaluate(each, exact)
        return exact.get(id(node))

    def _missing(self, node: Node, known: dict[int, np.ndarray]) -> list[Node]:
        out, seen = [], set()
        stack: list[tuple[Node, bool]] = [(node, False)]
        while stack:
            each, done = stack.pop()
            if id(each) in known or (not done and id(each) in seen):
                continue
            if done:
                out.append(each)
            else:
                seen.add(id(each))
                stack.append((each, True))
                stack.extend((p, False) for p in each.parents)
        return out

    def _evaluate(self, node: Node, known: dict[int, np.ndarray]) -> np.ndarray:
        assert node.op is not None
        inputs = [known[id(x)] if isinstance(x, Node) else self.number(x) for x in node.inputs]
        attrs = {k: concrete(v, self.number) for k, v in node.attrs.items()}
        with np.errstate(all="ignore"):
            return np.asarray(node.op.forward(*inputs, **attrs))


def _located(step: Any, nodes: Sequence[Node], written: Node, found: Any, wanted: Any, values: Values) -> Difference:
    """Which of a step's ops it is: the first that is wrong alone too, else the one whose result was written."""
    name = step.name if step.kernel is None else f"kernel {step.name}"
    own = {id(n) for n in nodes}
    for node in ordered([written]):
        if id(node) not in own or node.op is None:
            continue
        values.of(node)
        inputs = [values.known[id(x)] if isinstance(x, Node) else values.number(x) for x in node.inputs]
        alone = _alone(node, inputs, values.number)
        right = values.known[id(node)] if node is not written else wanted
        if distance(alone, right) > 2 * _coarse(node.dtype):
            return _difference(node, values, alone, right, name)
    fused = ", ".join(dict.fromkeys(n.op.name for n in nodes if n.op is not None))
    return _difference(written, values, found, wanted, f"{name}, which computes {fused} together")


def _alone(node: Node, inputs: Sequence[Any], number: Callable[[Any], Any]) -> np.ndarray:
    """What the compiled op gives by itself."""
    leaves = [Node("input", Spec(v.shape, v.dtype), name=f"x{i}") for i, v in enumerate(inputs) if _is_array(v)]
    places = iter(leaves)
    operands = [next(places) if _is_array(v) else v for v in inputs]
    attrs = {k: concrete(v, number) for k, v in node.attrs.items()}
    shape = tuple(number(s) for s in node.shape)
    graph = Graph(leaves, [Node("op", Spec(shape, node.dtype), node.op, operands, attrs, node.line)])
    return Program(graph).run([np.ascontiguousarray(v) for v in inputs if _is_array(v)], ())[0][0]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _difference(node: Node, values: Values, found: Any, wanted: Any, cause: str) -> Difference:
    specs = ", ".join(
        f"{shape_text(values.number(s) for s in x.shape)} {x.dtype}" if isinstance(x, Node) else str(x)
        for x in node.inputs
    )
    assert node.op is not None
    return Difference(node.op.name, str(node.line) or "?", specs or "none", _where(found, wanted), cause)


def _where(found: Any, wanted: Any) -> str:
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"compiled {found.shape} {found.dtype}, eager {wanted.shape} {wanted.dtype}"
    with np.errstate(all="ignore"):
        apart = np.array(np.abs(found.astype(np.float64) - wanted.astype(np.float64)))
    apart[(np.isnan(found) != np.isnan(wanted)) | (np.isinf(found) != np.isinf(wanted))] = np.inf
    place = np.unravel_index(int(np.argmax(np.nan_to_num(apart, nan=0.0, posinf=1e308))), found.shape)
    at = tuple(int(i) for i in place)
    return f"at {at} compiled {found[place]!s}, eager {wanted[place]!s}"


def _leaf_values(variant: Variant, graph: Graph, arrays: Sequence[NDArray], key: Any) -> dict[int, np.ndarray]:
    values = {id(leaf): x._data for leaf, x in zip(graph.inputs, arrays)}
    for leaf in ordered(graph.results()):
        if leaf.kind == "captured":
            values[id(leaf)] = leaf.array._data.copy()
        elif leaf.kind == "key":
            values[id(leaf)] = key
    return values


def _blame_passes(variant: Variant, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Difference | None:
    """The first pass after which the graph means something else."""
    position = random.default.position
    key = _key(variant, sizes)
    random.default.position = position
    number = numbers(variant.symbols, sizes)
    count = len(variant.differentiable)

    def results(graph: Graph) -> list[np.ndarray]:
        part = Graph(graph.inputs, graph.outputs[:count], graph.updates, graph.name)
        with np.errstate(all="ignore"):
            out = interpret(part, _leaf_values(variant, part, arrays, key), number)
        return [out[id(n)] for n in part.results()]

    before = results(variant.traced)
    seen: list[tuple[str, Graph]] = []
    run_passes(variant.traced, lambda name, graph: seen.append((name, graph)))
    for name, graph in seen:
        now = results(graph)
        for i, (a, b) in enumerate(zip(now, before)):
            if distance(a, b) > SURELY:
                node = variant.traced.results()[i]
                values = Values(_leaf_values(variant, variant.traced, arrays, key), number)
                if node.op is None:
                    continue
                return _difference(node, values, a, b, f"the pass {name} changed what it computes")
    return None


def _blame_trace(variant: Variant, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Difference | None:
    """The first op that the eager run called otherwise, or on other values, than the trace."""
    if any(OPS.get(op.name) is not op for op, _ in variant.log):
        return None  # a loop or branch is one op in the trace, and none in the eager run
    position = random.default.position
    key = _key(variant, sizes)
    random.default.position = position
    log = EagerLog()
    eager_call(variant, arrays, silent=True, log=log)
    random.default.position = position
    number = numbers(variant.symbols, sizes)
    values = Values(_leaf_values(variant, variant.traced, arrays, key), number)
    for (op, out, line), (traced, node) in zip(log.calls, variant.log):
        if op is not traced:
            what = f"eager code called {op.name} ({line}) where the trace has {traced.name}"
            specs = ", ".join(str(x.spec) for x in node.parents)
            return Difference(traced.name, str(node.line), specs, what, "Python took another way")
        for leaf in ordered([node]):
            if leaf.kind == "captured":
                values.known.setdefault(id(leaf), leaf.array._data.copy())
        try:
            traced_value = values.of(node)
        except KeyError:  # depends on the gradient that an array brings: no value of this graph
            continue
        if distance(traced_value, out) > SURELY:
            return _difference(node, values, traced_value, out, "the trace has other inputs: Python changed them")
    return None
