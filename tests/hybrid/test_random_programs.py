"""Random programs: hybrid is eager, to rounding, in values and gradients, for the traced sizes and for others.

Most programs of the suite are the same in every run (their kernels come from the cache), their inputs are not; a few
programs are new in every run, and thousands behind the `slow` marker. A failure is shrunk and printed as a program.
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
from gluonish.hybrid.graph import TraceError

OTHER = {"a": 11, "b": 6, "c": 9, "d": 8}
BIG = {"a": 97, "b": 35, "c": 61, "d": 130}  # many tiles, several threads
BATCH = 8  # programs in one test


class Skipped(Exception):
    """The program says nothing: float32 itself is far from float64 there, or it does not run on these sizes."""


def evaluate(program: Program, leaves: dict[int, nd.NDArray], function: Any, gradients: bool) -> list[np.ndarray]:
    """The results, the captured arrays after the call, and the gradients of all leaves that can have one."""
    nd.random.seed(7)
    arguments = [leaves[i] for i in program.places("argument")]
    states = program.states()
    wanted = [x for i, x in leaves.items() if gradients and x.dtype.kind == "f" and i not in states]
    for x in wanted:
        x.attach_grad()
    with autograd.record() if gradients else autograd.pause():
        out = list(function(*arguments))
    # an argument may be a result; a loop of no steps depends on nothing in eager mode
    heads = {i: x for i, x in enumerate(out) if x._entry is not None or x._grad is not None}
    if heads:
        seeds = [np.random.default_rng(i).uniform(-1, 1, h.shape) for i, h in heads.items()]
        given = [nd.NDArray(np.asarray(s, h.dtype)) for s, h in zip(seeds, heads.values())]
        autograd.backward(list(heads.values()), given)
    captured = [leaves[i] for i in program.places("captured")]
    return [x.asnumpy() for x in (*out, *captured, *(x.grad for x in wanted))]


def difference(eager: np.ndarray, hybrid: np.ndarray, exact: np.ndarray) -> str:
    """How hybrid is wrong, or nothing. Raises: Skipped where eager float32 itself is far from float64."""
    if (eager.shape, eager.dtype) != (hybrid.shape, hybrid.dtype):
        return f"hybrid gives {hybrid.shape} {hybrid.dtype}, eager {eager.shape} {eager.dtype}"
    if eager.dtype.kind != "f":
        if not np.array_equal(eager, exact):
            raise Skipped
        return f"{(eager != hybrid).sum()} of {eager.size} differ" if (eager != hybrid).any() else ""
    if eager.size == 0:
        return ""
    scale = 1 + float(np.abs(exact).max())
    noise = float(np.abs(eager - exact).max())
    if not noise < 1e-3 * scale:
        raise Skipped
    error = float(np.abs(hybrid - exact).max())
    if error <= 20 * noise + 2e-5 * scale:
        return ""
    return f"hybrid is off by {error:.2g} (of {scale:.2g}), eager by {noise:.2g}"


def compare(
    program: Program, seed: int, sizes: dict[str, int], run: Callable[..., list[np.ndarray]], grads: bool
) -> str:
    """What `run` gets wrong about a program for some sizes, or nothing."""
    try:
        leaves = program.leaves(seed, sizes)
        eager = evaluate(program, leaves, program.function(leaves), grads)
    except (ValueError, TypeError, IndexError):
        raise Skipped from None
    doubles = program.leaves(seed, sizes, "float64")
    exact = evaluate(program, doubles, program.function(doubles), grads)
    for number, (a, b, c) in enumerate(zip(eager, run(program.leaves(seed, sizes)), exact, strict=True)):
        found = difference(a, b, c)
        if found:
            return f"output {number}: {found}"
    return ""


def verdict(program: Program, seed: int, other: dict[str, int] = OTHER) -> str:
    """What hybridizing gets wrong about a program: values, gradients, or either for other sizes; or nothing."""
    for grads in (False, True):
        own = program.leaves(seed, SIZES)
        compiled = compile_function(program.function(own))

        def run(fresh: dict[int, nd.NDArray], own: Any = own, compiled: Any = compiled, grads: Any = grads) -> Any:
            for i in program.places("captured"):  # the arrays that the function has captured get the fresh values
                own[i]._data = fresh[i]._data
                own[i]._version[0] += 1
                fresh[i] = own[i]
            return evaluate(program, fresh, compiled, grads)

        for sizes in (SIZES, other, SIZES):
            try:
                found = compare(program, seed, sizes, run, grads)
            except Skipped:
                if sizes is SIZES:
                    raise
                continue
            except TraceError as error:
                if "writes to an array that is also" in str(error):  # which eager mode does in its own way
                    raise Skipped from None
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            except (ValueError, IndexError) as error:
                if sizes is not SIZES and "cond(" in str(program):  # eager mode runs one side only
                    continue
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            except Exception as error:  # noqa: BLE001 - any error of a compiled call is a verdict
                found = f"{type(error).__name__}: {str(error)[:1500]}"
            if found:
                return f"{'recorded' if grads else 'predict'}, sizes {sizes}: {found}"
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
    raise AssertionError(f"{verdict(small, seed) or found}\n{small}\ninputs of seed {seed}")


def judge_all(numbers: range, word: int) -> None:
    """Judges the programs with these numbers; most must say something."""
    judged = [judge(draw(np.random.default_rng([word, n]), 4 + n % 8, f"draw([{word}, {n}])"), SEED) for n in numbers]
    assert sum(judged) >= 0.7 * len(judged), f"only {sum(judged)} of {len(judged)} programs could be judged"


@pytest.mark.parametrize("batch", range(2))
def test_the_same_programs_with_fresh_inputs(batch: int) -> None:
    judge_all(range(BATCH * batch, BATCH * (batch + 1)), word=1)


def test_programs_that_nobody_has_seen() -> None:
    judge_all(range(2), word=SEED)


def test_programs_on_large_arrays() -> None:
    judged = 0
    for n in range(16):
        program = draw(np.random.default_rng([1, n]), 4 + n % 8, f"draw([1, {n}])")
        if max(x.size for x in program.leaves(SEED, BIG).values()) > 300_000:
            continue
        if any(loop in str(program) for loop in ("foreach(", "while_loop(")):  # as many steps, each with its results
            continue
        try:
            found = verdict(program, SEED, BIG)
        except Skipped:
            continue
        assert not found, f"{found}\n{program}\ninputs of seed {SEED}"
        judged += 1
    assert judged >= 3


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(125))  # 5,000 programs
def test_many_programs(batch: int) -> None:
    judge_all(range(40 * batch, 40 * (batch + 1)), word=SEED)
