"""Compiled recurrent networks: values and gradients of the eager ones, one program for all sizes, no NumPy in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd
from gluonish.hybrid.fuse import root_of

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KINDS = pytest.mark.parametrize("kind", GATES)


def weights_of(kind: str, rng: np.random.Generator, inputs: int, units: int, dtype: str = "float32") -> list[Any]:
    wide = GATES[kind] * units
    shapes = [(wide, inputs), (wide, units), (wide,), (wide,)]
    out = [nd.array((0.4 * rng.standard_normal(s)).astype(dtype)) for s in shapes]
    for w in out:
        w.attach_grad()
    return out


def results(function: Callable[..., Any], arrays: list[Any], weights: list[Any]) -> list[np.ndarray]:
    """Outputs, and the gradients of arrays and weights for head gradients that are always the same."""
    for a in arrays:
        if a.dtype.kind == "f":
            a.attach_grad()
    with autograd.record():
        out = function(*arrays)
    draws = np.random.default_rng(5)
    heads = [nd.array(draws.standard_normal(o.shape).astype(o.dtype)) for o in out]
    autograd.backward(list(out), heads)
    grads = [a.grad.asnumpy().copy() for a in (*arrays, *weights) if a.dtype.kind == "f"]
    return [*(o.asnumpy() for o in out), *grads]


def agree(eager: list[np.ndarray], hybrid: list[np.ndarray]) -> None:
    for a, b in zip(eager, hybrid, strict=True):
        room = (1e-4 if a.dtype == np.float32 else 1e-11) * max(1.0, float(np.abs(a).max(initial=0)))
        np.testing.assert_allclose(b, a, rtol=room, atol=room)


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "lengths"])
def test_compiled_is_eager(kind: str, dtype: str, masked: bool, rng: np.random.Generator) -> None:
    """Both directions, two layers, begin states: and other sizes by the same program."""
    units, inputs = 9, 4
    layers = [[weights_of(kind, rng, size, units, dtype) for _ in range(2)] for size in (inputs, 2 * units)]
    function: Callable[..., Any] = getattr(nd, kind)

    def net(x: Any, *rest: Any) -> tuple[Any, ...]:
        lengths, states = (rest[0], rest[1:]) if masked else (None, rest)
        last: list[Any] = []
        for layer in layers:
            runs = [function(x, *w, *states, lengths=lengths, reverse=r == 1) for r, w in enumerate(layer)]
            x = nd.concat([run[0] for run in runs], 2)
            last += [s for run in runs for s in run[1:]]
        return (x, *last)

    compiled = gl.hybridize(net)
    weights = [w for layer in layers for one in layer for w in one]
    for steps, rows in ((5, 3), (12, 7), (2, 6)):
        arrays = [rng.standard_normal((steps, rows, inputs)).astype(dtype)]
        arrays += [rng.integers(0, steps + 1, rows)] if masked else []
        arrays += [rng.standard_normal((rows, units)).astype(dtype) for _ in range(2 if kind == "lstm" else 1)]
        given = [nd.array(a) for a in arrays]
        agree(results(net, given, weights), results(compiled, given, weights))
    text = str(compiled.explain())
    assert "slower" not in text, text
    assert "1 variant" in text, text


@KINDS
@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (1, 1), (0, 2), (2, 0)])
def test_sizes_of_one_and_none(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    weights = weights_of(kind, rng, 3, 5)
    x = nd.array(rng.standard_normal((*shape, 3)).astype(np.float32))

    def net(x: Any) -> Any:
        return getattr(nd, kind)(x, *weights)

    agree(results(net, [x], weights), results(gl.hybridize(net), [x], weights))


def uses_of(result: Callable[[Any, Any, Any], Any]) -> Callable[[list[Any]], Callable[..., Any]]:
    return lambda weights: lambda x: (result(*nd.lstm(x, *weights)),)


USES = {
    "outputs": uses_of(lambda out, h, c: out),
    "last": uses_of(lambda out, h, c: h),
    "last c": uses_of(lambda out, h, c: c * c),
    "all": uses_of(lambda out, h, c: out.sum() + (h * c).sum()),
    "twice": uses_of(lambda out, h, c: out * out + h),
    "a part of the outputs": uses_of(lambda out, h, c: out[1:3]),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_is_read_of_a_run(use: str, rng: np.random.Generator) -> None:
    """The gradient of a run is made of parts, which the kernel reads where they are: no zeros to put them into."""
    weights = weights_of("lstm", rng, 3, 6)
    net = USES[use](weights)
    x = nd.array(rng.standard_normal((4, 5, 3)).astype(np.float32))
    agree(results(net, [x], weights), results(gl.hybridize(net), [x], weights))


def test_a_record_can_be_read_as_it_is(rng: np.random.Generator) -> None:
    """The op itself, with gradients of all planes, and with what its gradient needs made again."""
    gates = nd.array(rng.standard_normal((3, 4, 20)).astype(np.float32))
    weight = nd.array(0.3 * rng.standard_normal((20, 5)).astype(np.float32))
    states = [nd.array(rng.standard_normal((4, 5)).astype(np.float32)) for _ in range(2)]
    for keep in (False, True):
        for reverse in (False, True):

            def net(*xs: Any, keep: bool = keep, reverse: bool = reverse) -> tuple[Any]:
                return (nd.OPS["lstm"](*xs, reverse=reverse, keep=keep),)

            arrays = [gates, weight, *states]
            agree(results(net, arrays, []), results(gl.hybridize(net), arrays, []))


def test_float16_runs_in_the_kernel_of_float32(rng: np.random.Generator) -> None:
    """Its bias is added and rounded by a loop, and added to the product from what that loop has written."""
    weights = weights_of("gru", rng, 3, 4, "float16")
    x = nd.array(rng.standard_normal((3, 2, 3)).astype(np.float16))
    compiled = gl.hybridize(lambda x: nd.gru(x, *weights)[0])
    eager = nd.gru(x, *weights)[0].asnumpy()
    np.testing.assert_allclose(compiled(x).asnumpy(), eager, rtol=1e-2, atol=1e-2)
    assert "gru" in [step.name for step in compiled.variants[0].program.main]
    assert "slower" not in str(compiled.explain())


def test_weights_are_packed_once_for_each_version(rng: np.random.Generator) -> None:
    weights = weights_of("lstm", rng, 3, 4)
    x = nd.array(rng.standard_normal((3, 2, 3)).astype(np.float32))
    compiled = gl.hybridize(lambda x: nd.lstm(x, *weights)[0])
    for _ in range(2):
        np.testing.assert_allclose(compiled(x).asnumpy(), nd.lstm(x, *weights)[0].asnumpy(), rtol=1e-4, atol=1e-5)
        weights[1][:] = nd.array(rng.standard_normal((16, 4)).astype(np.float32))
    program = compiled.variants[0].program
    assert "pack_gates" in [step.name for step in program.prepared.steps]
    assert "pack_gates" not in [step.name for step in program.main]


@KINDS
def test_both_directions_run_in_one_call(kind: str, rng: np.random.Generator) -> None:
    """To the last bit what each of them gives by itself, forward and backward; a second layer waits for the first."""
    units, function = 7, getattr(nd, kind)
    layers = [[weights_of(kind, rng, size, units) for _ in range(2)] for size in (5, 2 * units)]
    flat = [w for layer in layers for one in layer for w in one]

    def run(x: Any, weights: list[Any], reverse: bool) -> Any:
        return function(x, *weights, reverse=reverse)[0]

    def net(x: Any) -> Any:
        for layer in layers:
            x = nd.concat([run(x, w, r == 1) for r, w in enumerate(layer)], 2)
        return (x,)

    def apart(x: Any) -> Any:
        for one in alone:
            x = nd.concat([f(x) for f in one], 2)
        return (x,)

    alone = [[gl.hybridize(lambda x, w=w, r=r: run(x, w, r == 1)) for r, w in enumerate(layer)] for layer in layers]
    compiled = gl.hybridize(net)
    for steps, rows in ((6, 1), (3, 5)):
        x = nd.array(rng.standard_normal((steps, rows, 5)).astype(np.float32))
        for a, b in zip(results(compiled, [x], flat), results(apart, [x], flat), strict=True):
            assert a.tobytes() == b.tobytes()
    variant = compiled.variants[0]
    for program, name in ((variant.program, kind), (variant.backward.program(), f"{kind}_gradient")):
        calls = [step for step in program.main if step.name == name]
        assert [len(step.writes) for step in calls] == [2, 2]


@KINDS
def test_second_gradients_read_nothing_before_it_is_written(kind: str, rng: np.random.Generator) -> None:
    """Fusion has many ways here to make two groups that wait for each other."""
    op = nd.OPS[f"{kind}_gradient"]
    for inputs, attrs in op.sample(rng):

        def net(*xs: Any, attrs: dict[str, Any] = attrs) -> tuple[Any]:
            return (op(*xs, **attrs),)

        compiled, arrays = gl.hybridize(net), [nd.array(x) for x in inputs]
        agree(results(net, arrays, []), results(compiled, arrays, []))
        program = compiled.variants[0].backward.program()
        written: set[int] = set()
        for step in program.steps:
            reads = [root_of(n) for n in step.reads]
            assert all(n.kind in ("input", "captured") or id(n) in written for n in reads), step
            written.update(id(root_of(n)) for n in step.writes)
