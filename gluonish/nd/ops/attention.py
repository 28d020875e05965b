"""Scaled dot-product attention, what its backward keeps, and its three gradients, each an op with one output.

    scores = scale * query @ key^T (+ mask)        [..., T, S]
    weights = softmax(scores) over keys            result = weights @ value

The NumPy forwards here build the matrix of scores; the compiled kernel (`kernels/attention.py`) never does. Gradients
work from the scores' log-sum-exp, which the backward keeps instead of the weights: weights = exp(scores - statistics).
The gradients' own gradients, and that of a mask of floats, are compositions of other ops.

Deliberately not here: projections and heads (`nn.MultiHeadAttention`), dropout of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.dtypes import is_float, is_half
from gluonish.nd.errors import user_line
from gluonish.nd.op import BOOL, FLOAT, INDEX, Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops import elementwise as e
from gluonish.nd.ops.contract import matmul_op
from gluonish.nd.ops.create import arange_op
from gluonish.nd.ops.move import broadcast_op, reshape_op
from gluonish.nd.ops.reduce import sum_op
from gluonish.nd.size import SizeLike, stretches

Shape = tuple[SizeLike, ...]
HEADS = (0, 2, 1, 3)  # (batch, rows, heads, numbers) <-> (batch, heads, rows, numbers): kernels read through this


# --- shapes ----------------------------------------------------------------------------------------------------------
def _check(name: str, query: Spec, key: Spec, value: Spec | None, mask: Spec | None) -> Shape:
    """The shape of the scores; raises the error for inputs that do not fit."""
    given = [x for x in (query, key, value) if x is not None]
    specs = [*given, *([mask] if mask is not None else [])]
    if any(len(x.shape) < 2 for x in given):
        raise refuse(name, "query, key and value need at least 2 dimensions", *specs)
    if any(not is_float(x.dtype) or x.dtype != query.dtype for x in given):
        raise refuse(name, "query, key and value must be floating-point of one dtype", *specs)
    if any(len(x.shape) != len(query.shape) for x in given) or any(
        a != b for x in given for a, b in zip(x.shape[:-2], query.shape[:-2])
    ):
        raise refuse(name, "query, key and value must have the same leading dimensions", *specs)
    if query.shape[-1] != key.shape[-1]:
        raise refuse(name, "query and key must have the same last dimension", *specs)
    if value is not None and key.shape[-2] != value.shape[-2]:
        raise refuse(name, "key and value must have the same number of rows", *specs)
    scores = (*query.shape[:-1], key.shape[-2])
    if mask is not None:
        if mask.dtype != BOOL and mask.dtype != query.dtype:
            raise refuse(name, "the mask must be bool, or floats of the query's dtype", *specs)
        fits = zip(mask.shape[::-1], scores[::-1])
        if len(mask.shape) > len(scores) or any(not stretches(a, b) and a != b for a, b in fits):
            raise refuse(name, "the mask must broadcast to [..., queries, keys]", *specs)
    return scores


def _rule(query: Spec, key: Spec, value: Spec, mask: Spec | None = None, *, causal: bool, scale: float | None) -> Spec:
    scores = _check("attention", query, key, value, mask)
    return Spec((*scores[:-1], value.shape[-1]), query.dtype)


def _statistics_rule(query: Spec, key: Spec, mask: Spec | None = None, *, causal: bool, scale: float | None) -> Spec:
    return Spec(_check("attention_statistics", query, key, None, mask)[:-1], query.dtype)


def _gradient_rule(position: int) -> Any:
    """The rule of the gradient of the query 0, key 1 or value 2."""

    def rule(
        g: Spec,
        out: Spec,
        statistics: Spec,
        query: Spec,
        key: Spec,
        value: Spec,
        mask: Spec | None = None,
        *,
        causal: bool,
        scale: float | None,
    ) -> Spec:
        name = GRADIENTS[position]
        scores = _check(name, query, key, value, mask)
        wanted = (*scores[:-1], value.shape[-1])
        for x, shape in ((g, wanted), (out, wanted), (statistics, scores[:-1])):
            if len(x.shape) != len(shape) or any(a != b for a, b in zip(x.shape, shape)) or x.dtype != query.dtype:
                raise refuse(name, "gradient, result and statistics must be those of query, key and value", g, out,
                             statistics, query, key, value)  # fmt: skip
        return (query, key, value)[position]

    return rule


# --- NumPy -----------------------------------------------------------------------------------------------------------
def scale_of(scale: float | None, depth: Any) -> float:
    """The factor of the scores: 1 / sqrt(depth) unless given."""
    return scale if scale is not None else (float(depth) ** -0.5 if depth else 1.0)


def _wide(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Half-width floats in float32, so that sums are exact enough."""
    return tuple(x.astype(FLOAT) if is_half(x.dtype) else x for x in arrays)


