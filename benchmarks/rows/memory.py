"""What is bound by memory, against a copy: losses, norms, softmax, reductions, chains, optimizer updates.

Each row says how many bytes must move, in units of its array of 16M float32. The side "copy" copies as many bytes (read
and written) by two threads, in pieces of one array, so a bar of 1 / 0.85 asks for 85 % of the copy's bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.row import Bar, Row, Side, Sizes, classes, numbers

SHARE = 1 / 0.85
TINY = {"shape": (6, 17)}
EXAMPLES = (
    "softmax-backward layer-norm-backward cross-entropy-backward batch-norm chain argmax-first dropout adam".split()
)


def _copy(sizes: Sizes) -> Side:
    """As many bytes as the row's kernels must move."""
    x = np.zeros(sizes["shape"], np.float32).ravel()
    x[:] = 1.0  # every page of its own
    out, count = np.zeros_like(x), len(x)
    out[:] = 1.0
    helper = ThreadPoolExecutor(1)
    part = int(count * sizes["arrays"] / 2)  # a copy reads and writes what it moves

    def piece(begin: int, end: int) -> None:
        while begin < end:
            stop = min(end, (begin // count + 1) * count)
            a, b = begin % count, (stop - 1) % count + 1
            np.copyto(out[a:b], x[a:b])
            begin = stop

    def copy() -> None:
        other = helper.submit(piece, part // 2, part)
        piece(0, part // 2)
        other.result()

    return Side(copy, list)


def _row(name: str, about: str, arrays: float, shape: tuple[int, ...]) -> Row:
    sizes = {"shape": shape, "arrays": arrays}
    bars = (Bar("copy", SHARE),)
    row = Row(name, about, sizes, tiny=TINY, bars=bars, group="memory", example=name in EXAMPLES)
    row.side("copy", peer="numpy")(_copy)
    return row


def _input(sizes: Sizes) -> np.ndarray:
    return numbers(3, *sizes["shape"], scale=3.0)


def _head(shape: tuple[int, ...]) -> np.ndarray:
    """What comes from above in a backward."""
    return numbers(7, *shape)


Build = Callable[[Any, Sizes], Callable[[Any], Any]]  # (library, sizes) -> function of an array


def _gluonish_forward(build: Build) -> Callable[[Sizes], Side]:
    def side(sizes: Sizes) -> Side:
        import gluonish as gl

        x = gl.nd.array(_input(sizes))
        function = build(gl, sizes)
        return Side(lambda: function(x))

    return side


def _gluonish_backward(build: Build) -> Callable[[Sizes], Side]:
    """Forward and backward of a recorded call."""

    def side(sizes: Sizes) -> Side:
        import gluonish as gl

        x = gl.nd.array(_input(sizes))
        x.attach_grad()
        function = build(gl, sizes)
        head = gl.nd.array(_head(function(x).shape))

        def both() -> Any:
            with gl.autograd.record():
                out = function(x)
            out.backward(head)
            return x.grad

        return Side(both)

    return side


def _torch_forward(build: Build) -> Callable[[Sizes], Side]:
    def side(sizes: Sizes) -> Side:
        import torch

        x = torch.from_numpy(_input(sizes))
        function = build(torch, sizes)
        return Side(lambda: function(x), scope=torch.inference_mode)

    return side


def _torch_backward(build: Build) -> Callable[[Sizes], Side]:
    def side(sizes: Sizes) -> Side:
        import torch

        x = torch.from_numpy(_input(sizes)).requires_grad_()
        function = build(torch, sizes)
        head = torch.from_numpy(_head(function(x).shape))

        def both() -> Any:
            x.grad = None
            function(x).backward(head)
            return x.grad

        return Side(both)

    return side


def _pair(
    name: str, about: str, forward: float, both: float, shape: tuple[int, ...], ours: Build, theirs: Build
) -> None:
    """A row for the forward, and one for forward and backward (none where `both` is 0)."""
    row = _row(name, about, forward, shape)
    row.side("gluonish")(_gluonish_forward(ours))
    row.side("torch")(_torch_forward(theirs))
    if both:
        row = _row(f"{name}-backward", f"{about}, forward and backward", both, shape)
        row.side("gluonish")(_gluonish_backward(ours))
        row.side("torch")(_torch_backward(theirs))


# --- rows -------------------------------------------------------------------------------------------------------------
def _softmax(gl: Any, sizes: Sizes) -> Any:
    return gl.hybridize(lambda x: gl.nd.softmax(x))


def _layer_norm(gl: Any, sizes: Sizes) -> Any:
    net = gl.nn.LayerNorm(in_channels=sizes["shape"][-1])
    net.initialize()
    net.hybridize()
    return net


def _cross_entropy(gl: Any, sizes: Sizes) -> Any:
    loss = gl.loss.SoftmaxCrossEntropyLoss()
    loss.hybridize()
    labels = gl.nd.array(classes(1, *sizes["shape"]))
    return lambda x: loss(x, labels)


def _batch_norm(gl: Any, sizes: Sizes) -> Any:
    net = gl.nn.BatchNorm(axis=-1, in_channels=sizes["shape"][-1])
    net.initialize()
    net.hybridize()

    def train(x: Any) -> Any:
        with gl.autograd.train_mode():
            return net(x)

    return train


def _torch_cross_entropy(torch: Any, sizes: Sizes) -> Any:
    labels = torch.from_numpy(classes(1, *sizes["shape"]))
    return lambda x: torch.nn.functional.cross_entropy(x, labels, reduction="none")


def _torch_layer_norm(torch: Any, sizes: Sizes) -> Any:
    return torch.nn.LayerNorm(sizes["shape"][-1])


def _torch_batch_norm(torch: Any, sizes: Sizes) -> Any:
    return torch.nn.BatchNorm1d(sizes["shape"][-1])


def _torch_softmax(torch: Any, sizes: Sizes) -> Any:
    return lambda x: torch.softmax(x, -1)


SQUARE, LONG = (4096, 4096), (16384, 1024)
_pair("softmax", "softmax along rows of 4096", 2, 5, SQUARE, _softmax, _torch_softmax)
_pair("softmax-1024", "softmax along rows of 1024", 2, 5, LONG, _softmax, _torch_softmax)
_pair("softmax-16383", "softmax along 1000 rows of 16383", 2, 5, (1000, 16383), _softmax, _torch_softmax)
_pair("layer-norm", "layer norm of rows of 4096", 2, 5, SQUARE, _layer_norm, _torch_layer_norm)
_pair("layer-norm-1024", "layer norm of rows of 1024", 2, 5, LONG, _layer_norm, _torch_layer_norm)
_pair("layer-norm-small", "layer norm of 1024 rows of 384", 2, 5, (1024, 384), _layer_norm, _torch_layer_norm)
_pair("cross-entropy", "cross-entropy of logits, 4096 classes", 1, 3, SQUARE, _cross_entropy, _torch_cross_entropy)
_pair("cross-entropy-1024", "the same, 1024 classes", 1, 3, LONG, _cross_entropy, _torch_cross_entropy)
_pair("cross-entropy-small", "the same, 32 rows of 10", 1, 3, (32, 10), _cross_entropy, _torch_cross_entropy)
# what does not fit in the cache is read for the statistics and again for the result, in the backward too
_pair("batch-norm", "batch norm in train mode, 2048 channels last", 3, 8, (8192, 2048), _batch_norm, _torch_batch_norm)

DROPOUT = _row("dropout", "dropout of 16M", 2, SQUARE)


@DROPOUT.side("gluonish")
def _dropout(sizes: Sizes) -> Side:
    import gluonish as gl

    x = gl.nd.array(_input(sizes))
    drop = gl.hybridize(lambda x: gl.nd.dropout(x, 0.5))
    return Side(lambda: drop(x), list)


@DROPOUT.side("torch")
def _torch_dropout(sizes: Sizes) -> Side:
    import torch

    x = torch.from_numpy(_input(sizes))
    return Side(lambda: torch.nn.functional.dropout(x, 0.5), list, scope=torch.inference_mode)


def _chain(gl: Any, sizes: Sizes) -> Any:
    nd = gl.nd
    row, column = nd.array(numbers(4, sizes["shape"][1])), nd.array(numbers(5, sizes["shape"][0], 1))
    return gl.hybridize(lambda x: nd.relu((x * row + column) * x - row) * column + nd.abs(x - 1) * row)


def _torch_chain(torch: Any, sizes: Sizes) -> Any:
    row = torch.from_numpy(numbers(4, sizes["shape"][1]))
    column = torch.from_numpy(numbers(5, sizes["shape"][0], 1))
    return lambda x: torch.relu((x * row + column) * x - row) * column + torch.abs(x - 1) * row


_pair("chain", "10 elementwise ops with rows and columns broadcast", 2, 0, SQUARE, _chain, _torch_chain)

REDUCTIONS = {"sum-all": None, "sum-last": -1, "sum-first": 0, "max-first": 0, "argmax-last": -1, "argmax-first": 0}


def _reduction(name: str) -> tuple[Build, Build]:
    op, axis = name.split("-")[0], REDUCTIONS[name]

    def ours(gl: Any, sizes: Sizes) -> Any:
        return gl.hybridize(lambda x: getattr(gl.nd, op)(x, axis))

    def theirs(torch: Any, sizes: Sizes) -> Any:
        function = torch.amax if op == "max" else getattr(torch, op)
        return (lambda x: function(x)) if axis is None else (lambda x: function(x, axis))

    return ours, theirs


for _name in REDUCTIONS:
    _pair(_name, f"{_name.replace('-', ' over ')} of 4096 x 4096", 1, 0, SQUARE, *_reduction(_name))

ADAM = _row("adam", "Adam's update of 16M weights", 7, SQUARE)


@ADAM.side("gluonish")
def _adam(sizes: Sizes) -> Side:
    import gluonish as gl

    weight = gl.nn.Dense(sizes["shape"][0], in_units=sizes["shape"][1], use_bias=False)
    weight.initialize()
    trainer = gl.Trainer(weight.collect_params(), "adam", {"learning_rate": 1e-3})
    weight.weight.set_data(gl.nd.array(_input(sizes)))
    weight.weight.grad[:] = gl.nd.array(numbers(4, *sizes["shape"]))

    def step() -> None:
        weight.weight._grad.fresh = True  # as a backward would leave it
        trainer.step(1)

    return Side(step, list)


@ADAM.side("torch")
def _torch_adam(sizes: Sizes) -> Side:
    import torch

    weight = torch.nn.Parameter(torch.from_numpy(_input(sizes)))
    weight.grad = torch.from_numpy(numbers(4, *sizes["shape"]))
    optimizer = torch.optim.Adam([weight], 1e-3, fused=True)
    return Side(optimizer.step, list)
