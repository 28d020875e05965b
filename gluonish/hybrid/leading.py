"""Leading blocks: what indexing takes from the begin of an array in one piece is read where it is, without a copy.

So are the states before each step of a run, and the gradients of its gates without those of the begin states.

Deliberately not here: blocks further behind, whose addresses would be sums; results, which have memory of their own.
"""

from __future__ import annotations

from dataclasses import replace

from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Graph, Node
from gluonish.hybrid.lower_moves import slice_walk, strides_of
from gluonish.hybrid.step import Step
from gluonish.nd.op import OPS, Spec
from gluonish.nd.size import hint, product, same

HELD = 8  # times its size is the most that a block may keep alive


def read_in_place(steps: list[Step], graph: Graph) -> list[Step]:
    """The steps without copies of leading blocks."""
    results = {id(root_of(n)) for n in graph.results()}
    readers: dict[int, list[Step]] = {}
    for step in steps:
        for key in {id(root_of(n)) for n in step.reads}:
            readers.setdefault(key, []).append(step)
    spared = {}
    for step in steps:
        node = step.writes[0]
        if step.nodes == [node] and id(node) not in results and is_leading(node) and _holds_little(node):
            if all(_takes_a_part(s) for s in readers.get(id(node), ())):
                spared[id(node)] = node
    return [_reading(s, spared) for s in steps if id(s.writes[0]) not in spared] if spared else steps


def is_leading(node: Node) -> bool:
    """Whether a node indexes the begin of an array, whose elements stand in one piece there."""
    if not node.is_op("index"):
        return False
    strides, offset = slice_walk(node.inputs[0].shape, node.attrs["key"])
    whole = zip(node.shape, strides, strides_of(node.shape))
    return same(offset, 0) and all(same(size, 1) or same(a, b) for size, a, b in whole)


def _holds_little(node: Node) -> bool:
    """Whether memory of the array is not held for the sake of a small part of it."""
    source = node.inputs[0]
    return root_of(source).kind != "op" or hint(product(source.shape)) <= HELD * hint(product(node.shape))


def _takes_a_part(step: Step) -> bool:
    """Whether a step may read a part of an array: not if it could write its result over what it reads."""
    return step.kernel is not None and not step.in_place


def _reading(step: Step, spared: dict[int, Node]) -> Step:
    """The step, with arrays instead of the blocks that would have been copied from them."""
    if not any(id(root_of(n)) in spared for n in step.reads):
        return step
    return replace(step, reads=[_begin(n, spared) for n in step.reads])


def _begin(node: Node, spared: dict[int, Node]) -> Node:
    shape, root = node.shape, root_of(node)
    while id(root) in spared:  # a block of a block
        node = Node("op", Spec(shape, node.dtype), OPS["reshape"], (root.inputs[0],), {"shape": shape}, node.line)
        root = root_of(node)
    return node
