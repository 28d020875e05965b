"""Timing: what each kernel of a call takes, measured by running the program step by step.

Each step runs several times as a call of its own, which adds about a microsecond; the shortest counts. What a run
writes to captured arrays is taken back. Deliberately not here: timing of whole calls, which is for a stopwatch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gluonish.hybrid.step import Step
from gluonish.hybrid.step_run import StepRun
from gluonish.nd import random
from gluonish.nd.array import NDArray
from gluonish.nd.dtypes import is_float
from gluonish.nd.size import hint

if TYPE_CHECKING:
    from gluonish.hybrid.variant import Variant

RUNS = 5


def example(variant: Variant) -> list[NDArray]:
    """Arguments like those of the trace: small normal numbers, zeros where they are no floats."""
    draw = np.random.default_rng(0)
    out = []
    for argument in variant.arguments:
        shape = tuple(int(hint(s)) for s in argument.shape)
        floating = is_float(argument.dtype)
        out.append(NDArray((draw.standard_normal(shape) if floating else np.zeros(shape)).astype(argument.dtype)))
    return out


def measured(variant: Variant, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> list[str]:
    """Lines: for each kernel its time in microseconds, its part of all, and what it computes where; also backwards."""
    key = np.array([random.default.seed, random.default.position], np.int64) if variant.draws else None
    before = [(a, a._data.copy()) for a in variant.program.updated]
    for work in variant.each_run:
        work.before()
    try:
        forward = StepRun(variant.program, [np.array(x._data, order="C") for x in arrays], sizes, key)
        rows = _rows("forward", _times(forward))
        if variant.backward is not None:
            heads = [np.ones(*forward.bound.returned[i]) for i in variant.heads]
            data = [*heads, *variant.backward.gap, *forward.data]
            rows += _rows("backward", _times(StepRun(variant.backward.program(), data, sizes, key, forward.kept)))
    finally:
        for array, values in before:
            array._data[...] = values
            array._version[0] += 1
    return rows


def _times(run: StepRun) -> list[tuple[Step, float]]:
    """The steps with their shortest times in seconds, in the order in which they run."""
    best: dict[int, float] = {}
    for _ in range(RUNS):
        for step, work in run.run():
            begin = time.perf_counter()
            work()
            taken = time.perf_counter() - begin
            best[id(step)] = min(best.get(id(step), taken), taken)
    return [(step, best[id(step)]) for step in run.bound.steps]


def _rows(title: str, times: list[tuple[Step, float]]) -> list[str]:
    total = sum(taken for _, taken in times) or 1e-9
    rows = [f"{title}: {len(times)} kernels, {total * 1e6:,.1f} us one by one"]
    for step, taken in times:
        rows.append(f"  {taken * 1e6:9.1f} us {taken / total:4.0%}  {step.name}  {_what(step)}".rstrip())
    return rows


def _what(step: Step) -> str:
    """The ops of a step with the user's lines."""
    lines: dict[str, list[str]] = {}
    for node in step.nodes:
        if node.op is not None:
            lines.setdefault(str(node.line), []).append(node.op.name)
    return "; ".join(f"{', '.join(dict.fromkeys(ops))} at {line or '?'}" for line, ops in lines.items())
