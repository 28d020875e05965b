"""Activation functions that are compositions of ops; hybridized code makes one loop of each.

Deliberately not here: those that are ops (relu, gelu, silu, softplus, tanh, ...), the layers (`block/nn`).
"""

from __future__ import annotations

from typing import Any

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.functions import clip
from gluonish.nd.ops import elementwise as e

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848


def log_sigmoid(x: Any) -> NDArray:
    """log(sigmoid(x)), without overflow.

    >>> from gluonish import nd
    >>> nd.log_sigmoid(nd.array([100.0, -200.0])).round().tolist()
    [-0.0, -200.0]
    """
    return -e.softplus(-dispatch.as_array(x))


def mish(x: Any) -> NDArray:
    """x * tanh(softplus(x)). Source: D. Misra, "Mish", 2019."""
    x = dispatch.as_array(x)
    return x * e.tanh(e.softplus(x))


def relu6(x: Any) -> NDArray:
    """x limited to [0, 6]."""
    return clip(x, 0.0, 6.0)


def hard_tanh(x: Any, low: float = -1.0, high: float = 1.0) -> NDArray:
    """x limited to [low, high]."""
    return clip(x, low, high)


def hard_sigmoid(x: Any, alpha: float = 1 / 6, beta: float = 0.5) -> NDArray:
    """alpha * x + beta limited to [0, 1]. Gluon's alpha is 0.2; 1/6 is that of mobile networks."""
    return clip(dispatch.as_array(x) * alpha + beta, 0.0, 1.0)


def hard_swish(x: Any) -> NDArray:
    """x * hard_sigmoid(x). Source: Howard et al., "Searching for MobileNetV3", 2019."""
    x = dispatch.as_array(x)
    return x * hard_sigmoid(x)


def selu(x: Any) -> NDArray:
    """A scaled elu that keeps mean and variance. Source: Klambauer et al., 2017."""
    x = dispatch.as_array(x)
    return e.where(x > 0, x, e.expm1(e.minimum(x, 0)) * _SELU_ALPHA) * _SELU_SCALE


def celu(x: Any, alpha: float = 1.0) -> NDArray:
    """max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0). Source: J. Barron, 2017."""
    x = dispatch.as_array(x)
    return e.where(x > 0, x, e.expm1(e.minimum(x, 0) / alpha) * alpha)


def soft_shrink(x: Any, threshold: float = 0.5) -> NDArray:
    """x moved towards 0 by the threshold; 0 if it is nearer."""
    x = dispatch.as_array(x)
    return x - clip(x, -threshold, threshold)
