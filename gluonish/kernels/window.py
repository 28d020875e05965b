"""The walk of a window over images in NHWC memory, as one kernel for convolutions and their data gradients.

    out[pixel, :] = epilogue(sum over units u of source[pixel moved by u, :] @ weight[u])

No array of patches and no padded copy is made: for a block of output pixels, tables of row addresses are built on the
stack, with the address of zeros where a window leaves the image, and the microkernel walks them panel by panel.

A unit is a tap of the window, or, where images have few channels, a whole row of taps (which lies together in memory);
a row of taps that only partly lies in the image is copied to the stack with its zeros. The output is written in phases:
a strided data gradient has one for each remainder of the position, each with the taps that reach it.

Memory is slower than products: with each step of the sum the microkernel fetches a line of what a tile to come will
read and write, so that both go on at once.

All geometry is in the plan, made of `Phase` and `Unit`, so one compiled kernel serves every stride, padding, dilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from gluonish.kernels import pool
from gluonish.kernels.epilogue import Epilogue, checked, operand_count
from gluonish.kernels.kernel import External, Plan
from gluonish.kernels.lanes import Lanes, intrinsic_of
from gluonish.kernels.tiling import Tile, ceil_div, round_up

TABLE = 2048  # addresses in the table of a block of pixels: 16 KB
PATCH = 65536  # bytes for copied rows of taps
ZEROS = 4096  # bytes of zeros, at least a depth block
PANEL = 1 << 18  # bytes of a panel that the pixels of a block share: they stay in the second cache
PIXELS = 96  # pixels in a block, at most
PANELS = 1 << 19  # bytes of all panels, if a tile has all of them
FIXED = 18  # scalars of a plan before the phases
REGIONS = 8  # regions to fetch that there is memory for at least, so that most epilogues share the walk
TILES = 32  # tiles that a large convolution has at least
FEW_TILES = 8  # the same where a panel does not stay in the second cache: blocks of pixels fetch it again
WORTH = 1 << 19  # floating-point operations of a tile that are worth a thread's while


@dataclass(frozen=True)
class Unit:
    """A tap or a row of taps: where it reads (rows and columns from the pixel's place), and its first row of K."""

    y: int
    x: int
    start: int


@dataclass(frozen=True)
class Phase:
    """Output pixels (height, width), the places of which are `offset + y * y_step + x * x_step` numbers in an image."""

    height: int
    width: int
    offset: int
    y_step: int
    x_step: int
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Walk:
    """Everything about one call. depth: channels of a group in the source. run: taps in a unit.

    stride: steps in the source from output pixel to output pixel. rows: K, the rows of a packed panel.
    columns: output channels of a group. All steps count numbers.
    """

    images: int
    height: int
    width: int
    depth: int
    columns: int
    groups: int
    rows: int
    run: int
    stride: tuple[int, int]
    out_image: int
    phases: tuple[Phase, ...]


SOURCE = """
def convolution(args, begin, end):
    source, weight, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, inputs())
    extras, s, zero = args + 16, args + 8 * (inputs() + 2), zeros()
    images, height, width, depth = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    n, groups, rows, run = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6), load_i64(s, 7)
    y_stride, x_stride, out_image = load_i64(s, 8), load_i64(s, 9), load_i64(s, 10)
    pixel_block, unit_block, depth_block, phases = load_i64(s, 11), load_i64(s, 12), load_i64(s, 13), load_i64(s, 14)
    panel_block, ahead_shift, rows_apart = load_i64(s, 15), load_i64(s, 16), load_i64(s, 17)
    table, patches, starts, regions = table_memory(), patch_memory(), start_memory(), region_memory()
    bases, ys, xs, out_rows = pixel_memory(), pixel_memory(), pixel_memory(), pixel_memory()
    pixel_step = depth * groups * {size}
    panels = (n + {NR} - 1) // {NR}
    panel_groups = (panels + panel_block - 1) // panel_block
    units_list = s + 8 * ({FIXED} + 8 * phases)
    x, y, image, reached = 0, 0, 0, -1  # the pixel after a tile is mostly the first of the next: divisions take long
    for tile in range(begin, end):
        phase = s + 8 * {FIXED}
        for i in range(1, phases):
            if load_i64(s + 8 * ({FIXED} + 8 * i), 7) <= tile:
                phase = s + 8 * ({FIXED} + 8 * i)
        grid_height, grid_width = load_i64(phase, 0), load_i64(phase, 1)
        unit_begin, unit_end = load_i64(phase, 5), load_i64(phase, 6)
        pixels = images * grid_height * grid_width
        blocks = (pixels + pixel_block - 1) // pixel_block
        local = tile - load_i64(phase, 7)
        pixel = local % blocks * pixel_block
        panel_begin = local // blocks % panel_groups * panel_block
        group = local // (blocks * panel_groups)
        count = min(pixel_block, pixels - pixel)
        padded = (count + {MR} - 1) // {MR} * {MR}

        if pixel == 0:
            x, y, image = 0, 0, 0
        elif pixel != reached:
            x, y = pixel % grid_width, pixel // grid_width % grid_height
            image = pixel // (grid_width * grid_height)
        reached = pixel + count
        p = 0
        while p < count:  # where the pixels of a row are read from and written to
            length = min(grid_width - x, count - p)
            place = source + group * depth * {size} + (image * height + y * y_stride) * width * pixel_step
            row = (load_i64(phase, 2) + image * out_image + y * load_i64(phase, 3)) * {size}
            read_step, write_step = x_stride * pixel_step, load_i64(phase, 4) * {size}
            count_on(bases + 8 * p, place + x * read_step, read_step, length)
            count_on(ys + 8 * p, y * y_stride, 0, length)
            count_on(xs + 8 * p, x * x_stride, x_stride, length)
            count_on(out_rows + 8 * p, row + x * write_step, write_step, length)
            p += length
            x += length
            if x == grid_width:
                x = 0
                y += 1
                if y == grid_height:
                    y = 0
                    image += 1
        for p in range(count, padded):  # the last one again, up to a whole tile
            write_i64(bases, p, read_i64(bases, count - 1))
            write_i64(ys, p, read_i64(ys, count - 1))
            write_i64(xs, p, read_i64(xs, count - 1))
            write_i64(out_rows, p, read_i64(out_rows, count - 1))
        weights = weight + group * rows * ((n + {VL} - 1) // {VL} * {VL}) * {size}

        # What the next tile wants, mostly one of the same thread, is fetched from memory while this one is computed.
        for i in range(2 * fetched_regions() + 2):
            write_i64(regions, i, zero)
        later, next_region, last_region = pixel + pixel_block, fetched_regions() - 1, fetched_regions()
        if panel_block < panels:  # the blocks of pixels share the next panels: each fetches a part
            part = rows * min({NR} * panel_block, n) * {size} // blocks + 1
            begin_part = weights + (local // blocks + 1) % panel_groups * panel_block * {NR} * rows * {size}
            write_i64(regions, 0, begin_part + local % blocks * part)
            write_i64(regions, 1, begin_part + local % blocks * part + part)
            later, next_region = (local + 1) % blocks * pixel_block, 1
        elif ahead_shift >= 0:  # the next rows of the output and its operands
            for i in range(2):
                place = load_i64(phase, 2) + min(later + i * pixel_block, pixels) * load_i64(phase, 4)
                write_i64(regions, i, out + place * {size})
                fetch_operands(regions + 8 * i, extras, place * {size})
        later_end = min(later + pixel_block, pixels) if (ahead_shift >= 0) & (blocks > 1) else later
        later_x, later_y, later_image = x, y, image
        if later == 0:
            later_x, later_y, later_image = 0, 0, 0
        while later < later_end:  # the rows of the source
            length = min(grid_width - later_x, later_end - later)
            place = (later_image * height + later_y * y_stride) * width + later_x * x_stride
            span = length * x_stride
            if (later_x + length == grid_width) & (rows_apart == 0):
                span = y_stride * width - later_x * x_stride
            write_i64(regions, 2 * next_region, source + place * pixel_step + ahead_shift)
            write_i64(regions, 2 * next_region + 1, source + (place + span) * pixel_step + ahead_shift)
            later += length
            later_x = 0
            later_y += 1
            if later_y == grid_height:
                later_y = 0
                later_image += 1
            next_region += 1
            last_region = next_region
        write_i64(regions, 2 * last_region, zero)
        write_i64(regions, 2 * last_region + 1, zero)
        several = (unit_end - unit_begin > unit_block) | (depth * run > depth_block)  # blocks of the sum
        region, ahead, ahead_end = 0, read_i64(regions, 0), read_i64(regions, 1)
        for panel in range(panel_begin, min(panel_begin + panel_block, panels)):
            column = panel * {NR}
            columns = min({NR}, n - column)
            right_step = (columns + {VL} - 1) // {VL} * {VL} * {size}
            right = weights + column * rows * {size}
            for u_begin in range(unit_begin, max(unit_end, unit_begin + 1), unit_block):
                units = min(unit_block, unit_end - u_begin)
                for c_begin in range(0, max(depth * run, 1), depth_block):
                    steps = min(depth_block, depth * run - c_begin)
                    first = (u_begin == unit_begin) & (c_begin == 0)
                    last = (u_begin + unit_block >= unit_end) & (c_begin + depth_block >= depth * run)
                    if several | (panel == panel_begin):
                        patch = patches
                        for u in range(units):
                            unit = units_list + 24 * (u_begin + u)
                            unit_y, unit_x = load_i64(unit, 0), load_i64(unit, 1)
                            write_i64(starts, u, load_i64(unit, 2) + c_begin)
                            shift = (unit_y * width + unit_x) * pixel_step + c_begin * {size}
                            addresses = table + u * padded * 8
                            unit_addresses(addresses, bases, ys, xs, padded, unit_y, unit_x, height,
                                           max(width - run + 1, 0), shift, zero)
                            if run > 1:
                                leaves = (width - run - unit_x) // x_stride + 1  # the first column where they do again
                                p, first_x = 0, pixel % grid_width
                                while p < count:  # of each row only its ends: taps there may leave the image
                                    length, i = min(grid_width - first_x, count - p), 0
                                    iy = load_i64(ys, p) + unit_y
                                    if (iy < 0) | (iy >= height):
                                        i = length
                                    while i < length:
                                        ix = (first_x + i) * x_stride + unit_x
                                        low, high = max(-ix, 0), min(width - ix, run)
                                        if (low > 0) | (high < run):
                                            if low < high:
                                                copy_row(zero, patch, low * depth)
                                                copy_row(load_i64(bases, p + i) + shift + low * pixel_step,
                                                         patch + low * depth * {size}, (high - low) * depth)
                                                copy_row(zero, patch + high * depth * {size}, (run - high) * depth)
                                                write_i64(addresses, p + i, patch)
                                                patch += run * depth * {size}
                                            i += 1
                                        else:
                                            i = max(i + 1, leaves - first_x)
                                    p += length
                                    first_x = 0
                                for p in range(count, padded):
                                    write_i64(addresses, p, read_i64(addresses, count - 1))
                    pace = 64
                    if several & (blocks == 1):  # the panel is used once: the next block of the sum is fetched in time
                        ahead = right + (read_i64(starts, units - 1) + steps) * right_step
                        ahead_end, region = ahead + units * steps * right_step, last_region
                        pace = min({MR} * right_step // padded + 1, 64)
                    for p in range(0, padded, {MR}):
                        ahead_step = pace
                        if ahead_end - ahead < 64 * units * steps:  # less than the steps can fetch
                            ahead_step = (ahead_end - ahead) // max(units * steps, 1) + 1
                        product(table + p * 8, padded * 8, units, starts, steps, {size}, right, right_step, out,
                                out_rows + p * 8, count - p, group * n + column, columns, first * 1 + last * 2, extras,
                                ahead, ahead_step)
                        ahead += ahead_step * units * steps
                        if (ahead >= ahead_end) & (region < last_region):
                            region += 1
                            ahead, ahead_end = read_i64(regions, 2 * region), read_i64(regions, 2 * region + 1)
"""


def fetch_operands(operands: tuple[int, ...]) -> Any:
    """The Numba intrinsic `(regions, extras, offset)`: of the epilogue's operands of these numbers, the addresses that
    many bytes on become regions, from the second on."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        table, extras, offset = arguments
        lanes = Lanes(b, "float32", 1)
        for region, operand in enumerate(operands, 1):
            address = b.add(lanes.integer(lanes.pointer(extras), operand), offset)
            b.store(address, lanes.at(lanes.pointer(table), 16 * region), align=8)

    return intrinsic_of(3, emit, apart=True)


def source_of(dtype: str, tile: Tile, epilogue: Epilogue) -> tuple[str, tuple[External, ...]]:
    """The kernel's source and externals. Inputs: source, packed weight, the epilogue's operands. Output: out."""
    epilogue = checked(epilogue)
    inputs = 2 + operand_count(epilogue)
    full = tuple(i for i, kind in enumerate(epilogue[0] if epilogue else ()) if kind == "full")
    regions, lanes = len(full) + 2, tile.lanes * tile.size // 8
    source = SOURCE.format(NR=tile.columns, MR=tile.rows, VL=tile.lanes, size=tile.size, FIXED=FIXED)
    externals: tuple[External, ...] = (
        ("product", "microkernel:product", (dtype, "taps", tile, epilogue, True)),
        ("inputs", "lanes:number", (inputs,)),
        ("fetched_regions", "lanes:number", (regions,)),
        ("fetch_operands", "window:fetch_operands", (full,)),
        ("region_memory", "microkernel:stack", (16 * (max(regions, REGIONS) + PIXELS + 1),)),
        ("copy_row", "packing:copy_row", (dtype, tile.lanes)),
        ("zeros", "microkernel:zeros", (ZEROS,)),
        ("count_on", "address_tables:count_on", (lanes,)),
        ("unit_addresses", "address_tables:unit_addresses", (lanes,)),
        ("table_memory", "microkernel:stack", (8 * (TABLE + lanes),)),
        ("patch_memory", "microkernel:stack", (PATCH + 64,)),
        ("start_memory", "microkernel:stack", (8 * TABLE // tile.rows,)),
        ("pixel_memory", "microkernel:stack", (8 * (round_up(PIXELS, tile.rows) + lanes),)),
    )
    return source, externals


def plan_of(walk: Walk, tile: Tile) -> Plan:
    """The scalars and tiles of a walk."""
    unit_block, depth_block = _blocks_of_sum(walk, tile)
    panel_block = _panels_of_block(walk, tile)
    panels = walk.groups * ceil_div(ceil_div(walk.columns, tile.columns), panel_block)
    pixels = _pixels_of_block(walk, tile, unit_block, panels)
    phases: list[int] = []
    units: list[int] = []
    tiles = 0
    for phase in walk.phases:
        first = len(units) // 3
        for unit in phase.units:
            units += [unit.y, unit.x, unit.start]
        phases += [phase.height, phase.width, phase.offset, phase.y_step, phase.x_step]
        phases += [first, len(units) // 3, tiles]
        tiles += panels * ceil_div(walk.images * phase.height * phase.width, pixels)
    fixed = [walk.images, walk.height, walk.width, walk.depth, walk.columns, walk.groups, walk.rows, walk.run]
    fixed += [*walk.stride, walk.out_image, pixels, unit_block, depth_block, len(walk.phases)]
    fixed += [panel_block, _ahead_shift(walk, tile), _rows_apart(walk)]
    return Plan((*fixed, *phases, *units), tiles)


def _blocks_of_sum(walk: Walk, tile: Tile) -> tuple[int, int]:
    """Units and steps of a unit in one block of the sum: what of a panel stays in the second cache."""
    width = min(tile.columns, round_up(walk.columns, tile.lanes)) * tile.size  # bytes of a panel's row
    depth, units = max(walk.depth * walk.run, 1), _most_units(walk)
    depth_block = _even(depth, ZEROS // tile.size)
    limit = min(PANEL // max(1, width * depth_block), TABLE // tile.rows)
    if walk.run > 1:
        limit = min(limit, PATCH // (tile.rows * depth * tile.size))
    return _even(units, max(limit, 1)), depth_block


def _panels_of_block(walk: Walk, tile: Tile) -> int:
    """Panels in a tile of the pool. All of them, where they stay in the second cache and there are pixels enough: then
    rows of the output are written whole, which memory likes."""
    panels = ceil_div(walk.columns, tile.columns)
    bytes_of_panels = walk.rows * round_up(walk.columns, tile.lanes) * tile.size
    pixels = max((walk.images * phase.height * phase.width for phase in walk.phases), default=0)
    whole = walk.groups == 1 and bytes_of_panels <= PANELS and pixels >= TILES * 2 * tile.rows
    return max(panels, 1) if whole else 1


def _ahead_shift(walk: Walk, tile: Tile) -> int:
    """Bytes from a pixel to its last tap: what is there for a block of pixels, no block before has read. -1 if the
    output's rows do not follow each other, or nothing is read."""
    phase, *others = walk.phases or (None,)
    if phase is None or others or not phase.units or phase.y_step != phase.width * phase.x_step:
        return -1
    last = phase.units[-1]
    return max(0, (last.y * walk.width + last.x) * walk.depth * walk.groups * tile.size)


def _rows_apart(walk: Walk) -> int:
    """1 if rows of the source lie between those that are read."""
    rows = {unit.y for phase in walk.phases for unit in phase.units}
    return int(bool(rows) and walk.stride[0] > max(rows) - min(rows) + 1)


def _pixels_of_block(walk: Walk, tile: Tile, unit_block: int, panels: int) -> int:
    """Pixels of a tile of the pool: as many as the tables hold, fewer where there would be few tiles. All alike."""
    depth, units = max(walk.depth * walk.run, 1), _most_units(walk)
    pixels = max((walk.images * phase.height * phase.width for phase in walk.phases), default=0)
    most_tiles = TILES if walk.rows * tile.columns * tile.size < PANELS else max(FEW_TILES, 4 * pool.get_num_threads())
    wanted = min(most_tiles, max(1, 2 * pixels * units * depth * walk.columns * walk.groups // WORTH))
    block = ceil_div(pixels, ceil_div(wanted, max(1, panels * len(walk.phases))))
    most = min(PIXELS, TABLE // unit_block)
    if walk.run > 1:
        most = min(most, PATCH // (unit_block * depth * tile.size))
    block = min(max(block, 1), most // tile.rows * tile.rows)
    return round_up(_even(max(pixels, 1), block), tile.rows)


def _most_units(walk: Walk) -> int:
    return max((len(phase.units) for phase in walk.phases), default=0) or 1


def _even(whole: int, most: int) -> int:
    """The size of equal parts of `whole`, each at most `most`."""
    return ceil_div(whole, ceil_div(whole, most))
