"""How exactly compiled programs compute.

"fast" (the default): convolutions may use Winograd's algorithm where it is estimated to be faster; the relative error
of a float32 result, against float64, stays below 1e-4. "strict": every sum of products is the direct one: errors of
some units in the last place; an Inf or NaN reaches only the outputs that depend on it.

What was traced under one setting is not used under the other. Float64 is always strict.
"""

from __future__ import annotations

from typing import Any

from gluonish.nd.errors import user_line

MODES = ("fast", "strict")
setting = ["fast"]  # now


def current_precision() -> str:
    """The setting now: "fast" or "strict"."""
    return setting[0]


class precision:
    """Sets how exactly compiled programs compute, from now on or within a `with`.

    >>> import gluonish as gl
    >>> with gl.precision("strict"):
    ...     pass  # calls in here use direct convolutions

    Raises: ValueError for another word.
    """

    def __init__(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"precision must be one of {MODES}, got {mode!r} ({user_line()})")
        self._before, setting[0] = setting[0], mode

    def __enter__(self) -> precision:
        return self

    def __exit__(self, *problem: Any) -> None:
        setting[0] = self._before
