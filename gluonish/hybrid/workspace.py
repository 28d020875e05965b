"""Workspace: the memory in which a program runs one call at a time, whatever its sizes, and what is bound to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gluonish.kernels.pointers import address_of

if TYPE_CHECKING:
    from gluonish.hybrid.bound import Bound

SIZES_KEPT = 16


def block(count: int) -> tuple[np.ndarray, int]:
    """Memory of that many bytes and the address of its first whole cache line."""
    memory = np.empty(count + 64, np.uint8)
    return memory, -(-address_of(memory) // 64) * 64


class Workspace:
    """See the module docstring. Calls of all sizes share the memory, for touching new memory takes a millisecond a
    megabyte; where a size needs more, there is a larger block, and what was bound to the old one is bound anew."""

    def __init__(self) -> None:
        self.bounds: dict[tuple[int, ...], Bound] = {}
        self._size = 0
        self._block = block(0)

    def room(self, count: int) -> tuple[np.ndarray, int]:
        """A block of at least that many bytes, as `block` gives it."""
        if count > self._size:
            self.bounds.clear()
            self._size = max(count, self._size * 5 // 4)  # sizes that grow step by step do not need a block each
            self._block = block(self._size)
        return self._block

    def keep(self, sizes: tuple[int, ...], bound: Bound) -> None:
        """Keeps a program bound to some sizes, and drops the oldest of many."""
        if len(self.bounds) >= SIZES_KEPT:
            del self.bounds[next(iter(self.bounds))]
        self.bounds[sizes] = bound
