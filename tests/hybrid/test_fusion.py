"""Fusion: how many kernels a program becomes, and that values meet at the right places in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hybrid.traces import graph_of

from gluonish import autograd, nd, nn
from gluonish.hybrid import hybridize
from gluonish.hybrid.fuse import fuse
from gluonish.hybrid.graph import Graph
from gluonish.hybrid.passes import run_passes


def floats(seed: int, *shape: int) -> nd.NDArray:
    return nd.NDArray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


X, Y, SQUARE, IMAGE = floats(0, 6, 4), floats(1, 6, 4), floats(2, 5, 5), floats(3, 2, 3, 8, 6)
W, B, ROW, COLUMN = floats(4, 4, 7), floats(5, 7), floats(6, 4), floats(7, 6)


def kinds(function: Callable[..., Any], *arrays: nd.NDArray) -> list[str]:
    """The kinds of the groups of a function's graph, without what depends on captured arrays alone."""
    graph = run_passes(graph_of(function, *arrays))
    fixed: set[int] = set()
    for n in graph.nodes():
        if all(p.kind == "captured" or id(p) in fixed for p in n.parents):
            fixed.add(id(n))
    return sorted(g.kind for g in fuse(graph) if not all(id(n) in fixed for n in g.nodes))


def right(function: Callable[..., Any], *arrays: nd.NDArray) -> None:
    """Values and gradients are the eager ones."""
    wanted = []
    for f in (function, hybridize(function)):
        for x in arrays:
            x.attach_grad()
        with autograd.record():
            out = f(*arrays)
        results = list(out) if isinstance(out, tuple) else [out]
        heads = [r for r in results if r._entry is not None]
        autograd.backward(heads, [floats(9, *h.shape) for h in heads])
        wanted.append([r.asnumpy() for r in results] + [x.grad.asnumpy() for x in arrays])
    for number, (a, b) in enumerate(zip(*wanted, strict=True)):
        assert a.shape == b.shape and np.allclose(a, b, 1e-4, 1e-4), f"array {number}: {a} and {b}"


GROUPS: dict[str, tuple[Callable[..., Any], tuple[nd.NDArray, ...], str]] = {
    "a chain": (lambda x, y: nd.tanh(x * 2 + y) * y - x, (X, Y), "map"),
    "two results of one chain": (lambda x, y: (x + y, (x + y) * 2), (X, Y), "map"),
    "softmax": (lambda x: nd.softmax(x), (X,), "rows"),
    "log softmax and what follows": (lambda x: nd.log_softmax(x * 2) * 3 + 1, (X,), "rows"),
    "layer norm": (
        lambda x: (x - x.mean(-1, keepdims=True)) * nd.rsqrt(x.var(-1, keepdims=True) + 1e-5) * ROW + ROW,
        (X,),
        "rows",
    ),
    "several sums along rows": (lambda x: (x * 2).sum(1) / nd.sqrt((x * 2).max(1) - (x * 2).min(1)), (X,), "rows"),
    "a sum down columns takes its producers along": (lambda x, y: nd.exp(x * y).sum(0), (X, Y), "columns"),
    "a sum of everything": (lambda x: (x * x).sum(), (X,), "columns"),
    "two sums down the same columns": (lambda x, y: (x.sum(0), (x * y).sum(0)), (X, Y), "columns"),
    "a dense layer": (lambda x: nd.relu(x @ W + B), (X,), "contract"),
    "a dense layer with more behind it": (lambda x: nd.tanh(x @ W + B) * 0.5 + 1, (X,), "contract"),
    "a residual": (lambda x: nd.relu(x @ nd.ones((4, 4)) + x), (X,), "contract"),
    "a choice is no epilogue": (lambda x: nd.where(x @ W > 0, 1.0, 0.0), (X,), "contract map"),
    "a size is no epilogue": (lambda x: (x @ W) / x.shape[0], (X,), "contract map"),
    "a product that is read twice": (lambda x: (lambda y: nd.exp(y) * y.sum(0))(x @ W), (X,), "columns contract map"),
    "independent chains": (lambda x, y: (nd.exp(x), nd.exp(y)), (X, floats(8, 3)), "map map"),
    "rows, and columns of the same values": (lambda x: nd.softmax(x).sum(0), (X,), "rows"),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str) -> None:
    function, arrays, wanted = GROUPS[name]
    assert " ".join(kinds(function, *arrays)) == wanted
    right(function, *arrays)


