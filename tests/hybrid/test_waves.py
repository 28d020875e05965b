"""Waves: steps run side by side, share no memory that one of them writes, and compute the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from conftest import SEED
from hybrid.random_drawing import traced
from hybrid.test_thread_counts import check_programs, same_bits

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import bound, compile_function, hybridize, together, waves
from gluonish.hybrid.bound import Bound
from gluonish.hybrid.dependencies import Region, regions
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.step import Step
from gluonish.hybrid.variant import Variant
from gluonish.hybrid.waves import Load, Wave, wave_of
from gluonish.kernels import pool
from gluonish.kernels.kernel import Kernel

Result = list[np.ndarray]


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Wave]]:
    """Whatever may run side by side does, in many pieces; gives the waves that there were."""
    seen: list[Wave] = []

    def noted(*given: Any) -> Wave | None:
        wave = wave_of(*given)
        seen.extend([wave] if wave is not None else [])
        return wave

    monkeypatch.setattr(waves, "worth_while", lambda gain, alone: True)
    monkeypatch.setattr(waves, "PIECE", 1.0)
    monkeypatch.setattr(bound, "worth_sharing", lambda nanoseconds: True)
    monkeypatch.setattr(together, "get_num_threads", lambda: 4)
    monkeypatch.setattr(together, "EXTRA", 1 << 40)
    monkeypatch.setattr(together, "wave_of", noted)
    with pool.num_threads(4):
        yield seen


# --- programs of many branches ----------------------------------------------------------------------------------------
SIDE = 24
OPS: list[Callable[..., Any]] = [
    lambda a, b, i: a @ b / SIDE,
    lambda a, b, i: nd.relu(a) * b,
    lambda a, b, i: nd.softmax(a),
    lambda a, b, i: nd.cumsum(b, 0),
    lambda a, b, i: nd.concat([b[5:], a[:5]]),
    lambda a, b, i: nd.take(a, i, 0),
    lambda a, b, i: a.T + 1,
    lambda a, b, i: a - b.sum(0),
]


def branching(draw: np.random.Generator, count: int) -> Callable[..., Any]:
    """A function of two square arrays and one of indices: `count` ops, each on two values before it."""
    picks = [(OPS[int(draw.integers(len(OPS)))], *(int(k) for k in draw.integers(0, 1 << 30, 2))) for _ in range(count)]

    def function(x: Any, y: Any, i: Any) -> Any:
        values = [x, y]
        for op, first, second in picks:
            values.append(op(values[first % len(values)], values[second % len(values)], i))
        return values[-3:]

    return function


def arrays_for(draw: np.random.Generator) -> list[nd.NDArray]:
    x, y = (nd.NDArray(draw.standard_normal((SIDE, SIDE)).astype(np.float32)) for _ in range(2))
    return [x, y, nd.NDArray(draw.integers(0, SIDE, SIDE))]


def evaluated(function: Callable[..., Any], arrays: Sequence[nd.NDArray]) -> Result:
    """The values, and the gradients by the first two arrays."""
    for x in arrays[:2]:
        x.attach_grad()
    with autograd.record():
        out = function(*arrays)
    autograd.backward(out)
    return [x.asnumpy().copy() for x in (*out, *(x.grad for x in arrays[:2]))]


def test_branches_give_the_same_bits_as_one_by_one(side_by_side: list[Wave], monkeypatch: pytest.MonkeyPatch) -> None:
    for s in range(5):
        function = branching(np.random.default_rng([9, SEED, s]), 6 + 3 * s)
        arrays = arrays_for(np.random.default_rng([10, SEED, s]))
        with monkeypatch.context() as only:
            only.setattr(together, "get_num_threads", lambda: 1)
            wanted = evaluated(hybridize(function), arrays)
        before = len(side_by_side)
        compiled = hybridize(function)
        same_bits(lambda c=compiled, a=arrays: evaluated(c, a), f"branching {s}")  # type: ignore[misc]
        for a, b in zip(evaluated(compiled, arrays), wanted, strict=True):
            assert a.tobytes() == b.tobytes(), f"branching {s}: {len(side_by_side) - before} waves change the results"
    assert len(side_by_side) > 5


def test_random_programs_give_the_same_bits(side_by_side: list[Wave]) -> None:
    assert check_programs(range(16, 22)) > 0
    assert side_by_side


# --- plans ------------------------------------------------------------------------------------------------------------
Span = tuple[int, int, Any]  # first byte, end, whose


def accesses(run: Bound, number: int) -> tuple[list[Span], list[Span]]:
    """The memory that a step reads and writes, by area."""
    base = {"arena": 0, "kept": 1 << 40, "prepared": 2 << 40, "output": 3 << 40, "captured": 4 << 40, "input": 5 << 40}

    def span(node: Any) -> Span:
        root = root_of(node)
        place = run.places[id(root)]
        own = place.area in ("arena", "kept", "prepared")
        begin = base.get(place.area, 6 << 40) + (place.at if own else place.at << 32)
        return begin, begin + max(1, run.bytes_of(root)), root

    step, plan, at = run.steps[number], run.plans[number], run.scratch_at[number]
    reads, writes = [span(n) for n in step.reads], [span(n) for n in step.writes]
    assert plan is not None
    return reads, writes + ([(at, at + plan.scratch, step)] if plan.scratch else [])


def clash(a: Sequence[Span], b: Sequence[Span], parts: bool) -> bool:
    """Whether memory of both overlaps; parts: of one value they write apart."""
    return any(p < f and e < q and not (parts and x is y) for p, q, x in a for e, f, y in b)


def check_wave(run: Bound, wave: Wave) -> int:
    """Asserts that steps which touch the same memory, one of them writing, run in order; gives the pairs that do not
    need to."""
    region, free = wave.region, 0
    touched = [accesses(run, n) for n in region]
    for late in range(len(touched)):
        for early in range(late):
            (r1, w1), (r2, w2) = touched[early], touched[late]
            parts = run.steps[region.first + early].part and run.steps[region.first + late].part
            ordered = bool(region.before[late] >> early & 1)
            free += not ordered
            clashes = clash(w1, w2, parts) or clash(w1, r2, False) or clash(r1, w2, False)
            assert ordered or not clashes, (
                f"{run.steps[region.first + early]!r} beside {run.steps[region.first + late]!r}"
            )
    return free


def check_order(wave: Wave, loads: int) -> None:
    """Asserts that every step is done once, by pieces that come behind all they need."""
    assert sorted(k for task in wave.tasks for k in task.steps) == list(range(loads))
    place = {entry: i for i, entry in enumerate(wave.order)}
    assert len(place) == len(wave.order) == sum(task.pieces for task in wave.tasks)
    for number, task in enumerate(wave.tasks):
        assert task.pieces == 1 or len(task.steps) == 1
        needed = {k for step in task.steps for k in wave.region.needs[step]} - set(task.steps)
        assert needed <= {k for n in task.needs for k in wave.tasks[n].steps}
        first = min(place[number, piece] for piece in range(task.pieces))
        assert all(place[n, p] < first for n in task.needs for p in range(wave.tasks[n].pieces))


def check_variant(variant: Variant, arrays: list[nd.NDArray]) -> tuple[int, int]:
    sizes = variant.match(arrays)
    runs = [Bound(variant.program, sizes)]
    if variant.backward is not None:
        runs.append(Bound(variant.backward.program(), sizes, held_layout=runs[0].kept_layout))
    free = 0
    for run in runs:
        for wave in run.waves:
            free += check_wave(run, wave)
            check_order(wave, len(wave.region.needs))
    return sum(len(run.waves) for run in runs), free


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans need no machine code."""
    monkeypatch.setattr(Kernel, "address", 1)


