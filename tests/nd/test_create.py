"""Making arrays: which dtype comes of what, shapes, ranges, and what is refused."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from gluonish import nd

DTYPES = ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        (1.5, "float32"),
        ([1.0, 2], "float32"),
        ([[1, 2], [3, 4]], "int64"),
        (True, "bool"),
        ([True, False], "bool"),
        ([], "float32"),
        (np.float64(2.0), "float64"),
        (np.zeros(2), "float64"),
        (np.zeros(2, np.float16), "float16"),
        (np.int32(7), "int32"),
        (np.zeros(2, ">f4"), "float32"),
    ],
)
def test_dtype_of_a_new_array(source: object, dtype: str) -> None:
    assert nd.array(source).dtype.name == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_arrays_keep_their_dtype_and_values(dtype: str, rng: np.random.Generator) -> None:
    values = rng.integers(0, 2, (3, 4)).astype(dtype)
    out = nd.array(values)
    assert out.dtype == np.dtype(dtype)
    assert np.array_equal(out.asnumpy(), values)
    values[...] = values == 0
    assert not (out.asnumpy() == values).any()  # a copy


def test_foreign_byte_order_becomes_the_machines(rng: np.random.Generator) -> None:
    values = rng.standard_normal(5).astype(">f8")
    out = nd.array(values)
    assert out.dtype is np.dtype("float64") or out.dtype.isnative
    assert np.array_equal(out.asnumpy(), values)


def test_lists_of_arrays_and_arrays_of_arrays() -> None:
    rows = [nd.array([1.0, 2.0]), nd.array([3.0, 4.0])]
    assert nd.array(rows).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert nd.array(nd.array([1, 2])).dtype.name == "int64"
    assert nd.array(nd.array([1, 2]), dtype="float32").dtype.name == "float32"
    assert nd.array([[nd.array(1.0), 2.0]]).shape == (1, 2)


@pytest.mark.parametrize("source", ["text", [1, None], {"a": 1}, [1j], object(), [[1, 2], [3]], ["1"]])
def test_what_is_not_numbers_is_refused(source: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"array: .*test_create.py"):
        nd.array(source)


@pytest.mark.parametrize("dtype", ["complex64", "int16", "longdouble", "nonsense", "U3", object])
def test_unsupported_dtypes_are_refused(dtype: object) -> None:
    with pytest.raises(TypeError, match=r"is not supported; use one of bool.*test_create.py"):
        nd.zeros(3, dtype=dtype)
    with pytest.raises(TypeError, match="not supported"):
        nd.array([1.0]).astype(dtype)


def test_constants() -> None:
    assert nd.zeros((2, 3)).asnumpy().tolist() == np.zeros((2, 3)).tolist()
    assert nd.ones(3, dtype="int32").tolist() == [1, 1, 1]
    assert nd.full((2,), 2.5, dtype="float64").dtype.name == "float64"
    assert nd.full((), 7).shape == ()
    assert nd.zeros((0, 3)).shape == (0, 3)
    x = nd.array([[1, 2]], dtype="int32")
    assert nd.ones_like(x).dtype.name == nd.zeros_like(x).dtype.name == nd.full_like(x, 9).dtype.name == "int32"
    assert nd.ones_like(x, dtype="float16").dtype.name == "float16"
    assert nd.full_like(x, 9).tolist() == [[9, 9]]
    assert np.isnan(nd.full(2, float("nan")).asnumpy()).all()


@pytest.mark.parametrize("shape", [-1, (2, -3), 1.5, (2, 1.5), "ab", None])
def test_bad_shapes_are_refused(shape: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"test_create.py"):
        nd.zeros(shape)


@pytest.mark.parametrize("arguments", [(5,), (2, 9), (2, 9, 3), (9, 2, -2), (2, 2), (5, 2), (0,), (2, 9, 100), (-3, 4)])
def test_whole_ranges(arguments: tuple[int, ...]) -> None:
    out = nd.arange(*arguments)
    assert out.dtype.name == "int64"
    assert out.tolist() == list(range(*arguments))


@pytest.mark.parametrize("arguments", [(0.5,), (0.0, 1.0, 0.25), (1.0, 0.0, -0.3), (2.5, 2.5), (0, 1, 0.1)])
def test_float_ranges(arguments: tuple[float, ...]) -> None:
    out = nd.arange(*arguments)
    assert out.dtype.name == "float32"
    assert np.allclose(out.asnumpy(), np.arange(*arguments))
    assert nd.arange(4, dtype="float32").tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("step", [0, 0.0, np.int64(0)])
def test_a_range_needs_a_step(step: object) -> None:
    with pytest.raises(ValueError, match="step must not be 0"):
        nd.arange(0, 5, step)


def test_linspace_and_eye() -> None:
    assert np.allclose(nd.linspace(0, 1, 5).asnumpy(), np.linspace(0, 1, 5))
    assert np.allclose(nd.linspace(0, 1, 5, endpoint=False).asnumpy(), np.linspace(0, 1, 5, endpoint=False))
    assert nd.eye(2, 3, 1).tolist() == np.eye(2, 3, 1).tolist()
    assert nd.eye(2).dtype.name == "float32"


def test_devices() -> None:
    assert nd.zeros(2, device=nd.cpu()).device == nd.cpu()
    assert str(nd.cpu()) == "cpu(0)" and repr(nd.gpu(1)) == "gpu(1)"
    x = nd.zeros(2)
    assert x.to_device(nd.cpu()) is x
    for attempt in (lambda: nd.zeros(2, device=nd.gpu(0)), lambda: x.to_device(nd.gpu()), lambda: nd.cpu(3)):
        with pytest.raises(ValueError, match=r"is not available.*test_create.py"):
            attempt()
    with pytest.raises(TypeError, match="device must be"):
        nd.array([1.0], device="cpu")  # type: ignore[arg-type]


def test_what_an_array_tells_of_itself() -> None:
    x = nd.array([[1.0, 2.0, 3.0]])
    assert (x.shape, x.ndim, x.size, len(x)) == ((1, 3), 2, 3, 1)
    assert repr(x) == "array([[1., 2., 3.]], shape=(1, 3), dtype=float32)"
    assert [row.tolist() for row in x] == [[1.0, 2.0, 3.0]]
    assert 2.0 in x and 5.0 not in x
    assert float(nd.array(2.5)) == 2.5 and int(nd.array([3])) == 3 and bool(nd.array(0.0)) is False
    assert [10, 20, 30][nd.array(1)] == 20
    assert nd.array([[4]]).item() == 4 and nd.array(4.5).asscalar() == 4.5


def test_questions_without_an_answer() -> None:
    with pytest.raises(ValueError, match=r"one element.*\(2,\).*test_create.py"):
        bool(nd.array([1, 2]))
    with pytest.raises(ValueError, match="one element"):
        nd.zeros((0,)).item()
    with pytest.raises(TypeError, match=r"len\(\) of an array without dimensions"):
        len(nd.array(1.0))
    with pytest.raises(TypeError, match="can be an index"):
        [1, 2][nd.array(1.0)]  # type: ignore[call-overload]


def test_numpy_round_trips(rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((2, 3)))
    out = x.asnumpy()
    out[0, 0] = 99  # a copy
    assert x[0, 0].item() != 99
    assert np.asarray(x).dtype == np.float64
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="copied to NumPy, never shared"):
        np.asarray(x, copy=False)
    assert np.array_equal(np.add(x.asnumpy(), 1), (1 + x).asnumpy())


def test_copies() -> None:
    x = nd.array([1.0, 2.0])
    x.attach_grad("add")
    twin = copy.deepcopy(x)
    twin[0] = 9
    assert x.tolist() == [1.0, 2.0] and twin.grad_req == "add"
    other = nd.zeros(2)
    assert x.copyto(other) is other and other.tolist() == [1.0, 2.0]
    assert x.copy() is not x and x.astype("float32") is x and x.astype("float32", copy=True) is not x


def test_arrays_are_never_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled: use nd.save"):
        pickle.dumps(nd.array([1.0]))
