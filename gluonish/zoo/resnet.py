"""Residual networks: blocks whose result is added to their input.

Deliberately not here: V2 (activations before convolutions) and other depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gluonish import nd
from gluonish.block import nn
from gluonish.nd import NDArray
from gluonish.zoo.network import Network, scaled


class _Residual(nn.HybridBlock):
    """relu(x + body(x)); where shapes change, `downsample` brings the input to the shape of the sum."""

    def __init__(self, body: nn.HybridSequential, channels: int, stride: int, changes: bool) -> None:
        self.body = body
        self.downsample = None
        if changes:
            self.downsample = nn.HybridSequential(nn.Conv2D(channels, 1, stride, use_bias=False), nn.BatchNorm())

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        residual = x if self.downsample is None else self.downsample(x)
        return nd.relu(residual + self.body(x))


class BasicBlockV1(_Residual):
    """Two 3x3 convolutions beside a direct path. Shapes: (N, C, H, W) -> (N, channels, H / stride, W / stride)."""

    def __init__(self, channels: int, stride: int, changes: bool) -> None:
        body = nn.HybridSequential(
            nn.Conv2D(channels, 3, stride, 1, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.Conv2D(channels, 3, 1, 1, use_bias=False),
            nn.BatchNorm(),
        )
        super().__init__(body, channels, stride, changes)


class BottleneckV1b(_Residual):
    """1x1, 3x3 and 1x1 convolutions beside a direct path; the stride is that of the 3x3.

    Shapes: (N, C, H, W) -> (N, channels, H / stride, W / stride).
    """

    def __init__(self, channels: int, stride: int, changes: bool) -> None:
        inner = max(1, channels // 4)
        body = nn.HybridSequential(
            nn.Conv2D(inner, 1, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.Conv2D(inner, 3, stride, 1, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.Conv2D(channels, 1, use_bias=False),
            nn.BatchNorm(),
        )
        super().__init__(body, channels, stride, changes)


class ResNetV1(Network):
    """A residual network for images, with activations after the sums.

    block: BasicBlockV1 or BottleneckV1b. layers: how many blocks in each stage. channels: those of the first
    convolution and of each stage. multiplier: of all channels. Images of any size from 32x32 on.

    Shapes: (N, 3, H, W) -> (N, classes); features alone (N, channels[-1]).
    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(
        self,
        block: Any,
        layers: Sequence[int],
        channels: Sequence[int],
        classes: int = 1000,
        multiplier: float = 1.0,
    ) -> None:
        first, *stages = (scaled(c, multiplier) for c in channels)
        self.features = nn.HybridSequential(
            nn.Conv2D(first, 7, 2, 3, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.MaxPool2D(3, 2, 1),
        )
        before = first
        for number, (count, width) in enumerate(zip(layers, stages)):
            stage = nn.HybridSequential()
            for i in range(count):
                stride = 2 if number > 0 and i == 0 else 1
                stage.add(block(width, stride, before != width or stride != 1))
                before = width
            self.features.add(stage)
        self.features.add(nn.GlobalAvgPool2D(), nn.Flatten())
        self.output = nn.Dense(classes, in_units=before)


def resnet18_v1(classes: int = 1000, multiplier: float = 1.0) -> ResNetV1:
    """ResNet-18: 11.7 million weights. multiplier: of all channels. No pretrained weights are loaded."""
    return ResNetV1(BasicBlockV1, (2, 2, 2, 2), (64, 64, 128, 256, 512), classes, multiplier)


def resnet50_v1b(classes: int = 1000, multiplier: float = 1.0) -> ResNetV1:
    """ResNet-50 with strides in the 3x3 convolutions: 25.6 million weights. multiplier: of all channels. No pretrained
    weights are loaded."""
    return ResNetV1(BottleneckV1b, (3, 4, 6, 3), (64, 256, 512, 1024, 2048), classes, multiplier)
