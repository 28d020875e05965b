"""More distributions, made of uniform draws: exponential, gamma, Poisson, categories; shuffling.

They are compositions of ops and so can be hybridized. Where a method rejects, all of a fixed number of rounds are
drawn, so many that none being accepted happens once in 10^12 numbers or less (then the last one stands).

Deliberately not here: the generator and the plain draws (`random.py`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.create import _shape, as_dtype
from gluonish.nd.errors import user_line
from gluonish.nd.functions import argmax
from gluonish.nd.indexing import take
from gluonish.nd.ops import elementwise as e
from gluonish.nd.ops.random import uniform_op
from gluonish.nd.ops.special import gammaln
from gluonish.nd.random import next_key, normal, permutation, uniform
from gluonish.nd.size import product

_ROUNDS = 10  # each is accepted with 95 % or more: Marsaglia and Tsang's
_POISSON_ROUNDS = 24  # each is accepted with 70 % or more: Hormann's
_SMALL = 10.0  # Poisson means below are inverted step by step


def exponential(scale: float = 1.0, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """Waiting times with that mean."""
    if not scale > 0:
        raise ValueError(f"exponential: scale must be positive, got {scale!r} ({user_line()})")
    out = e.log(1.0 - uniform(shape=shape, size=size)) * -scale
    return out.astype(as_dtype(dtype, out.dtype))


def gamma(alpha: float = 1.0, beta: float = 1.0, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """Gamma-distributed numbers of shape parameter alpha and scale beta: mean alpha * beta.

    Source: G. Marsaglia, W. W. Tsang, ACM TOMS 26 (2000); for alpha below 1 times a power of a uniform number.
    """
    if not (alpha > 0 and beta > 0):
        raise ValueError(f"gamma: alpha and beta must be positive, got {alpha!r} and {beta!r} ({user_line()})")
    shape = _shape(shape if size is None else size)
    d = (alpha if alpha >= 1 else alpha + 1) - 1 / 3
    factor = 1 / math.sqrt(9 * d)
    chosen = accepted = None
    for _ in range(_ROUNDS):
        x = normal(shape=shape)
        v = 1 + factor * x
        v = e.maximum(v, 0.0) * v * v
        bound = 0.5 * x * x + d * (1 - v + e.log(e.maximum(v, 1e-30)))
        good = (v > 0) & (e.log(_open(shape)) < bound)
        chosen = v if chosen is None else e.where(accepted, chosen, v)
        accepted = good if accepted is None else accepted | good
    assert chosen is not None
    out = chosen * (d * beta)
    if alpha < 1:
        out = out * _open(shape) ** (1 / alpha)
    return out.astype(as_dtype(dtype, out.dtype))


def poisson(lam: float = 1.0, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """How many events there are where `lam` are expected; whole numbers, float32 unless told otherwise.

    Source: W. Hormann, Insurance: Mathematics and Economics 12 (1993), for lam from 10 on; inversion below.
    """
    if not 0 <= lam < 2**22:
        raise ValueError(f"poisson: lam must be in [0, 2**22), got {lam!r} ({user_line()})")
    shape = _shape(shape if size is None else size)
    out = _few(lam, shape) if lam < _SMALL else _many(lam, shape)
    return out.astype(as_dtype(dtype, out.dtype))


def _few(lam: float, shape: Any) -> NDArray:
    """Counts the values whose cumulative probability lies below one uniform number."""
    draws = uniform_op(next_key(product(shape)), shape=shape)
    out = draws * 0.0
    term = total = math.exp(-lam)
    count = 0
    while total < 1 - 2.0**-25 and term > 0:
        out = out + e.greater_equal(draws, total).astype("float32")
        count += 1
        term *= lam / count
        total += term
    return out


def _many(lam: float, shape: Any) -> NDArray:
    root, log_lam = math.sqrt(lam), math.log(lam)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse = 1.1239 + 1.1328 / (b - 3.4)
    chosen = accepted = None
    for _ in range(_POISSON_ROUNDS):
        u, v = _open(shape) - 0.5, _open(shape)
        near = 0.5 - e.abs(u)
        k = e.floor((2 * a / near + b) * u + lam + 0.43)
        # in float64: the terms are large and nearly cancel
        wide = e.maximum(k, 0.0).astype("float64")
        likely = wide * log_lam - lam - gammaln(wide + 1)
        size = e.log(v * (inverse / (a / (near * near) + b)))
        quick = (near >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
        ruled_out = (k < 0) | ((near < 0.013) & (v > near))
        good = quick | (e.logical_not(ruled_out) & (size.astype("float64") <= likely))
        chosen = k if chosen is None else e.where(accepted, chosen, k)
        accepted = good if accepted is None else accepted | good
    assert chosen is not None
    return e.maximum(chosen, 0.0)


def multinomial(probabilities: Any, shape: Any = (), dtype: Any = None) -> NDArray:
    """Categories drawn with the given probabilities, which need not add up to 1; integers.

    Shapes: probabilities (..., K) -> (..., *shape). Negative ones and rows of zeros are not looked for.
    Source: Gumbel's trick: the largest of log p plus independent Gumbel numbers.

    >>> from gluonish import nd
    >>> nd.random.multinomial(nd.array([0.0, 1.0, 0.0]), 4).tolist()
    [1, 1, 1, 1]
    """
    p = dispatch.as_array(probabilities)
    if p.ndim < 1:
        raise ValueError(f"multinomial: needs probabilities along the last axis, got {p.spec} ({user_line()})")
    more = _shape(shape)
    whole = (*p.shape[:-1], *more, p.shape[-1])
    logs = e.log(p).reshape((*p.shape[:-1], *[1] * len(more), p.shape[-1]))
    return argmax(logs - e.log(-e.log(_open(whole))), -1).astype(as_dtype(dtype, np.dtype("int64")))


def shuffle(x: Any) -> NDArray:
    """A copy of x whose first axis is in random order; not in hybridized code."""
    x = dispatch.as_array(x)
    return take(x, permutation(x.shape[0]))


def _open(shape: Any) -> NDArray:
    """Uniform numbers between 0 and 1, never either."""
    return e.maximum(uniform_op(next_key(product(shape)), shape=shape), 2.0**-25)
