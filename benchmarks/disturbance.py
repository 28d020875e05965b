"""How much processor time other processes took while a round was measured (Linux; unknown elsewhere).

Rounds are chosen by this, never by how fast anything was: what strangers do says nothing about which library is faster.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_IDLE = (3, 4)  # places of idle and iowait in a line of /proc/stat; guest time is in user time already
_COUNTED = 8


class Meter:
    """Measures on some processors. own: gives the processes that do not count as others."""

    def __init__(self, cpus: Iterable[int], own: Callable[[], Iterable[int]]) -> None:
        self._names, self._own = {f"cpu{cpu}" for cpu in cpus}, own
        self._last = self._now()

    def others(self) -> float:
        """Processors' worth of other processes since the last call: 1.0 is one processor all the time."""
        now, last = self._now(), self._last
        self._last = now
        elapsed = now[0] - last[0]
        return max(0.0, (now[1] - last[1] - (now[2] - last[2])) / elapsed) if elapsed > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """The clock, seconds that the processors were busy, seconds of them that were our own."""
        own = [os.getpid(), *self._own()]
        return time.perf_counter(), self._busy(), sum(_used_by(process) for process in own)

    def _busy(self) -> float:
        try:
            lines = Path("/proc/stat").read_text().splitlines()
        except OSError:
            return 0.0
        fields = [line.split() for line in lines if line.split(" ", 1)[0] in self._names]
        return sum(int(f[1 + i]) for f in fields for i in range(_COUNTED) if i not in _IDLE) / _TICK


def _used_by(process: int) -> float:
    """Seconds of a process, with its children that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK
