"""Lowering of contraction groups: products and convolutions with what follows them as an epilogue.

The right operand is packed by a step of its own, so that the packing of weights is done once per version of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.hybrid.fuse import PRODUCTS, Group
from gluonish.hybrid.graph import Node, apply, in_shape
from gluonish.hybrid.lower_moves import copy_step, strides_of
from gluonish.hybrid.numerics import current_precision
from gluonish.hybrid.step import Step, temp
from gluonish.kernels import conv, depthwise, depthwise_rows, gemm, packing, winograd
from gluonish.kernels import packing_groups as groups
from gluonish.kernels.dots import GROUPS, group_of, operand_dtype
from gluonish.kernels.tiling import packed_size, round_up
from gluonish.nd.dtypes import SINGLE, is_half, single_of
from gluonish.nd.op import OPS
from gluonish.nd.size import SizeLike, hint, product, same, same_shape

FLOPS = 100.0  # multiply-adds a nanosecond, about, of one core
NUMBERS = 20.0  # numbers of a right operand that a core reads a nanosecond: products of few rows wait for them
LONG, WIDE = 3000, 192  # sums and columns from which on a transposed left operand is copied first (by 4 to 12 % faster)
_GROUPED = {"bfloat16": np.dtype("int16"), **{name: np.dtype(name) for name in ("int8", "int16", "int32")}}  # in memory


def lower(group: Group, wanted: set[int], steady: bool) -> list[Step] | None:
    """The steps of a contraction group, or None where the kernels lack it.

    wanted: ids of the values that are in memory. steady: weights change rarely.
    """
    node = group.nodes[0]
    if node.is_op(*PRODUCTS):
        return _matmul(group, wanted)
    if node.dtype.kind != "f" or is_half(node.dtype):
        return None
    return _convolution(group, *_epilogue(group, wanted), steady)


def _epilogue(group: Group, wanted: set[int]) -> tuple[Any, list[Node]]:
    """What follows the contraction, as an epilogue and its operands."""
    first, *rest = group.nodes
    if not rest:
        return (), []
    operands: list[Node] = []
    kinds: list[str] = []
    number = {id(first): 0}
    for node in rest:
        for x in node.parents:
            if id(x) not in group.members and id(x) not in number:
                number[id(x)] = 1 + len(operands)
                operands.append(_narrow(x, wanted))
                kinds.append(_kind(x, node) + ("" if operands[-1].dtype == first.dtype else f":{operands[-1].dtype}"))
    steps: list[Any] = []
    for i, node in enumerate(rest):
        assert node.op is not None
        attrs = ((("dtype", node.dtype.name),),) if node.is_op("cast") else ()
        picked = tuple(number[id(x)] if isinstance(x, Node) else (x,) for x in node.inputs)
        if node.is_op("add", "multiply") and all(isinstance(x, Node) for x in node.inputs):
            picked = tuple(sorted(picked))  # one kernel for a + b and b + a
        steps.append((node.op.name, picked, *attrs))
        number[id(node)] = 1 + len(operands) + i
    return (tuple(kinds), tuple(steps)), operands


def _narrow(x: Node, wanted: set[int]) -> Node:
    """The half-width array in memory that x is the float32 form of, or x itself: kernels convert what they load."""
    if not x.is_op("cast") or x.dtype != SINGLE or not is_half(x.inputs[0].dtype):
        return x
    return x.inputs[0] if x.inputs[0].kind != "op" or id(x.inputs[0]) in wanted else x


def _kind(x: Node, node: Node) -> str:
    if same_shape(x.shape, node.shape):
        return "full"
    return "column" if x.shape and same(x.shape[-1], node.shape[-1]) and not same(node.shape[-1], 1) else "scalar"


def _swapped(x: Node) -> Node | None:
    """What x is the transpose of, if it is one."""
    if not x.is_op("permute_dims"):
        return None
    rank = len(x.shape)
    return x.inputs[0] if x.attrs["axes"] == (*range(rank - 2), rank - 1, rank - 2) else None


def _matmul(group: Group, wanted: set[int]) -> list[Step] | None:
    node, last = group.nodes[0], group.nodes[-1]
    left, right = node.inputs
    operand = operand_dtype(left.dtype.name)
    if single_of(left.dtype) != left.dtype and operand != left.dtype.name:
        return None  # half-width floats that the pass `widen` has not seen
    epilogue, operands = _epilogue(group, wanted)
    shared = len(right.shape) == 2
    before: list[Step] = []
    if not shared and not (
        same_shape(left.shape[:-2], node.shape[:-2]) and same_shape(right.shape[:-2], node.shape[:-2])
    ):
        left, right = (_spread(x, node, before) for x in (left, right))
    source = _swapped(left) if operand == left.dtype.name and operand not in GROUPS else None
    transpose = source is not None and (len(left.shape) == 2 or not shared) and not _better_copied(left, right)
    batch = product(node.shape[:-2])
    m, n = node.shape[-2:]
    k = right.shape[-2] if isinstance(right.shape[-2], int) else left.shape[-1]
    if shared:
        rows = m if transpose else product(node.shape[:-1])
        a = in_shape(source, (k, m)) if transpose and source is not None else in_shape(left, (rows, k))
        out_shape: tuple[SizeLike, ...] = (rows, n)
    else:
        base = source if transpose and source is not None else left
        a = in_shape(base, (batch, k, m) if transpose else (batch, m, k))
        out_shape = (batch, m, n)
    a = _grouped(a, k, operand, node, before)
    b = _packed(right, k, node, operand, shared, batch, before)
    if shared and node.dtype.kind == "f" and node.dtype == last.dtype and operand not in GROUPS:
        sizes = (hint(out_shape[0]), hint(n), hint(k))
        if not any(":" in kind for kind in (epilogue or ((),))[0]) and gemm.pieces_of(*sizes, operand) > 1:
            return [*before, *_split(group, a, b, transpose, epilogue, operands, (*out_shape, k))]
    kernel = gemm.matmul_kernel(operand, transpose, epilogue, not shared, last.dtype.name)
    return [*before, _contract_step(kernel, [a, b, *operands], last, out_shape, group, k)]


def _split(
    group: Group, a: Node, b: Node, transpose: bool, epilogue: Any, operands: list[Node], sizes: Any
) -> list[Step]:
    """A small output of long sums: pieces of the sums, then their sum. `sizes`: rows, columns, and k."""
    node, last = group.nodes[0], group.nodes[-1]
    code = node.dtype.name
    parts = temp(node, sizes, lambda z: (gemm.pieces_of(z[0], z[1], z[2], code), z[0], z[1]))
    first, second = gemm.pieces_kernel(code, transpose), gemm.sum_pieces_kernel(code, epilogue)

    def work(ins: Any, outs: Any, p: Any) -> float:
        return float(product(outs[0])) * hint(sizes[2]) / FLOPS

    assert first.plan is not None and second.plan is not None
    plan, ending = first.plan, second.plan

    def finish(ins: Any, outs: Any, z: Any) -> Any:
        return ending(ins, [tuple(z[:2])])

    return [
        Step([a, b], [parts], first, lambda ins, outs, z: plan(ins, outs), nodes=[node], work=work),
        Step([parts, *operands], [last], second, finish, tuple(sizes), nodes=list(group.nodes), work=_light),
    ]


def _light(ins: Any, outs: Any, plan: Any) -> float:
    """Nanoseconds of a pass over what a step reads, about."""
    return 0.3 * float(product(ins[0]))


def _better_copied(left: Node, right: Node) -> bool:
    """Whether a transposed left operand is better laid out anew: read along a long K it strides through the memory."""
    return hint(left.shape[-1]) >= LONG and hint(right.shape[-1]) >= WIDE


def _grouped(left: Node, k: SizeLike, operand: str, node: Node, before: list[Step]) -> Node:
    """The left operand in rows of whole groups of k."""
    group = group_of(operand)
    if group == 1 and operand == left.dtype.name:
        return left
    if operand == left.dtype.name == "bfloat16" and isinstance(k, int) and k % group == 0:
        return left
    rows = temp(node, left.shape, lambda z: (*z[:-1], round_up(z[-1], group)), _GROUPED[operand])
    before.append(_pack_step(groups.group_rows_kernel(operand, left.dtype.name), left, rows, node))
    return rows


def _packed(
    right: Node, k: SizeLike, node: Node, operand: str, shared: bool, batch: SizeLike, before: list[Step]
) -> Node:
    """The right operand packed as the kernel wants it."""
    n = right.shape[-1]
    source = _swapped(right)
    group = group_of(operand)
    narrow = group > 1 or operand != right.dtype.name
    whole = right.dtype.name == operand == "bfloat16" and isinstance(k, int) and k % group == 0
    if narrow and not whole:
        source = None
    base = right if source is None else source
    rows, columns = base.shape[-2:]
    matrix = in_shape(base, (rows, columns) if shared else (batch, rows, columns))
    lead: tuple[SizeLike, ...] = () if shared else (batch,)
    dtype = SINGLE if narrow else None
    packed = temp(node, (k, n, *lead), lambda z: (*z[2:], packed_size(z[0], z[1], operand)), dtype)
    if narrow and source is None:
        before.append(_pack_step(groups.pack_groups_kernel(operand, right.dtype.name), matrix, packed, node))
    elif narrow:  # the transpose of a matrix of groups, each as wide as a float32
        kernel = packing.pack_kernel("float32", transpose=True)
        step = _pack_step(kernel, matrix, packed, node)
        step.plan = lambda ins, outs, sizes: kernel.plan([(*ins[0][:-1], ins[0][-1] // group)], outs)  # type: ignore[misc]
        before.append(step)
    else:
        before.append(_pack_step(packing.pack_kernel(operand, transpose=source is not None), matrix, packed, node))
    return packed


def _spread(x: Node, node: Node, before: list[Step]) -> Node:
    """An operand broadcast over the batch dimensions of the product."""
    shape = (*node.shape[:-2], *x.shape[-2:])
    if same_shape(x.shape, shape):
        return x
    wide = apply(OPS["broadcast_to"], (x,), {"shape": shape}, x.line)
    padded = (1,) * (len(shape) - len(x.shape)) + tuple(x.shape)
    strides = [0 if same(s, 1) else t for s, t in zip(padded, strides_of(padded))]
    before.append(copy_step(x, wide, shape, strides, strides_of(shape)))
    return wide


def _contract_step(
    kernel: Any, reads: list[Node], last: Node, out_shape: Any, group: Group, depth: SizeLike, plan: Any = None
) -> Step:
    """A step whose output, as the kernel sees it, has `out_shape`; `depth` numbers are summed for each element of it.

    plan: as in Step, where the kernel's own does not know enough.
    """
    rank = len(out_shape)

    def planned(ins: Any, outs: Any, sizes: Any) -> Any:
        return kernel.plan(ins, [tuple(sizes[:rank])])

    def work(ins: Any, outs: Any, p: Any) -> float:
        return max(float(product(outs[0])) * hint(depth) / FLOPS, float(product(ins[1])) / NUMBERS)

    return Step(reads, [last], kernel, plan or planned, tuple(out_shape), work=work, nodes=list(group.nodes))


def _convolution(group: Group, epilogue: Any, operands: list[Node], steady: bool) -> list[Step]:
    node = group.nodes[0]
    code, attrs = node.dtype.name, node.attrs
    groups = attrs["groups"]
    if node.is_op("convolution_weight_gradient"):
        x, g = node.inputs
        return [
            _walk(conv.conv2d_weight_gradient_kernel, (code,), [x, g], attrs["kernel"], group, product(g.shape[:3]))
        ]
    x, weight = node.inputs
    gradient = node.is_op("convolution_data_gradient")
    if _is_depthwise(x, weight, node, gradient):
        return [_depthwise(gradient, epilogue, [x, weight, *operands], group)]
    squares = _winograd_squares(x, weight, node, gradient, steady)
    if squares:
        return _winograd(squares, gradient, epilogue, [x, weight, *operands], group)
    packed = temp(
        node,
        tuple(weight.shape),
        lambda sizes: (
            packing.packed_convolution_size((sizes[0], sizes[1], sizes[2], sizes[3]), code, groups, gradient),
        ),
    )
    pack = _pack_step(packing.pack_convolution_kernel(code, groups, gradient), weight, packed, node)
    kh, kw, depth, out = weight.shape
    make = conv.conv2d_data_gradient_kernel if gradient else conv.conv2d_kernel
    summed = kh * kw * (out // groups if gradient else depth)
    return [pack, _walk(make, (code, epilogue), [x, packed, *operands], (kh, kw), group, summed)]


def _is_depthwise(x: Node, weight: Node, node: Node, gradient: bool) -> bool:
    """Whether each channel has one window of its own, and the kernel for that serves."""
    groups = node.attrs["groups"]
    if groups == 1 or not (same(x.shape[3], groups) and same(weight.shape[3], groups) and same(weight.shape[2], 1)):
        return False
    fixed = all(isinstance(size, int) for size in weight.shape[:2])
    return fixed and (not gradient or tuple(node.attrs["stride"]) == (1, 1))


def _depthwise(gradient: bool, epilogue: Any, reads: list[Node], group: Group) -> Step:
    node = group.nodes[0]
    attrs, (height, width) = node.attrs, (hint(size) for size in reads[1].shape[:2])
    geometry = conv.Geometry((height, width), attrs["stride"], attrs["pad"], attrs["dilation"], attrs["groups"])
    channels = reads[1].shape[3]
    usual = isinstance(channels, int) and depthwise_rows.serves(geometry, channels, node.dtype.name)
    make = depthwise_rows.depthwise_rows_kernel if usual else depthwise.depthwise_kernel
    kernel = make(node.dtype.name, geometry, epilogue, gradient)
    return _contract_step(kernel, reads, group.nodes[-1], node.shape, group, height * width)


def _winograd_squares(x: Node, weight: Node, node: Node, gradient: bool, steady: bool) -> int:
    """The size of the squares where Winograd's algorithm is faster; 0 where it is not, or may not be used."""
    attrs = node.attrs
    if not all(same(size, 3) for size in weight.shape[:2]):  # `==` would make a guard of a size that varies
        return 0
    if node.dtype.name != "float32" or attrs["groups"] != 1 or {*attrs["stride"], *attrs["dilation"]} != {1}:
        return 0
    if current_precision() == "strict":
        return 0
    images, height, width, channels = (hint(size) for size in node.shape)
    return winograd.fastest((images, height, width), hint(x.shape[3]), channels, steady)