def test_plans_of_random_programs(side_by_side: list[Wave], no_compiler: None) -> None:
    found = np.zeros(2, int)
    for program, variant, arguments in traced(12, 60):
        try:
            found += check_variant(variant, arguments)
        except AssertionError as error:
            raise AssertionError(f"{program}\n{error}\n{variant.optimised}") from None
    assert found[0] > 20 and found[1] > 50


def test_plans_of_branches(side_by_side: list[Wave], no_compiler: None) -> None:
    found = np.zeros(2, int)
    for s in range(30):
        arrays = arrays_for(np.random.default_rng([13, s]))
        for x in arrays[:2]:
            x.attach_grad()
        with autograd.record() if s % 2 else autograd.pause():
            variant = compile_function(branching(np.random.default_rng([14, SEED, s]), 10 + s)).variant_for(*arrays)
        found += check_variant(variant, arrays)
    assert found[0] > 20 and found[1] > 200


def test_the_law_of_plans_can_fail(side_by_side: list[Wave], no_compiler: None) -> None:
    """A plan that does not know what runs side by side is found."""

    def towers(x: Any, y: Any, i: Any) -> Any:
        for _ in range(4):
            x, y = nd.softmax(x @ x), nd.softmax(y @ y)
        return x @ y

    arrays = arrays_for(np.random.default_rng(1))
    variant = compile_function(towers).variant_for(*arrays)
    run = Bound(variant.program, variant.match(arrays))
    (wave,) = run.waves
    check_wave(run, wave)
    apart = Bound(variant.program, run.sizes)
    apart.places = {key: place._replace(at=0) if place.area == "arena" else place for key, place in run.places.items()}
    with pytest.raises(AssertionError, match="beside"):
        check_wave(apart, wave)


