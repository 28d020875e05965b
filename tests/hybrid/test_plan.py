"""The buffer plan: what is alive at the same time never shares memory, in small arenas and in whole programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hybrid.random_drawing import traced

from gluonish import nd
from gluonish.hybrid import hybridize
from gluonish.hybrid.bound import Bound
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.plan import ALIGN, Arena
from gluonish.hybrid.program import Program
from gluonish.hybrid.variant import Variant
from gluonish.kernels.kernel import Kernel

Span = tuple[int, int]  # first byte, and the one behind the last


def test_an_arena_gives_the_lowest_room(rng: np.random.Generator) -> None:
    arena = Arena()
    a, b, c = arena.take(100), arena.take(1), arena.take(0)
    assert (a, b, c) == (0, 128, 192) and arena.size == 256
    arena.give(b)
    assert arena.take(65) == 256 and arena.take(64) == 128 and arena.size == 384


def test_an_arena_under_random_use(rng: np.random.Generator) -> None:
    arena = Arena()
    held: dict[int, int] = {}
    for _ in range(500):
        if held and rng.random() < 0.45:
            arena.give(held.pop(int(rng.choice(list(held)))) * 0 + _popped(held, arena))
            continue
        count = int(rng.integers(0, 1000))
        offset = arena.take(count)
        assert offset % ALIGN == 0 and offset + count <= arena.size
        assert all(offset + max(count, 1) <= o or o + max(n, 1) <= offset for o, n in held.items())
        held[offset] = count


def _popped(held: dict[int, int], arena: Arena) -> int:
    """The offset that is live in the arena but no longer held."""
    return next(offset for offset, _ in arena.live if offset not in held)


# --- whole programs ---------------------------------------------------------------------------------------------------
def spans(program: Program, bound: Bound, node: Any) -> tuple[str, Span] | None:
    """Area and bytes of a value that the plan placed, None for memory that is not the program's own."""
    place = bound.places[id(root_of(node))]
    count = bound.bytes_of(root_of(node))
    return (place.area, (place.at, place.at + count)) if place.area in ("arena", "kept", "prepared") and count else None


def check_plan(program: Program, bound: Bound) -> int:
    """Asserts that no step writes over what a later step (or the backward) still reads; gives the number of heirs."""
    roots = {id(root_of(n)): root_of(n) for s in bound.steps for n in (*s.reads, *s.writes)}
    first, last = {}, {}
    for number, step in enumerate(bound.steps):
        for n in step.writes:
            first.setdefault(id(root_of(n)), number)
        for n in (*step.reads, *step.writes):
            last[id(root_of(n))] = number
    for n in program.kept_nodes:
        last[id(root_of(n))] = len(bound.steps)
    for key in first:
        if spans(program, bound, roots[key]) is not None and spans(program, bound, roots[key])[0] == "prepared":  # type: ignore[index]
            last[key] = len(bound.steps)
    heirs = 0
    placed = [
        (key, *found) for key, n in roots.items() if key in first and (found := spans(program, bound, n)) is not None
    ]
    for i, (a, area_a, (begin_a, end_a)) in enumerate(placed):
        assert area_a != "arena" or end_a <= bound.arena.nbytes
        for b, area_b, (begin_b, end_b) in placed[i + 1 :]:
            if area_a != area_b or end_a <= begin_b or end_b <= begin_a:
                continue
            early, late = (a, b) if first[a] <= first[b] else (b, a)
            if last[early] < first[late]:
                continue
            step = bound.steps[first[late]]
            assert last[early] == first[late] and first[early] < first[late], (
                f"{roots[a]!r} and {roots[b]!r} share memory"
            )
            same = (begin_a, end_a) == (begin_b, end_b) and roots[a].dtype == roots[b].dtype
            assert step.in_place and same, f"{step!r} may not write {roots[late]!r} over {roots[early]!r}"
            heirs += 1
    for number, (step, at, plan) in enumerate(zip(bound.steps, bound.scratch_at, bound.plans, strict=True)):
        if plan is not None and plan.scratch:
            alive = [s for key, area, s in placed if area == "arena" and first[key] <= number <= last[key]]
            assert all(at + plan.scratch <= begin or end <= at for begin, end in alive), f"scratch of {step!r}"
    return heirs


