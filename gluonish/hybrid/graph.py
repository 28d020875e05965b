"""Graph: the static program that a trace leaves behind.

Nodes stand in the order in which they can run. A node knows its op, inputs, attributes, shape (sizes may be symbolic),
dtype and the user's line it came from. Leaves have no op: arguments, captured arrays, the random key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import OPS, Op, Spec
from gluonish.nd.size import Size, SizeLike, same_shape

Operand = Any  # a Node, a Python number, or a Size


class TraceError(TypeError):
    """Python asked a traced array for something only values can tell. `relied`: the attributes and names that the trace
    had read until then."""

    relied: Any = (None, None)


class Origin(str):
    """Where a node comes from: the user's line, as text, and `owner`, whatever was running (a Block), or None."""

    __slots__ = ("owner",)
    owner: Any

    def __new__(cls, line: str, owner: Any = None) -> Origin:
        """The line as a text that knows its owner."""
        self = super().__new__(cls, line)
        self.owner = owner
        return self


class Node:
    """One value of a graph. `kind` is "op", or for leaves "input", "captured", "key", or for lowered graphs "temp"."""

    __slots__ = ("kind", "op", "inputs", "attrs", "shape", "dtype", "line", "name", "array", "parents")

    def __init__(
        self,
        kind: str,
        spec: Spec,
        op: Op | None = None,
        inputs: Sequence[Operand] = (),
        attrs: dict[str, Any] | None = None,
        line: str = "",
        name: str = "",
        array: Any = None,
    ) -> None:
        self.kind = kind
        self.shape, self.dtype = spec
        self.op = op
        self.inputs = tuple(inputs)
        self.parents = [x for x in self.inputs if isinstance(x, Node)]
        self.attrs = attrs or {}
        self.line = line
        self.name = name
        self.array = array

    def become(self, op: Op, inputs: Sequence[Operand]) -> None:
        """Makes this node, which others read already, the result of another op of the same shape and dtype."""
        self.op, self.inputs, self.attrs = op, tuple(inputs), {}
        self.parents = [x for x in self.inputs if isinstance(x, Node)]

    @property
    def spec(self) -> Spec:
        """Shape and dtype."""
        return Spec(self.shape, self.dtype)

    @property
    def owner(self) -> Any:
        """What was running when the node was made: the innermost Block, or None."""
        return getattr(self.line, "owner", None)

    def is_op(self, *names: str) -> bool:
        """Whether this node applies one of the named ops."""
        return self.op is not None and self.op.name in names

    def no_value(self, asked: str) -> TraceError:
        """The error for Python code that wants the values of a traced array."""
        return TraceError(
            f"{asked} needs the values of an array, but while a hybridized Block is traced there are none "
            f"({shape_text(self.shape)} {self.dtype}, {user_line()}); use nd.where(condition, a, b) to choose by "
            f"value, nd.cond instead of `if`, nd.while_loop or nd.foreach instead of loops, or "
            f"hybridize(fallback=True), which runs this Block step by step and compiles those inside it"
        )

    def __repr__(self) -> str:
        what = self.op.name if self.op else self.kind
        return f"<{what} {self.name} {shape_text(self.shape)} {self.dtype}>"


@dataclass
class Graph:
    """Nodes in order, inputs and outputs, and the arrays, captured ones or arguments, that `updates` write to."""

    inputs: list[Node]
    outputs: list[Node]
    updates: list[tuple[Node, Node]] = field(default_factory=list)  # (leaf, new value)
    name: str = "graph"
    path_of: Callable[[Any], str] | None = None  # the path of a node's owner, for pictures

    def results(self) -> list[Node]:
        """Everything the graph must compute."""
        return [*self.outputs, *(value for _, value in self.updates)]

    def nodes(self) -> list[Node]:
        """The op nodes that the results need, in an order in which they can run."""
        return [n for n in ordered(self.results()) if n.kind == "op"]

    def leaves(self) -> list[Node]:
        """Captured arrays and the random key that the results need, arguments excluded."""
        return [n for n in ordered(self.results()) if n.kind in ("captured", "key")]

    def __str__(self) -> str:
        return text(self)

    def _repr_svg_(self) -> str:
        from gluonish.hybrid.picture import svg

        return svg(self, self.path_of)


