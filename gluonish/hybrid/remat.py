"""Remat: keeping less for the backward, and computing it again.

The forward is cut into segments. Kept is only what crosses a cut; what the backward needs of a segment is computed
again from there when its turn comes, random numbers included (their key is the same). With about sqrt(n) segments of a
chain of n layers, what is kept and what a segment holds are both of the order of sqrt(n).

Source: Chen et al., "Training deep nets with sublinear memory cost", 2016; here cuts may be anywhere in any graph, and
are put where little crosses.
"""

from __future__ import annotations

from collections.abc import Sequence

from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Graph, Node
from gluonish.hybrid.step import Step
from gluonish.nd.size import hint

SMALL = 64  # what is this many times smaller than the average is kept anyway: a channel's statistics, say
TRIES = 40


def checkpoints(forward: Graph, keep: Sequence[Node], always: set[int]) -> list[Node]:
    """Which of the values that a backward needs are to be kept: those at cuts, small ones, and those in `always`."""
    if len(keep) < 4:
        return list(keep)
    average = sum(map(_bytes, keep)) / len(keep)
    large = {id(n): n for n in keep if n.kind == "op" and id(n) not in always and _bytes(n) * SMALL > average}
    known = {id(n) for n in keep if id(n) not in large}
    cuts = _crossings(Graph(forward.inputs, forward.outputs), large, known)  # updates are computed once, not again
    best, chosen = float("inf"), {}
    total = sum(map(_bytes, large.values()))
    for i in range(TRIES):
        picked, cost = _cut(cuts, total * 0.8 ** (i + 1))
        if cost < best:
            best, chosen = cost, picked
    if best >= total:
        return list(keep)
    return [n for n in keep if id(n) not in large or id(n) in chosen]


def _bytes(node: Node) -> int:
    """A value's size as the trace had it."""
    count = node.dtype.itemsize
    for size in node.shape:
        count *= hint(size)
    return count


def _crossings(forward: Graph, large: dict[int, Node], known: set[int]) -> list[tuple[Node, dict[int, Node]]]:
    """For each large value, in order: which large values later nodes need that are computed up to there, itself among
    them or not."""
    nodes = forward.nodes()
    last: dict[int, int] = {}
    for position, node in enumerate(nodes):
        for parent in node.parents:
            last[id(parent)] = position
    sources: dict[int, dict[int, Node]] = {}  # by id: the large values that a node is made of, directly
    alive: dict[int, dict[int, Node]] = {}
    ending: dict[int, list[int]] = {}
    out = []
    for position, node in enumerate(nodes):
        if id(node) in large:
            own = {id(node): node}
        elif id(node) in known:
            own = {}
        else:
            own = {key: n for p in node.parents for key, n in sources.get(id(p), {}).items()}
        sources[id(node)] = own
        if id(node) in last:
            alive[id(node)] = own
            ending.setdefault(last[id(node)], []).append(id(node))
        for key in ending.pop(position, ()):
            alive.pop(key, None)
        if id(node) in large:
            out.append((node, {key: n for each in alive.values() for key, n in each.items()}))
    return out


def _cut(cuts: Sequence[tuple[Node, dict[int, Node]]], room: float) -> tuple[dict[int, Node], float]:
    """Cuts so that segments hold about `room` bytes: what is kept, and the bytes of that and the largest segment."""
    chosen: dict[int, Node] = {}
    segment = largest = 0.0
    begin = 0
    sizes = [_bytes(node) for node, _ in cuts]
    crossing = [sum(map(_bytes, found.values())) for _, found in cuts]
    position = 0
    while position < len(cuts):
        segment += sizes[position]
        if segment >= room and position + 1 < len(cuts):
            middle = (begin + position) // 2
            # the latest of the cheapest places in the second half
            best = min(range(middle, position + 1), key=lambda i: (crossing[i], -i))
            chosen |= cuts[best][1]
            largest = max(largest, sum(sizes[begin : best + 1]))
            position = best
            begin, segment = best + 1, 0.0
        position += 1
    largest = max(largest, segment)
    return chosen, sum(map(_bytes, chosen.values())) + largest


def recompute_late(steps: Sequence[Step], heads: set[int]) -> list[Step]:
    """The steps of a backward in another order: those that do not depend on the head gradients come right before the
    first step that needs them."""
    writers: dict[int, list[Step]] = {}
    for step in steps:
        for w in step.writes:
            writers.setdefault(id(root_of(w)), []).append(step)
    late: set[int] = set()
    dependent = set(heads)
    for step in steps:
        if any(id(root_of(r)) in dependent for r in step.reads):
            late.add(id(step))
            dependent.update(id(root_of(w)) for w in step.writes)
    out: list[Step] = []
    done: set[int] = set()
    for step in [*(s for s in steps if id(s) in late), *(s for s in steps if id(s) not in late)]:
        stack = [(step, False)]
        while stack:
            each, ready = stack.pop()
            if ready:
                out.append(each)
            elif id(each) not in done:
                done.add(id(each))
                stack.append((each, True))
                needed = [w for r in each.reads for w in writers.get(id(root_of(r)), ()) if w is not each]
                stack.extend((w, False) for w in reversed(needed) if id(w) not in done)
    return out
