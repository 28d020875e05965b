"""The laws every op obeys, each a checker that needs nothing but the op's record and random numbers.

A checker takes (op, rng), tries the op on its own samples and raises LawBroken with a sentence that names the op and
what it did. `LAWS` holds them all; `tests/nd/test_every_op.py` runs each law over each op, and `tests/test_laws.py`
shows with planted faults that each law can fail. Deliberately not here: what a single op means (tests/nd/test_*.py),
and what hybridizing must keep (tests/compiled_laws.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from gluonish import autograd, nd
from gluonish.nd import math
from gluonish.nd.dtypes import bfloat16
from gluonish.nd.op import OPS, Op, Sample, Spec
from gluonish.nd.size import SizeScope, checker, evaluator

Law = Callable[[Op, np.random.Generator], None]
LAWS: dict[str, Law] = {}
bfloat16()  # from here on NumPy knows its name
REFUSALS = (ValueError, TypeError, IndexError, OverflowError)
FAMILIES = {
    "elementwise",
    "composite",
    "move",
    "reduce",
    "arg_reduce",
    "gather",
    "scatter",
    "sort",
    "contract",
    "attention",
    "scan",
    "window",
    "random",
    "create",
}


class LawBroken(AssertionError):
    """An op does not do what a law asks of all of them."""


def law(checker: Law) -> Law:
    """Adds a checker to LAWS under its name."""
    LAWS[checker.__name__] = checker
    return checker


def demand(holds: Any, op: Op, text: str) -> None:
    """Raises LawBroken for `op` unless `holds`."""
    if not holds:
        raise LawBroken(f"{op.name}: {text}")


# --- trying an op ----------------------------------------------------------------------------------------------------
def wrapped(value: Any) -> Any:
    """A sample input as the op takes it: NDArrays of their own memory, numbers as they are."""
    return nd.NDArray(np.array(value)) if isinstance(value, np.ndarray) else value


def run(op: Op, inputs: Sequence[Any], attrs: dict[str, Any]) -> np.ndarray:
    """The op's result on NumPy arrays, by the path a user takes."""
    return op(*[wrapped(x) for x in inputs], **attrs)._data


def specs(op: Op, inputs: Sequence[Any]) -> list[Any]:
    """What the rule is asked: the inputs as `bind` gets them, without their values."""
    return [x.spec if isinstance(x, nd.NDArray) else x for x in op.prepared([wrapped(x) for x in inputs])]


def samples(op: Op, rng: np.random.Generator) -> list[Sample]:
    """The op's own samples; an op without any is a broken law, not a skipped one."""
    found = op.sample(rng)
    demand(found, op, "has no samples, so no law can try it")
    return found


def is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def doubled(inputs: Sequence[Any]) -> list[Any]:
    """The inputs with float arrays in float64."""
    return [x.astype(np.float64) if is_float(x) else x for x in inputs]


def in_doubles(op: Op, rng: np.random.Generator) -> Iterator[tuple[list[Any], dict[str, Any], list[int]]]:
    """Samples in float64 whose result is float64 too, with the positions of their float inputs."""
    for sample in samples(op, rng):
        inputs = doubled(sample.inputs)
        floats = [i for i, x in enumerate(inputs) if is_float(x)]
        if floats and run(op, inputs, sample.attrs).dtype == np.float64:
            yield inputs, sample.attrs, floats


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    with np.errstate(all="ignore"):
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


# --- the record ------------------------------------------------------------------------------------------------------
@law
def record_is_complete(op: Op, rng: np.random.Generator) -> None:
    """Name, family, words, samples that a seed repeats, a rule for the gradient of each input or one for all."""
    demand(op.family in FAMILIES, op, f"has the unknown family {op.family!r}")
    demand(op.doc.strip().endswith("."), op, "has no sentence that says what it does")
    demand(op.name.isidentifier() and op.name.islower(), op, "is not named in lower case")
    first, second = (samples(op, np.random.default_rng(7)) for _ in range(2))
    pairs = [p for s, t in zip(first, second, strict=True) for p in zip(s.inputs, t.inputs, strict=True)]
    same = all(np.array_equal(a, b) for a, b in pairs)
    demand(same, op, "draws its samples from something else than the generator it is given")
    if isinstance(op.vjp, tuple):
        for sample in first:
            count = len(sample.inputs)
            demand(len(op.vjp) == count, op, f"has {len(op.vjp)} vjp rules for {count} inputs")


