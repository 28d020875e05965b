"""Attention of few queries, as decoding with a cache of keys and values needs it, one query after the other.

A tile is one query of one head. Scores of all keys stand in working memory; nothing here is worth more than the memory
traffic. Keys at the end that a mask of bools hides, the unused part of a cache, are not read at all.

Deliberately not here: many queries (`attention.py`).
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.attention_sizes import STACK, Sizes, Variant, loads, plan_of
from gluonish.kernels.attention_tiles import power
from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.lanes import Lanes, i64, intrinsic_of, loop
from gluonish.kernels.tiling import Tile, round_up, tile_of
from gluonish.kernels.value import Value, declare

KEYS = 8  # keys that are read side by side

FEW = 6  # queries up to which each reads the keys by itself, mostly from the second cache

ROWS = """
ends = ends_of()
for tile in range(begin, end):
    n, place = tile // n_queries, tile % n_queries
    scores = own if mine == 1 else scratch + tile * room
    outer, head = n // heads, n % heads
    q = query + outer * q_outer + head * q_head + place * q_step
    k = key + outer * k_outer + head * k_head
    v = value + outer * v_outer + head * v_head
    o = out + outer * o_outer + head * o_head + place * o_step
    shown = {shown}
    {skip}
    row_scores(q, k, k_step, shown, depth, scores)
    for i in range(shown):
        store_{code}(scores, i, load_{code}(scores, i) * scale)
    {masked}
    row_weights(scores, shown, ends)
    row_mix(v, v_step, shown, scores, columns, o)
    {known}
