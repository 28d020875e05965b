"""Reductions over every kind of axis, against a copy of half as many bytes: what must move is read once."""

from __future__ import annotations

from typing import Any

from benchmarks.row import Sizes
from benchmarks.rows.memory import SHORT, SQUARE, Build, pair

CUBE = (256, 256, 256)
PLACES = "the places, int64, are not counted; they explain a part, the rest is not understood (in cache it fits)"
REASONS = {
    "var-tall": "a row is one vector: both passes load and store their sums for every four of them",
    "argmax-tall": "a row is one vector: the bests and their places are loaded and stored for every four of them",
}
TINY_CUBE: Sizes = {"shape": (3, 5, 7)}
# name: shape, axis
DOMAINS = {
    "all": (SQUARE, None),
    "last": (SQUARE, -1),
    "first": (SQUARE, 0),
    "middle": (CUBE, 1),
    "short": (SHORT, -1),
    "tall": (SHORT, 0),
    "ten": ((1_600_000, 10), -1),
}
WORDS = {"short": "rows of 16", "tall": "16 columns", "ten": "rows of 10", "all": "everything"}


def _reduction(op: str, axis: int | None) -> tuple[Build, Build]:
    def ours(gl: Any, sizes: Sizes) -> Any:
        return gl.hybridize(lambda x: getattr(gl.nd, op)(x, axis))

    def theirs(torch: Any, sizes: Sizes) -> Any:
        more = {} if axis is None else {"dim": axis}
        if op == "var":
            return lambda x: torch.var(x, unbiased=False, **more)
        function = torch.amax if op == "max" else getattr(torch, op)
        return lambda x: function(x, **more)

    return ours, theirs


for _op in ("sum", "max", "var", "argmax"):
    for _name, (_shape, _axis) in DOMAINS.items():
        _about = f"{_op} over {WORDS.get(_name, f'the {_name} axis')} of {' x '.join(map(str, _shape))}"
        _reasons = (PLACES if _op == "argmax" and _name in ("short", "ten") else REASONS.get(f"{_op}-{_name}", ""), "")
        _tiny = {"tiny": TINY_CUBE} if _name == "middle" else {}
        pair(f"{_op}-{_name}", _about, 1, 0, _shape, *_reduction(_op, _axis), _reasons, **_tiny)
