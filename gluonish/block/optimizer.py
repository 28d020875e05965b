"""Optimizers: how a weight changes, given its gradient and its states. Pure functions written with ops.

An optimizer holds hyperparameters only. The Trainer keeps the states, counts the updates, and compiles
`update` for all parameters into one program. Numbers come to it as arrays, so a new value compiles nothing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from gluonish import nd
from gluonish.block import attributes
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line

_REGISTRY: dict[str, type[Optimizer]] = {}
New = tuple[NDArray, tuple[NDArray, ...]]  # the new weight and the new states


class Optimizer:
    """Base of optimizers; a subclass writes `update`, and names its states and its numbers.

    learning_rate: the step size, or that of the scheduler. wd: weight decay, times each Parameter's wd_mult.
    lr_scheduler: a function of the number of updates. clip_gradient: limits each element of the rescaled gradient to
    [-clip_gradient, clip_gradient]. rescale_grad: a factor on all gradients, besides 1 / batch_size.
    """

    states: tuple[str, ...] = ()  # names of the arrays kept for each weight; they begin as zeros
    usual_rate = 0.01
    _running = ("learning_rate", "num_update", "_rate")  # what changes without a new program

    def __init__(
        self,
        learning_rate: float | None = None,
        wd: float = 0.0,
        lr_scheduler: Callable[[int], float] | None = None,
        clip_gradient: float | None = None,
        rescale_grad: float = 1.0,
    ) -> None:
        self.num_update = 0
        self.lr_scheduler = lr_scheduler
        if lr_scheduler is not None and learning_rate is not None and hasattr(lr_scheduler, "base_lr"):
            lr_scheduler.base_lr = learning_rate
        self._rate = self.usual_rate if learning_rate is None else learning_rate
        if wd < 0 or (clip_gradient is not None and clip_gradient <= 0):
            raise ValueError(
                f"{type(self).__name__}: wd must not be negative and clip_gradient must be positive, got {wd}, "
                f"{clip_gradient} ({user_line()})"
            )
        self.wd, self.clip_gradient, self.rescale_grad = wd, clip_gradient, rescale_grad

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name not in self._running:
            attributes.changed()

    @property
    def learning_rate(self) -> float:
        """The present learning rate. Raises: ValueError when set while a scheduler decides it."""
        return self._rate if self.lr_scheduler is None else self.lr_scheduler(self.num_update)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if self.lr_scheduler is not None:
            raise ValueError(f"the learning rate is decided by {type(self.lr_scheduler).__name__} ({user_line()})")
        self._rate = rate

    def set_learning_rate(self, rate: float) -> None:
        """The same as assigning `learning_rate`."""
        self.learning_rate = rate

    def numbers(self) -> dict[str, float]:
        """What `update` reads by name, besides lr and correction; a number that is not there is not used.

        A new value compiles nothing; another set of names does, and so does any other attribute that changes.
        """
        used = {"wd": self.wd} if self.wd else {}
        return used if self.clip_gradient is None else {**used, "clip_gradient": self.clip_gradient}

    def settings(self) -> tuple[Any, ...]:
        """What a compiled update has taken in."""
        numbers = self.numbers()
        left = (*self._running, *numbers, "lr_scheduler", "wd", "rescale_grad")
        return tuple(numbers), tuple((k, v) for k, v in vars(self).items() if k not in left)

    def correction(self, count: int) -> float:
        """A factor on the learning rate at a weight's update number `count`."""
        return 1.0

    def update(self, weight: NDArray, grad: NDArray, states: tuple[NDArray, ...], now: Any) -> New:
        """The new weight and states.

        grad: rescaled and clipped. now: the numbers of this update as arrays of one element: `now.lr`,
        `now.correction`, `now.wd` (None without weight decay), and those that `numbers` names.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def __repr__(self) -> str:
        shown = (f"{k}={v!r}" for k, v in vars(self).items() if k not in self._running)
        return f"{type(self).__name__}({', '.join(shown)})"


def register(cls: type[Optimizer]) -> type[Optimizer]:
    """Makes an optimizer known by its class's name in lower case (a decorator)."""
    _REGISTRY[cls.__name__.lower()] = cls
    return cls


