"""Cases of test_layers.py for layers over signals and volumes, transposed convolutions and norms within a sample.

What they should give is written as sums over the elements of windows in any number of dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from block.layer_cases import Arrays, Case, wide

from gluonish.block import nn

SIGNAL, IMAGE, VOLUME = (2, 4, 9), (2, 4, 5, 6), (2, 4, 5, 4, 6)


def every(value: Any, count: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * count


def conv(x: np.ndarray, p: Arrays, stride: Any = 1, pad: Any = 0, dilation: Any = 1, groups: int = 1) -> np.ndarray:
    w, moves = p["weight"], x.ndim - 2
    stride, pad, dilation = (every(v, moves) for v in (stride, pad, dilation))
    x = np.pad(x, ((0, 0), (0, 0), *zip(pad, pad)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:])]
    sizes = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride)]
    out = np.zeros((len(x), len(w), *sizes))
    for o in range(len(w)):
        first = o // (len(w) // groups) * w.shape[1]
        for place in np.ndindex(*sizes):
            window = tuple(slice(i * s, i * s + r, d) for i, s, r, d in zip(place, stride, reach, dilation))
            part = x[(slice(None), slice(first, first + w.shape[1]), *window)]
            out[(slice(None), o, *place)] = (part * w[o]).reshape(len(x), -1).sum(1)
    return out + (wide(p["bias"], 1, x.ndim) if "bias" in p else 0)


def transposed(
    x: np.ndarray, p: Arrays, stride: Any = 1, pad: Any = 0, more: Any = 0, dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    """Each element adds its multiple of the window."""
    w, moves = p["weight"], x.ndim - 2
    stride, pad, more, dilation = (every(v, moves) for v in (stride, pad, more, dilation))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:])]
    sizes = [(n - 1) * s + r + m for n, s, r, m in zip(x.shape[2:], stride, reach, more)]
    out = np.zeros((len(x), w.shape[1] * groups, *sizes))
    for c, place in itertools.product(range(len(w)), np.ndindex(*x.shape[2:])):
        first = c // (len(w) // groups) * w.shape[1]
        window = tuple(slice(i * s, i * s + r, d) for i, s, r, d in zip(place, stride, reach, dilation))
        value = x[(slice(None), c, *place)].reshape(-1, *[1] * (moves + 1))
        out[(slice(None), slice(first, first + w.shape[1]), *window)] += value * w[c]
    inside = tuple(slice(q, n - q) for q, n in zip(pad, sizes))
    return out[(slice(None), slice(None), *inside)] + (wide(p["bias"], 1, x.ndim) if "bias" in p else 0)


def pool(x: np.ndarray, size: Any, stride: Any, pad: Any, mean: bool, count_pad: bool = True) -> np.ndarray:
    size, stride, pad = (every(v, x.ndim - 2) for v in (size, stride, pad))
    around = ((0, 0), (0, 0), *zip(pad, pad))
    ones = np.pad(np.ones_like(x), around, constant_values=float(count_pad))
    x = np.pad(x, around, constant_values=0.0 if mean else -np.inf)
    sizes = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], size, stride)]
    out = np.zeros((*x.shape[:2], *sizes))
    over = tuple(range(2, x.ndim))
    for place in np.ndindex(*sizes):
        window = (..., *(slice(i * s, i * s + k) for i, s, k in zip(place, stride, size)))
        out[(..., *place)] = x[window].sum(over) / ones[window].sum(over) if mean else x[window].max(over)
    return out


def sample_norm(x: np.ndarray, p: Arrays, groups: int, axis: int = 1, scale: bool = True) -> np.ndarray:
    moved = np.moveaxis(x, axis, 1)
    parts = moved.reshape(len(x), groups, -1)
    parts = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 1e-5)
    out = np.moveaxis(parts.reshape(moved.shape), 1, axis)
    return out * (wide(p["gamma"], axis, x.ndim) if scale else 1) + wide(p["beta"], axis, x.ndim)


def _conv(name: str, make: Callable[[], Any], shape: tuple[int, ...], *window: Any) -> Case:
    return Case(name, make, shape, lambda x, p: conv(x, p, *window))


def _transposed(name: str, make: Callable[[], Any], shape: tuple[int, ...], *window: Any) -> Case:
    return Case(name, make, shape, lambda x, p: transposed(x, p, *window))


def _pool(name: str, make: Callable[[], Any], shape: tuple[int, ...], *window: Any) -> Case:
    return Case(name, make, shape, lambda x, p: pool(x, *window))


WINDOW_CASES = [
    _conv("conv1d", lambda: nn.Conv1D(3, 3), SIGNAL),
    _conv("conv1d all", lambda: nn.Conv1D(6, 3, 2, 2, 2, groups=2, use_bias=False), SIGNAL, 2, 2, 2, 2),
    Case(
        "conv1d relu",
        lambda: nn.Conv1D(3, 2, activation="relu"),
        SIGNAL,
        lambda x, p: np.maximum(conv(x, p), 0),
    ),
    _conv("conv3d", lambda: nn.Conv3D(3, 3, padding=1), VOLUME, 1, 1),
    _conv("conv3d point", lambda: nn.Conv3D(3, 1, use_bias=False), VOLUME),
    _conv(
        "conv3d all",
        lambda: nn.Conv3D(6, (2, 3, 1), (2, 1, 3), (1, 2, 0), (3, 2, 1), groups=2),
        VOLUME,
        (2, 1, 3),
        (1, 2, 0),
        (3, 2, 1),
        2,
    ),
    _transposed("transposed conv1d", lambda: nn.Conv1DTranspose(3, 4, 2, 1), SIGNAL, 2, 1),
    _transposed("transposed conv1d all", lambda: nn.Conv1DTranspose(6, 3, 3, 1, 2, 2, 2), SIGNAL, 3, 1, 2, 2, 2),
    _transposed("transposed conv", lambda: nn.Conv2DTranspose(3, 3), IMAGE),
    _transposed(
        "transposed conv all",
        lambda: nn.Conv2DTranspose(6, (3, 2), (2, 3), (1, 0), (1, 2), (1, 2), 2, use_bias=False),
        IMAGE,
        (2, 3),
        (1, 0),
        (1, 2),
        (1, 2),
        2,
    ),
    _transposed("transposed depthwise", lambda: nn.Conv2DTranspose(4, 3, 2, 1, 1, groups=4), IMAGE, 2, 1, 1, 1, 4),
    _pool("max pool 1d", lambda: nn.MaxPool1D(3, 2, 1), SIGNAL, 3, 2, 1, False),
    _pool("max pool 3d", lambda: nn.MaxPool3D(), VOLUME, 2, 2, 0, False),
    _pool(
        "max pool 3d all",
        lambda: nn.MaxPool3D((3, 2, 3), (2, 1, 3), (1, 0, 1)),
        VOLUME,
        (3, 2, 3),
        (2, 1, 3),
        (1, 0, 1),
        False,
    ),
    _pool("average pool 1d", lambda: nn.AvgPool1D(3, 1, 1), SIGNAL, 3, 1, 1, True),
    _pool("average pool 3d", lambda: nn.AvgPool3D(3, 2, 1), VOLUME, 3, 2, 1, True),
    _pool(
        "average pool 3d inside", lambda: nn.AvgPool3D(3, 2, 1, count_include_pad=False), VOLUME, 3, 2, 1, True, False
    ),
    Case("global average 1d", lambda: nn.GlobalAvgPool1D(), SIGNAL, lambda x, p: x.mean(2, keepdims=True)),
    Case("global average 3d", lambda: nn.GlobalAvgPool3D(), VOLUME, lambda x, p: x.mean((2, 3, 4), keepdims=True)),
    Case("global max 1d", lambda: nn.GlobalMaxPool1D(), SIGNAL, lambda x, p: x.max(2, keepdims=True)),
    Case("global max 3d", lambda: nn.GlobalMaxPool3D(), VOLUME, lambda x, p: x.max((2, 3, 4), keepdims=True)),
    Case("group norm", lambda: nn.GroupNorm(2), IMAGE, lambda x, p: sample_norm(x, p, 2)),
    Case("group norm one", lambda: nn.GroupNorm(), SIGNAL, lambda x, p: sample_norm(x, p, 1), True),
    Case("instance norm", lambda: nn.InstanceNorm(scale=True), IMAGE, lambda x, p: sample_norm(x, p, 4)),
    Case(
        "instance norm last",
        lambda: nn.InstanceNorm(axis=-1),
        IMAGE,
        lambda x, p: sample_norm(x, p, 6, 3, False),
        True,
    ),
    Case(
        "side by side",
        lambda: nn.HybridConcatenate(nn.Conv2D(3, 1, use_bias=False), nn.Identity(), nn.MaxPool2D(3, 1, 1), axis=1),
        IMAGE,
        lambda x, p: np.concatenate([conv(x, {"weight": p["0.weight"]}), x, pool(x, 3, 1, 1, False)], 1),
    ),
    Case(
        "down and up",
        lambda: nn.HybridSequential(nn.Conv1D(4, 3, 2, 1), nn.GroupNorm(2), nn.Conv1DTranspose(2, 3, 2, 1)),
        SIGNAL,
        lambda x, p: transposed(
            sample_norm(
                conv(x, {"weight": p["0.weight"], "bias": p["0.bias"]}, 2, 1),
                {"gamma": p["1.gamma"], "beta": p["1.beta"]},
                2,
            ),
            {"weight": p["2.weight"], "bias": p["2.bias"]},
            2,
            1,
        ),
    ),
]
