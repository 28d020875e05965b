"""Loops along rows: kernels whose folds run along the last dimension of the domain.

A row stays in the cache from its first fold to its last output, so memory is read once and written once. Folds that do
not wait for one another share a pass over the row. A value that is costly to compute and needed in a later pass too is
stored where an output of the row will stand, and read again from there. Folds that run down the columns of the same
domain add each row to the partial results of its tile while it is at hand.

Deliberately not here: what a loop is made of (`loops.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from gluonish.kernels import streams
from gluonish.kernels.column_loops import LONGEST, PIECES
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.loops import HEAVY, STREAMING, STRETCH, TILE, Body, Fold, Line, Loop, Output, Pick, combined
from gluonish.kernels.scalars import SCALARS
from gluonish.kernels.streams import LINE

LONG = 512  # elements of a row from which on the next row is asked for
SHORT = 128  # elements of a row up to which rows go side by side (`abreast.py`)
GROUP = 64  # rows that do
BLOCKS = {1: (512, 8, 0), 2: (128, 6, 1)}  # pass: elements between two requests, lines asked for, quarter they begin at
NEAR = 32768  # bytes of a buffer for rows that are streamed


def rows_kernel(loop: Loop) -> Kernel:
    """A kernel for a loop with folds along its last dimension.

    Arguments: inputs, outputs, the error cell if there are picks, the dimensions, rows per tile, the loop's sizes. The
    output of a fold down columns is its partial results, (tiles, last dimension).
    """
    return Rows(loop).kernel()


class Rows:
    """Source of a rows kernel; see the module docstring."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.body = loop, Body(loop)
        self.out = self.body.text
        self.last = f"d{loop.rank - 1}"
        down = {x.name: x for x in loop.lines if isinstance(x, Fold) and x.down}
        self.full = [(i, o) for i, o in enumerate(loop.outputs) if not o.row and o.value not in down]
        self.down = [(i, down[o.value]) for i, o in enumerate(loop.outputs) if o.value in down]
        self.ends = [*(o.value for _, o in self.full), *(x.operand for _, x in self.down)]
        self.held: dict[str, int] = {}  # values that stand in the row of an output: name, number of the output
        self.done: set[str] = set()
        self.passes = 0  # over the row, so far
        self.streamed = streams.suits([o for _, o in self.full])
        self.in_stretches = False  # whether the last pass is
        self.within = 0  # depth of the loop over rows
        self.number = {line.name: i for i, line in enumerate(loop.lines)}

    def kernel(self) -> Kernel:
        """The whole source."""
        body, out, loop = self.body, self.out, self.loop
        dims = loop.rank - 1
        body.head((*(f"d{i}" for i in range(loop.rank)), "rows"))
        out(f"outer = {' * '.join(f'd{i}' for i in range(dims))}")
        if self.streamed:
            self._decide()
        if self.down:
            self._begin_tile()
        self._begin_rows()
        body.outer_indices("row", dims)
        body.point("row", dims)
        for i, o in self.full:
            self._place(i, o)
        self.done = set(body.done)
        body.settle(self.done)
        waiting = [x for x in loop.lines if isinstance(x, Pick) or (isinstance(x, Fold) and not x.down)]
        while waiting:
            ready = [x for x in waiting if self._reachable(x)]
            waiting = [x for x in waiting if x not in ready]
            self._pass([x for x in ready if isinstance(x, Fold)], waiting)
            for pick in [x for x in ready if isinstance(x, Pick)]:
                self._pick(pick)
            self.done.update(x.name for x in ready)
            body.settle(self.done)
        for i, o in enumerate(loop.outputs):
            if o.row:
                out(f"store_{o.code}(out{i}, row, {o.value})")
        alone = self.passes == 1 and len(self._streams()) == 1  # then the last pass is the one that asks for memory
        self.in_stretches = self.streamed and not self.held and self.passes > 0 and not alone
        self._outputs()
        if self.streamed:
            self._send()
        streaming = (*STREAMING[:2], ("near", "streams:buffer", (NEAR,))) if self.streamed else ()
        return Kernel(loop.name, str(out), (*body.externals(), ("prefetch", "folds:prefetch", ()), *streaming))

    # --- rows ---------------------------------------------------------------------------------------------------------
    def _decide(self) -> None:
        """Source that says whether full outputs are streamed: `large`, and how many rows at once: `together`."""
        out, dims = self.out, self.loop.rank
        streams.decide(out, self.full, self.loop.inputs, " * ".join(f"d{i}" for i in range(dims)))
        size = max(SCALARS[o.code].size for _, o in self.full)
        out(f"large = large and {self.last} <= {NEAR // size}")
        out(f"long = large and {self.last} > {STRETCH}")
        out(f"together = max(1, {STRETCH} // max(1, {self.last})) if large else outer")
        for i, _ in self.full:
            out(f"near{i} = near()")

    def _begin_rows(self) -> None:
        """Begins the loop over the rows of a tile, or of all tiles; those that are streamed together are one turn of a
        loop around it."""
        out = self.out
        first, last = ("tile * rows", "(tile + 1) * rows") if self.down else ("begin * rows", "end * rows")
        if self.streamed:
            out(f"last_row = min({last}, outer)")
            out(f"for some in range({first}, last_row, max(1, together)):")
            out.depth += 1
            out("some_end = min(some + together, last_row)")
            first, last = "some", "some_end"
        else:
            last = f"min({last}, outer)"
        self.within = out.depth
        out(f"for row in range({first}, {last}):")
        out.depth += 1

    def _place(self, i: int, o: Output) -> None:
        """Where the row of an output is computed."""
        size = SCALARS[o.code].size
        self.out(f"q{i} = out{i} + row * {self.last} * {size}")
        if self.streamed:
            self.out("if large:")
            self.out(f"    q{i} = near{i} + (row - some) * {self.last} * {size}")

    def _send(self) -> None:
        """Streams the rows that have been computed."""
        out = self.out
        out.depth = self.within
        out("if large and not long:" if self.in_stretches else "if large:")
        for i, o in self.full:
            size = f"{self.last} * {SCALARS[o.code].size}"
            out(f"    stream(out{i} + some * {size}, near{i}, (some_end - some) * {size})")
        out.depth = 1
        out("if large:")
        out("    settled()")

    def _begin_tile(self) -> None:
        out = self.out
        out("for tile in range(begin, end):")
        out.depth += 1
        for k, fold in self.down:
            out(f"sums{k} = out{k} + tile * {self.last} * {SCALARS[fold.code].size}")
        out(f"for i in range({self.last}):")
        for k, fold in self.down:
            out(f"    store_{fold.code}(sums{k}, i, {fold.initial})")

    # --- passes -------------------------------------------------------------------------------------------------------
    def _pass(self, folds: list[Fold], waiting: list[Fold | Pick]) -> None:
        """One pass over the row for folds that wait for nothing more."""
        if not folds:
            return
        out = self.out
        later = self._needed([*(x.operand for x in waiting), *self.ends])
        keep = self._worth_keeping([f.operand for f in folds], later)
        for fold in folds:
            out(f"{fold.name} = {fold.initial}")
        base = out.depth
        self._over_row(bool(waiting or self.full or self.down))
        done = self._enter()
        for fold in folds:
            self.body.value(fold.operand, done, "i")
        for name, place in keep.items():
            out(f"store_{self.loop.outputs[place].code}(q{place}, i, {name})")
        for fold in folds:
            out(f"{fold.name} = {combined(fold, fold.name, fold.operand)}")
        out.depth = base
        self.held.update(keep)

    def _outputs(self) -> None:
        left = [(i, o) for i, o in self.full if self.held.get(o.value) != i]
        if not left and not self.down:
            return
        out = self.out
        if self.in_stretches:
            self._begin_stretches()
        else:
            self._over_row()
        done = self._enter()
        for name in (*(o.value for _, o in left), *(x.operand for _, x in self.down)):
            self.body.value(name, done, "i")
        for i, o in left:
            out(f"store_{o.code}(q{i}, {'i - start' if self.in_stretches else 'i'}, {o.value})")
        for k, x in self.down:
            out(f"store_{x.code}(sums{k}, i, {combined(x, f'load_{x.code}(sums{k}, i)', x.operand)})")
        if self.in_stretches:
            self._send_stretch()

    def _begin_stretches(self) -> None:
        """Begins the last pass where nothing is held in the rows of outputs: what is streamed of a long row goes
        stretch by stretch."""
        out = self.out
        out(f"for start in range(0, {self.last}, {STRETCH} if long else max(1, {self.last})):")
        out.depth += 1
        out(f"stop = min(start + {STRETCH}, {self.last}) if long else {self.last}")
        for i, o in self.full:
            size = SCALARS[o.code].size
            out(f"q{i} = out{i} + (row * {self.last} + start) * {size}")
            out("if large:")
            out(f"    q{i} = near{i} + (row - some) * {self.last} * {size}")
        out("for i in range(start, stop):")
        out.depth += 1

    def _send_stretch(self) -> None:
        out = self.out
        out.depth -= 1
        out("if long:")
        for i, o in self.full:
            size = SCALARS[o.code].size
            out(f"    stream(out{i} + (row * {self.last} + start) * {size}, near{i}, (stop - start) * {size})")

    def _over_row(self, more: bool = False) -> None:
        """Begins a pass over the row; more: another one follows. While the first two compute on what is in the cache,
        memory brings the next row: a quarter during the first, the rest during the second."""
        out, self.passes = self.out, self.passes + 1
        read = self._streams()
        # with more of them the hardware does better alone
        if len(read) != 1 or not (self.passes == 2 or (self.passes == 1 and more)):
            out(f"for i in range({self.last}):")
            out.depth += 1
            return
        [(number, size)] = read
        block, lines, quarter = BLOCKS[self.passes]
        each = LINE // size
        out(f"for block in range(0, {self.last}, {block}):")
        out.depth += 1
        out(f"block_end = min(block + {block}, {self.last})")
        begun = f"{self.last} + {self.last} // 4 + block * 3 // 4" if quarter else f"{self.last} + block // 4"
        out(f"for i in range(0, {lines * each} if {self.last} >= {LONG} else 0, {each}):")
        out(f"    prefetch(p{number} + ({begun} + i) * {size})")
        out("for i in range(block, block_end):")
        out.depth += 1

    def _streams(self) -> list[tuple[int, int]]:
        """The inputs that are read row by row, and the size of their elements."""
        inputs = [(i, x) for i, x in enumerate(self.loop.inputs) if x.code != "key" and len(x.moves) > 1]
        return [(i, SCALARS[x.code].size) for i, x in inputs if all(x.moves)]

    def _enter(self) -> set[str]:
        """What begins the body of a pass; gives the names that are known in it."""
        self.body.places(f"row * {self.last} + i", "i")
        for name, place in self.held.items():
            self.out(f"{name} = load_{self.loop.outputs[place].code}(q{place}, i)")
        return {*self.done, *self.held}

    def _pick(self, pick: Pick) -> None:
        out = self.out
        out(f"{pick.name} = cast_{pick.code}(0)")
        out(f"if {self.last} > 0:")
        out.depth += 1
        self.body.places(f"row * {self.last} + {pick.spot}", pick.spot)
        done = set(self.done)
        self.body.value(pick.operand, done, pick.spot)
        out(f"{pick.name} = {pick.operand}")
        out.depth -= 1

    # --- what needs what ----------------------------------------------------------------------------------------------
    def _reachable(self, x: Fold | Pick) -> bool:
        """Whether everything is known that a fold or pick needs from the row as a whole."""
        if isinstance(x, Pick) and x.spot not in self.done:
            return False
        return all(n in self.done or self.body.varies(n) for n in self._needed([x.operand]) if n in self.body.lines)

    def _needed(self, names: Iterable[str]) -> set[str]:
        """Everything these values are computed from in a pass, themselves included."""
        found: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in found:
                continue
            found.add(name)
            line = self.body.lines.get(name)
            if isinstance(line, Line) and name not in self.done and name not in self.held:
                stack.extend(line.operands)
        return found

    def _worth_keeping(self, operands: list[str], later: set[str]) -> dict[str, int]:
        """The costly values of this pass that a later one needs, each with the output in whose row it can stand."""
        both = self._needed(operands) & later
        free = {i: o for i, o in self.full if i not in self.held.values()}
        keep: dict[str, int] = {}
        for name in sorted((n for n in both if self._costly(n)), key=self.number.__getitem__, reverse=True):
            inner = self._needed(keep) - set(keep)
            wanted_besides = any(name in self._operands(n) for n in later - both) or self._asked_for(name)
            if name in keep or (name in inner and not wanted_besides):
                continue
            code = self._code(name)
            places = sorted((i for i, o in free.items() if o.code == code), key=lambda i: free[i].value != name)
            if places:
                keep[name] = places[0]
                del free[places[0]]
        return keep

    def _costly(self, name: str) -> bool:
        if not self.body.varies(name) or not isinstance(self.body.lines.get(name), Line):
            return False
        lines = (self.body.lines.get(n) for n in self._needed([name]) if self.body.varies(n))
        return any(isinstance(x, Line) and x.function in HEAVY for x in lines)

    def _operands(self, name: str) -> tuple[str, ...]:
        line = self.body.lines.get(name)
        return line.operands if isinstance(line, Line) else ()

    def _asked_for(self, name: str) -> bool:
        """Whether a later pass ends in this very value."""
        ends = self.ends + [
            x.operand for x in self.loop.lines if isinstance(x, (Fold, Pick)) and x.name not in self.done
        ]
        return name in ends

    def _code(self, name: str) -> str:
        line = self.body.lines[name]
        return line.code if isinstance(line, Line) else ""


def rows_plan(dims: tuple[int, ...], weight: int, down: bool = False) -> Plan:
    """Tiles of a rows kernel; `down` says that it has folds down columns, whose partial results should be few."""
    count = 1
    for d in dims[:-1]:
        count *= d
    rows = max(1, TILE // max(1, dims[-1] * weight))
    if dims[-1] <= SHORT:  # whole groups of rows side by side
        rows = -(-rows // GROUP) * GROUP
    if down:  # of no rows there is a partial result all the same
        rows = min(max(rows, -(-count // PIECES)), LONGEST)
        return Plan((*dims, rows), max(1, -(-count // rows)))
    return Plan((*dims, rows), -(-count // rows))
