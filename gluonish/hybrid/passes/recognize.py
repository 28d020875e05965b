"""Attention written out by hand becomes the op whose kernel never has the matrix of scores in memory; cubes, products.

    softmax(where(mask, scale * (query @ key^T), -inf) + bias) @ value  ->  attention(query, key, value, mask)

What stays different from the ops written out is repaired behind the kernel: a row of scores without a finite maximum
gives NaN there, and zeros in the op; so the result is multiplied by 1 or NaN per row, known from the statistics, which
the same kernel writes. A causal mask is told from its two ranges; later values are then not read at all, so a NaN
among them reaches the rows that look at them only.

Deliberately not here: a softmax, norms, losses, which loops compute in one kernel however they are written; masks of
finite numbers by `where` (a row that is masked everywhere looks everywhere then), half-width floats, scores or weights
that something else reads too, leading dimensions that broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gluonish.hybrid.graph import Graph, Node, Operand, apply, rewrite, users, with_inputs
from gluonish.hybrid.passes.simplify import swapped
from gluonish.nd.op import OPS
from gluonish.nd.size import SizeLike, same, same_shape

SUMS = ("float32", "float64")


@dataclass(frozen=True)
class Found:
    """What an attention written out is made of. `transposed` is key^T; `chain`: the nodes that it replaces."""

    query: Node
    transposed: Node
    value: Node
    mask: Node | None
    hidden: bool  # the mask is true where a query must not look
    causal: bool
    scale: float
    chain: tuple[Node, ...]

    def with_operands(self, now: Callable[[Node], Any]) -> Found:
        """The same of what `now` gives for each operand."""
        mask = None if self.mask is None else now(self.mask)
        return replace(self, query=now(self.query), transposed=now(self.transposed), value=now(self.value), mask=mask)


@dataclass(frozen=True)
class Scores:
    """What is known of scores on the way down from the softmax to the product."""

    scale: float = 1.0
    mask: Node | None = None
    hidden: bool = False
    causal: bool = False
    added: bool = False  # the mask is one of floats: what stands below it is not to be scaled together with it
    chain: tuple[Node, ...] = ()


def recognize(graph: Graph) -> Graph:
    """Replaces every attention written out whose scores nobody else reads."""
    found = {id(node): attention for node, attention in attentions(graph)}
    if not found and not any(_by_products(node) for node in graph.nodes()):
        return graph
    new: dict[int, Operand] = {}

    def change(node: Node, inputs: tuple[Operand, ...]) -> Operand:
        attention = found.get(id(node))
        if attention is None:
            new[id(node)] = _cube(node, inputs[0]) if _by_products(node) else with_inputs(node, inputs)
        else:
            now = attention.with_operands(lambda x: new.get(id(x), x))
            new[id(node)] = apply(OPS["multiply"], fused(now, node.line), None, node.line)
        return new[id(node)]

    return rewrite(graph, change)


def _by_products(node: Node) -> bool:
    """A cube, as tanh-GELU has it: a general power costs four times what the rest of that does."""
    return (
        node.is_op("power")
        and node.dtype.name in SUMS
        and isinstance(node.inputs[0], Node)
        and node.inputs[0].dtype == node.dtype
        and _number(node.inputs[1]) == 3.0
        and same_shape(node.inputs[0].shape, node.shape)
    )


def _cube(node: Node, x: Operand) -> Node:
    return apply(OPS["multiply"], (apply(OPS["square"], (x,), None, node.line), x), None, node.line)


def attentions(graph: Graph) -> list[tuple[Node, Found]]:
    """The products in which an attention written out ends, each with its parts."""
    out = []
    for node in graph.nodes():
        found = _attention(node)
        if found is not None:
            out.append((node, found))
    if not out:
        return out
    readers, results = users(graph), {id(n) for n in graph.results()}

    def private(node: Node, found: Found) -> bool:
        own = {id(n) for n in (*found.chain, node)}
        return not any(id(n) in results or any(id(r) not in own for r in readers[id(n)]) for n in found.chain)

    return [(node, found) for node, found in out if private(node, found)]


def fused(found: Found, line: str) -> tuple[Node, Node]:
    """The attention, and a column by which it is to be multiplied: 1, or NaN where no maximum is finite."""
    key = swapped(found.transposed)
    mask = found.mask
    if mask is not None and found.hidden:
        mask = apply(OPS["logical_not"], (mask,), None, line)
    masks = () if mask is None else (mask,)
    attrs = {"causal": found.causal, "scale": found.scale}
    result = apply(OPS["attention"], (found.query, key, found.value, *masks), attrs, line)
    statistics = apply(OPS["attention_statistics"], (found.query, key, *masks), attrs, line)
    column = apply(OPS["reshape"], (statistics,), {"shape": (*statistics.shape, 1)}, line)
    nothing = apply(OPS["multiply"], (column, 0.0), None, line)  # 0; NaN for an infinite one
    return result, apply(OPS["add"], (nothing, 1.0), None, line)


# --- the softmax ------------------------------------------------------------------------------------------------------
def _attention(node: Node) -> Found | None:
    if not node.is_op("matmul") or node.dtype.name not in SUMS:
        return None
    weights, value = node.inputs
    normed = _normed(weights)
    if normed is None:
        return None
    scores, chain = normed
    below = _scores(scores, scores.shape, Scores(chain=(weights, *chain)))
    if below is None or value.dtype != node.dtype:
        return None
    known, product = below
    query, transposed = product.inputs
    leads = [x.shape[:-2] for x in (query, transposed, value, product)]
    if any(not same_shape(leads[0], lead) for lead in leads) or any(x.dtype != node.dtype for x in product.inputs):
        return None
    if any(isinstance(s, int) and s == 0 for s in product.shape) or len(query.shape) < 2:
        return None
    return Found(query, transposed, value, known.mask, known.hidden, known.causal, known.scale, known.chain)


def _normed(weights: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """What a softmax along the last dimension is of, and the nodes between."""
    if weights.is_op("divide"):
        powers, total = weights.inputs
        between: tuple[Node, ...] = ()
    elif weights.is_op("multiply"):
        pair = [x for x in weights.inputs if isinstance(x, Node)]
        turned = [x for x in pair if x.is_op("divide") and _number(x.inputs[0]) == 1.0]
        powers = next((x for x in pair if x.is_op("exp")), None)
        if not turned or powers is None:
            return None
        total, between = turned[0].inputs[1], (turned[0],)
    else:
        return None
    if not isinstance(powers, Node) or not powers.is_op("exp") or not powers.inputs[0].is_op("subtract"):
        return None
    shifted = powers.inputs[0]
    scores, highest = shifted.inputs
    if not isinstance(scores, Node):
        return None
    sums, tops = _along_rows(total, "sum", powers), _along_rows(highest, "max", scores)
    return None if sums is None or tops is None else (scores, (*between, powers, shifted, *sums, *tops))


def _along_rows(x: Operand, op: str, of: Node) -> tuple[Node, ...] | None:
    """The nodes of a reduction along rows, its last dimension kept as a one."""
    if not isinstance(x, Node) or not same_shape(x.shape, (*of.shape[:-1], 1)):
        return None
    nodes = [x]
    while nodes[-1].is_op("reshape"):
        nodes.append(nodes[-1].inputs[0])
    last = nodes[-1]
    good = last.is_op(op) and last.inputs[0] is of and tuple(last.attrs["axes"]) == (len(of.shape) - 1,)
    return tuple(nodes) if good else None


# --- the scores -------------------------------------------------------------------------------------------------------
def _scores(x: Operand, shape: tuple[SizeLike, ...], known: Scores) -> tuple[Scores, Node] | None:
    """Goes down through scales and masks to the product; None where something else stands between."""
    if not isinstance(x, Node) or x.op is None or not same_shape(x.shape, shape):
        return None
    known = replace(known, chain=(*known.chain, x))
    if x.is_op("matmul"):
        return known, x
    if x.is_op("multiply", "divide"):
        return _scaled(x, shape, known)
    if x.is_op("where"):
        return _masked(x, shape, known)
    if x.is_op("add") and known.mask is None and known.scale == 1.0:
        for a, b in (x.inputs, x.inputs[::-1]):
            if isinstance(b, Node) and b.dtype == x.dtype and _broadcasts(b, shape):
                found = _scores(a, shape, replace(known, mask=b, added=True))
                if found is not None:
                    return found
    return None


def _scaled(x: Node, shape: tuple[SizeLike, ...], known: Scores) -> tuple[Scores, Node] | None:
    a, b = x.inputs
    number, rest = (_number(b), a) if _number(b) is not None or x.is_op("divide") else (_number(a), b)
    if number is None or not math.isfinite(number) or number == 0:
        return None
    return _scores(
        rest, shape, replace(known, scale=known.scale * number if x.is_op("multiply") else known.scale / number)
    )


def _masked(x: Node, shape: tuple[SizeLike, ...], known: Scores) -> tuple[Scores, Node] | None:
    """where(mask, scores, -inf), or with its branches exchanged. A scale below -inf's may be any, above it positive."""
    condition, a, b = x.inputs
    hidden = _number(a) == -math.inf
    if not isinstance(condition, Node) or not (hidden or _number(b) == -math.inf) or known.scale <= 0:
        return None
    rest = b if hidden else a
    if _is_causal(condition, hidden, shape):
        return _scores(rest, shape, replace(known, causal=True))
    if known.mask is not None or condition.dtype.kind != "b" or not _broadcasts(condition, shape):
        return None
    return _scores(rest, shape, replace(known, mask=condition, hidden=hidden))


