"""Writes inside compiled functions: to computed arrays, to arguments, to gradients; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd
from gluonish.hybrid import hybridize
from gluonish.hybrid.graph import TraceError


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(rng.standard_normal(shape).astype(dtype))


def two_names(x: Any) -> Any:
    y = x * 2
    z = y
    y += 1
    return z, y * z


def whole(x: Any) -> Any:
    y = x.exp()
    z = y
    y[:] = x[0]
    y *= 0.5
    return y, z


def twice(x: Any) -> Any:
    y = x + 1
    kept = y * 1
    y[...] = 3
    y[:] = y + x
    return kept, y


def argument(x: Any) -> Any:
    y = x * 3
    x += 1
    return x * y


def argument_assigned(x: Any) -> Any:
    x[:] = x.square()
    x -= 2
    return None


def value_then_changed(x: Any) -> Any:
    y = x * 2
    z = x * 3
    y[:] = z  # a copy: what happens to z later does not matter
    z += 1
    return y, z


def a_view_written(x: Any) -> Any:
    y = (x * 2).reshape((-1,))
    y += 1
    return y


def parts(x: Any) -> Any:
    y = x * 2
    z = y
    y[0] = 1
    y[-1:, ::2] = x[:1, :2]
    y[..., 3] += 1
    y[:0] = 7
    y[:, None, 1] = 5
    return y, z


def parts_by_arrays(x: Any) -> Any:
    y = x * 2
    y[y < 0] = 0
    y[[0, -1, 0]] = x[0]
    y[x[:, 0] > 0.5] = x[0] * 3
    return y


def part_of_an_argument(x: Any) -> Any:
    x[1:, 0] = 4
    x[-1] = x[0] * 2
    return x * 1


@pytest.mark.parametrize(
    "function",
    [
        two_names,
        whole,
        twice,
        argument,
        argument_assigned,
        value_then_changed,
        a_view_written,
        parts,
        parts_by_arrays,
        part_of_an_argument,
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_as_in_eager_mode(function: Callable[[Any], Any], dtype: str, rng: np.random.Generator) -> None:
    compiled = hybridize(function)
    for rows in (3, 5, 1):
        eager_x = floats(rng, rows, 4, dtype=dtype)
        hybrid_x = nd.NDArray(eager_x.asnumpy())
        expected, found = function(eager_x), compiled(hybrid_x)
        assert np.array_equal(eager_x.asnumpy(), hybrid_x.asnumpy())
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (expected, found))):
            assert (a is None and b is None) or np.allclose(a.asnumpy(), b.asnumpy(), 1e-6)


def test_a_written_argument_is_a_change_that_the_tape_sees(rng: np.random.Generator) -> None:
    x, w = floats(rng, 3), floats(rng, 3)
    w.attach_grad()
    change = hybridize(lambda x: x.__iadd__(1))
    with autograd.record():
        loss = (x * w).sum()
        change(x)
    with pytest.raises(ValueError, match="changed in place after it was recorded"):
        loss.backward()


def test_an_input_of_the_tape_changed_inside(rng: np.random.Generator) -> None:
    w = floats(rng, 3)
    w.attach_grad()

    def f(x: Any) -> Any:
        with autograd.pause():
            y = x * 2
        loss = (y * w).sum()
        with autograd.pause():
            y += 1
        return loss

    for wrap in (lambda f: f, hybridize):
        with pytest.raises(ValueError, match="changed in place after it was recorded"), autograd.record():
            wrap(f)(floats(rng, 3)).backward()


def view_read_later(x: Any) -> Any:
    y = x * 2
    first = y[0]
    y += 1
    return first + y


def base_read_later(x: Any) -> Any:
    y = x * 2
    first = y[0]
    first += 1
    return first + y


def view_of_argument(x: Any) -> Any:
    y = x.reshape((-1,))
    y += 1
    return y


def another_place(x: Any) -> Any:
    y = x * 2
    row = y[0]
    row += 1
    y[1] = row  # y[0] has changed, too
    return y


@pytest.mark.parametrize("function", [view_read_later, base_read_later, view_of_argument, another_place])
def test_refused(function: Callable[[Any], Any], rng: np.random.Generator) -> None:
    x = floats(rng, 3, 2)
    before = x.asnumpy()
    with pytest.raises(TraceError, match="trac"):
        hybridize(function)(x)
    assert np.array_equal(before, x.asnumpy())
    function(x)  # eager mode does it


@pytest.mark.parametrize("request_", ["write", "add"])
def test_gradients_are_read_where_they_stand(request_: str, rng: np.random.Generator) -> None:
    x = floats(rng, 4, 3)

    def scenario(wrap: Any) -> list[Any]:
        w = nd.ones((3,))
        w.attach_grad(request_)
        found = []

        def step(x: Any) -> Any:
            before = w.grad * 1
            with autograd.record():
                loss = (x * w).square().sum()
            loss.backward()
            return before, w.grad * 2

        f = wrap(step)
        for number in range(4):
            before, after = f(x)
            found += [before.asnumpy(), after.asnumpy(), w.grad.asnumpy()]
            if number == 1:
                w.zero_grad()
            if number == 2:
                w.grad = nd.ones((3,)) * 5
                w.grad *= 2
        return found

    for a, b in zip(scenario(lambda f: f), scenario(hybridize), strict=True):
        assert np.allclose(a, b, 1e-5)


def test_a_gradient_is_one_array_for_good() -> None:
    x = nd.ones((2,))
    x.attach_grad()
    held = x.grad
    for factor in (2.0, 3.0):
        with autograd.record():
            y = (x * factor).sum()
        y.backward()
        assert held is x.grad and held.tolist() == [factor] * 2
    x.zero_grad()
    assert held is x.grad and held.tolist() == [0, 0]
    x.grad = nd.array([4.0, 5.0])
    assert held is x.grad and held.tolist() == [4, 5]


def test_changes_of_gradients_from_outside_are_refused() -> None:
    w = nd.ones((2,))
    w.attach_grad()
    x = nd.ones((2,))
    x.attach_grad()
    for function in (
        lambda x: w.zero_grad(),
        lambda x: setattr(w, "grad", x),
        lambda x: x.zero_grad(),
        lambda x: x.grad * 1,
    ):
        with pytest.raises(TraceError):
            hybridize(function)(x)


def test_parts_of_what_is_captured(rng: np.random.Generator) -> None:
    """A ring buffer: the place is known when the program runs."""
    states = [nd.NDArray(np.zeros((4, 3), np.float32)) for _ in range(2)]

    def push(state: Any, x: Any, place: Any) -> Any:
        state[place] = x
        state[:, 0] = 9
        return state.sum()

    compiled = hybridize(lambda x, place: push(states[1], x, place))
    for step in range(6):
        x, place = floats(rng, 1, 3), nd.NDArray(np.array([step % 4]))
        assert push(states[0], x, place).item() == pytest.approx(compiled(x, place).item(), rel=1e-5)
        assert np.array_equal(states[0].asnumpy(), states[1].asnumpy())
    with pytest.raises(IndexError, match="index_update: index 4 at position 0 is out of range for size 4.*test_writes"):
        compiled(nd.ones((1, 3)), nd.NDArray(np.array([4])))
    assert np.array_equal(states[0].asnumpy(), states[1].asnumpy()) and len(compiled.variants) == 1


def test_a_part_that_does_not_fit() -> None:
    def write(x: Any) -> Any:
        y = x * 2
        y[0] = nd.ones((5,))
        return y

    for function in (write, hybridize(write)):
        with pytest.raises(ValueError, match=r"test_writes\.py"):
            function(nd.ones((2, 3)))
