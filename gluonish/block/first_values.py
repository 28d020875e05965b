"""The first values of a Parameter: an initializer and random numbers of its own.

Each Parameter draws from a stream of its own, whose seed is taken from the global stream when `initialize` is called.
So its values do not depend on when its shape becomes known: a layer that waits for its first batch gets the same values
as one that was told its input size, and dropout between two such layers draws the same eager and hybridized.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.block.abstract import outside_of_traces
from gluonish.nd import NDArray, random
from gluonish.nd.ops.random import philox


class FirstValues:
    """What will fill a Parameter as soon as its shape is known."""

    def __init__(self, init: Any) -> None:
        seed, position = random.default.reserve(1)
        words = philox(int(seed), np.array([position], np.uint64))[0]
        self.init = init
        self.seed = int(words[0]) << 31 ^ int(words[1])

    def make(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The values, computed outside any trace and tape. Raises: the initializer's error, naming the Parameter."""
        before = random.default
        values = NDArray(np.zeros(shape, dtype))
        with outside_of_traces():
            random.default = random.Generator(self.seed)
            try:
                self.init(name, values)
            except (ValueError, TypeError) as error:
                raise type(error)(f"initializing Parameter {name!r} with {self.init!r}: {error}") from None
            finally:
                random.default = before
        return values._data
