"""Initializers: the first values of Parameters. They draw from `gluonish.nd.random`, so a seed fixes them.

An initializer is called with a Parameter's name and an array to fill. One of your own is a subclass with
`_init_weight(name, array)`, which assigns `array[:] = ...`; `@init.register` makes its name known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gluonish.nd import NDArray, random
from gluonish.nd.errors import shape_text, user_line

_REGISTRY: dict[str, Any] = {}


class Initializer:
    """Base of all initializers."""

    def __call__(self, name: str, array: NDArray) -> None:
        """Fills `array`, the values of the Parameter called `name`."""
        self._init_weight(name, array)

    def _init_weight(self, name: str, array: NDArray) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs a method _init_weight(name, array)")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


def register(cls: type) -> type:
    """Makes an initializer known by its class's name in lower case (a decorator)."""
    _REGISTRY[cls.__name__.lower()] = cls
    return cls


def create(init: Any, **options: Any) -> Any:
    """An initializer from its name, itself, or a number (for Constant).

    >>> from gluonish import init
    >>> init.create("zeros")
    Zero()

    Raises: ValueError for an unknown name, listing those there are; TypeError for something else.
    """
    if isinstance(init, str):
        if init.lower() not in _REGISTRY:
            raise ValueError(f"unknown initializer {init!r}; there are: {', '.join(sorted(_REGISTRY))} ({user_line()})")
        return _REGISTRY[init.lower()](**options)
    if isinstance(init, (int, float)) and not isinstance(init, bool):
        return Constant(init)
    if not callable(init) or isinstance(init, type):
        raise TypeError(f"an initializer is a name or an object such as init.Xavier(), got {init!r} ({user_line()})")
    return init


@register
class Zero(Initializer):
    """All 0."""

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[:] = 0


@register
class One(Initializer):
    """All 1."""

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[:] = 1


@register
class Constant(Initializer):
    """A given number, or an array of the Parameter's shape."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[:] = np.asarray(self.value) if not isinstance(self.value, NDArray) else self.value


@register
class Uniform(Initializer):
    """Uniform in [-scale, scale)."""

    def __init__(self, scale: float = 0.07) -> None:
        self.scale = scale

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[:] = random.uniform(-self.scale, self.scale, array.shape)


@register
class Normal(Initializer):
    """Normal with mean 0 and standard deviation `sigma`."""

    def __init__(self, sigma: float = 0.01) -> None:
        self.sigma = sigma

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[:] = random.normal(0.0, self.sigma, array.shape)


@register
class Xavier(Initializer):
    """Numbers whose spread keeps the size of activations or gradients: scale = sqrt(magnitude / factor).

    rnd_type: "uniform" in [-scale, scale) or "gaussian" with that standard deviation.
    factor_type: the factor is fan "in" (inputs of a unit), "out" (outputs an input feeds) or their mean, "avg".

    Shapes: (out, in, ...); the dimensions after the second are a convolution's window and count for both fans.
    Raises: ValueError for a Parameter with fewer than two dimensions.
    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward networks", AISTATS 2010.
    """

    def __init__(self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3.0) -> None:
        _one_of("rnd_type", rnd_type, ("uniform", "gaussian"))
        _one_of("factor_type", factor_type, ("in", "out", "avg"))
        self.rnd_type, self.factor_type, self.magnitude = rnd_type, factor_type, magnitude

    def _init_weight(self, name: str, array: NDArray) -> None:
        if array.ndim < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 dimensions (out, in, ...), {name!r} has shape "
                f"{shape_text(array.shape)}; use init.Normal or init.Uniform there ({user_line()})"
            )
        window = math.prod(array.shape[2:])
        inputs, outputs = array.shape[1] * window, array.shape[0] * window
        factor = {"in": inputs, "out": outputs, "avg": (inputs + outputs) / 2}[self.factor_type]
        scale = math.sqrt(self.magnitude / factor)
        if self.rnd_type == "uniform":
            array[:] = random.uniform(-scale, scale, array.shape)
        else:
            array[:] = random.normal(0.0, scale, array.shape)


@register
class MSRAPrelu(Xavier):
    """Xavier with a normal distribution and magnitude 2 / (1 + slope^2), for layers before (leaky) ReLU.

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
    """

    def __init__(self, factor_type: str = "avg", slope: float = 0.25) -> None:
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self.slope = slope


@register
class Orthogonal(Initializer):
    """A random matrix (out, everything else) with orthonormal rows or columns, times `scale`.

    Source: Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning", ICLR 2014.
    """

    def __init__(self, scale: float = 1.414) -> None:
        self.scale = scale

    def _init_weight(self, name: str, array: NDArray) -> None:
        rows, columns = array.shape[0], math.prod(array.shape[1:])
        draw = random.normal(0.0, 1.0, (max(rows, columns), min(rows, columns))).asnumpy().astype(np.float64)
        q, r = np.linalg.qr(draw)
        q = q * np.sign(np.diag(r))  # without this the result would depend on the factorisation's choice of signs
        array[:] = (self.scale * (q if rows >= columns else q.T)).reshape(array.shape)


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r} ({user_line()})")


_REGISTRY |= {"zeros": Zero, "ones": One, "gaussian": Normal}
