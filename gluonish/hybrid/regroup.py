"""Regrouping: loop groups that read the same memory, or each other, become one where the order of work allows it.

The first sweep of `fuse.py` puts a node beside one of its operands; where operands come from several groups, the rest
of the chain stays behind. Here such groups are joined, so that a value between them stays in registers and what both
read is read once.

Deliberately not here: which single nodes go together (`fuse.py`), code (`lower_loops.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gluonish.hybrid.graph import Node
from gluonish.nd.ops.reduce import REDUCTIONS
from gluonish.nd.size import same_shape

if TYPE_CHECKING:
    from gluonish.hybrid.fuse import Fuser, Group

ROUNDS = 64  # sweeps over all pairs; each joins at least one, and few graphs need three


def join_groups(fuser: Fuser) -> None:
    """Joins pairs of groups until no pair is left that may be joined."""
    fuser.note_readers()
    for _ in range(ROUNDS):
        if not any([_join_first(fuser, group) for group in list(fuser.groups.values())]):
            break
    columns = [g for g in fuser.groups.values() if g.kind == "columns"]
    for group in list(fuser.groups.values()):
        if group.kind == "rows":
            _take_columns(fuser, group, columns)


def _join_first(fuser: Fuser, group: Group) -> bool:
    """Joins a group with the first of its neighbours that fits."""
    if id(group) not in fuser.groups or group.kind not in ("map", "rows"):
        return False
    for other in _neighbours(fuser, group):
        for first, second in ((group, other), (other, group)):
            if _fits(fuser, first, second) and _independent(fuser, first, second):
                _absorb(fuser, first, second)
                return True
    return False


def _take_columns(fuser: Fuser, group: Group, columns: list[Group]) -> None:
    """Takes in reductions down the columns of the same domain, of what the rows' loops have at hand anyway."""
    own = {id(x) for x in _large_reads(group)} | group.members
    for other in columns:
        if id(other) not in fuser.groups or not same_shape(other.domain, group.domain):
            continue
        sums = [n for n in other.nodes if n.op is not None and n.op.name in REDUCTIONS]
        outer = tuple(range(len(group.domain) - group.depth))
        if any(n.attrs["axes"] != outer or n.is_op("variance") for n in sums) or _reads_columns(other, group, outer):
            continue
        if (
            not {id(p) for n in other.nodes for p in n.parents if same_shape(p.shape, group.domain)}
            <= own | other.members
        ):
            continue
        nodes, members = list({id(n): n for n in (*group.nodes, *other.nodes)}.values()), group.members | other.members
        loops = [n for n in nodes if not any(n is s for s in sums)]
        fits = fuser.within_limits(nodes, members) and all(fuser.at_home(n, group, members) for n in loops)
        if fits and not fuser.reaches(group, other) and _independent(fuser, group, other):
            _absorb(fuser, group, other)


def _reads_columns(other: Group, group: Group, outer: tuple[int, ...]) -> bool:
    """Whether a group reads what another one's loops have down the columns only at their end."""
    sums = {id(n) for n in group.nodes if n.op is not None and n.op.name in REDUCTIONS and n.attrs["axes"] == outer}
    for p in (p for n in other.nodes for p in n.parents):
        while p.is_op("reshape"):
            p = p.inputs[0]
        if id(p) in sums:
            return True
    return False


def _neighbours(fuser: Fuser, group: Group) -> Iterator[Group]:
    """The groups that it reads, then those that read an array over the whole domain that it reads too."""
    seen = {id(group)}
    for key in list(group.parents):
        if key not in seen and fuser.groups[key].kind in ("map", "rows"):
            seen.add(key)
            yield fuser.groups[key]
    for leaf in _large_reads(group):
        for user in fuser.readers(leaf):
            other = fuser.group_of.get(id(user))
            if other is not None and id(other) not in seen and other.kind in ("map", "rows"):
                seen.add(id(other))
                if any(x is leaf for x in _large_reads(other)):
                    yield other


def _large_reads(group: Group) -> list[Node]:
    """What a group reads from memory that has the shape of its domain."""
    found: dict[int, Node] = {}
    for node in group.nodes:
        for parent in node.parents:
            if id(parent) not in group.members and same_shape(parent.shape, group.domain):
                found[id(parent)] = parent
    return list(found.values())


def _fits(fuser: Fuser, group: Group, other: Group) -> bool:
    """Whether the nodes of `other` can be computed in the loops of `group`."""
    nodes = [*group.nodes, *other.nodes]
    members = group.members | other.members
    if group.kind == "map" and other.kind != "map":
        return False
    if other.kind == "rows" and (other.depth != group.depth or not same_shape(other.domain, group.domain)):
        return False
    if group.kind == "map" and not same_shape(other.domain, group.domain):
        return False
    return fuser.within_limits(nodes, members) and all(fuser.at_home(n, group, members) for n in nodes)


def _independent(fuser: Fuser, group: Group, other: Group) -> bool:
    """Whether neither reads the other by way of a third, or in another shape."""
    for a, b in ((group, other), (other, group)):
        if any(fuser.reaches(fuser.groups[key], b) for key in a.parents if fuser.groups[key] is not b):
            return False
    return True


def _absorb(fuser: Fuser, group: Group, other: Group) -> None:
    nodes = {id(n): n for n in (*group.nodes, *other.nodes)}
    group.nodes = sorted(nodes.values(), key=lambda n: fuser.position[id(n)])
    group.members |= other.members
    fuser.note_span(group)
    group.parents = (group.parents | other.parents) - {id(group), id(other)}
    for key in other.members - other.again:
        fuser.group_of[key] = group
    group.again = {key for key in group.again | other.again if fuser.group_of[key] is not group}
    del fuser.groups[id(other)]
    fuser.hand_over(other, group)
