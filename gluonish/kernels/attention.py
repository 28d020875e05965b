"""Attention as one kernel, forward and backward, without the matrix of scores.

A tile of the forward is a block of queries of one head: keys come in blocks, weights are taken relative to the highest
score so far, and what earlier blocks gave is scaled down when a later one is higher. The statistics (log-sum-exp of the
scores) are one more output. The backward gets the weights back from them; a tile is one head, or a part of its keys: it
walks the blocks of queries in one order, so sums over queries stand in one order whatever the number of threads. Keys
that a causal mask hides are skipped block by block, and so are those at the end that a mask of bools hides, in the
forward from every query of a block, else from all queries.

A FEW queries go one by one, without blocks: a panel of them would be mostly empty.

Deliberately not here: the arithmetic of a block (`attention_tiles.py`), single queries (`attention_row.py`).

Source: Dao et al., "FlashAttention", 2022; Rabe & Staats, "Self-attention does not need O(n^2) memory", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gluonish.kernels.attention_row import FEW, row_externals, row_plan, rows_of
from gluonish.kernels.attention_sizes import STACK, Sizes, Variant, loads, plan_of
from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.tiling import Tile, ceil_div, round_up, tile_of

KEYS = 512  # keys in a block of the forward, at most: scores of 64 queries of float32 are 128 KB, in the second cache
KEYS_BACK = 256  # the same for the backward, which holds two such blocks
SUB = 96  # keys whose scores are made and then masked at once, while they are in the first cache
PART = 128  # keys in a part, at least
LEAST_KEYS = 48  # keys in a block, at least, where that much does not fit the stack
TILES = 8  # fewer tiles than this are made by smaller blocks of queries, or by parts of the keys


FORWARD = """
def attention(args, begin, end):
    {take}
    own = stack()
    {few}
    lanes = vectors * {VL}
    width = lanes * {size}
    blocks = (n_queries + lanes - 1) // lanes
    for tile in range(begin, end):
        panel = own if mine == 1 else scratch + tile * room
        scored = panel + depth * width
        mixed = scored + key_block * width
        highest = mixed + columns * width
        before = highest + width
        total = before + width
        factor = total + width
        added = factor + width
        n = tile // blocks
        first = {block} * lanes
        count = min(lanes, n_queries - first)
        outer = n // heads
        head = n % heads
        q = query + outer * q_outer + head * q_head
        k = key + outer * k_outer + head * k_head
        v = value + outer * v_outer + head * v_head
        o = out + outer * o_outer + head * o_head
        for d in range(0, depth, {VL}):
            for c in range(0, lanes, {VL}):
                transpose(q + (first + c) * q_step + d * {size}, q_step, panel + d * width + c * {size}, width,
                          max(min({VL}, count - c), 0), min({VL}, depth - d))
        for i in range(depth * lanes):
            store_{code}(panel, i, load_{code}(panel, i) * scale)
        for i in range(lanes):
            store_{bits}(highest, i, {lowest})
            store_{bits}(before, i, {lowest})
            store_{bits}(total, i, 0)
        shown = {shown}
        {skip}
        for at in range(0, max(shown, 1), key_block):
            rows = max(min(key_block, shown - at), 0)
            for sub in range(0, rows, {SUB}):
                part = min({SUB}, rows - sub)
                {fill_mask}
                products(k + (at + sub) * k_step, k_step, part, {size}, panel, width, depth,
                         scored + sub * width, width, lanes, 1)
                mark(vectors, scored + sub * width, part, added, {mask}, {visible}, highest)
            weigh(vectors, scored, rows, highest, before, total, factor)
            if at > 0:
                for e in range(columns):
                    for i in range(lanes):
                        store_{code}(mixed, e * lanes + i, load_{code}(mixed, e * lanes + i) * load_{code}(factor, i))
            products(v + at * v_step, {size}, columns, v_step, scored, width, rows, mixed, width, lanes, at == 0)
        for i in range(lanes):
            t = load_{code}(total, i)
            store_{code}(factor, i, where(equal(t, {float}(0)), {float}(1), {float}(1) / t))
        for e in range(columns):
            for i in range(lanes):
                store_{code}(mixed, e * lanes + i, load_{code}(mixed, e * lanes + i) * load_{code}(factor, i))
        for e in range(0, columns, {VL}):
            for c in range(0, count, {VL}):
                unpack(mixed + e * width + c * {size}, width, o + (first + c) * o_step + e * {size}, o_step,
                       min({VL}, columns - e), min({VL}, count - c))
        {give_statistics}