def check_updates(program: Program) -> None:
    """No step reads an updated array after a step has written its new value, except to copy that value."""
    leaves = {id(leaf): leaf for leaf, _ in program.graph.updates}
    for key in leaves:
        place = program.places[key]
        writers = [
            i for i, s in enumerate(program.steps) if any(program.places.get(id(root_of(w))) == place for w in s.writes)
        ]
        readers = [i for i, s in enumerate(program.steps) if any(root_of(r) is leaves[key] for r in s.reads)]
        assert len(writers) <= 1 and all(r <= w for r in readers for w in writers)


def bound_of(program: Program, sizes: tuple[int, ...], **more: Any) -> Bound:
    return Bound(program, sizes, **more)


def check_variant(variant: Variant, arrays: list[nd.NDArray]) -> int:
    sizes = variant.match(arrays)
    forward = bound_of(variant.program, sizes)
    heirs = check_plan(variant.program, forward)
    check_updates(variant.program)
    if variant.program.prepared.steps:
        heirs += check_plan(variant.program, bound_of(variant.program, (), prepared=True))
    if variant.backward is not None:
        program = variant.backward.program()
        heirs += check_plan(program, bound_of(program, sizes, held_layout=forward.kept_layout))
    return heirs


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans need no machine code."""
    monkeypatch.setattr(Kernel, "address", 1)


def test_plans_of_random_programs(no_compiler: None) -> None:
    heirs = 0
    for program, variant, arguments in traced(4, 150):
        try:
            heirs += check_variant(variant, arguments)
        except AssertionError as error:
            raise AssertionError(f"{program}\n{error}\n{variant.optimised}") from None
    assert heirs > 20  # values are written over others where that is allowed


def test_a_chain_needs_two_buffers(rng: np.random.Generator, no_compiler: None) -> None:
    w = nd.NDArray(rng.standard_normal((64, 64)).astype(np.float32))

    def deep(x: Any) -> Any:
        for _ in range(30):
            x = nd.relu(x @ (w * 1)) + 1
        return x

    compiled = hybridize(deep)
    x = nd.ones((100, 64))
    variant = compiled.variant_for(x)
    check_variant(variant, [x])
    bound = bound_of(variant.program, variant.match([x]))
    assert bound.arena.nbytes <= 3 * 100 * 64 * 4 + 1024


def test_in_place_writes_leave_arguments_and_captured_arrays_alone(rng: np.random.Generator) -> None:
    x, w = (nd.NDArray(rng.standard_normal((40, 30)).astype(np.float32)) for _ in range(2))
    before = x.asnumpy(), w.asnumpy()
    f = hybridize(lambda x: nd.exp((nd.softmax(x * w) + x).sum(0)) * nd.concat([x, w])[:40])
    f(x)
    assert np.array_equal(x.asnumpy(), before[0]) and np.array_equal(w.asnumpy(), before[1])


def test_a_value_that_is_broadcast_is_not_written_over(rng: np.random.Generator) -> None:
    """Equal sizes are not equal shapes: (1, 4) and (4, 1) have as many elements."""

    def f(x: Any) -> Any:
        row = nd.concat([x, x * 2], 1)  # (1, 4)
        column = nd.concat([x, x], 1).reshape((4, 1))
        return (row * 3 + column).sum(), row + column, (row + 1).reshape((4, 1)) * column

    x = nd.NDArray(rng.standard_normal((1, 2)).astype(np.float32))
    for a, b in zip(f(x), hybridize(f)(x), strict=True):
        assert np.allclose(a.asnumpy(), b.asnumpy(), rtol=1e-5)
