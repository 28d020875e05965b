"""A whole network, forward and backward, and every op, compiled for every vector width that this machine can run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from compiled_laws import COMPILED_LAWS
from laws import every_op

from gluonish import autograd, nd, nn
from gluonish.kernels import compile as compiler
from gluonish.kernels import target
from gluonish.kernels.kernel import Kernel
from gluonish.nd.op import Op

PROGRAM = """
import sys
import numpy as np
import gluonish as gl
from gluonish import autograd, nd, nn

def gradients(net, x, y):
    criterion = gl.loss.SoftmaxCrossEntropyLoss()
    gl.random.seed(7)
    with autograd.record():
        losses = criterion(net(x), y)
    losses.backward()
    found = {name: p.grad.asnumpy() for name, p in net.collect_params().items() if p.grad_req != "null"}
    found.pop("0.bias", None)  # before a batch norm its gradient is nothing but rounding
    return [losses.asnumpy(), *found.values()]

gl.random.seed(3)
net = nn.HybridSequential()
net.add(nn.Conv2D(5, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(2), nn.Conv2D(19, 3, strides=2),
        nn.Flatten(), nn.Dropout(0.3), nn.Dense(33, activation="tanh"), nn.Dense(10))
net.initialize(gl.init.Xavier())
x, y = nd.random.normal(shape=(6, 3, 13, 11)), nd.array([0, 1, 2, 3, 4, 9])
eager = gradients(net, x, y)
net.hybridize()
for a, b in zip(eager, gradients(net, x, y)):
    np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-4 * max(1e-3, abs(a).max()))
from gluonish.kernels import target
print(target.current().vector_bytes)
"""


@pytest.mark.parametrize("level", target.available())
def test_network_agrees_with_eager_on(level: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "GLUONISH_CPU": level}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == target.named(level).vector_bytes


@pytest.mark.slow
@pytest.mark.parametrize("level", target.available())
@pytest.mark.parametrize("op", every_op(), ids=lambda op: op.name)
def test_every_op_agrees_with_eager_on(level: str, op: Op, rng: np.random.Generator) -> None:
    """Values, gradients, special values and dtypes, with the instructions of each level."""
    with target.use(target.named(level)):
        for name in ("hybrid_is_eager", "special_values_survive", "dtypes_survive", "one_function_serves_other_sizes"):
            COMPILED_LAWS[name](op, rng)


@pytest.mark.skipif(not target.host().x86, reason="reads x86 assembly")
@pytest.mark.parametrize("level", target.available())
def test_kernels_need_little_stack(level: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """All frames of a kernel's functions together are below 64 KB; the smallest default for threads is 128 (musl)."""
    addresses: dict[tuple[Kernel, target.Target], int] = {}
    monkeypatch.setattr(compiler, "_addresses", addresses)
    layers = [nn.Conv2D(19, 3), nn.BatchNorm(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(40, activation="tanh")]
    net = nn.HybridSequential(*layers, nn.Dense(5))
    net.initialize()
    net.hybridize()
    with target.use(target.named(level)):
        with autograd.record():
            out = nd.log_softmax(net(nd.array(rng.standard_normal((3, 3, 12, 12)).astype("f4")))).sum()
        out.backward()
        frames = {k.name: sum(map(int, re.findall(r"subq\t\$(\d+), %rsp", k.assembly))) for k, _ in addresses}
    assert len(frames) > 5 and max(frames.values()) < 1 << 17, frames