# --- shapes and dtypes -----------------------------------------------------------------------------------------------
@law
def result_is_as_the_rule_says(op: Op, rng: np.random.Generator) -> None:
    for sample in samples(op, rng):
        inputs = [np.array(x) if isinstance(x, np.ndarray) else x for x in sample.inputs]
        wanted = op.rule(*specs(op, inputs), **sample.attrs)
        out = op(*[nd.NDArray(x) if isinstance(x, np.ndarray) else x for x in inputs], **sample.attrs)._data
        demand(Spec(out.shape, out.dtype) == wanted, op, f"gives {out.shape} {out.dtype}, its rule says {wanted}")
        untouched = all(np.array_equal(a, b) for a, b in zip(inputs, sample.inputs))
        demand(untouched, op, "writes into its inputs")


DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64")


@law
def every_dtype_gives_the_rules_dtype_or_an_error(op: Op, rng: np.random.Generator) -> None:
    """The rule alone decides while tracing, so it refuses a dtype if and only if the op does."""
    for sample in samples(op, rng):
        for name in DTYPES:
            inputs = [x.astype(name) if is_float(x) else x for x in sample.inputs]
            agree_or_refuse(op, inputs, sample.attrs, f"for {name}")


@law
def every_size_gives_the_rules_shape_or_an_error(op: Op, rng: np.random.Generator) -> None:
    """Each dimension of each input in turn becomes 0, 1, one more and two more; and each input gains and loses one."""
    for sample in samples(op, rng):
        for position, x in enumerate(sample.inputs):
            if isinstance(x, np.ndarray):
                for shape in neighbour_shapes(x.shape):
                    inputs = list(sample.inputs)
                    inputs[position] = np.resize(x, shape) if x.size else np.ones(shape, x.dtype)
                    agree_or_refuse(op, inputs, sample.attrs, f"with input {position} of shape {shape}")
    if op.family == "elementwise":
        scalars = [x.flat[0:1].reshape(()) for x in samples(op, rng)[0].inputs]
        agree_or_refuse(op, scalars, samples(op, rng)[0].attrs, "without dimensions", may_refuse=False)


def neighbour_shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for axis, size in enumerate(shape):
        for other in {0, 1, size + 1, size + 2} - {size}:
            yield (*shape[:axis], other, *shape[axis + 1 :])
    yield (1, *shape)
    if shape:
        yield shape[1:]


def agree_or_refuse(op: Op, inputs: list[Any], attrs: dict[str, Any], case: str, may_refuse: bool = True) -> None:
    """The rule and the op give the same shape and dtype, or both refuse and the op's error says who and where."""
    try:
        wanted, refusal = op.rule(*specs(op, inputs), **attrs), None
    except REFUSALS as error:
        wanted, refusal = None, error
    demand(refusal is None or may_refuse, op, f"refuses inputs {case}: {refusal}")
    try:
        out = run(op, inputs, attrs)
    except REFUSALS as error:
        by_value = isinstance(error, IndexError) or "negative integer powers" in str(error)
        demand(wanted is None or by_value, op, f"refuses inputs {case} where its rule promises {wanted}: {error}")
        who = op.name.removeprefix("arg")  # users call argtopk by the name of topk
        demand(who in str(error) and "laws.py:" in str(error), op, f"does not say who refused and where: {error}")
        return
    demand(wanted is not None, op, f"takes inputs {case} that its rule refuses: {refusal}")
    demand(Spec(out.shape, out.dtype) == wanted, op, f"gives {out.shape} {out.dtype} {case}, its rule says {wanted}")


