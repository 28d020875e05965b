"""Fusion: which nodes are computed together, so that values between them never reach memory.

Groups grow along the order of the graph. An elementwise node joins the group of an operand if both have the same
domain; a reduction, or a pick along rows, joins the group that computes its operand; what uses a row's reduction over
the same row joins too (softmax, norms). Elementwise nodes behind a product or convolution become its epilogue. A node
never joins if a value would have to leave the group and come back. A reduction down columns computes again what it can
have from the same memory, rather than wait for it.

Deliberately not here: the joining of whole groups (`regroup.py`), what code a group becomes (`lower.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gluonish.hybrid.graph import Graph, Node, users
from gluonish.hybrid.regroup import join_groups
from gluonish.hybrid.spans import Spans
from gluonish.nd.dtypes import SINGLE, is_half, single_of
from gluonish.nd.ops.reduce import REDUCTIONS
from gluonish.nd.size import Size, SizeLike, same, same_shape

LOOP = ("elementwise", "random", "create")
MAX_INPUTS = 24
MAX_NODES = 256  # the time to compile grows faster than the kernel
MAX_AGAIN = 16
PRODUCTS = ("matmul", "integer_matmul")  # whose kernels can store another dtype than they sum in
HEAVY = frozenset("exp expm1 log log1p tanh sigmoid erf sin cos power gelu gelu_tanh silu softplus".split())

Shape = tuple[SizeLike, ...]


@dataclass(eq=False)
class Group:
    """Nodes computed by one kernel.

    kind: "map", "rows" (with reductions along the trailing `depth` dimensions, and others down the columns that nothing
    in the group reads), "columns" (ends in other reductions), "contract" (a product or convolution first), "single"
    (anything else). domain: the shape the loops run over.
    """

    kind: str
    domain: Shape
    nodes: list[Node]
    depth: int = 0
    members: set[int] = field(default_factory=set)
    again: set[int] = field(default_factory=set)  # of the members, those that another group computes for all others
    parents: set[int] = field(default_factory=set)  # ids of the groups this one reads

    def add(self, node: Node) -> None:
        """Puts a node into the group."""
        self.nodes.append(node)
        self.members.add(id(node))


class Fuser:
    """Builds the groups of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = users(graph)
        self.results = {id(n) for n in graph.results()}
        self.group_of: dict[int, Group] = {}
        self.groups: dict[int, Group] = {}
        self.position = {id(n): i for i, n in enumerate(graph.nodes())}
        self.columns: dict[int, dict[int, Group]] = {}  # id of an array -> groups of kind "columns" that may read it
        self.spans = Spans(len(self.position))
        self.group_readers: dict[int, set[int]] = {}

    def run(self) -> list[Group]:
        """The groups in an order in which they can run."""
        for node in self.graph.nodes():
            if alias_of(node) is None:
                self._place(node)
        join_groups(self)
        return self._in_order()

    # --- joining ------------------------------------------------------------------------------------------------------
    def _place(self, node: Node) -> None:
        if is_down(node):
            self._place_columns(node)
            return
        for group in self._candidates(node):
            if self._joins(node, group) and self._legal(node, group):
                self._add(node, group)
                return
        self._add(node, self._new_group(node))

    def _candidates(self, node: Node) -> list[Group]:
        found: dict[int, Group] = {}
        for parent in node.parents:
            group = self.group_of.get(id(root_of(parent)))
            if group is not None:
                found[id(group)] = group
        order = ("single", "columns", "contract", "map", "rows")
        return sorted(found.values(), key=lambda g: -1 if _only_widens(g) else order.index(g.kind), reverse=True)

    def _new_group(self, node: Node) -> Group:
        assert node.op is not None
        family = node.op.family
        if _loopable(node):
            kind = "map"
        elif _along_rows(node):
            group = Group("rows", node.inputs[0].shape, [], _depth(node))
            self.groups[id(group)] = group
            return group
        else:
            kind = "contract" if family == "contract" and not node.is_op("convolution_weight_gradient") else "single"
        group = Group(kind, node.shape, [])
        self.groups[id(group)] = group
        return group

    def _add(self, node: Node, group: Group) -> None:
        group.add(node)
        self.group_of[id(node)] = group
        self._note_parents(node, group)
        self.note_span(group)

    def note_span(self, group: Group) -> None:
        """To be called when a group has got nodes."""
        places = [self.position[id(n)] for n in group.nodes]
        self.spans.note(min(places), max(places))

    def _note_parents(self, node: Node, group: Group) -> None:
        for parent in node.parents:
            other = self.group_of.get(id(root_of(parent)))
            if other is not None and other is not group and id(parent) not in group.members:
                group.parents.add(id(other))

    def note_readers(self) -> None:
        """Which groups read which, from here on kept by `hand_over`."""
        self.group_readers = {key: set() for key in self.groups}
        for key, group in self.groups.items():
            for parent in group.parents:
                self.group_readers.setdefault(parent, set()).add(key)

    def hand_over(self, before: Group, group: Group) -> None:
        """Whoever read the group `before` now reads `group`, which has taken it in."""
        for parent in before.parents:
            self.group_readers[parent].discard(id(before))
        for parent in group.parents:
            self.group_readers[parent].add(id(group))
        for key in self.group_readers.pop(id(before)) - {id(group)}:
            self.groups[key].parents.discard(id(before))
            self.groups[key].parents.add(id(group))
            self.group_readers[id(group)].add(key)
        self.group_readers[id(group)].discard(id(group))

    # --- reductions down columns --------------------------------------------------------------------------------------
    def _place_columns(self, node: Node) -> None:
        """A reduction that does not run along rows: takes with it what only it reads, and joins one over the same
        domain.
        """
        source = node.inputs[0]
        private = self._private(source)
        again = self._again([*private, node], source.shape)
        own = {id(n) for n in (*private, *again)}
        reads = {id(root_of(p)) for n in (*private, *again, node) for p in n.parents if id(p) not in own}
        found = {id(g): g for key in reads for g in self.columns.get(key, {}).values()}
        group = next((g for g in found.values() if self._same_columns(g, node, reads)), None)
        if group is None:
            group = Group("columns", source.shape, [])
            self.groups[id(group)] = group
        for key in reads:
            self.columns.setdefault(key, {})[id(group)] = group
        left = {id(g): g for g in [self.group_of[id(n)] for n in private]}
        for n in private:
            before = self.group_of.pop(id(n))
            before.nodes.remove(n)
            before.members.discard(id(n))
        for before in left.values():
            if not before.nodes:
                del self.groups[id(before)]
            before.parents = set()
            for n in before.nodes:
                self._note_parents(n, before)
        for n in again:
            if id(n) not in group.members:
                group.add(n)
                group.again.add(id(n))
        for n in again:
            self._note_parents(n, group)
        for n in (*private, node):
            self._add(n, group)
        group.nodes.sort(key=lambda n: self.position[id(n)])  # what is computed again may be read by earlier nodes

    def _again(self, nodes: list[Node], domain: Shape) -> list[Node]:
        """Light elementwise nodes of other groups that `nodes` can compute again from no more arrays over the whole
        domain than they would read otherwise; parents first."""
        inside = {id(n) for n in nodes}
        reads = {id(p): p for n in nodes for p in n.parents if id(p) not in inside and same_shape(p.shape, domain)}
        found: dict[int, Node] = {}
        leaves: set[int] = set()
        stack = list(reads.values())
        while stack:
            n = stack.pop()
            group = self.group_of.get(id(n))
            if id(n) in found or not same_shape(n.shape, domain):
                continue
            if group is None or group.kind != "map" or not _light(n) or len(found) >= MAX_AGAIN:
                leaves.add(id(n))
                continue
            found[id(n)] = n
            stack.extend(n.parents)
        return sorted(found.values(), key=lambda n: self.position[id(n)]) if len(leaves) <= len(reads) else []

    def _private(self, source: Node) -> list[Node]:
        """The elementwise nodes over the whole domain that, in the end, only this reduction reads; parents first."""
        found: list[Node] = []
        stack = [source]
        while stack:
            n = stack.pop()
            group = self.group_of.get(id(n))
            here = group is not None and group.kind == "map" and same_shape(n.shape, source.shape)
            if n in found or not here or n.is_op("unpick", "random_uniform"):  # which go by places in rows
                continue
            if len(found) >= MAX_NODES:
                break
            readers = self._readers(n)
            inside = {id(f) for f in found}
            if id(n) in self.results or len([u for u in readers if id(u) not in inside]) > (1 if n is source else 0):
                continue
            found.append(n)
            stack.extend(n.parents)
        return sorted(found, key=lambda n: self.position[id(n)])

    def _same_columns(self, group: Group, node: Node, reads: set[int]) -> bool:
        if group.kind != "columns" or not same_shape(group.domain, node.inputs[0].shape):
            return False
        if group.nodes[-1].attrs["axes"] != node.attrs["axes"]:
            return False
        theirs = {id(root_of(p)) for n in group.nodes for p in n.parents} - group.members
        if not theirs & reads or len(theirs | reads) > MAX_INPUTS:
            return False
        others = [self.group_of[key] for key in reads if key in self.group_of]
        return not any(o is group or self.reaches(o, group) for o in others)

    def _joins(self, node: Node, group: Group) -> bool:
        if not self.within_limits([*group.nodes, node], group.members):
            return False
        if group.kind == "contract":
            return self._joins_contract(node, group)
        if _along_rows(node):
            return self._reduction_joins(node, group)
        return group.kind in ("map", "rows") and self.at_home(node, group, group.members)

    def _reduction_joins(self, node: Node, group: Group) -> bool:
        source, depth = node.inputs[0], _depth(node)
        if id(source) not in group.members or not same_shape(source.shape, group.domain):
            return False
        by_place = ("random_uniform", "unpick") if depth > 1 else ("random_uniform",)
        if group.kind == "map" and not any(n.is_op(*by_place) for n in group.nodes):
            group.kind, group.depth = "rows", depth
        return group.kind == "rows" and self.at_home(node, group, group.members)

    def at_home(self, node: Node, group: Group, members: set[int]) -> bool:
        """Whether a node can be computed in the loops of a map or rows group that has these members."""
        for p in node.parents:
            if alias_of(p) is not None and id(root_of(p)) in members:  # in memory, it is there only after the loops
                if group.kind != "rows" or not all(is_row_shape(x.shape, group) for x in (p, root_of(p))):
                    return False
        if _along_rows(node):
            source = node.inputs[0]
            whole = alias_of(source) is None or id(root_of(source)) not in members
            return (
                group.kind == "rows"
                and _depth(node) == group.depth
                and same_shape(source.shape, group.domain)
                and whole
            )
        if not _loopable(node):
            return False
        if group.kind == "map":
            return same_shape(node.shape, group.domain)
        if not _aligned(node, members) or (node.is_op("unpick") and group.depth != 1):
            return False
        if node.is_op("random_uniform"):  # which is much faster in blocks, by itself
            return False
        by_place = node.is_op("arange", "unpick")  # elements are numbered over the whole domain
        return same_shape(node.shape, group.domain) or (is_row_shape(node.shape, group) and not by_place)

    def within_limits(self, nodes: list[Node], members: set[int]) -> bool:
        """Whether one kernel may compute so much: its size, its arguments, and one array of indices at most."""
        outside = {id(root_of(p)) for n in nodes for p in n.parents if id(p) not in members}
        indices = {id(n.inputs[1]) for n in nodes if n.is_op("pick", "unpick")}
        return len(nodes) <= MAX_NODES and len(outside) <= MAX_INPUTS and len(indices) <= 1

    def readers(self, node: Node) -> list[Node]:
        """The nodes that read a value in its own shape."""
        return self.users.get(id(node), [])

    def _readers(self, node: Node) -> list[Node]:
        out = []
        for u in self.users.get(id(node), []):
            out += self._readers(u) if alias_of(u) is not None else [u]
            if alias_of(u) is not None and id(u) in self.results:
                out.append(u)
        return out

    def _joins_contract(self, node: Node, group: Group) -> bool:
        last = group.nodes[-1]
        if id(last) in self.results or [u for u in self.users.get(id(last), []) if u is not node]:
            return False
        return joins_epilogue(node, last, group.nodes[0].is_op(*PRODUCTS))

    # --- order --------------------------------------------------------------------------------------------------------
    def _legal(self, node: Node, group: Group) -> bool:
        """Whether no other operand of the node depends on the group."""
        for parent in node.parents:
            other = self.group_of.get(id(root_of(parent)))
            if other is not None and other is not group and self.reaches(other, group):
                return False
        if group.kind in ("map", "rows"):
            return True  # `at_home` has looked at reshapes
        return not any(alias_of(p) is not None and self.group_of.get(id(root_of(p))) is group for p in node.parents)

    def reaches(self, start: Group, target: Group) -> bool:
        """Whether a group reads the target, directly or by way of others, or is it."""
        if start is target:
            return True
        first = min((self.position[id(n)] for n in target.nodes), default=-1)
        seen = {id(start)}
        stack = [start]
        while stack:
            current = stack.pop()
            if current is target:
                return True
            if self.spans.reach(max((self.position[id(n)] for n in current.nodes), default=first)) < first:
                continue  # whatever it reads, by whatever way, stands before the target
            for key in current.parents:
                if key not in seen:
                    seen.add(key)
                    stack.append(self.groups[key])
        return False

    def _in_order(self) -> list[Group]:
        out: list[Group] = []
        state: dict[int, bool] = {}
        age = {key: i for i, key in enumerate(self.groups)}
        for start in self.groups.values():
            stack = [(start, False)]
            while stack:
                group, done = stack.pop()
                if done:
                    out.append(group)
                elif id(group) not in state:
                    state[id(group)] = True
                    stack.append((group, True))
                    parents = sorted(group.parents, key=age.__getitem__, reverse=True)
                    stack.extend((self.groups[key], False) for key in parents)
        return out


