"""Positions of extremes along an axis of (outer, size, inner), in one pass over memory.

The axis is cut into chunks, each gives the position of its own extreme, and a second kernel compares those; how it is
cut depends on sizes only. Along the last axis (inner = 1) floats are searched in vectors (`extreme_place.py`), other
types in blocks: the extreme of a block is a reduction like any other, and only the block with the best one is searched
for the first place of it. Along another axis neighbouring columns go on together, with the best value and its place of
each in the nearest cache.

The first of equals counts, and a NaN is extreme. Deliberately not here: extremes themselves (`loops.py`), sorting.
"""

from __future__ import annotations

from collections.abc import Sequence

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.tiling import ceil_div

TILE = 16384  # elements of a tile for light work
BLOCK = 1024  # elements of a row that are searched at most
COLUMNS = 2048  # columns whose best values are held at a time
TOGETHER = 4  # rows that are compared in one go
PIECES = 64  # tiles that large work is cut into at least
LONG = 65536  # elements of a chunk of a long row

Shape = tuple[int, ...]


def chunks_of(shape: Shape, axis: int) -> tuple[int, int]:
    """How many chunks an axis has, and the length of all but the last."""
    outer, size, inner = _sides(shape, axis)
    if inner == 1:
        length = LONG if size > 2 * LONG else size
    else:
        wanted = max(4 * TILE, outer * size * inner // PIECES)
        length = min(size, max(1, wanted // min(inner, COLUMNS)), 1 << 20)
    return ceil_div(size, max(1, length)), length


def partial_kernel(code: str, largest: bool) -> Kernel:
    """The first kernel. Input: x. Output: int64 (outer, chunks, inner), places along the axis."""
    source = f"""
def arg_reduce(args, begin, end):
    x, out = load_i64(args, 0), load_i64(args, 1)
    size, inner, chunks = load_i64(args, 3), load_i64(args, 4), load_i64(args, 5)
    length, count, rows = load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    if inner == 1:
{_along_rows(code, largest)}
        return
{_down_columns(code, largest)}
"""
    names = (
        ("first_extreme", "extreme_place:first_extreme", (code, largest)),
        ("bests_of_columns", "random:local", (8 * COLUMNS,)),
        ("places_of_columns", "random:local", (4 * COLUMNS,)),
    )
    return Kernel("arg_reduce", source, names)


def _better(code: str, largest: bool, value: str, best: str) -> str:
    """Source: whether a value takes the place of the best so far, which came before it."""
    sign = ">" if largest else "<"
    if code not in ("f32", "f64"):
        return f"{value} {sign} {best}"
    no_better = f"less_equal({value}, {best})" if largest else f"greater_equal({value}, {best})"
    return f"logical_and(logical_not({no_better}), equal({best}, {best}))"  # a NaN is better than any number


def _along_rows(code: str, largest: bool) -> str:
    return _floats_along_rows(code) if code in ("f32", "f64") else _others_along_rows(code, largest)


def _floats_along_rows(code: str) -> str:
    return _each_chunk(
        code,
        f"""
            place = first_extreme(row + first * {SCALARS[code].size}, last - first)
            if place < 0:
                place = last
                for k in range(first, last):
                    value = load_{code}(row, k)
                    place = min(place, where(not_equal(value, value), k, last))
                place -= first
            store_i64(out, item, first + place)""",
    )


def _others_along_rows(code: str, largest: bool) -> str:
    fold = "maximum" if largest else "minimum"
    return _each_chunk(
        code,
        f"""
            best = load_{code}(row, first)
            found = first
            for block in range(first, last, {BLOCK}):
                top = load_{code}(row, block)
                for k in range(block, min(block + {BLOCK}, last)):
                    top = {fold}(top, load_{code}(row, k))
                if {_better(code, largest, "top", "best")}:
                    best = top
                    found = block
            place = int32({BLOCK})
            for k in range(found, min(found + {BLOCK}, last)):
                hit = equal(load_{code}(row, k), best)
                place = minimum(place, where(hit, cast_i32(k - found), int32({BLOCK})))
            store_i64(out, item, found + cast_i64(place))""",
    )


def _each_chunk(code: str, body: str) -> str:
    """A loop over chunks of rows; it counts, as a division for each costs more than the search of a short row."""
    size = SCALARS[code].size
    return f"""
        part = begin * rows % chunks
        row = x + begin * rows // chunks * size * {size}
        for item in range(begin * rows, min(end * rows, count)):
            first = part * length
            last = min(first + length, size){body}
            part += 1
            if part == chunks:
                part = 0
                row += size * {size}"""


def _down_columns(code: str, largest: bool) -> str:
    size = SCALARS[code].size
    return f"""
    bests, places = bests_of_columns(), places_of_columns()
    column_tiles = (inner + {COLUMNS} - 1) // {COLUMNS}
    for tile in range(begin, end):
        column = tile % column_tiles * {COLUMNS}
        item = tile // column_tiles
        first = item % chunks * length
        last = min(first + length, size)
        columns = min({COLUMNS}, inner - column)
        start = x + (item // chunks * size * inner + column) * {size}
        here = start + first * inner * {size}
        for j in range(columns):
            store_{code}(bests, j, load_{code}(here, j))
            store_i32(places, j, int32(0))
        middle = last - (last - first - 1) % {TOGETHER}
        for k in range(first + 1, middle, {TOGETHER}):
{_rows_together(code, largest, TOGETHER)}
        for k in range(middle, last):
{_rows_together(code, largest, 1)}
        for j in range(columns):
            store_i64(out, item * inner + column + j, first + cast_i64(load_i32(places, j)))"""


def _rows_together(code: str, largest: bool, rows: int) -> str:
    """The body of a loop over rows: what is loaded and stored of the bests serves several of them."""
    size = SCALARS[code].size
    head = [
        line
        for n in range(rows)
        for line in (f"here{n} = start + (k + {n}) * inner * {size}", f"turn{n} = cast_i32(k + {n} - first)")
    ]
    body = [
        line
        for n in range(rows)
        for line in (
            f"value{n} = load_{code}(here{n}, j)",
            f"better{n} = {_better(code, largest, f'value{n}', f'best{n}')}",
            f"best{n + 1} = where(better{n}, value{n}, best{n})",
            f"place{n + 1} = where(better{n}, turn{n}, place{n})",
        )
    ]
    begun = [f"best0 = load_{code}(bests, j)", "place0 = load_i32(places, j)"]
    ended = [f"store_{code}(bests, j, best{rows})", f"store_i32(places, j, place{rows})"]
    lines = [*head, "for j in range(columns):", *(f"    {line}" for line in (*begun, *body, *ended))]
    return "\n".join(" " * 12 + line for line in lines)


def partial_plan(shape: Shape, axis: int) -> Plan:
    """Tiles of the first kernel."""
    outer, size, inner = _sides(shape, axis)
    chunks, length = chunks_of(shape, axis)
    rows = max(1, TILE // max(1, length))
    tiles = ceil_div(outer * chunks, rows) if inner == 1 else outer * chunks * ceil_div(inner, COLUMNS)
    return Plan((size, inner, chunks, length, outer * chunks, rows), tiles)


def combine_kernel(code: str, largest: bool) -> Kernel:
    """The second kernel. Inputs: x, and what the first one gives. Output: int64 (outer, inner)."""
    source = f"""
def combine_arg_reduce(args, begin, end):
    x, partial, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    size, inner, chunks = load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    count, each = load_i64(args, 7), load_i64(args, 8)
    if chunks == 1:
        for i in range(begin * each, min(end * each, count)):
            store_i64(out, i, load_i64(partial, i))
        return
    for i in range(begin * each, min(end * each, count)):
        row, column = i // inner, i % inner
        start = x + (row * size * inner + column) * {SCALARS[code].size}
        place = load_i64(partial, row * chunks * inner + column)
        best = load_{code}(start, place * inner)
        for c in range(1, chunks):
            other = read_i64(partial, (row * chunks + c) * inner + column)
            value = read_{code}(start, other * inner)
            if {_better(code, largest, "value", "best")}:
                best, place = value, other
        store_i64(out, i, place)
"""
    return Kernel("combine_arg_reduce", source)


def combine_plan(shape: Shape, axis: int) -> Plan:
    """Tiles of the second kernel."""
    outer, size, inner = _sides(shape, axis)
    chunks = chunks_of(shape, axis)[0]
    each = max(1, TILE // chunks) if outer * inner else 1
    return Plan((size, inner, chunks, outer * inner, each), ceil_div(outer * inner, each))


def partial_count(sizes: Sequence[int], axis: int) -> int:
    """How many places the first kernel gives."""
    outer, _, inner = _sides(tuple(sizes), axis)
    return outer * chunks_of(tuple(sizes), axis)[0] * inner


def _sides(shape: Shape, axis: int) -> tuple[int, int, int]:
    outer = inner = 1
    for d in shape[:axis]:
        outer *= d
    for d in shape[axis + 1 :]:
        inner *= d
    return outer, shape[axis], inner
