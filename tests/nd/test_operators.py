"""Operators against NumPy: both sides, numbers, NumPy arrays, broadcasting, what integers and bools become."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import nd

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
LOGIC = [operator.and_, operator.or_, operator.xor]
Operator = Callable[[Any, Any], Any]


def name(value: Any) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("operation", ARITHMETIC + COMPARISONS, ids=name)
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 1), (4,)), ((), (2, 3)), ((2, 0), (1, 1))], ids=str)
def test_two_arrays(operation: Operator, shapes: Any, rng: np.random.Generator) -> None:
    a, b = (np.asarray(rng.uniform(0.5, 3, s)).astype(np.float32) for s in shapes)
    out = operation(nd.array(a), nd.array(b))
    wanted = operation(a, b)
    assert out.dtype == wanted.dtype and out.shape == wanted.shape
    assert np.allclose(out.asnumpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("operation", ARITHMETIC + COMPARISONS, ids=name)
@pytest.mark.parametrize("number", [2, 1.5, True], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_on_both_sides_take_the_arrays_dtype(
    operation: Operator, number: Any, dtype: str, rng: np.random.Generator
) -> None:
    a = rng.uniform(0.5, 3, (3, 4)).astype(dtype)
    x = nd.array(a)
    for out, wanted in ((operation(x, number), operation(a, number)), (operation(number, x), operation(number, a))):
        assert out.dtype == wanted.dtype
        assert np.allclose(out.asnumpy(), wanted, rtol=1e-2 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("operation", ARITHMETIC + COMPARISONS, ids=name)
def test_numpy_arrays_on_both_sides(operation: Operator, rng: np.random.Generator) -> None:
    a, b = rng.uniform(0.5, 3, (2, 3, 4)), rng.uniform(0.5, 3, (3, 4))
    for out in (operation(nd.array(a), b), operation(a, nd.array(b))):
        assert isinstance(out, nd.NDArray)
        assert np.allclose(out.asnumpy(), operation(a, b))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_integers(dtype: str, rng: np.random.Generator) -> None:
    a, b = (rng.integers(1, 9, (3, 4)).astype(dtype) for _ in range(2))
    x, y = nd.array(a), nd.array(b)
    for operation in (operator.add, operator.mul, operator.floordiv, operator.mod, operator.pow):
        assert operation(x, y).dtype == np.dtype(dtype)
        assert np.array_equal(operation(x, y).asnumpy(), operation(a, b))
        assert operation(x, 2).dtype == operation(2, x).dtype == np.dtype(dtype)
    assert (x / y).dtype == (x / 2).dtype == (1 / x).dtype == np.float32  # never float64 by accident
    assert np.allclose((x / y).asnumpy(), a / b)
    assert (x * 0.5).dtype == (x + 1.5).dtype == np.float32


def test_division_of_integers_by_zero_is_zero_and_of_floats_infinite() -> None:
    x, zero = nd.array([5, -5]), nd.array([0, 0])
    assert (x // zero).tolist() == [0, 0] and (x % zero).tolist() == [0, 0]
    out = nd.array([1.0, -1.0, 0.0]) / nd.array([0.0, 0.0, 0.0])
    assert out.tolist()[:2] == [np.inf, -np.inf] and np.isnan(out[2].item())


def test_bools_count_as_integers_in_arithmetic() -> None:
    a, b = nd.array([True, True]), nd.array([True, False])
    assert (a + b).tolist() == [2, 1] and (a - b).tolist() == [0, 1] and (-a).tolist() == [-1, -1]
    assert (a + b).dtype == np.int64 and (a / b).dtype == np.float32 and (a * 0.5).dtype == np.float32
    assert nd.maximum(a, b).dtype == np.bool_


@pytest.mark.parametrize("operation", LOGIC, ids=name)
def test_logic_of_bools(operation: Operator) -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    wanted = operation(a, b).tolist()
    assert operation(nd.array(a), nd.array(b)).tolist() == operation(nd.array(a), b).tolist() == wanted
    assert operation(a, nd.array(b)).tolist() == wanted
    assert operation(nd.array(a), True).tolist() == operation(True, nd.array(a)).tolist() == operation(a, True).tolist()
    assert (~nd.array(a)).tolist() == (~a).tolist()


@pytest.mark.parametrize("operation", LOGIC, ids=name)
def test_logic_is_not_for_numbers(operation: Operator) -> None:
    """NumPy means bits by these signs; taking numbers for truths would be a silent wrong answer."""
    with pytest.raises(TypeError, match=r"is for bool arrays.*nd.logical_.*test_operators.py"):
        operation(nd.array([6]), nd.array([3]))
    with pytest.raises(TypeError, match=r"`~` is for bool arrays"):
        ~nd.array([6])


def test_mixed_dtypes() -> None:
    def of(a: str, b: str) -> str:
        return (nd.ones(2, dtype=a) + nd.ones(2, dtype=b)).dtype.name

    assert of("float32", "float64") == of("float64", "float32") == "float64"
    assert of("int64", "float32") == of("bool", "float32") == "float32"
    assert of("int32", "int64") == "int64" and of("uint8", "int8") == "int32" and of("uint32", "int8") == "int64"
    assert (nd.array([200], dtype="uint8") + nd.array([1], dtype="int8")).item() == 201
    with pytest.raises(TypeError, match=r"uint64 and int64 have no common integer dtype.*test_operators.py"):
        nd.ones(2, dtype="uint64") + nd.ones(2, dtype="int64")


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OverflowError, match=r"add: .*300.*uint8.*test_operators.py"):
        nd.zeros(2, dtype="uint8") + 300
    with pytest.raises(ValueError, match=r"power: .*negative integer powers.*test_operators.py"):
        nd.array([2]) ** nd.array([-1])


def test_strangers_are_left_to_python() -> None:
    x = nd.array([1.0])
    for operation in ARITHMETIC:
        with pytest.raises(TypeError):
            operation(x, "text")
        with pytest.raises(TypeError, match="unsupported operand"):
            operation(None, x)
    assert (x == None) is False and (x != "a") is True  # noqa: E711
    with pytest.raises(ValueError, match="matmul: needs vectors or matrices"):
        x @ 2
    with pytest.raises(TypeError):
        x += "text"


def test_unary_operators(rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 3)).astype(np.float32)
    x = nd.array(a)
    assert np.array_equal((-x).asnumpy(), -a) and np.array_equal(abs(x).asnumpy(), abs(a)) and (+x) is x
    assert hash(x) == hash(x) and {x: 1}[x] == 1


def test_overflow_is_infinity_without_a_warning() -> None:
    big = nd.array([3e38, -3e38])
    assert (big * 10).tolist() == (big + big).tolist() == [np.inf, -np.inf]
    assert np.isnan((big * 10 - big * 10).asnumpy()).all()
    program = "from gluonish import nd; x = nd.array([3e38]); x * 10; x + x; x * 10 - x * 10; nd.exp(x); x / 0"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


UNARY: dict[str, tuple[Callable[..., Any], tuple[float, float]]] = {
    "exp": (np.exp, (-5, 5)),
    "expm1": (np.expm1, (-5, 5)),
    "log": (np.log, (0.01, 50)),
    "log1p": (np.log1p, (-0.9, 50)),
    "sqrt": (np.sqrt, (0, 50)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (0.01, 50)),
    "sin": (np.sin, (-9, 9)),
    "cos": (np.cos, (-9, 9)),
    "tanh": (np.tanh, (-9, 9)),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), (-9, 9)),
    "relu": (lambda x: np.maximum(x, 0), (-9, 9)),
    "softplus": (lambda x: np.log1p(np.exp(x)), (-9, 9)),
    "silu": (lambda x: x / (1 + np.exp(-x)), (-9, 9)),
    "square": (np.square, (-9, 9)),
    "sign": (np.sign, (-9, 9)),
    "floor": (np.floor, (-9, 9)),
    "ceil": (np.ceil, (-9, 9)),
    "round": (np.rint, (-9, 9)),
    "trunc": (np.trunc, (-9, 9)),
    "abs": (np.abs, (-9, 9)),
}


@pytest.mark.parametrize("which", UNARY)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
def test_functions(which: str, dtype: str, tolerance: float, rng: np.random.Generator) -> None:
    function, domain = UNARY[which]
    a = rng.uniform(*domain, 200).astype(dtype)
    out = getattr(nd, which)(nd.array(a))
    assert out.dtype == np.dtype(dtype)
    assert np.allclose(out.asnumpy(), function(a.astype(np.float64)), rtol=tolerance, atol=tolerance)


def test_rounding_of_integers_and_halves() -> None:
    for function in (nd.round, nd.floor, nd.ceil, nd.trunc):
        out = function(nd.array([3, -4]))
        assert out.tolist() == [3, -4] and out.dtype == np.int64
    assert nd.round(nd.array([0.5, 1.5, 2.5, -0.5])).tolist() == [0.0, 2.0, 2.0, -0.0]


def test_functions_of_numbers_and_lists() -> None:
    assert nd.exp(0.0).item() == 1.0 and nd.exp(0).dtype == np.float32
    assert nd.add(1, 2).item() == 3 and nd.add([1.0], [2.0]).tolist() == [3.0]
    assert nd.maximum(nd.array([1.0, 3.0]), 2).tolist() == [2.0, 3.0]


def test_predicates() -> None:
    x = nd.array([0.0, np.inf, -np.inf, np.nan])
    assert nd.isnan(x).tolist() == [False, False, False, True]
    assert nd.isinf(x).tolist() == [False, True, True, False]
    assert nd.isfinite(x).tolist() == [True, False, False, False]
    assert nd.isfinite(nd.array([1])).tolist() == [True]
    assert nd.logical_not(x).tolist() == [True, False, False, False]
    assert nd.logical_and(nd.array([2, 0]), nd.array([1, 1])).tolist() == [True, False]