def ordered(results: Iterable[Node]) -> list[Node]:
    """All ancestors of the results, parents first (depth first, without recursion)."""
    seen: set[int] = set()
    out: list[Node] = []
    stack: list[Node | None] = list(reversed(list(results)))  # after a None: the node whose parents are done
    while stack:
        node = stack.pop()
        if node is None:
            out.append(stack.pop())  # type: ignore[arg-type]
        elif id(node) not in seen:
            seen.add(id(node))
            if node.parents:
                stack += (node, None, *reversed(node.parents))
            else:
                out.append(node)
    return out


def rewrite(graph: Graph, change: Callable[[Node, tuple[Operand, ...]], Operand]) -> Graph:
    """A graph in which every op node is replaced by `change(node, new inputs)`; return the node itself to keep it.

    `change` may return a number only for nodes whose users all take numbers (elementwise ops).
    """
    new: dict[int, Operand] = {}
    for node in ordered(graph.results()):
        if node.kind != "op":
            new[id(node)] = node
            continue
        inputs = tuple(new[id(x)] if isinstance(x, Node) else x for x in node.inputs)
        new[id(node)] = change(node, inputs)
    return Graph(
        graph.inputs,
        [new[id(n)] for n in graph.outputs],
        [(leaf, new[id(value)]) for leaf, value in graph.updates],
        graph.name,
    )


def with_inputs(node: Node, inputs: tuple[Operand, ...]) -> Node:
    """The node with other inputs; itself if they are the same."""
    if all(a is b for a, b in zip(inputs, node.inputs)):
        return node
    return Node("op", node.spec, node.op, inputs, node.attrs, node.line)


def apply(op: Op, inputs: Sequence[Operand], attrs: dict[str, Any] | None = None, line: str = "") -> Node:
    """A new node whose shape and dtype follow from the op's rule."""
    attrs = attrs or {}
    spec = op.rule(*[x.spec if isinstance(x, Node) else x for x in inputs], **attrs)
    return Node("op", spec, op, inputs, attrs, line)


def replaced(results: Sequence[Node], substitutes: dict[int, Node]) -> list[Node]:
    """The results with the nodes in `substitutes` (by id) replaced wherever they are read."""
    new: dict[int, Node] = dict(substitutes)
    stack: list[tuple[Node, bool]] = [(n, False) for n in reversed(list(results))]
    while stack:
        node, ready = stack.pop()
        if id(node) in new:
            continue
        if node.kind != "op":
            new[id(node)] = node
        elif ready:
            inputs = [new[id(x)] if isinstance(x, Node) else x for x in node.inputs]
            changed = any(a is not b for a, b in zip(inputs, node.inputs))
            new[id(node)] = Node("op", node.spec, node.op, inputs, node.attrs, node.line) if changed else node
        else:
            stack.append((node, True))
            stack.extend((p, False) for p in node.parents)
    return [new[id(n)] for n in results]


def in_shape(x: Node, shape: tuple[SizeLike, ...]) -> Node:
    """x in another shape, in the same memory; x itself if it has that shape."""
    if same_shape(x.shape, shape):
        return x
    return Node("op", Spec(shape, x.dtype), OPS["reshape"], (x,), {"shape": shape}, x.line)


def users(graph: Graph) -> dict[int, list[Node]]:
    """id of a node -> the op nodes that read it."""
    out: dict[int, list[Node]] = {}
    for node in graph.nodes():
        for parent in node.parents:
            out.setdefault(id(parent), []).append(node)
    return out


def verify(graph: Graph) -> Graph:
    """Checks every node against its op's rule.

    Raises: AssertionError naming the first node whose shape or dtype is not what its op gives.
    """
    for node in graph.nodes():
        assert node.op is not None
        spec = node.op.rule(*[x.spec if isinstance(x, Node) else x for x in node.inputs], **node.attrs)
        assert same_shape(spec.shape, node.shape) and spec.dtype == node.dtype, f"{node!r}: its op gives {spec}"
    return graph


