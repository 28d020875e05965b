"""The register-tiled sum of products under every contraction: one LLVM emitter, used as a Numba intrinsic.

    out[r, c] = epilogue(sum over k of left[r, k] * right[k, c])        r < rows <= MR, c < columns <= NR

A tile of MR x NR accumulators stays in registers while k runs. Matrix products, convolutions and their gradients differ
only in where left[r, k] lies, so the caller says it by a table of addresses:

walk "taps": the table has one record for each tap, MR left addresses and one right address; within a tap, k takes
    `depth` steps of `left_step` and `right_step` bytes. A matrix product is one tap; a convolution has one per weight
    position, whose left address is a row of zeros where the window leaves the image; a transposed left operand has
    neighbouring numbers as its MR addresses and the row length as its step.
walk "pairs": the table has one record for each k, a left and a right address, and left[r, k] is the r-th number at the
    left address. Weight gradients need it: there k is a pixel.

Rows that do not exist are computed again as copies of the last one (the caller repeats its left address, and the store
goes to the same place), so there are no branches on rows. Missing columns are masked. For every number of vectors up to NR
there is one internal function, so a narrow output does not pay for a wide one.

Deliberately not here: cache blocking, packing, and anything that knows what is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.epilogue import Epilogue, checked, result_of
from gluonish.kernels.tiling import Tile, tile_of

I1, I32, I64, PTR = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.PointerType()
FIRST, LAST = 1, 2  # bits of `phase`
PARAMETERS = (
    "table", "taps", "depth", "left_step", "right_step",
    "out", "offset", "out_step", "rows", "column", "columns", "phase", "extras",
)  # fmt: skip


def product(dtype: str, walk: str, mask_right: bool, epilogue: Epilogue = ()) -> Any:
    """The Numba intrinsic of one tile; all arguments are int64, see PARAMETERS.

    table: address of the records. taps: how many (walk "taps"). depth: steps of k in a tap, or records (walk "pairs").
    left_step, right_step: bytes from one k to the next (walk "taps").
    out: address of the whole output; offset: bytes from there to the tile; out_step: bytes from row to row.
    rows: rows that exist, 1..MR. column: first column of the tile, for operands of kind "column".
    columns: columns that exist, 1..NR. phase: FIRST starts from zero (else from what stands in the output), LAST applies
    the epilogue (else the bare sum is stored). extras: address of the int64 addresses of the epilogue's operands.
    mask_right: whether the right rows end with the last column (packed panels are padded, plain rows are not).
    """
    from numba.core import types
    from numba.extending import intrinsic

    tile = tile_of(dtype)
    emit = _Emitter(dtype, tile, walk, mask_right, checked(epilogue))

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        emit.dispatch(builder, list(arguments))
        return context.get_dummy_value()

    def typed(
        typing, table, taps, depth, left_step, right_step, out, offset, out_step, rows, column, columns, phase, extras
    ):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * len(PARAMETERS)), codegen

    return intrinsic(typed)


class _Emitter:
    """Emits the functions of one microkernel and the choice between them."""

    def __init__(self, dtype: str, tile: Tile, walk: str, mask_right: bool, epilogue: Epilogue) -> None:
        self.dtype, self.tile, self.walk, self.mask_right, self.epilogue = dtype, tile, walk, mask_right, epilogue
        self.number = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.vector = ir.VectorType(self.number, tile.lanes)
        self.fma = targets.current().fma

    def dispatch(self, builder: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        """Calls the function for as many vectors as the columns need."""
        columns = arguments[PARAMETERS.index("columns")]
        end = builder.append_basic_block("product.end")
        cases = [builder.append_basic_block(f"product.{v}") for v in range(1, self.tile.vectors + 1)]
        needed = builder.udiv(builder.sub(columns, _i64(1)), _i64(self.tile.lanes))
        switch = builder.switch(needed, cases[-1])
        for v, case in enumerate(cases):
            switch.add_case(_i64(v), case)
            builder.position_at_end(case)
            builder.call(self.function(builder.module, v + 1), arguments)
            builder.branch(end)
        builder.position_at_end(end)

    def function(self, module: ir.Module, vectors: int) -> ir.Function:
        """The internal function for `vectors` vectors a row, made once in a module."""
        name = f"product_{self.walk}_{self.dtype}_{self.tile.rows}x{vectors}"
        if name in module.globals:
            return module.globals[name]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * len(PARAMETERS)), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        for argument, parameter in zip(function.args, PARAMETERS, strict=True):
            argument.name = parameter
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        _Body(self, builder, function, vectors).emit()
        return function


class _Body:
    """The body of one function. `grid` below is a list of rows of vectors, one SSA value for each accumulator."""

    def __init__(self, emitter: _Emitter, builder: ir.IRBuilder, function: ir.Function, vectors: int) -> None:
        self.e, self.b, self.vectors = emitter, builder, vectors
        self.a = dict(zip(PARAMETERS, function.args, strict=True))
        self.rows, self.lanes, self.size = emitter.tile.rows, emitter.tile.lanes, emitter.tile.size

    def emit(self) -> None:
        b, a = self.b, self.a
        full = b.icmp_unsigned("==", a["columns"], _i64(self.vectors * self.lanes))
        mask = self.column_mask()
        last_row = b.sub(a["rows"], _i64(1))
        self.row_index = [self.clamp(r, last_row) for r in range(self.rows)]
        offsets = [b.add(a["offset"], b.mul(index, a["out_step"])) for index in self.row_index]
        sums = self.start(offsets, mask)
        sums = self.taps(sums, mask) if self.e.walk == "taps" else self.pairs(sums, mask)
        self.finish(sums, offsets, mask, full)

    # --- memory ---

    def pointer(self, address: ir.Value) -> ir.Value:
        return self.b.inttoptr(address, PTR)

    def at(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        offset = _i64(offset) if isinstance(offset, int) else offset
        return self.b.gep(pointer, [offset], source_etype=ir.IntType(8))

    def load(self, pointer: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        return self.b.load(pointer, align=align, typ=kind)

    def load_vector(self, pointer: ir.Value, v: int, mask: ir.Value | None) -> ir.Value:
        """Vector v of a row; the last one under the mask, if there is one."""
        pointer = self.at(pointer, v * self.lanes * self.size)
        if mask is None or v < self.vectors - 1:
            return self.load(pointer, self.e.vector, self.size)
        name = f"llvm.masked.load.v{self.lanes}f{self.size * 8}.p0"
        function = _declared(self.b.module, name, self.e.vector, [PTR, I32, mask.type, self.e.vector])
        return self.b.call(function, [pointer, ir.Constant(I32, self.size), mask, _zero(self.e.vector)])

    def store_vector(self, value: ir.Value, pointer: ir.Value, v: int, mask: ir.Value, full: ir.Value) -> None:
        """Vector v of a row. The mask is used only where columns are missing: a masked store is slow on some CPUs."""
        b = self.b
        pointer = self.at(pointer, v * self.lanes * self.size)
        if v < self.vectors - 1:
            b.store(value, pointer, align=self.size)
            return
        name = f"llvm.masked.store.v{self.lanes}f{self.size * 8}.p0"
        function = _declared(b.module, name, ir.VoidType(), [self.e.vector, PTR, I32, mask.type])
        with b.if_else(full) as (whole, part):
            with whole:
                b.store(value, pointer, align=self.size)
            with part:
                b.call(function, [value, pointer, ir.Constant(I32, self.size), mask])

    # --- rows and columns that exist ---

    def clamp(self, r: int, last_row: ir.Value) -> ir.Value:
        if r == 0:
            return _i64(0)
        return self.b.select(self.b.icmp_signed("<", _i64(r), last_row), _i64(r), last_row)

    def column_mask(self) -> ir.Value:
        """Which lanes of the last vector of a row exist."""
        left = self.b.trunc(self.b.sub(self.a["columns"], _i64((self.vectors - 1) * self.lanes)), I32)
        kind = ir.VectorType(I32, self.lanes)
        lanes = ir.Constant(kind, list(range(self.lanes)))
        return self.b.icmp_signed("<", lanes, self.splat(left, kind))

    def splat(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        empty = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(empty, value, ir.Constant(I32, 0))
        return self.b.shuffle_vector(first, empty, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))

    # --- the sum ---

    def start(self, offsets: list[ir.Value], mask: ir.Value) -> list[list[ir.Value]]:
        """Zeros, or the sums that stand in the output."""
        b = self.b
        first = b.icmp_unsigned("!=", b.and_(self.a["phase"], _i64(FIRST)), _i64(0))
        before = b.block
        resume, begin = b.append_basic_block("resume"), b.append_basic_block("begin")
        b.cbranch(first, begin, resume)
        b.position_at_end(resume)
        out = self.pointer(self.a["out"])
        held = [[self.load_vector(self.at(out, o), v, mask) for v in range(self.vectors)] for o in offsets]
        b.branch(begin)
        b.position_at_end(begin)
        zero = _zero(self.e.vector)
        return self.grid(lambda r, v: _phi(b, self.e.vector, (zero, before), (held[r][v], resume)))

    def grid(self, make: Callable[[int, int], ir.Value]) -> list[list[ir.Value]]:
        return [[make(r, v) for v in range(self.vectors)] for r in range(self.rows)]

    def taps(self, sums: list[list[ir.Value]], mask: ir.Value) -> list[list[ir.Value]]:
        """Walks the taps, and the steps within each."""
        loop = _Loop(self, "tap", self.a["taps"], sums, [_i64((self.rows + 1) * 8)])
        record = self.at(self.pointer(self.a["table"]), loop.values[0])
        left = [self.pointer(self.load(self.at(record, 8 * r), I64, 8)) for r in range(self.rows)]
        right = self.pointer(self.load(self.at(record, 8 * self.rows), I64, 8))
        inner = _Loop(self, "step", self.a["depth"], loop.sums, [self.a["left_step"], self.a["right_step"]])
        row = [self.at(pointer, inner.values[0]) for pointer in left]
        inner.close(self.step(row, self.at(right, inner.values[1]), inner.sums, mask))
        loop.close(inner.result)
        return loop.result

    def pairs(self, sums: list[list[ir.Value]], mask: ir.Value) -> list[list[ir.Value]]:
        """Walks the records of a left and a right address."""
        shifts = [self.b.mul(index, _i64(self.size)) for index in self.row_index]
        loop = _Loop(self, "pair", self.a["depth"], sums, [_i64(16)])
        record = self.at(self.pointer(self.a["table"]), loop.values[0])
        left = self.pointer(self.load(record, I64, 8))
        right = self.pointer(self.load(self.at(record, 8), I64, 8))
        row = [self.at(left, shift) for shift in shifts]
        loop.close(self.step(row, right, loop.sums, mask))
        return loop.result

    def step(
        self, row: list[ir.Value], right: ir.Value, sums: list[list[ir.Value]], column_mask: ir.Value
    ) -> list[list[ir.Value]]:
        """One k: MR numbers, each times the same vectors."""
        mask = column_mask if self.e.mask_right else None
        vectors = [self.load_vector(right, v, mask) for v in range(self.vectors)]
        result = []
        for pointer, held in zip(row, sums, strict=True):
            value = self.splat(self.load(pointer, self.e.number, self.size), self.e.vector)
            result.append([self.add_product(value, x, s) for x, s in zip(vectors, held, strict=True)])
        return result

    def add_product(self, x: ir.Value, y: ir.Value, s: ir.Value) -> ir.Value:
        if not self.e.fma:
            return self.b.fadd(self.b.fmul(x, y), s)
        name = f"llvm.fma.v{self.lanes}f{self.size * 8}"
        return self.b.call(_declared(self.b.module, name, self.e.vector, [self.e.vector] * 3), [x, y, s])

    # --- the end ---

    def finish(self, sums: list[list[ir.Value]], offsets: list[ir.Value], mask: ir.Value, full: ir.Value) -> None:
        """Stores the sums, through the epilogue in the last phase."""
        b = self.b
        if self.e.epilogue:
            last = b.icmp_unsigned("!=", b.and_(self.a["phase"], _i64(LAST)), _i64(0))
            with b.if_else(last) as (then, otherwise):
                with then:
                    self.store(self.through_epilogue(sums, offsets, mask), offsets, mask, full)
                with otherwise:
                    self.store(sums, offsets, mask, full)
        else:
            self.store(sums, offsets, mask, full)
        b.ret_void()

    def through_epilogue(
        self, sums: list[list[ir.Value]], offsets: list[ir.Value], mask: ir.Value
    ) -> list[list[ir.Value]]:
        b, kinds = self.b, self.e.epilogue[0]
        addresses = self.pointer(self.a["extras"])
        bases = [self.pointer(self.load(self.at(addresses, 8 * i), I64, 8)) for i in range(len(kinds))]
        column = b.mul(self.a["column"], _i64(self.size))

        def operand(i: int, r: int, v: int) -> ir.Value:
            if kinds[i] == "full":
                return self.load_vector(self.at(bases[i], offsets[r]), v, mask)
            return fixed[i][v]

        fixed = [self.row_operand(kind, base, column, mask) for kind, base in zip(kinds, bases, strict=True)]
        return self.grid(
            lambda r, v: result_of(self.e.epilogue, b, [sums[r][v], *[operand(i, r, v) for i in range(len(kinds))]])
        )

    def row_operand(self, kind: str, base: ir.Value, column: ir.Value, mask: ir.Value) -> list[ir.Value]:
        """The vectors of an operand that is the same in every row; none of a full one."""
        if kind == "column":
            return [self.load_vector(self.at(base, column), v, mask) for v in range(self.vectors)]
        if kind == "scalar":
            return [self.splat(self.load(base, self.e.number, self.size), self.e.vector)] * self.vectors
        return []

    def store(self, values: list[list[ir.Value]], offsets: list[ir.Value], mask: ir.Value, full: ir.Value) -> None:
        out = self.pointer(self.a["out"])
        for row, offset in zip(values, offsets, strict=True):
            pointer = self.at(out, offset)
            for v, value in enumerate(row):
                self.store_vector(value, pointer, v, mask, full)


class _Loop:
    """A counted loop (also of zero turns) that carries the accumulators; between making and `close`, its body.

    values: one number for each of `steps`, zero in the first turn and greater by the step in each further one.
    """

    def __init__(
        self, body: _Body, name: str, turns: ir.Value, sums: list[list[ir.Value]], steps: Sequence[ir.Value]
    ) -> None:
        b = self.b = body.b
        self.body, self.turns, self.initial, self.steps = body, turns, sums, (_i64(1), *steps)
        self.before, self.inside = b.block, b.append_basic_block(name)
        self.after = b.append_basic_block(name + ".end")
        b.cbranch(b.icmp_signed(">", turns, _i64(0)), self.inside, self.after)
        b.position_at_end(self.inside)
        self.counters = [_phi(b, I64, (_i64(0), self.before)) for _ in self.steps]
        self.values = self.counters[1:]
        self.sums: list[list[Any]] = body.grid(lambda r, v: _phi(b, body.e.vector, (sums[r][v], self.before)))
        self.result: list[list[ir.Value]] = []

    def close(self, sums: list[list[ir.Value]]) -> None:
        b, end = self.b, self.b.block
        following = [b.add(counter, step) for counter, step in zip(self.counters, self.steps, strict=True)]
        for counter, value in zip(self.counters, following, strict=True):
            counter.add_incoming(value, end)
        b.cbranch(b.icmp_signed("<", following[0], self.turns), self.inside, self.after)
        b.position_at_end(self.after)

        def meet(r: int, v: int) -> ir.Value:
            self.sums[r][v].add_incoming(sums[r][v], end)
            return _phi(b, self.body.e.vector, (self.initial[r][v], self.before), (sums[r][v], end))

        self.result = self.body.grid(meet)


def stack(size: int) -> Any:
    """The Numba intrinsic `() -> address` of `size` bytes that live as long as the call of the kernel."""
    from numba.core import types
    from numba.extending import intrinsic

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = 64
            return builder.ptrtoint(memory, I64)

    def typed(typing):  # type: ignore[no-untyped-def]
        return types.int64(), codegen

    return intrinsic(typed)


def _i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _zero(vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [0.0] * vector.count)


def _phi(builder: ir.IRBuilder, kind: ir.Type, *incoming: tuple[ir.Value, Any]) -> Any:
    phi = builder.phi(kind)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi


def _declared(module: ir.Module, name: str, result: ir.Type, kinds: Sequence[ir.Type]) -> ir.Function:
    """The intrinsic function of that name in the module."""
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, list(kinds)), name)
