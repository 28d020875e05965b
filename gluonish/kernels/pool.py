"""The executor of programs, and the threads that help it.

A program is a table of int64 rows of four: [address of a kernel, address of its arguments, tiles, 0 if not worth
sharing, else 1, or more where tiles are handed out in smaller chunks, and in their order].
The executor runs the rows in order on the calling thread (`entry.py` calls it). At a row worth sharing it opens a job:
the caller and the workers that happen to be running take chunks of tiles until none is left; then the caller closes the
job and waits only for workers that are inside it. So a worker that the system does not schedule delays nobody, and one
that comes late finds the job closed. Each thread has a stretch of the tiles with a counter of its own, and helps with
those of others when it is empty: what it wrote in a step it mostly reads in the next, and neither numbers nor counters
wander between caches. Where order counts (units of a wave wait for those before them) one stretch is everybody's. The
last quarter of a stretch goes in smaller chunks, so that threads end together. Rows that are
not worth sharing, a second Python thread that runs a program meanwhile, and a pool of one thread do without all this:
the caller runs every tile.

Workers are threads of the system inside a compiled loop; Python does not know them, and no signal, exception or lock of
Python can come between. The executor starts them at the first shared row. They spin for about 150 microseconds after
their last job, giving way to other threads for most of that time, then sleep until a shared row wakes them. They end
before a fork and at exit.

Beside NumPy's own threads: OpenBLAS keeps a second set, which spins for some 25 milliseconds after each product. Where
eager NumPy products and programs alternate, products keep their speed (without giving way they lose a factor of 2.6),
and programs run at that of one thread until OpenBLAS sleeps; `OPENBLAS_NUM_THREADS=1` gives them the other processors.
`GLUONISH_NUM_THREADS`, `set_num_threads` or `num_threads` sets how many help; the default is what the process may use.

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
from types import TracebackType
from typing import Any

from gluonish.kernels.compile import address
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.processors import usable_processors

MAX_THREADS = 256
_SPIN_SECONDS = 150e-6
_LINE = 16  # words between what different threads write: two cache lines, as CPUs fetch lines in pairs

# words of the control block
_OPEN, _FUNCTION, _ARGS, _TILES, _CHUNK, _JOB, _STRETCHES = range(7)  # the job; OPEN is its number while it is open
_ACTIVE = 2 * _LINE  # workers inside the job
_SLEEPERS = 3 * _LINE
_OWNER = 4 * _LINE  # 1 while a program has the workers
_GATE = 4 * _LINE + 1  # 1 while somebody starts or ends workers, or nobody may start any
_STOP, _HELPERS, _RUNNING, _SPINS = (5 * _LINE + i for i in range(4))  # from here on hardly ever written
# functions
_START, _WORK, _CREATE, _JOIN, _ALLOCATE, _SLEEP, _WAKE, _YIELD, _SHARE = (5 * _LINE + 4 + i for i in range(9))
_APART, _AFFINITY, _GETCPU, _CPU = (6 * _LINE + i for i in range(4))
_ALLOWED = 7 * _LINE  # the processors that workers may use, as a set of bits
_OTHERS = 8 * _LINE  # those without the one of the thread that wakes
_MASK_BYTES = 128  # a set of 1,024 processors, as the system wants it
_WORKERS = 9 * _LINE  # a line for each worker: [asleep, its lock, processor it is kept off, thread, control, index]
_MOST_STRETCHES = 8  # with more threads some have one together: who has nothing left looks at all
_TAKEN = _WORKERS + _LINE * MAX_THREADS  # a line for each stretch: how many of its chunks have been taken
_WORDS = _TAKEN + _LINE * _MOST_STRETCHES


def _source(text: str) -> str:
    """The kernel's source with the words' byte offsets for their names."""
    for name in sorted((n for n in globals() if n.startswith("_") and n.isupper()), key=len, reverse=True):
        if isinstance(globals()[name], int):
            text = text.replace(f"control{name}", f"control + {globals()[name] * 8}")
    return text.replace("MOST_STRETCHES", str(_MOST_STRETCHES))


_SHARE_TILES = Kernel(
    "share",
    _source("""
