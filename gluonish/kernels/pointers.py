"""Addresses of NumPy arrays, handed to kernels cheaply.

Asking NumPy for the address of an array's data costs about as much as a small kernel. A NumPy array is a C struct whose
first field after the object's head is the data pointer (`PyArrayObject`, part of NumPy's stable C interface), and `id`
is the address of that struct: so the caller passes the object, and a kernel reads the pointer.
"""

from __future__ import annotations

import ctypes

import numpy as np

from gluonish.kernels.kernel import Kernel

HEAD = object.__basicsize__  # bytes of every object before its own fields
OBJECT = -1  # how the resolve kernel treats the address of an array object


def address_of(array: np.ndarray) -> int:
    """The address of an array's first element."""
    return array.__array_interface__["data"][0]


def _check() -> None:
    probe = np.arange(3.0)
    if ctypes.c_void_p.from_address(id(probe) + HEAD).value != address_of(probe):
        raise ImportError("gluonish compiles for CPython, where id(array) is the address of NumPy's array object")


_check()

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
