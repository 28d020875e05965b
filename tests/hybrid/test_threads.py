"""One compiled function in several threads at once: right results, one trace, no lost updates of what threads share."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd, nn
from gluonish.hybrid import hybridize


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Runs work(0..count-1) in threads that start together; raises the first error of any."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]


def test_first_calls_at_once_trace_once(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(nn.Dense(16, activation="relu", in_units=8), nn.Dense(3, in_units=16))
    net.initialize("normal")
    xs = [nd.array(rng.standard_normal((n + 2, 8)).astype(np.float32)) for n in range(6)]
    wanted = [net(x).asnumpy() for x in xs]
    net.hybridize()

    def work(number: int) -> None:
        for turn in range(30):
            i = (number + turn) % len(xs)
            assert np.allclose(net(xs[i]).asnumpy(), wanted[i], rtol=1e-4, atol=1e-5)

    at_once(6, work)
    assert len(net._compile().variants) == 1


def test_arguments_live_until_the_last_part_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may give an argument other memory while a loop runs; what comes behind it reads the old one."""

    @hybridize
    def f(x: nd.NDArray, y: nd.NDArray) -> nd.NDArray:
        return x * nd.foreach(lambda a, s: (a, s + a), nd.exp(y), nd.zeros((3,)))[1]

    x, y = nd.ones((2, 3)), nd.zeros((4, 3))
    assert (f(x, y).asnumpy() == 4).all()
    control = next(s.control for s in f.variants[0].program.steps if s.control is not None)
    run, alive = control.run, []

    def meanwhile(*arguments: Any) -> Any:
        old = weakref.ref(x._data)
        x._data = np.full((2, 3), 7, np.float32)
        alive.append(old() is not None)
        return run(*arguments)

    monkeypatch.setattr(control, "run", meanwhile)
    assert (f(x, y).asnumpy() == 4).all() and alive == [True]


def test_weights_prepared_by_one_thread_are_right_for_all(rng: np.random.Generator) -> None:
    """A thread that finds weights being packed does not read them half done."""
    for _ in range(10):
        w = nd.array(rng.standard_normal((300, 200)).astype(np.float32))
        x = nd.array(rng.standard_normal((4, 300)).astype(np.float32))
        f = hybridize(lambda x, w=w: x @ nd.softmax(w))  # type: ignore[misc]
        f(x)
        w *= 0.5
        wanted = (x @ nd.softmax(w)).asnumpy()

        def work(number: int, f: Any = f, x: Any = x, wanted: Any = wanted) -> None:
            for _ in range(3):
                assert np.allclose(f(x).asnumpy(), wanted, rtol=1e-3, atol=1e-4)

        at_once(4, work)


def test_different_modes_and_sizes_at_once(rng: np.random.Generator) -> None:
    w = nd.array(rng.standard_normal((6, 6)).astype(np.float32))
    f = hybridize(lambda x: nd.tanh(x @ w).sum(1) * (2 if autograd.is_training() else 1))

    def work(number: int) -> None:
        own = np.random.default_rng(number)
        for turn in range(20):
            x = nd.array(own.standard_normal((2 + (number + turn) % 5, 6)).astype(np.float32))
            wanted = np.tanh(x.asnumpy() @ w.asnumpy()).sum(1)
            if number % 2:
                with autograd.train_mode():
                    out, wanted = f(x), wanted * 2
            else:
                out = f(x)
            assert np.allclose(out.asnumpy(), wanted, rtol=1e-4, atol=1e-5)

    at_once(6, work)
    assert len(f.variants) == 2


def test_recorded_calls_at_once_keep_their_own_values(rng: np.random.Generator) -> None:
    w = nd.array(rng.standard_normal((5, 5)).astype(np.float32))
    f = hybridize(lambda x: nd.exp(nd.tanh(x @ w)).sum())
    xs = [nd.array(rng.standard_normal((3, 5)).astype(np.float32)) for _ in range(4)]

    def gradient(function: Any, x: nd.NDArray) -> np.ndarray:
        with autograd.record():
            y = function(x)
        y.backward()
        assert x.grad is not None
        return x.grad.asnumpy()

    for x in xs:
        x.attach_grad()
    wanted = [gradient(lambda x: nd.exp(nd.tanh(x @ w)).sum(), x) for x in xs]

    def work(number: int) -> None:
        for _ in range(20):
            assert np.allclose(gradient(f, xs[number]), wanted[number], rtol=1e-3, atol=1e-4)

    at_once(4, work)
    assert len(f.variants) == 1


def test_errors_stay_in_their_thread(rng: np.random.Generator) -> None:
    table = nd.array(rng.standard_normal((10, 4)).astype(np.float32))
    f = hybridize(lambda i: nd.take(table, i).sum(1))
    wrong = []

    def work(number: int) -> None:
        index = np.full(50, 3)
        if number % 2:
            index[7] = 99
        for _ in range(40):
            try:
                assert np.allclose(f(nd.NDArray(index)).asnumpy(), table.asnumpy()[3].sum(), rtol=1e-4)
            except IndexError as error:
                assert number % 2 and "index 99 at position 7" in str(error)
                wrong.append(number)

    at_once(4, work)
    assert sorted(wrong) == [1] * 40 + [3] * 40


def test_random_draws_of_threads_are_different() -> None:
    f = hybridize(lambda x: x * nd.random.uniform(shape=(64,)))
    drawn: list[bytes] = []

    def work(number: int) -> None:
        for _ in range(25):
            drawn.append(f(nd.ones((64,))).asnumpy().tobytes())

    at_once(4, work)
    assert len(set(drawn)) == 100


def test_a_trace_does_not_leak_into_other_threads() -> None:
    inside, go = threading.Event(), threading.Event()

    def f(x: Any) -> Any:
        inside.set()
        assert go.wait(10)
        return x * 2

    thread = threading.Thread(target=lambda: hybridize(f)(nd.ones((3,))))
    thread.start()
    assert inside.wait(10)
    try:
        assert (nd.ones((3,)) * 5).tolist() == [5, 5, 5]
        assert hybridize(lambda x: x + 1)(nd.ones((2,))).tolist() == [2, 2]
    finally:
        go.set()
        thread.join()
