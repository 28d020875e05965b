"""Compiling the kernels of programs: all at once, with a progress bar where it takes long, or in the background.

In the background one thread compiles for all functions, some kernels at a time; meanwhile calls run eagerly. It ends
with its last kernel, and at the end of the interpreter with those at hand; a forked process starts its own.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gluonish.hybrid.eager import eager_call
from gluonish.kernels import compile as compiler
from gluonish.kernels import entry, pool, target
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import RESOLVE
from gluonish.nd.array import NDArray

if TYPE_CHECKING:
    from gluonish.hybrid.variant import Variant

TOGETHER = (
    6  # kernels that are compiled in one go in the background: other threads that need the compiler wait for as many
)
PATIENCE = 2.0  # seconds without a progress bar


def compile_kernels(kernels: Sequence[Kernel], name: str, wanted: Callable[[], bool] | None = None) -> bool:
    """Compiles kernels that are not in memory, and what every program needs; gives whether all were.

    wanted: asked now and then; when it says no, the rest is left. Without it all are compiled in one go, which is
    fastest, and other threads that need the compiler wait.
    """
    kernels = list(dict.fromkeys([*kernels, RESOLVE, entry.kernel(), *pool.kernels()]))
    together = len(kernels) if wanted is None else TOGETHER
    with _Bar(name, len(kernels)) as bar:
        for at in range(0, len(kernels), together):
            if wanted is not None and not wanted():
                return False
            compiler.compile_many(kernels[at : at + together], functools.partial(bar.show, at))
    return True


class _Bar:
    """The progress bar, once it takes long and somebody looks."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.begin = name, total, time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, before: int, count: int) -> None:
        """So many kernels are there."""
        done = before + count
        if self.bar is None and done < self.total and time.monotonic() - self.begin > PATIENCE and _watched():
            self.bar = _bar(self.name, self.total)
        if self.bar is not None:
            self.bar.update(done - self.bar.n)


def _watched() -> bool:
    """Whether somebody looks: at a terminal or a notebook."""
    return "PYTEST_CURRENT_TEST" not in os.environ and ("ipykernel" in sys.modules or sys.stderr.isatty())


def _bar(name: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=f"compiling {name}", unit="kernel", leave=False)


# --- in the background ------------------------------------------------------------------------------------------------
class Pending:
    """Stands in for the calls of a variant whose kernels are being compiled; then hands over to `after`."""

    def __init__(self, variant: Variant, after: Any = None) -> None:
        self.variant, self.after = variant, after
        programs = [variant.program, *([variant.backward.program()] if variant.backward is not None else [])]
        self.kernels = [kernel for p in programs for s in p.steps for kernel in s.kernels]
        self.machine = target.current()
        self.error: Exception | None = None
        self._start()

    def _start(self) -> None:
        self.process = os.getpid()
        self.done = threading.Event()
        _thread.add(self)

    def __call__(self, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Any:
        """Runs eagerly, or compiled if everything is there; a problem is told once, and calls stay eager."""
        variant = self.variant
        if not self.done.is_set():
            if self.process != os.getpid():  # forked meanwhile: the thread stayed behind
                self._start()
            return eager_call(variant, arrays)
        if self.error is None:
            variant.instead = self.after
            return variant.call(arrays, sizes)
        variant.refused = f"compiling in the background failed: {self.error}"
        variant.instead = lambda arrays, sizes: eager_call(variant, arrays)
        warnings.warn(
            f"hybridize(background=True): {variant.owner.name} goes on eagerly, for compiling failed: {self.error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return variant.call(arrays, sizes)

    def work(self) -> None:
        """Compiles; called by the thread."""
        try:
            with target.use(self.machine):
                if compile_kernels(self.kernels, self.variant.owner.name, _main_thread_lives):
                    pool.executor()
        except Exception as error:  # noqa: BLE001 - told by the next call
            self.error = error
        self.done.set()


def _main_thread_lives() -> bool:
    return threading.main_thread().is_alive()


class _Thread:
    """The thread that compiles: there as long as there is work."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: deque[Pending] = deque()
        self.running = False

    def add(self, job: Pending) -> None:
        """Puts a job in the queue."""
        with self.lock:
            self.jobs.append(job)
            if not self.running:
                self.running = True
                threading.Thread(target=self._run, name="gluonish compiler").start()

    def _run(self) -> None:
        while True:
            with self.lock:
                if not self.jobs or not _main_thread_lives():
                    self.running = False
                    return
                job = self.jobs.popleft()
            job.work()

    def forget(self) -> None:
        """In a forked process: there is no thread."""
        self.__init__()  # type: ignore[misc]


_thread = _Thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.forget)
