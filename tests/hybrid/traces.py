"""What tests of passes and plans share: graphs without kernels, and what they compute by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish import nd
from gluonish.hybrid.graph import Graph, Node, interpret, ordered
from gluonish.hybrid.trace import Trace, tracing
from gluonish.nd.size import Size, evaluator


def graph_of(function: Callable[..., Any], *arrays: nd.NDArray, training: bool = False) -> Graph:
    """The graph of a function of arrays that gives one array or a tuple, before any pass."""
    trace = Trace()
    before = nd.dispatch.state.training
    nd.dispatch.state.training = training
    try:
        with tracing(trace):
            results = function(*[trace.argument(x.spec, f"x{i}") for i, x in enumerate(arrays)])
            return trace.graph(results if isinstance(results, tuple) else (results,), "f")
    finally:
        nd.dispatch.state.training = before


def names(graph: Graph) -> list[str]:
    """The names of the ops, in order."""
    return [n.op.name for n in graph.nodes() if n.op is not None]


def leaves_of(graph: Graph, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Values for all leaves: those of captured arrays, random ones for inputs with the sizes of the trace."""
    out = {}
    for leaf in [*graph.inputs, *(n for n in ordered(graph.results()) if n.kind != "op")]:
        shape = tuple(s.hint if isinstance(s, Size) else s for s in leaf.shape)
        if leaf.kind == "captured":
            out[id(leaf)] = leaf.array._data
        elif leaf.kind == "key":
            out[id(leaf)] = np.array([3, 5])
        elif id(leaf) not in out:
            values = rng.uniform(-1, 1, shape) if leaf.dtype.kind == "f" else rng.integers(0, 2, shape)
            out[id(leaf)] = values.astype(leaf.dtype)
    return out


def number(size: Any) -> Any:
    """A size as the trace had it."""
    return evaluator([size], size.scope.hints)(*size.scope.hints.values())[0] if isinstance(size, Size) else size


def computed(graph: Graph, values: dict[int, np.ndarray]) -> list[np.ndarray]:
    """The results of a graph by NumPy."""
    with np.errstate(all="ignore"):
        found = interpret(graph, values, number)
    return [found[id(n)] for n in graph.results()]


def shape_of(node: Node) -> tuple[int, ...]:
    return tuple(number(s) for s in node.shape)
