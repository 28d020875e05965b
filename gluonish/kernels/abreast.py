"""Rows abreast: kernels for folds along short rows, with many rows side by side.

Where a row is not longer than a few vectors, what is done once a row takes longer than its memory: the last steps of
its reductions within a vector, a division, a logarithm. So a group of rows is turned first, as squares in registers:
what were the first elements of all its rows then lie next to each other. Every loop goes over the rows of the group,
whole vectors of them, whatever the length of a row; a value of a row is one lane. What comes out is turned back.

Lanes beyond the last row compute on what happens to be there, and nothing of them is stored.

Deliberately not here: long rows, and which values a pass computes (`row_loops.py`); the squares (`transposing.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from gluonish.kernels.kernel import External, Kernel
from gluonish.kernels.loops import SPOTS, STREAMING, Fold, Line, Loop, Pick, combined
from gluonish.kernels.row_loops import GROUP, SHORT, Rows
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.streams import LINE
from gluonish.kernels.tiling import tile_of

FEWEST = 16  # rows in all that are worth it
WHAT = f"{FEWEST} rows or more of 2 to {SHORT} elements"
ASKED = 2  # inputs whose next rows are asked for
MOST = 6  # arrays that are turned; each takes a buffer in the nearest cache
_FLOATS = {4: "float32", 8: "float64"}  # squares are turned as numbers of this size, whatever they are
_LIGHT = 12  # lines of a pass that goes over several elements of each row at a time
_TOGETHER = 4


def suits(loop: Loop) -> bool:
    """Whether a loop along rows can go over several rows side by side."""
    full = [x for x in loop.inputs if x.code != "key" and x.moves[-1] and any(x.moves[:-1])]
    wide = [o for o in loop.outputs if not o.row]
    sizes = [SCALARS[code].size for code in [x.code for x in full] + [o.code for o in wide]]
    outer = [set(x.moves[:-1]) for x in loop.inputs if x.code != "key"]
    plain = all(len(moves) == 1 for moves in outer) and not any(x.code == "key" for x in loop.inputs)
    halves = ({x.code for x in loop.inputs} | {o.code for o in loop.outputs}) & {"f16", "bf16"}
    return plain and not halves and loop.rank > 1 and 0 < len(sizes) <= MOST and all(s in _FLOATS for s in sizes)


def wanted(dims: tuple[int, ...]) -> bool:
    """Whether a domain has enough rows, and short enough ones."""
    count = 1
    for d in dims[:-1]:
        count *= d
    return count >= FEWEST and 1 < dims[-1] <= SHORT


def abreast_kernel(loop: Loop) -> Kernel:
    """As `rows_kernel`, with the same arguments, for rows of at most SHORT elements."""
    return _Abreast(loop).kernel()


def turning(source: str, last: str, place: str, size: int) -> list[str]:
    """Source that turns `count` rows from `row` on of an array of `outer` rows of `last` elements, so many bytes each.

    Element c of row r comes to place c * GROUP + r. What lies behind a row comes along, to places behind those of its
    last element; only at the end of the array there is nothing to come.
    """
    side = tile_of(_FLOATS[size]).lanes
    return [
        f"for r in range(0, count, {side}):",
        f"    for c in range(0, {last}, {side}):",
        f"        a, b = {source} + ((row + r) * {last} + c) * {size}, {place} + (c * {GROUP} + r) * {size}",
        f"        if (row + r + {side - 1}) * {last} + c + {side} <= outer * {last}:",
        f"            block{size}(a, {last} * {size}, b, {GROUP * size})",
        "        else:",
        f"            beside, below = min({side}, {last} - c), min({side}, count - r)",
        f"            edge{size}(a, {last} * {size}, b, {GROUP * size}, beside, below)",
    ]


def asking(source: str, last: str, size: int) -> list[str]:
    """Source that asks for a piece of the next group, in a loop over k that has a turn for each element of a row."""
    place = f"{source} + ((row + {GROUP}) * {last} + k * {GROUP}) * {size}"
    return [f"prefetch({place} + {line})" for line in range(0, size * GROUP, LINE)]


def squares(sizes: Iterable[int]) -> tuple[External, ...]:
    """The intrinsics that `turning` calls for elements of these sizes."""
    kinds = [(size, _FLOATS[size], tile_of(_FLOATS[size]).lanes) for size in sorted(set(sizes))]
    names = ("block", "edge")
    return tuple((f"{name}{size}", f"transposing:{name}", (kind, side)) for size, kind, side in kinds for name in names)


class _Abreast(Rows):
    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        inputs = list(enumerate(loop.inputs))
        self.turned = [(i, x) for i, x in inputs if x.moves[-1] and any(x.moves[:-1])]
        self.columns = {f"x{i}": x for i, x in inputs if x.moves[-1] and not any(x.moves[:-1])}
        self.of_rows = [(i, x) for i, x in inputs if not x.moves[-1] and any(x.moves[:-1])]
        self.codes = {line.name: line.code for line in loop.lines} | {f"x{i}": x.code for i, x in inputs}
        self.asked = False
        self.used: set[int] = set()  # squares: the sizes of what they turn

    def kernel(self) -> Kernel:
        """The whole source."""
        body, out, loop = self.body, self.out, self.loop
        dims = loop.rank - 1
        body.head((*(f"d{i}" for i in range(loop.rank)), "rows"))
        out(f"outer = {' * '.join(f'd{i}' for i in range(dims))}")
        if self.streamed:
            self._decide()
        self._buffers()
        out("for tile in range(begin, end):")
        out.depth += 1
        self._begin_sums()
        out("last_row = min((tile + 1) * rows, outer)")
        out(f"for row in range(tile * rows, last_row, {GROUP}):")
        out.depth += 1
        out(f"count = min({GROUP}, last_row - row)")
        self._read()
        self.done = {*body.done, *(f"x{i}" for i, _ in self.of_rows)}
        self._settle()
        waiting = [x for x in loop.lines if isinstance(x, Pick) or (isinstance(x, Fold) and not x.down)]
        while waiting:
            ready = [x for x in waiting if self._reachable(x)]
            waiting = [x for x in waiting if x not in ready]
            self._pass([x for x in ready if isinstance(x, Fold)], waiting)
            for pick in [x for x in ready if isinstance(x, Pick)]:
                self._pick(pick)
            self.done.update(x.name for x in ready)
            self._settle()
        self._outputs()
        self._write()
        if self.streamed:
            out.depth = 1
            out("if large:")
            out("    settled()")
        return Kernel(
            loop.name + "_abreast",
            str(out).replace(f"def {loop.name}(", f"def {loop.name}_abreast("),
            self._all_externals(),
        )

    def _all_externals(self) -> tuple[External, ...]:
        largest = max(SCALARS[code].size for code in [x.code for _, x in self.turned] + [o.code for _, o in self.full])
        streaming = STREAMING[:2] if self.streamed else ()
        buffers = (
            ("prefetch", "folds:prefetch", ()),
            ("turned", "streams:buffer", (SHORT * GROUP * largest,)),
            ("turned_back", "streams:buffer", ((SHORT * GROUP + 64) * largest,)),
            ("lanes", "streams:buffer", (8 * GROUP,)),
        )
        return (*self.body.externals(), *streaming, *buffers, *squares(self.used))

    # --- memory -------------------------------------------------------------------------------------------------------
    def _decide(self) -> None:
        from gluonish.kernels import streams

        streams.decide(self.out, self.full, self.loop.inputs, f"outer * {self.last}")

    def _buffers(self) -> None:
        out = self.out
        for i, _ in self.turned:
            out(f"t{i} = turned()")
        for i, _ in self.full:
            out(f"q{i} = turned()")
        if self.full:
            out("near = turned_back()")
        for name in self._values_of_rows():
            out(f"of_{name} = lanes()")

    def _values_of_rows(self) -> list[str]:
        """Everything that is one value a row."""
        lines = [x.name for x in self.loop.lines if not self.body.varies(x.name)]
        down = {x.name for x in self.loop.lines if isinstance(x, Fold) and x.down}
        return [*(f"x{i}" for i, _ in self.of_rows), *(n for n in lines if n not in down)]

    def _begin_sums(self) -> None:
        out = self.out
        for k, fold in self.down:
            out(f"sums{k} = out{k} + tile * {self.last} * {SCALARS[fold.code].size}")
        if self.down:
            out(f"for k in range({self.last}):")
            for k, fold in self.down:
                out(f"    store_{fold.code}(sums{k}, k, {fold.initial})")

    def _read(self) -> None:
        """Turns the group's rows of every input, and gets values that are one a row."""
        out = self.out
        for i, x in self.turned:
            size = SCALARS[x.code].size
            self.used.add(size)
            for line in turning(f"in{i}", self.last, f"t{i}", size):
                out(line)
        if self.of_rows:
            out("for j in range(count):")
            for i, x in self.of_rows:
                out(f"    store_{x.code}(of_x{i}, j, load_{x.code}(in{i}, row + j))")

    def _turn_back(self, i: int, size: int) -> None:
        """Turns an output's rows back. What lies beyond a row's end is written over by the next row: the squares of the
        ends come first."""
        out, side = self.out, tile_of(_FLOATS[size]).lanes
        self.used.add(size)
        out(f"for r in range(0, count, {side}):")
        out(f"    for c in range(({self.last} - 1) // {side} * {side}, -1, {-side}):")
        out(f"        a, b = q{i} + (c * {GROUP} + r) * {size}, near + (r * {self.last} + c) * {size}")
        out(f"        block{size}(a, {GROUP * size}, b, {self.last} * {size})")

    def _write(self) -> None:
        """Turns results back, and stores values that are one a row."""
        out = self.out
        for i, o in self.full:
            size, bits = SCALARS[o.code].size, f"i{8 * SCALARS[o.code].size}"
            self._turn_back(i, size)
            out(f"place = out{i} + row * {self.last} * {size}")
            copy = [f"for j in range(count * {self.last}):", f"    store_{bits}(place, j, load_{bits}(near, j))"]
            if self.streamed:
                out("if large:")
                out(f"    stream(place, near, count * {self.last} * {size})")
                copy = ["else:", *(f"    {line}" for line in copy)]
            for line in copy:
                out(line)
        ends = [(i, o) for i, o in enumerate(self.loop.outputs) if o.row]
        if ends:
            out("for j in range(count):")
            for i, o in ends:
                out(f"    store_{o.code}(out{i}, row + j, load_{o.code}(of_{o.value}, j))")

    # --- passes -------------------------------------------------------------------------------------------------------
    def _pass(self, folds: list[Fold], waiting: list[Fold | Pick]) -> None:
        """One pass over the group for folds that wait for nothing more."""
        if not folds:
            return
        out = self.out
        later = self._needed([*(x.operand for x in waiting), *self.ends])
        keep = self._worth_keeping([f.operand for f in folds], later)
        out(f"for j in range({GROUP}):")
        for fold in folds:
            out(f"    store_{fold.code}(of_{fold.name}, j, {fold.initial})")
        base = out.depth
        done = self._each([f.operand for f in folds], not (waiting or self.full or self.down))
        for fold in folds:
            self.body.value(fold.operand, done, "j")
        for name, place in keep.items():
            out(f"store_{self.loop.outputs[place].code}(q{place}, at, {name})")
        for fold in folds:
            text = combined(fold, f"load_{fold.code}(of_{fold.name}, j)", fold.operand)
            out(f"store_{fold.code}(of_{fold.name}, j, {text})")
        out.depth = base
        self.held.update(keep)

    def _outputs(self) -> None:
        left = [(i, o) for i, o in self.full if self.held.get(o.value) != i]
        out, base = self.out, self.out.depth
        if left:
            done = self._each([o.value for _, o in left], True)
            for _, o in left:
                self.body.value(o.value, done, "j")
            for i, o in left:
                out(f"store_{o.code}(q{i}, at, {o.value})")
            out.depth = base
            places = {i for i, _ in left}  # what was kept there is written over
            self.held = {name: place for name, place in self.held.items() if place not in places}
            self.held |= {o.value: i for i, o in left}
        if self.down:
            self._sums()

    def _sums(self) -> None:
        """Adds the group's rows to the partial results of folds down columns."""
        out, base = self.out, self.out.depth
        operands = [x.operand for _, x in self.down]
        out(f"for k in range({self.last}):")
        out.depth += 1
        for k, x in self.down:
            out(f"sum{k} = load_{x.code}(sums{k}, k)")
        self._load_columns(operands)
        out("for j in range(count):")
        out.depth += 1
        done = self._load(operands)
        for name in operands:
            self.body.value(name, done, "j")
        for k, x in self.down:
            out(f"sum{k} = {combined(x, f'sum{k}', x.operand)}")
        out.depth -= 1
        for k, x in self.down:
            out(f"store_{x.code}(sums{k}, k, sum{k})")
        out.depth = base

    def _each(self, names: list[str], last: bool) -> set[str]:
        """Begins the loops over a group's elements for a pass, maybe the last; gives the names that are known in it."""
        out = self.out
        out(f"for k in range({self.last}):")
        out.depth += 1
        self._ask_for_next(names, last)
        self._load_columns(names)
        out(f"for j in range({GROUP}):")
        out.depth += 1
        return self._load(names)

    def _ask_for_next(self, names: list[str], last: bool) -> None:
        """While a group is computed on, memory brings the next: in the first pass that computes much, or the last."""
        if self.asked or not (last or any(self._costly(n) for n in self._needed(names))):
            return
        self.asked = True
        for i, x in self.turned[:ASKED]:
            for line in asking(f"in{i}", self.last, SCALARS[x.code].size):
                self.out(line)

    def _load_columns(self, names: Iterable[str]) -> None:
        for name in sorted(self._needed(names) & set(self.columns)):
            self.out(f"{name} = load_{self.columns[name].code}(in{name[1:]}, k)")

    def _load(self, names: Iterable[str]) -> set[str]:
        """Loads what these values are computed from; gives the names that are known then."""
        out, needed = self.out, self._needed(names)
        asked = {o for n in needed for o in self._operands(n)} | needed
        out(f"at = k * {GROUP} + j")
        if "column" in asked:
            out("column = k")
        if "index" in asked:
            out(f"index = (row + j) * {self.last} + k")
        full = {f"x{i}": x.code for i, x in self.turned}
        for name in sorted(needed):
            if name in self.held:
                out(f"{name} = load_{self.loop.outputs[self.held[name]].code}(q{self.held[name]}, at)")
            elif name in full:
                out(f"{name} = load_{full[name]}(t{name[1:]}, at)")
        known = self._load_lanes(names)
        return {*known, *self.held, *full, *self.columns}

    def _load_lanes(self, names: Iterable[str]) -> set[str]:
        """Loads the values of rows that these names need."""
        held = {n for n in self._values_of_rows() if n in self.done}
        for name in sorted(self._needed(names) & held):
            self.out(f"{name} = load_{self.codes[name]}(of_{name}, j)")
        return set(self.done)

    def _settle(self) -> None:
        """Computes every value of rows whose operands are known by now."""
        ready: list[Line] = []
        done = set(self.done)
        for line in self.loop.lines:
            if isinstance(line, Line) and line.name not in done and not self.body.varies(line.name):
                if all(o in done or o not in self.body.lines for o in line.operands):
                    done.add(line.name)
                    ready.append(line)
        spots = [x for x in ready if x.function in SPOTS]
        out = self.out
        if ready:
            for x in spots:
                out(f"wrong_{x.name} = 0")
            out(f"for j in range({'count' if spots else GROUP}):")  # indices are checked of rows that exist only
            out.depth += 1
            self._lanes_of(ready)
            for x in ready:
                self._spot(x) if x in spots else out(f"{x.name} = {self.body.call(x)}")
                out(f"store_{x.code}(of_{x.name}, j, {x.name})")
            out.depth -= 1
        for x in spots:
            self._note_wrong(x)
        self.done = done

    def _lanes_of(self, lines: list[Line]) -> None:
        reads = {o for x in lines for o in x.operands} - {x.name for x in lines}
        for name in sorted(reads & set(self._values_of_rows())):
            self.out(f"{name} = load_{self.codes[name]}(of_{name}, j)")

    def _spot(self, x: Line) -> None:
        """As `Body.spot`, without a branch: what is wrong is counted."""
        out, at = self.out, x.name
        out(f"{at} = cast_i64({x.operands[0]})")
        if x.function == "spot":
            out(f"{at} = where(less({at}, 0), {at} + {self.last}, {at})")
        out(f"off = logical_or(less({at}, 0), greater_equal({at}, {self.last}))")
        out(f"{at} = where(off, 0, {at})")
        out(f"wrong_{at} = wrong_{at} + cast_i64(off)")

    def _note_wrong(self, x: Line) -> None:
        """Where an index is wrong, they are gone through again, one by one, to say which."""
        out = self.out
        out(f"if wrong_{x.name} > 0:")
        out.depth += 1
        out("for j in range(count):")
        out.depth += 1
        self._lanes_of([x])
        self.body.spot(x, "row + j")
        out.depth -= 2

    def _pick(self, pick: Pick) -> None:
        out = self.out
        out("for j in range(count):")
        out.depth += 1
        out(f"k = load_i64(of_{pick.spot}, j)")
        self._load_columns([pick.operand])
        done = self._load([pick.operand])
        self.body.value(pick.operand, done, "j")
        out(f"store_{pick.code}(of_{pick.name}, j, {pick.operand})")
        out.depth -= 1
