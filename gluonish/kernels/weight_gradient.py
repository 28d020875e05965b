"""The weight gradient of a convolution over NHWC images, as one kernel: the sum runs over pixels.

    out[i, j, c, o] = sum over n, y, x of image[n, y * sy + i * dy - py, x * sx + j * dx - px, c] * gradient[n, y, x, o]

A tile has one unit (a tap, or a whole row of taps where images have few channels), some of its rows of the gradient,
and one panel of output channels. For blocks of pixels it lists the addresses of image and gradient where the tap lies
in the image (others add nothing), and the microkernel walks that list for each of its rows. Partial sums stand in the
output.

Deliberately not here: the bias gradient, which is a plain reduction.
"""

from __future__ import annotations

from gluonish.kernels.kernel import External, Plan
from gluonish.kernels.tiling import Tile, ceil_div, round_up
from gluonish.kernels.window import ZEROS, Walk

PAIRS = 256  # pixels in a block: 256 rows of a panel are 64 KB
PATCH = 16384  # bytes for copied rows of taps
RIGHT = 32768  # bytes for copied rows of a gradient that ends within a vector
TILES = 12  # fewer tiles than this are cut
ROWS = 192  # rows of the output in one tile, at most

SOURCE = """
def weight_gradient(args, begin, end):
    image, gradient, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    s, zero = args + 32, zeros()
    images, height, width, depth = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    n, groups, run = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6)
    y_stride, x_stride = load_i64(s, 7), load_i64(s, 8)
    grid_height, grid_width = load_i64(s, 9), load_i64(s, 10)
    row_block, pair_block = load_i64(s, 11), load_i64(s, 12)
    pairs, patches, shifts, out_rows = pair_memory(), patch_memory(), row_memory(), row_memory()
    right_rows = right_memory()
    image_step, gradient_step = depth * groups * {size}, n * groups * {size}
    panels = (n + {NR} - 1) // {NR}
    row_blocks = (run * depth + row_block - 1) // row_block
    for tile in range(begin, end):
        row_begin = tile % row_blocks * row_block
        rows = min(row_block, run * depth - row_begin)
        column = tile // row_blocks % panels * {NR}
        columns = min({NR}, n - column)
        group = tile // (row_blocks * panels) % groups
        unit = s + 8 * 13 + 24 * (tile // (row_blocks * panels * groups))
        unit_y, unit_x, start = load_i64(unit, 0), load_i64(unit, 1), load_i64(unit, 2)
        right_step = (columns + {VL} - 1) // {VL} * {VL} * {size}
        block = pair_block if columns % {VL} == 0 else min(pair_block, {RIGHT} // right_step)
        padded = (rows + {MR} - 1) // {MR} * {MR}
        for r in range(padded):
            row = row_begin + min(r, rows - 1)
            write_i64(shifts, r, row * {size})
            write_i64(out_rows, r, (start + row) * gradient_step)
        # output columns whose unit touches the image, and those whose unit lies in it
        touch_begin = min(max(-((unit_x + run - 1) // x_stride), 0), grid_width)
        touch_end = min((width - 1 - unit_x) // x_stride + 1, grid_width)
        inside_begin = max(-(unit_x // x_stride), 0)
        inside_end = (width - run - unit_x) // x_stride + 1
        lines = images * grid_height
        if touch_begin >= touch_end:
            lines = 0
        line, x, phase = 0, touch_begin, 1
        while (line < lines) | (phase == 1):
            count, patch = 0, patches
            while (line < lines) & (count < block):
                iy = line % grid_height * y_stride + unit_y
                if (iy < 0) | (iy >= height):
                    line += 1
                    x = touch_begin
                else:
                    taken = min(touch_end - x, block - count)
                    place = (line // grid_height * height + iy) * width + x * x_stride + unit_x
                    a = image + group * depth * {size} + place * image_step
                    b = gradient + (line * grid_width + x) * gradient_step + (group * n + column) * {size}
                    for i in range(taken):
                        store_i64(pairs, 2 * (count + i), a + i * x_stride * image_step)
                        store_i64(pairs, 2 * (count + i) + 1, b + i * gradient_step)
                    if run > 1:
                        for i in range(taken):
                            if (x + i < inside_begin) | (x + i >= inside_end):
                                ix = (x + i) * x_stride + unit_x
                                low, high = max(-ix, 0), min(width - ix, run)
                                copy_row(zero, patch, low * depth)
                                copy_row(a + (i * x_stride + low) * image_step,
                                         patch + low * depth * {size}, (high - low) * depth)
                                copy_row(zero, patch + high * depth * {size}, (run - high) * depth)
                                write_i64(pairs, 2 * (count + i), patch)
                                patch += run * depth * {size}
                    count += taken
                    x += taken
                    if x >= touch_end:
                        line += 1
                        x = touch_begin
            if columns % {VL} != 0:  # the microkernel reads whole vectors
                for i in range(count):
                    copy_row(read_i64(pairs, 2 * i + 1), right_rows + i * right_step, columns)
                    write_i64(pairs, 2 * i + 1, right_rows + i * right_step)
            for r in range(0, padded, {MR}):
                product(pairs, count, shifts + r * 8, out, out_rows + r * 8, rows - r, group * n + column, columns,
                        phase, 0)
            phase = 0
"""


def source_of(dtype: str, tile: Tile) -> tuple[str, tuple[External, ...]]:
    """The kernel's source and externals. Inputs: image, gradient of the output. Output: gradient of the weights."""
    externals: tuple[External, ...] = (
        ("product", "microkernel:product", (dtype, "pairs", tile)),
        ("copy_row", "packing:copy_row", (dtype, tile.lanes)),
        ("zeros", "microkernel:zeros", (ZEROS,)),
        ("pair_memory", "microkernel:stack", (16 * PAIRS,)),
        ("patch_memory", "microkernel:stack", (PATCH + 64,)),
        ("right_memory", "microkernel:stack", (RIGHT,)),
        ("row_memory", "microkernel:stack", (8 * round_up(ROWS, tile.rows),)),
    )
    return SOURCE.format(NR=tile.columns, MR=tile.rows, VL=tile.lanes, size=tile.size, RIGHT=RIGHT), externals


def plan_of(walk: Walk, tile: Tile) -> Plan:
    """The scalars and tiles for the forward walk of which this is the gradient."""
    (phase,) = walk.phases
    depth = walk.depth * walk.run
    others = len(phase.units) * walk.groups * ceil_div(walk.columns, tile.columns)
    # all rows of a unit share the list of pixels: cut them only when there are few tiles without
    cuts = max(ceil_div(depth, ROWS), min(ceil_div(TILES, max(others, 1)), ceil_div(depth, 3 * tile.rows)), 1)
    rows = round_up(max(ceil_div(depth, cuts), 1), tile.rows)
    pairs = PAIRS if walk.run == 1 else min(PAIRS, PATCH // max(depth * tile.size, 1))
    scalars = [walk.images, walk.height, walk.width, walk.depth, walk.columns, walk.groups, walk.run, *walk.stride]
    scalars += [phase.height, phase.width, rows, max(pairs, 1)]
    for unit in phase.units:
        scalars += [unit.y, unit.x, unit.start]
    return Plan(tuple(scalars), others * ceil_div(depth, rows))