def create(name: str | Optimizer, **hyperparameters: Any) -> Optimizer:
    """An optimizer by its name, with its hyperparameters.

    >>> from gluonish import optimizer
    >>> optimizer.create("sgd", learning_rate=0.1, momentum=0.9).momentum
    0.9

    Raises: ValueError for an unknown name, TypeError for an unknown hyperparameter, listing those there are.
    """
    if isinstance(name, Optimizer):
        if hyperparameters:
            raise TypeError(
                f"an optimizer object already has its hyperparameters, got {hyperparameters} ({user_line()})"
            )
        return name
    cls = _REGISTRY.get(name.lower()) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"unknown optimizer {name!r}; there are: {', '.join(sorted(_REGISTRY))} ({user_line()})")
    known = [
        p for c in cls.__mro__ if "__init__" in vars(c) and c is not object for p in inspect.signature(c).parameters
    ]
    known = [p for p in dict.fromkeys(known) if p not in ("args", "common", "kwargs")]
    for parameter in hyperparameters:
        if parameter not in known:
            raise TypeError(f"{name} has no hyperparameter {parameter!r}; it has: {', '.join(known)} ({user_line()})")
    return cls(**hyperparameters)


def _fraction(cls: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{cls}: {name} must be in [0, 1), got {value!r} ({user_line()})")


@register
class SGD(Optimizer):
    """Gradient descent: m = momentum m - lr (g + wd w); w = w + m.

    nesterov: looks ahead along the momentum: w = w + momentum m - lr (g + wd w) with the new m.
    Source of Nesterov's form: Sutskever et al., ICML 2013.
    """

    def __init__(
        self, learning_rate: float | None = None, momentum: float = 0.0, nesterov: bool = False, **common: Any
    ) -> None:
        super().__init__(learning_rate, **common)
        _fraction("SGD", momentum=momentum)
        self.momentum, self.nesterov = momentum, nesterov

    @property
    def states(self) -> tuple[str, ...]:  # type: ignore[override]
        """One array, `momentum`, unless momentum is 0."""
        return ("momentum",) if self.momentum else ()

    def numbers(self) -> dict[str, float]:
        """See Optimizer."""
        return {**super().numbers(), "momentum": self.momentum} if self.momentum else super().numbers()

    def update(self, weight: Any, grad: Any, states: Any, now: Any) -> New:
        """See the class."""
        change = (grad if now.wd is None else grad + weight * now.wd) * now.lr
        if not states:
            return weight - change, ()
        momentum = states[0] * now.momentum - change
        ahead = momentum * now.momentum - change if self.nesterov else momentum
        return weight + ahead, (momentum,)


@register
class NAG(SGD):
    """SGD with Nesterov's momentum (Gluon's name for it)."""

    def __init__(self, learning_rate: float | None = None, momentum: float = 0.0, **common: Any) -> None:
        super().__init__(learning_rate, momentum, nesterov=True, **common)


@register
class Adam(Optimizer):
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w = w - lr c m / (sqrt(v) + epsilon).

    c = sqrt(1 - beta2^t) / (1 - beta1^t) at a weight's update t; g contains wd w.
    Source: Kingma & Ba, "Adam", ICLR 2015 (the form with epsilon after the correction).
    """

    states = ("mean", "variance")
    usual_rate = 0.001

    def __init__(
        self,
        learning_rate: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **common: Any,
    ) -> None:
        super().__init__(learning_rate, **common)
        _fraction(type(self).__name__, beta1=beta1, beta2=beta2)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def correction(self, count: int) -> float:
        """sqrt(1 - beta2^t) / (1 - beta1^t)."""
        return math.sqrt(1 - self.beta2**count) / (1 - self.beta1**count)

    def numbers(self) -> dict[str, float]:
        """See Optimizer; rest1 and rest2 are 1 - beta1 and 1 - beta2, before either is rounded to float32."""
        rest = {"rest1": 1 - self.beta1, "rest2": 1 - self.beta2}
        return {**super().numbers(), "beta1": self.beta1, "beta2": self.beta2, **rest, "epsilon": self.epsilon}

    def update(self, weight: Any, grad: Any, states: Any, now: Any) -> New:
        """See the class."""
        return self._step(weight, grad if now.wd is None else grad + weight * now.wd, states, now)

    def _step(self, weight: Any, grad: Any, states: Any, now: Any) -> New:
        mean = states[0] * now.beta1 + grad * now.rest1
        variance = states[1] * now.beta2 + nd.square(grad) * now.rest2
        return weight - mean / (nd.sqrt(variance) + now.epsilon) * (now.lr * now.correction), (mean, variance)


@register
class AdamW(Adam):
    """Adam with weight decay beside the gradient: w = w - lr wd w - lr c m / (sqrt(v) + epsilon).

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def update(self, weight: Any, grad: Any, states: Any, now: Any) -> New:
        """See the class."""
        new, states = self._step(weight, grad, states, now)
        return (new if now.wd is None else new - weight * (now.lr * now.wd)), states
