"""The executor of programs, and the threads that help it.

A program is a table of int64 rows of four: [address of a kernel, address of its arguments, tiles, 1 if worth sharing].
The executor runs the rows in order on the calling thread (`entry.py` calls it). At a row worth sharing it opens a job:
the caller and the workers that happen to be running take chunks of tiles by one atomic counter until none is left; then
the caller closes the job and waits only for workers that are inside it. So a worker that the system does not schedule
delays nobody, and one that comes late finds the job closed. Rows that are not worth sharing, a second Python thread
that runs a program meanwhile, and a pool of one thread do without all this: the caller runs every tile.

Workers are daemon threads inside a compiled loop. They start at the first shared row, spin for about 150 microseconds
after their last job, then sleep until a shared row wakes them. They stop before a fork and at exit.
`GLUONISH_NUM_THREADS` or `set_num_threads` sets their number; the default is what the process may use.

Deliberately not here: which rows are worth sharing, and how a kernel is cut into tiles.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from gluonish.kernels.compile import address  # before our own fork hooks: the hooks of later modules take locks first
from gluonish.kernels.kernel import Kernel

MAX_THREADS = 256
_SPIN_SECONDS = 150e-6
_LINE = 16  # words between what different threads write: two cache lines, as CPUs fetch lines in pairs

# words of the control block
_OPEN, _FUNCTION, _ARGS, _TILES, _CHUNK = 0, 1, 2, 3, 4  # the job; OPEN is its number, or 0
_NEXT = _LINE  # first tile that nobody has taken
_ACTIVE = 2 * _LINE  # workers inside the job
_SLEEPERS = 3 * _LINE
_OWNER = 4 * _LINE  # 1 while a program has the workers
_STOP, _HELPERS, _RUNNING, _SPINS, _JOB, _START, _WAKE, _SLEEP, _YIELD = (5 * _LINE + i for i in range(9))
_MASKS, _AFFINITY, _GETCPU, _CPU = (5 * _LINE + 9 + i for i in range(4))
_WORKERS = 6 * _LINE  # then for each worker a line: [asleep, address of its lock, processor it is kept off, thread]
_MASK_BYTES = 128  # a set of 1,024 processors, as the system wants it
_WORDS = _WORKERS + _LINE * MAX_THREADS


def _source(text: str) -> str:
    """The kernel's source with the words' byte offsets for their names."""
    for name in sorted((n for n in globals() if n.startswith("_") and n.isupper()), key=len, reverse=True):
        if isinstance(globals()[name], int):
            text = text.replace(f"control{name}", f"control + {globals()[name] * 8}")
    return text


_EXECUTE = Kernel(
    "execute",
    _source("""
