"""Making arrays: from Python and NumPy values, constants, ranges.

Python floats and lists of them become float32, Python ints int64; NumPy arrays keep their dtype. While tracing, shapes
may hold symbolic sizes and the constants become part of the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.device import Device, checked
from gluonish.nd.dtypes import bfloat16, is_bfloat16, is_float
from gluonish.nd.errors import user_line
from gluonish.nd.ops.create import arange_op, full_op
from gluonish.nd.size import Size

DTYPES = {
    name: np.dtype(name)
    for name in ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
}


def as_dtype(dtype: Any, default: np.dtype | None = None) -> np.dtype:
    """A supported NumPy dtype from a name, type or dtype.

    Raises: TypeError for anything else.
    """
    if dtype is None and default is not None:
        return default
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16()
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is not None and is_bfloat16(found):
        return found
    if found is None or found.name not in DTYPES:
        names = ", ".join((*DTYPES, "bfloat16"))
        raise TypeError(f"dtype {dtype!r} is not supported; use one of {names} ({user_line()})")
    return DTYPES[found.name]  # in the byte order of this machine


def array(source: Any, dtype: Any = None, device: Device | None = None, ctx: Device | None = None) -> NDArray:
    """A new array with a copy of the values of `source` (number, nested lists, NumPy array or NDArray).

    >>> from gluonish import nd
    >>> nd.array([[1.0, 2.0]]).dtype.name
    'float32'
    """
    checked(device or ctx)
    if isinstance(source, NDArray):
        return NDArray(source.asnumpy() if dtype is None else source.asnumpy().astype(as_dtype(dtype)))
    own = isinstance(source, (np.ndarray, np.generic)) or hasattr(source, "__array__")
    try:
        if not own and any(isinstance(x, NDArray) for x in source if source is not None):
            source = [x.asnumpy() if isinstance(x, NDArray) else x for x in source]
            own = True
    except TypeError:
        own = own or False
    try:
        data = np.array(source, order="C")
    except ValueError as error:
        raise ValueError(f"array: the nested lists do not form a regular shape: {error} ({user_line()})") from None
    if data.dtype.kind not in "biu" and not is_float(data.dtype):
        raise TypeError(f"array: cannot make numbers of {type(source).__name__} {source!r:.60} ({user_line()})")
    if dtype is None:
        dtype = np.float32 if not own and data.dtype == np.float64 else data.dtype
    return NDArray(data.astype(as_dtype(dtype), copy=False))


def _shape(shape: Any) -> tuple[Any, ...]:
    out = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for size in out:
        if not isinstance(size, (int, np.integer, Size)) or (isinstance(size, int) and size < 0):
            raise ValueError(f"a shape holds non-negative integers, got {shape!r} ({user_line()})")
    return out


def full(shape: Any, value: Any, dtype: Any = None, device: Device | None = None, ctx: Device | None = None) -> NDArray:
    """An array of one repeated value; float32 unless told otherwise."""
    checked(device or ctx)
    dtype = as_dtype(dtype, np.dtype("float32"))
    if isinstance(value, float) and dtype.kind in "iu" and value % 1 != 0:  # NaN and infinities too
        raise ValueError(f"full: {value} is not a whole number, as {dtype} needs ({user_line()})")
    return dispatch.bind(full_op, (), {"shape": _shape(shape), "value": value, "dtype": dtype})


def zeros(shape: Any, dtype: Any = None, device: Device | None = None, ctx: Device | None = None) -> NDArray:
    """An array of zeros; float32 unless told otherwise."""
    return full(shape, 0, dtype, device, ctx)


def ones(shape: Any, dtype: Any = None, device: Device | None = None, ctx: Device | None = None) -> NDArray:
    """An array of ones; float32 unless told otherwise."""
    return full(shape, 1, dtype, device, ctx)


def zeros_like(x: NDArray, dtype: Any = None) -> NDArray:
    """Zeros with the shape of x, and its dtype unless told otherwise."""
    return full(x.shape, 0, dtype or x.dtype)


def ones_like(x: NDArray, dtype: Any = None) -> NDArray:
    """Ones with the shape of x, and its dtype unless told otherwise."""
    return full(x.shape, 1, dtype or x.dtype)


def full_like(x: NDArray, value: Any, dtype: Any = None) -> NDArray:
    """`value` repeated over the shape of x."""
    return full(x.shape, value, dtype or x.dtype)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> NDArray:
    """start, start + step, ... below stop (NumPy's meaning); int64 for integers, float32 otherwise."""
    start, stop = (0, start) if stop is None else (start, stop)
    whole = all(isinstance(v, (int, np.integer, Size)) for v in (start, stop, step))
    if isinstance(step, (int, float, np.number)) and step == 0:
        raise ValueError(f"arange: step must not be 0 ({user_line()})")
    if whole:
        span = stop - start if step > 0 else start - stop
        count = (span + (abs(step) - 1)) // abs(step) if span > 0 else 0
    else:
        count = max(0, int(np.ceil((stop - start) / step)))
    dtype = as_dtype(dtype, np.dtype("int64" if whole else "float32"))
    return dispatch.bind(arange_op, (), {"count": count, "start": start, "step": step, "dtype": dtype})


def linspace(start: float, stop: float, num: int, endpoint: bool = True, dtype: Any = None) -> NDArray:
    """`num` evenly spaced numbers from start to stop."""
    return array(np.linspace(start, stop, num, endpoint), as_dtype(dtype, np.dtype("float32")))


def eye(rows: int, columns: int | None = None, k: int = 0, dtype: Any = None) -> NDArray:
    """Ones on the k-th diagonal, zeros elsewhere."""
    return array(np.eye(rows, columns, k), as_dtype(dtype, np.dtype("float32")))
