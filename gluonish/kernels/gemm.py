"""Matrix products: out[M, N] = epilogue(op(left) @ op(right)), where op may transpose.

The right operand is packed first by its own kernel (`packing.py`), so that a weight is packed once for each version of
it. Outputs must not share memory with inputs: partial sums stand in the output between blocks of K. The sum over K runs
in one order whatever the number of threads and tiles.

Deliberately not here: convolutions (`conv.py`), any strides but row-major ones.
"""

from __future__ import annotations

from gluonish.kernels.dots import SEEDED, group_of, size_of, sums_of
from gluonish.kernels.epilogue import Epilogue, checked, operand_count
from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.scalars import code_of
from gluonish.kernels.tiling import Tile, ceil_div, round_up, tile_of

Shapes = list[tuple[int, ...]]
DEPTH = 512  # k in one block: with 64 columns of float32 128 KB of the panel, which stay in the second cache
ROWS = 96  # rows in one tile of the pool, at most
TILES = 32  # tiles that a large product has at least
PIECE = 1024  # k in a piece of a split sum, at least
WORTH = 1 << 18  # floating-point operations of a tile that are worth a thread's while: about a microsecond

MATMUL = """
def matmul(args, begin, end):
    left, right, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, {out})
    m, n, k = load_i64(args, {s}), load_i64(args, {s} + 1), load_i64(args, {s} + 2)
    row_step, left_step = load_i64(args, {s} + 3), load_i64(args, {s} + 4)
    rows_block, k_block, {step} = load_i64(args, {s} + 5), load_i64(args, {s} + 6), load_i64(args, {s} + 7)
    extras = args + 16
    table, out_rows, start{sums} = stack(), stack(), stack(){tile_sums}
    row_blocks = (m + rows_block - 1) // rows_block
    panels = (n + {NR} - 1) // {NR}
    for tile in range(begin, end):
        batch = tile // (row_blocks * panels)
        column = tile // row_blocks % panels * {NR}
        row_begin = tile % row_blocks * rows_block
        row_end = min(row_begin + rows_block, m)
        columns = min({NR}, n - column)
        right_step = (columns + {VL} - 1) // {VL} * {VL} * {size}
        panel = right + {right_batch}column * (k + {seed}) * {size}
        next_panel = panel + {NR} * (k + {seed}) * {size}  # it is fetched while this one is used
        ahead_end = panel + min(2 * {NR}, n - column) * (k + {seed}) * {size}
        ahead = next_panel + row_begin // {MR} * 64 * k % ({NR} * (k + {seed}) * {size})
        k_first, k_last = {k_first}, {k_last}
        for k_begin in range(k_first, max(k_last, k_first + 1), k_block):
            phase = (k_begin == k_first) * 1 + (k_begin + k_block >= k_last) * 2
            a = left + {left_batch} + k_begin * left_step
            write_i64(start, 0, k_begin + {seed})
            for row in range(row_begin, row_end, {MR}):
                for r in range({MR}):
                    place = min(row + r, m - 1)
                    write_i64(table, r, a + place * row_step)
                    write_i64(out_rows, r, (batch * m + place) * n * {out_size})
                product(table, 0, 1, start, min(k_block, k_last - k_begin), left_step, panel, right_step,
                        out, out_rows, row_end - row, column, columns, phase, extras,
                        ahead, 64 if ahead < ahead_end else 0{tile_place})
                ahead += 64 * min(k_block, k_last - k_begin)
"""
SUM_PIECES = """
def sum_pieces(args, begin, end):
    parts, out = load_i64(args, 0), load_i64(args, {out})
    pieces, m, n = load_i64(args, {s}), load_i64(args, {s} + 1), load_i64(args, {s} + 2)
    for row in range(begin, end):
        total = out + row * n * {size}
        for c in range(n):
            store_{code}(total, c, load_{code}(parts + row * n * {size}, c))
        for p in range(1, pieces):
            part = parts + (p * m + row) * n * {size}
            for c in range(n):
                store_{code}(total, c, load_{code}(total, c) + load_{code}(part, c))
        for c in range(n):
            v0 = load_{code}(total, c)
            {epilogue}
            store_{code}(total, c, v{last})
"""


