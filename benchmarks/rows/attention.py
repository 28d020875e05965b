"""Attention: heads of a transformer as models have them, forward, forward and backward, and one query of a decoder.

The side "peak" is a loop of multiply-adds on registers on the same threads in the same rounds. A causal row counts the
products that its mask shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.row import BUSY, Bar, Row, Side, Sizes, numbers
from benchmarks.rows.contractions import peak

_TINY = {"batch": 1, "heads": 2, "queries": 9, "keys": 9, "depth": 5}


def _flops(passes: float) -> Any:
    """Of so many products of queries and keys; a product is 2 flops a number."""

    def count(s: Sizes) -> float:
        shown = 0.5 * (1 + 1 / s["queries"]) if s["causal"] else 1.0
        return passes * 2.0 * s["batch"] * s["heads"] * s["queries"] * s["keys"] * s["depth"] * shown

    return count


def _row(name: str, about: str, shape: tuple[int, ...], causal: bool, backward: bool, *bars: Bar) -> Row:
    batch, heads, queries, keys, depth = shape
    sizes = {"batch": batch, "heads": heads, "queries": queries, "keys": keys, "depth": depth}
    sizes |= {"causal": causal, "backward": backward}
    tiny = {**_TINY, "queries": queries} if queries < 9 else _TINY
    return Row(name, about, sizes, tiny, bars, _flops(7.0 if backward else 2.0), group="kernels")


FULL, BERT, TOKEN = (1, 12, 512, 512, 64), (8, 12, 128, 128, 32), (1, 12, 1, 1000, 64)
THREE = (1, 12, 3, 1000, 64)  # few: drafts that a decoder checks at once
TORCH, PEAK = Bar("torch", 0.5), Bar("peak", 0.7, "rate")
ROWS = (
    _row("attention", "attention b1 h12 s512 d64, forward", FULL, False, False, TORCH, PEAK, BUSY),
    _row("attention-step", "attention b1 h12 s512 d64, forward and backward", FULL, False, True, TORCH, PEAK, BUSY),
    _row("attention-causal", "causal attention b1 h12 s512 d64, forward and backward", FULL, True, True, TORCH),
    _row("attention-bert", "attention b8 h12 s128 d32, forward and backward", BERT, False, True, TORCH),
    _row("attention-token", "attention b1 h12 of one query and 1000 keys, d64", TOKEN, False, False, Bar("torch", 0.8)),
    _row(
        "attention-few", "attention b1 h12 of three queries and 1000 keys, d64", THREE, False, False, Bar("torch", 0.8)
    ),
)


def _inputs(sizes: Sizes) -> list[np.ndarray]:
    """Query, key, value, and the gradient of the result."""
    lead, depth = (sizes["batch"], sizes["heads"]), sizes["depth"]
    queries, keys = sizes["queries"], sizes["keys"]
    return [numbers(40 + i, *lead, n, depth) for i, n in enumerate((queries, keys, keys, queries))]


def _gluonish(sizes: Sizes) -> Side:
    import gluonish as gl

    query, key, value, head = map(gl.nd.array, _inputs(sizes))
    attend = gl.hybridize(lambda q, k, v: gl.nd.attention(q, k, v, causal=sizes["causal"]))
    if not sizes["backward"]:
        return Side(lambda: attend(query, key, value))
    for array in (query, key, value):
        array.attach_grad()

    def step() -> Any:
        with gl.autograd.record():
            out = attend(query, key, value)
        out.backward(head)
        return out, query.grad, key.grad, value.grad

    return Side(step)


def _torch(sizes: Sizes) -> Side:
    import torch

    attend = torch.nn.functional.scaled_dot_product_attention
    query, key, value, head = map(torch.from_numpy, _inputs(sizes))
    if not sizes["backward"]:
        return Side(lambda: attend(query, key, value, is_causal=sizes["causal"]), scope=torch.inference_mode)
    inputs = [x.requires_grad_() for x in (query, key, value)]

    def step() -> Any:
        out = attend(*inputs, is_causal=sizes["causal"])
        return out, *torch.autograd.grad(out, inputs, head)

    return Side(step)


def _jax(sizes: Sizes) -> Side:
    import jax
    from jax import numpy as jnp

    query, key, value, head = map(jnp.asarray, _inputs(sizes))
    shown = jnp.tri(sizes["queries"], sizes["keys"], dtype=bool) if sizes["causal"] else True

    def attend(query: Any, key: Any, value: Any) -> Any:
        scores = jnp.einsum("bhtd,bhsd->bhts", query, key) / sizes["depth"] ** 0.5
        return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(jnp.where(shown, scores, -jnp.inf)), value)

    def step(query: Any, key: Any, value: Any) -> Any:
        out, pull = jax.vjp(attend, query, key, value)
        return out, *pull(head)

    run = jax.jit(step if sizes["backward"] else attend)
    return Side(lambda: jax.block_until_ready(run(query, key, value)))


for _one in ROWS:
    _one.side("peak", peer="gluonish")(peak)
    _one.side("gluonish")(_gluonish)
    _one.side("torch")(_torch)
    _one.side("jax")(_jax)
