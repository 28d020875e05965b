"""Inception v3: convolutions of several sizes side by side, without the auxiliary output that helps training."""

from __future__ import annotations

from typing import Any

from gluonish.block import nn
from gluonish.zoo.network import Network, scaled

EPSILON = 1e-3  # of the BatchNorms


class _Maker:
    """Makes convolutions with the channels of the paper times the multiplier."""

    def __init__(self, multiplier: float) -> None:
        self.multiplier = multiplier

    def conv(self, channels: int, kernel: Any, stride: int = 1, padding: Any = 0) -> nn.HybridSequential:
        """Convolution, BatchNorm, relu."""
        return nn.HybridSequential(
            nn.Conv2D(scaled(channels, self.multiplier), kernel, stride, padding, use_bias=False),
            nn.BatchNorm(epsilon=EPSILON),
            nn.Activation("relu"),
        )

    def row(self, *convs: tuple[Any, ...]) -> nn.HybridSequential:
        """Convolutions one after the other."""
        return nn.HybridSequential(*[self.conv(*conv) for conv in convs])

    def pooled(self, channels: int) -> nn.HybridSequential:
        """A mean of neighbours and a 1x1 convolution."""
        return nn.HybridSequential(nn.AvgPool2D(3, 1, 1), self.conv(channels, 1))


def _side_by_side(*branches: Any) -> nn.HybridConcatenate:
    return nn.HybridConcatenate(*branches, axis=1)


def _a(make: _Maker, pooled: int) -> nn.HybridConcatenate:
    return _side_by_side(
        make.conv(64, 1),
        make.row((48, 1), (64, 5, 1, 2)),
        make.row((64, 1), (96, 3, 1, 1), (96, 3, 1, 1)),
        make.pooled(pooled),
    )


def _b(make: _Maker) -> nn.HybridConcatenate:
    return _side_by_side(make.conv(384, 3, 2), make.row((64, 1), (96, 3, 1, 1), (96, 3, 2)), nn.MaxPool2D(3, 2))


def _c(make: _Maker, narrow: int) -> nn.HybridConcatenate:
    """A 7x7 window as a row and a column."""
    along, down = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return _side_by_side(
        make.conv(192, 1),
        make.row((narrow, 1), (narrow, *along), (192, *down)),
        make.row((narrow, 1), (narrow, *down), (narrow, *along), (narrow, *down), (192, *along)),
        make.pooled(192),
    )


def _d(make: _Maker) -> nn.HybridConcatenate:
    return _side_by_side(
        make.row((192, 1), (320, 3, 2)),
        make.row((192, 1), (192, (1, 7), 1, (0, 3)), (192, (7, 1), 1, (3, 0)), (192, 3, 2)),
        nn.MaxPool2D(3, 2),
    )


def _e(make: _Maker) -> nn.HybridConcatenate:
    def ends() -> nn.HybridConcatenate:
        return _side_by_side(make.conv(384, (1, 3), 1, (0, 1)), make.conv(384, (3, 1), 1, (1, 0)))

    return _side_by_side(
        make.conv(320, 1),
        nn.HybridSequential(make.conv(384, 1), ends()),
        nn.HybridSequential(make.conv(448, 1), make.conv(384, 3, 1, 1), ends()),
        make.pooled(192),
    )


class Inception3(Network):
    """Inception v3, made for images of 299x299; any size from 75x75 on. multiplier: of all channels.

    Shapes: (N, 3, H, W) -> (N, classes); features alone (N, 2048).
    Source: Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016.
    """

    def __init__(self, classes: int = 1000, multiplier: float = 1.0) -> None:
        make = _Maker(multiplier)
        self.features = nn.HybridSequential(
            make.conv(32, 3, 2), make.conv(32, 3), make.conv(64, 3, 1, 1), nn.MaxPool2D(3, 2),
            make.conv(80, 1), make.conv(192, 3), nn.MaxPool2D(3, 2),
            _a(make, 32), _a(make, 64), _a(make, 64), _b(make),
            _c(make, 128), _c(make, 160), _c(make, 160), _c(make, 192), _d(make),
            _e(make), _e(make), nn.GlobalAvgPool2D(), nn.Dropout(0.5), nn.Flatten(),
        )  # fmt: skip
        self.output = nn.Dense(classes)


def inception_v3(classes: int = 1000, multiplier: float = 1.0) -> Inception3:
    """Inception v3: 23.8 million weights. multiplier: of all channels. No pretrained weights are loaded."""
    return Inception3(classes, multiplier)
