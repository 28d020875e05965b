"""Places: basic and integer indexing, gathers and scatters, moves, broadcasting; indices out of range raise."""

from __future__ import annotations

from typing import Any

import numpy as np
from drawn.checking import check, refuses
from drawn.drawing import FLOATS, SMALL, Drawn, arrays, broadcasting, drawn, shapes, whole
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from gluonish import nd

DATA = st.data()
SHAPES = shapes(1, 4)


@drawn(data=DATA, dtype=FLOATS, shape=shapes(0, 4))
def test_basic_indexing(data: Any, dtype: str, shape: tuple[int, ...]) -> None:
    key = data.draw(basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    check(("index", repr(key), shape), lambda x: x[key], lambda x: x[key], [data.draw(arrays(shape, dtype))])


# name, with values, function by nd, definition by NumPy
def _pick(x: np.ndarray, i: np.ndarray, axis: int) -> np.ndarray:
    return np.take_along_axis(x, np.expand_dims(i.astype(int), axis), axis).squeeze(axis)


def _index_add(x: np.ndarray, i: np.ndarray, v: np.ndarray, axis: int) -> np.ndarray:
    out = np.moveaxis(x, axis, 0).copy()
    np.add.at(out, i.astype(int), np.moveaxis(v, axis, 0))
    return np.moveaxis(out, 0, axis)


def _index_update(x: np.ndarray, i: np.ndarray, v: np.ndarray, axis: int) -> np.ndarray:
    out = np.moveaxis(x, axis, 0).copy()
    for place, part in zip(i.astype(int), np.moveaxis(v, axis, 0)):
        out[place] = part
    return np.moveaxis(out, 0, axis)


def _lines(x: np.ndarray, i: np.ndarray, v: np.ndarray, axis: int, add: bool) -> np.ndarray:
    out = np.moveaxis(x, axis, -1).copy()
    index, values = np.moveaxis(i.astype(int), axis, -1), np.moveaxis(v, axis, -1)
    for place in np.ndindex(index.shape):
        where = (*place[:-1], index[place])
        out[where] = values[place] + (out[where] if add else 0)
    return np.moveaxis(out, -1, axis)


def _along(x: np.ndarray, i: np.ndarray, axis: int) -> np.ndarray:
    return np.take_along_axis(x, i.astype(int), axis)


GATHERS: dict[str, Any] = {
    "take": (lambda x, i, axis: nd.take(x, i, axis), lambda x, i, axis: np.take(x, i.astype(int), axis)),
    "pick": (lambda x, i, axis: nd.pick(x, i, axis), _pick),
    "take_along_axis": (lambda x, i, axis: nd.take_along_axis(x, i, axis), _along),
    "rows": (lambda x, i, axis: x[i], lambda x, i, axis: x[i.astype(int)]),
    "index_add": (lambda x, i, v, axis: nd.index_add(x, i, v, axis), _index_add),
    "index_update": (lambda x, i, v, axis: nd.index_update(x, i, v, axis), _index_update),
    "scatter_add": (
        lambda x, i, v, axis: nd.scatter_add(x, i, v, axis),
        lambda x, i, v, axis: _lines(x, i, v, axis, True),
    ),
    "put_along_axis": (
        lambda x, i, v, axis: nd.put_along_axis(x, i, v, axis),
        lambda x, i, v, axis: _lines(x, i, v, axis, False),
    ),
}


def places_for(draw: Any, name: str, shape: tuple[int, ...], axis: int) -> tuple[Drawn, tuple[int, ...]]:
    """Indices for an op, of both signs where they may be, and the shape of its values if it takes any."""
    size, many = shape[axis], draw(st.sampled_from([1, 2, 5, 17]))
    line = (*shape[:axis], many, *shape[axis + 1 :])
    own = {"take": draw(st.sampled_from([(), (many,), (2, many)])), "rows": (many, 2)}
    own |= {"pick": (*shape[:axis], *shape[axis + 1 :]), "index_add": (many,), "index_update": (many,)}
    dtype = draw(st.sampled_from(["int64", "int64", "int32"]))
    return draw(whole(own.get(name, line), -size, size, dtype)), line


@drawn(data=DATA, dtype=FLOATS, shape=SHAPES, name=st.sampled_from(sorted(GATHERS)))
def test_gathers_and_scatters(data: Any, dtype: str, shape: tuple[int, ...], name: str) -> None:
    axis = 0 if name == "rows" else data.draw(st.integers(0, len(shape) - 1))
    indices, line = places_for(data.draw, name, shape, axis)
    function, definition = GATHERS[name]
    values = [data.draw(arrays(line, dtype))] if "_add" in name or name in ("index_update", "put_along_axis") else []
    check(
        (name, axis, len(shape), indices.values.ndim),
        lambda x, i, *v: function(x, i, *v, axis),
        lambda x, i, *v: definition(x, i, *v, axis),
        [data.draw(arrays(shape, dtype)), indices, *values],
        room=4.0,
    )


@drawn(data=DATA, shape=SHAPES, name=st.sampled_from(sorted(GATHERS)), beyond=st.integers(0, 3), below=st.booleans())
def test_an_index_out_of_range_raises(data: Any, shape: tuple[int, ...], name: str, beyond: int, below: bool) -> None:
    axis = 0 if name == "rows" else data.draw(st.integers(0, len(shape) - 1))
    indices, line = places_for(data.draw, name, shape, axis)
    bad = indices.values.astype("int64").copy()
    assume(bad.size)
    place = data.draw(st.integers(0, bad.size - 1))
    bad.reshape(-1)[place] = -shape[axis] - 1 - beyond if below else shape[axis] + beyond
    values = [nd.ones(line)] if "_add" in name or name in ("index_update", "put_along_axis") else []
    function = GATHERS[name][0]
    refuses(lambda x, i, *v: function(x, i, *v, axis), nd.ones(shape), nd.NDArray(bad), *values)


MOVES: dict[str, Any] = {
    "permute": (lambda x, a: nd.permute_dims(x, a["order"]), lambda x, a: np.transpose(x, a["order"])),
    "flip": (lambda x, a: nd.flip(x, a["axis"]), lambda x, a: np.flip(x, a["axis"])),
    "roll": (lambda x, a: nd.roll(x, a["n"], a["axis"]), lambda x, a: np.roll(x, a["n"], a["axis"])),
    "repeat": (lambda x, a: nd.repeat(x, 2, a["axis"]), lambda x, a: np.repeat(x, 2, a["axis"])),
    "tile": (lambda x, a: nd.tile(x, (2, 1, 3)), lambda x, a: np.tile(x, (2, 1, 3))),
    "pad": (lambda x, a: nd.pad(x, a["widths"], 1.5), lambda x, a: np.pad(x, a["widths"], constant_values=1.5)),
    "reshape": (lambda x, a: x.reshape((-1,)) * 2, lambda x, a: x.reshape(-1) * 2),
    "concat": (lambda x, a: nd.concat([x, x * 2], a["axis"]), lambda x, a: np.concatenate([x, x * 2], a["axis"])),
    "stack": (lambda x, a: nd.stack([x, x * 2], a["axis"]), lambda x, a: np.stack([x, x * 2], a["axis"])),
    "spread": (lambda x, a: nd.broadcast_to(x, (3, *x.shape)), lambda x, a: np.broadcast_to(x, (3, *x.shape))),
}


@drawn(data=DATA, dtype=FLOATS, shape=SHAPES, name=st.sampled_from(sorted(MOVES)))
def test_moves(data: Any, dtype: str, shape: tuple[int, ...], name: str) -> None:
    rank = len(shape)
    attrs = {
        "order": tuple(data.draw(st.permutations(range(rank)))),
        "axis": data.draw(st.integers(0, rank - 1)),
        "n": data.draw(st.integers(-9, 9)),
        "widths": tuple((data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) for _ in shape),
    }
    function, definition = MOVES[name]
    # a sum on either side: moves are fused with what is computed
    check(
        (name, repr(attrs), rank),
        lambda x: function(x + 0.5, attrs) + 0.25,
        lambda x: definition(x + 0.5, attrs) + 0.25,
        [data.draw(arrays(shape, dtype))],
        room=2.0,
    )


PAIRS: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "hypot": np.hypot, "atan2": np.arctan2, "logaddexp": np.logaddexp,
}  # fmt: skip


