"""A busy neighbour: a process that keeps one processor occupied while it is told to.

`with Neighbour(cpus) as neighbour: neighbour.busy(); ...; neighbour.quiet()`. It ends with the block, and also when the
process that started it dies: its stdin ends then.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_SPIN = """
import os, select, sys
cpus = [int(c) for c in sys.argv[1].split(",") if c]
if cpus:
    os.sched_setaffinity(0, cpus)
source = sys.stdin.fileno()
spinning = False
while True:
    if not spinning or select.select([source], [], [], 0)[0]:
        word = os.read(source, 1)
        if not word:
            break
        spinning = word == b"b"
        os.write(1, word)
    else:
        for _ in range(20000):
            pass
"""


class Neighbour:
    """See the module docstring. cpus: where it may run; the system chooses among them."""

    def __init__(self, cpus: Sequence[int]) -> None:
        command = [sys.executable, "-c", _SPIN, ",".join(map(str, cpus))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def busy(self) -> None:
        """Begins to spin."""
        self._tell(b"b")

    def quiet(self) -> None:
        """Sleeps."""
        self._tell(b"q")

    def _tell(self, word: bytes) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(word)
        self.process.stdout.read(1)

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
