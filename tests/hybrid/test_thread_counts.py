"""Results are the same bits for any number of threads: over every op, whole networks, large sums, random programs.

Every step is made worth sharing here, so that also small ones are cut into tiles and handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from compiled_laws import function_of, grown, results
from conftest import SEED
from hybrid.random_drawing import draw
from hybrid.test_random_programs import BIG, evaluate
from laws import every_op, samples, tracked

from gluonish import autograd, init, loss, nd, nn
from gluonish.hybrid import bound, compile_function
from gluonish.kernels import pool
from gluonish.nd.op import OPS, Op

COUNTS = (1, 2, 3, 4, 8)
REFUSALS = (ValueError, TypeError, IndexError)


@pytest.fixture(autouse=True)
def everything_is_shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bound, "worth_sharing", lambda nanoseconds: True)
    with pool.num_threads(1):
        yield


def same_bits(work: Callable[[], list[np.ndarray]], what: str) -> None:
    """`work` gives equal arrays, to the last bit, for every number of threads, and every time."""
    first: list[np.ndarray] = []
    for count in COUNTS:
        pool.set_num_threads(count)
        for _ in range(1 if count == 1 else 3):  # who gets which tile changes from run to run
            found = [np.array(x) for x in work()]
            first = first or found
            for index, (a, b) in enumerate(zip(first, found, strict=True)):
                assert a.tobytes() == b.tobytes(), f"{what}: result {index} differs with {count} threads"


def larger(op: Op, sample: Any) -> list[Any]:
    """The sample's inputs with more elements, as many as the op takes without complaint."""
    for more in (61, 13, 1):
        inputs = grown(sample, more)
        if sum(x.size for x in inputs if isinstance(x, np.ndarray)) > 300_000:
            continue
        try:
            out = op(*[nd.NDArray(np.array(x)) if isinstance(x, np.ndarray) else x for x in inputs], **sample.attrs)
        except REFUSALS:
            continue  # sizes that stand in the attributes
        if out.size <= 300_000:
            return inputs
    return list(sample.inputs)


@pytest.mark.parametrize("op", [op for op in every_op() if op.family != "random"], ids=lambda op: op.name)
def test_every_op_gives_the_same_bits(op: Op, rng: np.random.Generator) -> None:
    for sample in samples(op, rng):
        arrays = tracked(larger(op, sample))
        compiled = compile_function(function_of(op, sample.attrs))
        same_bits(lambda compiled=compiled, arrays=arrays: results(op, compiled, arrays), op.name)  # type: ignore[misc]


def test_the_law_can_fail() -> None:
    """A function that asks for the number of threads is found."""
    x = np.ones(1000, np.float32)
    with pytest.raises(AssertionError, match="planted: result 0 differs with 2 threads"):
        same_bits(lambda: [x / np.float32(1 / 3 * pool.get_num_threads())], "planted")


def test_the_steps_really_are_shared() -> None:
    compiled = compile_function(lambda x: nd.tanh(x).sum(1))
    compiled(nd.ones((40, 300)))
    ((program,),) = [[v.program for v in compiled.variants]]
    (run,) = program._free[0].bounds.values()
    assert [row[3] for row in run.table[1:]] == [1] * len(run.steps)


@pytest.mark.parametrize("name", [op.name for op in every_op() if op.family == "random"])
def test_random_ops_give_the_same_bits(name: str) -> None:
    shape = (301, 67)
    drawn = {"uniform": nd.random.uniform, "normal": nd.random.normal}
    if name not in {"random_uniform", "random_normal", "uniform", "normal"}:
        sample = samples(OPS[name], np.random.default_rng(1))[0]
        function: Any = function_of(OPS[name], sample.attrs)
        arrays = [nd.NDArray(np.array(x)) if isinstance(x, np.ndarray) else x for x in sample.inputs]
    else:
        draw_one = drawn[name.removeprefix("random_")]
        function, arrays = (lambda: draw_one(shape=shape)), []
    compiled = compile_function(function)

    def work() -> list[np.ndarray]:
        nd.random.seed(11)
        return [compiled(*arrays).asnumpy()]

    same_bits(work, name)


