"""A small multilayer perceptron, where the cost is not the arithmetic but everything around it.

Forward (prediction): every call waits for its result. Training step (record, loss, backward, update; SGD): libraries
that queue their work wait once at the end of a sample, as a training loop would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.onnx_session import session
from benchmarks.row import Bar, Row, Side, Sizes, classes, numbers

SIZES = {"batch": 32, "inputs": 64, "hidden": 128, "outputs": 10}
TINY = {"batch": 5, "inputs": 7, "hidden": 6, "outputs": 3}
RATE = 0.01
STEPS = 3  # after which the weights of all sides are compared

FORWARD = Row(
    "mlp-forward", "MLP 64-128-10, batch 32, forward", SIZES, TINY, (Bar("torch", 0.25), Bar("gluonish", 3.0, "busy"))
)
STEP = Row("mlp-step", "MLP 64-128-10, batch 32, training step with SGD", SIZES, TINY, (Bar("torch", 0.3),))
WHOLE = Row(
    "mlp-whole-step", "the same, compiled as one program where a library can", SIZES, TINY, (Bar("torch", 0.15),),
    group="models",
)  # fmt: skip


def _data(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    return numbers(4, sizes["batch"], sizes["inputs"]), classes(5, sizes["batch"], sizes["outputs"])


def _weights(sizes: Sizes) -> list[np.ndarray]:
    """Weight and bias of the first layer, then of the second; weights are (outputs, inputs)."""
    shapes = [(sizes["hidden"], sizes["inputs"]), (sizes["outputs"], sizes["hidden"])]
    return [a for i, s in enumerate(shapes) for a in (numbers(6 + i, *s, scale=0.2), numbers(8 + i, s[0], scale=0.1))]


def _trained(
    make_step: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]],
    wait: Callable[[Any], Any] = lambda weights: None,
) -> Side:
    """make_step gives a step of a new model, and its weights; `wait` waits until these are there."""

    def results() -> Any:
        step, weights = make_step()
        for _ in range(STEPS):
            step()
        return weights()

    timed, held = make_step()
    return Side(timed, results, finish=lambda: wait(held()))


# --- gluonish ---
def _gluonish_net(sizes: Sizes) -> Any:
    from gluonish import nn

    net = nn.HybridSequential()
    net.add(nn.Dense(sizes["hidden"], "relu", in_units=sizes["inputs"]))
    net.add(nn.Dense(sizes["outputs"], in_units=sizes["hidden"]))
    net.initialize()
    for parameter, value in zip(net.collect_params().values(), _weights(sizes)):
        parameter.set_data(value)
    net.hybridize()
    return net


@FORWARD.side("gluonish")
def _gluonish_forward(sizes: Sizes) -> Side:
    from gluonish import nd

    net, x = _gluonish_net(sizes), nd.array(_data(sizes)[0])
    return Side(lambda: net(x))


@STEP.side("gluonish")
def _gluonish_step(sizes: Sizes) -> Side:
    return _step_of_gluonish(sizes, whole=False)


@WHOLE.side("gluonish")
def _gluonish_whole_step(sizes: Sizes) -> Side:
    return _step_of_gluonish(sizes, whole=True)


def _step_of_gluonish(sizes: Sizes, whole: bool) -> Side:
    import gluonish as gl

    (x, labels), batch = map(gl.nd.array, _data(sizes)), sizes["batch"]

    def make_step() -> Any:
        net, criterion = _gluonish_net(sizes), gl.loss.SoftmaxCrossEntropyLoss()
        criterion.hybridize()
        trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": RATE})

        def step() -> None:
            with gl.autograd.record():
                losses = criterion(net(x), labels)
            losses.backward()
            trainer.step(batch)

        return gl.hybridize(step) if whole else step, lambda: list(net.collect_params().values())

    return _trained(make_step)


# --- torch ---
def _torch_net(sizes: Sizes) -> Any:
    import torch

    first, second = (torch.nn.Linear(sizes[a], sizes[b]) for a, b in (("inputs", "hidden"), ("hidden", "outputs")))
    net = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), _weights(sizes)):
            parameter.copy_(torch.from_numpy(value))
    return net


@FORWARD.side("torch")
def _torch_forward(sizes: Sizes) -> Side:
    import torch

    net, x = _torch_net(sizes).eval(), torch.from_numpy(_data(sizes)[0])
    return Side(lambda: net(x), scope=torch.inference_mode)


@FORWARD.side("torch.compile", peer="torch", on_request=True)
def _torch_compile_forward(sizes: Sizes) -> Side:
    import torch

    net, x = torch.compile(_torch_net(sizes).eval()), torch.from_numpy(_data(sizes)[0])
    return Side(lambda: net(x), scope=torch.no_grad)


@WHOLE.side("torch")
@STEP.side("torch")
def _torch_step(sizes: Sizes) -> Side:
    return _trained(lambda: _step_of_torch(sizes, lambda net: net))


@STEP.side("torch.compile", peer="torch", on_request=True)
def _torch_compile_step(sizes: Sizes) -> Side:
    import torch

    return _trained(lambda: _step_of_torch(sizes, torch.compile))


def _step_of_torch(sizes: Sizes, compiled: Any) -> Any:
    import torch

    x, labels = map(torch.from_numpy, _data(sizes))
    net, criterion = _torch_net(sizes), torch.nn.CrossEntropyLoss()
    optimizer, run = torch.optim.SGD(net.parameters(), RATE), compiled(net)

    def step() -> None:
        optimizer.zero_grad()
        criterion(run(x), labels).backward()
        optimizer.step()

    return step, lambda: list(net.parameters())


# --- MXNet ---
def _mxnet_net(sizes: Sizes) -> Any:
    import mxnet

    net = mxnet.gluon.nn.HybridSequential()
    net.add(mxnet.gluon.nn.Dense(sizes["hidden"], "relu", in_units=sizes["inputs"]))
    net.add(mxnet.gluon.nn.Dense(sizes["outputs"], in_units=sizes["hidden"]))
    net.initialize()
    for parameter, value in zip(net.collect_params().values(), _weights(sizes)):
        parameter.set_data(mxnet.nd.array(value))
    net.hybridize(static_alloc=True, static_shape=True)
    return net


@FORWARD.side("mxnet")
def _mxnet_forward(sizes: Sizes) -> Side:
    import mxnet

    net, x = _mxnet_net(sizes), mxnet.nd.array(_data(sizes)[0])

    def forward() -> Any:
        out = net(x)
        out.wait_to_read()
        return out

    return Side(forward)


@STEP.side("mxnet")
def _mxnet_step(sizes: Sizes) -> Side:
    import mxnet

    x, labels = map(mxnet.nd.array, _data(sizes))

    def make_step() -> Any:
        net, criterion = _mxnet_net(sizes), mxnet.gluon.loss.SoftmaxCrossEntropyLoss()
        criterion.hybridize(static_alloc=True, static_shape=True)
        trainer = mxnet.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": RATE})

        def step() -> None:
            with mxnet.autograd.record():
                losses = criterion(net(x), labels)
            losses.backward()
            trainer.step(sizes["batch"])

        return step, lambda: [parameter.data() for parameter in net.collect_params().values()]

    return _trained(make_step, lambda weights: mxnet.nd.waitall())


# --- JAX ---
def _jax_forward_of(weights: Any, x: Any) -> Any:
    import jax

    hidden = jax.nn.relu(x @ weights[0].T + weights[1])
    return hidden @ weights[2].T + weights[3]


@FORWARD.side("jax")
def _jax_forward(sizes: Sizes) -> Side:
    import jax

    x, weights = jax.numpy.asarray(_data(sizes)[0]), [jax.numpy.asarray(w) for w in _weights(sizes)]
    forward = jax.jit(_jax_forward_of)
    return Side(lambda: forward(weights, x).block_until_ready())


@WHOLE.side("jax")
@STEP.side("jax")
def _jax_step(sizes: Sizes) -> Side:
    import jax
    from jax import numpy as jnp

    x, labels = map(jnp.asarray, _data(sizes))

    def loss_of(weights: Any) -> Any:
        scores = jax.nn.log_softmax(_jax_forward_of(weights, x))
        return -scores[jnp.arange(len(labels)), labels].mean()

    update = jax.jit(lambda weights: [w - RATE * g for w, g in zip(weights, jax.grad(loss_of)(weights))])

    def make_step() -> Any:
        held = [jnp.asarray(w) for w in _weights(sizes)]

        def step() -> Any:
            held[:] = update(held)

        return step, lambda: list(held)

    return _trained(make_step, jax.block_until_ready)


# --- onnxruntime, NumPy ---
@FORWARD.side("onnxruntime")
def _onnxruntime_forward(sizes: Sizes) -> Side:
    x, weights = _data(sizes)[0], dict(zip(("w1", "b1", "w2", "b2"), _weights(sizes)))
    operators = [
        ("Gemm", ["x", "w1", "b1"], "h", {"transB": 1}),
        ("Relu", ["h"], "r", {}),
        ("Gemm", ["r", "w2", "b2"], "y", {"transB": 1}),
    ]
    run = session(operators, {"x": x.shape}, weights, "y")
    return Side(lambda: run({"x": x}))


@FORWARD.side("numpy")
def _numpy_forward(sizes: Sizes) -> Side:
    x, (w1, b1, w2, b2) = _data(sizes)[0], _weights(sizes)
    return Side(lambda: np.maximum(x @ w1.T + b1, 0) @ w2.T + b2)


@STEP.side("numpy")
def _numpy_step(sizes: Sizes) -> Side:
    x, labels = _data(sizes)
    rows = np.arange(len(labels))

    def make_step() -> Any:
        w1, b1, w2, b2 = weights = _weights(sizes)

        def step() -> None:
            hidden = np.maximum(x @ w1.T + b1, 0)
            scores = hidden @ w2.T + b2
            g = np.exp(scores - scores.max(1, keepdims=True))
            g /= g.sum(1, keepdims=True)
            g[rows, labels] -= 1
            g /= np.float32(len(labels))
            back = (g @ w2) * (hidden > 0)
            for value, gradient in zip(weights, (back.T @ x, back.sum(0), g.T @ hidden, g.sum(0))):
                value -= np.float32(RATE) * gradient

        return step, lambda: weights

    return _trained(make_step)
