"""Fused loops: the readable source of kernels that compute chains of elementwise ops, with or without reductions.

A `Loop` describes the work: arrays over a common domain, lines that compute one value from others, folds that reduce
one, picks that take one element of a row. Three kinds of kernel come of it:

    map_kernel      every output has the shape of the domain (here)
    rows_kernel     folds run along the last dimension; what they give may be used again in the row (`row_loops.py`)
    columns_kernel  folds over the middle of (outer, folded, inner), as partial results per chunk of the folded rows
                    (`column_loops.py`)

Domains are collapsed: neighbouring dimensions that every array treats alike are one. All arrays are C-contiguous; an
array moves with a dimension or is repeated along it. Sizes are arguments, so that a kernel serves all of them.

Deliberately not here: which ops are fused (hybrid decides), strides (`moves.py`), contractions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gluonish.kernels import streams
from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.streams import LINE

TILE = 16384  # elements of a tile for light work
STRETCH = 1024  # elements that are streamed together; random numbers that are made before they are used
SOME = 64  # blocks of random numbers that are made between two requests for memory
DRAWING = (
    ("uniform", "random:uniform", ()),
    ("uniform_blocks", "random:uniform_blocks", ()),
    ("local_numbers", "random:local", (4 * (STRETCH + 256),)),  # room for a shift, and for blocks beyond the last
    ("prefetch", "folds:prefetch", ()),
)
STREAMING = (
    ("stream", "streams:stream", ()),
    ("settled", "streams:settled", ()),
    ("near", "streams:buffer", (8 * STRETCH,)),
)
EXTREMES = {"maximum": "larger", "minimum": "smaller"}  # of floats, as folds: see `folds.py`
SPOTS = ("spot", "unsigned_spot")
PLACES = ("index", "column")  # operands that are the element's place
HEAVY = frozenset("exp expm1 log log1p tanh sigmoid erf sin cos power gelu gelu_tanh silu softplus uniform".split())


@dataclass(frozen=True)
class Array:
    """An input: its type ("f32", or "key" for a random key) and for each dimension of the domain whether it moves."""

    code: str
    moves: tuple[bool, ...]


@dataclass(frozen=True)
class Line:
    """`name = function(operands)`; an operand is x0.. (input), n0.. (size), another line's name, or a literal; "index"
    is the element's place in the domain, "column" its place in its row.

    The functions of SPOTS turn an index into a place in the row and note one that is out of range in the error cell; of
    signed indices, negative ones count from the end.
    """

    name: str
    function: str
    operands: tuple[str, ...]
    note: str = ""  # the user's line; shown, not compiled
    code: str = ""  # the type of the value


@dataclass(frozen=True)
class Fold:
    """A reduction of `operand`: starts from `initial` (source text), combines by `combine` ("add" or an op's name).

    down: of a loop along rows, it runs down the columns all the same.
    """

    name: str
    combine: str
    initial: str
    operand: str
    note: str = ""
    code: str = "f32"
    down: bool = False


@dataclass(frozen=True)
class Pick:
    """The value of `operand` at the place `spot` (a line's name) of the row; 0 in a row of nothing."""

    name: str
    spot: str
    operand: str
    note: str = ""
    code: str = "f32"


@dataclass(frozen=True)
class Output:
    """A value to store and its type; `row` outputs have one element per row."""

    value: str
    code: str
    row: bool = False


@dataclass(frozen=True)
class Loop:
    """See the module docstring. `sizes` are the casting types of integer arguments that lines use as numbers."""

    name: str
    rank: int
    inputs: tuple[Array, ...]
    lines: tuple[Line | Fold | Pick, ...]
    outputs: tuple[Output, ...]
    sizes: tuple[str, ...] = ()

    @property
    def checks(self) -> bool:
        """Whether it looks up indices, and so needs the error cell."""
        return any(isinstance(x, Line) and x.function in SPOTS for x in self.lines)

    @property
    def weight(self) -> int:
        """Roughly how many times a plain addition one element costs."""
        return 1 + sum(6 if isinstance(x, Line) and x.function in HEAVY else 1 for x in self.lines) // 2


class Text:
    """Source under construction, with its indentation."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.depth = 0

    def __call__(self, row: str) -> None:
        """Adds a line."""
        self.rows.append("    " * self.depth + row)

    def __str__(self) -> str:
        return "\n".join(self.rows) + "\n"


class Body:
    """What the three kinds share: heads, pointers, and the emission of values in the order in which they are needed."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.text = Text()
        self.lines = {line.name: line for line in loop.lines}
        self.varying = _varying(loop)
        self.done: set[str] = set()

    def head(self, scalars: tuple[str, ...]) -> None:
        """The first lines: the function's name, its arguments, and values that are the same everywhere."""
        loop, out = self.loop, self.text
        out(f"def {loop.name}(args, begin, end):")
        out.depth = 1
        names = [f"in{i}" for i in range(len(loop.inputs))] + [f"out{i}" for i in range(len(loop.outputs))]
        for i, name in enumerate(names):
            out(f"{name} = load_i64(args, {i})")
        if loop.checks:
            out(f"errors = load_i64(args, {len(names)})")
        first = len(names) + loop.checks + 1  # after the scratch pointer
        step = ("step",) if loop.checks else ()
        for i, name in enumerate((*scalars, *(f"size{j}" for j in range(len(loop.sizes))), *step)):
            out(f"{name} = load_i64(args, {first + i})")
        for i, cast in enumerate(loop.sizes):
            out(f"n{i} = {cast}(size{i})")
        for i, x in enumerate(loop.inputs):
            if x.code == "key":
                out(f"seed{i} = load_i64(in{i}, 0)")
                out(f"offset{i} = load_i64(in{i}, 1)")
            elif not any(x.moves):
                out(f"x{i} = load_{x.code}(in{i}, 0)")
                self.done.add(f"x{i}")

    def outer_indices(self, row: str, dims: int) -> None:
        """i0, i1, ... of the outer dimensions from the flattened row, where some array needs them apart."""
        if not any(len(set(x.moves[:dims])) > 1 for x in self.loop.inputs if x.code != "key"):
            return
        rest = row
        for d in range(dims - 1, 0, -1):
            self.text(f"i{d} = {rest} % d{d}")
            self.text(f"r{d} = {rest} // d{d}")
            rest = f"r{d}"
        self.text(f"i0 = {rest}")

    def row_offset(self, x: Array, row: str, dims: int) -> str:
        """The offset of an array's row, in rows of its last dimension."""
        if all(x.moves[:dims]):
            return row
        offset = ""
        for d in range(dims):
            if x.moves[d]:
                offset = f"i{d}" if not offset else f"({offset}) * d{d} + i{d}"
        return offset or "0"

    def point(self, row: str, dims: int) -> None:
        """Pointers to this row of every array; values that are the same along the row are loaded."""
        last = f"d{dims}"
        for i, x in enumerate(self.loop.inputs):
            if x.code == "key" or f"x{i}" in self.done and not any(x.moves):
                continue
            offset, size = self.row_offset(x, row, dims), SCALARS[x.code].size
            if x.moves[-1]:
                self.text(f"p{i} = in{i}" + (f" + ({offset}) * {last} * {size}" if offset != "0" else ""))
            else:
                self.text(f"x{i} = load_{x.code}(in{i}, {offset})")

    def varies(self, name: str) -> bool:
        """Whether a value differs along the innermost loop."""
        return name in self.varying

    def value(self, name: str, done: set[str], index: str) -> None:
        """Emits what `name` needs and is not `done`, then `name` itself; without recursion, as chains may be long."""
        stack = [name]
        while stack:
            current = stack.pop()
            line = self.lines.get(current)
            if current in done or isinstance(line, (Fold, Pick)):
                continue
            if line is None:
                done.add(current)
                if self.varies(current) and current not in PLACES:
                    i = int(current[1:])
                    self.text(f"{current} = load_{self.loop.inputs[i].code}(p{i}, {index})")
                continue
            missing = [o for o in line.operands if o not in done and not isinstance(self.lines.get(o), (Fold, Pick))]
            if missing:
                stack += [current, *reversed(missing)]
            else:
                done.add(current)
                if line.function in SPOTS:
                    self.spot(line)
                else:
                    self.text(f"{current} = {self.call(line)}")

    def call(self, line: Line) -> str:
        """The right side of a line."""
        if line.function == "uniform":
            key = line.operands[0][1:]
            return f"uniform(seed{key}, offset{key}, {line.operands[1]})"
        return f"{line.function}({', '.join(line.operands)})"

    def spot(self, line: Line, row: str = "row") -> None:
        """Where in its row an index points, from the start; 0 with a note in the error cell if it is out of range."""
        out, last = self.text, f"d{self.loop.rank - 1}"
        at, position = line.name, row if self.loop.rank > 1 else "0"
        out(f"asked = cast_i64({line.operands[0]})")
        out(f"{at} = asked + {last} if asked < 0 else asked" if line.function == "spot" else f"{at} = asked")
        out(f"if {at} < 0 or {at} >= {last}:")
        out(f"    {at} = 0")
        out("    if atomic_compare_exchange(errors, 0, step + 1) == 0:")
        for word, value in enumerate((position, "asked", last), 1):
            out(f"        write_i64(errors, {word}, {value})")

    def places(self, index: str, column: str) -> None:
        """The element's places, where a line asks for them."""
        asked = {o for line in self.loop.lines if isinstance(line, Line) for o in line.operands}
        if "index" in asked:
            self.text(f"index = {index}")
        if "column" in asked:
            self.text(f"column = {column}")

    def settle(self, done: set[str]) -> None:
        """Emits every line that does not vary along the row and whose operands are known by now."""
        for line in self.loop.lines:
            if isinstance(line, Line) and line.name not in done and not self.varies(line.name):
                if all(o in done or o not in self.lines for o in line.operands):
                    self.value(line.name, done, "0")

    def externals(self) -> tuple[External, ...]:
        """The intrinsics that are not known by name."""
        lines = self.loop.lines
        random = any(isinstance(x, Line) and x.function == "uniform" for x in lines)
        folds = extremes([x for x in lines if isinstance(x, Fold)])
        return (*DRAWING, *folds) if random else folds


def _varying(loop: Loop) -> frozenset[str]:
    """The values that differ along the innermost loop."""
    out = {*PLACES, *(f"x{i}" for i, x in enumerate(loop.inputs) if x.code != "key" and x.moves[-1])}
    for line in loop.lines:
        if isinstance(line, Line) and not out.isdisjoint(line.operands):
            out.add(line.name)
    return frozenset(out)


def extremes(folds: Sequence[Fold]) -> tuple[External, ...]:
    """The intrinsics that combine extremes."""
    names = {x.combine for x in folds if x.combine in EXTREMES}
    return tuple((EXTREMES[name], "folds:extreme", (name,)) for name in sorted(names))


def map_kernel(loop: Loop) -> Kernel:
    """A kernel in which every output has the shape of the domain.

    Arguments: inputs, outputs, the dimensions, the tile's rows and columns, the loop's sizes.
    """
    body = Body(loop)
    out = body.text
    dims = loop.rank - 1
    body.head((*(f"d{i}" for i in range(loop.rank)), "rows", "columns"))
    streamed = streams.suits(loop.outputs)
    if streamed:
        streams.decide(out, list(enumerate(loop.outputs)), loop.inputs, " * ".join(f"d{i}" for i in range(loop.rank)))
        out(f"large = large and d{dims} >= {streams.SHORTEST}")
    out(f"column_tiles = max(1, (d{dims} + columns - 1) // columns)")  # rows of nothing may still have indices
    if dims:
        out(f"outer = {' * '.join(f'd{i}' for i in range(dims))}")
    out("for tile in range(begin, end):")
    out.depth += 1
    out("first = tile % column_tiles * columns")
    out(f"last = min(first + columns, d{dims})")
    if dims:
        out("row_begin = tile // column_tiles * rows")
        out("for row in range(row_begin, min(row_begin + rows, outer)):")
        out.depth += 1
    body.outer_indices("row", dims)
    body.point("row" if dims else "0", dims)
    done = set(body.done)
    for line in loop.lines:  # what does not vary along the row is computed before it
        if not body.varies(line.name):
            body.value(line.name, done, "0")
    drawn = [x for x in loop.lines if isinstance(x, Line) and x.function == "uniform"]
    begin = _stretches(body, drawn, streamed) if drawn or streamed else "first"
    for i, output in enumerate(loop.outputs):
        place = f"out{i}" + (f" + row * d{dims} * {SCALARS[output.code].size}" if dims else "")
        out(f"q{i} = {place} + {begin} * {SCALARS[output.code].size}")
    if streamed:
        out("if large:")
        for i in range(len(loop.outputs)):
            out(f"    q{i} = near{i}")
    if drawn:
        _draw(body, drawn, dims)
    out(f"for i in range({begin}, {'stop' if begin != 'first' else 'last'}):")
    out.depth += 1
    body.places(f"row * d{dims} + i" if dims else "i", "i")
    for line in drawn:
        out(f"{line.name} = load_f32(numbers_{line.name}, i - start + shift)")
        done.add(line.name)
    for output in loop.outputs:
        body.value(output.value, done, "i")
    for i, output in enumerate(loop.outputs):
        out(f"store_{output.code}(q{i}, i - {begin}, {output.value})")
    if streamed:
        out.depth -= 1
        out("if large:")
        for i, output in enumerate(loop.outputs):
            size = SCALARS[output.code].size
            place = f"(row * d{dims} + {begin})" if dims else begin
            out(f"    stream(out{i} + {place} * {size}, near{i}, (stop - {begin}) * {size})")
        out.depth = 1
        out("if large:")
        out("    settled()")
    return Kernel(loop.name, str(out), (*body.externals(), *(STREAMING if streamed else ())))


def _stretches(body: Body, drawn: list[Line], streamed: bool) -> str:
    """Begins a loop over stretches of the tile; gives the name of where one begins."""
    out, loop = body.text, body.loop
    for line in drawn:
        out(f"numbers_{line.name} = local_numbers()")
    if not streamed:
        out(f"for start in range(first, last, {STRETCH}):")
        out.depth += 1
        out(f"stop = min(start + {STRETCH}, last)")
        return "start"
    size, dims = SCALARS[loop.outputs[0].code].size, loop.rank - 1
    for i in range(len(loop.outputs)):
        out(f"near{i} = near()")
    out(f"stretch = {STRETCH}" if drawn else f"stretch = {STRETCH} if large else last - first")
    row = f"row * d{dims} + " if dims else ""
    out(f"ahead = (out0 + ({row}first) * {size}) % {LINE} // {size} if large else 0  # stretches end where lines do")
    out("for turn in range(first - ahead, last, max(1, stretch)):")
    out.depth += 1
    out("start = max(turn, first)")
    out("stop = min(turn + stretch, last)")
    return "start"


def _draw(body: Body, drawn: list[Line], dims: int) -> None:
    """Makes the random numbers of a stretch before they are used, a block of four at a time. Memory brings meanwhile
    what the next stretch reads."""
    out = body.text
    out(f"place = row * d{dims} + start" if dims else "place = start")
    out("shift = place % 4")
    out("blocks = (shift + stop - start + 3) // 4")
    out(f"for some in range(0, blocks, {SOME}):")
    out.depth += 1
    for i, x in enumerate(body.loop.inputs):
        if x.code != "key" and x.moves[-1]:
            size = SCALARS[x.code].size
            out(f"for line in range(0, {4 * SOME * size}, {LINE}):")
            out(f"    prefetch(p{i} + (start + {STRETCH} + 4 * some) * {size} + line)")
    out(f"count = min({SOME}, blocks - some)")
    for line in drawn:
        key, name = line.operands[0][1:], line.name
        out(f"uniform_blocks(seed{key}, offset{key} + place // 4 + some, numbers_{name} + 16 * some, count)")
    out.depth -= 1


def map_plan(dims: tuple[int, ...], weight: int) -> Plan:
    """Tiles of a map kernel over a domain of these dimensions."""
    *outer, last = dims
    count = 1
    for d in outer:
        count *= d
    size = max(1024, TILE // weight)
    columns = max(1, min(last, size) if outer else size)
    rows = max(1, size // columns)
    tiles = -(-count // rows) * max(1, -(-last // columns))
    return Plan((*dims, rows, columns), tiles)


def combined(fold: Fold, left: str, right: str) -> str:
    """Source of two partial results as one."""
    # plain operators may be reassociated, which is what lets a sum use vectors
    signs = {"add": "+", "multiply": "*"}
    if fold.combine in EXTREMES and fold.code in ("f32", "f64"):
        return f"{EXTREMES[fold.combine]}({left}, {right})"
    if fold.combine not in signs:
        return f"{fold.combine}({left}, {right})"
    text = f"{left} {signs[fold.combine]} {right}"
    return text if fold.code in ("f32", "f64", "i64") else f"cast_{fold.code}({text})"


def shown(loop: Loop) -> Iterator[str]:
    """Which of the user's lines the values of a loop come from, for people."""
    for line in loop.lines:
        if line.note:
            what = line.function if isinstance(line, Line) else "pick" if isinstance(line, Pick) else line.combine
            yield f"# {line.name}: {what} at {line.note}"
