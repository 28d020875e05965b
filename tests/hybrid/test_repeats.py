"""Calls like the last ones: found by one compiled question, and never where anything has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import hybridize, repeat

SCALE = 2.0


class Net(gl.HybridBlock):
    def __init__(self) -> None:
        self.power = 2
        self.weight = gl.Parameter(shape=(4, 4))
        self.constant = nd.ones((4,))
        self.options = {"shift": 1.0}

    def forward(self, x: nd.NDArray) -> nd.NDArray:
        train = 0.5 if autograd.is_training() else 0.0
        return (x @ self.weight.data()) ** self.power * SCALE * self.constant + self.options["shift"] + train


def fresh(net: Net) -> None:
    net.weight = gl.Parameter(shape=(4, 4), init="ones")
    net.weight.initialize()


def global_scale(net: Net) -> None:
    globals()["SCALE"] = 3.0


CHANGES: dict[str, Callable[[Net], Any]] = {
    "attribute": lambda net: setattr(net, "power", 3),
    "attribute of the class": lambda net: setattr(Net, "forward", lambda self, x: x @ self.weight),
    "dict": lambda net: net.options.update(shift=2.0),
    "global": global_scale,
    "values": lambda net: net.weight.set_data(nd.ones((4, 4))),
    "values in place": lambda net: net.constant.__setitem__(0, 7.0),
    "parameter": fresh,
    "array": lambda net: setattr(net, "constant", nd.ones((4,)) * 3),
    "memory": lambda net: setattr(net.constant, "_data", net.constant._data * 5),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_after_many_calls(what: str, train: bool, rng: np.random.Generator, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    monkeypatch.setattr(Net, "forward", Net.forward)
    net, x = Net(), nd.NDArray(rng.standard_normal((3, 4)).astype("float32"))
    net.initialize("normal")
    net.hybridize()

    def gradient_and_value() -> list[np.ndarray]:
        if not train:
            return [net(x).asnumpy()]
        with autograd.record():
            y = net(x)
        y.backward()
        return [y.asnumpy(), *([] if net.weight.grad is None else [net.weight.grad.asnumpy()])]

    def check() -> None:
        net.weight.zero_grad()
        compiled = gradient_and_value()
        net._active = False
        net.weight.zero_grad()
        eager = gradient_and_value()
        net._active = True
        assert all(np.allclose(a, b, 1e-4, 1e-4) for a, b in zip(compiled, eager, strict=True))

    for _ in range(3):
        check()
        for _ in range(3):
            gradient_and_value()
    assert net._compile().repeats.now[0].uses > 0
    CHANGES[what](net)
    check()
    check()


def test_modes_gradients_and_precision_tell_calls_apart(rng: np.random.Generator) -> None:
    w = nd.NDArray(rng.standard_normal(4).astype("float32"))
    f = hybridize(lambda x: x * w * (2 if autograd.is_training() else 1))
    x = nd.ones((4,))
    for _ in range(3):
        for train in (False, True):
            with autograd.record(train):
                assert np.allclose(f(x)._data, w._data * (1 + train))
            with autograd.train_mode() if train else autograd.predict_mode():
                assert np.allclose(f(x)._data, w._data * (1 + train))
    count = len(f.variants)
    with gl.precision("strict"):
        f(x)
    assert len(f.variants) == count + 1
    w.attach_grad()
    with autograd.record():
        y = f(x)
    y.backward()
    assert np.allclose(w.grad._data, 2)


def test_a_captured_array_on_the_tape_is_never_taken_for_granted(rng: np.random.Generator) -> None:
    a = nd.ones((3,))
    a.attach_grad()
    held: list[nd.NDArray] = []

    class Scaled(gl.HybridBlock):
        def forward(self, x: nd.NDArray) -> nd.NDArray:
            return x * held[0]

    net, x = Scaled(), nd.ones((3,)) * 2
    net.hybridize()
    for factor in (1.0, 2.0, 3.0):
        with autograd.record():
            held[:] = [a * factor]
            y = net(x)
        y.backward()
        assert np.allclose(a.grad._data, 2 * factor)


def test_layouts_of_arguments(rng: np.random.Generator, tmp_path: Any) -> None:
    values = rng.standard_normal((4, 4)).astype("float32")
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=(4, 4))
    mapped[:] = values
    f = hybridize(lambda x: x * 2 + nd.softmax(x))
    wanted = f(nd.NDArray(values))._data
    strange = [np.asfortranarray(values), np.repeat(values, 2, 1)[:, ::2], mapped, values[::-1][::-1]]
    for data in strange * 2:
        assert np.allclose(f(nd.NDArray(data))._data, wanted, 1e-6, 1e-6)
    assert len(f.variants) == 1


def test_noting_in_vain_is_given_up(rng: np.random.Generator, monkeypatch: Any) -> None:
    made = []
    monkeypatch.setattr(repeat, "Facts", lambda: made.append(1) or Facts())
    from gluonish.kernels.facts import Facts

    net = nn.Dense(3, in_units=4)
    net.initialize()
    net.hybridize()
    x = nd.ones((2, 4))
    for number in range(300):
        net.note = number
        net(x)
    assert len(made) < 20
    for _ in range(1000):
        net(x)
    assert net._compile().repeats.now[0].uses > 100


def test_questions_that_memory_does_not_answer(rng: np.random.Generator) -> None:
    """A dict that is closed over can change in place: it is compared at every call."""
    options, count = {"scale": 2.0}, 3
    f = hybridize(lambda x: x * options["scale"] + count)
    x = nd.ones((2,))
    for scale in (2.0, 3.0, 3.0):
        options["scale"] = scale
        for _ in range(3):
            assert f(x).tolist() == [scale + count] * 2
    count = 5
    assert f(x).tolist() == [8.0] * 2
