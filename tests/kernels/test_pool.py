"""The pool: every tile once, whatever the threads do; forks, exits, neighbours."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from gluonish.kernels import pool
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel

COUNT = Kernel(
    "count",
    """
def count(args, begin, end):
    o = load_i64(args, 0)
    for tile in range(begin, end):
        write_i64(o, tile, read_i64(o, tile) + 1)
    atomic_add(load_i64(args, 1), 1)
""",
)
SPIN = Kernel(
    "spin_tiles",
    """
def spin_tiles(args, begin, end):
    o = load_i64(args, 0)
    for tile in range(begin, end):
        for i in range(load_i64(args, 1)):
            spin_pause()
        atomic_add(o, 1)
""",
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


class Counting:
    """A program that counts in each tile of each step how often it ran."""

    def __init__(self, steps: int, tiles: int, share: int) -> None:
        self.counts = np.zeros((steps, tiles), "i8")
        self.chunks = np.zeros(1, "i8")
        self.args = np.array([[row.ctypes.data, self.chunks.ctypes.data] for row in self.counts], "i8")
        rows = [[COUNT.address, args.ctypes.data, tiles, share] for args in self.args]
        self.table = np.array(rows, "i8")

    def run(self) -> None:
        entry(self.table.ctypes.data, len(self.table))()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("tiles", [0, 1, 2, 7, 100, 10_000])
@pytest.mark.parametrize("share", [0, 1])
def test_every_tile_runs_once(count: int, tiles: int, share: int) -> None:
    pool.set_num_threads(count)
    program = Counting(5, tiles, share)
    for repeat in range(1, 21):
        program.run()
        assert (program.counts == repeat).all()


def test_unshared_rows_run_in_one_piece() -> None:
    pool.set_num_threads(2)
    program = Counting(3, 100, 0)
    program.run()
    assert program.chunks[0] == 3


def test_shared_rows_are_cut_into_chunks() -> None:
    pool.set_num_threads(2)
    program = Counting(1, 160, 1)
    program.run()
    assert program.chunks[0] == 12 + 40  # 8 a thread would be 16; the last quarter goes in smaller ones


def test_helpers_really_help() -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    pool.set_num_threads(2)
    word = np.zeros(1, "i8")
    args = np.array([word.ctypes.data, 2000], "i8")
    spent = {}
    for share in (0, 1):
        table = np.array([[SPIN.address, args.ctypes.data, 400, share]], "i8")
        times = []
        for _ in range(5):
            start = time.perf_counter()
            entry(table.ctypes.data, 1)()
            times.append(time.perf_counter() - start)
        spent[share] = min(times)
    assert word[0] == 2 * 5 * 400
    if os.getloadavg()[0] < 1.5:  # on a busy machine there is nobody to help
        assert spent[1] < 0.8 * spent[0], spent


def test_small_chunks_are_taken_in_their_order() -> None:
    """Units of a wave wait for earlier ones: when one begins, all before have ended but those others work at."""
    note = Kernel(
        "note",
        """
def note(args, begin, end):
    o = load_i64(args, 0)
    for tile in range(begin, end):
        write_i64(o, tile, atomic_load(load_i64(args, 1)))
        for i in range(load_i64(args, 2)):
            spin_pause()
        atomic_add(load_i64(args, 1), 1)
""",
    )
    tiles = 40
    seen, ended = np.zeros(tiles, "i8"), np.zeros(1, "i8")
    args = np.array([seen.ctypes.data, ended.ctypes.data, 100], "i8")
    table = np.array([[note.address, args.ctypes.data, tiles, tiles]], "i8")
    for count in (2, 3):
        pool.set_num_threads(count)
        for _ in range(50):
            ended[0] = 0
            entry(table.ctypes.data, 1)()
            assert (seen >= np.arange(tiles) - (count - 1)).all(), seen


def test_steps_keep_their_order() -> None:
    """Each step reads what all tiles of the step before have written."""
    pool.set_num_threads(4)
    step = Kernel(
        "step",
        """
def step(args, begin, end):
    x = load_i64(args, 0)
    y = load_i64(args, 1)
    n = load_i64(args, 2)
    for i in range(begin, end):
        store_i64(y, i, load_i64(x, (i + 1) % n) + 1)
