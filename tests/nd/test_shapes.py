"""Functions that move elements, against NumPy: values, gradients by the laws, errors here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import nd


def draw(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, nd.NDArray]:
    values = np.asarray(rng.standard_normal(shape)).astype(np.float32)
    return values, nd.array(values)


CASES: dict[str, tuple[tuple[int, ...], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "reshape": ((2, 6), lambda x: nd.reshape(x, (3, 4)), lambda a: a.reshape(3, 4)),
    "reshape separately": ((2, 6), lambda x: x.reshape(3, -1), lambda a: a.reshape(3, -1)),
    "reshape to nothing": ((1,), lambda x: x.reshape(()), lambda a: a.reshape(())),
    "reshape the empty": ((0, 3), lambda x: x.reshape(3, 0), lambda a: a.reshape(3, 0)),
    "flatten": ((2, 3, 4), nd.flatten, lambda a: a.reshape(2, 12)),
    "flatten a vector": ((3,), nd.flatten, lambda a: a.reshape(3, 1)),
    "transpose": ((2, 3, 4), nd.transpose, lambda a: a.T),
    "T": ((2, 3), lambda x: x.T, lambda a: a.T),
    "permute": ((2, 3, 4), lambda x: x.transpose(1, -1, 0), lambda a: a.transpose(1, -1, 0)),
    "permute by tuple": ((2, 3, 4), lambda x: nd.permute_dims(x, (2, 0, 1)), lambda a: a.transpose(2, 0, 1)),
    "swapaxes": ((2, 3, 4), lambda x: x.swapaxes(0, -1), lambda a: a.swapaxes(0, -1)),
    "expand first": ((2, 3), lambda x: x.expand_dims(0), lambda a: a[None]),
    "expand last": ((2, 3), lambda x: nd.expand_dims(x, -1), lambda a: a[..., None]),
    "squeeze": ((1, 2, 1), nd.squeeze, lambda a: a.squeeze()),
    "squeeze one": ((1, 2, 1), lambda x: x.squeeze(-1), lambda a: a.squeeze(-1)),
    "squeeze two": ((1, 2, 1), lambda x: x.squeeze((0, 2)), lambda a: a.squeeze((0, 2))),
    "broadcast": ((3, 1), lambda x: nd.broadcast_to(x, (2, 3, 4)), lambda a: np.broadcast_to(a, (2, 3, 4))),
    "flip": ((2, 3), nd.flip, np.flip),
    "flip one": ((2, 3), lambda x: nd.flip(x, 1), lambda a: np.flip(a, 1)),
    "repeat": ((2, 3), lambda x: nd.repeat(x, 2, 0), lambda a: np.repeat(a, 2, 0)),
    "repeat last": ((2, 3), lambda x: x.repeat(3, -1), lambda a: np.repeat(a, 3, -1)),
    "tile": ((2, 3), lambda x: nd.tile(x, (2, 1)), lambda a: np.tile(a, (2, 1))),
    "tile more": ((3,), lambda x: nd.tile(x, (2, 2)), lambda a: np.tile(a, (2, 2))),
    "tile less": ((2, 3), lambda x: nd.tile(x, 2), lambda a: np.tile(a, 2)),
    "pad": ((2, 3), lambda x: nd.pad(x, [(1, 0), (2, 3)]), lambda a: np.pad(a, [(1, 0), (2, 3)])),
    "sum to": ((4, 2, 3), lambda x: x.sum_to((2, 1)), lambda a: a.sum((0, 2)).reshape(2, 1)),
    "sum to nothing": ((2, 3), lambda x: x.sum_to(()), lambda a: a.sum()),
}


@pytest.mark.parametrize("case", CASES)
def test_like_numpy(case: str, rng: np.random.Generator) -> None:
    shape, ours, theirs = CASES[case]
    a, x = draw(rng, *shape)
    assert np.allclose(ours(x).asnumpy(), theirs(a), atol=1e-5)
    assert ours(x).shape == np.shape(theirs(a))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, -2.5])
def test_padding_leaves_the_values_alone(value: float, rng: np.random.Generator) -> None:
    a, x = draw(rng, 2, 3)
    widths = [(1, 1), (0, 2)]
    assert np.array_equal(nd.pad(x, widths, value).asnumpy(), np.pad(a, widths, constant_values=value))
    whole = nd.pad(nd.array([1, 2]), [(1, 0)], 7)
    assert whole.tolist() == [7, 1, 2] and whole.dtype == np.int64


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_joining_and_cutting(axis: int, rng: np.random.Generator) -> None:
    (a, x), (b, y) = draw(rng, 2, 3), draw(rng, 2, 3)
    assert np.array_equal(nd.concat([x, y], axis).asnumpy(), np.concatenate([a, b], axis))
    assert np.array_equal(nd.concatenate([x], axis).asnumpy(), a)
    assert np.array_equal(nd.stack([x, y], axis).asnumpy(), np.stack([a, b], axis))
    c, z = draw(rng, 4, 4)
    for ours, theirs in ((2, 2), ([1, 3], [1, 3]), ([0, 4], [0, 4])):
        for piece, wanted in zip(nd.split(z, ours, axis), np.split(c, theirs, axis), strict=True):
            assert np.array_equal(piece.asnumpy(), wanted)


def test_joining_different_dtypes_and_numbers() -> None:
    out = nd.concat([nd.array([1]), nd.array([2.5])])
    assert out.tolist() == [1.0, 2.5] and out.dtype == np.float32
    assert nd.stack([1.0, 2.0]).tolist() == [1.0, 2.0]
    assert nd.stack([nd.array([1]), nd.array([2.5])]).dtype == np.float32


ERRORS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reshape": (lambda x: x.reshape(5), r"reshape: 6 elements cannot become shape \(5,\); got \(2, 3\) float32"),
    "reshape unknown": (lambda x: x.reshape(-1, 4), r"reshape: 6 elements do not fill shape \(-1, 4\)"),
    "two unknown": (lambda x: x.reshape(-1, -1), "only one dimension"),
    "permute": (lambda x: x.transpose(0, 0), r"axes \(0, 0\) are not a permutation"),
    "axis": (lambda x: x.swapaxes(0, 2), "axis 2 is out of range for 2 dimensions"),
    "expand": (lambda x: x.expand_dims(4), "axis 4 is out of range"),
    "squeeze": (lambda x: x.squeeze(1), r"squeeze: dimension 1 of \(2, 3\) is not 1"),
    "broadcast": (lambda x: x.broadcast_to((2, 4)), "broadcast_to: .*got"),
    "broadcast to less": (lambda x: x.broadcast_to((3,)), "broadcast_to: cannot become"),
    "concat": (lambda x: nd.concat([x, nd.ones((2, 4))]), "concat: shapes may differ only in axis 0"),
    "concat rank": (lambda x: nd.concat([x, nd.ones(3)]), "concat"),
    "concat nothing": (lambda x: nd.concat([]), "concat needs at least one array"),
    "split": (lambda x: x.split(2, 1), "split: 3 elements do not make 2 equal parts"),
    "split none": (lambda x: x.split(0), "do not make 0 equal parts"),
    "pad": (lambda x: nd.pad(x, [(1, 1)]), "pad: 2 dimensions need 2"),
    "pad negatively": (lambda x: nd.pad(x, [(1, 1), (-1, 0)]), "pad"),
    "flatten": (lambda x: x.sum().flatten(), "flatten: needs at least one dimension"),
    "sum over": (lambda x: x.sum(2), "sum: axis 2 is out of range for 2 dimensions"),
    "sum twice": (lambda x: x.sum((0, -2)), "sum: axis .* names a dimension twice"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_and_where(case: str) -> None:
    attempt, text = ERRORS[case]
    with pytest.raises(ValueError, match=text) as caught:
        attempt(nd.ones((2, 3)))
    assert "test_shapes.py:" in str(caught.value)
