"""Sums of exponentials below the largest, of rows so long that they are cut into chunks.

A chunk is gone over twice, first for its own largest number, and is in the cache by then; so a softmax reads a row that
no cache holds once less. What a chunk gives are its largest number and its sum of exponentials below that. How rows are
cut depends on sizes only.
Source: M. Milakov, N. Gimelshein, Online normalizer calculation for softmax, 2018, with chunks for single numbers.

Deliberately not here: other reductions of long rows (`column_loops.py`), which loops are cut (`hybrid/long_rows.py`).
"""

from __future__ import annotations

from dataclasses import replace

from gluonish.kernels.kernel import Kernel
from gluonish.kernels.loops import Body, Fold, Line, Loop, Pick, combined, extremes

LEAST = 1 << 18  # elements of a row from which on it is cut, where there are few of them
FEW = 16  # so few
LARGEST = 1 << 21  # elements from which on any is


def cut(outer: int, last: int) -> bool:
    """Whether so many rows of that length are cut."""
    return last >= (LEAST if outer < FEW else LARGEST)


def exponentials(loop: Loop, largest: Fold) -> Fold | None:
    """The sum over exp(x - largest) for x, of which `largest` is the largest; None if the loop has none."""
    lines = {x.name: x for x in loop.lines}
    for fold in loop.lines:
        if not isinstance(fold, Fold) or fold.combine != "add" or largest.combine != "maximum":
            continue
        power = lines.get(fold.operand)
        if not isinstance(power, Line) or power.function != "exp":
            continue
        below = lines.get(power.operands[0])
        if isinstance(below, Line) and (below.function, below.operands) == (
            "subtract",
            (largest.operand, largest.name),
        ):
            return fold
    return None


def exponentials_kernel(loop: Loop, largest: Fold, total: Fold) -> Kernel:
    """Outputs: largest numbers and sums of the chunks, both (outer, chunks). Other arguments: as `columns_kernel`."""
    code, lowest = largest.code, largest.initial
    body = Body(replace(loop, outputs=tuple(replace(loop.outputs[0], code=code) for _ in range(2))))
    out = body.text
    body.head(("d0", "d1", "rows"))
    out("chunks = max(1, (d1 + rows - 1) // rows)")
    out("for tile in range(begin, end):")
    out.depth += 1
    out("i0 = tile // chunks")
    out("row_begin = tile % chunks * rows")
    out("row_end = min(row_begin + rows, d1)")
    body.point("i0", 1)
    out(f"top = {lowest}")
    out("for i in range(row_begin, row_end):")
    out.depth += 1
    body.value(largest.operand, set(body.done), "i")
    out(f"top = {combined(largest, 'top', largest.operand)}")
    out.depth -= 1
    out(
        f"{largest.name} = where(equal(top, {lowest}), cast_{code}(0), top)  # a chunk of nothing but -Inf adds nothing"
    )
    out(f"sum = {total.initial}")
    out("for i in range(row_begin, row_end):")
    out.depth += 1
    body.value(total.operand, {*body.done, largest.name}, "i")
    out(f"sum = {combined(total, 'sum', total.operand)}")
    out.depth -= 1
    out(f"store_{code}(out0, tile, top)")
    out(f"store_{code}(out1, tile, sum)")
    return Kernel(loop.name, str(out), (*body.externals(), *extremes([largest])))


def combine_exponentials_kernel(largest: Fold, total: Fold) -> Kernel:
    """Inputs: what `exponentials_kernel` gives. Outputs: the same of rows, (outer,). Argument: chunks."""
    code = largest.code
    source = f"""
def combine_exponentials(args, begin, end):
    tops, sums, top, sum = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    chunks = load_i64(args, 5)
    for row in range(begin, end):
        best = {largest.initial}
        for c in range(chunks):
            best = {combined(largest, "best", f"load_{code}(tops, row * chunks + c)")}
        total = {total.initial}
        for c in range(chunks):
            at = row * chunks + c
            total = total + load_{code}(sums, at) * exp(subtract(load_{code}(tops, at), best))
        store_{code}(top, row, best)
        store_{code}(sum, row, total)
"""
    return Kernel("combine_exponentials", source, extremes([largest]))


def levels(loop: Loop) -> list[list[Fold]]:
    """The folds of a loop in the order of their passes: each needs those before it."""
    lines = {x.name: x for x in loop.lines}
    depth: dict[str, int] = {}
    for x in loop.lines:  # operands come first
        operands = x.operands if isinstance(x, Line) else (x.operand, *((x.spot,) if isinstance(x, Pick) else ()))
        inner = max((depth[o] for o in operands if o in lines), default=0)
        depth[x.name] = inner + isinstance(x, Fold)
    folds = [x for x in loop.lines if isinstance(x, Fold)]
    return [
        found for n in sorted({depth[f.name] for f in folds}) if (found := [f for f in folds if depth[f.name] == n])
    ]
