"""A compiled call is the eager call: nested arguments and results, sizes, dtypes, layouts; kernels are made once."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd
from gluonish.hybrid import CompiledFunction, hybridize
from gluonish.kernels import compile as kernel_compiler

Pair = namedtuple("Pair", "left right")


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.asarray(rng.standard_normal(shape)).astype(dtype))


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [(k, x) for k, v in value.items() for x in leaves(v)]
    if isinstance(value, (list, tuple)):
        return [(type(value), x) for v in value for x in leaves(v)]
    return [value]


def same(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    """Equal structures, shapes and dtypes, and values up to rounding."""
    if isinstance(a, nd.NDArray):
        a, b = a.asnumpy(), b.asnumpy()
        return (a.shape, a.dtype) == (b.shape, b.dtype) and np.allclose(a, b, tolerance, tolerance, equal_nan=True)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k], tolerance) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b))
    return type(a) is type(b) and a == b


def check(function: Callable[..., Any], *args: Any, **kwargs: Any) -> CompiledFunction:
    """Compiles, compares one call with eager, gives the compiled function."""
    compiled = hybridize(function)
    nd.random.seed(5)
    eager = function(*args, **kwargs)
    nd.random.seed(5)
    hybrid = compiled(*args, **kwargs)
    assert same(eager, hybrid), f"eager {eager}, hybrid {hybrid}"
    return compiled


# --- structure --------------------------------------------------------------------------------------------------------
def test_nested_arguments_and_results(rng: np.random.Generator) -> None:
    def function(batch: Any, scale: Any = None, *, options: Any = None) -> Any:
        x, (y, z) = batch["x"], batch["more"]
        out = x + y if z is None else x - y * z
        if scale is not None:
            out = out * scale
        return {"out": out, "parts": [x * 2, (y, None)], "pair": Pair(out, "text"), "n": 3, "options": options}

    x, y, z = (floats(rng, 3, 4) for _ in range(3))
    compiled = check(function, {"x": x, "more": [y, z]}, x)
    for args, kwargs in (
        (({"x": x, "more": (y, None)},), {}),
        (({"x": x, "more": (y, None)},), {"scale": z}),
        (({"x": x, "more": [y, z]}, 2.5), {"options": ("a", 1)}),
        (({"x": x, "more": [y, z]}, 2), {"options": ("a", 1)}),
        ((), {"batch": {"x": x, "more": [y, z]}}),
    ):
        assert same(function(*args, **kwargs), compiled(*args, **kwargs))
    assert len(compiled.variants) == 6
    compiled({"x": y, "more": (y, None)})
    assert len(compiled.variants) == 6


def test_results_of_every_kind(rng: np.random.Generator) -> None:
    constant = floats(rng, 2, 3)
    x = floats(rng, 2, 3)
    for function in (
        lambda x: x,
        lambda x: (x, x, x * 1),
        lambda x: constant,
        lambda x: (constant, x + constant, constant),
        lambda x: None,
        lambda x: (),
        lambda x: [None, 7, "seven", x.reshape((3, 2)), x.reshape((6,))],
        lambda x: nd.ones((2, 2)),
        lambda x: (x.swapaxes(0, 1), x[0], x[:, 1]),
        lambda x: (x.shape, x.shape[0] * 2, x.ndim, x * x.shape[1]),
    ):
        check(function, x)


def test_without_arguments() -> None:
    state = nd.array([1.0, 2.0])
    compiled = check(lambda: state * 2)
    state[:] = 5
    assert compiled().tolist() == [10, 10]


def test_a_result_is_memory_of_its_own(rng: np.random.Generator) -> None:
    x, captured = floats(rng, 3), floats(rng, 3)
    compiled = hybridize(lambda x: (x, captured, x + 0.0, x * 2))
    first = compiled(x)
    before = [r.asnumpy() for r in first]
    for r in compiled(floats(rng, 3)):
        r[:] = 99
    assert all(np.array_equal(a, b.asnumpy()) for a, b in zip(before, first))
    first[0][:] = 7
    first[1][:] = 7
    assert not (x == 7).any().item() and not (captured == 7).any().item()


def test_results_outlive_the_function_and_views_of_them_stay(rng: np.random.Generator) -> None:
    x = floats(rng, 4, 4)
    compiled = hybridize(lambda x: nd.exp(x))
    kept = []
    for _ in range(6):
        out = compiled(x)
        kept.append((out[1:3], out._data[0], out.asnumpy()))  # the view holds the memory, not the array
        del out
        x = x + 1
    for view, row, values in kept:
        assert np.array_equal(view.asnumpy(), values[1:3]) and np.array_equal(row, values[0])


def test_large_results_that_somebody_still_sees_are_not_written_over(rng: np.random.Generator) -> None:
    """Their memory is used again, but only when nobody refers to it."""
    x = floats(rng, 600, 500)
    compiled = hybridize(lambda x: x * 2 + 1)
    first = compiled(x)
    wanted = first.asnumpy()
    view, raw, buffer = first[5:7], first._data[::2].T, memoryview(first._data)
    for kept in ("array", "view", "raw", "buffer", "tape"):
        compiled(x + 1)
        compiled(x + 2)
        if kept == "array":
            assert np.array_equal(first.asnumpy(), wanted)
            del first
        elif kept == "view":
            assert np.array_equal(view.asnumpy(), wanted[5:7])
            del view
        elif kept == "raw":
            assert np.array_equal(raw, wanted[::2].T)
            del raw
        elif kept == "buffer":
            assert np.array_equal(np.asarray(buffer), wanted)
            del buffer
    x.attach_grad()
    with autograd.record():
        y = nd.square(compiled(x))  # only the tape holds what was squared
    compiled(x + 3)
    y.backward()
    assert np.allclose(x.grad.asnumpy(), (x.asnumpy() * 2 + 1) * 4, rtol=1e-5)


def test_numpy_arrays_are_taken_as_arrays() -> None:
    compiled = hybridize(lambda x, y: x * 2 + y)
    for _ in range(2):
        assert compiled(np.ones(3, np.float32), nd.ones((3,))).tolist() == [3, 3, 3]
    assert len(compiled.variants) == 1


def test_a_value_that_may_change_is_no_argument() -> None:
    with pytest.raises(TypeError, match=r"not a set.*test_calls\.py"):
        hybridize(lambda x, s: x)(nd.ones((2,)), {1, 2})


def test_numbers_that_compare_equal_are_told_apart(rng: np.random.Generator) -> None:
    compiled = hybridize(lambda x, n: x / n)
    x = nd.ones((2,))
    assert compiled(x, 0.0).tolist() == [np.inf, np.inf]
    assert compiled(x, -0.0).tolist() == [-np.inf, -np.inf]
    assert compiled(x.astype("int32"), 1).dtype == np.float32 and compiled(x, True).tolist() == [1, 1]


# --- sizes, layouts, dtypes -------------------------------------------------------------------------------------------
SHAPES = [(), (1,), (5,), (0,), (3, 0), (0, 3), (1, 1), (2, 3, 4), (7, 1, 5), (1, 17), (33, 65)]


def smooth(x: nd.NDArray) -> Any:
    y = nd.tanh(x * 2 + 1) - x
    return y, y.sum(), (y * y).mean(0) if y.ndim else y, y.sum(-1, keepdims=True) if y.ndim else y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_shape(rng: np.random.Generator, dtype: str) -> None:
    for shape in SHAPES:
        check(smooth, floats(rng, *shape, dtype=dtype))


def test_double_precision_is_kept(rng: np.random.Generator) -> None:
    x = floats(rng, 50, 20, dtype="float64")
    compiled = hybridize(lambda x: (nd.exp(x) * 0.1).sum(1) + x.mean(1))
    assert same((nd.exp(x) * 0.1).sum(1) + x.mean(1), compiled(x), 1e-13)


def test_new_sizes_compile_no_kernel(rng: np.random.Generator) -> None:
    w, b = floats(rng, 6, 3), floats(rng, 3)

    def function(x: nd.NDArray) -> Any:
        h = nd.relu(x @ w + b)
        return nd.softmax(h), h.sum(), h.mean(0), nd.concat([h, h]), h[1:], h.reshape((-1,)) / h.shape[0]

    compiled = hybridize(function)
    compiled(floats(rng, 4, 6))
    known = len(kernel_compiler._addresses)
    for batch in (5, 2, 64, 1001):
        x = floats(rng, batch, 6)
        assert same(function(x), compiled(x), 1e-4)
    assert len(compiled.variants) == 1 and len(kernel_compiler._addresses) == known
    for batch in (0, 1):  # h[1:] is empty
        x = floats(rng, batch, 6)
        assert same(function(x), compiled(x), 1e-4)
    assert len(compiled.variants) == 3


def test_one_is_a_size_like_others_until_something_broadcasts_because_of_it(rng: np.random.Generator) -> None:
    w = floats(rng, 6, 3)

    def layer(x: nd.NDArray, mask: nd.NDArray) -> nd.NDArray:
        h = nd.softmax(x @ w) * mask
        h = h - h.mean(0) + nd.concat([h, h])[:, :1].sum()
        return nd.squeeze(h.reshape((-1, 1)) * h.sum(), 1)

    def product(x: nd.NDArray, y: nd.NDArray) -> nd.NDArray:
        return x * y + w[0]

    def gradients(function: Any, x: nd.NDArray, y: nd.NDArray) -> list[nd.NDArray]:
        w.attach_grad(), x.attach_grad(), y.attach_grad()
        with autograd.record():
            out = function(x, y)
        out.backward()
        return [nd.array(out), *(nd.array(z.grad) for z in (w, x, y))]

    def compare(function: Any, columns: int, rows: list[tuple[int, int]]) -> int:
        compiled = hybridize(function)
        for left, right in rows:
            x, y = floats(rng, left, 6), floats(rng, right, columns)
            assert same(gradients(function, x, y), gradients(compiled, x, y), 1e-4)
        return len(compiled.variants)

    assert compare(layer, 1, [(1, 1), (7, 7), (1, 1), (2, 2)]) == 1
    w = floats(rng, 6, 6)
    assert compare(product, 6, [(1, 7), (1, 2), (5, 1), (1, 1), (4, 4)]) == 3


def test_new_sizes_of_a_training_step_compile_no_kernel(rng: np.random.Generator) -> None:
    w = floats(rng, 6, 3)
    w.attach_grad()

    def loss(x: nd.NDArray, y: nd.NDArray) -> nd.NDArray:
        return -nd.log_softmax(x @ w).pick(y).mean()

    compiled = hybridize(loss)
    known = 0
    for number, batch in enumerate((4, 9, 2)):
        x, y = floats(rng, batch, 6), nd.NDArray(rng.integers(0, 3, batch))
        gradients = []
        for function in (loss, compiled):
            with autograd.record():
                out = function(x, y)
            out.backward()
            gradients.append(w.grad.asnumpy())
        assert np.allclose(*gradients, rtol=1e-4, atol=1e-6)
        if number:
            assert len(kernel_compiler._addresses) == known
        known = len(kernel_compiler._addresses)
    assert len(compiled.variants) == 1


def test_views_as_arguments_and_captured(rng: np.random.Generator) -> None:
    base = floats(rng, 6, 8)
    captured = base[:, ::2]
    compiled = check(lambda x: x * captured + captured.sum(), base[:, 1::2])
    base[:] = floats(rng, 6, 8)  # the captured view sees it
    x = base.swapaxes(0, 1)[:4].swapaxes(0, 1)
    assert same(x * captured + captured.sum(), compiled(x))
    flipped = base[::-1, 4:]
    assert same(flipped * captured + captured.sum(), compiled(flipped))
    with pytest.raises(ValueError, match="broadcast"):
        compiled(base[:3, :4])


def test_the_same_array_as_several_arguments(rng: np.random.Generator) -> None:
    x = floats(rng, 3, 3)
    compiled = check(lambda a, b: a * 2 + b, x, x)
    y = floats(rng, 3, 3)
    assert same(x * 2 + y, compiled(x, y)) and len(compiled.variants) == 1


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float64"])
def test_dtypes(rng: np.random.Generator, dtype: str) -> None:
    x = nd.NDArray(rng.integers(0, 5, (3, 4)).astype(dtype))

    def function(x: nd.NDArray) -> Any:
        return x + 1, x * x, x > 2, x.sum(0), x.max(1), x / 2, nd.where(x != 0, x, 0), x.mean(), x.argmax(1), x == x[0]

    check(function, x)


def test_integers_out_of_range(rng: np.random.Generator) -> None:
    labels = nd.NDArray(np.array([0, 255, 7], np.uint8))
    check(lambda x: (x != -1, x == 255, x < 256, x > -1), labels)
    for function in (lambda x: x + 300, lambda x: x * -1):
        for run in (function, hybridize(function)):
            with pytest.raises(OverflowError, match=r"out of bounds for uint8.*test_calls\.py"):
                run(labels)


def test_arange_is_exact() -> None:
    x = nd.ones((7,))
    check(lambda x: x * nd.arange(0, 0.7, 0.1), x)
    for function in (
        lambda x: nd.arange(0.5, 1.15, 0.1) * x,
        lambda x: nd.arange(2**24 - 3, 2**24 + 4, dtype="float32"),
        lambda x: nd.arange(x.shape[0] - 1, -1, -1),
    ):
        assert np.array_equal(function(x).asnumpy(), hybridize(function)(x).asnumpy())


def test_long_chains(rng: np.random.Generator) -> None:
    def chain(x: nd.NDArray) -> nd.NDArray:
        for _ in range(700):
            x = x * 0.99 + 0.01
        return x

    check(lambda x: (chain(x), chain(x).sum(0)), floats(rng, 3, 4))

    def doubling(x: nd.NDArray) -> nd.NDArray:
        for _ in range(40):
            x = x * x - x
        return x

    check(doubling, nd.array(0.3))


# --- random numbers ---------------------------------------------------------------------------------------------------
def test_random_numbers_have_the_eager_bits() -> None:
    def function(x: nd.NDArray) -> Any:
        a = nd.random.uniform(shape=x.shape)
        b = nd.dropout(x, 0.4)
        n = nd.random.normal(shape=(3, 5))
        return (
            a,
            b,
            n,
            nd.random.uniform(2, 3, (x.shape[0] + 1,)),
            nd.random.randint(0, 10, (7,)),
            a.sum(),
            b.mean(0),
            n.sum(1),
        )

    compiled = hybridize(function)
    for shape in ((4, 5), (3, 7), (2, 2)):
        x = nd.ones(shape)
        nd.random.seed(11)
        eager = [function(x) for _ in range(2)]
        after = nd.random.uniform(shape=3)
        nd.random.seed(11)
        hybrid = [compiled(x) for _ in range(2)]
        assert nd.random.uniform(shape=3).tolist() == after.tolist()
        for a, b in zip(eager, hybrid):
            assert all(
                np.array_equal(s.asnumpy(), t.asnumpy())
                for s, t in zip((a[0], a[1], a[3], a[4]), (b[0], b[1], b[3], b[4]))
            )
            assert same(a, b, 1e-4)
    assert len(compiled.variants) == 1


def test_random_numbers_in_reductions_over_any_axes() -> None:
    for shape, axis in (
        ((2, 3, 4, 5), (2, 3)),
        ((4, 5), None),
        ((3, 4, 5), 0),
        ((3, 4, 5), (0, 2)),
        ((3, 4, 5), 1),
        ((6,), None),
    ):
        check(lambda x, shape=shape, axis=axis: nd.random.uniform(shape=shape).sum(axis), nd.ones((1,)))
