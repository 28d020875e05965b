"""Convolutions 3x3 with stride 1 by Winograd's algorithm over NHWC images: F(2, 3) and F(4, 3), float32.

A square of m x m output pixels is made from (m + 2)^2 planes of products instead of 9 m^2 products: 2.25 times fewer
for m = 2, 4 times fewer for m = 4. For a block of squares, in scratch memory that stays in the second cache: their
pixels are transformed, in each plane one matrix product over the channels, and the sums are transformed back, through
the epilogue. Weights are transformed and packed before, once for each version of them.

Rounding is larger than that of the direct sum (measured, 64 to 512 channels, against float64, relative to the largest
output: up to 8e-7 for m = 2 and 1.7e-5 for m = 4), and an Inf in a square makes the whole square NaN; `fastest` and
`gluonish.precision` decide where it is used.

Deliberately not here: the weight gradient; other windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from gluonish.kernels.epilogue import Epilogue, checked, operand_count, result_of
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.lanes import I64, Lanes, i64, intrinsic_of, loop
from gluonish.kernels.tiling import Tile, ceil_div, packed_size, round_up, tile_of
from gluonish.kernels.value import Value
from gluonish.kernels.winograd_transforms import INPUT, OUTPUT, WEIGHT, both

Shapes = list[tuple[int, ...]]
DEPTH = 1024  # channels at most: there must be as many zeros
SQUARES = 24  # squares in a block, at most
CACHE = 1 << 21  # bytes of transformed pixels of a block
SCRATCH = 1 << 24  # bytes of scratch memory of all tiles of the pool, but for LEAST tiles
TILES, LEAST = 16, 4
ROWS = 96  # rows of weights in one tile of the pool

PACK = """
def pack(args, begin, end):
    weight, packed = load_i64(args, 0), load_i64(args, 1)
    depth, n = load_i64(args, 3), load_i64(args, 4)
    taps = tap_memory()
    plane = depth * ((n + {VL} - 1) // {VL} * {VL}) * {size}
    chunks = (depth + {ROWS} - 1) // {ROWS}
    for tile in range(begin, end):
        k_begin, c = tile % chunks * {ROWS}, tile // chunks * {VL}
        panel = c // {NR} * {NR}
        width = min({NR}, (n - panel + {VL} - 1) // {VL} * {VL})
        columns = min({VL}, n - c)
        for k in range(k_begin, min(k_begin + {ROWS}, depth), {VL}):
            rows = min({VL}, depth - k)
            for t in range(9):
                {READ}
            for r in range(rows):
                place = packed + (panel * depth + (k + r) * width + c - panel) * {size}
                transform_weight(taps + r * {VL} * {size}, place, plane)
"""
FORWARD = """
                for r in range(rows):
                    copy_row(weight + ((t * depth + k + r) * n + c) * {size}, taps + (t * {VL} + r) * {VL} * {size},
                             columns)
"""
TURNED = """
                transpose(weight + (((8 - t) * n + c) * depth + k) * {size}, depth * {size},
                          taps + t * {VL} * {VL} * {size}, {VL} * {size}, columns, rows)
"""

CONVOLUTION = """
def winograd(args, begin, end):
    image, weight, out = load_i64(args, 0), load_i64(args, 1), load_i64(args, inputs())
    extras, s, zero = args + 16, args + 8 * (inputs() + 2), zeros()
    memory = load_i64(args, inputs() + 1)
    height, width, depth, n = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    out_height, out_width, y_pad, x_pad = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6), load_i64(s, 7)
    squares, block, groups, parts = load_i64(s, 8), load_i64(s, 9), load_i64(s, 10), load_i64(s, 11)
    pixels, rows, sums, start = pixel_memory(), row_memory(), sum_memory(), start_memory()
    room = (block + {MR} - 1) // {MR} * {MR}
    row_step = (depth + {VL} - 1) // {VL} * {VL} * {size}
    plane, sum_plane = room * row_step, room * {NR} * {size}
    weight_plane = depth * ((n + {VL} - 1) // {VL} * {VL}) * {size}
    across, down = (out_width + {m} - 1) // {m}, (out_height + {m} - 1) // {m}
    panels, blocks = (n + {NR} - 1) // {NR}, (squares + block - 1) // block
    pixel_step = depth * {size}
    write_i64(start, 0, 0)
    for tile in range(begin, end):
        part, group = tile % parts, tile // parts
        moved = memory + tile * {planes} * (plane + sum_plane)
        products = moved + {planes} * plane
        for p in range(room):
            write_i64(sums, p, p * {NR} * {size})
            for q in range({planes}):
                write_i64(rows, q * room + p, moved + q * plane + p * row_step)
        for b in range(part * blocks // parts, (part + 1) * blocks // parts):
            first = b * block
            count = min(block, squares - first)
            for p in range(count):
                x, y = (first + p) % across * {m} - x_pad, (first + p) // across % down * {m} - y_pad
                place = image + (((first + p) // (across * down) * height + y) * width + x) * pixel_step
                if (x >= 0) & (y >= 0) & (x + {span} <= width) & (y + {span} <= height):
                    for i in range({span}):
                        for j in range({span}):
                            write_i64(pixels, i * {span} + j, place + (i * width + j) * pixel_step)
                else:
                    for i in range({span}):
                        for j in range({span}):
                            inside = (y + i >= 0) & (y + i < height) & (x + j >= 0) & (x + j < width)
                            write_i64(pixels, i * {span} + j, place + (i * width + j) * pixel_step if inside else zero)
                transform_input(pixels, moved + p * row_step, plane, depth)
            for panel in range(group * panels // groups, (group + 1) * panels // groups):
                column = panel * {NR}
                columns = min({NR}, n - column)
                right_step = (columns + {VL} - 1) // {VL} * {VL} * {size}
                for q in range({planes}):
                    ahead = weight + (q + 1) * weight_plane + column * depth * {size}
                    if q + 1 == {planes}:
                        ahead = weight + (column + columns) * depth * {size}
                    for p in range(0, count, {MR}):
                        product(rows + (q * room + p) * 8, 0, 1, start, depth, {size},
                                weight + q * weight_plane + column * depth * {size}, right_step,
                                products + q * sum_plane, sums + p * 8, count - p, 0, columns, 3, 0,
                                ahead + p // {MR} * depth * 64, 64)
                for p in range(count):
                    x, y = (first + p) % across * {m}, (first + p) // across % down * {m}
                    place = ((first + p) // (across * down) * out_height + y) * out_width + x
                    transform_output(products + p * {NR} * {size}, sum_plane, out, place * n * {size},
                                     out_width * n * {size}, n * {size}, min({m}, out_height - y),
                                     min({m}, out_width - x), column, columns, extras)
"""


def pack_winograd_kernel(squares: int, gradient: bool = False) -> Kernel:
    """packed = the transformed weights, packed plane after plane (see `packing.py`).

    squares: m of F(m, 3). gradient: for the data gradient.

    Shapes: weight (3, 3, cin, cout); packed (packed_winograd_size(weight, squares, gradient),).
    """
    tile = tile_of("float32")
    read = (TURNED if gradient else FORWARD).format(VL=tile.lanes, size=tile.size).strip()
    source = PACK.format(VL=tile.lanes, NR=tile.columns, size=tile.size, ROWS=ROWS, READ=read)
    name = ("transpose", "packing:transpose_block") if gradient else ("copy_row", "packing:copy_row")
    externals = (
        (*name, ("float32", tile.lanes)),
        ("transform_weight", "winograd:transform_weight", (squares, tile)),
        ("tap_memory", "microkernel:stack", (9 * tile.lanes * tile.lanes * tile.size,)),
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        depth, n = _matrix(ins[0], gradient)
        return Plan((depth, n), ceil_div(n, tile.lanes) * ceil_div(depth, ROWS))

    return Kernel("pack", source, externals, plan)


def packed_winograd_size(weight: tuple[int, ...], squares: int, gradient: bool = False) -> int:
    """Numbers in the packed form of weights (3, 3, cin, cout)."""
    return (squares + 2) ** 2 * packed_size(*_matrix(weight, gradient), "float32")


def _matrix(weight: tuple[int, ...], gradient: bool) -> tuple[int, int]:
    return (weight[3], weight[2]) if gradient else (weight[2], weight[3])


def winograd_kernel(squares: int, padding: tuple[int, int], epilogue: Epilogue = ()) -> Kernel:
    """out = epilogue(3x3 convolution of image, stride 1), by F(`squares`, 3).

    Inputs: image, packed weight, the epilogue's operands. Output: out. As a data gradient: of out's gradient with the
    weights packed for it, and the padding 2 - p.

    Shapes: image (N, H, W, cin); packed weight (packed_winograd_size(weight, squares),); out (N, OH, OW, cout).
    """
    tile, epilogue = tile_of("float32"), checked(epilogue)
    inputs, span = 2 + operand_count(epilogue), squares + 2
    source = CONVOLUTION.format(
        m=squares, span=span, planes=span**2,
        NR=tile.columns, MR=tile.rows, VL=tile.lanes, size=tile.size,
    )  # fmt: skip
    room = round_up(SQUARES, tile.rows)
    externals = (
        ("product", "microkernel:product", ("float32", "taps", tile, (), True)),
        ("inputs", "lanes:number", (inputs,)),
        ("transform_input", "winograd:transform_input", (squares, tile)),
        ("transform_output", "winograd:transform_output", (squares, tile, epilogue)),
        ("zeros", "microkernel:zeros", (DEPTH * tile.size,)),
        ("pixel_memory", "microkernel:stack", (8 * span**2,)),
        ("row_memory", "microkernel:stack", (8 * span**2 * room,)),
        ("sum_memory", "microkernel:stack", (8 * room,)),
        ("start_memory", "microkernel:stack", (8,)),
    )

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        return _plan(squares, padding, ins[0], outs[0], tile)

    return Kernel("winograd", source, externals, plan)


def _plan(m: int, padding: tuple[int, int], image: tuple[int, ...], out: tuple[int, ...], tile: Tile) -> Plan:
    images, height, width, depth = image
    _, out_height, out_width, n = out
    squares, planes = images * ceil_div(out_height, m) * ceil_div(out_width, m), (m + 2) ** 2
    row = round_up(max(depth, 1), tile.lanes) * tile.size
    most = min(SQUARES, max(CACHE // (planes * row) // tile.rows * tile.rows, tile.rows))
    panels = ceil_div(n, tile.columns)
    blocks = ceil_div(squares, most)
    groups = min(panels, ceil_div(LEAST, max(1, blocks)))  # few squares: panels apart, and pixels transformed again
    blocks = max(blocks, min(ceil_div(LEAST, groups), ceil_div(squares, tile.rows)), 1)
    block = max(ceil_div(squares, blocks), 1)
    scratch = planes * round_up(block, tile.rows) * (row + tile.columns * tile.size)
    parts = min(ceil_div(squares, block), max(1, min(TILES, max(LEAST, SCRATCH // scratch)) // groups))
    scalars = (height, width, depth, n, out_height, out_width, *padding, squares, block, groups, parts)
    return Plan(scalars, groups * parts, groups * parts * scratch)


def fastest(out: tuple[int, int, int], depth: int, n: int, steady: bool) -> int:
    """The size of the squares for outputs (N, OH, OW) of `depth` to `n` channels; 0 if the direct sum is faster.

    steady: the weights are transformed rarely. An estimate that does not depend on the threads, so that results do not:
    nanoseconds on two AVX-512 cores.
    """
    if not 16 <= depth <= DEPTH or n < 16:
        return 0
    images, height, width = out
    times = {0: 0.9 * 18 * images * height * width * depth * n / 480}
    for m in INPUT:
        squares, planes = images * ceil_div(height, m) * ceil_div(width, m), (m + 2) ** 2
        weights = planes * depth * n
        products = max(2 * squares * weights / 480, 4 * weights / 45)
        times[m] = products + squares * planes * (depth + n) * 0.1 + (0.0 if steady else 0.25 * weights)
    return min(times, key=times.__getitem__)


# --- the transforms as intrinsics ---
def transform_input(squares: int, tile: Tile) -> Any:
    """The Numba intrinsic `(pixels, place, plane, depth)`: the pixels at (m + 2)^2 addresses go transformed to `place`,
    each value `plane` bytes after the one before. Places hold whole vectors; what is beyond `depth` is zero."""
    tile, span = Tile(*tile), squares + 2

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        pixels, place, plane, depth = arguments
        lanes = Lanes(b, "float32", tile.lanes)
        table, first = lanes.pointer(pixels), lanes.pointer(place)
        sources = [lanes.pointer(lanes.integer(table, i)) for i in range(span**2)]

        def vector(offset: ir.Value, mask: ir.Value | None) -> None:
            values = [Value(b, lanes.load(lanes.at(p, offset), mask)) for p in sources]
            target = lanes.at(first, offset)
            for i, value in enumerate(both(INPUT[squares], values, span)):
                lanes.store(value.value, lanes.at(target, b.mul(plane, i64(i))))

        _over_vectors(b, lanes, depth, vector)

    return intrinsic_of(4, emit, apart=True)


def transform_weight(squares: int, tile: Tile) -> Any:
    """The Numba intrinsic `(taps, place, plane)`: a vector of each of 9 taps, `lanes` vectors apart, goes transformed
    to `place`, each value `plane` bytes after the one before."""
    tile = Tile(*tile)

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        taps, place, plane = arguments
        lanes = Lanes(b, "float32", tile.lanes)
        source, target = lanes.pointer(taps), lanes.pointer(place)
        step = tile.lanes**2 * tile.size
        values = [Value(b, lanes.load(lanes.at(source, t * step))) for t in range(9)]
        for i, value in enumerate(both(WEIGHT[squares], values, 3)):
            lanes.store(value.value, lanes.at(target, b.mul(plane, i64(i))))

    return intrinsic_of(3, emit, apart=True)


def transform_output(squares: int, tile: Tile, epilogue: Epilogue) -> Any:
    """The Numba intrinsic that transforms the sums of one square back and stores them through the epilogue.

    Arguments: sums, plane, out, offset, row_step, column_step, rows, columns, channel, channels, extras: the address of
    the first sum and the bytes from plane to plane; the address of the output, and in it the bytes to the square and
    from pixel to pixel; how many of the square's pixels exist; the first channel and how many; the addresses of the
    epilogue's operands.
    """
    tile, epilogue = Tile(*tile), checked(epilogue)

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        sums, plane, out, offset, row_step, column_step, rows, columns, channel, channels, extras = arguments
        lanes = Lanes(b, "float32", tile.lanes)
        width = lanes.count * lanes.size
        with b.goto_entry_block():
            held = b.alloca(ir.ArrayType(lanes.vector, squares**2))
            held.align = 64
            results = lanes.pointer(b.ptrtoint(held, I64))
        source, target, table = lanes.pointer(sums), lanes.pointer(out), lanes.pointer(extras)
        kinds = epilogue[0] if epilogue else ()
        bases = [lanes.pointer(lanes.integer(table, i)) for i in range(len(kinds))]
        start = b.add(offset, b.mul(channel, i64(lanes.size)))

        def vector(shift: ir.Value, mask: ir.Value | None) -> None:
            begin = lanes.at(source, shift)
            planes = range((squares + 2) ** 2)
            values = [Value(b, lanes.load(lanes.at(begin, b.mul(plane, i64(i))))) for i in planes]
            for i, value in enumerate(both(OUTPUT[squares], values, squares + 2)):
                lanes.store(value.value, lanes.at(results, i * width))
            fixed = [_fixed(lanes, kind, p, b, channel, shift, mask) for kind, p in zip(kinds, bases, strict=True)]

            def row(y: ir.Value, carried: Sequence[ir.Value]) -> list[ir.Value]:
                def pixel(x: ir.Value, carried: Sequence[ir.Value]) -> list[ir.Value]:
                    place = b.add(b.add(start, shift), b.add(b.mul(y, row_step), b.mul(x, column_step)))
                    index = b.add(b.mul(y, i64(squares)), x)
                    value = lanes.load(lanes.at(results, b.mul(index, i64(width))))
                    if epilogue:
                        further = [f or lanes.load(lanes.at(p, place), mask) for f, p in zip(fixed, bases, strict=True)]
                        value = result_of(epilogue, b, [value, *further])
                    lanes.store(value, lanes.at(target, place), mask)
                    return []

                loop(b, columns, [], pixel)
                return []

            loop(b, rows, [], row)

        _over_vectors(b, lanes, channels, vector)

    return intrinsic_of(11, emit, apart=True)


def _fixed(
    lanes: Lanes, kind: str, base: ir.Value, b: ir.IRBuilder, channel: ir.Value, shift: ir.Value, mask: Any
) -> Any:
    """An operand that is the same for all pixels; None for one that is not."""
    if kind == "scalar":
        return lanes.broadcast(base)
    if kind == "column":
        return lanes.load(lanes.at(base, b.add(b.mul(channel, i64(lanes.size)), shift)), mask)
    return None


def _over_vectors(b: ir.IRBuilder, lanes: Lanes, count: ir.Value, vector: Any) -> None:
    """`vector(offset in bytes, mask)` for whole vectors, and under a mask for what is left."""
    whole = b.sdiv(count, i64(lanes.count))

    def turn(index: ir.Value, carried: Sequence[ir.Value]) -> list[ir.Value]:
        vector(b.mul(index, i64(lanes.count * lanes.size)), None)
        return []

    loop(b, whole, [], turn)
    done = b.mul(whole, i64(lanes.count))
    rest = b.sub(count, done)
    with b.if_then(b.icmp_signed(">", rest, i64(0))):
        vector(b.mul(done, i64(lanes.size)), lanes.below(rest))
