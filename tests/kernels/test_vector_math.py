"""The functions of kernels against references in higher precision: errors in units in the last place, and all edges."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gluonish.kernels import target
from gluonish.kernels.kernel import Kernel

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # benchmarks are not installed; last, so that a gluonish that is installed comes first

from benchmarks import references  # noqa: E402

Mapped = Callable[..., np.ndarray]
Rng = np.random.Generator
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
SAMPLES = 200_000
POSITIVE = "positive"

erf = np.vectorize(math.erf)


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


# function, reference, ranges, bound on the error in units in the last place
SINGLE = [
    ("exp", np.exp, [(-104, 89), (-1, 1)], 1.1),
    ("expm1", np.expm1, [(-20, 89), (-1, 1), (-1e-3, 1e-3)], 1.6),
    ("log", np.log, [POSITIVE, (0.5, 2)], 1.0),
    ("log1p", np.log1p, [(-1, 3), (-0.5, 0.5), (0, 1e30), (-1e-4, 1e-4)], 1.6),
    ("tanh", np.tanh, [(-10, 10), (-1, 1), (-1e-3, 1e-3)], 1.9),
    ("sigmoid", sigmoid, [(-104, 50), (-2, 2)], 1.9),
    ("erf", erf, [(-5, 5), (-1, 1)], 1.5),
    ("sin", np.sin, [(-10, 10), (-1e3, 1e3), (-8e8, 8e8), POSITIVE], 1.6),
    ("cos", np.cos, [(-10, 10), (-1e3, 1e3), (-8e8, 8e8), POSITIVE], 1.6),
    ("tan", np.tan, [(-10, 10), (-1e3, 1e3), (-8e8, 8e8), POSITIVE], 0.6),
    ("asin", np.arcsin, [(-1, 1), (-1e-3, 1e-3)], 0.6),
    ("acos", np.arccos, [(-1, 1), (0.999, 1)], 0.6),
    ("atan", np.arctan, [(-10, 10), (-1e-3, 1e-3), POSITIVE], 0.6),
    ("sinh", np.sinh, [(-89, 89), (-1, 1), (-1e-3, 1e-3)], 0.6),
    ("cosh", np.cosh, [(-89, 89), (-1, 1)], 0.6),
    ("asinh", np.arcsinh, [(-10, 10), (-1e-3, 1e-3), POSITIVE], 0.6),
    ("acosh", np.arccosh, [(1, 3), (1, 1.001), (1, 1e30)], 0.6),
    ("atanh", np.arctanh, [(-1, 1), (-1e-3, 1e-3)], 0.6),
    ("rsqrt", lambda x: 1 / np.sqrt(x), [POSITIVE], 1.6),
    ("sqrt", np.sqrt, [POSITIVE], 0.5),
    ("exp2", np.exp2, [(-150, 128), (-1, 1)], 1.6),
    ("log2", np.log2, [POSITIVE, (0.5, 2)], 0.6),
    ("log10", np.log10, [POSITIVE, (0.5, 2)], 0.6),
    ("cbrt", np.cbrt, [POSITIVE, (-2, 2)], 0.6),
]


def draw(rng: Rng, where: object, dtype: str, count: int) -> np.ndarray:
    if where == POSITIVE:  # every exponent alike, denormals included
        bits, top = ("i4", 0x7F800000) if dtype == "f4" else ("i8", 0x7FF0000000000000)
        return rng.integers(1, top, count).astype(bits).view(dtype)
    assert isinstance(where, tuple)
    low, high = where
    return rng.uniform(low, high, count).astype(dtype)


def units(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The error of float32 results in units in the last place of float64 references."""
    size = np.abs(exact)
    with np.errstate(all="ignore"):
        unit = np.maximum(2.0 ** (np.floor(np.log2(size)) - 23), 2.0**-149)
        error = np.abs(got.astype("f8") - exact) / unit
    right = (got == exact.astype("f4")) | (np.isnan(got) & np.isnan(exact))
    return np.where(right, np.minimum(np.nan_to_num(error), 0.5), np.nan_to_num(error, nan=np.inf))


