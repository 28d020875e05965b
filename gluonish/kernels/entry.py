"""Entry: a program's table as a built-in function of the interpreter.

A call through ctypes costs about 0.3 microseconds and each address stored from Python 0.1: as much as a small kernel.
So the table gets a function of CPython's own kind for fast calls (`METH_FASTCALL`: bound object, address of the
arguments, their number). It stores the addresses of its arguments, NumPy arrays, in the program's list of objects, and
lets the pool's executor walk the table.

The GIL is kept by programs of some microseconds, since a thread that gives it away may wait milliseconds to get it
back; others let it go, so that several Python threads compute at once.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from gluonish.kernels import pool
from gluonish.kernels.compile import address
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import HEAD

_FASTCALL = 0x0080  # METH_FASTCALL

# an entry is bound to the array [objects, table, steps, whether to let the GIL go, executor, its control block, and the
# functions that let the GIL go, take it again and count a reference, and None]
_ENTER = Kernel(
    "enter",
    f"""
def enter(bound, arguments, count):
    words = read_i64(bound + {HEAD}, 0)
    objects, table, steps = read_i64(words, 0), read_i64(words, 1), read_i64(words, 2)
    for k in range(count):
        write_i64(objects, k, read_i64(arguments, k))
    if read_i64(words, 3) != 0:
        thread = call_integer(read_i64(words, 6), 0, 0, 0, 0)
        call_tiles(read_i64(words, 4), read_i64(words, 5), table, steps)
        call_function(read_i64(words, 7), thread, 0)
    else:
        call_tiles(read_i64(words, 4), read_i64(words, 5), table, steps)
    call_function(read_i64(words, 8), read_i64(words, 9), 0)
    return read_i64(words, 9)
""",
    gives=True,
)


def entry(table: int, steps: int, objects: int = 0, release: bool = True) -> Callable[..., None]:
    """A function that runs the first `steps` rows of the program table at an address (see `pool.py`).

    Its arguments are stored, as addresses of objects, from the address `objects` on; there must be room for them, and
    the table must outlive the function. release: let the GIL go meanwhile.
    """
    execute, control = pool.executor()
    api = ctypes.pythonapi
    save, restore, keep = map(pool.address_of, (api.PyEval_SaveThread, api.PyEval_RestoreThread, api.Py_IncRef))
    words = [objects, table, steps, int(release), execute, control, save, restore, keep, id(None)]
    return _make(_method(address(_ENTER)), np.array(words, np.int64))


def kernel() -> Kernel:
    """What must be compiled before there can be an entry."""
    return _ENTER


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int)]
    _fields_ += [("doc", ctypes.c_char_p)]


@functools.cache
def _method(function: int) -> _Method:
    return _Method(b"program", function, _FASTCALL, None)  # cached: it must live as long as any entry


def _make(method: _Method, words: np.ndarray) -> Callable[..., None]:
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return make(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.addressof(method), words, None)
