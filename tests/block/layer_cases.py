"""Every layer with an input and what it should give, computed by NumPy in float64: the table of test_layers.py.

A case's `expected(x, p)` gets the input and the layer's parameters by name; `training` says in which mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gluonish.block import nn

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One layer on one input."""

    name: str
    make: Callable[[], Any]
    shape: tuple[int, ...]
    expected: Callable[[np.ndarray, Arrays], np.ndarray]
    training: bool = False


def dense(x: np.ndarray, p: Arrays) -> np.ndarray:
    return x.reshape(len(x), -1) @ p["weight"].T + p.get("bias", 0)


def conv(
    x: np.ndarray, p: Arrays, stride: Any = (1, 1), pad: Any = (0, 0), dilation: Any = (1, 1), groups: int = 1
) -> np.ndarray:
    w = p["weight"]
    x = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    out_channels, per_group, kh, kw = w.shape
    oh = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((len(x), out_channels, oh, ow))
    for o in range(out_channels):
        first = o // (out_channels // groups) * per_group
        for i in range(oh):
            for j in range(ow):
                top, left = i * stride[0], j * stride[1]
                rows = slice(top, top + dilation[0] * (kh - 1) + 1, dilation[0])
                columns = slice(left, left + dilation[1] * (kw - 1) + 1, dilation[1])
                window = x[:, first : first + per_group, rows, columns]
                out[:, o, i, j] = (window * w[o]).sum((1, 2, 3))
    return out + p["bias"][:, None, None] if "bias" in p else out


def pool(x: np.ndarray, size: int, stride: int, pad: int, mean: bool, count_pad: bool = True) -> np.ndarray:
    fill = 0.0 if mean else -np.inf
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    ones = np.pad(np.ones_like(x), ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=float(count_pad))
    oh, ow = (wide.shape[2] - size) // stride + 1, (wide.shape[3] - size) // stride + 1
    out = np.zeros((*x.shape[:2], oh, ow))
    for i in range(oh):
        for j in range(ow):
            at = (..., slice(i * stride, i * stride + size), slice(j * stride, j * stride + size))
            out[:, :, i, j] = wide[at].sum((2, 3)) / ones[at].sum((2, 3)) if mean else wide[at].max((2, 3))
    return out


