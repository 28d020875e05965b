"""LSTM layers over whole sequences, forward and backward: outputs from inputs, then the gradients of everything.

A row of a single sequence is forward only.

Weights change in training, so nothing that a library prepares of them may stay from one repetition to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.row import BUSY, Bar, Row, Side, Sizes, numbers
from benchmarks.rows.contractions import peak

PARTS = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
TORCH_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _flops(s: Sizes) -> float:
    """Input and recurrent products; the gradients of both operands cost as much again each."""
    return 3.0 * 2 * s["steps"] * s["rows"] * s["layers"] * 4 * s["units"] * 2 * s["units"]


ROWS = [
    Row(
        "lstm-2x200",
        "LSTM 2 x 200, 35 steps of batch 20, forward and backward",
        {"layers": 2, "units": 200, "steps": 35, "rows": 20},
        {"units": 7, "steps": 4, "rows": 3},
        (Bar("torch", 0.4), Bar("peak", 0.75, "rate"), BUSY),
        _flops,
        group="kernels",
    ),
    Row(
        "lstm-1x512",
        "LSTM 1 x 512, 128 steps of batch 32, forward and backward",
        {"layers": 1, "units": 512, "steps": 128, "rows": 32},
        {"units": 18, "steps": 3, "rows": 7},
        (Bar("torch", 0.4), Bar("peak", 0.75, "rate"), BUSY),
        _flops,
        least_rounds=5,
        group="kernels",
    ),
    Row(
        "lstm-one",
        "LSTM 1 x 512, 128 steps of batch 1, forward: each step reads the whole weight",
        {"layers": 1, "units": 512, "steps": 128, "rows": 1, "forward": True},
        {"units": 18, "steps": 3},
        (Bar("torch", 0.8), BUSY),
        lambda sizes: _flops(sizes) / 3,
        group="kernels",
    ),
]


def _arrays(sizes: Sizes) -> tuple[np.ndarray, np.ndarray, list[list[np.ndarray]]]:
    """Inputs, head gradient, and for each layer its weights and biases."""
    units, shape = sizes["units"], (sizes["steps"], sizes["rows"], sizes["units"])
    wide, scale = 4 * units, units**-0.5
    shapes = ((wide, units), (wide, units), (wide,), (wide,))
    layers = range(sizes["layers"])
    weights = [[numbers(40 + 4 * layer + i, *s, scale=scale) for i, s in enumerate(shapes)] for layer in layers]
    return numbers(38, *shape), numbers(39, *shape), weights


def _gluonish(sizes: Sizes) -> Side:
    from gluonish import autograd, nd, rnn

    x, head, weights = _arrays(sizes)
    net = rnn.LSTM(sizes["units"], sizes["layers"], input_size=sizes["units"])
    net.initialize()
    for layer, values in enumerate(weights):
        for part, value in zip(PARTS, values):
            getattr(net, f"l{layer}_{part}").set_data(value)
    net.hybridize()
    inputs, given = nd.array(x), nd.array(head)
    if sizes.get("forward"):
        return Side(lambda: net(inputs))
    inputs.attach_grad()
    parameters = [getattr(net, f"l{layer}_{part}") for layer in range(len(weights)) for part in PARTS]

    def step() -> Any:
        with autograd.record():
            out = net(inputs)
        out.backward(given)
        return [out, inputs.grad, *[p.grad for p in parameters]]

    return Side(step)


def _torch(sizes: Sizes) -> Side:
    import torch

    x, head, weights = _arrays(sizes)
    net = torch.nn.LSTM(sizes["units"], sizes["units"], sizes["layers"])
    names = [f"{part}_l{layer}" for layer in range(len(weights)) for part in TORCH_PARTS]
    with torch.no_grad():
        for name, value in zip(names, [w for values in weights for w in values]):
            getattr(net, name).copy_(torch.from_numpy(value))
    if sizes.get("forward"):
        return Side(lambda: net(torch.from_numpy(x))[0], scope=torch.inference_mode)
    inputs, given = torch.from_numpy(x).requires_grad_(), torch.from_numpy(head)

    def step() -> Any:
        net.zero_grad()
        inputs.grad = None
        out = net(inputs)[0]
        out.backward(given)
        return [out, inputs.grad, *[getattr(net, name).grad for name in names]]

    return Side(step)


def _mxnet(sizes: Sizes) -> Side:
    import mxnet

    x, head, weights = _arrays(sizes)
    net = mxnet.gluon.rnn.LSTM(sizes["units"], sizes["layers"], input_size=sizes["units"])
    net.initialize()
    parameters = [getattr(net, f"l{layer}_{part}") for layer in range(len(weights)) for part in PARTS]
    for parameter, value in zip(parameters, [w for values in weights for w in values]):
        parameter.set_data(mxnet.nd.array(value))
    net.hybridize(static_alloc=True, static_shape=True)
    inputs, given = mxnet.nd.array(x), mxnet.nd.array(head)
    if sizes.get("forward"):

        def forward() -> Any:
            out = net(inputs)
            out.wait_to_read()
            return out

        return Side(forward)
    inputs.attach_grad()

    def step() -> Any:
        with mxnet.autograd.record():
            out = net(inputs)
        out.backward(given)
        grads = [inputs.grad, *[p.grad() for p in parameters]]
        mxnet.nd.waitall()
        return [out, *grads]

    return Side(step)


for _row in ROWS:
    _row.side("peak", peer="gluonish")(peak)
    _row.side("gluonish")(_gluonish)
    _row.side("torch")(_torch)
    _row.side("mxnet")(_mxnet)
