"""Network: what the networks of the zoo have in common."""

from __future__ import annotations

from typing import Any

from gluonish.block import nn
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line


class Network(nn.HybridBlock):
    """A network in two parts, each an attribute that may be used alone or replaced: `features` makes a vector of each
    image, `output` scores of the classes from it. Shapes: (N, 3, H, W) -> (N, classes)."""

    features: nn.HybridBlock
    output: Any

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return self.output(self.features(x))


def scaled(channels: int, multiplier: float) -> int:
    """So many channels times the multiplier: a whole number, at least 1."""
    if not multiplier > 0:
        raise ValueError(f"multiplier must be positive, got {multiplier!r} ({user_line()})")
    return max(1, int(channels * multiplier + 0.5))
