"""MultiHeadAttention beside the table of test_layers.py: masks, other keys, dropout, the cache, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd, nn

Rng = np.random.Generator
EAGER_AND_HYBRID = pytest.mark.parametrize("hybrid", [False, True])


def layer_of(rng: Rng, hybrid: bool = False, **options: Any) -> nn.MultiHeadAttention:
    layer = nn.MultiHeadAttention(8, 2, **options)
    layer.initialize()
    layer(nd.zeros((1, 2, 6)))
    for p in layer.collect_params().values():
        p.set_data(rng.standard_normal(p.shape))
    layer.hybridize(hybrid)
    return layer


def draw(rng: Rng, *shape: int) -> nd.NDArray:
    return nd.array(rng.standard_normal(shape).astype(np.float32))


def same(a: nd.NDArray, b: nd.NDArray) -> None:
    np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-4, atol=1e-4)


@EAGER_AND_HYBRID
def test_padding_does_not_change_what_is_seen(hybrid: bool, rng: Rng) -> None:
    layer, x = layer_of(rng, hybrid), draw(rng, 2, 5, 6)
    padded = nd.concat([x, nd.full((2, 3, 6), 9.0)], axis=1)
    mask = nd.array(np.arange(8) < 5)
    for shape in [(1, 8), (1, 1, 1, 8), (2, 2, 8, 8)]:
        wide = nd.broadcast_to(mask, shape) if len(shape) < 4 else nd.broadcast_to(mask, shape) * 1 == 1
        same(layer(padded, mask=wide)[:, :5], layer(x))
    added = nd.where(mask, 0.0, -1e30).reshape((1, 1, 1, 8))
    same(layer(padded, mask=added)[:, :5], layer(x))


@EAGER_AND_HYBRID
def test_keys_and_values_of_their_own(hybrid: bool, rng: Rng) -> None:
    layer = layer_of(rng, hybrid)
    x, memory, values = draw(rng, 2, 3, 6), draw(rng, 2, 7, 6), draw(rng, 2, 7, 6)
    order = nd.array(np.array([3, 1, 0, 2, 6, 5, 4]))
    assert layer(x, memory).shape == (2, 3, 8)
    same(layer(x, memory), layer(x, memory, memory))
    same(layer(x, memory, values), layer(x, nd.take(memory, order, 1), nd.take(values, order, 1)))
    same(layer(x), layer(x, x))


def test_dropout_is_of_weights_in_train_mode(rng: Rng) -> None:
    layer, x = layer_of(rng, dropout=0.5), draw(rng, 2, 40, 6)
    same(layer(x), layer(x))
    with autograd.record():
        first, second = layer(x), layer(x)
    assert abs(first - second).max().item() > 1e-3
    layer.dropout = 1e-12  # drops nothing, by the same way
    with autograd.record():
        kept = layer(x)
    same(kept, layer(x))


@EAGER_AND_HYBRID
@pytest.mark.parametrize("prompt", [1, 4])
def test_decoding_with_a_cache_is_the_whole_sequence(hybrid: bool, prompt: int, rng: Rng) -> None:
    layer, x = layer_of(rng, hybrid, causal=True), draw(rng, 2, 9, 6)
    cache, outs = layer.new_cache(2, 12), []
    for begin, end in [(0, prompt), *[(t, t + 1) for t in range(prompt, 7)], (7, 9)]:
        out = layer(x[:, begin:end], cache=cache, position=nd.array([begin]))
        outs.append(out)
    same(nd.concat(outs, axis=1), layer(x))
    assert (cache[0][:, :, 9:].asnumpy() == 0).all()
    if hybrid:
        traced = str(layer.explain()).count("\n  variant ")
        out = layer(x[:, :1], cache=cache, position=nd.array([9]))
        assert str(layer.explain()).count("\n  variant ") == traced


@EAGER_AND_HYBRID
def test_a_cache_with_a_mask(hybrid: bool, rng: Rng) -> None:
    """Padding in front: the first two tokens of the second sequence are none."""
    layer, x = layer_of(rng, hybrid, causal=True), draw(rng, 2, 5, 6)
    mask = nd.array(np.array([[True] * 8, [False] * 2 + [True] * 6]))
    cache = layer.new_cache(2, 8)
    layer(x[:, :4], mask=mask, cache=cache, position=nd.array([0]))
    out = layer(x[:, 4:], mask=mask, cache=cache, position=nd.array([4]))
    same(out[1:], layer(x[1:, 2:])[:, 2:])
    added = nd.where(mask, 0.0, -1e30).reshape((2, 1, 1, 8))
    again = layer(x[:, 4:], mask=added, cache=cache, position=nd.array([4]))
    same(again, out)


@EAGER_AND_HYBRID
def test_a_full_cache_raises(hybrid: bool, rng: Rng) -> None:
    layer, x = layer_of(rng, hybrid), draw(rng, 1, 3, 6)
    cache = layer.new_cache(1, 4)
    for position in (2, 4, -1):
        with pytest.raises(IndexError, match="MultiHeadAttention.*the cache has no room"):
            layer(x, cache=cache, position=nd.array([position]))


def test_errors(rng: Rng) -> None:
    layer, x = layer_of(rng), draw(rng, 1, 3, 6)
    with pytest.raises(ValueError, match="8 units do not divide into 3 heads"):
        nn.MultiHeadAttention(8, 3)
    with pytest.raises(ValueError, match="dropout must be in"):
        nn.MultiHeadAttention(8, 2, dropout=1.0)
    with pytest.raises(ValueError, match=r"expects queries \(N, T, inputs\) but got \(3, 6\)"):
        layer(x[0])
    with pytest.raises(TypeError, match="position must be an array of one integer"):
        layer(x, cache=layer.new_cache(1, 4), position=0)
    with pytest.raises(ValueError, match="so no key"):
        layer(x, x, cache=layer.new_cache(1, 4), position=nd.array([0]))
    with pytest.raises(ValueError, match="the cache must be two arrays"):
        layer(x, cache=layer.new_cache(2, 4), position=nd.array([0]))
    assert "8 in 2 heads, causal" in repr(nn.MultiHeadAttention(8, 2, causal=True))
