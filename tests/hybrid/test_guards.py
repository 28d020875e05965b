"""Guards: a trace is used only where it holds, and `explain()` says what each one relies on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function, hybridize
from gluonish.hybrid.function import LIMIT


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.asarray(rng.standard_normal(shape)).astype(dtype))


def close(a: Any, b: Any) -> bool:
    a, b = a.asnumpy(), b.asnumpy()
    return (a.shape, a.dtype) == (b.shape, b.dtype) and np.allclose(a, b, 1e-5, 1e-5)


def test_rank_dtype_mode_and_recording(rng: np.random.Generator) -> None:
    f = hybridize(lambda x: nd.dropout(x, 0.5) if autograd.is_training() else x * (2 if autograd.is_recording() else 3))
    x = nd.ones((4,))
    assert f(x).tolist() == [3] * 4
    assert f(nd.ones((2, 2))).tolist() == [[3, 3], [3, 3]]
    assert f(x.astype("float64")).dtype == np.float64
    with autograd.train_mode():
        assert set(f(x).tolist()) <= {0.0, 2.0}
    with autograd.record(train_mode=False):
        assert f(x).tolist() == [2] * 4
    with autograd.record():
        assert set(f(x).tolist()) <= {0.0, 2.0}
    assert len(f.variants) == 6
    for _ in range(3):
        f(x)
        with autograd.record():
            f(x)
    assert len(f.variants) == 6
    text = f.explain()
    for reason in (
        "first call",
        "2 dimensions, not 1",
        "is float64, not float32",
        "train mode",
        "under autograd.record()",
    ):
        assert reason in text, text
    assert text.count("test_guards.py:") >= 6


def test_sizes_that_python_branched_on(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray) -> nd.NDArray:
        if x.shape[0] > 3:
            return x * 2
        return x + x.shape[1]

    compiled = hybridize(f)
    for shape in ((5, 2), (2, 2), (9, 2), (3, 7), (4, 4)):
        x = floats(rng, *shape)
        assert close(f(x), compiled(x))
    assert len(compiled.variants) == 2
    text = compiled.explain()
    line = f.__code__.co_firstlineno + 1
    assert "branched" in text and f"test_guards.py:{line}" in text, text


def test_sizes_used_as_numbers(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray) -> nd.NDArray:
        out = x[0]
        for i in range(1, x.shape[0]):
            out = out + x[i] * i
        return out

    compiled = hybridize(f)
    for rows in (2, 5, 2, 7, 5):
        x = floats(rng, rows, 3)
        assert close(f(x), compiled(x))
    assert len(compiled.variants) == 3


def test_arithmetic_of_sizes_guards_nothing(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray) -> Any:
        n, m = x.shape
        half = n // 2
        pairs = x[: half * 2].reshape((half, 2, m))
        return pairs.sum(1) / n, x.reshape((n * m,))[m:], nd.arange(n - 1), x.sum() / x.size

    compiled = hybridize(f)
    for shape in ((6, 4), (9, 5), (14, 3), (2, 2)):
        x = floats(rng, *shape)
        assert all(close(a, b) for a, b in zip(f(x), compiled(x)))
    assert len(compiled.variants) == 1


def test_sizes_that_must_be_equal(rng: np.random.Generator) -> None:
    f = hybridize(lambda x, y: x + y)
    f(floats(rng, 3, 4), floats(rng, 3, 4))
    f(floats(rng, 5, 2), floats(rng, 5, 2))
    f(floats(rng, 5, 2), floats(rng, 2))
    f(floats(rng, 5, 2), floats(rng, 5, 1))
    assert len(f.variants) == 3
    with pytest.raises(ValueError, match="broadcast"):
        f(floats(rng, 5, 2), floats(rng, 4, 2))
    x, y = floats(rng, 7, 3), floats(rng, 7, 3)
    assert close(f(x, y), x + y)


def test_computed_sizes_of_one_broadcast(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray) -> Any:
        half = x[: x.shape[0] // 2]
        return (
            half + x,
            x[x.shape[0] - x.shape[1] :] * 2,
            nd.max_pool(x.reshape((1, 1, *x.shape)), (2, 2)) * x[:3, :1].reshape((1, -1, 1, 1)),
        )

    compiled = hybridize(f)
    for shape in ((3, 2), (2, 2), (3, 3), (3, 2)):
        x = floats(rng, *shape)
        assert all(close(a, b) for a, b in zip(f(x), compiled(x), strict=True))
    with pytest.raises(ValueError, match="broadcast"):
        compiled(floats(rng, 4, 4))  # a half of 2 does not broadcast with 4


def test_an_index_that_counts_from_the_other_end_for_other_sizes(rng: np.random.Generator) -> None:
    f = lambda x: x[x.shape[0] - x.shape[1]] * 2  # noqa: E731
    compiled = hybridize(f)
    for shape in ((5, 3), (4, 3), (3, 5), (4, 7), (3, 3)):
        x = floats(rng, *shape)
        assert close(f(x), compiled(x))
    with pytest.raises(IndexError):
        compiled(floats(rng, 2, 7))


INTEGERS: dict[str, Callable[[Any], Any]] = {
    "roots": lambda x: x / np.sqrt(x.shape[-1]) + math.sqrt(x.shape[0]) + x.shape[0] ** -0.5,
    "rounding": lambda x: x * round(x.shape[0] / 2) + math.ceil(x.shape[0] / 3) + abs(x.shape[1] - x.shape[0]),
    "quotients": lambda x: x * divmod(x.shape[0], 2)[1] + x.shape[0] % 3 - x.shape[0] // -2 + x.shape[0] / x.shape[1],
    "bits": lambda x: (
        x * (x.shape[0] & 1) + (x.shape[0] << 1) + (x.shape[0] >> 1) + (x.shape[0] | 2) + (3 ^ x.shape[0])
    ),
    "comparisons": lambda x: x[: min(x.shape[0], 3)] * max(x.shape[1], 3) * (2 if 3 <= x.shape[0] != 5 else 1),
    "lookups": lambda x: x * (2 if x.shape[0] in (3, 4) else 1) * {5: 2, 6: 3}[x.shape[0]] * list(range(9))[x.shape[1]],
    "texts": lambda x: x * len(f"{x.shape[0]:04d}") + len("%d" % x.shape[0]),  # noqa: UP031
    "NumPy": lambda x: (
        x * np.float32(x.shape[0]) + np.int64(2) * x.shape[0] + np.prod(x.shape) + np.zeros(x.shape, "f4")
    ),
    "lists": lambda x: nd.concat([x] * x.shape[0]) + sum(x.shape) + len([0 for _ in range(x.shape[1])]),
    "arrays": lambda x: x + nd.array(list(x.shape)).sum() + nd.arange(x.shape[1]) + nd.full(x.shape, x.shape[0]),
    "splits": lambda x: nd.concat(nd.split(x, x.shape[0])[::-1]) + nd.tile(x, (x.shape[0], 1))[: x.shape[0]],
    "operands": lambda x: (
        nd.where(x > x.shape[0] - 5, x.shape[0], nd.maximum(x, x.shape[1])) + x.argmax(0) * x.shape[1]
    ),
    "iteration": lambda x: sum([r * i for i, r in enumerate(x)]) + len(x),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_sizes_are_used_as_integers(name: str, rng: np.random.Generator) -> None:
    f = INTEGERS[name]
    compiled = hybridize(f)
    for shape in ((5, 4), (6, 2), (5, 2), (5, 4)):
        x = floats(rng, *shape)
        assert close(f(x), compiled(x)), shape


def test_no_guard_comes_after_the_trace(rng: np.random.Generator) -> None:
    """Passes and lowering may ask nothing of sizes that the trace has not asked: it would be forgotten."""

    def f(x: nd.NDArray, w: nd.NDArray) -> Any:
        h = nd.convolution(x, w, pad=1, stride=2)
        h = nd.max_pool(nd.relu(h), 2).reshape((x.shape[0], -1))
        return nd.softmax(h[1:] @ h[:-1].swapaxes(0, 1)).mean(0), x[:, :, 1:-1, ::-2].sum((0, 2))

    x, w = floats(rng, 3, 2, 12, 9), floats(rng, 4, 2, 3, 3)
    w.attach_grad()
    compiled = hybridize(f)
    with autograd.record():
        out = compiled(x, w)
    out[0].backward()
    (variant,) = compiled.variants
    assert len(variant.scope.guards) == len(variant.guards)


def test_attributes_children_and_parameters(rng: np.random.Generator) -> None:
    class Net(gl.HybridBlock):
        def __init__(self) -> None:
            self.scale = 2.0
            self.body = nn.Dense(3, in_units=4)
            self.options = ["relu"]

        def forward(self, x: nd.NDArray) -> nd.NDArray:
            y = self.body(x) * self.scale
            return nd.relu(y) if "relu" in self.options else y

    net, x = Net(), floats(rng, 2, 4)
    net.initialize("normal")
    net.hybridize()
    net(x)
    changes = {
        "scale": lambda: setattr(net, "scale", 3.0),
        "options": lambda: net.options.append("no"),
        "body": lambda: setattr(net, "body", nn.Dense(3, in_units=4)),
        "weight": lambda: setattr(net.body, "weight", gl.Parameter(shape=(3, 4))),
    }
    for number, (name, change) in enumerate(changes.items(), 1):
        change()
        if name in ("body", "weight"):
            net.initialize("normal")
        hybrid = net(x)
        assert close(hybrid, gl.Block.__call__(net, x))
        assert len(net._compile().variants) == number + 1
        assert f"attribute changed: {'Dense' if name == 'weight' else 'Net'}.{name}" in net.explain()
    net.scale = 2.0
    net.scale = 3.0
    net(x)
    assert len(net._compile().variants) == len(changes) + 1


def test_an_old_value_finds_its_old_variant(rng: np.random.Generator) -> None:
    class Net(gl.HybridBlock):
        power = 2

        def forward(self, x: nd.NDArray) -> nd.NDArray:
            return x**self.power

    net, x = Net(), floats(rng, 3)
    net.hybridize()
    for power in (2, 3, 2, 3, 2):
        net.power = power
        assert close(net(x), x**power)
    assert len(net._compile().variants) == 2


def test_wanting_gradients(rng: np.random.Generator) -> None:
    w = floats(rng, 3)
    f = hybridize(lambda x: (x * w).sum())
    x = floats(rng, 3)

    def run() -> nd.NDArray:
        with autograd.record():
            return f(x)

    assert run()._entry is None
    w.attach_grad()
    run().backward()
    assert close(w.grad, x)
    w.attach_grad("add")
    for _ in range(2):
        run().backward()
    assert close(w.grad, x * 2) and len(f.variants) == 2
    x.attach_grad()
    run().backward()
    assert close(x.grad, w) and close(w.grad, x * 3)
    w.attach_grad("null")
    run().backward()
    assert w.grad is None and close(x.grad, w)
    x.attach_grad("null")
    assert run()._entry is None and len(f.variants) == 4
    assert "wants a gradient" in f.explain()


def test_frozen_parameters(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(nn.Dense(4, in_units=3), nn.Dense(2, in_units=4))
    net.initialize("normal")
    net.hybridize()
    x = floats(rng, 5, 3)

    def run() -> None:
        with autograd.record():
            loss = net(x).sum()
        loss.backward()

    run()
    before = net[0].weight.grad.asnumpy()
    net[0].setattr("grad_req", "null")
    run()
    assert net[0].weight.grad is None and net[1].weight.grad.asnumpy().any()
    net[0].setattr("grad_req", "write")
    run()
    assert np.allclose(net[0].weight.grad.asnumpy(), before, rtol=1e-5)


def test_the_least_recently_used_variants_go_first(rng: np.random.Generator) -> None:
    f = hybridize(lambda x, n: x + n)
    x = nd.ones((2,))
    for n in range(LIMIT + 5):
        f(x, n)
        f(x, 0)  # always in use
    assert len(f.variants) == LIMIT
    newest = f.variants[0]
    f(x, 0)
    f(x, LIMIT + 4)
    assert len(f.variants) == LIMIT and newest in f.variants


def test_a_function_inside_a_function_is_one_program(rng: np.random.Generator) -> None:
    inner = compile_function(lambda x: x * 2, name="inner")
    outer = hybridize(lambda x: inner(x) + 1)
    assert outer(nd.ones((2,))).tolist() == [3, 3]
    assert not inner.variants and len(outer.variants) == 1
    assert inner(nd.ones((2,))).tolist() == [2, 2]


def test_explain_names_what_has_no_kernel(rng: np.random.Generator) -> None:
    f = hybridize(lambda x: nd.max_pool(x, 2) + 1)
    f(nd.array(rng.integers(0, 9, (1, 2, 4, 4))))
    assert "no kernel" in f.explain() and "test_guards.py:" in f.explain()
