"""The products of recurrent cells: a few rows of states times a packed weight, again at every step.

    sums[r, column] = sum over k of states[r, k] * weight[k, column]

The states of a block of rows are held as the product reads them: for each vector of units, the vectors of all rows one
after the other. So all rows are at fixed distances from one pointer, and what is read is one stream. The weight is in
panels of two vectors of columns; for each number of rows (above SMALL, each even one) there is one internal function
with a register tile of just that height. Few rows leave registers free: they take two panels at once, as one would wait
for its own sums.

While it multiplies, the product fetches what comes next: a part of the weight, as a large one lies in the third cache,
and the lines that the cell will touch, from a list. All at once they would be more than the machine can wait for.

Deliberately not here: what is done with the sums (`recurrent_cells.py`), the walk through time (`recurrent.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.lanes import I64, VOID, Lanes, i64, intrinsic_of, loop, prefetch
from gluonish.kernels.tiling import Tile, ceil_div, round_up

Shapes = list[tuple[int, ...]]
VECTORS = 2  # of a panel
MOST_ROWS = 12
SMALL = 4  # rows up to which there is a tile for any number
LINE = 64  # bytes
UNITS = {1: 8, 3: 4, 4: 2}  # gates -> vectors of units of a group, whose sums are made before the cell treats them
COLUMNS = 4  # vectors of a group of the backward product
PARAMETERS = (
    "rows", "left", "right", "segments", "depth", "panels", "narrow", "out", "fetch", "fetch_step", "places", "count",
)  # fmt: skip


class Group(NamedTuple):
    """How sums are made group after group; pure data, so that externals can have it.

    tile: of registers. vectors: of sums in a row. units: vectors of units.
    """

    tile: Tile
    vectors: int
    units: int

    @property
    def bytes(self) -> int:
        """Of a row of sums."""
        return self.vectors * self.tile.lanes * self.tile.size

    @property
    def width(self) -> int:
        """Units of a group."""
        return self.units * self.tile.lanes


def tile_of_rows(dtype: str) -> Tile:
    """The register tile: rows * VECTORS sums, VECTORS of the weight, and a broadcast value must fit."""
    target = targets.current()
    size = np.dtype(dtype).itemsize
    rows = min(MOST_ROWS, (target.registers - 1 - VECTORS) // VECTORS)
    return Tile(rows, VECTORS, target.vector_bytes // size, size)


def forward_group(dtype: str, gates: int) -> Group:
    """Vectors of sums stand by unit: all gates of a vector of units, then those of the next."""
    units = UNITS[gates]
    return Group(tile_of_rows(dtype), units * gates, units)


def backward_group(dtype: str) -> Group:
    """Vectors of sums are vectors of units."""
    return Group(tile_of_rows(dtype), COLUMNS, COLUMNS)


# --- packing ----------------------------------------------------------------------------------------------------------
PACK = """
def pack_gates(args, begin, end):
    weight, packed = load_i64(args, 0), load_i64(args, 1)
    units = load_i64(args, 3)
    for tile in range(begin, end):
        panel, vector = tile // {V}, tile % {V}
        unit = tile // {G} * {VL}
        source = weight + (tile % {G} * units + unit) * units * {size}
        place = packed + (panel * units * {V} + vector) * {VL} * {size}
        for k in range(0, units, {VL}):
            transpose(source + k * {size}, units * {size}, place + k * {V} * {VL} * {size}, {V} * {VL} * {size},
                      max(0, min({VL}, units - unit)), min({VL}, units - k))
