"""The training step of the network that `gluonish demo` trains: batch 64 of 8x8 images, Adam.

gluonish runs the demo's own network; the others build it from LAYERS (a test compares the two). All begin with the
same weights. Dropout draws differ from library to library, so the sides are compared on the losses of the first steps
without dropout (not on the weights: Adam makes steps of full size out of the rounding errors that are the gradient of a
bias before a BatchNorm). The time is of steps with dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.row import Bar, Row, Side, Sizes, classes, numbers

LAYERS: tuple[tuple[str, float], ...] = (
    ("conv", 32), ("norm", 0), ("relu", 0),
    ("conv", 64), ("norm", 0), ("relu", 0), ("pool", 2), ("dropout", 0.25),
    ("conv", 64), ("norm", 0), ("relu", 0), ("pool", 2),
    ("flatten", 0), ("dense", 128), ("relu", 0), ("dropout", 0.5), ("dense", 10),
)  # fmt: skip
RATE = 3e-3
STEPS = 4  # whose losses are compared

STEP = Row(
    "cnn-step",
    "CNN of the demo, batch 64 of 1x8x8, training step with Adam",
    {"batch": 64, "size": 8},
    {"batch": 6},
    (Bar("torch", 0.6),),
    tolerance=2e-3,
)
Step = Callable[[], Any]


def _data(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    return numbers(20, sizes["batch"], 1, sizes["size"], sizes["size"]), classes(21, sizes["batch"], 10)


def weights(sizes: Sizes) -> list[np.ndarray]:
    """The weights of convolutions and dense layers, in order; He's scale. Biases are zero, gammas one."""
    found, size, width = [], sizes["size"], 1
    for i, (kind, value) in enumerate(LAYERS):
        size //= 2 if kind == "pool" else 1
        width *= size * size if kind == "flatten" else 1
        if kind in ("conv", "dense"):
            shape = (int(value), width, *((3, 3) if kind == "conv" else ()))
            found.append(numbers(30 + i, *shape, scale=float((6 / np.prod(shape[1:])) ** 0.5)))
            width = int(value)
    return found


def _trained(make_step: Callable[[bool], Step], finish: Callable[[], Any] = lambda: None) -> Side:
    """make_step gives a step of a new model, with dropout or without; a step gives its losses."""

    def results() -> list[Any]:
        step = make_step(False)
        return [step() for _ in range(STEPS)]

    return Side(make_step(True), results, finish=finish)


@STEP.side("gluonish")
def _gluonish(sizes: Sizes) -> Side:
    import gluonish as gl
    from gluonish.demo import digits_net

    images, labels = map(gl.nd.array, _data(sizes))

    def make_step(dropout: bool) -> Step:
        net, criterion = digits_net(), gl.loss.SoftmaxCrossEntropyLoss()
        net.initialize(gl.init.MSRAPrelu())
        net(images)  # shapes become known
        named = net.collect_params().items()
        for parameter, value in zip((p for name, p in named if name.endswith("weight")), weights(sizes)):
            parameter.set_data(value)
        for layer in net:
            if isinstance(layer, gl.nn.Dropout) and not dropout:
                layer.rate = 0.0
        net.hybridize()
        criterion.hybridize()
        trainer = gl.Trainer(net.collect_params(), "adam", {"learning_rate": RATE})

        def step() -> Any:
            with gl.autograd.record():
                losses = criterion(net(images), labels)
            losses.backward()
            trainer.step(sizes["batch"])
            return losses

        return step

    return _trained(make_step)


# --- torch ---
def _torch_net(sizes: Sizes, dropout: bool) -> Any:
    import torch
    from torch import nn

    make: dict[str, Callable[[Any, int], Any]] = {
        "conv": lambda value, width: nn.Conv2d(width, value, 3, padding=1),
        "norm": lambda value, width: nn.BatchNorm2d(width),
        "relu": lambda value, width: nn.ReLU(),
        "pool": lambda value, width: nn.MaxPool2d(value),
        "dropout": lambda value, width: nn.Dropout(value if dropout else 0.0),
        "flatten": lambda value, width: nn.Flatten(),
        "dense": lambda value, width: nn.Linear(width, value),
    }
    values, layers, width = iter(weights(sizes)), [], 1
    for kind, value in LAYERS:
        layer = None
        if kind in ("conv", "dense"):
            weight = torch.from_numpy(next(values))
            layer, width = make[kind](value, weight.shape[1]), int(value)
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.zero_()
        layers.append(layer or make[kind](value, width))
    return nn.Sequential(*layers)


@STEP.side("torch")
def _torch(sizes: Sizes) -> Side:
    return _trained(lambda dropout: _step_of_torch(sizes, dropout, lambda net: net))


@STEP.side("torch.compile", peer="torch", on_request=True)
def _torch_compile(sizes: Sizes) -> Side:
    import torch

    return _trained(lambda dropout: _step_of_torch(sizes, dropout, torch.compile))


