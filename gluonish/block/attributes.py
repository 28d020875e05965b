"""The watch: which Python attributes a trace read, and whether they are still the same.

A compiled variant of a Block is right only while every attribute that its trace read has the value it had then. While
`watching()` is open on a thread, reading any attribute of any Block is noted; afterwards `Reads.hold()` compares.
Blocks and Parameters count their attribute assignments in one global number, so that a call before which nothing was
assigned compares nothing. Values that can change without an assignment (lists, dicts, sets, NumPy arrays, objects of
other classes) are noted as deep snapshots and compared at every call.

Deliberately not here: global variables and closures of functions (`hybrid/names.py`).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MemberDescriptorType
from typing import Any

from gluonish.nd.dispatch import set_watch
from gluonish.nd.snapshot import Snapshot, brief

_counter = itertools.count(1)
latest = [0]  # another number after any attribute of any Block, Parameter or Optimizer was assigned
_lock = threading.Lock()
_watchers = 0
_watched_class: Any = None
_MISSING = object()
_OWN = "_compiled"  # set by the first call of a hybridized Block: no fact about the model


class _Local(threading.local):
    reads: Reads | None = None


_local = _Local()


def changes() -> int:
    """The number that `latest` holds."""
    return latest[0]


def changed() -> None:
    """Tells that an attribute was assigned."""
    latest[0] = next(_counter)


def set_watched_class(cls: type) -> None:
    """Told once by `block.py` (importing it here would be a circle)."""
    global _watched_class
    _watched_class = cls


class Reads:
    """The attributes that one trace read."""

    def __init__(self, look_into: Callable[[Any], None] | None = None) -> None:
        self._look_into = look_into
        self._seen: dict[tuple[int, str], tuple[Any, str, Snapshot | None]] = {}
        self._written: set[tuple[int, str]] = set()
        self._checked = -1
        self.volatile = False

    def note(self, owner: Any, name: str) -> None:
        """Notes the present value of an attribute, unless it is noted already or the trace itself assigned it."""
        key = id(owner), name
        if key in self._seen or key in self._written or name == _OWN:
            return
        found = _lookup(owner, name)
        if name == "__dict__":  # `vars(block)`: which attributes there are, and each of them
            for each in found:
                self.note(owner, each)
        snapshot = None if found is _MISSING else Snapshot(found)
        self._seen[key] = owner, name, snapshot
        if self._look_into is not None and (callable(found) or isinstance(found, property)):
            self._look_into(found)
        self.volatile = self.volatile or (snapshot is not None and snapshot.mutable)

    def wrote(self, owner: Any, name: str) -> None:
        """Notes that the trace assigned an attribute: what it reads there later is its own.

        If it had read the attribute before, every run would find another value: then `hold` must be asked each time.
        """
        self._written.add((id(owner), name))
        self.volatile = self.volatile or (id(owner), name) in self._seen

    def hold(self) -> bool:
        """Whether every attribute still has the value it had."""
        now = latest[0]
        everything = now != self._checked
        for owner, name, snapshot in self._seen.values():
            if (everything or (snapshot is not None and snapshot.mutable)) and not _same(owner, name, snapshot):
                return False
        self._checked = now
        return True

    def changed(self) -> str:
        """The first attribute that differs, as `Dropout.rate: 0.5 -> 0.1`; empty if none does."""
        for owner, name, snapshot in self._seen.values():
            if not _same(owner, name, snapshot):
                new = _lookup(owner, name)
                now = "nothing" if new is _MISSING else brief(new)
                before = "nothing" if snapshot is None else snapshot.text
                return f"{type(owner).__name__}.{name}: {before} -> {now}"
        return ""


def note(owner: Any, name: str) -> None:
    """Notes a read that does not go through a Block's attribute lookup (of a Parameter, say)."""
    if _local.reads is not None:
        _local.reads.note(owner, name)


def wrote(owner: Any, name: str) -> None:
    """Counts an assignment, and notes it if this thread is tracing."""
    changed()
    if _local.reads is not None:
        _local.reads.wrote(owner, name)


def is_watching() -> bool:
    """Whether this thread notes reads now."""
    return _local.reads is not None


@contextmanager
def watching(look_into: Callable[[Any], None] | None = None) -> Iterator[Reads]:
    """Notes every attribute of a Block that this thread reads inside; gives the Reads to ask afterwards.

    look_into: called with what can be called (methods, functions), before it is.
    """
    reads, before = Reads(look_into), _local.reads
    _install(1)
    _local.reads = reads
    try:
        yield reads
    finally:
        _local.reads = before
        _install(-1)


def _install(step: int) -> None:
    """Puts the noting lookup on the class for the first watcher and takes it off after the last: no one else pays."""
    global _watchers
    with _lock:
        _watchers += step
        if _watchers == 1 and step == 1:
            type.__setattr__(_watched_class, "__getattribute__", _noting_lookup)
        elif _watchers == 0:
            type.__delattr__(_watched_class, "__getattribute__")


def _noting_lookup(self: Any, name: str) -> Any:
    reads = _local.reads
    if reads is None or (name[:2] == "__" and name != "__dict__"):
        return object.__getattribute__(self, name)
    try:
        return object.__getattribute__(self, name)
    finally:
        reads.note(self, name)


def _lookup(owner: Any, name: str) -> Any:
    """What an attribute is before descriptors act on it: of a method the function, of a property the property itself
    (what its getter reads is noted on its own)."""
    if not isinstance(owner, _watched_class):
        return getattr(owner, name)
    own = object.__getattribute__(owner, "__dict__")
    if name == "__dict__":
        return tuple(key for key in own if key != _OWN)
    if name in own:
        return own[name]
    for cls in type(owner).__mro__:
        if name in cls.__dict__:
            found = cls.__dict__[name]
            return found.__get__(owner) if isinstance(found, MemberDescriptorType) else found
    return _MISSING


def _same(owner: Any, name: str, snapshot: Snapshot | None) -> bool:
    found = _lookup(owner, name)
    if found is _MISSING or snapshot is None:
        return found is _MISSING and snapshot is None
    return snapshot.matches(found)


set_watch(sys.modules[__name__])
