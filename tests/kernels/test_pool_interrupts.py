"""The pool among forks of several threads, spawned processes and signals that come at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import os, random, signal, sys, threading, time, warnings
warnings.simplefilter("error")
import numpy as np
from gluonish.kernels import pool
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel
kernel = Kernel("slow_fill", '''
def slow_fill(args, begin, end):
    o = load_i64(args, 0)
    for i in range(begin, end):
        for k in range(load_i64(args, 1)):
            spin_pause()
        write_i64(o, i, read_i64(o, i) + 1)
''')
out = np.zeros(60, "i8")
args = np.array([out.ctypes.data, 2000])
table = np.array([[kernel.address, args.ctypes.data, 60, 1]] * 4)
run = entry(table.ctypes.data, 4)
"""


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_from_many_threads_at_once() -> None:
    program = """
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the program's own threads
args[1] = 0
pool.set_num_threads(4)
def forks():
    for _ in range(15):
        child = os.fork()
        if child == 0:
            run(); run()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
threads = [threading.Thread(target=forks) for _ in range(3)]
for t in threads: t.start()
for t in threads: t.join(50)
assert not any(t.is_alive() for t in threads)
run(); run()
assert (out == 8).all()
print(pool._made()._words[pool._RUNNING])
"""
    assert run_python(START + program) == "3"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_beside_the_first_call() -> None:
    """The child must not wait for a lock that a thread of the parent held while it made the pool."""
    program = """
warnings.simplefilter("ignore", DeprecationWarning)
from gluonish.kernels import pool
pool._pool, begin = None, threading.Event()
original = pool._Pool.__init__
def slowly(self):
    begin.set(); time.sleep(0.3); original(self)
pool._Pool.__init__ = slowly
thread = threading.Thread(target=pool.executor); thread.start()
begin.wait()
child = os.fork()
if child == 0:
    entry(table.ctypes.data, 4)()
    os._exit(7 if (out == 4).all() else 1)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(START + program) == "7"


def test_processes_started_by_spawn(tmp_path: Path) -> None:
    program = """
import multiprocessing
import numpy as np
import gluonish as gl
from gluonish import nd
def work(n):
    x = nd.array(np.arange(200_000.0))
    with gl.num_threads(3):
        return n * float(gl.hybridize(lambda x: nd.tanh(x).sum())(x).item())
if __name__ == "__main__":
    one = work(1)
    with multiprocessing.get_context("spawn").Pool(2) as workers:
        assert workers.map(work, range(4)) == [n * one for n in range(4)]
    print("done")
"""
    file = tmp_path / "spawns.py"
    file.write_text(program)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("done", "")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as Ctrl-C does")
def test_interrupts_at_any_moment_lose_no_tile() -> None:
    """They come while workers start, run, sleep and end; each is one KeyboardInterrupt when the running call ends."""
    program = """
signal.signal(signal.SIGALRM, signal.default_int_handler)
words, halt = pool._made()._words, pool._function(pool._HALT)
caught = 0
for turn in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 6e-3))
        while True:
            if turn % 3 == 0:
                halt(pool._made().address, 0, 0)
                words[pool._GATE] = 0
            pool.set_num_threads(2 + turn % 3)
            run()
    except KeyboardInterrupt:
        words[pool._GATE] = 0
        caught += 1
        assert (out == out[0]).all() and out[0] % 4 == 0
before = out.copy()
run()
assert (out == before + 4).all() and words[pool._RUNNING] > 0
print(caught)
"""
    assert run_python(START + program) == "60"


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as Ctrl-C does")
def test_a_compiled_function_survives_interrupts() -> None:
    program = """
import os, signal, threading
import numpy as np
from gluonish import nd
from gluonish.hybrid import hybridize
x = nd.array(np.random.default_rng(0).standard_normal((700, 700)).astype("f4"))
f = hybridize(lambda x: (x @ x @ x @ x).sum(1))
wanted = f(x).asnumpy().copy()
for turn in range(20):
    try:
        threading.Timer(0.002 + 0.003 * turn, os.kill, (os.getpid(), signal.SIGINT)).start()
        while True:
            f(x)
    except KeyboardInterrupt:
        assert (f(x).asnumpy() == wanted).all()
print("done")
"""
    assert run_python(program) == "done"


def test_a_program_inside_a_signal_handler() -> None:
    """The nested call: a handler runs the same program while the outer call is on its way."""
    program = """
import os, signal
import numpy as np
from gluonish import nd
from gluonish.hybrid import hybridize
x = nd.array(np.arange(300_000.0).astype("f4"))
f = hybridize(lambda x: nd.tanh(x * 1e-5) + 1)
wanted = f(x).asnumpy().copy()
nested = 0
inside = False
def handler(number, frame):
    global nested, inside
    if inside:
        return
    inside = True
    nested += 1
    assert (f(x).asnumpy() == wanted).all()
    inside = False
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
for _ in range(300):
    assert (f(x).asnumpy() == wanted).all()
signal.setitimer(signal.ITIMER_REAL, 0)
assert nested > 10
print("done")
"""
    if os.name != "posix":
        pytest.skip("needs timers that send signals")
    assert run_python(program) == "done"
