"""Op: one immutable record of everything about a primitive operation, and the registry of all of them.

A record lives in exactly one file under `nd/ops/`. Everything else (eager evaluation, tape, tracing, kernels, tests)
reads it and knows no op by name. Every op has exactly one output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.dtypes import in_singles, is_bfloat16, is_float, is_half
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.size import Size, SizeLike

Shape = tuple[SizeLike, ...]
FLOAT = np.dtype("float32")
BOOL = np.dtype("bool")
INDEX = np.dtype("int64")


class Spec(NamedTuple):
    """What is known of an array without its values."""

    shape: Shape
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{shape_text(self.shape)} {self.dtype}"


class Sample(NamedTuple):
    """Inputs that the laws try an op on: arrays (or Python numbers) and attributes."""

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = {}


_BITS = ("move", "create", "gather")  # families that only copy numbers


@dataclass(frozen=True, eq=False)
class Op:
    """A primitive operation.

    name: the array API's name where it has one.
    family: how a loop can treat it: elementwise, move, reduce, gather, scatter, sort, contract, attention, scan,
    window, random, create, composite.
    forward: NumPy arrays (and Python numbers) -> NumPy array; the eager path and the oracle.
    rule: Specs (and Python numbers) -> Spec; raises the error a user sees when inputs do not fit.
    vjp: per input a function (gradient, output, *inputs, **attrs) -> gradient of that input, written with ops; or one
        function with the input's position as first argument; None for an input that has no gradient.
    parts: for composite ops, the same by other ops: what stands in a graph in their place.
    body: for elementwise ops, the scalar computation over a math namespace (see `nd/math.py`).
    accepts: "any"; "number" for ops that first turn bools into int64; "float" for ops that turn integers into float32.
    promote: whether inputs of different dtypes are converted to a common one first.
    sample: rng -> list of Sample, for the laws.
    smooth: whether the laws may differentiate it twice.
    raw: the forward as it was given; `forward` itself computes half-width floats in float32.
    """

    name: str
    family: str
    forward: Callable[..., Any]
    rule: Callable[..., Spec]
    vjp: Any = None
    parts: Callable[..., Any] | None = field(default=None, kw_only=True)
    body: Callable[..., Any] | None = None
    accepts: str = "any"
    promote: bool = True
    doc: str = ""
    sample: Callable[[np.random.Generator], list[Sample]] = field(default=lambda rng: [])
    smooth: bool = True
    raw: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "raw", self.forward)
        if self.family not in _BITS and self.name != "cast":
            object.__setattr__(self, "forward", in_singles(self.forward))

    def __call__(self, *inputs: Any, **attrs: Any) -> Any:
        """Applies the op: to NDArrays, and to anything that can become one."""
        return dispatch.bind(self, self.prepared(inputs), attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def prepared(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Operands as `bind` wants them: NDArrays of one dtype, Python numbers left as they are (weak)."""
        scalars = self.family == "elementwise"
        array, found = dispatch._array_type, False
        for x in inputs:  # the common case has nothing to convert: float32 arrays, and numbers beside them
            if isinstance(x, array):
                if x._data.dtype is not FLOAT:
                    break
                found = True
            elif not scalars or type(x) not in _NUMBERS:
                break
        else:
            if found:
                return tuple(inputs)
        arrays = [x if scalars and isinstance(x, (bool, int, float, Size)) else dispatch.as_array(x) for x in inputs]
        if not self.promote or not arrays:
            return tuple(arrays)
        return _promoted(self, arrays)

    def gradient(self, position: int, grad: Any, out: Any, inputs: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """The gradient of one input, or None where it has none."""
        if self.vjp is None:
            return None
        if callable(self.vjp):
            return self.vjp(position, grad, out, *inputs, **attrs)
        rule = self.vjp[position]
        return None if rule is None else rule(grad, out, *inputs, **attrs)


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Adds a record; a name may be taken once."""
    if op.name in OPS:
        raise ValueError(f"op {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's floating-point warnings off: Inf and NaN are answers here, not accidents."""

    return np.errstate(all="ignore")(function)


_NUMBERS = (float, int, bool)


def refuse(op: str, rule: str, *specs: Any) -> ValueError:
    """The error for inputs that do not fit: which op, which rule, what came, where."""
    got = ", ".join(f"{shape_text(s.shape)} {s.dtype}" if hasattr(s, "shape") else repr(s) for s in specs)
    return ValueError(f"{op}: {rule}; got {got} ({user_line()})")


def result_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The common dtype: the widest of the highest kind (bool < integer < float), so int64 with float32 is float32.

    Raises: TypeError for uint64 with a signed integer, which no integer dtype can hold.
    """
    kinds = [_KINDS[d.kind] for d in dtypes]
    top = max(kinds)
    highest = [d for d, k in zip(dtypes, kinds) if k == top]
    if top == 2 and any(is_bfloat16(d) for d in highest) and any(d == np.float16 for d in highest):
        highest.append(FLOAT)  # neither half-width type holds the other
        highest = [d for d in highest if not is_half(d)]
    common = np.result_type(*highest)
    if top == 1 and common.kind == "f":
        names = " and ".join(d.name for d in dtypes)
        raise TypeError(f"{names} have no common integer dtype; convert one with astype ({user_line()})")
    return np.dtype("int32") if common == np.int16 else common  # int16 is not among our dtypes


_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2}  # V: bfloat16


def _promoted(op: Op, arrays: list[Any]) -> tuple[Any, ...]:
    dtypes = [a.dtype for a in arrays if hasattr(a, "dtype")]
    if not dtypes:
        dtypes = [_number_dtype(a) for a in arrays]
    target = dtypes[0] if all(d is dtypes[0] for d in dtypes) else result_dtype(dtypes)
    scalars_float = any(isinstance(a, float) for a in arrays)
    if not is_float(target) and (op.accepts == "float" or scalars_float):
        target = FLOAT
    elif target.kind == "b" and (op.accepts == "number" or any(type(a) is int or isinstance(a, Size) for a in arrays)):
        target = INDEX
    if not any(hasattr(a, "dtype") for a in arrays):
        return tuple(dispatch.as_array(np.asarray(a, target)) for a in arrays)
    return tuple(a.astype(target) if hasattr(a, "dtype") and a.dtype != target else a for a in arrays)


def _number_dtype(number: Any) -> np.dtype:
    if isinstance(number, bool):
        return BOOL
    return FLOAT if isinstance(number, float) else INDEX
