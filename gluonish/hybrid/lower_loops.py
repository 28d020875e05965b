"""Lowering of loop groups: elementwise chains and reductions become generated kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gluonish.hybrid import long_rows
from gluonish.hybrid.fuse import Group, is_down, is_row_shape, root_of
from gluonish.hybrid.graph import Node, apply, in_shape
from gluonish.hybrid.lower_moves import copy_step, strides_of
from gluonish.hybrid.step import Aside, Step, temp
from gluonish.kernels import abreast, column_loops, loops, row_loops
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.loops import Array, Fold, Line, Loop, Output, Pick
from gluonish.kernels.scalars import CODES
from gluonish.nd.dtypes import is_float
from gluonish.nd.op import OPS
from gluonish.nd.ops.reduce import REDUCTIONS
from gluonish.nd.size import Size, SizeLike, product, same

Shape = tuple[SizeLike, ...]
_CAST_NAMES = {"bool": "boolean"}


def lower(group: Group, wanted: set[int]) -> list[Step]:
    """The steps of a map, rows or columns group; `wanted` has the ids of the values that must be in memory."""
    writes = [n for n in group.nodes if id(n) in wanted and id(n) not in group.again]
    return _Lowering(group, writes).run() if writes else []  # others may have computed all of it again


class _Lowering:
    def __init__(self, group: Group, writes: list[Node]) -> None:
        self.group = group
        self.writes = writes  # the values that are needed outside the group
        self.inputs: list[Node] = []
        self.before: list[Step] = []
        self.names: dict[int, str] = {}  # of the group's own values
        self.outside: dict[tuple[int, int], str] = {}  # of what it reads: node, dimensions added
        self.keys: set[str] = set()  # the inputs that are random keys: whole at every element
        self.lines: list[Line | Fold | Pick] = []
        self.spots: dict[int, str] = {}  # of arrays of indices
        self.indexed: Node | None = None  # the first node that looks up indices
        self.sizes: list[tuple[SizeLike, str]] = []

    def run(self) -> list[Step]:
        for node in self.group.nodes:
            self._line(node)
        steps = {"map": self._map, "rows": self._rows, "columns": self._columns}[self.group.kind]()
        return [*self.before, *steps]

    # --- lines --------------------------------------------------------------------------------------------------------
    def _line(self, node: Node) -> None:
        assert node.op is not None
        if node.is_op("pick", "unpick"):
            self._lookup(node)
            return
        name = f"v{len(self.lines)}"
        code = CODES[node.dtype.name]
        if node.is_op("broadcast_to"):
            self.names[id(node)] = self._operand(node.inputs[0], node)
            return
        if node.is_op("full"):
            self.names[id(node)] = self._number(node.attrs["value"], node.dtype)
            return
        if node.is_op("arange"):
            self._arange(node)
            return
        if node.is_op("sum") and self._sum_of_unpicked(node):
            return
        if node.op.name in REDUCTIONS:
            down = self.group.kind == "rows" and is_down(node)
            self.lines.append(replace(_fold(name, node, self._operand(node.inputs[0], node)), down=down))
        elif node.is_op("random_uniform"):
            key = self._operand(node.inputs[0], node)
            self.keys.add(key)
            self.lines.append(Line(name, "uniform", (key, "index"), node.line, code))
        elif node.is_op("cast"):
            self.lines.append(Line(name, f"cast_{code}", (self._operand(node.inputs[0], node),), node.line, code))
        else:
            operands = tuple(self._operand(x, node) for x in node.inputs)
            self.lines.append(Line(name, node.op.name, operands, node.line, code))
        self.names[id(node)] = name

    def _lookup(self, node: Node) -> None:
        """A pick takes one element of a row; its opposite is a row of zeros but for one place."""
        self.indexed = self.indexed or node
        source, indices = node.inputs
        code = CODES[node.dtype.name]
        if id(indices) not in self.spots:
            asked = self._operand(indices, node, 1)
            self.spots[id(indices)] = f"v{len(self.lines)}"
            function = "spot" if indices.dtype.kind == "i" else "unsigned_spot"
            self.lines.append(Line(self.spots[id(indices)], function, (asked,), node.line, "i64"))
        spot = self.spots[id(indices)]
        if node.is_op("pick"):
            operand = self._operand(source, node, 0)
            self.lines.append(Pick(f"v{len(self.lines)}", spot, operand, node.line, code))
        else:
            value, here = self._operand(source, node, 1), f"v{len(self.lines)}"
            self.lines.append(Line(here, "equal", ("column", spot), node.line, "b1"))
            choice = (here, value, literal(0, node.dtype))
            self.lines.append(Line(f"v{len(self.lines)}", "where", choice, node.line, code))
        self.names[id(node)] = self.lines[-1].name

    def _sum_of_unpicked(self, node: Node) -> bool:
        """The sum of a row of zeros but for one value is that value, and its negative that value's."""
        source, signs = node.inputs[0], 0
        while source.is_op("negative") and id(source) in self.group.members:
            source, signs = source.inputs[0], signs + 1
        inside = source.is_op("unpick") and id(source) in self.group.members
        if not inside or self.group.kind != "rows" or is_down(node):
            return False
        name = self._operand(source.inputs[0], source, 1)
        if signs % 2:
            self.lines.append(Line(f"v{len(self.lines)}", "negative", (name,), node.line, CODES[node.dtype.name]))
            name = self.lines[-1].name
        self.names[id(node)] = name
        return True

    def _arange(self, node: Node) -> None:
        code = CODES[node.dtype.name]
        whole = all(isinstance(node.attrs[k], (int, np.integer, Size)) for k in ("start", "step"))
        wide = "int64" if whole else "float64"  # as in eager mode
        base, scaled, moved = (f"v{len(self.lines) + i}" for i in range(3))
        cast = f"cast_{CODES[wide]}"
        self.lines += [
            Line(base, cast, ("index",), node.line, CODES[wide]),
            Line(scaled, "multiply", (base, self._number(node.attrs["step"], wide)), node.line, CODES[wide]),
            Line(moved, "add", (scaled, self._number(node.attrs["start"], wide)), node.line, CODES[wide]),
        ]
        if CODES[wide] != code:
            self.lines.append(Line(f"v{len(self.lines)}", f"cast_{code}", (moved,), node.line, code))
        self.names[id(node)] = self.lines[-1].name

    def _operand(self, x: Any, node: Node, lost: int | None = None) -> str:
        if not isinstance(x, Node):
            return self._number(x, _number_dtype(node))
        root = root_of(x)
        if id(root) in self.names and (root is x or self.group.kind == "rows"):
            return self.names[id(root)]
        if lost is None:
            # beside a value per row that has lost the row's dimensions, x gets them back as ones: ends are aligned
            reduces = node.op is not None and node.op.name in REDUCTIONS
            lost = 0 if reduces else len(self.group.domain) - len(node.shape)
        if (id(x), lost) not in self.outside:
            self.outside[id(x), lost] = f"x{len(self.inputs)}"
            self.inputs.append(in_shape(x, (*x.shape, *(1,) * lost)))
        return self.outside[id(x), lost]

    def _number(self, x: Any, dtype: Any) -> str:
        return self._size(x, dtype) if isinstance(x, Size) else literal(x, dtype)

    def _size(self, x: Size, dtype: Any) -> str:
        self.sizes.append((x, _CAST_NAMES.get(str(dtype), str(dtype))))
        return f"n{len(self.sizes) - 1}"

    # --- domains ------------------------------------------------------------------------------------------------------
    def _collapsed(self, groups: Sequence[Sequence[int]]) -> tuple[list[SizeLike], list[tuple[bool, ...]]]:
        """Dimensions and the inputs' movement over them; neighbours in a part that all treat alike become one."""
        domain = self.group.domain
        patterns = [self._pattern(axis) for axis in range(len(domain))]
        dims: list[SizeLike] = []
        moves: list[tuple[bool, ...]] = []
        for axes in groups:
            first = True
            for axis in axes:
                if same(domain[axis], 1):
                    continue
                if not first and moves[-1] == patterns[axis]:
                    dims[-1] = dims[-1] * domain[axis]
                else:
                    dims.append(domain[axis])
                    moves.append(patterns[axis])
                first = False
            if first and len(groups) > 1:  # a part of size 1 still is a dimension
                dims.append(1)
                moves.append(tuple(False for _ in self.inputs))
        if not dims:
            dims, moves = [1], [tuple(False for _ in self.inputs)]
        return dims, moves

    def _arrays(self, moves: list[tuple[bool, ...]]) -> tuple[Array, ...]:
        codes = ["key" if f"x{i}" in self.keys else CODES[x.dtype.name] for i, x in enumerate(self.inputs)]
        return tuple(Array(code, tuple(m[i] for m in moves)) for i, code in enumerate(codes))

    def _pattern(self, axis: int) -> tuple[bool, ...]:
        """For each input whether it moves along a dimension of the domain."""
        domain = self.group.domain
        return tuple(f"x{i}" not in self.keys and _moves(x, domain, axis) for i, x in enumerate(self.inputs))

    def _widened(self, parts: Sequence[Sequence[int]]) -> tuple[list[SizeLike], list[tuple[bool, ...]]]:
        """As `_collapsed`, with every part exactly one dimension: inputs that differ inside a part are spread out
        first.
        """
        while True:
            found = self._collapsed(parts)
            if len(found[0]) == len(parts):
                return found
            self._spread(parts)

    def _spread(self, parts: Sequence[Sequence[int]]) -> None:
        domain = self.group.domain
        patterns = [self._pattern(axis) for axis in range(len(domain))]
        for i, x in enumerate(self.inputs):
            if any(len({patterns[a][i] for a in axes if not same(domain[a], 1)}) > 1 for axes in parts):
                wide = apply(OPS["broadcast_to"], (x,), {"shape": domain}, x.line)
                shape = (1,) * (len(domain) - len(x.shape)) + tuple(x.shape)
                strides = [0 if same(s, 1) else t for s, t in zip(shape, strides_of(shape))]
                self.before.append(copy_step(x, wide, domain, strides, strides_of(domain)))
                self.inputs[i] = wide

    # --- kinds --------------------------------------------------------------------------------------------------------
    def _loop(
        self, kind: str, dims: list[SizeLike], moves: list[tuple[bool, ...]], outputs: tuple[Output, ...]
    ) -> Loop:
        names = [_text_of(line) for line in self.lines]
        name = "_".join([kind, *dict.fromkeys(n for n in names)])[:60] or kind
        return Loop(
            name, len(dims), self._arrays(moves), tuple(self.lines), outputs, tuple(cast for _, cast in self.sizes)
        )

    def _step(
        self, kernel: Kernel, loop: Loop, dims: list[SizeLike], writes: list[Node], plan: Any, in_place: bool
    ) -> Step:
        weight = loop.weight
        return Step(
            list(self.inputs),
            writes,
            kernel,
            lambda ins, outs, sizes: plan(tuple(sizes), weight),
            tuple(dims),
            tuple(size for size, _ in self.sizes),
            lambda ins, outs, p: 0.12 * weight * float(product(p.scalars[: len(dims)])),
            in_place,
            checks=self.indexed.op.name if self.indexed is not None and self.indexed.op is not None else "",
            nodes=[n for n in self.group.nodes if n.kind == "op"],
            indexed=self.indexed,
        )

    def _map(self) -> list[Step]:
        rank = len(self.group.domain)
        rows = self.indexed is not None  # places in a row are counted, so it must stay a dimension
        found = self._collapsed([range(rank - 1), range(rank - 1, rank)] if rows else [range(rank)])
        outputs = tuple(Output(self.names[id(n)], CODES[n.dtype.name]) for n in self.writes)
        loop = self._loop("map", *found, outputs)
        return [self._step(loops.map_kernel(loop), loop, found[0], self.writes, loops.map_plan, True)]

    def _rows(self) -> list[Step]:
        group = self.group
        rank, depth = len(group.domain), group.depth
        outer = range(rank - depth)
        inner = range(rank - depth, rank)
        while True:
            found = self._collapsed([outer, inner])
            tail = [a for a in inner if not same(group.domain[a], 1)]
            if len({self._pattern(a) for a in tail}) <= 1:
                break
            self._spread([*([a] for a in outer), inner])
        outputs = tuple(Output(self.names[id(n)], CODES[n.dtype.name], _is_row(n, group)) for n in self.writes)
        loop = self._loop("rows", *found, outputs)
        dims, sums = found[0], [n for n in self.writes if is_down(n)]
        if not sums:
            return self._whole_or_cut(loop, dims)
        weight = loop.weight

        def tiled(sizes: Sequence[int], weight: int) -> Plan:
            return row_loops.rows_plan(tuple(sizes), weight, True)

        partials = {id(n): temp(n, tuple(dims), lambda z: (tiled(z, weight).tiles * z[-1],)) for n in sums}
        writes = [partials.get(id(n), n) for n in self.writes]
        first = self._rows_step(loop, dims, writes, tiled)

        def plan(ins: Any, outs: Any, sizes: Any) -> Plan:
            return column_loops.combining((1, int(product(sizes[:-1])), sizes[-1]), tiled(sizes, weight).scalars[-1])

        folds = [x for x in self.lines if isinstance(x, Fold) and x.down]
        return [first, self._combine(folds, dims, list(partials.values()), sums, plan)]

    def _whole_or_cut(self, loop: Loop, dims: list[SizeLike]) -> list[Step]:
        whole = self._rows_step(loop, dims, self.writes, row_loops.rows_plan)
        if not long_rows.may_be_cut(loop, dims):
            return [whole]
        whole.when = lambda sizes: not long_rows.is_cut(sizes)
        return [whole, *long_rows.cut_steps(self, loop, dims, self.writes)]

    def _rows_step(self, loop: Loop, dims: list[SizeLike], writes: list[Node], plan: Any) -> Step:
        """A step along rows; short rows go side by side."""
        step = self._step(row_loops.rows_kernel(loop), loop, dims, writes, plan, False)
        if abreast.suits(loop) and not (isinstance(dims[-1], int) and dims[-1] > abreast.SHORT):
            step.aside = Aside(abreast.abreast_kernel(loop), lambda sizes: abreast.wanted(tuple(sizes)), abreast.WHAT)
        return step

    def _columns(self) -> list[Step]:
        """Two steps: partial results per chunk of the folded rows, then their combination."""
        group = self.group
        results = [n for n in group.nodes if n.op is not None and n.op.name in REDUCTIONS]
        axes, rank = results[0].attrs["axes"], len(group.domain)
        parts = (
            [range(axes[0]), range(axes[0], axes[-1] + 1), range(axes[-1] + 1, rank)] if axes else [range(rank), (), ()]
        )
        wide = any(not same(group.domain[a], 1) for a in parts[2])
        dims, moves = self._widened(parts)
        if not wide:
            dims, moves = dims[:2], moves[:2]
        outputs = tuple(Output(self.names[id(n)], CODES[n.dtype.name]) for n in results)
        loop = self._loop("columns", dims, moves, outputs)
        weight = loop.weight
        folds = [x for x in self.lines if isinstance(x, Fold)]
        partials = [
            temp(n, tuple(dims), lambda sizes: (partial_count(sizes, weight),))
            for n, fold in zip(results, folds)
            for _ in column_loops.parts(fold)
        ]
        kernel = column_loops.columns_kernel(loop)
        first = self._step(kernel, loop, dims, partials, column_loops.columns_plan, False)

        def plan(ins: Any, outs: Any, sizes: Any) -> Plan:
            return column_loops.combine_plan(tuple(sizes), weight)

        return [first, self._combine(folds, dims, partials, results, plan)]

    def _combine(
        self, folds: list[Fold], dims: list[SizeLike], partials: list[Node], results: list[Node], plan: Any
    ) -> Step:
        def work(ins: Any, outs: Any, p: Any) -> float:
            return 0.12 * len(results) * sum(float(product(shape)) for shape in ins)

        kernel = column_loops.combine_kernel(folds)
        return Step(list(partials), results, kernel, plan, tuple(dims), nodes=results, work=work)