def _step_of_torch(sizes: Sizes, dropout: bool, compiled: Any) -> Step:
    import torch

    images, labels = map(torch.from_numpy, _data(sizes))
    net, criterion = _torch_net(sizes, dropout), torch.nn.CrossEntropyLoss(reduction="none")
    optimizer, run = torch.optim.Adam(net.parameters(), RATE), compiled(net)

    def step() -> Any:
        optimizer.zero_grad()
        losses = criterion(run(images), labels)
        losses.mean().backward()
        optimizer.step()
        return losses

    return step


# --- MXNet ---
@STEP.side("mxnet")
def _mxnet(sizes: Sizes) -> Side:
    import mxnet
    from mxnet import gluon

    images, labels = map(mxnet.nd.array, _data(sizes))
    make: dict[str, Callable[[Any], Any]] = {
        "conv": lambda value: gluon.nn.Conv2D(value, 3, padding=1),
        "norm": lambda value: gluon.nn.BatchNorm(),
        "relu": lambda value: gluon.nn.Activation("relu"),
        "pool": lambda value: gluon.nn.MaxPool2D(value),
        "dropout": lambda value: gluon.nn.Dropout(value),
        "flatten": lambda value: gluon.nn.Flatten(),
        "dense": lambda value: gluon.nn.Dense(value),
    }

    def make_step(dropout: bool) -> Step:
        net, criterion = gluon.nn.HybridSequential(), gluon.loss.SoftmaxCrossEntropyLoss()
        net.add(*[make[kind](value) for kind, value in LAYERS if dropout or kind != "dropout"])
        net.initialize()
        net(images)
        named = net.collect_params().items()
        for parameter, value in zip((p for name, p in named if name.endswith("weight")), weights(sizes)):
            parameter.set_data(mxnet.nd.array(value))
        net.hybridize(static_alloc=True, static_shape=True)
        criterion.hybridize(static_alloc=True, static_shape=True)
        trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": RATE})

        def step() -> Any:
            with mxnet.autograd.record():
                losses = criterion(net(images), labels)
            losses.backward()
            trainer.step(sizes["batch"])
            return losses.copy()

        return step

    return _trained(make_step, mxnet.nd.waitall)


# --- JAX ---
def _jax_losses(weights: Any, images: Any, labels: Any, key: Any, dropout: bool) -> Any:
    import jax
    from jax import lax
    from jax import numpy as jnp

    x, held = images, iter(weights)
    for kind, value in LAYERS:
        if kind == "conv":
            x = lax.conv_general_dilated(x, next(held), (1, 1), ((1, 1), (1, 1))) + next(held)[:, None, None]
        elif kind == "norm":
            mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            x = (x - mean) * lax.rsqrt(variance + 1e-5) * next(held)[:, None, None] + next(held)[:, None, None]
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "pool":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "dense":
            x = x @ next(held).T + next(held)
        elif dropout:
            key, own = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(own, 1 - value, x.shape), x / (1 - value), 0)
    return -jax.nn.log_softmax(x)[jnp.arange(len(labels)), labels]


def _jax_weights(sizes: Sizes) -> list[Any]:
    """Weight and bias, or gamma and beta, of each layer that has some."""
    from jax import numpy as jnp

    values, found, width = iter(weights(sizes)), [], 1
    for kind, value in LAYERS:
        if kind in ("conv", "dense"):
            width = int(value)
            found += [jnp.asarray(next(values)), jnp.zeros(width)]
        elif kind == "norm":
            found += [jnp.ones(width), jnp.zeros(width)]
    return found


@STEP.side("jax")
def _jax(sizes: Sizes) -> Side:
    """Without running statistics, which nothing in a training step reads."""
    import jax
    from jax import numpy as jnp

    images, labels = map(jnp.asarray, _data(sizes))
    last: list[Any] = []

    def make_step(dropout: bool) -> Step:
        def loss_of(weights: Any, key: Any) -> Any:
            losses = _jax_losses(weights, images, labels, key, dropout)
            return losses.mean(), losses

        def update(weights: Any, means: Any, variances: Any, key: Any, count: Any) -> Any:
            key, own = jax.random.split(key)
            gradients, losses = jax.grad(loss_of, has_aux=True)(weights, own)
            means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients)]
            variances = [0.999 * v + 0.001 * g * g for v, g in zip(variances, gradients)]
            rate = RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            weights = [w - rate * m / (jnp.sqrt(v) + 1e-8) for w, m, v in zip(weights, means, variances)]
            return losses, (weights, means, variances, key, count + 1)

        start, compiled = _jax_weights(sizes), jax.jit(update)
        zeros = [jnp.zeros_like(w) for w in start]
        held = [(start, zeros, list(zeros), jax.random.key(0), 1.0)]

        def step() -> Any:
            losses, held[0] = compiled(*held[0])
            last[:] = [held[0]]
            return losses

        return step

    return _trained(make_step, lambda: jax.block_until_ready(last))
