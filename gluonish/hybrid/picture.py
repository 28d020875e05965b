"""Picture: a graph as SVG, for notebooks and browsers; nothing but text is needed to draw it.

Ops are boxes, in rows by how far they are from the arguments, so that data flows downwards; boxes of one Block stand
beside each other in a frame with its path, frames in frames. Within a row boxes stand near what they read. Weights,
and what is made of weights alone, are written into the boxes that read them; updates of weights are left out.

Source of the layering: Sugiyama et al., "Methods for visual understanding of hierarchical system structures", 1981,
without its crossing minimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from gluonish.hybrid.graph import Graph, Node, ordered
from gluonish.hybrid.passes.batch_norm import captured_only
from gluonish.nd.size import hint

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 236, 40, 26, 34, 14
COLOURS = {
    "contract": "#cfe2f3", "reduce": "#fff2cc", "window": "#fce5cd", "move": "#eeeeee", "attention": "#d9d2e9",
    "random": "#f4cccc", "scan": "#d0e0e3",
}  # fmt: skip


def svg(graph: Graph, path_of: Callable[[Any], str] | None = None) -> str:
    """The graph as the text of an SVG file. path_of: the path of a node's owner."""
    return _Picture(graph, path_of or _type_name).text()


def _type_name(owner: Any) -> str:
    return "" if owner is None else type(owner).__name__


