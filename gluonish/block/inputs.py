"""Arguments that are no arrays: the error for a layer that was called with a string, None, a list or the like.

Looked for only once `forward` has failed, so that calls with arrays pay nothing. Deliberately not here: Blocks of the
user, whose `forward` may take what it likes and whose own lines say where it failed.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import TracebackType
from typing import Any

from gluonish.block.tree import source, title
from gluonish.nd import snapshot
from gluonish.nd.array import NDArray
from gluonish.nd.errors import user_line

_HERE = str(Path(__file__).resolve().parent.parent)


def no_array_error(block: Any, error: Exception, args: tuple[Any, ...]) -> Exception:
    """The TypeError that names the argument, if gluonish's own code asked it for what only arrays have; else `error`.

    args: those of `forward`, by position.
    """
    asked = getattr(error, "obj", error)  # AttributeError has it; an error itself is never an argument
    place = next((i for i, value in enumerate(args) if _same(value, asked)), None)
    if place is None or isinstance(asked, NDArray) or not _raised_here(error.__traceback__):
        return error
    asked = args[place]
    name = list(inspect.signature(block.forward).parameters)[place]
    given = snapshot.brief(asked)
    got = given if asked is None else f"{type(asked).__name__} {given}"
    hint = f"; use nd.array({name})" if isinstance(asked, (list, tuple, int, float)) else ""
    return TypeError(f"{title(block)} wants an array as {name}, got {got}{source(block)}{hint} ({user_line()})")


def _same(value: Any, asked: Any) -> bool:
    """Whether the argument is what was asked; a trace makes its own lists, tuples and dicts of those it is given."""
    return value is asked or (isinstance(asked, (list, tuple, dict)) and type(value) is type(asked))


def _raised_here(traceback: TracebackType | None) -> bool:
    """Whether the line that raised belongs to gluonish."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_HERE)
