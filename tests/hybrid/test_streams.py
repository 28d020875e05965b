"""Outputs that bypass the caches, outputs whose memory is used again, random numbers made in vectors: not a bit of a
result depends on any of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd
from gluonish.hybrid import hybridize
from gluonish.kernels import streams
from gluonish.kernels.pointers import address_of

Function = Callable[[nd.NDArray], Any]


def along_row(x: Any) -> Any:
    return nd.arange(x.shape[-1]).astype(x.dtype) * x + 1


FUNCTIONS: dict[str, Function] = {
    "chain": lambda x: nd.tanh(x) * 2 + x,
    "row broadcast": along_row,
    "three results": lambda x: (x + 1, x * 2, nd.abs(x)),
    "more results than are streamed": lambda x: (x + 1, x * 2, nd.abs(x), -x),
    "softmax": lambda x: nd.softmax(x),
    "two rows": lambda x: (nd.softmax(x), x - x.max(-1, keepdims=True)),
    "narrow results": lambda x: (x > 0, x.astype("uint8"), x * 2),
    "whole numbers": lambda x: (x * 100).astype("int32"),
    "wide results": lambda x: x.astype("float64") + x.sum(-1, keepdims=True),
}


def values(results: Any) -> list[np.ndarray]:
    return [x.asnumpy().copy() for x in (results if isinstance(results, tuple) else (results,))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_streamed_results_are_the_same_bits(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = [
        nd.NDArray(rng.standard_normal(shape).astype(np.float32)[..., :length])
        for shape, length in (((3, 1040), 1031), ((40, 16), 16), ((2, 9001), 9001), ((0, 700), 700), ((1, 513), 513))
    ]
    wanted = [values(hybridize(FUNCTIONS[name])(x)) for x in arrays]
    monkeypatch.setattr(streams, "least", lambda: 64)
    streamed = hybridize(FUNCTIONS[name])
    for x, expected in zip(arrays, wanted):
        before = x.asnumpy().copy()
        for found, exact in zip(values(streamed(x)), expected, strict=True):
            assert found.dtype == exact.dtype and found.tobytes() == exact.tobytes()
        assert np.array_equal(x.asnumpy(), before)
    assert any("stream(" in k.source for k in streamed.kernels(arrays[0])) == (
        len(wanted[0]) < 4 and "narrow" not in name
    )


def test_a_streamed_result_in_place(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "least", lambda: 64)
    state = nd.NDArray(rng.standard_normal(5003).astype(np.float32))
    begun = state.asnumpy().copy()

    def step(x: Any) -> Any:
        state[:] = state * 2 + x
        return state.sum()

    hybridize(step)(nd.ones(5003))
    assert np.array_equal(state.asnumpy(), begun * 2 + 1)


def test_the_size_of_the_largest_cache_is_a_size() -> None:
    assert 1 << 25 <= streams.least() < 1 << 34


@pytest.mark.parametrize("shape", [(1,), (3,), (1023,), (1025,), (4097,), (7, 1030), (3, 1), (5, 0), (2, 3, 517)])
def test_random_numbers_have_the_eager_bits_at_any_length(shape: tuple[int, ...]) -> None:
    function = lambda x: nd.dropout(x, 0.3) + nd.random.uniform(shape=x.shape)  # noqa: E731
    x = nd.ones(shape)
    nd.random.seed(9)
    nd.random.uniform(shape=(5,))
    eager = function(x).asnumpy()
    nd.random.seed(9)
    nd.random.uniform(shape=(5,))
    assert hybridize(function)(x).asnumpy().tobytes() == eager.tobytes()


def test_results_that_are_held_stay_and_their_memory_takes_turns() -> None:
    double = hybridize(lambda x: x * 2)
    x = nd.ones(200_000)
    held = [double(x * float(k)) for k in range(5)]
    assert [y.asnumpy()[0] for y in held] == [0, 2, 4, 6, 8]
    views = [double(x * 7.0)[3:9] for _ in range(4)]
    assert all((v.asnumpy() == 14).all() for v in views)
    del held, views
    places = set()
    for _ in range(6):
        kept = double(x)
        places.add(address_of(kept._data))
    assert len(places) == 2


def test_gradients_take_turns_too(rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.standard_normal((500, 400)).astype(np.float32))
    x.attach_grad()
    function = hybridize(lambda a: a * a)
    places = set()
    for k in range(1, 7):
        with autograd.record():
            y = function(x) * float(k)
        y.backward()
        assert np.allclose(x.grad.asnumpy(), 2 * k * x.asnumpy(), rtol=1e-6)
        places.add(address_of(x.grad._data))
    assert len(places) == 2


def test_one_sum_in_two_shapes_is_one_sum(rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.standard_normal((40, 6)).astype(np.float32))
    function = lambda a: (a.sum(0, keepdims=True) * 2, a.sum(0) + 1, a - a.sum(0, keepdims=True))  # noqa: E731
    steps = hybridize(function).kernels(x)
    assert sum(k.source.count("_fold") > 0 and "columns" in k.name for k in steps) >= 1
    assert sum(len(k.step.writes) for k in steps if k.name.startswith("columns")) == 1
    for found, exact in zip(
        values(hybridize(function)(x)), values(function(nd.NDArray(x.asnumpy().astype("float64"))))
    ):
        assert np.allclose(found, exact, atol=1e-4)


# --- positions in chunks ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, axis", [((300_001,), 0), ((2, 131_100), 1), ((3, 40_007, 3), 1), ((90_001, 2), 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_positions_of_extremes_in_chunks(
    shape: tuple[int, ...], axis: int, dtype: str, rng: np.random.Generator
) -> None:
    plain = rng.standard_normal(shape) * 50
    kinds = [plain, np.sign(plain), np.minimum(np.sign(plain), -0.0)]
    if dtype != "int32":
        kinds += [np.where(plain < 120, plain, np.nan), np.full(shape, -np.inf), np.full(shape, np.nan)]
    for name in ("argmax", "argmin"):
        compiled = hybridize(lambda a, name=name: getattr(nd, name)(a, axis))
        for x in kinds:
            x = x.astype(dtype)
            assert np.array_equal(compiled(nd.NDArray(x)).asnumpy(), getattr(np, name)(x, axis)), name
