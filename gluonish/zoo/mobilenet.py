"""MobileNetV2: depthwise convolutions between narrow layers.

Deliberately not here: MobileNet (V1) and V3.
"""

from __future__ import annotations

from gluonish import nd
from gluonish.block import nn
from gluonish.nd import NDArray
from gluonish.zoo.network import Network, scaled

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class ReLU6(nn.HybridBlock):
    """x limited to 0 .. 6. Shapes: any -> the same."""

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.clip(x, 0, 6)


def _add(row: nn.HybridSequential, channels: int, kernel: int, stride: int, groups: int = 1) -> None:
    row.add(nn.Conv2D(channels, kernel, stride, kernel // 2, groups=groups, use_bias=False), nn.BatchNorm(), ReLU6())


class LinearBottleneck(nn.HybridBlock):
    """A narrow layer made wide, a depthwise 3x3 convolution, and narrow again without activation; the input is added
    where the shapes are the same.

    Shapes: (N, in_channels, H, W) -> (N, channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        self.use_shortcut = stride == 1 and in_channels == channels
        wide = in_channels * expansion
        self.out = nn.HybridSequential()
        if expansion != 1:
            _add(self.out, wide, 1, 1)
        _add(self.out, wide, 3, stride, groups=wide)
        self.out.add(nn.Conv2D(channels, 1, use_bias=False), nn.BatchNorm())

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return x + self.out(x) if self.use_shortcut else self.out(x)


class MobileNetV2(Network):
    """A network of few operations for small machines. multiplier: of all channels. Images of any size from 32x32 on.

    Where the usual implementations differ, it is like torchvision's, whose weights are the ones to be had: no first
    expansion in the first block, and an output with a bias.

    Shapes: (N, 3, H, W) -> (N, classes); features alone (N, 1280).
    Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018.
    """

    def __init__(self, multiplier: float = 1.0, classes: int = 1000) -> None:
        before = scaled(32, multiplier)
        self.features = nn.HybridSequential()
        _add(self.features, before, 3, 2)
        for expansion, channels, count, stride in STAGES:
            width = scaled(channels, multiplier)
            for i in range(count):
                self.features.add(LinearBottleneck(before, width, expansion, stride if i == 0 else 1))
                before = width
        last = 1280 if multiplier > 0.5 else scaled(1280, multiplier)
        _add(self.features, last, 1, 1)
        self.features.add(nn.GlobalAvgPool2D(), nn.Flatten())
        self.output = nn.Dense(classes, in_units=last)


def mobilenet_v2_1_0(classes: int = 1000, multiplier: float = 1.0) -> MobileNetV2:
    """MobileNetV2: 3.5 million weights. multiplier: of all channels. No pretrained weights are loaded."""
    return MobileNetV2(multiplier, classes)
