"""Attention kernels against the ops' NumPy forwards: sizes, masks, targets, threads, memory around the results."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from gluonish.kernels import attention, pool, target
from gluonish.kernels.attention import STACK, Sizes, Variant, attention_gradient_kernel, attention_kernel
from gluonish.kernels.attention_row import attention_row_kernel, row_plan
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import code_of
from gluonish.kernels.tiling import tile_of
from gluonish.nd.op import OPS
from gluonish.nd.ops.attention import scale_of

Rng = np.random.Generator
Arrays = list[np.ndarray]
GUARD = 64  # numbers before and after each output that must stay as they are
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
EACH_DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])
MASKS = ["none", "key bools", "key floats", "bools", "floats"]
GRADIENTS = [OPS[f"attention_{of}_gradient"] for of in ("query", "key", "value")]


# --- calling the kernels ---------------------------------------------------------------------------------------------
def steps(x: np.ndarray) -> tuple[int, int, int]:
    """Bytes from batch to batch, head to head, row to row, 0 where a mask has one for all."""
    return tuple(0 if size == 1 else step for size, step in zip(x.shape[:3], x.strides[:3]))  # type: ignore[return-value]


def variant_of(query: np.ndarray, mask: np.ndarray | None, causal: bool) -> Variant:
    code = "" if mask is None else code_of(mask.dtype)
    kind = "none" if mask is None else "key" if mask.shape[2] == 1 else "full"
    return Variant(query.dtype.name, kind, code, causal)


def sizes_of(arrays: Arrays, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any) -> Sizes:
    batch, heads, queries, depth = q.shape
    mask_steps = (0, 0, 0) if mask is None else steps(mask)
    scale = scale_of(None, depth)
    every = tuple(x.strides[:3] for x in arrays)
    return Sizes(batch, heads, queries, k.shape[2], depth, v.shape[3], scale, every, mask_steps)  # type: ignore[arg-type]


def guarded(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Memory full of NaN, and an array in its middle."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, np.nan, dtype)
    return memory, memory[GUARD : GUARD + size].reshape(shape)


def run(kernel: Kernel, plan: Plan, ins: Arrays, memories: list[tuple[np.ndarray, np.ndarray]], threads: int) -> None:
    scratch = np.empty(plan.scratch + 64, np.uint8)
    words = [*(x.ctypes.data for x in ins), *(x.ctypes.data for _, x in memories), scratch.ctypes.data, *plan.scalars]
    args = np.array(words, np.int64)
    table = np.array([[kernel.address, args.ctypes.data, plan.tiles, 1]], np.int64)
    before = pool.get_num_threads()
    pool.set_num_threads(threads)
    try:
        entry(table.ctypes.data, 1)()
    finally:
        pool.set_num_threads(before)
    for memory, inside in memories:
        end = GUARD + inside.size
        assert np.isnan(memory[:GUARD]).all() and np.isnan(memory[end:]).all(), "written outside of an output"


def forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = None, causal: bool = False, threads: int = 2
) -> Arrays:
    memories = [guarded((*q.shape[:3], v.shape[3]), q.dtype), guarded(q.shape[:3], q.dtype)]
    sizes = sizes_of([q, k, v, memories[0][1]], q, k, v, mask)
    masks = [] if mask is None else [mask]
    plan = attention.forward_plan(sizes, tile_of(q.dtype.name))
    run(attention_kernel(variant_of(q, mask, causal), True), plan, [q, k, v, *masks], memories, threads)
    return [x for _, x in memories]


def backward(
    g: np.ndarray, out: np.ndarray, statistics: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray,
    mask: Any = None, causal: bool = False, threads: int = 2, wanted: tuple[bool, ...] = (True,) * 3,
) -> Arrays:  # fmt: skip
    memories = [guarded(x.shape, x.dtype) for x in (q, k, v)]
    sizes = sizes_of([q, k, v, out, g, *(x for _, x in memories)], q, k, v, mask)
    masks = [] if mask is None else [mask]
    plan = attention.backward_plan(sizes, tile_of(q.dtype.name))
    kernel = attention_gradient_kernel(variant_of(q, mask, causal), wanted)
    asked = [m for m, want in zip(memories, wanted, strict=True) if want]
    partial = [guarded(attention.partial_shape(sizes), q.dtype)] * wanted[0]
    run(kernel, plan, [g, out, statistics, q, k, v, *masks], [*asked, *partial], threads)
    if wanted[0] and plan.tiles > q.shape[0] * q.shape[1]:
        run(
            attention.attention_sum_kernel(q.dtype.name), attention.sum_plan(sizes), [partial[0][1]], asked[:1], threads
        )
    return [x for _, x in asked]


def row(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = None) -> np.ndarray:
    memory = guarded((*q.shape[:3], v.shape[3]), q.dtype)
    sizes = sizes_of([q, k, v, memory[1]], q, k, v, mask)
    masks = [] if mask is None else [mask]
    kernel = attention_row_kernel(variant_of(q, mask, False))
    run(kernel, row_plan(sizes, tile_of(q.dtype.name)), [q, k, v, *masks], [memory], 2)
    return memory[1]


def oracle(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any, causal: bool) -> Arrays:
    """Result and statistics by the ops' forwards, in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    masks = [] if mask is None else [mask if mask.dtype == bool else mask.astype(np.float64)]
    attrs = {"causal": causal, "scale": None}
    return [
        OPS["attention"].forward(q, k, v, *masks, **attrs),
        OPS["attention_statistics"].forward(q, k, *masks, **attrs),
    ]


