"""Passes: functions Graph -> Graph that keep what a graph means and change how it computes it.

Each pass is one file; PASSES gives them in order. `run_passes` is the only caller; tests verify and compare after each.
"""

from __future__ import annotations

from collections.abc import Callable

from gluonish.hybrid.graph import Graph
from gluonish.hybrid.passes.batch_norm import fold_batch_norm
from gluonish.hybrid.passes.layout import reuse_permuted, sink_permutes
from gluonish.hybrid.passes.neighbours import join_axes
from gluonish.hybrid.passes.recognize import recognize
from gluonish.hybrid.passes.share import share_common
from gluonish.hybrid.passes.simplify import simplify
from gluonish.hybrid.passes.widen import widen

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    simplify,
    recognize,
    sink_permutes,
    simplify,
    share_common,
    reuse_permuted,
    fold_batch_norm,
    join_axes,
    simplify,
    widen,
    share_common,
)


def run_passes(graph: Graph, watch: Callable[[str, Graph], None] | None = None) -> Graph:
    """All passes in order; `watch` sees the graph after each. Nodes nobody needs fall away by themselves."""
    for one in PASSES:
        graph = one(graph)
        if watch is not None:
            watch(one.__name__, graph)
    return graph
