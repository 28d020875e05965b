"""Products of bfloat16 and int8, on every target that multiplies them, against NumPy."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from kernels.planned import run, sizes

import gluonish.nd.ops  # noqa: F401  (registers the ops of epilogues)
from gluonish.kernels import target
from gluonish.kernels.dots import GROUPS, group_of, operand_dtype
from gluonish.kernels.gemm import DEPTH, matmul_kernel
from gluonish.kernels.packing_groups import group_rows_kernel, pack_groups_kernel
from gluonish.kernels.tiling import packed_size, round_up

Rng = np.random.Generator
BF16 = ml_dtypes.bfloat16
MEMORY = {"bfloat16": BF16, "int8": np.int8, "int16": np.int16, "int32": np.int32}
HERE = [name for name in GROUPS if name != "bfloat16" or operand_dtype(name) == name]


def grouped(a: np.ndarray, b: np.ndarray, dtype: str) -> list[np.ndarray]:
    """Both operands as the kernel reads them."""
    source = a.dtype.name
    rows = run(
        group_rows_kernel(dtype, source), [a], (a.shape[0], round_up(a.shape[1], group_of(dtype))), 1, MEMORY[dtype]
    )
    size = packed_size(*b.shape, dtype)
    return [rows, run(pack_groups_kernel(dtype, source), [b], (size,), 1, np.dtype("int32"))]


def integers(rng: Rng, *shape: int) -> np.ndarray:
    out = rng.integers(-128, 128, shape).astype(np.int8)
    out[rng.random(shape) < 0.1] = -128  # the number without a negative
    return out


@pytest.mark.parametrize("level", target.available())
def test_integer_products_are_exact(level: str, rng: Rng) -> None:
    with target.use(target.named(level)):
        for dtype in {operand_dtype("int8"), "int16" if target.current().x86 else "int32", "int32"}:
            for m, n, k in [sizes(rng, 90, 150, 200) for _ in range(5)] + [
                (7, 66, 4 * DEPTH + 3),
                (3, 5, 0),
                (1, 1, 1),
            ]:
                a, b = integers(rng, m, k), integers(rng, k, n)
                got = run(matmul_kernel(dtype), grouped(a, b, dtype), (m, n), 2, np.dtype("int32"))
                np.testing.assert_array_equal(got, a.astype(np.int32) @ b.astype(np.int32))


@pytest.mark.skipif("bfloat16" not in HERE, reason="needs AVX-512-BF16")
@pytest.mark.parametrize("gives", ["float32", "bfloat16"])
def test_bfloat16_products(gives: str, rng: Rng) -> None:
    """Sums in float32 with two roundings a group; a bfloat16 result is that, rounded once, also over blocks of k."""
    for m, n, k in [sizes(rng, 90, 150, 200) for _ in range(5)] + [(7, 66, 2 * DEPTH + 3), (3, 5, 0), (1, 1, 1)]:
        a, b = rng.standard_normal((m, k)).astype(BF16), rng.standard_normal((k, n)).astype(BF16)
        operands, kernel = grouped(a, b, "bfloat16"), matmul_kernel("bfloat16", gives=gives)
        results = [run(kernel, operands, (m, n), threads, np.dtype(gives)) for threads in (1, 2, 3)]
        wanted, size = a.astype(float) @ b.astype(float), np.abs(a.astype(float)) @ np.abs(b.astype(float))
        room = 2.0**-24 * (k + 2) * size + (2.0**-8 * np.abs(wanted) if gives == "bfloat16" else 0)
        assert (np.abs(results[0].astype(float) - wanted) <= room + 1e-30).all()
        for other in results[1:]:
            assert other.tobytes() == results[0].tobytes()


@pytest.mark.skipif("bfloat16" not in HERE, reason="needs AVX-512-BF16")
def test_bfloat16_epilogue(rng: Rng) -> None:
    """relu(round(a @ b) + bias) + residual, operands in bfloat16 and float32, each step rounded as asked."""
    steps = (("cast", (0,), (("dtype", "bfloat16"),)), ("add", (3, 1)), ("relu", (4,)), ("add", (5, 2)))
    kernel = matmul_kernel("bfloat16", epilogue=(("column", "full:bfloat16"), steps), gives="bfloat16")
    m, n, k = 13, 70, 2 * DEPTH + 6
    a, b, r = (rng.standard_normal(s).astype(BF16) for s in ((m, k), (k, n), (m, n)))
    bias = rng.standard_normal(n).astype("f")
    got = run(kernel, [*grouped(a, b, "bfloat16"), bias, r], (m, n), 1, np.dtype(BF16))
    product = (a.astype("f") @ b.astype("f")).astype(BF16).astype("f")
    wanted = np.maximum(product + bias, 0) + r.astype("f")
    np.testing.assert_allclose(got.astype("f"), wanted, rtol=2**-7, atol=2**-7 * np.abs(product).max())


def test_an_integer_product_ends_in_floats(rng: Rng) -> None:
    """Dequantization: float32(sum) * scale + bias, in the kernel."""
    dtype = operand_dtype("int8")
    steps = (("cast", (0,), (("dtype", "float32"),)), ("multiply", (3, 1)), ("add", (4, 2)))
    kernel = matmul_kernel(dtype, epilogue=(("column:float32", "column:float32"), steps), gives="float32")
    a, b = integers(rng, 9, 50), integers(rng, 50, 77)
    scale, bias = rng.standard_normal(77).astype("f"), rng.standard_normal(77).astype("f")
    got = run(kernel, [*grouped(a, b, dtype), scale, bias], (9, 77), 1, np.dtype("float32"))
    np.testing.assert_allclose(got, (a.astype("f") @ b.astype("f")) * scale + bias, rtol=1e-6, atol=1e-2)


@pytest.mark.skipif(HERE != list(GROUPS) or operand_dtype("int8") != "int8", reason="looks at AVX-512 assembly")
@pytest.mark.parametrize(("dtype", "instruction"), [("bfloat16", "vdpbf16ps"), ("int8", "vpdpbusd")])
def test_inner_loops(dtype: str, instruction: str) -> None:
    """24 dot products a step from registers, and nothing but loads beside them."""
    body = matmul_kernel(dtype).assembly.split(f"product_taps_{dtype}_6x4:")[1].split(".Lfunc_end")[0]
    loops = [block for block in re.split(r"\n\.L\w+:", body) if instruction in block]
    assert loops
    for block in loops:
        code = block[: block.rindex(instruction)]
        assert len(re.findall(rf"{instruction}\s+[^\n]*%zmm", code)) % 24 == 23
        assert "call" not in code and "gather" not in code
        assert not re.search(r"vmov\w+\s+[^\n]*\(%r[sb]p\)", code), "a spilled vector"
