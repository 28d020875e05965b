"""Convolutions of signals, images and volumes, and transposed convolutions of signals and images."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.nn.activations import activate, activation_name
from gluonish.block.nn.layer import Layer, positive, sizes_text
from gluonish.block.parameter import Parameter
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line
from gluonish.nd.neural import LAYOUTS, whole_numbers

_NOUNS = {1: "signals", 2: "images", 3: "volumes"}
_GLUON = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def only_channels_first(layer: str, layout: str | None, moves: int) -> None:
    """Raises ValueError for another layout than NCW, NCHW, NCDHW."""
    if layout is not None and layout != _GLUON[moves]:
        order = (0, moves + 1, *range(1, moves + 1))
        raise ValueError(
            f"{layer}: layout must be {_GLUON[moves]!r}, got {layout!r}; {_NOUNS[moves]} are ({LAYOUTS[moves]}) to the "
            f"user whatever the memory order inside, x.transpose({order}) makes them so ({user_line()})"
        )


def nouns_text(moves: int) -> str:
    """What a layer expects whose windows move in so many directions: `images (N, C, H, W)`."""
    return f"{_NOUNS[moves]} ({LAYOUTS[moves]})"


class _Convolution(Layer):
    """What all convolutions have in common: how they are made, and the shapes of their Parameters."""

    _moves = 2  # directions in which the window moves

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        layout: str | None = None,
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        name = type(self).__name__
        only_channels_first(name, layout, self._moves)
        self.channels = positive(name, "channels", channels)
        self.groups = positive(name, "groups", groups)
        positive(name, "in_channels", in_channels, 0)
        if channels % groups or in_channels % groups:
            raise ValueError(
                f"{name}: groups {groups} must divide channels {channels} and in_channels {in_channels} ({user_line()})"
            )
        self.kernel_size = whole_numbers(kernel_size, "kernel_size", self._moves)
        self.strides = whole_numbers(strides, "strides", self._moves)
        self.padding = whole_numbers(padding, "padding", self._moves)
        self.dilation = whole_numbers(dilation, "dilation", self._moves)
        if min(*self.kernel_size, *self.strides, *self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"{name}: kernel_size, strides and dilation must be positive, padding at least 0, got "
                f"{self.kernel_size}, {self.strides}, {self.dilation}, {self.padding} ({user_line()})"
            )
        self.activation = activation_name(activation)
        self.weight = Parameter("weight", shape=self._shape(in_channels), dtype=dtype, init=weight_initializer)
        bias = Parameter("bias", shape=(channels,), dtype=dtype, init=bias_initializer, wd_mult=0.0)
        self.bias = bias if use_bias else None

    def _shape(self, inputs: Any) -> tuple[Any, ...]:
        """The weight's shape for so many input channels."""
        return (self.channels, inputs // self.groups, *self.kernel_size)

    def _inputs(self) -> int:
        """How many input channels the weight has; 0 while that is not known."""
        return self.weight.shape[1] * self.groups

    def _fitted(self, x: NDArray) -> Parameter:
        """The weight for this input."""
        if x.ndim != self._moves + 2 or x.shape[1] % self.groups != 0:
            raise self.misfit(x)
        return self.fitted(self.weight, self._shape(x.shape[1]), x)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        weight = self._fitted(x)
        out = nd.convolution(x, weight, self.bias, self.strides, self.padding, self.dilation, self.groups)
        return out if self.activation is None else activate(out, self.activation)

    def _expects(self) -> str:
        inputs, wanted = self._inputs(), nouns_text(self._moves)
        if not inputs:
            return wanted + (f", C a multiple of {self.groups}" if self.groups > 1 else "")
        wanted = wanted.replace("C", str(inputs), 1)
        return f"{wanted}, {inputs} channels (weight {sizes_text(self.weight.shape)})"

    def _describe(self) -> str:
        shown = [f"{self._inputs() or '?'} -> {self.channels}", f"kernel_size={self.kernel_size}"]
        for name, usual in (("strides", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1)):
            value = getattr(self, name, (usual,))
            shown += [f"{name}={value}"] if any(v != usual for v in value) else []
        shown += [f"groups={self.groups}"] if self.groups != 1 else []
        shown += [self.activation] if self.activation else []
        return ", ".join(shown + ([] if self.bias is not None else ["no bias"]))


class Conv1D(_Convolution):
    """1-D convolution (cross-correlation): activation(x * W + b).

    channels: output channels. kernel_size, strides, padding, dilation: an int. groups: input and output channels are
    split into so many independent parts. in_channels: found from the first batch if 0. The bias has no weight decay
    (wd_mult 0).

    Shapes: (N, C, L) -> (N, channels, OL) with OL = (L + 2 padding - dilation (kernel - 1) - 1) // stride + 1;
    weight (channels, C / groups, K), bias (channels,).

    >>> from gluonish import nd, nn
    >>> layer = nn.Conv1D(8, kernel_size=3, padding=1); layer.initialize(); layer(nd.ones((2, 3, 5))).shape
    (2, 8, 5)

    Raises: ValueError for another layout, an unknown activation or an input with other channels, TypeError for
    another dtype.
    """

    _moves = 1


class Conv2D(_Convolution):
    """2-D convolution (cross-correlation): activation(x * W + b).

    channels: output channels. kernel_size, strides, padding, dilation: an int or (vertical, horizontal). groups: input
    and output channels are split into so many independent parts. in_channels: found from the first batch if 0.
    The bias has no weight decay (wd_mult 0).

    Shapes: (N, C, H, W) -> (N, channels, OH, OW) with OH = (H + 2 padding - dilation (kernel - 1) - 1) // stride + 1;
    weight (channels, C / groups, KH, KW), bias (channels,).

    >>> from gluonish import nd, nn
    >>> layer = nn.Conv2D(8, kernel_size=3, padding=1); layer.initialize(); layer(nd.ones((2, 3, 5, 5))).shape
    (2, 8, 5, 5)

    Raises: ValueError for another layout, an unknown activation or an input with other channels, TypeError for
    another dtype.
    """

    _moves = 2


class Conv3D(_Convolution):
    """3-D convolution (cross-correlation): activation(x * W + b).

    channels: output channels. kernel_size, strides, padding, dilation: an int or (depth, vertical, horizontal). groups:
    input and output channels are split into so many independent parts. in_channels: found from the first batch if 0.
    The bias has no weight decay (wd_mult 0).

    Shapes: (N, C, D, H, W) -> (N, channels, OD, OH, OW) with
    OD = (D + 2 padding - dilation (kernel - 1) - 1) // stride + 1; weight (channels, C / groups, KD, KH, KW),
    bias (channels,).

    >>> from gluonish import nd, nn
    >>> layer = nn.Conv3D(8, kernel_size=3, padding=1); layer.initialize(); layer(nd.ones((2, 3, 4, 5, 5))).shape
    (2, 8, 4, 5, 5)

    Raises: ValueError for another layout, an unknown activation or an input with other channels, TypeError for
    another dtype.
    """

    _moves = 3


class _Transposed(_Convolution):
    """What transposed convolutions have in common."""

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        layout: str | None = None,
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        super().__init__(
            channels, kernel_size, strides, padding, dilation, groups, layout, activation, use_bias,
            weight_initializer, bias_initializer, in_channels, dtype,
        )  # fmt: skip
        self.output_padding = whole_numbers(output_padding, "output_padding", self._moves)
        if any(not 0 <= more < stride for more, stride in zip(self.output_padding, self.strides)):
            raise ValueError(
                f"{type(self).__name__}: output_padding must be at least 0 and less than strides {self.strides}, got "
                f"{self.output_padding} ({user_line()})"
            )

    def _shape(self, inputs: Any) -> tuple[Any, ...]:
        return (inputs, self.channels // self.groups, *self.kernel_size)

    def _inputs(self) -> int:
        return self.weight.shape[0]

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        weight = self._fitted(x)
        moves = (self.strides, self.padding, self.output_padding, self.dilation)
        out = nd.convolution_transpose(x, weight, self.bias, *moves, self.groups)
        return out if self.activation is None else activate(out, self.activation)


class Conv1DTranspose(_Transposed):
    """1-D transposed convolution: a signal becomes longer by the stride; the gradient of Conv1D to its input.

    channels: output channels. kernel_size, strides, padding, output_padding, dilation: an int. output_padding: elements
    added at the end, less than the stride. groups, in_channels, activation: as in Conv1D.

    Shapes: (N, C, L) -> (N, channels, OL) with
    OL = (L - 1) stride - 2 padding + dilation (kernel - 1) + 1 + output_padding; weight (C, channels / groups, K),
    bias (channels,).

    >>> from gluonish import nd, nn
    >>> layer = nn.Conv1DTranspose(8, kernel_size=2, strides=2); layer.initialize(); layer(nd.ones((2, 3, 5))).shape
    (2, 8, 10)

    Raises: ValueError for another layout, an unknown activation or an input with other channels, TypeError for
    another dtype.
    Source: Zeiler et al., "Deconvolutional networks", CVPR 2010.
    """

    _moves = 1


class Conv2DTranspose(_Transposed):
    """2-D transposed convolution: an image becomes larger by the stride; the gradient of Conv2D to its input.

    channels: output channels. kernel_size, strides, padding, output_padding, dilation: an int or (vertical,
    horizontal). output_padding: rows and columns added at the end, less than the stride. groups, in_channels,
    activation: as in Conv2D.

    Shapes: (N, C, H, W) -> (N, channels, OH, OW) with
    OH = (H - 1) stride - 2 padding + dilation (kernel - 1) + 1 + output_padding; weight (C, channels / groups, KH, KW),
    bias (channels,).

    >>> from gluonish import nd, nn
    >>> layer = nn.Conv2DTranspose(8, kernel_size=2, strides=2); layer.initialize(); layer(nd.ones((2, 3, 5, 5))).shape
    (2, 8, 10, 10)

    Raises: ValueError for another layout, an unknown activation or an input with other channels, TypeError for
    another dtype.
    Source: Zeiler et al., "Deconvolutional networks", CVPR 2010.
    """

    _moves = 2
