"""Activations: functions of one array by name, and the layers that apply them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gluonish import nd
from gluonish.block.hybrid_block import HybridBlock
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": nd.relu,
    "sigmoid": nd.sigmoid,
    "tanh": nd.tanh,
    "softrelu": nd.softplus,
    "softplus": nd.softplus,
    "softsign": lambda x: x / (nd.abs(x) + 1),
    "log_sigmoid": nd.log_sigmoid,
    "gelu": nd.gelu,
    "gelu_tanh": nd.gelu_tanh,
    "silu": nd.silu,
    "swish": nd.silu,
    "mish": nd.mish,
    "elu": nd.elu,
    "selu": nd.selu,
    "relu6": nd.relu6,
    "hard_sigmoid": nd.hard_sigmoid,
    "hard_swish": nd.hard_swish,
    "leaky": nd.leaky_relu,
}


def activation_name(name: Any) -> Any:
    """The name itself, or None. Raises: ValueError for an unknown one, listing those there are."""
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; there are: {', '.join(sorted(ACTIVATIONS))} ({user_line()})")
    return name


def activate(x: NDArray, name: str | None) -> Any:
    """The named function of x; x itself for None."""
    if name is None:
        return x
    function = ACTIVATIONS.get(name)
    if function is None:
        activation_name(name)
    return function(x)  # type: ignore[misc]


class Activation(HybridBlock):
    """A function of each element by its name: relu, sigmoid, tanh, softrelu, softsign, gelu, silu, ...

    Shapes: any -> the same.

    >>> from gluonish import nd, nn
    >>> nn.Activation("relu")(nd.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]

    Raises: ValueError for an unknown name.
    """

    def __init__(self, activation: str) -> None:
        self.activation = activation_name(activation)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return activate(x, self.activation)

    def _describe(self) -> str:
        return str(self.activation)


class LeakyReLU(HybridBlock):
    """x where positive, alpha * x elsewhere. Shapes: any -> the same."""

    def __init__(self, alpha: float = 0.01) -> None:
        if alpha < 0:
            raise ValueError(f"LeakyReLU: alpha must not be negative, got {alpha!r} ({user_line()})")
        self.alpha = alpha

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.leaky_relu(x, self.alpha)

    def _describe(self) -> str:
        return str(self.alpha)


class GELU(HybridBlock):
    """x times the standard normal distribution function of x, by erf, or by tanh with approximation="tanh".

    Shapes: any -> the same.
    Source: Hendrycks & Gimpel, "Gaussian error linear units", 2016.
    """

    def __init__(self, approximation: str = "erf") -> None:
        if approximation not in ("erf", "tanh"):
            raise ValueError(f"GELU: approximation must be 'erf' or 'tanh', got {approximation!r} ({user_line()})")
        self.approximation = approximation

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.gelu(x) if self.approximation == "erf" else nd.gelu_tanh(x)

    def _describe(self) -> str:
        return self.approximation
