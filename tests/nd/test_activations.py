"""Softmax and its kin at the ends of the number line, choices, dropout, the error function."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gluonish import autograd, nd


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax(axis: int, dtype: str, rng: np.random.Generator) -> None:
    a = (5 * rng.standard_normal((3, 4, 5))).astype(dtype)
    powers = np.exp(a - a.max(axis, keepdims=True))
    wanted = powers / powers.sum(axis, keepdims=True)
    out = nd.softmax(nd.array(a), axis)
    assert out.dtype == np.dtype(dtype) and np.allclose(out.asnumpy(), wanted, rtol=1e-5)
    assert np.allclose(nd.log_softmax(nd.array(a), axis).asnumpy(), np.log(wanted), rtol=1e-4, atol=1e-5)


def test_softmax_of_huge_tiny_equal_and_masked_values() -> None:
    x = nd.array([[1e30, 0.0, -1e30], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4 - 1], [0.0, -np.inf, 0.0]])
    out = nd.softmax(x).asnumpy()
    assert np.isfinite(out).all() and np.allclose(out.sum(1), 1)
    assert out[0].tolist() == [1.0, 0.0, 0.0] and np.allclose(out[1], 1 / 3) and out[3].tolist() == [0.5, 0.0, 0.5]
    logs = nd.log_softmax(x).asnumpy()
    assert logs[0, 0] == 0.0 and logs[0, 2] == -np.float32(2e30) and logs[3, 1] == -np.inf
    assert np.allclose(logs[2, 0], -math.log(2 + math.exp(-1)), rtol=1e-3)


def test_softmax_passes_nan_on() -> None:
    for row in ([1.0, np.nan], [np.inf, 1.0], [-np.inf, -np.inf]):
        assert np.isnan(nd.softmax(nd.array(row)).asnumpy()).any(), row
        assert np.isnan(nd.log_softmax(nd.array(row)).asnumpy()).any(), row


def test_softmax_gradients_are_finite_at_the_ends(rng: np.random.Generator) -> None:
    for function in (nd.softmax, nd.log_softmax):
        x = nd.array([[1e4, 0.0, -1e4]])
        x.attach_grad()
        with autograd.record():
            out = function(x)
        out.backward(nd.array(rng.standard_normal((1, 3)).astype("f4")))
        assert np.isfinite(x.grad.asnumpy()).all() and abs(x.grad.asnumpy().sum()) < 1e-5


def test_softmax_gradient(rng: np.random.Generator) -> None:
    a, head, step = (rng.standard_normal((3, 4)) for _ in range(3))
    for function in (nd.softmax, nd.log_softmax):
        x = nd.array(a)
        x.attach_grad()
        with autograd.record():
            out = function(x, 0)
        out.backward(nd.array(head))
        ends = [function(nd.array(a + s * 1e-6 * step), 0).asnumpy() for s in (1, -1)]
        assert np.isclose(np.sum(x.grad.asnumpy() * step), np.sum((ends[0] - ends[1]) * head) / 2e-6, rtol=1e-6)


def test_activations_far_out() -> None:
    x = nd.array([-1e4, -90.0, 0.0, 90.0, 1e4])
    assert nd.sigmoid(x).asnumpy()[[0, 2, 4]].tolist() == [0.0, 0.5, 1.0]
    assert nd.tanh(x).tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]
    assert nd.softplus(x).asnumpy()[[0, 3, 4]].tolist() == [0.0, 90.0, 1e4]
    for function in (nd.silu, nd.gelu, nd.gelu_tanh):
        out = function(x).asnumpy()
        assert np.allclose(out, [0, 0, 0, 90, 1e4], atol=1e-30), function
    assert nd.elu(x).tolist() == [-1.0, -1.0, 0.0, 90.0, 1e4]
    assert nd.leaky_relu(x, 0.5).tolist() == [-5e3, -45.0, 0.0, 90.0, 1e4]


def test_gelu_like_its_definition(rng: np.random.Generator) -> None:
    a = rng.uniform(-5, 5, 200)
    exact = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in a])
    assert np.allclose(nd.gelu(nd.array(a)).asnumpy(), exact, atol=1e-14)
    assert np.allclose(nd.gelu(nd.array(a.astype("f4"))).asnumpy(), exact, atol=2e-6)
    assert np.allclose(nd.gelu_tanh(nd.array(a)).asnumpy(), exact, atol=5e-4)


def test_erf_to_fifteen_digits(rng: np.random.Generator) -> None:
    a = np.concatenate([rng.uniform(-7, 7, 2000), rng.uniform(-1e-3, 1e-3, 50), [0.0, 2.5, -2.5, np.inf, -np.inf]])
    wanted = np.array([math.erf(v) for v in a])
    assert np.allclose(nd.erf(nd.array(a)).asnumpy(), wanted, rtol=2e-15, atol=0)
    assert np.isnan(nd.erf(nd.array(np.nan)).item())
    assert np.signbit(nd.erf(nd.array(-0.0)).asnumpy())


def test_gradients_at_zero_are_finite() -> None:
    """x**2 and x**0 at x = 0, elu and leaky_relu on their flat sides."""
    powers = (lambda x: x**2, lambda x: x**0, lambda x: x ** nd.array([0.0, 2.0]))
    for function in (*powers, nd.elu, nd.leaky_relu, nd.abs):
        x = nd.array([0.0, -1e4])
        x.attach_grad()
        with autograd.record():
            out = function(x)
        out.backward()
        assert np.isfinite(x.grad.asnumpy()).all(), function


def test_where(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 3, 4)).astype("f4")
    condition = a > b
    assert np.array_equal(nd.where(nd.array(condition), nd.array(a), nd.array(b)).asnumpy(), np.where(condition, a, b))
    assert nd.where(nd.array([2, 0]), 1.0, nd.array([5.0, 6.0])).tolist() == [1.0, 6.0]
    assert nd.where(nd.array([True]), 1, 2).dtype == np.int64
    assert nd.where(nd.array([True, False]), nd.array([1]), nd.array([0.5])).tolist() == [1.0, 0.5]
    unused = nd.array([np.nan, 1.0])
    unused.attach_grad()
    with autograd.record():
        out = nd.where(nd.array([False, True]), unused, 0.0)
    out.backward()
    assert out.tolist() == [0.0, 1.0] and unused.grad.tolist() == [0.0, 1.0]
    with pytest.raises(TypeError, match="where takes a condition and two values"):
        nd.where(nd.array([True]), 1)


def test_dropout() -> None:
    x = nd.ones((200, 200))
    x.attach_grad()
    with autograd.record():
        out = nd.dropout(x, 0.25)
    out.backward()
    values = out.asnumpy()
    assert set(np.unique(values)) == {0.0, np.float32(1 / 0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.02 and np.array_equal(x.grad.asnumpy(), values)
    assert nd.dropout(x, 0.0) is x
    assert nd.dropout(nd.full(9, np.inf), 0.5).asnumpy().min() == 0.0
    for rate in (1.0, -0.1, 2):
        with pytest.raises(ValueError, match=r"dropout: rate must be in \[0, 1\).*test_activations.py"):
            nd.dropout(x, rate)


def test_compositions_are_what_they_say(rng: np.random.Generator) -> None:
    a = np.concatenate([rng.uniform(-8, 8, 50), [0.0, -0.0, 500.0, -500.0]])
    x, sigmoid = nd.array(a, dtype="float64"), np.exp(-np.logaddexp(0, -a))
    wanted = {
        "log_sigmoid": -np.logaddexp(0, -a),
        "mish": a * np.tanh(np.logaddexp(0, a)),
        "relu6": np.clip(a, 0, 6),
        "hard_tanh": np.clip(a, -1, 1),
        "hard_sigmoid": np.clip(a / 6 + 0.5, 0, 1),
        "hard_swish": a * np.clip(a / 6 + 0.5, 0, 1),
        "celu": np.maximum(a, 0) + np.expm1(np.minimum(a, 0)),
        "selu": 1.0507009873554805 * np.where(a > 0, a, 1.6732632423543772 * np.expm1(np.minimum(a, 0))),
        "soft_shrink": np.where(a > 0.5, a - 0.5, np.where(a < -0.5, a + 0.5, 0)),
        "silu": a * sigmoid,
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(getattr(nd, name)(x).asnumpy(), values, rtol=1e-12, atol=1e-300, err_msg=name)
    np.testing.assert_allclose(nd.lerp(x, x * 3, 0.25).asnumpy(), a * 1.5, rtol=1e-12)
    bad = np.array([np.nan, np.inf, -np.inf, 2.0], "f4")
    np.testing.assert_array_equal(nd.nan_to_num(nd.array(bad)).asnumpy(), np.nan_to_num(bad))
    np.testing.assert_array_equal(nd.nan_to_num(nd.array(bad), 1.0, 5.0, -7.0).asnumpy(), [1, 5, -7, 2])


def test_polygamma_ends_with_an_error() -> None:
    x = nd.array([1.5, 2.5], dtype="float64")
    np.testing.assert_allclose(nd.polygamma(1, x).asnumpy(), [0.9348022005446793, 0.4903577561002348], rtol=1e-14)
    for order in (3, -1, 1.5):
        with pytest.raises(NotImplementedError, match="orders 0, 1 and 2"):
            nd.polygamma(order, x)
    x.attach_grad()
    with autograd.record():
        y = nd.polygamma(2, x)
    with pytest.raises(NotImplementedError, match="third derivative of digamma"):
        y.backward()
