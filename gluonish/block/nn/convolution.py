"""Conv2D."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.nn.activations import activate, activation_name
from gluonish.block.nn.layer import Layer, positive, sizes_text
from gluonish.block.parameter import Parameter
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line
from gluonish.nd.neural import pair


def only_nchw(layer: str, layout: str) -> None:
    """Raises ValueError for another layout than NCHW."""
    if layout != "NCHW":
        raise ValueError(
            f"{layer}: layout must be 'NCHW', got {layout!r}; images are (N, C, H, W) to the user whatever the memory "
            f"order inside, x.transpose((0, 3, 1, 2)) makes them so ({user_line()})"
        )


class Conv2D(Layer):
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

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: Any = (0, 0),
        dilation: Any = (1, 1),
        groups: int = 1,
        layout: str = "NCHW",
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        only_nchw("Conv2D", layout)
        self.channels = positive("Conv2D", "channels", channels)
        self.groups = positive("Conv2D", "groups", groups)
        positive("Conv2D", "in_channels", in_channels, 0)
        if channels % groups or in_channels % groups:
            raise ValueError(
                f"Conv2D: groups {groups} must divide channels {channels} and in_channels {in_channels} ({user_line()})"
            )
        self.kernel_size, self.strides = pair(kernel_size, "kernel_size"), pair(strides, "strides")
        self.padding, self.dilation = pair(padding, "padding"), pair(dilation, "dilation")
        if min(*self.kernel_size, *self.strides, *self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"Conv2D: kernel_size, strides and dilation must be positive, padding at least 0, got "
                f"{self.kernel_size}, {self.strides}, {self.dilation}, {self.padding} ({user_line()})"
            )
        self.activation = activation_name(activation)
        shape = (channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter("weight", shape=shape, dtype=dtype, init=weight_initializer)
        bias = Parameter("bias", shape=(channels,), dtype=dtype, init=bias_initializer, wd_mult=0.0)
        self.bias = bias if use_bias else None

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if x.ndim != 4 or x.shape[1] % self.groups != 0:
            raise self.misfit(x)
        weight = self.fitted(self.weight, (self.channels, x.shape[1] // self.groups, *self.kernel_size), x)
        out = nd.convolution(x, weight, self.bias, self.strides, self.padding, self.dilation, self.groups)
        return out if self.activation is None else activate(out, self.activation)

    def _expects(self) -> str:
        inputs = self.weight.shape[1] * self.groups
        if not inputs:
            return "images (N, C, H, W)" + (f", C a multiple of {self.groups}" if self.groups > 1 else "")
        return f"images (N, {inputs}, H, W), {inputs} channels (weight {sizes_text(self.weight.shape)})"

    def _describe(self) -> str:
        inputs = self.weight.shape[1] * self.groups or "?"
        parts = [f"{inputs} -> {self.channels}", f"kernel_size={self.kernel_size}"]
        for name, usual in (("strides", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1)):
            if getattr(self, name) != usual:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(
            parts + ([self.activation] if self.activation else []) + ([] if self.bias is not None else ["no bias"])
        )
