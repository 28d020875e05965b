"""Ops without inputs: constants whose shape may be symbolic while tracing."""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.op import Op, Sample, Shape, Spec, register
from gluonish.nd.size import SizeLike

full_op = register(
    Op(
        "full",
        "create",
        lambda shape, value, dtype: np.full(shape, value, dtype),
        lambda shape, value, dtype: Spec(tuple(shape), np.dtype(dtype)),
        doc="An array of one repeated value.",
        sample=lambda rng: [Sample((), {"shape": (3, 4), "value": 2.5, "dtype": np.dtype("float32")})],
        smooth=False,
    )
)


def _arange_forward(count: Any, start: Any, step: Any, dtype: np.dtype) -> np.ndarray:
    return (start + step * np.arange(int(count))).astype(dtype)


def _arange_rule(count: SizeLike, start: Any, step: Any, dtype: np.dtype) -> Spec:
    shape: Shape = (count,)
    return Spec(shape, np.dtype(dtype))


arange_op = register(
    Op(
        "arange",
        "create",
        _arange_forward,
        _arange_rule,
        doc="start, start + step, ...: `count` numbers.",
        sample=lambda rng: [Sample((), {"count": 7, "start": 1, "step": 2, "dtype": np.dtype("int64")})],
        smooth=False,
    )
)
