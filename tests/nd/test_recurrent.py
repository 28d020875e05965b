"""nd.lstm, nd.gru and nd.rnn against their formulas written out row by row and step by step in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd

Arrays = list[np.ndarray]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KINDS = pytest.mark.parametrize("kind", GATES)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def one_step(kind: str, x: np.ndarray, weights: Arrays, states: Arrays) -> Arrays:
    """The new states of one row: vectors only."""
    wx, wh, bx, bh = weights
    units, h = wh.shape[1], states[0]
    a = [wx[k * units : (k + 1) * units] @ x + bx[k * units : (k + 1) * units] for k in range(GATES[kind])]
    b = [wh[k * units : (k + 1) * units] @ h + bh[k * units : (k + 1) * units] for k in range(GATES[kind])]
    if kind == "rnn":
        return [np.tanh(a[0] + b[0])]
    if kind == "gru":
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        return [(1 - z) * np.tanh(a[2] + r * b[2]) + z * h]
    i, f, g, o = (x + y for x, y in zip(a, b))
    c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def written_out(kind: str, x: np.ndarray, weights: Arrays, states: Arrays, lengths: Any, reverse: bool) -> Arrays:
    """The outputs and last states: each row alone, as long as it is."""
    out = np.zeros((*x.shape[:2], weights[1].shape[1]))
    last = [s.copy() for s in states]
    for row in range(x.shape[1]):
        now, steps = [s[row] for s in states], range(int(lengths[row]))
        for t in reversed(steps) if reverse else steps:
            now = one_step(kind, x[t, row], weights, now)
            out[t, row] = now[0]
        for state, value in zip(last, now):
            state[row] = value
    return [out, *last]


def case(kind: str, rng: np.random.Generator, steps: int, rows: int, inputs: int, units: int) -> tuple[Any, ...]:
    wide = GATES[kind] * units
    shapes = [(wide, inputs), (wide, units), (wide,), (wide,)]
    states = [rng.standard_normal((rows, units)) for _ in range(2 if kind == "lstm" else 1)]
    return rng.standard_normal((steps, rows, inputs)), [0.5 * rng.standard_normal(s) for s in shapes], states


@KINDS
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_the_formula(kind: str, reverse: bool, dtype: str, rng: np.random.Generator) -> None:
    function: Callable[..., Any] = getattr(nd, kind)
    for steps, rows, inputs, units in [(4, 3, 5, 2), (1, 1, 1, 1), (7, 2, 3, 6), (0, 2, 3, 4), (2, 0, 3, 4)]:
        x, weights, states = case(kind, rng, steps, rows, inputs, units)
        arrays = [nd.array(a, dtype=dtype) for a in (x, *weights, *states)]
        lengths = rng.integers(0, steps + 1, rows)
        for given, counts in ((None, np.full(rows, steps)), (nd.array(lengths), lengths)):
            found = function(*arrays, lengths=given, reverse=reverse)
            wanted = written_out(kind, x, weights, states, counts, reverse)
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted):
                assert a.dtype == np.dtype(dtype)
                room = 1e-5 if dtype == "float32" else 1e-12
                np.testing.assert_allclose(a.asnumpy(), b, rtol=room, atol=room)


@KINDS
def test_begin_states_are_zeros(kind: str, rng: np.random.Generator) -> None:
    x, weights, states = case(kind, rng, 3, 2, 4, 5)
    arrays = [nd.array(a) for a in (x, *weights)]
    zeros = [nd.zeros(s.shape, dtype="float64") for s in states]
    for a, b in zip(getattr(nd, kind)(*arrays), getattr(nd, kind)(*arrays, *zeros)):
        assert np.array_equal(a.asnumpy(), b.asnumpy())


@KINDS
def test_gradients_reach_everything(kind: str, rng: np.random.Generator) -> None:
    """Of all inputs, along one direction, with lengths; that of the steps behind the end is zero."""
    x, weights, states = case(kind, rng, 5, 3, 2, 4)
    lengths = nd.array([5, 2, 0])
    values = [x, *weights, *states]
    arrays = [nd.array(v) for v in values]
    heads = [rng.standard_normal(v.shape) for v in written_out(kind, x, weights, states, [5, 2, 0], True)]
    for a in arrays:
        a.attach_grad()
    with autograd.record():
        out = getattr(nd, kind)(*arrays, lengths=lengths, reverse=True)
    autograd.backward(list(out), [nd.array(h) for h in heads])
    directions = [rng.standard_normal(v.shape) for v in values]
    claimed = sum((a.grad.asnumpy() * d).sum() for a, d in zip(arrays, directions))

    def total(step: float) -> float:
        moved = [v + step * d for v, d in zip(values, directions)]
        found = written_out(kind, moved[0], moved[1:5], moved[5:], [5, 2, 0], True)
        return float(sum((f * h).sum() for f, h in zip(found, heads)))

    assert claimed == pytest.approx((total(1e-6) - total(-1e-6)) / 2e-6, rel=1e-5, abs=1e-6)
    assert not arrays[0].grad.asnumpy()[2:, 1].any()
    assert not arrays[0].grad.asnumpy()[:, 2].any()


def test_relu(rng: np.random.Generator) -> None:
    x, weights, (h,) = case("rnn", rng, 3, 2, 4, 5)
    out, last = nd.rnn(*[nd.array(a) for a in (x, *weights, h)], activation="relu")
    for t in range(3):
        h = np.maximum(x[t] @ weights[0].T + weights[2] + h @ weights[1].T + weights[3], 0)
        np.testing.assert_allclose(out.asnumpy()[t], h, rtol=1e-12, atol=1e-12)
    assert np.array_equal(out.asnumpy()[-1], last.asnumpy())


def test_nothing_is_kept_where_nothing_is_recorded(rng: np.random.Generator) -> None:
    x, weights, states = case("lstm", rng, 3, 2, 4, 5)
    gates = nd.array(rng.standard_normal((3, 2, 20)))
    inputs = (gates, nd.array(weights[1]), *map(nd.array, states))
    assert nd.OPS["lstm"](*inputs, reverse=False, keep=False).shape == (2, 4, 2, 5)
    gates.attach_grad()
    with autograd.record():  # what was not kept is made again
        out = nd.OPS["lstm"](*inputs, reverse=False, keep=False)
        kept = nd.OPS["lstm"](*inputs, reverse=False, keep=True)[:2]
    out.backward()
    first = gates.grad.asnumpy().copy()
    kept.backward()
    np.testing.assert_allclose(gates.grad.asnumpy(), first, rtol=1e-12)


@KINDS
def test_what_does_not_fit_is_refused(kind: str, rng: np.random.Generator) -> None:
    function = getattr(nd, kind)
    x, weights, states = case(kind, rng, 3, 2, 4, 5)
    good = [nd.array(a) for a in (x, *weights, *states)]
    with pytest.raises(ValueError, match=rf"{kind}.*\(T, N, I\).*test_recurrent.py"):
        function(nd.array(x[0]), *good[1:])
    with pytest.raises(ValueError, match=rf"{kind}.*\(T, N, I\)"):
        function(nd.array(x[:, :, 1:]), *good[1:])
    with pytest.raises(ValueError, match=f"{kind}: a begin state must have shape"):
        function(*good[:5], *[nd.array(s[:1]) for s in states])
    with pytest.raises(ValueError, match=f"{kind}: lengths must be"):
        function(*good, lengths=nd.array([1, 2, 3]))
    with pytest.raises(ValueError, match=f"{kind}: all inputs but lengths must have one floating-point dtype"):
        function(*good[:5], *[nd.array(s, dtype="float32") for s in states])


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation must be 'tanh' or 'relu', got 'sigmoid'"):
        nd.rnn(*[nd.ones(s) for s in ((1, 1, 1), (1, 1), (1, 1), (1,), (1,))], activation="sigmoid")