"""
FILL_MASK = """for c in range(0, lanes, {VL}):
                    for r in range(0, part, {VL}):
                        mask_block(mask + outer * m_outer + head * m_head + (first + c) * m_step
                                   + (at + sub + r) * {mask_size}, m_step, added + r * width + c * {size}, width,
                                   max(min({VL}, count - c), 0), min({VL}, part - r))"""
SKIP = """while {first_turn_apart}shown > 0 and not read_b1(mask + outer * m_outer + head * m_head, shown - 1):
    shown -= 1"""  # padding at the end; in the backward, the first turn writes zeros there
SKIP_UNSEEN = """seen = 0
for i in range(count - 1, -1, -1):  # keys that none of the queries may look at, as the unused end of a cache
    row, last = mask + outer * m_outer + head * m_head + (first + i) * m_step, shown
    while last > seen and (row + last) % 8 != 0 and not read_b1(row, last - 1):
        last -= 1
    while last - 8 >= seen and (row + last) % 8 == 0 and read_i64(row + last - 8, 0) == 0:
        last -= 8
    while last > seen and not read_b1(row, last - 1):
        last -= 1
    seen = max(seen, last)
shown = seen"""
GIVE_STATISTICS = """for i in range(count):
            t = load_{code}(total, i)
            h = load_{code}(before, i)
            known = h * {float}({ln2}) + log(t)
            store_{code}(statistics, n * n_queries + first + i, where(equal(t, {float}(0)), -h, known))"""

BACKWARD = """
def attention_gradient(args, begin, end):
    {take}
    lanes = vectors * {VL}
    width = lanes * {size}
    q_width = (depth + {VL} - 1) // {VL} * {VL} * {size}
    g_width = (columns + {VL} - 1) // {VL} * {VL} * {size}
    blocks = (n_queries + lanes - 1) // lanes
    own = stack()
    for tile in range(begin, end):
        panel = own if mine == 1 else scratch + tile * room
        g_panel = panel + depth * width
        weighed = g_panel + columns * width
        sloped = weighed + key_block * width
        q_slopes = sloped + key_block * width
        q_rows = q_slopes + depth * width
        g_rows = q_rows + lanes * q_width
        known = g_rows + lanes * g_width
        share = known + width
        added = share + width
        n = tile // parts
        outer = n // heads
        head = n % heads
        k_begin = tile % parts * part_keys
        k_end = min(k_begin + part_keys, n_keys)
        k = key + outer * k_outer + head * k_head
        v = value + outer * v_outer + head * v_head
        for turn in range(max(blocks, 1)):
            first = {block} * lanes
            count = min(lanes, n_queries - first)
            q = query + outer * q_outer + head * q_head + first * q_step
            g = given + outer * g_outer + head * g_head + first * g_step
            o = out + outer * o_outer + head * o_head + first * o_step
            for c in range(0, lanes, {VL}):
                for d in range(0, depth, {VL}):
                    transpose(q + c * q_step + d * {size}, q_step, panel + d * width + c * {size}, width,
                              max(min({VL}, count - c), 0), min({VL}, depth - d))
                for e in range(0, columns, {VL}):
                    transpose(g + c * g_step + e * {size}, g_step, g_panel + e * width + c * {size}, width,
                              max(min({VL}, count - c), 0), min({VL}, columns - e))
            for i in range(depth * lanes):
                store_{code}(panel, i, load_{code}(panel, i) * (scale * {float}({log2e})))
            for i in range(columns * lanes):
                store_{code}(g_panel, i, load_{code}(g_panel, i) * scale)
            for i in range(lanes):
                store_{code}(known, i, {float}(0))
                store_{code}(share, i, {float}(0))
            for i in range(count):
                copy_row(q + i * q_step, q_rows + i * q_width, depth)
                copy_row(g + i * g_step, g_rows + i * g_width, columns)
                lost = {float}(0)
                for e in range(columns):
                    lost += load_{code}(g + i * g_step, e) * load_{code}(o + i * o_step, e)
                write_{code}(share, i, lost * scale)
                write_{code}(known, i, read_{code}(statistics, n * n_queries + first + i) * {float}({log2e}))
            shown = {shown}
            {skip}
            for at in range(k_begin, max(shown, k_begin + 1), key_block):
                rows = max(min(key_block, shown - at), 0)
                for sub in range(0, rows, {SUB}):
                    part = min({SUB}, rows - sub)
                    {fill_mask}
                    products(k + (at + sub) * k_step, k_step, part, {size}, panel, width, depth, weighed + sub * width,
                             width, lanes, 1)
                    recall(vectors, weighed + sub * width, part, added, {mask}, {visible}, known)
                    {slopes}
                {fold_value}
                {fold_key}
                {mix_query}
            {unpack_query}
