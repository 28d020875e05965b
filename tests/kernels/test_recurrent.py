"""Kernels of recurrent cells against the ops' NumPy: sizes, lengths, directions, gradients, threads, special values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish.kernels import packing, pool, recurrent, recurrent_products
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.recurrent_cells import GRU, LSTM, RNN, Kind
from gluonish.kernels.tiling import packed_size
from gluonish.nd.op import OPS

CELLS = [LSTM, GRU, RNN._replace(activation="tanh"), RNN._replace(activation="relu")]
EVERY = pytest.mark.parametrize("kind", CELLS, ids=lambda kind: f"{kind.name}{kind.activation}")
GUARD = 64  # numbers around an output that must stay as they are


def run(kernel: Kernel, inputs: list[np.ndarray], shape: tuple[int, ...], *extra: int, threads: int = 2) -> np.ndarray:
    """The output of a kernel; what lies around it is checked."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, np.nan, inputs[0].dtype)
    out = memory[GUARD : GUARD + size].reshape(shape)
    before = pool.get_num_threads()
    pool.set_num_threads(threads)
    try:
        assert kernel.plan is not None
        plan = kernel.plan([x.shape for x in inputs], [shape])
        scratch = np.full(plan.scratch, 255, np.uint8)  # NaN
        words = [*(x.ctypes.data for x in inputs), out.ctypes.data, scratch.ctypes.data, *plan.scalars, *extra]
        args = np.array(words, np.int64)
        table = np.array([[kernel.address, args.ctypes.data, plan.tiles, 1]], np.int64)
        entry(table.ctypes.data, 1)()
    finally:
        pool.set_num_threads(before)
    assert np.isnan(memory[:GUARD]).all() and np.isnan(memory[GUARD + size :]).all(), "written outside of the output"
    return out


def done() -> np.ndarray:
    """What a run begins to count from."""
    return np.zeros(recurrent.DONE_WORDS, np.int64)


def inputs_of(kind: Kind, rng: np.random.Generator, steps: int, rows: int, units: int, dtype: str) -> list[np.ndarray]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    wide = kind.gates * units
    bias = [draw(units)] if kind.biased else []
    lengths = [rng.integers(-1, steps + 3, rows)] if kind.masked else []
    weight = draw(wide, units) / np.sqrt(units, dtype=dtype) if units else draw(wide, units)
    return [draw(steps, rows, wide), weight, *bias, *(draw(rows, units) for _ in range(kind.states)), *lengths]


def attrs_of(kind: Kind, reverse: bool, keep: bool = True) -> dict[str, Any]:
    more: dict[str, Any] = {"activation": kind.activation} if kind.activation else {"keep": keep}
    return {"reverse": reverse, **more}


def forward(kind: Kind, inputs: list[np.ndarray], reverse: bool, threads: int = 2) -> np.ndarray:
    gates, weight, *rest = inputs
    dtype, units = gates.dtype.name, weight.shape[1]
    size = (recurrent_products.packed_gates_size(units, dtype, kind.gates),)
    packed = run(recurrent_products.pack_gates_kernel(dtype, kind.gates), [weight], size)
    planes = kind.planes if kind.kept else kind.states
    shape = (planes, gates.shape[0] + 1, gates.shape[1], units)
    kernel = recurrent.forward_kernel(dtype, kind)
    return run(kernel, [gates, packed, *rest, done()], shape, int(reverse), threads=threads)


def backward(
    kind: Kind, given: list[np.ndarray], record: np.ndarray, weight: np.ndarray, lengths: list[np.ndarray],
    reverse: bool, parts: tuple[str, ...] = (), threads: int = 2,
) -> np.ndarray:  # fmt: skip
    dtype = record.dtype.name
    packed = run(
        packing.pack_kernel(dtype, vectors=recurrent_products.VECTORS), [weight], (packed_size(*weight.shape, dtype),)
    )
    shape: tuple[int, ...] = (*record.shape[1:3], weight.shape[0])
    shape = (kind.blocks, *shape) if kind.blocks > 1 else shape
    kernel = recurrent.backward_kernel(dtype, kind, parts)
    return run(kernel, [*given, record, packed, *lengths, done()], shape, int(reverse), threads=threads)


def agree(out: np.ndarray, wanted: np.ndarray) -> None:
    room = (2e-5 if out.dtype == np.float32 else 1e-12) * max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(out, wanted, rtol=room, atol=room)


SIZES = [(5, 7, 33), (1, 1, 1), (3, 20, 50), (0, 3, 4), (4, 13, 64), (2, 0, 3), (2, 3, 0), (6, 2, 17)]


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "lengths"])
def test_kernels_are_the_ops(kind: Kind, dtype: str, masked: bool, rng: np.random.Generator) -> None:
    kind = kind._replace(masked=masked)
    for steps, rows, units in SIZES:
        reverse = bool(rng.integers(2))
        inputs = inputs_of(kind, rng, steps, rows, units, dtype)
        record = OPS[kind.name].forward(*inputs, **attrs_of(kind, reverse))
        agree(forward(kind._replace(kept=True), inputs, reverse), record)
        agree(forward(kind, inputs, reverse), record[: kind.states])
        lengths = inputs[-1:] if masked else []
        grad = rng.standard_normal((kind.planes if rng.integers(2) else kind.states, *record.shape[1:])).astype(dtype)
        attrs = {k: v for k, v in attrs_of(kind, reverse).items() if k != "keep"}
        wanted = OPS[f"{kind.name}_gradient"].forward(grad, record, inputs[1], *lengths, **attrs)
        agree(backward(kind._replace(given=len(grad)), [grad], record, inputs[1], lengths, reverse), wanted)