def execute(control, table, steps):
    owned = 0
    for step in range(steps):
        row = table + step * 32
        function = read_i64(row, 0)
        args = read_i64(row, 1)
        tiles = read_i64(row, 2)
        helpers = 0
        if read_i64(row, 3) != 0 and tiles > 1:
            helpers = atomic_load(control_HELPERS)
            if helpers > 0 and owned == 0 and atomic_compare_exchange(control_OWNER, 0, 1) == 0:
                owned = 1
        if helpers == 0 or owned == 0:
            call_tiles(function, args, 0, tiles)
        else:
            if atomic_load(control_RUNNING) == 0:
                call_function(read_i64(control_START, 0), 0, 0)
            chunk = max(1, tiles // (8 * (helpers + 1)))
            job = read_i64(control_JOB, 0) + 1
            write_i64(control_JOB, 0, job)
            write_i64(control_FUNCTION, 0, function)
            write_i64(control_ARGS, 0, args)
            write_i64(control_TILES, 0, tiles)
            write_i64(control_CHUNK, 0, chunk)
            atomic_store(control_NEXT, 0)
            atomic_store(control_OPEN, job)
            if atomic_load(control_SLEEPERS) > 0:
                masks = read_i64(control_MASKS, 0)
                if masks != 0:
                    call_function(read_i64(control_GETCPU, 0), control_CPU, 0)
                here = cast_i64(read_u32(control_CPU, 0))
                for worker in range(atomic_load(control_RUNNING)):
                    line = control_WORKERS + worker * 128
                    if atomic_load(line) == 1 and atomic_exchange(line, 0) == 1:
                        atomic_add(control_SLEEPERS, -1)
                        if masks != 0 and here < 1024 and read_i64(line, 2) != here and read_i64(line, 3) > 0:
                            write_i64(line, 2, here)
                            call_tiles(read_i64(control_AFFINITY, 0), read_i64(line, 3), 128, masks + here * 128)
                        call_function(read_i64(control_WAKE, 0), read_i64(line, 1), 0)
            first = atomic_add(control_NEXT, chunk)
            while first < tiles:
                call_tiles(function, args, first, min(first + chunk, tiles))
                first = atomic_add(control_NEXT, chunk)
            atomic_store(control_OPEN, 0)
            waited = 0
            while atomic_load(control_ACTIVE) != 0:
                waited += 1
                spin_pause()
                if waited > 1000:
                    call_function(read_i64(control_YIELD, 0), 0, 0)
    if owned == 1:
        atomic_store(control_OWNER, 0)
"""),
)

_WORK = Kernel(
    "work",
    _source("""
def work(control, worker, unused):
    line = control_WORKERS + worker * 128
    spins = read_i64(control_SPINS, 0)
    seen = 0
    idle = 0
    while atomic_load(control_STOP) == 0:
        job = atomic_load(control_OPEN)
        if job != 0 and job != seen:
            atomic_add(control_ACTIVE, 1)
            job = atomic_load(control_OPEN)
            if job != 0:
                seen = job
                function = read_i64(control_FUNCTION, 0)
                args = read_i64(control_ARGS, 0)
                tiles = read_i64(control_TILES, 0)
                chunk = read_i64(control_CHUNK, 0)
                first = atomic_add(control_NEXT, chunk)
                while first < tiles:
                    call_tiles(function, args, first, min(first + chunk, tiles))
                    first = atomic_add(control_NEXT, chunk)
            atomic_add(control_ACTIVE, -1)
            idle = 0
        elif idle < spins:
            idle += 1
            spin_pause()
        else:
            atomic_add(control_SLEEPERS, 1)
            atomic_store(line, 1)
            job = atomic_load(control_OPEN)
            come = (job != 0 and job != seen) or atomic_load(control_STOP) != 0
            if come and atomic_exchange(line, 0) == 1:
                atomic_add(control_SLEEPERS, -1)
            else:
                call_function(read_i64(control_SLEEP, 0), read_i64(line, 1), 1)
            idle = 0
"""),
)

_HALT = Kernel(
    "halt",
    _source("""
def halt(control, workers, unused):
    atomic_store(control_STOP, 1)
    for worker in range(workers):
        line = control_WORKERS + worker * 128
        if atomic_exchange(line, 0) == 1:
            atomic_add(control_SLEEPERS, -1)
            call_function(read_i64(control_WAKE, 0), read_i64(line, 1), 0)
"""),
)

_SPIN = Kernel(
    "spin",
    """
def spin(count, begin, end):
    for i in range(count):
        spin_pause()
""",
)


def executor() -> tuple[int, int]:
    """Addresses of the executor's function, `execute(control, table, steps)`, and of its control block."""
    return address(_EXECUTE), _made().address


def get_num_threads() -> int:
    """How many threads run a shared row at most: the caller and its helpers."""
    return _threads if _threads else _default_threads()


def set_num_threads(count: int) -> None:
    """Sets how many threads run a shared row at most, from now on.

    Raises ValueError below 1. More than 256 is taken as 256.
    """
    global _threads
    if count < 1:
        raise ValueError(f"set_num_threads: the number of threads must be 1 or more; got {count}")
    with _guard:
        _threads = min(int(count), MAX_THREADS)
        if _pool:
            _pool.resize(_threads)


_threads = 0  # 0: not yet asked for
_guard = threading.Lock()  # held by whoever starts, stops or makes the pool


@functools.cache
def _default_threads() -> int:
    asked = os.environ.get("GLUONISH_NUM_THREADS", "")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise ValueError(f"GLUONISH_NUM_THREADS must be a whole number of threads, 1 or more; got {asked!r}")
        return min(int(asked), MAX_THREADS)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, math.ceil(_quota(usable)), MAX_THREADS))


