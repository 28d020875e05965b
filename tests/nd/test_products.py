"""Matrix products against NumPy: vectors, batches, broadcasting, empties, layouts, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd

SHAPES: list[Any] = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((2, 0), (0, 4)),
    ((0, 3), (3, 4)),
    ((0, 2, 3), (3, 4)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matmul(shapes: Any, dtype: str, rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(s).astype(dtype) for s in shapes)
    for out in (nd.matmul(nd.array(a), nd.array(b)), nd.array(a) @ nd.array(b), nd.array(a) @ b, a @ nd.array(b)):
        wanted = np.matmul(a, b)
        assert out.shape == wanted.shape and out.dtype == wanted.dtype
        assert np.allclose(out.asnumpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_of_products_have_the_inputs_shapes(shapes: Any, rng: np.random.Generator) -> None:
    x, y = (nd.array(rng.standard_normal(s)) for s in shapes)
    x.attach_grad()
    y.attach_grad()
    with autograd.record():
        out = nd.matmul(x, y)
    head = rng.standard_normal(out.shape)
    out.backward(nd.array(np.asarray(head)))
    assert x.grad.shape == x.shape and y.grad.shape == y.shape
    step = 1e-6 * rng.standard_normal(x.shape)
    change = np.sum((np.matmul(x.asnumpy() + step, y.asnumpy()) - np.matmul(x.asnumpy(), y.asnumpy())) * head)
    assert np.isclose(np.sum(x.grad.asnumpy() * step), change, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(
    "shapes", [((2, 3), (3, 4)), ((3,), (3,)), ((2, 5, 3), (3, 4)), ((2, 3), (3, 4, 5)), ((2, 5, 3), (3,))], ids=str
)
def test_dot_joins_the_last_axis_with_the_first(shapes: Any, rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    assert np.allclose(nd.dot(nd.array(a), nd.array(b)).asnumpy(), np.tensordot(a, b, 1), atol=1e-5)
    assert np.allclose(nd.array(a).dot(nd.array(b)).asnumpy(), np.tensordot(a, b, 1), atol=1e-5)


def test_mixed_dtypes_and_layouts(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal((3, 4))
    out = nd.array(a).T @ nd.array(b)
    assert out.dtype == np.float64 and np.allclose(out.asnumpy(), a.T @ b)
    assert (nd.array([[1, 2]]) @ nd.array([[3], [4]])).tolist() == [[11.0]]


def test_products_that_do_not_fit() -> None:
    for a, b in (((2, 3), (2, 3)), ((2,), (3,)), ((2, 2, 3), (3, 3, 4))):
        with pytest.raises(ValueError, match=r"matmul: .*got .*float32.*test_products.py"):
            nd.ones(a) @ nd.ones(b)
    with pytest.raises(ValueError, match="matmul: needs vectors or matrices"):
        nd.matmul(nd.ones(()), nd.ones((2, 2)))
    with pytest.raises(ValueError, match=r"matmul: .*last dimension.*got \(2, 3\) float32, \(4, 5\) float32"):
        nd.dot(nd.ones((2, 3)), nd.ones((4, 5)))
