"""The places of the k largest or smallest elements along the last axis.

A row is read once, at the speed of memory: blocks whose extreme does not pass the k-th best found so far are left at
once. What passes is put into its place among the best, or, where k is large, collected; when the collection is full it
is sorted and cut to k, which raises the limit. So even in a row that gets better all the time each element is sorted
once, among few. Few long rows are cut into pieces, whose
candidates are sorted in the end. The result is the only one there is: of equal elements the first comes first.
"""

from __future__ import annotations

from gluonish.kernels.gather import count_of
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.sort import FEW_ROWS, PARTS, RANKED, check_length, words_kernel
from gluonish.kernels.sort_keys import key_of, key_rows, lines, place_of, word_rows, words

Shapes = list[tuple[int, ...]]
BLOCK = 128  # elements that are looked at together
PART = 16  # of which again so many, where one of them may pass
FEW = 64  # k up to which elements are put into their place at once
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


def candidates_kernel(code: str, largest: bool, few: bool) -> Kernel:
    """The k best of each piece of each row, in order. Input: x (rows, length). Output: their words.

    few: whether k is at most `FEW`; then each element that passes is put into its place among the best at once.
    """
    size, step = SCALARS[code].size, words(code, True)
    fold, sign = ("maximum", "<=") if largest else ("minimum", ">=")
    fold = "extreme" if SCALARS[code].kind == "f" else fold
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
{lines(_short_rows(code, largest), 3) if few else ""}
            while here < last:
                if full != 0 and here + {BLOCK} <= last:
                    best = load_{code}(source, here)
                    for i in range({BLOCK}):
                        best = {fold}(best, load_{code}(source, here + i))
                    if best {sign} limit:
                        here += {BLOCK}
                        continue
                stop = min(here + {BLOCK}, last)
                while here < stop:
                    near = min(here + {PART}, stop)
                    if full != 0 and here + {PART} == near:
                        best = load_{code}(source, here)
                        for i in range({PART}):
                            best = {fold}(best, load_{code}(source, here + i))
                        if best {sign} limit:
                            here = near
                            continue
                    for i in range(here, near):
{lines(key_rows(code, "source", "i", "-1" if largest else "0"), 6)}
                        if full == 0 or key < bound:
{lines(_insert_rows(code) if few else _collect_rows(code), 7)}
                    here = near
{"" if few else lines(_cut_rows(code), 4)}
{"" if few else "            call_tiles(sorter, a, b, filled)"}
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

    externals = (("extreme", "folds:extreme", ("maximum" if largest else "minimum",)),) if fold == "extreme" else ()
    return Kernel("top_candidates", source, externals, plan)  # type: ignore[arg-type]  # its caller knows k


def _short_rows(code: str, largest: bool) -> list[str]:
    """Lines that sort a whole short row."""
    each = [*key_rows(code, "source", "i", "-1" if largest else "0"), *word_rows(code, True, "a", "i", "i")]
    return [
        f"if length <= {RANKED}:",
        "    for i in range(length):",
        *("        " + row for row in each),
        "    call_tiles(sorter, a, b, length)",
        "    here = last",
    ]


def _limit_rows(code: str) -> list[str]:
    return [
        "full = 1",
        f"bound = {key_of(code, True, 'a', 'k - 1')}",
        f"limit = load_{code}(source, {place_of(code, 'a', 'k - 1')})",
    ]


def _insert_rows(code: str) -> list[str]:
    """Lines that put `key` at `i` into its place among the best."""
    if words(code, True) == 1:
        beyond = "read_i64(a, p - 1) > word"
        shift = ["write_i64(a, p, read_i64(a, p - 1))"]
    else:
        beyond = "read_i64(a, 2 * p - 2) > word"
        shift = [f"write_i64(a, 2 * p + {i}, read_i64(a, 2 * p - {2 - i}))" for i in range(2)]
    return [
        "word = (key << 32) | i" if words(code, True) == 1 else "word = key",
        "p = min(filled, k - 1)",
        f"while p > 0 and {beyond}:",
        *("    " + row for row in shift),
        "    p -= 1",
        *word_rows(code, True, "a", "p", "i", "write"),
        "filled = min(filled + 1, k)",
        "if filled == k:",
        *("    " + row for row in _limit_rows(code)),
    ]


def _collect_rows(code: str) -> list[str]:
    return [*word_rows(code, True, "a", "filled", "i", "write"), "filled += 1"]


def _cut_rows(code: str) -> list[str]:
    """Lines that sort a full collection and keep the k best."""
    cut = ["call_tiles(sorter, a, b, filled)", "filled = k", *_limit_rows(code)]
    return [f"if filled > room - {BLOCK}:", *("    " + row for row in cut)]


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
