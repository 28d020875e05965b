"""Which of a program's waves run at concrete sizes: as many as memory allows, each a row in the place of its steps'.

Deliberately not here: what a wave is and whether it pays (`waves.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.dependencies import Region
from gluonish.hybrid.step import Step
from gluonish.hybrid.waves import Load, Wave, wave_of
from gluonish.kernels.pool import get_num_threads
from gluonish.kernels.wave import Unit, WaveTable, table_bytes
from gluonish.nd.size import product

if TYPE_CHECKING:
    from gluonish.hybrid.bound import Bound

EXTRA = 1 << 18  # bytes that waves may take more than steps one by one, if not as large a part as they save of the time
UNKNOWN = 0.3  # nanoseconds a number of a step whose work nobody has estimated


def found_waves(bound: Bound, regions: Iterable[Region]) -> list[Wave]:
    """The waves that pay, for as many threads as there are now."""
    threads = get_num_threads()
    if threads == 1:
        return []
    waves = (wave_of(r, [load_of(bound, n) for n in r], threads) for r in regions)
    return [wave for wave in waves if wave is not None]


def load_of(bound: Bound, number: int) -> Load:
    """What a step does."""
    step, plan = bound.steps[number], bound.plans[number]
    assert plan is not None
    ins, outs = [bound.shape(n) for n in step.reads], [bound.shape(n) for n in step.writes]
    work = step.work(ins, outs, plan) if step.work is not None else UNKNOWN * sum(map(product, (*ins, *outs)))
    return Load(float(work), plan.tiles, plan.tiles > 1 and bound.long(step, plan))


def within_memory(waves: list[Wave], plan: Callable[[Sequence[Wave]], Any]) -> tuple[list[Wave], Any]:
    """The waves that may run, and the plan for them. plan: gives a plan whose last part is the arena's size."""
    alone = plan([])

    def fit(some: Sequence[Wave]) -> bool:
        part = sum(wave.gain for wave in some) / sum(wave.alone for wave in some)
        return bool(plan(some)[-1] <= alone[-1] + max(EXTRA, part * alone[-1]))

    if waves and not fit(waves):
        waves = [wave for wave in waves if fit([wave])]
        while waves and not fit(waves):
            waves = waves[:-1]
    return waves, plan(waves) if waves else alone


def with_waves(
    table: np.ndarray, waves: Iterable[Wave], row_of: Sequence[int]
) -> tuple[np.ndarray, list[int], list[WaveTable]]:
    """The table with one row in the place of each wave's, where each row and the end went, and what must be kept.

    row_of: for each step the number of kernel calls before it.
    """
    begins = {row_of[wave.region.first] + 1: wave for wave in waves}  # the first row is none of a step
    rows: list[Any] = []
    moved: list[int] = []
    held: list[WaveTable] = []
    given = table.tolist()
    while len(moved) < len(given):
        at = len(moved)
        wave = begins.get(at)
        count = 1 if wave is None else len(wave.region.needs)
        moved += [len(rows)] * count
        if wave is not None:
            held.append(_table(wave, given[at : at + count]))
        rows.append(given[at] if wave is None else held[-1].row)
    return np.array(rows, np.int64), [*moved, len(rows)], held


def _table(wave: Wave, rows: Sequence[Sequence[int]]) -> WaveTable:
    units = []
    for number, piece in wave.order:
        task = wave.tasks[number]
        calls = []
        for kernel, args, tiles, _ in (rows[k] for k in task.steps):
            calls.append((kernel, args, tiles * piece // task.pieces, tiles * (piece + 1) // task.pieces))
        units.append(Unit(number, calls))
    return WaveTable(units, [task.needs for task in wave.tasks])


def wave_bytes(wave: Wave) -> int:
    """How much memory the table of a wave takes."""
    calls = sum(task.pieces * len(task.steps) for task in wave.tasks)
    return table_bytes(len(wave.order), calls, [len(task.needs) for task in wave.tasks])


def wave_rows(bound: Bound) -> list[str]:
    """Lines on what runs side by side."""
    rows = []
    for wave in bound.waves:
        steps = [bound.steps[n] for n in wave.region]
        part = f"{1 - wave.gain / wave.alone:.0%} of the time, by estimate"
        rows.append(f"{len(steps)} kernel calls side by side, in {part}: {', '.join(map(_what, steps))}")
    return rows


def _what(step: Step) -> str:
    line = next((n.line for n in step.nodes if n.line), "")
    return f"{step.name} ({line})" if line else step.name
