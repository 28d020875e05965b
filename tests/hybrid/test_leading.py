"""What indexing takes from the begin of an array is read where it is; where that could go wrong, it is copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import nd
from gluonish.hybrid import hybridize


def doubled(x: Any, w: Any) -> Any:
    out = x[0] @ w
    x += x[:1]  # the argument itself changes, and what is read of it with it
    return out, x[0] @ w


READ: dict[str, Callable[..., Any]] = {
    "an argument": lambda x, w: x[0, :3] @ w,
    "a computed array": lambda x, w: nd.softmax(x)[:2] @ w,
    "a block of a block": lambda x, w: x[:2][0][None] @ w,
    "in another shape": lambda x, w: x[:2].reshape((-1, 5)) @ w,
    "all but nothing": lambda x, w: x[:0] @ w,
}
COPIED: dict[str, Callable[..., Any]] = {
    "not at the begin": lambda x, w: x[1] @ w,
    "not in one piece": lambda x, w: x[:, :2] @ w,
    "in steps": lambda x, w: x[::2] @ w,
    "a result": lambda x, w: (x[0], x[0] @ w),
    "written over": lambda x, w: nd.softmax(x)[:1] + nd.softmax(x),
    "little of much": lambda x, w: nd.softmax(nd.concat([x] * 9))[0] @ w,
    "an argument that changes": doubled,
}


@pytest.mark.parametrize("name", [*READ, *COPIED])
def test_values_are_those_of_copies(name: str, rng: np.random.Generator) -> None:
    function = {**READ, **COPIED}[name]
    compiled = hybridize(function)
    w = nd.array(rng.standard_normal((5, 6)).astype(np.float32))
    for size in (3, 4):
        x = rng.standard_normal((size, 4, 5)).astype(np.float32)
        found, wanted = (f(nd.array(x), w) for f in (compiled, function))
        for a, b in zip(*((y if isinstance(y, tuple) else (y,)) for y in (found, wanted)), strict=True):
            np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-5, atol=1e-5)
    copies = [s for s in compiled.variants[-1].program.main if s.nodes[0].is_op("index")]
    assert bool(copies) == (name in COPIED)
