"""Move ops: each output element is one input element (or a fill value); nothing is computed.

In eager mode most are NumPy views. Kernels read through their index maps or copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import Op, Sample, Shape, Spec, refuse, register
from gluonish.nd.ops.elementwise import broadcast_shapes
from gluonish.nd.size import SizeLike, hint, product, same


def _draw(*shape: int) -> Any:
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


# --- reshape ---------------------------------------------------------------------------------------------------------
def complete_shape(total: SizeLike, shape: Shape, x: Any) -> Shape:
    """`shape` with its -1 filled in; raises where the sizes do not multiply to `total`."""
    unknown = [i for i, s in enumerate(shape) if isinstance(s, int) and s == -1]
    known = product(s for i, s in enumerate(shape) if i not in unknown)
    if len(unknown) > 1:
        raise refuse("reshape", f"only one dimension of {shape_text(shape)} may be -1", x)
    if unknown:
        if known == 0 or (total % known) != 0:
            raise refuse("reshape", f"{hint(total)} elements do not fill shape {shape_text(shape)}", x)
        return tuple(total // known if i in unknown else s for i, s in enumerate(shape))
    if known != total:
        raise refuse("reshape", f"{hint(total)} elements cannot become shape {shape_text(shape)}", x)
    return tuple(shape)


reshape_op: Op = register(
    Op(
        "reshape",
        "move",
        lambda x, shape: x.reshape(shape),
        lambda x, shape: Spec(complete_shape(product(x.shape), shape, x), x.dtype),
        (lambda g, y, x, shape: reshape_op(g, shape=x.shape),),
        doc="The same elements, in C order, in another shape; one dimension may be -1.",
        sample=lambda rng: [
            Sample((_draw(3, 4)(rng),), {"shape": (2, 6)}),
            Sample((_draw(2, 3, 4)(rng),), {"shape": (2, -1)}),
            Sample((_draw(0, 3)(rng),), {"shape": (3, 0)}),
        ],
    )
)


# --- permute ---------------------------------------------------------------------------------------------------------
def normal_axis(name: str, axis: int, rank: int) -> int:
    """A possibly negative axis as a number in range(rank)."""
    if not isinstance(axis, (int, np.integer)) or not -rank <= axis < rank:
        raise ValueError(f"{name}: axis {axis} is out of range for {rank} dimensions ({user_line()})")
    return int(axis) % rank


def _permute_rule(x: Spec, axes: tuple[int, ...]) -> Spec:
    if sorted(axes) != list(range(len(x.shape))):
        raise refuse("permute_dims", f"axes {axes} are not a permutation of the {len(x.shape)} dimensions", x)
    return Spec(tuple(x.shape[a] for a in axes), x.dtype)


permute_op: Op = register(
    Op(
        "permute_dims",
        "move",
        lambda x, axes: x.transpose(axes),
        _permute_rule,
        (lambda g, y, x, axes: permute_op(g, axes=tuple(int(i) for i in np.argsort(axes))),),
        doc="The dimensions in another order.",
        sample=lambda rng: [
            Sample((_draw(2, 3, 4)(rng),), {"axes": (2, 0, 1)}),
            Sample((_draw(2, 3, 5, 4)(rng),), {"axes": (0, 2, 3, 1)}),
        ],
    )
)


# --- broadcast -------------------------------------------------------------------------------------------------------
def _broadcast_rule(x: Spec, shape: Shape) -> Spec:
    target = Spec(shape, x.dtype)
    out = broadcast_shapes("broadcast_to", x, target)
    if len(out) != len(shape) or any(not same(a, b) and a != b for a, b in zip(out, shape)):
        raise refuse("broadcast_to", f"cannot become {shape_text(shape)}", x)
    return target


broadcast_op = register(
    Op(
        "broadcast_to",
        "move",
        lambda x, shape: np.broadcast_to(x, shape),
        _broadcast_rule,
        (lambda g, y, x, shape: g.sum_to(x.shape),),
        doc="Dimensions of size 1 repeated to the wanted sizes.",
        sample=lambda rng: [
            Sample((_draw(3, 1)(rng),), {"shape": (2, 3, 4)}),
            Sample((np.array(_draw()(rng)),), {"shape": (2, 2)}),
        ],
    )
)


# --- basic indexing --------------------------------------------------------------------------------------------------
def extent(part: slice, size: SizeLike) -> tuple[SizeLike, SizeLike, int, SizeLike]:
    """Start, stop, step and length of a slice over a dimension, without turning a symbolic size into a number."""
    step = 1 if part.step is None else int(part.step)
    if step == 0:
        raise ValueError(f"slice step cannot be zero ({user_line()})")
    if step == 1 and part.start in (None, 0) and part.stop is None:
        return 0, size, 1, size
    if step < 0 and part.start is None and part.stop is None:
        return size - 1, -1, step, (size + (-step - 1)) // -step
    start, stop = _bound(part.start, size, step, True), _bound(part.stop, size, step, False)
    span = stop - start if step > 0 else start - stop
    width = abs(step)
    return start, stop, step, (span + (width - 1)) // width if span > 0 else 0


def _bound(value: Any, size: SizeLike, step: int, is_start: bool) -> SizeLike:
    if value is None:
        return (0 if is_start else size) if step > 0 else (size - 1 if is_start else -1)
    if value < 0:
        value = value + size
        if value < 0:
            return 0 if step > 0 else -1
    limit = size if step > 0 else size - 1
    return limit if value > limit else value


def index_rule(x: Spec, key: tuple[Any, ...]) -> Spec:
    """Shape of basic indexing with a full key (ints, slices and None; no Ellipsis)."""
    out: list[SizeLike] = []
    axis = 0
    for part in key:
        if part is None:
            out.append(1)
            continue
        size = x.shape[axis]
        if isinstance(part, slice):
            out.append(extent(part, size)[3])
        elif not (0 <= part < size or -size <= part < 0):  # a symbolic part: from which end it counts is a guard
            raise IndexError(
                f"index: {part} is out of range for axis {axis} of shape {shape_text(x.shape)} ({user_line()})"
            )
        axis += 1
    return Spec((*out, *x.shape[axis:]), x.dtype)


def _place_rule(x: Spec, shape: Shape, key: tuple[Any, ...]) -> Spec:
    place = index_rule(Spec(shape, x.dtype), key).shape
    if len(place) != len(x.shape) or any(a != b for a, b in zip(place, x.shape)):
        raise refuse("place", f"the key asks for shape {shape_text(place)}", x)
    return Spec(shape, x.dtype)


def _place_forward(x: np.ndarray, shape: tuple[int, ...], key: tuple[Any, ...]) -> np.ndarray:
    _place_rule(x, shape, key)  # type: ignore[arg-type]  # arrays have all that a Spec has
    out = np.zeros(shape, x.dtype)
    out[key] = x
    return out


index_op = register(
    Op(
        "index",
        "move",
        lambda x, key: x[key],
        index_rule,
        (lambda g, y, x, key: place_op(g, shape=x.shape, key=key),),
        doc="Basic indexing: integers, slices and None.",
        sample=lambda rng: [
            Sample((_draw(4, 5)(rng),), {"key": (slice(1, 3), 2)}),
            Sample((_draw(4, 5)(rng),), {"key": (None, slice(None, None, 2), slice(4, None, -2))}),
            Sample((_draw(4, 5)(rng),), {"key": (slice(None, None, -1),)}),
            Sample((_draw(4, 5)(rng),), {"key": (slice(3, 1),)}),
        ],
    )
)
place_op: Op = register(
    Op(
        "place",
        "move",
        _place_forward,
        _place_rule,
        (lambda g, y, x, shape, key: index_op(g, key=key),),
        doc="Zeros with x written where `key` points: the opposite of `index`.",
        sample=lambda rng: [
            Sample((_draw(2)(rng),), {"shape": (4, 5), "key": (slice(1, 3), 2)}),
            Sample((_draw(2, 5)(rng),), {"shape": (4, 5), "key": (slice(3, None, -2),)}),
        ],
    )
)


# --- concat and pad --------------------------------------------------------------------------------------------------
def _concat_rule(*xs: Spec, axis: int) -> Spec:
    total: SizeLike = 0
    for x in xs:
        rest = [(a, b) for i, (a, b) in enumerate(zip(x.shape, xs[0].shape)) if i != axis]
        if len(x.shape) != len(xs[0].shape) or any(a != b for a, b in rest):
            raise refuse("concat", f"shapes may differ only in axis {axis}", *xs)
        total = total + x.shape[axis]
    shape = xs[0].shape
    return Spec((*shape[:axis], total, *shape[axis + 1 :]), xs[0].dtype)


def _concat_vjp(position: int, g: Any, y: Any, *xs: Any, axis: int) -> Any:
    start = sum((x.shape[axis] for x in xs[:position]), start=0)
    part = slice(start, start + xs[position].shape[axis])
    return index_op(g, key=(*[slice(None)] * axis, part))


concat_op = register(
    Op(
        "concat",
        "move",
        lambda *xs, axis: np.concatenate(xs, axis),
        _concat_rule,
        _concat_vjp,
        doc="Arrays joined along an axis.",
        sample=lambda rng: [
            Sample((_draw(2, 3)(rng), _draw(4, 3)(rng)), {"axis": 0}),
            Sample((_draw(2, 3)(rng), _draw(2, 1)(rng), _draw(2, 0)(rng)), {"axis": 1}),
        ],
    )
)
