"""Half-width floats: every op on bfloat16 or float16 computes in float32 and rounds its result, as in eager mode.

    add(x, y)  ->  cast(add(cast(x, float32), cast(y, float32)), bfloat16)

The casts cost little: they are fused with what stands beside them, and kernels load and store half-width numbers. Moves
and lookups stay as they are, for they only copy; so do loops and branches, whose bodies are graphs that come here
themselves. A product of bfloat16 stays one where the processor multiplies them;
it gives float32, and the rounding behind it becomes a part of its epilogue.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.hybrid.graph import Graph, Node, Operand, apply, rewrite, with_inputs
from gluonish.kernels.dots import operand_dtype
from gluonish.nd.dtypes import SINGLE, is_half
from gluonish.nd.op import OPS

_AS_THEY_ARE = ("move", "gather", "control")


def widen(graph: Graph) -> Graph:
    """The graph with half-width floats in casts, moves and products only."""

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        node = with_inputs(node, inputs)
        assert node.op is not None
        if not any(is_half(n.dtype) for n in (node, *node.parents)) or node.is_op("cast"):
            return node
        return node if node.op.family in _AS_THEY_ARE and not node.is_op("pick") else _in_singles(node)

    return rewrite(graph, change)


def _in_singles(node: Node) -> Node:
    assert node.op is not None
    attrs = {k: SINGLE if isinstance(v, np.dtype) and is_half(v) else v for k, v in node.attrs.items()}
    inputs: tuple[Any, ...] = node.inputs
    if node.is_op("matmul") and all(operand_dtype(x.dtype.name) == x.dtype.name for x in inputs):
        attrs["dtype"] = SINGLE
    else:
        inputs = tuple(_cast(x, SINGLE) if isinstance(x, Node) and is_half(x.dtype) else x for x in inputs)
    wide = apply(node.op, inputs, attrs, node.line)
    return _cast(wide, node.dtype) if is_half(node.dtype) else wide


def _cast(x: Node, dtype: np.dtype) -> Node:
    return x if x.dtype == dtype else apply(OPS["cast"], (x,), {"dtype": dtype}, x.line)