# --- structure --------------------------------------------------------------------------------------------------------
def a_step(reads: str, writes: str, nodes: dict[str, Any], part: bool = False) -> Step:
    return Step([nodes[x] for x in reads], [nodes[x] for x in writes], part=part)


def test_regions_lie_between_what_all_wait_for() -> None:
    from gluonish.hybrid.graph import Node
    from gluonish.nd.op import Spec

    nodes = {name: Node("temp", Spec((), np.dtype("float32"))) for name in "xabcdefgh"}
    lines = ["x a", "a b", "a c", "c d", "bd e", "e f", "f g", "e h", "gh x"]
    steps = [a_step(*line.split(), nodes=nodes) for line in lines]
    found = regions(steps, {}, [False] * len(steps))
    assert [(r.first, r.end) for r in found] == [(1, 4), (5, 8)]
    assert found[0].needs == [[], [], [1]] and found[0].before == [0, 0, 0b10]
    cut = [number == 2 for number in range(len(steps))]  # nothing runs beside step 2
    assert [(r.first, r.end) for r in regions(steps, {}, cut)] == [(5, 8)]
    joined = [a_step("a", "b", nodes, True), a_step("c", "b", nodes, True), a_step("b", "d", nodes)]
    (region,) = regions(joined, {}, [False] * 3)
    assert (region.first, region.end) == (0, 2) and region.needs == [[], []]
    for step in joined:
        step.part = False
    assert regions(joined, {}, [False] * 3) == []


def test_what_pays() -> None:
    """Two chains of short steps, a step too long to be shared beside others; not what fills all threads anyway."""
    towers = Region(0, [[], [0], [1], [], [3], [4]])
    short, wide, single = Load(4000.0, 9, False), Load(900000.0, 512, True), Load(50000.0, 1, False)
    wave = wave_of(towers, [short] * 6, 2)
    assert wave is not None and [task.steps for task in wave.tasks] == [[0, 1, 2], [3, 4, 5]]
    assert wave.order == [(0, 0), (1, 0)] and 8000 < wave.gain < 12000
    assert wave_of(towers, [short] * 6, 1) is None
    assert wave_of(towers, [Load(400.0, 9, False)] * 6, 2) is None
    assert wave_of(towers, [wide] * 6, 2) is None
    mixed = wave_of(Region(0, [[], []]), [single, wide], 4)
    assert mixed is not None and mixed.order[0] == (0, 0) and len(mixed.order) == 33
    assert wave_of(Region(0, [[], []]), [single, single], 2) is not None


