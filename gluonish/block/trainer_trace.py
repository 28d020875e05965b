"""Trainer.step inside a compiled function: the update becomes part of its program.

Weights and states are written by the program. What Python does at each step stays in Python: counting updates, asking
the scheduler, filling in learning rate, momentum and the like, which the program reads from an array. So a new value
traces nothing; a momentum where there was none, another lr_mult or grad_req does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gluonish.nd.dispatch import TraceLike
from gluonish.nd.errors import user_line

if TYPE_CHECKING:
    from gluonish.block.trainer import Plan, Trainer


def trace_step(trainer: Trainer, trace: TraceLike, batch_size: Any) -> list[int]:
    """Traces the update of every Parameter that a backward of this trace gave a gradient; gives the places of others.

    Raises: TypeError if there is none.
    """
    trainer.look_again()
    fresh = [i for i in trainer.active if trace.given(trainer.parameters[i])]
    if not fresh:
        raise TypeError(
            f"Trainer.step inside a hybridized function needs the backward() inside, too: no Parameter got a gradient "
            f"there ({user_line()})"
        )
    groups: dict[Any, list[int]] = {}
    for i in fresh:
        groups.setdefault((trainer.counts[i], trainer.parameters[i].dtype), []).append(i)
    plans = [trainer.plan(tuple(places)) for places in groups.values()]
    for plan in plans:
        plan.update(*[p.grad / batch_size for p in plan.parameters], plan.array)
    trace.at_each_run(TracedStep(trainer, plans))
    return [i for i in trainer.active if i not in fresh]


class TracedStep:
    """What Python does at each run of such a program."""

    def __init__(self, trainer: Trainer, plans: list[Plan]) -> None:
        self.trainer, self.plans, self.settings = trainer, plans, trainer.settings

    def holds(self) -> bool:
        """Whether the Trainer's settings and states are those of the trace, and the Parameters of a plan at the same
        count."""
        trainer = self.trainer
        trainer.look_again()
        if trainer.settings != self.settings:
            return False
        for plan in self.plans:
            now = trainer.plan(plan.places)  # another one if there were other settings meanwhile, maybe without states
            if now is not plan and any(a is not b for a, b in zip(now.states, plan.states)):
                return False
        counts = trainer.counts
        return all(counts[i] == counts[plan.places[0]] for plan in self.plans for i in plan.places)

    def before(self) -> None:
        """Fills in the numbers."""
        for plan in self.plans:
            if self.trainer.plan(plan.places) is not plan:  # the settings are back, but the Trainer fills in its own
                plan.look_again()
            self.trainer.prepare(plan, self.trainer.optimizer.rescale_grad)

    def after(self) -> None:
        """Counts."""
        for plan in self.plans:
            self.trainer.finish(plan)
