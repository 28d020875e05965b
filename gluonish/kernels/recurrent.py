"""Recurrent cells over whole sequences: one kernel call runs an LSTM, GRU or plain RNN through all its steps.

In each step, for each group of units, states are multiplied by the packed recurrent weight into a small buffer
(`recurrent_products.py`), and the cell (`recurrent_cells.py`) makes gates and states of it at once. Backwards the same:
the gradients of the next step's gates times the weight, then the cell's own gradient. What the next step multiplies is
held twice, beside the record: as the product reads it. Every other step takes the units from the last to the first, so
that it begins with what the cache has of the weight.

Many rows of the batch are cut into blocks, one for each thread, which go through time on their own. With few rows each
thread would spend its time on reading the weight; then all of them go through time together, each with its share of
the units and of the weight, and wait for each other after every step. A share that nobody has begun in time is taken by
whoever is there: a thread that comes late, or not at all, is not missed.

One call may have several runs, the two directions of a layer: then each has its blocks or shares.

What the arrays hold is said in `nd/ops/recurrent.py`. The sum of a product runs in one order whatever the number of
threads and tiles, and rows know nothing of each other.

Deliberately not here: the products over all steps at once (inputs, weight gradients), which are `gemm.py`'s.
"""

from __future__ import annotations

from typing import Any

from gluonish.kernels import pool
from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.recurrent_cells import Kind, touches
from gluonish.kernels.recurrent_products import SMALL, VECTORS, Group, backward_group, forward_group, packed_gates_size
from gluonish.kernels.tiling import ceil_div, packed_size, round_up

Shapes = list[tuple[int, ...]]
FAR = 3 << 18  # bytes of a weight from which on it does not stay in the second cache
FEW_ROWS = 4  # of a thread; fewer of them are multiplied in the time that a near weight takes to come
MOST_SHARES = 16
LEAST_SHARE = 1 << 17  # bytes of the weight
LINE = 128  # bytes between what different threads write
DONE_WORDS = (MOST_SHARES + 1) * LINE // 8  # of the zeros that a run begins with
PATIENCE = 1000  # pauses before a waiting thread lets others run
PARTS = ("outputs", "last_h", "last_c")  # whose gradients the backward kernel takes as they are

BLOCK = """
    s = args + 8 * {s}
    steps, rows, units, block, blocks = (load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3),
                                         load_i64(s, 4))
    far, shares, share, give_way = load_i64(s, 5), load_i64(s, 6), load_i64(s, 7), load_i64(s, 8)
    vectors, sums, places = (units + {VL} - 1) // {VL}, buffer(), listed()
    row_step, slab = units * {size}, rows * units * {size}
    plane = (steps + 1) * slab
    gates_row, row_bytes = {G} * row_step, {held} * vectors * {VB}
    held_bytes = (block + 2 * ((block + {MR} - 1) // {MR})) * row_bytes
    for tile in range(begin, end):
        walker, own = tile // shares, tile % shares
        run = walker // blocks
        ins, backwards = args + run * {ins}, load_i64(s, 9 + run)
        first = walker % blocks * block
        last = min(first + block, rows)
        parts = (last - first + {MR} - 1) // {MR}
        each = (last - first + parts - 1) // parts
        each += (each > {SMALL}) * (each % 2)
        held = load_i64(args, {s} - 1) + walker * 2 * held_bytes
        done = load_i64(ins, {inputs} - 1)
"""
SHARES = """
        turn = 0
        if shares > 1:
            turn = atomic_load(done) // shares
        while turn < turns:
            if shares > 1:
                waited = 0
                while atomic_load(done) < turn * shares:
                    spin_pause()
                    waited += 1
                    if waited > {PATIENCE}:
                        call_function(give_way, 0, 0)
            for other in range(shares):
                mine = (own + other) % shares
                low, high = mine * share, min((mine + 1) * share, units)
                groups = (high - low + {U} - 1) // {U}
                if shares == 1 or atomic_compare_exchange(done + (mine + 1) * {LINE}, turn, turn + 1) == turn:
{work}
                    if shares > 1:
                        atomic_add(done, 1)
            turn += 1
"""

