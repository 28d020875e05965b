"""Waves: steps that do not all depend on each other run side by side, where one alone does not fill the cores.

The steps of a region (`dependencies.py`) become tasks: one step that is cut into pieces for the threads, or a chain of
steps too short for that, which stays on one thread. Handing their pieces out is tried with what each step's work is
estimated to be; if that gains enough over one step after the other, the region becomes one call (`kernels/wave.py`),
with a single beginning and end instead of one for each step. What is computed stays the same to the last bit.

Deliberately not here: what may run side by side (`dependencies.py`), and its memory (`plan.py`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gluonish.hybrid.dependencies import Region

SHARING = 1500.0  # nanoseconds, about, that handing a step out and waiting for its end take
WAITING = 200.0  # until another thread sees that a task is done
TAKING = 100.0  # to take a piece
PIECE = 3000.0  # the least that is worth a piece
GAIN, PART = 2000.0, 0.01  # the least that a wave must gain: nanoseconds, and of the time without it


class Load(NamedTuple):
    """A step's work in nanoseconds of one thread, its tiles, and whether threads would share it."""

    work: float
    tiles: int
    shared: bool


@dataclass(eq=False)
class Task:
    """Steps that run one after the other, counted from the begin of their region, or the pieces of one step."""

    steps: list[int]
    work: float
    pieces: int
    needs: set[int]


@dataclass(eq=False)
class Wave:
    """A region that runs as one call. order: (task, piece) in the order in which threads take them. gain: nanoseconds
    that it saves, by estimate, of `alone`."""

    region: Region
    tasks: list[Task]
    order: list[tuple[int, int]]
    gain: float
    alone: float


def wave_of(region: Region, loads: Sequence[Load], threads: int) -> Wave | None:
    """The wave of a region whose steps have these loads, or None where it would not pay."""
    alone = [_alone(load, threads) for load in loads]
    most = sum(alone) - sum(load.work for load in loads) / threads  # no order can gain more
    if not worth_while(most, sum(alone)):
        return None
    tasks = _tasks(region, loads, threads)
    if len(tasks) == 1:
        return None
    order, time = _tried(tasks, threads)
    gain = sum(alone) - time - SHARING
    return Wave(region, tasks, order, gain, sum(alone)) if worth_while(gain, sum(alone)) else None


def worth_while(gain: float, alone: float) -> bool:
    """Whether so much time is worth a wave."""
    return gain > max(GAIN, PART * alone)


def _alone(load: Load, threads: int) -> float:
    """Nanoseconds of a step that runs by itself."""
    if not load.shared or load.tiles < 2:
        return load.work
    return SHARING + load.work * -(-load.tiles // threads) / load.tiles


def _tasks(region: Region, loads: Sequence[Load], threads: int) -> list[Task]:
    """The tasks of a region. A short step goes on where the one was that it waits for, if nobody else waits for it."""
    followers = [0] * len(loads)
    for needed in region.needs:
        for k in needed:
            followers[k] += 1
    tasks: list[Task] = []
    task_of: list[int] = []
    for k, (needed, load) in enumerate(zip(region.needs, loads)):
        pieces = min(load.tiles, 8 * threads, int(load.work // PIECE)) if load.shared else 1
        behind = {task_of[n] for n in needed}
        chain = tasks[min(behind)] if len(behind) == 1 else None
        last = chain.steps[-1] if chain is not None else -1
        if chain is not None and chain.pieces == 1 and pieces <= 1 and last in needed and followers[last] == 1:
            chain.steps.append(k)
            chain.work += load.work
            task_of.append(min(behind))
        else:
            task_of.append(len(tasks))
            tasks.append(Task([k], load.work, max(1, pieces), behind))
    return tasks


def _tried(tasks: Sequence[Task], threads: int) -> tuple[list[tuple[int, int]], float]:
    """The order in which threads take pieces, those first on which the longest way depends, and how long it takes."""
    followers: list[list[int]] = [[] for _ in tasks]
    for t, task in enumerate(tasks):
        for n in task.needs:
            followers[n].append(t)
    way = [0.0] * len(tasks)
    for t in reversed(range(len(tasks))):
        longest = max((way[f] for f in followers[t]), default=0.0)
        way[t] = tasks[t].work / tasks[t].pieces + longest
    waits, begun, ends = [len(task.needs) for task in tasks], [0] * len(tasks), [0.0] * len(tasks)
    free = [0.0] * threads  # when each thread is
    coming = [(0.0, t) for t in range(len(tasks)) if not waits[t]]  # from when on a task may be taken
    ready: list[tuple[float, int]] = []
    order: list[tuple[int, int]] = []
    now = 0.0
    while ready or coming:
        now = max(now, heapq.heappop(free), 0.0 if ready else coming[0][0])
        while coming and coming[0][0] <= now:
            t = heapq.heappop(coming)[1]
            heapq.heappush(ready, (-way[t], t))
        t = ready[0][1]
        end = now + TAKING + tasks[t].work / tasks[t].pieces
        heapq.heappush(free, end)
        ends[t] = max(ends[t], end)
        order.append((t, begun[t]))
        begun[t] += 1
        if begun[t] == tasks[t].pieces:
            heapq.heappop(ready)
            for f in followers[t]:
                waits[f] -= 1
                if waits[f] == 0:
                    heapq.heappush(coming, (max(ends[n] for n in tasks[f].needs) + WAITING, f))
    return order, max(ends)
