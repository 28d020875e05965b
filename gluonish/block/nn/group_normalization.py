"""GroupNorm and InstanceNorm: normalisation within each sample, the same in train and predict mode."""

from __future__ import annotations

from typing import Any

from gluonish.block.nn.layer import positive
from gluonish.block.nn.normalization import ScaledNorm
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line


class GroupNorm(ScaledNorm):
    """Each sample's channels normalised in groups: (x - mean) / sqrt(var + epsilon) * gamma + beta, mean and (biased)
    variance over the group's channels and all places.

    num_groups: how many groups of neighbouring channels; 1 takes all together, as many as channels each alone.
    center, scale: whether to train and apply beta, gamma, which each channel has. No weight decay (wd_mult 0).

    Shapes: (N, C, ...) -> the same; gamma, beta (C,).

    >>> from gluonish import nd, nn
    >>> layer = nn.GroupNorm(2); layer.initialize(); layer(nd.array([[1., 3., 10., 30.]])).round().tolist()
    [[-1.0, 1.0, -1.0, 1.0]]

    Raises: ValueError for a number of channels that the groups do not divide, TypeError for another dtype.
    Source: Wu & He, "Group normalization", ECCV 2018.
    """

    def __init__(
        self,
        num_groups: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        self.num_groups = positive("GroupNorm", "num_groups", num_groups)
        if in_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_groups {num_groups} must divide in_channels {in_channels} ({user_line()})"
            )
        self._make(epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, dtype)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if x.ndim < 2 or x.shape[1] % self.num_groups != 0:
            raise self.misfit(x)
        # channels are split, not merged with the places: a view of whatever order the memory has
        parts = x.reshape((x.shape[0], self.num_groups, x.shape[1] // self.num_groups, *x.shape[2:]))
        out = self._normalised(parts, tuple(range(2, parts.ndim)))
        return self._scaled(out.reshape(x.shape), 1)

    def _expects(self) -> str:
        channels = self.gamma.shape[0] or (f"C (a multiple of {self.num_groups})" if self.num_groups > 1 else "C")
        return f"{channels} channels in dimension 1"

    def _describe(self) -> str:
        return f"{self.gamma.shape[0] or '?'}, num_groups={self.num_groups}"


class InstanceNorm(ScaledNorm):
    """Each channel of each sample normalised over its places: (x - mean) / sqrt(var + epsilon) * gamma + beta, with the
    biased variance.

    axis: the channels' dimension. center, scale: whether to train and apply beta (usual), gamma (not usual). No weight
    decay (wd_mult 0).

    Shapes: (N, C, ...) -> the same; gamma, beta (C,).

    >>> from gluonish import nd, nn
    >>> layer = nn.InstanceNorm(); layer.initialize(); layer(nd.array([[[1., 3.], [10., 30.]]])).round().tolist()
    [[[-1.0, 1.0], [-1.0, 1.0]]]

    Raises: ValueError for an input with another number of channels or no places, TypeError for another dtype.
    Source: Ulyanov, Vedaldi, Lempitsky, "Instance normalization", 2016.
    """

    def __init__(
        self,
        axis: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        self.axis = axis
        self._make(epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, dtype)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if x.ndim < 3 or not -x.ndim <= self.axis < x.ndim or self.axis % x.ndim == 0:
            raise self.misfit(x)
        axis = self.axis % x.ndim
        return self._scaled(self._normalised(x, tuple(i for i in range(1, x.ndim) if i != axis)), axis)

    def _expects(self) -> str:
        return f"at least 3 dimensions, {self.gamma.shape[0] or 'C'} channels in dimension {self.axis}"

    def _describe(self) -> str:
        return f"{self.gamma.shape[0] or '?'}" + (f", axis={self.axis}" if self.axis != 1 else "")
