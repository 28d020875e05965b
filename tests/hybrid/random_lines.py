"""What the lines of random programs do, by name: `APPLY`, and the names that are drawn from in `random_drawing.py`.

A line's function takes the values it reads and its attributes. It stays away from poles and from numbers at which
rounding decides (that is left to chance), so that float32 and float64 tell the same.

Deliberately not here: how programs are put together (`random_programs.py`, `random_drawing.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gluonish import nd

if TYPE_CHECKING:
    from hybrid.random_programs import Program


def _merge(x: nd.NDArray, axis: int) -> nd.NDArray:
    s = x.shape
    return x.reshape((*s[:axis], s[axis] * s[axis + 1], *s[axis + 2 :]))


def _along(axis: int, *parts: Any) -> tuple[Any, ...]:
    return (slice(None),) * axis + parts


def _halves(x: nd.NDArray, axis: int) -> nd.NDArray:
    return nd.concat([x[_along(axis, slice(1, None))], x[_along(axis, slice(0, 1))]], axis)


def _centred(x: nd.NDArray) -> nd.NDArray:
    """Where x is square, the means of the rows are taken from the columns: so broadcasting has it."""
    return x - x.mean(-1) if x.ndim == 2 and x.shape[0] == x.shape[1] else x - x.mean()


def _symmetric(x: nd.NDArray) -> nd.NDArray:
    return x + x.swapaxes(-1, -2) if x.shape[-1] == x.shape[-2] else x


def _positions(x: nd.NDArray, axis: int) -> nd.NDArray:
    steps = nd.arange(x.shape[axis]).astype(x.dtype)
    return x * steps.reshape(tuple(-1 if i == axis else 1 for i in range(x.ndim)))


def _state(x: nd.NDArray, state: nd.NDArray) -> nd.NDArray:
    state[:] = state * 0.5 + x.detach().mean()
    return x * state.mean()


def _of(name: str, prepared: Callable[[nd.NDArray], nd.NDArray]) -> Callable[[nd.NDArray], nd.NDArray]:
    function = getattr(nd, name)
    return lambda x: function(prepared(x))


def _kept(x: nd.NDArray, cache: nd.NDArray, start: nd.NDArray) -> nd.NDArray:
    """Rows put into an array that lasts, as a cache of keys is filled."""
    nd.write_rows(cache, start, x.detach().astype(cache.dtype))
    return x + cache.mean()


def _recurrent(
    x: nd.NDArray, wi: nd.NDArray, wh: nd.NDArray, bi: nd.NDArray, bh: nd.NDArray, *lengths: nd.NDArray,
    kind: str, reverse: bool,
) -> nd.NDArray:  # fmt: skip
    given = {"lengths": lengths[0]} if lengths else {}
    outputs, last, *_ = getattr(nd, kind)(x, wi, wh, bi, bh, reverse=reverse, **given)
    return outputs + last * 0.5


# --- control flow: what the bodies read beside slices and states are closures -----------------------------------------
def _settled(state: nd.NDArray, new: nd.NDArray) -> nd.NDArray:
    """A new state in the shape and dtype of the old one."""
    new = new.astype(state.dtype)
    if new.shape == state.shape:
        return nd.tanh(state * 0.5 + new)
    return state * 0.5 + nd.tanh(new.mean())


def _given(outputs: nd.NDArray, last: nd.NDArray, give: str) -> nd.NDArray:
    return {"outputs": outputs, "last": last, "both": outputs + nd.tanh(last.mean())}[give]


def _foreach(x: nd.NDArray, state: nd.NDArray, *others: nd.NDArray, body: Program, give: str) -> nd.NDArray:
    run = body.function({})

    def step(part: nd.NDArray, state: nd.NDArray) -> Any:
        out, new = run(part, state, *others)
        return out, _settled(state, new)

    return _given(*nd.foreach(step, x, state), give)


def _while(count: nd.NDArray, state: nd.NDArray, *others: nd.NDArray, body: Program, give: str) -> nd.NDArray:
    run = body.function({})

    def step(i: nd.NDArray, state: nd.NDArray) -> Any:
        out, new = run(state, *others)
        return out, (i + 1, _settled(state, new))

    outputs, (_, last) = nd.while_loop(lambda i, s: i < count, step, (count * 0, state), 3)
    return _given(outputs, last, give)


def _cond(choice: nd.NDArray, *others: nd.NDArray, then: Program, otherwise: Program) -> nd.NDArray:
    first, second = then.function({}), otherwise.function({})
    x = others[0]
    return nd.cond(choice > 0, lambda: _settled(x, first(*others)[0]), lambda: _settled(x, second(*others)[0]))


UNARY = (
    "tanh sigmoid relu abs square negative erf gelu silu softplus sin cos leaky_relu exp sqrt log rsqrt clip mask "
    "as_number floored counted centred symmetric"
).split()
RARER = (  # as often, all together, as two of the others
    "gelu_tanh atan asinh sign trunc round ceil erfc hard_sigmoid hard_swish elu selu celu mish soft_shrink "
    "log_sigmoid relu6 tan asin acos atanh acosh sinh cosh exp2 expm1 log1p erfinv log2 log10 cbrt gamma gammaln "
    "digamma nan_to_num noise instance"
).split()
BINARY = "add subtract multiply maximum minimum divide choose".split()
RARER_PAIRS = "atan2 hypot logaddexp copysign modulo lerp logic dot".split()
NAMED = (
    "tanh sigmoid relu abs square negative erf gelu silu softplus sin cos leaky_relu add subtract multiply maximum "
    "minimum matmul softmax log_softmax expand_dims flip sum mean max min var argmax take pick one_hot max_pool "
    "average_pool convolution dropout tile pad prod std argmin dot roll take_along_axis index_add index_update "
    "put_along_axis scatter_add convolution_transpose resize logaddexp copysign lerp sort gelu_tanh atan asinh sign "
    "trunc round ceil erfc hard_sigmoid hard_swish elu selu celu mish soft_shrink log_sigmoid relu6 nan_to_num"
).split()
APPLY: dict[str, Callable[..., nd.NDArray]] = {
    **{name: getattr(nd, name) for name in NAMED},
    # elementwise, kept away from poles
    "exp": lambda x: nd.exp(nd.minimum(x, 2.0)),
    "sqrt": lambda x: nd.sqrt(nd.abs(x) + 0.5),
    "log": lambda x: nd.log(nd.abs(x) + 0.5),
    "rsqrt": lambda x: nd.rsqrt(nd.square(x) + 0.5),
    "divide": lambda x, y: x / (nd.abs(y) + 0.5),
    "power": lambda x, exponent: nd.power(nd.abs(x) + 0.5, exponent),
    "number": lambda x, sign, number: {"+": x + number, "-": number - x, "*": x * number, "/": x / number}[sign],
    "by_size": lambda x, axis: x / x.shape[axis],
    "clip": lambda x: nd.clip(x, -0.5, 0.75),
    "tan": lambda x: nd.tan(nd.clip(x, -1.2, 1.2)),
    **{name: _of(name, lambda x: nd.tanh(x) * 0.9) for name in ("asin", "acos", "atanh", "erfinv")},
    "acosh": lambda x: nd.acosh(nd.abs(x) + 1.25),
    **{name: _of(name, lambda x: nd.clip(x, -3, 3)) for name in ("sinh", "cosh")},
    **{name: _of(name, lambda x: nd.minimum(x, 3.0)) for name in ("exp2", "expm1")},
    "log1p": lambda x: nd.log1p(nd.abs(x)),
    **{
        name: _of(name, lambda x: nd.minimum(nd.abs(x), 3.0) + 0.75)
        for name in ("log2", "log10", "cbrt", "gamma", "gammaln", "digamma")
    },
    "noise": lambda x: x + nd.random.uniform(-0.5, 0.5, shape=x.shape).astype(x.dtype),
    "atan2": lambda x, y: nd.atan2(x, nd.abs(y) + 0.5),
    "hypot": lambda x, y: nd.hypot(x, nd.abs(y) + 0.5),
    "modulo": lambda x, y: nd.remainder(x * 3 + 0.21, nd.abs(y) + 0.5),
    "logic": lambda x, y: nd.where(nd.logical_xor(x > 0.03, y > 0.1) | ~(x > y), x, y * 0.5),
    "choose": lambda x, y: nd.where(x > y, x * 2, y),
    "mask": lambda x: nd.where((x > 0.25) | (x < -0.5), x, 0.0),
    "as_number": lambda x: (x > 0.1).astype(x.dtype) * 0.5,
    "floored": lambda x: nd.floor(x * 3).astype("int32").astype(x.dtype),
    "counted": lambda x: ((x * 5).astype("int64") % 3 + 1 // 2).astype(x.dtype) * x,
    # other dtypes
    "narrow": lambda x, dtype: x.astype(dtype).astype(x.dtype),
    "byte": lambda x, dtype: nd.floor(nd.clip(x if dtype == "int8" else nd.abs(x), -30, 30) * 4 + 0.37).astype(dtype),
    "whole_product": lambda i: nd.matmul(i, i.swapaxes(-1, -2)),
    "whole": lambda x, dtype: nd.floor(x * 4 + 0.37).astype(dtype),
    "double": lambda x: x.astype("float64") * 1.25,
    "weighted": lambda i, x: i.astype(x.dtype) * x * 0.125,
    "whole_number": lambda i, sign, number: {
        "+": i + number,
        "*": i * number,
        "//": i // number,
        "%": i % number,
        "-": number - i,
    }[sign],
    "whole_pair": lambda i, j, sign: {
        "+": i + j,
        "-": i - j,
        "min": nd.minimum(i, j),
        "max": nd.maximum(i, j),
        "//": i // (abs(j) + 1),
        "where": nd.where((i > j) & (i != 3), i, j),
        "<": (i < j).astype(i.dtype),
        "==": (i == j).astype("int64"),
    }[sign],
    # compositions
    "normal": lambda x, axis: (x - x.mean(axis, keepdims=True)) * nd.rsqrt(x.var(axis, keepdims=True) + 0.1),
    "centred": _centred,
    "row_ratio": lambda x: x.sum(-1) / (nd.abs(x).sum(-1) + 1.0),
    "symmetric": _symmetric,
    "positions": _positions,
    "state": _state,
    "batch_norm": lambda x, mean, var, gamma: (x - mean) * (nd.rsqrt(nd.abs(var) + 0.1) * gamma) + mean,
    "affine": lambda x, gamma, beta: (
        (x - x.mean(-1, keepdims=True)) * nd.rsqrt(nd.var(x, -1, keepdims=True) + 0.1) * gamma + beta
    ),
    "instance": lambda x: x - x.mean(tuple(range(2, x.ndim)), keepdims=True) if x.ndim > 2 else x,
    "cross_entropy": lambda x, labels: -nd.pick(nd.log_softmax(x), labels),
    "log_sum": lambda x, axis: nd.log(nd.exp(nd.minimum(x, 9.0)).sum(axis)),
    "truths": lambda x, axis, every: (nd.all if every else nd.any)(x > 0.1, axis).astype(x.dtype) * 0.5,
    "length": lambda x, axis: nd.norm(nd.abs(x) + 0.25, axis),
    # along an axis, step by step
    "cumulative": lambda x, kind, axis, reverse: getattr(nd, f"cumulative_{kind}")(x, axis, reverse=reverse),
    "recurrence": lambda x, y, axis, reverse: nd.linear_scan(nd.sigmoid(x), y, axis, reverse),
    "ranked": lambda x, axis: nd.take_along_axis(x, nd.argsort(x, axis), axis),
    "top": lambda x, k, axis, largest: nd.topk(x, k, axis, largest).values,
    "top_places": lambda x, axis: nd.topk(x, 1, axis).indices.astype(x.dtype) * 0.25,
    "placed": lambda x, y: nd.searchsorted(nd.sort(y.reshape((-1,))), x).astype(x.dtype) * 0.25,
    "recurrent": _recurrent,
    # places
    "take_back": lambda x, i, axis: nd.take(x, i - 1, axis),
    "points": lambda x, i, j: nd.gather_nd(x, nd.stack([i, j])),
    "kept": _kept,
    # moves
    "parted": lambda x, axis: nd.split(x, [1], axis)[1] * 2,
    "squeezed": lambda x: nd.squeeze(x),
    "reflected": lambda x: nd.pad(x, [(1, 1)] * x.ndim, mode="reflect"),
    "permute": lambda x, axes: nd.permute_dims(x, axes),
    "merge": _merge,
    "flatten": lambda x: x.reshape((-1,)),
    "halves": _halves,
    "slice": lambda x, axis, start, step: x[_along(axis, slice(start, None, step))],
    "backwards": lambda x, axis, step: x[_along(axis, slice(None, None, step))],
    "at": lambda x, axis, index: x[_along(axis, index)],
    "last": lambda x, axis: x[_along(axis, x.shape[axis] - 1)],
    "half": lambda x, axis: x[_along(axis, slice(x.shape[axis] // 2, None))],
    "joined": lambda x, y, axis: nd.concat([x, y], axis),
    "stacked": lambda x, y, axis: nd.stack([x, y], axis),
    "padded": lambda x, width, value: nd.pad(x, [width] * x.ndim, value),
    "repeated": lambda x, axis: nd.repeat(x, 2, axis),
    "spread": lambda x: nd.broadcast_to(x, (2, *x.shape)),
    # control flow
    "foreach": _foreach,
    "while_loop": _while,
    "cond": _cond,
    # products
    "attend": lambda q, k, v, causal: nd.attention(q, k, v, causal=causal),
    "attend_masked": lambda q, k, v, mask, causal: nd.attention(q, k, v, mask > -0.6, causal=causal),
    "attend_self": lambda x, causal: nd.attention(x, x, x, causal=causal),
    "volume": lambda x, w, pad: nd.convolution(nd.stack([x, x * 0.5], 2), w, pad=pad),
    "gram": lambda x: nd.matmul(x, x.swapaxes(-1, -2)),
    "transposed_product": lambda x, y: nd.matmul(x.swapaxes(-1, -2), y),
}
