"""Common subexpressions: the same op on the same inputs is computed once."""

from __future__ import annotations

from typing import Any

from gluonish.hybrid.graph import Graph, Node, Operand, rewrite, with_inputs
from gluonish.hybrid.passes.simplify import reshaped
from gluonish.nd.size import same_shape


def share_common(graph: Graph) -> Graph:
    """Keeps the first of equal nodes. Ops are pure (random ones depend on their key), so equal text is equal value.
    Reductions that differ only in whether they keep their dimensions are one, in two shapes."""
    seen: dict[Any, Node] = {}

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        assert node.op is not None
        operands = tuple(id(x) if isinstance(x, Node) else (type(x).__name__, str(x)) for x in inputs)
        attrs = {k: v for k, v in node.attrs.items() if k != "keepdims"}
        key = (node.op.name, operands, str(sorted(attrs.items())))
        if key not in seen:
            seen[key] = with_inputs(node, inputs)
        first = seen[key]
        return first if same_shape(first.shape, node.shape) else reshaped(first, node)

    return rewrite(graph, change)
