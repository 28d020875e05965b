"""Buffer plan: where every value of a program lives.

Arguments, captured arrays and outputs have memory of their own. Everything else shares one arena: a value's place is
free again after its last reader, and an elementwise step may write over a value of the same size that it is the last to
read. Among steps that run side by side, memory goes on only to those that need all steps that have used it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gluonish.hybrid.dependencies import Region
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Node
from gluonish.hybrid.step import Step

ALIGN = 64


class Place(NamedTuple):
    """An area ("input", "captured", "key", "output", "kept", "prepared", "arena", "errors"), and which one or where in
    it.
    """

    area: str
    at: int


def aligned(count: int) -> int:
    """Rounded up to whole cache lines."""
    return -(-count // ALIGN) * ALIGN


class Arena:
    """Hands out offsets; what is live at the same time never overlaps."""

    def __init__(self) -> None:
        self.live: list[tuple[int, int]] = []  # (offset, end), sorted
        self.resting: list[tuple[int, int, int]] = []  # freed for those only that come after some steps (a set of bits)
        self.size = 0

    def take(self, count: int, after: int = 0) -> int:
        """The lowest offset with room. after: the steps that who takes it comes after, as a set of bits."""
        count = max(aligned(count), ALIGN)
        start = place = 0
        for offset, end in self._not_for(after) if self.resting else self.live:
            if offset - start >= count:
                break
            start = max(start, end)
        while place < len(self.live) and self.live[place][0] < start:
            place += 1
        self.live.insert(place, (start, start + count))
        self.size = max(self.size, start + count)
        return start

    def _not_for(self, after: int) -> list[tuple[int, int]]:
        return sorted([*self.live, *((offset, end) for offset, end, users in self.resting if users & ~after)])

    def give(self, offset: int, users: int = 0) -> None:
        """Frees what begins at `offset`, until `rested` only for those that come after all `users`."""
        if users:
            self.resting += [(o, end, users) for o, end in self.live if o == offset]
        self.live = [entry for entry in self.live if entry[0] != offset]

    def rested(self) -> None:
        """All steps that ran side by side have ended."""
        self.resting = []


def last_readers(steps: Sequence[Step]) -> dict[int, int]:
    """id of a value's root -> the last step that reads or writes it."""
    out: dict[int, int] = {}
    for number, step in enumerate(steps):
        for node in (*step.reads, *step.writes):
            out[id(root_of(node))] = number
    return out


class Users:
    """Which steps of the region at hand use a value; sets of bits, empty outside of regions.

    before: those that come before all that write a value; until: those that come before all others that write it.
    """

    def __init__(self, steps: Sequence[Step], regions: Sequence[Region]) -> None:
        self.of: dict[int, int] = {}
        self.before: dict[int, int] = {}
        self.until: dict[int, int] = {}
        self.own = self.own_before = 0  # the step at hand, and those before it
        self._steps = steps
        self._at = {number: region for region in regions for number in region}

    def enter(self, number: int) -> bool:
        """Goes to a step; gives whether it begins a region, or comes behind one."""
        region = self._at.get(number)
        begins = region is not self._at.get(number - 1)
        if begins:
            self.of, self.before, self.until = {}, {}, {}
            for k in region or ():
                self._note(k, region)  # type: ignore[arg-type]
        self.own = 1 << (number - region.first) if region is not None else 0
        self.own_before = region.before[number - region.first] if region is not None else 0
        return begins

    def _note(self, number: int, region: Region) -> None:
        step, k = self._steps[number], number - region.first
        for node in (*step.reads, *step.writes):
            key = id(root_of(node))
            self.of[key] = self.of.get(key, 0) | 1 << k
        for node in step.writes:
            key = id(root_of(node))
            self.before[key] = self.before.get(key, -1) & region.before[k]
            self.until[key] = self.until.get(key, -1) & (region.before[k] | 1 << k)


def plan_arena(
    steps: Sequence[Step],
    places: dict[int, Place],
    size_of: Callable[[Node], int],
    scratch: Sequence[int],
    regions: Sequence[Region] = (),
) -> tuple[dict[int, Place], list[int], int]:
    """Places for all values that have none yet, an offset of scratch memory per step, and the size of the arena.

    regions: whose steps run side by side.
    """
    arena = Arena()
    out = dict(places)
    last = last_readers(steps)
    scratch_at: list[int] = []
    owners: dict[int, Node] = {}
    users = Users(steps, regions)
    for number, step in enumerate(steps):
        if users.enter(number):
            arena.rested()
        dying = [
            r
            for r in {id(root_of(x)): root_of(x) for x in step.reads}.values()
            if last[id(r)] == number and id(r) in owners
        ]
        for node in step.writes:
            root = root_of(node)
            if id(root) in out:
                continue
            before = users.before.get(id(root), 0)
            heir = next((d for d in dying if _may_take(step, d, root, size_of, users)), None)
            if heir is not None:
                dying.remove(heir)
                del owners[id(heir)]
                out[id(root)] = out[id(heir)]
                users.of[id(root)] = users.of.get(id(root), 0) | users.of.get(id(heir), 0)
            else:
                out[id(root)] = Place("arena", arena.take(size_of(root), before))
            owners[id(root)] = root
        scratch_at.append(arena.take(scratch[number], users.own_before) if scratch[number] else -1)
        if scratch[number]:
            arena.give(scratch_at[-1], users.own)
        for node in [*dying, *(root_of(w) for w in step.writes if last[id(root_of(w))] == number)]:
            if id(node) in owners:
                del owners[id(node)]
                arena.give(out[id(node)].at, users.of.get(id(node), 0))
    return out, scratch_at, arena.size


def _may_take(step: Step, node: Node, root: Node, size_of: Callable[[Node], int], users: Users) -> bool:
    """Whether a step may write `root` over a value that it is the last to read."""
    if not step.in_place or (step.over is not None and root_of(step.over) is not node):
        return False
    if users.of.get(id(node), 0) & ~users.until.get(id(root), 0):  # somebody may be reading it then
        return False
    return size_of(node) == size_of(root) and same_kind(node, root)


def same_kind(a: Node, b: Node) -> bool:
    """Whether an elementwise step reads `a` exactly where it writes `b`: same dtype and number of elements."""
    return a.dtype == b.dtype and a.kind != "temp" and b.kind != "temp"
