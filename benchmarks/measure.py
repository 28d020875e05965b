"""The run: sides are prepared, compared, and sampled in turns, one sample each a round.

So whatever disturbs the machine for a while disturbs all of them. Rounds in which other processes took much processor
time are done again, some times, and those with the least are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.disturbance import Meter
from benchmarks.neighbour import Neighbour
from benchmarks.outcome import Outcome, Timing
from benchmarks.peers import Peer, PeerError, processors
from benchmarks.row import MAIN, Row, difference

BUSY_SIDES = (MAIN, "torch")  # timed beside a busy process; the second for comparison
DISTURBED = 0.2  # processors that others took, above which a round is done again (the system counts coarsely)
TIRED = 3  # times as many rounds as wanted are done at most


@dataclass(frozen=True)
class Settings:
    """How a run is done.

    seconds: of a sample, about. busy: also beside a busy process. compiled: the sides on request too. tiny: the sizes
    of the tests.
    """

    threads: int = 2
    rounds: int = 15
    seconds: float = 0.02
    busy: bool = False
    compiled: bool = False
    tiny: bool = False


class Run:
    """The libraries' processes, started when a row first needs them, ended with the block: `with Run(...) as run:`."""

    def __init__(self, names: Iterable[str], settings: Settings) -> None:
        self.settings = settings
        self.versions: dict[str, str] = {}
        self._names, self._peers = tuple(names), dict[str, Peer]()
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    def measure(self, row: Row) -> Outcome:
        """Prepares, compares and times the sides of a row whose libraries take part."""
        settings = self.settings
        chosen = [e for e in row.sides.values() if e.peer in self._names and (settings.compiled or not e.on_request)]
        outcome = Outcome(row, {entry.name: Timing() for entry in chosen})
        homes: dict[str, Peer] = {}
        found: dict[str, list[np.ndarray]] = {}
        for entry in chosen:
            with _noted(outcome.sides[entry.name]):
                homes[entry.name] = self._peer(entry.peer)
                found[entry.name] = self._prepare(row, entry.name, homes[entry.name], outcome.sides[entry.name])
        _compare(outcome, found)
        self._rounds(outcome, homes, max(settings.rounds, 0 if settings.tiny else row.least_rounds))
        if settings.busy and row.busy:
            self._disturb(outcome, homes)
        for peer in set(homes.values()):
            with _noted(Timing()):
                peer.ask("forget")
        return outcome

    def _peer(self, name: str) -> Peer:
        if name not in self._peers or not self._peers[name].alive:
            peer = self._stack.enter_context(Peer(name, self.settings.threads, self._folder / f"{name}.log"))
            self._peers[name] = peer
            self.versions[name] = peer.ask("start")["version"]
        return self._peers[name]

    def _prepare(self, row: Row, name: str, peer: Peer, timing: Timing) -> list[np.ndarray]:
        file = self._folder / "results.npz"
        answer = peer.ask("prepare", row=row.name, side=name, tiny=self.settings.tiny, results=str(file))
        timing.first, timing.flops = answer["seconds"], answer["flops"]
        timing.repeats = peer.ask("calibrate", side=name, seconds=self.settings.seconds)["repeats"]
        with np.load(file) as results:
            return [results[key] for key in results.files]

    def _rounds(self, outcome: Outcome, homes: Mapping[str, Peer], count: int) -> None:
        """So many rounds, as little disturbed as can be had."""
        meter = Meter(processors(self.settings.threads), lambda: [peer.process_id for peer in self._peers.values()])
        others: list[float] = []
        while sum(1 for taken in others if taken <= DISTURBED) < count and len(others) < TIRED * count:
            meter.others()
            _round(outcome.sides, homes)
            others.append(meter.others())
        kept = sorted(sorted(range(len(others)), key=others.__getitem__)[:count])
        outcome.others = [others[i] for i in kept]
        for timing in outcome.sides.values():
            if len(timing.samples) == len(others):
                timing.samples = [timing.samples[i] for i in kept]

    def _disturb(self, outcome: Outcome, homes: Mapping[str, Peer]) -> None:
        """Rounds in turns without and with a busy process."""
        ready = {name: t for name, t in outcome.sides.items() if name in BUSY_SIDES and t.samples and not t.problem}
        outcome.alone, outcome.beside = ({n: Timing(repeats=t.repeats) for n, t in ready.items()} for _ in range(2))
        with Neighbour(processors(self.settings.threads)) as neighbour:
            for _ in range(self.settings.rounds):
                neighbour.quiet()
                _round(outcome.alone, homes)
                neighbour.busy()
                _round(outcome.beside, homes)


@contextmanager
def _noted(timing: Timing) -> Iterator[None]:
    """A library's error is noted, and the run goes on without the side."""
    try:
        yield
    except PeerError as error:
        timing.problem = str(error)


def _compare(outcome: Outcome, found: Mapping[str, list[np.ndarray]]) -> None:
    """Every side against gluonish; sides without results take no part."""
    own = found.get(MAIN)
    for name, results in found.items():
        if own and results and name != MAIN:
            outcome.sides[name].differs = difference(own, results)


def _round(timings: Mapping[str, Timing], homes: Mapping[str, Peer]) -> None:
    for name, timing in timings.items():
        if not timing.problem:
            with _noted(timing):
                timing.samples.append(homes[name].ask("sample", side=name, repeats=timing.repeats)["seconds"])