class _Picture:
    """Places boxes, then writes them down."""

    def __init__(self, graph: Graph, path_of: Callable[[Any], str]) -> None:
        self.graph = graph
        fixed = captured_only(graph)  # what is made of weights alone is not drawn: it is a weight to the others
        results = {id(n) for n in graph.outputs}
        self.nodes = [
            n
            for n in ordered(graph.outputs)
            if n.kind in ("input", "key") or (n.kind == "op" and (id(n) not in fixed or id(n) in results))
        ]
        self.known = {id(n) for n in self.nodes}
        self.paths = {id(n): path_of(n.owner) for n in self.nodes}
        self._place()

    # --- places -------------------------------------------------------------------------------------------------------
    def _place(self) -> None:
        """Rows from the longest way to an argument; columns near the mean of what is read, left to right."""
        rows: dict[int, int] = {}
        inside: dict[int, list[Node]] = {}
        for node in self.nodes:
            row = 1 + max((rows[id(p)] for p in node.parents if id(p) in rows), default=-1)
            rows[id(node)] = row
            inside.setdefault(row, []).append(node)
        self.x: dict[int, float] = {}
        self.y = {key: MARGIN + 24 + row * (HEIGHT + GAP_Y) for key, row in rows.items()}
        for row in sorted(inside):
            wanted = sorted(((self._wish(n), i, n) for i, n in enumerate(inside[row])), key=lambda w: (w[0], w[1]))
            place = float("-inf")
            for wish, _, node in wanted:
                place = max(wish, place + WIDTH + GAP_X)
                self.x[id(node)] = place
            shift = sum(self.x[id(n)] - w for w, _, n in wanted) / len(wanted)
            for _, _, node in wanted:
                self.x[id(node)] -= shift
        left = min(self.x.values(), default=0.0)
        self.x = {key: value - left + 4 * MARGIN for key, value in self.x.items()}

    def _wish(self, node: Node) -> float:
        parents = [self.x[id(p)] for p in node.parents if id(p) in self.x]
        return sum(parents) / len(parents) if parents else 0.0

    # --- text ---------------------------------------------------------------------------------------------------------
    def text(self) -> str:
        """Everything: frames below arrows below boxes."""
        frames = self._frames()
        width = max([x + WIDTH for x in self.x.values()] + [f[2] + 6 * len(p) for p, f in frames.items()], default=0)
        width += 2 * MARGIN
        height = max([y + HEIGHT for y in self.y.values()], default=0) + 4 * MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="11">',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" fill="#666"/></marker></defs>',
        ]
        parts += [self._frame(path, *box) for path, box in sorted(frames.items(), key=lambda f: f[0].count("."))]
        parts += self._labels(frames)
        parts += [self._arrow(p, n) for n in self.nodes for p in n.parents if id(p) in self.known]
        parts += [self._box(n) for n in self.nodes]
        return "\n".join([*parts, "</svg>"])

    def _frames(self) -> dict[str, tuple[float, float, float, float]]:
        """Path of a Block -> the rectangle around its boxes and those of the Blocks below it."""
        members: dict[str, list[int]] = {}
        for node in self.nodes:
            path = self.paths[id(node)]
            while path and node.kind == "op":
                members.setdefault(path, []).append(id(node))
                path = path.rpartition(".")[0]
        deepest = max((p.count(".") for p in members), default=0)
        out: dict[str, tuple[float, float, float, float]] = {}
        for path, keys in members.items():
            around = 4 + 3 * (deepest - path.count("."))
            left, right = min(self.x[k] for k in keys) - around, max(self.x[k] for k in keys) + WIDTH + around
            top, bottom = min(self.y[k] for k in keys) - around - 8, max(self.y[k] for k in keys) + HEIGHT + around
            out[path] = (left, top, right, bottom)
        return out

    def _frame(self, path: str, left: float, top: float, right: float, bottom: float) -> str:
        depth = path.count(".")
        shade = max(225, 250 - 6 * depth)
        return (
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" height="{bottom - top:.0f}" rx="5" '
            f'fill="rgb({shade},{shade},{min(255, shade + 4)})" stroke="#b8b8c8"/>'
        )

    def _labels(self, frames: dict[str, tuple[float, float, float, float]]) -> list[str]:
        """Paths beside the frames' upper right corners, below each other where corners meet."""
        out: list[str] = []
        taken: list[tuple[float, float]] = []
        for path, (_, top, right, _) in sorted(frames.items(), key=lambda f: (f[1][1], f[0].count("."))):
            x, y = right + 5, top + 9
            while any(abs(y - other) < 10 and abs(x - beside) < 90 for beside, other in taken):
                y += 5
            taken.append((x, y))
            out.append(f'<text x="{x:.0f}" y="{y:.0f}" font-size="9" fill="#556">{escape(path)}</text>')
        return out

    def _arrow(self, start: Node, end: Node) -> str:
        x1, y1 = self.x[id(start)] + WIDTH / 2, self.y[id(start)] + HEIGHT
        x2, y2 = self.x[id(end)] + WIDTH / 2, self.y[id(end)] - 1
        if y2 - y1 > HEIGHT + 2 * GAP_Y:  # past other rows: beside their boxes
            side = x1 if abs(x1 - x2) > WIDTH / 2 else max(x1, x2) + WIDTH / 2 + 14  # a branch has its column free
            way = f"C{x1:.0f},{y1 + 30:.0f} {side:.0f},{y1:.0f} {side:.0f},{y1 + 50:.0f} L{side:.0f},{y2 - 50:.0f} "
            way += f"C{side:.0f},{y2:.0f} {x2:.0f},{y2 - 30:.0f} {x2:.0f},{y2:.0f}"
        else:
            way = f"C{x1:.0f},{y1 + 16:.0f} {x2:.0f},{y2 - 16:.0f} {x2:.0f},{y2:.0f}"
        return f'<path d="M{x1:.0f},{y1:.0f} {way}" fill="none" stroke="#888" marker-end="url(#end)"/>'

    def _weights(self, node: Node) -> list[str]:
        """The names of the captured arrays that an operand is made of, if it is not drawn."""
        if id(node) in self.known:
            return []
        return [n.name for n in ordered([node]) if n.kind == "captured"]

    def _box(self, node: Node) -> str:
        x, y = self.x[id(node)], self.y[id(node)]
        title = node.op.name if node.op is not None else node.name or node.kind
        family = node.op.family if node.op is not None else ""
        shape = "x".join(str(hint(s)) for s in node.shape) or "scalar"
        weights = ", ".join(name for p in node.parents for name in self._weights(p))
        second = f"{shape} {node.dtype}" + (f"; {_short(weights)}" if weights else "")
        colour = COLOURS.get(family, "#e2f0d9" if node.op is not None else "#ffffff")
        if any(node is r for r in self.graph.outputs):
            title += "  (result)"
        hover = escape(f"{title} {shape} {node.dtype}\n{weights}\n{node.line}")
        return (
            f'<g><title>{hover}</title><rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
            f'fill="{colour}" stroke="#777"/>'
            f'<text x="{x + 8:.0f}" y="{y + 16:.0f}" font-weight="bold">{escape(title)}</text>'
            f'<text x="{x + WIDTH - 6:.0f}" y="{y + 16:.0f}" font-size="8" fill="#888" text-anchor="end">'
            f"{escape(str(node.line))}</text>"
            f'<text x="{x + 8:.0f}" y="{y + 31:.0f}" font-size="10" fill="#333">{escape(second)}</text></g>'
        )


def _short(names: str, room: int = 22) -> str:
    """As much of a list of names as there is room for."""
    return names if len(names) <= room else names[: room - 3] + "..."
