"""Attention in programs: one kernel for what belongs together, heads read in place, gradients, sizes, decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd
from gluonish.hybrid.program import Program

Rng = np.random.Generator


def draw(rng: Rng, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.array(rng.standard_normal(shape).astype(dtype), dtype=dtype)


def split(x: nd.NDArray, heads: int) -> nd.NDArray:
    return x.reshape((*x.shape[:2], heads, x.shape[2] // heads)).transpose((0, 2, 1, 3))


def together(x: nd.NDArray) -> nd.NDArray:
    return x.transpose((0, 2, 1, 3)).reshape((x.shape[0], x.shape[2], x.shape[1] * x.shape[3]))


def heads_of_attention(x: nd.NDArray, y: nd.NDArray, z: nd.NDArray) -> Any:
    return together(nd.attention(split(x, 3), split(y, 3), split(z, 3)))


def gradients(function: Callable[..., Any], arrays: list[nd.NDArray], head: nd.NDArray) -> list[np.ndarray]:
    for x in arrays:
        x.attach_grad()
    with autograd.record():
        out = function(*arrays)
    out.backward(head)
    return [out.asnumpy(), *(x.grad.asnumpy() for x in arrays)]


def agree(function: Callable[..., Any], arrays: list[nd.NDArray], rng: Rng, compiled: Any = None) -> Any:
    """Hybrid is eager, values and gradients; gives the compiled function."""
    compiled = compiled or gl.hybridize(function)
    head = draw(rng, *function(*arrays).shape, dtype=arrays[0].dtype.name)
    exact = arrays[0].dtype == np.float64
    for a, b in zip(gradients(function, arrays, head), gradients(compiled, arrays, head), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10 if exact else 2e-4, atol=1e-11 if exact else 2e-5)
    return compiled


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the steps of every program that is made."""
    found: list[list[str]] = []
    init = Program.__init__

    def noted(self: Program, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        found.append([step.name for step in self.main])

    monkeypatch.setattr(Program, "__init__", noted)
    return found


def test_heads_are_split_and_joined_without_copies(programs: list[list[str]], rng: Rng) -> None:
    compiled = gl.hybridize(heads_of_attention)
    arrays = [draw(rng, 2, 7, 12) for _ in range(3)]
    compiled(*arrays)
    assert programs == [["attention"]]
    agree(heads_of_attention, arrays, rng, compiled)
    assert sorted(programs[1]) == ["attention", "strided_copy"]  # the result is kept as it is, and joined
    assert programs[2] == ["attention_gradient", "attention_sum"]  # the sum is empty unless heads are few


def test_the_backward_reads_the_statistics_of_the_forward(programs: list[list[str]], rng: Rng) -> None:
    arrays = [draw(rng, 2, 3, n, 8) for n in (9, 11, 11)]
    agree(lambda q, k, v: nd.attention(q, k, v, causal=True) * 2, arrays, rng)
    forward, backward = programs
    assert forward.count("attention") == 1 and "attention" not in backward
    assert backward.count("attention_gradient") == 1


def test_only_the_gradients_that_are_wanted(rng: Rng) -> None:
    q, k, v = (draw(rng, 2, 9, 8) for _ in range(3))
    for wanted in range(3):
        arrays = [q, k, v]
        picked = arrays.pop(wanted)

        def function(x: Any, wanted: int = wanted, others: Any = tuple(arrays)) -> Any:
            rest = list(others)
            rest.insert(wanted, x)
            return nd.attention(*[a.detach() if i != wanted else a for i, a in enumerate(rest)])

        agree(function, [picked], rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [(4, 6), (6,), (2, 1, 1, 6), (1, 3, 4, 6), (3, 4, 6), (2, 1, 4, 6), (4, 1), (2, 3, 4, 6)]
)
def test_masks(shape: tuple[int, ...], dtype: str, rng: Rng) -> None:
    arrays = [draw(rng, 2, 3, n, 5, dtype=dtype) for n in (4, 6, 6)]
    allowed = nd.array(rng.random(shape) < 0.6)
    agree(lambda q, k, v: nd.attention(q, k, v, allowed), arrays, rng)
    agree(nd.attention, [*arrays, draw(rng, *shape, dtype=dtype)], rng)  # the mask wants a gradient too


def test_ranks(rng: Rng) -> None:
    for lead in [(), (5,), (2, 3), (2, 2, 3)]:
        arrays = [draw(rng, *lead, n, 5) for n in (4, 6, 6)]
        agree(lambda q, k, v: nd.attention(q, k, v, causal=True), arrays, rng)
    arrays = [draw(rng, 2, 2, 3, n, 5) for n in (4, 6, 6)]
    for shape in [(2, 1, 1, 4, 6), (1, 2, 1, 1, 6), (2, 2, 1, 4, 6), (2, 2, 3, 1, 6)]:
        agree(nd.attention, [*arrays, draw(rng, *shape)], rng)


def test_new_sizes_compile_nothing(programs: list[list[str]], rng: Rng) -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        return nd.attention(q, k, v, causal=True)

    compiled = gl.hybridize(function)
    for t, s, d in [(5, 9, 4), (70, 70, 8), (130, 300, 16), (2, 2, 33)]:
        arrays = [draw(rng, 2, 3, n, d) for n in (t, s, s)]
        np.testing.assert_allclose(compiled(*arrays).asnumpy(), function(*arrays).asnumpy(), rtol=1e-4, atol=1e-5)
    assert len(programs) == 1


@pytest.mark.parametrize("mask", [False, True])
def test_a_single_query_has_a_kernel_of_its_own(mask: bool, programs: list[list[str]], rng: Rng) -> None:
    arrays = [draw(rng, 2, 3, n, 20) for n in (1, 50, 50)]
    masks = [nd.array(rng.random((2, 1, 1, 50)) < 0.5)] if mask else []

    def function(q: Any, k: Any, v: Any) -> Any:
        return nd.attention(q, k, v, *masks, causal=True)

    compiled = gl.hybridize(function)
    np.testing.assert_allclose(compiled(*arrays).asnumpy(), function(*arrays).asnumpy(), rtol=1e-4, atol=1e-5)
    assert programs == [["attention_row"]]
    agree(function, arrays, rng)


def test_several_attentions_over_the_same_operands_stay_apart(rng: Rng) -> None:
    q, k, v, w = (draw(rng, 2, 5, 4) for _ in range(4))

    def function(q: Any, k: Any, v: Any, w: Any) -> Any:
        return nd.attention(q, k, v) + nd.attention(q, k, w) * nd.attention(q, k, v, causal=True)

    agree(function, [q, k, v, w], rng)


def test_a_result_that_is_also_read_unpermuted(rng: Rng) -> None:
    def function(x: Any, y: Any, z: Any) -> Any:
        out = nd.attention(split(x, 2), split(y, 2), split(z, 2))
        return together(out) + together(out * out.mean())

    agree(function, [draw(rng, 2, 7, 6) for _ in range(3)], rng)


def test_gradients_of_gradients(rng: Rng) -> None:
    arrays = [draw(rng, 2, 5, 4, dtype="float64") for _ in range(3)]

    def function(q: Any, k: Any, v: Any) -> Any:
        return nd.attention(q, k, v, causal=True)

    found = []
    for f in (function, gl.hybridize(function)):
        for x in arrays:
            x.attach_grad()
        with autograd.record():
            first = autograd.grad(nd.sin(f(*arrays)), arrays, create_graph=True)
            total = sum((nd.square(g) for g in first[1:]), nd.square(first[0]))
        total.backward()
        found.append([x.grad.asnumpy() for x in arrays])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11)