@law
def width_of_floats_is_kept(op: Op, rng: np.random.Generator) -> None:
    """A float result is as wide as the float inputs (a dtype asked for aside), and float64 is really computed in it."""
    for sample in samples(op, rng):
        floats = [x for x in sample.inputs if is_float(x)]
        if not floats or "dtype" in sample.attrs:
            continue
        narrow, wide = run(op, sample.inputs, sample.attrs), run(op, doubled(sample.inputs), sample.attrs)
        if narrow.dtype.kind != "f":
            demand(np.array_equal(narrow, wide), op, "answers float32 and float64 differently")
            continue
        demand(narrow.dtype == np.float32, op, f"makes {narrow.dtype} of float32")
        demand(wide.dtype == np.float64, op, f"makes {wide.dtype} of float64")
        demand(close(narrow, wide, 1e-4), op, "gives float32 and float64 different values")


# --- memory ----------------------------------------------------------------------------------------------------------
def scattered(x: Any) -> Any:
    """The same values in memory that is neither contiguous nor in C order."""
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        return x
    room = np.zeros(tuple(2 * s for s in x.shape[::-1]), x.dtype)
    view = room.T[tuple(slice(None, None, -2) for _ in x.shape)]
    view[...] = x
    return view


@law
def layout_does_not_matter(op: Op, rng: np.random.Generator) -> None:
    for sample in samples(op, rng):
        plain = run(op, sample.inputs, sample.attrs)
        arrays = [nd.NDArray(scattered(x)) if isinstance(x, np.ndarray) else x for x in sample.inputs]
        demand(close(plain, op(*arrays, **sample.attrs)._data, 1e-5), op, "depends on the memory layout of its inputs")
        again = run(op, sample.inputs, sample.attrs)
        demand(np.array_equal(plain, again, equal_nan=True), op, "gives another result the second time")


@law
def writes_after_recording_raise(op: Op, rng: np.random.Generator) -> None:
    """Values that the gradient may need cannot change between record and backward without an error."""
    if op.vjp is None:
        return
    sample = samples(op, rng)[0]
    for victim in range(len(sample.inputs) + 1):
        arrays = [wrapped(x) for x in sample.inputs]
        for x in arrays:
            if isinstance(x, nd.NDArray) and x.dtype.kind == "f":
                x.attach_grad()
        with autograd.record():
            out = op(*arrays, **sample.attrs)
        if out._entry is None:
            return
        target = out if victim == len(arrays) else arrays[victim]
        try:
            target.detach()[...] = target.asnumpy()
            out.backward()
        except ValueError:
            continue
        raise LawBroken(f"{op.name}: {'its output' if target is out else f'input {victim}'} was changed unnoticed")


# --- special values --------------------------------------------------------------------------------------------------
@law
def nan_is_never_lost(op: Op, rng: np.random.Generator) -> None:
    """Elementwise: NaN in, NaN out (`where`, `relu_gradient`: where chosen). Reductions: NaN wherever one took part."""
    if op.family not in ("elementwise", "reduce"):
        return
    for sample in samples(op, rng):
        for position, x in enumerate(sample.inputs):
            if not is_float(x) or x.size == 0:
                continue
            inputs = list(sample.inputs)
            inputs[position] = np.where(rng.random(x.shape) < 0.5, np.float32(np.nan), x)
            out = run(op, inputs, sample.attrs)
            if out.dtype.kind == "f":
                demand(np.array_equal(np.isnan(out), expected_nan(op, inputs, sample.attrs)), op, "loses NaN")


