"""What is bound by memory, against a copy: losses, norms, softmax, chains, dropout, optimizer updates.

Each row says how many bytes must move, in units of its array of 16M float32. The side "copy" copies as many bytes (read
and written) by two threads, in pieces of one array, so a bar of 1 / 0.85 asks for 85 % of the copy's bandwidth.
Reductions are in `reductions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.row import BUSY, Bar, Row, Side, Sizes, classes, numbers

SHARE = 1 / 0.85
TINY: Sizes = {"shape": (6, 17)}
SHORT_ROWS = (
    "turned in registers both ways: 5.2 ns for 16 numbers and core with the data in cache, as long as memory takes"
)
ONE_ROW = "the sum of the backward is over a row that no cache holds, so its two arrays are read again for the result"
LOOSE = 2e-3  # for one row of 16M: torch is 8e-4 off float64 there, gluonish 5e-5
DOWN = "three passes over memory, not one: a column does not stay in the cache between its largest, its sum and the end"
EXPONENTIALS = (
    "bound by arithmetic: 25 instructions for 16 exponentials, 0.2 ns a number and core with the data in cache"
)
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


def declared(
    name: str,
    about: str,
    arrays: float,
    shape: tuple[int, ...],
    reason: str = "",
    tiny: Sizes = TINY,
    busy: bool = False,
    tolerance: float = 1e-4,
) -> Row:
    """A row of the group with its copy. arrays: how many of this shape must move; busy: also beside a busy process."""
    sizes = {"shape": shape, "arrays": arrays}
    bars = (Bar("copy", SHARE), *((BUSY,) if busy else ()))
    more = {"tiny": tiny, "bars": bars, "reason": reason, "tolerance": tolerance}
    row = Row(name, about, sizes, group="memory", example=name in EXAMPLES, **more)  # type: ignore[arg-type]
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


def pair(
    name: str,
    about: str,
    forward: float,
    both: float,
    shape: tuple[int, ...],
    ours: Build,
    theirs: Build,
    reasons: tuple[str, str] = ("", ""),
    **more: Any,
) -> None:
    """A row for the forward, and one for forward and backward (none where `both` is 0); reasons: of either."""
    row = declared(name, about, forward, shape, reasons[0], **more)
    row.side("gluonish")(_gluonish_forward(ours))
    row.side("torch")(_torch_forward(theirs))
    if both:
        row = declared(f"{name}-backward", f"{about}, forward and backward", both, shape, reasons[1], **more)
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


def _rms_norm(gl: Any, sizes: Sizes) -> Any:
    net = gl.nn.RMSNorm(in_channels=sizes["shape"][-1])
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


def _torch_rms_norm(torch: Any, sizes: Sizes) -> Any:
    return torch.nn.RMSNorm(sizes["shape"][-1], 1e-5)


def _torch_batch_norm(torch: Any, sizes: Sizes) -> Any:
    return torch.nn.BatchNorm1d(sizes["shape"][-1])


def _torch_softmax(torch: Any, sizes: Sizes) -> Any:
    return lambda x: torch.softmax(x, -1)


def _log_softmax(gl: Any, sizes: Sizes) -> Any:
    return gl.hybridize(lambda x: gl.nd.log_softmax(x))


def _torch_log_softmax(torch: Any, sizes: Sizes) -> Any:
    return lambda x: torch.log_softmax(x, -1)


def _softmax_first(gl: Any, sizes: Sizes) -> Any:
    return gl.hybridize(lambda x: gl.nd.softmax(x, 0))


def _torch_softmax_first(torch: Any, sizes: Sizes) -> Any:
    return lambda x: torch.softmax(x, 0)


def _softmax_second(gl: Any, sizes: Sizes) -> Any:
    return gl.hybridize(lambda x: gl.nd.softmax(x, 1))


def _torch_softmax_second(torch: Any, sizes: Sizes) -> Any:
    return lambda x: torch.softmax(x, 1)


TENS = (1_600_000, 10)
SQUARE, LONG, SHORT, ONE = (4096, 4096), (16384, 1024), (1 << 20, 16), (1, 1 << 24)
TINY_ONE = {"shape": (1, 170)}
pair("softmax", "softmax along rows of 4096", 2, 5, SQUARE, _softmax, _torch_softmax, busy=True)
pair("softmax-1024", "softmax along rows of 1024", 2, 5, LONG, _softmax, _torch_softmax)
pair("softmax-16383", "softmax along 1000 rows of 16383", 2, 5, (1000, 16383), _softmax, _torch_softmax)
pair("softmax-16", "softmax along 1M rows of 16", 2, 5, SHORT, _softmax, _torch_softmax, (SHORT_ROWS, SHORT_ROWS))
pair("softmax-10", "softmax along 1.6M rows of 10", 2, 5, TENS, _softmax, _torch_softmax, (SHORT_ROWS, SHORT_ROWS))
pair("softmax-100", "softmax along 160K rows of 100", 2, 5, (160_000, 100), _softmax, _torch_softmax, (SHORT_ROWS, ""))
pair(
    "softmax-one",
    "softmax of one row of 16M (read twice, as no cache holds it)",
    3,
    6,
    ONE,
    _softmax,
    _torch_softmax,
    ("", ONE_ROW),
    tiny=TINY_ONE,
    tolerance=LOOSE,
)
pair(
    "softmax-channels", "softmax over the 21 channels of 16 images", 2, 0, (16, 21, 224 * 224), _softmax_second,
    _torch_softmax_second, (DOWN, DOWN), tiny={"shape": (2, 3, 35)},
)  # fmt: skip
pair("softmax-first", "softmax down the columns", 2, 5, SQUARE, _softmax_first, _torch_softmax_first, (DOWN, DOWN))
pair("log-softmax", "log-softmax along rows of 4096", 2, 5, SQUARE, _log_softmax, _torch_log_softmax)
pair("log-softmax-1024", "log-softmax along rows of 1024", 2, 5, LONG, _log_softmax, _torch_log_softmax)
pair("layer-norm", "layer norm of rows of 4096", 2, 5, SQUARE, _layer_norm, _torch_layer_norm, busy=True)
pair("rms-norm-1024", "root mean square norm of rows of 1024", 2, 5, LONG, _rms_norm, _torch_rms_norm)
pair("layer-norm-1024", "layer norm of rows of 1024", 2, 5, LONG, _layer_norm, _torch_layer_norm)
pair("layer-norm-16383", "layer norm of rows of 16383", 2, 5, (1000, 16383), _layer_norm, _torch_layer_norm)
pair("layer-norm-16", "layer norm of 1M rows of 16", 2, 5, SHORT, _layer_norm, _torch_layer_norm)
pair("layer-norm-small", "layer norm of 1024 rows of 384", 2, 5, (1024, 384), _layer_norm, _torch_layer_norm)
pair(
    "cross-entropy", "cross-entropy of logits, 4096 classes", 1, 3, SQUARE, _cross_entropy, _torch_cross_entropy,
    (EXPONENTIALS, ""), busy=True,
)  # fmt: skip
pair(
    "cross-entropy-1024", "the same, 1024 classes", 1, 3, LONG, _cross_entropy, _torch_cross_entropy, (EXPONENTIALS, "")
)
pair(
    "cross-entropy-10", "the same, 1.6M rows of 10 classes", 1, 3, TENS, _cross_entropy, _torch_cross_entropy,
    (f"{EXPONENTIALS}; and the label's number is gathered", ""),
)  # fmt: skip
pair("cross-entropy-small", "the same, 32 rows of 10", 1, 3, (32, 10), _cross_entropy, _torch_cross_entropy)
# what does not fit in the cache is read for the statistics and again for the result, in the backward too
pair(
    "batch-norm", "batch norm in train mode, 2048 channels last", 3, 8, (8192, 2048), _batch_norm, _torch_batch_norm,
    busy=True,
)  # fmt: skip

DROPOUT = declared("dropout", "dropout of 16M", 2, SQUARE, busy=True)


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


def _chain(library: Any, array: Callable[[np.ndarray], Any], sizes: Sizes) -> dict[str, Callable[[Any], Any]]:
    """Chains by their number of ops, from functions that gluonish and torch name alike."""
    row, column = array(numbers(4, sizes["shape"][1])), array(numbers(5, sizes["shape"][0], 1))
    relu, size, square = library.relu, library.abs, library.square

    def ten(x: Any) -> Any:
        return relu((x * row + column) * x - row) * column + size(x - 1) * row

    return {
        "chain-5": lambda x: relu(x * row + column) * 2 - 1,
        "chain": ten,
        "chain-20": lambda x: ten(x) * row + square(x) - (x - column) * 3 + size(x * 0.5 - row) * x,
    }


def _our_chain(name: str) -> Build:
    return lambda gl, sizes: gl.hybridize(_chain(gl.nd, gl.nd.array, sizes)[name])


def _torch_chain(name: str) -> Build:
    return lambda torch, sizes: _chain(torch, torch.from_numpy, sizes)[name]


for _name, _count in (("chain-5", 5), ("chain", 10), ("chain-20", 20)):
    _about = f"{_count} elementwise ops with rows and columns broadcast"
    pair(_name, _about, 2, 0, SQUARE, _our_chain(_name), _torch_chain(_name), busy=_name == "chain")

ADAM = declared("adam", "Adam's update of 16M weights", 7, SQUARE, busy=True)


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