"""


def pack_gates_kernel(dtype: str, gates: int) -> Kernel:
    """packed = a recurrent weight as the forward product reads it: panels of vectors of columns, which stand by unit.

    Shapes: weight (gates * H, H); packed (packed_gates_size(H, dtype, gates),).
    """
    tile = tile_of_rows(dtype)
    source = PACK.format(V=VECTORS, G=gates, VL=tile.lanes, size=tile.size)

    def plan(ins: Shapes, outs: Shapes) -> Plan:
        units = ins[0][1]
        return Plan((units,), _panels(units, tile, gates) * VECTORS)

    return Kernel("pack_gates", source, (("transpose", "packing:transpose_block", (dtype, tile.lanes)),), plan)


def packed_gates_size(units: int, dtype: str, gates: int) -> int:
    """Numbers in the packed form of a recurrent weight."""
    tile = tile_of_rows(dtype)
    return _panels(units, tile, gates) * units * tile.columns


def _panels(units: int, tile: Tile, gates: int) -> int:
    """Panels of a packed weight: an even number, as they may be taken in pairs."""
    return round_up(ceil_div(ceil_div(units, tile.lanes) * gates, VECTORS), 2)


# --- the product ------------------------------------------------------------------------------------------------------
def product(dtype: str, group: Group, narrow: bool) -> Any:
    """The Numba intrinsic that makes the sums of some rows and panels; all arguments are int64, see PARAMETERS.

    rows: how many, 1 to the tile's, above SMALL even. left: address of the held states. right: address of the first
    panel. segments, depth: k runs over so many times so many units; each segment begins with a whole vector in the
    held states. panels: whole ones; unless there may be `narrow` ones, those of a pair can be read in any case. narrow:
    1 if one of a single vector follows. out: address of rows of sums, a group wide. fetch: of the weight, so many bytes
    (fetch_step) for each k. places, count: a list of addresses to fetch, and one more that may be fetched again.
    """
    emitter = _Emitter(dtype, Group(Tile(*group[0]), *group[1:]), narrow)
    return intrinsic_of(len(PARAMETERS), emitter.choose)


class _Emitter:
    """Emits the functions for each number of rows and the choice between them."""

    def __init__(self, dtype: str, group: Group, narrow: bool) -> None:
        self.dtype, self.group, self.narrow = dtype, group, narrow

    def choose(self, builder: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        """Calls the function for these rows."""
        end = builder.append_basic_block("sums.end")
        heights = [r for r in range(1, self.group.tile.rows + 1) if r <= SMALL or r % 2 == 0]
        cases = [builder.append_basic_block(f"sums.{r}") for r in heights]
        switch = builder.switch(arguments[0], cases[-1])
        for r, case in zip(heights, cases):
            switch.add_case(i64(r), case)
            builder.position_at_end(case)
            builder.call(self.function(builder.module, r), arguments[1:])
            builder.branch(end)
        builder.position_at_end(end)

    def function(self, module: ir.Module, rows: int) -> ir.Function:
        """The internal function for so many rows, made once in a module."""
        name = f"sums_{self.dtype}_{rows}"
        if name in module.globals:
            return module.globals[name]
        parameters = PARAMETERS[1:]
        function = ir.Function(module, ir.FunctionType(VOID, [I64] * len(parameters)), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        arguments = dict(zip(parameters, function.args, strict=True))
        _Body(builder, self.dtype, self.group, arguments, rows).emit(self.narrow)
        builder.ret_void()
        return function


class _Body:
    """The body of one function; `a` are its arguments by name."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, group: Group, arguments: dict[str, Any], rows: int) -> None:
        self.b, self.a, self.rows, self.group = builder, arguments, rows, group
        self.lanes = Lanes(builder, dtype, group.tile.lanes)
        self.vector = group.tile.lanes * group.tile.size  # bytes
        self.fused = targets.current().fma
        self.left = self.lanes.pointer(arguments["left"])

    def emit(self, narrow: bool) -> None:
        b, a = self.b, self.a
        depth = b.mul(a["segments"], a["depth"])
        panel = b.mul(depth, i64(VECTORS * self.vector))
        ahead = b.mul(depth, a["fetch_step"])
        start, panels = [a["right"], a["out"], a["fetch"], i64(0)], a["panels"]
        pair = self.rows <= (targets.current().registers - 4) // 4  # there is room for the sums of two panels
        if pair:
            pairs = b.sdiv(panels if narrow else b.add(panels, i64(1)), i64(2))
            start = loop(b, pairs, start, lambda turn, held: self.panels(held, panel, ahead, 2))
            panels = b.sub(panels, b.mul(pairs, i64(2)))
        if narrow or not pair:
            start = loop(b, panels, start, lambda turn, held: self.panels(held, panel, ahead, 1))
        if not narrow:
            return
        with b.if_then(b.icmp_signed("!=", a["narrow"], i64(0))):
            self.walk(start, [i64(0)], self.vector)  # the last one

    def panels(self, held: list[ir.Value], panel: ir.Value, ahead: ir.Value, count: int) -> list[ir.Value]:
        """Some whole panels side by side; gives where the next ones are, and where their sums go."""
        places = [i64(v * self.vector) for v in range(VECTORS)]
        places += [self.b.add(panel, place) for place in places] if count == 2 else []
        fetched = self.walk(held, places, VECTORS * self.vector)
        steps = [self.b.mul(panel, i64(count)), i64(len(places) * self.vector), self.b.mul(ahead, i64(count))]
        return [*(self.b.add(x, step) for x, step in zip(held, steps)), fetched]

    def walk(self, held: list[ir.Value], places: list[ir.Value], step: int) -> ir.Value:
        """The sums of the vectors of columns that begin at `places` and go on `step` bytes for each k; gives how
        much of the list has been fetched."""
        b, a, lanes = self.b, self.a, self.lanes
        right, out, fetch = (lanes.pointer(x) for x in held[:3])
        listed = lanes.pointer(a["places"])
        starts = [lanes.at(right, place) for place in places]
        chunks = b.sdiv(b.add(a["depth"], i64(lanes.count - 1)), i64(lanes.count))

        def one(turn: ir.Value, held: list[Any]) -> list[Any]:
            states, weight, ahead, place, *sums = held
            for line in range(0, VECTORS * self.vector, LINE):
                prefetch(b, lanes.at(fetch, b.add(ahead, i64(line))))
            prefetch(b, lanes.pointer(lanes.integer(lanes.at(listed, b.mul(place, i64(8))))))
            after = b.add(place, i64(1))
            after = b.select(b.icmp_signed("<", after, a["count"]), after, a["count"])
            vectors = [lanes.load(lanes.at(start, weight)) for start in starts]
            made = []
            for r in range(self.rows):
                value = lanes.broadcast(lanes.at(lanes.at(self.left, states), r * self.vector))
                row = sums[r * len(vectors) : (r + 1) * len(vectors)]
                made += [lanes.fma(value, x, total, self.fused) for x, total in zip(vectors, row, strict=True)]
            moved = [b.add(states, i64(lanes.size)), b.add(weight, i64(step)), b.add(ahead, a["fetch_step"])]
            return [*moved, after, *made]

        def chunk(turn: ir.Value, held: list[Any]) -> list[Any]:
            rest, states, *others = held  # units that are left of the segment
            taken = b.select(b.icmp_signed("<", i64(lanes.count), rest), i64(lanes.count), rest)
            made = loop(b, taken, [states, *others], one)
            rest = b.sub(rest, taken)
            rest = b.select(b.icmp_signed("==", rest, i64(0)), a["depth"], rest)
            return [rest, b.add(states, i64(self.rows * self.vector)), *made[1:]]

        none = [lanes.zero] * (self.rows * len(places))
        begin = [a["depth"], i64(0), i64(0), i64(0), held[3], *none]
        fetched, *sums = loop(b, b.mul(a["segments"], chunks), begin, chunk)[4:]
        for r in range(self.rows):
            for v in range(len(places)):
                place = lanes.at(out, r * self.group.bytes + v * self.vector)
                lanes.store(sums[r * len(places) + v], place)
        return fetched
