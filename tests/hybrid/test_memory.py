"""Memory: what the plan says is what a call takes, and deep nets take what a few layers or sqrt(n) of them take."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn


class Residual(nn.HybridBlock):
    def __init__(self, units: int) -> None:
        self.body = nn.HybridSequential(nn.Dense(units, activation="relu"), nn.Dropout(0.25), nn.Dense(units))

    def forward(self, x: nd.NDArray) -> nd.NDArray:
        return x + nd.tanh(self.body(x))


def deep(count: int, units: int = 8) -> nn.HybridSequential:
    net = nn.HybridSequential(*(Residual(units) for _ in range(count)), nn.Dense(3))
    net.initialize(gl.init.Xavier())
    return net


def of_arrays() -> int:
    """Bytes of NumPy's arrays that live now."""
    own = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([own]).traces)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("net", ["dense", "images"])
def test_the_plan_is_what_a_call_takes(net: str, train: bool) -> None:
    model: nn.HybridBlock = deep(3, 256)
    x = nd.ones((512, 256))
    if net == "images":
        model = gl.zoo.get_model("resnet18_v1", classes=10, multiplier=0.25)
        x = nd.ones((2, 3, 64, 64))
        model.initialize()

    def call() -> nd.NDArray:
        with autograd.record() if train else autograd.pause():
            y = model(x)
        if train:
            y.backward()
        return y

    model.hybridize()
    call()  # kernels are compiled where no allocation is watched
    trained = [p for p in model.collect_params().values() if p.grad_req == "write"]
    for request in ("null", "write"):  # forgets gradients
        for p in trained:
            p.grad_req = request
    model.hybridize()
    tracemalloc.start()
    try:
        before = of_arrays()
        plan = model.memory(x, train=train)
        result = call()
        taken = of_arrays() - before
    finally:
        tracemalloc.stop()
    assert result.shape[0] == len(x) and abs(taken - (plan.total - plan.of("weights"))) <= 0.05 * plan.total
    weights = {id(p): p._data.nbytes for p in model.collect_params().values()}
    assert plan.of("weights") == sum(weights.values())
    text = repr(plan)
    assert "activations" in text and "(itself)" in text and text.splitlines()[-1].startswith("all")
    assert ("gradients" in text) == train and plan.rows["output" if net == "images" else "3"]["weights"] > 0


def test_a_deep_net_predicts_in_the_memory_of_a_few_layers() -> None:
    few, many = deep(3), deep(60)
    x = nd.ones((1000, 8))
    sizes = [net.memory(x).of("activations") for net in (few, many)]
    assert sizes[1] <= sizes[0] <= 4 * 1000 * 8 * 4


def test_remat_trains_alike_in_less_memory(rng: np.random.Generator) -> None:
    x = nd.NDArray(rng.standard_normal((16, 8)).astype(np.float32))
    net = deep(16)
    net(x)
    results, sizes = [], []
    for remat in (False, True):
        net.hybridize(remat=remat)
        gl.random.seed(5)  # the same bits are dropped when they are drawn again
        with autograd.record():
            y = net(x)
        y.backward()
        results.append([y.asnumpy(), *(p.grad.asnumpy() for p in net.collect_params().values())])
        sizes.append(net.memory(x, train=True))
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert sizes[1].of("kept") < 0.5 * sizes[0].of("kept")
    whole = [s.of("kept") + s.of("backward") + s.of("activations") for s in sizes]
    assert whole[1] < 0.6 * whole[0]


def test_remat_grows_as_the_square_root() -> None:
    held = []
    for count in (16, 64):
        net = deep(count)
        net.hybridize(remat=True)
        plan = net.memory(nd.ones((1024, 8)), train=True)
        held.append(plan.of("kept") + plan.of("backward"))
    assert held[1] < 2.6 * held[0]  # four times as deep


@pytest.mark.slow
def test_a_thousand_layers_stay_below_half_a_gigabyte() -> None:
    import subprocess
    import sys

    program = """
import resource
from gluonish import nd, nn
class Residual(nn.HybridBlock):
    def __init__(self):
        layers = [f() for _ in range(2) for f in (lambda: nn.Conv2D(16, 3, 1, 1, use_bias=False), nn.BatchNorm)]
        self.body = nn.HybridSequential(*layers[:2], nn.Activation("relu"), *layers[2:])
    def forward(self, x):
        return nd.relu(x + self.body(x))
net = nn.HybridSequential(nn.Conv2D(16, 3, 1, 1), *(Residual() for _ in range(500)), nn.GlobalAvgPool2D(), nn.Dense(10))
net.initialize()
net.hybridize()
x = nd.ones((1, 3, 32, 32))
net(x)
plan = net.memory(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, plan.of("activations"), plan.of("weights"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    resident, activations, weights = map(int, done.stdout.split())
    print(f"1,000 layers: {resident / 1e6:.0f} MB resident, activations {activations / 1e3:.0f} kB")
    assert resident - weights < 0.5e9 and activations <= 5 * 16 * 32 * 32 * 4