# --- forward ----------------------------------------------------------------------------------------------------------
FORWARD = """
def {name}(args, begin, end):
{block}
        gates, weight, bias, h = load_i64(ins, 0), load_i64(ins, 1), {bias}, load_i64(ins, {h})
        c, lengths, record = {c}, {lengths}, load_i64(args + run * 8, {out})
        place = record + backwards * steps * slab
        turns = steps + 1
{shares}
"""
BEGIN = """
for row in range(first, last):
    for k in range(row * units + low, row * units + high):
{begin}
for part in range(parts):
    row = first + part * each
    count = min(each, last - row)
    tall = count + (count > {SMALL}) * (count % 2)
    for r in range(count):
        for k in range(low, high):
            vector = part * (each + 1) * vectors + k // {VL} * tall + r
            write_{code}(held, vector * {VL} + k % {VL}, read_{code}(h, (row + r) * units + k))
"""
STEP = """
if turn == 0:
{begin}
else:
    step = turn - 1
    t = steps - 1 - step if backwards else step
    before, after = record + (t + backwards) * slab, record + (t + 1 - backwards) * slab
    now, then = held + step % 2 * held_bytes, held + (1 - step % 2) * held_bytes
    for group in range(groups):
        place = groups - 1 - group if step % 2 else group
        unit = low + place * {U}
        wide, ahead, later = min({U}, high - unit), unit + {U} - step % 2 * 2 * {U}, 0
        panels = ((wide + {VL} - 1) // {VL} * {G} + {V} - 1) // {V}
        if group == groups - 1:
            ahead, later = unit, 1 - 2 * backwards
        for part in range(parts):
            row = first + part * each
            count, states, near = min(each, last - row), part * (each + 1) * row_bytes, 0
            tall = count + (count > {SMALL}) * (count % 2)
            if (0 <= t + later) & (t + later < steps):
                at = row * row_step + ahead * {size} + later * slab
                list_next(sums, gates + ((t + later) * rows + row) * gates_row + ahead * {size}, gates_row,
                      row_step, bias, before + at, after + at, row_step, plane, count,
                      min({U}, high - ahead), lengths, t, places, 0)
                near = count * ((min({U}, high - ahead) + {VL} - 1) // {VL}) * {touches}
            write_i64(places, near, sums)
            product(tall, now + states, weight + unit * {G} * row_step, 1, units, panels, 0, sums,
                    weight + ahead * {G} * row_step + part * ({U} * {G} * row_step // parts) * far,
                    {V} * {VB} * far // parts, places, near)
            at = row * row_step + unit * {size}
            cell(sums, gates + (t * rows + row) * gates_row + unit * {size}, gates_row, row_step,
                 bias + unit * {size}, before + at, after + at, row_step, plane, count, wide,
                 lengths + row * 8, t, then + states + unit * tall * {size}, tall * {VB})
"""


def forward_kernel(dtype: str, kind: Kind, runs: int = 1) -> Kernel:
    """record = a run through all steps.

    Inputs: gates, packed weight, the recurrent bias if the cell has one, its begin states, lengths if masked,
    DONE_WORDS zeros. Output: record, with all planes if kept, else with the states only. Of several runs, all inputs of
    the first stand before those of the next, then all outputs. The plan needs one more scalar for each run behind its
    own: whether time runs backwards.

    Shapes: gates (T, N, gates * H); packed weight (packed_gates_size(H),); bias (H,); states (N, H); lengths (N,);
    record (planes, T + 1, N, H).
    """
    group = forward_group(dtype, kind.gates)
    states = 2 + kind.biased
    inputs = states + kind.states + kind.masked + 1
    code = "f32" if dtype == "float32" else "f64"
    fill = [f"store_{code}(place, k, load_{code}(h, k))"]
    fill += [f"store_{code}(place + plane, k, load_{code}(c, k))"] * (kind.states > 1)
    kept = range(kind.states, kind.planes if kind.kept else 0)
    fill += [f"store_{code}(place + {p} * plane, k, cast_{code}(0))" for p in kept]
    names = {**_names(group, kind), "code": code, "touches": touches(kind, False)}
    begin = BEGIN.format(begin=_lines(fill, 8), **names)
    work = STEP.format(begin=_indented(begin, 4), **names)
    source = FORWARD.format(
        name=kind.name, block=_block(group, kind, inputs, runs, 1), bias="load_i64(ins, 2)" if kind.biased else "0",
        h=states, c=f"load_i64(ins, {states + 1})" if kind.states > 1 else "0",
        lengths=f"load_i64(ins, {inputs - 2})" if kind.masked else "0", out=inputs * runs, shares=_shares(work, names),
    )  # fmt: skip

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        steps, rows, _ = ins[0]
        units = ins[states][1]
        held, align = 1, 1 if kind.gates % VECTORS == 0 else VECTORS
        return _plan(steps, rows, units, runs, group, held, packed_gates_size(units, dtype, kind.gates), align)

    return Kernel(kind.name, source, _externals("forward", dtype, group, kind), plan)