def _scores(query: np.ndarray, key: np.ndarray, mask: Any, causal: bool, scale: float | None) -> np.ndarray:
    scores = np.matmul(query, key.swapaxes(-1, -2)) * query.dtype.type(scale_of(scale, query.shape[-1]))
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == BOOL else scores + mask
    if causal:
        t, s = scores.shape[-2:]
        scores = np.where(np.tri(t, s, s - t, dtype=bool), scores, -np.inf)
    return scores.astype(query.dtype, copy=False)


def _exponentials(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp(scores - highest) and highest, of rows; a row without any score but -Inf has zeros."""
    highest = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    highest = np.where(highest == -np.inf, scores.dtype.type(0), highest)
    return np.exp(scores - highest), highest


def _forward(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: Any = None, *, causal: bool, scale: float | None
) -> np.ndarray:
    _rule(query, key, value, mask, causal=causal, scale=scale)  # type: ignore[arg-type]  # arrays have what Specs have
    q, k, v = _wide(query, key, value)
    powers, _ = _exponentials(_scores(q, k, mask, causal, scale))
    total = powers.sum(-1, keepdims=True)
    return (np.matmul(powers, v) / np.where(total == 0, q.dtype.type(1), total)).astype(query.dtype, copy=False)


def _statistics_forward(
    query: np.ndarray, key: np.ndarray, mask: Any = None, *, causal: bool, scale: float | None
) -> np.ndarray:
    _statistics_rule(query, key, mask, causal=causal, scale=scale)  # type: ignore[arg-type]
    q, k = _wide(query, key)
    powers, highest = _exponentials(_scores(q, k, mask, causal, scale))
    total = powers.sum(-1)
    return np.where(total == 0, q.dtype.type(np.inf), np.log(total) + highest[..., 0]).astype(query.dtype, copy=False)


def _gradient_forward(rule: Any, position: int) -> Any:
    def forward(
        g: np.ndarray,
        out: np.ndarray,
        statistics: np.ndarray,
        query: np.ndarray,
        key: np.ndarray,
        value: np.ndarray,
        mask: Any = None,
        *,
        causal: bool,
        scale: float | None,
    ) -> np.ndarray:
        rule(g, out, statistics, query, key, value, mask, causal=causal, scale=scale)
        g, out, statistics, q, k, v = _wide(g, out, statistics, query, key, value)
        weights = np.exp(_scores(q, k, mask, causal, scale) - statistics[..., None])
        if position == 2:
            return np.matmul(weights.swapaxes(-1, -2), g).astype(query.dtype, copy=False)
        slopes = weights * (np.matmul(g, v.swapaxes(-1, -2)) - (g * out).sum(-1, keepdims=True))
        slopes *= q.dtype.type(scale_of(scale, q.shape[-1]))
        result = np.matmul(slopes, k) if position == 0 else np.matmul(slopes.swapaxes(-1, -2), q)
        return result.astype(query.dtype, copy=False)

    return forward


# --- gradients -------------------------------------------------------------------------------------------------------
# Written with ops; the letters are those of the module docstring's formula: P weights, S scores, L statistics.
def _swap(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _column(x: Any) -> Any:
    """A number per row, as a column beside the scores."""
    return reshape_op(x, shape=(*x.shape, 1))


def _row_sum(x: Any) -> Any:
    return sum_op(x, axes=(x.ndim - 1,), keepdims=True)


def _flat(x: Any) -> Any:
    """A column beside the scores as a number per row."""
    return reshape_op(x, shape=tuple(x.shape[:-1]))


def _weights(query: Any, key: Any, statistics: Any, mask: Any, causal: bool, scale: float | None) -> Any:
    """P = exp(S - L), by ops."""
    scores = matmul_op(query, _swap(key)) * scale_of(scale, query.shape[-1])
    if mask is not None:
        scores = e.where(mask, scores, -np.inf) if mask.dtype == BOOL else scores + mask
    if causal:
        t, s = scores.shape[-2:]
        rows = arange_op(count=t, start=s - t, step=1, dtype=INDEX)
        keys = arange_op(count=s, start=0, step=1, dtype=INDEX)
        scores = e.where(e.greater_equal(reshape_op(rows, shape=(t, 1)), keys), scores, -np.inf)
    return e.exp(scores - _column(statistics))


def _attention_vjp(
    position: int, g: Any, y: Any, query: Any, key: Any, value: Any, mask: Any = None, **attrs: Any
) -> Any:
    masks = () if mask is None else (mask,)
    statistics = attention_statistics_op(query, key, *masks, **attrs)
    if position < 3:
        return _GRADIENTS[position](g, y, statistics, query, key, value, *masks, **attrs)
    weights = _weights(query, key, statistics, mask, **attrs)
    return weights * (matmul_op(g, _swap(value)) - _row_sum(g * y))


def _statistics_vjp(position: int, h: Any, y: Any, query: Any, key: Any, mask: Any = None, **attrs: Any) -> Any:
    """dL/dS = P."""
    slopes = _weights(query, key, y, mask, **attrs) * _column(h)
    if position == 2:
        return slopes
    slopes = slopes * scale_of(attrs["scale"], query.shape[-1])
    return matmul_op(slopes, key) if position == 0 else matmul_op(_swap(slopes), query)


def _gradient_vjp(which: int) -> Any:
    """The gradient of a gradient (of the query 0, key 1, value 2), by ops.

    Query: slopes @ key, key: slopes^T @ query, with slopes = scale * P * (g value^T - rowsum(g * out)); value: P^T @ g.
    """

    def vjp(
        position: int,
        h: Any,
        y: Any,
        g: Any,
        out: Any,
        statistics: Any,
        query: Any,
        key: Any,
        value: Any,
        mask: Any = None,
        **attrs: Any,
    ) -> Any:
        scale = scale_of(attrs["scale"], query.shape[-1])
        weights = _weights(query, key, statistics, mask, **attrs)
        if which == 2:
            if position in (1, 5):
                return None
            if position == 0:
                return matmul_op(weights, h)
            of_scores = weights * matmul_op(g, _swap(h))
        else:
            outer = (matmul_op(h, _swap(key)) if which == 0 else matmul_op(query, _swap(h))) * scale
            slopes = matmul_op(g, _swap(value)) - _row_sum(g * out)
            of_product = outer * weights
            if position in (0, 1):
                lost = _row_sum(of_product)
                return matmul_op(of_product, value) - lost * out if position == 0 else -lost * g
            if position == 5:
                return matmul_op(_swap(of_product), g)
            of_scores = of_product * slopes
            direct = weights * slopes * scale
        if position == 2:
            return -_flat(_row_sum(of_scores))
        if position == 3:
            through = matmul_op(of_scores, key) * scale
            return through + matmul_op(direct, h) if which == 1 else through
        if position == 4:
            through = matmul_op(_swap(of_scores), query) * scale
            return through + matmul_op(_swap(direct), h) if which == 0 else through
        return of_scores

    return vjp


# --- samples ---------------------------------------------------------------------------------------------------------
def _sample(rng: np.random.Generator) -> list[Sample]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    plain: dict[str, Any] = {"causal": False, "scale": None}
    holes = rng.random((2, 1, 3, 5)) < 0.6
    holes[0, 0, 1] = False  # a query that may look at nothing
    padding = np.arange(6) < np.array([[[4]], [[6]]])
    return [
        Sample((draw(2, 3, 4, 5), draw(2, 3, 6, 5), draw(2, 3, 6, 7)), plain),
        Sample((draw(70, 3), draw(9, 3), draw(9, 20)), {"causal": False, "scale": 0.7}),
        Sample((draw(2, 3, 4), draw(2, 5, 4), draw(2, 5, 2)), {**plain, "causal": True}),
        Sample((draw(2, 5, 4), draw(2, 3, 4), draw(2, 3, 2)), {**plain, "causal": True}),
        Sample((draw(2, 2, 3, 4), draw(2, 2, 5, 4), draw(2, 2, 5, 3), holes), plain),
        Sample((draw(2, 3, 4), draw(2, 6, 4), draw(2, 6, 3), padding), plain),
        Sample((draw(2, 3, 4), draw(2, 6, 4), draw(2, 6, 3), draw(3, 6)), {**plain, "causal": True}),
        Sample((draw(2, 3, 4), draw(2, 6, 4), draw(2, 6, 3), draw(2, 1, 6)), plain),
    ]


def _statistics_sample(rng: np.random.Generator) -> list[Sample]:
    """Without rows that may look at nothing: +Inf has no numeric derivative."""
    found = []
    for (query, key, _, *mask), attrs in _sample(rng):
        mask = [m | (m.sum(-1, keepdims=True) == 0) if m.dtype == bool else m for m in mask]
        if not attrs["causal"] or key.shape[-2] >= query.shape[-2]:
            found.append(Sample((query, key, *mask), attrs))
    return found


def _gradient_sample(rng: np.random.Generator) -> list[Sample]:
    found = []
    for (query, key, value, *mask), attrs in _sample(rng):
        out = attention_op.forward(query, key, value, *mask, **attrs)
        statistics = attention_statistics_op.forward(query, key, *mask, **attrs)
        statistics = np.where(np.isfinite(statistics), statistics, np.float32(1))
        g = rng.standard_normal(out.shape).astype(np.float32)
        found.append(Sample((g, out, statistics, query, key, value, *mask), attrs))
    return found


# --- records ---------------------------------------------------------------------------------------------------------
attention_op: Op = register(
    Op(
        "attention",
        "attention",
        quiet(_forward),
        _rule,
        _attention_vjp,
        promote=False,
        doc="softmax(scale query key^T + mask) value. Shapes: (..., T, D), (..., S, D), (..., S, E) -> (..., T, E).",
        sample=_sample,
    )
)
attention_statistics_op: Op = register(
    Op(
        "attention_statistics",
        "attention",
        quiet(_statistics_forward),
        _statistics_rule,
        _statistics_vjp,
        promote=False,
        doc="The log-sum-exp of each query's scores; +Inf for a query that may look at nothing. Shapes: -> (..., T).",
        sample=_statistics_sample,
    )
)


def _gradient_op(name: str, position: int, of: str) -> Op:
    rule = _gradient_rule(position)
    return register(
        Op(
            name,
            "attention",
            quiet(_gradient_forward(rule, position)),
            rule,
            _gradient_vjp(position),
            promote=False,
            doc=f"The gradient of an attention with respect to its {of}.",
            sample=_gradient_sample,
        )
    )


_GRADIENTS = (
    _gradient_op("attention_query_gradient", 0, "query"),
    _gradient_op("attention_key_gradient", 1, "key"),
    _gradient_op("attention_value_gradient", 2, "value"),
)
GRADIENTS = tuple(op.name for op in _GRADIENTS)


def attention(
    query: Any, key: Any, value: Any, mask: Any = None, causal: bool = False, scale: float | None = None
) -> Any:
    """Scaled dot-product attention: softmax(scale query key^T + mask) value, the softmax over keys.

    mask: bool, True where a query may look at a key, or floats that are added to the scores; it broadcasts to the
    scores, [..., T, S]. causal: a query sees no later keys; the last query is aligned with the last key, so with a
    cache of keys (S > T) the last query sees all of them. scale: 1 / sqrt(D) unless given.

    A query that may look at nothing gives zeros, and no gradient flows through it (PyTorch's answer depends on its
    version and path: zeros or NaN). PyTorch aligns `is_causal` at the first key, which is the same for T = S. The
    values at keys nobody may look at must still be finite: 0 times Inf is NaN.

    Shapes: query (..., T, D), key (..., S, D), value (..., S, E) -> (..., T, E); leading dimensions (a batch, heads)
    broadcast.

    >>> from gluonish import nd
    >>> x = nd.array([[1.0, 0.0], [0.0, 1.0]]); nd.attention(x, x, x, causal=True, scale=0.0).tolist()
    [[1.0, 0.0], [0.5, 0.5]]

    Raises: ValueError for shapes that do not fit or a mask that is neither bool nor float.
    Source: Vaswani et al., "Attention is all you need", 2017; computed without the matrix of scores after Dao et al.,
    "FlashAttention", 2022.
    """
    query, key, value = matmul_op.prepared((query, key, value))
    lead = e.broadcast_shapes(
        "attention", *[Spec(x.shape[:-2], x.dtype) for x in (query, key, value) if len(x.shape) >= 2]
    )
    query, key, value = (_spread(x, lead) for x in (query, key, value))
    single = len(query.shape) > 1 and query.shape[-2] == 1  # a guard, for one query has a kernel of its own
    attrs = {"causal": bool(causal) and not single, "scale": None if scale is None else float(scale)}
    if mask is None:
        return attention_op(query, key, value, **attrs)
    return attention_op(query, key, value, _prepared_mask(mask, query), **attrs)


def _spread(x: Any, lead: Shape) -> Any:
    """An operand with the common leading dimensions."""
    if len(x.shape) < 2 or (len(x.shape) == len(lead) + 2 and all(a == b for a, b in zip(x.shape, lead))):
        return x
    return broadcast_op(x, shape=(*lead, *x.shape[-2:]))


def attention_weights(query: Any, key: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> Any:
    """The weights themselves, softmax(scale query key^T + mask): to look at, or to drop some of them.

    The arguments are those of `attention`; a query that may look at nothing has zeros. Slower than `attention`, which
    never has them in memory.

    Shapes: query (..., T, D), key (..., S, D) -> (..., T, S).
    Raises: ValueError for shapes that do not fit or a mask that is neither bool nor float.
    """
    query, key = matmul_op.prepared((query, key))
    mask = None if mask is None else _prepared_mask(mask, query)
    causal, scale = bool(causal), None if scale is None else float(scale)
    masks = () if mask is None else (mask,)
    statistics = attention_statistics_op(query, key, *masks, causal=causal, scale=scale)
    return _weights(query, key, statistics, mask, causal, scale)


def _prepared_mask(mask: Any, query: Any) -> Any:
    """A mask as the ops want it: bool, or floats of the query's dtype."""
    mask = dispatch.as_array(mask)
    if mask.dtype.kind != "b" and not is_float(mask.dtype):
        raise ValueError(
            f"attention: the mask must be bool (True: may look) or floats to add, got {mask.dtype}; use "
            f"mask.astype('bool') ({user_line()})"
        )
    return mask.astype(query.dtype) if is_float(mask.dtype) and mask.dtype != query.dtype else mask
