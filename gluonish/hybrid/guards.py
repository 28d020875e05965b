"""Guards on arguments, compiled into one Python function per variant: the check runs at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gluonish.nd.size import Guard, SizeLike


class Argument:
    """What a trace assumed of one argument: sizes (symbolic or fixed), dtype, whether it wants a gradient or None."""

    def __init__(self, shape: tuple[SizeLike, ...], dtype: np.dtype, wanted: bool | None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.wanted = wanted


def matcher(arguments: Sequence[Argument], guards: Sequence[Guard], symbols: Sequence[str]) -> Callable[[Any], Any]:
    """A function of the list of arrays: the sizes (values of the symbols), or None where the trace does not hold."""
    names = [f"a{i}" for i in range(len(arguments))]
    rows = [f"def match(arrays{''.join(f', D{i}=D{i}' for i in range(len(names)))}):"]
    if names:
        rows.append(f"    {', '.join(names)}, = arrays")
    for i, argument in enumerate(arguments):
        rows += [f"    {row}" for row in _rows(i, argument)]
    tests = [f"{'not ' if g.holds else ''}({g.left} {g.relation} {g.right})" for g in guards]
    if tests:
        rows.append(f"    if {' or '.join(tests)}: return None")
    rows.append(f"    return ({''.join(f'{s}, ' for s in symbols)})")
    space: dict[str, Any] = {f"D{i}": a.dtype for i, a in enumerate(arguments)}
    exec("\n".join(rows), space)  # own text only: names, numbers and sizes
    return space["match"]


def _rows(i: int, argument: Argument) -> list[str]:
    rows = [
        f"d{i} = a{i}._data",
        f"if d{i}.dtype is not D{i} and d{i}.dtype != D{i}: return None",
        f"t{i} = d{i}.shape",
        f"if len(t{i}) != {len(argument.shape)}: return None",
    ]
    parts = []
    tests = []
    for axis, size in enumerate(argument.shape):
        name = f"k{i}_{axis}" if isinstance(size, int) else str(size)
        parts.append(name)
        tests.append(f"{name} != {size}" if isinstance(size, int) else f"{name} <= 1")
    if parts:
        rows.append(f"{', '.join(parts)}, = t{i}")
        rows.append(f"if {' or '.join(tests)}: return None")
    if argument.wanted is not None:
        nothing = f"(a{i}._grad is None and a{i}._entry is None)"
        rows.append(f"if {nothing if argument.wanted else f'not {nothing}'}: return None")
    return rows