""",
    )
    n, steps = 64, 200
    x, y = np.arange(n), np.zeros(n, "i8")
    forth = np.array([x.ctypes.data, y.ctypes.data, n], "i8")
    back = np.array([y.ctypes.data, x.ctypes.data, n], "i8")
    table = np.array([[step.address, (forth, back)[i % 2].ctypes.data, n, 1] for i in range(steps)], "i8")
    for repeat in range(1, 51):
        entry(table.ctypes.data, steps)()
        turns = repeat * steps
        np.testing.assert_array_equal(x, (np.arange(n) + turns) % n + turns)


def test_many_python_threads_at_once() -> None:
    pool.set_num_threads(3)
    programs = [Counting(20, 50, 1) for _ in range(6)]

    def work(program: Counting) -> None:
        for _ in range(100):
            program.run()

    callers = [threading.Thread(target=work, args=(p,)) for p in programs]
    for caller in callers:
        caller.start()
    for count in (1, 4, 2, 3, 1, 2):  # and the number of threads changes meanwhile
        pool.set_num_threads(count)
        time.sleep(0.01)
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert all((p.counts == 100).all() for p in programs)


def test_sleeping_helpers_wake() -> None:
    pool.set_num_threads(3)
    program = Counting(3, 30, 1)
    for repeat in range(1, 6):
        program.run()
        words, patience = pool._made()._words, time.monotonic() + 10
        while words[pool._SLEEPERS] < words[pool._RUNNING] and time.monotonic() < patience:
            time.sleep(0.01)  # far longer than helpers spin, unless the processors are busy: they give way
        assert words[pool._SLEEPERS] == words[pool._RUNNING] >= 2
        assert (program.counts == repeat).all()


def test_helpers_use_no_time_when_idle() -> None:
    pool.set_num_threads(3)
    Counting(3, 30, 1).run()
    time.sleep(0.05)
    start = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - start < 0.05


WHO = Kernel(
    "who",
    """
def who(args, begin, end):
    o = load_i64(args, 0)
    for tile in range(begin, end):
        for i in range(20000):
            spin_pause()
        write_i64(o, tile, call_integer(load_i64(args, 1), 0, 0, 0, 0))
""",
)


def threads_that_ran() -> int:
    """How many threads of the system took part in a job of some milliseconds."""
    found = np.zeros(64, "i8")
    args = np.array([found.ctypes.data, pool.address_of(ctypes.CDLL(None).pthread_self)], "i8")
    table = np.array([[WHO.address, args.ctypes.data, len(found), 1]], "i8")
    entry(table.ctypes.data, 1)()
    return len(set(found))


def test_set_num_threads() -> None:
    pool.set_num_threads(5)
    assert pool.get_num_threads() == 5
    Counting(1, 100, 1).run()
    assert pool._made()._words[pool._RUNNING] >= 4
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"must be a whole number, 1 or more; got {wrong}"):
            pool.set_num_threads(wrong)  # type: ignore[arg-type]
    assert pool.get_num_threads() == 5


@pytest.mark.skipif(os.name != "posix", reason="asks the system for the thread")
def test_no_more_threads_run_than_asked_for() -> None:
    pool.set_num_threads(6)
    assert 1 < max(threads_that_ran() for _ in range(10)) <= 6
    for count in (2, 1):
        pool.set_num_threads(count)
        assert max(threads_that_ran() for _ in range(10)) <= count
    pool.set_num_threads(3)
    assert 1 < max(threads_that_ran() for _ in range(10)) <= 3


def test_a_block_of_code_has_its_own_number() -> None:
    pool.set_num_threads(3)
    one = pool.num_threads(1)
    with pytest.raises(KeyError), one:
        assert pool.get_num_threads() == 1
        with pool.num_threads(4):
            assert pool.get_num_threads() == 4
            with one:  # a block may be used again, within itself too
                assert pool.get_num_threads() == 1
                pool.set_num_threads(2)  # holds to the end of the block
                assert pool.get_num_threads() == 2
            assert pool.get_num_threads() == 4
            Counting(2, 100, 1).run()
        assert pool.get_num_threads() == 1
        raise KeyError
    assert pool.get_num_threads() == 3
    with pytest.raises(ValueError, match="num_threads: the number of threads must be a whole number, 1 or more; got 0"):
        pool.num_threads(0)


def test_overlapping_blocks_of_threads_leave_the_number_as_it_was() -> None:
    pool.set_num_threads(3)
    first, second = pool.num_threads(1), pool.num_threads(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert pool.get_num_threads() == 2
    second.__exit__(None, None, None)
    assert pool.get_num_threads() == 3


@pytest.mark.skipif(os.name != "posix", reason="puts another C function for the system's")
def test_a_system_that_gives_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = pool._Pool()  # the real one keeps its workers
    monkeypatch.setattr(pool, "_pool", fresh)
    pool.set_num_threads(4)
    create = fresh._words[pool._CREATE]
    fresh._words[pool._CREATE] = pool.address_of(ctypes.CDLL(None).getpid)  # not 0: it failed
    program = Counting(3, 50, 1)
    program.run()
    assert (program.counts == 1).all()
    assert fresh._words[pool._RUNNING] == fresh._words[pool._HELPERS] == 0
    fresh._words[pool._CREATE] = create
    pool.set_num_threads(3)
    program.run()
    assert (program.counts == 2).all()
    assert fresh._words[pool._RUNNING] == 2


def run_python(program: str, **environment: str) -> str:
    everything = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", program], env=everything, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_number_of_threads_from_the_environment() -> None:
    program = "from gluonish.kernels import pool; print(pool.get_num_threads())"
    assert run_python(program, GLUONISH_NUM_THREADS="7") == "7"
    assert 1 <= int(run_python(program, GLUONISH_NUM_THREADS="")) <= (os.cpu_count() or 1)
    wrong = [sys.executable, "-c", program]
    done = subprocess.run(wrong, env={**os.environ, "GLUONISH_NUM_THREADS": "two"}, capture_output=True, text=True)
    assert "GLUONISH_NUM_THREADS must be a whole number of threads, 1 or more; got 'two'" in done.stderr


START = """
import os, sys, time, warnings
warnings.simplefilter("error")
import numpy as np
from gluonish.kernels import pool
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel
kernel = Kernel("fill", '''
def fill(args, begin, end):
    o = load_i64(args, 0)
    for i in range(begin, end):
        write_i64(o, i, read_i64(o, i) + 1)
''')
out = np.zeros(1000, "i8")
args = np.array([out.ctypes.data])
table = np.array([[kernel.address, args.ctypes.data, 1000, 1]])
pool.set_num_threads(3)
def run():
    entry(table.ctypes.data, 1)()
    assert (out == out[0]).all()
    return int(out[0])
