"""Python's collector of garbage at rest, for work that makes many objects and little garbage.

It looks through all objects again and again while a graph grows, which took up to half the time of tracing a large
network. Deliberately not here: anything that frees memory.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_rest() -> Iterator[None]:
    """Inside nobody looks for garbage. It is a switch of the whole process: an inner use leaves it to the outer one."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
