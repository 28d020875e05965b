"""Kernels that write to places given by indices: gradients of lookups, and changes by index.

The target is cut into pieces, by places and by columns, and a tile goes over all indices and does what concerns its own
piece, in the order of the indices. So there are no atomics, and results do not depend on the number of threads; that
every tile looks at all indices costs little beside the slices it moves. Indices are checked as in `gather.py`.
"""

from __future__ import annotations

from gluonish.kernels.gather import TILE, count_of, looked_up
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS

Shapes = list[tuple[int, ...]]
PIECE = 1 << 16  # bytes of the target from which on it is cut
RANGES = 16  # pieces by places at most
FEW = 4  # of them, where each index moves a single element
COLUMNS = 512  # bytes of columns of a piece at least


def slices_kernel(code: str, index: str, axis: int, copy: bool, add: bool) -> Kernel:
    """Slices put, or added, at their index along `axis`, into zeros or into a copy of the first input.

    Inputs: x (outer, S, inner) if `copy`, then values (outer, count, inner) and indices in the order of the op: x,
    indices, values, or values, indices. Outputs: out, error cell.
    """
    size = SCALARS[code].size
    names = ["x", "indices", "values", "out", "errors"] if copy else ["values", "indices", "out", "errors"]
    start = f"load_{code}(x, there + i)" if copy else f"cast_{code}(0)"
    value = f"load_{code}(target, i) + load_{code}(source, i)" if add else f"load_{code}(source, i)"
    one = f"read_{code}(values, block * count + place)"
    one = f"read_{code}(out, base + at) + {one}" if add else one
    source = f"""
def scatter_slices(args, begin, end):
{_pointers(names)}
    ranges, parts = load_i64(args, {len(names) + 5}), load_i64(args, {len(names) + 6})
    step = load_i64(args, {len(names) + 7})
    for tile in range(begin, end):
        part = tile % parts
        left, right = part * inner // parts, (part + 1) * inner // parts
        piece = tile // parts % ranges
        low, high = piece * size // ranges, (piece + 1) * size // ranges
        block = tile // (parts * ranges)
        for k in range(low, high):
            there = (block * size + k) * inner
            for i in range(left, right):
                store_{code}(out, there + i, {start})
        if inner == 1:  # a loop for a single element would take longer than the element
            base = block * size
            for place in range(count):
{looked_up(index, "place", 4)}
                if at >= low and at < high:
                    write_{code}(out, base + at, {one})
        for place in range(count if inner > 1 else 0):
{looked_up(index, "place", 3)}
            if at >= low and at < high:
                source = values + (block * count + place) * inner * {size}
                target = out + (block * size + at) * inner * {size}
                for i in range(left, right):
                    store_{code}(target, i, {value})
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        outer, length, inner = count_of(outs[0][:axis]), outs[0][axis], count_of(outs[0][axis + 1 :])
        count = count_of(ins[1])
        most = RANGES if inner * size >= 64 else FEW
        ranges = max(1, min(most, length, length * inner * size // PIECE)) if outer < 64 else 1
        parts = max(1, min(4, inner * size // COLUMNS)) if ranges > 1 else 1
        return Plan((outer, length, inner, count, ranges, parts), outer * ranges * parts)

    return Kernel("scatter_slices", source, (), plan)


def along_kernel(code: str, index: str, axis: int, copy: bool) -> Kernel:
    """Elements added at their index along `axis` into zeros, or put into a copy of the first input.

    Inputs: x (outer, S, inner) if `copy`, and values and indices (outer, count, inner) in the order of the op. Outputs:
    out, error cell.
    """
    names = ["x", "indices", "values", "out", "errors"] if copy else ["values", "indices", "out", "errors"]
    start = f"load_{code}(x, there + i)" if copy else f"cast_{code}(0)"
    value = f"read_{code}(values, place)" if copy else f"read_{code}(out, target) + read_{code}(values, place)"
    source = f"""
def scatter_along(args, begin, end):
{_pointers(names)}
    ranges, blocks = load_i64(args, {len(names) + 5}), load_i64(args, {len(names) + 6})
    step = load_i64(args, {len(names) + 7})
    for tile in range(begin, end):
        piece = tile % ranges
        low, high = piece * size // ranges, (piece + 1) * size // ranges
        for block in range(tile // ranges * blocks, min((tile // ranges + 1) * blocks, outer)):
            there = (block * size + low) * inner
            for i in range((high - low) * inner):
                store_{code}(out, there + i, {start})
            first = block * count * inner
            for place in range(first, first + count * inner):
{looked_up(index, "place", 4)}
                if at >= low and at < high:
                    column = 0 if inner == 1 else place % inner
                    target = (block * size + at) * inner + column
                    write_{code}(out, target, {value})
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        outer, length, inner = count_of(outs[0][:axis]), outs[0][axis], count_of(outs[0][axis + 1 :])
        count = ins[1][axis]
        each = (count + length) * inner
        ranges = FEW if outer < 16 and each > TILE and length >= FEW else 1
        blocks = max(1, TILE // max(1, each)) if ranges == 1 else 1
        return Plan((outer, length, inner, count, ranges, blocks), -(-outer // blocks) * ranges if inner else 0)

    return Kernel("scatter_along", source, (), plan)


def _pointers(names: list[str]) -> str:
    """Source that reads the arguments: pointers, then outer, size, inner, count behind the scratch memory."""
    rows = [f"    {name} = load_i64(args, {i})" for i, name in enumerate(names)]
    sizes = ("outer", "size", "inner", "count")
    return "\n".join([*rows, *(f"    {name} = load_i64(args, {len(names) + 1 + i})" for i, name in enumerate(sizes))])


def unpick_kernel(code: str, index: str) -> Kernel:
    """Rows of zeros with one value each.

    Inputs: values (rows,), indices (rows,). Outputs: out (rows, K), error cell.
    """
    size = SCALARS[code].size
    source = f"""
def unpick(args, begin, end):
    values, indices, out, errors = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2), load_i64(args, 3)
    count, size, rows, step = load_i64(args, 5), load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    for row in range(begin * rows, min(end * rows, count)):
{looked_up(index, "row", 2)}
        target = out + row * size * {size}
        for i in range(size):
            store_{code}(target, i, cast_{code}(0))
        if size > 0:
            write_{code}(target, at, load_{code}(values, row))
"""

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        count = count_of(ins[1])
        rows = max(1, TILE // max(1, outs[0][-1]))
        return Plan((count, outs[0][-1], rows), -(-count // rows))

    return Kernel("unpick", source, (), plan)
