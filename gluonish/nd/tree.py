"""Nested arguments and results: lists, tuples, dicts and None around arrays, taken apart and put together again."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gluonish.nd.array import NDArray
from gluonish.nd.errors import user_line
from gluonish.nd.size import Size


def flatten(value: Any, arrays: list[NDArray]) -> Any:
    """Appends the arrays in `value` to `arrays`; gives its structure, hashable, with plain values inside it."""
    if isinstance(value, NDArray):
        arrays.append(value)
        return LEAF
    if isinstance(value, np.ndarray):  # taken as an array, as ops take it
        arrays.append(NDArray(value))
        return LEAF
    if isinstance(value, (list, tuple)):
        return (_kind(value), tuple(flatten(v, arrays) for v in value))
    if isinstance(value, dict):
        return (dict, tuple((k, flatten(v, arrays)) for k, v in value.items()))
    if isinstance(value, Size):  # a result: the trace serves only calls where it is the same number
        value = int(value)
    try:
        hash(value)
    except TypeError:
        what = f"arrays, lists, tuples, dicts and values that do not change, not a {type(value).__name__}"
        raise TypeError(f"a compiled function takes and gives {what} ({user_line()})") from None
    sign = math.copysign(1, value) if value == 0 and isinstance(value, float) else 0  # 0.0 and -0.0 are equal
    return ("value", type(value), value, sign)


def unflatten(structure: Any, arrays: Any) -> Any:
    """The inverse of `flatten`; `arrays` is an iterator."""
    if structure is LEAF:
        return next(arrays)
    kind = structure[0]
    if kind == "value":
        return structure[2]
    if kind is dict:
        return {k: unflatten(v, arrays) for k, v in structure[1]}
    parts = [unflatten(v, arrays) for v in structure[1]]
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)


def text(structure: Any) -> str:
    """A structure as a person writes it, an array as `*`: `(*, [*, None], 2.5)`."""
    if structure is LEAF:
        return "*"
    kind, content = structure[0], structure[1]
    if kind == "value":
        return repr(structure[2])
    if kind is dict:
        return "{" + ", ".join(f"{k!r}: {text(v)}" for k, v in content) + "}"
    inner = ", ".join(map(text, content))
    return f"[{inner}]" if kind is list else f"({inner}{',' if len(content) == 1 else ''})"


def call_text(structure: Any) -> str:
    """The arguments of a call, `(*, scale=2.5)`, from the structure of (args, kwargs)."""
    (_, positional), (_, named) = structure[1]
    return f"({', '.join([*map(text, positional), *(f'{k}={text(v)}' for k, v in named)])})"


def _kind(value: Any) -> type:
    return type(value) if hasattr(value, "_fields") else list if isinstance(value, list) else tuple


class _Leaf:
    def __repr__(self) -> str:
        return "*"


LEAF = _Leaf()


@functools.cache
def plain(count: int) -> Any:
    """The structure of a call with that many arrays and nothing else: always the same object, so it compares fast."""
    return (tuple, ((tuple, (LEAF,) * count), (dict, ())))