def gradients(g: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any, causal: bool) -> Arrays:
    out, statistics = oracle(q, k, v, mask, causal)
    wide = [x.astype(np.float64) for x in (g, out, statistics, q, k, v)]
    masks = [] if mask is None else [mask if mask.dtype == bool else mask.astype(np.float64)]
    return [op.forward(*wide, *masks, causal=causal, scale=None) for op in GRADIENTS]


def close(found: Arrays, wanted: Arrays) -> None:
    for a, b in zip(found, wanted, strict=True):
        eps = np.finfo(a.dtype).eps
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=200 * eps, atol=100 * eps * scale)


def drawn(rng: Rng, dtype: str, *shapes: tuple[int, ...]) -> Arrays:
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def mask_for(rng: Rng, kind: str, dtype: str, batch: int, heads: int, queries: int, keys: int) -> np.ndarray | None:
    if kind == "none":
        return None
    shape = (batch, 1, 1, keys) if kind.startswith("key") else (1, heads, queries, keys)
    return rng.random(shape) < 0.6 if kind.endswith("bools") else rng.standard_normal(shape).astype(dtype)


def check(rng: Rng, dtype: str, shape: tuple[int, ...], mask: str, causal: bool) -> None:
    batch, heads, queries, keys, depth, columns = shape
    q, k, v, g = drawn(
        rng, dtype, (batch, heads, queries, depth), (batch, heads, keys, depth), (batch, heads, keys, columns),
        (batch, heads, queries, columns),
    )  # fmt: skip
    m = mask_for(rng, mask, dtype, batch, heads, queries, keys)
    found = forward(q, k, v, m, causal)
    close(found, oracle(q, k, v, m, causal))
    close(backward(g, *found, q, k, v, m, causal), gradients(g, q, k, v, m, causal))


def sizes(rng: Rng, *limits: int) -> tuple[int, ...]:
    """Random sizes, each from 1 to its limit, small ones more often than large ones."""
    return tuple(int(np.ceil(limit ** rng.random())) for limit in limits)


# --- values ----------------------------------------------------------------------------------------------------------
@EACH_LEVEL
@EACH_DTYPE
def test_every_target(level: str, dtype: str, rng: Rng) -> None:
    with target.use(target.named(level)):
        for shape in [(1, 2, 64, 96, 64, 64), (2, 1, 70, 130, 17, 33), sizes(rng, 2, 3, 150, 150, 40, 40)]:
            check(rng, dtype, shape, "none", False)


@EACH_DTYPE
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_masks(dtype: str, mask: str, causal: bool, rng: Rng) -> None:
    for shape in [(2, 3, 5, 7, 5, 3), (1, 2, 130, 21, 8, 70), sizes(rng, 2, 3, 100, 200, 20, 20)]:
        check(rng, dtype, shape, mask, causal)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_at_the_end_is_not_read(causal: bool, rng: Rng) -> None:
    q, k, v, g = drawn(rng, "float32", *[(2, 2, 150, 8)] * 4)
    mask = np.arange(150) < np.array([[[[100]]], [[[0]]]])
    found = forward(q, k, v, mask, causal)
    close(found, oracle(q, k, v, mask, causal))
    assert (found[0][1] == 0).all()
    close(backward(g, *found, q, k, v, mask, causal), gradients(g, q, k, v, mask, causal))
    k[0, :, 100:] = v[0, :, 100:] = np.nan
    np.testing.assert_array_equal(forward(q, k, v, mask, causal)[0], found[0])


