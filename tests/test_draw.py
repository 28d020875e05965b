"""Pictures: valid SVG that shows the values given, with axes and marks where they belong."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from gluonish import data, draw

_SVG = "{http://www.w3.org/2000/svg}"


def _texts(picture: draw.Picture) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture.svg).iter(f"{_SVG}text")]


def _inside(picture: draw.Picture) -> bool:
    root = ElementTree.fromstring(picture.svg)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    spots = [(float(c.get("cx", -1)), float(c.get("cy", -1))) for c in root.iter(f"{_SVG}circle")]
    spots += [(float(t.get("x", -1)), float(t.get("y", -1))) for t in root.iter(f"{_SVG}text")]
    return all(0 <= x <= width and 0 <= y <= height for x, y in spots)


def test_learning_curve_has_axes_ticks_and_legend() -> None:
    loss = {"training": [0.62, 0.2, 0.1], "test": [0.5, 0.3, 0.2]}
    picture = draw.learning_curve({"loss": loss, "accuracy in %": {"training": [81.0, 97.0, 99.0]}}, title="A & B < C")
    texts = _texts(picture)
    for expected in ("A & B < C", "loss", "accuracy in %", "epoch", "training", "test"):
        assert expected in texts
    for tick in ("1", "2", "3", "0", "0.8", "80", "100"):
        assert tick in texts
    assert _inside(picture)


def test_learning_curve_places_values_on_the_axis() -> None:
    root = ElementTree.fromstring(draw.learning_curve({"loss": {"training": [4.0, 1.0, 2.0]}}).svg)
    ticks = {t.text: float(t.get("y", 0)) - 4 for t in root.iter(f"{_SVG}text") if t.get("text-anchor") == "end"}
    heights = [float(c.get("cy", 0)) for c in root.iter(f"{_SVG}circle")]
    assert heights == pytest.approx([ticks["4"], ticks["1"], ticks["2"]], abs=0.02)
    assert heights[0] < heights[2] < heights[1]  # SVG counts from the top
    places = [float(c.get("cx", 0)) for c in root.iter(f"{_SVG}circle")]
    below = {t.text: float(t.get("x", 0)) for t in root.iter(f"{_SVG}text") if t.get("text-anchor") == "middle"}
    assert places == pytest.approx([below["1"], below["2"], below["3"]], abs=0.02)


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [1e-9, 3e-9], [5e6, 2.0], [1.0, float("nan"), 0.5], [2.0, float("inf")]]
)
def test_learning_curve_copes_with_odd_values(values: list[float]) -> None:
    picture = draw.learning_curve({"loss": {"training": values}})
    assert "nan" not in picture.svg and "inf" not in picture.svg
    assert _inside(picture)
    assert picture.svg.count("<circle") == np.isfinite(values).sum()


def test_learning_curve_of_many_epochs_stays_readable() -> None:
    texts = _texts(draw.learning_curve({"loss": {"training": list(np.linspace(1, 0.1, 300))}}))
    assert 4 <= sum(text.isdigit() for text in texts) <= 20


def test_learning_curve_needs_values() -> None:
    with pytest.raises(ValueError, match="'loss' has no values"):
        draw.learning_curve({"loss": {"training": []}})


@pytest.mark.parametrize("low, high", [(0, 0.62), (93.1, 100), (0, 1), (99.99, 100), (0, 1e-7), (0, 3e5), (100, 100)])
def test_ticks_are_few_round_and_cover_the_values(low: float, high: float) -> None:
    ticks = draw._ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low and ticks[-1] >= high
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert re.fullmatch(r"[125]0*", f"{steps[0] / 10 ** np.floor(np.log10(steps[0])):.0f}")


def test_grid_marks_what_is_wrong_and_nothing_else() -> None:
    images, labels = data.digits()
    guesses = labels[:12].asnumpy()
    guesses[[3, 8]] = (9, 1)
    picture = draw.image_grid(images[:12], guesses, labels[:12], title="Twelve")
    root = ElementTree.fromstring(picture.svg)
    framed = [r for r in root.iter(f"{_SVG}rect") if r.get("stroke") == draw._WRONG]
    marked = [t.text for t in root.iter(f"{_SVG}text") if t.get("fill") == draw._WRONG]
    assert len(framed) == 2 and marked == ["9, is 3", "1, is 8"]
    assert [t for t in _texts(picture) if t.isdigit()] == [str(g) for i, g in enumerate(guesses) if i not in (3, 8)]
    assert _inside(picture)


def test_grid_draws_the_pixels_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 3, (1, 5, 7)) / 2
    root = ElementTree.fromstring(draw.image_grid(image, [1], [1]).svg)
    drawn = np.zeros((5, 7))
    for path in next(root.iter(f"{_SVG}g")):
        ink = 1 - int(path.get("fill", "")[1:3], 16) / 255
        for x, y, run in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.get("d", "")):
            drawn[int(y), int(x) : int(x) + int(run)] = ink
    np.testing.assert_allclose(drawn, image[0], atol=1 / 255)


@pytest.mark.parametrize("shape, count", [((2, 3, 8, 8), 2), ((8, 8), 8), ((3, 8, 8), 2)])
def test_grid_refuses_what_does_not_fit(shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="image_grid expects grey images"):
        draw.image_grid(np.zeros(shape), np.zeros(count), np.zeros(count))


def test_a_picture_is_saved_whole(tmp_path: Path) -> None:
    picture = draw.learning_curve({"loss": {"training": [1.0, 0.5]}})
    picture.save(tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text() == picture.svg == picture._repr_svg_()
    with pytest.raises(OSError, match="cannot write"):
        picture.save(tmp_path / "missing" / "curve.svg")
