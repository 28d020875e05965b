"""One check for all drawn cases: eager and hybridized values and gradients against a definition in float64.

A gradient is compared along one random direction with the numeric derivative of the definition, so definitions need no
gradients of their own. Compiled functions are kept for the whole run under a key, since sizes are no part of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from drawn.drawing import Drawn

from gluonish import autograd, nd
from gluonish.hybrid import compile_function
from gluonish.nd.dtypes import is_float

ROOM = {"float64": 1e-11, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest number
SLOPE = {"float64": 3e-6, "float32": 3e-4, "float16": 2e-2, "bfloat16": 1e-1}
STEP = 1e-6
_compiled: dict[Hashable, Callable[..., Any]] = {}


def compiled(key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled at its first call under this key; equal keys must mean equal functions."""
    if key not in _compiled:
        _compiled[key] = compile_function(function)
    return _compiled[key]


def check(
    key: Hashable,
    function: Callable[..., nd.NDArray],
    definition: Callable[..., np.ndarray],
    inputs: Sequence[Drawn],
    dtype: str = "",
    slopes: bool = True,
    room: float = 1.0,
) -> None:
    """dtype: of the result, that of the first input if it is not given. slopes: whether to compare gradients."""
    dtype = dtype or inputs[0].dtype
    with np.errstate(all="ignore"):
        wanted = np.asarray(definition(*[x.values for x in inputs]))
    for name, run in (("eager", function), ("hybrid", compiled((key, *(x.dtype for x in inputs)), function))):
        arrays = [nd.NDArray(x.array()) for x in inputs]
        for x in arrays if slopes else ():
            if is_float(x.dtype):
                x.attach_grad()
        with autograd.record() if slopes else autograd.pause():
            out = run(*arrays)
        assert (out.shape, out.dtype) == (wanted.shape, np.dtype(dtype)), f"{name}: {out.shape} {out.dtype}"
        close(out.asnumpy(), wanted, dtype, room, name)
        if slopes:
            check_slopes(out, arrays, definition, inputs, room, name)


def close(got: np.ndarray, wanted: np.ndarray, dtype: str, room: float, name: str) -> None:
    """Equal but for rounding; exactly for integers; NaN and infinities in the same places."""
    if not is_float(np.dtype(dtype)):
        np.testing.assert_array_equal(got, wanted, name)
        return
    finite = np.abs(wanted[np.isfinite(wanted)])
    tolerance = room * ROOM[dtype] * (1 + float(finite.max(initial=0)))
    np.testing.assert_allclose(got.astype("float64"), wanted, rtol=0, atol=tolerance, err_msg=name)


def check_slopes(
    out: nd.NDArray, arrays: Sequence[Any], definition: Any, inputs: Sequence[Drawn], room: float, name: str
) -> None:
    """The gradients, along random directions."""
    rng = np.random.default_rng(5)
    head = rng.standard_normal(out.shape).astype(out.dtype)
    if out._entry is None:
        pytest.fail(f"{name}: the result is not on the tape")
    out.backward(nd.NDArray(np.asarray(head)))
    for position, x in enumerate(arrays):
        if not is_float(x.dtype):
            continue
        gradient = x.grad.asnumpy().astype("float64")
        direction = rng.standard_normal(x.shape)
        claimed = float(np.sum(gradient * direction))
        ends = []
        for sign in (STEP, -STEP):
            moved = [other.values for other in inputs]
            moved[position] = moved[position] + sign * direction
            with np.errstate(all="ignore"):
                ends.append(float(np.sum(head.astype("float64") * definition(*moved))))
        found = (ends[0] - ends[1]) / (2 * STEP)
        tolerance = room * SLOPE[inputs[position].dtype] * (1 + float(np.abs(gradient * direction).sum()))
        text = f"{name}: the gradient of input {position} along a direction is {claimed:.8g}, numerically {found:.8g}"
        assert abs(claimed - found) <= tolerance, text


def refuses(function: Callable[..., Any], *arrays: Any, error: type[Exception] = IndexError) -> None:
    """Eager and hybridized, the call raises this error, and the compiled function goes on working."""
    for run in (function, compile_function(function)):
        with pytest.raises(error):
            run(*arrays).asnumpy()
