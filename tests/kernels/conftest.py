"""What tests of kernels share: calling a kernel on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish.kernels.kernel import Kernel


@pytest.fixture(scope="session")
def call() -> Callable[..., None]:
    """call(kernel, arguments, begin, end): arguments are arrays (their addresses are passed) and integers."""

    def run(kernel: Kernel, arguments: list[Any], begin: int = 0, end: int = 1) -> None:
        words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        args = np.array(words, np.int64)
        function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(kernel.address)
        function(args.ctypes.data, begin, end)

    return run


@pytest.fixture(scope="session")
def mapped(call: Callable[..., None]) -> Callable[..., np.ndarray]:
    """mapped("tanh", x): a function of the math namespace or an op, on arrays, by a kernel with one loop."""

    def apply(function: str, *arrays: np.ndarray, result: str = "") -> np.ndarray:
        from gluonish.kernels import vector_math
        from gluonish.kernels.scalars import code_of

        name = "f" if hasattr(vector_math, function) else function
        out = np.empty(arrays[0].shape, result or arrays[0].dtype)
        loads = [f"load_{code_of(a.dtype)}(x{i}, i)" for i, a in enumerate(arrays)]
        lines = [f"x{i} = load_i64(args, {i})" for i in range(len(arrays))]
        lines += [f"o = load_i64(args, {len(arrays)})", "for i in range(begin, end):"]
        lines += [f"    store_{code_of(out.dtype)}(o, i, {name}({', '.join(loads)}))"]
        source = "def mapped(args, begin, end):\n" + "".join(f"    {line}\n" for line in lines)
        kernel = Kernel("mapped", source, (("f", "intrinsics:math_intrinsic", (function, len(arrays))),))
        call(kernel, [*arrays, out], 0, out.size)
        return out

    return apply
