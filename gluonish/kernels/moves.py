"""Kernels that move elements: strided copies, fills, arg-reductions, random keys."""

from __future__ import annotations

from textwrap import indent

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.tiling import tile_of

Shapes = list[tuple[int, ...]]
TILE = 16384
_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


def _count(shape: tuple[int, ...]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out


def copy_kernel(code: str, rank: int) -> Kernel:
    """A strided copy between two arrays.

    Arguments: source, target; then dimensions, strides of the source, of the target (in elements), the two offsets,
    rows per tile.
    """
    size = SCALARS[code].size
    bits = _BITS[size]
    dims = range(rank)
    index = "\n".join(f"        i{d} = rest % d{d}\n        rest = rest // d{d}" for d in range(rank - 2, -1, -1))
    source_at = " + ".join(["a_offset", *(f"i{d} * a{d}" for d in range(rank - 1))])
    target_at = " + ".join(["b_offset", *(f"i{d} * b{d}" for d in range(rank - 1))])
    loads = "\n".join(
        [f"    d{d} = load_i64(args, {3 + d})" for d in dims]
        + [f"    a{d} = load_i64(args, {3 + rank + d})" for d in dims]
        + [f"    b{d} = load_i64(args, {3 + 2 * rank + d})" for d in dims]
    )
    outer = " * ".join(f"d{d}" for d in range(rank - 1)) or "1"
    last = rank - 1
    source = f"""
def strided_copy(args, begin, end):
    source, target = load_i64(args, 0), load_i64(args, 1)
{loads}
    a_offset, b_offset = load_i64(args, {3 + 3 * rank}), load_i64(args, {4 + 3 * rank})
    rows = load_i64(args, {5 + 3 * rank})
    outer = {outer}
    for row in range(begin * rows, min(end * rows, outer)):
        rest = row
{index}
        a = source + ({source_at}) * {size}
        b = target + ({target_at}) * {size}
        if a{last} == 1 and b{last} == 1:
            for i in range(d{last}):
                store_{bits}(b, i, load_{bits}(a, i))
        else:
            for i in range(d{last}):
                store_{bits}(b, i * b{last}, load_{bits}(a, i * a{last}))
"""
    return Kernel("strided_copy", source)


def copy_plan(
    dims: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], offsets: tuple[int, int]
) -> Plan:
    """The arguments of a strided copy."""
    rows = max(1, TILE // max(1, dims[-1]))
    return Plan((*dims, *source, *target, *offsets, rows), -(-_count(dims[:-1]) // rows) if _count(dims) else 0)


def transpose_kernel(code: str, rank: int, across: int) -> Kernel:
    """As `copy_kernel`, for a source that is contiguous along dimension `across`, and a target along the last one.

    It goes by square blocks, so that both sides move whole cache lines; of floats a block is transposed in registers.
    Arguments: as `copy_kernel`, rows (of `across`) per tile at the end.
    """
    size, bits = SCALARS[code].size, _BITS[SCALARS[code].size]
    floats = {4: "float32", 8: "float64"}.get(size)
    side = tile_of(floats).lanes if floats else 16
    others = [d for d in range(rank) if d not in (across, rank - 1)]
    loads = "\n".join(
        f"    {name}{d} = load_i64(args, {3 + part * rank + d})" for part, name in enumerate("dab") for d in range(rank)
    )
    places = "\n".join(f"        i{d} = rest % d{d}\n        rest = rest // d{d}" for d in reversed(others))
    last, q = rank - 1, across
    whole = f"""
                if r + {side} <= row_end and c + {side} <= d{last}:
                    source_block, target_block = a + (r + c * a{last}) * {size}, b + (r * b{q} + c) * {size}
                    block(source_block, a{last} * {size}, target_block, b{q} * {size}, {side}, {side})
                else:"""
    source = f"""
def transposed_copy(args, begin, end):
    source, target = load_i64(args, 0), load_i64(args, 1)
{loads}
    a_offset, b_offset = load_i64(args, {3 + 3 * rank}), load_i64(args, {4 + 3 * rank})
    rows = load_i64(args, {5 + 3 * rank})
    row_tiles = (d{q} + rows - 1) // rows
    for tile in range(begin, end):
        row_begin = tile % row_tiles * rows
        row_end = min(row_begin + rows, d{q})
        rest = tile // row_tiles
{places}
        a = source + ({" + ".join(["a_offset", *(f"i{d} * a{d}" for d in others)])}) * {size}
        b = target + ({" + ".join(["b_offset", *(f"i{d} * b{d}" for d in others)])}) * {size}
        for r in range(row_begin, row_end, {side}):
            for c in range(0, d{last}, {side}):{whole if floats else "                if True:"}
                    for i in range(r, min(r + {side}, row_end)):
                        for j in range(c, min(c + {side}, d{last})):
                            store_{bits}(b, i * b{q} + j, load_{bits}(a, i + j * a{last}))
"""
    if not floats:
        source = source.replace("):                if True:", "):\n                if True:")
    externals = (("block", "packing:transpose_block", (floats, side)),) if floats else ()
    return Kernel("transposed_copy", source, externals)


def transpose_plan(
    dims: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], offsets: tuple[int, int], across: int
) -> Plan:
    """The arguments of a transposing copy."""
    rows = 16 * max(1, TILE // 16 // max(1, dims[-1]))
    outer = _count(dims[:-1]) // max(1, dims[across])
    return Plan((*dims, *source, *target, *offsets, rows), outer * -(-dims[across] // rows) if _count(dims) else 0)


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