ALIGNED: dict[str, tuple[Callable[..., Any], tuple[nd.NDArray, ...]]] = {
    "a row's sum and an array of rows": (lambda x: x.sum(1) + COLUMN, (X,)),
    "the same where it is square": (lambda x: x.sum(1) * floats(1, 5) + nd.exp(x.sum(1)), (SQUARE,)),
    "broadcast along the other dimension": (lambda x: x - x.sum(1), (SQUARE,)),
    "divided along the other dimension": (lambda x: nd.abs(x) / nd.abs(x).sum(1), (SQUARE,)),
    "along both": (lambda x: x / (x.max(1) + 9) + x / (x.max(1, keepdims=True) + 9), (SQUARE,)),
    "a sum with and one without its dimension": (lambda x: x.sum(1, keepdims=True) + x.sum(1), (SQUARE,)),
    "a column beside a row's sum": (lambda x: x.sum(1, keepdims=True) * COLUMN.reshape((6, 1)) + x, (X,)),
    "a number for all": (lambda x: x.sum(1) + nd.array([2.0]) + nd.array(3.0), (X,)),
    "two trailing dimensions": (lambda x: x.sum((2, 3)) * floats(1, 3) + floats(2, 2, 1) - x.max((2, 3)), (IMAGE,)),
    "two trailing dimensions, an input along one": (
        lambda x: ((x * floats(1, 6)) + floats(2, 8, 1)).sum((2, 3)),
        (IMAGE,),
    ),
    "two trailing dimensions, kept": (lambda x: x - x.mean((2, 3), keepdims=True) * floats(1, 3, 1, 1), (IMAGE,)),
    "a broadcast row's sum": (lambda x: nd.broadcast_to(x.sum(1), (5, 5)) * x, (SQUARE,)),
    "a broadcast along rows": (lambda x: nd.broadcast_to(x.sum(1, keepdims=True), (5, 5)) * x, (SQUARE,)),
    "positions beside a row's sum": (
        lambda x: (x.sum(1) * nd.arange(6), nd.arange(4) * x + x.sum(1, keepdims=True)),
        (X,),
    ),
    "middle dimensions": (lambda x: (x * floats(1, 8, 1)).sum((1, 2)) + x.max((1, 2)) * floats(2, 6), (IMAGE,)),
    "first dimensions": (lambda x: (x + floats(1, 3, 1, 1)).sum((0, 1)), (IMAGE,)),
    "scattered dimensions": (lambda x: (x * floats(1, 8, 1)).sum((0, 2)) - x.mean((1, 3)).sum(), (IMAGE,)),
    "a vector that broadcasts to a square": (lambda v: v.reshape((-1, 1)) * v + v.sum(), (floats(1, 5),)),
    "every position at once": (lambda x: (x.mean() + x.mean(0) + x.mean(1, keepdims=True) + x).max(), (X,)),
}


@pytest.mark.parametrize("name", ALIGNED)
def test_values_meet_where_they_belong(name: str) -> None:
    right(*[ALIGNED[name][0], *ALIGNED[name][1]])


def test_fused_groups_are_ordered(rng: np.random.Generator) -> None:
    """A value that leaves a group and comes back must not make a circle."""

    def diamond(x: Any) -> Any:
        a = x * 2
        b = nd.concat([a, a]).sum(0)
        c = a + b  # reads the group of `a` and what that group must be finished for
        d = (c @ W).sum(1, keepdims=True)
        return c * d + a, (a * c).sum(0)

    right(diamond, X)


