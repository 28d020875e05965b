"""Attention written out by hand under `record()`: replaced on the tape, before the backward is traced.

The gradients of the ops written out read the matrix of weights, so what a pass could replace later is needed by then.
Here the node and its tape entry change together: the node becomes the fused attention, and its entry leads to query,
key and value, past what stood between. A gradient can then only flow as it did: an array between that is detached,
watched by `attach_grad`, changed in place or made by an op with a gradient of its own leaves everything as it was.

So it is done for the results of a trace, before a `backward()` inside it, and for the bodies of loops and branches.

Deliberately not here: how an attention is told (`passes/recognize.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gluonish.hybrid.graph import Graph, Node
from gluonish.hybrid.passes.recognize import Found, attentions, fused
from gluonish.nd.array import NDArray
from gluonish.nd.op import OPS


def recognize_recorded(graph: Graph, results: Sequence[NDArray], own: Callable[[NDArray], None]) -> None:
    """Replaces the attentions written out in the forward `graph`, whose results are on the tape.

    own: is told of every new array, so that the trace knows it for its own.
    """
    found = attentions(graph)
    if not found:
        return
    ends = _ends(results, {id(node) for node, _ in found})
    for node, attention in found:
        end = ends.get(id(node))
        if end is not None:
            operands = _operands(end, attention)
            if operands is not None:
                _replace(end, attention, operands, own)


def _ends(results: Sequence[NDArray], wanted: set[int]) -> dict[int, NDArray]:
    """The arrays of the wanted nodes, by id of the node, as the tape has them."""
    out: dict[int, NDArray] = {}
    seen: set[int] = set()
    stack = list(results)
    while stack:
        x = stack.pop()
        if x._entry is None or id(x) in seen:
            continue
        seen.add(id(x))
        if id(x._data) in wanted:
            out[id(x._data)] = x
        stack += [y for y in x._entry[2] if isinstance(y, NDArray)]
    return out


def _wants(x: NDArray) -> bool:
    return x._entry is not None or x._grad is not None


def _operands(end: NDArray, found: Found) -> dict[int, NDArray] | None:
    """The arrays of query, key^T, value and mask by id of their nodes; None where gradients flow in another way than
    through the nodes of the chain."""
    chain = {id(n) for n in found.chain}
    out: dict[int, NDArray] = {}
    stack = [end]
    while stack:
        x = stack.pop()
        node = x._data
        if x._version[0]:
            return None
        if x is not end and id(node) not in chain:
            known = out.setdefault(id(node), x)
            if known is not x and (_wants(known) or _wants(x)):
                return None  # one value, with and without gradient
            continue
        if x._entry is None or x._entry[1] is not node.op or (x is not end and x._grad is not None):
            return None
        inputs = x._entry[2][:1] if node.is_op("subtract") else x._entry[2]  # no gradient flows through the maximum
        stack += [y for y in inputs if isinstance(y, NDArray)]
    mask = None if found.mask is None else out.get(id(found.mask))
    if mask is not None and _wants(mask) and mask._data.dtype.kind == "f":
        return None
    return out if all(id(n) in out for n in (found.query, found.transposed, found.value)) else None


def _replace(end: NDArray, found: Found, operands: dict[int, NDArray], own: Callable[[NDArray], None]) -> None:
    """Entries between two numbers of the tape come in the right order: a walk asks only which is later."""
    node, number = end._data, end._entry[0]
    result, column = fused(found, node.line)
    query, transposed, value = (operands[id(n)] for n in (found.query, found.transposed, found.value))
    for new in _above((result, column), {id(n) for n in (*operands_of(found), node)}):
        own(NDArray(new))
    key = _key(transposed, result.inputs[1], number - 0.75)
    masks = [NDArray(n) for n in result.inputs[3:]]
    attention = _array(result, number - 0.5, (query, key, value, *masks))
    node.become(OPS["multiply"], (result, column))
    end._entry = (number, node.op, (attention, NDArray(column)), {}, (node, end._version), 0, 0)


def operands_of(found: Found) -> list[Node]:
    """What an attention written out reads."""
    return [x for x in (found.query, found.transposed, found.value, found.mask) if x is not None]


def _above(nodes: Sequence[Node], ends: set[int]) -> list[Node]:
    """The nodes down to those of `ends`, these not included."""
    out: dict[int, Node] = {}
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if id(node) not in ends and id(node) not in out and node.op is not None:
            out[id(node)] = node
            stack += node.parents
    return list(out.values())


def _key(transposed: NDArray, key: Node, number: float) -> NDArray:
    if transposed._data.is_op("permute_dims") and transposed._data.inputs[0] is key:
        if transposed._entry is None:
            return NDArray(key)
        if transposed._entry[1] is transposed._data.op:
            return transposed._entry[2][0]
    if not _wants(transposed):
        return NDArray(key)
    return _array(key, number, (transposed,))


def _array(node: Node, number: float, inputs: tuple[Any, ...]) -> NDArray:
    """An array of a node, on the tape."""
    out = NDArray(node)
    out._entry = (number, node.op, inputs, node.attrs, (node, out._version), 0, 0)
    return out
