"""`hybridize(background=True)`: eager answers at once, then the program; errors are told; processes end."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
import warnings
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd, nn
from gluonish.hybrid import compiling


def until_compiled(net: nn.HybridBlock) -> None:
    end = time.monotonic() + 60
    while any(not p.done.is_set() for v in net._compile().variants if isinstance(p := v.instead, compiling.Pending)):
        assert time.monotonic() < end
        time.sleep(0.005)


def made(rng: np.random.Generator) -> tuple[nn.HybridBlock, nd.NDArray]:
    net = nn.HybridSequential(nn.Dense(7, activation="relu"), nn.BatchNorm(), nn.Dropout(0.5), nn.Dense(3))
    net.initialize()
    return net, nd.NDArray(rng.standard_normal((4, 5)).astype(np.float32))


def test_calls_are_eager_until_the_kernels_are_there(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    net, x = made(rng)
    wanted = net(x).asnumpy()
    held: list[Any] = []
    monkeypatch.setattr(compiling._thread, "add", held.append)
    net.hybridize(background=True)
    assert np.array_equal(net(x).asnumpy(), wanted) and np.array_equal(net(x).asnumpy(), wanted)
    with autograd.record():
        y = net(x).sum()
    y.backward()  # of an eager call
    assert len(held) == 2 and "runs eagerly until" in net.explain()
    for job in held:
        job.work()
    assert np.allclose(net(x).asnumpy(), net(x).asnumpy(), atol=0)
    assert np.allclose(net(x).asnumpy(), wanted, atol=1) and "runs eagerly" not in net.explain().split("variant 1")[1]
    with autograd.record():
        y = net(x).sum()
    assert type(y._entry[2][0]._entry[1]).__name__ == "Call"
    assert "runs eagerly" not in net.explain()


def test_it_happens_in_a_thread(rng: np.random.Generator) -> None:
    net, x = made(rng)
    net.hybridize(background=True, verify=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eager = net(x).asnumpy()
        until_compiled(net)
        assert np.allclose(net(x).asnumpy(), eager, atol=1e-6)
    assert "runs eagerly" not in net.explain() and "kernel calls" in net.explain()


def test_a_problem_is_told_once_and_calls_stay_eager(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("no compiler today")

    net, x = made(rng)
    monkeypatch.setattr(compiling, "compile_kernels", broken)
    net.hybridize(background=True)
    wanted = net(x).asnumpy()
    until_compiled(net)
    with pytest.warns(RuntimeWarning, match="HybridSequential goes on eagerly, .*no compiler today"):
        assert np.array_equal(net(x).asnumpy(), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(net(x).asnumpy(), wanted)
    assert "no compiler today" in net.explain()


def test_a_process_ends_and_forks_while_kernels_compile(tmp_path: Any) -> None:
    program = """
        import os, sys, time
        import numpy as np
        from gluonish import nd, zoo
        net = zoo.get_model("resnet18_v1", classes=10, multiplier=0.125)
        net.initialize()
        net.hybridize(background=True)
        x = nd.ones((1, 3, 32, 32))
        first = net(x).asnumpy()
        child = os.fork()
        if child == 0:
            assert np.allclose(net(x).asnumpy(), first, atol=1e-4)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("answered")
    """
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120,
        env={**__import__("os").environ, "GLUONISH_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == "answered\n" and done.stderr == ""
    assert time.monotonic() - begin < 30


def test_a_bar_is_shown_to_who_looks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compiling.compiler, "compile_many", lambda kernels, done: done(len(kernels) // 2))
    monkeypatch.setattr(compiling, "PATIENCE", -1.0)
    kernels: list[Any] = list(range(20))
    assert compiling.compile_kernels(kernels, "Net") and capsys.readouterr().err == ""
    monkeypatch.setattr(compiling, "_watched", lambda: True)
    assert compiling.compile_kernels(kernels, "Net") and "compiling Net" in capsys.readouterr().err
    assert not compiling.compile_kernels(kernels, "Net", lambda: False)
