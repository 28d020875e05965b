"""What kernels of attention are compiled for, the sizes of a call, and how these stand among a kernel's arguments.

Deliberately not here: the kernels (`attention.py`, `attention_row.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gluonish.kernels.kernel import Plan
from gluonish.kernels.tiling import round_up

STACK = 1 << 18  # bytes of working memory that a tile takes from the stack; more comes from the program's arena


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for. mask: "none", "key" (the same for all queries) or "full"; code: its type."""

    dtype: str
    mask: str = "none"
    code: str = ""
    causal: bool = False


@dataclass(frozen=True)
class Sizes:
    """The sizes of a call. steps: bytes from batch to batch, head to head, row to row of each array.

    mask_steps: bytes from batch to batch, head to head, query to query; its keys lie next to each other.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    columns: int
    scale: float
    steps: tuple[tuple[int, int, int], ...]
    mask_steps: tuple[int, int, int] = (0, 0, 0)


def loads(arrays: Sequence[str], steps: Sequence[str], names: dict[str, Any]) -> str:
    """Lines that take the arguments: arrays, scratch memory, sizes, then the steps of arrays.

    One name a line: the compiler's front end takes longer over several at once.
    """
    lines = [f"{name} = load_i64(args, {i})" for i, name in enumerate(arrays)]
    lines += [f"scratch = load_i64(args, {len(arrays)})", f"s = args + {8 * (len(arrays) + 1)}"]
    sizes = ["heads", "n_queries", "n_keys", "depth", "columns", "", "vectors", "key_block", "room", "mine"]
    sizes += ["parts", "part_keys"]
    sizes += [f"{of}_{step}" for of in steps for step in ("outer", "head", "step")]
    lines += [f"{name} = load_i64(s, {i})" for i, name in enumerate(sizes) if name]
    return "\n    ".join([*lines, f"scale = cast_{names['code']}(load_f64(s, 5))"])


def plan_of(
    sizes: Sizes, scale: float, vectors: int, block: int, room: int, tiles: int, parts: tuple[int, int] = (1, 0)
) -> Plan:
    """A Plan with the scalars that `loads` takes."""
    room = round_up(room, 64)
    fits = room <= STACK
    head = (sizes.heads, sizes.queries, sizes.keys, sizes.depth, sizes.columns, float_bits(scale))
    return Plan((*head, vectors, block, room, int(fits), *parts, *steps_of(sizes)), tiles, 0 if fits else room * tiles)


def steps_of(sizes: Sizes) -> list[int]:
    """The steps of all arrays, the mask's last."""
    return [step for three in (*sizes.steps, sizes.mask_steps) for step in three]


def float_bits(number: float) -> int:
    """A float64 as the integer of its bits, to stand among integers."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
