"""Lowering of recurrent cells and their gradients: a packing of the weight, then one call that runs through time.

The gradient of a record is mostly that of the outputs, put into zeros, perhaps with that of the last states added. The
kernel reads these parts where they are, so nobody makes the zeros. Two calls may become one (`pair_runs.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gluonish.hybrid.graph import Node
from gluonish.hybrid.lower_moves import simple
from gluonish.hybrid.pair_runs import RunStep
from gluonish.hybrid.step import Step, temp
from gluonish.kernels import moves, packing, recurrent, recurrent_products
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.recurrent_cells import GRU, LSTM, RNN
from gluonish.kernels.tiling import packed_size
from gluonish.nd.size import hint, product, same, same_shape

FLOPS = 80.0  # multiply-adds a nanosecond, about, of one core
KINDS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
Parts = dict[str, Node]


def _forward(node: Node) -> list[Step] | None:
    if node.dtype.name not in ("float32", "float64"):
        return None
    gates, weight, *rest = node.parents
    code, attrs = node.dtype.name, node.attrs
    plain = KINDS[node.op.name]  # type: ignore[union-attr]
    masked = len(rest) > plain.biased + plain.states
    kind = plain._replace(masked=masked, kept=attrs.get("keep", False), activation=attrs.get("activation", ""))
    packed = temp(
        node, (weight.shape[1],), lambda sizes: (recurrent_products.packed_gates_size(sizes[0], code, plain.gates),)
    )  # fmt: skip
    pack = _step(recurrent_products.pack_gates_kernel(code, plain.gates), [weight], packed, node)
    clear, done = _done(node)
    reads = [gates, packed, *rest, done]
    return [pack, clear, _run(lambda runs: recurrent.forward_kernel(code, kind, runs), reads, node)]


def _gradient(node: Node) -> list[Step] | None:
    if node.dtype.name not in ("float32", "float64"):
        return None
    grad, record, weight, *lengths = node.parents
    code, attrs = node.dtype.name, node.attrs
    plain = KINDS[node.op.name.removesuffix("_gradient")]  # type: ignore[union-attr]
    parts = _parts(grad, attrs["reverse"])
    names = tuple(parts or ())
    kind = plain._replace(masked=bool(lengths), activation=attrs.get("activation", ""))
    if parts is None:
        planes = hint(grad.shape[0])  # the op's rule has made a guard of it
        kind, given = kind._replace(given=planes), [grad]
    else:
        given = list(parts.values())
    packed = temp(node, tuple(weight.shape), lambda sizes: (packed_size(sizes[0], sizes[1], code),))
    pack = _step(packing.pack_kernel(code, vectors=recurrent_products.VECTORS), [weight], packed, node)
    clear, done = _done(node)
    reads = [*given, record, packed, *lengths, done]
    return [pack, clear, _run(lambda runs: recurrent.backward_kernel(code, kind, names, runs), reads, node)]


def _parts(grad: Node, reverse: bool) -> Parts | None:
    """The gradients of the outputs and of the last states that a gradient is made of; None if it is something else."""
    parts: Parts = {}
    for leaf in _summands(grad):
        name = _name(leaf, reverse) if leaf.is_op("place") else ""
        if not name or name in parts:
            return None
        parts[name] = leaf.inputs[0]
    return {name: parts[name] for name in recurrent.PARTS if name in parts}


def _summands(node: Node) -> Iterator[Node]:
    if node.is_op("add") and all(isinstance(x, Node) and same_shape(x.shape, node.shape) for x in node.inputs):
        for x in node.parents:
            yield from _summands(x)
    else:
        yield node


def _name(place: Node, reverse: bool) -> str:
    """Which of `recurrent.PARTS` a key of a record picks, or ""."""
    key, last = place.attrs["key"], place.shape[1] - 1
    if len(key) != 2 or key[0] not in (0, 1):
        return ""
    if isinstance(key[1], slice):
        first, end = (0, last) if reverse else (1, last + 1)
        whole = key[1].step in (None, 1) and same(key[1].start or 0, first) and same(key[1].stop, end)
        return "outputs" if whole and key[0] == 0 else ""
    return ("last_h", "last_c")[key[0]] if same(key[1], 0 if reverse else last) else ""


def _done(node: Node) -> tuple[Step, Node]:
    """The zeros with which a run begins to count what its threads have done."""
    done = temp(node, (), lambda sizes: (recurrent.DONE_WORDS,), np.dtype(np.int64))
    clear = simple(moves.zero_kernel("i64"), [], done)
    clear.nodes = [node]
    return clear, done


def _step(kernel: Kernel, reads: list[Node], write: Node, node: Node) -> Step:
    """A step of a kernel that plans itself."""
    assert kernel.plan is not None
    plan = kernel.plan

    def work(ins: Any, outs: Any, p: Any) -> float:
        return 0.3 * float(product(ins[0]))

    return Step(reads, [write], kernel, lambda ins, outs, sizes: plan(ins, outs), work=work, nodes=[node])


def _run(several: Callable[[int], Kernel], reads: list[Node], node: Node) -> RunStep:
    """A step that runs through time."""
    kernel = several(1)
    assert kernel.plan is not None
    plan = kernel.plan

    def work(ins: Any, outs: Any, p: Any) -> float:
        steps, rows, units = p.scalars[:3]
        return float(steps * rows * units * units) / FLOPS

    return RunStep(
        reads, [node], kernel, lambda ins, outs, sizes: plan(ins, outs), extra=(int(node.attrs["reverse"]),),
        work=work, nodes=[node], several=several,
    )  # fmt: skip


RULES: dict[str, Callable[[Node], list[Step] | None]] = {
    **dict.fromkeys(KINDS, _forward),
    **dict.fromkeys((f"{name}_gradient" for name in KINDS), _gradient),
}
