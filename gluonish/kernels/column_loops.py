"""Loops down columns: kernels that fold the middle of a domain (outer, folded, inner).

The folded rows are cut into chunks, each gives a partial result, and a second kernel combines them. How they are cut
depends on sizes only, so results do not depend on the number of threads.

A variance goes over its chunk twice, first for the mean; the chunk is small enough to be in the cache by then. Its
partial results are two: the mean, and the sum of the squared distances from it.
Source of how those are combined: T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for
computing sample variances, 1979.

Deliberately not here: what a loop is made of (`loops.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.loops import TILE, Body, Fold, Loop, Text, combined, extremes
from gluonish.kernels.scalars import SCALARS

WIDEST = 2048  # columns of a tile: their sums stay in the nearest cache
PIECES = 64  # tiles that large work is cut into
TOGETHER = 4  # rows whose elements are added in one go
MANY_LINES = 24  # a loop with more goes row by row: it computes more than it loads
LONGEST = 1024  # numbers added one after the other: rounding errors grow with them
CHUNK = 65536  # elements of a chunk at most: it stays in the cache for a second pass


def parts(fold: Fold) -> list[Fold]:
    """The partial results of a fold, as folds: for a variance, the mean and the sum of squared distances."""
    if fold.combine != "variance":
        return [fold]
    mean = replace(fold, name=f"{fold.name}_mean", combine="add")
    return [mean, replace(mean, name=f"{fold.name}_far", operand=f"{fold.name}_square")]


def columns_kernel(loop: Loop) -> Kernel:
    """A kernel that folds the middle of a domain (outer, folded, inner) in chunks of folded rows: partial results.

    Shapes: for each of the `parts` of its folds an output, (outer, chunks, inner). Arguments: inputs, outputs, the
    three dimensions, rows per chunk, columns per tile, the loop's sizes. With rank 2 there is no inner dimension, and
    outputs are (outer, chunks).
    """
    folds = [x for x in loop.lines if isinstance(x, Fold)]
    places = [part for fold in folds for part in parts(fold)]
    body = Body(replace(loop, outputs=tuple(replace(loop.outputs[0], code=p.code) for p in places)))
    out = body.text
    wide = loop.rank == 3
    body.head(("d0", "d1", *(("d2", "rows", "columns") if wide else ("rows",))))
    out("chunks = max(1, (d1 + rows - 1) // rows)")
    if wide:
        out("column_tiles = (d2 + columns - 1) // columns")
    out("for tile in range(begin, end):")
    out.depth += 1
    if wide:
        out("first = tile % column_tiles * columns")
        out("last = min(first + columns, d2)")
    out(f"piece = tile{' // column_tiles' if wide else ''}")
    out("i0 = piece // chunks")
    out("row_begin = piece % chunks * rows")
    out("row_end = min(row_begin + rows, d1)")
    (_fold_columns if wide else _fold_stretch)(body, folds, places)
    return Kernel(loop.name, str(out), body.externals())


# --- columns side by side ---------------------------------------------------------------------------------------------
def _fold_columns(body: Body, folds: list[Fold], places: list[Fold]) -> None:
    out = body.text
    for k, place in enumerate(places):
        out(f"sums{k} = out{k} + piece * d2 * {SCALARS[place.code].size}")
    out("for i in range(first, last):")
    for k, place in enumerate(places):
        out(f"    store_{place.code}(sums{k}, i, {place.initial})")
    number = {place.name: k for k, place in enumerate(places)}
    means = [parts(f)[0] for f in folds if f.combine == "variance"]
    _columns_pass(body, [p for f in folds for p in parts(f)[:1]], number)
    if not means:
        return
    out("for i in range(first, last):")
    out.depth += 1
    for p in means:
        k, cast = number[p.name], f"cast_{p.code}"
        out(f"store_{p.code}(sums{k}, i, load_{p.code}(sums{k}, i) / {cast}(row_end - row_begin))")
    out.depth -= 1
    _columns_pass(body, [parts(f)[1] for f in folds if f.combine == "variance"], number)


def _columns_pass(body: Body, folds: list[Fold], number: dict[str, int]) -> None:
    """Goes over the rows of a chunk, some at a time, and adds to partial results."""
    out = body.text
    together = TOGETHER if len(body.loop.lines) <= MANY_LINES else 1
    if together > 1:
        out(f"row_middle = row_end - (row_end - row_begin) % {together}")
        out(f"for i1 in range(row_begin, row_middle, {together}):")
        _rows_together(body, folds, number, together)
    out(f"for i1 in range({'row_middle' if together > 1 else 'row_begin'}, row_end):")
    _rows_together(body, folds, number, 1)


def _rows_together(body: Body, folds: list[Fold], number: dict[str, int], together: int) -> None:
    """The body of a loop over rows: what is loaded and stored of the partial results serves several rows."""
    out = body.text
    out.depth += 1
    names = [f"_{row}" if together > 1 else "" for row in range(together)]
    for row, end in enumerate(names):
        begun = len(out.rows)
        out("row = i0 * d1 + i1")
        body.point("row", 2)
        _rename(body, begun, end, row)
    out("for i in range(first, last):")
    out.depth += 1
    results = {fold.name: f"load_{fold.code}(sums{number[fold.name]}, i)" for fold in folds}
    for row, end in enumerate(names):
        begun = len(out.rows)
        body.places("row * d2 + i", "i")
        done = set(body.done)
        for fold in folds:
            value = _value(body, fold, done, f"load_{fold.code}(sums{number[fold.name] - 1}, i)")
            out(f"{fold.name}_sum = {combined(fold, results[fold.name], value)}")
            results[fold.name] = f"{fold.name}_sum"
        _rename(body, begun, end, row)
    for fold in folds:
        out(f"store_{fold.code}(sums{number[fold.name]}, i, {results[fold.name]})")
    out.depth -= 2


def _rename(body: Body, begun: int, end: str, row: int) -> None:
    """Gives the names of one row in the source since `begun` an ending of their own."""
    if not end:
        return

    def name(match: re.Match[str]) -> str:
        word = match[0]
        if word == "i1":
            return f"(i1 + {row})"
        return word if word in body.done else word + end

    rows = body.text.rows
    rows[begun:] = [
        re.sub(r"\b(?:[pxv]\d+(?:_far_from|_square)?|row|index|column|i1)\b", name, line) for line in rows[begun:]
    ]


def _value(body: Body, fold: Fold, done: set[str], mean: str) -> str:
    """Emits what a fold adds for one element, and names it."""
    if not fold.name.endswith("_far"):
        body.value(fold.operand, done, "i")
        return fold.operand
    source = next(x.operand for x in body.loop.lines if isinstance(x, Fold) and fold.name == f"{x.name}_far")
    body.value(source, done, "i")
    body.text(f"{fold.name}_from = {source} - {mean}")
    body.text(f"{fold.operand} = {fold.name}_from * {fold.name}_from")
    return fold.operand


# --- one stretch ------------------------------------------------------------------------------------------------------
def _fold_stretch(body: Body, folds: list[Fold], places: list[Fold]) -> None:
    out = body.text
    body.point("i0", 1)
    for place in places:
        out(f"{place.name} = {place.initial}")
    means = [parts(f)[0] for f in folds if f.combine == "variance"]
    _stretch_pass(body, [p for f in folds for p in parts(f)[:1]])
    for p in means:
        out(f"{p.name} = {p.name} / cast_{p.code}(row_end - row_begin)")
    if means:
        _stretch_pass(body, [parts(f)[1] for f in folds if f.combine == "variance"])
    for k, place in enumerate(places):
        out(f"store_{place.code}(out{k}, tile, {place.name})")


def _stretch_pass(body: Body, folds: list[Fold]) -> None:
    out = body.text
    done = set(body.done)
    out("for i in range(row_begin, row_end):")
    out.depth += 1
    body.places("i0 * d1 + i", "i")
    values = [_value(body, fold, done, fold.name.replace("_far", "_mean")) for fold in folds]
    for fold, value in zip(folds, values):
        out(f"{fold.name} = {combined(fold, fold.name, value)}")
    out.depth -= 1


# --- combining --------------------------------------------------------------------------------------------------------
def combine_kernel(folds: Sequence[Fold]) -> Kernel:
    """Partial results (outer, chunks, inner) of `columns_kernel` as results (outer, inner).

    Arguments: the partial results (it may write to them), the results, outer, chunks, inner, folded rows in all and in
    a chunk, columns per tile.
    """
    out = Text()
    places = [part for fold in folds for part in parts(fold)]
    out("def combine_columns(args, begin, end):")
    out.depth = 1
    for i, name in enumerate([*(f"in{i}" for i in range(len(places))), *(f"out{i}" for i in range(len(folds)))]):
        out(f"{name} = load_i64(args, {i})")
    first = len(places) + len(folds) + 1
    for i, name in enumerate(("d0", "chunks", "d2", "count", "rows", "columns")):
        out(f"{name} = load_i64(args, {first + i})")
    out("column_tiles = (d2 + columns - 1) // columns")
    out("for tile in range(begin, end):")
    out.depth += 1
    out("i0 = tile // column_tiles")
    out("first = tile % column_tiles * columns")
    out("last = min(first + columns, d2)")
    k = 0
    for n, fold in enumerate(folds):
        size = SCALARS[fold.code].size
        out(f"result = out{n} + i0 * d2 * {size}")
        out(f"part = in{k} + i0 * chunks * d2 * {size}")
        if fold.combine == "variance":
            out(f"far = in{k + 1} + i0 * chunks * d2 * {size}")
            _combine_variance(out, fold)
        else:
            _combine_plain(out, fold)
        k += len(parts(fold))
    return Kernel("combine_columns", str(out), extremes(folds))


def _combine_plain(out: Text, fold: Fold) -> None:
    code = fold.code
    _each(out, f"store_{code}(result, i, {fold.initial})")
    out("for c in range(chunks):")
    out.depth += 1
    text = combined(fold, f"load_{code}(result, i)", f"load_{code}(part, c * d2 + i)")
    _each(out, f"store_{code}(result, i, {text})")
    out.depth -= 1


def _combine_variance(out: Text, fold: Fold) -> None:
    code, size = fold.code, SCALARS[fold.code].size
    _each(out, f"store_{code}(result, i, {fold.initial})")
    out("for c in range(chunks):")
    out(f"    share = cast_{code}(min(rows, count - c * rows)) / cast_{code}(count)")
    out.depth += 1
    _each(out, f"store_{code}(result, i, load_{code}(result, i) + share * load_{code}(part, c * d2 + i))")
    out.depth -= 1
    # the first chunk's sum takes up all that is far from the mean
    out("for c in range(chunks):")
    out.depth += 1
    out(f"number = cast_{code}(min(rows, count - c * rows))")
    out(f"here = far + c * d2 * {size}")
    out("for i in range(first, last):")
    out.depth += 1
    out(f"off = load_{code}(part, c * d2 + i) - load_{code}(result, i)")
    out("spread = number * off * off")
    out(f"store_{code}(here, i, load_{code}(here, i) + spread)")
    out.depth -= 2
    out("for c in range(1, chunks):")
    out.depth += 1
    _each(out, f"store_{code}(far, i, load_{code}(far, i) + load_{code}(far, c * d2 + i))")
    out.depth -= 1
    _each(out, f"store_{code}(result, i, load_{code}(far, i) / cast_{code}(count))")


def _each(out: Text, line: str) -> None:
    out("for i in range(first, last):")
    out(f"    {line}")


# --- plans ------------------------------------------------------------------------------------------------------------
def columns_plan(dims: tuple[int, ...], weight: int) -> Plan:
    """Tiles of the kernel that makes partial results."""
    outer, folded = dims[0], dims[1]
    inner = dims[2] if len(dims) == 3 else 1
    size = min(CHUNK, max(TILE // weight, outer * folded * inner // PIECES))
    if len(dims) == 2:
        rows = max(1, min(folded, size))
        return Plan((outer, folded, rows), outer * chunks_of(folded, rows))
    columns = max(1, min(inner, WIDEST))
    rows = max(1, min(folded, size // columns, LONGEST))
    return Plan((outer, folded, inner, rows, columns), outer * chunks_of(folded, rows) * -(-inner // columns))


def combine_plan(dims: tuple[int, ...], weight: int) -> Plan:
    """Tiles of the kernel that combines partial results."""
    return combining(dims, columns_plan(dims, weight).scalars[len(dims)])


def combining(dims: tuple[int, ...], rows: int) -> Plan:
    """Tiles of the kernel that combines partial results of so many rows each."""
    inner = dims[2] if len(dims) == 3 else 1
    columns = max(1, min(inner, WIDEST // 8))
    return Plan((dims[0], chunks_of(dims[1], rows), inner, dims[1], rows, columns), dims[0] * -(-inner // columns))


def chunks_in(dims: tuple[int, ...], weight: int) -> int:
    """How many partial results a column has."""
    return chunks_of(dims[1], columns_plan(dims, weight).scalars[len(dims)])


def chunks_of(folded: int, rows: int) -> int:
    """How many partial results there are; one even for nothing to fold, so that an empty sum is its initial value."""
    return max(1, -(-folded // rows))
