"""Scans along one axis: running sums, products and extremes, and linear recurrences.

Along the last axis a thread takes whole rows. Where there are few and long ones, rows are cut into blocks: whoever
takes a block of which the start is not known yet first folds it, which brings it into the cache, by then knows what
came before it, and goes over it again. So memory is read once, and no thread waits long. A block's total is the same
number whichever way it was found: results do not depend on the number of threads.
Source of that scheme: D. Merrill, M. Garland, Single-pass parallel prefix scan with decoupled look-back, NVIDIA 2016.

Along other axes, neighbouring columns go on together. Deliberately not here: the loop within a block (`scan_lanes.py`).
"""

from __future__ import annotations

from gluonish.kernels import pool
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS

Shapes = list[tuple[int, ...]]
BLOCK = 1 << 17  # bytes of a block: twice that stays in the second cache
MANY_ROWS = 32  # so many rows keep the threads busy without blocks
WIDEST = 4096  # bytes of neighbouring columns that go on together
NARROWEST = 256
LINE = 16  # words of a block's state: two cache lines
_TICKETS = 64  # calls that may take part in the work on blocks


def _count(shape: tuple[int, ...]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out


def blocks_of(shape: tuple[int, ...], size: int) -> int:
    """Into how many blocks the rows of a scan along the last axis are cut in all; 0 if they are not."""
    length, rows = shape[-1], _count(shape[:-1])
    per_row = -(-length * size // BLOCK)
    return rows * per_row if rows < MANY_ROWS and per_row > 1 else 0


def row_scan_kernel(code: str, combine: str, reverse: bool) -> Kernel:
    """A scan along the last axis.

    Inputs: x (rows, length), the state of the blocks: `state_words` zeros. Output: the shape of x.
    """
    size = SCALARS[code].size
    place = "(length - first - count)" if reverse else "first"
    source = f"""
def row_scan(args, begin, end):
    x, state, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    rows, length, blocks, rows_per_tile = load_i64(args, 4), load_i64(args, 5), load_i64(args, 6), load_i64(args, 7)
    give_way = load_i64(args, 8)
    nothing = identity()
    if blocks == 0:
        for row in range(begin * rows_per_tile, min(end * rows_per_tile, rows)):
            scan(x + row * length * {size}, out + row * length * {size}, length, nothing)
        return
    per_row = blocks // rows
    block = atomic_add(state, 1)
    while block < blocks:
        first = block % per_row * {BLOCK // size}
        count = min({BLOCK // size}, length - first)
        start = (block // per_row * length + {place}) * {size}
        mine = state + (block + 1) * {LINE * 8}
        before = nothing
        total = nothing
        if first == 0 or atomic_load(mine) != 0:
            if first > 0:
                before = read_{code}(mine + 8, 0)
            total = scan(x + start, out + start, count, before)
            write_{code}(mine + {LINE * 8 + 8}, 0, {combine}(before, total))
            atomic_store(mine + {LINE * 8}, 1)
        else:
            total = fold(x + start, 0, count, nothing)
            waited = 0
            while atomic_load(mine) == 0:
                spin_pause()
                waited += 1
                if waited > 500:
                    call_function(give_way, 0, 0)
            before = read_{code}(mine + 8, 0)
            write_{code}(mine + {LINE * 8 + 8}, 0, {combine}(before, total))
            atomic_store(mine + {LINE * 8}, 1)
            scan(x + start, out + start, count, before)
        block = atomic_add(state, 1)
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        length, rows = ins[0][-1], _count(ins[0][:-1])
        blocks = blocks_of(ins[0], size)
        together = max(1, BLOCK // size // 4 // max(1, length))
        tiles = min(blocks, _TICKETS) if blocks else -(-rows // together) if length else 0
        return Plan((rows, length, blocks, together, pool.give_way() if blocks else 0), tiles)

    folds = tuple((n, "scan_lanes:running_fold", (code, combine, reverse, n == "scan")) for n in ("scan", "fold"))
    return Kernel("row_scan", source, (*folds, ("identity", "scan_lanes:identity_of", (code, combine))), plan)


def state_words(shape: tuple[int, ...], size: int) -> int:
    """Words of the state of the blocks."""
    blocks = blocks_of(shape, size)
    return LINE * (blocks + 2) if blocks else 0


def column_scan_kernel(code: str, combine: str, reverse: bool, axis: int) -> Kernel:
    """A scan along another axis than the last. Input: x (outer, length, inner). Output: the same shape.

    combine: an op, or "linear": then there are two inputs, factors and terms, and y = factors * y before + terms.
    """
    size = SCALARS[code].size
    linear = combine == "linear"
    names = ["factors", "x"] if linear else ["x"]
    ins = len(names)
    pointers = "\n".join(f"    {name} = load_i64(args, {i})" for i, name in enumerate([*names, "out"]))
    next_value = (
        f"load_{code}(out, there + j) * load_{code}(factors, here + j) + load_{code}(x, here + j)"
        if linear
        else f"{combine}(load_{code}(out, there + j), load_{code}(x, here + j))"
    )
    source = f"""
def column_scan(args, begin, end):
{pointers}
    length, inner, columns = load_i64(args, {ins + 3}), load_i64(args, {ins + 4}), load_i64(args, {ins + 5})
    column_tiles = (inner + columns - 1) // columns
    for tile in range(begin, end):
        start = tile % column_tiles * columns
        count = min(columns, inner - start)
        start += tile // column_tiles * length * inner
        here = start{" + (length - 1) * inner" if reverse else ""}
        for j in range(count):
            store_{code}(out, here + j, load_{code}(x, here + j))
        for k in range(1, length):
            there = here
            here = here {"-" if reverse else "+"} inner
            for j in range(count):
                store_{code}(out, here + j, {next_value})
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        shape = outs[0]
        outer, inner = _count(shape[:axis]), _count(shape[axis + 1 :])
        wanted = outer * inner // 8  # columns of a tile if there shall be eight
        columns = min(max(wanted // 16 * 16, NARROWEST // size), WIDEST // size)
        tiles = outer * -(-inner // columns) if _count(shape) else 0
        return Plan((outer, shape[axis], inner, columns), tiles)

    return Kernel("column_scan", source, (), plan)


def row_recurrence_kernel(code: str, reverse: bool) -> Kernel:
    """A linear recurrence along the last axis. Inputs: factors, terms (rows, length). Output: the same shape."""
    first, place = ("length - 1", "length - 1 - i") if reverse else ("0", "i")
    source = f"""
def row_recurrence(args, begin, end):
    factors, x, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    rows, length, rows_per_tile = load_i64(args, 4), load_i64(args, 5), load_i64(args, 6)
    for row in range(begin * rows_per_tile, min(end * rows_per_tile, rows)):
        start = row * length
        if length > 0:
            value = load_{code}(x, start + {first})
            store_{code}(out, start + {first}, value)
            for i in range(1, length):
                value = value * read_{code}(factors, start + {place}) + read_{code}(x, start + {place})
                write_{code}(out, start + {place}, value)
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        length, rows = outs[0][-1], _count(outs[0][:-1])
        together = max(1, 4096 // max(1, length))
        return Plan((rows, length, together), -(-rows // together))

    return Kernel("row_recurrence", source, (), plan)
