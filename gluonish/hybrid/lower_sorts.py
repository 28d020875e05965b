"""Lowering of sorts: a step that sorts rows one by one, and steps that sort few long rows together; sizes decide at run
time which of them have anything to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gluonish.hybrid.graph import Node
from gluonish.hybrid.lower_moves import simple
from gluonish.hybrid.step import Step, temp
from gluonish.kernels import sort, sort_keys, sort_together, top
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import CODES


def _code(node: Node) -> str:
    code = CODES[node.dtype.name]
    return "u8" if code == "b1" else code  # which sort alike


def _words(node: Node, shape: Any, count: Callable[[tuple[int, ...]], int]) -> Node:
    """Memory of so many int64, in elements of the node's dtype."""
    size = node.dtype.itemsize
    return temp(node, tuple(shape), lambda sizes: (-(-count(tuple(sizes)) * 8 // size),))


def _long(ins: Any, outs: Any, plan: Any) -> float:
    return 5.0 * plan.scalars[0] * plan.scalars[1]  # nanoseconds, about


def _sort(places: bool) -> Callable[[Node], list[Step]]:
    def rule(node: Node) -> list[Step]:
        x, flip = node.inputs[0], -1 if node.attrs["descending"] else 0
        code = _code(x)
        rows = simple(sort.rows_kernel(code, places), [x], node, extra=(flip,))
        rows.work = _long
        return [rows, *_together(node, x, code, places, flip)]

    return rule


def _together(node: Node, x: Node, code: str, places: bool, flip: int) -> list[Step]:
    step = sort_keys.words(code, places)
    work = _words(node, x.shape, lambda shape: sort_together.work_words(shape, step))
    counts = _words(node, x.shape, sort_together.count_words)

    def part(kernel: Kernel, reads: list[Node], write: Node, more: int) -> Step:
        def plan(ins: Any, outs: Any, sizes: Any) -> Plan:
            scalars, tiles = sort_together.scalars(tuple(sizes))
            return Plan((*scalars, more), tiles)

        return Step(reads, [write], kernel, plan, x.shape, nodes=[node], work=_long)

    steps = [part(sort_together.load_kernel(code, places), [x], work, flip)]
    for digit in range(sort.digits_of(code)[1]):
        steps.append(part(sort_together.count_kernel(code, places), [work], counts, digit))
        steps.append(part(sort_together.move_kernel(code, places), [work, counts], work, digit))
    return [*steps, part(sort_together.store_kernel(code, places), [work], node, flip)]


def _argtopk(node: Node) -> list[Step]:
    x, k = node.inputs[0], node.attrs["k"]
    code = _code(x)
    sizes = (*x.shape, k)
    found = _words(node, sizes, lambda s: top.candidate_words(s[:-1], s[-1], code))
    kernel = top.candidates_kernel(code, node.attrs["largest"], k <= top.FEW)
    make: Any = kernel.plan
    search = Step([x], [found], kernel, lambda ins, outs, s: make(ins, outs, s[-1]), sizes, nodes=[node], work=_reads)
    last = Step(
        [found],
        [node],
        top.best_kernel(code),
        lambda ins, outs, s: top.best_plan(tuple(s[:-1]), s[-1], code),
        sizes,
        nodes=[node],
        work=lambda ins, outs, plan: 20.0 * plan.tiles * plan.scalars[0] * plan.scalars[1],
    )
    return [search, last]


def _reads(ins: Any, outs: Any, plan: Any) -> float:
    return 0.5 * plan.scalars[0] * plan.scalars[1]


def _search(node: Node) -> list[Step]:
    step = simple(sort.search_kernel(_code(node.inputs[0]), node.attrs["right"]), list(node.parents), node)
    step.work = lambda ins, outs, plan: 50.0 * plan.scalars[1]
    return [step]


RULES: dict[str, Callable[[Node], list[Step] | None]] = {
    "sort": _sort(places=False),
    "argsort": _sort(places=True),
    "argtopk": _argtopk,
    "searchsorted": _search,
}
