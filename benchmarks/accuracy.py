"""`python -m benchmarks accuracy`: how far functions are from the exact result, in units in the last place.

Every function of one argument is asked for a sample of all 2^32 float32 numbers (every exponent, both signs, NaN, Inf
and denormals included), with `--all` for each of them, through a hybridized call. The reference is NumPy's float64
function, or where NumPy has none that of `references.py`. For each function a line says the worst error, where it
is, and whether the special values are right: NaN where the reference is NaN and nowhere else, Inf where it rounds to
Inf, and the sign of zeros.

A second line says the same of float64, for a sample of all exponents and of ordinary numbers, against long doubles
(on machines where these are longer than doubles).

An error is the distance to the exact result in units of the last place of that result: 0.5 is correctly rounded. Where
`gammaln` and `digamma` left of 0 are the difference of two terms, the float64 unit is that of the larger term: near
their zeros there the difference of two roundings is what remains.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

import gluonish as gl
from benchmarks import references
from gluonish import nd
from gluonish.nd import math as eager

CHUNK = 1 << 15  # numbers at a time: the float64 arrays stay in cache
PATTERNS = 1 << 32
SAMPLED = 1 << 21
SAMPLED_DOUBLES = 1 << 16
LONG = np.longdouble
EXTENDED = np.finfo(LONG).nmant >= 63
Reference = Callable[..., np.ndarray]


@dataclass
class Function:
    """A function under test. bound: units that it may be off. long: the reference for float64, if it is another.
    reflected: whether it is a difference of two terms left of 0."""

    name: str
    reference: Reference
    bound: float = 2.0
    arguments: int = 1
    long: Reference | None = None
    reflected: bool = False


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.where(np.isnan(x), x, 1.0)) / (1 + e)


def _own(name: str) -> Reference:
    return lambda *x: getattr(eager, name)(*x)


def _long_erf(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, references.erf(x), np.copysign(1 - references.erfc(np.abs(x)), x))


FUNCTIONS = [
    *(Function(name, getattr(np, name)) for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt")),
    Function("sigmoid", _sigmoid),
    Function("rsqrt", lambda x: 1 / np.sqrt(x)),
    Function("erf", _own("erf"), long=_long_erf),
    Function("erfc", references.erfc, 4.0),
    Function("erfinv", references.erfinv),
    *(Function(name, getattr(references, name), 4.0) for name in ("gamma", "trigamma")),
    *(Function(name, getattr(references, name), 4.0, reflected=True) for name in ("gammaln", "digamma")),
    *(Function(name, getattr(np, name)) for name in ("exp2", "log2", "log10", "cbrt")),
    *(Function(name, getattr(np, name)) for name in ("sin", "cos", "tan")),
    *(Function(name, getattr(np, name)) for name in ("sinh", "cosh")),
    *(Function(f"a{name}", getattr(np, f"arc{name}")) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")),
    Function("atan2", np.arctan2, arguments=2),
    Function("hypot", np.hypot, arguments=2),
    Function("power", np.power, bound=4.0, arguments=2),
]


@dataclass
class Result:
    """What was found: the largest error, the arguments there, and the special values that are wrong."""

    worst: float = 0.0
    at: tuple[float, ...] = ()
    wrong: int = 0
    first_wrong: tuple[float, ...] = ()
    count: int = 0

    def add(self, other: Result) -> None:
        """Takes in what was found elsewhere."""
        self.count += other.count
        if other.worst > self.worst:
            self.worst, self.at = other.worst, other.at
        if other.wrong and not self.wrong:
            self.first_wrong = other.first_wrong
        self.wrong += other.wrong


def units(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The error of float32 results in units in the last place of float64 references; NaN where either is not finite.

    An Inf for a finite reference counts as 2^128, the number that would come next.
    """
    exponent = (exact.view(np.int64) & 0x7FF0000000000000).view(np.float64)
    unit = np.maximum(exponent * 2.0**-23, 2.0**-149)
    wide = got.astype(np.float64)
    wide = np.where(np.isinf(got), np.copysign(2.0**128, wide), wide)
    return np.abs(wide - exact) / unit


