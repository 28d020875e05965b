"""Pairing: two runs through time that do not depend on each other become one kernel call, whose tiles are of both.

So are the two directions of a layer. A small batch makes few tiles, and does not fill the cores by itself; of a larger
one each core has fewer rows for each reading of the weight. Rows know nothing of each other, so the bits stay the same.

Deliberately not here: what a run is (`lower_recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Node
from gluonish.hybrid.step import Step
from gluonish.kernels.kernel import Kernel
from gluonish.nd.size import same_shape


@dataclass(eq=False)
class RunStep(Step):
    """A step of one run through time. several: the kernel of that many such runs; None if it is of several already."""

    several: Callable[[int], Kernel] | None = None


def paired(steps: list[Step]) -> list[Step]:
    """The steps with pairs of runs put into one call each, where the second of them stood; what reads the first comes
    behind."""
    out, at = list(steps), 0
    while at < len(out):
        step = out[at]
        found = _partner(out, at) if isinstance(step, RunStep) and step.several is not None else None
        if found is not None:
            before, behind, other = found
            together = _together(step, other)  # type: ignore[arg-type]
            out[at : at + len(before) + len(behind) + 2] = [*before, together, *behind]
        else:
            at += 1
    return out


def _partner(steps: list[Step], at: int) -> tuple[list[Step], list[Step], RunStep] | None:
    """The first run behind a run that can go with it, and the steps between them: those that can come before both, and
    those that depend on the run."""
    step = steps[at]
    before: list[Step] = []
    behind: list[Step] = []
    made, used = set(_roots(step.writes)), set(_roots(step.reads))
    for other in steps[at + 1 :]:
        reads, writes = set(_roots(other.reads)), set(_roots(other.writes))
        if made & (reads | writes) or used & writes:
            behind.append(other)
            made |= writes
            used |= reads
        elif isinstance(other, RunStep) and _alike(step, other):
            return before, behind, other
        else:
            before.append(other)
    return None


def _roots(nodes: list[Node]) -> Iterator[int]:
    return (id(root_of(n)) for n in nodes)


def _alike(step: Step, other: RunStep) -> bool:
    """Whether one kernel can do both; a packed weight has the size that the other arrays give it."""
    shapes = (
        (a.shape, b.shape) for a, b in zip((*step.reads, *step.writes), (*other.reads, *other.writes), strict=True)
    )
    return other.several is not None and step.kernel == other.kernel and all(same_shape(a, b) for a, b in shapes)


def _together(step: RunStep, other: RunStep) -> RunStep:
    assert step.several is not None
    kernel = step.several(2)
    assert kernel.plan is not None
    plan, alone = kernel.plan, step.work

    def work(ins: Any, outs: Any, p: Any) -> float:
        return 2 * alone(ins, outs, p) if alone is not None else 0.0

    return RunStep(
        [*step.reads, *other.reads], [*step.writes, *other.writes], kernel, lambda ins, outs, sizes: plan(ins, outs),
        extra=(*step.extra, *other.extra), work=work, nodes=[*step.nodes, *other.nodes],
    )  # fmt: skip
