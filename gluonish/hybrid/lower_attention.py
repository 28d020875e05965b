"""Lowering of attention: one kernel for a result with its statistics, one for the gradients of one attention.

Each op first becomes a step of its own; `joined` then lets steps over the same operands be one, reads operands through
the permutation that split them into heads, and writes results through the one that puts heads together again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gluonish.hybrid.fuse import alias_of, root_of
from gluonish.hybrid.graph import Graph, Node, apply
from gluonish.hybrid.lower_moves import copy_step, strides_of
from gluonish.hybrid.step import Step, temp
from gluonish.kernels.attention import (
    Sizes,
    Variant,
    attention_gradient_kernel,
    attention_kernel,
    attention_sum_kernel,
    backward_plan,
    forward_plan,
    partial_shape,
    sum_plan,
)
from gluonish.kernels.attention_row import attention_row_kernel, row_plan
from gluonish.kernels.scalars import CODES
from gluonish.kernels.tiling import tile_of
from gluonish.nd.op import OPS
from gluonish.nd.ops.attention import GRADIENTS, HEADS, scale_of
from gluonish.nd.size import SizeLike, product, same, same_shape

FLOPS = 80.0  # multiply-adds a nanosecond, about, of one core
Steps3 = tuple[SizeLike, SizeLike, SizeLike]  # in elements: from batch to batch, head to head, row to row


@dataclass(eq=False)
class AttentionStep(Step):
    """One op of the family, before it is joined with others over the same operands."""


def lower(node: Node) -> list[Step] | None:
    """The step of one op, to be given to `joined`; None where the kernels lack it."""
    if node.dtype.name not in ("float32", "float64"):
        return None
    return [AttentionStep(list(node.parents), [node], nodes=[node])]


RULES = dict.fromkeys(("attention", "attention_statistics", *GRADIENTS), lower)


def joined(steps: list[Step], wanted: set[int]) -> list[Step]:
    """The steps with those of attention made into kernel calls. wanted: ids of values needed beyond the steps."""
    calls = _calls([(i, s.nodes[0]) for i, s in enumerate(steps) if isinstance(s, AttentionStep)], steps)
    if not calls:
        return steps
    places = _Places(steps, wanted)
    out: list[Step] = []
    for i, step in enumerate(steps):
        if isinstance(step, AttentionStep):
            out += _made(calls.get(i, []), places)
        elif step not in places.absorbed:
            out.append(step)
    return out


def written_out(graph: Graph) -> list[str]:
    """Lines for `explain` on attentions whose weights are computed by other ops, as a matrix in memory."""
    lines = []
    for node in graph.nodes():
        kernel = node.is_op("attention", "attention_statistics", *GRADIENTS)
        if (
            not kernel
            and alias_of(node) is None
            and any(root_of(p).is_op("attention_statistics") for p in node.parents)
        ):
            lines.append(
                f"slower: weights of an attention are a matrix in memory, as the gradient of a mask of floats, dropout "
                f"of weights and second gradients need them ({node.line})"
            )
    return list(dict.fromkeys(lines))


def _calls(found: list[tuple[int, Node]], steps: list[Step]) -> dict[int, list[Node]]:
    """Which nodes one kernel call computes, by the number of the step in whose place it comes."""
    calls: dict[int, list[Node]] = {}
    first: dict[Any, int] = {}
    for i, node in found:
        if not node.is_op("attention_statistics"):
            own = (node.is_op("attention"), *_operands(node, node.parents))
            calls.setdefault(first.setdefault(own, i), []).append(node)
    results = [(i, _operands(nodes[0], _without_value(nodes[0]))) for i, nodes in calls.items() if _is_result(nodes)]
    for i, node in found:
        if node.is_op("attention_statistics"):
            late = next(
                (j for j, s in enumerate(steps) if j > i and any(root_of(r) is node for r in s.reads)), len(steps)
            )
            own = _operands(node, node.parents)
            calls.setdefault(next((j for j, other in results if other == own and j < late), i), []).append(node)
    return calls


def _is_result(nodes: list[Node]) -> bool:
    return nodes[0].is_op("attention")


def _without_value(node: Node) -> list[Node]:
    return [x for i, x in enumerate(node.parents) if i != 2]  # statistics know no values


def _operands(node: Node, parents: list[Node]) -> tuple[Any, ...]:
    """What nodes of one kernel call have in common."""
    return tuple(id(x) for x in parents), node.attrs["causal"], node.attrs["scale"]


class _Places:
    """Where steps of attention may write: into the permutation of a result that is all that reads it."""

    def __init__(self, steps: list[Step], wanted: set[int]) -> None:
        self.absorbed: list[Step] = []
        self.targets: dict[int, Node] = {}
        self.known: set[int] = set()
        readers: dict[int, list[Step]] = {}
        for step in steps:
            for x in {id(root_of(r)): root_of(r) for r in step.reads}.values():
                readers.setdefault(id(x), []).append(step)
        for step in steps:
            for node in step.writes if isinstance(step, AttentionStep) else ():
                own = readers.get(id(node), [])
                if len(own) == 1 and id(node) not in wanted and self._permutes(own[0], node):
                    self.targets[id(node)] = own[0].writes[0]
                    self.absorbed.append(own[0])

    @staticmethod
    def _permutes(step: Step, node: Node) -> bool:
        target = step.writes[0]
        through = target.is_op("permute_dims") and target.attrs["axes"] == HEADS and target.inputs[0] is node
        return through and step.nodes == [target] and len(step.writes) == 1

    def place(self, node: Node) -> tuple[Node, Steps3]:
        """What is written for a result, and its steps."""
        target = self.targets.get(id(node))
        return (node, _steps(node.shape)) if target is None else (target, _through_heads(target.shape))


def _made(nodes: list[Node], places: _Places) -> list[Step]:
    if not nodes:
        return []
    return _backward(nodes, places) if nodes[0].is_op(*GRADIENTS) else _forward(nodes, places)


# --- operands --------------------------------------------------------------------------------------------------------
def _steps(shape: Sequence[SizeLike]) -> Steps3:
    """Steps of an array that lies in order, with its leading dimensions but one as the batch."""
    *lead, rows, numbers = shape
    head = rows * numbers
    return product(lead[-1:]) * head, head, numbers


def _through_heads(shape: Sequence[SizeLike]) -> Steps3:
    """The same for memory (batch, rows, heads, numbers)."""
    strides = strides_of(tuple(shape))
    return strides[0], strides[2], strides[1]


def source_of(x: Node) -> tuple[Node, Steps3]:
    """What is read for an operand, and its steps."""
    if x.is_op("permute_dims") and x.attrs["axes"] == HEADS:
        return x.inputs[0], _through_heads(x.inputs[0].shape)
    return x, _steps(x.shape)


def _mask(node: Node, mask: Node | None, scores: tuple[SizeLike, ...], before: list[Step]) -> tuple[Any, ...]:
    """The mask that the kernel reads, its kind and type for the variant, and its steps in elements."""
    if mask is None:
        return (), "none", "", (0, 0, 0)
    code = CODES[mask.dtype.name]
    shape = (1,) * (len(scores) - len(mask.shape)) + tuple(mask.shape)
    full = [same_shape((m,), (s,)) for m, s in zip(shape, scores)]
    *lead, queries, keys = [0 if same(m, 1) else 1 for m in shape]
    outer = full[:-3] if len(scores) > 3 else []
    if (not keys and not full[-1]) or (any(lead[:-1]) and not all(outer)):
        wide = apply(OPS["broadcast_to"], (mask,), {"shape": scores}, node.line)
        strides = [0 if same(s, 1) else t for s, t in zip(shape, strides_of(shape))]
        before.append(copy_step(mask, wide, scores, strides, strides_of(scores)))
        return (wide,), "full", code, _mask_steps(scores)
    return (mask,), "full" if queries else "key", code, _mask_steps(shape)


def _mask_steps(shape: tuple[SizeLike, ...]) -> Steps3:
    """Steps of a mask: 0 along dimensions of size 1."""
    strides = [0 if same(s, 1) else t for s, t in zip(shape, strides_of(shape))]
    outer = [s for s in strides[:-3] if not same(s, 0)]
    return outer[-1] if outer else 0, strides[-3] if len(shape) > 2 else 0, strides[-2]


def _sizes(query: Node, key: Node, columns: SizeLike, steps: Sequence[Steps3]) -> tuple[SizeLike, ...]:
    """What the plan needs, in the order in which `_numbers` reads it."""
    *lead, queries, depth = query.shape
    batch, heads = product(lead[:-1]), product(lead[-1:])
    return (batch, heads, queries, key.shape[-2], depth, columns, *[s for three in steps for s in three])


def _numbers(values: Sequence[int], node: Node, mask_size: int) -> Sizes:
    """The sizes of a call; the last three steps are the mask's."""
    size = node.dtype.itemsize
    flat = [tuple(values[i : i + 3]) for i in range(6, len(values), 3)]
    steps = tuple((a * size, b * size, c * size) for a, b, c in flat[:-1])
    outer, head, row = (step * mask_size for step in flat[-1])
    scale = scale_of(node.attrs["scale"], values[4])
    batch, heads, queries, keys, depth, columns = values[:6]
    return Sizes(batch, heads, queries, keys, depth, columns, scale, steps, (outer, head, row))


