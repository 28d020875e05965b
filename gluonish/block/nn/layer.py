"""Layer: what layers with Parameters have in common, which is how an input and the Parameters are brought together."""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.parameter import Parameter
from gluonish.block.tree import source, title
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line


class Layer(HybridBlock):
    """Base of layers whose Parameters take their unknown dimensions from the first input."""

    def fitted(self, parameter: Parameter, shape: tuple[Any, ...], x: NDArray) -> Parameter:
        """The Parameter, of this shape and the dtype of x. Raises: the error that names layer and shapes."""
        if parameter._ready and parameter._shape == shape and x.dtype is parameter._dtype:
            return parameter
        if not parameter.fits(shape):
            raise self.misfit(x)
        if x.dtype != parameter.dtype:
            raise TypeError(
                f"{title(self)} has {parameter.dtype} parameters but got {x.dtype}{source(self)}; use "
                f"x.astype({parameter.dtype.name!r}), or net.cast for another dtype of parameters ({user_line()})"
            )
        return parameter.resolve(shape)

    def misfit(self, x: NDArray) -> ValueError:
        """The error for an input whose shape does not fit the layer."""
        return ValueError(
            f"{title(self)} expects {self._expects()} but got {shape_text(x.shape)}{source(self)} ({user_line()})"
        )

    def _expects(self) -> str:
        """What shape of input the layer wants, for its error."""
        raise NotImplementedError


def positive(layer: str, name: str, value: Any, least: int = 1) -> int:
    """A whole number that is at least `least`, or the error that says so."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{layer}: {name} must be a whole number, at least {least}, got {value!r} ({user_line()})")
    return int(value)


def sizes_text(shape: tuple[int, ...]) -> str:
    """A weight's shape as errors print it: `64x784`."""
    return "x".join(str(s) if s else "?" for s in shape)