@pytest.mark.parametrize("causal", [False, True])
def test_many_keys_come_in_blocks(causal: bool, rng: Rng) -> None:
    check(rng, "float32", (1, 1, 70, 1300, 9, 5), "none", causal)
    check(rng, "float32", (1, 1, 1300, 600, 3, 3), "none", causal)


@pytest.mark.parametrize("zero", range(6))
@pytest.mark.parametrize("causal", [False, True])
def test_zero_sizes(zero: int, causal: bool, rng: Rng) -> None:
    shape = [2, 3, 4, 5, 6, 7]
    shape[zero] = 0
    check(rng, "float32", tuple(shape), "none", causal)


def test_a_block_too_large_for_the_stack_lies_in_the_arena(rng: Rng) -> None:
    shape = (1, 2, 40, 30, 1700, 1600)
    sizes = Sizes(*shape, 1.0, ((0, 0, 0),) * 8)  # type: ignore[call-arg]
    tile = tile_of("float32")
    for plan in (attention.forward_plan(sizes, tile), attention.backward_plan(sizes, tile)):
        assert plan.scratch > STACK * plan.tiles / 2
    check(rng, "float32", shape, "none", False)


@EACH_DTYPE
def test_few_heads_are_cut_into_parts_of_the_keys(dtype: str, rng: Rng) -> None:
    tile = tile_of(dtype)
    shape = (1, 2, 70, 700, 9, 5)
    assert attention.backward_plan(Sizes(*shape, 1.0, ((0, 0, 0),) * 8), tile).tiles == 8  # type: ignore[call-arg]
    for mask, causal in [("none", False), ("none", True), ("key bools", False), ("floats", True)]:
        check(rng, dtype, shape, mask, causal)
    check(rng, dtype, (1, 1, 700, 290, 9, 5), "none", True)


def test_operands_may_be_split_heads(rng: Rng) -> None:
    """Memory (batch, rows, heads, numbers), read and written as (batch, heads, rows, numbers)."""
    q, k, v, g = (x.transpose(0, 2, 1, 3) for x in drawn(rng, "float32", *[(2, 35, 3, 20)] * 4))
    found = forward(q, k, v)
    close(found, oracle(q, k, v, None, False))
    close(backward(g, *found, q, k, v), gradients(g, q, k, v, None, False))


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)]
)
def test_gradients_that_nobody_wants_are_not_made(wanted: tuple[bool, ...], rng: Rng) -> None:
    q, k, v, g = drawn(rng, "float32", *[(1, 2, 33, 20)] * 4)
    every = gradients(g, q, k, v, None, False)
    found = backward(g, *forward(q, k, v), q, k, v, wanted=wanted)
    close(found, [x for x, want in zip(every, wanted, strict=True) if want])


@EACH_LEVEL
@EACH_DTYPE
@pytest.mark.parametrize("mask", ["none", "key bools", "key floats"])
def test_a_single_query(level: str, dtype: str, mask: str, rng: Rng) -> None:
    with target.use(target.named(level)):
        for batch, heads, keys, depth, columns in [
            (1, 3, 1000, 64, 64),
            sizes(rng, 3, 3, 300, 150, 150),
            (1, 1, 1, 1, 1),
        ]:
            q, k, v = drawn(
                rng, dtype, (batch, heads, 1, depth), (batch, heads, keys, depth), (batch, heads, keys, columns)
            )  # fmt: skip
            m = mask_for(rng, mask, dtype, batch, heads, 1, keys)
            close([row(q, k, v, m)], oracle(q, k, v, m, False)[:1])


def test_a_single_query_with_nothing_to_look_at(rng: Rng) -> None:
    q, k, v = drawn(rng, "float32", (1, 1, 1, 4), (1, 1, 9, 4), (1, 1, 9, 4))
    assert (row(q, k, v, np.zeros((1, 1, 1, 9), bool)) == 0).all()
    assert (row(q, k[:, :, :0], v[:, :, :0]) == 0).all()
    k[..., 5:, :] = v[..., 5:, :] = np.nan  # the unused end of a cache
    seen = np.arange(9) < 5
    close([row(q, k, v, seen.reshape(1, 1, 1, 9))], oracle(q, k[:, :, :5], v[:, :, :5], None, False)[:1])


