"""A whole training step in one compiled function: record, loss, backward, Trainer.step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn

OPTIMIZERS = [
    ("sgd", {"learning_rate": 0.1}),
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01, "clip_gradient": 0.3}),
    ("adam", {"learning_rate": 0.01, "wd": 0.01}),
]


def convolutional() -> nn.HybridSequential:
    return nn.HybridSequential(
        nn.Conv2D(6, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(), nn.Dropout(0.3), nn.Dense(5)
    )


def dense() -> nn.HybridSequential:
    return nn.HybridSequential(nn.Dense(16, "relu"), nn.Dense(5))


class Training:
    """A net, a Trainer, and a step that is eager or compiled; always from the same beginning."""

    def __init__(self, net: nn.HybridSequential, x: nd.NDArray, optimizer: str, options: dict[str, Any]) -> None:
        gl.random.seed(7)
        self.net = net
        net.initialize("xavier")
        net(x)
        for i, p in enumerate(net.collect_params().values()):
            if p.grad_req != "null":
                p.set_data(nd.NDArray(np.random.default_rng(i).standard_normal(p.shape).astype(p.dtype) / 4))
        self.trainer = gl.Trainer(net.collect_params(), optimizer, options)
        self.loss = gl.loss.SoftmaxCrossEntropyLoss()

    def step(self, x: Any, y: Any) -> Any:
        with autograd.record():
            loss = self.loss(self.net(x), y)
        loss.backward()
        self.trainer.step(x.shape[0])
        return loss

    def everything(self) -> list[np.ndarray]:
        params = self.net.collect_params().values()
        grads = [p.grad.asnumpy() for p in params if p.grad_req != "null"]
        states = [s.asnumpy() for i in range(len(params)) for s in self.trainer.states_of(i)]
        return [*(p.asnumpy() for p in params), *grads, *states]


def batch(rng: np.random.Generator, rows: int, image: bool) -> tuple[nd.NDArray, nd.NDArray]:
    shape = (rows, 2, 6, 6) if image else (rows, 7)
    return nd.NDArray(rng.standard_normal(shape).astype("f")), nd.NDArray(rng.integers(0, 5, rows))


def compare(
    make: Callable[[], nn.HybridSequential], optimizer: str, options: dict[str, Any], change: Any, rng: Any
) -> Any:
    """Five steps, eager and compiled, `change(training, number)` before each; the compiled function."""
    batches = [batch(rng, rows, make is convolutional) for rows in (8, 8, 5, 8, 3)]
    found = []
    for wrap in (lambda f: f, gl.hybridize):
        training = Training(make(), batches[0][0], optimizer, options)
        step = wrap(training.step)
        gl.random.seed(11)
        losses = []
        for number, (x, y) in enumerate(batches):
            change(training, number)
            losses.append(step(x, y).asnumpy())
        found.append([*losses, *training.everything(), np.array(training.trainer.counts)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    return step


# Adam goes with the dense net only: the gradient of a bias before a batch norm is rounding alone, which it makes large
@pytest.mark.parametrize(
    ("make", "optimizer", "options"),
    [*((dense, *each) for each in OPTIMIZERS), *((convolutional, *each) for each in OPTIMIZERS if each[0] != "adam")],
)
def test_as_in_eager_mode(make: Any, optimizer: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    step = compare(make, optimizer, options, lambda training, number: None, rng)
    assert len(step.variants) == 1 and "slower" not in step.explain()


def test_new_numbers_trace_nothing(rng: np.random.Generator) -> None:
    def rates(training: Training, number: int) -> None:
        training.trainer.set_learning_rate(0.3 / (1 + number))

    def numbers(training: Training, number: int) -> None:
        optimizer = training.trainer.optimizer
        for name in ("wd", "clip_gradient", "momentum", "beta1", "beta2", "epsilon"):
            if getattr(optimizer, name, None):
                setattr(optimizer, name, getattr(optimizer, name) * 0.8)

    def momentum(training: Training, number: int) -> None:
        training.trainer.optimizer.momentum = 0.5 if number < 3 else 0.0

    assert len(compare(dense, "sgd", {"momentum": 0.5}, rates, rng).variants) == 1
    for options in ({"momentum": 0.5}, {"momentum": 0.5, "nesterov": True, "wd": 0.1, "clip_gradient": 0.02}):
        assert len(compare(dense, "sgd", options, numbers, rng).variants) == 1
    for optimizer in ("adam", "adamw"):
        assert len(compare(dense, optimizer, {"wd": 0.1, "epsilon": 1e-3}, numbers, rng).variants) == 1
    assert len(compare(dense, "sgd", {"momentum": 0.5}, momentum, rng).variants) == 2  # its arrays are gone


def test_schedulers_are_asked_at_each_step(rng: np.random.Generator) -> None:
    asked = []

    def scheduler(count: int) -> float:
        asked.append(count)
        return 0.1 / count

    step = compare(dense, "sgd", {"lr_scheduler": scheduler}, lambda training, number: None, rng)
    assert len(step.variants) == 1 and asked == [1, 2, 3, 4, 5] * 2


def test_frozen_parameters_and_factors(rng: np.random.Generator) -> None:
    def change(training: Training, number: int) -> None:
        if number == 0:
            training.net[0].weight.lr_mult = 0.5
        if number == 2:
            training.net[1].bias.grad_req = "null"

    def check() -> Any:
        return compare(dense, "sgd", {"learning_rate": 0.1, "momentum": 0.9}, change, rng)

    assert len(check().variants) == 2


def test_settings_that_come_back(rng: np.random.Generator) -> None:
    """Another factor and back, with another momentum in between; no momentum and back, which begins with new states."""

    def factor(training: Training, number: int) -> None:
        training.net[0].weight.lr_mult = 2.0 if number == 2 else 1.0
        training.trainer.optimizer.momentum = 0.9 if number < 2 else 0.5

    def momentum(training: Training, number: int) -> None:
        training.trainer.optimizer.momentum = 0.0 if number == 2 else 0.9

    assert len(compare(dense, "sgd", {"learning_rate": 0.1, "momentum": 0.9}, factor, rng).variants) == 2
    assert len(compare(dense, "sgd", {"learning_rate": 0.1, "momentum": 0.9}, momentum, rng).variants) == 3


def test_eager_and_compiled_steps_alternate(rng: np.random.Generator) -> None:
    x, y = batch(rng, 8, False)
    first, second = (Training(dense(), x, "adam", {"learning_rate": 0.01}) for _ in range(2))
    compiled = gl.hybridize(second.step)
    for number in range(6):
        first.step(x, y)
        (compiled if number % 2 else second.step)(x, y)
    for a, b in zip(first.everything(), second.everything(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_wrong_label_changes_nothing(rng: np.random.Generator) -> None:
    x, y = batch(rng, 8, False)
    training = Training(dense(), x, "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    compiled = gl.hybridize(training.step)
    compiled(x, y)
    before = training.everything()
    wrong = nd.NDArray(np.where(np.arange(8) == 3, 5, y.asnumpy()))
    with pytest.raises(IndexError, match=r"5"):
        compiled(x, wrong)
    for a, b in zip(before, training.everything(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert training.trainer.counts == [1] * 4
    compiled(x, y)
    assert training.trainer.counts == [2] * 4


def test_a_parameter_that_the_loss_does_not_reach_is_named(rng: np.random.Generator) -> None:
    x, y = batch(rng, 8, False)
    training = Training(dense(), x, "sgd", {})
    unused = nn.Dense(3, in_units=2)
    unused.initialize()
    training.trainer = gl.Trainer({**training.net.collect_params(), **unused.collect_params("weight")}, "sgd")
    with pytest.warns(UserWarning, match="no backward has given 'weight'"):
        gl.hybridize(training.step)(x, y)
    before = unused.weight.asnumpy()

    def quiet(x: Any, y: Any) -> Any:
        with autograd.record():
            loss = training.loss(training.net(x), y)
        loss.backward()
        training.trainer.step(8, ignore_stale_grad=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gl.hybridize(quiet)(x, y)
    np.testing.assert_array_equal(before, unused.weight.asnumpy())


def test_a_step_without_its_backward_is_refused(rng: np.random.Generator) -> None:
    x, y = batch(rng, 8, False)
    training = Training(dense(), x, "sgd", {})
    training.step(x, y)
    with pytest.raises(TypeError, match=r"needs the backward\(\) inside.*test_whole_step.py"):
        gl.hybridize(lambda x: training.trainer.step(8))(x)


def test_blocks_in_a_plain_function_are_watched(rng: np.random.Generator) -> None:
    """A changed attribute of a Block that the function only closes over makes a new variant."""
    block = nn.LeakyReLU(0.1)
    compiled = gl.hybridize(lambda x: block(x))
    x = nd.array([-1.0, 2.0])
    assert np.allclose(compiled(x).asnumpy(), [-0.1, 2])
    name = next(name for name, value in vars(block).items() if value == 0.1)
    setattr(block, name, 0.5)
    assert np.allclose(compiled(x).asnumpy(), [-0.5, 2])
