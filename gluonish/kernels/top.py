"""The places of the k largest or smallest elements along the last axis.

A row is read once, at the speed of memory: blocks whose extreme does not pass the k-th best found so far are left at
once. What passes is collected; when the collection is full it is sorted and cut to k, which raises the limit. So even
a row that gets better all the time costs one sort of each element among few. Few long rows are cut into pieces, whose
candidates are sorted in the end. The result is the only one there is: of equal elements the first comes first.
"""

from __future__ import annotations

from gluonish.kernels.gather import count_of
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.sort import FEW_ROWS, PARTS, check_length, words_kernel
from gluonish.kernels.sort_keys import key_of, key_rows, lines, place_of, word_rows, words

Shapes = list[tuple[int, ...]]
BLOCK = 128
PIECE = 1 << 15  # elements of a piece of a row at least


def pieces_of(shape: tuple[int, ...], k: int) -> int:
    """Into how many pieces each row is cut."""
    return max(1, min(32, shape[-1] // max(PIECE, 8 * k))) if count_of(shape[:-1]) < FEW_ROWS else 1


def room_of(k: int) -> int:
    """Elements that a collection holds."""
    return max(4 * k, 256) + BLOCK


def candidate_words(shape: tuple[int, ...], k: int, code: str) -> int:
    """Words of all candidates."""
    return count_of(shape[:-1]) * pieces_of(shape, k) * k * words(code, True)


def candidates_kernel(code: str, largest: bool) -> Kernel:
    """The k best of each piece of each row, in order. Input: x (rows, length). Output: their words."""
    floating, size, step = SCALARS[code].kind == "f", SCALARS[code].size, words(code, True)
    fold, sign = ("maximum", "<=") if largest else ("minimum", ">=")
    collect = [*key_rows(code, "source", "i", largest)]
    keep = [
        "if full == 0 or key < bound:",
        *("    " + row for row in word_rows(code, True, "a", "filled", "i", "write")),
    ]
    source = f"""
def top_candidates(args, begin, end):
    x, out, scratch = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    rows, length, k, pieces = load_i64(args, 3), load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    per, room, sorter = load_i64(args, 7), load_i64(args, 8), load_i64(args, 9)
    for tile in range(begin, end):
        a = scratch + tile * room * {2 * 8 * step}
        b = a + room * {8 * step}
        for unit in range(tile * per, min((tile + 1) * per, rows * pieces)):
            source = x + unit // pieces * length * {size}
            piece = unit % pieces
            here, last = piece * length // pieces, (piece + 1) * length // pieces
            filled, full, bound = 0, 0, 0
            limit = load_{code}(source, here)
            while here < last:
                stop = min(here + {BLOCK}, last)
                best = load_{code}(source, here)
                for i in range(here + 1, stop):
                    best = {"extreme" if floating else fold}(best, load_{code}(source, i))
                if full == 0 or not (best {sign} limit):
                    for i in range(here, stop):
{lines([*collect, *keep, "    filled += 1"], 6)}
                    if filled > room - {BLOCK}:
                        call_tiles(sorter, a, b, filled)
                        filled, full = k, 1
                        bound = {key_of(code, True, "a", "k - 1")}
                        limit = load_{code}(source, {place_of(code, "a", "k - 1")})
                here = stop
            call_tiles(sorter, a, b, filled)
            target = out + unit * k * {8 * step}
            for i in range(k * {step}):
                store_i64(target, i, load_i64(a, i))
"""

    def plan(ins: Shapes, outs: Shapes, k: int) -> Plan:
        rows, length = count_of(ins[0][:-1]), ins[0][-1]
        check_length(length)
        pieces, room = pieces_of(ins[0], k), min(room_of(k), length + BLOCK)
        per = max(1, -(-rows * pieces // PARTS))
        tiles = -(-rows * pieces // per) if k else 0
        sorter = words_kernel(code, True).address
        return Plan((rows, length, k, pieces, per, room, sorter), tiles, tiles * room * 2 * 8 * step)

    externals = (("extreme", "folds:extreme", (fold,)),) if floating else ()
    return Kernel("top_candidates", source, externals, plan)  # type: ignore[arg-type]  # its caller knows k


def best_kernel(code: str) -> Kernel:
    """The places of the k best of the candidates of each row. Input: the candidates' words. Output: int64 (rows, k)."""
    step = words(code, True)
    source = f"""
def top_places(args, begin, end):
    found, out, scratch = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    k, pieces, sorter = load_i64(args, 3), load_i64(args, 4), load_i64(args, 5)
    for row in range(begin, end):
        a = found + row * pieces * k * {8 * step}
        if pieces > 1:
            call_tiles(sorter, a, scratch + row * pieces * k * {8 * step}, pieces * k)
        target = out + row * k * 8
        for i in range(k):
            store_i64(target, i, {place_of(code, "a", "i")})
"""
    return Kernel("top_places", source)


def best_plan(shape: tuple[int, ...], k: int, code: str) -> Plan:
    """The plan of `best_kernel` for an input of `top_candidates` of that shape."""
    rows, pieces = count_of(shape[:-1]), pieces_of(shape, k)
    scratch = candidate_words(shape, k, code) * 8 if pieces > 1 else 0
    return Plan((k, pieces, words_kernel(code, True).address), rows if k else 0, scratch)
