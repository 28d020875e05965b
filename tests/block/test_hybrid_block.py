"""HybridBlocks: nothing changes but the speed, whatever is changed after hybridize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd
from gluonish.block import Block, HybridBlock, nn


def net_of(*more: Any) -> nn.HybridSequential:
    net = nn.HybridSequential(nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dropout(0.5), *more, nn.Dense(3))
    net.initialize("normal")
    return net


def eager(net: Any, *args: Any) -> Any:
    """What the net gives without its compiled program."""
    net.hybridize(False)
    out = net(*args)
    net.hybridize()
    return out.asnumpy()


def close(a: Any, b: Any) -> bool:
    return np.allclose(a.asnumpy(), b, rtol=1e-4, atol=1e-5)


def variants(net: Any) -> int:
    return len(net._compile().variants)


def test_compiling_waits_for_the_first_call_and_shapes(rng: np.random.Generator) -> None:
    net, x = net_of(), nd.array(rng.standard_normal((4, 5)).astype(np.float32))
    net.hybridize()
    out = net(x)
    assert variants(net) == 1 and close(out, eager(net, x))
    assert close(net(x[:2]), out.asnumpy()[:2]) and variants(net) == 1


def test_changed_attributes_children_and_hooks_are_seen(rng: np.random.Generator) -> None:
    class Net(HybridBlock):
        factor = 1.0

        def __init__(self) -> None:
            self.body = nn.Dense(4)
            self.options = {"shift": 0.0}
            self.layers = [nn.Dense(2)]

        def forward(self, x: Any) -> Any:
            x = self.body(x) * self.factor + self.options["shift"]
            for layer in self.layers:
                x = layer(x)
            return x

    net, x = Net(), nd.array(rng.standard_normal((4, 5)).astype(np.float32))
    net.initialize("normal")
    net.hybridize()
    seen = [net(x).asnumpy()]
    for change in (
        lambda: setattr(net, "factor", 2.0),
        lambda: net.options.update(shift=1.0),
        lambda: net.layers.append(nn.Dense(2)),
        lambda: setattr(net, "body", nn.Dense(4, activation="tanh")),
        lambda: setattr(net.body, "activation", "sigmoid"),
        lambda: net.layers[0].weight.set_data(nd.ones((2, 4))),
        lambda: net.layers.pop(),
        lambda: setattr(net, "forward", lambda x: x * 0),
    ):
        change()
        for p in net.collect_params().values():
            p.initialize("normal")
        out = net(x)
        assert not np.array_equal(out.asnumpy(), seen[-1]) and close(out, Block.__call__(net, x).asnumpy())
        seen.append(out.asnumpy())
    before = variants(net)
    net(x)
    assert variants(net) == before


def test_the_class_changes_under_a_compiled_net() -> None:
    class Net(HybridBlock):
        factor = 2

        def forward(self, x: Any) -> Any:
            return x * self.factor

    net = Net()
    net.hybridize()
    assert net(nd.ones((3,))).tolist() == [2, 2, 2]
    Net.factor = 3
    assert net(nd.ones((3,))).tolist() == [3, 3, 3]
    Net.forward = lambda self, x: x - self.factor  # type: ignore[method-assign, assignment]
    assert net(nd.ones((3,))).tolist() == [-2, -2, -2]


def test_a_forward_that_counts_its_calls_is_right_though_slow() -> None:
    class Net(HybridBlock):
        def __init__(self) -> None:
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * self.calls

    net = Net()
    net.hybridize()
    assert [net(nd.ones((2,))).tolist()[0] for _ in range(4)] == [1, 2, 3, 4]


def test_replacing_the_output_of_a_trained_net(rng: np.random.Generator) -> None:
    net, x = net_of(), nd.array(rng.standard_normal((4, 5)).astype(np.float32))
    net.hybridize()
    net(x)
    net[3] = nn.Dense(7)
    net.initialize()
    assert net(x).shape == (4, 7) and close(net(x), eager(net, x))


def test_train_and_predict_mode_and_statistics(rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((16, 5)).astype(np.float32))
    results = []
    for hybrid in (False, True):
        nd.random.seed(5)
        net = net_of()
        net.hybridize(hybrid)
        outs = []
        for _ in range(3):
            with autograd.record():
                out = net(x)
            out.backward()
            outs.append(out.asnumpy())
        outs += [net(x).asnumpy(), *(p.asnumpy() for p in net.collect_params().values())]
        outs += [p.grad.asnumpy() for p in net.collect_params().values() if p.grad is not None]
        results.append(outs)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_values_do_not_depend_on_when_the_shape_is_known() -> None:
    found = []
    for late in (False, True):
        nd.random.seed(3)
        sizes = (0, 0) if late else (5, 4)
        net = nn.HybridSequential(nn.Dense(4, in_units=sizes[0]), nn.Dropout(0.5), nn.Dense(2, in_units=sizes[1]))
        net.initialize("xavier")
        with autograd.train_mode():
            found.append(net(nd.ones((3, 5))).tolist())
    assert found[0] == found[1]


def test_a_plain_block_hybridizes_its_children(rng: np.random.Generator) -> None:
    class Net(Block):
        def __init__(self) -> None:
            self.one, self.two = nn.Dense(4), nn.Sequential(nn.Dense(2))

        def forward(self, x: Any) -> Any:
            return self.two(self.one(x))

    net, x = Net(), nd.array(rng.standard_normal((4, 5)).astype(np.float32))
    net.initialize()
    before = net(x).asnumpy()
    net.hybridize()
    assert net.one._active and net.two[0]._active
    assert close(net(x), before)
    net.hybridize(False)
    assert not net.one._active and close(net(x), before)


def test_children_of_a_compiled_block_are_part_of_it() -> None:
    net = net_of()
    net.hybridize()
    net(nd.ones((2, 5)))
    assert net[0]._compiled is None
    net[0](nd.ones((2, 5)))
    assert variants(net[0]) == 1
    net(nd.ones((2, 5)))
    assert variants(net) == 1  # the child's own program is no change of the net


def test_nested_arguments_and_results() -> None:
    class Net(HybridBlock):
        def forward(self, pair: Any, named: Any = None, scale: float = 1.0) -> Any:
            out = {"sum": pair[0] + pair[1], "list": [pair[0] * scale]}
            return out if named is None else (out, named["z"] - 1)

    net = Net()
    net.hybridize()
    a, b = nd.array([1.0, 2.0]), nd.array([10.0, 20.0])
    assert net((a, b))["sum"].tolist() == [11, 22]
    out, z = net([a, b], named={"z": a}, scale=3.0)
    assert out["list"][0].tolist() == [3, 6] and z.tolist() == [0, 1]


def test_errors_in_a_compiled_net_name_the_layer() -> None:
    net = net_of()
    net.hybridize()
    net(nd.ones((2, 5)))
    with pytest.raises(ValueError, match=r"Dense '0' expects last dimension 5 .*test_hybrid_block.py"):
        net(nd.ones((2, 6)))
    with pytest.raises(RuntimeError, match="'0.weight' has no values yet"):
        bare = nn.HybridSequential(nn.Dense(2))
        bare.collect_params()
        bare.hybridize()
        bare(nd.ones((2, 5)))
    with pytest.raises(TypeError, match="unknown flag fast.*test_hybrid_block.py"):
        net.hybridize(fast=True)
    net.hybridize(static_alloc=True, static_shape=True)


def test_looking_inside() -> None:
    net = net_of()
    net.hybridize()
    x = nd.ones((2, 5))
    net(x)
    assert "0.weight" in str(net.graph(x)) and net.kernels(x) and "variant 0" in str(net.explain())


def test_export_and_import(tmp_path: Path, rng: np.random.Generator) -> None:
    net, x = net_of(), nd.array(rng.standard_normal((4, 5)).astype(np.float32))
    with autograd.train_mode():
        net(x)  # so that the running statistics are not those of the beginning
    wanted = net(x).asnumpy()
    net.hybridize()
    net(x)
    net.export(tmp_path / "m")
    back = gl.SymbolBlock.imports(tmp_path / "m")
    assert close(back(x), wanted) and close(back(x[:2]), wanted[:2])
    names = set(net.collect_params())
    assert set(back.collect_params()) <= names and "0.weight" in back.collect_params()
    back.hybridize()
    assert close(back(x), wanted)
    with autograd.record():
        out = back(x)
    out.backward()
    assert back.collect_params()["0.weight"].grad.asnumpy().any()
    assert back.collect_params()["1.running_mean"].grad is None
    back.save_parameters(tmp_path / "p")
    net.load_parameters(tmp_path / "p", allow_missing=True)
    with pytest.raises(FileNotFoundError):
        gl.SymbolBlock.imports(tmp_path / "nothing")


def test_a_call_compares_no_containers() -> None:
    net = nn.HybridSequential(nn.Dense(4, activation="relu"), nn.HybridSequential(nn.Dense(3)))
    net.initialize()
    for flags in ({}, {"remat": True}):
        net.hybridize(**flags)
        net(nd.ones((2, 3)))
        assert not net._compiled.variants[0].reads.volatile
