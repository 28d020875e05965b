"""What one eager operation costs: a small addition, without and with the tape.

The statement `a + b` itself is timed, not a function around it. MXNet and JAX queue the work: their samples end with a
wait for all of it, so they show throughput.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.row import Bar, Row, Side, Sizes, numbers

ADD = Row("add", "eager a + b, 8x8", {"shape": (8, 8)}, bars=(Bar("torch", 0.8),))
TAPE = Row("add-tape", "eager a + b, 8x8, a with gradient", {"shape": (8, 8)}, bars=(Bar("torch", 0.9),))


def _operands(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    return numbers(1, *sizes["shape"]), numbers(2, *sizes["shape"])


def _addition(a: Any, b: Any, **options: Any) -> Side:
    return Side(lambda: a + b, statement="a + b", names={"a": a, "b": b}, **options)


@ADD.side("gluonish")
def _gluonish(sizes: Sizes) -> Side:
    from gluonish import nd

    return _addition(*map(nd.array, _operands(sizes)))


@ADD.side("torch")
def _torch(sizes: Sizes) -> Side:
    import torch

    return _addition(*map(torch.from_numpy, _operands(sizes)))


@ADD.side("mxnet")
def _mxnet(sizes: Sizes) -> Side:
    import mxnet

    return _addition(*map(mxnet.nd.array, _operands(sizes)), finish=mxnet.nd.waitall)


@ADD.side("jax")
def _jax(sizes: Sizes) -> Side:
    import jax

    a, b = map(jax.numpy.asarray, _operands(sizes))
    return _addition(a, b, finish=lambda: (a + b).block_until_ready())


@ADD.side("numpy")
def _numpy(sizes: Sizes) -> Side:
    return _addition(*_operands(sizes))


@TAPE.side("gluonish")
def _gluonish_tape(sizes: Sizes) -> Side:
    from gluonish import autograd, nd

    a, b = map(nd.array, _operands(sizes))
    a.attach_grad()
    return _addition(a, b, scope=autograd.record, results=lambda: _gradient_of(a, b))


def _gradient_of(a: Any, b: Any) -> list[Any]:
    from gluonish import autograd

    with autograd.record():
        out = a + b
    out.backward()
    return [out, a.grad]


@TAPE.side("torch")
def _torch_tape(sizes: Sizes) -> Side:
    import torch

    a, b = map(torch.from_numpy, _operands(sizes))
    a.requires_grad_()

    def results() -> list[Any]:
        out = a + b
        out.backward(torch.ones_like(out))
        return [out, a.grad]

    return _addition(a, b, results=results)


@TAPE.side("mxnet")
def _mxnet_tape(sizes: Sizes) -> Side:
    import mxnet

    a, b = map(mxnet.nd.array, _operands(sizes))
    a.attach_grad()

    def results() -> list[Any]:
        with mxnet.autograd.record():
            out = a + b
        out.backward()
        return [out, a.grad]

    return _addition(a, b, scope=mxnet.autograd.record, finish=mxnet.nd.waitall, results=results)
