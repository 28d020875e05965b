"""Towers: several small networks beside each other whose results are joined, as in recommenders and ensembles.

No layer of them is long enough to be shared by threads. What counts is whether the towers run side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.onnx_session import session
from benchmarks.row import BUSY, Bar, Row, Side, Sizes, numbers

SIZES = {"towers": 4, "layers": 3, "batch": 32, "units": 128}
TINY = {"towers": 3, "layers": 2, "batch": 5, "units": 6}

ROW = Row(
    "towers", "4 towers of 3 Dense(128), batch 32, joined, predict", SIZES, TINY,
    (Bar("one by one", 0.75), Bar("torch", 0.5), BUSY),
    lambda s: 2.0 * s["towers"] * s["batch"] * s["units"] * (s["layers"] * s["units"] + 1), group="models",
)  # fmt: skip


def _inputs(sizes: Sizes) -> list[np.ndarray]:
    return [numbers(60 + t, sizes["batch"], sizes["units"]) for t in range(sizes["towers"])]


def _weights(sizes: Sizes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight (outputs, inputs) and bias of each layer, tower by tower; then those of the layer behind the join."""
    towers, layers, units = sizes["towers"], sizes["layers"], sizes["units"]
    shapes = [(units, units)] * (towers * layers) + [(1, towers * units)]
    return [
        (numbers(70 + i, *s, scale=(3 / s[1]) ** 0.5), numbers(90 + i, s[0], scale=0.1)) for i, s in enumerate(shapes)
    ]


# --- gluonish ---
def _gluonish_net(sizes: Sizes) -> tuple[Any, list[Any]]:
    from gluonish import nd, nn

    class Towers(nn.HybridBlock):
        def __init__(self) -> None:
            layers = range(sizes["layers"])
            self.towers = [
                nn.HybridSequential(*(nn.Dense(sizes["units"], "relu") for _ in layers)) for _ in range(sizes["towers"])
            ]
            self.output = nn.Dense(1)

        def forward(self, *xs: Any) -> Any:
            return self.output(nd.concat([tower(x) for tower, x in zip(self.towers, xs)], 1))

    net, xs = Towers(), [nd.array(x) for x in _inputs(sizes)]
    net.initialize()
    net.infer_shape(*xs)
    values = [value for pair in _weights(sizes) for value in pair]
    for parameter, value in zip(net.collect_params().values(), values, strict=True):
        parameter.set_data(value)
    net.hybridize()
    return net, xs


@ROW.side("gluonish")
def _gluonish(sizes: Sizes) -> Side:
    net, xs = _gluonish_net(sizes)
    return Side(lambda: net(*xs))


@ROW.side("one by one", peer="gluonish")
def _one_by_one(sizes: Sizes) -> Side:
    """The same threads, but steps were planned for one, and so one after the other."""
    from gluonish.kernels.pool import num_threads

    net, xs = _gluonish_net(sizes)
    with num_threads(1):
        net(*xs)
    return Side(lambda: net(*xs))


# --- peers ---
@ROW.side("torch")
def _torch(sizes: Sizes) -> Side:
    run, xs = _torch_run(sizes)
    import torch

    return Side(lambda: run(xs), scope=torch.inference_mode)


@ROW.side("torch.compile", peer="torch", on_request=True)
def _torch_compile(sizes: Sizes) -> Side:
    run, xs = _torch_run(sizes)
    import torch

    compiled = torch.compile(run)
    return Side(lambda: compiled(xs), scope=torch.no_grad)


def _torch_run(sizes: Sizes) -> tuple[Any, list[Any]]:
    import torch

    modules = []
    for weight, bias in _weights(sizes):
        modules.append(torch.nn.Linear(*weight.shape[::-1]))
        with torch.no_grad():
            modules[-1].weight.copy_(torch.from_numpy(weight))
            modules[-1].bias.copy_(torch.from_numpy(bias))
    layers = sizes["layers"]

    def run(xs: list[Any]) -> Any:
        ends = []
        for t, x in enumerate(xs):
            for layer in modules[t * layers : (t + 1) * layers]:
                x = torch.relu(layer(x))
            ends.append(x)
        return modules[-1](torch.cat(ends, 1))

    return run, [torch.from_numpy(x) for x in _inputs(sizes)]


@ROW.side("jax")
def _jax(sizes: Sizes) -> Side:
    import jax
    from jax import numpy as jnp

    weights = [(jnp.asarray(w), jnp.asarray(b)) for w, b in _weights(sizes)]
    xs, layers = [jnp.asarray(x) for x in _inputs(sizes)], sizes["layers"]

    def forward(weights: Any, xs: Any) -> Any:
        ends = []
        for t, x in enumerate(xs):
            for w, b in weights[t * layers : (t + 1) * layers]:
                x = jax.nn.relu(x @ w.T + b)
            ends.append(x)
        return jnp.concatenate(ends, 1) @ weights[-1][0].T + weights[-1][1]

    run = jax.jit(forward)
    return Side(lambda: run(weights, xs).block_until_ready())


@ROW.side("onnxruntime")
def _onnxruntime(sizes: Sizes) -> Side:
    operators: list[Any] = []
    arrays: dict[str, np.ndarray] = {}
    for i, (weight, bias) in enumerate(_weights(sizes)):
        arrays |= {f"w{i}": weight, f"b{i}": bias}
    ends = []
    for t in range(sizes["towers"]):
        value = f"x{t}"
        for i in range(t * sizes["layers"], (t + 1) * sizes["layers"]):
            operators += [("Gemm", [value, f"w{i}", f"b{i}"], f"h{i}", {"transB": 1}), ("Relu", [f"h{i}"], f"r{i}", {})]
            value = f"r{i}"
        ends.append(value)
    last = len(arrays) // 2 - 1
    operators += [("Concat", ends, "joined", {"axis": 1})]
    operators += [("Gemm", ["joined", f"w{last}", f"b{last}"], "y", {"transB": 1})]
    given = {f"x{t}": x for t, x in enumerate(_inputs(sizes))}
    run = session(operators, {name: x.shape for name, x in given.items()}, arrays, "y")
    return Side(lambda: run(given))
