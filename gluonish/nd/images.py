"""Images and signals in other sizes: resizing and padding by what is there.

Deliberately not here: pooling (`neural.py`), padding with a constant (`functions.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.errors import user_line
from gluonish.nd.ops.resize import resize_op
from gluonish.nd.size import Size


def resize(
    x: Any,
    size: Any = None,
    *,
    scale: Any = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    layout: str = "NCHW",
) -> NDArray:
    """An image batch in another size.

    size: an int or one per spatial axis; or scale: a factor for the size, rounded down. mode: "nearest" (the input at
    floor(j * n / m)), "nearest-exact" (the nearest centre), or "linear", "bilinear", "trilinear" (all the same: between
    neighbours along each axis, the outermost ones repeated). align_corners: the corners stay where they are; else
    pixels are areas whose centres correspond. layout: N, C and the spatial axes, such as "NCHW", "NHWC", "NCW".
    Results are those of torch's interpolate.

    >>> from gluonish import nd
    >>> nd.resize(nd.array([[[0.0, 1.0]]]), 4, layout="NCW").tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]

    Raises: ValueError for a wrong layout, size or mode; bilinear needs floats.
    """
    x = dispatch.as_array(x)
    axes = [i for i, letter in enumerate(layout) if letter not in "NC"]
    if len(layout) != x.ndim or not axes:
        raise ValueError(f"resize: layout {layout!r} does not fit {x.spec} ({user_line()})")
    sizes = _sizes(x, axes, size, scale)
    linear = mode in ("linear", "bilinear", "trilinear")
    if not linear and mode not in ("nearest", "nearest-exact"):
        raise ValueError(
            f"resize: unknown mode {mode!r}; there are nearest, nearest-exact, linear, bilinear and trilinear "
            f"({user_line()})"
        )
    if align_corners and not linear:
        raise ValueError(f"resize: align_corners is for the linear modes, not for {mode!r} ({user_line()})")
    grid = "aligned" if align_corners else "edge" if mode == "nearest" else "half_pixel"
    for axis, wanted in reversed(list(zip(axes, sizes))):
        if not (isinstance(wanted, int) and isinstance(x.shape[axis], int) and wanted == x.shape[axis]):
            x = resize_op(x, axis=axis, size=wanted, linear=linear, grid=grid)
    return x


def _sizes(x: NDArray, axes: list[int], size: Any, scale: Any) -> list[Any]:
    if (size is None) == (scale is None):
        raise ValueError(f"resize: give either size or scale, got {size!r} and {scale!r} ({user_line()})")
    given = size if scale is None else scale
    values = list(given) if isinstance(given, (tuple, list)) else [given] * len(axes)
    if len(values) != len(axes):
        raise ValueError(f"resize: {len(axes)} spatial axes need as many sizes, got {given!r} ({user_line()})")
    if scale is None:
        if any(isinstance(v, bool) or not isinstance(v, (int, np.integer, Size)) for v in values):
            raise ValueError(f"resize: sizes are integers, got {given!r} ({user_line()})")
        return [v if isinstance(v, Size) else int(v) for v in values]
    return [_scaled(x.shape[axis], factor) for axis, factor in zip(axes, values)]


def _scaled(size: Any, factor: Any) -> Any:
    if not factor > 0:
        raise ValueError(f"resize: scale must be positive, got {factor!r} ({user_line()})")
    if float(factor).is_integer():
        return size * int(factor)
    top, bottom = float(factor).as_integer_ratio()
    return size * top // bottom


def bilinear_resize_2d(x: Any, height: int, width: int, align_corners: bool = True) -> NDArray:
    """Gluon's contrib.BilinearResize2D. Shapes: (N, C, H, W) -> (N, C, height, width)."""
    return resize(x, (height, width), align_corners=align_corners)


def mirrored(x: Any, widths: Sequence[tuple[int, int]], mode: str) -> NDArray:
    """Padding by the array itself; see `pad`."""
    from gluonish.nd.functions import concat
    from gluonish.nd.ops.move import index_op

    x = dispatch.as_array(x)
    for axis, (before, after) in enumerate(widths):
        if before == 0 and after == 0:
            continue
        size = x.shape[axis]
        room = size if mode != "reflect" else size - 1
        if mode == "edge" and size < 1 or mode != "edge" and (before > room or after > room):
            raise ValueError(
                f"pad: mode {mode!r} cannot add {before} and {after} to axis {axis} of {x.spec} ({user_line()})"
            )
        whole = [slice(None)] * axis

        def part(start: Any, stop: Any, step: int = 1, whole: list[slice] = whole, x: Any = x) -> Any:
            return index_op(x, key=(*whole, slice(start, stop, step)))

        pieces = []
        if mode == "edge":
            pieces += [part(0, 1)] * before + [x] + [part(size - 1, size)] * after
        elif mode == "wrap":
            pieces += [part(size - before, size)] * (before > 0) + [x] + [part(0, after)] * (after > 0)
        else:
            skip = 1 if mode == "reflect" else 0  # symmetric repeats the edge
            if before:
                pieces.append(_backwards(part(skip, skip + before), axis))
            pieces.append(x)
            if after:
                pieces.append(_backwards(part(size - skip - after, size - skip), axis))
        x = concat(pieces, axis)
    return x


def _backwards(x: NDArray, axis: int) -> NDArray:
    from gluonish.nd.functions import flip

    return flip(x, axis)
