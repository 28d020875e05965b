"""Facts: words of memory that must be what they were, compared by one compiled call.

What a compiled program relies on is mostly the identity of objects: the memory of a captured array, its version, the
content of a closure's cell. In CPython each is one pointer at an address that stays. So all of it is a table of
(address, word), and asking whether it still holds costs a nanosecond each, where Python takes thirty. Objects that the
table names are kept alive, so their addresses cannot come to mean others.

The arguments of a call are other objects each time: of these, type, dtype, shape and whether they want gradients are
compared.

Deliberately not here: what a program relies on (`hybrid/repeat.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.kernels import pool
from gluonish.kernels.compile import address
from gluonish.kernels.entry import builtin
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import DTYPE, HEAD, ITEMS, KIND, RANK, SHAPE, SLOTS, address_of, with_words, word
from gluonish.nd.array import NDArray

_ANY = 2  # whether an argument wants a gradient makes no difference

# what the kernel is bound to: how many facts and arguments there are, the address of the facts and of what is known of
# the arguments, then objects, types, and the function that counts a reference
_WORDS = ("facts", "arguments", "table", "known", "false", "true", "ndarray", "array", "none", "keep")
_FALSE, _TRUE = _WORDS.index("false"), _WORDS.index("true")
_SOURCE = f"""
def hold(bound, arguments, count):
    words = read_i64(bound + {HEAD}, 0)
    facts, known = words.table, words.known
    answer = {_TRUE} if count == words.arguments else {_FALSE}
    for k in range(words.facts):
        if read_i64(read_i64(facts, 2 * k), 0) != read_i64(facts, 2 * k + 1):
            answer = {_FALSE}
            break
    if answer == {_TRUE}:
        none = words.none
        for k in range(count):
            array = read_i64(arguments, k)
            if read_i64(array + {KIND}, 0) != words.ndarray:
                answer = {_FALSE}
                break
            data = read_i64(array + {SLOTS["_data"]}, 0)
            rank = read_i64(known, 2)
            wants = 0
            if read_i64(array + {SLOTS["_grad"]}, 0) != none or read_i64(array + {SLOTS["_entry"]}, 0) != none:
                wants = 1
            if (
                read_i64(data + {KIND}, 0) != words.array
                or read_i64(data + {DTYPE}, 0) != read_i64(known, 0)
                or (read_i64(known, 1) != {_ANY} and read_i64(known, 1) != wants)
                or cast_i64(read_u32(data + {RANK}, 0)) != rank
            ):
                answer = {_FALSE}
                break
            shape = read_i64(data + {SHAPE}, 0)
            known = known + 24
            for axis in range(rank):
                if read_i64(shape, axis) != read_i64(known, axis):
                    answer = {_FALSE}
            known = known + 8 * rank
    found = read_i64(words, answer)
    call_function(words.keep, found, 0)
    return found
"""
_HOLD = Kernel("hold", with_words(_SOURCE, _WORDS), gives=True)


class Facts:
    """A table of facts, filled by the methods below. `hold(*arguments)` then says whether all are as they were."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int]] = []
        self._owners: list[Any] = []
        self._values: list[Any] = []
        self._known: list[int] = []
        self._count = 0

    def slot(self, array: NDArray, name: str) -> None:
        """The same object is in a slot of an NDArray."""
        self._same(array, id(array) + SLOTS[name], getattr(array, name))

    def item(self, cell: list[Any]) -> None:
        """The same object is in a list, which always has one item."""
        self._same(cell, word(id(cell) + ITEMS), cell[0])

    def content(self, cell: Any) -> None:
        """The same object is in the cell of a closure."""
        self._same(cell, id(cell) + HEAD, cell.cell_contents)

    def argument(self, array: NDArray, wants: bool | None) -> None:
        """The next argument is an NDArray of this dtype and shape, which wants a gradient or not, or (None) either."""
        data = array._data
        self._owners.append(data.dtype)
        self._known += [id(data.dtype), _ANY if wants is None else int(wants), data.ndim, *data.shape]
        self._count += 1

    def renew(self, values: list[Any]) -> None:
        """These objects are there now, in the order of the facts; a question made before asks for them from now on."""
        kept, self._values = self._values, values  # the table's objects are alive at any time
        self._table[:, 1] = [id(value) for value in values]
        del kept

    def _same(self, owner: Any, place: int, value: Any) -> None:
        self._owners.append(owner)
        self._values.append(value)
        self._rows.append((place, id(value)))

    def question(self) -> Callable[..., bool]:
        """A function of the arguments: whether everything is as it was. It lives as long as this object."""
        self._table = np.array(self._rows, np.int64).reshape(-1, 2)
        self._shapes = np.array(self._known, np.int64)
        count = pool.address_of(ctypes.pythonapi.Py_IncRef)
        tables = [len(self._rows), self._count, address_of(self._table), address_of(self._shapes)]
        objects = [id(x) for x in (False, True, NDArray, np.ndarray, None)]
        return builtin(address(_HOLD), np.array([*tables, *objects, count], np.int64))  # as in _WORDS


def kernel() -> Kernel:
    """What must be compiled before there can be facts."""
    return _HOLD
