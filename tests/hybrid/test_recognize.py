"""Attention written out by hand: what becomes the fused op, what must not, and that values and gradients stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hybrid.traces import computed, graph_of, leaves_of, names

from gluonish import autograd, nd
from gluonish.hybrid import compile_function
from gluonish.hybrid.graph import Node, verify
from gluonish.hybrid.passes import run_passes
from gluonish.hybrid.passes.recognize import recognize

INF = float("inf")


def T(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def hand(s: Any) -> Any:
    e = nd.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def causal(s: Any) -> Any:
    t, u = s.shape[-2:]
    return nd.arange(t).reshape((-1, 1)) >= nd.arange(u)


def split(x: Any, *axes: int) -> Any:
    return nd.permute_dims(x.reshape((*x.shape[:2], 3, 4)), *axes)


def heads(x: Any, k: Any, v: Any) -> Any:
    q, key, value = split(x, 0, 2, 1, 3), split(k, 0, 2, 3, 1), split(v, 0, 2, 1, 3)  # key: transposed at once
    return nd.permute_dims(hand((q * 0.5) @ key) @ value, 0, 2, 1, 3).reshape(x.shape)


def self_attention(x: Any, k: Any, v: Any) -> Any:
    s = x @ T(x) / x.shape[-1] ** 0.5
    return hand(nd.where(causal(s), s, -INF)) @ x + k * v


LOOK = np.tri(5, dtype=np.float32)
ADDED = np.where(LOOK > 0, 0, -np.inf).astype(np.float32)

FOUND: dict[str, tuple[Callable[..., Any], tuple[int, ...], int, bool]] = {  # function, shape, masks, causal
    "plain": (lambda q, k, v: hand(q @ T(k) / 2.0) @ v, (2, 3, 5, 4), 0, False),
    "of one query": (lambda q, k, v: hand(q[:, :1] @ T(k) / 2.0) @ v, (2, 5, 4), 0, False),
    "of two dimensions": (lambda q, k, v: nd.softmax(0.3 * (q @ T(k))) @ v, (5, 4), 0, False),
    "without a scale": (lambda q, k, v: nd.softmax(q @ T(k), -1) @ v, (2, 5, 4), 0, False),
    "scaled before, heads": (heads, (2, 5, 12), 0, False),
    "causal": (self_attention, (2, 5, 4), 0, True),
    "causal, places of keys first": (
        lambda q, k, v: (
            hand(nd.where(nd.arange(5) > nd.arange(5).reshape((5, 1)), -INF, q.reshape((2, 5, 4)) @ T(q))) @ q
        ),
        (2, 5, 4),
        0,
        True,
    ),
    "causal by adding": (lambda q, k, v: hand(q @ T(k) * 0.5 + nd.array(ADDED)) @ v, (2, 3, 5, 4), 1, False),
    "adding first": (lambda q, k, v: hand(nd.array(ADDED) + q @ T(k) / 2) @ v, (2, 3, 5, 4), 1, False),
    "hidden": (lambda q, k, v: hand(nd.where(nd.array(LOOK) == 0, -INF, q @ T(k))) @ v, (2, 3, 5, 4), 1, False),
    "scaled behind the mask": (lambda q, k, v: hand(nd.where(nd.array(LOOK) > 0, q @ T(k), -INF) * 0.3) @ v,
                               (3, 5, 4), 1, False),
    "an offset causal mask is a mask": (
        lambda q, k, v: hand(nd.where(nd.arange(1, 6).reshape((5, 1)) >= nd.arange(5), q @ T(k), -INF)) @ v,
        (2, 5, 4), 1, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_attention_written_out_is_recognised(name: str, rng: np.random.Generator) -> None:
    function, shape, masks, is_causal = FOUND[name]
    arrays = [nd.array(rng.standard_normal(shape).astype(np.float32)) for _ in range(3)]
    graph = graph_of(function, *arrays)
    after = verify(recognize(graph))
    values = leaves_of(graph, rng)
    assert np.allclose(computed(graph, values)[0], computed(after, values)[0], 1e-5, 1e-6)
    node = next(n for n in after.nodes() if n.is_op("attention"))
    assert (len(node.inputs), node.attrs["causal"]) == (3 + masks, is_causal)
    assert "exp" not in names(after)
    check_gradients(function, arrays, recognised=True)


def check_gradients(function: Callable[..., Any], arrays: list[nd.NDArray], recognised: bool) -> None:
    found = []
    compiled = compile_function(function)
    for run in (function, compiled):
        leaves = [x.copy() for x in arrays]
        for x in leaves:
            x.attach_grad()
        with autograd.record():
            y = run(*leaves)
            loss = (y * nd.sin(y)).sum()
        loss.backward()
        found.append([y, *(x.grad for x in leaves)])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert np.allclose(a._data, b._data, 1e-4, 1e-5)
    variant = compiled.variant_for(*leaves)
    seen = [n for v in compiled.variants for n in names(v.traced)]
    assert ("attention_key_gradient" in seen or "attention_value_gradient" in seen) == recognised, variant.traced
    for node in (n for v in compiled.variants for n in v.traced.nodes()):  # the passes walk one and read the other
        assert [id(p) for p in node.parents] == [id(x) for x in node.inputs if isinstance(x, Node)], node


MISSED: dict[str, Callable[..., Any]] = {
    "softmax over queries": lambda q, k, v: nd.softmax(q @ T(k), -2) @ v,
    "weights are a result too": lambda q, k, v: (lambda w: w.sum() + (w @ v).sum())(hand(q @ T(k))),
    "scores are read elsewhere": lambda q, k, v: (lambda s: hand(s) @ v + s.sum())(q @ T(k)),
    "no maximum": lambda q, k, v: (lambda e: (e / e.sum(-1, keepdims=True)) @ v)(nd.exp(q @ T(k))),
    "the sum of others": lambda q, k, v: (lambda e: (e / (2 * e).sum(-1, keepdims=True)) @ v)(
        (lambda s: nd.exp(s - s.max(-1, keepdims=True)))(q @ T(k))
    ),
    "the maximum of others": lambda q, k, v: (
        lambda s, e: (e(s) / e(s).sum(-1, keepdims=True)) @ v)(
        q @ T(k), lambda s: nd.exp(s - (s * 2).max(-1, keepdims=True))
    ),
    "a scale per query": lambda q, k, v: hand(q @ T(k) * q.sum(-1, keepdims=True)) @ v,
    "scaled with what was added": lambda q, k, v: hand((q @ T(k) + nd.array(ADDED[:5, :5])) * 0.5) @ v,
    "masked by a number": lambda q, k, v: hand(nd.where(nd.array(LOOK) > 0, q @ T(k), -1e9)) @ v,
    "masked above": lambda q, k, v: hand(nd.where(nd.array(LOOK) > 0, q @ T(k), INF)) @ v,
    "negated behind the mask": lambda q, k, v: hand(nd.where(nd.array(LOOK) > 0, q @ T(k), INF) * -1) @ v,
    "something else between": lambda q, k, v: hand(nd.tanh(q @ T(k))) @ v,
    "weights changed": lambda q, k, v: (hand(q @ T(k)) * 2) @ v,
}  # fmt: skip


@pytest.mark.parametrize("name", MISSED)
def test_near_misses_stay(name: str, rng: np.random.Generator) -> None:
    arrays = [nd.array(rng.standard_normal((2, 5, 4)).astype(np.float32)) for _ in range(3)]
    assert "attention" not in names(run_passes(graph_of(MISSED[name], *arrays)))


DETACHED: dict[str, Callable[..., Any]] = {
    "scores": lambda q, k, v: hand((q @ T(k)).detach()) @ v,
    "weights": lambda q, k, v: hand(q @ T(k)).detach() @ v,
    "powers": lambda q, k, v: (lambda e: (e / e.sum(-1, keepdims=True).detach()) @ v)(
        (lambda s: nd.exp(s - s.max(-1, keepdims=True)))(q @ T(k))
    ),
    "a value that is a query": lambda q, k, v: hand(q @ T(k)) @ q.detach() + v,
    "a mask with a gradient": lambda q, k, v: hand(q @ T(k) + v.sum(-1, keepdims=True)) @ v,
}


@pytest.mark.parametrize("name", DETACHED)
def test_gradients_flow_as_they_did(name: str, rng: np.random.Generator) -> None:
    arrays = [nd.array(rng.standard_normal((2, 5, 4)).astype(np.float32)) for _ in range(3)]
    check_gradients(DETACHED[name], arrays, recognised=False)


def test_a_detached_key_gets_no_gradient(rng: np.random.Generator) -> None:
    arrays = [nd.array(rng.standard_normal((2, 5, 4)).astype(np.float32)) for _ in range(3)]
    check_gradients(lambda q, k, v: hand(q @ T(q.detach())) @ q + k * v, arrays, recognised=True)


def test_rows_without_a_finite_score_give_nan(rng: np.random.Generator) -> None:
    """As the ops written out do; the op itself gives zeros where nothing may be looked at."""

    def function(q: Any, k: Any, v: Any, m: Any) -> Any:
        return hand(nd.where(m, q @ T(k), -INF)) @ v

    q, k, v = (rng.standard_normal((6, 4)).astype(np.float32) for _ in range(3))
    look = rng.random((6, 6)) < 0.6
    np.fill_diagonal(look, True)
    look[1] = False
    q[2], q[3, 0], k[:, 0] = np.nan, np.inf, -np.abs(k[:, 0])  # query 3: every score is -Inf
    arrays = [nd.array(x) for x in (q, k, v, look)]
    compiled = compile_function(function)
    with np.errstate(all="ignore"):
        wanted, found = function(*arrays)._data, compiled(*arrays)._data
    assert "attention" in names(compiled.graph(*arrays))
    assert np.isnan(wanted[1:4]).all() and np.isfinite(wanted[[0, 4, 5]]).all()
    assert np.allclose(wanted, found, 1e-5, 1e-6, equal_nan=True)


def test_products_that_a_guard_makes_equal_are_one_size(rng: np.random.Generator) -> None:
    def function(a: Any, b: Any) -> Any:
        a, b = (x.reshape((x.shape[0] * x.shape[1], x.shape[2])) for x in (a, b))
        return nd.softmax(a * b) * (a - b)

    a, b = (nd.array(rng.standard_normal(s).astype(np.float32)) for s in ((6, 4, 5), (3, 8, 5)))
    compiled = compile_function(function)
    assert np.allclose(compiled(a, b)._data, function(a, b)._data, 1e-5, 1e-6)
    assert len(compiled.kernels(a, b)) == 1, compiled.graph(a, b)
    c, d = a.reshape((10, 6, 2)), b.reshape((4, 15, 2))
    assert np.allclose(compiled(c, d)._data, function(c, d)._data, 1e-5, 1e-6)
    assert len(compiled.variants) == 1
    with pytest.raises(ValueError, match="reshape|shape|broadcast"):
        compiled(a, b[:2])


def test_cubes_are_products(rng: np.random.Generator) -> None:
    x = nd.array(np.concatenate([rng.standard_normal(9), [0.0, -0.0, np.inf, -np.inf, np.nan, 1e20, -1e-20]]))
    for dtype in ("float32", "float64"):
        graph = graph_of(lambda x: x**3, x.astype(dtype))
        after = verify(recognize(graph))
        assert names(after) == ["square", "multiply"]
        values = {id(graph.inputs[0]): x.astype(dtype)._data}
        before, now = computed(graph, values)[0], computed(after, values)[0]
        assert np.allclose(before, now, 3e-7 if dtype == "float32" else 1e-15, 0, equal_nan=True)
        assert np.array_equal(np.signbit(before[:-3]), np.signbit(now[:-3]))
    assert names(recognize(graph_of(lambda x: x**3.5, x))) == ["power"]


def attend(q: Any, k: Any, v: Any) -> Any:
    return hand(nd.where(causal(q @ T(k)), q @ T(k) * 0.5, -INF)) @ v


def in_a_loop(q: Any, k: Any, v: Any) -> Any:
    outs, last = nd.foreach(lambda row, state: (attend(state * row, k, v), attend(state, k, state)), q, v)
    return (outs * outs).sum() + (last * nd.sin(last)).sum()


def in_a_branch(q: Any, k: Any, v: Any) -> Any:
    y = nd.cond(q.sum() > k.sum(), lambda: attend(q, k, v), lambda: attend(k, q, v) * 2)
    return (y * nd.sin(y)).sum()


def plain_step(q: Any, k: Any, v: Any) -> Any:
    y = attend(q, k, v)
    return (y * nd.sin(y)).sum()


def body_names(graph: Any) -> set[str]:
    """The ops of a graph, those of its loops and branches included."""
    found = set(names(graph))
    for node in graph.nodes():
        for body in node.attrs.values():
            if hasattr(body, "graph"):
                found |= body_names(body.graph)
    return found


@pytest.mark.parametrize("function", [plain_step, in_a_loop, in_a_branch])
def test_attention_within_whole_steps(function: Callable[..., Any], rng: np.random.Generator) -> None:
    """A `backward()` inside what is compiled, loops and branches: values and gradients are those of an eager run."""
    arrays = [nd.array(rng.standard_normal((5, 4)).astype(np.float32)) for _ in range(3)]

    def step(*leaves: Any) -> Any:
        with autograd.record():
            loss = function(*leaves)
        loss.backward()
        return loss

    found = []
    compiled = compile_function(step)
    for run in (step, compiled):
        leaves = [x.copy() for x in arrays]
        for x in leaves:
            x.attach_grad()
        found.append([run(*leaves), *(x.grad for x in leaves)])
    for a, b in zip(*found, strict=True):
        assert np.allclose(a._data, b._data, 1e-4, 1e-5)
    seen = body_names(compiled.variant_for(*leaves).traced)
    assert {"attention", "attention_query_gradient", "attention_value_gradient"} <= seen
    assert "exp" not in seen


def test_what_grad_asks_for_stays(rng: np.random.Generator) -> None:
    """The gradient of the scores themselves, and of a gradient."""

    def of_scores(q: Any, k: Any, v: Any) -> Any:
        with autograd.record():
            s = q @ T(k)
            y = hand(s) @ v
        return autograd.grad(y, s, y)

    def twice(q: Any, k: Any, v: Any) -> Any:
        with autograd.record():
            y = hand(q @ T(k)) @ v
            (slope,) = autograd.grad(y, [q], create_graph=True)
            loss = (slope * slope).sum()
        loss.backward()
        return q.grad + k.grad

    for function in (of_scores, twice):
        found = []
        for run in (function, compile_function(function)):
            leaves = [nd.array(x) for x in np.random.default_rng(3).standard_normal((3, 5, 4)).astype(np.float32)]
            for x in leaves:
                x.attach_grad()
            found.append(run(*leaves)._data)
        assert np.allclose(*found, 1e-4, 1e-5)
