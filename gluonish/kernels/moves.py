"""Kernels that move elements: strided copies, fills, lookups by index, arg-reductions, random keys.

An index out of range does not move memory: the kernel notes the first one it meets in its error cell (four int64: 1 +
number of the step, position, value, size) and goes on with 0, and the program raises after the run.
"""

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


def _looked_up(index: str, position: str) -> str:
    """Source that sets `at` to the index at `position`, counted from the start; to 0 with a note if it is out of range.

    Whoever looks up in an empty dimension must not go there.
    """
    wrapped = "value + size if value < 0 else value" if SCALARS[index].kind == "i" else "value"
    return f"""
        value = cast_i64(load_{index}(indices, {position}))
        at = {wrapped}
        if at < 0 or at >= size:
            at = 0
            if atomic_compare_exchange(errors, 0, step + 1) == 0:
                write_i64(errors, 1, {position})
                write_i64(errors, 2, value)
                write_i64(errors, 3, size)
"""


def take_kernel(code: str, index: str, axis: int) -> Kernel:
    """Slices along `axis` by index.

    Inputs: x (outer, S, inner), indices. Outputs: out, error cell. Last argument: the step.
    """
    bits, size = _BITS[SCALARS[code].size], SCALARS[code].size
    source = f"""
def take(args, begin, end):
    x, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    outer, size, inner, count = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    rows, step = load_i64(args, 9), load_i64(args, 10)
    for row in range(begin * rows, min(end * rows, outer * count)):
        place = row % count
{_looked_up(index, "place")}
        source = x + ((row // count) * size + at) * inner * {size}
        target = out + row * inner * {size}
        for i in range(inner if size > 0 else 0):
            store_{bits}(target, i, load_{bits}(source, i))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        outer, inner, count = _count(ins[0][:axis]), _count(ins[0][axis + 1 :]), _count(ins[1])
        rows = max(1, TILE // max(1, inner))
        return Plan((outer, ins[0][axis], inner, count, rows), -(-outer * count // rows))

    return Kernel("take", source, (), plan)


def index_add_kernel(code: str, index: str, axis: int) -> Kernel:
    """Adds slices at their index into zeros, in index order.

    Inputs: values (outer, count, inner), indices. Outputs: out, error cell.
    """
    size = SCALARS[code].size
    zero = "cast_" + code + "(0)"
    lookup = indent(_looked_up(index, "place"), "    ")
    source = f"""
def index_add(args, begin, end):
    values, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    outer, size, inner, count = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    step = load_i64(args, 9)
    for o in range(begin, end):
        for i in range(o * size * inner, (o + 1) * size * inner):
            store_{code}(out, i, {zero})
        for place in range(count):
{lookup}
            source = values + (o * count + place) * inner * {size}
            target = out + (o * size + at) * inner * {size}
            for i in range(inner if size > 0 else 0):
                store_{code}(target, i, load_{code}(target, i) + load_{code}(source, i))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        outer, inner = _count(outs[0][:axis]), _count(outs[0][axis + 1 :])
        return Plan((outer, outs[0][axis], inner, _count(ins[1])), outer)

    return Kernel("index_add", source, (), plan)


def pick_kernel(code: str, index: str) -> Kernel:
    """One element per row. Inputs: x (rows, K), indices (rows,). Outputs: out (rows,), error cell."""
    source = f"""
def pick(args, begin, end):
    x, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    count, size, rows, step = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    for row in range(begin * rows, min(end * rows, count)):
{_looked_up(index, "row")}
        if size > 0:
            store_{code}(out, row, load_{code}(x, row * size + at))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = _count(ins[1])
        return Plan((count, ins[0][-1], TILE), -(-count // TILE))

    return Kernel("pick", source, (), plan)


def unpick_kernel(code: str, index: str) -> Kernel:
    """Rows of zeros with one value each.

    Inputs: values (rows,), indices (rows,). Outputs: out (rows, K), error cell.
    """
    size = SCALARS[code].size
    source = f"""
def unpick(args, begin, end):
    values, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    count, size, rows, step = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    for row in range(begin * rows, min(end * rows, count)):
{_looked_up(index, "row")}
        target = out + row * size * {size}
        for i in range(size):
            store_{code}(target, i, cast_{code}(0))
        if size > 0:
            write_{code}(target, at, load_{code}(values, row))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = _count(ins[1])
        rows = max(1, TILE // max(1, outs[0][-1]))
        return Plan((count, outs[0][-1], rows), -(-count // rows))

    return Kernel("unpick", source, (), plan)


def advance_kernel() -> Kernel:
    """A random key moved on. Input: key; output: key; last argument: the blocks drawn before."""
    source = """
def advance(args, begin, end):
    key, out, blocks = load_i64(args, 0), load_i64(args, 1), load_i64(args, 3)
    write_i64(out, 0, read_i64(key, 0))
    write_i64(out, 1, read_i64(key, 1) + blocks)
"""
    return Kernel("advance", source, (), lambda ins, outs: Plan((), 1))
