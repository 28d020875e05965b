"""Numbers as integers in the same order, which is what sorting kernels sort; source text of both directions.

A key is an int64; those of types of up to 32 bits fit into 32 bits. NaN is the largest, 0 and -0 are apart unless
asked. Words: a type of up to 32 bits is sorted as one word, key * 2^32 + place, in which all elements differ. One of 64
bits is sorted as its key, or, where places are wanted, as two words, key and place.
Source of the order of floats: M. Herf, Radix Tricks, 2001.
"""

from __future__ import annotations

from gluonish.kernels.scalars import SCALARS

LOW = 0xFFFFFFFF  # the place in a packed word
NARROW, WIDE = 0x7FFFFFFF, 0x7FFFFFFFFFFFFFFF
LONGEST = 1 << 32  # places of a packed word


def is_packed(code: str) -> bool:
    """Whether key and place share a word."""
    return SCALARS[code].size <= 4


def words(code: str, places: bool) -> int:
    """Words of an element."""
    return 1 if is_packed(code) or not places else 2


def key_rows(code: str, pointer: str, position: str, flip: str = "0", exact: bool = False) -> list[str]:
    """Lines that set `key`.

    flip: what is 0, or -1 where the largest shall come first. exact: 0 and -0 have different keys, so that the way back
    gives the very number.
    """
    scalar = SCALARS[code]
    if scalar.kind == "f":
        rows = _float_rows(scalar.size, pointer, position)
        if not exact:
            rows.append("key = where(key == -1, 0, key)")
    elif code == "u64":
        rows = [f"key = load_i64({pointer}, {position}) ^ {-(WIDE + 1)}"]
    elif code == "u32":
        rows = [f"key = cast_i64(load_u32({pointer}, {position})) - {NARROW + 1}"]
    else:
        rows = [f"key = cast_i64(load_{code}({pointer}, {position}))"]
    return rows if flip == "0" else [*rows, f"key = key ^ {flip}"]


def _float_rows(size: int, pointer: str, position: str) -> list[str]:
    low, infinity = (NARROW, 0x7F800000) if size == 4 else (WIDE, 0x7FF0000000000000)
    load = f"cast_i64(load_i32({pointer}, {position}))" if size == 4 else f"load_i64({pointer}, {position})"
    return [
        f"bits = {load}",
        f"key = bits ^ ((bits >> 63) & {low})",  # negative numbers the other way round
        f"key = where((bits & {low}) > {infinity}, {low}, key)",
    ]


def number_rows(code: str, pointer: str, position: str) -> list[str]:
    """Lines that store the number that has `key`, which has been flipped back."""
    scalar = SCALARS[code]
    bits = f"i{8 * scalar.size}"
    rows = []
    if scalar.kind == "f":
        rows.append(f"key = key ^ ((key >> 63) & {NARROW if scalar.size == 4 else WIDE})")
    elif code in ("u32", "u64"):
        rows.append(f"key = key + {NARROW + 1}" if code == "u32" else f"key = key ^ {-(WIDE + 1)}")
    return [*rows, f"store_{bits}({pointer}, {position}, key)"]


def word_rows(code: str, places: bool, pointer: str, position: str, place: str, store: str = "store") -> list[str]:
    """Lines that store an element at `position` of a buffer of words."""
    if is_packed(code):
        return [f"{store}_i64({pointer}, {position}, (key << 32) | {place})"]
    if not places:
        return [f"{store}_i64({pointer}, {position}, key)"]
    return [f"{store}_i64({pointer}, 2 * ({position}), key)", f"{store}_i64({pointer}, 2 * ({position}) + 1, {place})"]


def key_of(code: str, places: bool, pointer: str, position: str) -> str:
    """The key of an element of a buffer."""
    if is_packed(code):
        return f"load_i64({pointer}, {position}) >> 32"
    return f"load_i64({pointer}, {f'2 * ({position})' if places else position})"


def place_of(code: str, pointer: str, position: str) -> str:
    """The place of an element of a buffer."""
    return (
        f"load_i64({pointer}, {position}) & {LOW}" if is_packed(code) else f"load_i64({pointer}, 2 * ({position}) + 1)"
    )


def lines(rows: list[str], depth: int) -> str:
    """Lines of source, indented."""
    return "\n".join("    " * depth + row for row in rows)
