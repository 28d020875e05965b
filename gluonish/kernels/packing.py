"""Packing: the right operand of a contraction laid out as its microkernel reads it.

Packed layout of a [K, N] matrix: panels of NR columns one after the other (NR as `tiling.tile_of` says); a panel is K
rows of NR numbers. The last panel is only as wide as whole vectors need, and its missing columns are zeros. So panel j
begins at j * K * NR numbers, and the whole has K * round_up(N, lanes). The layout depends on the target.

Convolution weights (kh, kw, cin / groups, cout) are such a matrix for each group, one after the other. Forward, K is
(kh, kw, cin) and N is cout; for the data gradient, K is (kh, kw, cout) and N is cin.

Deliberately not here: packing of left operands, which the microkernel reads where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.lanes import Lanes, i64, intrinsic_of, loop
from gluonish.kernels.tiling import Tile, ceil_div, packed_size, tile_of

Shapes = list[tuple[int, ...]]
CHUNK = 256  # rows of a panel in one tile of the pool: 64 KB

HEAD = """
def pack(args, begin, end):
    right, packed = load_i64(args, 0), load_i64(args, 1)
    segments, depth, n = load_i64(args, 3), load_i64(args, 4), load_i64(args, 5)
    matrix_step, segment_step, step = load_i64(args, 6), load_i64(args, 7), load_i64(args, 8)
    panels = (n + {NR} - 1) // {NR}
    chunks = (depth + {CHUNK} - 1) // {CHUNK}
    size = segments * depth * ((n + {VL} - 1) // {VL} * {VL})
    for tile in range(begin, end):
        matrix = tile // (segments * panels * chunks)
        segment = tile // (panels * chunks) % segments
        column = tile // chunks % panels * {NR}
        columns = min({NR}, n - column)
        width = (columns + {VL} - 1) // {VL} * {VL}
        k_begin = tile % chunks * {CHUNK}
        k_end = min(k_begin + {CHUNK}, depth)
        source = right + (matrix * matrix_step + segment * segment_step) * {size}
        panel = packed + (matrix * size + segments * depth * column + segment * depth * width) * {size}
"""
COPY = """
        for k in range(k_begin, k_end):
            copy_row(source + (k * step + column) * {size}, panel + k * width * {size}, columns)
"""
TRANSPOSE = """
        for k in range(k_begin, k_end, {VL}):
            for c in range(0, columns, {VL}):
                transpose(source + ((column + c) * step + k) * {size}, step * {size},
                          panel + (k * width + c) * {size}, width * {size},
                          min({VL}, columns - c), min({VL}, k_end - k))
"""


def pack_kernel(dtype: str, transpose: bool = False, vectors: int = 0) -> Kernel:
    """packed = the packed layout of a matrix; vectors: of a panel, if not those of `tiling.tile_of`.

    Shapes: right [K, N], or [N, K] if `transpose`; packed (packed_size(K, N),). A leading axis of both is a batch.
    """
    tile = tile_of(dtype)
    tile = tile._replace(vectors=vectors or tile.vectors)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        *lead, rows, columns = ins[0]
        k, n = (columns, rows) if transpose else (rows, columns)
        return _plan(tile, math.prod(lead), rows * columns, 1, 0, k, n, columns)

    return _kernel(dtype, tile, transpose, plan)


def pack_convolution_kernel(dtype: str, groups: int = 1, gradient: bool = False) -> Kernel:
    """packed = the packed layout of convolution weights, for the forward kernel or for the data gradient.

    Shapes: weight (kh, kw, cin / groups, cout); packed (packed_convolution_size(weight, groups, gradient),).
    """
    tile = tile_of(dtype)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        taps, cin, cout = _weight_sizes(ins[0], groups)
        if gradient:
            return _plan(tile, groups, cout, taps, cin * cout * groups, cout, cin, cout * groups)
        return _plan(tile, groups, cout, 1, 0, taps * cin, cout, cout * groups)

    return _kernel(dtype, tile, gradient, plan)


def packed_convolution_size(weight: tuple[int, ...], dtype: str, groups: int = 1, gradient: bool = False) -> int:
    """Numbers in the packed form of convolution weights of shape (kh, kw, cin / groups, cout)."""
    taps, cin, cout = _weight_sizes(weight, groups)
    return groups * (packed_size(taps * cout, cin, dtype) if gradient else packed_size(taps * cin, cout, dtype))


def transpose_block(dtype: str, count: int) -> Any:
    """The Numba intrinsic that transposes a block of at most `count` rows and columns, a vector's lanes.

    Arguments: source, source_step, place, place_step, rows, columns; steps in bytes. Of the source, `rows` rows of
    `columns` numbers are read; `columns` whole vectors are written, with zeros for the rows that do not exist.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        source, source_step, place, place_step, rows, columns = arguments
        lanes = Lanes(b, dtype, count)
        starts = [lanes.pointer(b.add(source, b.mul(source_step, i64(r)))) for r in range(count)]
        ends = [lanes.pointer(b.add(place, b.mul(place_step, i64(c)))) for c in range(count)]
        whole = b.and_(b.icmp_signed("==", rows, i64(count)), b.icmp_signed("==", columns, i64(count)))
        with b.if_else(whole) as (then, otherwise):
            with then:
                for value, pointer in zip(transposed(b, [lanes.load(p) for p in starts]), ends, strict=True):
                    lanes.store(value, pointer)
            with otherwise:
                masks = [lanes.below(b.select(b.icmp_signed("<", i64(r), rows), columns, i64(0))) for r in range(count)]
                part = [lanes.load(p, mask) for p, mask in zip(starts, masks, strict=True)]
                for c, (value, pointer) in enumerate(zip(transposed(b, part), ends, strict=True)):
                    with b.if_then(b.icmp_signed("<", i64(c), columns)):
                        lanes.store(value, pointer)

    return intrinsic_of(6, emit, apart=True)


def copy_row(dtype: str, count: int) -> Any:
    """The Numba intrinsic `(source, place, count)` that copies `count` numbers and fills the last vector with zeros."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        source, place, numbers = arguments
        lanes = Lanes(b, dtype, count)
        start, end = lanes.pointer(source), lanes.pointer(place)

        def vector(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            done = b.mul(turn, i64(count))
            offset = b.mul(done, i64(lanes.size))
            value = lanes.load(lanes.at(start, offset), lanes.below(b.sub(numbers, done)))
            lanes.store(value, lanes.at(end, offset))
            return []

        loop(b, b.sdiv(b.add(numbers, i64(count - 1)), i64(count)), [], vector)

    return intrinsic_of(3, emit, apart=True)


def transposed(b: ir.IRBuilder, rows: list[Any]) -> list[Any]:
    """The transposed square of vectors: blocks of half the size swap corners, then of a quarter, and so on."""
    count = distance = len(rows)
    rows = list(rows)
    while distance > 1:
        distance //= 2
        low = [j if not j & distance else count + j - distance for j in range(count)]
        high = [j + distance if not j & distance else count + j for j in range(count)]
        kind = ir.VectorType(ir.IntType(32), count)
        for r in range(count):
            if not r & distance:
                x, y = rows[r], rows[r + distance]
                rows[r] = b.shuffle_vector(x, y, ir.Constant(kind, low))
                rows[r + distance] = b.shuffle_vector(x, y, ir.Constant(kind, high))
    return rows


def _kernel(dtype: str, tile: Tile, transpose: bool, plan: Callable[[Shapes, Shapes], Plan]) -> Kernel:
    text = HEAD + (TRANSPOSE if transpose else COPY).lstrip("\n")
    source = text.format(NR=tile.columns, VL=tile.lanes, CHUNK=CHUNK, size=tile.size)
    name = ("transpose", "packing:transpose_block") if transpose else ("copy_row", "packing:copy_row")
    return Kernel("pack", source, ((*name, (dtype, tile.lanes)),), plan)


def _plan(
    tile: Tile, matrices: int, matrix_step: int, segments: int, segment_step: int, depth: int, n: int, step: int
) -> Plan:
    """K is (segments, depth); the steps count numbers; `step` is from one row of the matrix in memory to the next."""
    tiles = matrices * segments * ceil_div(n, tile.columns) * ceil_div(depth, CHUNK)
    return Plan((segments, depth, n, matrix_step, segment_step, step), tiles)


def _weight_sizes(weight: tuple[int, ...], groups: int) -> tuple[int, int, int]:
    kh, kw, cin, cout = weight
    if cout % groups:
        raise ValueError(f"convolution weights {weight}: {cout} output channels do not divide into {groups} groups")
    return kh * kw, cin, cout // groups
