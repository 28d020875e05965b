"""Pooling layers over signals (N, C, L), images (N, C, H, W) and volumes (N, C, D, H, W)."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.nn.convolution import nouns_text, only_channels_first
from gluonish.block.tree import source, title
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.neural import whole_numbers


class _Pool(HybridBlock):
    """What all pooling layers have in common."""

    _moves = 2  # directions in which the window moves

    def _checked(self, x: NDArray) -> NDArray:
        if x.ndim != self._moves + 2:
            raise ValueError(
                f"{title(self)} expects {nouns_text(self._moves)} but got {shape_text(x.shape)}{source(self)} "
                f"({user_line()})"
            )
        return x


class _Window(_Pool):
    """What windowed pooling layers have in common."""

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: Any = 0,
        layout: str | None = None,
        ceil_mode: bool = False,
    ) -> None:
        name = type(self).__name__
        only_channels_first(name, layout, self._moves)
        self.pool_size = whole_numbers(pool_size, "pool_size", self._moves)
        self.strides = self.pool_size if strides is None else whole_numbers(strides, "strides", self._moves)
        self.padding = whole_numbers(padding, "padding", self._moves)
        self.ceil_mode = ceil_mode
        if min(*self.pool_size, *self.strides) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"{name}: pool_size and strides must be positive, padding at least 0, got {self.pool_size}, "
                f"{self.strides}, {self.padding} ({user_line()})"
            )

    def _describe(self) -> str:
        text = f"{self.pool_size}, strides={self.strides}"
        return text + (f", padding={self.padding}" if any(self.padding) else "") + (", ceil" if self.ceil_mode else "")


class _MaxPool(_Window):
    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.max_pool(self._checked(x), self.pool_size, self.strides, self.padding, self.ceil_mode)


class _AvgPool(_Window):
    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: Any = 0,
        layout: str | None = None,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(pool_size, strides, padding, layout, ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        window = (self.pool_size, self.strides, self.padding, self.ceil_mode, self.count_include_pad)
        return nd.average_pool(self._checked(x), *window)


class _GlobalPool(_Pool):
    def __init__(self, layout: str | None = None) -> None:
        only_channels_first(type(self).__name__, layout, self._moves)

    def _over(self) -> tuple[int, ...]:
        return tuple(range(2, self._moves + 2))


class _GlobalAvgPool(_GlobalPool):
    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.mean(self._checked(x), self._over(), True)


class _GlobalMaxPool(_GlobalPool):
    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        return nd.max(self._checked(x), self._over(), True)


class MaxPool1D(_MaxPool):
    """The largest element of each window of a signal.

    pool_size, strides (pool_size by default), padding: an int. ceil_mode: a last partial window counts.

    Shapes: (N, C, L) -> (N, C, OL) with OL = (L + 2 padding - pool_size) // stride + 1.
    """

    _moves = 1


class MaxPool2D(_MaxPool):
    """The largest element of each window.

    pool_size, strides (pool_size by default), padding: an int or (vertical, horizontal). ceil_mode: a last partial
    window counts.

    Shapes: (N, C, H, W) -> (N, C, OH, OW) with OH = (H + 2 padding - pool_size) // stride + 1.
    """

    _moves = 2


class MaxPool3D(_MaxPool):
    """The largest element of each window of a volume.

    pool_size, strides (pool_size by default), padding: an int or (depth, vertical, horizontal). ceil_mode: a last
    partial window counts.

    Shapes: (N, C, D, H, W) -> (N, C, OD, OH, OW) with OD = (D + 2 padding - pool_size) // stride + 1.
    """

    _moves = 3


class AvgPool1D(_AvgPool):
    """The mean of each window of a signal; padding counts as zeros unless count_include_pad is False.

    pool_size, strides (pool_size by default), padding: an int. ceil_mode: a last partial window counts.

    Shapes: (N, C, L) -> (N, C, OL) with OL = (L + 2 padding - pool_size) // stride + 1.
    """

    _moves = 1


class AvgPool2D(_AvgPool):
    """The mean of each window; padding counts as zeros unless count_include_pad is False.

    pool_size, strides (pool_size by default), padding: an int or (vertical, horizontal). ceil_mode: a last partial
    window counts.

    Shapes: (N, C, H, W) -> (N, C, OH, OW) with OH = (H + 2 padding - pool_size) // stride + 1.
    """

    _moves = 2


class AvgPool3D(_AvgPool):
    """The mean of each window of a volume; padding counts as zeros unless count_include_pad is False.

    pool_size, strides (pool_size by default), padding: an int or (depth, vertical, horizontal). ceil_mode: a last
    partial window counts.

    Shapes: (N, C, D, H, W) -> (N, C, OD, OH, OW) with OD = (D + 2 padding - pool_size) // stride + 1.
    """

    _moves = 3


class GlobalAvgPool1D(_GlobalAvgPool):
    """The mean of each channel's signal. Shapes: (N, C, L) -> (N, C, 1)."""

    _moves = 1


class GlobalAvgPool2D(_GlobalAvgPool):
    """The mean of each channel's image. Shapes: (N, C, H, W) -> (N, C, 1, 1)."""

    _moves = 2


class GlobalAvgPool3D(_GlobalAvgPool):
    """The mean of each channel's volume. Shapes: (N, C, D, H, W) -> (N, C, 1, 1, 1)."""

    _moves = 3


class GlobalMaxPool1D(_GlobalMaxPool):
    """The largest element of each channel's signal. Shapes: (N, C, L) -> (N, C, 1)."""

    _moves = 1


class GlobalMaxPool2D(_GlobalMaxPool):
    """The largest element of each channel's image. Shapes: (N, C, H, W) -> (N, C, 1, 1)."""

    _moves = 2


class GlobalMaxPool3D(_GlobalMaxPool):
    """The largest element of each channel's volume. Shapes: (N, C, D, H, W) -> (N, C, 1, 1, 1)."""

    _moves = 3
