"""The laws can fail: each is shown ops (or a compiler) with a planted fault that it must catch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_laws import COMPILED_LAWS
from laws import LAWS, LawBroken, every_op

from gluonish import nd
from gluonish.hybrid import compile_function
from gluonish.nd import math
from gluonish.nd.op import OPS, Op, Sample, Spec


def altered(name: str, **changes: Any) -> Op:
    """A registered op with other fields."""
    return dataclasses.replace(OPS[name], **changes)


def computing(name: str, body: Callable[..., Any], **changes: Any) -> Op:
    """An elementwise op with another body, forward and all."""

    def forward(*values: Any) -> Any:
        with np.errstate(all="ignore"):
            return body(math, *values)

    return altered(name, body=body, forward=forward, **changes)


def behaving(name: str, around: Callable[..., Any], **changes: Any) -> Op:
    """An op whose forward goes through `around(forward, *arrays, **attrs)`."""
    true = OPS[name].forward
    return altered(name, forward=lambda *xs, **attrs: around(true, *xs, **attrs), **changes)


def shifted(name: str, change: Callable[[Spec], Spec], **changes: Any) -> Op:
    """An op whose rule says something else."""
    true = OPS[name].rule
    return altered(name, rule=lambda *xs, **attrs: change(true(*xs, **attrs)), **changes)


def float32_inside(forward: Callable[..., Any], *xs: Any, **attrs: Any) -> Any:
    return forward(*[x.astype(np.float32) for x in xs], **attrs).astype(xs[0].dtype)


def overwriting(forward: Callable[..., Any], *xs: Any, **attrs: Any) -> Any:
    out = forward(*xs, **attrs)
    xs[0][...] = 0
    return out


def reading_memory(forward: Callable[..., Any], *xs: Any, **attrs: Any) -> Any:
    """Reads the first elements in memory, as a kernel would that takes every array for contiguous."""
    base = xs[0].base
    if base is not None and not xs[0].flags.c_contiguous and base.size >= xs[0].size:
        return forward(base.ravel()[: xs[0].size].reshape(xs[0].shape), *xs[1:], **attrs)
    return forward(*xs, **attrs)


def record(name: str) -> dict[str, Any]:
    """The fields of a registered op."""
    return {f.name: getattr(OPS[name], f.name) for f in dataclasses.fields(Op) if f.init}


class Copying(Op):
    """Copies its arrays first, so that the tape holds copies and sees no later write."""

    def prepared(self, inputs: Any) -> tuple[Any, ...]:
        out = []
        for x in super().prepared(inputs):
            twin = nd.NDArray(x._data.copy())
            twin._grad, twin._entry = x._grad, x._entry
            out.append(twin)
        return tuple(out)


class FirstWins(Op):
    """Converts to the dtype of the first input instead of the common one."""

    def prepared(self, inputs: Any) -> tuple[Any, ...]:
        return tuple(nd.NDArray(x._data.astype(inputs[0].dtype)) for x in inputs)


class Unpromoted(Op):
    """Leaves mixed dtypes to NumPy, which makes float64 of int64 and float32."""

    def prepared(self, inputs: Any) -> tuple[Any, ...]:
        return tuple(inputs)


calls = iter(range(10**9))
generator = np.random.default_rng(0)

FAULTS: list[tuple[str, str, Callable[[], Op]]] = [
    # the record
    ("record_is_complete", "no samples", lambda: altered("tanh", sample=lambda rng: [])),
    (
        "record_is_complete",
        "samples that no seed repeats",
        lambda: altered("tanh", sample=lambda rng: [Sample((generator.standard_normal(3).astype("f4"),))]),
    ),
    ("record_is_complete", "no words", lambda: altered("tanh", doc="")),
    ("record_is_complete", "an unknown family", lambda: altered("tanh", family="elementary")),
    ("record_is_complete", "too few vjp rules", lambda: altered("add", vjp=OPS["add"].vjp[:1])),
    # shapes and dtypes
    ("result_is_as_the_rule_says", "wrong shape rule", lambda: shifted("sum", lambda s: Spec((*s.shape, 1), s.dtype))),
    (
        "result_is_as_the_rule_says",
        "wrong dtype rule",
        lambda: shifted("argmax", lambda s: Spec(s.shape, np.dtype("int32"))),
    ),
    ("result_is_as_the_rule_says", "float64 leak", lambda: computing("tanh", lambda m, x: m.tanh(x) * np.float64(1))),
    ("result_is_as_the_rule_says", "overwritten input", lambda: behaving("relu", overwriting)),
    (
        "every_dtype_gives_the_rules_dtype_or_an_error",
        "integers become doubles",
        lambda: altered("round", forward=np.rint, body=None),
    ),
    (
        "every_dtype_gives_the_rules_dtype_or_an_error",
        "a rule that takes bools",
        lambda: altered("negative", accepts="any"),
    ),
    (
        "every_size_gives_the_rules_shape_or_an_error",
        "a lenient rule",
        lambda: altered("place", rule=lambda x, shape, key: Spec(shape, x.dtype)),
    ),
    ("every_size_gives_the_rules_shape_or_an_error", "a lenient op", lambda: altered("matmul", forward=np.matmul)),
    (
        "every_size_gives_the_rules_shape_or_an_error",
        "empties that crash",
        lambda: behaving("exp", lambda forward, x: forward(x) + 0 * x.max()),
    ),
    (
        "width_of_floats_is_kept",
        "float32 becomes float64, rule and all",
        lambda: behaving(
            "tanh", lambda forward, x: forward(x).astype(np.float64), rule=lambda x: Spec(x.shape, np.dtype("float64"))
        ),
    ),
    (
        "width_of_floats_is_kept",
        "float64 becomes float32",
        lambda: behaving("tanh", lambda forward, x: forward(x).astype(np.float32)),
    ),
    # memory
    ("layout_does_not_matter", "memory read as if contiguous", lambda: behaving("sum", reading_memory)),
    (
        "layout_does_not_matter",
        "another result each time",
        lambda: behaving("exp", lambda forward, x: forward(x) + np.float32(next(calls) * 1e-6)),
    ),
    # special values
    ("nan_is_never_lost", "NaN dropped by fmax", lambda: computing("relu", lambda m, x: np.fmax(x, 0))),
    ("nan_is_never_lost", "NaN dropped from one input", lambda: computing("maximum", lambda m, x, y: np.fmax(x, y))),
    (
        "nan_is_never_lost",
        "NaN dropped by a reduction",
        lambda: altered("max", forward=lambda x, axes, keepdims: np.fmax.reduce(x, axis=axes, keepdims=keepdims)),
    ),
    (
        "special_values_are_as_in_double_precision",
        "overflow on the way",
        lambda: computing("softplus", lambda m, x: m.log(1 + m.exp(x))),
    ),
    (
        "special_values_are_as_in_double_precision",
        "0 * inf on the way",
        lambda: computing("sigmoid", lambda m, x: m.exp(x) / (1 + m.exp(x))),
    ),
    ("body_is_the_forward", "a body of its own", lambda: altered("add", body=lambda m, x, y: x - y)),
    ("body_is_the_forward", "no body", lambda: altered("add", body=None)),
    # numbers and mixed dtypes
    (
        "numbers_are_weak",
        "numbers that count as float64",
        lambda: altered(
            "add",
            forward=lambda x, y: np.add(x, y, dtype="f8" if isinstance(x, float) or isinstance(y, float) else None),
        ),
    ),
    (
        "numbers_are_weak",
        "numbers that lose their fraction",
        lambda: altered("add", forward=lambda x, y: x + (int(y) if isinstance(y, float) else y)),
    ),
    ("dtypes_meet_by_the_table", "the first dtype wins", lambda: FirstWins(**record("multiply"))),
    ("dtypes_meet_by_the_table", "NumPy's own promotion", lambda: Unpromoted(**record("multiply"))),
    ("dtypes_meet_by_the_table", "integers divided as integers", lambda: altered("divide", accepts="any")),
    # gradients
    ("gradient_is_the_derivative", "a wrong vjp", lambda: altered("tanh", vjp=(lambda g, y, x: g * (1 - y),))),
    (
        "gradient_is_the_derivative",
        "a wrong sign for one input",
        lambda: altered("subtract", vjp=(lambda g, z, x, y: g, lambda g, z, x, y: g)),
    ),
    (
        "gradient_is_the_derivative",
        "a gradient forgotten",
        lambda: altered("multiply", vjp=(OPS["multiply"].vjp[0], None)),
    ),
    ("gradient_is_the_derivative", "all gradients forgotten", lambda: altered("remainder", vjp=None)),
    ("gradient_is_the_derivative", "float32 in the middle", lambda: behaving("exp", float32_inside)),
    (
        "gradient_is_the_derivative",
        "broadcasting undone along the wrong axis",
        lambda: altered("broadcast_to", vjp=(lambda g, y, x, shape: g.flip(0).flip(-2).sum_to(x.shape) * 1.5,)),
    ),
    (
        "gradient_is_the_derivative",
        "a gradient of another shape",
        lambda: altered("permute_dims", vjp=(lambda g, y, x, axes: nd.reshape(g, x.shape),)),
    ),
    (
        "second_gradient_is_the_derivative",
        "constants in the vjp",
        lambda: altered("tanh", vjp=(lambda g, y, x: g * (1 - y * y).detach(),)),
    ),
    (
        "second_gradient_is_the_derivative",
        "a head gradient cut off",
        lambda: altered("exp", vjp=(lambda g, y, x: g.detach() * y,)),
    ),
    ("writes_after_recording_raise", "copies on the tape", lambda: Copying(**record("multiply"))),
    # tracing
    (
        "sizes_may_be_symbols",
        "sizes frozen without a guard",
        lambda: shifted("sum", lambda s: Spec(tuple(getattr(n, "hint", n) for n in s.shape), s.dtype)),
    ),
    (
        "sizes_may_be_symbols",
        "a rule that rounds symbols otherwise",
        lambda: shifted("exp", lambda s: Spec(tuple(n if isinstance(n, int) else n + 1 for n in s.shape), s.dtype)),
    ),
]


@pytest.mark.parametrize(("law", "fault", "make"), FAULTS, ids=[f"{law}: {fault}" for law, fault, _ in FAULTS])
def test_fault_is_caught(law: str, fault: str, make: Callable[[], Op], rng: np.random.Generator) -> None:
    op = make()
    with pytest.raises(LawBroken, match=op.name):
        LAWS[law](op, rng)


Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


def changing(change: Callable[[nd.NDArray], nd.NDArray]) -> Compiler:
    """A compiler whose functions give something else than they should."""
    return lambda function: compile_function(lambda *xs: change(function(*xs)))


def for_the_first_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiler that keeps its first result, as a stale trace would."""
    kept: list[nd.NDArray] = []

    def stale(*xs: Any) -> Any:
        out = function(*xs)
        kept.append(out)
        same = out.shape == kept[0].shape
        return out if same else nd.array(np.resize(kept[0].asnumpy(), out.shape))

    return stale


