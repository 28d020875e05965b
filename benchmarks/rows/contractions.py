"""Convolution and matrix product: how near they come to the most that the machine can do.

The side "peak" is a loop of multiply-adds on registers (`benchmarks/peak.py`) on the same threads in the same rounds;
the bar is a part of its rate. A convolution counts all taps, those on the padding too. Weights are fixed: libraries may
prepare them once, where their interface lets them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.onnx_session import session
from benchmarks.row import Bar, Row, Side, Sizes, numbers

CONV = Row(
    "conv",
    "3x3 convolution 128 -> 128 of 28x28, batch 1, bias and ReLU, predict",
    {"channels": 128, "size": 28},
    {"channels": 5, "size": 6},
    (Bar("peak", 0.8, "rate"), Bar("gluonish", 3.0, "busy")),
    lambda s: 2.0 * 9 * s["channels"] ** 2 * s["size"] ** 2,
)
MATMUL = Row(
    "matmul",
    "matrix product 1024 x 1024 x 1024, right operand a captured weight",
    {"n": 1024},
    {"n": 19},
    (Bar("peak", 0.8, "rate"),),
    lambda s: 2.0 * s["n"] ** 3,
)
_PEAK_TURNS = 4000


@CONV.side("peak", peer="gluonish")
@MATMUL.side("peak", peer="gluonish")
def peak(sizes: Sizes) -> Side:
    """The register loop, for every row that is bound by arithmetic."""
    from benchmarks.peak import peak_loop

    loop, flops, _ = peak_loop(_PEAK_TURNS)
    return Side(loop, list, flops=flops)


# --- convolution ---
def _conv_inputs(sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    channels, size = sizes["channels"], sizes["size"]
    return numbers(10, 1, channels, size, size), numbers(11, channels, channels, 3, 3, scale=0.1), numbers(12, channels)


@CONV.side("gluonish")
def _gluonish_conv(sizes: Sizes) -> Side:
    from gluonish import nd, nn

    x, weight, bias = _conv_inputs(sizes)
    net = nn.Conv2D(sizes["channels"], 3, padding=1, activation="relu", in_channels=sizes["channels"])
    net.initialize()
    net.weight.set_data(weight)
    net.bias.set_data(bias)
    net.hybridize()
    image = nd.array(x)
    return Side(lambda: net(image))


@CONV.side("torch")
def _torch_conv(sizes: Sizes) -> Side:
    return _conv_of_torch(sizes, "contiguous_format", lambda net: net)


@CONV.side("torch, NHWC", peer="torch")
def _torch_conv_nhwc(sizes: Sizes) -> Side:
    return _conv_of_torch(sizes, "channels_last", lambda net: net)


@CONV.side("torch.compile", peer="torch", on_request=True)
def _torch_compile_conv(sizes: Sizes) -> Side:
    import torch

    return _conv_of_torch(sizes, "channels_last", torch.compile)


def _conv_of_torch(sizes: Sizes, layout: str, compiled: Any) -> Side:
    import torch

    x, weight, bias = map(torch.from_numpy, _conv_inputs(sizes))
    conv = torch.nn.Conv2d(sizes["channels"], sizes["channels"], 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    memory = {"memory_format": getattr(torch, layout)}
    net, image = compiled(torch.nn.Sequential(conv, torch.nn.ReLU()).eval().to(**memory)), x.to(**memory)
    return Side(lambda: net(image), scope=torch.no_grad)


@CONV.side("mxnet")
def _mxnet_conv(sizes: Sizes) -> Side:
    import mxnet

    x, weight, bias = map(mxnet.nd.array, _conv_inputs(sizes))
    net = mxnet.gluon.nn.Conv2D(sizes["channels"], 3, padding=1, activation="relu", in_channels=sizes["channels"])
    net.initialize()
    net.weight.set_data(weight)
    net.bias.set_data(bias)
    net.hybridize(static_alloc=True, static_shape=True)

    def forward() -> Any:
        out = net(x)
        out.wait_to_read()
        return out

    return Side(forward)


@CONV.side("onnxruntime")
def _onnxruntime_conv(sizes: Sizes) -> Side:
    x, weight, bias = _conv_inputs(sizes)
    operators = [("Conv", ["x", "w", "b"], "c", {"pads": [1, 1, 1, 1]}), ("Relu", ["c"], "y", {})]
    run = session(operators, {"x": x.shape}, {"w": weight, "b": bias}, "y")
    return Side(lambda: run({"x": x}))


@CONV.side("jax")
def _jax_conv(sizes: Sizes) -> Side:
    import jax

    x, weight, bias = map(jax.numpy.asarray, _conv_inputs(sizes))
    conv = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding=((1, 1), (1, 1)))
    forward = jax.jit(lambda x: jax.nn.relu(conv(x, weight) + bias[:, None, None]))
    return Side(lambda: forward(x).block_until_ready())


@CONV.side("numpy")
def _numpy_conv(sizes: Sizes) -> Side:
    x, weight, bias = _conv_inputs(sizes)

    def forward() -> np.ndarray:
        padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # C, H, W, 3, 3
        return np.maximum(np.tensordot(weight, windows, ((1, 2, 3), (0, 3, 4))) + bias[:, None, None], 0)[None]

    return Side(forward)


# --- matrix product ---
def _matrices(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    n = sizes["n"]
    return numbers(13, n, n), numbers(14, n, n)


@MATMUL.side("gluonish")
def _gluonish_matmul(sizes: Sizes) -> Side:
    import gluonish as gl

    x, weight = map(gl.nd.array, _matrices(sizes))
    product = gl.hybridize(lambda x: gl.nd.matmul(x, weight))
    return Side(lambda: product(x))


@MATMUL.side("gluonish eager", peer="gluonish")
def _gluonish_eager_matmul(sizes: Sizes) -> Side:
    from gluonish import nd

    x, weight = map(nd.array, _matrices(sizes))
    return Side(lambda: nd.matmul(x, weight))


@MATMUL.side("torch")
def _torch_matmul(sizes: Sizes) -> Side:
    import torch

    x, weight = map(torch.from_numpy, _matrices(sizes))
    return Side(lambda: x @ weight, scope=torch.inference_mode)


@MATMUL.side("mxnet")
def _mxnet_matmul(sizes: Sizes) -> Side:
    import mxnet

    x, weight = map(mxnet.nd.array, _matrices(sizes))

    def product() -> Any:
        out = mxnet.nd.dot(x, weight)
        out.wait_to_read()
        return out

    return Side(product)


@MATMUL.side("onnxruntime")
def _onnxruntime_matmul(sizes: Sizes) -> Side:
    x, weight = _matrices(sizes)
    run = session([("MatMul", ["x", "w"], "y", {})], {"x": x.shape}, {"w": weight}, "y")
    return Side(lambda: run({"x": x}))


@MATMUL.side("jax")
def _jax_matmul(sizes: Sizes) -> Side:
    import jax

    x, weight = map(jax.numpy.asarray, _matrices(sizes))
    product = jax.jit(lambda x: x @ weight)
    return Side(lambda: product(x).block_until_ready())


@MATMUL.side("numpy")
def _numpy_matmul(sizes: Sizes) -> Side:
    x, weight = _matrices(sizes)
    return Side(lambda: x @ weight)