def alias_of(node: Node) -> Node | None:
    """The node whose memory this one shares: reshapes move nothing."""
    return node.inputs[0] if node.is_op("reshape") else None


def root_of(node: Node) -> Node:
    """The node that owns the memory."""
    while node.is_op("reshape"):
        node = node.inputs[0]
    return node


def _loopable(node: Node) -> bool:
    assert node.op is not None
    return node.op.family in ("elementwise", "create") or node.is_op("random_uniform", "broadcast_to", "unpick")


def is_down(node: Node) -> bool:
    """Whether a reduction runs down columns."""
    assert node.op is not None
    return node.op.name in REDUCTIONS and not _trailing(node)


def _light(node: Node) -> bool:
    """Whether computing a value twice costs less than passing it through memory."""
    assert node.op is not None
    return node.op.family == "elementwise" and (node.op.name not in HEAVY or node.op.name == "exp")


def _along_rows(node: Node) -> bool:
    """Whether a node makes one value of each row: a reduction, or a pick."""
    assert node.op is not None
    return node.op.name in REDUCTIONS or node.is_op("pick")


def _only_widens(group: Group) -> bool:
    """Whether a group does nothing but convert half-width floats, which whoever reads them can do as well."""
    return group.kind == "map" and all(n.is_op("cast") and is_half(n.inputs[0].dtype) for n in group.nodes)