def _broadcasts(mask: Node, shape: tuple[SizeLike, ...]) -> bool:
    pairs = zip(mask.shape[::-1], shape[::-1])
    return len(mask.shape) <= len(shape) and all(same(m, 1) or same(m, s) for m, s in pairs)


def _number(x: Operand) -> float | None:
    if isinstance(x, Node) and x.is_op("full"):
        x = x.attrs["value"]
    return float(x) if isinstance(x, (int, float)) and not isinstance(x, bool) else None


# --- causal masks -----------------------------------------------------------------------------------------------------
_ROW_FIRST = {"greater_equal": False, "less": True}  # op(rows, keys) -> whether it is true where a query must not look
_KEY_FIRST = {"less_equal": False, "greater": True}


def _is_causal(condition: Node, hidden: bool, shape: tuple[SizeLike, ...]) -> bool:
    """Whether a condition compares the places of queries and keys, the last query at the last key."""
    if condition.op is None or not same_shape(condition.shape[-2:], shape[-2:]):
        return False
    name = condition.op.name
    if _ROW_FIRST.get(name) is hidden:
        rows, keys = (_places(x, axis) for x, axis in zip(condition.inputs, (-2, -1)))
    elif _KEY_FIRST.get(name) is hidden:
        keys, rows = (_places(x, axis) for x, axis in zip(condition.inputs, (-1, -2)))
    else:
        return False
    if rows is None or keys is None or not same(shape[-2], rows[1]) or not same(shape[-1], keys[1]):
        return False
    return same(rows[0] - keys[0], shape[-1] - shape[-2])


def _places(x: Any, axis: int) -> tuple[Any, Any] | None:
    """First number and count of a range that runs along one dimension, all others of size 1."""
    shape = x.shape if isinstance(x, Node) else ()
    if len(shape) < -axis or any(not same(s, 1) for i, s in enumerate(shape) if i != len(shape) + axis):
        return None
    while x.is_op("reshape", "broadcast_to") and same(x.shape[axis], _count(x.inputs[0])):
        x = x.inputs[0]
    if not x.is_op("arange") or x.attrs["step"] != 1 or x.dtype.kind not in "iu":
        return None
    start = x.attrs["start"]
    return None if isinstance(start, float) else (start, x.attrs["count"])


def _count(x: Node) -> SizeLike:
    """How many numbers an array has that has one dimension beside ones."""
    wide = [s for s in x.shape if not same(s, 1)]
    return wide[0] if len(wide) == 1 else 1 if not wide else -1
