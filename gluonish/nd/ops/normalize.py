"""Normalization: what batch, layer, group and instance norm have in common.

Forward and gradient are compositions of other ops: while a function is traced they stand in the graph themselves, and
fusion finds in them what it needs. The record is there for its gradient, which needs two sums, where the composition's
own would need four.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.dtypes import is_float, is_half
from gluonish.nd.op import FLOAT, Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops.elementwise import rsqrt
from gluonish.nd.ops.reduce import Axes, distance_from_mean, sum_op, variance_op
from gluonish.nd.size import product


def _forward(x: np.ndarray, axes: Axes, epsilon: float) -> np.ndarray:
    wide = x.astype(FLOAT) if is_half(x.dtype) else x
    count = np.asarray(product(x.shape[a] for a in axes), wide.dtype)
    distance = wide - wide.sum(axes, keepdims=True) / count
    variance = np.sum(distance * distance, axes, keepdims=True) / count
    return (distance * (1 / np.sqrt(variance + np.asarray(epsilon, wide.dtype)))).astype(x.dtype, copy=False)


def _rule(x: Spec, axes: Axes, epsilon: float) -> Spec:
    if not is_float(x.dtype):
        raise refuse("normalize", "wants floats", x)
    if any(a >= len(x.shape) for a in axes):
        raise refuse("normalize", f"has no axes {axes}", x)
    return x


def _scale(x: Any, axes: Axes, epsilon: float) -> Any:
    return rsqrt(variance_op(x, axes=axes, keepdims=True) + epsilon)


def _parts(x: Any, axes: Axes, epsilon: float) -> Any:
    if is_half(x.dtype):
        return _parts(x.astype(FLOAT), axes, epsilon).astype(x.dtype)
    return distance_from_mean(x, axes) * _scale(x, axes, epsilon)


def _gradient(g: Any, y: Any, x: Any, axes: Axes, epsilon: float) -> Any:
    # y = d s with d = x - mean(x), s = rsqrt(var(x) + epsilon): both depend on x by its mean and variance alone
    if is_half(x.dtype):
        return _gradient(g.astype(FLOAT), y.astype(FLOAT), x.astype(FLOAT), axes, epsilon).astype(x.dtype)
    count = product(x.shape[a] for a in axes)
    mean = sum_op(g, axes=axes, keepdims=True) / count
    along = sum_op(g * y, axes=axes, keepdims=True) / count
    return (g - mean - y * along) * _scale(x, axes, epsilon)


def _sample(rng: np.random.Generator) -> list[Sample]:
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    more = {"epsilon": 1e-5}
    return [Sample((x,), {"axes": axes, **more}) for axes in ((2,), (1, 2), (0,), (0, 1), (0, 2), (0, 1, 2))]


normalize_op = register(
    Op(
        "normalize",
        "composite",
        quiet(_forward),
        _rule,
        (_gradient,),
        parts=_parts,
        accepts="float",
        doc="(x - mean) / sqrt(variance + epsilon), mean and variance over the axes.",
        sample=_sample,
    )
)