def test_half_width_floats_are_computed_in_float32_by_the_kernel(rng: Rng) -> None:
    arrays = [draw(rng, 3, 4).astype("float16") for _ in range(3)]
    compiled = gl.hybridize(nd.attention)
    np.testing.assert_allclose(compiled(*arrays).asnumpy(), nd.attention(*arrays).asnumpy(), rtol=2e-3, atol=1e-3)
    assert "slower: numpy" not in str(compiled.explain())


def test_errors_are_those_of_eager_calls(rng: Rng) -> None:
    arrays = [draw(rng, 3, 4), draw(rng, 3, 5), draw(rng, 3, 5)]
    for function in (nd.attention, gl.hybridize(nd.attention)):
        with pytest.raises(ValueError, match="query and key must have the same last dimension"):
            function(*arrays)


def test_weights_in_memory_are_mentioned(rng: Rng) -> None:
    arrays = [draw(rng, 2, 3, 4) for _ in range(3)]
    compiled = agree(lambda q, k, v: nd.attention(q, k, v), arrays, rng)
    assert "slower" not in compiled.explain()
    compiled = agree(lambda q, k, v, m: nd.attention(q, k, v, m), [*arrays, draw(rng, 3, 3)], rng)
    assert compiled.explain().count("slower: weights of an attention are a matrix in memory") == 1


def test_keys_that_a_block_of_queries_may_not_look_at(rng: Rng) -> None:
    """Stairs, as a cache that is not full yet shows them; at odd sizes, with queries that see nothing at all."""
    compiled = gl.hybridize(lambda q, k, v, m: nd.attention(q, k, v, m))
    for queries, keys in ((5, 61), (37, 203), (130, 77), (2, 2)):
        arrays = [draw(rng, 2, 3, n, 4) for n in (queries, keys, keys)]
        ends = np.sort(rng.integers(0, keys // 2 + 2, (2, 1, queries, 1)), axis=2)
        mask = (np.arange(keys) < ends) & (rng.random((2, 1, queries, keys)) < 0.9)
        arrays[2][:, :, keys // 2 + 1 :] = np.nan if keys > 50 else 0.0  # never read
        found = compiled(*arrays, nd.array(mask)).asnumpy()
        arrays[2][:, :, keys // 2 + 1 :] = 0.0
        wanted = nd.attention(*arrays, nd.array(mask)).asnumpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
