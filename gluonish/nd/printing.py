"""`gl.print`: Python's print, which also prints values in hybridized code."""

from __future__ import annotations

import builtins
from typing import Any

from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.size import Size


def print(*values: Any, sep: str = " ", end: str = "\n", file: Any = None) -> None:  # noqa: A001 - it is Python's
    """Prints like Python's `print`; in hybridized code at each run, with the values of the run.

    What a hybridized call prints appears in the order of the program, when the call has computed everything; arrays
    may be inside lists, tuples and dicts. Other values are printed as they were when the code was traced.

    >>> import gluonish as gl
    >>> from gluonish import nd
    >>> @gl.hybridize
    ... def f(x):
    ...     y = x * 2
    ...     gl.print("twice:", y)
    ...     return y + 1
    >>> for number in 1.0, 2.0:
    ...     out = f(nd.array([number]))
    twice: array([2.], shape=(1,), dtype=float32)
    twice: array([4.], shape=(1,), dtype=float32)
    """
    options = {"sep": sep, "end": end, "file": file}
    if state.trace is not None:
        state.trace.print_later(tuple(map(_printable, values)), options)
    elif not state.silent:
        builtins.print(*values, **options)


def _printable(value: Any) -> Any:
    """The value with everything in it that is no array as a text."""
    if isinstance(value, (NDArray, Size)):
        return value
    if isinstance(value, dict):
        return {key: _Text.of(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(map(_Text.of, value)) if type(value) in (list, tuple) else str(value)
    return str(value)


class _Text(str):
    """A text that stands in a printed list for the value it was made of."""

    __slots__ = ()
    __repr__ = str.__str__

    @classmethod
    def of(cls, value: Any) -> Any:
        """The text of a value that is no array."""
        inside = isinstance(value, (NDArray, Size, dict, list, tuple))
        return _printable(value) if inside else cls(repr(value))
