"""Recurrent cells over whole sequences: one kernel call runs an LSTM, GRU or plain RNN through all its steps.

A tile of the pool is a block of rows of the batch, which goes through time on its own, so threads never wait for one
another. In each step, for each panel of units, the microkernel multiplies the rows' states by the packed recurrent
weight into a small buffer, and the cell (`recurrent_cells.py`) makes gates and states of it at once. Backwards the
same: the gradients of the next step's gates times the weight, then the cell's own gradient.

What the arrays hold is said in `nd/ops/recurrent.py`. The sum of a product runs in one order whatever the number of
threads and tiles, and rows know nothing of each other.

Deliberately not here: the products over all steps at once (inputs, weight gradients), which are `gemm.py`'s.
"""

from __future__ import annotations

from typing import NamedTuple

from gluonish.kernels import pool
from gluonish.kernels import target as targets
from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.recurrent_cells import Kind
from gluonish.kernels.tiling import Tile, ceil_div, tile_of

Shapes = list[tuple[int, ...]]
MOST_ROWS = 8  # of a register tile
AHEAD = 512  # bytes of a row fetched at once
PARTS = ("outputs", "last_h", "last_c")  # whose gradients the backward kernel takes as they are


class Panel(NamedTuple):
    """How one panel of units is computed: `wide` vectors of units of each gate, at most `tile.rows` rows."""

    tile: Tile
    wide: int

    @property
    def units(self) -> int:
        """Units of a panel."""
        return self.wide * self.tile.lanes


