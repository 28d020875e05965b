"""Lowering of moves: permutations, slices and joins become strided copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gluonish.hybrid.graph import Node
from gluonish.hybrid.step import Step
from gluonish.kernels import moves, resizing, transposing
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.scalars import CODES
from gluonish.nd.ops.move import extent
from gluonish.nd.size import SizeLike, product, same

_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}  # a move knows no numbers, only how wide they are


def code_of(node: Node) -> str:
    """The kernel type that moves this node's elements."""
    return _BITS[node.dtype.itemsize]


def simple(kernel: Kernel, reads: list[Node], node: Node, checks: str = "", extra: tuple[SizeLike, ...] = ()) -> Step:
    """A step whose kernel plans itself from the shapes."""
    assert kernel.plan is not None
    plan = kernel.plan
    return Step(
        reads,
        [node],
        kernel,
        lambda ins, outs, sizes: plan(ins, outs),
        checks=checks,
        extra=extra,
        nodes=[node],
        work=_bytes,
    )


def _bytes(ins: Any, outs: Any, plan: Any) -> float:
    return sum(0.3 * float(product(s)) for s in (*ins, *outs))


def strides_of(shape: tuple[SizeLike, ...]) -> list[SizeLike]:
    """Row-major strides in elements."""
    out: list[SizeLike] = []
    step: SizeLike = 1
    for size in reversed(shape):
        out.insert(0, step)
        step = step * size
    return out


def copy_step(
    source: Node,
    target: Node,
    dims: tuple[SizeLike, ...],
    source_strides: list[SizeLike],
    target_strides: list[SizeLike],
    offsets: tuple[SizeLike, SizeLike] = (0, 0),
    node: Node | None = None,
) -> Step:
    """A strided copy of `dims` elements."""
    dims, a, b = _merged(dims, source_strides, target_strides)
    rank = len(dims)
    across = (
        next((i for i in range(rank - 1) if _is_one(a[i])), None) if _is_one(b[-1]) and not _is_one(a[-1]) else None
    )
    code = code_of(target)
    kernel = transposing.copy_kernel(code, rank) if across is None else transposing.transpose_kernel(code, rank, across)

    def plan(ins: Any, outs: Any, sizes: Any) -> Any:
        d, s, t = (tuple(sizes[i * rank : (i + 1) * rank]) for i in range(3))
        ends = (sizes[-2], sizes[-1])
        return (
            transposing.copy_plan(d, s, t, ends)
            if across is None
            else transposing.transpose_plan(d, s, t, ends, across)
        )

    def work(ins: Any, outs: Any, p: Any) -> float:
        return 0.6 * float(product(p.scalars[:rank]))

    return Step([source], [target], kernel, plan, (*dims, *a, *b, *offsets), nodes=[node or target], work=work)


def _merged(
    dims: tuple[SizeLike, ...], a: list[SizeLike], b: list[SizeLike]
) -> tuple[tuple[SizeLike, ...], list[SizeLike], list[SizeLike]]:
    """Fewest dimensions of a copy: those of size 1 dropped, neighbours joined where both sides step through them as
    one.
    """
    out: list[tuple[SizeLike, SizeLike, SizeLike]] = []
    for d, s, t in zip(dims, a, b):
        if same(d, 1):
            continue
        if out and same(out[-1][1], s * d) and same(out[-1][2], t * d):
            out[-1] = (out[-1][0] * d, s, t)
        else:
            out.append((d, s, t))
    out = out or [(1, 1, 1)]
    return tuple(d for d, _, _ in out), [s for _, s, _ in out], [t for _, _, t in out]


def _is_one(stride: SizeLike) -> bool:
    return isinstance(stride, int) and stride == 1


def _permute(node: Node) -> list[Step]:
    x = node.inputs[0]
    strides = strides_of(x.shape)
    return [copy_step(x, node, node.shape, [strides[a] for a in node.attrs["axes"]], strides_of(node.shape))]


def slice_walk(shape: tuple[SizeLike, ...], key: tuple[Any, ...]) -> tuple[list[SizeLike], SizeLike]:
    """Strides and offset, in elements, of basic indexing."""
    strides = strides_of(shape)
    out: list[SizeLike] = []
    offset: SizeLike = 0
    axis = 0
    for part in key:
        if part is None:
            out.append(0)
            continue
        if isinstance(part, slice):
            start, _, step, _ = extent(part, shape[axis])
            out.append(strides[axis] * step)
        else:
            start = part if 0 <= part else part + shape[axis]
        offset = offset + start * strides[axis]
        axis += 1
    return [*out, *strides[axis:]], offset


def _index(node: Node) -> list[Step]:
    x = node.inputs[0]
    strides, offset = slice_walk(x.shape, node.attrs["key"])
    return [copy_step(x, node, node.shape, strides, strides_of(node.shape), (offset, 0))]


def _place(node: Node) -> list[Step]:
    x = node.inputs[0]
    strides, offset = slice_walk(node.shape, node.attrs["key"])
    return [
        simple(moves.zero_kernel(code_of(node)), [], node),
        copy_step(x, node, x.shape, strides_of(x.shape), strides, (0, offset)),
    ]


def _concat(node: Node) -> list[Step]:
    axis = node.attrs["axis"]
    strides = strides_of(node.shape)
    steps = []
    start: SizeLike = 0
    for x in node.parents:
        steps.append(copy_step(x, node, x.shape, strides_of(x.shape), strides, (0, start * strides[axis])))
        steps[-1].part = True
        start = start + x.shape[axis]
    return steps


def _resize(node: Node) -> list[Step]:
    a = node.attrs
    kernel = resizing.resize_kernel(CODES[node.dtype.name], a["axis"], a["linear"], a["grid"])
    return [simple(kernel, node.parents, node)]


def _resize_spread(node: Node) -> list[Step]:
    a = node.attrs
    kernel = resizing.resize_spread_kernel(CODES[node.dtype.name], a["axis"], a["linear"], a["grid"])
    return [simple(kernel, node.parents, node)]


RULES: dict[str, Callable[[Node], list[Step]]] = {
    "permute_dims": _permute,
    "index": _index,
    "place": _place,
    "concat": _concat,
    "resize": _resize,
    "resize_spread": _resize_spread,
}
