"""Kernels that look elements up by index.

An index out of range does not move memory: the kernel notes the first one it meets in its error cell (four int64: 1 +
number of the step, position, value, size) and goes on with 0, and the program raises after the run. Deliberately not
here: kernels that write to places given by indices (`scatter.py`).
"""

from __future__ import annotations

from textwrap import indent

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS

Shapes = list[tuple[int, ...]]
TILE = 16384
AHEAD = 8  # rows of which the beginning is asked for before their turn
_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


def count_of(shape: tuple[int, ...]) -> int:
    """Elements of a shape."""
    out = 1
    for size in shape:
        out *= size
    return out


def looked_up(index: str, position: str, depth: int) -> str:
    """Source that sets `at` to the index at `position`, counted from the start; to 0 with a note if it is out of range.

    Whoever looks up in an empty dimension must not go there.
    """
    wrapped = "value + size if value < 0 else value" if SCALARS[index].kind == "i" else "value"
    return indent(
        f"""value = cast_i64(load_{index}(indices, {position}))
at = {wrapped}
if at < 0 or at >= size:
    at = 0
    if atomic_compare_exchange(errors, 0, step + 1) == 0:
        write_i64(errors, 1, {position})
        write_i64(errors, 2, value)
        write_i64(errors, 3, size)""",
        "    " * depth,
    )


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
    moved = inner if size > 0 else 0
    row = begin * rows
    last = min(end * rows, outer * count)
    while row < last:
        block = row // count
        source = x + block * size * inner * {size}
        target = out + block * count * inner * {size}
        first = row - block * count
        stop = min(count, first + last - row)
        row += stop - first
        if moved == 1:
            for place in range(first, stop):
{looked_up(index, "place", 4)}
                store_{bits}(target, place, load_{bits}(source, at))
        else:
            for place in range(first, stop):
                prefetch(source + cast_i64(load_{index}(indices, min(place + {AHEAD}, count - 1))) * inner * {size})
{looked_up(index, "place", 4)}
                a = source + at * inner * {size}
                b = target + place * inner * {size}
                for i in range(moved):
                    store_{bits}(b, i, load_{bits}(a, i))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        outer, inner, count = count_of(ins[0][:axis]), count_of(ins[0][axis + 1 :]), count_of(ins[1])
        rows = max(1, TILE // max(1, inner))
        return Plan((outer, ins[0][axis], inner, count, rows), -(-outer * count // rows))

    return Kernel("take", source, (("prefetch", "folds:prefetch", ()),), plan)


def pick_kernel(code: str, index: str) -> Kernel:
    """One element per row. Inputs: x (rows, K), indices (rows,). Outputs: out (rows,), error cell."""
    source = f"""
def pick(args, begin, end):
    x, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    count, size, rows, step = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    for row in range(begin * rows, min(end * rows, count)):
{looked_up(index, "row", 2)}
        if size > 0:
            store_{code}(out, row, load_{code}(x, row * size + at))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = count_of(ins[1])
        return Plan((count, ins[0][-1], TILE), -(-count // TILE))

    return Kernel("pick", source, (), plan)


def take_along_kernel(code: str, index: str, axis: int) -> Kernel:
    """Elements along `axis` by index.

    Inputs: x (outer, S, inner), indices (outer, count, inner). Outputs: out (as indices), error cell.
    """
    bits = _BITS[SCALARS[code].size]
    source = f"""
def take_along(args, begin, end):
    x, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    outer, size, inner, count = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    rows, step = load_i64(args, 9), load_i64(args, 10)
    row = begin * rows
    last = min(end * rows, outer * count)
    while row < last:
        block = row // count
        stop = min((block + 1) * count, last)
        for place in range(row * inner, stop * inner):
{looked_up(index, "place", 3)}
            column = 0 if inner == 1 else place % inner
            if size > 0:
                store_{bits}(out, place, load_{bits}(x, (block * size + at) * inner + column))
        row = stop
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        outer, inner = count_of(ins[0][:axis]), count_of(ins[0][axis + 1 :])
        rows = max(1, TILE // max(1, inner))
        count = ins[1][axis]
        return Plan((outer, ins[0][axis], inner, count, rows), -(-outer * count // rows) if inner else 0)

    return Kernel("take_along", source, (), plan)


def checked_index_kernel(index: str) -> Kernel:
    """Indices counted from the start. Input: indices. Outputs: int64, error cell. Scalars: number of them, the size."""
    source = f"""
def checked_index(args, begin, end):
    indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    count, size, step = load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    for place in range(begin * {TILE}, min(end * {TILE}, count)):
{looked_up(index, "place", 2)}
        store_i64(out, place, at)
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        return Plan((count_of(ins[0]),), -(-count_of(ins[0]) // TILE))

    return Kernel("checked_index", source, (), plan)