def expected_nan(op: Op, inputs: list[Any], attrs: dict[str, Any]) -> np.ndarray:
    if op.family == "reduce":
        return np.isnan(inputs[0]).any(axis=attrs["axes"], keepdims=attrs["keepdims"])
    if op.name == "where":
        return np.where(inputs[0], np.isnan(inputs[1]), np.isnan(inputs[2]))
    if op.name == "relu_gradient":  # chooses the gradient, or nothing
        return np.where(inputs[1] > 0, np.isnan(inputs[0]), np.isnan(inputs[1]))
    if op.name == "copysign":  # a NaN has a sign like any other number
        inputs = [inputs[0], np.zeros_like(inputs[1])]
    return np.any(np.broadcast_arrays(*[np.isnan(x) for x in inputs]), axis=0)


SPECIAL = [np.nan, np.inf, 0.0, 1.0, 0.5, 2.0, 17.0, 88.8, 104.0, 7e4, 1e30, 3e38, 1e-8, 1e-30, 1e-42]


@law
def special_values_are_as_in_double_precision(op: Op, rng: np.random.Generator) -> None:
    """Infinities, zeros, denormals, huge numbers: float32 gives what float64 gives, so nothing overflows on the way."""
    if op.family != "elementwise" or not all(is_float(x) for x in samples(op, rng)[0].inputs):
        return
    values = np.array([*SPECIAL, *(-v for v in SPECIAL)], np.float32)
    attrs = samples(op, rng)[0].attrs
    grids = np.meshgrid(*[values] * len(samples(op, rng)[0].inputs), indexing="ij")
    narrow, wide = run(op, grids, attrs), run(op, doubled(grids), attrs)
    with np.errstate(all="ignore"):
        good = np.isclose(narrow, wide.astype(narrow.dtype), rtol=1e-5, atol=1e-5, equal_nan=True)
    if not good.all():
        place = tuple(np.argwhere(~good)[0])
        given = ", ".join(str(g[place]) for g in grids)
        raise LawBroken(f"{op.name}: ({given}) gives {narrow[place]} in float32, {wide[place]} in float64")


@law
def body_is_the_forward(op: Op, rng: np.random.Generator) -> None:
    """Kernels are made of `body`, eager results of `forward`: they are the same function."""
    if op.body is None:
        demand(op.family != "elementwise" or op.name == "cast", op, "is elementwise but has no body for kernels")
        return
    for sample in samples(op, rng):
        with np.errstate(all="ignore"):
            result = np.asarray(op.body(math, *sample.inputs))
        out = run(op, sample.inputs, sample.attrs)
        demand(result.dtype == out.dtype and close(result, out, 1e-6), op, "has a body that differs from its forward")


# --- numbers and mixed dtypes ----------------------------------------------------------------------------------------
@law
def numbers_are_weak(op: Op, rng: np.random.Generator) -> None:
    """A Python number among the inputs takes their dtype and means an array full of it."""
    if op.family != "elementwise":
        return
    for sample in samples(op, rng):
        positions = [i for i, x in enumerate(sample.inputs) if is_float(x)]
        for position, name in product(positions if len(positions) > 1 else (), ("float16", "float32", "float64")):
            full = [x.astype(name) if is_float(x) else x for x in sample.inputs]
            full[position] = np.full_like(full[position], 0.75)
            mixed = list(full)
            mixed[position] = 0.75
            out, wanted = run(op, mixed, sample.attrs), run(op, full, sample.attrs)
            demand(out.dtype == wanted.dtype, op, f"makes {out.dtype} of {name} and a Python number at {position}")
            tolerance = 1e-2 if name == "float16" else 1e-6
            good = close(np.broadcast_to(out, wanted.shape), wanted, tolerance)
            demand(good, op, f"takes a Python number at {position} for another value than an array of it")


PROMOTIONS = {
    ("float32", "float64"): "float64",
    ("float16", "float32"): "float32",
    ("float16", "float64"): "float64",
    ("int64", "float32"): "float32",
    ("int64", "float16"): "float16",
    ("int32", "float64"): "float64",
    ("uint8", "float32"): "float32",
    ("bool", "float32"): "float32",
    ("bool", "uint8"): "uint8",
    ("bool", "int64"): "int64",
    ("int32", "int64"): "int64",
    ("uint8", "int32"): "int32",
    ("uint8", "int8"): "int32",
    ("uint32", "int32"): "int64",
    ("uint8", "uint32"): "uint32",
}


