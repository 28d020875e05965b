"""Guards on arguments, compiled into one Python function per variant: the check runs at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gluonish.kernels.facts import Facts
from gluonish.nd.size import Guard, SizeLike


class Argument:
    """What a trace assumed of one argument: sizes (symbolic or fixed), dtype, whether it wants a gradient or None."""

    def __init__(self, shape: tuple[SizeLike, ...], dtype: np.dtype, wanted: bool | None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.wanted = wanted


class Captured:
    """What a trace assumed of the arrays that it found: the memory of each (`data`), shape, dtype, whether it wants a
    gradient, and which of them share memory. Other memory of which all that holds is accepted, and `on_move` called."""

    def __init__(self, arrays: Sequence[Any], recording: bool, on_move: Callable[[], None]) -> None:
        self.arrays = list(arrays)
        self.data = [a._data for a in arrays]
        self.facts = _facts(self.data)
        self.wanted = [wants(a) for a in arrays] if recording else []
        self.on_move = on_move

    def rows(self) -> list[str]:
        """The test as Python: c0, c1, ... are the arrays, C their memory, `moved` the method below."""
        same = " or ".join(f"c{i}._data is not C[{i}]" for i in range(len(self.arrays)))
        rows = [f"if ({same}) and not moved(): return None"]
        if self.wanted:
            tests = " or ".join(_unwanted(f"c{i}", wanted) for i, wanted in enumerate(self.wanted))
            rows.append(f"if {tests}: return None")
        return rows

    def note(self, facts: Facts) -> bool:
        """The same for a call like the last one: nothing moved; gives False where that is not to be told."""
        for array in self.arrays:
            facts.slot(array, "_data")
            if self.wanted:
                if array._entry is not None:  # a reference to it would keep what it was computed from
                    return False
                facts.slot(array, "_grad")
                facts.slot(array, "_entry")
        return True

    def moved(self) -> bool:
        """Whether all arrays have the shapes and dtypes they had, and share what they shared; notes their memory."""
        now = [a._data for a in self.arrays]
        if _facts(now) != self.facts:
            return False
        self.data[:] = now
        self.on_move()
        return True


def _facts(memory: Sequence[Any]) -> list[Any]:
    """Shape, dtype, and the first array with the same memory, for each array."""
    first: dict[int, int] = {}
    return [(d.shape, d.dtype, first.setdefault(id(d), i)) for i, d in enumerate(memory)]


def wants(array: Any) -> bool:
    """Whether a backward would give an array a gradient, or pass one on."""
    return array._grad is not None or array._entry is not None


def matcher(
    arguments: Sequence[Argument],
    guards: Sequence[Guard],
    symbols: Sequence[str],
    captured: Captured | None = None,
) -> Callable[[Any], Any]:
    """A function of the list of arrays: the sizes (values of the symbols), or None where the trace does not hold."""
    names = [f"a{i}" for i in range(len(arguments))]
    rows = ["def match(arrays):"]
    if names:
        rows.append(f"    {', '.join(names)}, = arrays")
    for i, argument in enumerate(arguments):
        rows += [f"    {row}" for row in _rows(i, argument)]
    tests = [f"{'not ' if g.holds else ''}({g.left} {g.relation} {g.right})" for g in guards]
    if tests:
        rows.append(f"    if {' or '.join(tests)}: return None")
    space: dict[str, Any] = {f"D{i}": a.dtype for i, a in enumerate(arguments)}
    if captured is not None and captured.arrays:
        rows += [f"    {row}" for row in captured.rows()]
        space |= {f"c{i}": a for i, a in enumerate(captured.arrays)} | {"C": captured.data, "moved": captured.moved}
    rows.append(f"    return ({''.join(f'{s}, ' for s in symbols)})")
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
        tests.append(f"{name} != {size}" if isinstance(size, int) else f"{name} == 0")
    if parts:
        rows.append(f"{', '.join(parts)}, = t{i}")
        rows.append(f"if {' or '.join(tests)}: return None")
    if argument.wanted is not None:
        rows.append(f"if {_unwanted(f'a{i}', argument.wanted)}: return None")
    return rows


def _unwanted(name: str, wanted: bool) -> str:
    """The test that whether an array wants a gradient is not as it was."""
    nothing = f"({name}._grad is None and {name}._entry is None)"
    return nothing if wanted else f"not {nothing}"
