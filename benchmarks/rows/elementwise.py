"""What a large elementwise op costs, against the least that memory allows: a copy of the same size.

Three copies: NumPy's between two arrays that exist already (one thread), the same halved between two threads, and
NumPy's `x.copy()`, which also gets its memory from the system, as the libraries must for their results.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.onnx_session import session
from benchmarks.row import Bar, Row, Side, Sizes, numbers

GELU = Row(
    "gelu",
    "tanh-GELU on 16M float32, hybridized",
    {"count": 1 << 24},
    tiny={"count": 1003},
    bars=(Bar("copy", 1.3),),
    tolerance=1e-5,
)


def _input(sizes: Sizes) -> np.ndarray:
    return numbers(3, sizes["count"], scale=4.0)


@GELU.side("gluonish")
def _gluonish(sizes: Sizes) -> Side:
    import gluonish as gl

    x = gl.nd.array(_input(sizes))
    gelu = gl.hybridize(lambda x: gl.nd.gelu_tanh(x))
    return Side(lambda: gelu(x))


@GELU.side("copy", peer="numpy")
def _copy(sizes: Sizes) -> Side:
    x = _input(sizes)
    return Side(partial(np.copyto, np.empty_like(x), x), list)


@GELU.side("copy, 2 threads", peer="numpy")
def _copy_by_two(sizes: Sizes) -> Side:
    x = _input(sizes)
    out, middle = np.empty_like(x), len(x) // 2
    helper = ThreadPoolExecutor(1)

    def copy() -> None:
        other = helper.submit(np.copyto, out[middle:], x[middle:])
        np.copyto(out[:middle], x[:middle])
        other.result()

    return Side(copy, list)


@GELU.side("x.copy()", peer="numpy")
def _fresh_copy(sizes: Sizes) -> Side:
    return Side(_input(sizes).copy, list)


@GELU.side("numpy")
def _numpy(sizes: Sizes) -> Side:
    x = _input(sizes)
    return Side(lambda: 0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * (x * x * x)))))


@GELU.side("torch")
def _torch(sizes: Sizes) -> Side:
    return _in_torch(sizes, lambda function: function)


@GELU.side("torch.compile", peer="torch", on_request=True)
def _torch_compile(sizes: Sizes) -> Side:
    import torch

    return _in_torch(sizes, torch.compile)


def _in_torch(sizes: Sizes, compiled: Any) -> Side:
    import torch

    x = torch.from_numpy(_input(sizes))
    gelu = compiled(lambda x: torch.nn.functional.gelu(x, approximate="tanh"))
    return Side(lambda: gelu(x), scope=torch.inference_mode)


@GELU.side("onnxruntime")
def _onnxruntime(sizes: Sizes) -> Side:
    x = _input(sizes)
    run = session([("Gelu", ["x"], "y", {"approximate": "tanh"})], {"x": x.shape}, {}, "y")
    return Side(lambda: run({"x": x}))


@GELU.side("jax")
def _jax(sizes: Sizes) -> Side:
    import jax

    x = jax.numpy.asarray(_input(sizes))
    gelu = jax.jit(lambda x: jax.nn.gelu(x, approximate=True))
    return Side(lambda: gelu(x).block_until_ready())
