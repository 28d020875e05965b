"""What people write with arrays alone (attention, recurrence, losses, norms): hybrid is eager, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd
from gluonish.hybrid import hybridize


def floats(seed: int, *shape: int) -> nd.NDArray:
    return nd.NDArray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def integers(seed: int, below: int, *shape: int) -> nd.NDArray:
    return nd.NDArray(np.random.default_rng(seed).integers(0, below, shape))


def attention(x: Any, query: Any, key: Any, value: Any, out: Any, mask: Any) -> Any:
    n, steps, units = x.shape

    def heads(y: Any) -> Any:
        return nd.permute_dims(y.reshape((n, steps, 4, units // 4)), 0, 2, 1, 3)

    q, k, v = heads(x @ query), heads(x @ key), heads(x @ value)
    scores = nd.matmul(q, k.swapaxes(-1, -2)) / np.sqrt(units // 4)
    scores = nd.where(mask.reshape((n, 1, 1, steps)) > 0, scores, -1e9)
    mixed = nd.permute_dims(nd.matmul(nd.dropout(nd.softmax(scores), 0.1), v), 0, 2, 1, 3)
    y = x + mixed.reshape((n, steps, units)) @ out
    centred = y - y.mean(-1, keepdims=True)
    return centred * nd.rsqrt(centred.square().mean(-1, keepdims=True) + 1e-5) + nd.gelu(y)


def lstm(x: Any, w: Any, u: Any, b: Any) -> Any:
    h = c = nd.zeros((x.shape[0], u.shape[0]))
    out = []
    for t in range(x.shape[1]):
        i, f, g, o = nd.split(x[:, t] @ w + h @ u + b, 4, 1)
        c = nd.sigmoid(f) * c + nd.sigmoid(i) * nd.tanh(g)
        h = nd.sigmoid(o) * nd.tanh(c)
        out.append(h)
    return nd.stack(out, 1), c


def dense_block(x: Any, first: Any, second: Any, depthwise: Any) -> Any:
    x = nd.concat([x, nd.relu(nd.convolution(x, first, pad=1))], 1)
    x = nd.concat([x, nd.relu(nd.convolution(x, second, pad=1))], 1)
    x = nd.average_pool(x, 3, 1, 1, count_include_pad=False)
    y = nd.convolution(x, depthwise, stride=2, groups=x.shape[1])
    return y.mean((2, 3)), nd.max_pool(y, 2, 1)


def group_norm(x: Any, gamma: Any) -> Any:
    groups = x.reshape((x.shape[0], 3, -1))
    normal = (groups - groups.mean(2, keepdims=True)) / nd.sqrt(groups.var(2, keepdims=True) + 1e-5)
    return normal.reshape(x.shape) * gamma.reshape((1, -1, 1, 1)), nd.sigmoid(x).sum((0, 2, 3)).max()


def word_classes(table: Any, out: Any, words: Any, labels: Any) -> Any:
    return -nd.log_softmax(nd.take(table, words, 0).mean(1) @ out).pick(labels)


def contrastive(a: Any, b: Any) -> Any:
    a, b = a / nd.norm(a, 1, True), b / nd.norm(b, 1, True)
    scores = a @ b.swapaxes(0, 1) / 0.1
    own = nd.arange(scores.shape[0])
    return -nd.log_softmax(scores).pick(own) - nd.log_softmax(scores.swapaxes(0, 1)).pick(own)


def distances(x: Any, y: Any) -> Any:
    return nd.sqrt((x.expand_dims(1) - y.expand_dims(0)).square().sum(-1) + 1e-6).min(1)


def huber(prediction: Any, target: Any) -> Any:
    error = nd.abs(prediction - target)
    return nd.where(error < 1, 0.5 * error * error, error - 0.5).mean(1)


def variational(x: Any, encoder: Any, to_mean: Any, to_spread: Any, decoder: Any) -> Any:
    h = nd.tanh(x @ encoder)
    mean, spread = h @ to_mean, h @ to_spread
    sample = mean + nd.random.normal(shape=mean.shape) * nd.exp(0.5 * spread)
    image = nd.sigmoid(sample @ decoder)
    return (image - x).square().sum(1) - 0.5 * (1 + spread - mean.square() - nd.exp(spread)).sum(1)


def two_largest(x: Any) -> Any:
    first = x.max(1, keepdims=True)
    return first + nd.where(x == first, -1e9, x).max(1, keepdims=True)


def running_sums(x: Any) -> Any:
    n = x.shape[1]
    below = nd.arange(n).reshape((1, -1)) <= nd.arange(n).reshape((-1, 1))
    return nd.exp(x @ below.astype("float32").swapaxes(0, 1) * 0.1)


DEPTHWISE = floats(3, 12, 1, 3, 3)
MASK = nd.NDArray(np.array([[1, 1, 1, 1, 1, 0, 0], [1] * 7, [1, 0, 0, 0, 0, 0, 0]], np.float32))
CASES: dict[str, tuple[Callable[..., Any], tuple[nd.NDArray, ...]]] = {
    "attention": (attention, (floats(0, 3, 7, 16), *[floats(i, 16, 16) for i in range(1, 5)], MASK)),
    "LSTM": (lstm, (floats(0, 3, 6, 5), floats(1, 5, 32), floats(2, 8, 32), floats(3, 32))),
    "dense block": (dense_block, (floats(0, 2, 3, 9, 8), floats(1, 4, 3, 3, 3), floats(2, 5, 7, 3, 3), DEPTHWISE)),
    "group norm": (group_norm, (floats(0, 2, 6, 4, 5), floats(1, 6))),
    "word classes": (word_classes, (floats(0, 11, 8), floats(1, 8, 5), integers(2, 11, 4, 6), integers(3, 5, 4))),
    "contrastive": (contrastive, (floats(0, 6, 5), floats(1, 6, 5))),
    "distances": (distances, (floats(0, 6, 5), floats(1, 7, 5))),
    "Huber": (huber, (floats(0, 6, 5), floats(1, 6, 5))),
    "variational": (variational, (floats(0, 4, 6), floats(1, 6, 8), floats(2, 8, 3), floats(3, 8, 3), floats(4, 3, 6))),
    "two largest": (two_largest, (floats(0, 5, 7),)),
    "running sums": (running_sums, (floats(0, 5, 7),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_hybrid_is_eager(name: str) -> None:
    function, arrays = CASES[name]
    found = []
    for f in (function, hybridize(function)):
        wanted = [x for x in arrays if x.dtype.kind == "f"]
        for x in wanted:
            x.attach_grad()
        nd.random.seed(3)
        with autograd.record():
            out = f(*arrays)
        results = list(out) if isinstance(out, tuple) else [out]
        autograd.backward(results, [floats(9, *r.shape) for r in results])
        found.append([r.asnumpy() for r in results] + [x.grad.asnumpy() for x in wanted if x.grad is not None])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert a.shape == b.shape and np.allclose(a, b, 1e-3, 1e-4 * (1 + np.abs(a).max())), f"array {number}"
