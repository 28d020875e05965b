"""Addresses of NumPy arrays, handed to kernels cheaply.

Asking NumPy for the address of an array's data costs about as much as a small kernel. A NumPy array is a C struct whose
first field after the object's head is the data pointer (`PyArrayObject`, part of NumPy's stable C interface), so the
caller passes the address of the object and a kernel reads the pointer. Where a test array does not look like that, the
data address is passed instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.kernels.kernel import Kernel

_HEAD = object.__basicsize__  # bytes of every object before its own fields


def address_of(array: np.ndarray) -> int:
    """The address of an array's first element."""
    return array.__array_interface__["data"][0]


def _readable() -> bool:
    probe = np.arange(3.0)
    return ctypes.c_void_p.from_address(id(probe) + _HEAD).value == address_of(probe)


DIRECT = _readable()
handle: Callable[[Any], int] = id if DIRECT else address_of  # what stands for an array in a program's list of objects
INDIRECT = -1 if DIRECT else 0  # how the resolve kernel treats a handle

RESOLVE = Kernel(
    "resolve",
    f"""
def resolve(args, begin, end):
    objects, entries, count = load_i64(args, 0), load_i64(args, 1), load_i64(args, 2)
    for k in range(count):
        found = read_i64(objects, read_i64(entries, 3 * k))
        how = read_i64(entries, 3 * k + 2)
        if how < 0:
            found = read_i64(found + {_HEAD}, 0)
        else:
            found = found + how
        write_i64(read_i64(entries, 3 * k + 1), 0, found)
""",
)