def partial_count(dims: Sequence[int], weight: int) -> int:
    """How many partial results the first step of a columns reduction writes."""
    chunks = column_loops.chunks_in(tuple(dims), weight)
    return int(dims[0]) * chunks * (int(dims[2]) if len(dims) == 3 else 1)


def _is_row(node: Node, group: Group) -> bool:
    return is_row_shape(node.shape, group) and not _is_full(node, group) and not is_down(node)


def _is_full(node: Node, group: Group) -> bool:
    return len(node.shape) == len(group.domain) and all(same(a, b) for a, b in zip(node.shape, group.domain))


def _moves(x: Node, domain: Shape, axis: int) -> bool:
    place = axis - (len(domain) - len(x.shape))
    return place >= 0 and not (same(x.shape[place], 1) and not same(domain[axis], 1))


def _text_of(line: Line | Fold | Pick) -> str:
    """A line's part in the name of its kernel."""
    if isinstance(line, Line):
        return line.function
    return "pick" if isinstance(line, Pick) else f"{line.combine}_fold"


def _number_dtype(node: Node) -> Any:
    if node.is_op("where"):
        return node.dtype
    return next((x.dtype for x in node.inputs if isinstance(x, Node)), node.dtype)


def _fold(name: str, node: Node, operand: str) -> Fold:
    assert node.op is not None
    reduction = REDUCTIONS[node.op.name]
    value: Any = reduction.initial
    if isinstance(value, str):
        value = _extreme(node.dtype, value == "lowest")
    return Fold(name, reduction.combine, literal(value, node.dtype), operand, node.line, CODES[node.dtype.name])


def _extreme(dtype: Any, lowest: bool) -> Any:
    if is_float(dtype):
        return float("-inf") if lowest else float("inf")
    if dtype.kind == "b":
        return not lowest
    return int(np.iinfo(dtype).min if lowest else np.iinfo(dtype).max)


def literal(value: Any, dtype: Any) -> str:
    """A number in kernel source, in a dtype."""
    name = str(dtype)
    if name == "bool":
        return str(bool(value))
    if name.startswith("float"):
        value = float(value)
        if value != value:
            text = "1e999 - 1e999"
        elif value in (float("inf"), float("-inf")):
            text = "1e999" if value > 0 else "-1e999"
        else:
            text = repr(value)
        return f"{name}({text})"
    return f"{name}({int(value)})"