def check_closed(graph: Graph) -> None:
    """Raises TraceError if the graph reads a leaf that is no input of it: an array that left the body of a loop."""
    known = {id(n) for n in graph.inputs}
    for node in graph.nodes():
        for leaf in node.parents:
            if leaf.kind == "input" and id(leaf) not in known:
                raise TraceError(
                    f"an array from the body of a loop or branch is used outside it ({node.line}); give it back as an "
                    f"output or a state"
                )
    if any(n.kind == "input" and id(n) not in known for n in graph.results()):
        raise TraceError(
            "an array from the body of a loop or branch is a result outside it; give it back as an output or a state"
        )


def interpret(graph: Graph, values: dict[int, np.ndarray], sizes: Callable[[Any], Any]) -> dict[int, np.ndarray]:
    """Evaluates a graph with NumPy: the oracle for passes and kernels.

    values: id of leaf -> array; `sizes` turns a symbolic size into a number. Gives id of node -> array.
    """
    out = dict(values)
    for node in graph.nodes():
        assert node.op is not None
        inputs = [out[id(x)] if isinstance(x, Node) else sizes(x) for x in node.inputs]
        attrs = {k: concrete(v, sizes) for k, v in node.attrs.items()}
        out[id(node)] = np.asarray(node.op.forward(*inputs, **attrs)).astype(node.dtype, copy=False)
    return out


def concrete(value: Any, sizes: Callable[[Any], Any]) -> Any:
    """An attribute with its symbolic sizes evaluated."""
    if isinstance(value, Size):
        return sizes(value)
    if isinstance(value, tuple):
        return tuple(concrete(v, sizes) for v in value)
    if isinstance(value, slice):
        return slice(concrete(value.start, sizes), concrete(value.stop, sizes), concrete(value.step, sizes))
    return value.at_sizes(sizes) if hasattr(value, "at_sizes") else value  # the graph of a loop's body


# --- text -------------------------------------------------------------------------------------------------------------
def text(graph: Graph) -> str:
    """The graph as a person reads it: one line a node, with the user's line behind it."""
    names: dict[int, str] = {}
    for i, leaf in enumerate(graph.inputs):
        names[id(leaf)] = leaf.name or f"x{i}"
    rows: list[tuple[str, str]] = []
    count = 0
    for node in ordered(graph.results()):
        if node.kind == "op":
            names[id(node)] = f"v{count}"
            count += 1
            rows.append((f"  {names[id(node)]}: {_type(node)} = {_call(node, names)}", node.line))
            for body in (v for v in node.attrs.values() if hasattr(v, "at_sizes")):
                rows += [(f"    {row}", "") for row in f"{body!r} {body.text}".splitlines()]
        elif id(node) not in names:
            names[id(node)] = node.name or f"c{len(names)}"
            rows.append((f"  {names[id(node)]}: {_type(node)} is {node.kind}", ""))
    head = ", ".join(f"{names[id(n)]}: {_type(n)}" for n in graph.inputs)
    tail = [f"  {names[id(leaf)]} <- {names[id(value)]}" for leaf, value in graph.updates]
    tail.append(f"  return {', '.join(names[id(n)] for n in graph.outputs)}")
    width = min(max((len(r) for r, _ in rows), default=0), 100)
    body = [f"{row:<{width}}  # {line}" if line else row for row, line in rows]
    return "\n".join([f"{graph.name}({head}):", *body, *tail])


def _type(node: Node) -> str:
    return f"{node.dtype}[{', '.join(str(s) for s in node.shape)}]"


def _call(node: Node, names: dict[int, str]) -> str:
    assert node.op is not None
    parts = [names[id(x)] if isinstance(x, Node) else str(x) for x in node.inputs]
    parts += [f"{k}={_attribute(v)}" for k, v in node.attrs.items() if k != "specs"]
    return f"{node.op.name}({', '.join(parts)})"


def _attribute(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_attribute(v) for v in value) + ")"
    return value.name if isinstance(value, np.dtype) else str(value)
