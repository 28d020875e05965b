"""Lowering of scans: along the last axis row by row, or block by block where rows are few; else down columns."""

from __future__ import annotations

from collections.abc import Callable

from gluonish.hybrid.graph import Node
from gluonish.hybrid.lower_moves import simple
from gluonish.hybrid.step import Step, temp
from gluonish.kernels import moves, scan
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.scalars import CODES
from gluonish.nd.ops.scan import SCANS
from gluonish.nd.size import same


def _scan(node: Node) -> list[Step] | None:
    assert node.op is not None
    combine, axis, reverse = SCANS[node.op.name], node.attrs["axis"], node.attrs["reverse"]
    code = CODES[node.dtype.name]
    if any(not same(size, 1) for size in node.shape[axis + 1 :]):
        return [simple(scan.column_scan_kernel(code, combine, reverse, axis), node.parents, node)]
    if combine == "linear":
        return [_row_step(scan.row_recurrence_kernel(code, reverse), node.parents, node, axis)]
    size = node.dtype.itemsize
    state = temp(node, node.shape[: axis + 1], lambda sizes: (scan.state_words(tuple(sizes), size) * 8 // size,))
    clear = simple(moves.zero_kernel(code), [], state)
    clear.nodes = [node]
    return [clear, _row_step(scan.row_scan_kernel(code, combine, reverse), [*node.parents, state], node, axis)]


def _row_step(kernel: Kernel, reads: list[Node], node: Node, axis: int) -> Step:
    """A step over rows; dimensions of 1 behind the axis do not count."""
    assert kernel.plan is not None
    make = kernel.plan
    step = simple(kernel, reads, node)
    step.plan = lambda ins, outs, sizes: make([s[: axis + 1] for s in ins], [s[: axis + 1] for s in outs])
    return step


RULES: dict[str, Callable[[Node], list[Step] | None]] = dict.fromkeys(SCANS, _scan)
