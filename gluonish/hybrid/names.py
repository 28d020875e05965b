"""Names: the global variables, closure cells and defaults that traced functions read, and whether they still are what
they were.

Which names a function reads is known from its code, without running it: what it might read is noted, and the same of
the user's functions that it finds under those names. A name is noted before the function runs. The check is one
comparison of pointers for each; only where that fails, or where a value can change in place, are values compared.

Deliberately not here: attributes of Blocks (`block/attributes.py`), values of arrays (they are captured).
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from gluonish.kernels.facts import Facts
from gluonish.nd.snapshot import FOREIGN, Snapshot, brief, is_by_identity

_MISSING = object()
_LIMIT = 2000  # names of one trace


class _Name:
    """One name: where it is looked up (in a closure: which cell that is), and what was there."""

    __slots__ = ("look", "text", "value", "snapshot", "cell")

    def __init__(self, look: Callable[[], Any], text: str, cell: Any) -> None:
        self.look = look
        self.cell = cell
        self.text = text
        self.value = look()
        self.snapshot = None if self.value is _MISSING else Snapshot(self.value)

    def holds(self) -> bool:
        """Whether the same is there, or an equal value."""
        now = self.look()
        if now is _MISSING or self.snapshot is None:
            return now is _MISSING and self.snapshot is None
        if now is self.value and not self.snapshot.mutable:
            return True
        if not self.snapshot.matches(now):
            return False
        self.value = now
        return True

    def change(self) -> str:
        """`SCALE: 2.0 -> 3.0`."""
        now = self.look()
        before = "nothing" if self.snapshot is None else self.snapshot.text
        return f"{self.text}: {before} -> {'nothing' if now is _MISSING else brief(now)}"


class Names:
    """The names that one trace may have read."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, str], _Name] = {}
        self._seen: dict[int, Any] = {}  # what has been looked into, kept alive

    def hold(self) -> bool:
        """Whether all of them are what they were."""
        for name in self.names.values():
            if name.snapshot is None or name.snapshot.mutable or name.look() is not name.value:
                if not name.holds():
                    return False
        return True

    def note(self, facts: Facts) -> list[Callable[[], bool]]:
        """Notes the contents of closures, of which a change is seen in memory; gives the questions for the others."""
        others = Names()
        for key, name in self.names.items():
            if name.cell is not None and name.snapshot is not None and not name.snapshot.mutable:
                facts.content(name.cell)
            else:
                others.names[key] = name
        return [others.hold] if others.names else []

    def changed(self) -> str:
        """The first that is not, as `global SCALE: 2.0 -> 3.0`; empty if all are."""
        return next((name.change() for name in self.names.values() if not name.holds()), "")

    def rows(self) -> list[str]:
        """Plain values that the trace relies on, as `global SCALE = 2.0`."""
        plain = (bool, int, float, str, tuple)
        return [f"{n.text} = {n.snapshot.text}" for n in self.names.values() if n.snapshot and type(n.value) in plain]

    # --- noting -------------------------------------------------------------------------------------------------------
    def look_into(self, value: Any) -> None:
        """Notes what a value reads when it is called, if it is the user's code."""
        value = _unwrapped(value)
        if id(value) in self._seen or len(self.names) > _LIMIT:
            return
        if isinstance(value, (tuple, list, Mapping)):
            for part in value.values() if isinstance(value, Mapping) else value:
                if callable(part):
                    self.look_into(part)
        elif isinstance(value, MethodType):
            self.look_into(value.__func__)
        elif isinstance(value, functools.partial):
            self.look_into([value.func, *value.args, *value.keywords.values()])
        elif isinstance(value, FunctionType) and not _is_foreign(value.__module__):
            self._seen[id(value)] = value
            self._function(value)
        elif not is_by_identity(value) and not _is_foreign(type(value).__module__):
            self._seen[id(value)] = value
            self.look_into([v for c in type(value).__mro__ for v in vars(c).values() if isinstance(v, FunctionType)])

    def _function(self, function: FunctionType) -> None:
        space, builtins = function.__globals__, vars(__builtins__) if inspect.ismodule(__builtins__) else __builtins__
        for name, attribute in _global_names(function.__code__):
            if name not in space and name in builtins:
                continue
            owner = space.get(name, _MISSING)
            if attribute and isinstance(owner, (ModuleType, type)):
                if not _is_foreign(getattr(owner, "__name__" if isinstance(owner, ModuleType) else "__module__", "")):
                    look = functools.partial(getattr, owner, attribute, _MISSING)
                    self._note(id(owner), f"{name}.{attribute}", look)
            else:
                self._note(id(space), f"global {name}", functools.partial(space.get, name, _MISSING))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self._note(id(cell), f"variable {name} of the function around {function.__name__}", _looker(cell), cell)
        for what in ("__defaults__", "__kwdefaults__"):
            if getattr(function, what):
                text = f"defaults of {function.__name__}"
                self._note(id(function), text, functools.partial(getattr, function, what))

    def _note(self, owner: int, text: str, look: Callable[[], Any], cell: Any = None) -> None:
        if (owner, text) in self.names:
            return
        value = look()
        if isinstance(value, ModuleType) or (isinstance(value, type) and _is_foreign(value.__module__)):
            return
        if isinstance(value, FunctionType) and _is_foreign(value.__module__):
            return
        self.names[owner, text] = _Name(look, text, cell)
        if value is not _MISSING:
            self.look_into(value)


def _unwrapped(value: Any) -> Any:
    """The function behind what wraps one: a decorator, a property, a compiled function."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return [f for f in (value.fget, value.fset) if f is not None]
    compiled = type(value).__name__ == "CompiledFunction" and type(value).__module__.startswith("gluonish.")
    return value.function if compiled else getattr(value, "__wrapped__", value)


def _is_foreign(module: Any) -> bool:
    return not isinstance(module, str) or module.partition(".")[0] in FOREIGN


def _looker(cell: Any) -> Callable[[], Any]:
    def look() -> Any:
        try:
            return cell.cell_contents
        except ValueError:  # nothing is in it yet
            return _MISSING

    return look


@functools.lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> tuple[tuple[str, str], ...]:
    """The global names that code reads, inner functions included, each with the attribute that is read of it or ""."""
    return tuple(dict.fromkeys(_read(code)))


def _read(code: CodeType) -> Iterator[tuple[str, str]]:
    pending = ""
    for instruction in dis.get_instructions(code):
        if pending:
            attribute = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
            yield pending, str(instruction.argval) if attribute else ""
        pending = str(instruction.argval) if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") else ""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _read(inner)
