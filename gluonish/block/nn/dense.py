"""Dense, Embedding, Flatten and Dropout."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.indices import index_error
from gluonish.block.nn.activations import activate, activation_name
from gluonish.block.nn.layer import Layer, positive, sizes_text
from gluonish.block.parameter import Parameter
from gluonish.block.tree import title
from gluonish.nd import NDArray, random
from gluonish.nd.dispatch import bind, state
from gluonish.nd.errors import user_line
from gluonish.nd.indexing import strict
from gluonish.nd.ops.contract import matmul_op
from gluonish.nd.ops.move import permute_op

_SWAPPED = {"axes": (1, 0)}


class Dense(Layer):
    """A fully connected layer: activation(x W^T + b).

    units: outputs. flatten: all dimensions but the first are inputs; else only the last. in_units: inputs, found from
    the first batch if 0. The bias has no weight decay (wd_mult 0).

    Shapes: (N, I) -> (N, units); with flatten (N, ...) -> (N, units), without (..., I) -> (..., units);
    weight (units, I), bias (units,).

    >>> from gluonish import nd, nn
    >>> layer = nn.Dense(3, activation="relu"); layer.initialize(); layer(nd.ones((2, 5))).shape
    (2, 3)

    Raises: ValueError for an unknown activation or an input of another last dimension, TypeError for another dtype.
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        flatten: bool = True,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_units: int = 0,
    ) -> None:
        self.units = positive("Dense", "units", units)
        self.activation = activation_name(activation)
        self.flatten = flatten
        shape = (units, positive("Dense", "in_units", in_units, 0))
        self.weight = Parameter("weight", shape=shape, dtype=dtype, init=weight_initializer)
        bias = Parameter("bias", shape=(units,), dtype=dtype, init=bias_initializer, wd_mult=0.0)
        self.bias = bias if use_bias else None

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if self.flatten and x.ndim != 2:
            x = x.flatten()  # (N, product of the rest)
        if x.ndim < 2:
            raise self.misfit(x)
        weight = self.fitted(self.weight, (self.units, x.shape[-1]), x)
        out = bind(matmul_op, (x, bind(permute_op, (weight,), _SWAPPED)))
        if self.bias is not None:
            out = out + self.bias
        return out if self.activation is None else activate(out, self.activation)

    def _expects(self) -> str:
        inputs = self.weight.shape[1]
        if not inputs:
            return "(..., inputs), at least 2 dimensions"
        return f"last dimension {inputs} (weight {sizes_text(self.weight.shape)})"

    def _describe(self) -> str:
        return f"{self.weight.shape[1] or '?'} -> {self.units}, {self.activation or 'linear'}"


class Embedding(Layer):
    """Rows of a table, one per index.

    Shapes: indices of any shape (...) -> (..., output_dim); weight (input_dim, output_dim).
    Raises: IndexError for an index outside 0 .. input_dim - 1; negative ones too.
    """

    def __init__(self, input_dim: int, output_dim: int, dtype: Any = "float32", weight_initializer: Any = None) -> None:
        self.input_dim = positive("Embedding", "input_dim", input_dim)
        self.output_dim = positive("Embedding", "output_dim", output_dim)
        self.weight = Parameter("weight", shape=(input_dim, output_dim), dtype=dtype, init=weight_initializer)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.take(self.weight, strict(x), 0)

    def reworded(self, error: Exception, args: tuple[Any, ...]) -> Exception:
        """Names the index that is out of range."""
        wrong = isinstance(error, IndexError) and args
        return index_error(error, title(self), "index", args[0], self.input_dim) if wrong else error

    def _describe(self) -> str:
        return f"{self.input_dim} -> {self.output_dim}, {self.weight.dtype}"


class Flatten(HybridBlock):
    """Shapes: (N, ...) -> (N, product of the rest)."""

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return x.flatten()


class Dropout(HybridBlock):
    """In train mode zeroes each element with probability `rate` and scales the others by 1 / (1 - rate).

    axes: dimensions along which elements share their fate.

    Shapes: any -> the same.
    Raises: ValueError for a rate outside [0, 1).
    Source: Srivastava et al., "Dropout", JMLR 15 (2014).
    """

    def __init__(self, rate: float, axes: Any = ()) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be in [0, 1), got {rate!r} ({user_line()})")
        self.rate = rate
        self.axes = (axes,) if isinstance(axes, int) else tuple(axes)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if not state.training or self.rate == 0:
            return x
        if not self.axes:
            return nd.dropout(x, self.rate)
        shared = {axis % x.ndim for axis in self.axes}
        shape = tuple(1 if i in shared else size for i, size in enumerate(x.shape))
        keep = random.uniform(shape=shape) >= self.rate
        return nd.where(keep, x * (1 / (1 - self.rate)), 0.0)

    def _describe(self) -> str:
        return f"p={self.rate}" + (f", axes={self.axes}" if self.axes else "")