def _quota(otherwise: float) -> float:
    """Processors that the control group of this process may use (Linux)."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return otherwise
    return otherwise if limit in ("max", "-1") else int(limit) / int(period)


def _function(kernel: Kernel) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address(kernel))


class _Pool:
    """The control block and the worker threads."""

    def __init__(self) -> None:
        self._memory = (ctypes.c_int64 * (_WORDS + _LINE))()
        skip = -(ctypes.addressof(self._memory) // 8) % _LINE
        self.address = ctypes.addressof(self._memory) + 8 * skip
        self._words = (ctypes.c_int64 * _WORDS).from_address(self.address)
        self._workers: list[threading.Thread] = []
        self._locks: list[int] = []
        self._callback = ctypes.CFUNCTYPE(None)(self._start)
        words = self._words
        words[_START] = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        words[_WAKE] = address_of(ctypes.pythonapi.PyThread_release_lock)
        words[_SLEEP] = address_of(ctypes.pythonapi.PyThread_acquire_lock)
        words[_YIELD] = _yield_address()
        words[_HELPERS] = get_num_threads() - 1
        self._halt, self._work = _function(_HALT), _function(_WORK)

    def resize(self, threads: int) -> None:
        """Lets `threads` - 1 workers help; they start when they are needed."""
        self._words[_HELPERS] = threads - 1
        if threads - 1 != len(self._workers):
            self.stop()

    def _start(self) -> None:
        """Called by the executor, at a shared row, when no worker is running."""
        with _guard:
            words = self._words
            words[_SPINS] = words[_SPINS] or _spins()
            self._keep_apart()
            try:
                while len(self._workers) < words[_HELPERS]:
                    self._start_worker(len(self._workers))
            except RuntimeError:  # the system gives no more threads: go on with those there are
                words[_HELPERS] = len(self._workers)
            words[_RUNNING] = len(self._workers)

    def _start_worker(self, index: int) -> None:
        if index == len(self._locks):
            self._locks.append(_new_lock())
        self._words[_WORKERS + _LINE * index + 1] = self._locks[index]
        thread = threading.Thread(target=self._help, args=(index,), name=f"gluonish-{index + 1}", daemon=True)
        thread.start()
        self._workers.append(thread)

    def _help(self, index: int) -> None:
        """The body of a worker thread."""
        self._words[_WORKERS + _LINE * index + 2] = -1
        self._words[_WORKERS + _LINE * index + 3] = threading.get_native_id()
        self._work(self.address, index, 0)

    def _keep_apart(self) -> None:
        """Prepares what keeps a woken worker off the processor of the one that wakes it.

        A system likes to start a woken thread just there, where it waits, often for milliseconds, since the caller is
        busy with the same tiles. Where there are more threads than processors nothing is kept apart.
        """
        system = ctypes.CDLL(None)
        if not hasattr(os, "sched_getaffinity") or not hasattr(system, "getcpu"):
            return
        allowed = os.sched_getaffinity(0)
        if self._words[_HELPERS] >= len(allowed) or max(allowed) >= 8 * _MASK_BYTES:
            self._words[_MASKS] = 0
            return
        whole = sum(1 << cpu for cpu in allowed)
        rows = [(whole & ~(1 << cpu)).to_bytes(_MASK_BYTES, "little") for cpu in range(8 * _MASK_BYTES)]
        self._masks = ctypes.create_string_buffer(b"".join(rows))
        self._words[_AFFINITY] = address_of(system.sched_setaffinity)
        self._words[_GETCPU] = address_of(system.getcpu)
        self._words[_MASKS] = ctypes.addressof(self._masks)

    def stop(self) -> None:
        """Ends the workers; a later shared row starts new ones."""
        self._halt(self.address, len(self._workers), 0)
        for thread in self._workers:
            thread.join()
        self._workers.clear()
        self._words[_RUNNING] = self._words[_STOP] = 0

    def forget(self) -> None:
        """In the child of a fork, where no other thread exists: nobody has the workers, and no job is open."""
        for word in (_OPEN, _ACTIVE, _SLEEPERS, _OWNER):
            self._words[word] = 0


_pool: _Pool | None = None


def _made() -> _Pool:
    global _pool
    with _guard:
        _pool = _pool or _Pool()
        return _pool


def _close() -> None:
    """Ends the workers for good: the interpreter is about to exit."""
    with _guard:
        if _pool:
            _pool.resize(1)


def _before_fork() -> None:
    _guard.acquire()
    if _pool:
        _pool.stop()


def _after_fork_in_child() -> None:
    if _pool:
        _pool.forget()
    _guard.release()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_guard.release, after_in_child=_after_fork_in_child)


def address_of(function: Any) -> int:
    """Where a C function that ctypes knows begins."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _yield_address() -> int:
    """A C function without arguments that lets another thread run on this core."""
    if os.name == "nt":
        return address_of(ctypes.WinDLL("kernel32").SwitchToThread)  # type: ignore[attr-defined]
    return address_of(ctypes.CDLL(None).sched_yield)


def _new_lock() -> int:
    """A lock of the interpreter, taken: who takes it again sleeps until somebody else releases it."""
    api = ctypes.pythonapi
    api.PyThread_allocate_lock.restype = ctypes.c_void_p
    api.PyThread_acquire_lock.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lock = api.PyThread_allocate_lock()
    api.PyThread_acquire_lock(lock, 0)
    return int(lock)


def _spins() -> int:
    """Pauses that take about the time a worker waits for work before it sleeps."""
    spin = _function(_SPIN)
    count, fastest = 1000, math.inf
    for _ in range(5):
        start = time.perf_counter()
        spin(count, 0, 0)
        fastest = min(fastest, time.perf_counter() - start)
    return max(100, int(count * _SPIN_SECONDS / fastest))