NETWORKS: dict[str, tuple[Callable[[], list[Any]], tuple[int, ...]]] = {
    "convolutions": (
        lambda: [
            nn.Conv2D(21, 3, padding=1),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.MaxPool2D(2),
            nn.Conv2D(36, 3, strides=2, groups=3),
            nn.Activation("tanh"),
            nn.Conv2D(17, 1),
            nn.GlobalAvgPool2D(),
            nn.Flatten(),
            nn.Dense(10),
        ],
        (9, 3, 33, 29),
    ),
    "dense layers": (
        lambda: [nn.Dense(131, activation="relu"), nn.Dropout(0.2), nn.Dense(67, activation="tanh"), nn.Dense(10)],
        (203, 119),
    ),
    "norms": (
        lambda: [nn.Dense(130), nn.LayerNorm(), nn.GELU(), nn.Dense(96), nn.BatchNorm(), nn.Dense(10)],
        (157, 83),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_same_bits(name: str, rng: np.random.Generator) -> None:
    layers, shape = NETWORKS[name]
    net = nn.HybridSequential(*layers())
    net.initialize(init.Xavier())
    x = nd.array(rng.standard_normal(shape).astype(np.float32))
    labels = nd.array(rng.integers(0, 10, shape[0]))
    with autograd.train_mode():
        net(x)
    start = {k: p.data().asnumpy().copy() for k, p in net.collect_params().items()}
    net.hybridize()
    criterion = loss.SoftmaxCrossEntropyLoss()

    def step() -> list[np.ndarray]:
        nd.random.seed(5)
        for k, p in net.collect_params().items():
            p.set_data(nd.array(start[k]))
        with autograd.record():
            losses = criterion(net(x), labels)
        losses.backward()
        params = net.collect_params().values()
        grads = [p.grad.asnumpy() for p in params if p.grad_req != "null"]
        return [losses.asnumpy(), *grads, *(p.data().asnumpy() for p in params)]

    same_bits(step, name)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2), 2])
def test_sums_of_large_arrays_give_the_same_bits(axis: Any, rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((61, 173, 129)).astype(np.float32))
    functions = {
        "sum": lambda x: x.sum(axis),
        "mean of a chain": lambda x: (nd.tanh(x) * x + 1).mean(axis),
        "largest": lambda x: nd.max(x, axis),
        "deviation": lambda x: nd.sqrt(((x - x.mean(axis, keepdims=True)) ** 2).mean(axis)),
    }
    for name, function in functions.items():
        compiled = compile_function(function)
        same_bits(lambda compiled=compiled: [compiled(x).asnumpy()], name)  # type: ignore[misc]


def test_softmax_gives_the_same_bits(rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((301, 257)).astype(np.float32))
    x.attach_grad()
    for function in (nd.softmax, nd.log_softmax, lambda x: nd.softmax(x, 0)):
        compiled = compile_function(function)
        same_bits(lambda f=function, c=compiled: results(OPS["exp"], c, [x]), str(function))  # type: ignore[misc]


def check_programs(numbers: range) -> int:
    """How many of the programs could be run on large arrays; those that can give the same bits."""
    done = 0
    for number in numbers:
        program = draw(np.random.default_rng([1, number]), 4 + number % 8, f"draw([1, {number}])")
        leaves = program.leaves(SEED, BIG)
        if max(x.size for x in leaves.values()) > 300_000:
            continue
        if any(loop in str(program) for loop in ("foreach(", "while_loop(")):  # as many steps, each with its results
            continue
        before = {i: x.asnumpy().copy() for i, x in leaves.items()}
        try:
            evaluate(program, leaves, program.function(leaves), "recorded")
        except REFUSALS:
            continue  # it does not run on these sizes
        compiled = compile_function(program.function(leaves))

        def work(program: Any = program, leaves: Any = leaves, before: Any = before, f: Any = compiled) -> Any:
            for i in program.states():
                leaves[i][...] = nd.array(before[i])
            return evaluate(program, leaves, f, "recorded")

        same_bits(work, str(program))
        done += 1
    return done


def test_random_programs_give_the_same_bits() -> None:
    assert check_programs(range(16)) > 3


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
def test_many_random_programs_give_the_same_bits(batch: int) -> None:
    check_programs(range(40 * batch, 40 * (batch + 1)))
