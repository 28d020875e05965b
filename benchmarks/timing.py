"""Timing of one Side, in the process that runs it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from benchmarks.row import Side

# The loop is generated so that a statement is timed without a function call around it.
_LOOP = """
def timed(repeats, clock, finish, call{names}):
    start = clock()
    for _ in repeat(None, repeats):
        {statement}
    finish()
    return clock() - start
"""
_WARM_PART = 0.25  # of a sample runs untimed before it: caches, clock rate, threads
_SETTLE_SECONDS = 0.3
_STEP_SECONDS = 0.012  # some ticks of the system: it counts the time of a running thread at ticks only


class Timer:
    """Times repetitions of a side, with the garbage collector off."""

    def __init__(self, side: Side) -> None:
        self.side = side
        space: dict[str, Any] = {"repeat": repeat}
        names = "".join(f", {name}" for name in side.names)
        exec(_LOOP.format(names=names, statement=side.statement), space)
        self._loop: Callable[..., float] = space["timed"]
        self._names = list(side.names.values())

    def run(self, repeats: int) -> float:
        """Seconds that so many repetitions take together."""
        side = self.side
        with side.scope():
            gc.disable()
            try:
                return self._loop(repeats, time.perf_counter, side.finish, side.call, *self._names)
            finally:
                gc.enable()

    def calibrate(self, seconds: float) -> int:
        """How many repetitions take about that long."""
        repeats = 1
        while True:
            taken = min(self.run(repeats) for _ in range(2))
            if taken >= seconds / 2:
                return max(1, round(repeats * seconds / taken))
            repeats = max(repeats * 2, int(repeats * seconds / max(taken, 1e-7) / 2))

    def sample(self, repeats: int) -> float:
        """Seconds of one repetition: warms up, times, and lets the library's threads go to sleep."""
        if repeats > 1:  # what takes a whole sample is warm, or is meant to be cold
            self.run(max(1, round(repeats * _WARM_PART)))
        seconds = self.run(repeats) / repeats
        settle()
        return seconds


def settle() -> None:
    """Returns when no thread of this process is spinning any more: it would take the next library's processor."""
    end = time.perf_counter() + _SETTLE_SECONDS
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(_STEP_SECONDS)
        if time.process_time() - used < _STEP_SECONDS / 8:
            return