def _depth(node: Node) -> int:
    """How many dimensions a row has for such a node."""
    return 1 if node.is_op("pick") else len(node.attrs["axes"])


def is_row_shape(shape: Shape, group: Group) -> bool:
    """Whether a value of this shape has one element per row of a rows group."""
    outer = group.domain[: len(group.domain) - group.depth]
    return same_shape(shape, outer) or same_shape(shape, (*outer, *(1,) * group.depth))


def _aligned(node: Node, members: set[int]) -> bool:
    """Whether what a reduction left without its dimensions meets only its like: shapes are aligned at their ends, so
    in an expression over the whole domain it would run along another dimension than the rows."""
    if node.is_op("unpick"):  # which wants one value for each row
        return True
    return all(len(p.shape) == len(node.shape) for p in node.parents if id(root_of(p)) in members)


def _trailing(node: Node) -> bool:
    """Whether a reduction runs along rows: over the last dimensions, but not over all."""
    axes, rank = node.attrs["axes"], len(node.inputs[0].shape)
    return axes == tuple(range(rank - len(axes), rank)) and len(axes) < rank


def joins_epilogue(node: Node, last: Node, casts: bool = False) -> bool:
    """Whether a contraction that ends in `last` can compute `node` too before it writes its result."""
    if node.op is None or node.op.family != "elementwise" or node.is_op("where"):
        return False
    if not any(x is last for x in node.parents) or not same_shape(node.shape, last.shape):
        return False
    if node.is_op("cast"):  # float32 and half-width floats share a register; sums of integers may become floats
        wide = single_of(node.dtype) == SINGLE
        return casts and wide and (single_of(last.dtype) == SINGLE or last.dtype == np.int32)
    if node.dtype != last.dtype:
        return False
    if any(isinstance(x, Size) for x in node.inputs):  # its number would be compiled in
        return False
    return all(_epilogue_operand(x, node, last) for x in node.parents if x is not last)


def _epilogue_operand(x: Node, node: Node, last: Node) -> bool:
    if x.dtype != last.dtype:
        return False
    if same_shape(x.shape, node.shape):
        return True
    ones = all(same(s, 1) for s in x.shape[:-1])
    return ones and (not x.shape or same(x.shape[-1], node.shape[-1]) or same(x.shape[-1], 1))


def fuse(graph: Graph) -> list[Group]:
    """The groups of a graph in an order in which they can run."""
    return Fuser(graph).run()


def in_memory(groups: list[Group], graph: Graph) -> set[int]:
    """ids of the values that must be written: results, and what another group reads, itself or in another shape."""
    found = {id(n) for n in graph.results()}
    for group in groups:
        for node in group.nodes:
            found.update(id(p) for p in node.parents if not _inside(p, group))
    stack = [n for n in graph.nodes() if id(n) in found]
    while stack:  # a reshape has its memory from the value it reshapes
        alias = alias_of(stack.pop())
        if alias is not None and id(alias) not in found:
            found.add(id(alias))
            stack.append(alias)
    return found


def _inside(node: Node, group: Group) -> bool:
    root = root_of(node)
    return id(root) in group.members and (root is node or group.kind == "rows")
