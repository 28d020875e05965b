"""Rows written into arguments and captured arrays: in place, as eager code does, whatever shares their memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn

Rng = np.random.Generator


def draw(rng: Rng, *shape: int) -> nd.NDArray:
    return nd.array(rng.standard_normal(shape).astype(np.float32))


def write(held: Any, start: Any, new: Any) -> Any:
    nd.write_rows(held, start, new * 2)
    return held.sum(0)


def heads(x: Any) -> Any:
    return x.reshape((*x.shape[:2], 2, x.shape[2] // 2)).transpose((0, 2, 1, 3))


@pytest.mark.parametrize("kind", ["rows", "batch", "heads"])
def test_only_the_rows_change_and_nothing_is_copied(kind: str, rng: Rng) -> None:
    def step(held: Any, start: Any, new: Any) -> Any:
        nd.write_rows(held, start, heads(new) if kind == "heads" else new)
        return (held * held).sum()

    compiled = gl.hybridize(step)
    shapes = {"rows": ((9, 3), (2, 3)), "batch": ((2, 3, 9, 5), (2, 3, 4, 5)), "heads": ((2, 2, 9, 5), (2, 4, 10))}
    held, wanted = (nd.zeros(shapes[kind][0]) for _ in range(2))
    memory = held._data
    for start in (0, 3, 5):
        new = draw(rng, *shapes[kind][1])
        found = [f(x, nd.array([start]), new).item() for f, x in ((compiled, held), (step, wanted))]
        np.testing.assert_allclose(*found, rtol=1e-5)
        np.testing.assert_array_equal(held.asnumpy(), wanted.asnumpy())
    assert held._data is memory and len(compiled.variants) == 1
    names = [s.name for s in compiled.variants[0].program.main]
    assert names.count("set_rows") == 1 and not any("copy" in name for name in names)
    before = held.asnumpy()
    for wrong in (-1, 10):
        with pytest.raises(IndexError, match=r"set_rows: index .* is out of range for size 9"):
            compiled(held, nd.array([wrong]), new)
    np.testing.assert_array_equal(held.asnumpy(), before)


def test_arguments_that_share_memory(rng: Rng) -> None:
    """The values come from the array that is written, and a view of it is read too."""
    compiled = gl.hybridize(lambda held, start, new, view: (write(held, start, new), view * 1))
    for make in (lambda x: x[2:4], lambda x: x[:2]):
        found, wanted = (nd.array(np.arange(12.0).reshape(6, 2)) for _ in range(2))
        view = found[1:3].asnumpy()
        result, seen = compiled(found, nd.array([2]), make(found), found[1:3])
        write(wanted, nd.array([2]), make(wanted).copy())
        np.testing.assert_array_equal(found.asnumpy(), wanted.asnumpy())
        np.testing.assert_array_equal(result.asnumpy(), wanted.sum(0).asnumpy())
        np.testing.assert_array_equal(seen.asnumpy(), view)


def test_an_argument_that_is_no_block_of_memory(rng: Rng) -> None:
    wide = nd.zeros((6, 4))
    compiled, new = gl.hybridize(write), draw(rng, 2, 2)
    compiled(wide[:, 1:3], nd.array([3]), new)
    assert (wide.asnumpy()[3:5, 1:3] == 2 * new.asnumpy()).all() and np.count_nonzero(wide.asnumpy()) == 4


def test_old_values_that_are_still_wanted(rng: Rng) -> None:
    def step(held: Any, start: Any, new: Any) -> Any:
        before = held * 1
        nd.write_rows(held, start, new)
        first = held * 1
        nd.write_rows(held, start + 1, new)
        return before, first, held

    arrays = [draw(rng, 5, 3), nd.array([1]), draw(rng, 2, 3)]
    twin = [arrays[0].copy(), *arrays[1:]]
    for a, b in zip(gl.hybridize(step)(*arrays), step(*twin), strict=True):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
    np.testing.assert_array_equal(arrays[0].asnumpy(), twin[0].asnumpy())


class Log(nn.HybridBlock):
    """Keeps rows in an array of its own."""

    def __init__(self) -> None:
        self.held = nd.zeros((6, 3))

    def forward(self, start: Any, new: Any) -> Any:
        nd.write_rows(self.held, start, new)
        return self.held.sum(0)


def test_captured_arrays_and_exports(tmp_path: Path, rng: Rng) -> None:
    log, new = Log(), draw(rng, 2, 3)
    log.hybridize()
    log(nd.array([3]), new)
    assert (log.held.asnumpy()[3:5] == new.asnumpy()).all() and np.count_nonzero(log.held.asnumpy()) == 6
    layer = nn.MultiHeadAttention(4, 2, causal=True, in_units=4)
    layer.initialize("xavier")
    layer.hybridize()
    x = draw(rng, 1, 3, 4)
    cache = [list(layer.new_cache(1, 5)) for _ in range(2)]
    how = {"mask": None, "cache": None, "position": nd.array([0])}
    wanted = layer(x, **{**how, "cache": cache[0]})
    layer.export(tmp_path / "layer", x, **{**how, "cache": cache[1]})
    imported = gl.SymbolBlock.imports(tmp_path / "layer")
    found = imported(x, **{**how, "cache": cache[1]})
    np.testing.assert_allclose(found.asnumpy(), wanted.asnumpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cache[1][0].asnumpy(), cache[0][0].asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hybrid", [False, True])
def test_gradients_would_be_lost(hybrid: bool, rng: Rng) -> None:
    new = draw(rng, 2, 3)
    new.attach_grad()
    run = gl.hybridize(write) if hybrid else write
    with autograd.record(), pytest.raises(ValueError, match="assign value.detach"):
        run(nd.zeros((5, 3)), nd.array([1]), new)
