"""Reductions over scattered axes become reductions over neighbouring ones, which is all that loops know.

Runs after the layout pass: most permutations have vanished by then, and what is left to move is really moved.
"""

from __future__ import annotations

from gluonish.hybrid.graph import Graph, Node, Operand, apply, rewrite, with_inputs
from gluonish.hybrid.passes.simplify import reshaped
from gluonish.nd.op import OPS
from gluonish.nd.ops.reduce import REDUCTIONS


def join_axes(graph: Graph) -> Graph:
    """Permutes the operand of a reduction so that its axes are the first ones, where they do not touch."""

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        node = with_inputs(node, inputs)
        assert node.op is not None
        if node.op.name not in REDUCTIONS or _touching(node.attrs["axes"]):
            return node
        x, axes = node.inputs[0], node.attrs["axes"]
        rest = tuple(i for i in range(len(x.shape)) if i not in axes)
        moved = apply(OPS["permute_dims"], (x,), {"axes": (*axes, *rest)}, node.line)
        first = {"axes": tuple(range(len(axes))), "keepdims": False}
        return reshaped(apply(node.op, (moved,), first, node.line), node)

    return rewrite(graph, change)


def _touching(axes: tuple[int, ...]) -> bool:
    return not axes or tuple(axes) == tuple(range(axes[0], axes[-1] + 1))
