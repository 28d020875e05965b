"""Packing of narrow numbers in groups of neighbouring k, as microkernels of bfloat16 and int8 read them (`dots.py`).

The layout is that of `packing.py` with a group of k in the place of a number: a panel's row has NR lanes of 4 bytes,
each with a group of one column. Groups that reach beyond K are filled with zeros. For dtypes in SEEDED a panel begins
with one more row: what the sums of its columns begin as.

A left operand is read where it is if its rows are whole groups; else its rows are copied, each filled up with zeros.

Deliberately not here: transposition. Where it is needed, it is done before, on numbers, or after, on groups.
"""

from __future__ import annotations

import math

from gluonish.kernels.dots import SEEDED, group_of, size_of
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.tiling import ceil_div, tile_of

Shapes = list[tuple[int, ...]]
CHUNK = 128  # rows of groups of a panel in one tile of the pool
ROWS = 64  # rows in one tile of the pool, where rows are copied

HEAD = """
def pack_groups(args, begin, end):
    right, packed = load_i64(args, 0), load_i64(args, 1)
    k, n = load_i64(args, 3), load_i64(args, 4)
    groups = (k + {G} - 1) // {G}
    panels, chunks = (n + {NR} - 1) // {NR}, max(1, (groups + {CHUNK} - 1) // {CHUNK})
    for tile in range(begin, end):
        matrix = tile // (panels * chunks)
        column = tile // chunks % panels * {NR}
        columns = min({NR}, n - column)
        width = (columns + {VL} - 1) // {VL} * {VL}
        first = tile % chunks * {CHUNK}
        source = right + (matrix * k * n + column) * {size}
        panel = packed + (groups + {seed}) * (matrix * ((n + {VL} - 1) // {VL} * {VL}) + column) * 4
"""
SEED = """
        for c in range(width):
            store_i32(panel, c, 0)
        for row in range(k):
            for c in range(columns):
                store_i32(panel, c, load_i32(panel, c) - 128 * cast_i32(load_i8(source + row * n, c)))
"""
GROUPS = """
        for group in range(first, min(first + {CHUNK}, groups)):
            place = panel + (group + {seed}) * width * 4
{rows}
            for c in range(columns):
                store_u32(place, c, {value})
            for c in range(columns, width):
                store_u32(place, c, 0)
"""
COPY_ROWS = """
def group_rows(args, begin, end):
    source, place = load_i64(args, 0), load_i64(args, 1)
    rows, k = load_i64(args, 3), load_i64(args, 4)
    width = (k + {G} - 1) // {G} * {G}
    for row in range(begin * {ROWS}, min(end * {ROWS}, rows)):
        a, b = source + row * k * {size}, place + row * width * {wide}
        for i in range(k):
            store_{code}(b, i, {value})
        for i in range(k, width):
            store_{code}(b, i, 0)
"""


def pack_groups_kernel(dtype: str, source: str) -> Kernel:
    """packed = the packed layout, for products of `dtype`, of a matrix of `source` numbers.

    Shapes: right [K, N]; packed (packed_size(K, N, dtype),). A leading axis of both is a batch.
    """
    tile, group, size = tile_of(dtype), group_of(dtype), size_of(source)
    seeded = dtype in SEEDED
    chunk = 1 << 40 if seeded else CHUNK  # the sum of a column is made in one tile
    text = HEAD + (SEED if seeded else "").lstrip("\n") + GROUPS.lstrip("\n")
    rows, value = _gathered(dtype, source, group, size)
    text = text.format(
        NR=tile.columns, VL=tile.lanes, CHUNK=chunk, G=group, size=size, seed=int(seeded), rows=rows, value=value
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        *lead, k, n = ins[0]
        chunks = max(1, ceil_div(ceil_div(k, group), chunk))
        return Plan((k, n), math.prod(lead) * ceil_div(n, tile.columns) * chunks)

    return Kernel("pack_groups", text, (), plan)


def _gathered(dtype: str, source: str, group: int, size: int) -> tuple[str, str]:
    """The source of one group's rows, and of its 4 bytes."""
    bits = 32 // group
    load = "load_u16" if source == "bfloat16" else "load_i8"
    rows, parts = [], []
    for i in range(group):
        rows.append(f"row{i} = source + min(group * {group} + {i}, k - 1) * n * {size}")
        rows.append(f"mask{i} = (0 - (group * {group} + {i} < k)) & {(1 << bits) - 1}")
        parts.append(f"((cast_i64({load}(row{i}, c)) & mask{i}) << {i * bits})")
    return "\n".join("            " + row for row in rows), " | ".join(parts)


def group_rows_kernel(dtype: str, source: str) -> Kernel:
    """The rows of a left operand as products of `dtype` want them: widened, in whole groups.

    Shapes: source [M, K]; output [M, round_up(K, group)]. A leading axis of both is a batch.
    """
    group, size = group_of(dtype), size_of(source)
    if dtype == "bfloat16":
        code, value = "u16", "load_u16(a, i)"
    elif dtype == "int8":
        code, value = "u8", "load_u8(a, i) ^ 128"  # a + 128, as a number without sign
    else:
        code, value = {"int16": "i16", "int32": "i32"}[dtype], "load_i8(a, i)"
    text = COPY_ROWS.format(G=group, ROWS=ROWS, size=size, wide=size_of(dtype), code=code, value=value)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        *lead, m, k = ins[0]
        rows = math.prod(lead) * m
        return Plan((rows, k), ceil_div(rows, ROWS))

    return Kernel("group_rows", text, (), plan)
