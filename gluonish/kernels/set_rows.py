"""Rows written into the middle of an array: only they are moved where the result has the array's own memory.

A tile is one matrix of the batch. Deliberately not here: rows chosen by indices (`moves.py`).
"""

from __future__ import annotations

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS

_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}  # a move knows no numbers, only how wide they are


def set_rows_kernel(code: str) -> Kernel:
    """out = x with rows from `start` on replaced; values are read with steps, in bytes.

    Inputs: x (batch, heads, S, D), start (1,), values. Outputs: out, error cell. Last argument: the step.
    """
    size = SCALARS[code].size
    bits = _BITS[size]
    source = f"""
def set_rows(args, begin, end):
    x, first, values = load_i64(args, 0), load_i64(load_i64(args, 1), 0), load_i64(args, 2)
    out, errors = load_i64(args, 3), load_i64(args, 4)
    heads, rows, depth, count = load_i64(args, 6), load_i64(args, 7), load_i64(args, 8), load_i64(args, 9)
    outer_step, head_step, row_step = load_i64(args, 10), load_i64(args, 11), load_i64(args, 12)
    step = load_i64(args, 13)
    fits = first >= 0 and first + count <= rows
    if not fits and atomic_compare_exchange(errors, 0, step + 1) == 0:
        write_i64(errors, 1, 0)
        write_i64(errors, 2, first if first < 0 else first + count - 1)
        write_i64(errors, 3, rows)
    for n in range(begin, end):
        target = out + n * rows * depth * {size}
        if out != x:
            source = x + n * rows * depth * {size}
            for i in range(rows * depth):
                store_{bits}(target, i, load_{bits}(source, i))
        for t in range(count if fits else 0):
            source = values + n // heads * outer_step + n % heads * head_step + t * row_step
            for i in range(depth):
                store_{bits}(target + (first + t) * depth * {size}, i, load_{bits}(source, i))
"""
    return Kernel("set_rows", source)


def set_rows_plan(sizes: tuple[int, int, int, int, int], steps: tuple[int, int, int]) -> Plan:
    """sizes: batch, heads, rows of x, numbers in a row, rows written; steps: from batch to batch of the values, head to
    head, row to row."""
    batch, heads, rows, depth, count = sizes
    return Plan((heads, rows, depth, count, *steps), batch * heads)
