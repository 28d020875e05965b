"""The types a number can have inside a kernel, and their short names in the names of intrinsics (`load_f32`).

A bool is one byte in memory and one bit in a register. Half floats exist in memory only: `load_bf16` gives a float32,
`store_bf16` rounds one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """One type: short name, NumPy's name, size in memory in bytes, kind ("f", "i", "u" or "b" as NumPy's)."""

    code: str
    name: str
    size: int
    kind: str

    @property
    def bits(self) -> int:
        """Bits in a register."""
        return 1 if self.kind == "b" else self.size * 8

    @property
    def llvm(self) -> str:
        """The LLVM type in a register, as text."""
        return {"f32": "float", "f64": "double"}.get(self.code, f"i{self.bits}")


SCALARS = {
    s.code: s
    for s in (
        Scalar("f32", "float32", 4, "f"),
        Scalar("f64", "float64", 8, "f"),
        Scalar("i8", "int8", 1, "i"),
        Scalar("i16", "int16", 2, "i"),
        Scalar("i32", "int32", 4, "i"),
        Scalar("i64", "int64", 8, "i"),
        Scalar("u8", "uint8", 1, "u"),
        Scalar("u16", "uint16", 2, "u"),
        Scalar("u32", "uint32", 4, "u"),
        Scalar("u64", "uint64", 8, "u"),
        Scalar("b1", "bool", 1, "b"),
        Scalar("bf16", "bfloat16", 2, "f"),
        Scalar("f16", "float16", 2, "f"),
    )
}
CODES = {s.name: s.code for s in SCALARS.values()}


HALVES = {"bfloat16": "bf16", "float16": "f16"}  # in memory only


def code_of(dtype: object) -> str:
    """The short name of a NumPy dtype (or of its name), e.g. "f32"; TypeError if kernels do not have it."""
    name = getattr(dtype, "name", None) or str(dtype)
    if name in SCALARS:
        return name
    if name not in CODES:
        raise TypeError(f"kernels have no {name}; they have {', '.join(CODES)}")
    return CODES[name]
