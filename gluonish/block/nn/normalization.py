"""BatchNorm, LayerNorm and RMSNorm."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.nn.layer import Layer, positive
from gluonish.block.parameter import Parameter
from gluonish.nd import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_half
from gluonish.nd.errors import user_line


class BatchNorm(Layer):
    """Each channel normalised over the batch: (x - mean) / sqrt(var + epsilon) * gamma + beta.

    In train mode mean and (biased) variance are those of the batch, and the running ones move towards them:
    running = momentum * running + (1 - momentum) * batch. In predict mode, with use_global_stats, and while frozen, the
    running ones are used and stay as they are. It is frozen when those of gamma and beta that it trains all have
    grad_req "null" (or running_mean has): `net.setattr("grad_req", "null")` freezes statistics too.

    axis: the channels' dimension. center, scale: whether to train and apply beta, gamma. No weight decay (wd_mult 0).

    Shapes: (N, C, ...) -> the same; gamma, beta, running_mean, running_var (C,).

    Raises: ValueError for an input with another number of channels, TypeError for another dtype.
    Source: Ioffe & Szegedy, "Batch normalization", ICML 2015.
    """

    def __init__(
        self,
        axis: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        if not 0 <= momentum <= 1 or epsilon < 0:
            raise ValueError(
                f"BatchNorm: momentum must be in [0, 1] and epsilon not negative, got {momentum}, {epsilon} "
                f"({user_line()})"
            )
        self.axis, self.momentum, self.epsilon = axis, momentum, epsilon
        self.center, self.scale, self.use_global_stats = center, scale, use_global_stats
        shape = (positive("BatchNorm", "in_channels", in_channels, 0),)

        def vector(name: str, init: Any, trained: bool) -> Parameter:
            return Parameter(name, shape=shape, dtype=dtype, init=init, wd_mult=0.0, differentiable=trained)

        self.gamma = vector("gamma", gamma_initializer, scale)
        self.beta = vector("beta", beta_initializer, center)
        self.running_mean = vector("running_mean", running_mean_initializer, False)
        self.running_var = vector("running_var", running_variance_initializer, False)

    @property
    def frozen(self) -> bool:
        """Whether the statistics stay as they are (see the class)."""
        trained = [p for p, used in ((self.gamma, self.scale), (self.beta, self.center)) if used]
        return self.running_mean.frozen or (bool(trained) and all(p.frozen for p in trained))

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if not -x.ndim <= self.axis < x.ndim:
            raise self.misfit(x)
        axis = self.axis % x.ndim
        shape = (x.shape[axis],)
        gamma, beta = self.fitted(self.gamma, shape, x), self.fitted(self.beta, shape, x)
        mean, var = self.fitted(self.running_mean, shape, x), self.fitted(self.running_var, shape, x)
        wide = tuple(-1 if i == axis else 1 for i in range(x.ndim))  # (1, C, 1, 1)
        if state.training and not self.use_global_stats and not self.frozen:
            return self._by_batch(x, gamma, beta, wide)
        factor = nd.rsqrt(var + self.epsilon)
        if self.scale:
            factor = factor * gamma
        shift = (beta - mean * factor) if self.center else -mean * factor
        return x * factor.reshape(wide) + shift.reshape(wide)

    def _by_batch(self, x: NDArray, gamma: NDArray, beta: NDArray, wide: tuple[int, ...]) -> NDArray:
        over = tuple(i for i, size in enumerate(wide) if size == 1)
        self._move(self.running_mean, nd.mean(x.detach(), over))
        self._move(self.running_var, nd.var(x.detach(), over))
        out = nd.normalize(x, axes=over, epsilon=self.epsilon)
        if self.scale:
            out = out * gamma.reshape(wide)
        return out + beta.reshape(wide) if self.center else out

    def _move(self, running: NDArray, batch: NDArray) -> None:
        """Moves a running statistic towards that of the batch; no gradient flows there."""
        running[:] = running * self.momentum + batch * (1 - self.momentum)

    def _expects(self) -> str:
        channels = self.gamma.shape[0]
        return f"{channels or 'C'} channels in dimension {self.axis}"

    def _describe(self) -> str:
        return f"{self.gamma.shape[0] or '?'}" + (f", axis={self.axis}" if self.axis != 1 else "")


class ScaledNorm(Layer):
    """What norms without running statistics have in common: gamma and beta for each channel."""

    def _make(
        self, epsilon: float, center: bool, scale: bool, beta: Any, gamma: Any, in_channels: int, dtype: Any
    ) -> None:
        name = type(self).__name__
        if epsilon < 0:
            raise ValueError(f"{name}: epsilon must not be negative, got {epsilon} ({user_line()})")
        self.epsilon, self.center, self.scale = epsilon, center, scale
        shape = (positive(name, "in_channels", in_channels, 0),)
        more: dict[str, Any] = {"shape": shape, "dtype": dtype, "wd_mult": 0.0}
        self.gamma = Parameter("gamma", init=gamma, differentiable=scale, **more)
        self.beta = None if beta is None else Parameter("beta", init=beta, differentiable=center, **more)

    def _scaled(self, x: NDArray, axis: int) -> NDArray:
        """x * gamma + beta, with the channels in dimension `axis`."""
        wide = tuple(-1 if i == axis else 1 for i in range(x.ndim))  # (1, C, 1, 1)
        shape = (x.shape[axis],)
        gamma = self.fitted(self.gamma, shape, x)
        beta = None if self.beta is None else self.fitted(self.beta, shape, x)
        if self.scale:
            x = x * gamma.reshape(wide)
        return x + beta.reshape(wide) if self.center and beta is not None else x

    def _normalised(self, x: NDArray, axes: tuple[int, ...]) -> NDArray:
        return nd.normalize(x, axes=axes, epsilon=self.epsilon)


class _RowNorm(ScaledNorm):
    """What norms over one dimension, which has the scales too, have in common."""

    axis: int

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if not -x.ndim <= self.axis < x.ndim:
            raise self.misfit(x)
        axis = self.axis % x.ndim
        return self._scaled(self._normalised(x, (axis,)), axis)

    def _expects(self) -> str:
        return f"size {self.gamma.shape[0] or 'C'} in dimension {self.axis}"

    def _describe(self) -> str:
        return f"{self.gamma.shape[0] or '?'}" + (f", axis={self.axis}" if self.axis != -1 else "")


class LayerNorm(_RowNorm):
    """Each row normalised over one dimension: (x - mean) / sqrt(var + epsilon) * gamma + beta.

    axis: the dimension. center, scale: whether to train and apply beta, gamma. No weight decay (wd_mult 0).

    Shapes: (..., C) -> the same; gamma, beta (C,).

    Raises: ValueError for an input with another size there, TypeError for another dtype.
    Source: Ba, Kiros, Hinton, "Layer normalization", 2016.
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        self.axis = axis
        self._make(epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, dtype)


class RMSNorm(_RowNorm):
    """Each row divided by its root mean square over one dimension: x / sqrt(mean(x^2) + epsilon) * gamma.

    axis: the dimension. scale: whether to train and apply gamma, which has no weight decay (wd_mult 0).

    Shapes: (..., C) -> the same; gamma (C,).

    >>> from gluonish import nd, nn
    >>> layer = nn.RMSNorm(epsilon=0); layer.initialize(); layer(nd.array([[1.0, 7.0]])).tolist()  # the root of 25
    [[0.20000000298023224, 1.399999976158142]]

    Raises: ValueError for an input with another size there, TypeError for another dtype.
    Source: Zhang & Sennrich, "Root mean square layer normalization", NeurIPS 2019.
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        scale: bool = True,
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
    ) -> None:
        self.axis = axis
        self._make(epsilon, False, scale, None, gamma_initializer, in_channels, dtype)

    def _normalised(self, x: NDArray, axes: tuple[int, ...]) -> NDArray:
        wide = x.astype("float32") if is_half(x.dtype) else x  # squares of half-width floats soon overflow
        return (wide * nd.rsqrt(nd.mean(nd.square(wide), axes, True) + self.epsilon)).astype(x.dtype)
