"""Random programs: hybrid is eager, to rounding, in values and gradients, for the traced sizes and for others.

The programs of the suite are the same in every run (their kernels come from the cache), their inputs are not; a few
programs are new in every run, thousands behind the `slow` marker. A failure is shrunk and printed as a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import SEED
from hybrid.random_programs import SIZES, Program, draw, shrunk

from gluonish import autograd, nd
from gluonish.hybrid import compile_function

OTHER = {"a": 11, "b": 6, "c": 9, "d": 8}
BATCH = 10  # programs in one test


class Skipped(Exception):
    """The program says nothing: float32 itself is far from float64, or it does not run on these sizes."""


def evaluate(
    program: Program, leaves: dict[int, nd.NDArray], function: Callable[..., Any], gradients: bool
) -> list[np.ndarray]:
    """Results, then the values of captured arrays, then the gradients of all float leaves."""
    nd.random.seed(7)
    arguments = [leaves[i] for i in program.places("argument")]
    if not gradients:
        out = list(function(*arguments))
        return [x.asnumpy() for x in (*out, *(leaves[i] for i in program.places("captured")))]
    states = {line.inputs[1] for line in program.lines if line.op == "state"}
    wanted = [x for i, x in leaves.items() if x.dtype.kind == "f" and i not in states]
    for x in wanted:
        x.attach_grad()
    with autograd.record():
        out = list(function(*arguments))
    heads = [x for x in out if x._entry is not None or x._grad is not None]  # an argument may be a result
    if heads:
        seeds = [np.random.default_rng(i).uniform(-1, 1, h.shape).astype(h.dtype) for i, h in enumerate(heads)]
        autograd.backward(heads, [nd.NDArray(np.asarray(s)) for s in seeds])
    return [x.asnumpy() for x in (*out, *(leaves[i] for i in program.places("captured")), *(x.grad for x in wanted))]


def agree(program: Program, seed: int, sizes: dict[str, int], function: Any, gradients: bool, own: Any) -> str:
    """What is wrong, or nothing. `function` is compiled, `own` makes its captured arrays those of a run."""
    try:
        leaves = program.leaves(seed, sizes)
        eager = evaluate(program, leaves, program.function(leaves), gradients)
    except (ValueError, TypeError, IndexError):
        raise Skipped from None
    doubles = program.leaves(seed, sizes, "float64")
    exact = evaluate(program, doubles, program.function(doubles), gradients)
    hybrid = evaluate(program, own(program.leaves(seed, sizes)), function, gradients)
    for number, (a, b, c) in enumerate(zip(eager, hybrid, exact, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {number}: hybrid gives {b.shape} {b.dtype}, eager {a.shape} {a.dtype}"
        if a.size == 0:
            continue
        if a.dtype.kind != "f":
            if (a != c).any():
                raise Skipped
            if (a != b).any():
                return f"output {number}: {(a != b).sum()} of {a.size} differ"
            continue
        scale = 1 + np.abs(c).max()
        noise = np.abs(a - c).max()
        if not noise < 1e-3 * scale:
            raise Skipped
        error = np.abs(b - c).max()
        if not error <= 20 * noise + 2e-5 * scale:
            return f"output {number}: hybrid is off by {error:.2g} (of {scale:.2g}), eager by {noise:.2g}"
    return ""


def verdict(program: Program, seed: int, gradients: bool = True) -> str:
    """What hybridizing gets wrong about a program: values, gradients, or values for other sizes; or nothing."""
    for recorded in (False, True) if gradients else (False,):
        leaves = program.leaves(seed, SIZES)

        def own(fresh: dict[int, nd.NDArray], leaves: dict[int, nd.NDArray] = leaves) -> dict[int, nd.NDArray]:
            for i in program.places("captured"):  # the arrays that the function captured take the fresh values
                fresh[i], values = leaves[i], fresh[i]
                fresh[i]._data = values._data
                fresh[i]._version[0] += 1
            return fresh

        compiled = compile_function(program.function(leaves))
        for sizes in (SIZES, OTHER, SIZES):
            try:
                found = agree(program, seed, sizes, compiled, recorded, own)
            except Skipped:
                if sizes is SIZES:
                    raise
                continue
            except Exception as error:  # noqa: BLE001 - any error is a verdict
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            if found:
                return f"{'recorded' if recorded else 'predict'}, sizes {sizes}: {found}"
    return ""


def judge(program: Program, seed: int) -> bool:
    """Whether the program could be judged. Raises: AssertionError with the shrunk program if it is compiled wrongly."""
    try:
        found = verdict(program, seed)
    except Skipped:
        return False
    if not found:
        return True

    def fails(candidate: Program) -> bool:
        try:
            return bool(verdict(candidate, seed))
        except Skipped:
            return False

    small = shrunk(program, fails)
    raise AssertionError(f"{verdict(small, seed)}\n{small}\ninputs of seed {seed}")


def judge_all(seeds: range, word: int) -> None:
    judged = [judge(draw(np.random.default_rng([word, s]), 4 + s % 8, f"draw([{word}, {s}])"), SEED) for s in seeds]
    assert sum(judged) > 0.7 * len(judged), f"only {sum(judged)} of {len(judged)} programs could be judged"


@pytest.mark.parametrize("batch", range(12))
def test_the_same_programs_with_fresh_inputs(batch: int) -> None:
    judge_all(range(BATCH * batch, BATCH * (batch + 1)), word=1)


def test_programs_that_nobody_has_seen() -> None:
    judge_all(range(5), word=SEED)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(50))
def test_many_programs(batch: int) -> None:
    judge_all(range(40 * batch, 40 * (batch + 1)), word=SEED)
