"""Forward and backward of one trace, cut apart.

The trace of a recorded call holds both: the outputs, and the gradients computed from them by the ordinary vjp rules.
What the backward needs of the forward is kept if the forward has to write it to memory anyway (the input or output of a
convolution, a product, a reduction, ...) and recomputed from that if it is only elementwise, which costs less than
writing and reading it.

Source of the idea: Chen et al., "Training deep nets with sublinear memory cost", 2016, in its simplest form.
"""

from __future__ import annotations

from dataclasses import dataclass

from gluonish.hybrid.fuse import PRODUCTS, joins_epilogue
from gluonish.hybrid.graph import Graph, Node, apply, ordered, replaced, users
from gluonish.hybrid.passes.batch_norm import captured_only
from gluonish.hybrid.remat import checkpoints
from gluonish.nd.ops.attention import HEADS
from gluonish.nd.ops.elementwise import cast

_CHEAP = ("elementwise", "random", "create")
_BESIDE = ("attention_statistics", "part")  # the forward gives them beside its result, for the backward alone


@dataclass
class Cut:
    """A forward graph that also gives what is `kept`, and a backward graph that reads it.

    Inputs of the backward: the head gradients, then the kept values, then the arguments of the forward.
    """

    forward: Graph
    kept: list[Node]
    backward: Graph


def cut(joint: Graph, heads: list[Node], outputs: int, remat: bool = False) -> Cut:
    """Cuts a joint graph whose first `outputs` results are the call's and whose others are gradients.

    `heads` are the leaves that stand for the head gradients; they are among the inputs of `joint`. remat: keep little
    and compute the rest again.
    """
    head_ids = {id(h) for h in heads}
    arguments = [n for n in joint.inputs if id(n) not in head_ids]
    results, gradients = joint.outputs[:outputs], joint.outputs[outputs:]
    forward = Graph(arguments, results, joint.updates, joint.name)
    keep = _to_keep(forward, gradients, head_ids)
    if remat:
        keep = checkpoints(forward, keep, {id(n) for n in keep if n.is_op(*_BESIDE)})
    substitutes = {id(n): Node("input", n.spec, name=f"kept{i}", line=n.line) for i, n in enumerate(keep)}
    backward = Graph(
        [*heads, *substitutes.values(), *arguments], replaced(gradients, substitutes), [], f"{joint.name}_backward"
    )
    # a captured array that the call itself changes is kept as a copy of what it was
    kept = [apply(cast, (n,), {"dtype": n.dtype}, n.line) if n.kind == "captured" else n for n in keep]
    return Cut(Graph(arguments, [*results, *kept], joint.updates, joint.name), kept, backward)


def _to_keep(forward: Graph, gradients: list[Node], heads: set[int]) -> list[Node]:
    needed = {id(n) for n in forward.nodes()}
    late = _depending_on(gradients, heads)
    beside = [n for n in ordered(gradients) if n.is_op(*_BESIDE) and id(n) not in late]
    needed.update(id(n) for n in beside if all(p.kind != "op" or id(p) in needed for p in n.parents))
    in_place = _read_in_place(Graph([], [*forward.results(), *gradients]))
    written = _written(forward, _read_by_backward(gradients, late, needed))
    updated = {id(leaf) for leaf, _ in forward.updates}
    prepared = captured_only(Graph([], [*forward.outputs, *gradients], forward.updates))
    keep: dict[int, Node] = {}
    seen: set[int] = set()
    stack = list(gradients)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in late or (node.kind == "op" and (id(node) not in needed or id(node) in prepared)):
            stack.extend(node.parents)
        elif node.kind == "captured":
            if id(node) in updated:
                keep[id(node)] = node
        elif node.kind == "op":
            assert node.op is not None
            if id(node) in written or node.op.family not in _CHEAP:
                moved = node.is_op("concat", "permute_dims") and id(node) not in in_place
                if node.op.family != "move" or moved:
                    keep[id(node)] = node
                else:
                    stack.extend(node.parents)
            else:
                stack.extend(node.parents)
    position = {id(n): i for i, n in enumerate(ordered([*forward.results(), *keep.values()]))}
    return sorted(keep.values(), key=lambda n: position[id(n)])


def _depending_on(results: list[Node], heads: set[int]) -> set[int]:
    out = set(heads)
    for node in ordered(results):
        if any(id(p) in out for p in node.parents):
            out.add(id(node))
    return out


def _read_by_backward(gradients: list[Node], late: set[int], forward: set[int]) -> set[int]:
    """The forward's nodes that the backward's own nodes read."""
    own = (n for n in ordered(gradients) if n.kind == "op" and (id(n) in late or id(n) not in forward))
    return {id(p) for n in own for p in n.parents if id(p) in forward}


def _read_in_place(graph: Graph) -> set[int]:
    """Permutations that split heads for attention alone, whose kernels read through them."""
    readers, results = users(graph), {id(n) for n in graph.results()}
    return {
        id(node)
        for node in graph.nodes()
        if node.is_op("permute_dims") and node.attrs["axes"] == HEADS and id(node) not in results
        if all(r.op is not None and r.op.family == "attention" for r in readers.get(id(node), []))
    }


def _written(forward: Graph, wanted: set[int]) -> set[int]:
    """Nodes whose values the forward has to put into memory, whatever is fused."""
    # a result that is kept too is written twice, as the caller may write to its own: cheap ones are computed again
    out = {id(n) for n in forward.results() if n.op is None or n.op.family not in _CHEAP}
    readers = users(forward)
    for node in forward.nodes():
        assert node.op is not None
        if node.op.family not in (*_CHEAP, "reduce"):
            out.update(id(p) for p in node.parents)
        if node.op.family == "contract":
            out.add(id(_end_of_epilogue(node, readers, out | wanted)))
        elif node.op.family not in _CHEAP:
            out.add(id(node))
    return out


def _end_of_epilogue(node: Node, readers: dict[int, list[Node]], stops: set[int]) -> Node:
    """The last of the elementwise nodes that a contraction's kernel can compute before it writes."""
    casts = node.is_op(*PRODUCTS)
    while id(node) not in stops:
        following = readers.get(id(node), [])
        if len(following) != 1 or not joins_epilogue(following[0], node, casts):
            break
        node = following[0]
    return node
