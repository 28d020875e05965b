"""Common subexpressions: the same op on the same inputs is computed once."""

from __future__ import annotations

from typing import Any

from gluonish.hybrid.graph import Graph, Node, Operand, rewrite, with_inputs


def share_common(graph: Graph) -> Graph:
    """Keeps the first of equal nodes. Ops are pure (random ones depend on their key), so equal text is equal value."""
    seen: dict[Any, Node] = {}

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        assert node.op is not None
        operands = tuple(id(x) if isinstance(x, Node) else (type(x).__name__, str(x)) for x in inputs)
        key = (node.op.name, operands, str(sorted(node.attrs.items())))
        if key not in seen:
            seen[key] = with_inputs(node, inputs)
        return seen[key]

    return rewrite(graph, change)
