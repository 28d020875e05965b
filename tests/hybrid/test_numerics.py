"""`precision`: which convolutions a program may use."""

from __future__ import annotations

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn


def kernels(net: nn.HybridSequential, x: nd.NDArray) -> list[str]:
    return [step.name for step in net.kernels(x)]


@pytest.fixture
def net() -> nn.HybridSequential:
    net = nn.HybridSequential(nn.Conv2D(40, 3, padding=1, activation="relu", in_channels=32))
    net.initialize("xavier")
    net.hybridize()
    return net


def test_each_setting_has_its_own_variant(net: nn.HybridSequential, rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.standard_normal((2, 32, 20, 21)).astype("f"))
    eager = net[0].forward(x).asnumpy()
    assert "winograd" in kernels(net, x)
    fast = net(x).asnumpy()
    with gl.precision("strict"):
        assert "winograd" not in kernels(net, x) and "convolution" in kernels(net, x)
        strict = net(x).asnumpy()
    assert "winograd" in kernels(net, x)
    scale = np.abs(eager).max()
    assert np.abs(fast - eager).max() <= 5e-5 * scale and np.abs(strict - eager).max() <= 4e-6 * scale
    assert "precision 'strict'" in net.explain()


def test_the_backward_computes_as_its_forward(net: nn.HybridSequential, rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.standard_normal((8, 32, 20, 21)).astype("f"))
    x.attach_grad()
    with gl.precision("strict"), autograd.record():
        strict = net(x).sum()
    with autograd.record():
        fast = net(x).sum()
    names = []
    for loss in (strict, fast):
        loss.backward()
        call = next(v for v in net._compiled.variants if v.mode[3] == ("strict" if loss is strict else "fast"))
        names.append([step.name for step in call.backward.program().steps])
    assert "winograd" not in names[0] and "winograd" in names[1]


def test_double_precision_is_strict(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(nn.Conv2D(40, 3, padding=1, in_channels=32))
    net.initialize("xavier")
    net.cast("float64")
    net.hybridize()
    assert "winograd" not in kernels(net, nd.NDArray(rng.standard_normal((1, 32, 20, 20))))


def test_set_for_good_and_bad_words() -> None:
    before = gl.precision("strict")
    try:
        with gl.precision("fast"):
            pass
        from gluonish.hybrid.numerics import current_precision

        assert current_precision() == "strict"
    finally:
        before.__exit__()
    with pytest.raises(ValueError, match="'fast', 'strict'.*'exact'"):
        gl.precision("exact")
