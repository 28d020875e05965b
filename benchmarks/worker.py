"""The process of one library: `python -m benchmarks.worker PEER THREADS CPUS`. It answers JSON lines with JSON lines.

Each library has a process of its own, so that no thread pool, allocator or setting of one stands in another's way, and
so that MXNet can have another interpreter. Whatever a library prints goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any


def main() -> None:
    """Serves until stdin ends."""
    peer, threads, cpus = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = _Worker(peer, threads)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001  (whatever a library raises is told, and the run goes on)
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class _Worker:
    """The requests, one method each."""

    def __init__(self, peer: str, threads: int) -> None:
        self.peer, self.threads = peer, threads
        self.timers: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Loads the library and sets its threads."""
        begin = time.perf_counter()
        module = importlib.import_module(self.peer)
        if self.peer == "torch":
            module.set_num_threads(self.threads)
        elif self.peer == "gluonish":
            module.set_num_threads(self.threads)
        return {"version": getattr(module, "__version__", "?"), "seconds": time.perf_counter() - begin}

    def prepare(self, row: str, side: str, tiny: bool, results: str) -> dict[str, Any]:
        """Builds a side and runs it once; saves its results to a file."""
        import numpy as np

        from benchmarks import rows  # noqa: F401  (declares them)
        from benchmarks.row import ROWS, arrays_of
        from benchmarks.timing import Timer

        sizes = ROWS[row].sizes_for(tiny)
        begin = time.perf_counter()
        built = ROWS[row].sides[side].build(sizes)
        timer = Timer(built)
        timer.run(1)
        seconds = time.perf_counter() - begin
        with built.scope():
            found = arrays_of((built.results or built.call)())
        np.savez(results, *found)
        self.timers[side] = timer
        gc.collect()
        gc.freeze()
        flops = ROWS[row].flops
        return {"seconds": seconds, "flops": built.flops or (flops(sizes) if flops else None)}

    def calibrate(self, side: str, seconds: float) -> dict[str, Any]:
        """How many repetitions a sample has."""
        return {"repeats": self.timers[side].calibrate(seconds)}

    def sample(self, side: str, repeats: int) -> dict[str, Any]:
        """Seconds of one repetition."""
        return {"seconds": self.timers[side].sample(repeats)}

    def forget(self) -> dict[str, Any]:
        """Frees the sides of a finished row."""
        self.timers.clear()
        gc.unfreeze()
        gc.collect()
        return {}


if __name__ == "__main__":
    main()
