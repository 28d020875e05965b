"""Lowering of rows written into an array: in place where the array is not needed as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gluonish.hybrid.graph import Node
from gluonish.hybrid.lower_attention import source_of
from gluonish.hybrid.step import Step
from gluonish.kernels.scalars import CODES
from gluonish.kernels.set_rows import set_rows_kernel, set_rows_plan
from gluonish.nd.size import product


def _set_rows(node: Node) -> list[Step] | None:
    x, start, values = node.inputs
    *lead, rows, depth = x.shape
    given, steps = source_of(values)
    sizes = (product(lead[:-1]), product(lead[-1:]), rows, depth, values.shape[-2], *steps)
    size = node.dtype.itemsize

    def plan(ins: Any, outs: Any, numbers: Sequence[int]) -> Any:
        a, b, c = (step * size for step in numbers[5:])
        return set_rows_plan(tuple(numbers[:5]), (a, b, c))  # type: ignore[arg-type]

    def work(ins: Any, outs: Any, made: Any) -> float:
        return 0.3 * float(product(ins[2])) * 2

    kernel = set_rows_kernel(CODES[node.dtype.name])
    return [
        Step(
            [x, start, given],
            [node],
            kernel,
            plan,
            sizes,
            work=work,
            in_place=True,
            over=x,
            checks="set_rows",
            nodes=[node],
        )
    ]


RULES = {"set_rows": _set_rows}
