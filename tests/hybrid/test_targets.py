"""A whole network, forward and backward, compiled for every vector width that this machine can run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gluonish.kernels import target

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
