"""Parameters: arrays with names, whose shape and values may come later."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, init, nd
from gluonish.block import NotInitialized, Parameter, nn


def test_it_is_an_array_everywhere() -> None:
    p = Parameter("w", shape=(2, 3))
    p.initialize("ones")
    x = nd.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert ((x + p) - (p + x)).abs().sum().item() == 0
    assert nd.matmul(x, p.T).tolist() == [[6, 6], [15, 15]]
    assert p.data() is p and p.asnumpy().shape == (2, 3) and len(p) == 2 and p[0].tolist() == [1, 1, 1]
    assert repr(p) == "Parameter w (shape=(2, 3), dtype=float32)"


@pytest.mark.parametrize(
    "use",
    [
        lambda p: p + 1,
        lambda p: nd.ones((2, 3)) * p,
        lambda p: nd.matmul(nd.ones((2, 2)), p),
        lambda p: p.asnumpy(),
        lambda p: p.data(),
        lambda p: p.sum(),
        lambda p: p[0],
        lambda p: p.resolve((2, 3)),
        lambda p: float(p.mean()),
    ],
)
def test_using_it_too_early_names_it(use: Any) -> None:
    net = nn.HybridSequential(nn.Block())
    net[0].scale = Parameter("scale", shape=(2, 3))
    p = net.collect_params()["0.scale"]
    with pytest.raises(
        NotInitialized, match=r"Parameter '0.scale' has no values yet: call net.initialize\(\).*test_param"
    ):
        use(p)
    assert not p.initialized and p.grad is None


def test_unknown_shapes_are_said_so() -> None:
    layer = nn.Dense(3)
    layer.initialize()
    assert layer.weight.shape == (3, 0)
    with pytest.raises(NotInitialized, match=r"'weight' is waiting for its shape, known so far: \(3, \?\)"):
        layer.weight.asnumpy()
    p = Parameter("p", init="zeros")
    p.initialize()
    with pytest.raises(NotInitialized, match="'p' is waiting for its shape, known so far: unknown"):
        p.ndim


@pytest.mark.parametrize("unknown", [0, -1, None])
def test_resolve_fills_unknown_dimensions(unknown: Any) -> None:
    p = Parameter("w", shape=(2, unknown))
    p.initialize()
    assert p.resolve((2, 5)) is p and p.shape == (2, 5) and p.asnumpy().shape == (2, 5)
    assert p.resolve((2, 5)) is p
    for wrong in ((2, 6), (3, 5), (2, 5, 1)):
        with pytest.raises(ValueError, match=r"'w' has shape \(2, 5\), which does not fit"):
            p.resolve(wrong)


def test_a_failing_initializer_names_the_parameter() -> None:
    p = Parameter("w", shape=(3,))
    with pytest.raises(ValueError, match=r"Parameter 'w' with Xavier.*at least 2 dimensions"):
        p.initialize(init.Xavier())
    p.initialize("zeros")
    assert p.tolist() == [0, 0, 0]


def test_initializing_again_keeps_values_unless_forced() -> None:
    p = Parameter("w", shape=(3,))
    p.initialize("ones")
    p.initialize("zeros")
    assert p.tolist() == [1, 1, 1]
    memory = p._data
    p.initialize("zeros", force_reinit=True)
    assert p.tolist() == [0, 0, 0] and p._data is memory


def test_gradient_requests() -> None:
    p = Parameter("w", shape=(2,))
    p.initialize("ones")
    seen = []
    for request in ("write", "add", "null"):
        p.grad_req = request
        for _ in range(2):
            if request != "null":
                with autograd.record():
                    y = (p * 3).sum()
                y.backward()
        seen.append(None if p.grad is None else p.grad.tolist())
    assert seen == [[3, 3], [9, 9], None]  # "add" goes on from what "write" had left
    assert p.frozen
    with pytest.raises(ValueError, match="'w' must be one of.*'rite'"):
        p.grad_req = "rite"
    p.attach_grad()
    assert p.grad_req == "write" and p.grad.tolist() == [0, 0]
    p.zero_grad()


def test_parameters_that_are_never_trained() -> None:
    p = Parameter("mean", shape=(2,), init="zeros", differentiable=False)
    p.initialize()
    assert p.grad_req == "null" and p.grad is None and not p.frozen
    p.grad_req = "null"
    assert p.frozen
    whole = Parameter("n", shape=(2,), dtype="int64", init="ones")
    whole.initialize()
    assert whole.grad_req == "null" and whole.tolist() == [1, 1]


def test_set_data() -> None:
    p = Parameter("w", shape=(2, 0))
    p.set_data(np.ones((2, 3), np.float64))
    assert p.shape == (2, 3) and p.dtype == np.float32 and p.initialized
    before = p._version[0]
    p.set_data(nd.zeros((2, 3)))
    assert p.asnumpy().sum() == 0 and p._version[0] > before
    with pytest.raises(ValueError, match=r"set_data: Parameter 'w' has shape \(2, 3\), got \(3, 2\)"):
        p.set_data(np.ones((3, 2)))


def test_cast_and_copy() -> None:
    p = Parameter("w", shape=(2,), lr_mult=3)
    p.initialize("ones")
    p.cast("float64")
    assert p.dtype == np.float64 and p.asnumpy().dtype == np.float64 and p.grad.dtype == np.float64
    twin = copy.deepcopy(p)
    twin[:] = 5
    assert p.tolist() == [1, 1] and twin.tolist() == [5, 5] and twin.lr_mult == 3 and twin.grad is not p.grad
    assert not copy.deepcopy(Parameter("w", shape=(2, 0))).initialized


def test_constants() -> None:
    class Net(gl.HybridBlock):
        def __init__(self) -> None:
            self.table = gl.Constant([1.0, 2.0])

        def forward(self, x: Any) -> Any:
            return x * self.table

    net = Net()
    net.initialize()
    x = nd.ones((2,))
    x.attach_grad()
    with autograd.record():
        y = net(x)
    y.backward()
    assert y.tolist() == x.grad.tolist() == [1, 2]
    assert net.table.grad is None and list(net.collect_params()) == ["table"]
    net.initialize(init="zeros", force_reinit=True)
    assert net.table.tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(2.5,), "ab", (-3,), (True,)])
def test_shapes_that_are_none(shape: Any) -> None:
    with pytest.raises(ValueError, match="a parameter's shape holds integers"):
        Parameter("w", shape=shape)


def test_wrong_dtype_and_device() -> None:
    with pytest.raises(TypeError, match="dtype 'float31' is not supported"):
        Parameter("w", shape=(2,), dtype="float31")
    with pytest.raises(ValueError, match=r"gpu\(0\) is not available"):
        nn.Dense(2, in_units=2).initialize(device=gl.gpu(0))
    with pytest.raises(TypeError, match="device must be"):
        nn.Dense(2, in_units=2).initialize(ctx="cpu")  # type: ignore[arg-type]
