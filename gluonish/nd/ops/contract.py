"""Contractions: matrix products and convolutions. In eager mode NumPy's BLAS does the work.

Convolution is an op over channels-last memory (NHWC images, HWIO weights); the Gluon layout is a permuted view of it,
made by `nd.convolution`. Its two gradients are ops of their own, each linear in both inputs, so that differentiating
again stays inside these three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.errors import shape_text
from gluonish.nd.op import Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops.elementwise import broadcast_shapes
from gluonish.nd.ops.move import reshape_op
from gluonish.nd.size import SizeLike, product


# --- matmul ----------------------------------------------------------------------------------------------------------
def _matmul_rule(a: Spec, b: Spec, dtype: Any = None, op: str = "matmul") -> Spec:
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise refuse(op, "both inputs need at least 2 dimensions", a, b)
    if a.shape[-1] != b.shape[-2]:
        raise refuse(op, "the last dimension of the first must equal the second-last of the second", a, b)
    batch = broadcast_shapes(op, Spec(a.shape[:-2], a.dtype), Spec(b.shape[:-2], b.dtype))
    return Spec((*batch, a.shape[-2], b.shape[-1]), a.dtype if dtype is None else dtype)


def _matmul_forward(a: np.ndarray, b: np.ndarray, dtype: Any = None) -> np.ndarray:
    if a.ndim < 2 or b.ndim < 2:  # np.matmul would take vectors
        _matmul_rule(a, b)  # type: ignore[arg-type]  # arrays have all that a Spec has
    out = np.matmul(a, b)
    return out if dtype is None else out.astype(dtype, copy=False)


def _swap(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _matmul_sample(rng: np.random.Generator) -> list[Sample]:
    shapes = [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 0), (0, 2)), ((17, 65), (65, 33))]
    return [Sample(tuple(rng.standard_normal(s).astype(np.float32) for s in pair)) for pair in shapes]


def _matmul_left_vjp(g: Any, y: Any, a: Any, b: Any, dtype: Any = None) -> Any:
    return matmul_op(g.astype(a.dtype), _swap(b))


def _matmul_right_vjp(g: Any, y: Any, a: Any, b: Any, dtype: Any = None) -> Any:
    g = g.astype(b.dtype)
    if len(b.shape) == 2 < len(a.shape):  # one product over all rows, not a sum of products
        a, g = (reshape_op(x, shape=(product(x.shape[:-1]), x.shape[-1])) for x in (a, g))
    return matmul_op(_swap(a), g)


matmul_op: Op = register(
    Op(
        "matmul",
        "contract",
        quiet(_matmul_forward),
        _matmul_rule,
        (_matmul_left_vjp, _matmul_right_vjp),
        accepts="float",
        doc="Matrix product over the last two dimensions; leading dimensions broadcast. Half-width floats are summed "
        "in float32; dtype: what the result is rounded to, by default the operands' dtype.",
        sample=_matmul_sample,
    )
)


# --- products of integers ---------------------------------------------------------------------------------------------
def _integer_rule(a: Spec, b: Spec) -> Spec:
    if any(x.dtype != np.int8 for x in (a, b)):
        raise refuse("integer_matmul", "both inputs must be int8; convert them with astype, or multiply floats", a, b)
    return Spec(_matmul_rule(a, b, op="integer_matmul").shape, np.dtype("int32"))


def _integer_forward(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    _integer_rule(a, b)  # type: ignore[arg-type]
    if a.shape[-1] < 1 << 10:  # NumPy has no fast product of integers; float32 holds sums below 2**24 exactly
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.int32)
    wide = np.matmul(a.astype(np.float64), b.astype(np.float64))
    return wide.astype(np.int64).astype(np.int32)  # wraps around


def _integer_sample(rng: np.random.Generator) -> list[Sample]:
    shapes = [((3, 4), (4, 5)), ((2, 3, 7), (2, 7, 5)), ((2, 3, 4), (4, 5)), ((3, 0), (0, 2)), ((17, 65), (65, 33))]
    return [Sample(tuple(rng.integers(-128, 128, s).astype(np.int8) for s in pair)) for pair in shapes]


integer_matmul_op = register(
    Op(
        "integer_matmul",
        "contract",
        quiet(_integer_forward),
        _integer_rule,
        promote=False,
        doc="The product of int8 matrices as int32: exact, wrapping around as int32 does. It has no gradient.",
        sample=_integer_sample,
    )
)

# --- convolution -----------------------------------------------------------------------------------------------------
Pair = tuple[int, int]


def window_size(size: SizeLike, kernel: SizeLike, stride: int, pad: int, dilation: int) -> SizeLike:
    """How many windows fit along one dimension."""
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def _conv_rule(x: Spec, w: Spec, stride: Pair, pad: Pair, dilation: Pair, groups: int, op: str = "convolution") -> Spec:
    if len(x.shape) != 4 or len(w.shape) != 4:
        raise refuse(op, "needs a 4-dimensional image batch and weight", x, w)
    n, h, wd, c = x.shape
    kh, kw, per_group, out = w.shape
    if min(*stride, *dilation, groups) < 1 or min(pad) < 0 or any(isinstance(k, int) and k < 1 for k in (kh, kw)):
        raise refuse(op, f"no window with stride {stride}, pad {pad}, dilation {dilation}", x, w)
    if per_group * groups != c or out % groups != 0:
        raise refuse(op, f"weight (HWIO) does not fit {c} channels in {groups} group(s)", x, w)
    oh, ow = (window_size(s, k, stride[i], pad[i], dilation[i]) for i, (s, k) in enumerate(((h, kh), (wd, kw))))
    if oh <= 0 or ow <= 0:
        raise refuse(op, f"the window is larger than the image with padding {pad}", x, w)
    return Spec((n, oh, ow, out), x.dtype)


def patches(x: np.ndarray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, fill: float = 0.0) -> np.ndarray:
    """A view (N, OH, OW, KH, KW, C) of all windows of an NHWC batch; the border is filled."""
    if pad != (0, 0):
        x = np.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)), constant_values=fill)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel))
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, (1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def _conv_forward(x: np.ndarray, w: np.ndarray, stride: Pair, pad: Pair, dilation: Pair, groups: int) -> np.ndarray:
    _conv_rule(x, w, stride, pad, dilation, groups)  # type: ignore[arg-type]
    kh, kw, per_group, out = w.shape
    windows = patches(x, (kh, kw), stride, pad, dilation)
    n, oh, ow = windows.shape[:3]
    parts = []
    for g in range(groups):
        left = windows[..., g * per_group : (g + 1) * per_group].reshape(n * oh * ow, kh * kw * per_group)
        right = w[..., g * (out // groups) : (g + 1) * (out // groups)].reshape(kh * kw * per_group, out // groups)
        parts.append(left @ right)
    joined = parts[0] if groups == 1 else np.concatenate(parts, 1)
    return joined.reshape(n, oh, ow, out)


def _fits(name: str, g: Spec, wanted: tuple[SizeLike, ...]) -> None:
    if len(g.shape) != len(wanted) or any(a != b for a, b in zip(g.shape, wanted)):
        raise refuse(name, f"the gradient must have the shape of the result, {shape_text(wanted)}", g)


def _data_gradient_rule(g: Spec, w: Spec, size: Pair, **a: Any) -> Spec:
    if len(g.shape) != 4 or len(w.shape) != 4:
        raise refuse("convolution_data_gradient", "needs a 4-dimensional gradient and weight", g, w)
    x = Spec((g.shape[0], *size, w.shape[2] * a["groups"]), g.dtype)
    _fits("convolution_data_gradient", g, _conv_rule(x, w, **a, op="convolution_data_gradient").shape)
    return x


def _data_gradient_forward(
    g: np.ndarray, w: np.ndarray, size: Pair, stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> np.ndarray:
    _data_gradient_rule(g, w, size, stride=stride, pad=pad, dilation=dilation, groups=groups)  # type: ignore[arg-type]
    n, oh, ow, out = g.shape
    kh, kw, per_group, _ = w.shape
    h, wd = int(size[0]), int(size[1])
    padded = np.zeros((n, h + 2 * pad[0], wd + 2 * pad[1], per_group * groups), g.dtype)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation[0], j * dilation[1]
            view = padded[:, top : top + stride[0] * oh : stride[0], left : left + stride[1] * ow : stride[1]]
            for k in range(groups):
                outs = slice(k * (out // groups), (k + 1) * (out // groups))
                view[..., k * per_group : (k + 1) * per_group] += g[..., outs] @ w[i, j][:, outs].T
    return padded[:, pad[0] : pad[0] + h, pad[1] : pad[1] + wd]


def _weight_gradient_rule(x: Spec, g: Spec, kernel: Pair, **a: Any) -> Spec:
    if len(x.shape) != 4 or len(g.shape) != 4:
        raise refuse("convolution_weight_gradient", "needs a 4-dimensional image batch and gradient", x, g)
    w = Spec((*kernel, x.shape[3] // a["groups"], g.shape[3]), x.dtype)
    _fits("convolution_weight_gradient", g, _conv_rule(x, w, **a, op="convolution_weight_gradient").shape)
    return w


def _weight_gradient_forward(
    x: np.ndarray, g: np.ndarray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, groups: int
) -> np.ndarray:
    _weight_gradient_rule(x, g, kernel, stride=stride, pad=pad, dilation=dilation, groups=groups)  # type: ignore[arg-type]
    kh, kw = kernel
    windows = patches(x, kernel, stride, pad, dilation)
    n, oh, ow, out = g.shape
    per_group = x.shape[3] // groups
    flat = g.reshape(n * oh * ow, out)
    parts = []
    for k in range(groups):
        left = windows[..., k * per_group : (k + 1) * per_group].reshape(n * oh * ow, kh * kw * per_group)
        parts.append(left.T @ flat[:, k * (out // groups) : (k + 1) * (out // groups)])
    joined = parts[0] if groups == 1 else np.concatenate(parts, 1)
    return joined.reshape(kh, kw, per_group, out)


def _conv_sample(rng: np.random.Generator) -> list[Sample]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    plain = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1), "groups": 1}
    return [
        Sample((draw(2, 5, 6, 3), draw(3, 3, 3, 4)), {**plain, "pad": (1, 1)}),
        Sample((draw(1, 7, 7, 1), draw(3, 2, 1, 5)), {**plain, "stride": (2, 3)}),
        Sample((draw(2, 6, 6, 4), draw(3, 3, 2, 6)), {**plain, "groups": 2, "pad": (2, 1), "dilation": (2, 1)}),
        Sample((draw(2, 4, 4, 17), draw(1, 1, 17, 33)), plain),
    ]


def _data_gradient_sample(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((_conv_forward(*s.inputs, **s.attrs), s.inputs[1]), {"size": s.inputs[0].shape[1:3], **s.attrs})
        for s in _conv_sample(rng)
    ]


def _weight_gradient_sample(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((s.inputs[0], _conv_forward(*s.inputs, **s.attrs)), {"kernel": s.inputs[1].shape[:2], **s.attrs})
        for s in _conv_sample(rng)
    ]


conv_op = register(
    Op(
        "convolution",
        "contract",
        quiet(_conv_forward),
        _conv_rule,
        (
            lambda g, y, x, w, **a: conv_data_gradient_op(g, w, size=(x.shape[1], x.shape[2]), **a),
            lambda g, y, x, w, **a: conv_weight_gradient_op(x, g, kernel=(int(w.shape[0]), int(w.shape[1])), **a),
        ),
        accepts="float",
        doc="2-D convolution (cross-correlation). Shapes: x (N, H, W, C), w (KH, KW, C / groups, O) -> (N, OH, OW, O).",
        sample=_conv_sample,
    )
)
conv_data_gradient_op: Op = register(
    Op(
        "convolution_data_gradient",
        "contract",
        quiet(_data_gradient_forward),
        _data_gradient_rule,
        (
            lambda h, y, g, w, size, **a: conv_op(h, w, **a),
            lambda h, y, g, w, size, **a: conv_weight_gradient_op(h, g, kernel=(int(w.shape[0]), int(w.shape[1])), **a),
        ),
        accepts="float",
        doc="The gradient of a convolution with respect to its images; also the transposed convolution.",
        sample=_data_gradient_sample,
    )
)
conv_weight_gradient_op: Op = register(
    Op(
        "convolution_weight_gradient",
        "contract",
        quiet(_weight_gradient_forward),
        _weight_gradient_rule,
        (
            lambda h, y, x, g, kernel, **a: conv_data_gradient_op(g, h, size=(x.shape[1], x.shape[2]), **a),
            lambda h, y, x, g, kernel, **a: conv_op(x, h, **a),
        ),
        accepts="float",
        doc="The gradient of a convolution with respect to its weight.",
        sample=_weight_gradient_sample,
    )
)