def careless(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiler that takes every input for contiguous."""

    def run(*xs: Any) -> Any:
        for x in xs:
            if not x._data.flags.c_contiguous:
                x._data = np.ascontiguousarray(x._data.T).reshape(x.shape)
        return function(*xs)

    return run


COMPILER_FAULTS: list[tuple[str, str, str, Compiler]] = [
    ("hybrid_is_eager", "wrong values", "tanh", changing(lambda y: y * 1.001)),
    ("hybrid_is_eager", "gradients lost", "tanh", changing(lambda y: y.detach())),
    ("hybrid_is_eager", "wrong gradients only", "tanh", changing(lambda y: y + (y - y.detach()))),
    ("hybrid_is_eager", "layout ignored", "add", careless),
    ("hybrid_is_eager", "another shape", "sum", changing(lambda y: y.expand_dims(0))),
    ("one_function_serves_other_sizes", "a stale trace", "sum", for_the_first_sizes),
    ("special_values_survive", "NaN becomes a number", "exp", changing(lambda y: nd.where(nd.isnan(y), 0.0, y))),
    ("special_values_survive", "infinity becomes large", "exp", changing(lambda y: nd.minimum(y, 3e38))),
    ("dtypes_survive", "doubles computed as singles", "exp", changing(lambda y: y.astype("f4").astype(y.dtype))),
    ("dtypes_survive", "integers become floats", "add", changing(lambda y: y * 1.0)),
]


@pytest.mark.parametrize(
    ("law", "fault", "name", "compiler"), COMPILER_FAULTS, ids=[f"{law}: {fault}" for law, fault, *_ in COMPILER_FAULTS]
)
def test_compiler_fault_is_caught(law: str, fault: str, name: str, compiler: Any, rng: np.random.Generator) -> None:
    with pytest.raises(LawBroken, match=name):
        COMPILED_LAWS[law](OPS[name], rng, compiler)


def test_every_law_has_a_planted_fault() -> None:
    assert {law for law, _, _ in FAULTS} == set(LAWS)
    assert {law for law, *_ in COMPILER_FAULTS} == set(COMPILED_LAWS)


def test_laws_see_every_op() -> None:
    assert [op.name for op in every_op()] == sorted(OPS) and len(OPS) > 60