def _winograd(squares: int, gradient: bool, epilogue: Any, reads: list[Node], group: Group) -> list[Step]:
    x, weight, *operands = reads
    node = group.nodes[0]
    packed = temp(
        node,
        tuple(weight.shape),
        lambda sizes: (winograd.packed_winograd_size((3, 3, sizes[2], sizes[3]), squares, gradient),),
    )
    pack = _pack_step(winograd.pack_winograd_kernel(squares, gradient), weight, packed, node)
    top, left = node.attrs["pad"]
    padding = (2 - top, 2 - left) if gradient else (top, left)
    kernel = winograd.winograd_kernel(squares, padding, epilogue)
    return [pack, _contract_step(kernel, [x, packed, *operands], group.nodes[-1], node.shape, group, x.shape[3] * 9)]


def _walk(make: Any, how: tuple[Any, ...], reads: list[Node], window: Any, group: Group, depth: SizeLike) -> Step:
    """A convolution's step. One compiled kernel serves every window; how it moves is decided when sizes are known."""
    attrs, shape = group.nodes[0].attrs, group.nodes[0].shape

    def kernel_of(kernel: tuple[int, int]) -> Any:
        geometry = conv.Geometry(kernel, attrs["stride"], attrs["pad"], attrs["dilation"], attrs["groups"])
        return make(how[0], geometry, *how[1:])

    def plan(ins: Any, outs: Any, sizes: Any) -> Any:
        return kernel_of((sizes[-2], sizes[-1])).plan(ins, [tuple(sizes[:-2])])

    kernel = kernel_of((hint(window[0]), hint(window[1])))
    step = _contract_step(kernel, reads, group.nodes[-1], shape, group, depth, plan)
    step.sizes = (*shape, *window)
    return step


def _pack_step(kernel: Any, source: Node, packed: Node, node: Node) -> Step:
    def work(ins: Any, outs: Any, p: Any) -> float:
        return 0.3 * float(product(ins[0]))

    return Step([source], [packed], kernel, lambda ins, outs, sizes: kernel.plan(ins, outs), nodes=[node], work=work)
