"""Fused loops: the readable source of kernels that compute chains of elementwise ops, with or without reductions.

A `Loop` describes the work: arrays over a common domain, lines that compute one value from others, folds that reduce
one. Three kinds of kernel come of it:

    map_kernel      every output has the shape of the domain
    rows_kernel     folds run along the last dimension; what they give may be used again in the row (softmax, norms)
    columns_kernel  folds over the middle of (outer, folded, inner), as partial results per chunk of the folded rows

Domains are collapsed: neighbouring dimensions that every array treats alike are one. All arrays are C-contiguous; an
array moves with a dimension or is repeated along it. Sizes are arguments, so that a kernel serves all of them.

Deliberately not here: which ops are fused (hybrid decides), strides (`moves.py`), contractions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gluonish.kernels.kernel import External, Kernel, Plan
from gluonish.kernels.scalars import SCALARS

TILE = 16384  # elements of a tile for light work
HEAVY = frozenset("exp expm1 log log1p tanh sigmoid erf sin cos power gelu gelu_tanh silu softplus uniform".split())


@dataclass(frozen=True)
class Array:
    """An input: its type ("f32", or "key" for a random key) and for each dimension of the domain whether it moves."""

    code: str
    moves: tuple[bool, ...]


@dataclass(frozen=True)
class Line:
    """`name = function(operands)`; an operand is x0.. (input), n0.. (size), another line's name, or a literal."""

    name: str
    function: str
    operands: tuple[str, ...]
    note: str = ""  # the user's line; shown, not compiled


@dataclass(frozen=True)
class Fold:
    """A reduction of `operand`: starts from `initial` (source text), combines by `combine` ("add" or an op's name)."""

    name: str
    combine: str
    initial: str
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
    lines: tuple[Line | Fold, ...]
    outputs: tuple[Output, ...]
    sizes: tuple[str, ...] = ()

    @property
    def weight(self) -> int:
        """Roughly how many times a plain addition one element costs."""
        return 1 + sum(6 if isinstance(x, Line) and x.function in HEAVY else 1 for x in self.lines) // 2


class _Text:
    """Source under construction, with its indentation."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.depth = 0

    def __call__(self, row: str) -> None:
        self.rows.append("    " * self.depth + row)

    def __str__(self) -> str:
        return "\n".join(self.rows) + "\n"


class _Body:
    """What the three kinds share: heads, pointers, and the emission of values in the order in which they are needed."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.text = _Text()
        self.lines = {line.name: line for line in loop.lines}
        self.varying = _varying(loop)
        self.done: set[str] = set()

    def head(self, scalars: tuple[str, ...]) -> None:
        loop, out = self.loop, self.text
        out(f"def {loop.name}(args, begin, end):")
        out.depth = 1
        names = [f"in{i}" for i in range(len(loop.inputs))] + [f"out{i}" for i in range(len(loop.outputs))]
        for i, name in enumerate(names):
            out(f"{name} = load_i64(args, {i})")
        first = len(names) + 1  # after the scratch pointer
        for i, name in enumerate((*scalars, *(f"size{j}" for j in range(len(loop.sizes))))):
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
            if current in done or isinstance(line, Fold):
                continue
            if line is None:
                done.add(current)
                if self.varies(current) and current != "index":
                    i = int(current[1:])
                    self.text(f"{current} = load_{self.loop.inputs[i].code}(p{i}, {index})")
                continue
            missing = [o for o in line.operands if o not in done and not isinstance(self.lines.get(o), Fold)]
            if missing:
                stack += [current, *reversed(missing)]
            else:
                done.add(current)
                self.text(f"{current} = {self.call(line)}")

    def call(self, line: Line) -> str:
        """The right side of a line."""
        if line.function == "uniform":
            key = line.operands[0][1:]
            return f"uniform(seed{key}, offset{key}, {line.operands[1]})"
        return f"{line.function}({', '.join(line.operands)})"

    def uses_index(self) -> bool:
        """Whether a line asks for the element's place in the domain."""
        return any("index" in line.operands for line in self.loop.lines if isinstance(line, Line))

    def externals(self) -> tuple[External, ...]:
        """The intrinsics that are not known by name."""
        random = any(isinstance(x, Line) and x.function == "uniform" for x in self.loop.lines)
        return (("uniform", "random:uniform", ()),) if random else ()


