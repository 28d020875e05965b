"""Random ops: pure functions of a key and of the element's position (counter-based generation).

Element i of a draw with key (seed, offset) is word i % 4 of Philox4x32-10 at counter offset + i // 4 under that seed, so
eager mode, kernels, any number of threads and any order of evaluation give the same bits.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.op import Op, Sample, Shape, Spec, register
from gluonish.nd.size import product

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
        a, b, c, d = (right >> shift) ^ b ^ np.uint64(key[0]), right & low, (left >> shift) ^ d ^ np.uint64(key[1]), left & low
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, WEYL)]
    return np.stack([a, b, c, d], 1).astype(np.uint32)


def _uniform_forward(key: np.ndarray, shape: Shape) -> np.ndarray:
    count = int(product(shape))
    blocks = np.arange((count + 3) // 4, dtype=np.uint64) + np.uint64(key[1])
    words = philox(int(key[0]), blocks).ravel()[:count]
    return ((words >> np.uint32(8)).astype(np.float32) * np.float32(UNIT)).reshape(shape)  # type: ignore[arg-type]


def _key_sample(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2**40, 2)


uniform_op = register(
    Op(
        "random_uniform",
        "random",
        _uniform_forward,
        lambda key, shape: Spec(tuple(shape), np.dtype("float32")),
        promote=False,
        doc="float32 in [0, 1), multiples of 2**-24. Shapes: key (2,) int64 (seed, offset) -> shape.",
        sample=lambda rng: [Sample((_key_sample(rng),), {"shape": s}) for s in ((5, 7), (0, 3), ())],
        smooth=False,
    )
)


def _advance_forward(key: np.ndarray, blocks: Any) -> np.ndarray:
    return key + np.array([0, int(blocks)], np.int64)


advance_op = register(
    Op(
        "random_advance",
        "random",
        _advance_forward,
        lambda key, blocks: Spec(key.shape, key.dtype),
        promote=False,
        doc="The key after that many blocks of four words have been drawn.",
        sample=lambda rng: [Sample((_key_sample(rng),), {"blocks": 17})],
        smooth=False,
    )
)
