"""What a run found: a Timing for each side, an Outcome for each row, ratios and bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.row import MAIN, Bar, Row


@dataclass
class Timing:
    """What was measured of one side.

    first: seconds of building, compiling and the first call. flops: of one repetition. repeats: repetitions in a
    sample. samples: seconds of one repetition, one for each round. differs: from gluonish's results. problem: why it
    has none.
    """

    first: float = 0.0
    flops: float | None = None
    repeats: int = 0
    samples: list[float] = field(default_factory=list)
    differs: float | None = None
    problem: str = ""

    @property
    def median(self) -> float:
        """Seconds of one repetition."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the samples lies between them."""
        low, high = np.percentile(self.samples, [25, 75])
        return float(low), float(high)

    @property
    def spread(self) -> float:
        """The distance of the quartiles, as a part of the median."""
        low, high = self.quartiles
        return (high - low) / self.median

    @property
    def rate(self) -> float | None:
        """Floating-point operations per second."""
        return self.flops / self.median if self.flops and self.samples else None


@dataclass
class Outcome:
    """A measured row.

    alone, beside: timings taken in turns without and with a busy process. others: processors that other processes took,
    one for each round.
    """

    row: Row
    sides: dict[str, Timing]
    alone: dict[str, Timing] = field(default_factory=dict)
    beside: dict[str, Timing] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)

    def ratio(self, side: str) -> float | None:
        """gluonish's time divided by the side's: the median over the rounds."""
        return _paired(self.sides.get(MAIN), self.sides.get(side))

    def disturbed(self, side: str) -> float | None:
        """A side's time beside a busy process divided by its time alone: of the medians."""
        beside, alone = self.beside.get(side), self.alone.get(side)
        return beside.median / alone.median if beside and alone and beside.samples and alone.samples else None

    def reached(self, bar: Bar) -> float | None:
        """The ratio that a bar is about; None if it was not measured."""
        if bar.kind == "busy":
            return self.disturbed(bar.against)
        times = self.ratio(bar.against)
        if times is None or bar.kind == "time":
            return times
        main, other = self.sides[MAIN], self.sides[bar.against]
        return main.flops / other.flops / times if main.flops and other.flops else None

    def met(self, bar: Bar) -> bool | None:
        """Whether the bar is reached; None if it was not measured."""
        return reaches(self.reached(bar), bar)

    @property
    def disturbance(self) -> float:
        """Processors that other processes took meanwhile: the median over the rounds."""
        return statistics.median(self.others) if self.others else 0.0

    @property
    def wrong(self) -> list[str]:
        """Sides whose results differ by more than the row tolerates."""
        return [name for name, t in self.sides.items() if t.differs is not None and not t.differs <= self.row.tolerance]


def reached_together(outcomes: Sequence[Outcome], bar: Bar) -> float | None:
    """What all rows with a common bar reach; None unless every one was measured."""
    if bar.kind == "rate":
        rates = [outcome.reached(bar) for outcome in outcomes]
        return None if None in rates else statistics.mean(rate for rate in rates if rate is not None)
    pairs = [(outcome.sides.get(MAIN), outcome.sides.get(bar.against)) for outcome in outcomes]
    measured = [(a.median, b.median) for a, b in pairs if a and b and a.samples and b.samples]
    return None if len(measured) < len(pairs) else sum(a for a, _ in measured) / sum(b for _, b in measured)


def reaches(reached: float | None, bar: Bar) -> bool | None:
    """Whether that is enough for the bar; None if it was not measured."""
    if reached is None:
        return None
    return reached >= bar.limit if bar.kind == "rate" else reached <= bar.limit


def _paired(a: Timing | None, b: Timing | None) -> float | None:
    if a is None or b is None or not a.samples or not b.samples:
        return None
    return statistics.median(x / y for x, y in zip(a.samples, b.samples))