@drawn(data=DATA, dtype=FLOATS, given=broadcasting(3), name=st.sampled_from(sorted(PAIRS)))
def test_broadcasting(data: Any, dtype: str, given: list[tuple[int, ...]], name: str) -> None:
    """A chain of three operands in layouts of their own."""
    inputs = [data.draw(arrays(shape, dtype, 0.2, 1.0)) for shape in given]
    x, y = np.broadcast_arrays(inputs[0].values, inputs[1].values)
    check(
        ("broadcast", name, *map(len, given)),
        lambda x, y, z: nd.tanh(getattr(nd, name)(x, y) * z) - y,
        lambda x, y, z: np.tanh(PAIRS[name](x, y) * z) - y,
        inputs,
        slopes=name not in ("maximum", "minimum") or not (x == y).any(),
        room=2.0,
    )


@drawn(data=DATA, dtype=FLOATS, size=SMALL)
def test_one_hot(data: Any, dtype: str, size: int) -> None:
    indices = data.draw(whole((size, 2), 0, size))
    check(
        ("one_hot", size, dtype),
        lambda i: nd.one_hot(i, size, dtype),
        lambda i: np.eye(size)[i.astype(int)],
        [indices],
        dtype,
        slopes=False,
    )
    refuses(lambda i: nd.one_hot(i, size), nd.array([0, size]))
