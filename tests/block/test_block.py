"""Blocks: the tree, names, hooks, printing, sharing."""

from __future__ import annotations

import copy
from abc import ABC
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd
from gluonish.block import Block, HybridBlock, NotInitialized, Parameter, nn


class Net(HybridBlock):
    """Children in every place where they may stand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(4, in_units=3)
        self.layers = [nn.Dense(4, in_units=4), (nn.Dense(4, in_units=4),)]
        self.heads = {"a": nn.Dense(2, in_units=4, use_bias=False)}
        self.scale = Parameter("scale", shape=(1,), init="ones")
        self.biases = [Parameter("b", shape=(1,), init="zeros")]
        self.size = 3

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, Block) else layer[0](x)
        return self.heads["a"](x) * self.scale + self.biases[0]


NAMES = [
    "scale",
    "biases.0",
    "first.weight",
    "first.bias",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.0.weight",
    "layers.1.0.bias",
    "heads.a.weight",
]


def test_names_are_attribute_paths() -> None:
    net = Net()
    params = net.collect_params()
    assert list(params) == NAMES
    assert [p.name for p in params.values()] == NAMES
    assert list(net.collect_params("layers.*weight")) == ["layers.0.weight", "layers.1.0.weight"]
    assert net.first.collect_params()["weight"].name == "first.weight"  # the longest path stays
    assert [name for name, _ in net.named_children()] == ["first", "layers.0", "layers.1.0", "heads.a"]
    with pytest.raises(ValueError, match="not a regular expression"):
        net.collect_params("(")


def test_a_pattern_without_a_match_sets_nothing_loudly() -> None:
    with pytest.raises(ValueError, match="no parameter matches 'layer_.*'"):
        Net().collect_params("layer_.*").setattr("grad_req", "null")
    with pytest.raises(AttributeError, match="no attribute 'gradreq'"):
        Net().setattr("gradreq", "null")


def test_a_child_that_points_to_its_parent_is_no_endless_tree() -> None:
    net = Net()
    net.first.parent = net
    assert list(net.collect_params()) == NAMES
    repr(net.collect_params())


def test_super_init_is_not_needed_and_abc_may_mix_in() -> None:
    class Base(Block, ABC):
        pass

    class Mine(Base):
        def __init__(self) -> None:
            self.body = nn.Dense(2, in_units=2)

        def forward(self, x: Any) -> Any:
            return self.body(x)

    net = Mine()
    net.initialize()
    assert net(nd.ones((1, 2))).shape == (1, 2)


def test_initialize() -> None:
    net = Net()
    net.initialize("ones")
    assert net.first.weight.asnumpy().min() == 1 and net.first.bias.asnumpy().max() == 0
    with pytest.warns(UserWarning, match="every parameter has values already"):
        net.initialize()
    net.first = nn.Dense(4, in_units=3)
    net.initialize("zeros")  # only what is new
    assert net.first.weight.asnumpy().max() == 0 and net.layers[0].weight.asnumpy().min() == 1
    net.initialize("zeros", force_reinit=True)
    assert net.layers[0].weight.asnumpy().max() == 0
    with pytest.raises(ValueError, match="unknown initializer 'xaver'; there are: .*test_block.py"):
        net.initialize("xaver")
    with pytest.raises(TypeError, match="an initializer is a name or an object"):
        net.initialize(gl.init.Xavier)


def test_initialize_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    nn.HybridSequential(nn.Dense(2, in_units=2)).initialize(verbose=True)
    assert capsys.readouterr().out == "0.weight: Uniform(scale=0.07)\n0.bias: Zero()\n"


def test_running_without_initialize_names_the_parameter() -> None:
    with pytest.raises(NotInitialized, match="Parameter 'first.weight' has no values yet"):
        net = Net()
        net.collect_params()
        net(nd.ones((2, 3)))


def test_infer_shape_computes_nothing() -> None:
    net = nn.HybridSequential(
        nn.Conv2D(4, 3), nn.BatchNorm(), nn.MaxPool2D(), nn.Dropout(0.5), nn.Flatten(), nn.Dense(2)
    )
    net.infer_shape((8, 3, 8, 8))
    assert [p.shape for p in net.collect_params(".*weight").values()] == [(4, 3, 3, 3), (2, 36)]
    assert not any(p.initialized for p in net.collect_params().values())
    net.initialize()
    assert all(p.initialized for p in net.collect_params().values())
    other = nn.Dense(2)
    other.initialize()
    other.infer_shape(nd.ones((4, 5)))
    assert other.weight.asnumpy().shape == (2, 5)
    with pytest.raises(ValueError, match="Dense expects last dimension 5"):
        other.infer_shape((4, 6))


def test_infer_shape_says_what_it_cannot_do() -> None:
    class Wants(Block):
        def forward(self, x: Any) -> Any:
            return x if x.sum().item() > 0 else -x

    with pytest.raises(TypeError, match=r"item\(\) needs the values.*infer_shape"):
        Wants().infer_shape((2,))

    class Lacks(Block):
        def __init__(self) -> None:
            self.weight = Parameter("weight", shape=(3, 0))

        def forward(self, x: Any) -> Any:
            return nd.matmul(x, self.weight.T)

    net = Lacks()
    net.initialize()
    for run in (lambda: net.infer_shape((2, 4)), lambda: net(nd.ones((2, 4)))):
        with pytest.raises(RuntimeError, match=r"'weight' is waiting for its shape.*resolve"):
            run()


def test_hooks_see_inputs_and_outputs() -> None:
    seen: list[Any] = []
    layer = nn.Dense(2, in_units=3)
    layer.initialize()
    x = nd.ones((1, 3))
    for hybrid in (False, True):
        layer.hybridize(hybrid)
        before = layer.register_forward_pre_hook(lambda block, args: seen.append((block, args[0])))
        with layer.register_forward_hook(lambda block, args, out: seen.append((block, args[0], out))):
            out = layer(x)
        before.detach()
        layer(x)
        assert seen == [(layer, x), (layer, x, out)]
        seen.clear()


def test_apply_visits_children_first() -> None:
    seen = []
    net = nn.HybridSequential(nn.Dense(1), nn.HybridSequential(nn.Flatten()))
    assert net.apply(seen.append) is net
    assert [type(b).__name__ for b in seen] == ["Dense", "Flatten", "HybridSequential", "HybridSequential"]


def test_printing() -> None:
    net = nn.HybridSequential(nn.Conv2D(4, 3, in_channels=1, activation="relu"), nn.BatchNorm(), nn.Dense(3))
    assert repr(net) == (
        "HybridSequential(\n"
        "  (0): Conv2D(1 -> 4, kernel_size=(3, 3), relu)\n"
        "  (1): BatchNorm(?)\n"
        "  (2): Dense(? -> 3, linear)\n"
        ")"
    )
    every = [
        nn.AvgPool2D(2, padding=1),
        nn.Dropout(0.5, axes=1),
        nn.Embedding(3, 4),
        nn.LayerNorm(),
        nn.GELU(),
        nn.LeakyReLU(),
    ]
    for layer in [
        *every,
        nn.Activation("tanh"),
        nn.HybridLambda("relu"),
        gl.loss.L2Loss(),
        nn.Flatten(),
        nn.HybridSequential(),
    ]:
        assert repr(layer).startswith(type(layer).__name__ + "(")


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    shared = nn.Dense(4, in_units=4)
    net = nn.HybridSequential(nn.Dense(4), nn.BatchNorm(), shared, shared, nn.Dropout(0.5))
    net.initialize()
    net.hybridize()
    net.summary(nd.ones((2, 3)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2:4] == [["input", "(2,", "3)"], ["0", "Dense", "(2,", "4)", "16"]]
    assert lines[-1] == "52 parameters: 44 trained, 8 not; 2 shared under a second name".split()
    assert net._active and net[0]._active and not net._hooks and not net[0]._hooks
    assert net[1].running_mean.asnumpy().max() == 0  # predict mode


def test_rows() -> None:
    a, b, c = nn.Dense(1), nn.Dense(2), nn.Dense(3)
    net = nn.HybridSequential(a)
    net.add(b, c)
    assert len(net) == 3 and net[1] is b and net[-1] is c and list(net) == [a, b, c] and bool(nn.Sequential())
    part = net[1:]
    assert isinstance(part, nn.HybridSequential) and list(part) == [b, c]
    net[2] = a
    assert list(net) == [a, b, a]
    for bad in (lambda: net[3], lambda: net.__setitem__(3, a)):
        with pytest.raises(IndexError, match="Block 3 of 3"):
            bad()
    with pytest.raises(TypeError, match="only Blocks"):
        net[0] = 5  # type: ignore[assignment]

    class Two(Block):
        def forward(self, x: Any, y: Any) -> Any:
            return x + y, x - y

    out = nn.Sequential(Two(), Two())(nd.array([5.0]), nd.array([3.0]))
    assert [o.item() for o in out] == [10, 6]


def test_registering_a_child_by_name() -> None:
    net = Block()
    net.register_child(nn.Dense(1))
    net.register_child(nn.Dense(1), "head")
    assert [name for name, _ in net.named_children()] == ["0", "head"]


def test_sharing_by_attribute_and_by_share_parameters() -> None:
    one, two = nn.Dense(4, in_units=4), nn.Dense(4, in_units=4)
    two.weight = one.weight
    net = nn.HybridSequential(one, two)
    net.initialize()
    assert len(net.collect_params()) == 4 and len(net.collect_params().unique()) == 3
    x = nd.ones((1, 4))
    with autograd.record():
        y = net(x)
    y.backward()
    assert one.weight.grad is two.weight.grad and one.weight.name == "0.weight"
    three = nn.HybridSequential(nn.Dense(4, in_units=4), nn.Dense(4))
    assert three.share_parameters(net.collect_params()) is three
    assert three[0].weight is one.weight and three[1].bias is two.bias
    assert (three(x) == net(x)).all()
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(5, 4\) here and \(4, 4\) there"):
        nn.HybridSequential(nn.Dense(5, in_units=4)).share_parameters(net.collect_params())
    with pytest.raises(ValueError, match="no name in common"):
        nn.Dense(2).share_parameters(net.collect_params())


def test_sharing_reaches_lists() -> None:
    one, two = Net(), Net()
    one.initialize()
    two.share_parameters(one.collect_params())
    assert all(a is b for a, b in zip(one.collect_params().values(), two.collect_params().values(), strict=True))


def test_a_deep_copy_has_its_own_parameters() -> None:
    net = Net()
    net.initialize()
    net.hybridize()
    x = nd.ones((1, 3))
    before = net(x).asnumpy()
    twin = copy.deepcopy(net)
    assert (twin(x).asnumpy() == before).all() and twin._compiled is not net._compiled
    twin.scale[:] = 0
    assert (net(x).asnumpy() == before).all() and (twin(x).asnumpy() == 0).all()


def test_cast_and_gradients_of_all() -> None:
    net = Net()
    net.initialize()
    net.cast("float64")
    assert {p.dtype for p in net.collect_params().values()} == {np.dtype("float64")}
    with autograd.record():
        y = net(nd.ones((2, 3), dtype="float64"))
    y.backward()
    assert net.scale.grad.item() != 0
    net.zero_grad()
    assert all(not p.grad.asnumpy().any() for p in net.collect_params().values())
    with pytest.raises(TypeError, match="float31"):
        net.cast("float31")
    net.reset_device(gl.cpu())


def test_a_block_without_forward() -> None:
    with pytest.raises(NotImplementedError, match="Block has no forward"):
        Block()(1)


def test_a_parameter_is_not_replaced_by_values() -> None:
    """`net.weight = array` would take the Parameter from the model, and its optimizer would go on with the old one."""
    net = nn.Dense(2, in_units=3)
    net.initialize()
    for value in (nd.ones((2, 3)), np.ones((2, 3)), 1.0, "zeros"):
        with pytest.raises(TypeError, match=r"Dense.weight is a Parameter and cannot become .*set_data.*test_block.py"):
            net.weight = value
    net.weight, net.bias = Parameter("weight", shape=(2, 3)), None
    assert list(net.collect_params()) == ["weight"]