def matmul_kernel(
    dtype: str, transpose_a: bool = False, epilogue: Epilogue = (), batched: bool = False, gives: str = ""
) -> Kernel:
    """out = epilogue(op(left) @ right).

    Inputs: left, right, the epilogue's operands. Output: out, of dtype `gives`, by default that of the sums.

    Shapes: left [M, K], or [K, M] if `transpose_a`; right packed, (packed_size(K, N),); out [M, N].
    Batched: left and out have a leading axis B; right has it too, or is shared by all if it has no such axis.
    Of narrow dtypes K is in whole groups (`packing_groups.py`), and left is not transposed.
    """
    tile, epilogue = tile_of(dtype), checked(epilogue)
    inputs = 2 + operand_count(epilogue)
    size, group, seed = tile.size, group_of(dtype), int(dtype in SEEDED)
    gives = gives or sums_of(dtype)
    narrow = gives != sums_of(dtype)
    source = MATMUL.format(
        out=inputs, s=inputs + 2, NR=tile.columns, MR=tile.rows, VL=tile.lanes, size=size, seed=seed,
        step="right_batch", k_first="0", k_last="k", left_batch=f"batch * m * k * {size}",
        right_batch="batch * right_batch + ", out_size=size_of(gives), sums=", sums" if narrow else "",
        tile_sums=", tile_sums()" if narrow else "",
        tile_place=f", sums + (row - row_begin) * {tile.columns * size}" if narrow else "",
    )  # fmt: skip
    how = (dtype, "taps", tile, epilogue, True, gives) if narrow else (dtype, "taps", tile, epilogue, True)
    externals: tuple[External, ...] = (
        ("product", "microkernel:product", how),
        ("stack", "microkernel:stack", (8 * tile.rows,)),
    )
    if narrow:
        externals += (("tile_sums", "microkernel:stack", (ROWS * tile.columns * size,)),)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        *lead, m, n = outs[0]
        batch = lead[0] if batched else 1
        k = ins[0][-2] if transpose_a else ins[0][-1] // group
        steps = (size, m * size) if transpose_a else (k * size, size)
        right_batch = 0 if len(ins[1]) == 1 else size * (k + seed) * round_up(n, tile.lanes)
        rows = _rows_of_tile(m, n, k * group, batch, tile)
        tiles = batch * ceil_div(m, rows) * ceil_div(n, tile.columns)
        return Plan((m, n, k, *steps, rows, DEPTH, right_batch), tiles)

    return Kernel("matmul", source, externals, plan)


def pieces_of(m: int, n: int, k: int, dtype: str) -> int:
    """Into how many pieces the sum of a product is split, so that a small output keeps many threads busy.

    It depends on the sizes alone: the sums are the same for any number of threads.
    """
    tile = tile_of(dtype)
    tiles = max(1, ceil_div(m, tile.rows) * ceil_div(n, tile.columns))
    return max(1, min(ceil_div(TILES, tiles), k // PIECE)) if tiles < TILES // 2 else 1


def pieces_kernel(dtype: str, transpose_a: bool = False) -> Kernel:
    """parts[p] = the sum over the p-th piece of k of op(left) @ right; `sum_pieces_kernel` adds them up.

    Shapes: left [M, K], or [K, M] if `transpose_a`; right packed; parts [pieces_of(M, N, K), M, N].
    """
    tile = tile_of(dtype)
    size = tile.size
    source = MATMUL.format(
        out=2, s=4, NR=tile.columns, MR=tile.rows, VL=tile.lanes, size=size, seed=0, out_size=size,
        step="piece", k_first="batch * piece", k_last="min(batch * piece + piece, k)", left_batch="0", right_batch="",
        sums="", tile_sums="", tile_place="",
    )  # fmt: skip
    externals: tuple[External, ...] = (
        ("product", "microkernel:product", (dtype, "taps", tile, (), True)),
        ("stack", "microkernel:stack", (8 * tile.rows,)),
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        pieces, m, n = outs[0]
        k = ins[0][-2] if transpose_a else ins[0][-1]
        steps = (size, m * size) if transpose_a else (k * size, size)
        rows = min(round_up(max(m, 1), tile.rows), ROWS // tile.rows * tile.rows)
        tiles = pieces * ceil_div(m, rows) * ceil_div(n, tile.columns)
        return Plan((m, n, k, *steps, rows, DEPTH, max(1, ceil_div(k, pieces))), tiles)

    return Kernel("matmul", source, externals, plan)


def sum_pieces_kernel(dtype: str, epilogue: Epilogue = ()) -> Kernel:
    """out = epilogue(the sum of parts over their first axis, in order).

    Inputs: parts [P, M, N], the epilogue's operands. Output: out [M, N].
    """
    code, (kinds, steps) = code_of(dtype), checked(epilogue) or ((), ())
    place = {"column": "c", "full": "row * n + c", "scalar": "0"}
    lines = [f"v{i + 1} = load_{code}(load_i64(args, {i + 1}), {place[kind]})" for i, kind in enumerate(kinds)]
    for i, (name, operands, *_) in enumerate(steps):
        texts = [f"{dtype}({o[0]!r})" if isinstance(o, tuple) else f"v{o}" for o in operands]
        lines.append(f"v{1 + len(kinds) + i} = {name}({', '.join(texts)})")
    last, margin = len(kinds) + len(steps), "\n            "
    out = 1 + len(kinds)
    source = SUM_PIECES.format(
        out=out, s=out + 2, size=size_of(dtype), code=code, epilogue=margin.join(lines) or "pass", last=last
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        pieces, m, n = ins[0]
        return Plan((pieces, m, n), m)

    return Kernel("sum_pieces", source, (), plan)


def _rows_of_tile(m: int, n: int, k: int, batch: int, tile: Tile) -> int:
    """Rows of one tile of the pool; it has one panel of columns.

    At most ROWS, so that a tile's part of left stays in the second cache; fewer where there would be few tiles, as long
    as each is worth a thread's while.
    """
    wanted = min(TILES, max(1, 2 * m * n * k * batch // WORTH))
    blocks = ceil_div(wanted, max(1, batch * ceil_div(n, tile.columns)))
    return min(round_up(max(1, ceil_div(m, blocks)), tile.rows), ROWS // tile.rows * tile.rows)