@EACH_LEVEL
@pytest.mark.parametrize(("function", "reference", "ranges", "bound"), SINGLE, ids=[row[0] for row in SINGLE])
def test_float32(
    level: str, function: str, reference: Callable, ranges: list, bound: float, mapped: Mapped, rng: Rng
) -> None:
    worst = 0.0
    for where in ranges:
        x = draw(rng, where, "f4", SAMPLES if function != "erf" else SAMPLES // 10)
        with target.use(target.named(level)):
            got = mapped(function, x)
        with np.errstate(all="ignore"):
            error = units(got, reference(x.astype("f8")))
        at = int(error.argmax())
        worst = max(worst, float(error[at]))
        assert error[at] <= bound, f"{function}({x[at]!r}) = {got[at]!r} is {error[at]:.2f} units off"
    print(f"{level} {function} float32: {worst:.2f} units")


@EACH_LEVEL
def test_float32_pow(level: str, mapped: Mapped, rng: Rng) -> None:
    for where, power in ((POSITIVE, 3), ((0.5, 2), 80), ((0.99, 1.01), 8000)):
        x, y = draw(rng, where, "f4", SAMPLES), draw(rng, (-power, power), "f4", SAMPLES)
        with target.use(target.named(level)), np.errstate(all="ignore"):
            error = units(mapped("pow", x, y), x.astype("f8") ** y)
        at = int(error.argmax())
        assert error[at] <= 1, f"pow({x[at]!r}, {y[at]!r}) is {error[at]:.2f} units off"


# --- float64, against long doubles of 64 bits of mantissa ---

LONG = np.longdouble
EXTENDED = np.finfo(LONG).nmant >= 63


def long_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.exp(x), LONG(1)) / (1 + np.exp(-np.abs(x)))


def long_erf(x: np.ndarray) -> np.ndarray:
    # 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 3 ... (2n+1)): all terms positive
    size = np.abs(x)
    term, total = size.copy(), size.copy()
    for n in range(1, 200):
        term = term * (2 * size * size / (2 * n + 1))
        total = total + term
    root_pi = np.sqrt(LONG("3.14159265358979323846264338327950288"))
    return np.copysign(2 / root_pi * np.exp(-size * size) * total, x)


DOUBLE = [
    ("exp", np.exp, [(-745, 709.7), (-1, 1)], 1.1),
    ("expm1", np.expm1, [(-40, 709), (-1, 1), (-1e-3, 1e-3)], 2.0),
    ("log", np.log, [POSITIVE, (0.5, 2), (0.99, 1.01)], 1.0),
    ("log1p", np.log1p, [(-1, 3), (-0.5, 0.5), (0, 1e30)], 1.0),
    ("tanh", np.tanh, [(-20, 20), (-1, 1), (-1e-3, 1e-3)], 1.9),
    ("sigmoid", long_sigmoid, [(-745, 50), (-2, 2)], 1.9),
    ("erf", long_erf, [(-6, 6), (-1, 1)], 1.5),
    ("sin", np.sin, [(-10, 10), (-1e3, 1e3), (-1.6e6, 1.6e6), POSITIVE], 2.0),
    ("cos", np.cos, [(-10, 10), (-1e3, 1e3), (-1.6e6, 1.6e6), POSITIVE], 2.0),
    ("tan", np.tan, [(-10, 10), (-1e3, 1e3), (-1.6e6, 1.6e6), POSITIVE], 2.0),
    ("asin", np.arcsin, [(-1, 1), (0.4, 0.6), (-1e-3, 1e-3)], 1.9),
    ("acos", np.arccos, [(-1, 1), (0.4, 0.6), (0.999, 1)], 1.9),
    ("atan", np.arctan, [(-10, 10), (0.4, 0.7), (-1e-3, 1e-3), POSITIVE], 1.9),
    ("sinh", np.sinh, [(-710.4, 710.4), (-2, 2), (-1e-3, 1e-3)], 1.9),
    ("cosh", np.cosh, [(-710.4, 710.4), (-2, 2)], 1.9),
    ("asinh", np.arcsinh, [(-10, 10), (-1, 1), (-1e-3, 1e-3), POSITIVE], 2.0),
    ("acosh", np.arccosh, [(1, 3), (1, 1.001), (1, 1e300)], 2.0),
    ("atanh", np.arctanh, [(-1, 1), (-0.5, 0.5), (-1e-3, 1e-3)], 2.0),
    ("rsqrt", lambda x: 1 / np.sqrt(x), [POSITIVE], 1.6),
    ("exp2", np.exp2, [(-1074, 1023), (-1, 1)], 1.6),
    ("log2", np.log2, [POSITIVE, (0.5, 2), (0.99, 1.01)], 2.0),
    ("log10", np.log10, [POSITIVE, (0.5, 2), (0.99, 1.01)], 2.0),
    ("cbrt", np.cbrt, [POSITIVE, (-2, 2)], 1.2),
]


