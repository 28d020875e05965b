"""Matrix products: out[M, N] = epilogue(op(left) @ op(right)), where op may transpose.

The right operand is packed first by its own kernel, so that a weight is packed once for each version of it.

Packed layout of a [K, N] matrix: panels of NR columns one after the other (NR as `tiling.tile_of` says); a panel is K rows
of NR numbers. The last panel is only as wide as whole vectors need, and its missing columns are zeros. So panel j begins
at j * K * NR, and the whole has K * round_up(N, lanes) numbers.

Outputs must not share memory with inputs: partial sums stand in the output between blocks of K. The sum over K runs in one
order whatever the number of threads and tiles.

Deliberately not here: convolutions (`conv.py`), any strides but row-major ones.
"""

from __future__ import annotations

from typing import Any

from gluonish.kernels.epilogue import Epilogue, checked, operand_count
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import code_of
from gluonish.kernels.tiling import ceil_div, round_up, tile_of

Shapes = list[tuple[int, ...]]
DEPTH = 512  # k in one block: a panel's block of 64 columns is 128 KB and stays in the second cache


def packed_shape(k: int, n: int, dtype: str) -> tuple[int]:
    """Shape of the packed form of a [k, n] matrix on the current target."""
    return (k * round_up(n, tile_of(dtype).lanes),)


MATMUL = """
def matmul(args, begin, end):
    left, right, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, {out})
    m, n, k = load_i64(args, {s}), load_i64(args, {s} + 1), load_i64(args, {s} + 2)
    row_step, left_step = load_i64(args, {s} + 3), load_i64(args, {s} + 4)
    rows_block, panels_block = load_i64(args, {s} + 5), load_i64(args, {s} + 6)
    k_block, right_batch = load_i64(args, {s} + 7), load_i64(args, {s} + 8)
    extras = args + 16
    table = stack()
    row_blocks = (m + rows_block - 1) // rows_block
    panels = (n + {NR} - 1) // {NR}
    panel_blocks = (panels + panels_block - 1) // panels_block
    for tile in range(begin, end):
        batch = tile // (row_blocks * panel_blocks)
        group = tile // row_blocks % panel_blocks
        row_begin = tile % row_blocks * rows_block
        row_end = min(row_begin + rows_block, m)
        a = left + batch * m * k * {size}
        b = right + batch * right_batch
        for k_begin in range(0, max(k, 1), k_block):
            depth = min(k_block, k - k_begin)
            phase = (k_begin == 0) * 1 + (k_begin + k_block >= k) * 2
            for panel in range(group * panels_block, min((group + 1) * panels_block, panels)):
                column = panel * {NR}
                columns = min({NR}, n - column)
                right_step = {right_step}
                store_i64(table, {MR}, b + {panel_begin})
                for row in range(row_begin, row_end, {MR}):
                    for r in range({MR}):
                        store_i64(table, r, a + min(row + r, m - 1) * row_step + k_begin * left_step)
                    product(table, 1, depth, left_step, right_step, out, ((batch * m + row) * n + column) * {size},
                            n * {size}, min({MR}, row_end - row), column, columns, phase, extras)
"""


def matmul_kernel(
    dtype: str, transpose_a: bool = False, epilogue: Epilogue = (), batched: bool = False, packed: bool = True
) -> Kernel:
    """out = epilogue(op(left) @ right).

    Inputs: left, right, the epilogue's operands. Output: out.

    Shapes: left [M, K], or [K, M] if `transpose_a`; right as `packed_shape(K, N)`, or [K, N] if not `packed`; out [M, N].
    Batched: left and out have a leading axis B; right has it too, or is shared by all if it has no such axis.
    """
    tile, epilogue = tile_of(dtype), checked(epilogue)
    inputs = 2 + operand_count(epilogue)
    size = tile.size
    source = MATMUL.format(
        out=inputs, s=inputs + 2, NR=tile.columns, MR=tile.rows, size=size,
        right_step=f"(columns + {tile.lanes - 1}) // {tile.lanes} * {tile.lanes * size}" if packed else f"n * {size}",
        panel_begin=f"column * k * {size} + k_begin * right_step" if packed else f"column * {size} + k_begin * right_step",
    )  # fmt: skip
    externals = (
        ("product", "microkernel:product", (dtype, "taps", not packed, epilogue)),
        ("stack", "microkernel:stack", (8 * (tile.rows + 1),)),
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        *lead, m, n = outs[0]
        batch = lead[0] if batched else 1
        k = ins[0][-2] if transpose_a else ins[0][-1]
        steps = (size, m * size) if transpose_a else (k * size, size)
        shared = len(ins[1]) == (1 if packed else 2)
        right_batch = 0 if shared else size * (packed_shape(k, n, dtype)[0] if packed else k * n)
        rows, panels = blocks(m, n, k, batch, dtype)
        tiles = batch * ceil_div(m, rows) * ceil_div(ceil_div(n, tile.columns), panels)
        return Plan((m, n, k, *steps, rows, panels, DEPTH, right_batch), tiles)

    return Kernel("matmul", source, externals, plan)


def blocks(m: int, n: int, k: int, batch: int, dtype: str) -> tuple[int, int]:
    """Rows and panels of one tile of the pool."""
    tile = tile_of(dtype)
    rows = min(round_up(max(m, 1), tile.rows), 16 * tile.rows)
    return rows, 1


def pack_kernel(dtype: str, transpose: bool = False) -> Kernel:
    """packed = the packed layout of right (see the module's text).

    Shapes: right [K, N], or [N, K] if `transpose`, each with any leading axes; packed `packed_shape(K, N)` with the same axes.
    """
    raise NotImplementedError
