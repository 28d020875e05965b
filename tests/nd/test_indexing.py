"""Indexing against NumPy: views by numbers and slices, copies by arrays, masks, gathers, and what is out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd

new = None

VIEWS: list[Any] = [
    0,
    -1,
    np.int64(1),
    slice(None),
    slice(1, 3),
    slice(None, None, -1),
    slice(3, 0, -2),
    slice(-3, -1),
    slice(2, 2),
    slice(9, None),
    slice(-9, 9, 2),
    slice(None, -9, -1),
    ...,
    new,
    (0, 1),
    (-1, -1, -1),
    (0, ...),
    (..., 0),
    (..., slice(None, None, 2), 1),
    (new, 0, new, ..., new),
    (slice(None), new, 2),
    (slice(1, None), slice(None, None, -1), slice(0, 1)),
    (1, ..., 2),
    (),
]


@pytest.mark.parametrize("key", VIEWS, ids=str)
def test_views(key: Any, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 3, 5)).astype(np.float32)
    out = nd.array(a)[key]
    assert out.shape == a[key].shape
    assert np.array_equal(out.asnumpy(), a[key])


def test_random_slices(rng: np.random.Generator) -> None:
    a = rng.standard_normal((5, 4)).astype(np.float32)
    x = nd.array(a)
    steps = [-3, -2, -1, 1, 2, 3]

    def some_slice() -> slice:
        return slice(*[None if rng.random() < 0.2 else int(v) for v in (*rng.integers(-7, 8, 2), rng.choice(steps))])

    for _ in range(300):
        key = (some_slice(), some_slice())
        assert np.array_equal(x[key].asnumpy(), a[key]), key


ARRAYS: list[Any] = [
    [0, 2, 2],
    [-1, 0],
    [],
    np.array([[1, 0], [3, -4]]),
    np.array(2),
    np.array([1, 2], np.uint8),
    np.array([1, 2], np.uint64),
    (np.array([0, 1]), np.array([2, 0])),
    (np.array([[0], [3]]), np.array([1, -1]), np.array([4])),
    (np.array([0, 1]), 2),
    (1, np.array([0, -1])),
    (np.array([3, 3], np.uint8), np.array([0, 1], np.uint8)),
    (slice(None), [0, 2]),
    (slice(None, None, -2), [2, 0], slice(1, 4)),
    (..., np.array([[4, -5]])),
    (np.array([1, 2]), slice(None), np.array([0, 4])),
    (np.array([[1], [2]]), slice(1, None), 3),
    (slice(1, 3), np.array([0, 1]), 2),
    (0, new, np.array([1, 2]), ..., 1),
    (new, slice(2), np.array([[0, 1], [2, 2]]), np.array([1, 4])),
    (np.array([True, False, True, True]), 0),
    (slice(None), np.array([True, False, True]), slice(None, None, 2)),
    (np.array([1, 0]), np.array([False, True, True])),
    (..., np.array([[True, False, False, False, True]] * 3)),
]


@pytest.mark.parametrize("key", ARRAYS, ids=str)
def test_integer_arrays(key: Any, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 3, 5)).astype(np.float32)
    wanted = a[key]
    ours = tuple(nd.array(k) if isinstance(k, np.ndarray) else k for k in key) if isinstance(key, tuple) else key
    for k in (key, ours):
        out = nd.array(a)[k]
        assert out.shape == wanted.shape
        assert np.array_equal(out.asnumpy(), wanted)


def test_large_sizes_with_small_index_dtypes() -> None:
    x = nd.arange(3 * 1000).reshape(3, 1000)
    assert x[nd.array([2], dtype="uint8"), nd.array([200], dtype="uint8")].tolist() == [2200]
    assert x[nd.array([-1], dtype="int8"), nd.array([-1], dtype="int8")].tolist() == [2999]


def test_masks(rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 3)).astype(np.float32)
    x = nd.array(a)
    assert np.array_equal(x[x > 0].asnumpy(), a[a > 0])
    assert np.array_equal(x[a[:, 0] > 0].asnumpy(), a[a[:, 0] > 0])
    assert x[x > 99].shape == (0,)
    assert np.array_equal(x[[True, False, False, True]].asnumpy(), a[[0, 3]])
    for mask in (np.ones(3, bool), np.ones((4, 3, 1), bool), np.ones((4, 2), bool)):
        with pytest.raises(IndexError, match=r"mask .* does not fit shape \(4, 3\).*test_indexing.py"):
            x[mask]


OUT_OF_RANGE: list[Any] = [
    (..., [5]),
    (slice(2), [0], [9]),
    4,
    -5,
    (0, 3),
    (..., 5),
    [0, 4],
    [-5],
    (np.array([0]), np.array([3])),
    np.array([[0, 9]]),
]


@pytest.mark.parametrize("key", OUT_OF_RANGE, ids=str)
def test_out_of_range_raises(key: Any) -> None:
    with pytest.raises(IndexError, match=r"out of range.*test_indexing.py"):
        nd.ones((4, 3, 5))[key]


REFUSED: list[Any] = [
    1.0,
    "a",
    True,
    (0, 0, 0, 0),
    (..., ...),
    [0.5],
    ([0, 1], 1.5),
    ([0, 1], True),
    (slice(None), [0.5]),
]


@pytest.mark.parametrize("key", REFUSED, ids=str)
def test_keys_that_mean_nothing_raise(key: Any) -> None:
    with pytest.raises((IndexError, TypeError), match="test_indexing.py"):
        nd.ones((4, 3, 5))[key]


def test_symbols_of_the_error_of_a_bad_index() -> None:
    with pytest.raises(IndexError, match=r"take: index 7 at position 1 is out of range for size 4 \(test_indexing"):
        nd.take(nd.ones((4, 3)), nd.array([0, 7]))
    with pytest.raises(IndexError, match=r"pick: index 3 at position 1 is out of range for size 3"):
        nd.pick(nd.ones((2, 3)), nd.array([0, 3]))
    with pytest.raises(IndexError, match="index 5 at position 0 is out of range for size 5"):
        nd.one_hot([5], 5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take(axis: int, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 3, 5)).astype(np.float32)
    indices = rng.integers(-3, 3, (2, 2))
    assert np.array_equal(nd.take(nd.array(a), indices, axis).asnumpy(), np.take(a, indices, axis))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pick(axis: int, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 3, 5)).astype(np.float32)
    shape = [s for i, s in enumerate(a.shape) if i != axis % 3]
    indices = rng.integers(-a.shape[axis], a.shape[axis], shape)
    wanted = np.take_along_axis(a, np.expand_dims(indices, axis), axis)
    x = nd.array(a)
    assert np.array_equal(nd.pick(x, indices, axis, keepdims=True).asnumpy(), wanted)
    assert np.array_equal(x.pick(indices.astype(np.float32), axis).asnumpy(), wanted.squeeze(axis))
    with pytest.raises(ValueError, match="pick: indices must have the shape of x without its last dimension"):
        nd.pick(x, np.zeros((1, 1), int), axis)


def test_one_hot() -> None:
    out = nd.one_hot(nd.array([[0, 2]]), 3)
    assert out.tolist() == [[[1, 0, 0], [0, 0, 1]]] and out.dtype == np.float32
    assert nd.one_hot([1.0], 2, dtype="int32").tolist() == [[0, 1]]


def test_indexing_shares_memory_and_index_arrays_do_not() -> None:
    x = nd.arange(12).reshape(3, 4)
    x[1][2] = 60
    assert x[1, 2].item() == 60
    x[[0, 1]][0] = 99
    assert 99 not in x


ASSIGNED: list[Any] = [0, (slice(None), 1), (..., -1), [0, 2], (np.array([0, 1]), np.array([2, 2])), slice(None, 0, -1)]


@pytest.mark.parametrize("key", ASSIGNED, ids=str)
def test_assignment(key: Any, rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 4)).astype(np.float32)
    x = nd.array(a)
    value = rng.standard_normal(a[key].shape).astype(np.float32)
    a[key] = value
    x[key] = nd.array(value)
    assert np.array_equal(x.asnumpy(), a)
    a[key] = 2.5
    x[key] = 2.5
    assert np.array_equal(x.asnumpy(), a)


def test_assignment_by_mask_and_to_everything() -> None:
    x = nd.array([[1.0, -2.0], [-3.0, 4.0]])
    x[x < 0] = 0
    assert x.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    x[:] = [7, 8]
    assert x.tolist() == [[7.0, 8.0], [7.0, 8.0]]


def test_assignments_that_do_not_fit() -> None:
    x = nd.ones((2, 3))
    with pytest.raises(ValueError, match=r"assignment: .*shape.*test_indexing.py"):
        x[0] = nd.ones(4)
    with pytest.raises(IndexError, match=r"assignment: .*out of bounds.*test_indexing.py"):
        x[5] = 0
    with pytest.raises(OverflowError, match=r"assignment: .*300.*test_indexing.py"):
        nd.zeros(2, dtype="uint8")[0] = 300
    with pytest.raises(ValueError, match=r"read-only.*test_indexing.py"):
        nd.broadcast_to(nd.ones(1), (3,))[0] = 5
    assert x.tolist() == np.ones((2, 3)).tolist()


@pytest.mark.parametrize("key", [*VIEWS, *ARRAYS, np.array([True, False, True, True])], ids=str)
def test_gradients_land_where_the_values_came_from(key: Any, rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((4, 3, 5)))
    x.attach_grad()
    with autograd.record():
        out = x[key]
    head = rng.standard_normal(out.shape)
    out.backward(nd.array(head))
    wanted = np.zeros(x.shape)
    np.add.at(wanted, np.array([], int) if isinstance(key, list) and not key else key, head)
    assert np.allclose(x.grad.asnumpy(), wanted)
