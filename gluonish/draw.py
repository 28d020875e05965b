"""Pictures as SVG text: learning curves and grids of images. They need no other package, and notebooks show them.

Deliberately not here: a plotting library. The pictures answer two questions: does it learn, and what does it get wrong?
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from gluonish.nd.files import replacing

Lines = Mapping[str, Sequence[float]]  # name of a line -> its values

_INK, _SOFT, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_LINES = ("#2563eb", "#ea580c", "#059669", "#7c3aed")
_WRONG = "#dc2626"
_FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif"


class Picture:
    """An SVG picture of `width` x `height` pixels. In a notebook it shows itself; `save` writes a file."""

    def __init__(self, width: float, height: float, parts: Sequence[str]) -> None:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}"'
        head += f' viewBox="0 0 {_n(width)} {_n(height)}" font-family="{_FONT}">'
        self.svg = "\n".join([head, _box(0, 0, width, height, fill="#fff"), *parts, "</svg>\n"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture; an old file stays if that fails. Raises: OSError."""
        with replacing(path) as file:
            file.write(self.svg.encode())

    def _repr_svg_(self) -> str:
        return self.svg


def learning_curve(panels: Mapping[str, Lines], title: str = "", x_label: str = "epoch") -> Picture:
    """Panels side by side, each with its lines; the x axis counts the values of a line from 1.

    panels: label of the y axis -> name of the line -> its values. A label that ends in "%" takes values from 0 to 100.
    Raises: ValueError if a panel has no values.

    >>> from gluonish import draw
    >>> draw.learning_curve({"loss": {"training": [1.5, 0.5, 0.2]}}).svg[:4]
    '<svg'
    """
    width, height, top = 380, 300, 44 if title else 16
    parts = [_text(24, 28, title, size=15, weight=600)] if title else []
    for number, (label, lines) in enumerate(panels.items()):
        panel = _Panel(label, lines, number * width + 64, top, width - 88, height - 56)
        parts += panel.parts(x_label)
    return Picture(width * len(panels), top + height, parts)


def image_grid(
    images: Any,
    predictions: Any,
    labels: Any,
    title: str = "",
    columns: int = 10,
) -> Picture:
    """Images with the class predicted for each below it; a wrong one is framed in red and says what it is.

    Shapes: images (N, 1, H, W) or (N, H, W) with values from 0 (white) to 1 (black), predictions (N,), labels (N,).
    Raises: ValueError if they do not fit together.

    >>> from gluonish import data, draw
    >>> images, labels = data.digits()
    >>> draw.image_grid(images[:3], [0, 1, 3], labels[:3]).svg.count("is 2")
    1
    """
    images, predictions, labels = np.asarray(images), np.asarray(predictions), np.asarray(labels)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or not len(images) == len(predictions) == len(labels):
        raise ValueError(
            "image_grid expects grey images (N, H, W) and as many predictions and labels, "
            f"got {images.shape}, {predictions.shape}, {labels.shape}"
        )
    cell, step, line, top = 52, 66, 78, 52 if title else 16
    parts = [_text(16, 28, title, size=15, weight=600)] if title else []
    for i, (image, guess, truth) in enumerate(zip(images, predictions, labels)):
        x, y = 16 + i % columns * step, top + i // columns * line
        parts += _cell(image, x, y, cell, int(guess), int(truth))
    return Picture(20 + min(columns, len(images)) * step, top + -(-len(images) // columns) * line + 4, parts)


def _cell(image: np.ndarray, x: float, y: float, size: float, guess: int, truth: int) -> list[str]:
    wrong = guess != truth
    caption = f"{guess}, is {truth}" if wrong else f"{guess}"
    color, weight = (_WRONG, 600) if wrong else (_INK, 400)
    return [
        _pixels(image, x, y, size),
        _box(x, y, size, size, fill="none", stroke=_WRONG if wrong else "#d1d5db", stroke_width=3 if wrong else 1),
        _text(x + size / 2, y + size + 16, caption, anchor="middle", color=color, weight=weight),
    ]


def _pixels(image: np.ndarray, x: float, y: float, size: float) -> str:
    """One path per shade of grey; neighbours in a row share a rectangle."""
    shades = np.clip(np.rint((1 - image) * 255), 0, 255).astype(int)
    paths: dict[int, str] = {}
    for row, line in enumerate(shades):
        edges = [0, *(np.flatnonzero(np.diff(line)) + 1), len(line)]
        for a, b in zip(edges, edges[1:]):
            if line[a] < 255:
                paths[line[a]] = paths.get(line[a], "") + f"M{a} {row}h{b - a}v1h{a - b}z"
    inner = "".join(f'<path fill="#{shade:02x}{shade:02x}{shade:02x}" d="{d}"/>' for shade, d in sorted(paths.items()))
    scale = f"translate({_n(x)} {_n(y)}) scale({_n(size / image.shape[1])} {_n(size / image.shape[0])})"
    return f'<g transform="{scale}" shape-rendering="crispEdges">{inner}</g>'


class _Panel:
    """Axes, grid, lines and legend of one plot in the rectangle x, y, width, height."""

    def __init__(self, label: str, lines: Lines, x: float, y: float, width: float, height: float) -> None:
        values = [v for line in lines.values() for v in line if math.isfinite(v)]
        if not values:
            raise ValueError(f"learning_curve: panel {label!r} has no values")
        self.label, self.lines = label, lines
        self.x, self.y, self.width, self.height = x, y, width, height
        self.count = max(len(line) for line in lines.values())
        self.percent = label.endswith("%")
        low, high = (min(values), 100.0) if self.percent else (0.0, max(values))
        self.ticks = _ticks(low, high)

    def across(self, position: float) -> float:
        """Where the value number `position`, counted from 1, stands."""
        return self.x + self.width * ((position - 1) / (self.count - 1) if self.count > 1 else 0.5)

    def up(self, value: float) -> float:
        """Where a value stands."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.y + self.height * (1 - (value - low) / (high - low))

    def parts(self, x_label: str) -> list[str]:
        """Everything that is drawn."""
        return [*self._vertical_axis(), *self._horizontal_axis(x_label), *self._curves(), *self._legend()]

    def _vertical_axis(self) -> list[str]:
        right = self.x + self.width
        out = [_text(self.x - 46, self.y + self.height / 2, self.label, anchor="middle", color=_SOFT, turn=-90)]
        for tick in self.ticks:
            out.append(_path(f"M{_n(self.x)} {_n(self.up(tick))}H{_n(right)}", _GRID, 1))
            out.append(_text(self.x - 8, self.up(tick) + 4, f"{tick:g}", anchor="end", color=_SOFT))
        return out

    def _horizontal_axis(self, x_label: str) -> list[str]:
        bottom = self.y + self.height
        out = [_path(f"M{_n(self.x)} {_n(bottom)}H{_n(self.x + self.width)}", _SOFT, 1)]
        stride = max(1, math.ceil(self.count / 16))
        for epoch in range(1, self.count + 1, stride):
            out.append(_path(f"M{_n(self.across(epoch))} {_n(bottom)}v4", _SOFT, 1))
            out.append(_text(self.across(epoch), bottom + 18, f"{epoch}", anchor="middle", color=_SOFT))
        out.append(_text(self.x + self.width / 2, bottom + 38, x_label, anchor="middle", color=_SOFT))
        return out

    def _curves(self) -> list[str]:
        out = []
        for color, line in zip(_LINES, self.lines.values()):
            points = [(self.across(i), self.up(v)) for i, v in enumerate(line, 1) if math.isfinite(v)]
            out.append(_path("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points), color, 2))
            style = f'r="3" fill="#fff" stroke="{color}" stroke-width="2"'
            out += [f'<circle cx="{_n(x)}" cy="{_n(y)}" {style}/>' for x, y in points]
        return out

    def _legend(self) -> list[str]:
        # loss falls and accuracy rises, so the corner that the lines leave free is at the top or at the bottom
        y = self.y + (self.height - 22 * len(self.lines) if self.percent else 8)
        x = self.x + self.width - 112
        out = [_box(x - 10, y - 6, 122, 22 * len(self.lines) + 4, fill="#fff", opacity=0.85)]
        for row, (color, name) in enumerate(zip(_LINES, self.lines)):
            out.append(_path(f"M{_n(x)} {_n(y + 8 + 22 * row)}h22", color, 2))
            out.append(_text(x + 30, y + 12 + 22 * row, name))
        return out


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at most `low` to at least `high`, evenly spaced."""
    span = high - low if high > low else max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if span / (m * power) <= most)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _box(x: float, y: float, width: float, height: float, **style: Any) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"{more}/>'


def _path(d: str, color: str, width: float) -> str:
    return f'<path d="{d}" fill="none" stroke="{color}" stroke-width="{_n(width)}" stroke-linejoin="round"/>'


def _text(
    x: float,
    y: float,
    content: str,
    size: int = 12,
    anchor: str = "start",
    color: str = _INK,
    weight: int = 400,
    turn: int = 0,
) -> str:
    turned = f' transform="rotate({turn} {_n(x)} {_n(y)})"' if turn else ""
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{color}" font-weight="{weight}"'
    return f'<text x="{_n(x)}" y="{_n(y)}" {style}{turned}>{escape(content)}</text>'
