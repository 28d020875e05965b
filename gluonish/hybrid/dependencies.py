"""Dependencies: which steps of a program need which others, and where steps stand together that do not.

A step needs those that write what it reads, and those that read or write what it writes over. Steps that may run in any
order form regions: pieces of the program that nothing outside runs beside. This is known before any size is.

Deliberately not here: whether running side by side pays (`waves.py`), who shares memory with whom (`plan.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.step import Step

AROUND = 64  # steps before a step that are looked at
MOST = 64  # steps of a region; longer ones are cut


@dataclass(eq=False)
class Region:
    """Steps first .. end - 1 of a program. needs: for each of them those of them that must be done before it, counted
    from `first`. before: the same as sets of bits, and with what those need in turn."""

    first: int
    needs: list[list[int]]
    before: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.before = []
        for needed in self.needs:
            bits = 0
            for k in needed:
                bits |= self.before[k] | 1 << k
            self.before.append(bits)

    @property
    def end(self) -> int:
        """The step behind the last."""
        return self.first + len(self.needs)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.end))


def regions(steps: Sequence[Step], places: Mapping[int, object], ends: Sequence[bool]) -> list[Region]:
    """The regions of a program with at least two steps that may run side by side. ends: for each step whether none
    behind it may run before it has ended, nor it beside another. places: of values outside the program's own memory."""
    needs = dependencies(steps, places)
    out, first = [], 0
    for number, end in enumerate([*ends, True]):
        if end:
            for a, b in _between_cuts(needs, first, number):
                out.append(Region(a, [[k - a for k in needs[n] if k >= a] for n in range(a, b)]))
            first = number + 1
    return out


def dependencies(steps: Sequence[Step], places: Mapping[int, object]) -> list[list[int]]:
    """For each step the earlier ones that it directly needs."""
    writers: dict[object, list[int]] = {}
    readers: dict[object, list[int]] = {}
    out = []
    for number, step in enumerate(steps):
        reads, writes = ([_memory(n, places) for n in nodes] for nodes in (step.reads, step.writes))
        found: set[int] = set()
        for key in reads:
            found.update(writers.get(key, ()))
            readers.setdefault(key, []).append(number)
        for key in writes:
            before = writers.get(key, [])
            found.update(k for k in before if not (step.part and steps[k].part))
            found.update(readers.get(key, ()))
            writers[key] = [*before, number] if step.part else [number]
        out.append(sorted(found - {number}))
    return out


def _memory(node: object, places: Mapping[int, object]) -> object:
    """What tells a value's memory from others: its place if it is fixed, else the value."""
    root = root_of(node)  # type: ignore[arg-type]
    return places.get(id(root), id(root))


def _between_cuts(needs: Sequence[Sequence[int]], first: int, end: int) -> Iterator[tuple[int, int]]:
    """Pieces of first .. end - 1 such that whatever is in one needs all that is in the pieces before it, as far as one
    looks back; those of one step are left out, long ones cut."""
    lowest, cuts = end, [end]
    for number, low in reversed(list(zip(range(first, end), _furthest_beside(needs, first, end)))):
        lowest = min(lowest, low)
        if lowest >= number:
            cuts.append(number)
    cuts.reverse()
    for a, b in zip(cuts, cuts[1:]):
        pieces = -(-(b - a) // MOST)
        for i in range(pieces):
            begin, stop = a + (b - a) * i // pieces, a + (b - a) * (i + 1) // pieces
            if stop - begin > 1:
                yield begin, stop


def _furthest_beside(needs: Sequence[Sequence[int]], first: int, end: int) -> Iterator[int]:
    """For each step the first one not far before it that it can run beside; itself if there is none."""
    before: list[int] = []  # bit d - 1: needs the step d places before
    for number in range(first, end):
        bits = 0
        for k in needs[number]:
            if k >= max(first, number - AROUND):
                bits |= 1 << (number - k - 1) | before[k - first] << (number - k)
        before.append(bits & ((1 << AROUND) - 1))
        free = ~bits & ((1 << min(AROUND, number - first)) - 1)
        yield number - free.bit_length()
