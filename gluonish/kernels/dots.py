"""Dot products of short groups: how narrow numbers are multiplied where one instruction takes several of them.

A microkernel of dtype "bfloat16" or "int8" takes a group of neighbouring k in one step: each 4-byte lane of an operand
holds the group's numbers, and one instruction multiplies two such lanes number by number and adds all products to a
float32 or an int32. So a matrix of groups is laid out, packed and walked like a matrix of float32 numbers with fewer k.

    dtype       group   sums      instruction
    bfloat16    2       float32   vdpbf16ps (AVX-512-BF16)
    int8        4       int32     vpdpbusd (AVX-512-VNNI), which wants its left bytes without sign: see `SEEDED`
    int16       2       int32     vpmaddwd (every x86-64): what int8 is widened to where there is no vpdpbusd
    int32       1       int32     multiplication and addition: what int8 is widened to anywhere else

vdpbf16ps takes denormals for zeros and rounds each of its two additions to the nearest float32; its results differ from
a float32 product of the same numbers by no more than two float32 roundings do. Integer sums wrap around as int32 does.

Deliberately not here: the layout of groups (`packing_groups.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gluonish.kernels import target as targets
from gluonish.kernels.lanes import Lanes
from gluonish.kernels.value import declare

GROUPS = {"bfloat16": 2, "int8": 4, "int16": 2}
SUMS = {"bfloat16": "float32", "int8": "int32", "int16": "int32"}
SEEDED = ("int8",)  # left bytes are a + 128: a panel's row 0 has -128 times the sums of its columns, where sums begin
_SIZES = {"float64": 8, "bfloat16": 2, "float16": 2}


class _Text(ir.Type):
    """An LLVM type that llvmlite has no class for."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _to_string(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Text) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def group_of(dtype: str) -> int:
    """How many k a lane of an operand holds."""
    return GROUPS.get(dtype, 1)


def sums_of(dtype: str) -> str:
    """The dtype of the sums of products."""
    return SUMS.get(dtype, dtype)


def size_of(dtype: str) -> int:
    """Bytes of a number in memory."""
    return 1 if dtype in ("int8", "uint8") else 2 if dtype == "int16" else _SIZES.get(dtype, 4)


def operand_dtype(dtype: str) -> str:
    """What the current target multiplies numbers of a dtype as: themselves, or what they must be widened to."""
    machine = targets.current()
    features = machine.features.split(",")
    wide = machine.x86 and machine.vector_bytes == 64
    if dtype == "int8":
        return "int8" if wide and "+avx512vnni" in features else "int16" if machine.x86 else "int32"
    if dtype == "bfloat16":
        return dtype if wide and "+avx512bf16" in features else "float32"
    return "float32" if dtype == "float16" else dtype


def multiply_add(dtype: str, lanes: Lanes, fused: bool, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    """total + x * y in every lane; x and y are vectors of groups, typed as the sums."""
    b, count = lanes.builder, lanes.count
    if dtype == "bfloat16":
        kind: ir.Type = _Text(f"<{2 * count} x bfloat>")
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * count}"
        function = declare(b, name, lanes.vector, [lanes.vector, kind, kind])
        return b.call(function, [total, b.bitcast(x, kind), b.bitcast(y, kind)])
    if dtype == "int8":
        function = declare(b, f"llvm.x86.avx512.vpdpbusd.{32 * count}", lanes.vector, [lanes.vector] * 3)
        return b.call(function, [total, x, y])
    if dtype == "int16":
        kind = ir.VectorType(ir.IntType(16), 2 * count)
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[count]
        function = declare(b, f"llvm.x86.{name}", lanes.vector, [kind, kind])
        return b.add(total, b.call(function, [b.bitcast(x, kind), b.bitcast(y, kind)]))
    if dtype == "int32":
        return b.add(total, b.mul(x, y))
    return lanes.fma(x, y, total, fused)


def widened(b: ir.IRBuilder, bits: Any, dtype: str) -> Any:
    """float32 of the bits of a bfloat16 or float16, in a scalar or a vector; exact."""
    single = _like(bits.type, ir.FloatType())
    if dtype == "float16":
        return b.fpext(b.bitcast(bits, _like(bits.type, ir.HalfType())), single)
    kind = _like(bits.type, ir.IntType(32))
    return b.bitcast(b.shl(b.zext(bits, kind), _splat(kind, 16)), single)


def narrowed(b: ir.IRBuilder, value: Any, dtype: str) -> Any:
    """The bits of a float32 rounded to bfloat16 or float16, ties to even; NaN stays NaN, denormals what they are.

    bfloat16 is rounded in integers: the machine's own conversion takes denormals for zeros, which NumPy's does not.
    """
    wide, narrow = _like(value.type, ir.IntType(32)), _like(value.type, ir.IntType(16))
    if dtype == "float16":
        return b.bitcast(b.fptrunc(value, _like(value.type, ir.HalfType())), narrow)
    bits = b.bitcast(value, wide)
    odd = b.and_(b.lshr(bits, _splat(wide, 16)), _splat(wide, 1))
    rounded = b.lshr(b.add(bits, b.add(odd, _splat(wide, 0x7FFF))), _splat(wide, 16))
    quiet = b.or_(b.lshr(bits, _splat(wide, 16)), _splat(wide, 0x40))
    return b.trunc(b.select(b.fcmp_unordered("uno", value, value), quiet, rounded), narrow)


def _like(kind: ir.Type, element: ir.Type) -> ir.Type:
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _splat(kind: ir.Type, number: int) -> ir.Constant:
    return ir.Constant(kind, [number] * kind.count) if isinstance(kind, ir.VectorType) else ir.Constant(kind, number)
