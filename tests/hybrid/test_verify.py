"""`hybridize(verify=True)`: what is compiled wrongly is found, named and not used. The faults are made here."""

from __future__ import annotations

import dataclasses
import re
import warnings
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import lower, passes
from gluonish.hybrid.graph import Graph, Node, rewrite, with_inputs
from gluonish.hybrid.verify import VerifyWarning, _surely_differ, distance
from gluonish.nd.op import OPS


def wrong_loops(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    """Every generated loop computes one op in the place of another."""
    before = lower.lower_group

    def lowered(*args: Any) -> Any:
        steps = before(*args)
        for step in steps:
            if step.kernel is not None:
                source = re.sub(rf"(?<!\w){right}\(", f"{wrong}(", step.kernel.source)
                step.kernel = dataclasses.replace(step.kernel, source=source)
        return steps

    monkeypatch.setattr(lower, "lower_group", lowered)


class Net(nn.HybridBlock):
    def __init__(self) -> None:
        self.body = nn.HybridSequential(nn.Dense(7, activation="relu"), nn.BatchNorm(), nn.Dropout(0.5))

    def forward(self, x: nd.NDArray) -> nd.NDArray:
        y = self.body(x)
        y = y - y.max(1, keepdims=True)  # rows: what follows is no epilogue of the product
        z = nd.sin(y) * 2
        return z.sum(1)


def made(rng: np.random.Generator) -> tuple[Net, nd.NDArray]:
    net = Net()
    net.initialize()
    return net, nd.NDArray(rng.standard_normal((4, 5)).astype(np.float32))


def both(net: nn.HybridBlock, x: nd.NDArray) -> list[np.ndarray]:
    """Prediction, training results, gradients and running statistics, from the same random numbers on."""
    gl.random.seed(3)
    out = [net(x).asnumpy()]
    for _ in range(2):
        with autograd.record():
            y = net(x)
        y.backward()
        out += [y.asnumpy(), *(p.grad.asnumpy() for p in net.collect_params().values() if p.grad_req != "null")]
    return out + [p.asnumpy() for p in net.collect_params().values()] + [nd.random.uniform(shape=3).asnumpy()]


def test_what_is_right_is_used_and_changes_nothing_twice(rng: np.random.Generator) -> None:
    net, x = made(rng)
    net(x)
    start = {name: p.asnumpy() for name, p in net.collect_params().items()}
    results = []
    for flags in ({}, {"verify": True}):
        for name, p in net.collect_params().items():
            p.set_data(start[name])
        net.hybridize(**flags)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results.append(both(net, x))
    for a, b in zip(*results, strict=True):
        assert distance(a, b) == 0
    assert "runs eagerly" not in net.explain() and "2 variant" in net.explain()


def test_gradients_that_are_zero_but_for_rounding_are_no_difference(rng: np.random.Generator) -> None:
    """A bias before BatchNorm has a gradient of cancelled terms, whose digits are noise: eagerly and compiled."""
    net = nn.HybridSequential(nn.Dense(8), nn.BatchNorm(), nn.Activation("tanh"), nn.Dense(3))
    net.initialize()
    net.hybridize(verify=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (16, 7):
            with autograd.record():
                y = net(nd.NDArray(rng.standard_normal((rows, 5)).astype(np.float32)))
            y.backward(nd.NDArray(rng.standard_normal((rows, 3)).astype(np.float32)))
    assert "runs eagerly" not in net.explain()


def test_gradients_that_no_op_is_blamed_for_are_compared_by_the_largest(rng: np.random.Generator) -> None:
    right = [rng.standard_normal(9).astype(np.float32) + 3, rng.standard_normal(4).astype(np.float32) * 1e-8]
    small = [right[0], right[1] * 1e6]
    assert not _surely_differ([right[0], -right[1]], right)
    assert _surely_differ([small[0], -small[1]], small)
    assert _surely_differ([right[0] * np.float32(1.1), right[1]], right)
    assert _surely_differ([right[0], right[1] * np.float32(np.nan)], right)


def test_a_wrong_kernel_is_named_and_the_net_goes_on_eagerly(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    net, x = made(rng)
    wanted = net(x).asnumpy()
    wrong_loops(monkeypatch, "sin", "cos")
    net.hybridize(verify=True)
    with pytest.warns(VerifyWarning, match=r"first op that differs: .*test_verify.py:\d+, inputs \(4, 7\) float32"):
        assert np.array_equal(net(x).asnumpy(), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(net(x).asnumpy(), wanted)
    assert "runs eagerly: compiled and eager results differ" in net.explain() and "sin" in net.explain()


def test_a_wrong_backward_is_named_and_eager_gradients_are_given(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    net, x = made(rng)
    wanted = both(net, x)
    wrong_loops(monkeypatch, "cos", "sin")  # cosines are in the backward alone
    gl.random.seed(3)
    net.hybridize(verify=True)
    for p in net.collect_params("body.1.running").values():
        p.set_data(np.zeros(7) if "mean" in p.name else np.ones(7))
    with pytest.warns(VerifyWarning, match="first op that differs: "):
        found = both(net, x)
    for a, b in zip(wanted, found, strict=True):
        assert distance(b, a) < 1e-4


def test_a_wrong_pass_is_named(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def spoil(graph: Graph) -> Graph:
        def change(node: Node, inputs: tuple[Any, ...]) -> Node:
            if node.is_op("sin"):
                return Node("op", node.spec, OPS["cos"], inputs, node.attrs, node.line)
            return with_inputs(node, inputs)

        return rewrite(graph, change)

    monkeypatch.setattr(passes, "PASSES", (*passes.PASSES, spoil))
    net, x = made(rng)
    net.hybridize(verify=True)
    with pytest.warns(VerifyWarning, match="the pass spoil changed"):
        net(x)


def test_python_that_is_not_the_same_at_each_call_is_named(rng: np.random.Generator) -> None:
    calls: list[int] = []

    def function(x: nd.NDArray) -> nd.NDArray:
        calls.append(1)
        return nd.exp(x * len(calls))

    x = nd.NDArray(rng.standard_normal((2, 3)).astype(np.float32))
    compiled = gl.hybridize(function, verify=True)
    with pytest.warns(VerifyWarning, match=r"multiply at test_verify.py:\d+, inputs \(2, 3\) float32, 1; .*Python"):
        compiled(x)
    calls.clear()
    assert np.allclose(compiled(x).asnumpy(), np.exp(x.asnumpy()), rtol=1e-6)


def test_a_whole_step_is_compared_by_its_kernels(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    net = nn.Dense(3, in_units=5)
    net.initialize()
    trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})

    def step(x: nd.NDArray) -> nd.NDArray:
        with autograd.record():
            y = nd.sin(net(x)).sum()
        y.backward()
        trainer.step(1)
        return y

    x = nd.NDArray(rng.standard_normal((2, 5)).astype(np.float32))
    before = net.weight.asnumpy()
    right = gl.hybridize(step, verify=True)
    first = right(x)
    once = net.weight.asnumpy()
    net.weight.set_data(before)
    net.bias.set_data(np.zeros(3))
    step(x)
    assert distance(once, net.weight.asnumpy()) < 1e-5 and not np.array_equal(once, before)
    wrong_loops(monkeypatch, "sin", "cos")
    with pytest.warns(VerifyWarning, match="sin|cos"):
        gl.hybridize(step, verify=True)(x)
    assert first.shape == ()


@pytest.mark.parametrize(
    ("found", "wanted", "apart"),
    [([1.0, 2.0], [1.0, 2.0], 0), ([np.nan], [1.0], np.inf), ([1.0], [np.nan], np.inf), ([np.nan], [np.nan], 0),
     ([np.inf], [-np.inf], np.inf), ([1.0], [2.0], 0.5), ([1.0], [1.0, 1.0], np.inf), ([], [], 0), ([1], [2], np.inf)],
)  # fmt: skip
def test_distance_sees_what_differs(found: Any, wanted: Any, apart: float) -> None:
    assert distance(np.array(found), np.array(wanted)) == apart
