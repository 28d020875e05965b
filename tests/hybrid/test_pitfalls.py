"""What programs do that compilers get wrong, one test each, where no other file has it already.

Elsewhere: nested arguments, None, keywords, views, dtypes, new sizes, dropout's bits (`test_calls.py`); sizes that
Python used, modes, attributes, children, variants (`test_guards.py`); shared and returned parameters, second order,
zero sizes, hybrid in plain and plain in hybrid (`test_gradients.py`); states (`test_captured.py`); threads
(`test_threads.py`); hooks (`test_hybrid_block.py`); control flow (`test_control.py`).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import hybridize
from gluonish.hybrid.graph import TraceError

SCALE: Any = 2.0
SHIFTS: Any = [1.0]
TABLE: Any = None
OFFSET = nd.ones((3,))
CALLS = 0


class Options:
    """A namespace, as people make them."""

    rate = 0.5


options = types.SimpleNamespace(power=2)


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.asarray(rng.uniform(-1, 1, shape)).astype(dtype))


def close(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    a, b = a.asnumpy(), b.asnumpy()
    return (a.shape, a.dtype) == (b.shape, b.dtype) and np.allclose(a, b, tolerance, tolerance)


def scaled(x: nd.NDArray, more: float = 0.25) -> nd.NDArray:
    return x * SCALE + more


# --- globals, closures, defaults -------------------------------------------------------------------------------------
def test_names_outside_the_function_are_guards(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"factor": 1.0}
    factor = 3.0

    def change(value: float) -> None:
        nonlocal factor
        factor = value

    def f(x: nd.NDArray) -> nd.NDArray:
        y = scaled(x) ** options.power * Options.rate + SHIFTS[0] * factor + OFFSET
        return y * state["factor"] if TABLE is None else y + TABLE[0]

    here, compiled, x = globals(), hybridize(f), floats(rng, 4, 3)
    changes: list[tuple[str, Callable[[], Any]]] = [
        ("global SCALE: 2.0 -> -1", lambda: monkeypatch.setitem(here, "SCALE", -1)),
        ("global SHIFTS", lambda: SHIFTS.append(4.0)),
        ("global SHIFTS", lambda: SHIFTS.__setitem__(0, -2.0)),
        ("Options.rate: 0.5 -> 0.75", lambda: monkeypatch.setattr(Options, "rate", 0.75)),
        ("global options", lambda: setattr(options, "power", 3)),
        ("variable factor of the function around f: 3.0 -> 5.0", lambda: change(5.0)),
        ("variable state of the function around f", lambda: state.update(factor=2.0)),
        ("defaults of scaled: (0.25,) -> (0.5,)", lambda: monkeypatch.setattr(scaled, "__defaults__", (0.5,))),
        ("global TABLE: None -> (7.0, 1)", lambda: monkeypatch.setitem(here, "TABLE", (7.0, 1))),
        ("global OFFSET", lambda: monkeypatch.setitem(here, "OFFSET", nd.ones((3,)) * 9)),
        ("global scaled", lambda: monkeypatch.setitem(here, "scaled", lambda x: x - 1)),
    ]
    assert close(f(x), compiled(x))
    for number, (reason, do) in enumerate(changes, 2):
        do()
        assert close(f(x), compiled(x)), reason
        assert len(compiled.variants) == number and reason in compiled.variants[0].reason, compiled.explain()
    monkeypatch.undo()
    assert close(f(x), compiled(x))
    before = len(compiled.variants)
    monkeypatch.setitem(here, "SCALE", float("2.0"))  # an equal value
    assert close(f(x), compiled(x)) and len(compiled.variants) == before
    options.power, SHIFTS[:] = 2, [1.0]
    assert "relies on global SCALE = 2.0" in compiled.explain()


def test_globals_of_methods_are_guards(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(gl.HybridBlock):
        def __init__(self) -> None:
            self.body = nn.HybridSequential(nn.Dense(3), nn.HybridLambda(lambda x: x * SCALE))

        @property
        def shift(self) -> float:
            return SHIFTS[0]

        def more(self, x: nd.NDArray) -> nd.NDArray:
            return self.body(x) * SCALE + self.shift

        def forward(self, x: nd.NDArray) -> nd.NDArray:
            return self.more(x)

    net, x = Net(), floats(rng, 2, 3)
    net.initialize("normal")
    net.hybridize()
    for value in (2.0, 0.5, 2.0, 0.5):
        monkeypatch.setitem(globals(), "SCALE", value)
        assert close(net(x), gl.Block.__call__(net, x))
    assert len(net._compile().variants) == 2
    SHIFTS[0] = 6.0
    assert close(net(x), gl.Block.__call__(net, x))
    SHIFTS[0] = 1.0


def test_a_global_that_the_first_call_makes_and_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(x: nd.NDArray) -> nd.NDArray:
        global TABLE
        if TABLE is None:
            TABLE = (2.0, 3.0)
        return x * TABLE[1]

    def counting(x: nd.NDArray) -> nd.NDArray:
        global CALLS
        CALLS += 1
        return x * CALLS

    monkeypatch.setitem(globals(), "TABLE", None)
    f, g = hybridize(lazy), hybridize(counting)
    for n in range(1, 5):
        assert f(nd.ones((2,))).tolist() == [3, 3]
        assert g(nd.ones((2,))).tolist() == [n, n]
    assert len(f.variants) <= 2


# --- Blocks ----------------------------------------------------------------------------------------------------------
class Holder(gl.HybridBlock):
    """Blocks in a list and a dict, one of them twice; parameters used twice, shared and returned; None in and out."""

    def __init__(self) -> None:
        self.layers = [nn.Dense(4, flatten=False), nn.Dense(4, flatten=False)]
        self.named = {"last": nn.Dense(4, flatten=False), "again": self.layers[0]}
        self.gain = gl.Parameter(shape=(4,), init="ones")

    def forward(self, x: Any, extra: Any = None, *, scale: float = 1.0) -> Any:
        for layer in self.layers:
            x = nd.tanh(layer(x)) * self.gain
        x = self.named["again"](x) + self.named["last"](x) * scale
        return {"x": x, "gain": self.gain, "none": None, "pair": (x.sum(), [self.gain * 2 if extra is None else extra])}


def test_blocks_in_lists_and_dicts_shared_and_used_twice(rng: np.random.Generator) -> None:
    found = []
    for hybrid in (False, True):
        nd.random.seed(1)
        net = Holder()
        net.initialize("normal")
        x, extra = nd.NDArray(np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)), nd.ones((2,))
        net(x)
        if hybrid:
            net.hybridize()
        parameters = net.collect_params()
        results = []
        for arguments, named in (((x,), {}), ((x, None), {"scale": 2.0}), ((x, extra), {"scale": 0.5})):
            with autograd.record():
                out = net(*arguments, **named)
                loss = out["x"].sum() + out["pair"][0] + (out["gain"] ** 2).sum() + out["pair"][1][0].sum()
            loss.backward()
            assert out["none"] is None and isinstance(out["pair"], tuple) and isinstance(out["pair"][1], list)
            results += [out["x"], out["gain"], out["pair"][0], out["pair"][1][0]]
            results += [p.grad for p in parameters.unique().values()]
        found.append([r.asnumpy() for r in results])
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, 1e-5, 1e-5)


def test_frozen_layers_have_no_gradient_kernels(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(*(nn.Dense(8, activation="tanh") for _ in range(4)), nn.Dense(3))
    net.initialize("normal")
    x = floats(rng, 5, 6)
    net(x)
    net.hybridize()

    def products() -> int:
        with autograd.record():
            loss = net(x).sum()
        loss.backward()
        graph = net._compile().variants[0].backward.graph
        return sum(node.is_op("matmul") for node in graph.nodes())

    everything = products()
    for layer in net[:3]:
        layer.setattr("grad_req", "null")
    frozen = products()
    assert frozen == 3  # of the last two layers' weights, and of what is between them
    assert everything == 9
    assert all(p.grad is None for layer in net[:3] for p in layer.collect_params().values())


def test_a_hook_that_changes_values_is_part_of_the_program(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(nn.Dense(4), nn.Dense(2))
    net.initialize("normal")
    x = floats(rng, 3, 5)
    net(x)
    net.hybridize()
    plain = net(x).asnumpy()
    seen: list[Any] = []
    handle = net[0].register_forward_hook(lambda block, args, out: seen.append(tuple(out.shape)))
    assert np.allclose(net(x).asnumpy(), plain, 1e-5, 1e-6) and seen
    handle.detach()
    count = len(seen)
    assert np.allclose(net(x).asnumpy(), plain, 1e-5, 1e-6) and len(seen) == count


# --- Python that needs values ----------------------------------------------------------------------------------------
class Chooses(gl.HybridBlock):
    """Asks for a value between two layers."""

    def __init__(self) -> None:
        self.first = nn.Dense(4)
        self.second = nn.Dense(4)
        self.third = nn.Dense(2)
        self.simple = False

    def forward(self, x: nd.NDArray) -> nd.NDArray:
        x = self.first(x)
        if not self.simple and float(x.sum()) > 0:
            x = self.second(x)
        return self.third(x)


def test_values_that_python_needs(rng: np.random.Generator) -> None:
    net, x = Chooses(), floats(rng, 3, 5)
    net.initialize("normal")
    net(x), net.second(net.first(x))
    expected = {sign: net(x * sign) for sign in (1, -1)}
    net.hybridize()
    line = Chooses.forward.__code__.co_firstlineno + 2
    with pytest.raises(TraceError, match="nd.cond") as error:
        net(x)
    assert f"test_pitfalls.py:{line}" in str(error.value) and "fallback=True" in str(error.value)
    net.hybridize(fallback=True)
    for _ in range(2):
        for sign in (1, -1):
            assert close(net(x * sign), expected[sign])
    text = net.explain()
    assert "step by step" in text and f"test_pitfalls.py:{line}" in text and text.count("variant ") == 1
    assert "kernel calls" in net.first.explain() and "kernel calls" in net.second.explain()
    with pytest.raises(TraceError, match="step by step"):
        net.graph(x)

    def gradients() -> list[np.ndarray]:
        with autograd.record():
            loss = (net(x) ** 2).sum() + (net(-x) ** 2).sum()
        loss.backward()
        return [p.grad.asnumpy() for p in net.collect_params().values()]

    compiled = gradients()
    net.hybridize(False)
    assert all(np.allclose(a, b, 1e-5, 1e-5) for a, b in zip(compiled, gradients(), strict=True))
    net.hybridize(fallback=True)
    net(x)
    net.simple = True  # now it can be traced
    assert close(net(x), net.third(net.first(x)))
    assert "kernel calls" in net.explain() and "changed: Chooses.simple" in net.explain()


def test_a_plain_function_falls_back_too() -> None:
    f = gl.hybridize(lambda x: x * 2 if x.sum().item() > 0 else x - 1, fallback=True)
    assert f(nd.ones((2,))).tolist() == [2, 2] and f(-nd.ones((2,))).tolist() == [-2, -2]
    assert "slower: runs step by step" in f.explain()