"""
SLOPES = """products(v + (at + sub) * v_step, v_step, part, {size}, g_panel, width, columns, sloped + sub * width,
                             width, lanes, 1)
                    slope(vectors, sloped + sub * width, part, weighed + sub * width, share)"""
FOLD = """for c in range(0, {columns}, {NR}):
                    products({left}, width, rows, {size}, {rows} + c * {size}, {step}, count,
                             {of}_gradient + outer * {of0}g_outer + head * {of0}g_head + at * {of0}g_step + c * {size},
                             {of0}g_step, min({NR}, {columns} - c), turn == 0)"""
MIX_QUERY = (
    "products(k + at * k_step, {size}, depth, k_step, sloped, width, rows, q_slopes, width, lanes, at == k_begin)"
)
UNPACK_QUERY = """place = query_gradient + outer * qg_outer + head * qg_head + first * qg_step
            step = qg_step
            if parts > 1:  # a sum of its own for each part of the keys
                place = partial + (tile * n_queries + first) * depth * {size}
                step = depth * {size}
            for d in range(0, depth, {VL}):
                for c in range(0, count, {VL}):
                    unpack(q_slopes + d * width + c * {size}, width, place + c * step + d * {size}, step,
                           min({VL}, depth - d), min({VL}, count - c))"""

SUM = """
def attention_sum(args, begin, end):
    partial, out, s = load_i64(args, 0), load_i64(args, 1), args + 24
    heads, n_queries, depth, parts = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    size = n_queries * depth * {size}
    for tile in range(begin, end):
        n, row = tile // n_queries, tile % n_queries
        o = out + n // heads * load_i64(s, 4) + n % heads * load_i64(s, 5) + row * load_i64(s, 6)
        x = partial + n * parts * size + row * depth * {size}
        for d in range(depth):
            store_{code}(o, d, load_{code}(x, d) + load_{code}(x + size, d))
        for part in range(2, parts):
            for d in range(depth):
                store_{code}(o, d, load_{code}(o, d) + load_{code}(x + part * size, d))
