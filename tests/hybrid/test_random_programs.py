"""Random programs: hybrid is eager, to rounding, in values and gradients, for the traced sizes and for others.

Each program is judged as a forward pass and in one of six further ways (`WAYS`): with gradients, with their gradients,
as a whole training step that updates what it captures, inside a Block with hooks, in float64, in half-width floats.
The third run of each has views as inputs. The oracle is eager float64.

Most programs of the suite are the same in every run (their kernels come from the cache), their inputs are not; a few
programs are new in every run, and thousands behind the `slow` marker: GLUONISH_PROGRAMS=1000-1500 chooses which
(5,000 otherwise), GLUONISH_TEST_SEED the inputs. A failure is shrunk and printed as a program.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import SEED
from hybrid.random_drawing import draw
from hybrid.random_programs import REFUSALS, SIZES, Program, shrunk

from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function, passes
from gluonish.hybrid.graph import Graph, Node, TraceError, apply, rewrite, with_inputs
from gluonish.nd.dtypes import is_float
from gluonish.nd.op import OPS

OTHER = {"a": 11, "b": 6, "c": 9, "d": 8}
BIG = {"a": 97, "b": 35, "c": 61, "d": 130}  # many tiles, several threads
BATCH = 8  # programs in one test
WAYS = ("recorded", "recorded", "second", "step", "hooked", "float64", "recorded", "float16", "bfloat16")
# what hybrid may be off by beside what eager is, in parts of the largest number; and when eager itself is no measure
ROOM = {"float64": 1e-10, "float32": 2e-5, "float16": 1e-2, "bfloat16": 8e-2}
NOISE = {"float64": 1e-9, "float32": 1e-3, "float16": 3e-2, "bfloat16": 2e-1}
SAID: Counter[str] = Counter()  # how often each way could be judged


class Skipped(Exception):
    """The program says nothing: float32 itself is far from float64 there, or it does not run on these sizes."""


Leaves = dict[int, nd.NDArray]


def tracked(program: Program, leaves: Leaves) -> list[nd.NDArray]:
    """The float leaves that the program does not update; from now on they have gradients."""
    wanted = [x for i, x in leaves.items() if is_float(x.dtype) and i not in program.states()]
    for x in wanted:
        x.attach_grad()
    return wanted


def seeds(heads: dict[int, nd.NDArray]) -> list[nd.NDArray]:
    """Head gradients, the same in any dtype."""
    found = [np.random.default_rng(i).uniform(-1, 1, h.shape) for i, h in heads.items()]
    return [nd.NDArray(np.asarray(s)).astype(h.dtype) for s, h in zip(found, heads.values())]


def evaluate(program: Program, leaves: Leaves, function: Any, way: str) -> list[np.ndarray]:
    """The results, the captured arrays after the call, and the gradients of all leaves that can have one."""
    nd.random.seed(7)
    if way == "hooked":
        function.forget()
    arguments = [leaves[i] for i in program.places("argument")]
    wanted = [] if way in ("predict", "hooked") else tracked(program, leaves)
    if way == "step":
        out = [function(*arguments)]
    else:
        with autograd.record() if wanted else autograd.pause():
            out = list(function(*arguments))
            # an argument may be a result; a loop of no steps depends on nothing in eager mode
            heads = {i: x for i, x in enumerate(out) if x._entry is not None or x._grad is not None}
            if way == "second" and heads:
                heads = {99: penalty(heads, wanted)}
                heads = {} if heads[99]._entry is None else heads  # gradients that are zeros depend on nothing
        if wanted and heads:
            autograd.backward(list(heads.values()), seeds(heads))
    captured = [leaves[i] for i in program.places("captured")]
    return [x.asnumpy() for x in (*out, *captured, *(x.grad for x in wanted))]


def penalty(heads: dict[int, nd.NDArray], wanted: list[nd.NDArray]) -> nd.NDArray:
    """The squares of all gradients; recorded, so that it has gradients itself."""
    grads = autograd.grad(list(heads.values()), wanted, seeds(heads), create_graph=True, retain_graph=True)
    return sum(((g * g).sum() for g in grads), nd.zeros((), wanted[0].dtype))


def as_way(program: Program, leaves: Leaves, way: str, compiler: Any = lambda function: function) -> Any:
    """What is called: the program, a training step around it, or a Block with a hook that does; compiled or not."""
    function = program.function(leaves)
    if way == "hooked":
        return hooked(function, compiler is compile_function)
    if way != "step":
        return compiler(function)
    states = program.states()
    weights = [leaves[i] for i in program.places("captured") if is_float(leaves[i].dtype) and i not in states]

    def step(*xs: nd.NDArray) -> nd.NDArray:
        with autograd.record():
            loss = sum((x.astype("float64").mean() for x in function(*xs)), nd.zeros((), "float64"))
        loss.backward()
        for w in weights:
            w[:] = w - w.grad * 0.5
        return loss

    return compiler(step)


def hooked(function: Callable[..., Any], hybridize: bool) -> nn.HybridBlock:
    """A Block around a Block, whose hooks keep the size of its first argument and of its results."""
    seen = nd.zeros((), "float64")

    class Inner(nn.HybridBlock):
        def forward(self, *xs: nd.NDArray) -> Any:
            return function(*xs)

    class Outer(nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, *xs: nd.NDArray) -> Any:
            return (*self.inner(*xs), seen * 1.0)

        def forget(self) -> None:
            seen[...] = 0.0

    def after(block: Any, inputs: Any, outputs: Any) -> None:
        seen[...] = seen * 0.5 + sum(x.astype("float64").mean() for x in outputs)

    net = Outer()
    net.inner.register_forward_hook(after)
    net.hybridize(hybridize)
    return net


def difference(eager: np.ndarray, hybrid: np.ndarray, exact: np.ndarray, kind: str) -> str:
    """How hybrid is wrong, or nothing. Raises: Skipped where eager itself is far from float64."""
    if (eager.shape, eager.dtype) != (hybrid.shape, hybrid.dtype):
        return f"hybrid gives {hybrid.shape} {hybrid.dtype}, eager {eager.shape} {eager.dtype}"
    if not is_float(eager.dtype):
        if not np.array_equal(eager, exact):
            raise Skipped
        return f"{(eager != hybrid).sum()} of {eager.size} differ" if (eager != hybrid).any() else ""
    if eager.size == 0:
        return ""
    eager, hybrid, exact = (x.astype("float64") for x in (eager, hybrid, exact))
    scale = 1 + float(np.abs(exact).max())
    noise = float(np.abs(eager - exact).max())
    if not noise < NOISE[kind] * scale:
        raise Skipped
    error = float(np.abs(hybrid - exact).max())
    if error <= 20 * noise + ROOM[kind] * scale:
        return ""
    return f"hybrid is off by {error:.2g} (of {scale:.2g}), eager by {noise:.2g}"


def scattered(x: nd.NDArray) -> nd.NDArray:
    """The same values as a view of memory in another order."""
    if x.ndim == 0:
        return x
    room = np.zeros(tuple(2 * s for s in x.shape[::-1]), x.dtype)
    view = room.T[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x._data
    return nd.NDArray(view)


def compare(
    program: Program, seed: int, sizes: dict[str, int], run: Callable[..., list[np.ndarray]], way: str, views: bool
) -> str:
    """What `run` gets wrong about a program for some sizes, or nothing."""
    dtype = way if way in ROOM else "float32"
    kind = next((k for k in ("bfloat16", "float16", "float32") if k in (dtype, *narrow(program))), dtype)

    def leaves(dtype: str) -> Leaves:
        return program.leaves(seed, sizes, dtype)

    try:
        own = leaves(dtype)
        eager = evaluate(program, own, as_way(program, own, way), way)
    except REFUSALS:
        raise Skipped from None
    fresh = leaves(dtype)
    if views:
        fresh |= {i: scattered(fresh[i]) for i in program.places("argument")}
    doubles = leaves("float64")
    exact = evaluate(program, doubles, as_way(program, doubles, way), way)
    for number, (a, b, c) in enumerate(zip(eager, run(fresh), exact, strict=True)):
        found = difference(a, b, c, kind)
        if found:
            return f"output {number}: {found}"
    return ""


def narrow(program: Program) -> set[str]:
    """The dtypes below float64 that the program goes through by itself."""
    text = str(program)
    return {dtype for dtype in ("float16", "bfloat16") if f"'{dtype}'" in text} | (
        {"float32"} if "one_hot(" in text else set()
    )


def verdict(program: Program, seed: int, other: dict[str, int] = OTHER, ways: tuple[str, ...] = ()) -> str:
    """What hybridizing gets wrong about a program: values, gradients, or either for other sizes; or nothing."""
    for way in ways or ("predict", "recorded"):
        own = program.leaves(seed, SIZES, way if way in ROOM else "float32")
        compiled = as_way(program, own, way, compile_function)

        def run(fresh: Leaves, own: Any = own, compiled: Any = compiled, way: str = way) -> Any:
            for i in program.places("captured"):  # the arrays that the function has captured get the fresh values
                own[i]._data = fresh[i]._data
                own[i]._version[0] += 1
                fresh[i] = own[i]
            return evaluate(program, fresh, compiled, way)

        for number, sizes in enumerate((SIZES, other, SIZES)):
            try:
                found = compare(program, seed, sizes, run, way, number == 2)
            except Skipped:
                if number:
                    continue
                if way == "predict":
                    raise
                break  # which says nothing of the next way
            except TraceError as error:
                if "writes to an array that is also" in str(error):  # which eager mode does in its own way
                    raise Skipped from None
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            except REFUSALS as error:
                if sizes is not SIZES and "cond(" in str(program):  # eager mode runs one side only
                    continue
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            except Exception as error:  # noqa: BLE001 - any error of a compiled call is a verdict
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            if found:
                return f"{way}, sizes {sizes}: {found}"
            SAID[way] += number == 0
    return ""


def judge(program: Program, seed: int, ways: tuple[str, ...]) -> bool:
    """Whether the program could be judged. Raises: AssertionError with the shrunk program if it is compiled wrongly."""
    try:
        found = verdict(program, seed, ways=ways)
    except Skipped:
        return False
    if not found:
        return True

    def fails(candidate: Program) -> bool:
        try:
            return bool(verdict(candidate, seed, ways=ways))
        except Skipped:
            return False

    small = shrunk(program, fails)
    raise AssertionError(f"{verdict(small, seed, ways=ways) or found}\n{small}\ninputs of seed {seed}")


def judge_all(numbers: range, word: int) -> None:
    """Judges the programs with these numbers; most must say something."""
    begin, judged = time.perf_counter(), 0
    for n in numbers:
        program = draw(np.random.default_rng([word, n]), 4 + n % 8, f"draw([{word}, {n}])")
        judged += judge(program, SEED, ("predict", WAYS[n % len(WAYS)]))
    rate = len(numbers) / (time.perf_counter() - begin)
    print(f"programs {numbers.start}-{numbers.stop}: {judged} judged, {rate:.1f} a second; so far {dict(SAID)}")
    assert judged >= 0.6 * len(numbers), f"only {judged} of {len(numbers)} programs could be judged"


@pytest.mark.parametrize("batch", range(2))
def test_the_same_programs_with_fresh_inputs(batch: int) -> None:
    judge_all(range(BATCH * batch, BATCH * (batch + 1)), word=1)


def test_programs_that_nobody_has_seen() -> None:
    judge_all(range(2), word=SEED)


def test_a_planted_fault_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that takes subtractions of arrays for additions."""

    def wrong(graph: Graph) -> Graph:
        def change(node: Node, inputs: Any) -> Any:
            node = with_inputs(node, inputs)
            arrays = node.is_op("subtract") and len(node.parents) == 2
            return apply(OPS["add"], node.inputs, node.attrs, node.line) if arrays else node

        return rewrite(graph, change)

    monkeypatch.setattr(passes, "PASSES", (wrong, *passes.PASSES))
    programs = (draw(np.random.default_rng([1, n]), 8, f"draw([1, {n}])") for n in range(100))
    program = next(p for p in programs if p.places("subtract"))
    with pytest.raises(AssertionError, match="hybrid is off by") as raised:
        judge(program, SEED, ("predict",))
    lines = str(raised.value).splitlines()
    assert sum(" = " in line for line in lines) <= 4 and any(" = subtract(" in line for line in lines), raised.value


def test_programs_on_large_arrays() -> None:
    judged = 0
    for n in range(16):
        program = draw(np.random.default_rng([1, n]), 4 + n % 8, f"draw([1, {n}])")
        if max(x.size for x in program.leaves(SEED, BIG).values()) > 300_000:
            continue
        if any(loop in str(program) for loop in ("foreach(", "while_loop(")):  # as many steps, each with its results
            continue
        try:
            found = verdict(program, SEED, BIG)
        except Skipped:
            continue
        assert not found, f"{found}\n{program}\ninputs of seed {SEED}"
        judged += 1
    assert judged >= 3


def chosen() -> list[range]:
    """The numbers of the many programs, in pieces."""
    begin, end = (int(part) for part in os.environ.get("GLUONISH_PROGRAMS", "0-5000").split("-"))
    return [range(n, min(n + 50, end)) for n in range(begin, end, 50)]


@pytest.mark.slow
@pytest.mark.parametrize("numbers", chosen(), ids=lambda numbers: f"{numbers.start}-{numbers.stop}")
def test_many_programs(numbers: range) -> None:
    judge_all(numbers, word=2)