# --- steps -----------------------------------------------------------------------------------------------------------
def _forward(nodes: list[Node], places: _Places) -> list[Step]:
    result = next((n for n in nodes if n.is_op("attention")), None)
    known = next((n for n in nodes if n.is_op("attention_statistics")), None)
    node = nodes[0]
    query, key = node.inputs[:2]
    value = result.inputs[2] if result is not None else key
    scores = (*query.shape[:-1], key.shape[-2])
    before: list[Step] = []
    masks, kind, code, mask_steps = _mask(node, node.inputs[-1] if _has_mask(node) else None, scores, before)
    (q, q_steps), (k, k_steps), (v, v_steps) = (source_of(x) for x in (query, key, value))
    columns: SizeLike = value.shape[-1] if result is not None else 0
    if result is not None:
        out, out_steps = places.place(result)
    else:  # statistics alone: there are no columns to write
        out, out_steps = _nothing(node), (0, 0, 0)
    writes = [out] if known is None else [out, known]
    sizes = _sizes(query, key, columns, (q_steps, k_steps, v_steps, out_steps, mask_steps))
    variant = Variant(node.dtype.name, kind, code, node.attrs["causal"])
    mask_size = masks[0].dtype.itemsize if masks else 1
    tile = tile_of(variant.dtype)
    single = same(query.shape[-2], 1)
    kernel = (attention_row_kernel if single else attention_kernel)(variant, known is not None)
    make = row_plan if single else forward_plan

    def plan(ins: Any, outs: Any, values: Sequence[int]) -> Any:
        return make(_numbers(values, node, mask_size), tile)

    return [*before, _step([q, k, v, *masks], writes, kernel, plan, sizes, nodes, 0)]


