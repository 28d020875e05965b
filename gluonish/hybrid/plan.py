"""Buffer plan: where every value of a program lives.

Arguments, captured arrays and outputs have memory of their own. Everything else shares one arena: a value's place is
free again after its last reader, and an elementwise step may write over a value of the same size that it is the last to
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

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
        self.size = 0

    def take(self, count: int) -> int:
        """The lowest offset with room."""
        count = max(aligned(count), ALIGN)
        start = 0
        for i, (offset, end) in enumerate(self.live):
            if offset - start >= count:
                self.live.insert(i, (start, start + count))
                break
            start = max(start, end)
        else:
            self.live.append((start, start + count))
        self.size = max(self.size, start + count)
        return start

    def give(self, offset: int) -> None:
        """Frees what begins at `offset`."""
        self.live = [entry for entry in self.live if entry[0] != offset]


def last_readers(steps: Sequence[Step]) -> dict[int, int]:
    """id of a value's root -> the last step that reads or writes it."""
    out: dict[int, int] = {}
    for number, step in enumerate(steps):
        for node in (*step.reads, *step.writes):
            out[id(root_of(node))] = number
    return out


def plan_arena(
    steps: Sequence[Step], places: dict[int, Place], size_of: Callable[[Node], int], scratch: Sequence[int]
) -> tuple[dict[int, Place], list[int], int]:
    """Places for all values that have none yet, an offset of scratch memory per step, and the size of the arena."""
    arena = Arena()
    out = dict(places)
    last = last_readers(steps)
    scratch_at: list[int] = []
    owners: dict[int, Node] = {}
    for number, step in enumerate(steps):
        dying = [
            r
            for r in {id(root_of(x)): root_of(x) for x in step.reads}.values()
            if last[id(r)] == number and id(r) in owners
        ]
        for node in step.writes:
            root = root_of(node)
            if id(root) in out:
                continue
            heir = next(
                (d for d in dying if _may_take(step, d) and size_of(d) == size_of(root) and same_kind(d, root)), None
            )
            if heir is not None:
                dying.remove(heir)
                del owners[id(heir)]
                out[id(root)] = out[id(heir)]
            else:
                out[id(root)] = Place("arena", arena.take(size_of(root)))
            owners[id(root)] = root
        scratch_at.append(arena.take(scratch[number]) if scratch[number] else -1)
        if scratch[number]:
            arena.give(scratch_at[-1])
        for node in [*dying, *(root_of(w) for w in step.writes if last[id(root_of(w))] == number)]:
            if id(node) in owners:
                del owners[id(node)]
                arena.give(out[id(node)].at)
    return out, scratch_at, arena.size


def _may_take(step: Step, node: Node) -> bool:
    """Whether a step may write over a value that it reads."""
    return step.in_place and (step.over is None or root_of(step.over) is node)


def same_kind(a: Node, b: Node) -> bool:
    """Whether an elementwise step reads `a` exactly where it writes `b`: same dtype and number of elements."""
    return a.dtype == b.dtype and a.kind != "temp" and b.kind != "temp"
