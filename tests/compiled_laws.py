"""The laws of hybridizing: for every op, a compiled call is the eager call.

The same form as `laws.py`: checkers of (op, rng), in COMPILED_LAWS, run over every op by
`tests/hybrid/test_every_op.py` and shown to be able to fail by `tests/test_laws.py`, which hands them a compiler with
planted faults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from laws import SPECIAL, Sample, demand, is_float, refuses, run, samples, scattered, tracked, wrapped

from gluonish import autograd, nd
from gluonish.hybrid import compile_function
from gluonish.nd.op import Op

Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]
CompiledLaw = Callable[..., None]
COMPILED_LAWS: dict[str, CompiledLaw] = {}


def law(checker: CompiledLaw) -> CompiledLaw:
    """Adds a checker to COMPILED_LAWS under its name."""
    COMPILED_LAWS[checker.__name__] = checker
    return checker


def function_of(op: Op, attrs: dict[str, Any]) -> Callable[..., Any]:
    return lambda *xs: op(*xs, **attrs)


def agree(op: Op, eager: np.ndarray, hybrid: np.ndarray, what: str, tolerance: float = 2e-5) -> None:
    """Same shape and dtype; floats equal up to rounding of what was summed, NaN and infinities included."""
    same = (eager.shape, eager.dtype) == (hybrid.shape, hybrid.dtype)
    demand(same, op, f"hybridized gives {hybrid.shape} {hybrid.dtype} {what}, eager {eager.shape} {eager.dtype}")
    if eager.dtype.kind == "V":
        eager, hybrid = eager.astype(np.float32), hybrid.astype(np.float32)
    if eager.dtype.kind != "f":
        good = eager == hybrid
    else:
        finite = np.abs(eager[np.isfinite(eager)])
        room = tolerance * max(1.0, float(finite.max(initial=0)) if finite.size else 1.0)
        with np.errstate(all="ignore"):
            good = np.isclose(hybrid, eager, rtol=tolerance, atol=min(room, 1e-2), equal_nan=True)
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        text = f"{what}: {hybrid[place]} at {place} for {eager[place]}, {(~good).sum()} of {good.size} wrong"
        demand(False, op, f"hybridized differs from eager {text}")


def results(op: Op, function: Callable[..., Any], arrays: list[Any]) -> list[np.ndarray]:
    """The value, and the gradients if it has any, for a head gradient that is always the same."""
    values: list[np.ndarray] = []

    def differentiate() -> None:
        with autograd.record():
            out = function(*arrays)
        values.append(out.asnumpy())
        if out._entry is not None:
            head = np.asarray(np.random.default_rng(3).standard_normal(out.shape)).astype(out.dtype)
            out.backward(nd.NDArray(head))
            values.extend(x.grad.asnumpy() for x in arrays if isinstance(x, nd.NDArray) and x.grad is not None)

    return [function(*arrays).asnumpy()] if refuses(op, differentiate) else values


@law
def hybrid_is_eager(op: Op, rng: np.random.Generator, compiler: Compiler = compile_function) -> None:
    """Values and gradients through the tape, also for inputs that are not contiguous."""
    for sample in samples(op, rng):
        function = function_of(op, sample.attrs)
        compiled = compiler(function)
        eager = results(op, function, tracked(sample.inputs))
        for layout in (np.array, scattered):
            arrays = tracked(sample.inputs)
            for x, source in zip(arrays, sample.inputs):
                if isinstance(x, nd.NDArray):
                    x._data = layout(source)
            hybrid = results(op, compiled, arrays)
            demand(len(eager) == len(hybrid), op, "is on the tape eagerly or hybridized, not both")
            for index, (a, b) in enumerate(zip(eager, hybrid)):
                agree(op, a, b, f"in gradient {index - 1}" if index else "in its value")


def grown(sample: Sample, more: int) -> list[Any]:
    """The sample's arrays with every dimension above 1 larger by `more`, so that equal sizes stay equal."""
    return [
        np.resize(x, tuple(s + more if s > 1 else s for s in x.shape)) if isinstance(x, np.ndarray) and x.size else x
        for x in sample.inputs
    ]


def shrunk(sample: Sample, rng: np.random.Generator) -> list[Any]:
    """The sample's arrays with 1 for one of their sizes, wherever it stands."""
    sizes = sorted({s for x in sample.inputs if isinstance(x, np.ndarray) for s in x.shape if s > 1})
    size = rng.choice(sizes) if sizes else 0
    return [
        x[tuple(slice(1 if s == size else None) for s in x.shape)] if isinstance(x, np.ndarray) else x
        for x in sample.inputs
    ]


@law
def one_function_serves_other_sizes(op: Op, rng: np.random.Generator, compiler: Compiler = compile_function) -> None:
    """A function compiled for some sizes is right for others, whether it is traced anew or not."""
    for sample in samples(op, rng):
        compiled = compiler(function_of(op, sample.attrs))
        for inputs in (shrunk(sample, rng), sample.inputs, grown(sample, 1), grown(sample, 13)):
            try:
                eager = run(op, list(inputs), sample.attrs)
            except (ValueError, TypeError, IndexError):
                continue  # sizes that stand in the attributes
            hybrid = compiled(*[wrapped(x) for x in inputs]).asnumpy()
            shapes = ", ".join(str(x.shape) for x in inputs if isinstance(x, np.ndarray))
            agree(op, eager, hybrid, f"for the shapes {shapes}", 1e-4)


@law
def special_values_survive(op: Op, rng: np.random.Generator, compiler: Compiler = compile_function) -> None:
    """NaN, infinities, zeros, denormals and huge numbers, in every combination of an elementwise op's inputs."""
    sample = samples(op, rng)[0]
    if op.family != "elementwise" or not all(is_float(x) for x in sample.inputs):
        return
    values = np.array([*SPECIAL, *(-v for v in SPECIAL)], np.float32)
    grids = np.meshgrid(*[values] * len(sample.inputs), indexing="ij")
    hybrid = compiler(function_of(op, sample.attrs))(*[wrapped(g) for g in grids]).asnumpy()
    eager = run(op, grids, sample.attrs)
    with np.errstate(all="ignore"):
        good = np.isclose(hybrid, eager, rtol=1e-5, atol=1e-5, equal_nan=True)
    if not good.all():
        place = tuple(np.argwhere(~good)[0])
        given = ", ".join(str(g[place]) for g in grids)
        demand(False, op, f"hybridized gives {hybrid[place]} for ({given}), eager {eager[place]}")


ROOM = {"float64": 1e-12, "bfloat16": 2**-7}  # a bfloat16 may be rounded to either neighbour


@law
def dtypes_survive(op: Op, rng: np.random.Generator, compiler: Compiler = compile_function) -> None:
    """float64 stays float64 with its precision, integers stay integers, bfloat16 is rounded as eagerly."""
    sample = samples(op, rng)[0]
    for dtype in ("float64", "int32", "bfloat16"):
        inputs = [x.astype(dtype) if is_float(x) else x for x in sample.inputs]
        try:
            eager = run(op, inputs, sample.attrs)
        except (ValueError, TypeError, IndexError):
            continue  # refused eagerly: the laws of eager ops see to it that the rule refuses it too
        hybrid = compiler(function_of(op, sample.attrs))(*[wrapped(x) for x in inputs]).asnumpy()
        agree(op, eager, hybrid, f"for {dtype}", ROOM.get(eager.dtype.name, 2e-5))
