"""The run: sides are prepared, compared, and sampled in turns, one sample each a round, so that whatever disturbs the machine
for a while disturbs all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.neighbour import Neighbour
from benchmarks.peers import Peer, PeerError, processors
from benchmarks.row import MAIN, Bar, Row, difference

BUSY_SIDES = (MAIN, "torch")  # timed beside a busy process; the second for comparison


@dataclass(frozen=True)
class Settings:
    """How a run is done. seconds: of a sample, at least. tiny: the sizes of the tests."""

    threads: int = 2
    rounds: int = 15
    seconds: float = 0.02
    busy: bool = False
    compiled: bool = False
    tiny: bool = False


@dataclass
class Timing:
    """What was measured of one side. first: seconds of building, compiling and the first call."""

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
    def rate(self) -> float | None:
        """Floating-point operations per second."""
        return self.flops / self.median if self.flops and self.samples else None


@dataclass
class Outcome:
    """A measured row."""

    row: Row
    sides: dict[str, Timing]
    busy: dict[str, Timing] = field(default_factory=dict)

    def ratio(self, side: str) -> float | None:
        """gluonish's time divided by the side's: the median over the rounds."""
        main, other = self.sides.get(MAIN), self.sides.get(side)
        return _paired(main, other) if main and other else None

    def reached(self, bar: Bar) -> float | None:
        """The ratio that a bar is about; None if it was not measured."""
        if bar.kind == "busy":
            beside = self.busy.get(bar.against)
            return _paired(beside, self.sides.get(bar.against)) if beside else None
        times = self.ratio(bar.against)
        if times is None or bar.kind == "time":
            return times
        main, other = self.sides[MAIN], self.sides[bar.against]
        return main.flops / other.flops / times if main.flops and other.flops else None

    def met(self, bar: Bar) -> bool | None:
        """Whether the bar is reached; None if it was not measured."""
        reached = self.reached(bar)
        if reached is None:
            return None
        return reached >= bar.limit if bar.kind == "rate" else reached <= bar.limit

    @property
    def wrong(self) -> list[str]:
        """Sides whose results differ by more than the row tolerates."""
        return [name for name, t in self.sides.items() if t.differs is not None and not t.differs <= self.row.tolerance]


def _paired(a: Timing | None, b: Timing | None) -> float | None:
    if a is None or b is None or not a.samples or not b.samples:
        return None
    return statistics.median(x / y for x, y in zip(a.samples, b.samples))


def measure(row: Row, peers: Mapping[str, Peer], settings: Settings, folder: Path) -> Outcome:
    """Prepares, compares and times the sides of a row whose libraries take part."""
    chosen = [e for e in row.sides.values() if e.peer in peers and (settings.compiled or not e.on_request)]
    outcome = Outcome(row, {e.name: Timing() for e in chosen})
    homes = {e.name: peers[e.peer] for e in chosen}
    found: dict[str, list[np.ndarray]] = {}
    for name, timing in outcome.sides.items():
        with _noting(timing):
            found[name] = _prepare(row, name, homes[name], timing, settings, folder)
    _compare(outcome, found)
    ready = {name: timing for name, timing in outcome.sides.items() if not timing.problem}
    for _ in range(max(settings.rounds, row.least_rounds)):
        _round(ready, homes)
    if settings.busy and row.busy:
        _beside_neighbour(outcome, homes, settings)
    for peer in set(homes.values()):
        with _noting(Timing()):
            peer.ask("forget")
    return outcome


class _noting:
    """Notes a library's error in its timing, and goes on."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: object, trace: object) -> bool:
        if isinstance(error, PeerError):
            self.timing.problem = str(error)
        return isinstance(error, PeerError)


def _prepare(
    row: Row, name: str, peer: Peer, timing: Timing, settings: Settings, folder: Path
) -> list[np.ndarray]:
    file = folder / "results.npz"
    answer = peer.ask("prepare", row=row.name, side=name, tiny=settings.tiny, results=str(file))
    timing.first, timing.flops = answer["seconds"], answer["flops"]
    timing.repeats = peer.ask("calibrate", side=name, seconds=settings.seconds)["repeats"]
    with np.load(file) as results:
        return [results[key] for key in results.files]


def _compare(outcome: Outcome, found: dict[str, list[np.ndarray]]) -> None:
    """Every side against gluonish; sides without results take no part."""
    own = found.get(MAIN)
    for name, results in found.items():
        if own and results and name != MAIN:
            outcome.sides[name].differs = difference(own, results)


def _round(timings: Mapping[str, Timing], homes: Mapping[str, Peer]) -> None:
    for name, timing in timings.items():
        if not timing.problem:
            with _noting(timing):
                timing.samples.append(homes[name].ask("sample", side=name, repeats=timing.repeats)["seconds"])


def _beside_neighbour(outcome: Outcome, homes: Mapping[str, Peer], settings: Settings) -> None:
    """Rounds in turns without and with a busy process; the quiet ones replace the samples of these sides."""
    ready = [name for name in BUSY_SIDES if name in outcome.sides and not outcome.sides[name].problem]
    quiet = {name: outcome.sides[name] for name in ready}
    outcome.busy = {name: Timing(flops=t.flops, repeats=t.repeats) for name, t in quiet.items()}
    with Neighbour(processors(settings.threads)) as neighbour:
        for _ in range(settings.rounds):
            _round(outcome.busy, homes) if neighbour.busy() is None else None
            neighbour.quiet()