# --- a net of towers --------------------------------------------------------------------------------------------------
class Towers(nn.HybridBlock):
    def __init__(self, count: int = 4, units: int = 96) -> None:
        self.towers = [nn.HybridSequential(*(nn.Dense(units, "relu") for _ in range(3))) for _ in range(count)]
        self.output = nn.Dense(1)

    def forward(self, *xs: nd.NDArray) -> nd.NDArray:
        return self.output(nd.concat([tower(x) for tower, x in zip(self.towers, xs)], 1))


def test_towers_run_side_by_side(rng: np.random.Generator) -> None:
    net = Towers()
    net.initialize(gl.init.Xavier())
    xs = [nd.NDArray(rng.standard_normal((32, 96)).astype(np.float32)) for _ in range(4)]
    eager = net(*xs).asnumpy()
    net.hybridize()
    with pool.num_threads(2):
        result = net(*xs)
        memory = net.memory(*xs)
        text = net.explain(*xs)
    assert np.allclose(result.asnumpy(), eager, rtol=1e-4, atol=1e-5)
    (row,) = [line for line in text.splitlines() if "side by side" in line]
    assert row.strip().startswith("16 kernel calls side by side, in ") and row.count("test_waves.py:") == 16
    kernels = net.kernels(*xs)
    assert sum(f"  {kernel.name}  " in line for kernel in kernels[-1:] for line in text.splitlines()) > 0
    with pool.num_threads(1):
        net.hybridize()
        assert net(*xs).asnumpy().tobytes() == result.asnumpy().tobytes()
        alone = net.memory(*xs)
        assert "side by side" not in net.explain()
    assert alone.of("activations") <= memory.of("activations") <= alone.of("activations") + together.EXTRA


def test_replaced_kernels_run_side_by_side(rng: np.random.Generator) -> None:
    net = Towers(2)
    net.initialize(gl.init.Xavier())
    xs = [nd.NDArray(rng.standard_normal((32, 96)).astype(np.float32)) for _ in range(2)]
    net.hybridize(verify=True)
    with pool.num_threads(2):
        before = net(*xs).asnumpy()
        call = next(k for k in net.kernels(*xs) if k.name == "strided_copy")
        call.replace(call.source + "\n# as it was")
        assert net(*xs).asnumpy().tobytes() == before.tobytes()
        assert "side by side" in net.explain()


def test_the_first_of_two_wrong_indices_is_told(side_by_side: list[Wave], rng: np.random.Generator) -> None:
    def f(x: Any, i: Any, j: Any) -> Any:
        a = nd.take(x, i, 0)
        b = nd.take(x, j, 0)
        return nd.softmax(a) @ b.T

    compiled = hybridize(f)
    line = f.__code__.co_firstlineno
    x = nd.NDArray(rng.standard_normal((SIDE, SIDE)).astype(np.float32))
    good, bad, worse = (nd.array(np.array([1, value, 2])) for value in (3, 99, -77))
    wanted = compiled(x, good, good).asnumpy()
    assert side_by_side
    run = next(iter(compiled.variants[0].program._free[0].bounds.values()))
    assert sum(run.steps[n].checks == "take" for n in run.waves[0].region) == 2
    for _ in range(5):
        for given, value, at in (((good, bad), 99, 2), ((bad, good), 99, 1), ((worse, bad), -77, 1)):
            with pytest.raises(IndexError, match=rf"{value}.*test_waves.py:{line + at}"):
                compiled(x, *given)
        assert np.array_equal(compiled(x, good, good).asnumpy(), wanted)
