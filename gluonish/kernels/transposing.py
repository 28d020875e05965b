"""Kernels that copy between two orders of the same elements: strided copies and transposes.

A copy goes along the runs that both sides have in common. A transpose goes by square blocks, turned in registers, so
that both sides move whole cache lines, and the blocks by tiles small enough that what is next to each other in the
source is still in the nearest cache when its neighbours are wanted. Where one side has only a few elements side by side
(the channels of an image), these are dealt out instead, by loops that LLVM turns into shuffles.

Deliberately not here: what decides between them (`hybrid/lower_moves.py`), lookups (`moves.py`).
"""

from __future__ import annotations

from math import prod
from typing import Any

from llvmlite import ir

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.lanes import Lanes, i64, intrinsic_of
from gluonish.kernels.packing import transposed
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.tiling import tile_of

TILE = 16384  # elements in one tile of the pool
SIDE = 128  # elements of a tile of a transpose along each of its two dimensions
FEW = 4  # so many elements side by side are dealt out
_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


def copy_kernel(code: str, rank: int) -> Kernel:
    """A strided copy between two arrays.

    Arguments: source, target; then dimensions, strides of the source, of the target (in elements), the two offsets,
    rows per tile.
    """
    size = SCALARS[code].size
    bits = _BITS[size]
    last, run = rank - 1, rank - 2
    if rank == 1:
        body = _COPY_ROW.format(bits=bits, last=last, a="source + a_offset * {0}", b="target + b_offset * {0}")
        body = "    if begin < end and begin == 0:\n" + body.format(size)
    else:
        index = "\n".join(f"        i{d} = rest % d{d}\n        rest = rest // d{d}" for d in range(run, -1, -1))
        walk = " + ".join(["a_offset", *(f"i{d} * a{d}" for d in range(last))])
        to = " + ".join(["b_offset", *(f"i{d} * b{d}" for d in range(last))])
        body = f"""
    row, row_end = begin * rows, min(end * rows, {" * ".join(f"d{d}" for d in range(last))})
    while row < row_end:
        rest = row
{index}
        count = min(d{run} - i{run}, row_end - row)
        a_start = source + ({walk}) * {size}
        b_start = target + ({to}) * {size}
        row += count
        for j in range(count):
""" + _COPY_ROW.format(bits=bits, last=last, a=f"a_start + j * a{run} * {size}", b=f"b_start + j * b{run} * {size}")
    source = f"""
def strided_copy(args, begin, end):
    source, target = load_i64(args, 0), load_i64(args, 1)
{_walks(rank)}
    rows = load_i64(args, {5 + 3 * rank})
{body}"""
    return Kernel("strided_copy", source)


_COPY_ROW = """
            a, b = {a}, {b}
            if a{last} == 1 and b{last} == 1:
                for i in range(d{last}):
                    store_{bits}(b, i, load_{bits}(a, i))
            else:
                for i in range(d{last}):
                    store_{bits}(b, i * b{last}, load_{bits}(a, i * a{last}))
"""


