"""Snapshots: what a Python value was, so that it can be compared later even if it was changed in place.

Numbers, strings and the like are compared by value and type; arrays, Blocks, functions and classes by identity (their
contents are read at every run); lists, dicts, sets, NumPy arrays and objects of the user's own classes deeply.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Mapping
from collections.abc import Set as AnySet
from dataclasses import is_dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from gluonish.nd.array import NDArray

_VALUES = (str, bytes, int, bool, complex, type(None), type(Ellipsis), slice, range, np.dtype, np.generic, Enum)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, np.ufunc, property, classmethod, staticmethod)
FOREIGN = {*sys.stdlib_module_names, "gluonish", "numpy"} - {"__main__", "argparse"}  # objects taken by identity
_LIMIT = 20_000  # parts of one value; what lies beyond is compared by identity

_by_identity: tuple[type, ...] = (NDArray, ModuleType, type, *_FUNCTIONS)


def compare_by_identity(cls: type) -> None:
    """Instances of `cls` are compared by identity (told by `block.py` for Block)."""
    global _by_identity
    _by_identity = (*_by_identity, cls)


def is_by_identity(value: Any) -> bool:
    """Whether a value is compared by identity: an array, a Block, a function, a class."""
    return isinstance(value, _by_identity)


def brief(value: Any) -> str:
    """A value on one short line."""
    text = f"<{type(value).__name__}>" if isinstance(value, _by_identity) else " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


class Snapshot:
    """One value as it was. `mutable`: it can change without an assignment. `text`: how it printed."""

    __slots__ = ("form", "mutable", "text")

    def __init__(self, value: Any) -> None:
        taking = _Taking()
        self.form = taking.take(value)
        self.mutable = taking.mutable
        self.text = brief(value)

    def matches(self, value: Any) -> bool:
        """Whether `value` is what was seen."""
        return bool(self.form == _Taking().take(value))


class _Identity:
    """Stands for a value compared by identity, and keeps it alive so that its id is not used again."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


class _Taking:
    """One walk over a value that gives its form: nested tuples that can be compared with `==`."""

    def __init__(self) -> None:
        self.mutable = False
        self.within: list[int] = []  # ids of the containers being taken (a cycle ends there)
        self.left = _LIMIT

    def take(self, value: Any) -> Any:
        self.left -= 1
        if isinstance(value, _by_identity) or self.left < 0:
            return _Identity(value)
        if isinstance(value, (float, np.floating)):  # 0.0 is not -0.0, and NaN is NaN
            return type(value), math.copysign(1, value), "nan" if value != value else value
        if isinstance(value, _VALUES):
            return type(value), value
        if isinstance(value, np.ndarray):
            self.mutable = self.mutable or value.flags.writeable or value.base is not None
            return "array", str(value.dtype), value.shape, value.tobytes()
        if id(value) in self.within:
            return "again", self.within.index(id(value))
        self.within.append(id(value))
        form = self._container(value)
        self.within.pop()
        return form

    def _container(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return self._parts(value, value)
        if isinstance(value, MethodType):
            return self._parts(value, (value.__func__, value.__self__))
        if isinstance(value, functools.partial):
            return self._parts(value, (value.func, value.args, *_flat(value.keywords)))
        if isinstance(value, frozenset):
            return self._parts(value, sorted(value, key=repr))
        if not isinstance(value, (list, Mapping, AnySet)):
            return self._object(value)
        self.mutable = True
        if isinstance(value, Mapping):
            return self._parts(value, _flat(value))
        return self._parts(value, value if isinstance(value, list) else sorted(value, key=repr))

    def _parts(self, owner: Any, parts: Iterable[Any]) -> Any:
        return (type(owner), *[self.take(part) for part in parts])

    def _object(self, value: Any) -> Any:
        """An object of some class: itself and its attributes; mutable unless it has none or is a frozen dataclass."""
        if type(value).__module__.partition(".")[0] in FOREIGN and not isinstance(value, SimpleNamespace):
            return _Identity(value)
        attributes = dict(getattr(value, "__dict__", {}))
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            attributes |= {name: getattr(value, name, None) for name in names if not name.startswith("__")}
        form = self._parts(value, _flat(attributes))
        if is_dataclass(value) and getattr(value, "__dataclass_params__").frozen:  # noqa: B009 - unknown to mypy
            return form
        self.mutable = self.mutable or bool(attributes)
        return _Identity(value), form


def _flat(mapping: Mapping[Any, Any]) -> Iterable[Any]:
    return (part for item in mapping.items() for part in item)