def judge(got: np.ndarray, exact: np.ndarray, inputs: Sequence[np.ndarray]) -> Result:
    """Compares float32 results with float64 references."""
    with np.errstate(all="ignore"):
        return _judged(got, exact, inputs)


def _judged(got: np.ndarray, exact: np.ndarray, inputs: Sequence[np.ndarray]) -> Result:
    error = units(got, exact)
    rounded = exact.astype(np.float32)
    special = ~(np.isfinite(rounded) & (rounded != 0) & np.isfinite(got))
    right = (got == rounded) & (np.signbit(got) == np.signbit(rounded)) | (np.isnan(got) & np.isnan(rounded))
    # at the edges of Inf and of the smallest denormal one unit more or less is an error of one unit, not a wrong kind
    near = np.isfinite(exact) & (exact != 0) & (error <= 2)
    bad = special & ~right & ~near
    error = np.where(bad | ~np.isfinite(error) | right & special, 0.0, error)
    at = int(np.argmax(error))
    result = Result(float(error[at]), tuple(float(x[at]) for x in inputs), int(bad.sum()), count=got.size)
    if result.wrong:
        result.first_wrong = tuple(float(x[int(np.argmax(bad))]) for x in inputs)
    return result


def judge_doubles(function: Function, got: np.ndarray, exact: np.ndarray, inputs: Sequence[np.ndarray]) -> Result:
    """Compares float64 results with references in long doubles."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float64)
        size = np.abs(rounded)
        if function.reflected:  # the larger of the two terms
            term = np.asarray(function.reference(1 - inputs[0].astype(LONG)), np.float64)
            size = np.where(inputs[0] < 0, np.fmax(size, np.fmax(np.abs(term), np.abs(rounded - term))), size)
        error = (np.abs(got - exact) / np.maximum(np.spacing(size), 2.0**-1074)).astype(np.float64)
    right = (got == rounded) & (np.signbit(got) == np.signbit(rounded)) | (np.isnan(got) & np.isnan(rounded))
    special = ~(np.isfinite(rounded) & (rounded != 0) & np.isfinite(got))
    edge = np.isinf(rounded) & np.isfinite(exact) & (np.abs(got) > 1.7e308)  # of Inf
    bad = special & ~right & ~(error <= 2) & ~edge
    error = np.where(special | ~np.isfinite(error), 0.0, error)
    at = int(np.argmax(error))
    result = Result(float(error[at]), tuple(float(x[at]) for x in inputs), int(bad.sum()), count=got.size)
    if result.wrong:
        result.first_wrong = tuple(float(x[int(np.argmax(bad))]) for x in inputs)
    return result


def doubles(function: Function, seed: int) -> Iterator[list[np.ndarray]]:
    """Arguments in float64: of all exponents, and as many of ordinary size, near 0, 1 and 2 too."""
    rng = np.random.default_rng(seed)
    for _ in range(max(1, SAMPLED_DOUBLES // (1 << 13))):
        found = []
        for _ in range(function.arguments):
            bits = rng.integers(0, 1 << 64, 1 << 12, dtype=np.uint64).view(np.float64)
            near = rng.choice([-1.0, 0.0, 1.0, 2.0], 1 << 10) + rng.uniform(-0.05, 0.05, 1 << 10)
            found.append(np.concatenate([bits, near, rng.uniform(-40, 40, 1 << 10), rng.uniform(-3, 3, 1 << 11)]))
        yield found


def measure_doubles(function: Function, seed: int = 0) -> Result:
    """Runs the function over a sample of float64."""
    compiled = gl.hybridize(getattr(nd, function.name))
    total = Result()
    for inputs in doubles(function, seed):
        got = compiled(*[nd.NDArray(x) for x in inputs]).asnumpy()
        with np.errstate(all="ignore"):
            exact = (function.long or function.reference)(*[x.astype(LONG) for x in inputs])
            total.add(judge_doubles(function, got, np.asarray(exact, LONG), inputs))
    return total


def chunks(function: Function, every: bool, seed: int) -> Iterator[list[np.ndarray]]:
    """The arguments, chunk by chunk."""
    if function.arguments == 1:
        step = 1 if every else PATTERNS // SAMPLED
        rng = np.random.default_rng(seed)
        for begin in range(0, PATTERNS, CHUNK * step):
            bits = np.arange(begin, min(begin + CHUNK * step, PATTERNS), step, dtype=np.uint32)
            if not every:
                bits += rng.integers(0, step, bits.size, dtype=np.uint32)
            yield [bits.view(np.float32)]
        return
    rng = np.random.default_rng(seed)
    for _ in range((1 << 26 if every else SAMPLED) // CHUNK):
        x = rng.integers(0, PATTERNS, CHUNK, dtype=np.uint32).view(np.float32).copy()
        y = rng.integers(0, PATTERNS, CHUNK, dtype=np.uint32).view(np.float32).copy()
        half = CHUNK // 2  # most random pairs give 0 or Inf: the other half is near 1
        x[:half] = np.exp2(rng.uniform(-8, 8, half)) * rng.choice([-1, 1], half, p=[0.1, 0.9])
        y[:half] = rng.uniform(-40, 40, half)
        yield [x, y]


def measure(function: Function, every: bool = False, seed: int = 0, threads: int = 2) -> Result:
    """Runs the function over its arguments."""
    compiled = gl.hybridize(getattr(nd, function.name))

    def one(inputs: list[np.ndarray]) -> Result:
        got = compiled(*[nd.NDArray(x) for x in inputs]).asnumpy()
        with np.errstate(all="ignore"):
            exact = function.reference(*[x.astype(np.float64) for x in inputs])
            return judge(got, exact.astype(np.float64), inputs)

    total = Result()
    with ThreadPoolExecutor(threads) as pool, gl.num_threads(1):
        for result in pool.map(one, chunks(function, every, seed)):
            total.add(result)
    return total


def speed(name: str, arguments: int, dtype: str = "float32") -> float:
    """Nanoseconds for one number, one thread, data in cache."""
    x = [nd.NDArray(np.random.default_rng(0).uniform(0.1, 0.9, 1 << 14).astype(dtype)) for _ in range(arguments)]
    compiled = gl.hybridize(getattr(nd, name))
    best = math.inf
    with gl.num_threads(1):
        compiled(*x)
        for _ in range(200):
            start = time.perf_counter()
            compiled(*x)
            best = min(best, time.perf_counter() - start)
    return best / (1 << 14) * 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 if a function misses its bound or has wrong special values, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy", description="Errors of functions.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="functions (default: all)")
    parser.add_argument("--all", action="store_true", help="every float32 number, not a sample (minutes)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sample (default: 0)")
    chosen = parser.parse_args(arguments)
    known = {function.name: function for function in FUNCTIONS}
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        print(f"benchmarks accuracy: no function {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"{'function':10}{'':8}{'units':>7}{'bound':>7}  {'at':30}{'special':>9}{'ns':>7}{'tried':>9}")
    missed = False
    for function in [known[name] for name in chosen.names] or FUNCTIONS:
        result = measure(function, chosen.all, chosen.seed)
        missed |= result.worst > function.bound or result.wrong > 0
        print(_line(function, "float32", result), flush=True)
        if EXTENDED:
            result = measure_doubles(function, chosen.seed)
            missed |= result.worst > function.bound or result.wrong > 0
            print(_line(function, "float64", result), flush=True)
    return int(missed)


def _line(function: Function, dtype: str, result: Result) -> str:
    where = ", ".join(f"{x:.9g}" for x in result.at)
    first = ", ".join(f"{x:.9g}" for x in result.first_wrong)
    special = "right" if not result.wrong else f"{result.wrong} wrong, first ({first})"
    mark = "" if result.worst <= function.bound else "  over its bound"
    row: list[Any] = [f"{function.name:10}{dtype:8}{result.worst:7.2f}{function.bound:7.1f}  {where:30}{special:>9}"]
    row += [f"{speed(function.name, function.arguments, dtype):7.2f}", f"{result.count:9.1e}", mark]
    return "".join(row)