def _backward(nodes: list[Node], places: _Places) -> list[Step]:
    node = nodes[0]
    given, out, statistics, query, key, value = node.inputs[:6]
    scores = (*query.shape[:-1], key.shape[-2])
    before: list[Step] = []
    masks, kind, code, mask_steps = _mask(node, node.inputs[-1] if _has_mask(node) else None, scores, before)
    sources = [source_of(x) for x in (query, key, value, out, given)]
    wanted = [next((n for n in nodes if n.is_op(name)), None) for name in GRADIENTS]
    targets = [(None, (0, 0, 0)) if n is None else places.place(n) for n in wanted]
    steps = [s for _, s in (*sources, *targets)]
    sizes = _sizes(query, key, value.shape[-1], (*steps, mask_steps))
    variant = Variant(node.dtype.name, kind, code, node.attrs["causal"])
    mask_size = masks[0].dtype.itemsize if masks else 1
    tile = tile_of(variant.dtype)

    def plan(ins: Any, outs: Any, values: Sequence[int]) -> Any:
        return backward_plan(_numbers(values, node, mask_size), tile)

    q, k, v, o, g = (x for x, _ in sources)
    reads = [g, o, statistics, q, k, v, *masks]
    writes = [x for x, _ in targets if x is not None]
    kernel = attention_gradient_kernel(variant, [n is not None for n in wanted])
    if wanted[0] is None:
        return [*before, _step(reads, writes, kernel, plan, sizes, nodes, 3)]
    partial = temp(node, sizes, lambda values: partial_shape(_numbers(values, node, mask_size)))
    step = _step(reads, [*writes, partial], kernel, plan, sizes, nodes, 3)
    return [*before, step, _sum([partial], writes[:1], sizes, node, mask_size)]


def _sum(reads: list[Node], writes: list[Node], sizes: Any, node: Node, mask_size: int) -> Step:
    """The query's gradient from its parts, where few heads were cut into parts of the keys."""

    def plan(ins: Any, outs: Any, values: Sequence[int]) -> Any:
        return sum_plan(_numbers(values, node, mask_size))

    def work(ins: Any, outs: Any, made: Any) -> float:
        return 0.3 * float(product(ins[0]))

    return Step(reads, writes, attention_sum_kernel(node.dtype.name), plan, sizes, work=work, nodes=[node])


def _step(
    reads: list[Node], writes: list[Node], kernel: Any, plan: Any, sizes: Any, nodes: list[Node], query: int
) -> Step:
    """query: which of `reads` is the query; behind it come key and value."""
    products = 2 if query == 0 else 5

    def work(ins: Any, outs: Any, made: Any) -> float:
        return products * float(product(ins[query])) * made.scalars[2] / FLOPS

    return Step(reads, writes, kernel, plan, sizes, work=work, nodes=nodes)


def _has_mask(node: Node) -> bool:
    return len(node.inputs) == (7 if node.is_op(*GRADIENTS) else 4 if node.is_op("attention") else 3)


def _nothing(node: Node) -> Node:
    """A result without numbers."""
    return temp(node, (), lambda sizes: (0,))
