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

from gluonish.kernels.abreast import asking, squares, turning, wanted
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.row_loops import GROUP, SHORT
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


_HEAD = """
    x = load_i64(args, 0)
    size, inner, chunks = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7)
    length, count, rows = load_i64(args, 8), load_i64(args, 9), load_i64(args, 10)"""


def partial_kernel(code: str, largest: bool) -> Kernel:
    """The first kernel. Input: x. Outputs: int64 (outer, chunks, inner), places along the axis; the numbers there; and
    int64 (outer, inner), which takes the places if there is only one chunk."""
    source = f"""
def arg_reduce(args, begin, end):
{_HEAD}
    out = load_i64(args, 3) if chunks == 1 else load_i64(args, 1)
    values = load_i64(args, 2)
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
            store_i64(out, item, first + place)
            if chunks > 1:
                store_{code}(values, item, load_{code}(row, first + place))""",
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
            store_i64(out, item, found + cast_i64(place))
            if chunks > 1:
                store_{code}(values, item, best)""",
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
            store_i64(out, item * inner + column + j, first + cast_i64(load_i32(places, j)))
        if chunks > 1:
            for j in range(columns):
                store_{code}(values, item * inner + column + j, load_{code}(bests, j))"""


def _rows_together(code: str, largest: bool, rows: int, columns: str = "columns", depth: int = 12) -> str:
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
    lines = [*head, f"for j in range({columns}):", *(f"    {line}" for line in (*begun, *body, *ended))]
    return "\n".join(" " * depth + line for line in lines)


def partial_plan(shape: Shape, axis: int) -> Plan:
    """Tiles of the first kernel."""
    outer, size, inner = _sides(shape, axis)
    chunks, length = chunks_of(shape, axis)
    rows = max(1, TILE // max(1, length))
    if length <= SHORT:
        rows = -(-rows // GROUP) * GROUP
    tiles = ceil_div(outer * chunks, rows) if inner == 1 else outer * chunks * ceil_div(inner, COLUMNS)
    return Plan((size, inner, chunks, length, outer * chunks, rows), tiles)


def abreast_kernel(code: str, largest: bool) -> Kernel:
    """The first kernel with the same arguments for short rows, which go side by side (`abreast.py`)."""
    size = SCALARS[code].size
    turn = "\n".join(" " * 12 + line for line in turning("x", "size", "turned", size))
    asked = "\n                ".join(asking("x", "size", size))
    source = f"""
def arg_reduce_abreast(args, begin, end):
{_HEAD}
    out, outer, inner, first = load_i64(args, 3), count, {GROUP}, 0
    turned, bests, places = buffer_of_group(), bests_of_columns(), places_of_columns()
    start = turned
    middle = size - (size - 1) % {TOGETHER}
    for tile in range(begin, end):
        last_row = min((tile + 1) * rows, outer)
        for row in range(tile * rows, last_row, {GROUP}):
            count = min({GROUP}, last_row - row)
{turn}
            for j in range({GROUP}):
                store_{code}(bests, j, load_{code}(turned, j))
                store_i32(places, j, int32(0))
            for k in range(size):
                {asked}
            for k in range(1, middle, {TOGETHER}):
{_rows_together(code, largest, TOGETHER, str(GROUP), 16)}
            for k in range(middle, size):
{_rows_together(code, largest, 1, str(GROUP), 16)}
            for j in range(count):
                store_i64(out, row + j, cast_i64(load_i32(places, j)))
"""
    names = (
        *squares([size]),
        ("prefetch", "folds:prefetch", ()),
        ("buffer_of_group", "streams:buffer", (SHORT * GROUP * size,)),
        ("bests_of_columns", "random:local", (8 * GROUP,)),
        ("places_of_columns", "random:local", (4 * GROUP,)),
    )
    return Kernel("arg_reduce_abreast", source, names)


def goes_abreast(shape: Shape, axis: int) -> bool:
    """Whether rows are short, and many."""
    outer, size, inner = _sides(shape, axis)
    return inner == 1 and wanted((outer, size))


def combine_kernel(code: str, largest: bool) -> Kernel:
    """The second kernel, for several chunks. Inputs: places and numbers of the first. Output: int64 (outer, inner)."""
    source = f"""
def combine_arg_reduce(args, begin, end):
    partial, values, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    inner, chunks, columns = load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    bests = bests_of_columns()
    column_tiles = (inner + columns - 1) // columns
    for tile in range(begin, end):
        column = tile % column_tiles * columns
        row = tile // column_tiles
        number = min(columns, inner - column)
        start = row * chunks * inner + column
        result = out + (row * inner + column) * 8
        for j in range(number):
            store_{code}(bests, j, load_{code}(values, start + j))
            store_i64(result, j, load_i64(partial, start + j))
        for c in range(1, chunks):
            here = start + c * inner
            for j in range(number):
                value, best = load_{code}(values, here + j), load_{code}(bests, j)
                better = {_better(code, largest, "value", "best")}
                store_{code}(bests, j, where(better, value, best))
                store_i64(result, j, where(better, load_i64(partial, here + j), load_i64(result, j)))
"""
    return Kernel("combine_arg_reduce", source, (("bests_of_columns", "random:local", (8 * COLUMNS,)),))


def combine_plan(shape: Shape, axis: int) -> Plan:
    """Tiles of the second kernel: none where there is one chunk."""
    outer, _, inner = _sides(shape, axis)
    chunks = chunks_of(shape, axis)[0]
    columns = max(1, min(inner, COLUMNS // 8))
    return Plan((inner, chunks, columns), outer * ceil_div(inner, columns) if chunks > 1 else 0)


def partial_count(sizes: Sequence[int], axis: int) -> int:
    """How many places the first kernel gives for the second."""
    outer, _, inner = _sides(tuple(sizes), axis)
    chunks = chunks_of(tuple(sizes), axis)[0]
    return outer * chunks * inner if chunks > 1 else 0


def _sides(shape: Shape, axis: int) -> tuple[int, int, int]:
    outer = inner = 1
    for d in shape[:axis]:
        outer *= d
    for d in shape[axis + 1 :]:
        inner *= d
    return outer, shape[axis], inner
