"""Running a kernel with a plan, as a program does: shapes in, arguments, tiles shared by the pool."""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.kernels import pool
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel

GUARD = 64  # numbers before and after each output that must stay as they are


def run(
    kernel: Kernel, inputs: list[np.ndarray], shape: tuple[int, ...], threads: int = 1, gives: Any = None
) -> np.ndarray:
    """The output of a kernel with one output, of dtype `gives` or that of the first input. What lies around it is
    checked, and it starts as NaN (as 77 where there is none)."""
    dtype = np.dtype(gives or inputs[0].dtype)
    size, before = int(np.prod(shape)), 77 if dtype.kind in "iu" else np.nan
    memory = np.full(size + 2 * GUARD, before, dtype)
    out = memory[GUARD : GUARD + size].reshape(shape)
    plan = planned(kernel, inputs, shape)
    inputs = [np.ascontiguousarray(x) for x in inputs]
    scratch = np.full(plan.scratch // 8 + 16, np.nan)
    words = [*(x.ctypes.data for x in inputs), out.ctypes.data, -(-scratch.ctypes.data // 64) * 64, *plan.scalars]
    args = np.array(words, np.int64)
    table = np.array([[kernel.address, args.ctypes.data, plan.tiles, 1]], np.int64)
    threads_before = pool.get_num_threads()
    pool.set_num_threads(threads)
    try:
        entry(table.ctypes.data, 1)()
    finally:
        pool.set_num_threads(threads_before)
    around = np.concatenate((memory[:GUARD], memory[GUARD + size :]))
    assert (around == before if dtype.kind in "iu" else np.isnan(around)).all(), "written outside of the output"
    return out


def planned(kernel: Kernel, inputs: list[np.ndarray], shape: tuple[int, ...]) -> Any:
    """The kernel's plan for these arrays."""
    assert kernel.plan is not None
    return kernel.plan([x.shape for x in inputs], [shape])


def sizes(rng: np.random.Generator, *limits: int) -> tuple[int, ...]:
    """Random sizes, each from 1 to its limit, small ones more often than large ones."""
    return tuple(int(np.ceil(limit ** rng.random())) for limit in limits)


def close(out: np.ndarray, wanted: np.ndarray, scale: float = 1.0) -> None:
    """Equal up to rounding: `scale` is about the largest sum of absolute products."""
    eps = np.finfo(out.dtype).eps
    np.testing.assert_allclose(out, wanted, rtol=16 * eps, atol=8 * eps * scale)
