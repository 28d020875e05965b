"""Random numbers, counter-based: `seed` fixes every later draw, eager and hybridized alike.

The generator is a seed and a position. A draw takes the next stretch of positions, so its bits depend on what was drawn
before it and on nothing else (not on threads, layout or fusion).
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.create import _shape, as_dtype
from gluonish.nd.errors import user_line
from gluonish.nd.ops import elementwise as e
from gluonish.nd.ops.random import uniform_op
from gluonish.nd.size import product

_TAU = 6.283185307179586


class Generator:
    """A stream of random numbers: a 64-bit seed and the position of the next block of four words."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.position = 0
        self._lock = threading.Lock()

    def reserve(self, blocks: int) -> np.ndarray:
        """The key (seed, position) for the next `blocks` blocks, which no other draw will get."""
        with self._lock:
            key = np.array([self.seed, self.position], np.int64)
            self.position += blocks
        return key


default = Generator(int.from_bytes(os.urandom(6), "little"))


def seed(value: int) -> None:
    """Starts the stream anew: the same seed gives the same numbers."""
    if not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"seed must be a non-negative integer, got {value!r} ({user_line()})")
    default.seed = int(value) & (2**63 - 1)
    default.position = 0


def next_key(count: Any) -> NDArray:
    """The key for a draw of `count` words."""
    blocks = (count + 3) // 4
    trace = dispatch.state.trace
    return NDArray(default.reserve(int(blocks))) if trace is None else trace.random_key(blocks)


def uniform(low: float = 0.0, high: float = 1.0, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """Uniform numbers in [low, high).

    >>> from gluonish import nd
    >>> nd.random.seed(1); a = nd.random.uniform(shape=3); nd.random.seed(1); b = nd.random.uniform(shape=3)
    >>> bool((a == b).all())
    True
    """
    shape = _shape(shape if size is None else size)
    out = uniform_op(next_key(product(shape)), shape=shape)
    if (low, high) != (0.0, 1.0):
        out = out * (high - low) + low
    return out.astype(as_dtype(dtype, out.dtype))


def normal(loc: float = 0.0, scale: float = 1.0, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """Normally distributed numbers. Source: Box & Muller, Ann. Math. Statist. 29 (1958)."""
    shape = _shape(shape if size is None else size)
    radius = e.sqrt(e.log(1.0 - uniform_op(next_key(product(shape)), shape=shape)) * -2.0)
    out = radius * e.cos(uniform_op(next_key(product(shape)), shape=shape) * _TAU)
    if (loc, scale) != (0.0, 1.0):
        out = out * scale + loc
    return out.astype(as_dtype(dtype, out.dtype))


def bernoulli(prob: float = 0.5, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """1 with probability `prob`, else 0; float32 unless told otherwise."""
    if not 0 <= prob <= 1:
        raise ValueError(f"bernoulli: prob must be in [0, 1], got {prob} ({user_line()})")
    draws = uniform(shape=shape, size=size)
    return (draws < prob).astype(as_dtype(dtype, np.dtype("float32")))


def randint(low: int, high: int | None = None, shape: Any = (), dtype: Any = None, size: Any = None) -> NDArray:
    """Integers in [low, high), or [0, low) with one bound; ranges up to 2**24."""
    low, high = (0, low) if high is None else (low, high)
    if not low < high <= low + 2**24:
        raise ValueError(f"randint: needs low < high <= low + 2**24, got {low}, {high} ({user_line()})")
    draws = e.floor(uniform(shape=shape, size=size) * (high - low)).astype("int64")
    return (draws + low).astype(as_dtype(dtype, np.dtype("int64")))


def permutation(count: int) -> NDArray:
    """0 .. count - 1 in random order; int64. Raises: NotImplementedError in hybridized code."""
    if dispatch.state.trace is not None:
        raise NotImplementedError(
            f"permutation: hybridized code would repeat one order for good; pass it as an argument ({user_line()})"
        )
    keys = default.reserve((count + 3) // 4)
    return NDArray(np.random.Generator(np.random.Philox(key=int(keys[0]) + (int(keys[1]) << 64))).permutation(count))


def __getattr__(name: str) -> Any:
    """The distributions that are made of these draws, imported at first use: they need ops that need this module."""
    from gluonish.nd import distributions

    if name not in ("exponential", "gamma", "poisson", "multinomial", "shuffle"):
        raise AttributeError(f"module 'gluonish.nd.random' has no attribute {name!r}")
    return getattr(distributions, name)
