"""Algebra that is exact in floating point, and the folding of constants.

Nothing here changes a bit of any result: x * 1, x + 0 (for x that is a sum of nothing else), reshapes of reshapes.
Rules that would lose NaN (x * 0 -> 0) or round differently are deliberately not here. (x + 0 turns -0 into 0; it
stays.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.hybrid.graph import Graph, Node, Operand, apply, rewrite, with_inputs
from gluonish.nd.dtypes import is_float
from gluonish.nd.op import OPS
from gluonish.nd.size import same, same_shape

Rule = Callable[[Node], Operand]


def simplify(graph: Graph) -> Graph:
    """Applies the local rules to every node, parents first, until none applies to it."""

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        current: Operand = with_inputs(node, inputs)
        for _ in range(8):
            better = _step(current)
            if better is current:
                break
            current = better
        return current

    return rewrite(graph, change)


def _step(node: Operand) -> Operand:
    if not isinstance(node, Node) or node.kind != "op":
        return node
    assert node.op is not None
    rule = _RULES.get(node.op.name)
    if rule is not None:
        better = rule(node)
        if better is not node:
            return better
    return _elementwise(node) if node.op.family == "elementwise" else node


def _constant(value: Any, like: Node) -> Node:
    return apply(OPS["full"], (), {"shape": like.shape, "value": value, "dtype": like.dtype}, like.line)


# --- elementwise ------------------------------------------------------------------------------------------------------
def _elementwise(node: Node) -> Operand:
    assert node.op is not None
    if all(not isinstance(x, Node) or x.is_op("full") for x in node.inputs):
        folded = _fold(node)
        if folded is not None:
            return folded
    inputs = list(node.inputs)
    for i in range(len(inputs)):
        inputs[i] = _lighter(i, inputs, node)
    if any(a is not b for a, b in zip(inputs, node.inputs)):
        return with_inputs(node, tuple(inputs))
    return _identity(node)


def _fold(node: Node) -> Node | None:
    """An op on constants only is a constant."""
    assert node.op is not None
    values = [x.attrs["value"] if isinstance(x, Node) else x for x in node.inputs]
    if not all(isinstance(v, (bool, int, float, np.generic)) for v in values):
        return None
    dtypes = [x.dtype if isinstance(x, Node) else None for x in node.inputs]
    numbers = [v if d is None else np.asarray(v, d) for v, d in zip(values, dtypes)]
    value = np.asarray(node.op.forward(*numbers, **node.attrs)).astype(node.dtype)
    return _constant(value.item(), node)


def _lighter(position: int, inputs: list[Operand], node: Node) -> Operand:
    """An operand without what broadcasting or weak numbers make superfluous, as long as another one keeps the shape."""
    x = inputs[position]
    if not isinstance(x, Node):
        return x
    others = [o for i, o in enumerate(inputs) if i != position and isinstance(o, Node)]
    if x.is_op("broadcast_to") and any(same_shape(o.shape, node.shape) for o in others):
        return x.inputs[0]
    if x.is_op("full") and not node.is_op("where", "cast"):
        partner = [o for o in others if o.dtype == x.dtype and same_shape(o.shape, node.shape)]
        if partner and isinstance(x.attrs["value"], (bool, int, float)):
            return _weak(x.attrs["value"], x.dtype)
    if x.is_op("full") and node.is_op("where") and position > 0:
        partner = [
            o for i, o in enumerate(inputs[1:], 1) if i != position and isinstance(o, Node) and o.dtype == x.dtype
        ]
        covered = any(same_shape(o.shape, node.shape) for o in others)
        if partner and covered and isinstance(x.attrs["value"], (bool, int, float)):
            return _weak(x.attrs["value"], x.dtype)
    return x


def _weak(value: Any, dtype: np.dtype) -> Any:
    number = np.asarray(value, dtype).item()
    return float(number) if is_float(dtype) else number


def _is(x: Operand, value: float) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and x == value


def _identity(node: Node) -> Operand:
    a = node.inputs[0]
    b = node.inputs[1] if len(node.inputs) > 1 else None
    if node.is_op("multiply") and _is(b, 1):
        return a
    if node.is_op("multiply") and _is(a, 1):
        return b
    if node.is_op("divide", "power") and _is(b, 1):
        return a
    if node.is_op("subtract") and _is(b, 0):
        return a
    if node.is_op("power") and _is(b, 2) and isinstance(a, Node):
        return apply(OPS["square"], (a,), None, node.line)
    if node.is_op("negative") and isinstance(a, Node) and a.is_op("negative"):
        return a.inputs[0]
    return node


# --- moves and reductions ---------------------------------------------------------------------------------------------
def _cast(node: Node) -> Operand:
    x = node.inputs[0]
    return x if x.dtype == node.dtype else node


def _reshape(node: Node) -> Operand:
    x = node.inputs[0]
    if same_shape(x.shape, node.shape):
        return x
    if x.is_op("reshape"):
        return reshaped(x.inputs[0], node)
    if x.is_op("full"):
        return _constant(x.attrs["value"], node)
    return node


def reshaped(x: Node, like: Node) -> Node:
    """x in the shape of `like`."""
    return Node("op", like.spec, OPS["reshape"], (x,), {"shape": like.shape}, like.line)


def _permute(node: Node) -> Operand:
    x, axes = node.inputs[0], node.attrs["axes"]
    if list(axes) == sorted(axes):
        return x
    if x.is_op("permute_dims"):
        inner = x.attrs["axes"]
        return apply(OPS["permute_dims"], (x.inputs[0],), {"axes": tuple(inner[a] for a in axes)}, node.line)
    if x.is_op("full"):
        return _constant(x.attrs["value"], node)
    if x.is_op("matmul") and swaps_last(axes):
        # (a @ b)' = b' @ a': kernels read transposed operands as they lie, a transposed result would be copied
        a, b = x.inputs
        return apply(OPS["matmul"], (swapped(b), swapped(a)), x.attrs, x.line)
    moved = [a for a in axes if not same(x.shape[a], 1)]
    if moved == sorted(moved):  # only dimensions of size 1 change places: the memory stays as it is
        return reshaped(x, node)
    return node


def swaps_last(axes: tuple[int, ...]) -> bool:
    """Whether a permutation exchanges the last two dimensions and nothing else."""
    rank = len(axes)
    return rank >= 2 and tuple(axes) == (*range(rank - 2), rank - 1, rank - 2)


def swapped(x: Node) -> Node:
    """x with its last two dimensions exchanged; what it was before if that is how it came about."""
    if x.is_op("permute_dims") and swaps_last(x.attrs["axes"]):
        return x.inputs[0]
    rank = len(x.shape)
    return apply(OPS["permute_dims"], (x,), {"axes": (*range(rank - 2), rank - 1, rank - 2)}, x.line)


def _broadcast(node: Node) -> Operand:
    x = node.inputs[0]
    if same_shape(x.shape, node.shape):
        return x
    return _constant(x.attrs["value"], node) if x.is_op("full") else node


def _sum(node: Node) -> Operand:
    x, axes = node.inputs[0], node.attrs["axes"]
    if all(same(x.shape[a], 1) for a in axes):
        return reshaped(x, node)
    return node


_RULES: dict[str, Rule] = {
    "cast": _cast,
    "reshape": _reshape,
    "permute_dims": _permute,
    "broadcast_to": _broadcast,
    "sum": _sum,
    "max": _sum,
    "min": _sum,
    "prod": _sum,
}
