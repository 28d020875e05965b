"""Passes: what each does to small programs, and that none changes what a graph means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import SEED
from hybrid.random_drawing import draw
from hybrid.random_programs import SIZES
from hybrid.traces import computed, graph_of, leaves_of, names

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function
from gluonish.hybrid.graph import Graph, verify
from gluonish.hybrid.passes import PASSES, run_passes
from gluonish.hybrid.passes.batch_norm import fold_batch_norm
from gluonish.hybrid.passes.layout import reuse_permuted, sink_permutes
from gluonish.hybrid.passes.neighbours import join_axes
from gluonish.hybrid.passes.share import share_common
from gluonish.hybrid.passes.simplify import simplify
from gluonish.nd.size import same_shape

X = nd.NDArray(np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32))
IMAGE = nd.NDArray(np.random.default_rng(1).standard_normal((2, 3, 6, 5)).astype(np.float32))
I = nd.NDArray(np.arange(12).reshape(3, 4))  # noqa: E741


def keeps(graph: Graph, change: Callable[[Graph], Graph], exactly: bool = True) -> Graph:
    """The graph after a pass, which must be well formed and compute the same."""
    values = leaves_of(graph, np.random.default_rng(3))
    before = computed(graph, values)
    after = verify(change(graph))
    assert all(
        same_shape(a.shape, b.shape) and a.dtype == b.dtype
        for a, b in zip(graph.results(), after.results(), strict=True)
    )
    for a, b in zip(before, computed(after, values), strict=True):
        assert np.array_equal(a, b, equal_nan=True) if exactly else np.allclose(a, b, 1e-4, 1e-5, equal_nan=True)
    return after


# --- simplify ---------------------------------------------------------------------------------------------------------
SIMPLER: dict[str, tuple[Callable[[Any], Any], str]] = {
    "times one": (lambda x: 1 * (x * 1) / 1.0, ""),
    "minus zero": (lambda x: x - 0, ""),
    "plus zero turns -0 into 0": (lambda x: x + 0, "add"),
    "times zero keeps NaN": (lambda x: x * 0, "multiply"),
    "powers": (lambda x: nd.power(x, 1) + nd.power(x, 2), "square add"),
    "negated twice": (lambda x: nd.negative(-x), ""),
    "reshape to the same shape": (lambda x: x.reshape(x.shape).reshape((x.shape[0], -1)), ""),
    "reshapes in a row": (lambda x: x.reshape((4, 3)).reshape((2, 6)).reshape((12,)), "reshape"),
    "reshaped there and back": (lambda x: x.reshape((-1,)).reshape(x.shape), ""),
    "transposed twice": (lambda x: x.swapaxes(0, 1).swapaxes(0, 1), ""),
    "permutes in a row": (lambda x: nd.permute_dims(nd.permute_dims(x.reshape((2, 3, 2)), 1, 2, 0), 1, 2, 0),
                          "reshape permute_dims"),
    "a permutation of ones is a reshape": (lambda x: x.expand_dims(0).swapaxes(0, 1), "reshape"),
    "a transposed product": (lambda x: (x @ x.swapaxes(0, 1)).swapaxes(0, 1), "permute_dims matmul"),
    "constants": (lambda x: x + (nd.ones((4,)) * 2 + 3).sqrt().reshape((1, 4)), "add"),
    "constants of the result's shape": (lambda x: x * nd.full((3, 4), 2.5) + nd.ones_like(x), "multiply add"),
    "broadcast of a constant": (lambda x: x * nd.broadcast_to(nd.full((1, 4), 2.0), (3, 4)), "multiply"),
    "broadcasts that happen anyway": (lambda x: x + nd.broadcast_to(x[0], (3, 4)), "index add"),
    "two broadcasts keep the shape": (lambda x: nd.broadcast_to(x[:1], (3, 4)) + nd.broadcast_to(x[1:2], (3, 4)),
                                      "index index broadcast_to add"),
    "a broadcast and a constant keep the shape": (lambda x: nd.broadcast_to(x[:1], (3, 4)) * nd.full((3, 4), 2.0),
                                                  "index full multiply"),
    "sums over ones": (lambda x: x.expand_dims(1).sum(1) + x.expand_dims(0).max(0), "add"),
    "casts to the same dtype": (lambda x: x.astype("float32").astype("float64").astype("float64"), "cast"),
    "where keeps its condition": (lambda x: nd.where(x > 0, nd.full((3, 4), 1.0), x), "greater where"),
    "where of constants": (lambda x: nd.where(x > 0, nd.ones((3, 4)), nd.zeros((3, 4))), "greater full where"),
}  # fmt: skip


@pytest.mark.parametrize("name", SIMPLER)
def test_simplify(name: str) -> None:
    function, wanted = SIMPLER[name]
    after = keeps(graph_of(function, X), simplify)
    found = names(after)
    assert sorted(found) == sorted(wanted.split()), str(after)


def test_simplify_integers_and_their_dtypes() -> None:
    for function in (
        lambda i: i * 1 + nd.full((3, 4), 2, "int64"),
        lambda i: nd.power(i, 2) - 0,
        lambda i: i.astype("int8") * nd.full((3, 4), 3, "int8") + 1,
        lambda i: i.astype("bool") & nd.full((3, 4), 1, "bool"),
        lambda i: nd.where(i > 5, nd.full((3, 4), 7, "int64"), i),
        lambda i: i / nd.full((3, 4), 2, "int64"),
        lambda i: (nd.full((2,), 7, "int64") // 2 - nd.full((2,), 3, "int64")).sum() + i,
    ):
        keeps(graph_of(function, I), simplify)


def test_simplify_stops() -> None:
    def function(x: Any) -> Any:
        shape = x.shape
        for _ in range(60):
            x = (nd.negative(-x) * 1).swapaxes(0, 1).swapaxes(0, 1).reshape((-1,)).reshape(shape)
        return x

    assert names(keeps(graph_of(function, X), simplify)) == []


# --- layout -----------------------------------------------------------------------------------------------------------
def permutes(graph: Graph) -> int:
    """Permutations of what the arguments make: of captured arrays they are computed once."""
    fixed: set[int] = set()
    count = 0
    for n in graph.nodes():
        if all(p.kind == "captured" or id(p) in fixed for p in n.parents):
            fixed.add(id(n))
        elif n.is_op("permute_dims"):
            count += 1
    return count


def test_images_stay_channels_last_between_the_borders() -> None:
    net = nn.HybridSequential(
        nn.Conv2D(4, 3, padding=1, activation="relu"),
        nn.BatchNorm(),
        nn.MaxPool2D(2),
        nn.Conv2D(5, 1),
        nn.GlobalAvgPool2D(),
    )
    net.initialize("normal")
    net(IMAGE)
    for training, allowed in ((False, 2), (True, 2)):
        graph = graph_of(lambda x: net(x), IMAGE, training=training)
        after = keeps(graph, lambda g: sink_permutes(simplify(g)), exactly=False)
        assert permutes(after) <= allowed < permutes(graph), str(after)


def test_permutations_sink_where_nothing_else_would_be_moved() -> None:
    other = nd.NDArray(np.ones((4, 3), np.float32))

    def chain(x: Any) -> Any:
        y = nd.relu(x.swapaxes(0, 1)) * 2 + 1
        return (y - y.max(0, keepdims=True)).swapaxes(0, 1).exp()

    assert permutes(keeps(graph_of(chain, X), sink_permutes)) == 0
    assert permutes(keeps(graph_of(lambda x: nd.relu(x.swapaxes(0, 1)).sum(0), X), sink_permutes, exactly=False)) == 0
    assert names(keeps(graph_of(lambda x: x.swapaxes(0, 1) + other, X), sink_permutes)) == ["permute_dims", "add"]
    joined = keeps(graph_of(lambda x: nd.concat([x.swapaxes(0, 1), nd.relu(x.swapaxes(0, 1))], 1), X), sink_permutes)
    assert names(joined) == ["relu", "concat", "permute_dims"]
    assert permutes(keeps(graph_of(lambda x: nd.concat([x.swapaxes(0, 1), x.reshape(4, 3)]), X), sink_permutes)) == 1
    for function in (
        lambda x: nd.concat([nd.permute_dims(x, 3, 1, 0, 2), nd.permute_dims(x * 2, 3, 1, 0, 2)], 2),
        lambda x: nd.permute_dims(x, 0, 2, 3, 1) * nd.ones((3,)) + nd.ones((5, 1)),
        lambda x: nd.permute_dims(x, 3, 1, 0, 2).sum((0, 2)),
        lambda x: nd.permute_dims(x, 3, 1, 0, 2).max((1, 3), keepdims=True),
        lambda x: nd.where(nd.permute_dims(x, 1, 0, 2, 3) > 0, nd.permute_dims(x, 1, 0, 2, 3), 0.5),
        lambda x: nd.permute_dims(x, 1, 0, 2, 3) + nd.permute_dims(x, 1, 0, 3, 2).swapaxes(2, 3),
    ):
        keeps(graph_of(function, IMAGE), sink_permutes, exactly=False)


def test_what_is_given_out_permuted_is_permuted_once() -> None:
    other = nd.NDArray(np.ones((5, 7, 3, 4), np.float32))

    def function(x: Any) -> Any:
        moved = nd.exp(x).transpose(2, 3, 0, 1)
        return moved, (nd.exp(x) * 2 / nd.ones((1, 1, 1, 1))).transpose(2, 3, 0, 1) - other

    graph = graph_of(function, nd.NDArray(np.random.rand(3, 4, 5, 7).astype(np.float32)))
    assert permutes(keeps(graph, lambda g: share_common(simplify(reuse_permuted(share_common(g)))))) == 1


# --- share ------------------------------------------------------------------------------------------------------------
def test_equal_expressions_are_computed_once() -> None:
    def function(x: Any) -> Any:
        return nd.exp(x * 2) + nd.exp(x * 2).sum(0), nd.exp(x * 2)[1:], nd.exp(x * 2.0)[1:]

    found = names(keeps(graph_of(function, X), share_common))
    assert (
        found.count("exp") == 2 and found.count("sum") == 1 and found.count("index") == 2
    )  # 2 and 2.0 are two numbers


def test_what_only_looks_equal_stays_apart() -> None:
    def function(x: Any) -> Any:
        a, b = nd.random.uniform(shape=(3, 4)), nd.random.uniform(shape=(3, 4))
        return (
            a + b,
            x.sum(0) * 1 + x.sum(1)[:1],
            x * 0.0,
            x * -0.0,
            x[0],
            x[:1],
            x.max(0),
            x.min(0),
            x.reshape((2, 6)),
            x.reshape((6, 2)),
        )

    graph = graph_of(function, X)
    assert sorted(names(keeps(graph, share_common))) == sorted(names(graph))


# --- batch norm -------------------------------------------------------------------------------------------------------
def live(graph: Graph) -> list[str]:
    """The ops that depend on the arguments."""
    fixed: set[int] = set()
    out = []
    for n in graph.nodes():
        assert n.op is not None
        if all(p.kind == "captured" or id(p) in fixed for p in n.parents):
            fixed.add(id(n))
        else:
            out.append(n.op.name)
    return out


def prepared(graph: Graph) -> Graph:
    return simplify(sink_permutes(simplify(graph)))


def test_batch_norm_moves_into_the_weights() -> None:
    for layers, image in (
        ((nn.Conv2D(4, 3), nn.BatchNorm()), IMAGE),
        ((nn.Conv2D(4, 3, use_bias=False), nn.BatchNorm(scale=False)), IMAGE),
        ((nn.Conv2D(6, 1, groups=3), nn.BatchNorm(center=False)), IMAGE),
        ((nn.Dense(7, in_units=4), nn.BatchNorm()), X),
    ):
        net = nn.HybridSequential(*layers)
        net.initialize("normal")
        net(image)
        for p in net.collect_params().values():
            p.set_data(nd.NDArray(np.abs(np.random.default_rng(2).standard_normal(p.shape)).astype(np.float32)))
        after = keeps(prepared(graph_of(lambda x, net=net: net(x), image)), fold_batch_norm, exactly=False)  # type: ignore[misc]
        found = [n for n in live(after) if n not in ("permute_dims", "reshape")]
        assert len(found) == 2 and found[1] == "add", str(after)


def test_every_batch_norm_of_a_deep_net_is_folded() -> None:
    """Also behind other folded ones, and where a residual connection reads a value twice."""

    class Residual(gl.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.HybridSequential(nn.Conv2D(4, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"))

        def forward(self, x: Any) -> Any:
            return (self.body(x) + x).relu()

    net = nn.HybridSequential(nn.Conv2D(4, 1), nn.BatchNorm(), Residual(), Residual(), nn.GlobalAvgPool2D())
    net.initialize("normal")
    net(IMAGE)
    after = keeps(prepared(graph_of(lambda x: net(x), IMAGE)), fold_batch_norm, exactly=False)
    assert live(after).count("convolution") == 3 and "multiply" not in live(after), str(after)


def test_scales_that_must_stay() -> None:
    w, s, t = (
        nd.NDArray(np.random.default_rng(i).standard_normal(n).astype(np.float32))
        for i, n in enumerate([(4, 5), (5,), (3, 1)])
    )
    cases: list[tuple[Callable[[Any], Any], int]] = [
        (lambda x: (x @ w) * s, 1),
        (lambda x: s * (x @ w) + s, 2),
        (lambda x: (x @ w) / s - s, 2),
        (lambda x: ((x @ w) * s + 1.0 * s) * s, 2),
        (lambda x: s - x @ w, 2),
        (lambda x: (x @ w) * t, 2),  # per row, not per column
        (lambda x: (x @ w) * 2, 2),
        (lambda x: s / (x @ w), 2),
        (lambda x: (lambda y: (y * s, y))(x @ w), 2),  # the product is a result itself
        (lambda x: (lambda y: y * s + nd.exp(y))(x @ w), 4),
        (lambda x: (lambda y: y * y)(x @ w), 2),
        (lambda x: (x @ w[:, :1]) * s, 2),  # (3, 1) times (5,): broadcast
        (lambda x: (x @ (x.swapaxes(0, 1) @ x)) * s[:4], 4),  # no captured weight
        (lambda x: (x.astype("float64") @ w.astype("float64")) * s.astype("float64"), 2),
    ]
    for function, count in cases:
        after = keeps(simplify(graph_of(function, X)), fold_batch_norm, exactly=False)
        assert len(live(after)) == count, str(after)


def test_a_weight_that_the_call_updates_is_not_folded() -> None:
    w, s = nd.ones((4, 5)), nd.ones((5,))

    def function(x: Any) -> Any:
        y = (x @ w) * s
        s[:] = s * 2
        return y

    after = keeps(graph_of(function, X), fold_batch_norm, exactly=False)
    assert live(after).count("multiply") >= 1


# --- reductions over scattered axes -----------------------------------------------------------------------------------
def test_reduced_axes_become_neighbours() -> None:
    for axis in ((0, 2), (0, 3), (1, 3), (0, 1, 3), (0, 2, 3)):
        for keepdims in (False, True):
            for op in ("sum", "max", "prod"):
                graph = graph_of(lambda x, a=axis, k=keepdims, o=op: getattr(nd, o)(x, a, k), IMAGE)  # type: ignore[misc]
                after = keeps(graph, join_axes, exactly=False)
                reduction = next(n for n in after.nodes() if n.is_op(op))
                axes = reduction.attrs["axes"]
                assert axes == tuple(range(axes[0], axes[0] + len(axes)))
    for axis in ((0,), (1, 2), (0, 1, 2, 3), (3,)):
        graph = graph_of(lambda x, a=axis: nd.sum(x, a), IMAGE)  # type: ignore[misc]
        assert names(keeps(graph, join_axes)) == ["sum"]


# --- all of them ------------------------------------------------------------------------------------------------------
def check_every_pass(graph: Graph, arguments: list[nd.NDArray]) -> None:
    values = {**leaves_of(graph, np.random.default_rng(5)), **{id(n): x._data for n, x in zip(graph.inputs, arguments)}}
    wanted = computed(graph, values)
    scale = [1 + np.abs(a[np.isfinite(a)]).max(initial=0) if a.dtype.kind == "f" else 0 for a in wanted]

    def watch(name: str, after: Graph) -> None:
        verify(after)
        for a, b, s in zip(wanted, computed(after, values), scale, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            assert np.allclose(a, b, 1e-3, 1e-3 * s, equal_nan=True), f"{name} changes {a} to {b}\n{graph}\n{after}"

    verify(graph)
    run_passes(graph, watch)


@pytest.mark.parametrize("batch", range(6))
def test_passes_keep_the_meaning_of_random_programs(batch: int) -> None:
    """Forward and backward in one graph, as the passes see them."""
    for s in range(25 * batch, 25 * (batch + 1)):
        program = draw(np.random.default_rng([3, SEED, s]), 4 + s % 10, f"draw([3, {SEED}, {s}])")
        leaves = program.leaves(s, SIZES)
        for x in leaves.values():
            if x.dtype.kind == "f":
                x.attach_grad()
        for i in program.states():
            leaves[i].attach_grad("null")
        compiled = compile_function(program.function(leaves))
        with autograd.record() if s % 3 else autograd.pause():
            arguments = [leaves[i] for i in program.places("argument")]
            variant = compiled.variant_for(*arguments)
        try:
            check_every_pass(variant.traced, arguments)
        except AssertionError as error:
            raise AssertionError(f"{program}\n{error}") from None
        assert len(variant.scope.guards) == len(variant.guards), f"a pass asked something about sizes\n{program}"


def test_passes_are_named() -> None:
    seen: list[str] = []
    run_passes(graph_of(lambda x: x + 1, X), lambda name, graph: seen.append(name))
    assert seen == [p.__name__ for p in PASSES]
