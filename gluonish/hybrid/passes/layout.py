"""Layout: permutations move past the ops that do not care, meet their opposites and vanish.

Convolutions and pooling work on channels-last memory and stand between two permutations each. Sinking the outer one
through elementwise ops, reductions and joins of what is permuted alike brings it to the next convolution's, so that
images stay channels-last from the first layer to the last and only the borders are copied.
"""

from __future__ import annotations

from gluonish.hybrid.graph import Graph, Node, Operand, apply, rewrite, with_inputs
from gluonish.hybrid.passes.simplify import simplify
from gluonish.nd.op import OPS
from gluonish.nd.ops.reduce import REDUCTIONS
from gluonish.nd.size import same, same_shape

Axes = tuple[int, ...]


def sink_permutes(graph: Graph) -> Graph:
    """One sweep, parents first: a permutation travels through a whole chain at once."""

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        node = with_inputs(node, inputs)
        assert node.op is not None
        if node.op.family == "elementwise":
            return _through_elementwise(node)
        if node.op.name in REDUCTIONS and _permuted(node.inputs[0]):
            return _through_reduction(node)
        if node.is_op("concat"):
            return _through_concat(node)
        if node.is_op("permute_dims") and _permuted(node.inputs[0]):
            return permuted(node.inputs[0], node.attrs["axes"])
        return node

    return simplify(rewrite(graph, change))


def reuse_permuted(graph: Graph) -> Graph:
    """Where a result is some x permuted, and what is made of x elementwise is permuted likewise, makes that of the
    result instead: a gradient that goes to the user and, scaled, into an update is copied once."""
    results = {(id(r.inputs[0]), r.attrs["axes"]) for r in graph.results() if _permuted(r)}

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        new = with_inputs(node, inputs)
        if not _permuted(node):
            return new
        axes, old, x = node.attrs["axes"], node.inputs[0], inputs[0]
        chain: list[Node] = []
        while (id(old), axes) not in results:
            below = _only_large(old)
            if below is None:
                return new
            chain.append(x)
            x = next(y for y, was in zip(x.inputs, old.inputs) if was is below)
            old = below
        value = permuted(x, axes)
        for step in reversed(chain):
            moved = [value if y is x else permuted(y, axes) if isinstance(y, Node) else y for y in step.inputs]
            x, value = step, apply(step.op, moved, step.attrs, step.line)  # type: ignore[arg-type]
        return value if chain else new

    return rewrite(graph, change) if results else graph


def _only_large(node: Node) -> Node | None:
    """The input of an elementwise op that has more than one number, if all others are small and of the same rank."""
    if node.op is None or node.op.family != "elementwise":
        return None
    large = [x for x in node.parents if not _small(x)]
    fits = len(large) == 1 and all(len(x.shape) == len(node.shape) for x in node.parents)
    return large[0] if fits and same_shape(large[0].shape, node.shape) else None


def _permuted(x: Operand) -> bool:
    return isinstance(x, Node) and x.is_op("permute_dims")


def permuted(x: Node, axes: Axes) -> Node:
    """x with its dimensions permuted; merged with a permutation it already ends in."""
    if x.is_op("permute_dims"):
        inner = x.attrs["axes"]
        axes, x = tuple(inner[a] for a in axes), x.inputs[0]
    return x if list(axes) == sorted(axes) else apply(OPS["permute_dims"], (x,), {"axes": axes}, x.line)


def inverse(axes: Axes) -> Axes:
    """The permutation that undoes `axes`."""
    return tuple(axes.index(i) for i in range(len(axes)))


def _small(x: Node) -> bool:
    """Whether permuting x moves nothing: at most one dimension is not 1."""
    return sum(not same(s, 1) for s in x.shape) <= 1


def _through_elementwise(node: Node) -> Operand:
    axes = next((x.attrs["axes"] for x in node.inputs if _permuted(x) and len(x.shape) == len(node.shape)), None)
    if axes is None:
        return node
    rank = len(axes)
    inputs: list[Operand] = []
    for x in node.inputs:
        if not isinstance(x, Node):
            inputs.append(x)
            continue
        if not (_permuted(x) and x.attrs["axes"] == axes) and not _small(x) and not x.is_op("full", "broadcast_to"):
            return node  # sinking would move another large array instead
        wide = x
        if len(x.shape) < rank:
            shape = (1,) * (rank - len(x.shape)) + tuple(x.shape)
            wide = apply(OPS["reshape"], (x,), {"shape": shape}, x.line)
        inputs.append(permuted(wide, inverse(axes)))
    below = apply(node.op, inputs, node.attrs, node.line)  # type: ignore[arg-type]
    return permuted(below, axes)


def _through_reduction(node: Node) -> Operand:
    x = node.inputs[0]
    order: Axes = x.attrs["axes"]
    axes, keepdims = node.attrs["axes"], node.attrs["keepdims"]
    inner = tuple(sorted(order[a] for a in axes))
    below = apply(node.op, (x.inputs[0],), {"axes": inner, "keepdims": keepdims}, node.line)  # type: ignore[arg-type]
    if keepdims:
        return permuted(below, order)
    kept = [order[i] for i in range(len(order)) if i not in axes]
    rank_of = {a: i for i, a in enumerate(sorted(kept))}
    return permuted(below, tuple(rank_of[a] for a in kept))


def _through_concat(node: Node) -> Operand:
    axes = next((x.attrs["axes"] for x in node.parents if _permuted(x)), None)
    if axes is None or not all(_permuted(x) and x.attrs["axes"] == axes for x in node.parents):
        return node
    inputs = [x.inputs[0] for x in node.parents]
    below = apply(node.op, inputs, {**node.attrs, "axis": axes[node.attrs["axis"]]}, node.line)  # type: ignore[arg-type]
    return permuted(below, axes)
