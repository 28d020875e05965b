"""Outputs that bypass the caches: what is too large to stay in them is written past them.

A store to a line that is not in the cache reads the line first, a third of what a copy moves. Stores that say the line
is not needed again save that reading, if whole lines are written one after the other. So a kernel computes a stretch of
a large output into a buffer that stays in the nearest cache, and `stream` sends the buffer on.

Measured on Zen 5, two threads, 64 MB each: x * 2 into another array 3.0 ms, streamed 2.2 to 2.4; x * 2 + y 4.0 and 3.0;
in place, where the line has been read anyway, nothing is gained.

Deliberately not here: what is computed (`loops.py`, `row_loops.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from gluonish.kernels import target
from gluonish.kernels.lanes import I8, I32, I64, PTR, VOID, i64, intrinsic_of, loop
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.value import declare

if TYPE_CHECKING:
    from gluonish.kernels.loops import Array, Output, Text

LINE = 64  # bytes
MOST = 3  # outputs of a kernel that are streamed; with more, their buffers would fill the nearest cache
SHORTEST = 512  # elements of a row from which on a stretch of it is worth being sent on alone
_LARGEST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


@cache
def least() -> int:
    """Bytes of outputs from which on they are streamed: the size of the largest cache, 32 MB where it is not known."""
    try:
        text = _LARGEST_CACHE.read_text().strip()
    except OSError:
        text = ""
    number = int(text[:-1]) << 10 if text.endswith("K") and text[:-1].isdigit() else 0
    return max(number, 1 << 25)


def suits(outputs: Sequence[Output]) -> bool:
    """Whether a kernel with these outputs over its whole domain can stream them."""
    return 0 < len(outputs) <= MOST and all(SCALARS[x.code].size >= 4 for x in outputs)


def decide(out: Text, outputs: Sequence[tuple[int, Output]], inputs: Sequence[Array], count: str) -> None:
    """Source that sets `large`: whether these outputs (and their numbers) of `count` elements are streamed."""
    size = sum(SCALARS[x.code].size for _, x in outputs)
    out(f"large = {count} >= {least() // size}")
    for i, _ in outputs:
        for j, x in enumerate(inputs):
            if x.code != "key" and all(x.moves) and SCALARS[x.code].size >= 4:
                out(f"large = large and out{i} != in{j}")  # in place, the lines have been read anyway


def stream() -> Any:
    """The Numba intrinsic `stream(destination, source, bytes)` copies words of 4 bytes, whole lines past the caches."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        to, source, count = arguments
        ahead = b.and_(b.neg(to), i64(LINE - 1))  # bytes to the first whole line
        ahead = b.select(b.icmp_signed("<", ahead, count), ahead, count)
        lines = b.ashr(b.sub(count, ahead), i64(6))
        begun = b.add(ahead, b.shl(lines, i64(6)))
        _copy(b, to, source, b.ashr(ahead, i64(2)), 4, False)
        _copy(b, b.add(to, ahead), b.add(source, ahead), lines, LINE, True)
        _copy(b, b.add(to, begun), b.add(source, begun), b.ashr(b.sub(count, begun), i64(2)), 4, False)

    return intrinsic_of(3, emit)


def _copy(b: ir.IRBuilder, to: ir.Value, source: ir.Value, turns: ir.Value, size: int, past: bool) -> None:
    """Copies `turns` pieces of so many bytes."""
    width = min(size, target.current().vector_bytes if past else size)
    kind = I32 if width == 4 else ir.VectorType(I8, width)

    def body(turn: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        for part in range(0, size, width):
            offset = b.add(b.mul(turn, i64(size)), i64(part))
            value = b.load(b.inttoptr(b.add(source, offset), PTR), align=4, typ=kind)
            stored = b.store(value, b.inttoptr(b.add(to, offset), PTR), align=width)
            if past:
                stored.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))
        return []

    loop(b, turns, [], body)


def settled() -> Any:
    """The Numba intrinsic `settled()`: what was streamed is seen by other threads before anything stored later."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        if target.current().x86:
            b.call(declare(b, "llvm.x86.sse.sfence", VOID, []), [])

    return intrinsic_of(0, emit)


def buffer(size: int) -> Any:
    """The Numba intrinsic `buffer()`: the address of that many bytes on the stack; each call's are its own."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> ir.Value:
        with b.goto_entry_block():
            place = b.alloca(ir.ArrayType(I8, size))
            place.align = LINE
        return b.ptrtoint(place, I64)

    return intrinsic_of(0, emit, gives=True)