def share(control, thread, unused):
    function = read_i64(control_FUNCTION, 0)
    args = read_i64(control_ARGS, 0)
    tiles = read_i64(control_TILES, 0)
    chunk = read_i64(control_CHUNK, 0)
    stretches = read_i64(control_STRETCHES, 0)
    part = max(1, chunk // 8)
    for i in range(stretches):
        stretch = (thread + i) % stretches
        taken = control_TAKEN + stretch * 128
        begin = tiles * stretch // stretches
        end = tiles * (stretch + 1) // stretches
        whole = (end - begin) * 3 // 4 // chunk
        turn = atomic_add(taken, 1)
        first = begin + min(turn, whole) * chunk + max(turn - whole, 0) * part
        while first < end:
            call_tiles(function, args, first, min(first + (chunk if turn < whole else part), end))
            turn = atomic_add(taken, 1)
            first = begin + min(turn, whole) * chunk + max(turn - whole, 0) * part
"""),
)

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
        share = read_i64(row, 3)
        if share != 0 and tiles > 1:
            helpers = atomic_load(control_HELPERS)
            if helpers > 0 and owned == 0 and atomic_compare_exchange(control_OWNER, 0, 1) == 0:
                owned = 1
        if helpers == 0 or owned == 0:
            call_tiles(function, args, 0, tiles)
        else:
            if atomic_load(control_RUNNING) < helpers:
                call_tiles(read_i64(control_START, 0), control, helpers, 0)
            chunk = max(1, tiles // (8 * (helpers + 1) * share))
            job = read_i64(control_JOB, 0) + 1
            write_i64(control_JOB, 0, job)
            write_i64(control_FUNCTION, 0, function)
            write_i64(control_ARGS, 0, args)
            write_i64(control_TILES, 0, tiles)
            write_i64(control_CHUNK, 0, chunk)
            stretches = min(helpers + 1, MOST_STRETCHES) if share == 1 else 1
            write_i64(control_STRETCHES, 0, stretches)
            for stretch in range(stretches):
                write_i64(control_TAKEN + stretch * 128, 0, 0)
            atomic_store(control_OPEN, job)
            if atomic_load(control_SLEEPERS) > 0:
                apart = read_i64(control_APART, 0)
                here = 0
                if apart != 0:
                    call_function(read_i64(control_GETCPU, 0), control_CPU, 0)
                    here = cast_i64(read_u32(control_CPU, 0))
                for worker in range(min(min(atomic_load(control_RUNNING), helpers), tiles - 1)):
                    line = control_WORKERS + worker * 128
                    if atomic_load(line) == 1 and atomic_exchange(line, 0) == 1:
                        atomic_add(control_SLEEPERS, -1)
                        if apart != 0 and here < 1024 and read_i64(line, 2) != here:
                            write_i64(line, 2, here)
                            for word in range(16):
                                bits = read_i64(control_ALLOWED, word)
                                if word == here // 64:
                                    bits = bits & ~(1 << (here % 64))
                                write_i64(control_OTHERS, word, bits)
                            call_tiles(read_i64(control_AFFINITY, 0), read_i64(line, 3), 128, control_OTHERS)
                        call_function(read_i64(control_WAKE, 0), read_i64(line, 1), 0)
            call_tiles(read_i64(control_SHARE, 0), control, 0, 0)
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

_WORK_LOOP = Kernel(
    "work",
    _source("""
def work(line, unused, neither):
    control = read_i64(line, 4)
    worker = read_i64(line, 5)
    spins = read_i64(control_SPINS, 0)
    seen = 0
    idle = 0
    while atomic_load(control_STOP) == 0:
        job = atomic_load(control_OPEN)
        if job != 0 and job != seen and worker < atomic_load(control_HELPERS):
            atomic_add(control_ACTIVE, 1)
            job = atomic_load(control_OPEN)
            if job != 0:
                seen = job
                call_tiles(read_i64(control_SHARE, 0), control, worker + 1, 0)
            atomic_add(control_ACTIVE, -1)
            idle = 0
        elif idle < spins:
            idle += 1
            spin_pause()
            if idle & 63 == 0 and idle > spins // 8:
                call_function(read_i64(control_YIELD, 0), 0, 0)
        else:
            atomic_add(control_SLEEPERS, 1)
            atomic_store(line, 1)
            job = atomic_load(control_OPEN)
            come = job != 0 and job != seen and worker < atomic_load(control_HELPERS)
            if (come or atomic_load(control_STOP) != 0) and atomic_exchange(line, 0) == 1:
                atomic_add(control_SLEEPERS, -1)
            else:
                call_function(read_i64(control_SLEEP, 0), read_i64(line, 1), 1)
            idle = 0
"""),
)

_START_WORKERS = Kernel(
    "start",
    _source("""
def start(control, helpers, unused):
    if atomic_compare_exchange(control_GATE, 0, 1) == 0:
        worker = atomic_load(control_RUNNING)
        while worker < helpers:
            line = control_WORKERS + worker * 128
            if read_i64(line, 1) == 0:
                lock = call_integer(read_i64(control_ALLOCATE, 0), 0, 0, 0, 0)
                call_function(read_i64(control_SLEEP, 0), lock, 1)
                write_i64(line, 1, lock)
            write_i64(line, 2, -1)
            write_i64(line, 4, control)
            write_i64(line, 5, worker)
            failed = 0
            if read_i64(control_JOIN, 0) != 0:
                failed = call_integer(read_i64(control_CREATE, 0), line + 24, 0, read_i64(control_WORK, 0), line)
            else:
                failed = call_integer(read_i64(control_CREATE, 0), read_i64(control_WORK, 0), line, 0, 0) + 1
            if failed & 0xFFFFFFFF != 0:
                atomic_store(control_HELPERS, worker)
                helpers = worker
            else:
                worker += 1
                atomic_store(control_RUNNING, worker)
        atomic_store(control_GATE, 0)
"""),
)

_HALT = Kernel(
    "halt",
    _source("""
def halt(control, begin, end):
    while atomic_compare_exchange(control_GATE, 0, 1) != 0:
        call_function(read_i64(control_YIELD, 0), 0, 0)
    atomic_store(control_STOP, 1)
    for worker in range(atomic_load(control_RUNNING)):
        line = control_WORKERS + worker * 128
        if atomic_exchange(line, 0) == 1:
            atomic_add(control_SLEEPERS, -1)
            call_function(read_i64(control_WAKE, 0), read_i64(line, 1), 0)
    if read_i64(control_JOIN, 0) != 0:
        for worker in range(atomic_load(control_RUNNING)):
            call_function(read_i64(control_JOIN, 0), read_i64(control_WORKERS + worker * 128, 3), 0)
    atomic_store(control_RUNNING, 0)
    atomic_store(control_STOP, 0)
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


def kernels() -> tuple[Kernel, ...]:
    """What must be compiled before there can be an executor and workers."""
    return _EXECUTE, _SHARE_TILES, _START_WORKERS, _WORK_LOOP, _HALT, _SPIN


def executor() -> tuple[int, int]:
    """Addresses of the executor's function, `execute(control, table, steps)`, and of its control block."""
    return address(_EXECUTE), _made().address


def give_way() -> int:
    """Address of the system's function by which a waiting thread lets others run."""
    return int(_made()._words[_YIELD])


# --- how many threads -----------------------------------------------------------------------------------------------


def get_num_threads() -> int:
    """How many threads run a kernel at most: the caller and its helpers."""
    return _asked[-1][0] if _asked else _default_threads()


def set_num_threads(count: int) -> None:
    """Sets how many threads run a kernel at most, from now on, in all of the process.

    Inside `with num_threads(...)` it holds until the end of that block. Raises ValueError below 1; more than 256 is
    taken as 256.
    """
    number = _checked(count, "set_num_threads")
    with _guard:
        if not _asked:
            _asked.append([0])
        _asked[-1][0] = number
        _tell()


class num_threads:
    """`with num_threads(n):` - at most n threads run a kernel inside the block; afterwards as many as before.

    It holds for the whole process, as there is one pool: where blocks of several Python threads overlap, the one that
    was entered last and is not left yet decides. Raises ValueError below 1; more than 256 is taken as 256.
    """

    def __init__(self, count: int) -> None:
        self._count = _checked(count, "num_threads")
        self._entered: list[list[int]] = []

    def __enter__(self) -> None:
        with _guard:
            if not _asked:
                _asked.append([_default_threads()])
            self._entered.append([self._count])
            _asked.append(self._entered[-1])
            _tell()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _guard:
            left = self._entered.pop()
            _asked[:] = [asked for asked in _asked if asked is not left]
            _tell()


def _checked(count: int, name: str) -> int:
    if count != int(count) or count < 1:
        raise ValueError(f"{name}: the number of threads must be a whole number, 1 or more; got {count}")
    return min(int(count), MAX_THREADS)


def _tell() -> None:
    if _pool:
        _pool.resize(get_num_threads())


_asked: list[list[int]] = []  # what the process asked for first, then the blocks that it is inside of
_guard = threading.Lock()  # held by whoever makes the pool or changes its size


@functools.cache
def _default_threads() -> int:
    asked = os.environ.get("GLUONISH_NUM_THREADS", "")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise ValueError(f"GLUONISH_NUM_THREADS must be a whole number of threads, 1 or more; got {asked!r}")
        return min(int(asked), MAX_THREADS)
    return min(usable_processors(), MAX_THREADS)


# --- the pool -------------------------------------------------------------------------------------------------------


class _Pool:
    """The control block, and the functions of the system that its kernels call."""

    def __init__(self) -> None:
        self._memory = (ctypes.c_int64 * (_WORDS + _LINE))()
        skip = -(ctypes.addressof(self._memory) // 8) % _LINE
        self.address = ctypes.addressof(self._memory) + 8 * skip
        self._words = words = (ctypes.c_int64 * _WORDS).from_address(self.address)
        words[_START], words[_WORK] = address(_START_WORKERS), address(_WORK_LOOP)
        words[_SHARE] = address(_SHARE_TILES)
        words[_SPINS] = _spins()
        api = ctypes.pythonapi
        words[_ALLOCATE] = address_of(api.PyThread_allocate_lock)
        words[_WAKE] = address_of(api.PyThread_release_lock)
        words[_SLEEP] = address_of(api.PyThread_acquire_lock)
        self._find_system()
        self.resize(get_num_threads())
        halt = functools.partial(_function(_HALT), self.address, 0, 0)  # no Python code, which a signal might break off
        atexit.register(halt)
        if hasattr(os, "register_at_fork"):
            open_gate = functools.partial(words.__setitem__, _GATE, 0)
            os.register_at_fork(before=halt, after_in_parent=open_gate, after_in_child=self._begin_anew)

    def _find_system(self) -> None:
        """Addresses of what the system does for threads. Without a function to join them, Python's start is used."""
        words = self._words
        if os.name == "nt":
            words[_YIELD] = address_of(ctypes.WinDLL("kernel32").SwitchToThread)  # type: ignore[attr-defined]
            words[_CREATE] = address_of(ctypes.pythonapi.PyThread_start_new_thread)
            return
        system = ctypes.CDLL(None)
        words[_YIELD] = address_of(system.sched_yield)
        words[_CREATE], words[_JOIN] = address_of(system.pthread_create), address_of(system.pthread_join)
        if hasattr(system, "getcpu") and hasattr(system, "pthread_setaffinity_np"):
            words[_GETCPU], words[_AFFINITY] = address_of(system.getcpu), address_of(system.pthread_setaffinity_np)

    def resize(self, threads: int) -> None:
        """Lets `threads` - 1 workers help; they start when they are needed, and those beyond sleep.

        A woken worker is kept off the processor of the one that wakes it: a system likes to start it just there, where
        it waits, often for milliseconds, since the caller is busy with the same tiles. Where there are more threads
        than processors nothing is kept apart.
        """
        words = self._words
        words[_HELPERS] = threads - 1
        words[_APART] = 0
        if words[_AFFINITY]:
            allowed = os.sched_getaffinity(0)
            if threads <= len(allowed) and max(allowed) < 8 * _MASK_BYTES:
                bits = sum(1 << cpu for cpu in allowed).to_bytes(_MASK_BYTES, "little")
                ctypes.memmove(self.address + 8 * _ALLOWED, bits, _MASK_BYTES)
                words[_APART] = 1

    def _begin_anew(self) -> None:
        """In the child of a fork, where no other thread exists: nobody has the workers, and no job is open."""
        for word in (_OPEN, _ACTIVE, _SLEEPERS, _OWNER, _GATE):
            self._words[word] = 0


_pool: _Pool | None = None


def _made() -> _Pool:
    global _pool
    with _guard:
        _pool = _pool or _Pool()
        return _pool


def _new_guard() -> None:
    """In the child of a fork: another thread of the parent may have held it, maybe while it made the pool."""
    global _guard
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_guard)


def _function(kernel: Kernel) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address(kernel))


def address_of(function: Any) -> int:
    """Where a C function that ctypes knows begins."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _spins() -> int:
    """Pauses that take about the time a worker waits for work before it sleeps."""
    spin = _function(_SPIN)
    count, fastest = 1000, math.inf
    for _ in range(5):
        start = time.perf_counter()
        spin(count, 0, 0)
        fastest = min(fastest, time.perf_counter() - start)
    return max(100, int(count * _SPIN_SECONDS / fastest))