@law
def dtypes_meet_by_the_table(op: Op, rng: np.random.Generator) -> None:
    """Two dtypes meet in the widest of the highest kind; ops on floats make float32 of integers first."""
    if not op.promote:
        return
    for sample in samples(op, rng):
        positions = [i for i, x in enumerate(sample.inputs) if is_float(x)]
        if len(positions) < 2:
            continue
        for pair, common in PROMOTIONS.items():
            for names in (pair, pair[::-1]):
                check_meeting(op, sample, positions, names, common)


def check_meeting(op: Op, sample: Sample, positions: list[int], names: tuple[str, ...], common: str) -> None:
    target = "float32" if op.accepts == "float" and np.dtype(common).kind != "f" else common
    mixed, alike = list(sample.inputs), list(sample.inputs)
    for index, position in enumerate(positions):
        whole = np.ceil(np.abs(sample.inputs[position])).astype("int64") % 2 + 1
        mixed[position] = whole.astype(names[min(index, 1)])
        alike[position] = mixed[position].astype(target)
    out, wanted = run(op, mixed, sample.attrs), run(op, alike, sample.attrs)
    text = f"makes {out.dtype} of {' and '.join(names)}, of {target} {wanted.dtype}"
    demand(out.dtype == wanted.dtype and (out.dtype != np.float64 or target == "float64"), op, text)
    demand(np.array_equal(out, wanted), op, f"of {' and '.join(names)} computes in something else than {target}")


# --- gradients -------------------------------------------------------------------------------------------------------
STEPS = (1e-5, 1e-6, 1e-7)  # a kink within one step of a random input makes one of them lie, never all


Function = Callable[[list[Any]], float]


def slope(function: Function, inputs: list[Any], position: int, direction: Any, step: float) -> float:
    """The central difference of a function of arrays along one direction of one input."""
    ends = []
    for sign in (1, -1):
        moved = list(inputs)
        moved[position] = np.asarray(inputs[position] + sign * step * direction)
        ends.append(function(moved))
    return (ends[0] - ends[1]) / (2 * step)


def check_slope(
    op: Op, function: Function, inputs: list[Any], position: int, gradient: Any, rng: Any, name: str
) -> None:
    """The gradient of one input, along one random direction, is the numeric derivative."""
    direction = rng.standard_normal(inputs[position].shape)
    claimed = float(np.sum(gradient * direction))
    found = [slope(function, inputs, position, direction, step) for step in STEPS]
    room = 1e-5 * (1 + abs(claimed) + float(np.sum(np.abs(gradient * direction))))
    near = any(abs(claimed - f) < room for f in found)
    demand(near, op, f"{name} of input {position} is {claimed:.8g} along a direction, numerically {found[0]:.8g}")


def tracked(inputs: Sequence[Any]) -> list[Any]:
    """NDArrays of the inputs, the float ones asking for a gradient."""
    arrays = [wrapped(x) for x in inputs]
    for x in arrays:
        if isinstance(x, nd.NDArray) and x.dtype.kind == "f":
            x.attach_grad()
    return arrays


def refuses(op: Op, backward: Callable[[], Any]) -> bool:
    """Whether an op that is not smooth says, by an error, that it has no derivative (rather than give a wrong one)."""
    try:
        backward()
    except NotImplementedError as error:
        demand(not op.smooth and op.vjp is not None, op, f"is smooth but has no gradient: {error}")
        return True
    return False


