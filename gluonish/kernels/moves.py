"""Kernels that move elements: fills, lookups by index, arg-reductions, random keys (copies: `transposing.py`).

An index out of range does not move memory: the kernel notes the first one it meets in its error cell (four int64: 1 +
number of the step, position, value, size) and goes on with 0, and the program raises after the run.
"""

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
