"""Kernels that set elements: zeros, random keys (copies: `transposing.py`, lookups: `gather.py`)."""

from __future__ import annotations

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS

Shapes = list[tuple[int, ...]]
TILE = 16384
_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


def _count(shape: tuple[int, ...]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out


def zero_kernel(code: str) -> Kernel:
    """Fills its output with zeros."""
    bits, size = _BITS[SCALARS[code].size], SCALARS[code].size
    zero = f"cast_{bits}(0)" if bits != "i64" else "0"
    source = f"""
def zeros(args, begin, end):
    out, count = load_i64(args, 0), load_i64(args, 2)
    for i in range(begin * {TILE * 4 // size}, min(end * {TILE * 4 // size}, count)):
        store_{bits}(out, i, {zero})
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = _count(outs[0])
        return Plan((count,), -(-count // (TILE * 4 // size)))

    return Kernel("zeros", source, (), plan)


def advance_kernel() -> Kernel:
    """A random key moved on. Input: key; output: key; last argument: the blocks drawn before."""
    source = """
def advance(args, begin, end):
    key, out, blocks = load_i64(args, 0), load_i64(args, 1), load_i64(args, 3)
    write_i64(out, 0, read_i64(key, 0))
    write_i64(out, 1, read_i64(key, 1) + blocks)
"""
    return Kernel("advance", source, (), lambda ins, outs: Plan((), 1))