def _varying(loop: Loop) -> frozenset[str]:
    """The values that differ along the innermost loop."""
    out = {"index", *(f"x{i}" for i, x in enumerate(loop.inputs) if x.code != "key" and x.moves[-1])}
    for line in loop.lines:
        if isinstance(line, Line) and not out.isdisjoint(line.operands):
            out.add(line.name)
    return frozenset(out)


def map_kernel(loop: Loop) -> Kernel:
    """A kernel in which every output has the shape of the domain.

    Arguments: inputs, outputs, the dimensions, the tile's rows and columns, the loop's sizes.
    """
    body = _Body(loop)
    out = body.text
    dims = loop.rank - 1
    body.head((*(f"d{i}" for i in range(loop.rank)), "rows", "columns"))
    out(f"column_tiles = (d{dims} + columns - 1) // columns")
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
    for i, output in enumerate(loop.outputs):
        out(f"q{i} = out{i}" + (f" + row * d{dims} * {SCALARS[output.code].size}" if dims else ""))
    done = set(body.done)
    for line in loop.lines:  # what does not vary along the row is computed before it
        if not body.varies(line.name):
            body.value(line.name, done, "0")
    out("for i in range(first, last):")
    out.depth += 1
    if body.uses_index():
        out(f"index = row * d{dims} + i" if dims else "index = i")
    for output in loop.outputs:
        body.value(output.value, done, "i")
    for i, output in enumerate(loop.outputs):
        out(f"store_{output.code}(q{i}, i, {output.value})")
    return Kernel(loop.name, str(out), body.externals())