"""


def test_exit_while_helpers_spin_or_sleep() -> None:
    assert run_python(START + "print(run())") == "1"
    assert run_python(START + "run(); time.sleep(0.02); print(run(), flush=True); time.sleep(0.02)") == "2"


def test_exit_while_a_daemon_thread_runs_programs() -> None:
    program = """
import threading
def forever():
    while True: run()
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
"""
    run_python(START + program)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_child_go_on_after_fork() -> None:
    program = """
run()
for round in range(5):
    child = os.fork()
    if child == 0:
        run(); run()
        assert pool._made()._words[pool._RUNNING] == 2
        os._exit(7 if out[0] == round + 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    run()
print(out[0])
"""
    assert run_python(START + program) == "6"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_another_thread_runs_programs() -> None:
    program = """
import threading
stop = False
def work():
    while not stop: entry(other.ctypes.data, 1)()
second = np.zeros(1000, "i8"); words = np.array([second.ctypes.data])
other = np.array([[kernel.address, words.ctypes.data, 1000, 1]])
thread = threading.Thread(target=work); thread.start()
for round in range(10):
    child = os.fork()
    if child == 0:
        run()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
stop = True; thread.join()
print(run())
"""
    # a fork beside a running thread is what later Pythons warn of: that thread is the caller's own, not ours
    assert run_python(START + "warnings.simplefilter('ignore', DeprecationWarning)\n" + program) == "1"


def test_a_busy_neighbour_does_not_stop_a_program() -> None:
    pool.set_num_threads(2)
    program = Counting(20, 16, 1)

    def median() -> float:
        times = []
        for _ in range(300):
            start = time.perf_counter()
            program.run()
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    program.run()
    quiet = median()
    cores = os.cpu_count() or 1
    neighbours = [subprocess.Popen([sys.executable, "-c", "while 1: pass"]) for _ in range(min(cores - 1, 8) or 1)]
    try:
        time.sleep(0.3)
        busy = median()
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    print(f"20 shared steps: {quiet * 1e6:.1f} us quiet, {busy * 1e6:.1f} us with a busy neighbour")
    assert busy < 5 * max(quiet, 20e-6)