# --- backward ---------------------------------------------------------------------------------------------------------
BACKWARD = """
def {name}_gradient(args, begin, end):
{block}
{arrays}
        record, weight, lengths = load_i64(ins, {r}), load_i64(ins, {r} + 1), {lengths}
        out = load_i64(args + run * 8, {out})
        depth, out_slab, out_block = {G} * units, {G} * slab, (steps + 1) * {G} * slab
        carried = out + steps * out_slab
        turns = steps + 1
{shares}
"""
BACK = """
if turn == 0:
    for row in range(first, last):
        for gate in range({G}):
            for k in range(gate * units + low, gate * units + high):
{clear}
        for k in range(low, high):
{ends}
t = turn if backwards else steps - 1 - turn
before, after = record + (t + backwards) * slab, record + (t + 1 - backwards) * slab
now, then = held + turn % 2 * held_bytes, held + (1 - turn % 2) * held_bytes
made, arriving = out + t * out_slab, {arriving}
for group in range(groups):
    index = groups - 1 - group if turn % 2 else group
    unit = low + index * {U}
    wide, ahead, later = min({U}, high - unit), unit + {U} - turn % 2 * 2 * {U}, 0
    needed = (wide + {VL} - 1) // {VL}
    if group == groups - 1:
        ahead, later = unit, 2 * backwards - 1
    for part in range(parts):
        row = first + part * each
        count, states, near = min(each, last - row), part * (each + 1) * row_bytes, 0
        tall = count + (count > {SMALL}) * (count % 2)
        if (0 <= t + later) & (t + later < steps):
            place = row * row_step + ahead * {size} + later * slab
            out_place = row * gates_row + ahead * {size} + later * out_slab
            list_next(sums, arriving + place, plane, carried, made + out_place, gates_row, row_step,
                  out_block, before + place, after + place, row_step, plane, count,
                  min({U}, high - ahead), lengths, t, places, 0, 0)
            near = count * ((min({U}, high - ahead) + {VL} - 1) // {VL}) * {touches}
        write_i64(places, near, sums)
        if turn == 0:
            for k in range({MR} * {width}):
                store_{code}(sums, k, cast_{code}(0))
        else:
            product(tall, now + states, weight + unit * depth * {size}, {G}, units, needed // {V},
                    needed % {V}, sums,
                    weight + (ahead + part * {U} // parts * far) * depth * {size},
                    {V} * {VB} * far // parts, places, near)
        place = row * row_step + unit * {size}
        out_place = row * gates_row + unit * {size}
        if turn < steps:
            cell(sums, arriving + place, plane, carried + out_place, made + out_place, gates_row, row_step,
                 out_block, before + place, after + place, row_step, plane, count, wide,
                 lengths + row * 8, t, then + states + unit * tall * {size}, tall * {VB},
                 vectors * tall * {VB})
        else:
            for r in range(count):
                for k in range(wide):
                    i = r * depth + k
                    add = read_{code}(sums, r * {width} + k)
{begin}
"""


def backward_kernel(dtype: str, kind: Kind, parts: tuple[str, ...] = (), runs: int = 1) -> Kernel:
    """out = the gradients of the gates of all steps and, behind them, of the begin states.

    Inputs: gradients, the record with all its planes, the weight packed as a right operand in panels of VECTORS
    (`packing.pack_kernel`), lengths if masked, DONE_WORDS zeros. The gradients are one array of kind.given planes of
    the record; or, if that is 0, those of the `parts`, some of PARTS: of the outputs, (T, N, H), and of the last
    states, (N, H) each. Output: out. Several runs and their directions as for `forward_kernel`.

    Shapes: record (planes, T + 1, N, H); packed weight (packed_size(gates * H, H),); out (T + 1, N, gates * H), with a
    leading axis if the cell has several blocks.
    """
    group, count = backward_group(dtype), len(parts) if kind.given == 0 else 1
    inputs = count + 2 + kind.masked + 1
    kind = kind._replace(outputs="outputs" in parts)
    code = "f32" if dtype == "float32" else "f64"
    clear = [f"store_{code}(out + ({b} * (steps + 1) + steps) * out_slab + row * gates_row, k, cast_{code}(0))"
             for b in range(kind.blocks)]  # fmt: skip
    fill = [f"store_{code}(carried + row * gates_row, {p} * units + k, load_{code}({name}, row * units + k))"
            for p, name in enumerate(PARTS[1:]) if name in parts]  # fmt: skip
    finish = []
    for p in range(kind.states):
        more = f" + read_{code}(arriving + {p} * plane + place, r * units + k)" if kind.given else ""
        more = (" + add" if p == 0 else "") + more
        at = f"carried + out_place, i + {p} * units"
        finish += [f"write_{code}({at}, read_{code}({at}){more})"] if more else []
    arriving = "given + (t + 1 - backwards) * slab" if kind.given else "outputs + t * slab" if kind.outputs else "0"
    names = {**_names(group, kind), "code": code, "touches": touches(kind, True), "width": group.width}
    work = BACK.format(
        arriving=arriving, clear=_lines(clear, 16), ends=_lines(fill or ["pass"], 12), begin=_lines(finish, 20), **names
    )
    source = BACKWARD.format(
        name=kind.name, block=_block(group, kind, inputs, runs, kind.gates), r=count, out=inputs * runs,
        arrays=_lines([f"{name} = load_i64(ins, {i})" for i, name in enumerate(parts or ("given",))], 8),
        lengths=f"load_i64(ins, {inputs - 2})" if kind.masked else "0", shares=_shares(work, names), G=kind.gates,
    )  # fmt: skip

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        _, steps, rows, units = ins[count]
        weight = packed_size(kind.gates * units, units, dtype)
        return _plan(steps - 1, rows, units, runs, group, kind.gates, weight, VECTORS)

    return Kernel(f"{kind.name}_gradient", source, _externals("backward", dtype, group, kind), plan)


