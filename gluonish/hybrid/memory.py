"""Memory: how many bytes a call of a variant needs, and which Blocks need them, from its plan and before it runs.

Counted is what the library holds for the call: the weights and what it makes of them, the arena in which the values
between the arguments and the results live, the results, and for training what is kept for the backward, its arena and
the gradients. Deliberately not here: arguments (the caller's), optimizer states, the interpreter and compiled code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gluonish.hybrid.bound import ROW, Bound
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.graph import Node
from gluonish.hybrid.plan import aligned, last_readers
from gluonish.hybrid.together import wave_bytes

if TYPE_CHECKING:
    from gluonish.hybrid.variant import Variant

KINDS = ("weights", "packed", "activations", "results", "kept", "backward", "gradients", "tables")


class Memory:
    """Bytes of a call by Block and kind; prints as a table. All numbers are bytes.

    Kinds: "weights" (all captured arrays), "packed" (what is made of weights alone, once), "activations" (values alive
    when most are), "results", and in training "kept" (for the backward), "backward" (its values alive when most are)
    and "gradients" (of the weights); "tables" says to the kernels where all that is.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, int]] = {}

    def add(self, path: str, kind: str, count: int) -> None:
        """Counts bytes of one kind for the Block with that path."""
        row = self.rows.setdefault(path, dict.fromkeys(KINDS, 0))
        row[kind] += count

    def of(self, kind: str) -> int:
        """Bytes of one kind."""
        return sum(row[kind] for row in self.rows.values())

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(map(self.of, KINDS))

    def __repr__(self) -> str:
        kinds = [kind for kind in KINDS if self.of(kind)]
        lines = [("Block", *kinds, "total")]
        for path, row in self.rows.items():
            if any(row.values()):
                lines.append((path or "(itself)", *(_text(row[k]) for k in kinds), _text(sum(row.values()))))
        lines.append(("all", *(_text(self.of(k)) for k in kinds), _text(self.total)))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        rows = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]) for line in lines
        ]
        rule = "-" * len(rows[0])
        return "\n".join([rows[0], rule, *rows[1:-1], rule, rows[-1]])


def _text(count: int) -> str:
    """Bytes as a person reads them."""
    if count == 0:
        return "-"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count} B"


def memory_of(variant: Variant, sizes: tuple[int, ...], path_of: Callable[[Any], str]) -> Memory:
    """What a call with these sizes needs. path_of: the path of a Block or of the Block that a Parameter belongs to."""
    out = Memory()
    for block in _in_order(variant):
        out.add(path_of(block), "results", 0)

    def owner(node: Node) -> str:
        return path_of(node.owner)

    forward = Bound(variant.program, sizes, planned_only=True)
    seen: set[int] = set()
    for leaf in variant.program.captured:
        data = leaf.array._data
        if id(data) not in seen:
            seen.add(id(data))
            out.add(path_of(leaf.array), "weights", data.nbytes)
    places = {id(root_of(w)): root_of(w) for s in variant.program.prepared.steps for w in s.writes}
    if places:
        prepared = Bound(variant.program, (), prepared=True, planned_only=True)
        for node in places.values():
            if id(node) in variant.program.places:
                out.add(owner(node), "packed", aligned(max(1, prepared.bytes_of(node))))
        out.add("", "packed", prepared.arena_size)
        out.add("", "tables", _tables(prepared))
    _arena(out, forward, "activations", owner)
    out.add("", "tables", _tables(forward))
    for node in variant.program.returned:
        out.add(owner(node), "results", forward.bytes_of(node))
    for node in variant.program.kept_nodes:
        out.add(owner(node), "kept", aligned(forward.bytes_of(node)))
    if variant.backward is not None:
        program = variant.backward.program()
        backward = Bound(program, sizes, held_layout=forward.kept_layout, planned_only=True)
        _arena(out, backward, "backward", owner)
        out.add("", "tables", _tables(backward))
        inputs = [*variant.arguments_and_captured()]
        for target, node in zip(variant.backward.targets, program.returned):
            out.add(path_of(inputs[target]), "gradients", backward.bytes_of(node))
    return out


def _tables(bound: Bound) -> int:
    """Bytes of a program's tables: a row for each step, its arguments, and where addresses come from."""
    words = entries = rows = 0
    for step, plan in zip(bound.steps, bound.plans):
        if plan is not None:
            pointers = [bound.places[id(root_of(n))].area for n in (*step.reads, *step.writes)]
            words += len(pointers) + 1 + 2 * bool(step.checks) + len(plan.scalars) + len(step.extra)
            entries += sum(area not in ("arena", "prepared") for area in pointers)
            rows += 1
    waves = sum(map(wave_bytes, bound.waves)) + (8 * ROW * rows if bound.waves else 0)
    return 8 * words + 24 * entries + 8 * ROW * rows + waves


def _in_order(variant: Variant) -> Iterable[Any]:
    """The Blocks in the order in which they compute."""
    return {id(n.owner): n.owner for n in variant.optimised.nodes()}.values()


def _arena(out: Memory, bound: Bound, kind: str, owner: Callable[[Node], str]) -> None:
    """Shares the arena among the Blocks whose values are in it when most of it is in use; the rest, gaps between values
    and scratch memory, belongs to the whole."""
    last = last_readers(bound.steps)
    ending: dict[int, list[int]] = {}
    alive: dict[int, tuple[int, Node]] = {}  # offset -> bytes, value
    total = most = 0
    peak: list[tuple[int, Node]] = []
    for number, step in enumerate(bound.steps):
        for w in map(root_of, step.writes):
            place = bound.places[id(w)]
            if place.area != "arena":
                continue
            if place.at in alive:
                total -= alive[place.at][0]
            alive[place.at] = (aligned(max(1, bound.bytes_of(w))), w)
            total += alive[place.at][0]
            ending.setdefault(last[id(w)], []).append(id(w))
        if total > most:
            most, peak = total, list(alive.values())
        ended = set(ending.pop(number, ()))
        for at in [at for at, (_, node) in alive.items() if id(node) in ended]:
            total -= alive.pop(at)[0]
    for count, node in peak:
        out.add(owner(node), kind, count)
    out.add("", kind, bound.arena_size - most)
