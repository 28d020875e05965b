"""The register-tiled sum of products under every contraction: one LLVM emitter, used as a Numba intrinsic.

    out[r, c] = epilogue(sum over k of left[r, k] * right[k, c])        r < MR, c < columns <= NR

A tile of MR x NR accumulators stays in registers while k runs. Matrix products, convolutions and their gradients differ
only in where left[r, k] lies, so the caller says it by tables of int64:

walk "taps": k runs over taps and, within each, over `depth` steps. The table has MR addresses for each tap, from which
    left moves by `left_step` bytes a step; `starts` has the row of the right operand at which each tap begins. A matrix
    product is one tap; a convolution has one for each weight position, with the address of zeros where the window
    leaves the image; a transposed left operand has neighbouring numbers as its MR addresses and a row as its step.
walk "pairs": the table has for each k the address of a left and of a right row; row r of the tile takes the number
    `shifts[r]` bytes into the left row. Weight gradients need it: there k is a pixel.

`out_rows` has the place of each of the MR rows in the output. A caller with fewer rows says so in `rows` and repeats
the last one in all tables: it may be computed again and stored to the same place, so there are no branches on rows.
Missing columns are masked. Narrow dtypes take a group of k in a step (`dots.py`). If the output's dtype is not that of
the sums, partial sums stand in memory of their own.

For every number of vectors up to NR's there is one internal function, so a narrow output does not pay for a wide one,
and for whole panels one for each of FEW rows.

Deliberately not here: cache blocking, packing, and anything that knows what is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.dots import SEEDED, multiply_add, narrowed, sums_of, widened
from gluonish.kernels.epilogue import Epilogue, checked, result_of
from gluonish.kernels.lanes import I64, VOID, Lanes, i64, intrinsic_of, loop, phi, prefetch
from gluonish.kernels.scalars import HALVES
from gluonish.kernels.tiling import Tile

FIRST, LAST = 1, 2  # bits of `phase`
FEW = (1, 2, 4)
OUTPUT = ("out", "out_rows", "rows", "column", "columns", "phase", "extras")
PARAMETERS = {
    "taps": ("table", "tap_step", "taps", "starts", "depth", "left_step", "right", "right_step", *OUTPUT),
    "pairs": ("table", "depth", "shifts", *OUTPUT),
}
AHEAD = ("ahead", "ahead_step")  # two more arguments of a microkernel that fetches
NARROW = ("sums",)  # one more where the output has another dtype than the sums
Grid = list[Any]  # an SSA value for each accumulator, row after row


def product(dtype: str, walk: str, tile: Tile, epilogue: Epilogue = (), ahead: bool = False, gives: str = "") -> Any:
    """The Numba intrinsic of one tile; all arguments are int64, see PARAMETERS.

    table: address of the left addresses. tap_step: bytes from a tap's addresses to the next's. taps: how many.
    starts: address of the taps' first rows of the right operand. depth: steps in a tap, or pairs. left_step: bytes
    from one k to the next. right, right_step: address of the panel's row 0, and bytes from row to row.
    shifts: address of MR offsets in bytes. out: address of the whole output. out_rows: address of MR offsets in bytes.
    rows: how many of the rows are wanted, 1 or more; above MR counts as MR.
    column: the first column, in the output and in operands of kind "column". columns: how many exist, 1..NR.
    phase: FIRST starts from zero (else from what stands in the output); LAST applies the epilogue (else the bare sum is
    stored). extras: address of the addresses of the epilogue's operands.
    ahead, ahead_step (if asked for; walk "taps"): address of memory that is wanted soon; each step fetches the cache
    line there and goes that many bytes on.
    Right rows are read in whole vectors, so they must go on for that long.
    gives: the output's dtype if it is not that of the sums. Then there is one more argument, `sums`: the address of MR
    rows of NR sums, where they stand between blocks of k.
    """
    emitter = _Emitter(dtype, Tile(*tile), walk, checked(epilogue), ahead, gives)
    return intrinsic_of(len(emitter.parameters), emitter.choose, apart=True)


def stack(size: int) -> Any:
    """The Numba intrinsic `() -> address` of `size` bytes that live as long as the call of the kernel."""

    def emit(builder: ir.IRBuilder, arguments: list[ir.Value]) -> ir.Value:
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = 64
            return builder.ptrtoint(memory, I64)

    return intrinsic_of(0, emit, gives=True)


def zeros(size: int) -> Any:
    """The Numba intrinsic `() -> address` of `size` bytes of zeros, not to be written to."""

    def emit(builder: ir.IRBuilder, arguments: list[ir.Value]) -> ir.Value:
        kind = ir.ArrayType(ir.IntType(8), size)
        known = builder.module.globals.get("zeros")
        if known is None:
            known = ir.GlobalVariable(builder.module, kind, "zeros")
            known.linkage, known.global_constant, known.align = "internal", True, 64
            known.initializer = ir.Constant(kind, None)
        return builder.ptrtoint(known, I64)

    return intrinsic_of(0, emit, gives=True)


class _Emitter:
    """Emits the functions of one microkernel and the choice between them."""

    def __init__(self, dtype: str, tile: Tile, walk: str, epilogue: Epilogue, ahead: bool, gives: str) -> None:
        self.dtype, self.tile, self.walk, self.epilogue, self.ahead = dtype, tile, walk, epilogue, ahead
        self.gives = gives or sums_of(dtype)
        self.narrow = self.gives != sums_of(dtype)
        self.parameters = (*PARAMETERS[walk], *(AHEAD if ahead else ()), *(NARROW if self.narrow else ()))
        self.fused = targets.current().fma

    def choose(self, builder: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        """Calls the function for as many vectors as the columns need, and for few rows the one for these."""
        columns, rows = (arguments[self.parameters.index(name)] for name in ("columns", "rows"))
        end = builder.append_basic_block("product.end")
        cases = [builder.append_basic_block(f"product.{v}") for v in range(1, self.tile.vectors + 1)]
        needed = builder.udiv(builder.sub(columns, i64(1)), i64(self.tile.lanes))
        switch = builder.switch(needed, cases[-1])
        for v, case in enumerate(cases):
            switch.add_case(i64(v), case)
            builder.position_at_end(case)
            if case is cases[-1]:
                for few in (few for few in FEW if few < self.tile.rows):
                    with builder.if_then(builder.icmp_signed("<=", rows, i64(few))):
                        builder.call(self.function(builder.module, few, v + 1), arguments)
                        builder.branch(end)
            builder.call(self.function(builder.module, self.tile.rows, v + 1), arguments)
            builder.branch(end)
        builder.position_at_end(end)

    def function(self, module: ir.Module, rows: int, vectors: int) -> ir.Function:
        """The internal function for that many rows and vectors a row, made once in a module."""
        name = f"product_{self.walk}_{self.dtype}_{rows}x{vectors}"
        if name in module.globals:
            return module.globals[name]
        parameters = self.parameters
        function = ir.Function(module, ir.FunctionType(VOID, [I64] * len(parameters)), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        for argument, parameter in zip(function.args, parameters, strict=True):
            argument.name = parameter
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        _Body(self, builder, dict(zip(parameters, function.args, strict=True)), rows, vectors).emit()
        return function


class _Body:
    """The body of one function; `a` are its arguments by name."""

    def __init__(
        self, emitter: _Emitter, builder: ir.IRBuilder, arguments: dict[str, Any], rows: int, vectors: int
    ) -> None:
        self.emitter, self.b, self.a, self.rows, self.vectors = emitter, builder, arguments, rows, vectors
        self.lanes = Lanes(builder, sums_of(emitter.dtype), emitter.tile.lanes)
        self.out = Lanes(builder, emitter.gives, emitter.tile.lanes)

    def emit(self) -> None:
        b, a, lanes = self.b, self.a, self.lanes
        missing = i64((self.vectors - 1) * lanes.count)
        self.mask = lanes.below(b.sub(a["columns"], missing))
        self.full = b.icmp_unsigned("==", a["columns"], i64(self.vectors * lanes.count))
        rows, column = lanes.pointer(a["out_rows"]), b.mul(a["column"], i64(self.out.size))
        self.offsets = [b.add(lanes.integer(rows, r), column) for r in range(self.rows)]
        sums = self.start()
        self.finish(self.taps(sums) if self.emitter.walk == "taps" else self.pairs(sums), column)

    def grid(self, make: Callable[[int, int], Any]) -> Grid:
        return [make(r, v) for r in range(self.rows) for v in range(self.vectors)]

    def load(self, pointer: ir.Value, v: int, masked: bool = True) -> ir.Value:
        """Vector v of a row, the last one under the mask."""
        mask = self.mask if masked and v == self.vectors - 1 else None
        return self.lanes.load(self.lanes.at(pointer, v * self.lanes.count * self.lanes.size), mask)

    # --- the sum ---

    def start(self) -> Grid:
        """The seeds, or the sums of the blocks before."""
        b, lanes = self.b, self.lanes
        first = b.icmp_unsigned("!=", b.and_(self.a["phase"], i64(FIRST)), i64(0))
        seeds = self.seeds()
        before, resume, begin = b.block, b.append_basic_block("resume"), b.append_basic_block("begin")
        b.cbranch(first, begin, resume)
        b.position_at_end(resume)
        if self.emitter.narrow:
            held = self.grid(lambda r, v: lanes.load(self.kept(r, v)))
        else:
            out = lanes.pointer(self.a["out"])
            rows = [lanes.at(out, offset) for offset in self.offsets]
            held = self.grid(lambda r, v: self.load(rows[r], v))
        b.branch(begin)
        b.position_at_end(begin)
        return [phi(b, (seed, before), (value, resume)) for seed, value in zip(seeds, held, strict=True)]

    def seeds(self) -> Grid:
        """What the sums begin as."""
        if self.emitter.dtype not in SEEDED:
            return self.grid(lambda r, v: self.lanes.zero)
        panel = self.lanes.pointer(self.a["right"])
        first = [self.load(panel, v, masked=False) for v in range(self.vectors)]
        return self.grid(lambda r, v: first[v])

    def kept(self, r: int, v: int) -> ir.Value:
        """Where the sums of vector v of row r stand between blocks of k, if not in the output."""
        lanes, tile = self.lanes, self.emitter.tile
        return lanes.at(lanes.pointer(self.a["sums"]), (r * tile.vectors + v) * lanes.count * lanes.size)

    def taps(self, sums: Grid) -> Grid:
        """Walks the taps, and the steps within each."""
        b, a, lanes = self.b, self.a, self.lanes
        table, starts, panel = (lanes.pointer(a[name]) for name in ("table", "starts", "right"))

        def tap(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            record = lanes.at(table, held[0])
            left = [lanes.pointer(lanes.integer(record, r)) for r in range(self.rows)]
            start = lanes.integer(lanes.at(starts, b.mul(turn, i64(8))))
            right = lanes.at(panel, b.mul(start, a["right_step"]))

            def step(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                row = [lanes.at(pointer, held[0]) for pointer in left]
                moved = [b.add(held[0], a["left_step"]), b.add(held[1], a["right_step"])]
                for address in held[2:first]:
                    prefetch(b, lanes.pointer(address))
                    moved.append(b.add(address, a["ahead_step"]))
                return [*moved, *self.step(row, lanes.at(right, held[1]), held[first:])]

            walked = loop(b, a["depth"], [i64(0), i64(0), *held[1:]], step)
            return [b.add(held[0], a["tap_step"]), *walked[2:]]

        ahead = [a["ahead"]] if self.emitter.ahead else []
        first = 2 + len(ahead)
        return loop(b, a["taps"], [i64(0), *ahead, *sums], tap)[first - 1 :]

    def pairs(self, sums: Grid) -> Grid:
        """Walks the pairs of a left and a right row."""
        a, lanes = self.a, self.lanes
        table, shifts = lanes.pointer(a["table"]), lanes.pointer(a["shifts"])
        offsets = [lanes.integer(shifts, r) for r in range(self.rows)]

        def pair(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
            record = lanes.at(table, self.b.mul(turn, i64(16)))
            left, right = (lanes.pointer(lanes.integer(record, i)) for i in range(2))
            return self.step([lanes.at(left, offset) for offset in offsets], right, held)

        return loop(self.b, a["depth"], sums, pair)

    def step(self, row: list[Any], right: ir.Value, sums: Grid) -> Grid:
        """One k: MR numbers, each times the same vectors."""
        vectors = [self.load(right, v, masked=False) for v in range(self.vectors)]
        result = []
        for r, pointer in enumerate(row):
            value = self.lanes.broadcast(pointer)  # next to its products: few registers are left for such values
            held = sums[r * self.vectors : (r + 1) * self.vectors]
            how = self.emitter.dtype, self.lanes, self.emitter.fused
            result += [multiply_add(*how, value, x, s) for x, s in zip(vectors, held, strict=True)]
        return result

    # --- the end ---

    def finish(self, sums: Grid, column: ir.Value) -> None:
        """Stores the sums, through the epilogue in the last phase."""
        b = self.b
        if self.emitter.epilogue or self.emitter.narrow:
            last = b.icmp_unsigned("!=", b.and_(self.a["phase"], i64(LAST)), i64(0))
            with b.if_else(last) as (then, otherwise):
                with then:
                    self.store_through_epilogue(sums, column)
                with otherwise:
                    self.keep(sums) if self.emitter.narrow else self.store(sums)
        else:
            self.store(sums)
        b.ret_void()

    def keep(self, sums: Grid) -> None:
        """Stores sums that are not whole yet, where the output cannot hold them."""
        for i, value in enumerate(sums):
            self.lanes.store(value, self.kept(*divmod(i, self.vectors)))

    def store_through_epilogue(self, sums: Grid, column: ir.Value) -> None:
        """Applies the epilogue row by row, in a loop: LLVM unrolls a short one back into registers, and a long one
        (an erf, say) stays small."""
        b, lanes, epilogue, kinds = self.b, self.lanes, self.emitter.epilogue, self.emitter.epilogue[:1]
        width, wide = lanes.count * lanes.size, self.out.count * self.out.size
        with b.goto_entry_block():
            memory = b.alloca(ir.ArrayType(lanes.vector, len(sums)))
            memory.align = 64
            held = lanes.pointer(b.ptrtoint(memory, I64))  # llvmlite gives a pointer to the array type
        for i, value in enumerate(sums):
            lanes.store(value, lanes.at(held, i * width))
        addresses, rows = lanes.pointer(self.a["extras"]), lanes.pointer(self.a["out_rows"])
        operands = [
            self.operand(kind, lanes.pointer(lanes.integer(addresses, i)), column)
            for i, kind in enumerate(kinds[0] if kinds else ())
        ]

        def row(r: ir.Value, carried: Grid) -> Grid:
            offset = b.add(lanes.integer(lanes.at(rows, b.mul(r, i64(8)))), column)
            place = lanes.at(lanes.pointer(self.a["out"]), offset)
            begin = lanes.at(held, b.mul(r, i64(self.vectors * width)))
            for v in range(self.vectors):
                values = [self.load(begin, v, masked=False), *[read(offset, v) for read in operands]]
                result = result_of(epilogue, b, values)
                if self.emitter.gives in HALVES:
                    result = narrowed(b, result, self.emitter.gives)
                if v == self.vectors - 1:
                    self.store_ends([(result, lanes.at(place, v * wide))])
                else:
                    self.out.store(result, lanes.at(place, v * wide))
            return []

        loop(b, i64(self.rows), [], row)

    def operand(self, kind: str, base: ir.Value, column: ir.Value) -> Callable[[ir.Value, int], ir.Value]:
        """How to read an operand's vector v of the row at an offset. What is the same in every row is loaded once."""
        kind, _, dtype = kind.partition(":")
        lanes = Lanes(self.b, dtype, self.lanes.count) if dtype else self.lanes

        def read(pointer: ir.Value, v: int) -> ir.Value:
            mask = self.mask if v == self.vectors - 1 else None
            value = lanes.load(lanes.at(pointer, v * lanes.count * lanes.size), mask)
            return widened(self.b, value, dtype) if dtype in HALVES else value

        if kind == "full":
            return lambda offset, v: read(lanes.at(base, self.rescaled(offset, lanes.size)), v)
        if kind == "scalar":
            value = lanes.broadcast(base)
            value = widened(self.b, value, dtype) if dtype in HALVES else value
            return lambda offset, v: value
        values = [read(lanes.at(base, self.rescaled(column, lanes.size)), v) for v in range(self.vectors)]
        return lambda offset, v: values[v]

    def rescaled(self, offset: ir.Value, size: int) -> ir.Value:
        """An offset in the output, in bytes, as one in an array of numbers of another size."""
        if size == self.out.size:
            return offset
        return self.b.mul(self.b.sdiv(offset, i64(self.out.size)), i64(size))

    def store(self, values: Grid) -> None:
        """Stores the rows, from their ends last: that needs one choice between whole and masked vectors."""
        lanes, ends = self.lanes, []
        for r, offset in enumerate(self.offsets):
            row = lanes.at(lanes.pointer(self.a["out"]), offset)
            for v in range(self.vectors):
                value, pointer = values[r * self.vectors + v], lanes.at(row, v * lanes.count * lanes.size)
                if v == self.vectors - 1:
                    ends.append((value, pointer))
                else:
                    lanes.store(value, pointer)
        self.store_ends(ends)

    def store_ends(self, ends: list[tuple[Any, Any]]) -> None:
        """Stores last vectors of rows. The mask is used only where columns are missing: it is slow on some CPUs."""
        with self.b.if_else(self.full) as (whole, part):
            with whole:
                for value, pointer in ends:
                    self.out.store(value, pointer)
            with part:
                for value, pointer in ends:
                    self.out.store(value, pointer, self.mask)