def copy_plan(
    dims: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], offsets: tuple[int, int]
) -> Plan:
    """The arguments of a strided copy."""
    rows = max(1, TILE // max(1, dims[-1]))
    return Plan((*dims, *source, *target, *offsets, rows), -(-prod(dims[:-1]) // rows) if prod(dims) else 0)


def transpose_kernel(code: str, rank: int, across: int) -> Kernel:
    """As `copy_kernel`, for a source that is contiguous along dimension `across`, and a target along the last one.

    Arguments: as `copy_kernel`, but at the end the elements of a tile along `across` and along the last dimension.
    """
    size, bits = SCALARS[code].size, _BITS[SCALARS[code].size]
    floats = {4: "float32", 8: "float64"}.get(size)
    side = tile_of(floats).lanes if floats else 16
    last, q = rank - 1, across
    others = [d for d in range(rank) if d not in (across, last)]
    places = "\n".join(f"        i{d} = rest % d{d}\n        rest = rest // d{d}" for d in reversed(others))
    turned = f"""
                    rows, columns = min({side}, row_end - r), min({side}, column_end - c)
                    source_block, target_block = a + (r + c * a{last}) * {size}, b + (r * b{q} + c) * {size}
                    if rows == {side} and columns == {side}:
                        block(source_block, a{last} * {size}, target_block, b{q} * {size})
                    else:
                        edge(source_block, a{last} * {size}, target_block, b{q} * {size}, rows, columns)
"""
    one_by_one = f"""
                    for i in range(r, min(r + {side}, row_end)):
                        for j in range(c, min(c + {side}, column_end)):
                            store_{bits}(b, i * b{q} + j, load_{bits}(a, i + j * a{last}))
"""
    source = f"""
def transposed_copy(args, begin, end):
    source, target = load_i64(args, 0), load_i64(args, 1)
{_walks(rank)}
    rows_of_tile, columns_of_tile = load_i64(args, {5 + 3 * rank}), load_i64(args, {6 + 3 * rank})
    row_tiles = (d{q} + rows_of_tile - 1) // rows_of_tile
    column_tiles = (d{last} + columns_of_tile - 1) // columns_of_tile
    for tile in range(begin, end):
        row_begin = tile // column_tiles % row_tiles * rows_of_tile
        row_end = min(row_begin + rows_of_tile, d{q})
        column_begin = tile % column_tiles * columns_of_tile
        column_end = min(column_begin + columns_of_tile, d{last})
        rest = tile // (column_tiles * row_tiles)
{places}
        a = source + ({" + ".join(["a_offset", *(f"i{d} * a{d}" for d in others)])}) * {size}
        b = target + ({" + ".join(["b_offset", *(f"i{d} * b{d}" for d in others)])}) * {size}
{_dealt(bits, size, last, q)}
        else:
            for r in range(row_begin, row_end, {side}):
                for c in range(column_begin, column_end, {side}):{turned if floats else one_by_one}
"""
    externals = ("block", "edge") if floats else ()
    return Kernel("transposed_copy", source, tuple((name, f"transposing:{name}", (floats, side)) for name in externals))


def transpose_plan(
    dims: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], offsets: tuple[int, int], across: int
) -> Plan:
    """The arguments of a transposing copy."""
    rows, columns = dims[across], dims[-1]
    if columns <= SIDE // 4:
        tile = (TILE // max(1, columns) // 16 * 16, max(1, columns))
    elif rows <= SIDE // 4:
        tile = (max(1, rows), TILE // max(1, rows) // 16 * 16)
    else:
        tile = (SIDE, SIDE)
    outer = prod(dims[:-1]) // max(1, rows)
    tiles = outer * -(-rows // tile[0]) * -(-columns // tile[1])
    return Plan((*dims, *source, *target, *offsets, *tile), tiles if prod(dims) else 0)


def _walks(rank: int) -> str:
    """Reads dimensions, strides and offsets."""
    lines = [
        f"{name}{d} = load_i64(args, {3 + part * rank + d})" for part, name in enumerate("dab") for d in range(rank)
    ]
    lines += [f"a_offset, b_offset = load_i64(args, {3 + 3 * rank}), load_i64(args, {4 + 3 * rank})"]
    return "\n".join(f"    {line}" for line in lines)


def _dealt(bits: str, size: int, last: int, q: int) -> str:
    """The branches for a few elements side by side in the target, and in the source."""
    text = ""
    for few in range(2, FEW + 1):
        places = [f"a{k} = a + {k} * a{last} * {size}" for k in range(few)]
        moves = [f"store_{bits}(b, i * {few} + {k}, load_{bits}(a{k}_, i))" for k in range(few)]
        text += f"        {'el' if text else ''}if d{last} == {few} and b{q} == {few}:\n"
        text += "".join(f"            {p.replace(f'a{k} =', f'a{k}_ =', 1)}\n" for k, p in enumerate(places))
        text += "            for i in range(row_begin, row_end):\n"
        text += "".join(f"                {move}\n" for move in moves)
        moves = [f"store_{bits}(b{k}_, j, load_{bits}(a, j * {few} + {k}))" for k in range(few)]
        text += f"        elif d{q} == {few} and a{last} == {few}:\n"
        text += "".join(f"            b{k}_ = b + {k} * b{q} * {size}\n" for k in range(few))
        text += "            for j in range(column_begin, column_end):\n"
        text += "".join(f"                {move}\n" for move in moves)
    return text.rstrip("\n")


# --- blocks in registers ----------------------------------------------------------------------------------------------


def block(dtype: str, count: int) -> Any:
    """The Numba intrinsic `(source, source_step, place, place_step)` that transposes a square of a vector's lanes.

    Steps are in bytes.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        lanes = Lanes(b, dtype, count)
        starts, ends = _rows(lanes, arguments[0], arguments[1]), _rows(lanes, arguments[2], arguments[3])
        for value, pointer in zip(transposed(b, [lanes.load(p) for p in starts]), ends, strict=True):
            lanes.store(value, pointer)

    return intrinsic_of(4, emit)


def edge(dtype: str, count: int) -> Any:
    """The Numba intrinsic `(source, source_step, place, place_step, rows, columns)`: as `block`, of `rows` numbers side
    by side in the source and `columns` in the target; no other memory is touched."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        lanes = Lanes(b, dtype, count)
        rows, columns = arguments[4:]
        starts, ends = _rows(lanes, arguments[0], arguments[1]), _rows(lanes, arguments[2], arguments[3])
        values = [lanes.load(p, _mask(lanes, r, columns, rows)) for r, p in enumerate(starts)]
        for r, (value, pointer) in enumerate(zip(transposed(b, values), ends, strict=True)):
            lanes.store(value, pointer, _mask(lanes, r, rows, columns))

    return intrinsic_of(6, emit)


def _rows(lanes: Lanes, start: ir.Value, step: ir.Value) -> list[ir.Value]:
    b = lanes.builder
    return [lanes.pointer(b.add(start, b.mul(step, i64(r)))) for r in range(lanes.count)]


def _mask(lanes: Lanes, row: int, rows: ir.Value, columns: ir.Value) -> ir.Value:
    """The lanes below `columns`, of a row that exists."""
    b = lanes.builder
    return lanes.below(b.select(b.icmp_signed("<", i64(row), rows), columns, i64(0)))