def units_of_double(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        rounded = exact.astype("f8")
        error = np.abs(got - exact) / np.maximum(np.spacing(np.abs(rounded)), 2.0**-1074)
    right = (got == rounded) | (np.isnan(got) & np.isnan(exact))
    error = error.astype("f8")
    return np.where(right, np.minimum(np.nan_to_num(error), 0.5), np.nan_to_num(error, nan=np.inf))


@pytest.mark.skipif(not EXTENDED, reason="needs long doubles longer than doubles")
@EACH_LEVEL
@pytest.mark.parametrize(("function", "reference", "ranges", "bound"), DOUBLE, ids=[row[0] for row in DOUBLE])
def test_float64(
    level: str, function: str, reference: Callable, ranges: list, bound: float, mapped: Mapped, rng: Rng
) -> None:
    worst = 0.0
    for where in ranges:
        x = draw(rng, where, "f8", SAMPLES // 4)
        with target.use(target.named(level)), np.errstate(all="ignore"):
            got = mapped(function, x)
            error = units_of_double(got, reference(x.astype(LONG)))
        at = int(error.argmax())
        worst = max(worst, float(error[at]))
        assert error[at] <= bound, f"{function}({x[at]!r}) = {got[at]!r} is {error[at]:.2f} units off"
    print(f"{level} {function} float64: {worst:.2f} units")


# --- special functions, against series in long doubles ---

# Function, ranges, bounds for float32 and for float64, a third above the largest errors seen. In float64 gamma's
# logarithm and derivatives have zeros, near which the bound is one on the error in last places of 1 (see
# benchmarks/accuracy.py for it in those of the larger term).
SPECIAL = [
    ("erfc", [(-6, 6), (0, 27), (-0.5, 0.5)], 1.0, 6.0),
    ("erfinv", [(-1, 1), (0.9999, 1), (-1e-3, 1e-3)], 1.0, 4.0),
    ("gamma", [(0, 9), (8, 171)], 1.0, 5.0),
    ("gamma", [(-9, 0), (-180, -100)], 1.0, 7.0),
    ("gammaln", [(0, 3), (0.99, 1.01), (1.99, 2.01), (0, 1e5), POSITIVE], 1.0, 5.0),
    ("gammaln", [(-30, 0)], 1.0, 24.0),
    ("digamma", [(0, 3), (1.46, 1.462), (0, 1e5), POSITIVE], 1.0, 5.0),
    ("digamma", [(-30, 0)], 1.0, 24.0),
    ("trigamma", [(0, 3), (0, 1e5), (-30, 0), POSITIVE], 1.0, 7.0),
    ("tetragamma", [(0, 3), (0, 1e5), (0, 30)], 1.0, 5.0),
]


@pytest.mark.skipif(not EXTENDED, reason="needs long doubles longer than doubles")
@EACH_LEVEL
@pytest.mark.parametrize(("function", "ranges", "single", "double"), SPECIAL, ids=[row[0] for row in SPECIAL])
def test_special_functions(
    level: str, function: str, ranges: list, single: float, double: float, mapped: Mapped, rng: Rng
) -> None:
    for where in ranges:
        for dtype, bound in (("f4", single), ("f8", double)):
            x = draw(rng, where, dtype, SAMPLES // 20)
            with target.use(target.named(level)), np.errstate(all="ignore"):
                got, exact = mapped(function, x), getattr(references, function)(x)
                error = units(got, exact.astype("f8")) if dtype == "f4" else units_of_double(got, exact)
                if dtype == "f8" and function in ("gammaln", "digamma"):  # near zeros
                    error = np.minimum(error, np.nan_to_num(np.abs(got - exact), nan=np.inf).astype("f8") / 2**-52)
            at = int(error.argmax())
            assert error[at] <= bound, f"{function}({x[at]!r}) = {got[at]!r}, {error[at]:.2f} off"


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_edges_of_special_functions(dtype: str, level: str, mapped: Mapped) -> None:
    zero, inf, nan = 0.0, np.inf, np.nan
    edges = {
        "erfc": [(zero, 1), (inf, 0), (-inf, 2), (nan, nan)],
        "erfinv": [(zero, 0), (-zero, -0.0), (1, inf), (-1, -inf), (1.5, nan), (inf, nan), (nan, nan)],
        "gamma": [
            (zero, inf),
            (-zero, -inf),
            (1, 1),
            (5, 24),
            (-1, nan),
            (-2, nan),
            (inf, inf),
            (-inf, nan),
            (nan, nan),
        ],
        "gammaln": [(zero, inf), (-zero, inf), (1, 0), (2, 0), (-1, inf), (inf, inf), (-inf, inf), (nan, nan)],
        "digamma": [(zero, -inf), (-zero, inf), (-1, nan), (inf, inf), (-inf, nan), (nan, nan)],
        "trigamma": [(zero, inf), (-1, inf), (inf, 0), (nan, nan)],
    }
    for function, rows in edges.items():
        x, wanted = (np.array(column, dtype) for column in zip(*rows, strict=True))
        with target.use(target.named(level)):
            assert_same_edges(mapped(function, x), wanted, x)


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_lengths_parts_and_signs(dtype: str, level: str, mapped: Mapped, rng: Rng) -> None:
    huge, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    points = np.array([*EDGES, huge, -huge, tiny, -tiny, 3 * tiny, huge / 3], dtype)
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(points, points))
    with target.use(target.named(level)), np.errstate(all="ignore"):
        exact = np.longdouble if dtype == "f8" else np.float64
        assert_same_edges(mapped("hypot", x, y), np.hypot(x.astype(exact), y.astype(exact)), np.stack([x, y], 1))
        for function in ("fmod", "copysign"):
            got, wanted = mapped(function, x, y), getattr(np, function)(x, y)
            np.testing.assert_array_equal(got, wanted)
            assert (np.signbit(got) == np.signbit(wanted))[~np.isnan(wanted)].all()
        x, y = (10.0 ** rng.uniform(-9, 9, (2, SAMPLES // 4))).astype(dtype)
        wanted = np.hypot(x.astype(exact), y.astype(exact))
        error = (units if dtype == "f4" else units_of_double)(mapped("hypot", x, y), wanted)
    assert error.max() <= 1.6


@pytest.mark.skipif(not EXTENDED, reason="needs long doubles longer than doubles")
@EACH_LEVEL
def test_float64_pow(level: str, mapped: Mapped, rng: Rng) -> None:
    for where, power in ((POSITIVE, 1.02), ((0.5, 2), 1000), ((0.999, 1.001), 6e5), ((0, 10), 3)):
        x, y = draw(rng, where, "f8", SAMPLES // 4), draw(rng, (-power, power), "f8", SAMPLES // 4)
        with target.use(target.named(level)), np.errstate(all="ignore"):
            error = units_of_double(mapped("pow", x, y), x.astype(LONG) ** y.astype(LONG))
        at = int(error.argmax())
        assert error[at] <= 1.5, f"pow({x[at]!r}, {y[at]!r}) is {error[at]:.2f} units off"


# --- edges ---

EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, 88.7, -88.7, 100.0, -104.5, 1e30, -1e30]


def edges(dtype: str) -> np.ndarray:
    info = np.finfo(dtype)
    return np.array([*EDGES, info.tiny, -info.tiny, info.smallest_subnormal, -info.smallest_subnormal, info.max], dtype)


def assert_same_edges(got: np.ndarray, expected: np.ndarray, x: np.ndarray) -> None:
    expected = expected.astype(got.dtype)
    tolerance = 8 * np.finfo(got.dtype).eps
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=4 * np.finfo(got.dtype).smallest_subnormal)
    for value, g, e in zip(x, got, expected, strict=True):
        assert np.isnan(e) or np.signbit(g) == np.signbit(e), f"sign at {value!r}: {g!r}, not {e!r}"


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "function",
    [
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "exp",
        "expm1",
        "log",
        "log1p",
        "tanh",
        "erf",
        "sqrt",
        "exp2",
        "log2",
        "log10",
        "cbrt",
        "floor",
        "ceil",
        "trunc",
        "round",
        "abs",
        "square",
    ],
)
def test_edges_are_numpys(function: str, dtype: str, level: str, mapped: Mapped) -> None:
    references: dict[str, Callable] = {"erf": erf, "round": np.rint}
    reference = references.get(function) or getattr(np, function)
    x = edges(dtype)
    with target.use(target.named(level)), np.errstate(all="ignore"):
        assert_same_edges(mapped(function, x), reference(x.astype("f8")), x)


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_edges_of_sigmoid_sin_cos_sign(dtype: str, level: str, mapped: Mapped) -> None:
    x = edges(dtype)
    small = x
    with target.use(target.named(level)), np.errstate(all="ignore"):
        assert_same_edges(mapped("sigmoid", x), sigmoid(x.astype("f8")), x)
        assert_same_edges(mapped("sin", small), np.sin(small.astype("f8")), small)
        assert_same_edges(mapped("cos", small), np.cos(small.astype("f8")), small)
        assert_same_edges(mapped("tan", small), np.tan(small.astype("f8")), small)
        np.testing.assert_array_equal(mapped("sign", x), np.sign(x))


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_edges_of_pow(dtype: str, level: str, mapped: Mapped) -> None:
    points = np.array([*EDGES[:10], 3.0, -3.0, 1e30, -1e30, 2.5, -2.5, 1e-30, np.finfo(dtype).tiny], dtype)
    x, y = (a.ravel() for a in np.meshgrid(points, points))
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    with target.use(target.named(level)), np.errstate(all="ignore"):
        assert_same_edges(mapped("pow", x, y), np.power(x, y), np.stack([x, y], 1))


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_angles_of_points(dtype: str, level: str, mapped: Mapped, rng: Rng) -> None:
    """All quadrants, all edges, points near the axes and the diagonals, sizes near overflow and underflow."""
    huge, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    points = np.array([*EDGES, huge, -huge, tiny, -tiny, 3 * tiny, huge / 3], dtype)
    y, x = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(points, points))
    exact = np.longdouble if dtype == "f8" else np.float64
    with target.use(target.named(level)), np.errstate(all="ignore"):
        assert_same_edges(mapped("atan2", y, x), np.arctan2(y.astype(exact), x.astype(exact)), np.stack([y, x], 1))
        size = 10.0 ** rng.uniform(-6, 6, SAMPLES // 4)
        angle = rng.choice(np.arange(-4, 5), size.size) * np.pi / 4 + rng.normal(size=size.size) ** 5 * 0.1
        y, x = (size * np.sin(angle)).astype(dtype), (size * np.cos(angle)).astype(dtype)
        got, wanted = mapped("atan2", y, x), np.arctan2(y.astype(exact), x.astype(exact))
        error = (units if dtype == "f4" else units_of_double)(got, wanted)
    at = int(error.argmax())
    assert error[at] <= (0.6 if dtype == "f4" else 2), f"atan2({y[at]!r}, {x[at]!r}) is {error[at]:.2f} units off"


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_maximum_and_minimum_propagate_nan(dtype: str, level: str, mapped: Mapped) -> None:
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(edges(dtype), edges(dtype)))
    with target.use(target.named(level)):
        np.testing.assert_array_equal(mapped("maximum", x, y), np.maximum(x, y))
        np.testing.assert_array_equal(mapped("minimum", x, y), np.minimum(x, y))


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_tests_of_numbers(dtype: str, level: str, mapped: Mapped) -> None:
    x = edges(dtype)
    with target.use(target.named(level)):
        for function in ("isnan", "isinf", "isfinite", "logical_not"):
            np.testing.assert_array_equal(mapped(function, x, result="bool"), getattr(np, function)(x))


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rounding_halves_and_large_numbers(dtype: str, level: str, mapped: Mapped, rng: Rng) -> None:
    x = np.concatenate([np.arange(-9, 9) / 2, rng.uniform(-1e4, 1e4, 1000), rng.uniform(-1e18, 1e18, 100)])
    x = x.astype(dtype)
    with target.use(target.named(level)):
        for function, reference in (("round", np.rint), ("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc)):
            np.testing.assert_array_equal(mapped(function, x), reference(x), err_msg=function)


# --- division with a floor, integers ---


@EACH_LEVEL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_float_division_is_numpys(dtype: str, level: str, mapped: Mapped, rng: Rng) -> None:
    size = rng.uniform(-30, 30, (2, 3000))
    numbers = (10**size * rng.choice([-1, 1], size.shape)).astype(dtype)
    ex, ey = np.meshgrid(edges(dtype), edges(dtype))
    x = np.concatenate([numbers[0], ex.ravel(), rng.uniform(-9, 9, 1000).astype(dtype)])
    y = np.concatenate([numbers[1], ey.ravel(), rng.uniform(-2, 2, 1000).astype(dtype)])
    with target.use(target.named(level)), np.errstate(all="ignore"):
        np.testing.assert_array_equal(mapped("remainder", x, y), np.remainder(x, y))
        np.testing.assert_array_equal(mapped("floor_divide", x, y), np.floor_divide(x, y))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_integer_division_never_traps(dtype: str, mapped: Mapped, rng: Rng) -> None:
    info = np.iinfo(dtype)
    special = np.array([0, 1, info.max, info.min, info.max - 1, info.min + 1, 7, 3], dtype)
    special = np.concatenate([special, (-special[1:]).astype(dtype)])
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(mapped("floor_divide", x, y), np.where(y == 0, 0, np.floor_divide(x, y)))
        np.testing.assert_array_equal(mapped("remainder", x, y), np.where(y == 0, 0, np.remainder(x, y)))


@pytest.mark.parametrize("dtype", ["i4", "i8", "u1", "u8"])
def test_integer_functions(dtype: str, mapped: Mapped, rng: Rng) -> None:
    x = rng.integers(-9 if dtype[0] == "i" else 0, 10, 200).astype(dtype)
    y = rng.integers(0, 30, 200).astype(dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(mapped("pow", x, y), np.power(x, y))
        for function in ("abs", "sign", "square"):
            np.testing.assert_array_equal(mapped(function, x), getattr(np, function)(x), err_msg=function)
        for function in ("maximum", "minimum"):
            np.testing.assert_array_equal(mapped(function, x, y), getattr(np, function)(x, y), err_msg=function)
        for function in ("floor", "ceil", "round", "trunc"):
            np.testing.assert_array_equal(mapped(function, x), x)
        for function in ("isnan", "isinf", "isfinite", "logical_not"):
            np.testing.assert_array_equal(mapped(function, x, result="bool"), getattr(np, function)(x))


def test_negative_integer_powers(mapped: Mapped) -> None:
    x, y = np.array([1, -1, -1, 2, -3, 0], "i4"), np.array([-5, -5, -4, -1, -2, -1], "i4")
    np.testing.assert_array_equal(mapped("pow", x, y), [1, -1, 1, 0, 0, 0])


# --- the code ---


FULL = ("exp", "expm1", "exp2", "log", "log1p", "tanh", "sigmoid", "erf", "sin", "cos", "rsqrt", "floor", "round")
WIDE = (
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "log2",
    "log10",
    "cbrt",
)  # float32 in float64
OPS = ("erfc", "erfinv", "gamma", "gammaln", "digamma", "trigamma")  # the same, and not functions of m


@pytest.mark.skipif(not target.host().x86, reason="looks at x86 assembly")
@EACH_LEVEL
@pytest.mark.parametrize("code", ["f32", "f64"])
def test_functions_are_branchless_vector_code_without_calls(level: str, code: str) -> None:
    for function in (*FULL, *WIDE, *OPS):
        inside = 8 if code == "f64" or function in (*WIDE, *OPS) else 4  # bytes of the numbers that it computes with
        lanes = target.named(level).vector_bytes // inside
        kind = f"<{lanes} x {'float' if code == 'f32' else 'double'}>"
        source = (
            "def f(args, begin, end):\n    x = load_i64(args, 0)\n    for i in range(begin, end):\n"
            f"        store_{code}(x, i, g(load_{code}(x, i)))\n"
        )
        source = source.replace("g(load", f"{function}(load") if function in OPS else source
        kernel = Kernel("f", source, (("g", "intrinsics:math_intrinsic", (function,)),))
        with target.use(target.named(level)):
            text = kernel.llvm
            assert f"store {kind}" in text or (code == "f32" and "store <4 x float>" in text and level == "generic"), (
                f"{function} {code} is not vector code"
            )
            assembly = kernel.assembly
        calls = re.findall(r"\tcall\w*\s+(\S+)", assembly)
        assert all(name.startswith("gluonish_rare_") for name in calls) and "gather" not in assembly, function


def test_no_pass_may_reassociate_a_function() -> None:
    source = "def f(args, begin, end):\n    x = load_i64(args, 0)\n    for i in range(end):\n"
    externals = (("g", "intrinsics:math_intrinsic", ("log1p",)),)
    text = Kernel("f", source + "        store_f32(x, i, g(load_f32(x, i)))\n", externals).llvm
    assert "reassoc" not in text and " fast " not in text and "nnan" not in text
    text = Kernel("f", source + "        v = g(load_f32(x, i))\n        store_f32(x, i, v * v + v)\n", externals).llvm
    assert "reassoc" in text and "nnan" not in text and "ninf" not in text


def test_a_planted_fault_is_seen(mapped: Mapped, monkeypatch: pytest.MonkeyPatch, rng: Rng) -> None:
    """The bounds above are tight enough to notice one wrong coefficient in its sixth digit."""
    from gluonish.kernels import intrinsics, vector_steps

    terms = list(vector_steps.F32.exp)
    terms[1] *= 1 + 1e-5
    broken = vector_steps.Format(**{**vector_steps.F32.__dict__, "exp": tuple(terms)})
    monkeypatch.setattr(vector_steps, "F32", broken)
    monkeypatch.setenv("GLUONISH_CACHE", "/proc/nowhere")  # the wrong code must not be kept
    monkeypatch.setattr("gluonish.kernels.compile._addresses", {})
    monkeypatch.setattr("gluonish.kernels.cache._warn_once", lambda *reason: None)
    intrinsics.op_intrinsic.cache_clear()
    x = rng.uniform(-0.34, 0.34, SAMPLES).astype("f4")
    assert units(mapped("expm1", x), np.expm1(x.astype("f8"))).max() > 1.6
