"""Tile sizes of the contraction kernels: how many rows and vectors of an output tile fit the registers of a target.

Deliberately not here: cache blocking, which depends on the sizes of a call and is decided by each kernel's plan.
"""

from __future__ import annotations

from typing import NamedTuple

from gluonish.kernels import target as targets
from gluonish.kernels.dots import SEEDED, group_of, size_of, sums_of


class Tile(NamedTuple):
    """The output tile that one microkernel call keeps in registers; pure data, so that externals can have it.

    A kernel's source, its externals and its plan must agree on it: all take the one of the moment the Kernel was made.
    rows: output rows (values of the left operand that are broadcast in each step).
    vectors: vectors a row. lanes: numbers in a vector. size: bytes of a number, or of a group (`dots.py`).
    """

    rows: int
    vectors: int
    lanes: int
    size: int

    @property
    def columns(self) -> int:
        """Columns of a full panel."""
        return self.vectors * self.lanes


def tile_of(dtype: str) -> Tile:
    """The register tile of a dtype on the current target.

    rows * vectors accumulators, `vectors` right-hand vectors and one or two broadcast values must fit the registers.
    Measured on Zen 5, one thread, 768^3, share of the peak: AVX-512 6x4 98-100 %, 14x2 91 %; AVX2 6x2 98 %.
    """
    target = targets.current()
    size = size_of(sums_of(dtype))
    return Tile(6, 4 if target.registers >= 32 else 2, target.vector_bytes // size, size)


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """The smallest multiple of b that is not below a."""
    return ceil_div(a, b) * b


def packed_size(k: int, n: int, dtype: str) -> int:
    """Numbers (or groups) in the packed form of a [k, n] matrix on the current target (see `packing.py`)."""
    return (ceil_div(k, group_of(dtype)) + (dtype in SEEDED)) * round_up(n, tile_of(dtype).lanes)
