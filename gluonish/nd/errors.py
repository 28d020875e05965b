"""Where an error belongs: the user's own line.

Errors are ordinary ValueError, TypeError and IndexError; what is special is their text. It says what was asked, which
rule broke, what was received and what to do, and ends with the line of the user's code that asked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

# contextlib stands between the user and the bodies of our context managers
_NOT_THE_USER = (str(Path(__file__).resolve().parent.parent) + os.sep, contextlib.__file__)


def user_frame() -> FrameType | None:
    """The innermost frame outside gluonish, or None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        frame = frame.f_back
    return frame


def user_line() -> str:
    """`model.py:41`, or `In[5]:3` in a notebook, for the innermost line of code outside gluonish."""
    frame = user_frame()
    if frame is None:
        return "gluonish"
    return f"{_file_name(frame.f_code.co_filename)}:{frame.f_lineno}"


@functools.cache
def _file_name(path: str) -> str:
    """The last part of a path, or a notebook cell's label: Jupyter runs cells from files with meaningless names."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    label = getattr(getattr(shell, "compile", None), "format_code_name", lambda _: None)(path)
    return label[1] if label else Path(path).name


def shape_text(shape: Iterable[Any]) -> str:
    """A shape as an error prints it: `(2, 3)`."""
    return str(tuple(getattr(s, "hint", s) for s in shape))
