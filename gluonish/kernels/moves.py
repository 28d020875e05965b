"""Kernels that move elements: fills, arg-reductions, random keys (copies: `transposing.py`, lookups: `gather.py`)."""

from __future__ import annotations

from textwrap import indent

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS

Shapes = list[tuple[int, ...]]
TILE = 16384
_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


def _count(shape: tuple[int, ...]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out


def zero_kernel(code: str) -> Kernel:
    """Fills its output with zeros."""
    bits, size = _BITS[SCALARS[code].size], SCALARS[code].size
    zero = f"cast_{bits}(0)" if bits != "i64" else "0"
    source = f"""
def zeros(args, begin, end):
    out, count = load_i64(args, 0), load_i64(args, 2)
    for i in range(begin * {TILE * 4 // size}, min(end * {TILE * 4 // size}, count)):
        store_{bits}(out, i, {zero})
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = _count(outs[0])
        return Plan((count,), -(-count // (TILE * 4 // size)))

    return Kernel("zeros", source, (), plan)


ARG_COLUMNS = 1024  # columns whose best values are held at a time


def arg_reduce_kernel(code: str, largest: bool, axis: int) -> Kernel:
    """The position of the first extreme along an axis; NaN is extreme.

    Along the last axis, rows are gone over twice: for the extreme, then for its first place. Elsewhere neighbouring
    columns go on together. Input: x (outer, S, inner). Output: int64 (outer, inner).
    """
    floating, size = code in ("f32", "f64"), SCALARS[code].size
    fold, sign = ("larger", ">") if largest else ("smaller", "<")
    first_nan = "\n            place = min(place, where(not_equal(value, value), k, size))" if floating else ""
    nan = f"logical_or(value {sign} best, logical_and(not_equal(value, value), equal(best, best)))"
    better = nan if floating else f"value {sign} best"
    along_rows = f"""
    for row in range(begin * rows, min(end * rows, outer)):
        start = x + row * size * {size}
        best = load_{code}(start, 0)
        for k in range(1, size):
            best = {fold if floating else "maximum" if largest else "minimum"}(best, load_{code}(start, k))
        place = size
        for k in range(size):
            value = load_{code}(start, k)
            place = min(place, where(equal(value, best), k, size)){first_nan}
        store_i64(out, row, place)
"""
    down_columns = f"""
    bests = local_numbers()
    column_tiles = (inner + {ARG_COLUMNS} - 1) // {ARG_COLUMNS}
    for tile in range(begin, end):
        first = tile % column_tiles * {ARG_COLUMNS}
        count = min({ARG_COLUMNS}, inner - first)
        start = x + (tile // column_tiles * size * inner + first) * {size}
        places = out + (tile // column_tiles * inner + first) * 8
        for j in range(count):
            store_{code}(bests, j, load_{code}(start, j))
            store_i64(places, j, 0)
        for k in range(1, size):
            here = start + k * inner * {size}
            for j in range(count):
                value = load_{code}(here, j)
                best = load_{code}(bests, j)
                better = {better}
                store_{code}(bests, j, where(better, value, best))
                store_i64(places, j, where(better, k, load_i64(places, j)))
"""
    source = f"""
def arg_reduce(args, begin, end):
    x, out = load_i64(args, 0), load_i64(args, 1)
    outer, size, inner, rows = load_i64(args, 3), load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    if inner == 1:
{indent(along_rows, "    ")}
        return
{down_columns}
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        shape = ins[0]
        outer, inner = _count(shape[:axis]), _count(shape[axis + 1 :])
        rows = max(1, TILE // max(1, shape[axis]))
        tiles = -(-outer // rows) if inner == 1 else outer * -(-inner // ARG_COLUMNS)
        return Plan((outer, shape[axis], inner, rows), tiles)

    externals = (
        ("larger", "folds:extreme", ("maximum",)),
        ("smaller", "folds:extreme", ("minimum",)),
        ("local_numbers", "random:local", (8 * ARG_COLUMNS,)),
    )
    return Kernel("arg_reduce", source, externals, plan)


def advance_kernel() -> Kernel:
    """A random key moved on. Input: key; output: key; last argument: the blocks drawn before."""
    source = """
def advance(args, begin, end):
    key, out, blocks = load_i64(args, 0), load_i64(args, 1), load_i64(args, 3)
    write_i64(out, 0, read_i64(key, 0))
    write_i64(out, 1, read_i64(key, 1) + blocks)
"""
    return Kernel("advance", source, (), lambda ins, outs: Plan((), 1))