def wide(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def batch_norm(x: np.ndarray, p: Arrays, training: bool, axis: int = 1, epsilon: float = 1e-5) -> np.ndarray:
    others = tuple(i for i in range(x.ndim) if i != axis)
    mean = x.mean(others) if training else p["running_mean"]
    var = x.var(others) if training else p["running_var"]
    mean, var, gamma, beta = (wide(v, axis, x.ndim) for v in (mean, var, p["gamma"], p["beta"]))
    return (x - mean) / np.sqrt(var + epsilon) * gamma + beta


def layer_norm(x: np.ndarray, p: Arrays) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["gamma"] + p["beta"]


def rms_norm(x: np.ndarray, p: Arrays) -> np.ndarray:
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * p["gamma"][:, None]


def attention(x: np.ndarray, p: Arrays, heads: int, causal: bool = False) -> np.ndarray:
    q, k, v = (x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0) for name in ("query", "key", "value"))
    out = np.zeros_like(q)
    depth = q.shape[2] // heads
    for h in range(heads):
        own = slice(h * depth, (h + 1) * depth)
        scores = q[..., own] @ k[..., own].swapaxes(1, 2) / np.sqrt(depth)
        powers = np.exp(scores) * (np.tri(x.shape[1]) if causal else 1)
        out[..., own] = powers / powers.sum(-1, keepdims=True) @ v[..., own]
    return out @ p["output.weight"].T + p.get("output.bias", 0)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softrelu": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / np.sqrt(2))),
    "silu": lambda x: x * sigmoid(x),
    "log_sigmoid": lambda x: np.log(sigmoid(x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
}

IMAGE = (2, 4, 7, 6)

CASES = [
    Case("dense", lambda: nn.Dense(3), (4, 5), dense),
    Case("dense tanh", lambda: nn.Dense(3, activation="tanh"), (4, 5), lambda x, p: np.tanh(dense(x, p))),
    Case("dense flatten", lambda: nn.Dense(3, use_bias=False), (4, 2, 5), dense),
    Case("dense last", lambda: nn.Dense(3, flatten=False), (4, 2, 5), lambda x, p: x @ p["weight"].T + p["bias"]),
    Case("conv", lambda: nn.Conv2D(5, 3), IMAGE, conv),
    Case(
        "conv strided relu",
        lambda: nn.Conv2D(5, (3, 2), strides=(2, 1), padding=(1, 1), activation="relu"),
        IMAGE,
        lambda x, p: np.maximum(conv(x, p, (2, 1), (1, 1)), 0),
    ),
    Case(
        "conv grouped dilated",
        lambda: nn.Conv2D(6, 3, groups=2, dilation=2, padding=2, use_bias=False),
        IMAGE,
        lambda x, p: conv(x, p, pad=(2, 2), dilation=(2, 2), groups=2),
    ),
    Case("max pool", lambda: nn.MaxPool2D(), IMAGE, lambda x, p: pool(x, 2, 2, 0, False)),
    Case("max pool overlapping", lambda: nn.MaxPool2D(3, 2, 1), IMAGE, lambda x, p: pool(x, 3, 2, 1, False)),
    Case("average pool", lambda: nn.AvgPool2D(3, 2, 1), IMAGE, lambda x, p: pool(x, 3, 2, 1, True)),
    Case(
        "average pool inside",
        lambda: nn.AvgPool2D(3, 2, 1, count_include_pad=False),
        IMAGE,
        lambda x, p: pool(x, 3, 2, 1, True, False),
    ),
    Case("global average", lambda: nn.GlobalAvgPool2D(), IMAGE, lambda x, p: x.mean((2, 3), keepdims=True)),
    Case("global max", lambda: nn.GlobalMaxPool2D(), IMAGE, lambda x, p: x.max((2, 3), keepdims=True)),
    Case("flatten", lambda: nn.Flatten(), IMAGE, lambda x, p: x.reshape(len(x), -1)),
    Case("leaky", lambda: nn.LeakyReLU(0.1), (4, 5), lambda x, p: np.where(x > 0, x, 0.1 * x)),
    Case("gelu", lambda: nn.GELU(), (4, 5), lambda x, p: ACTIVATIONS["gelu"](x)),
    Case(
        "gelu tanh",
        lambda: nn.GELU("tanh"),
        (4, 5),
        lambda x, p: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    Case("batch norm predict", lambda: nn.BatchNorm(), IMAGE, lambda x, p: batch_norm(x, p, False)),
    Case("batch norm train", lambda: nn.BatchNorm(), IMAGE, lambda x, p: batch_norm(x, p, True), True),
    Case("batch norm last", lambda: nn.BatchNorm(axis=-1), (5, 3), lambda x, p: batch_norm(x, p, True, 1), True),
    Case(
        "batch norm plain",
        lambda: nn.BatchNorm(scale=False, center=False),
        IMAGE,
        lambda x, p: batch_norm(x, {**p, "gamma": np.ones(4), "beta": np.zeros(4)}, True),
        True,
    ),
    Case(
        "batch norm global",
        lambda: nn.BatchNorm(use_global_stats=True),
        IMAGE,
        lambda x, p: batch_norm(x, p, False),
        True,
    ),
    Case("layer norm", lambda: nn.LayerNorm(), (3, 4, 5), layer_norm),
    Case("rms norm", lambda: nn.RMSNorm(axis=1), (3, 4, 5), rms_norm),
    Case("attention", lambda: nn.MultiHeadAttention(6, 2), (3, 4, 5), lambda x, p: attention(x, p, 2)),
    Case(
        "attention causal",
        lambda: nn.MultiHeadAttention(6, 3, use_bias=False, causal=True, dropout=0.5),
        (3, 4, 5),
        lambda x, p: attention(x, p, 3, True),
    ),
    Case("upsampling", lambda: nn.UpSampling(2), (2, 3, 2, 4), lambda x, p: x.repeat(2, 2).repeat(2, 3)),
    Case(
        "reflection",
        lambda: nn.ReflectionPad2D(2),
        (2, 3, 4, 3),
        lambda x, p: np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect"),
    ),
    Case("identity", lambda: nn.Identity(), (2, 3), lambda x, p: x),
    Case("dropout predict", lambda: nn.Dropout(0.5), (2, 3), lambda x, p: x),
    Case(
        "row",
        lambda: nn.HybridSequential(nn.Dense(6, activation="relu"), nn.BatchNorm(), nn.Dense(2)),
        (5, 3),
        lambda x, p: (
            batch_norm(
                np.maximum(x @ p["0.weight"].T + p["0.bias"], 0), {k[2:]: v for k, v in p.items() if k[0] == "1"}, True
            )
            @ p["2.weight"].T
            + p["2.bias"]
        ),
        True,
    ),
    *[
        Case(name, lambda name=name: nn.Activation(name), (3, 5), lambda x, p, f=f: f(x))  # type: ignore[misc]
        for name, f in ACTIVATIONS.items()
    ],
]
