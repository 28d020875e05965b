"""What attention means: the formula, masks, alignment of the causal one, queries that see nothing, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd

Rng = np.random.Generator


def draw(rng: Rng, *shape: int) -> nd.NDArray:
    return nd.array(rng.standard_normal(shape).astype(np.float32))


def plain(q: Any, k: Any, v: Any, allowed: Any = True, added: Any = 0.0, scale: float | None = None) -> np.ndarray:
    """The formula, score by score, in float64."""
    q, k, v = (x.asnumpy().astype(np.float64) for x in (q, k, v))
    scores = np.einsum("...td,...sd->...ts", q, k) * (scale if scale is not None else q.shape[-1] ** -0.5) + added
    powers = np.where(allowed, np.exp(scores), 0)
    total = powers.sum(-1, keepdims=True)
    return np.einsum("...ts,...se->...te", np.divide(powers, total, where=total > 0, out=powers), v)


def same(found: nd.NDArray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.asnumpy(), wanted, rtol=1e-4, atol=1e-5)


def test_the_formula(rng: Rng) -> None:
    q, k, v = draw(rng, 2, 3, 4, 5), draw(rng, 2, 3, 6, 5), draw(rng, 2, 3, 6, 7)
    same(nd.attention(q, k, v), plain(q, k, v))
    same(nd.attention(q, k, v, scale=0.3), plain(q, k, v, scale=0.3))
    same(nd.attention(q[0, 0], k[0, 0], v[0, 0]), plain(q[0, 0], k[0, 0], v[0, 0]))


def test_masks(rng: Rng) -> None:
    q, k, v = draw(rng, 2, 3, 4, 5), draw(rng, 2, 3, 6, 5), draw(rng, 2, 3, 6, 7)
    for shape in [(4, 6), (6,), (2, 1, 1, 6), (3, 4, 6), (2, 3, 4, 6), (4, 1)]:
        allowed, added = rng.random(shape) < 0.7, rng.standard_normal(shape)
        same(nd.attention(q, k, v, nd.array(allowed)), plain(q, k, v, allowed))
        same(nd.attention(q, k, v, added), plain(q, k, v, added=added))  # float64 floats take the query's dtype


def test_causal_is_aligned_at_the_end(rng: Rng) -> None:
    """With a cache the last query sees all keys; without one, query t sees keys 0..t."""
    q, k, v = draw(rng, 2, 3, 5), draw(rng, 2, 7, 5), draw(rng, 2, 7, 4)
    allowed = np.arange(7) <= np.arange(3)[:, None] + 4
    same(nd.attention(q, k, v, causal=True), plain(q, k, v, allowed))
    square = nd.attention(k, k, v, causal=True)
    same(square, plain(k, k, v, np.tri(7, dtype=bool)))
    np.testing.assert_allclose(square[:, 0].asnumpy(), v[:, 0].asnumpy(), rtol=1e-6)
    one = nd.attention(q[:, 2:], k, v, causal=True)
    same(one, nd.attention(q, k, v, causal=True)[:, 2:].asnumpy())


def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient(rng: Rng) -> None:
    arrays = [draw(rng, 4, 3), draw(rng, 2, 3), draw(rng, 2, 3)]
    allowed = nd.array(np.array([[True, True], [False, False], [True, False], [True, True]]))
    for array in arrays:
        array.attach_grad()
    for mask, causal, dead in ((allowed, False, [1]), (None, True, [0, 1])):
        with autograd.record():
            out = nd.attention(*arrays, mask, causal)
        out.backward()
        assert (out.asnumpy()[dead] == 0).all()
        assert (arrays[0].grad.asnumpy()[dead] == 0).all()
        assert all(np.isfinite(x.grad.asnumpy()).all() for x in arrays)
    assert (nd.attention(arrays[0], arrays[1][:0], arrays[2][:0]).asnumpy() == 0).all()


def test_leading_dimensions_broadcast(rng: Rng) -> None:
    q, k, v = draw(rng, 2, 3, 4, 5), draw(rng, 1, 6, 5), draw(rng, 2, 1, 6, 5)
    for array in (q, k, v):
        array.attach_grad()
    with autograd.record():
        out = nd.attention(q, k, v)
    out.backward()
    same(out, plain(q, k, v))
    assert k.grad.shape == (1, 6, 5) and v.grad.shape == (2, 1, 6, 5)


def test_dtypes(rng: Rng) -> None:
    q = draw(rng, 4, 3)
    assert nd.attention(q, q.astype("float64"), q).dtype == np.float64
    half = nd.attention(*[q.astype("float16")] * 3)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.asnumpy(), plain(q, q, q), atol=5e-3)
    assert nd.attention([[1]], [[2]], [[3]]).tolist() == [[3.0]]


def test_gradient_of_a_mask_of_floats(rng: Rng) -> None:
    q, k, v, bias = draw(rng, 2, 4, 3), draw(rng, 2, 5, 3), draw(rng, 2, 5, 3), draw(rng, 4, 5)
    bias.attach_grad()
    head = draw(rng, 2, 4, 3)
    with autograd.record():
        out = nd.attention(q, k, v, bias)
    out.backward(head)
    direction, step = rng.standard_normal((4, 5)), 1e-5
    moved = [bias.asnumpy().astype(float) + s * direction for s in (step, -step)]
    ends = [(plain(q, k, v, added=added) * head.asnumpy()).sum() for added in moved]
    assert (bias.grad.asnumpy() * direction).sum() == pytest.approx(
        (ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4
    )


def test_weights(rng: Rng) -> None:
    q, k = draw(rng, 2, 4, 3), draw(rng, 2, 5, 3)
    found = nd.attention_weights(q, k, np.array([True, True, False, True, True]), causal=True)
    np.testing.assert_allclose(found.asnumpy().sum(-1), 1, rtol=1e-5)
    assert (found.asnumpy()[..., 2] == 0).all() and found[0, 0, 4].item() == 0
    values = draw(rng, 2, 5, 4)
    mask = nd.array(np.array([True, True, False, True, True]))
    same(nd.matmul(found, values), nd.attention(q, k, values, mask, True).asnumpy())
    assert (nd.attention_weights(q, k, nd.zeros((5,)) == 1).asnumpy() == 0).all()


@pytest.mark.parametrize(
    ("shapes", "mask", "message"),
    [
        (((4, 3), (5, 2), (5, 3)), None, "query and key must have the same last dimension"),
        (((4, 3), (5, 3), (6, 3)), None, "key and value must have the same number of rows"),
        (((3,), (5, 3), (5, 3)), None, "at least 2 dimensions"),
        (((2, 4, 3), (3, 5, 3), (3, 5, 3)), None, "shapes do not broadcast"),
        (((4, 3), (5, 3), (5, 3)), np.ones((4, 4), bool), r"must broadcast to \[\.\.\., queries, keys\]"),
        (((4, 3), (5, 3), (5, 3)), np.ones((1, 4, 5), bool), r"must broadcast to \[\.\.\., queries, keys\]"),
        (((4, 3), (5, 3), (5, 3)), np.ones((4, 5), int), "must be bool .* or floats to add, got int64"),
    ],
)
def test_errors(shapes: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        nd.attention(*[nd.zeros(s) for s in shapes], mask)
    assert "test_attention.py:" in str(caught.value) and "attention" in str(caught.value)