def test_a_residual_block_is_few_kernels() -> None:
    net = nn.HybridSequential(
        nn.Conv2D(3, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(3, 3, padding=1)
    )
    net.initialize("normal")
    net(IMAGE)
    found = kinds(lambda x: nd.relu(net(x) + x), IMAGE)
    assert found == [
        "contract",
        "contract",
        "map",
        "single",
        "single",
    ]  # the permutations of input and result among them


def test_arithmetic_is_rounded_as_in_eager_mode() -> None:
    """No product is fused into a sum: what is computed again, in whatever kernel, is the same number again."""
    a, b, c = (floats(i, 40, 33) for i in range(3))

    def f(a: Any, b: Any, c: Any) -> Any:
        x = a * b + c
        return x, x * a - b * c, (x - a * 0.3) / (b * b + 1), nd.relu(x * 3 + 1) - x * c

    for x, y in zip(f(a, b, c), hybridize(f)(a, b, c), strict=True):
        assert np.array_equal(x.asnumpy(), y.asnumpy())


@pytest.mark.parametrize("axis", [0, 1, None])
def test_an_extreme_is_found_where_it_is_computed_again(axis: Any) -> None:
    a, b, c = (floats(i, 40, 33) for i in range(3))

    def f(a: Any, b: Any, c: Any) -> Any:
        x = (nd.tanh(a * b + c) * c + b) * nd.exp(a * 0.1) + a * c
        return (x == x.max(axis, keepdims=True)).astype("float32"), x.max(axis), x.min(axis) * x.mean()

    right(f, a, b, c)


def test_large_graphs_are_fused_in_time() -> None:
    def wide(x: Any) -> Any:
        parts = [nd.tanh(x * i) for i in range(300)]
        total = parts[0]
        for p in parts[1:]:
            total = total + p.sum(0) * p
        return total

    graph = run_passes(graph_of(wide, X))
    assert isinstance(graph, Graph)
    groups = fuse(graph)
    assert sum(len(g.nodes) for g in groups) <= 1800
    position = {id(n): i for i, g in enumerate(groups) for n in g.nodes}
    for g in groups:
        for n in g.nodes:
            for p in n.parents:
                assert id(p) not in position or position[id(p)] <= position[id(n)]


def test_epilogues_of_every_operand() -> None:
    residual, scale = floats(1, 6, 7), nd.array([1.5])
    for function in (
        lambda x: (x @ W) * 2 - residual,
        lambda x: 1 - (x @ W + B) * scale,
        lambda x: (lambda y: y * y + y)(x @ W),
        lambda x: nd.maximum(x @ W, residual) / (nd.abs(B) + 1),
        lambda x: nd.gelu((x @ W + B) * (x @ W)),
        lambda x: (x @ W[:, :1]) + scale,
        lambda x: (x[:1] @ W) * B + residual,
        lambda x: (x @ W).astype("float64") * 2,
        lambda x: nd.matmul(x.reshape((2, 3, 4)), W) + B,
        lambda x: nd.matmul(x.reshape((2, 3, 4)), nd.stack([W, W])) * residual.reshape((2, 3, 7)),
        lambda x: nd.matmul(x.reshape((3, 1, 2, 4)), nd.stack([W, W])) + B,
        lambda x: (W.swapaxes(0, 1) @ x.swapaxes(0, 1)).swapaxes(0, 1) + B,
        lambda x: x.swapaxes(0, 1) @ x + x[:4] * 0,
    ):
        right(function, X)


def test_what_is_computed_again_comes_before_its_readers(rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.uniform(-1, 1, (5, 4)).astype("float32"))
    rows = nd.array([1, 4, 1])
    mean, var, gamma = (nd.NDArray(rng.uniform(-1, 1, 4).astype("float32")) for _ in range(3))

    def f(x: nd.NDArray) -> nd.NDArray:
        y = (nd.take(x, rows) - mean) * (nd.rsqrt(nd.abs(var) + 0.1) * gamma) + mean
        return nd.power(nd.abs(y) + 0.5, 3)

    found = []
    for run in (f, hybridize(f)):
        for a in (mean, var, gamma):
            a.attach_grad()
        with autograd.record():
            y = run(x)
        y.backward()
        found.append([a.grad.asnumpy() for a in (mean, var, gamma)])
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, 1e-4, 1e-4)


def test_columns_that_need_the_ends_of_other_columns(rng: np.random.Generator) -> None:
    labels = nd.array(rng.integers(0, 4, 5))

    def f(i: nd.NDArray) -> tuple[nd.NDArray, nd.NDArray]:
        x = nd.one_hot(i, 4)
        return nd.log_softmax(x, 0), x.sum(-1) / (nd.abs(x).sum(-1) + 1.0)

    for a, b in zip(f(labels), hybridize(f)(labels), strict=True):
        assert np.allclose(a.asnumpy(), b.asnumpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("wave", [nd.sin, nd.cos, nd.tan], ids=["sin", "cos", "tan"])
def test_functions_with_a_rare_path_join_products(wave: Any, rng: np.random.Generator) -> None:
    a, b = (nd.NDArray(rng.uniform(-0.5, 0.5, shape).astype(np.float32)) for shape in ((7, 5), (5, 9)))
    compiled = hybridize(lambda a, b: wave(a @ b))
    np.testing.assert_allclose(compiled(a, b).asnumpy(), wave(a @ b).asnumpy(), atol=2e-6)
    assert len(compiled.kernels(a, b)) == 2  # the packing and the product
