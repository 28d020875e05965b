"""Where things are in memory: the data of arrays, and the words of Python objects that compiled code reads.

Asking NumPy for the address of an array's data costs about as much as a small kernel. A NumPy array is a C struct whose
first field after the object's head is the data pointer (`PyArrayObject`, part of NumPy's stable C interface), and `id`
is the address of that struct: so the caller passes the object, and a kernel reads the pointer. So it is with the slots
of an NDArray and the items of a list. What is taken for granted here is tried out once, when this is loaded.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence

import numpy as np

from gluonish.kernels.kernel import Kernel
from gluonish.nd.array import NDArray

HEAD = object.__basicsize__  # bytes of every object before its own fields
KIND = HEAD - 8  # the object's type
ITEMS = HEAD + 8  # of a list: its length, then the address of its items
RANK, SHAPE, DTYPE, FLAGS = HEAD + 8, HEAD + 16, HEAD + 40, HEAD + 48  # of a NumPy array; rank and flags have 32 bits
IN_ORDER = 1  # the flag of an array that lies in C order
OBJECT = -1  # how the resolve kernel treats the address of an array object


def address_of(array: np.ndarray) -> int:
    """The address of an array's first element."""
    return array.__array_interface__["data"][0]


def with_words(source: str, names: Sequence[str]) -> str:
    """Kernel source in which `words.NAME` stands for the word that the kernel finds at that place of `names`."""
    return re.sub(r"words\.(\w+)", lambda found: f"read_i64(words, {names.index(found[1])})", source)


def word(place: int) -> int:
    """The word at an address."""
    return ctypes.c_int64.from_address(place).value


def _short(place: int) -> int:
    return ctypes.c_int32.from_address(place).value


def _slots() -> dict[str, int]:
    """Where an NDArray has its slots, found by looking for what was put there."""
    probe = NDArray(None)
    out = {}
    for name in ("_data", "_grad", "_entry", "_version"):
        mark: object = object()
        setattr(probe, name, mark)
        for at in range(HEAD, NDArray.__basicsize__, 8):
            if word(id(probe) + at) == id(mark):
                out[name] = at
    return out


def _as_expected() -> bool:
    cells, probe = [object()], np.zeros((3, 5), np.float32)
    place, shape = id(probe), word(id(probe) + SHAPE)
    return (
        len(set(SLOTS.values())) == 4
        and word(word(id(cells) + ITEMS)) == id(cells[0])
        and word(place + HEAD) == address_of(probe)
        and word(place + KIND) == id(np.ndarray)
        and word(place + DTYPE) == id(probe.dtype)
        and (_short(place + RANK), word(shape), word(shape + 8)) == (2, 3, 5)
        and _short(place + FLAGS) & IN_ORDER == 1
        and _short(id(probe.T) + FLAGS) & IN_ORDER == 0
    )


SLOTS = _slots()
if not _as_expected():
    raise ImportError("gluonish compiles for CPython, where id(x) is the address of x, and NumPy since version 1")

RESOLVE = Kernel(
    "resolve",
    f"""
def resolve(args, begin, end):
    objects, entries, count = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    for k in range(count):
        found = read_i64(objects, read_i64(entries, 3 * k))
        how = read_i64(entries, 3 * k + 2)
        if how < 0:
            found = read_i64(found + {HEAD}, 0)
        else:
            found = found + how
        write_i64(read_i64(entries, 3 * k + 1), 0, found)
""",
)
