"""Pooling layers over images (N, C, H, W)."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.nn.convolution import only_nchw
from gluonish.block.tree import source, title
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.neural import pair


def _images(layer: HybridBlock, x: NDArray) -> NDArray:
    if x.ndim != 4:
        raise ValueError(
            f"{title(layer)} expects images (N, C, H, W) but got {shape_text(x.shape)}{source(layer)} ({user_line()})"
        )
    return x


class _Pool2D(HybridBlock):
    """What windowed pooling layers have in common."""

    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: Any = 0,
        layout: str = "NCHW",
        ceil_mode: bool = False,
    ) -> None:
        name = type(self).__name__
        only_nchw(name, layout)
        self.pool_size = pair(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else pair(strides, "strides")
        self.padding = pair(padding, "padding")
        self.ceil_mode = ceil_mode
        if min(*self.pool_size, *self.strides) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"{name}: pool_size and strides must be positive, padding at least 0, got {self.pool_size}, "
                f"{self.strides}, {self.padding} ({user_line()})"
            )

    def _describe(self) -> str:
        text = f"{self.pool_size}, strides={self.strides}"
        return (
            text
            + (f", padding={self.padding}" if self.padding != (0, 0) else "")
            + (", ceil" if self.ceil_mode else "")
        )


class MaxPool2D(_Pool2D):
    """The largest element of each window.

    pool_size, strides (pool_size by default), padding: an int or (vertical, horizontal). ceil_mode: a last partial
    window counts.

    Shapes: (N, C, H, W) -> (N, C, OH, OW) with OH = (H + 2 padding - pool_size) // stride + 1.
    """

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.max_pool(_images(self, x), self.pool_size, self.strides, self.padding, self.ceil_mode)


class AvgPool2D(_Pool2D):
    """The mean of each window; padding counts as zeros unless count_include_pad is False.

    pool_size, strides (pool_size by default), padding: an int or (vertical, horizontal). ceil_mode: a last partial
    window counts.

    Shapes: (N, C, H, W) -> (N, C, OH, OW) with OH = (H + 2 padding - pool_size) // stride + 1.
    """

    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: Any = 0,
        layout: str = "NCHW",
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(pool_size, strides, padding, layout, ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        x = _images(self, x)
        return nd.average_pool(x, self.pool_size, self.strides, self.padding, self.ceil_mode, self.count_include_pad)


class GlobalAvgPool2D(HybridBlock):
    """The mean of each channel's image. Shapes: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self, layout: str = "NCHW") -> None:
        only_nchw("GlobalAvgPool2D", layout)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.mean(_images(self, x), (2, 3), True)


class GlobalMaxPool2D(HybridBlock):
    """The largest element of each channel's image. Shapes: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self, layout: str = "NCHW") -> None:
        only_nchw("GlobalMaxPool2D", layout)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.max(_images(self, x), (2, 3), True)
