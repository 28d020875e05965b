"""Sorting along the last axis: stable, by radix (least digit first), of keys as `sort_keys.py` makes them.

Rows are sorted one by one. A digit that all elements of a row share is passed over, so integers below 65536 take two
passes, whatever their type. Very short rows are ranked by comparing all pairs, which vectors do well. Few long rows are
sorted by all threads together: see `sort_together.py`.
Source: D. E. Knuth, The Art of Computer Programming 3, 5.2.5.
"""

from __future__ import annotations

from gluonish.kernels.gather import count_of
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.sort_keys import (
    LONGEST,
    is_packed,
    key_of,
    key_rows,
    lines,
    number_rows,
    place_of,
    word_rows,
    words,
)

Shapes = list[tuple[int, ...]]
RANKED = 96  # elements that are sorted by comparing all pairs
ON_STACK = 512  # elements whose words a kernel holds on its stack
PARTS = 64  # tiles of a sort at most: each has working memory of its own
TILE = 8192
CHUNK = 1 << 16  # elements of a long row that one tile moves
FEW_ROWS = 16
_DIGITS = 256


def together(shape: tuple[int, ...]) -> int:
    """Into how many chunks each row is cut that is sorted by all threads together; 0 where rows go one by one."""
    length, rows = shape[-1], count_of(shape[:-1])
    return -(-length // chunk_of(length)) if rows < FEW_ROWS and length > 2 * CHUNK else 0


def chunk_of(length: int) -> int:
    """Elements of a chunk."""
    return max(CHUNK, -(-length // 256))


def digits_of(code: str) -> tuple[int, int]:
    """Shift of the lowest digit of a key in its word, and how many digits there are."""
    return (32, 4) if is_packed(code) else (0, 8)


def words_kernel(code: str, places: bool) -> Kernel:
    """Sorts `count` elements at an address; `other` is memory for as many. Called by kernels, not by programs."""
    low, digits = digits_of(code)
    step = words(code, places)
    pairs = step == 2
    at = "2 * i" if pairs else "i"
    compare = "load_i64(a, j) < word" if is_packed(code) else _unequal(pairs)
    counts = "\n".join(
        f"        place = {d * _DIGITS} + {_digit('word', low + 8 * d, d == digits - 1)}\n"
        "        write_i64(counts, place, read_i64(counts, place) + 1)"
        for d in range(digits)
    )
    source = f"""
def sort_words(a, other, count):
    if count <= {RANKED}:
        for i in range(count):
            word = load_i64(a, {at})
            rank = 0
            for j in range(count):
                rank += where({compare}, 1, 0)
            {"write_i64(other, 2 * rank, word)" if pairs else "write_i64(other, rank, word)"}
            {"write_i64(other, 2 * rank + 1, read_i64(a, 2 * i + 1))" if pairs else ""}
        for i in range(count * {step}):
            store_i64(a, i, load_i64(other, i))
        return
    counts = local_counts()
    for i in range({digits * _DIGITS}):
        store_i64(counts, i, 0)
    for i in range(count):
        word = read_i64(a, {at})
{counts}
    source, target = a, other
    for d in range({digits}):
        shift = {low} + 8 * d
        turn = {_DIGITS // 2} if d == {digits - 1} else 0
        mine = counts + d * {_DIGITS * 8}
        if read_i64(mine, ((read_i64(source, 0) >> shift) & 255) ^ turn) < count:
            total = 0
            for i in range({_DIGITS}):
                many = read_i64(mine, i)
                write_i64(mine, i, total)
                total += many
            for i in range(count):
                word = read_i64(source, {at})
                digit = ((word >> shift) & 255) ^ turn
                place = read_i64(mine, digit)
                write_i64(mine, digit, place + 1)
                {"write_i64(target, 2 * place, word)" if pairs else "write_i64(target, place, word)"}
                {"write_i64(target, 2 * place + 1, read_i64(source, 2 * i + 1))" if pairs else ""}
            source, target = target, source
    if source != a:
        for i in range(count * {step}):
            store_i64(a, i, load_i64(source, i))
"""
    return Kernel("sort_words", source, (("local_counts", "random:local", (8 * _DIGITS * digits,)),))


def _unequal(pairs: bool) -> str:
    value = "load_i64(a, 2 * j)" if pairs else "load_i64(a, j)"
    return f"logical_or({value} < word, logical_and({value} == word, j < i))"


def _digit(word: str, shift: int, top: bool) -> str:
    return f"((({word} >> {shift}) & 255){f' ^ {_DIGITS // 2}' if top else ''})"


def result_rows(code: str, places: bool, buffer: str, position: str, out: str, at: str) -> list[str]:
    """Lines that store what a sort gives for the element at a position of a buffer: its place, or its number.

    `flip` is set; see `key_rows`.
    """
    if places:
        return [f"store_i64({out}, {at}, {place_of(code, buffer, position)})"]
    return [f"key = ({key_of(code, places, buffer, position)}) ^ flip", *number_rows(code, out, at)]


def rows_kernel(code: str, places: bool) -> Kernel:
    """Sorts rows one by one. Input: x (rows, length). Output: the numbers in order, or their places.

    Last argument: 0, or -1 for a descending order.
    """
    size, step = SCALARS[code].size, words(code, places)
    out_size = 8 if places else size
    room = 2 * 8 * step
    source = f"""
def sort_rows(args, begin, end):
    x, out, scratch = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    rows, length, rows_per_tile, sorter = load_i64(args, 3), load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    flip = load_i64(args, 7)
    for tile in range(begin, end):
        a = local_words() if length <= {ON_STACK} else scratch + tile * length * {room}
        b = a + length * {room // 2}
        for row in range(tile * rows_per_tile, min((tile + 1) * rows_per_tile, rows)):
            source = x + row * length * {size}
            target = out + row * length * {out_size}
            for i in range(length):
{lines([*key_rows(code, "source", "i", "flip", not places), *word_rows(code, places, "a", "i", "i")], 4)}
            call_tiles(sorter, a, b, length)
            for i in range(length):
{lines(result_rows(code, places, "a", "i", "target", "i"), 4)}
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        rows, length = count_of(ins[0][:-1]), ins[0][-1]
        check_length(length)
        if together(ins[0]) or not length:
            return Plan((rows, length, 1, 0), 0)
        per = max(1, -(-rows // PARTS) if length > ON_STACK else TILE // length)
        tiles = -(-rows // per)
        scratch = tiles * length * room if length > ON_STACK else 0
        return Plan((rows, length, per, words_kernel(code, places).address), tiles, scratch)

    return Kernel("sort_rows", source, (("local_words", "random:local", (ON_STACK * room,)),), plan)


def check_length(length: int) -> None:
    """Raises ValueError for rows whose places do not fit a packed word."""
    if length >= LONGEST:
        raise ValueError(f"kernels sort rows of less than 2^32 elements, got {length}")


def search_kernel(code: str, right: bool) -> Kernel:
    """Where each value goes in a sorted row. Inputs: x (length,), values. Output: int64."""
    source = f"""
def search_sorted(args, begin, end):
    x, values, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    length, count = load_i64(args, 4), load_i64(args, 5)
    for i in range(begin * {TILE}, min(end * {TILE}, count)):
{lines(key_rows(code, "values", "i"), 2)}
        wanted = key
        low, high = 0, length
        while low < high:
            middle = (low + high) // 2
{lines(key_rows(code, "x", "middle"), 3)}
            if key {"<=" if right else "<"} wanted:
                low = middle + 1
            else:
                high = middle
        store_i64(out, i, low)
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = count_of(ins[1])
        return Plan((ins[0][0], count), -(-count // TILE))

    return Kernel("search_sorted", source, (), plan)