@EVERY
@pytest.mark.parametrize("parts", [("outputs",), ("last_h",), ("outputs", "last_h", "last_c"), ("last_c",)])
def test_gradients_in_parts(kind: Kind, parts: tuple[str, ...], rng: np.random.Generator) -> None:
    parts = tuple(p for p in parts if p != "last_c" or kind.states > 1)
    if not parts:
        return
    for steps, rows, units in SIZES[:5]:
        for reverse in (False, True):
            kind = kind._replace(masked=bool(rng.integers(2)))
            inputs = inputs_of(kind, rng, steps, rows, units, "float32")
            record = OPS[kind.name].forward(*inputs, **attrs_of(kind, reverse))
            grad = np.zeros((kind.states, *record.shape[1:]), np.float32)
            given = []
            for part in parts:
                at: Any = (0, slice(0, steps) if reverse else slice(1, steps + 1))
                at = at if part == "outputs" else (int(part == "last_c"), 0 if reverse else steps)
                given.append(rng.standard_normal(grad[at].shape).astype(np.float32))
                grad[at] += given[-1]
            lengths = inputs[-1:] if kind.masked else []
            attrs = {k: v for k, v in attrs_of(kind, reverse).items() if k != "keep"}
            wanted = OPS[f"{kind.name}_gradient"].forward(grad, record, inputs[1], *lengths, **attrs)
            agree(backward(kind, given, record, inputs[1], lengths, reverse, parts), wanted)


@EVERY
def test_bits_do_not_depend_on_threads(kind: Kind, rng: np.random.Generator) -> None:
    kind = kind._replace(kept=True)
    inputs = inputs_of(kind, rng, 4, 21, 40, "float32")
    records = [forward(kind, inputs, False, threads) for threads in (1, 2, 3, 4, 8)]
    assert all(np.array_equal(records[0], r) for r in records)
    grad = rng.standard_normal(records[0].shape).astype(np.float32)
    given = kind._replace(given=kind.planes)
    outs = [backward(given, [grad], records[0], inputs[1], [], False, threads=threads) for threads in (1, 2, 3, 8)]
    assert all(np.array_equal(outs[0], out) for out in outs)


@EVERY
def test_shared_units_give_the_same_bits(kind: Kind, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that is far, or few rows: threads share the units of a step and wait for each other."""
    kind = kind._replace(kept=True, masked=bool(rng.integers(2)))
    given = kind._replace(given=kind.planes)
    for steps, rows, units in [(9, 1, 150), (5, 14, 100), (4, 2, 33), (0, 2, 70)]:
        reverse = bool(rng.integers(2))
        inputs = inputs_of(kind, rng, steps, rows, units, "float32")
        lengths = inputs[-1:] if kind.masked else []
        grad = rng.standard_normal((kind.planes, steps + 1, rows, units)).astype(np.float32)
        records, gradients = [], []
        for least, threads in ((1 << 40, 2), (1, 1), (1, 2), (1, 3), (1, 8)):
            monkeypatch.setattr(recurrent, "LEAST_SHARE", least)
            monkeypatch.setattr(recurrent, "FAR", 1)
            records.append(forward(kind, inputs, reverse, threads))
            gradients.append(backward(given, [grad], records[0], inputs[1], lengths, reverse, threads=threads))
        assert all(np.array_equal(records[0], r) for r in records)
        assert all(np.array_equal(gradients[0], g) for g in gradients)


@EVERY
def test_rows_know_nothing_of_each_other(kind: Kind, rng: np.random.Generator) -> None:
    inputs = inputs_of(kind, rng, 3, 9, 20, "float32")
    plain = forward(kind, inputs, False)
    inputs[0][1, 4] = np.nan
    record = forward(kind, inputs, False)
    assert np.isnan(record[:, 2:, 4]).all()
    others = [row for row in range(9) if row != 4]
    assert np.array_equal(record[:, :, others], plain[:, :, others])
    assert np.array_equal(record[:, :2], plain[:, :2])


def test_packed_weights_stand_by_unit(rng: np.random.Generator) -> None:
    for gates in (1, 3, 4):
        units = 37
        weight = rng.standard_normal((gates, units, units)).astype(np.float32)
        size = (recurrent_products.packed_gates_size(units, "float32", gates),)
        packed = run(recurrent_products.pack_gates_kernel("float32", gates), [weight.reshape(-1, units)], size)
        tile = recurrent_products.tile_of_rows("float32")
        packed = packed.reshape(-1, units, tile.vectors, tile.lanes)  # panel, k, vector, lane
        vectors = packed.transpose(0, 2, 3, 1).reshape(-1, tile.lanes, units)
        real = -(-units // tile.lanes) * gates
        whole = vectors[:real].reshape(-1, gates, tile.lanes, units).transpose(1, 0, 2, 3).reshape(gates, -1, units)
        assert np.array_equal(whole[:, :units], weight)
        assert not whole[:, units:].any()
        assert not vectors[real:].any()
