"""Reductions over scattered axes become reductions over neighbouring ones, which is all that loops know.

One over axes that do not touch is done run by run, the last first: that one reads memory in order and leaves little for
the next. A variance along rows becomes its parts, which fuse with their neighbours; one down columns stays an op.

Runs after the layout pass: most permutations have vanished by then, and axes are those of the memory.
Source of the variance of parts: T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for
computing sample variances, 1979.
"""

from __future__ import annotations

from typing import Any

from gluonish.hybrid.graph import Graph, Node, Operand, apply, rewrite, with_inputs
from gluonish.hybrid.passes.simplify import reshaped
from gluonish.nd.op import OPS
from gluonish.nd.ops.reduce import REDUCTIONS
from gluonish.nd.size import SizeLike, product

Axes = tuple[int, ...]


def join_axes(graph: Graph) -> Graph:
    """Splits reductions whose axes do not touch, and opens variances along rows."""

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        node = with_inputs(node, inputs)
        assert node.op is not None
        if node.op.name not in REDUCTIONS:
            return node
        x, axes = node.inputs[0], node.attrs["axes"]
        if node.is_op("variance"):
            found = _variance(x, axes, node.line)
        elif len(_runs(axes)) > 1:
            found = x
            for run in reversed(_runs(axes)):
                found = apply(node.op, (found,), {"axes": run, "keepdims": True}, node.line)
        else:
            return node
        return node if found is None else reshaped(found, node)

    return rewrite(graph, change)


def _runs(axes: Axes) -> list[Axes]:
    """Axes in groups of neighbours."""
    out: list[Axes] = []
    for axis in axes:
        if out and out[-1][-1] == axis - 1:
            out[-1] = (*out[-1], axis)
        else:
            out.append((axis,))
    return out


def _variance(x: Node, axes: Axes, line: str) -> Node | None:
    """A variance by other ops, its axes kept as ones; None where it had better stay one."""

    def make(op: str, *inputs: Any, **attrs: Any) -> Node:
        return apply(OPS[op], inputs, attrs, line)

    def mean(of: Node, over: Axes) -> Node:
        return make("divide", make("sum", of, axes=over, keepdims=True), _count(of, over))

    *first, last = _runs(axes) or [()]
    if first:  # of parts: the mean of their variances and the variance of their means
        outer = tuple(a for run in first for a in run)
        means, inner = mean(x, last), make("variance", x, axes=last, keepdims=True)
        within = _variance(x, last, line)
        between = _variance(means, outer, line)
        over_means = between if between is not None else make("variance", means, axes=outer, keepdims=True)
        return make("add", _mean_of(within if within is not None else inner, first, mean), over_means)
    rank = len(x.shape)
    if not last:
        distance = make("subtract", x, x)
        return make("multiply", distance, distance)
    if last[-1] != rank - 1 or len(last) == rank:
        return None
    distance = make("subtract", x, mean(x, last))
    return mean(make("multiply", distance, distance), last)


def _mean_of(x: Node, runs: list[Axes], mean: Any) -> Node:
    for run in reversed(runs):
        x = mean(x, run)
    return x


def _count(x: Node, axes: Axes) -> SizeLike:
    return product(x.shape[a] for a in axes)
