"""Few long rows sorted by all threads together: the radix sort of `sort.py`, each pass in two kernels.

A row is cut into chunks. Each tile counts the digits of its chunk; then each adds up the counts of the others, which
tells where its elements go, and moves them. What stands where is given by the elements alone, so neither chunks nor
threads change the result. Which of the two buffers holds the elements before each pass is noted in memory, as passes
over a digit that all elements share move nothing.
Source: M. Zagha, G. E. Blelloch, Radix sort for vector multiprocessors, Supercomputing 1991.
"""

from __future__ import annotations

from gluonish.kernels.gather import count_of
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.sort import check_length, chunk_of, digits_of, result_rows, together
from gluonish.kernels.sort_keys import key_rows, lines, word_rows, words

_DIGITS = 256
_PASSES = 16  # words a row for the notes on which buffer is current


def work_words(shape: tuple[int, ...], step: int) -> int:
    """Words of working memory: two buffers a row, and the notes; `step` words an element."""
    return count_of(shape) * 2 * step + count_of(shape[:-1]) * _PASSES if together(shape) else 0


def count_words(shape: tuple[int, ...]) -> int:
    """Words for the numbers of digits: 256 for each chunk."""
    return count_of(shape[:-1]) * together(shape) * _DIGITS


def scalars(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The scalars of all kernels here (rows, length, chunks of a row, elements of a chunk), and the number of tiles."""
    chunks, length, rows = together(shape), shape[-1], count_of(shape[:-1])
    check_length(length)
    return (rows, length, chunks, chunk_of(length)), rows * chunks


def _head(first: int, step: int) -> str:
    """Source: the scalars, and for each tile its row, the bounds of its chunk, the notes and buffers of the row."""
    names = ("rows", "length", "chunks", "chunk")
    return "\n".join(
        [
            *(f"    {name} = load_i64(args, {first + i})" for i, name in enumerate(names)),
            "    for tile in range(begin, end):",
            "        row, piece = tile // chunks, tile % chunks",
            "        low, high = piece * chunk, min((piece + 1) * chunk, length)",
            f"        notes = work + (rows * length * {2 * step} + row * {_PASSES}) * 8",
            f"        first = work + row * length * {2 * step * 8}",
            f"        second = first + length * {step * 8}",
        ]
    )


def load_kernel(code: str, places: bool) -> Kernel:
    """Writes the words of all elements. Input: x (rows, length). Output: the working memory. Last scalar: the flip."""
    size, step = SCALARS[code].size, words(code, places)
    source = f"""
def sort_load(args, begin, end):
    x, work = load_i64(args, 0), load_i64(args, 1)
    flip = load_i64(args, 7)
{_head(3, step)}
        if piece == 0:
            write_i64(notes, 0, 0)
        source = x + row * length * {size}
        for i in range(low, high):
{lines([*key_rows(code, "source", "i", "flip", not places), *word_rows(code, places, "first", "i", "i")], 3)}
"""
    return Kernel("sort_load", source)


def count_kernel(code: str, places: bool) -> Kernel:
    """Counts a digit in each chunk. Input: the working memory. Output: the counts. Last scalar: which digit."""
    low, digits = digits_of(code)
    step = words(code, places)
    source = f"""
def sort_count(args, begin, end):
    work, counts = load_i64(args, 0), load_i64(args, 1)
    number = load_i64(args, 7)
    shift = {low} + 8 * number
    turn = {_DIGITS // 2} if number == {digits - 1} else 0
{_head(3, step)}
        source = first if read_i64(notes, number) == 0 else second
        mine = counts + tile * {_DIGITS * 8}
        for i in range({_DIGITS}):
            store_i64(mine, i, 0)
        for i in range(low, high):
            digit = ((read_i64(source, {step} * i) >> shift) & 255) ^ turn
            write_i64(mine, digit, read_i64(mine, digit) + 1)
"""
    return Kernel("sort_count", source)


def move_kernel(code: str, places: bool) -> Kernel:
    """Moves each chunk's elements to where they belong by one digit.

    Inputs: the working memory, the counts. Output: the working memory. Last scalar: which digit.
    """
    low, digits = digits_of(code)
    step = words(code, places)
    source = f"""
def sort_move(args, begin, end):
    work, counts = load_i64(args, 0), load_i64(args, 1)
    number = load_i64(args, 8)
    shift = {low} + 8 * number
    turn = {_DIGITS // 2} if number == {digits - 1} else 0
    before = local_counts()
    totals = before + {_DIGITS * 8}
{_head(4, step)}
        current = read_i64(notes, number)
        source = first if current == 0 else second
        target = second if current == 0 else first
        for i in range({2 * _DIGITS}):
            store_i64(before, i, 0)
        for other in range(chunks):
            theirs = counts + (row * chunks + other) * {_DIGITS * 8}
            if other < piece:
                for i in range({_DIGITS}):
                    store_i64(before, i, load_i64(before, i) + load_i64(theirs, i))
            for i in range({_DIGITS}):
                store_i64(totals, i, load_i64(totals, i) + load_i64(theirs, i))
        most = 0
        sum = 0
        for i in range({_DIGITS}):
            many = read_i64(totals, i)
            most = max(most, many)
            write_i64(before, i, read_i64(before, i) + sum)
            sum += many
        atomic_store(notes + (number + 1) * 8, current if most == length else 1 - current)
        if most < length:
            for i in range(low, high):
                word = read_i64(source, {step} * i)
                digit = ((word >> shift) & 255) ^ turn
                place = read_i64(before, digit)
                write_i64(before, digit, place + 1)
                write_i64(target, {step} * place, word)
                {"write_i64(target, 2 * place + 1, read_i64(source, 2 * i + 1))" if step == 2 else ""}
"""
    return Kernel("sort_move", source, (("local_counts", "random:local", (2 * 8 * _DIGITS,)),))


def store_kernel(code: str, places: bool) -> Kernel:
    """Writes the result. Input: the working memory. Output: (rows, length), numbers in order or their places.

    Last scalar: the flip.
    """
    step = words(code, places)
    out_size = 8 if places else SCALARS[code].size
    source = f"""
def sort_store(args, begin, end):
    work, out = load_i64(args, 0), load_i64(args, 1)
    flip = load_i64(args, 7)
{_head(3, step)}
        source = first if read_i64(notes, {digits_of(code)[1]}) == 0 else second
        target = out + row * length * {out_size}
        for i in range(low, high):
{lines(result_rows(code, places, "source", "i", "target", "i"), 3)}
"""
    return Kernel("sort_store", source)
