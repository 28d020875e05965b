"""Lookups by index and their gradients: an embedding's, and what checking its indices costs.

The side "copy" moves the bytes that a row must move: of an embedding, what it reads and writes; of its gradient, the
values once and the whole table. A processor reads the lines that it writes, so a byte that is only written costs two;
of a copy's three bytes moved two are counted. Hence the other bar of gradients, most of which are zeros written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.row import Bar, Row, Side, Sizes, classes, numbers
from benchmarks.rows.memory import SHARE, _copy

EXAMPLES = ("embedding-gradient-small", "embedding-check")
TINY = {"table": 11, "count": 7, "width": 5}


def _row(name: str, about: str, sizes: tuple[int, int, int], gradient: bool, *bars: Bar) -> Row:
    table, count, width = sizes
    moved = (table + count) / table if gradient else 2.0
    shape = (table, width) if gradient else (count, width)
    named = {"table": table, "count": count, "width": width, "shape": shape, "arrays": moved, "gradient": gradient}
    row = Row(name, about, named, {**TINY, "shape": (11, 5)}, bars, group="memory", example=name in EXAMPLES)
    if any(bar.against == "copy" for bar in bars):
        row.side("copy", peer="numpy")(_copy)
    return row


def _arrays(sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Table, indices, gradient of what is looked up."""
    table, count, width = sizes["table"], sizes["count"], sizes["width"]
    return numbers(3, table, width), classes(1, count, table), numbers(4, count, width)


def _gluonish(sizes: Sizes) -> Side:
    import gluonish as gl

    table, indices, head = (gl.nd.array(x) for x in _arrays(sizes))
    if not sizes["gradient"]:
        look_up = gl.hybridize(lambda table, indices: gl.nd.take(table, indices))
        return Side(lambda: look_up(table, indices))
    shape = table.shape
    scatter = gl.hybridize(lambda indices, head: gl.nd.scatter_nd(head, indices.expand_dims(0), shape))
    return Side(lambda: scatter(indices, head))


def _torch(sizes: Sizes) -> Side:
    import torch

    table, indices, head = (torch.from_numpy(x) for x in _arrays(sizes))
    if not sizes["gradient"]:
        return Side(lambda: torch.nn.functional.embedding(indices, table), scope=torch.inference_mode)
    return Side(lambda: torch.zeros_like(table).index_add_(0, indices, head), scope=torch.inference_mode)


COPY, WRITTEN = Bar("copy", SHARE), Bar("copy", SHARE * 4 / 3)
GPT2, SMALL, NARROW = (50257, 8192, 768), (30522, 1024, 384), (1 << 20, 1 << 16, 64)
for _row_made in (
    _row("embedding", "8192 rows of 768 out of 50257", GPT2, False, COPY, Bar("torch", 1.0)),
    _row("embedding-narrow", "65536 rows of 64 out of 1M", NARROW, False, Bar("torch", 1.0)),
    _row("embedding-gradient", "8192 rows of 768 added into 50257", GPT2, True, WRITTEN, Bar("torch", 0.5)),
    _row("embedding-gradient-small", "1024 rows of 384 added into 30522", SMALL, True, WRITTEN, Bar("torch", 0.5)),
):
    _row_made.side("gluonish")(_gluonish)
    _row_made.side("torch")(_torch)

CHECK = _row("embedding-check", "the embedding's kernel beside itself without the check of indices", GPT2, False,
             Bar("unchecked", 1.02))  # fmt: skip


def _kernel_side(sizes: Sizes, checked: bool) -> Side:
    import re

    from gluonish.kernels import gather
    from gluonish.kernels.entry import entry
    from gluonish.kernels.kernel import Kernel

    table, indices, out = _arrays(sizes)
    kernel: Any = gather.take_kernel("f32", "i64", 0)
    if not checked:
        source = re.sub(r"(\n +)if at < 0 or at >= size:(?:\1 +.*)+", "", kernel.source)
        assert "at >= size" not in source and source != kernel.source
        kernel = Kernel(kernel.name, source, kernel.externals, kernel.plan)
    errors = np.zeros(4, np.int64)
    plan = kernel.plan([table.shape, indices.shape], [out.shape])
    arrays = [table, indices, out, errors]
    words = np.array([*(x.ctypes.data for x in arrays), 0, *plan.scalars, 0], np.int64)
    steps = np.array([[kernel.address, words.ctypes.data, plan.tiles, 1]], np.int64)
    run = entry(steps.ctypes.data, 1)
    held = (*arrays, words, steps)  # whose addresses the entry knows

    def results() -> Any:
        run()
        return held[2]

    return Side(run, results)


@CHECK.side("gluonish")
def _checked(sizes: Sizes) -> Side:
    return _kernel_side(sizes, True)


@CHECK.side("unchecked", peer="gluonish")
def _unchecked(sizes: Sizes) -> Side:
    return _kernel_side(sizes, False)
