"""Folding of per-channel scales and shifts into the convolution or matrix product before them.

In predict mode BatchNorm is y = x * s + t with s and t made of captured arrays only. If x comes from a convolution or a
product by captured weights that nobody else reads, the scale moves into the weights: (conv(x, w) + b) * s + t becomes
conv(x, w * s) + (b * s + t). What depends on captured arrays alone is computed once per version of them, not per call.
"""

from __future__ import annotations

from dataclasses import dataclass

from gluonish.hybrid.graph import Graph, Node, Operand, apply, ordered, rewrite, users, with_inputs
from gluonish.nd.dtypes import is_half
from gluonish.nd.op import OPS
from gluonish.nd.size import same


@dataclass(frozen=True)
class Affine:
    """A value known to be root * scale + shift per last dimension (None: no scale, no shift)."""

    root: Node
    scale: Node | None
    shift: Node | None


def fold_batch_norm(graph: Graph) -> Graph:
    """Moves scales into weights wherever the whole chain is per channel and has one reader."""
    fixed = captured_only(graph)
    readers = {key: len(nodes) for key, nodes in users(graph).items()}
    for result in graph.results():
        readers[id(result)] = readers.get(id(result), 0) + 2  # a result must stay what it is
    chains: dict[int, Affine] = {}
    for node in graph.nodes():
        found = _extended(node, chains, fixed, readers)
        if found is not None:
            chains[id(node)] = found
    links = [n for n in graph.nodes() if id(n) in chains and chains[id(n)].root is not n]
    inner = {id(p) for n in links for p in n.parents if id(p) in chains and chains[id(p)].root is chains[id(n)].root}
    ends = {key: c for key, c in chains.items() if key not in inner and c.scale is not None}
    if not ends:
        return graph

    roots: dict[int, tuple[Operand, ...]] = {id(chain.root): () for chain in ends.values()}

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        if id(node) in roots:
            roots[id(node)] = inputs  # chains before this one are folded by now
        chain = ends.get(id(node))
        return with_inputs(node, inputs) if chain is None else _folded(chain, node, roots[id(chain.root)])

    return rewrite(graph, change)


def captured_only(graph: Graph) -> set[int]:
    """ids of the nodes that depend on captured arrays which the graph does not update, and on nothing else."""
    updated = {id(leaf) for leaf, _ in graph.updates}
    out: set[int] = set()
    for node in ordered(graph.results()):
        if node.kind == "captured" and id(node) not in updated:
            out.add(id(node))
        elif node.kind == "op" and node.op is not None and node.op.family != "random":
            if all(id(p) in out for p in node.parents) and _static(node):
                out.add(id(node))
    return out


def _static(node: Node) -> bool:
    return all(isinstance(s, int) for s in node.shape) and all(
        isinstance(x, (Node, bool, int, float)) for x in node.inputs
    )


def _extended(node: Node, chains: dict[int, Affine], fixed: set[int], readers: dict[int, int]) -> Affine | None:
    if node.is_op("convolution", "matmul"):
        weight = node.inputs[1]
        return (
            Affine(node, None, None)
            if id(weight) in fixed and len(weight.shape) in (2, 4) and not is_half(weight.dtype)
            else None
        )
    if not node.is_op("add", "subtract", "multiply", "divide"):
        return None
    a, b = node.inputs
    if isinstance(a, Node) and id(a) in chains and readers.get(id(a), 0) == 1:
        return _combined(node, chains[id(a)], b, fixed, flipped=False)
    if isinstance(b, Node) and id(b) in chains and readers.get(id(b), 0) == 1 and not node.is_op("divide"):
        return _combined(node, chains[id(b)], a, fixed, flipped=True)
    return None


def _combined(node: Node, chain: Affine, other: Operand, fixed: set[int], flipped: bool) -> Affine | None:
    channels = chain.root.shape[-1]
    vector = _vector(other, channels, fixed, chain.root)
    if vector is None or (node.is_op("subtract") and flipped):
        return None
    if node.is_op("multiply", "divide"):
        scale = vector if chain.scale is None else _apply(node, chain.scale, vector)
        if chain.scale is None and node.is_op("divide"):
            scale = _apply(node, _ones(vector), vector)
        return Affine(chain.root, scale, None if chain.shift is None else _apply(node, chain.shift, vector))
    if chain.shift is not None:
        return Affine(chain.root, chain.scale, _apply(node, chain.shift, vector))
    shift = vector if node.is_op("add") else apply(OPS["negative"], (vector,), None, node.line)
    return Affine(chain.root, chain.scale, shift)


def _apply(node: Node, left: Node, right: Node) -> Node:
    assert node.op is not None
    return apply(node.op, (left, right), None, node.line)


def _ones(like: Node) -> Node:
    return apply(OPS["full"], (), {"shape": like.shape, "value": 1.0, "dtype": like.dtype}, like.line)


def _vector(x: Operand, channels: object, fixed: set[int], root: Node) -> Node | None:
    """x as a captured-only vector over the last dimension, or None."""
    if not isinstance(x, Node) or id(x) not in fixed or x.dtype != root.dtype or not x.shape:
        return None
    if len(x.shape) > len(root.shape) or not same(x.shape[-1], channels):  # type: ignore[arg-type]
        return None
    if any(not same(s, 1) for s in x.shape[:-1]):
        return None
    return x if len(x.shape) == 1 else apply(OPS["reshape"], (x,), {"shape": (x.shape[-1],)}, x.line)


def _folded(chain: Affine, node: Node, inputs: tuple[Operand, ...]) -> Node:
    x, weight = inputs
    scaled = apply(OPS["multiply"], (weight, chain.scale), None, node.line)
    out = apply(chain.root.op, (x, scaled), chain.root.attrs, chain.root.line)  # type: ignore[arg-type]
    return out if chain.shift is None else apply(OPS["add"], (out, chain.shift), None, node.line)
