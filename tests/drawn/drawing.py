"""What hypothesis draws: sizes that are odd for vectors and tiles, dtypes, axes, and arrays in any memory layout.

`drawn` is a test's decorator: it runs on the seed of the test run, so that a failure replays with it, and on as many
examples as the profile says (conftest.py; `--hypothesis-profile slow` for many). Numbers in arrays come from a drawn
seed and not from hypothesis, which would spend its time on them; what it shrinks are shapes, layouts and attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from conftest import SEED
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gluonish.nd.dtypes import bfloat16

bfloat16()  # from here on NumPy knows its name
SMALL = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9])
SIZE = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 0])
FLOATS = st.sampled_from(["float32", "float32", "float64", "float16", "bfloat16"])
PRECISE = st.sampled_from(["float32", "float32", "float64"])
LAYOUTS = ("plain", "plain", "turned", "backwards", "strided", "inside", "spread")


def drawn(**strategies: Any) -> Callable[..., Any]:
    """The test gets what the strategies draw, again and again."""

    def decorate(test: Any) -> Any:
        health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        quiet = settings(deadline=None, print_blob=True, database=None, suppress_health_check=health)
        return seed(SEED)(quiet(given(**strategies)(test)))

    return decorate


class Drawn(NamedTuple):
    """Values in float64 (already those of their dtype), and how they lie in memory."""

    values: np.ndarray
    dtype: str
    layout: str

    def array(self) -> np.ndarray:
        """The values in their dtype and layout."""
        return laid(self.values.astype(self.dtype), self.layout)


def laid(x: np.ndarray, layout: str) -> np.ndarray:
    """The same values in other memory; "spread" repeats the first along the last axis, with a stride of 0."""
    if x.ndim == 0 or layout == "plain":
        return np.array(x)
    if layout == "turned":
        return np.array(x.T, order="C").T
    if layout == "backwards":
        return np.array(x[..., ::-1])[..., ::-1]
    if layout == "strided":
        room = np.zeros(tuple(2 * s for s in x.shape), x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    elif layout == "inside":
        room = np.zeros(tuple(s + 3 for s in x.shape), x.dtype)[tuple(slice(1, s + 1) for s in x.shape)]
    else:
        return np.broadcast_to(x[..., :1], x.shape)
    room[...] = x
    return room


@st.composite
def arrays(draw: Any, shape: tuple[int, ...], dtype: str, low: float = -1.0, high: float = 1.0) -> Drawn:
    """Uniform numbers, rounded to the dtype, in a layout."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layout = draw(st.sampled_from(LAYOUTS))
    values = laid(rng.uniform(low, high, shape).astype(dtype), layout)
    return Drawn(values.astype("float64"), dtype, layout)


@st.composite
def whole(draw: Any, shape: tuple[int, ...], low: int, high: int, dtype: str = "int64") -> Drawn:
    """Integers in [low, high)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layout = draw(st.sampled_from(LAYOUTS))
    return Drawn(laid(rng.integers(low, max(high, low + 1), shape), layout), dtype, layout)


def shapes(low: int = 1, high: int = 4, size: Any = SMALL) -> Any:
    """Shapes of a few dimensions."""
    return st.lists(size, min_size=low, max_size=high).map(tuple)


@st.composite
def broadcasting(draw: Any, count: int) -> list[tuple[int, ...]]:
    """Shapes that broadcast to one."""
    full = draw(shapes(0, 4, st.sampled_from([1, 2, 3, 5, 8, 17, 33, 0])))
    found = []
    for _ in range(count):
        own = [1 if draw(st.integers(0, 3)) == 0 else s for s in full]
        found.append(tuple(own[draw(st.integers(0, len(own))) if draw(st.booleans()) else 0 :]))
    return found
