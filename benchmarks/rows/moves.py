"""What only moves elements, against a copy of as many bytes: transposes, casts, choices, resizing.

As in `memory.py`, "copy" moves what the row must move, and a bar of 1 / 0.85 asks for 85 % of its bandwidth.
Deliberately not here: lookups by index.
"""

from __future__ import annotations

from typing import Any

from benchmarks.row import Bar, Row
from benchmarks.rows.memory import SHARE, Build, _copy, _gluonish_forward, _torch_forward

Shape = tuple[int, ...]


def _row(name: str, about: str, arrays: float, shape: Shape, tiny: Shape, ours: Build, theirs: Build) -> None:
    sizes = {"shape": shape, "arrays": arrays}
    tiny_sizes = {"shape": tiny, "arrays": arrays}
    example = name in ("transpose-square", "resize-double")
    row = Row(name, about, sizes, tiny=tiny_sizes, bars=(Bar("copy", SHARE),), group="moves", example=example)
    row.side("copy", peer="numpy")(_copy)
    row.side("gluonish")(_gluonish_forward(ours))
    row.side("torch")(_torch_forward(theirs))


def _transposes(axes: tuple[int, ...]) -> tuple[Build, Build]:
    def ours(gl: Any, sizes: Any) -> Any:
        return gl.hybridize(lambda x: x.transpose(axes))

    return ours, lambda torch, sizes: lambda x: x.permute(axes).contiguous()


TRANSPOSES: dict[str, tuple[str, Shape, tuple[int, ...]]] = {
    "transpose-square": ("a matrix of 4096 x 4096", (4096, 4096), (1, 0)),
    "transpose-image": ("one image of 224 x 224 to channels last", (1, 3, 224, 224), (0, 2, 3, 1)),
    "transpose-images": ("32 of them", (32, 3, 224, 224), (0, 2, 3, 1)),
    "transpose-planes": ("32 images of 224 x 224 to channels first", (32, 224, 224, 3), (0, 3, 1, 2)),
    "transpose-features": ("8 x 64 x 56 x 56 to channels last", (8, 64, 56, 56), (0, 2, 3, 1)),
    "transpose-heads": ("attention's heads before its tokens", (8, 512, 12, 64), (0, 2, 1, 3)),
    "transpose-keys": ("attention's keys, columns first", (8, 12, 512, 64), (0, 1, 3, 2)),
    "transpose-reversed": ("64 x 64 x 64 x 64 with all dimensions reversed", (64, 64, 64, 64), (3, 2, 1, 0)),
}
for _name, (_about, _shape, _axes) in TRANSPOSES.items():
    _row(_name, f"transpose: {_about}", 2, _shape, tuple(min(s, 5) for s in _shape), *_transposes(_axes))


def _double(gl: Any, sizes: Any) -> Any:
    return gl.hybridize(lambda x: gl.nd.resize(x, scale=2))


def _torch_double(torch: Any, sizes: Any) -> Any:
    return lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


_row("resize-double", "bilinear, 8 x 64 x 56 x 56 to 112", 5, (8, 64, 56, 56), (1, 2, 3, 4), _double, _torch_double)


def _widen(gl: Any, sizes: Any) -> Any:
    return gl.hybridize(lambda x: x.astype("float64"))


_row("cast", "float32 to float64, 16M", 3, (4096, 4096), (6, 17), _widen, lambda torch, sizes: lambda x: x.double())


def _choose(gl: Any, sizes: Any) -> Any:
    nd = gl.nd
    return gl.hybridize(lambda x: nd.where((x > 0) & (x < 0.9), x * 2, x - 1))


def _torch_choose(torch: Any, sizes: Any) -> Any:
    return lambda x: torch.where((x > 0) & (x < 0.9), x * 2, x - 1)


_row("choose", "comparisons and where, 16M", 2, (4096, 4096), (6, 17), _choose, _torch_choose)
