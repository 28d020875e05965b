"""Random ops: pure functions of a key and of the element's position (counter-based generation).

Element i of a draw with key (seed, offset) is word i % 4 of Philox4x32-10 at counter offset + i // 4 under that seed:
eager mode, kernels, any number of threads and any order of evaluation give the same bits.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.op import FLOAT, INDEX, Op, Sample, Shape, Spec, refuse, register
from gluonish.nd.size import SizeLike, product

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
UNIT = 2.0**-24  # the upper 24 bits of a word become a float32 in [0, 1), each value equally likely


def philox(seed: int, counters: np.ndarray) -> np.ndarray:
    """Philox4x32-10. Shapes: counters (n,) of 64 bits -> (n, 4) uint32."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    counters = counters.astype(np.uint64)
    a, b = counters & low, counters >> shift
    c = d = np.zeros_like(a)
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(ROUNDS):
        left, right = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b = (right >> shift) ^ b ^ np.uint64(key[0]), right & low
        c, d = (left >> shift) ^ d ^ np.uint64(key[1]), left & low
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, WEYL)]
    return np.stack([a, b, c, d], 1).astype(np.uint32)


def _check_key(name: str, key: Spec) -> None:
    if key.shape != (2,) or key.dtype != INDEX:
        raise refuse(name, "the key is two int64: seed and offset", key)


def _uniform_rule(key: Spec, shape: Shape) -> Spec:
    _check_key("random_uniform", key)
    return Spec(tuple(shape), FLOAT)


def _uniform_forward(key: np.ndarray, shape: Any) -> np.ndarray:
    _check_key("random_uniform", key)  # type: ignore[arg-type]  # arrays have all that a Spec has
    count = int(product(shape))
    blocks = np.arange((count + 3) // 4, dtype=np.uint64) + np.uint64(key[1])
    words = philox(int(key[0]), blocks).ravel()[:count]
    return ((words >> np.uint32(8)).astype(np.float32) * np.float32(UNIT)).reshape(shape)


def _key_sample(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2**40, 2)


uniform_op = register(
    Op(
        "random_uniform",
        "random",
        _uniform_forward,
        _uniform_rule,
        promote=False,
        doc="float32 in [0, 1), multiples of 2**-24. Shapes: key (2,) int64 (seed, offset) -> shape.",
        sample=lambda rng: [Sample((_key_sample(rng),), {"shape": s}) for s in ((5, 7), (0, 3), ())],
        smooth=False,
    )
)


def _advance_rule(key: Spec, blocks: SizeLike) -> Spec:
    _check_key("random_advance", key)
    return Spec(key.shape, key.dtype)


def _advance_forward(key: np.ndarray, blocks: Any) -> np.ndarray:
    _check_key("random_advance", key)  # type: ignore[arg-type]
    return key + np.array([0, int(blocks)], np.int64)


advance_op = register(
    Op(
        "random_advance",
        "random",
        _advance_forward,
        _advance_rule,
        promote=False,
        doc="The key after that many blocks of four words have been drawn.",
        sample=lambda rng: [Sample((_key_sample(rng),), {"blocks": 17})],
        smooth=False,
    )
)