def map_plan(dims: tuple[int, ...], weight: int) -> Plan:
    """Tiles of a map kernel over a domain of these dimensions."""
    *outer, last = dims
    count = 1
    for d in outer:
        count *= d
    size = max(1024, TILE // weight)
    columns = max(1, min(last, size) if outer else size)
    rows = max(1, size // columns)
    tiles = -(-count // rows) * -(-last // columns)
    return Plan((*dims, rows, columns), tiles)


def rows_kernel(loop: Loop) -> Kernel:
    """A kernel whose folds run along the last dimension of the domain. One pass over the row per fold, one for outputs.

    Arguments: inputs, outputs, the dimensions, rows per tile, the loop's sizes.
    """
    body = _Body(loop)
    out = body.text
    dims = loop.rank - 1
    last = f"d{dims}"
    body.head((*(f"d{i}" for i in range(loop.rank)), "rows"))
    out(f"outer = {' * '.join(f'd{i}' for i in range(dims))}")
    out("for row in range(begin * rows, min(end * rows, outer)):")
    out.depth += 1
    body.outer_indices("row", dims)
    body.point("row", dims)
    done = set(body.done)
    _settle(body, done)
    for fold in [x for x in loop.lines if isinstance(x, Fold)]:
        _fold_row(body, fold, done, last)
        done.add(fold.name)
        _settle(body, done)
    full = [(i, o) for i, o in enumerate(loop.outputs) if not o.row]
    for i, o in enumerate(loop.outputs):
        if o.row:
            out(f"store_{o.code}(out{i}, row, {o.value})")
    if full:
        for i, o in full:
            out(f"q{i} = out{i} + row * {last} * {SCALARS[o.code].size}")
        out(f"for i in range({last}):")
        out.depth += 1
        if body.uses_index():
            out(f"index = row * {last} + i")
        inner = set(done)
        for _, o in full:
            body.value(o.value, inner, "i")
        for i, o in full:
            out(f"store_{o.code}(q{i}, i, {o.value})")
    return Kernel(loop.name, str(out), body.externals())


def _settle(body: _Body, done: set[str]) -> None:
    """Emits every line that does not vary along the row and whose operands are known by now."""
    for line in body.loop.lines:
        if isinstance(line, Line) and line.name not in done and not body.varies(line.name):
            if all(o in done or o not in body.lines for o in line.operands):
                body.value(line.name, done, "0")


def _fold_row(body: _Body, fold: Fold, done: set[str], last: str) -> None:
    out = body.text
    out(f"{fold.name} = {fold.initial}")
    out(f"for i in range({last}):")
    out.depth += 1
    if body.uses_index():
        out(f"index = row * {last} + i")
    body.value(fold.operand, set(done), "i")
    out(f"{fold.name} = {_combined(fold, fold.name, fold.operand)}")
    out.depth -= 1


def _combined(fold: Fold, left: str, right: str) -> str:
    # plain operators may be reassociated, which is what lets a sum use vectors
    signs = {"add": "+", "multiply": "*"}
    if fold.combine not in signs:
        return f"{fold.combine}({left}, {right})"
    text = f"{left} {signs[fold.combine]} {right}"
    return text if fold.code in ("f32", "f64", "i64") else f"cast_{fold.code}({text})"


def rows_plan(dims: tuple[int, ...], weight: int) -> Plan:
    """Tiles of a rows kernel."""
    count = 1
    for d in dims[:-1]:
        count *= d
    rows = max(1, TILE // max(1, dims[-1] * weight))
    return Plan((*dims, rows), -(-count // rows))


def columns_kernel(loop: Loop) -> Kernel:
    """A kernel that folds the middle of a domain (outer, folded, inner) in chunks of folded rows: partial results.

    Shapes: an output per fold, (outer, chunks, inner). Arguments: inputs, outputs, the three dimensions, rows per
    chunk, columns per tile, the loop's sizes. With rank 2 there is no inner dimension, and outputs are (outer, chunks).
    """
    body = _Body(loop)
    out = body.text
    folds = [x for x in loop.lines if isinstance(x, Fold)]
    wide = loop.rank == 3
    body.head(("d0", "d1", *(("d2", "rows", "columns") if wide else ("rows",))))
    out("chunks = max(1, (d1 + rows - 1) // rows)")
    if wide:
        out("column_tiles = (d2 + columns - 1) // columns")
    out("for tile in range(begin, end):")
    out.depth += 1
    if wide:
        out("first = tile % column_tiles * columns")
        out("last = min(first + columns, d2)")
    out(f"piece = tile{' // column_tiles' if wide else ''}")
    out("i0 = piece // chunks")
    out("row_begin = piece % chunks * rows")
    out("row_end = min(row_begin + rows, d1)")
    (_fold_columns if wide else _fold_stretch)(body, folds)
    return Kernel(loop.name, str(out), body.externals())


def _fold_columns(body: _Body, folds: list[Fold]) -> None:
    out = body.text
    for k, fold in enumerate(folds):
        out(f"sums{k} = out{k} + piece * d2 * {SCALARS[fold.code].size}")
    out("for i in range(first, last):")
    for k, fold in enumerate(folds):
        out(f"    store_{fold.code}(sums{k}, i, {fold.initial})")
    out("for i1 in range(row_begin, row_end):")
    out.depth += 1
    out("row = i0 * d1 + i1")
    body.point("row", 2)
    done = set(body.done)
    out("for i in range(first, last):")
    out.depth += 1
    if body.uses_index():
        out("index = row * d2 + i")
    for fold in folds:
        body.value(fold.operand, done, "i")
    for k, fold in enumerate(folds):
        out(f"store_{fold.code}(sums{k}, i, {_combined(fold, f'load_{fold.code}(sums{k}, i)', fold.operand)})")


def _fold_stretch(body: _Body, folds: list[Fold]) -> None:
    out = body.text
    body.point("i0", 1)
    done = set(body.done)
    for fold in folds:
        out(f"{fold.name} = {fold.initial}")
    out("for i in range(row_begin, row_end):")
    out.depth += 1
    if body.uses_index():
        out("index = i0 * d1 + i")
    for fold in folds:
        body.value(fold.operand, done, "i")
    for fold in folds:
        out(f"{fold.name} = {_combined(fold, fold.name, fold.operand)}")
    out.depth -= 1
    for k, fold in enumerate(folds):
        out(f"store_{fold.code}(out{k}, tile, {fold.name})")


def columns_plan(dims: tuple[int, ...], weight: int, chunked: bool = True) -> Plan:
    """Tiles of a columns kernel. The chunks depend on sizes only, so results do not depend on the number of threads."""
    outer, folded = dims[0], dims[1]
    if len(dims) == 2:
        rows = max(1, TILE // weight if chunked else folded)
        return Plan((outer, folded, rows), outer * chunks_of(folded, rows))
    columns = max(1, min(dims[2], 2048))
    rows = max(1, TILE // (weight * columns) if chunked else folded)
    return Plan((outer, folded, dims[2], rows, columns), outer * chunks_of(folded, rows) * -(-dims[2] // columns))


def chunks_of(folded: int, rows: int) -> int:
    """How many partial results there are; one even for nothing to fold, so that an empty sum is its initial value."""
    return max(1, -(-folded // rows))


def shown(loop: Loop) -> Iterator[str]:
    """Which of the user's lines the values of a loop come from, for people."""
    for line in loop.lines:
        if line.note:
            what = line.function if isinstance(line, Line) else f"fold {line.combine}"
            yield f"# {line.name}: {what} at {line.note}"