"""
MASKED = """for i in range(shown):
        {line}"""
PLACE = "m = mask + outer * m_outer + head * m_head + place * m_step"
SKIP = """
    while shown > 0 and not read_b1(m, shown - 1):  # the unused end of a cache
        shown -= 1"""
BOOLS = "store_{code}(scores, i, where(load_b1(m, i), load_{code}(scores, i), {float}(-1) / {float}(0)))"
FLOATS = "store_{code}(scores, i, load_{code}(scores, i) + load_{code}(m, i) * {float}({log2e}))"
KNOWN = """top, weight = read_{code}(ends, 0), read_{code}(ends, 1)
    write_{code}(statistics, tile, where(equal(weight, {float}(0)), -top, top * {float}({ln2}) + log(weight)))"""


def attention_row_kernel(variant: Variant, statistics: bool = False) -> Kernel:
    """As `attention_kernel` for few queries only: it compiles in less time."""
    code = "f32" if variant.dtype == "float32" else "f64"
    arrays = ["query", "key", "value", *["mask"] * (variant.mask != "none"), "out", *["statistics"] * statistics]
    take = loads(arrays, ("q", "k", "v", "o", "m"), {"code": code})
    lines = ["def attention_row(args, begin, end):", f"    {take}", "    own = stack()"]
    return Kernel("attention_row", "\n".join([*lines, rows_of(variant, statistics, 4), ""]), row_externals(variant))


def rows_of(variant: Variant, statistics: bool, indent: int) -> str:
    """Lines that treat each query by itself; what they read by name is what `loads` takes, and `own`."""
    names = {
        "code": "f32" if variant.dtype == "float32" else "f64",
        "float": variant.dtype,
        "log2e": 1 / math.log(2),
        "ln2": math.log(2),
        "shown": "max(0, n_keys - n_queries + place + 1)" if variant.causal else "n_keys",
    }
    masked, bools = variant.mask != "none", variant.code == "b1"
    line = (BOOLS if bools else FLOATS).format(**names)
    text = ROWS.format(
        **names,
        masked=MASKED.format(line=line) if masked else "",
        skip=(PLACE if masked else "") + (SKIP if bools else ""),
        known=KNOWN.format(**names) if statistics else "",
    )
    return "\n".join(" " * indent + line for line in text.splitlines() if line.strip())


def row_externals(variant: Variant) -> tuple[External, ...]:
    """What `rows_of` calls."""
    tile = tile_of(variant.dtype)
    how = (variant.dtype, tile.lanes)
    return (
        ("stack", "microkernel:stack", (STACK,)),
        ("ends_of", "microkernel:stack", (2 * tile.size,)),
        ("row_scores", "attention_row:row_scores", how),
        ("row_weights", "attention_row:row_weights", how),
        ("row_mix", "attention_row:row_mix", (*how, tile.vectors)),
    )


def row_plan(sizes: Sizes, tile: Tile) -> Plan:
    """The scalars and tiles of a call with few queries: blocks of no vectors."""
    room = round_up(max(sizes.keys, 1) * tile.size, 64) + 64
    return plan_of(sizes, sizes.scale / math.log(2), 0, 0, room, sizes.batch * sizes.heads * sizes.queries)


# --- emitters --------------------------------------------------------------------------------------------------------
def _chunks(lanes: Lanes, numbers: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """How many whole vectors there are, 1 if a part of one is left, and its mask."""
    b = lanes.builder
    whole = b.sdiv(numbers, i64(lanes.count))
    rest = b.sub(numbers, b.mul(whole, i64(lanes.count)))
    return whole, b.select(b.icmp_signed(">", rest, i64(0)), i64(1), i64(0)), lanes.below(rest)


def _reduced(lanes: Lanes, name: str, x: ir.Value, start: ir.Value | None = None) -> ir.Value:
    """All lanes of a vector as one number."""
    full = f"llvm.vector.reduce.{name}.v{lanes.count}f{lanes.size * 8}"
    kinds = [lanes.vector] if start is None else [lanes.number, lanes.vector]
    function = declare(lanes.builder, full, lanes.number, kinds)
    operands = [x] if start is None else [start, x]
    return lanes.builder.call(function, operands, fastmath=("reassoc",) if start is not None else ())


def row_scores(dtype: str, count: int) -> Any:
    """(query, key, key_step, keys, depth, scores): the product of the query with each key."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        query, key, key_step, keys, depth, scores = arguments
        lanes, fused = Lanes(b, dtype, count), targets.current().fma
        whole, rest, mask = _chunks(lanes, depth)
        last, places = b.sub(keys, i64(1)), lanes.pointer(scores)
        start = lanes.pointer(query)

        def group(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            first = b.mul(turn, i64(KEYS))
            index = [b.add(first, i64(i)) for i in range(KEYS)]
            index = [b.select(b.icmp_signed("<", i, last), i, last) for i in index]
            rows = [lanes.pointer(b.add(key, b.mul(i, key_step))) for i in index]

            def chunk(mask: ir.Value | None) -> Any:
                def step(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                    numbers = lanes.load(lanes.at(start, held[0]), mask)
                    sums = [
                        lanes.fma(lanes.load(lanes.at(row, held[0]), mask), numbers, x, fused)
                        for row, x in zip(rows, held[1:], strict=True)
                    ]
                    return [b.add(held[0], i64(count * lanes.size)), *sums]

                return step

            sums = loop(b, whole, [i64(0), *[lanes.zero] * KEYS], chunk(None))
            sums = loop(b, rest, sums, chunk(mask))[1:]
            for i, x in zip(index, sums, strict=True):
                total = _reduced(lanes, "fadd", x, ir.Constant(lanes.number, -0.0))
                b.store(total, lanes.at(places, b.mul(i, i64(lanes.size))), align=lanes.size)
            return []

        loop(b, b.sdiv(b.add(keys, i64(KEYS - 1)), i64(KEYS)), [], group)

    return intrinsic_of(6, emit)


def row_weights(dtype: str, count: int) -> Any:
    """(scores, keys, ends): scores become weights that sum to one, in place; all 0 if no score is above -Inf.

    ends: address of the highest score and the sum of the weights before they were divided by it, written.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        scores, keys, ends = arguments
        lanes = Lanes(b, dtype, count)
        start, hidden = lanes.pointer(scores), ir.Constant(lanes.vector, [-math.inf] * count)
        vectors = b.sdiv(b.add(keys, i64(count - 1)), i64(count))

        def each(body: Any, initial: list[ir.Value]) -> list[ir.Value]:
            def step(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                done = b.mul(turn, i64(count))
                return list(body(lanes.at(start, b.mul(done, i64(lanes.size))), lanes.below(b.sub(keys, done)), held))

            return loop(b, vectors, initial, step)

        def highest(pointer: ir.Value, mask: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            x = b.select(mask, lanes.load(pointer, mask), hidden)
            return [b.select(b.fcmp_ordered(">", x, held[0]), x, held[0])]  # a NaN comes back in the sum

        best = _reduced(lanes, "fmax", each(highest, [hidden])[0])
        lowest = ir.Constant(lanes.number, -math.inf)
        shift = b.select(b.fcmp_ordered("==", best, lowest), ir.Constant(lanes.number, 0.0), best)
        wide = Value(b, lanes.splat(shift, lanes.vector))

        def weigh(pointer: ir.Value, mask: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            x = b.select(mask, lanes.load(pointer, mask), hidden)
            found = power(Value(b, x) - wide, False).value
            found = b.select(mask, found, lanes.zero)
            lanes.store(found, pointer, mask)
            return [b.fadd(held[0], found)]

        total = _reduced(lanes, "fadd", each(weigh, [lanes.zero])[0], ir.Constant(lanes.number, -0.0))
        one = ir.Constant(lanes.number, 1.0)
        for number, offset in ((best, 0), (total, lanes.size)):
            b.store(number, lanes.at(lanes.pointer(ends), offset), align=lanes.size)
        none = b.fcmp_ordered("==", total, ir.Constant(lanes.number, 0.0))
        factor = lanes.splat(b.fdiv(one, b.select(none, one, total)), lanes.vector)

        def divide(pointer: ir.Value, mask: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            lanes.store(b.fmul(lanes.load(pointer, mask), factor), pointer, mask)
            return []

        each(divide, [])

    return intrinsic_of(3, emit)


def row_mix(dtype: str, count: int, vectors: int) -> Any:
    """(value, value_step, keys, weights, columns, out): the sum of the rows of values, each times its weight."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        value, value_step, keys, weights, columns, out = arguments
        lanes, fused = Lanes(b, dtype, count), targets.current().fma
        numbers, result = lanes.pointer(weights), lanes.pointer(out)

        def panel(first: ir.Value, width: int, mask: ir.Value | None) -> None:
            """`width` vectors of columns from byte `first` on."""
            start = lanes.at(lanes.pointer(value), first)

            def row(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                weight = lanes.broadcast(lanes.at(numbers, b.mul(turn, i64(lanes.size))))
                pointer = lanes.at(start, held[0])
                sums = []
                for i, x in enumerate(held[1:]):
                    found = lanes.load(lanes.at(pointer, i * count * lanes.size), mask)
                    sums.append(lanes.fma(found, weight, x, fused))
                return [b.add(held[0], value_step), *sums]

            for i, x in enumerate(loop(b, keys, [i64(0), *[lanes.zero] * width], row)[1:]):
                lanes.store(x, lanes.at(result, b.add(first, i64(i * count * lanes.size))), mask)

        whole, rest, mask = _chunks(lanes, columns)
        wide = b.sdiv(whole, i64(vectors))
        size = count * lanes.size

        def panels(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            panel(b.mul(turn, i64(vectors * size)), vectors, None)
            return []

        def singles(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            panel(b.mul(b.add(b.mul(wide, i64(vectors)), turn), i64(size)), 1, None)
            return []

        def part(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            panel(b.mul(whole, i64(size)), 1, mask)
            return []

        loop(b, wide, [], panels)
        loop(b, b.sub(whole, b.mul(wide, i64(vectors))), [], singles)
        loop(b, rest, [], part)

    return intrinsic_of(6, emit)
