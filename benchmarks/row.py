"""Row: one job that several libraries do, each by a Side. Bar: a ratio to reach.

A row is declared in `benchmarks/rows/`, and one small function per side builds what is timed:

    ROW = Row("add", "eager a + b, 8x8", {"shape": (8, 8)}, bars=(Bar("torch", 0.8),))

    @ROW.side("torch")
    def _torch(sizes): ...
        return Side(lambda: a + b)

This module and the rows are read by other interpreters too (MXNet has its own), so they import frameworks only inside
the functions, and no gluonish at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Sizes = dict[str, Any]
MAIN = "gluonish"  # the side that all ratios are about


@dataclass
class Side:
    """What one library does in a row.

    call: one repetition. results: arrays on which all sides must agree, computed once before timing; by default what
    `call` gives. statement, names: timed instead of `call()`, where a function call would count. scope: opened around
    each sample. finish: waits for work under way; it belongs to the sample's time. flops: of one call, where it differs
    from the row's.
    """

    call: Callable[[], Any]
    results: Callable[[], Any] | None = None
    statement: str = "call()"
    names: dict[str, Any] = field(default_factory=dict)
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext
    finish: Callable[[], Any] = lambda: None
    flops: float | None = None


@dataclass(frozen=True)
class Bar:
    """What gluonish should reach: `kind` "time" wants time/time of `against` at most `limit`, "rate" wants flops per
    second of it at least `limit`, "busy" wants its own time beside a busy process at most `limit` of its quiet time.
    together: the bar is for all rows of a run whose bars have this name: for the mean of rates, the sum of times."""

    against: str
    limit: float
    kind: str = "time"
    together: str = ""


BUSY = Bar(MAIN, 2.2, "busy")  # what most rows should keep beside a busy process


@dataclass(frozen=True)
class Entry:
    """A declared side: the peer is the process that runs it."""

    name: str
    peer: str
    build: Callable[[Sizes], Side]
    on_request: bool


@dataclass(eq=False)
class Row:
    """See the module docstring.

    tiny: sizes for the tests, where they differ. flops: floating-point operations of one repetition. tolerance: of the
    sides' results, see `difference`. least_rounds: for rows with few repetitions. group: what the command asks for.
    example: the tests run it; of many rows alike, one is enough. reason: why a bar is known to be missed, as found in
    the machine code.
    """

    name: str
    about: str
    sizes: Sizes = field(default_factory=dict)
    tiny: Sizes = field(default_factory=dict)
    bars: Sequence[Bar] = ()
    flops: Callable[[Sizes], float] | None = None
    tolerance: float = 1e-4
    least_rounds: int = 0
    group: str = "core"
    example: bool = True
    reason: str = ""
    sides: dict[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ROWS[self.name] = self

    def side(
        self, name: str, peer: str = "", on_request: bool = False
    ) -> Callable[[Callable[[Sizes], Side]], Callable[[Sizes], Side]]:
        """Declares a side (a decorator). peer: its process, by default the one called like the side.
        on_request: only with --compile."""

        def declare(build: Callable[[Sizes], Side]) -> Callable[[Sizes], Side]:
            self.sides[name] = Entry(name, peer or name, build, on_request)
            return build

        return declare

    def sizes_for(self, tiny: bool) -> Sizes:
        """The sizes of the row, or those for the tests."""
        return {**self.sizes, **self.tiny} if tiny else self.sizes

    @property
    def busy(self) -> bool:
        """Whether it is also timed beside a busy process."""
        return any(bar.kind == "busy" for bar in self.bars)


ROWS: dict[str, Row] = {}


def numbers(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """float32 numbers in [-scale, scale), the same in every library's process: RandomState's stream never changes."""
    return (np.random.RandomState(seed).random_sample(shape) * 2 - 1).astype(np.float32) * np.float32(scale)


def classes(seed: int, count: int, number: int) -> np.ndarray:
    """`count` class labels below `number`, int64."""
    return np.random.RandomState(seed).randint(0, number, count).astype(np.int64)


def arrays_of(value: Any) -> list[np.ndarray]:
    """Results as NumPy arrays: nested lists and tuples of any library's arrays, floats."""
    if isinstance(value, (list, tuple)):
        return [array for part in value for array in arrays_of(part)]
    if hasattr(value, "detach"):  # torch, gluonish
        value = value.detach()
    if hasattr(value, "asnumpy"):  # gluonish, MXNet
        value = value.asnumpy()
    return [np.asarray(value)]


def difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """The largest difference of any two elements, in units of the largest element of their array."""
    if [a.shape for a in found] != [a.shape for a in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted):
        scale = float(np.abs(b).max(initial=0.0)) or 1.0
        gap = float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) / scale
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst
