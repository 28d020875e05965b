"""Graphs as pictures: well-formed SVG in which every op has its box, boxes do not meet, and frames hold theirs."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

from gluonish import autograd, nd, nn, zoo

SVG = "{http://www.w3.org/2000/svg}"


def boxes(text: str) -> list[tuple[str, float, float, float, float]]:
    """Hover text and rectangle of every box."""
    out = []
    for group in ET.fromstring(text).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and title.text and rect is not None
        x, y, w, h = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        out.append((title.text, x, y, x + w, y + h))
    return out


def test_every_op_has_a_box_and_no_two_meet() -> None:
    net = zoo.get_model("inception_v3", classes=10, multiplier=0.125)
    net.initialize()
    text = net.graph(nd.ones((1, 3, 96, 96)))._repr_svg_()
    found = boxes(text)
    names = [title.split()[0] for title, *_ in found]
    assert names.count("convolution") == 94 and names[0] == "x0" and "test_picture.py:" in found[5][0]
    for (_, a, b, c, d), (_, e, f, g, h) in itertools.combinations(found, 2):
        assert c <= e or g <= a or d <= f or h <= b
    root = ET.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x >= 0 and y >= 0 and right <= width and bottom <= height for _, x, y, right, bottom in found)
    labels = [t.text for t in root.iter(f"{SVG}text")]
    assert "features.7.3.1.0" in labels and any("features.0.0.weight" in (t or "") for t in labels)


def test_training_graphs_and_functions_are_drawn_too() -> None:
    net = nn.HybridSequential(nn.Dense(3, activation="relu"), nn.Dropout(0.5), nn.Dense(2))
    net.initialize()
    x = nd.ones((2, 4))
    with autograd.record():
        graph = net.graph(x)
        traced = net.passes(x)[0][1]
    assert len(boxes(graph._repr_svg_())) > 8 and "<b>" not in traced._repr_svg_()
    assert net._compile().graph(x)._repr_svg_().startswith("<svg")