"""
_LOWEST = {"float32": ("i32", -(1 << 23)), "float64": ("i64", -(1 << 52))}  # the bits of -Inf


def attention_kernel(variant: Variant, statistics: bool = False) -> Kernel:
    """out = softmax(scale * query @ key^T, masked) @ value, and the statistics if asked for.

    Inputs: query, key, value, the mask if there is one. Outputs: out, statistics (N, T).
    """
    tile, names = tile_of(variant.dtype), _names(variant)
    arrays = ["query", "key", "value", *["mask"] * (variant.mask != "none"), "out", *["statistics"] * statistics]
    names |= {
        "take": loads(arrays, ("q", "k", "v", "o", "m"), names),
        "block": "(blocks - 1 - tile % blocks)" if variant.causal else "(tile % blocks)",  # the longest first
        "few": "if vectors == 0:\n" + rows_of(variant, statistics, 8) + "\n        return",
    }
    pieces = {
        "fill_mask": FILL_MASK.format(**names) if variant.mask == "full" else "",
        "skip": SKIP_UNSEEN.replace("\n", "\n        ") if _full_of_bools(variant) else _skip(variant, "", 8),
        "give_statistics": GIVE_STATISTICS.format(**names) if statistics else "",
    }
    how = (variant.dtype, tile)
    externals: list[External] = [
        ("stack", "microkernel:stack", (STACK,)),
        ("transpose", "packing:transpose_block", (variant.dtype, tile.lanes)),
        ("unpack", "attention_tiles:unpack", (variant.dtype, tile.lanes)),
        ("products", "attention_tiles:products", how),
        ("mark", "attention_tiles:mark", (*how, variant.mask, variant.code, variant.causal)),
        ("weigh", "attention_tiles:weigh", how),
        ("mask_block", "attention_tiles:mask_block", (variant.dtype, tile.lanes, variant.code)),
    ]
    externals += [each for each in row_externals(variant) if each[0] != "stack"]
    return Kernel("attention", _tidy(FORWARD.format(**names, **pieces)), tuple(externals))


def attention_gradient_kernel(variant: Variant, wanted: Sequence[bool]) -> Kernel:
    """The gradients of query, key and value, those that are wanted.

    Inputs: the result's gradient, the result, its statistics, query, key, value, the mask if there is one. Outputs:
    the wanted gradients, then the query's by part of the keys, `partial_shape`: where there are several parts, its sum
    is what `attention_sum_kernel` makes.
    """
    tile, names = tile_of(variant.dtype), _names(variant)
    arrays = ["given", "out", "statistics", "query", "key", "value", *["mask"] * (variant.mask != "none")]
    arrays += [f"{of}_gradient" for of, want in zip(("query", "key", "value"), wanted, strict=True) if want]
    arrays += ["partial"] * wanted[0]
    names |= {
        "take": loads(arrays, ("q", "k", "v", "o", "g", "qg", "kg", "vg", "m"), names),
        "shown": names["shown"].replace("n_keys,", "k_end,") if variant.causal else "k_end",
        "block": "(max(blocks, 1) - 1 - turn)" if variant.causal else "turn",  # the first one sees all keys
    }
    value = {"columns": "columns", "left": "weighed", "rows": "g_rows", "of": "value", "of0": "v", "step": "g_width"}
    key = {"columns": "depth", "left": "sloped", "rows": "q_rows", "of": "key", "of0": "k", "step": "q_width"}
    pieces = {
        "fill_mask": FILL_MASK.replace("\n", "\n    ").format(**names) if variant.mask == "full" else "",
        "skip": _skip(variant, "turn > 0 and ", 12),
        "slopes": SLOPES.format(**names) if wanted[0] or wanted[1] else "",
        "fold_value": FOLD.format(**{**names, **value}) if wanted[2] else "",
        "fold_key": FOLD.format(**{**names, **key}) if wanted[1] else "",
        "mix_query": MIX_QUERY.format(**names) if wanted[0] else "",
        "unpack_query": UNPACK_QUERY.format(**names) if wanted[0] else "",
    }
    how = (variant.dtype, tile)
    externals: list[External] = [
        ("stack", "microkernel:stack", (STACK,)),
        ("transpose", "packing:transpose_block", (variant.dtype, tile.lanes)),
        ("copy_row", "packing:copy_row", (variant.dtype, tile.lanes)),
        ("unpack", "attention_tiles:unpack", (variant.dtype, tile.lanes)),
        ("products", "attention_tiles:products", how),
        ("recall", "attention_tiles:recall", (*how, variant.mask, variant.code, variant.causal)),
        ("slope", "attention_tiles:slope", how),
        ("mask_block", "attention_tiles:mask_block", (variant.dtype, tile.lanes, variant.code)),
    ]
    return Kernel("attention_gradient", _tidy(BACKWARD.format(**names, **pieces)), tuple(externals))


def _names(variant: Variant) -> dict[str, Any]:
    """What the templates' names stand for."""
    tile = tile_of(variant.dtype)
    bits, lowest = _LOWEST[variant.dtype]
    causal = variant.causal
    return {
        "VL": tile.lanes,
        "NR": tile.columns,
        "SUB": SUB // tile.rows * tile.rows,
        "size": tile.size,
        "code": "f32" if variant.dtype == "float32" else "f64",
        "float": variant.dtype,
        "bits": bits,
        "lowest": lowest,
        "ln2": math.log(2),
        "log2e": 1 / math.log(2),
        "mask_size": 1 if variant.code == "b1" else tile.size,
        "mask": f"mask + outer * m_outer + head * m_head + (at + sub) * {1 if variant.code == 'b1' else tile.size}"
        if variant.mask == "key"
        else "0",
        "shown": "min(n_keys, first + count + n_keys - n_queries)" if causal else "n_keys",
        "visible": "first + n_keys - n_queries - at - sub" if causal else "0",
    }


