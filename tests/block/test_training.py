"""Whole training runs on toy problems: what is to be learned is learned, eager and hybridized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, init, loss, metric, nd, nn


def spirals(rng: np.random.Generator, count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Three arms of a spiral: no line separates them."""
    label = np.arange(count) % 3
    radius = rng.uniform(0.1, 1, count)
    angle = 3 * radius + label * 2 * np.pi / 3
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return points.astype(np.float32), label


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [("sgd", {"learning_rate": 0.3, "momentum": 0.9}), ("adam", {"learning_rate": 0.02})]
)
def test_spirals(rng: np.random.Generator, hybrid: bool, name: str, options: dict[str, Any]) -> None:
    x, y = (nd.array(a) for a in spirals(rng))
    net = nn.HybridSequential(
        nn.Dense(32, activation="tanh"), nn.BatchNorm(), nn.Dense(32, activation="relu"), nn.Dense(3)
    )
    net.initialize(init.Xavier())
    net.hybridize(hybrid)
    criterion = loss.SoftmaxCrossEntropyLoss()
    trainer = gl.Trainer(net.collect_params(), name, options)
    for _ in range(100):
        with autograd.record():
            value = criterion(net(x), y)
        value.backward()
        trainer.step(len(x))
    accuracy = metric.Accuracy()
    accuracy.update(y, net(x))
    assert accuracy.get()[1] > 0.97 and value.mean().item() < 0.15


def bars(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Noisy images with an upright or a lying bar."""
    images = rng.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    label = rng.integers(0, 2, count)
    for image, kind, place in zip(images, label, rng.integers(0, 8, count), strict=True):
        image[0][(slice(None), place) if kind else (place, slice(None))] += 1
    return nd.array(images), nd.array(label)


def test_a_small_convolutional_net(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(
        nn.Conv2D(8, 3, padding=1, use_bias=False),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(),
        nn.Conv2D(16, 3, activation="relu"),
        nn.GlobalAvgPool2D(),
        nn.Dropout(0.1),
        nn.Dense(2),
    )
    net.initialize(init.MSRAPrelu())
    net.hybridize()
    trainer = gl.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    criterion = loss.SoftmaxCrossEntropyLoss()
    for size in [64] * 80 + [17]:
        x, y = bars(rng, size)
        with autograd.record():
            value = criterion(net(x), y)
        value.backward()
        trainer.step(size)
    x, y = bars(rng, 200)
    assert (net(x).argmax(1) == y).asnumpy().mean() > 0.93


def test_fine_tuning_moves_only_the_new_output(rng: np.random.Generator) -> None:
    class Net(nn.HybridBlock):
        def __init__(self, classes: int) -> None:
            self.features = nn.HybridSequential(nn.Dense(16, activation="relu"), nn.BatchNorm())
            self.output = nn.Dense(classes)

        def forward(self, x: Any) -> Any:
            return self.output(self.features(x))

    net = Net(5)
    net.initialize(init.Xavier())
    net.hybridize()
    x, y = (nd.array(a) for a in spirals(rng))
    net(x)
    net.output = nn.Dense(3)
    net.initialize(init.Xavier())
    net.features.setattr("grad_req", "null")
    before = {name: p.asnumpy() for name, p in net.features.collect_params().items()}
    trainer = gl.Trainer(net.collect_params(), "adam", {"learning_rate": 0.05})
    values = []
    for _ in range(60):
        with autograd.record():
            value = loss.SoftmaxCrossEntropyLoss()(net(x), y)
        value.backward()
        trainer.step(len(x))
        values.append(value.mean().item())
    assert values[-1] < 0.8 * values[0]
    assert all((before[name] == p.asnumpy()).all() for name, p in net.features.collect_params().items())
    net.features.setattr("grad_req", "write")
    net.features.setattr("lr_mult", 0.1)
    with autograd.record():
        value = loss.SoftmaxCrossEntropyLoss()(net(x), y)
    value.backward()
    trainer.step(len(x))
    assert all((before[name] != p.asnumpy()).any() for name, p in net.features.collect_params().items())