@law
def gradient_is_the_derivative(op: Op, rng: np.random.Generator) -> None:
    """Also of an input without a vjp rule: the result must then not depend on it, or stand still between jumps."""
    for inputs, attrs, floats in in_doubles(op, rng):
        arrays = tracked(inputs)
        with autograd.record():
            out = op(*arrays, **attrs)
        head = np.asarray(rng.standard_normal(out.shape))
        if out._entry is None:
            demand(op.vjp is None, op, "has vjp rules but leaves nothing on the tape")
        elif refuses(op, lambda out=out, head=head: out.backward(nd.NDArray(head))):
            continue
        for position in floats:
            gradient = arrays[position].grad
            spec, wanted = gradient.spec, arrays[position].spec
            demand(spec == wanted, op, f"gives a gradient of {spec} for input {position} of {wanted}")

            def value(moved: list[Any], head: np.ndarray = head, attrs: Any = attrs) -> float:
                return float(np.sum(run(op, moved, attrs) * head))

            check_slope(op, value, inputs, position, gradient._data, rng, "the gradient")


@law
def second_gradient_is_the_derivative(op: Op, rng: np.random.Generator) -> None:
    """The gradient's own gradients, with respect to each input and to the head gradient (the last position)."""
    if op.vjp is None or not op.smooth:
        return
    for inputs, attrs, floats in in_doubles(op, rng):
        weights = [rng.standard_normal(inputs[i].shape) for i in floats]
        given = [*inputs, np.asarray(rng.standard_normal(run(op, inputs, attrs).shape))]

        def first(values: Sequence[Any], attrs: Any = attrs, floats: Any = floats, weights: Any = weights) -> Any:
            arrays = tracked(values)
            with autograd.record():
                out = op(*arrays[:-1], **attrs)
                grads = autograd.grad(out, [arrays[i] for i in floats], arrays[-1], create_graph=True)
                total = sum(((g * nd.NDArray(w)).sum() for g, w in zip(grads, weights)), nd.zeros((), "float64"))
            return arrays, total

        arrays, total = first(given)
        if total._entry is not None:
            total.backward()

        def value(moved: list[Any], first: Any = first) -> float:
            return float(first(moved)[1].item())

        for position in [*floats, len(inputs)]:
            check_slope(op, value, given, position, arrays[position].grad._data, rng, "the second gradient")


# --- tracing ---------------------------------------------------------------------------------------------------------
@law
def sizes_may_be_symbols(op: Op, rng: np.random.Generator) -> None:
    """The rule on symbolic sizes, evaluated, is the rule on numbers: for the sizes of the trace and for every other
    size that its guards let through."""
    for sample in samples(op, rng):
        concrete = specs(op, sample.inputs)
        for shared in (True, False):
            scope, symbolic = with_symbols(concrete, shared)
            out = op.rule(*symbolic, **sample.attrs)
            names = list(scope.hints)
            shape, holds = evaluator(out.shape, names), checker(scope.guards.values(), names)
            demand(holds(*scope.hints.values()), op, "notes guards that its own trace breaks")
            for more in (0, 1, 2, 5):
                values = {name: hint + more for name, hint in scope.hints.items()}
                if not holds(*values.values()):
                    continue
                resized = [with_values(x, values) for x in symbolic]
                wanted = op.rule(*resized, **sample.attrs)
                found = Spec(shape(*values.values()), out.dtype)
                demand(found == wanted, op, f"says {found} by symbols and {wanted} by numbers for {resized}")


def with_symbols(concrete: list[Any], shared: bool) -> tuple[SizeScope, list[Any]]:
    """Specs with a symbol for each size, or with one for each equal size."""
    scope = SizeScope()
    known: dict[int, Any] = {}
    symbolic: list[Any] = []
    for x in concrete:
        if isinstance(x, Spec):
            sizes = []
            for s in x.shape:
                if not (shared and s in known):
                    known[s] = scope.symbol(s)
                sizes.append(known[s])
            x = Spec(tuple(sizes), x.dtype)
        symbolic.append(x)
    return scope, symbolic


def with_values(x: Any, values: dict[str, int]) -> Any:
    if not isinstance(x, Spec):
        return x
    return Spec(evaluator(x.shape, values)(*values.values()), x.dtype)


def every_op() -> list[Op]:
    """All registered ops, by name."""
    return [OPS[name] for name in sorted(OPS)]
