"""The stages of attention on one block of queries and keys: LLVM emitters, used as Numba intrinsics.

Queries stand in the lanes of vectors and keys in rows: a block of scores is [keys][queries]. So maxima and sums over
keys run down columns of registers, and every left operand of a product is read number by number where it lies: only the
queries' block is transposed once (`packing.transpose_block`). Rows of a block are `vectors` vectors wide.

    products    out[r] (+)= sum over k of left[r, k] * right[k], a register tile of rows at a time
    mark        scores, masked; keeps the highest score of each query
    weigh       powers of two of scores minus the highest so far, and their sums
    recall      masked scores as weights at once, by the statistics that the forward kept
    slope       the gradient of scores: weights times (gradients of weights minus the row's share)

Scores are in units of ln 2, so that weights are powers of two. Deliberately not here: blocking (`attention.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.lanes import I32, I64, PTR, VOID, Lanes, i64, intrinsic_of, loop, phi
from gluonish.kernels.packing import transposed
from gluonish.kernels.tiling import Tile
from gluonish.kernels.value import Value, declare
from gluonish.kernels.vector_steps import F32, at_least, at_most, fma, format_of, polynomial, power_of_two

# (2^r - 1) / r for |r| <= 1/2, fitted so that the largest relative error of 2^r is least: 1.5 and 0.5 units of rounding
_EXP2 = (0.69314698, 0.24022242, 0.055507337, 0.0096715127, 0.0013264727)
_EXP2_64 = (
    0.6931471805599453, 0.2402265069591013, 0.05550410866482005, 0.009618129107594112, 0.0013333558146779603,
    0.00015403530457085054, 1.5252733488946844e-05, 1.321543530701387e-06, 1.0178201269731255e-07,
    7.073777679057087e-09, 4.4345058354023924e-10,
)  # fmt: skip
Grid = list[Any]  # an SSA value for each accumulator, row after row
PRODUCT = (
    "left",
    "row_step",
    "rows",
    "left_step",
    "right",
    "right_step",
    "depth",
    "out",
    "out_step",
    "columns",
    "first",
)


def power(x: Value, positive: bool) -> Value:
    """2^x; 0 below the least ordinary number. Without `positive`, x is not above 0, or NaN."""
    f, x = format_of(x), x.strict()
    x = at_least(x, -float(f.bias))
    if positive:
        x = at_most(x, f.bias + 1.0)
    shifted = x + f.shift
    n = shifted.bits() - x.constant(f.shift).bits()
    r = x - (shifted - f.shift)
    return fma(r, polynomial(r, _EXP2 if f is F32 else _EXP2_64), x.constant(1.0)) * power_of_two(f, n)


# --- products --------------------------------------------------------------------------------------------------------
def products(dtype: str, tile: Tile) -> Any:
    """out[r, c] (+)= sum over k of left[r, k] * right[k, c]; arguments as in PRODUCT.

    left: its rows are `row_step` bytes apart, numbers of a row `left_step` bytes. right, out: their rows are
    `right_step` and `out_step` bytes apart; right is read in whole vectors. columns: of out, at most a register tile's.
    first: 1 if nothing stands in out yet. For each number of vectors there is one internal function.
    """

    def choose(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        end = b.append_basic_block("products.end")
        cases = [b.append_basic_block(f"products.{v}") for v in range(1, tile.vectors + 1)]
        columns = arguments[PRODUCT.index("columns")]
        switch = b.switch(b.udiv(b.sub(columns, i64(1)), i64(tile.lanes)), cases[-1])
        for v, case in enumerate(cases):
            switch.add_case(i64(v), case)
            b.position_at_end(case)
            b.call(_function(b.module, dtype, tile, v + 1), arguments)
            b.branch(end)
        b.position_at_end(end)

    return intrinsic_of(len(PRODUCT), choose)


def _function(module: ir.Module, dtype: str, tile: Tile, vectors: int) -> ir.Function:
    name = f"products_{vectors}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(VOID, [I64] * len(PRODUCT)), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    _Products(b, dtype, tile, vectors, dict(zip(PRODUCT, function.args, strict=True))).emit()
    b.ret_void()
    return function


class _Products:
    """The body of one function; `a` are its arguments by name."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, tile: Tile, vectors: int, arguments: dict[str, Any]) -> None:
        self.b, self.a, self.vectors, self.rows = builder, arguments, vectors, tile.rows
        self.lanes, self.fused = Lanes(builder, dtype, tile.lanes), targets.current().fma
        self.mask = self.lanes.below(builder.sub(arguments["columns"], i64((vectors - 1) * tile.lanes)))
        self.whole = builder.icmp_unsigned("==", arguments["columns"], i64(vectors * tile.lanes))

    def emit(self) -> None:
        """A register tile of rows after the other; the last one repeats its last row."""
        b, a = self.b, self.a
        last = b.sub(a["rows"], i64(1))

        def tile(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            places = [b.add(b.mul(turn, i64(self.rows)), i64(r)) for r in range(self.rows)]
            places = [b.select(b.icmp_signed("<", place, last), place, last) for place in places]
            out = [self.lanes.pointer(b.add(a["out"], b.mul(place, a["out_step"]))) for place in places]
            self.store(out, self.sums(places, self.start(out)))
            return []

        loop(b, b.sdiv(b.add(a["rows"], i64(self.rows - 1)), i64(self.rows)), [], tile)

    def at(self, pointer: ir.Value, v: int) -> ir.Value:
        """The pointer to vector v of a row."""
        return self.lanes.at(pointer, v * self.lanes.count * self.lanes.size)

    def start(self, out: list[ir.Value]) -> Grid:
        """Zeros, or what stands in the output."""
        b, ends = self.b, self.vectors - 1
        before, resume, begin = b.block, b.append_basic_block("resume"), b.append_basic_block("begin")
        b.cbranch(b.icmp_unsigned("!=", self.a["first"], i64(0)), begin, resume)
        b.position_at_end(resume)
        held = [
            self.lanes.load(self.at(row, v), self.mask if v == ends else None)
            for row in out
            for v in range(self.vectors)
        ]
        b.branch(begin)
        b.position_at_end(begin)
        return [phi(b, (self.lanes.zero, before), (value, resume)) for value in held]

    def sums(self, places: list[ir.Value], sums: Grid) -> Grid:
        """The walk over k."""
        b, a, lanes = self.b, self.a, self.lanes
        left = [lanes.pointer(b.add(a["left"], b.mul(place, a["row_step"]))) for place in places]
        right = lanes.pointer(a["right"])

        def step(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            row = lanes.at(right, held[1])
            vectors = [lanes.load(self.at(row, v)) for v in range(self.vectors)]
            found = []
            for r, pointer in enumerate(left):
                number = lanes.broadcast(lanes.at(pointer, held[0]))
                own = held[2 + r * self.vectors : 2 + (r + 1) * self.vectors]
                found += [lanes.fma(number, x, sum_, self.fused) for x, sum_ in zip(vectors, own, strict=True)]
            return [b.add(held[0], a["left_step"]), b.add(held[1], a["right_step"]), *found]

        return loop(b, a["depth"], [i64(0), i64(0), *sums], step)[2:]

    def store(self, out: list[ir.Value], sums: Grid) -> None:
        """Puts the rows; the mask is used only where columns are missing: it is slow on some CPUs."""
        places = [(row, v) for row in out for v in range(self.vectors)]
        ends = self.vectors - 1
        for (row, v), value in zip(places, sums, strict=True):
            if v != ends:
                self.lanes.store(value, self.at(row, v))
        with self.b.if_else(self.whole) as (whole, part):
            for branch, mask in ((whole, None), (part, self.mask)):
                with branch:
                    for (row, v), value in zip(places, sums, strict=True):
                        if v == ends:
                            self.lanes.store(value, self.at(row, v), mask)


# --- passes over a block of scores -----------------------------------------------------------------------------------
class _Pass:
    """A walk over a block, a column of vectors after the other: what all passes share."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, tile: Tile, vectors: ir.Value) -> None:
        self.b, self.lanes, self.vectors = builder, Lanes(builder, dtype, tile.lanes), vectors
        self.bytes = tile.lanes * tile.size  # of a vector
        self.width = builder.mul(vectors, i64(self.bytes))  # of a row

    def columns(self, body: Callable[[ir.Value, ir.Value], None]) -> None:
        """body: gets the number of a column and its offset in bytes."""

        def column(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            body(turn, self.b.mul(turn, i64(self.bytes)))
            return []

        loop(self.b, self.vectors, [], column)

    def rows(
        self,
        rows: ir.Value,
        blocks: list[tuple[ir.Value, ir.Value]],
        initial: list[ir.Value],
        body: Callable[[ir.Value, list[ir.Value], list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """Down a column of blocks, given as (address, offset); body: (row, pointers, carried) -> carried."""
        starts = [self.lanes.at(self.lanes.pointer(address), offset) for address, offset in blocks]

        def row(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            place = self.b.mul(turn, self.width)
            return body(turn, [self.lanes.at(start, place) for start in starts], held)

        return loop(self.b, rows, initial, row)

    def constant(self, number: float) -> ir.Constant:
        """A number in every lane."""
        return ir.Constant(self.lanes.vector, [number] * self.lanes.count)

    def shown(
        self, x: ir.Value, row: ir.Value, column: ir.Value, held: ir.Value, mask: str, code: str, a: dict[str, ir.Value]
    ) -> ir.Value:
        """Scores x of a row under the mask, then under the causal one.

        mask "key": a number or bool per key from address a["mask"]; "full": what `mask_block` left at the pointer held.
        a["visible"]: query t of the block sees keys up to `visible` + t.
        """
        b, lanes, hidden = self.b, self.lanes, self.constant(-math.inf)
        if mask == "full":
            added = lanes.load(held)
            x = b.select(b.fcmp_ordered("==", added, lanes.zero), x, hidden) if code == "b1" else b.fadd(x, added)
        elif mask == "key" and code == "b1":
            number = b.load(lanes.at(lanes.pointer(a["mask"]), row), align=1, typ=ir.IntType(8))
            x = b.select(b.icmp_unsigned("!=", number, ir.Constant(ir.IntType(8), 0)), x, hidden)
        elif mask == "key":
            number = lanes.broadcast(lanes.at(lanes.pointer(a["mask"]), b.mul(row, i64(lanes.size))))
            x = b.fadd(x, b.fmul(number, self.constant(1 / math.log(2))))
        if "visible" in a:
            kind = ir.VectorType(I32, lanes.count)
            first = b.sub(b.sub(row, a["visible"]), b.mul(column, i64(lanes.count)))  # the first lane that sees it
            queries = ir.Constant(kind, list(range(lanes.count)))
            x = b.select(b.icmp_signed(">=", queries, lanes.splat(b.trunc(first, I32), kind)), x, hidden)
        return x


def _arguments(names: tuple[str, ...], arguments: list[ir.Value], causal: bool) -> dict[str, ir.Value]:
    found = dict(zip(names, arguments, strict=True))
    if not causal:
        del found["visible"]
    return found


def mark(dtype: str, tile: Tile, mask: str, code: str, causal: bool) -> Any:
    """(vectors, scores, rows, added, mask, visible, highest): masks scores, keeps the highest of each query so far.

    added: the block that `mask_block` wrote. highest: address of a number per query, updated. The others: see `shown`.
    """
    names = ("vectors", "scores", "rows", "added", "mask", "visible", "highest")

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        a = _arguments(names, arguments, causal)
        one = _Pass(b, dtype, tile, a["vectors"])
        highest = one.lanes.pointer(a["highest"])

        def column(v: ir.Value, offset: ir.Value) -> None:
            def row(r: ir.Value, pointers: list[ir.Value], held: list[ir.Value]) -> list[ir.Value]:
                x = one.lanes.load(pointers[0])
                if mask != "none" or causal:
                    x = one.shown(x, r, v, pointers[1], mask, code, a)
                    one.lanes.store(x, pointers[0])
                return [b.select(b.fcmp_ordered(">", x, held[0]), x, held[0])]  # a NaN comes back in the sum

            place = one.lanes.at(highest, offset)
            blocks = [(a["scores"], offset), (a["added"], offset)]
            one.lanes.store(one.rows(a["rows"], blocks, [one.lanes.load(place)], row)[0], place)

        one.columns(column)

    return intrinsic_of(len(names), emit)


def weigh(dtype: str, tile: Tile) -> Any:
    """(vectors, scores, rows, highest, before, total, factor): scores become weights, in place.

    highest, before: addresses of the highest score of each query, with this block and without; `before` is updated.
    total: the sums of weights, updated. factor: what earlier weights must be multiplied with, written.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        vectors, scores, rows, *others = arguments
        one = _Pass(b, dtype, tile, vectors)

        def column(v: ir.Value, offset: ir.Value) -> None:
            highest, before, total, factor = (one.lanes.at(one.lanes.pointer(x), offset) for x in others)
            now = one.lanes.load(highest)
            none = b.fcmp_ordered("==", now, one.constant(-math.inf))  # -Inf - -Inf is NaN
            shift = Value(b, b.select(none, one.lanes.zero, now))
            scale = power(Value(b, one.lanes.load(before)) - shift, False).value
            one.lanes.store(scale, factor)
            one.lanes.store(now, before)

            def row(r: ir.Value, pointers: list[ir.Value], held: list[ir.Value]) -> list[ir.Value]:
                found = power(Value(b, one.lanes.load(pointers[0])) - shift, False).value
                one.lanes.store(found, pointers[0])
                return [b.fadd(held[0], found)]

            initial = b.fmul(one.lanes.load(total), scale)
            one.lanes.store(one.rows(rows, [(scores, offset)], [initial], row)[0], total)

        one.columns(column)

    return intrinsic_of(7, emit)


def recall(dtype: str, tile: Tile, mask: str, code: str, causal: bool) -> Any:
    """(vectors, scores, rows, added, mask, visible, statistics): scores become weights, in place.

    statistics: address of the scores' log-sum-exp per query, in units of ln 2. For the others see `mark`.
    """
    names = ("vectors", "scores", "rows", "added", "mask", "visible", "statistics")

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        a = _arguments(names, arguments, causal)
        one = _Pass(b, dtype, tile, a["vectors"])

        def column(v: ir.Value, offset: ir.Value) -> None:
            known = Value(b, one.lanes.load(one.lanes.at(one.lanes.pointer(a["statistics"]), offset)))

            def row(r: ir.Value, pointers: list[ir.Value], held: list[ir.Value]) -> list[ir.Value]:
                x = one.shown(one.lanes.load(pointers[0]), r, v, pointers[1], mask, code, a)
                one.lanes.store(power(Value(b, x) - known, True).value, pointers[0])
                return []

            one.rows(a["rows"], [(a["scores"], offset), (a["added"], offset)], [], row)

        one.columns(column)

    return intrinsic_of(len(names), emit)


def slope(dtype: str, tile: Tile) -> Any:
    """(vectors, slopes, rows, weights, share): slopes = weights * (slopes - share), in place.

    share: address of a number per query, what every slope loses because weights sum to one.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        vectors, slopes, rows, weights, share = arguments
        one = _Pass(b, dtype, tile, vectors)

        def column(v: ir.Value, offset: ir.Value) -> None:
            lost = one.lanes.load(one.lanes.at(one.lanes.pointer(share), offset))

            def row(r: ir.Value, pointers: list[ir.Value], held: list[ir.Value]) -> list[ir.Value]:
                x = b.fsub(one.lanes.load(pointers[0]), lost)
                one.lanes.store(b.fmul(one.lanes.load(pointers[1]), x), pointers[0])
                return []

            one.rows(rows, [(slopes, offset), (weights, offset)], [], row)

        one.columns(column)

    return intrinsic_of(5, emit)


# --- between layouts -------------------------------------------------------------------------------------------------
def unpack(dtype: str, count: int) -> Any:
    """(source, source_step, place, place_step, rows, columns): a block of at most `count` rows and columns, transposed.

    Steps in bytes. `rows` rows of whole vectors are read; `columns` rows of `rows` numbers are written, and no more.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        source, source_step, place, place_step, rows, columns = arguments
        lanes = Lanes(b, dtype, count)
        last = b.sub(rows, i64(1))
        starts = [b.select(b.icmp_signed("<", i64(r), rows), i64(r), last) for r in range(count)]
        values = transposed(b, [lanes.load(lanes.pointer(b.add(source, b.mul(source_step, r)))) for r in starts])
        ends = [lanes.pointer(b.add(place, b.mul(place_step, i64(c)))) for c in range(count)]
        mask = lanes.below(rows)
        whole = b.and_(b.icmp_signed("==", rows, i64(count)), b.icmp_signed("==", columns, i64(count)))
        with b.if_else(whole) as (then, otherwise):
            with then:
                for value, pointer in zip(values, ends, strict=True):
                    lanes.store(value, pointer)
            with otherwise:
                for c, (value, pointer) in enumerate(zip(values, ends, strict=True)):
                    with b.if_then(b.icmp_signed("<", i64(c), columns)):
                        lanes.store(value, pointer, mask)

    return intrinsic_of(6, emit)


def mask_block(dtype: str, count: int, code: str) -> Any:
    """(source, source_step, place, place_step, rows, columns): a block of a mask, transposed, as it is added to scores.

    Of the source, `rows` queries of `columns` keys; bools become 0 and -Inf, floats go into units of ln 2. `columns`
    rows of whole vectors are written.
    """

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        source, source_step, place, place_step, rows, columns = arguments
        lanes = Lanes(b, dtype, count)
        ends = [lanes.pointer(b.add(place, b.mul(place_step, i64(c)))) for c in range(count)]
        values = []
        for r in range(count):
            pointer = lanes.pointer(b.add(source, b.mul(source_step, i64(r))))
            limit = b.select(b.icmp_signed("<", i64(r), rows), columns, i64(0))
            values.append(_mask_row(lanes, pointer, lanes.below(limit), code))
        for c, (value, pointer) in enumerate(zip(transposed(b, values), ends, strict=True)):
            with b.if_then(b.icmp_signed("<", i64(c), columns)):
                lanes.store(value, pointer)

    return intrinsic_of(6, emit)


def _mask_row(lanes: Lanes, pointer: ir.Value, inside: ir.Value, code: str) -> ir.Value:
    b = lanes.builder
    if code != "b1":
        factor = ir.Constant(lanes.vector, [1 / math.log(2)] * lanes.count)
        return b.fmul(lanes.load(pointer, inside), factor)
    kind = ir.VectorType(ir.IntType(8), lanes.count)
    operands = [PTR, I32, inside.type, kind]
    function = declare(b, f"llvm.masked.load.v{lanes.count}i8.p0", kind, operands)
    nothing = ir.Constant(kind, [0] * lanes.count)
    found = b.call(function, [pointer, ir.Constant(I32, 1), inside, nothing])
    hidden = ir.Constant(lanes.vector, [-math.inf] * lanes.count)
    return b.select(b.icmp_unsigned("!=", found, nothing), lanes.zero, hidden)