def panel_of(dtype: str, gates: int) -> Panel:
    """The panel that has all gates of its units side by side in registers."""
    plain = tile_of(dtype)
    wide = max(1, plain.vectors // gates)
    vectors = gates * wide
    rows = (targets.current().registers - 1 - vectors) // vectors
    return Panel(plain._replace(rows=max(1, min(rows, MOST_ROWS)), vectors=vectors), wide)


# --- packing ----------------------------------------------------------------------------------------------------------
PACK = """
def pack_gates(args, begin, end):
    weight, packed = load_i64(args, 0), load_i64(args, 1)
    units = load_i64(args, 3)
    for tile in range(begin, end):
        panel, vector = tile // {V}, tile % {V}
        unit = panel * {U} + vector % {wide} * {VL}
        source = weight + (vector // {wide} * units + unit) * units * {size}
        place = packed + (panel * units * {V} + vector) * {VL} * {size}
        for k in range(0, units, {VL}):
            transpose(source + k * {size}, units * {size}, place + k * {V} * {VL} * {size}, {V} * {VL} * {size},
                      max(0, min({VL}, units - unit)), min({VL}, units - k))
"""


def pack_gates_kernel(dtype: str, gates: int) -> Kernel:
    """packed = a recurrent weight as the forward kernel reads it: panels of units, in a row of one all gates of them.

    Shapes: weight (gates * H, H); packed (packed_gates_size(H, dtype, gates),).
    """
    panel = panel_of(dtype, gates)
    tile = panel.tile
    source = PACK.format(V=tile.vectors, U=panel.units, wide=panel.wide, VL=tile.lanes, size=tile.size)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        units = ins[0][1]
        return Plan((units,), ceil_div(units, panel.units) * tile.vectors)

    return Kernel("pack_gates", source, (("transpose", "packing:transpose_block", (dtype, tile.lanes)),), plan)


def packed_gates_size(units: int, dtype: str, gates: int) -> int:
    """Numbers in the packed form of a recurrent weight."""
    panel = panel_of(dtype, gates)
    return ceil_div(units, panel.units) * units * panel.tile.columns


# --- forward ----------------------------------------------------------------------------------------------------------
SETUP = """
    table, places, start, sums = stack(), stack(), stack(), buffer()
    for r in range({MR}):
        write_i64(places, r, r * {width})
    write_i64(start, 0, 0)
"""
FORWARD = """
def {name}(args, begin, end):
    gates, weight = load_i64(args, 0), load_i64(args, 1)
    bias, h, c, lengths = {bias}, load_i64(args, {h}), {c}, {lengths}
    record = load_i64(args, {out})
    steps, rows, units, block = (load_i64(args, {s}), load_i64(args, {s} + 1), load_i64(args, {s} + 2),
                                 load_i64(args, {s} + 3))
    backwards = load_i64(args, {s} + 4)
{setup}
    row_step, slab = units * {size}, rows * units * {size}
    plane = (steps + 1) * slab
    gates_row = {G} * row_step
    for tile in range(begin, end):
        first, last = tile * block, min(tile * block + block, rows)
        parts = (last - first + {MR} - 1) // {MR}
        place = record + backwards * steps * slab
        for k in range(first * units, last * units):
{begin}
        for s in range(steps):
            t = steps - 1 - s if backwards else s
            before, after = record + (t + backwards) * slab, record + (t + 1 - backwards) * slab
            for unit in range(0, units, {U}):
                for part in range(parts):
                    row = first + part * {MR}
                    count = min({MR}, last - row)
                    for r in range({MR}):
                        write_i64(table, r, before + min(row + r, last - 1) * row_step)
                    ahead, later, row_ahead = (unit // {GROUP} + 1) * {GROUP}, 0, row + unit % {GROUP} // {U} * {EACH}
                    if ahead >= units:
                        ahead, later = 0, 1 - 2 * backwards
                    if (row_ahead < row + count) & (0 <= t + later) & (t + later < steps):
                        at = row_ahead * row_step + ahead * {size} + later * slab
                        fetch(sums, gates + ((t + later) * rows + row_ahead) * gates_row + ahead * {size}, gates_row,
                              row_step, bias, before + at, after + at, row_step, plane,
                              min({EACH}, row + count - row_ahead), min({GROUP}, units - ahead), lengths, t)
                    product(table, 0, 1, start, units, {size}, weight + unit * {G} * row_step, {width},
                            sums, places, count, 0, {NR}, 3, 0)
                    at = row * row_step + unit * {size}
                    cell(sums, gates + (t * rows + row) * gates_row + unit * {size}, gates_row, row_step,
                         bias + unit * {size}, before + at, after + at, row_step, plane, count,
                         min({U}, units - unit), lengths + row * 8, t)
"""


def forward_kernel(dtype: str, kind: Kind) -> Kernel:
    """record = a run through all steps.

    Inputs: gates, packed weight, the recurrent bias if the cell has one, its begin states, lengths if masked. Output:
    record, with all planes if kept, else with the states only. The plan needs one more scalar behind its own: whether
    time runs backwards.

    Shapes: gates (T, N, gates * H); packed weight (packed_gates_size(H),); bias (H,); states (N, H); lengths (N,);
    record (planes, T + 1, N, H).
    """
    panel = panel_of(dtype, kind.gates)
    tile = panel.tile
    states = 2 + kind.biased
    inputs = states + kind.states + kind.masked
    width = tile.columns * tile.size
    code = "f32" if dtype == "float32" else "f64"
    fill = [f"store_{code}(place, k, load_{code}(h, k))"]
    fill += [f"store_{code}(place + plane, k, load_{code}(c, k))"] * (kind.states > 1)
    kept = range(kind.states, kind.planes if kind.kept else 0)
    fill += [f"store_{code}(place + {p} * plane, k, cast_{code}(0))" for p in kept]
    source = FORWARD.format(
        name=kind.name, bias="load_i64(args, 2)" if kind.biased else "0", h=states,
        c=f"load_i64(args, {states + 1})" if kind.states > 1 else "0",
        lengths=f"load_i64(args, {inputs - 1})" if kind.masked else "0",
        out=inputs, s=inputs + 2, G=kind.gates, U=panel.units, MR=tile.rows, NR=tile.columns, width=width,
        size=tile.size, begin=_lines(fill, 12), setup=SETUP.format(MR=tile.rows, width=width),
        **_ahead(tile, panel.units),
    )  # fmt: skip

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        steps, rows, _ = ins[0]
        return _plan(steps, rows, ins[states][1])

    externals = (*_externals(dtype, tile), *_cells("forward", dtype, tile, kind))
    return Kernel(kind.name, source, externals, plan)


# --- backward ---------------------------------------------------------------------------------------------------------
BACKWARD = """
def {name}_gradient(args, begin, end):
{arrays}
    record, weight, lengths, out = load_i64(args, {r}), load_i64(args, {r} + 1), {lengths}, load_i64(args, {out})
    steps, rows, units, block = (load_i64(args, {s}), load_i64(args, {s} + 1), load_i64(args, {s} + 2),
                                 load_i64(args, {s} + 3))
    backwards = load_i64(args, {s} + 4)
{setup}
    row_step, slab, depth = units * {size}, rows * units * {size}, {G} * units
    plane = (steps + 1) * slab
    out_row, out_slab, out_block = {G} * row_step, {G} * slab, (steps + 1) * {G} * slab
    carried, products = out + steps * out_slab, out + {B} * out_block
    for tile in range(begin, end):
        first, last = tile * block, min(tile * block + block, rows)
        parts = (last - first + {MR} - 1) // {MR}
        for row in range(first, last):
            for k in range(depth):
{clear}
            for k in range(units):
{ends}
        for s in range(steps + 1):
            t = s if backwards else steps - 1 - s
            behind = t - 1 if backwards else t + 1
            before, after = record + (t + backwards) * slab, record + (t + 1 - backwards) * slab
            made, arriving = out + t * out_slab, {arriving}
            for unit in range(0, units, {NR}):
                columns = min({NR}, units - unit)
                panel_row = (columns + {VL} - 1) // {VL} * {VL} * {size}
                for part in range(parts):
                    row = first + part * {MR}
                    count = min({MR}, last - row)
                    ahead, later, row_ahead = (unit // {GROUP} + 1) * {GROUP}, 0, row + unit % {GROUP} // {NR} * {EACH}
                    if ahead >= units:
                        ahead, later = 0, 2 * backwards - 1
                    if (row_ahead < row + count) & (0 <= t + later) & (t + later < steps):
                        place = row_ahead * row_step + ahead * {size} + later * slab
                        out_place = row_ahead * out_row + ahead * {size} + later * out_slab
                        fetch(sums, arriving + place, plane, carried, made + out_place, out_row, row_step,
                              out_block, before + place, after + place, row_step, plane,
                              min({EACH}, row + count - row_ahead), min({GROUP}, units - ahead), lengths, t)
                    if s == 0:
                        for k in range({MR} * {NR}):
                            store_{code}(sums, k, cast_{code}(0))
                    else:
                        for r in range({MR}):
                            write_i64(table, r, products + behind * out_slab + min(row + r, last - 1) * out_row)
                        product(table, 0, 1, start, depth, {size}, weight + unit * depth * {size}, panel_row,
                                sums, places, count, 0, columns, 3, 0)
                    place = row * row_step + unit * {size}
                    out_place = row * out_row + unit * {size}
                    if s < steps:
                        cell(sums, arriving + place, plane, carried + out_place, made + out_place, out_row, row_step,
                             out_block, before + place, after + place, row_step, plane, count, columns,
                             lengths + row * 8, t)
                    else:
                        for r in range(count):
                            for k in range(columns):
                                i = r * depth + k
                                add = read_{code}(sums, r * {NR} + k)
{begin}
"""


def backward_kernel(dtype: str, kind: Kind, parts: tuple[str, ...] = ()) -> Kernel:
    """out = the gradients of the gates of all steps and, behind them, of the begin states.

    Inputs: gradients, the record with all its planes, the weight packed as a right operand (`packing.pack_kernel`),
    lengths if masked. The gradients are one array of kind.given planes of the record; or, if that is 0, those of the
    `parts`, some of PARTS: of the outputs, (T, N, H), and of the last states, (N, H) each. Output: out. The plan needs
    one more scalar behind its own: whether time runs backwards.

    Shapes: record (planes, T + 1, N, H); packed weight (packed_size(gates * H, H),); out (T + 1, N, gates * H), with a
    leading axis if the cell has several blocks.
    """
    tile, count = tile_of(dtype), len(parts) if kind.given == 0 else 1
    inputs = count + 2 + kind.masked
    kind = kind._replace(outputs="outputs" in parts)
    width = tile.columns * tile.size
    code = "f32" if dtype == "float32" else "f64"
    clear = [f"store_{code}(out + ({b} * (steps + 1) + steps) * out_slab + row * out_row, k, cast_{code}(0))"
             for b in range(kind.blocks)]  # fmt: skip
    fill = [f"store_{code}(carried + row * out_row, {p} * units + k, load_{code}({name}, row * units + k))"
            for p, name in enumerate(PARTS[1:]) if name in parts]  # fmt: skip
    finish = []
    for p in range(kind.states):
        more = f" + read_{code}(arriving + {p} * plane + place, r * units + k)" if kind.given else ""
        more = (" + add" if p == 0 else "") + more
        at = f"carried + out_place, i + {p} * units"
        finish += [f"write_{code}({at}, read_{code}({at}){more})"] if more else []
    arriving = "given + (t + 1 - backwards) * slab" if kind.given else "outputs + t * slab" if kind.outputs else "0"
    source = BACKWARD.format(
        name=kind.name, r=count, out=inputs, s=inputs + 2, G=kind.gates, B=kind.blocks - 1, code=code,
        arrays=_lines([f"{name} = load_i64(args, {i})" for i, name in enumerate(parts or ("given",))], 4),
        lengths=f"load_i64(args, {inputs - 1})" if kind.masked else "0", setup=SETUP.format(MR=tile.rows, width=width),
        arriving=arriving, MR=tile.rows, NR=tile.columns, VL=tile.lanes,
        size=tile.size, clear=_lines(clear, 16), ends=_lines(fill or ["pass"], 16), begin=_lines(finish, 32),
        **_ahead(tile, tile.columns),
    )  # fmt: skip

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        _, steps, rows, units = ins[count]
        return _plan(steps - 1, rows, units)

    externals = (*_externals(dtype, tile), *_cells("backward", dtype, tile, kind))
    return Kernel(f"{kind.name}_gradient", source, externals, plan)


# --- both -------------------------------------------------------------------------------------------------------------
def _lines(lines: list[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _externals(dtype: str, tile: Tile) -> tuple[External, ...]:
    return (
        ("product", "microkernel:product", (dtype, "taps", tile)),
        ("stack", "microkernel:stack", (8 * tile.rows,)),
        ("buffer", "microkernel:stack", (tile.rows * tile.columns * tile.size,)),
    )


def _cells(way: str, dtype: str, tile: Tile, kind: Kind) -> tuple[External, ...]:
    how = (dtype, tile.lanes, tile.columns * tile.size, tuple(kind))
    return ("cell", f"recurrent_cells:{way}", how), ("fetch", f"recurrent_cells:fetch_{way}", how)


def _ahead(tile: Tile, units: int) -> dict[str, int]:
    """Units of a group that is fetched ahead, and rows that are for each panel of the group before: whole rows of a
    group lie together in memory, which single lines of many rows do not."""
    panels = max(1, AHEAD // (units * tile.size))
    return {"GROUP": panels * units, "EACH": ceil_div(tile.rows, panels)}


def _plan(steps: int, rows: int, units: int) -> Plan:
    """One block of rows for each thread: every block reads the whole weight at every step."""
    block = max(1, ceil_div(rows, pool.get_num_threads()))
    return Plan((steps, rows, units, block), ceil_div(rows, block))
