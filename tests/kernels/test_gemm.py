"""Matrix products against NumPy in float64, on every target, with every epilogue operand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from kernels.planned import close, planned, run, sizes

import gluonish.nd.ops  # noqa: F401  (registers the ops of epilogues)
from gluonish.kernels import target
from gluonish.kernels.epilogue import Epilogue, bias_epilogue
from gluonish.kernels.gemm import DEPTH, PIECE, matmul_kernel, pieces_kernel, pieces_of, sum_pieces_kernel
from gluonish.kernels.packing import pack_kernel
from gluonish.kernels.tiling import packed_size, round_up, tile_of

Rng = np.random.Generator
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
EACH_DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])


def packed(matrix: np.ndarray, transpose: bool = False) -> np.ndarray:
    k, n = matrix.shape[-2:][:: -1 if transpose else 1]
    shape = (*matrix.shape[:-2], packed_size(k, n, matrix.dtype.name))
    return run(pack_kernel(matrix.dtype.name, transpose), [matrix], shape)


def multiplied(
    a: np.ndarray,
    b: np.ndarray,
    transpose_a: bool = False,
    epilogue: Epilogue = (),
    extras: tuple = (),
    threads: int = 1,
) -> np.ndarray:
    m = a.shape[-1] if transpose_a else a.shape[-2]
    kernel = matmul_kernel(a.dtype.name, transpose_a, epilogue, batched=a.ndim == 3)
    return run(kernel, [a, packed(b), *extras], (*a.shape[:-2], m, b.shape[-1]), threads)


@EACH_LEVEL
@EACH_DTYPE
@pytest.mark.parametrize("transpose", [False, True])
def test_packed_layout(level: str, dtype: str, transpose: bool, rng: Rng) -> None:
    with target.use(target.named(level)):
        tile = tile_of(dtype)
        for _ in range(8):
            k, n = sizes(rng, 600, 200)
            matrix = rng.standard_normal((k, n)).astype(dtype)
            panels = []
            for j in range(0, n, tile.columns):
                part = matrix[:, j : j + tile.columns]
                panels.append(np.pad(part, ((0, 0), (0, round_up(part.shape[1], tile.lanes) - part.shape[1]))).ravel())
            got = packed(np.ascontiguousarray(matrix.T) if transpose else matrix, transpose)
            np.testing.assert_array_equal(got, np.concatenate(panels))


@EACH_LEVEL
@EACH_DTYPE
@pytest.mark.parametrize("transpose_a", [False, True])
def test_product(level: str, dtype: str, transpose_a: bool, rng: Rng) -> None:
    shapes = [sizes(rng, 200, 200, 200) for _ in range(12)] + [(7, 5, DEPTH + 1), (1, 1, 1), (6, 64, 0)]
    with target.use(target.named(level)):
        for m, n, k in shapes:
            a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
            left = np.ascontiguousarray(a.T) if transpose_a else a
            wanted = a.astype(np.float64) @ b.astype(np.float64)
            close(multiplied(left, b, transpose_a), wanted, 4 * k + 1)


@EACH_DTYPE
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (0, 0, 0), (5, 9, 0)])
def test_zero_sizes(dtype: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    out = multiplied(np.ones((m, k), dtype), np.ones((k, n), dtype), False, bias_epilogue(), (np.full(n, 2, dtype),))
    np.testing.assert_array_equal(out, np.full((m, n), 2))


@EACH_DTYPE
def test_batches(dtype: str, rng: Rng) -> None:
    batch, m, n, k = sizes(rng, 6, 40, 90, 60)
    a = rng.standard_normal((batch, m, k)).astype(dtype)
    b = rng.standard_normal((batch, k, n)).astype(dtype)
    close(multiplied(a, b), a.astype(np.float64) @ b.astype(np.float64), 4 * k)
    close(multiplied(a, b[0]), a.astype(np.float64) @ b[0].astype(np.float64), 4 * k)
    swapped = np.ascontiguousarray(a.swapaxes(1, 2))
    close(multiplied(swapped, b, True), a.astype(np.float64) @ b.astype(np.float64), 4 * k)


@EACH_LEVEL
@EACH_DTYPE
def test_epilogue(level: str, dtype: str, rng: Rng) -> None:
    """relu((a @ b + bias) * scale + 0.5 * residual), with K in one block and in two."""
    steps = (("add", (0, 1)), ("multiply", (4, 3)), ("multiply", (2, (0.5,))), ("add", (5, 6)), ("relu", (7,)))
    epilogue = (("column", "full", "scalar"), steps)
    with target.use(target.named(level)):
        for k in (*sizes(rng, 60), DEPTH + 3):
            m, n = sizes(rng, 40, 150)
            a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
            bias, scale = rng.standard_normal(n).astype(dtype), np.full(1, 1.5, dtype)
            residual = rng.standard_normal((m, n)).astype(dtype)
            wanted = np.maximum((a.astype(float) @ b.astype(float) + bias) * 1.5 + 0.5 * residual, 0)
            close(multiplied(a, b, False, epilogue, (bias, residual, scale)), wanted, 8 * k)


@EACH_LEVEL
def test_long_epilogue(level: str, rng: Rng) -> None:
    """One that stays a loop over rows (see `store_through_epilogue`)."""
    a, b = rng.standard_normal((13, 9)).astype("f"), rng.standard_normal((9, 70)).astype("f")
    with target.use(target.named(level)):
        got = multiplied(a, b, False, bias_epilogue("tanh", "exp", "log1p"), (np.zeros(70, "f"),))
    np.testing.assert_allclose(got, np.log1p(np.exp(np.tanh(a @ b))), rtol=1e-5)


@EACH_DTYPE
def test_number_of_threads_changes_no_bit(dtype: str, rng: Rng) -> None:
    a, b = rng.standard_normal((300, 1100)).astype(dtype), rng.standard_normal((1100, 150)).astype(dtype)
    results = [multiplied(a, b, threads=threads) for threads in (1, 2, 3, 8)]
    for result in results[1:]:
        np.testing.assert_array_equal(result.view(np.uint8), results[0].view(np.uint8))


def test_rows_do_not_depend_on_other_rows(rng: Rng) -> None:
    """NaN and Inf stay in their row and column, also in the rows that repeat the last one; relu keeps NaN."""
    a, b = rng.standard_normal((17, 20)).astype("f"), rng.standard_normal((20, 75)).astype("f")
    clean = multiplied(a, b, False, bias_epilogue("relu"), (np.zeros(75, "f"),))
    a[16, 3], b[7, 74] = np.nan, np.inf
    got = multiplied(a, b, False, bias_epilogue("relu"), (np.zeros(75, "f"),))
    assert np.isnan(got[16]).all()
    np.testing.assert_array_equal(got[:16, :74], clean[:16, :74])
    assert not np.isfinite(got[got[:, 74] != 0, 74]).any()


@EACH_LEVEL
def test_a_kernel_keeps_the_tile_it_was_made_with(level: str, rng: Rng) -> None:
    """Its source, its plan and its packed operand agree even if it is compiled for another target."""
    a, b = rng.standard_normal((20, 30)).astype("f"), rng.standard_normal((30, 50)).astype("f")
    with target.use(target.named(level)):
        kernel, right = matmul_kernel("float32"), packed(b)
    close(run(kernel, [a, right], (20, 50)), a.astype(float) @ b.astype(float), 120)


def test_large_product_has_many_tiles() -> None:
    plan = planned(matmul_kernel("float32"), [np.empty((1024, 1024), "f"), np.empty(1 << 20, "f")], (1024, 1024))
    assert plan.tiles >= 32


def test_epilogue_is_checked() -> None:
    with pytest.raises(ValueError, match="kind 'row' is unknown"):
        matmul_kernel("float32", epilogue=(("row",), (("add", (0, 1)),)))
    with pytest.raises(ValueError, match=r"step 1 \(add\) reads value 3 of the 3 before it"):
        matmul_kernel("float32", epilogue=(("column",), (("add", (0, 1)), ("add", (0, 3)))))


@pytest.mark.skipif("avx512" not in target.available(), reason="looks at AVX-512 assembly")
def test_inner_loop() -> None:
    """24 fused products a step from registers: no spills, no gathers, no calls, no float64."""
    kernel = matmul_kernel("float32")
    assert "double" not in kernel.llvm
    body = kernel.assembly.split("product_taps_float32_6x4:")[1].split(".Lfunc_end")[0]
    loops = [block for block in re.split(r"\n\.L\w+:", body) if "vfmadd" in block]
    assert loops
    for block in loops:
        # up to the jump that closes the loop
        code = block[: block.rindex("vfmadd")]
        assert len(re.findall(r"vfmadd231ps\s+%zmm", code)) % 24 == 23
        assert "call" not in code and "gather" not in code
        assert not re.search(r"vmov\w+\s+[^\n]*\(%r[sb]p\)", code), "a spilled vector"


@EACH_DTYPE
@pytest.mark.parametrize("transpose_a", [False, True])
def test_split_sums(dtype: str, transpose_a: bool, rng: Rng) -> None:
    """Small outputs of long sums, in pieces that the sizes alone decide: the same bits for any number of threads."""
    steps = (("add", (0, 1)), ("multiply", (3, (0.5,))), ("add", (4, 2)), ("relu", (5,)))
    for m, n, k in ((1, 1, 2 * PIECE), (7, 66, 5 * PIECE + 3), (5, 3, 3 * PIECE - 1)):
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        left = np.ascontiguousarray(a.T) if transpose_a else a
        bias, residual = rng.standard_normal(n).astype(dtype), rng.standard_normal((m, n)).astype(dtype)
        shape = (pieces_of(m, n, k, dtype), m, n)
        assert shape[0] > 1
        parts = [run(pieces_kernel(dtype, transpose_a), [left, packed(b)], shape, threads) for threads in (1, 2, 3, 8)]
        assert len({p.tobytes() for p in parts}) == 1
        wanted = a.astype(np.float64) @ b.astype(np.float64)
        close(run(sum_pieces_kernel(dtype), parts[:1], (m, n)), wanted, 4 * k)
        ended = run(sum_pieces_kernel(dtype, (("column", "full"), steps)), [parts[0], bias, residual], (m, n))
        close(ended, np.maximum((wanted + bias) * 0.5 + residual, 0), 4 * k)
    assert pieces_of(1000, 1000, 10**6, dtype) == pieces_of(3, 3, PIECE - 1, dtype) == 1
