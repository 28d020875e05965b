"""The kernel of a wave: calls of other kernels that do not all depend on each other, as the tiles of one call.

A wave is a list of units. A unit calls kernels one after the other, each for a range of its tiles, when the tasks that
it needs are done; a task is done when all its units are. Threads take units in the order of the list, in which whatever
is needed comes first: so the first unit that is not finished never waits, and the wave comes to an end with any number
of threads. Whoever finishes last puts the counters back for the next run.

Deliberately not here: which calls go together, and in which order (`hybrid/waves.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gluonish.kernels import pool
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import address_of

CALL = 4  # words of a call: kernel, its arguments, first tile, end
_LINE = 16  # words between counters, which different threads write
_UNIT = 5  # words of a unit: first call, end of its calls, first need, end of its needs, counter of its task

WAVE = Kernel(
    "wave",
    f"""
def wave(args, begin, end):
    units, counters, tasks = read_i64(args, 0), read_i64(args, 1), read_i64(args, 2)
    count, give_way = read_i64(args, 3), read_i64(args, 4)
    for number in range(begin, end):
        unit = units + number * {8 * _UNIT}
        need, needs = read_i64(unit, 2), read_i64(unit, 3)
        while need < needs:
            counter, wanted = read_i64(need, 0), read_i64(need, 1)
            waited = 0
            while atomic_load(counter) < wanted:
                waited += 1
                spin_pause()
                if waited > 1000:
                    call_function(give_way, 0, 0)
            need += 16
        call, calls = read_i64(unit, 0), read_i64(unit, 1)
        while call < calls:
            call_tiles(read_i64(call, 0), read_i64(call, 1), read_i64(call, 2), read_i64(call, 3))
            call += {8 * CALL}
        atomic_add(read_i64(unit, 4), 1)
        if atomic_add(counters, 1) == count - 1:
            for task in range(tasks + 1):
                atomic_store(counters + task * {8 * _LINE}, 0)
""",
)


class Unit(NamedTuple):
    """One unit: the number of its task, and its calls (kernel's address, address of its arguments, first tile, end)."""

    task: int
    calls: Sequence[tuple[int, int, int, int]]


class WaveTable:
    """The arguments of a wave's call, which stay where they are: `row` is its row in a program's table.

    needs: for each task the tasks that must be done before it.
    """

    def __init__(self, units: Sequence[Unit], needs: Sequence[Iterable[int]]) -> None:
        done = [0] * len(needs)
        for unit in units:
            done[unit.task] += 1
        self._counters = np.zeros(_LINE * (len(needs) + 2), np.int64)
        counters = -(-address_of(self._counters) // (8 * _LINE)) * 8 * _LINE
        place = [counters + 8 * _LINE * (1 + task) for task in range(len(needs))]
        lists = [[word for other in sorted(each) for word in (place[other], done[other])] for each in needs]
        self._needs = np.array([word for each in lists for word in each] or [0], np.int64)
        self._calls = np.array([word for unit in units for call in unit.calls for word in call], np.int64)
        ends, calls = np.cumsum([len(each) for each in lists]).tolist(), 0
        rows = []
        for unit in units:
            last = calls + CALL * len(unit.calls)
            needed = self._places(self._needs, ends[unit.task] - len(lists[unit.task]), ends[unit.task])
            rows.append([*self._places(self._calls, calls, last), *needed, place[unit.task]])
            calls = last
        self._units = np.array(rows, np.int64)
        words = [address_of(self._units), counters, len(needs), len(units), pool.give_way()]
        self._words = np.array(words, np.int64)
        # shared as finely as can be: the units are cut already
        self.row = (WAVE.address, address_of(self._words), len(units), len(units))

    @staticmethod
    def _places(words: np.ndarray, first: int, end: int) -> tuple[int, int]:
        base = address_of(words)
        return base + 8 * first, base + 8 * end


def table_bytes(units: int, calls: int, needs: Sequence[int]) -> int:
    """How much memory a wave's table takes. needs: how many tasks each task needs."""
    return 8 * (_LINE * (len(needs) + 2) + 2 * max(sum(needs), 1) + CALL * calls + _UNIT * units + 5)
