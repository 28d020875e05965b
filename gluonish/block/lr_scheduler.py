"""Learning rates that change with the number of updates: pure functions of it, so that a run can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gluonish.nd.errors import user_line


class LRScheduler:
    """Base: `scheduler(num_update)` is the learning rate; a subclass writes `after_warmup`.

    base_lr: the rate after warmup. warmup_steps: updates during which the rate rises from warmup_begin_lr to base_lr
    (warmup_mode "linear") or stays at warmup_begin_lr ("constant").
    """

    def __init__(
        self, base_lr: float = 0.01, warmup_steps: int = 0, warmup_begin_lr: float = 0.0, warmup_mode: str = "linear"
    ) -> None:
        if warmup_begin_lr > base_lr or warmup_steps < 0 or warmup_mode not in ("linear", "constant"):
            raise ValueError(
                f"warmup needs warmup_begin_lr <= base_lr, warmup_steps >= 0 and mode linear or constant, got "
                f"{warmup_begin_lr}, {base_lr}, {warmup_steps}, {warmup_mode!r} ({user_line()})"
            )
        self.base_lr = base_lr
        self.warmup_steps, self.warmup_begin_lr, self.warmup_mode = warmup_steps, warmup_begin_lr, warmup_mode

    def __call__(self, num_update: int) -> float:
        """The learning rate of that update; the first one is 1."""
        if num_update >= self.warmup_steps:
            return self.after_warmup(num_update)
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        return self.warmup_begin_lr + (self.base_lr - self.warmup_begin_lr) * num_update / self.warmup_steps

    def after_warmup(self, num_update: int) -> float:
        """The learning rate once warmup is over."""
        return self.base_lr


class FactorScheduler(LRScheduler):
    """base_lr times `factor` after every `step` updates, not below stop_factor_lr."""

    def __init__(
        self,
        step: int,
        factor: float = 1.0,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if step < 1 or factor > 1:
            raise ValueError(f"FactorScheduler needs step >= 1 and factor <= 1, got {step}, {factor} ({user_line()})")
        self.step, self.factor, self.stop_factor_lr = step, factor, stop_factor_lr

    def after_warmup(self, num_update: int) -> float:
        """See the class."""
        return max(self.base_lr * self.factor ** (max(num_update - 1, 0) // self.step), self.stop_factor_lr)


class MultiFactorScheduler(LRScheduler):
    """base_lr times `factor` after each update number in `step`."""

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1.0,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if not step or any(b <= a for a, b in zip(step, step[1:])) or step[0] < 1 or factor > 1:
            raise ValueError(
                f"MultiFactorScheduler needs increasing steps from 1 on and factor <= 1, got {step}, {factor} "
                f"({user_line()})"
            )
        self.step, self.factor = tuple(step), factor

    def after_warmup(self, num_update: int) -> float:
        """See the class."""
        return self.base_lr * self.factor ** sum(1 for step in self.step if num_update > step)


class PolyScheduler(LRScheduler):
    """From base_lr to final_lr over max_update updates as (1 - progress)^pwr."""

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.max_update, self.pwr, self.final_lr = _after(max_update, warmup_steps), pwr, final_lr

    def after_warmup(self, num_update: int) -> float:
        """See the class."""
        return self.final_lr + (self.base_lr - self.final_lr) * (1 - _progress(self, num_update)) ** self.pwr


class CosineScheduler(LRScheduler):
    """From base_lr to final_lr over max_update updates along half a cosine.

    Source: Loshchilov & Hutter, "SGDR", ICLR 2017.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.max_update, self.final_lr = _after(max_update, warmup_steps), final_lr

    def after_warmup(self, num_update: int) -> float:
        """See the class."""
        wave = (1 + math.cos(math.pi * _progress(self, num_update))) / 2
        return self.final_lr + (self.base_lr - self.final_lr) * wave


def _after(max_update: int, warmup_steps: int) -> int:
    if max_update <= warmup_steps:
        raise ValueError(f"max_update {max_update} must come after warmup_steps {warmup_steps} ({user_line()})")
    return max_update


def _progress(scheduler: PolyScheduler | CosineScheduler, num_update: int) -> float:
    """0 at the end of warmup, 1 from max_update on."""
    return min((num_update - scheduler.warmup_steps) / (scheduler.max_update - scheduler.warmup_steps), 1.0)
