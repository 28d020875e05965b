"""Entry: a program's table as a built-in function of the interpreter.

A call through ctypes costs about 0.3 microseconds and each address stored from Python 0.1: as much as a small kernel.
So the table gets a function of CPython's own kind for fast calls (`METH_FASTCALL`: bound object, address of the
arguments, their number). It stores the addresses of its arguments in the program's list of objects, and lets the pool's
executor walk the table.

The GIL is kept by programs of some microseconds, since a thread that gives it away may wait milliseconds to get it
back; others let it go, so that several Python threads compute at once.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.kernels import pool
from gluonish.kernels.compile import address
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import FLAGS, HEAD, IN_ORDER, KIND, SLOTS, with_words
from gluonish.nd.array import NDArray

_FASTCALL = 0x0080  # METH_FASTCALL

# what an entry is bound to: where objects go, the table and its steps, whether to let the GIL go, the executor and its
# control block, functions (that let the GIL go, take it again, count a reference and discount one), objects and types
_WORDS = (
    *("objects", "table", "steps", "release", "execute", "control"),
    *("save", "restore", "keep", "drop", "none", "false", "ndarray", "array"),
)
_SOURCE = f"""
def enter(bound, arguments, count):
    words = read_i64(bound + {HEAD}, 0)
    objects, table, steps = words.objects, words.table, words.steps
    answer = words.none
    for k in range(count):
        array = read_i64(arguments, k)
        kind = read_i64(array + {KIND}, 0)
        if kind == words.ndarray:
            array = read_i64(array + {SLOTS["_data"]}, 0)
            kind = read_i64(array + {KIND}, 0)
        if array != words.none:
            if kind != words.array:
                answer = words.false
            elif cast_i64(read_u32(array + {FLAGS}, 0)) & {IN_ORDER} == 0:
                answer = words.false
        write_i64(objects, k, array)
    if answer == words.none:
        if words.release != 0:
            for k in range(count):
                call_function(words.keep, read_i64(objects, k), 0)
            thread = call_integer(words.save, 0, 0, 0, 0)
            call_tiles(words.execute, words.control, table, steps)
            call_function(words.restore, thread, 0)
            for k in range(count):
                call_function(words.drop, read_i64(objects, k), 0)
        else:
            call_tiles(words.execute, words.control, table, steps)
    call_function(words.keep, answer, 0)
    return answer
"""
_ENTER = Kernel("enter", with_words(_SOURCE, _WORDS), gives=True)


def entry(table: int, steps: int, objects: int = 0, release: bool = True) -> Callable[..., Any]:
    """A function that runs the first `steps` rows of the program table at an address (see `pool.py`).

    Its arguments are NumPy arrays in C order, NDArrays of such, or None. The addresses of the NumPy arrays are stored
    from the address `objects` on; there must be room for them, and the table must outlive the function. It gives None,
    or does nothing and gives False where an argument is something else. release: let the GIL go meanwhile.
    """
    execute, control = pool.executor()
    names = ("PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef", "Py_DecRef")
    functions = [pool.address_of(getattr(ctypes.pythonapi, name)) for name in names]
    known = [id(x) for x in (None, False, NDArray, np.ndarray)]
    words = [objects, table, steps, int(release), execute, control, *functions, *known]
    return builtin(address(_ENTER), np.array(words, np.int64))  # as in _WORDS


def builtin(function: int, words: np.ndarray) -> Callable[..., Any]:
    """The compiled function at an address as a built-in one of the interpreter. It gets the address of `words`, to
    which it is bound, the address of its arguments and their number, and gives an object that it counts a reference
    to."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return make(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.addressof(_method(function)), words, None)


def kernel() -> Kernel:
    """What must be compiled before there can be an entry."""
    return _ENTER


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int)]
    _fields_ += [("doc", ctypes.c_char_p)]


@functools.cache
def _method(function: int) -> _Method:
    return _Method(b"compiled", function, _FASTCALL, None)  # cached: it must live as long as any built-in function