# --- special numbers -------------------------------------------------------------------------------------------------
def test_large_scores_do_not_overflow(rng: Rng) -> None:
    q, k, v = drawn(rng, "float32", (1, 1, 20, 8), (1, 1, 700, 8), (1, 1, 700, 8))
    q *= 300
    found, statistics = forward(q, k, v)
    wanted = oracle(q, k, v, None, False)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted[0], atol=3e-3)
    np.testing.assert_allclose(statistics, wanted[1], rtol=1e-5)


def test_nan_and_inf_stay_in_their_rows(rng: Rng) -> None:
    q, k, v = drawn(rng, "float32", (1, 1, 70, 8), (1, 1, 50, 8), (1, 1, 50, 8))
    clean = forward(q, k, v)[0]
    q[0, 0, 3, 2], q[0, 0, 66, 1] = np.nan, np.inf
    dirty = forward(q, k, v)[0]
    rows = np.isnan(dirty).all(-1)[0, 0]
    assert rows[3] and rows[66] and rows.sum() == 2
    np.testing.assert_array_equal(dirty[0, 0, ~rows], clean[0, 0, ~rows])
    v[0, 0, 7, 4] = np.nan
    assert np.isnan(forward(q, k, v)[0][..., 4]).all()


# --- threads, plans, machine code -------------------------------------------------------------------------------------
@pytest.mark.parametrize("causal", [False, True])
def test_number_of_threads_changes_no_bit(causal: bool, rng: Rng) -> None:
    q, k, v, g = drawn(rng, "float32", *[(1, 3, 300, 24)] * 4)
    results = []
    for threads in (1, 2, 3, 8):
        found = forward(q, k, v, causal=causal, threads=threads)
        results.append([*found, *backward(g, *found, q, k, v, causal=causal, threads=threads)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


def test_plans_make_enough_tiles() -> None:
    tile = tile_of("float32")

    def plan(batch: int, heads: int, queries: int) -> Plan:
        return attention.forward_plan(Sizes(batch, heads, queries, 512, 64, 64, 1.0, ((0, 0, 0),) * 4), tile)

    assert plan(1, 12, 512).tiles >= 48
    assert plan(1, 1, 512).tiles >= 8
    assert plan(1, 12, 512).scratch == 0


WEIGH = """
def weigh_all(args, begin, end):
    highest, before, total, factor = load_i64(args, 1), load_i64(args, 2), load_i64(args, 3), load_i64(args, 4)
    weigh(1, load_i64(args, 0), load_i64(args, 5), highest, before, total, factor)
"""


@EACH_LEVEL
@EACH_DTYPE
def test_powers_of_two(level: str, dtype: str, call: Any) -> None:
    """In the pass that makes weights, where the highest score is 0: about one unit of rounding; 0 far below."""
    with target.use(target.named(level)):
        tile = tile_of(dtype)
        scores = -np.concatenate([np.linspace(0, 3, 4096), np.linspace(0, 120, 4096)]).astype(dtype)
        wanted = np.exp2(scores.astype(np.longdouble))
        block = np.concatenate([scores, np.full(tile.lanes, -2000, dtype)])
        state = [np.zeros(tile.lanes, dtype) for _ in range(4)]
        kernel = Kernel("weigh_all", WEIGH, (("weigh", "attention_tiles:weigh", (dtype, tile)),))
        call(kernel, [block, *state, block.size // tile.lanes])
    assert block[0] == 1 and (block[-tile.lanes :] == 0).all()
    assert np.abs(block[: -tile.lanes] / wanted - 1).max() < 1.5 * np.finfo(dtype).eps
    np.testing.assert_allclose(state[2].sum(), wanted.sum(), rtol=1e-5)


@pytest.mark.skipif("avx512" not in target.available(), reason="looks at AVX-512 assembly")
@pytest.mark.parametrize("which", ["forward", "backward"])
def test_inner_loop(which: str) -> None:
    """24 fused products a step from registers: no spills, no gathers, no calls, no float64."""
    variant = Variant("float32")
    kernel = attention_kernel(variant, True) if which == "forward" else attention_gradient_kernel(variant, (True,) * 3)
    assert "x double>" not in kernel.llvm
    assert "gather" not in kernel.assembly
    body = kernel.assembly.split("products_4:")[1].split(".Lfunc_end")[0]
    loops = [block for block in re.split(r"\n\.L\w+:", body) if "vfmadd" in block]
    assert loops
    for block in loops:
        code = block[: block.rindex("vfmadd")]
        assert len(re.findall(r"vfmadd231ps\s+[^\n]*%zmm", code)) % 24 == 23
        assert "call" not in code
        assert not re.search(r"vmov\w+\s+[^\n]*\(%r[sb]p\)", code), "a spilled vector"