def _full_of_bools(variant: Variant) -> bool:
    return variant.mask == "full" and variant.code == "b1"


def _skip(variant: Variant, first_turn_apart: str, indent: int) -> str:
    if (variant.mask, variant.code) != ("key", "b1"):
        return ""
    return SKIP.format(first_turn_apart=first_turn_apart).replace("\n", "\n" + " " * indent)


def _tidy(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.splitlines() if line.strip()) + "\n"


# --- plans -----------------------------------------------------------------------------------------------------------
def forward_plan(sizes: Sizes, tile: Tile) -> Plan:
    """The scalars and tiles of a forward call. sizes.steps: of query, key, value, out."""
    if sizes.queries <= FEW:
        return row_plan(sizes, tile)
    vectors = _vectors(sizes.queries, sizes.batch * sizes.heads, tile)
    width = vectors * tile.lanes * tile.size
    fixed = (sizes.depth + sizes.columns + 4 + SUB) * width
    block = _key_block(sizes.keys, KEYS, fixed, width)
    tiles = sizes.batch * sizes.heads * ceil_div(sizes.queries, vectors * tile.lanes)
    scale = sizes.scale / math.log(2)
    return plan_of(sizes, scale, vectors, block, fixed + block * width, tiles)


def backward_plan(sizes: Sizes, tile: Tile) -> Plan:
    """The scalars and tiles of a backward call.

    sizes.steps: of query, key, value, result, its gradient, then of the gradients of query, key and value.
    """
    vectors = _vectors(sizes.queries, TILES, tile)
    width = vectors * tile.lanes * tile.size
    rows = vectors * tile.lanes * tile.size * (round_up(sizes.depth, tile.lanes) + round_up(sizes.columns, tile.lanes))
    fixed = (2 * sizes.depth + sizes.columns + 2 + SUB) * width + rows
    parts, part = _parts(sizes)
    block = _key_block(part, KEYS_BACK, fixed, 2 * width)
    room = fixed + 2 * block * width
    return plan_of(sizes, sizes.scale, vectors, block, room, sizes.batch * sizes.heads * parts, (parts, part))


def attention_sum_kernel(dtype: str) -> Kernel:
    """The query's gradient from its parts. Input: partial. Output: the gradient."""
    return Kernel("attention_sum", SUM.format(code="f32" if dtype == "float32" else "f64", size=tile_of(dtype).size))


def sum_plan(sizes: Sizes) -> Plan:
    """The scalars and tiles of `attention_sum`, for the sizes of the backward; no tiles where there are no parts."""
    parts, _ = _parts(sizes)
    tiles = sizes.batch * sizes.heads * sizes.queries if parts > 1 else 0
    return Plan((sizes.heads, sizes.queries, sizes.depth, parts, *sizes.steps[5]), tiles)


def partial_shape(sizes: Sizes) -> tuple[int, ...]:
    """The shape of the query's gradient by parts; nothing where there is one part."""
    parts, _ = _parts(sizes)
    return (sizes.batch * sizes.heads * (parts if parts > 1 else 0), sizes.queries, sizes.depth)


def _parts(sizes: Sizes) -> tuple[int, int]:
    """How many parts the keys of a head are cut into, more than one where heads are few, and keys in a part."""
    wanted = ceil_div(TILES, max(1, sizes.batch * sizes.heads))
    part = max(1, ceil_div(sizes.keys, max(1, min(wanted, sizes.keys // PART))))
    return max(1, ceil_div(sizes.keys, part)), part


def _vectors(queries: int, heads: int, tile: Tile) -> int:
    """Vectors of a block of queries: as many as registers hold, fewer where that evens out the blocks or gives more of
    them where heads are few."""
    most = tile.vectors
    while most > 1 and heads * ceil_div(queries, most * tile.lanes) < TILES and queries > (most - 1) * tile.lanes:
        most -= 1
    blocks = max(1, ceil_div(queries, most * tile.lanes))
    return max(1, ceil_div(ceil_div(queries, blocks), tile.lanes))


def _key_block(keys: int, most: int, fixed: int, width: int) -> int:
    """Keys in a block: even parts of them all, each at most `most`, that fit the stack if that is possible."""
    most = max(min(most, (STACK - fixed) // width), LEAST_KEYS)
    return max(1, ceil_div(keys, max(1, ceil_div(keys, most))))
