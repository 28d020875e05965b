"""What runs along axes: reductions, scans, sorts, norms and softmax, over any axes of arrays in any memory layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from drawn import definitions
from drawn.checking import check
from drawn.drawing import FLOATS, PRECISE, arrays, drawn, shapes, whole
from hypothesis import assume
from hypothesis import strategies as st

from gluonish import nd, nn

DATA = st.data()
SHAPES = shapes(1, 4, st.sampled_from([1, 2, 3, 5, 8, 17, 33]))
REDUCTIONS = st.sampled_from(["sum", "mean", "max", "min", "prod", "var", "std", "norm"])


def some_axes(draw: Any, shape: tuple[int, ...]) -> Any:
    """None, an axis, or several."""
    rank = len(shape)
    several = st.sets(st.integers(0, rank - 1), min_size=1).map(lambda s: tuple(sorted(s)))
    return draw(st.one_of(st.none(), st.integers(-rank, rank - 1), several))


@drawn(data=DATA, name=REDUCTIONS, dtype=FLOATS, shape=SHAPES, keepdims=st.booleans())
def test_reductions(data: Any, name: str, dtype: str, shape: tuple[int, ...], keepdims: bool) -> None:
    axis = some_axes(data.draw, shape)
    assume(np.prod(shape) <= 5000)
    low, high = (0.8, 1.2) if name == "prod" else (-1.0, 1.0)
    x = data.draw(arrays(shape, dtype, low, high))
    ties = x.layout == "spread" or dtype in ("float16", "bfloat16")
    if name in ("std", "norm", "var"):  # which have no slope where they are 0
        assume(x.layout != "spread" and np.prod(shape) > 1)
    own = {"norm": lambda x: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))}
    definition = own.get(name, lambda x: getattr(np, name)(x, axis=axis, keepdims=keepdims))
    smooth = not (name in ("max", "min") and ties) and not (name == "std" and 1 in shape)
    check(
        ("reduce", name, axis, keepdims, len(shape)),
        lambda x: getattr(nd, name)(x, axis, keepdims),
        definition,
        [x],
        slopes=smooth,
        room=4.0,
    )


@drawn(data=DATA, shape=SHAPES, name=st.sampled_from(["sum", "max", "min", "argmax", "argmin", "any", "all"]))
def test_reductions_of_integers(data: Any, shape: tuple[int, ...], name: str) -> None:
    axis = data.draw(st.sampled_from([None, *range(len(shape))]))
    dtype = data.draw(st.sampled_from(["int64", "int32", "int8", "uint8", "bool"]))
    x = data.draw(whole(shape, 0 if dtype in ("uint8", "bool") else -3, 2 if dtype == "bool" else 4, dtype))
    if name in ("max", "min"):
        assume(dtype != "bool")
    result = {"sum": "int64", "argmax": "int64", "argmin": "int64", "any": "bool", "all": "bool"}.get(name, dtype)
    if name == "sum" and dtype == "uint8":
        result = np.sum(np.zeros(1, dtype)).dtype.name
    check(
        ("whole", name, axis, len(shape)),
        lambda x: getattr(nd, name)(x, axis),
        lambda x: getattr(np, name)(x, axis),
        [x],
        result,
        slopes=False,
    )


@drawn(data=DATA, shape=SHAPES, dtype=FLOATS, kind=st.sampled_from(["sum", "prod", "max", "min", "linear"]))
def test_scans(data: Any, shape: tuple[int, ...], dtype: str, kind: str) -> None:
    axis, reverse = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.booleans())
    low, high = (0.8, 1.2) if kind == "prod" else (-1.0, 1.0)
    x = data.draw(arrays(shape, dtype, low, high))
    if kind == "linear":
        check(
            ("linear_scan", axis, reverse, len(shape)),
            lambda a, b: nd.linear_scan(a, b, axis, reverse),
            lambda a, b: definitions.linear_scan(a, b, axis, reverse),
            [x, data.draw(arrays(shape, dtype))],
            room=4.0,
        )
        return
    check(
        ("scan", kind, axis, reverse, len(shape)),
        lambda x: getattr(nd, f"cumulative_{kind}")(x, axis, reverse=reverse),
        lambda x: definitions.scan(x, kind, axis, reverse),
        [x],
        slopes=kind in ("sum", "prod") or (x.layout != "spread" and dtype in ("float32", "float64")),
        room=8.0,
    )


@drawn(data=DATA, shape=SHAPES, dtype=PRECISE, name=st.sampled_from(["sort", "argsort", "topk", "places"]))
def test_sorts(data: Any, shape: tuple[int, ...], dtype: str, name: str) -> None:
    """Of distinct numbers with their slopes, of many equal ones (and NaN) without."""
    axis, descending = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.booleans())
    distinct = data.draw(st.booleans())
    x = data.draw(arrays(shape, dtype))
    if not distinct:
        x = x._replace(values=np.where(x.values > 0.9, np.nan, np.round(x.values * 2) + 0.0), layout="strided")
    assume(x.layout != "spread")
    count = data.draw(st.integers(0, shape[axis]))

    def order(x: np.ndarray) -> np.ndarray:
        # stable and descending: by the places from the end; NaN is the largest
        if not descending:
            return np.argsort(x, axis, kind="stable")
        back = np.argsort(np.flip(x, axis), axis, kind="stable")
        return np.flip(x.shape[axis] - 1 - back, axis)

    def top(x: np.ndarray) -> np.ndarray:
        return np.take(order(x), np.arange(count), axis)

    functions: dict[str, Any] = {
        "sort": (
            lambda x: nd.sort(x, axis, descending),
            lambda x: np.take_along_axis(x, order(x), axis),
        ),
        "argsort": (lambda x: nd.argsort(x, axis, descending), order),
        "topk": (
            lambda x: nd.topk(x, count, axis, descending).values,
            lambda x: np.take_along_axis(x, top(x), axis),
        ),
        "places": (lambda x: nd.topk(x, count, axis, descending).indices, top),
    }
    slopes = distinct and name in ("sort", "topk")
    check(
        ("sorts", name, axis, descending, count if name in ("topk", "places") else 0, len(shape)),
        *functions[name],
        [x],
        dtype if name in ("sort", "topk") else "int64",
        slopes=slopes,
    )


@drawn(data=DATA, right=st.booleans(), size=st.sampled_from([0, 1, 2, 7, 16, 65]), shape=SHAPES)
def test_searchsorted(data: Any, right: bool, size: int, shape: tuple[int, ...]) -> None:
    x = data.draw(arrays((size,), "float32"))
    x = x._replace(values=np.sort(np.round(x.values * 4)), layout="plain")
    values = data.draw(arrays(shape, "float32"))
    values = values._replace(values=np.round(values.values * 4))
    side = "right" if right else "left"
    check(
        ("searchsorted", side, len(shape)),
        lambda x, v: nd.searchsorted(x, v, side),
        lambda x, v: np.searchsorted(x, v, side),
        [x, values],
        "int64",
        slopes=False,
    )


@drawn(data=DATA, shape=SHAPES, dtype=FLOATS, name=st.sampled_from(["softmax", "log_softmax"]))
def test_softmax(data: Any, shape: tuple[int, ...], dtype: str, name: str) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))

    def definition(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis, keepdims=True))
        p = e / e.sum(axis, keepdims=True)
        return np.log(p) if name == "log_softmax" else p

    x = data.draw(arrays(shape, dtype, -4, 4))
    check((name, axis, len(shape)), lambda x: getattr(nd, name)(x, axis), definition, [x], room=2.0)


@drawn(data=DATA, dtype=PRECISE, name=st.sampled_from(["LayerNorm", "GroupNorm", "InstanceNorm", "BatchNorm"]))
def test_norms(data: Any, dtype: str, name: str) -> None:
    shape = data.draw(shapes(3, 4, st.sampled_from([2, 3, 6, 8, 17])))
    channels = 6 if name == "GroupNorm" else shape[1]
    shape = (shape[0], channels, *shape[2:])
    axis = data.draw(st.integers(0, len(shape) - 1)) if name == "LayerNorm" else 1
    size = shape[axis]
    options: dict[str, Any] = {"dtype": dtype, "in_channels": size}
    options |= {"axis": axis} if name == "LayerNorm" else {"num_groups": 3} if name == "GroupNorm" else {}
    layer = getattr(nn, name)(**options)
    layer.initialize()
    x = data.draw(arrays(shape, dtype))
    gamma, beta = (data.draw(arrays((size,), dtype)) for _ in range(2))
    wide = tuple(-1 if i == axis else 1 for i in range(len(shape)))

    def function(x: nd.NDArray, gamma: nd.NDArray, beta: nd.NDArray) -> nd.NDArray:
        return layer(x) * gamma.reshape(wide) + beta.reshape(wide)

    def definition(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
        spatial = tuple(range(2, x.ndim))
        if name == "GroupNorm":
            parts = x.reshape((x.shape[0], 3, -1))
            y = definitions.normalised(parts, (2,), 1e-5).reshape(x.shape)
        else:
            axes = {"LayerNorm": (axis,), "InstanceNorm": spatial, "BatchNorm": (0, *spatial)}[name]
            y = definitions.normalised(x, axes, 1e-5)
        return y * gamma.reshape(wide) + beta.reshape(wide)

    # a new layer each time: compiled under a key of its own
    check((name, id(layer), x.values.tobytes()), function, definition, [x, gamma, beta], room=8.0)