# --- both -------------------------------------------------------------------------------------------------------------
def _lines(lines: list[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _indented(text: str, indent: int) -> str:
    return _lines(text.strip("\n").splitlines(), indent)


def _shares(work: str, names: dict[str, Any]) -> str:
    """The loop over the turns: what one thread does of each, `work`, is its share of the units."""
    return SHARES.strip("\n").format(work=_indented(work, 20), **names)


def _names(group: Group, kind: Kind) -> dict[str, Any]:
    tile = group.tile
    vector = tile.lanes * tile.size
    return {
        "G": kind.gates, "SMALL": SMALL, "MR": tile.rows, "V": tile.vectors, "VL": tile.lanes, "VB": vector,
        "size": tile.size, "U": group.width, "LINE": LINE, "PATIENCE": PATIENCE,
    }  # fmt: skip


def _block(group: Group, kind: Kind, inputs: int, runs: int, held: int) -> str:
    """The begin of a kernel; held: vectors of each vector of units that the next step multiplies."""
    s = (inputs + 1) * runs + 1
    return BLOCK.strip("\n").format(s=s, ins=inputs * 8, inputs=inputs, held=held, **_names(group, kind))


def _externals(way: str, dtype: str, group: Group, kind: Kind) -> tuple[External, ...]:
    tile = group.tile
    how = (dtype, tile.lanes, group.bytes, tuple(kind))
    return (
        ("product", "recurrent_products:product", (dtype, group, way == "backward")),
        ("buffer", "microkernel:stack", (tile.rows * group.bytes,)),
        ("listed", "microkernel:stack", (8 * (1 + tile.rows * group.units * touches(kind, way == "backward")),)),
        ("cell", f"recurrent_cells:{way}", how),
        ("list_next", f"recurrent_cells:fetch_{way}", how),
    )


def _plan(steps: int, rows: int, units: int, runs: int, group: Group, held: int, weight: int, align: int) -> Plan:
    """Blocks of rows or shares of units, one for each thread, of several runs together; see the module's docstring.

    weight: numbers of it. align: vectors of which each share has a multiple.
    """
    tile = group.tile
    threads, vectors, size = max(1, pool.get_num_threads() // runs), ceil_div(units, tile.lanes), weight * tile.size
    shares = 1
    if rows < threads * (FEW_ROWS if size <= FAR else tile.rows):
        shares = max(1, min(threads, MOST_SHARES, size // LEAST_SHARE))
    share = round_up(max(1, ceil_div(vectors, shares)), align)
    shares = max(1, ceil_div(vectors, share))
    block = max(1, ceil_div(rows, threads if shares == 1 else 1))
    blocks = ceil_div(rows, block)
    block_rows = block + 2 * ceil_div(block, tile.rows)
    scratch = runs * blocks * 2 * block_rows * held * vectors * tile.lanes * tile.size
    # many blocks of rows read a group of the weight: there is time to fetch the next one evenly
    far, give_way = int(size > FAR and block > 3 * tile.rows), pool.give_way() if shares > 1 else 0
    scalars = (steps, rows, units, block, max(1, blocks), far, shares, share * tile.lanes, give_way)
    return Plan(scalars, runs * blocks * shares, scratch)
