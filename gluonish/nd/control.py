"""Control flow that stays whole when it is compiled: `foreach`, `while_loop`, `cond`.

Eagerly they are plain Python, step by step on the tape. In a trace the body becomes a graph of its own that the program
runs as often as it takes: how often is decided when it runs, and the time to compile does not grow with it. Bodies are
closures: whatever arrays and Parameters they use, gradients reach them.

Deliberately not here: how loops are traced and differentiated (`hybrid/loops.py`, `hybrid/branch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gluonish.nd import random
from gluonish.nd.abstract import AbstractTrace
from gluonish.nd.array import NDArray
from gluonish.nd.create import zeros
from gluonish.nd.dispatch import state
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.functions import concat, stack
from gluonish.nd.op import Spec
from gluonish.nd.size import SizeLike, product
from gluonish.nd.tree import flatten, text, unflatten


def foreach(body: Callable[[Any, Any], tuple[Any, Any]], data: Any, init_states: Any) -> tuple[Any, Any]:
    """Runs `out, states = body(slice, states)` for every slice of `data` along its first axis; gives the outputs
    stacked, and the last states.

    data, init_states, and what the body gives may be arrays or nested lists, tuples and dicts of them. States keep
    their shapes and dtypes from step to step.

    Shapes: data (T, ...), slice (...), out (...) -> outputs (T, ...).
    Raises: ValueError if the data differ in T, or a state comes out with another shape; TypeError for data of no axes.

    >>> from gluonish import nd
    >>> outputs, last = nd.foreach(lambda x, s: (x * 2, s + x), nd.array([1.0, 2.0, 3.0]), nd.array(0.0))
    >>> outputs.tolist(), last.item()
    ([2.0, 4.0, 6.0], 6.0)
    """
    arrays: list[NDArray] = []
    form = flatten(data, arrays)
    if not arrays or any(x.ndim == 0 for x in arrays):
        raise TypeError(f"foreach: the data must be arrays with a first axis to go along ({user_line()})")
    length = arrays[0].shape[0]
    for x in arrays[1:]:
        if x.shape[0] != length:
            raise ValueError(
                f"foreach: all data must have the same first dimension, got {shape_text(arrays[0].shape)} and "
                f"{shape_text(x.shape)} ({user_line()})"
            )
    states: list[NDArray] = []
    steps = Steps("foreach", lambda x, s: body(unflatten(form, iter(x)), s), flatten(init_states, states))
    outs, last = _loop(steps, arrays, states, length, False)
    return unflatten(steps.outputs, iter(outs)), unflatten(steps.states, iter(last))


def while_loop(
    cond: Callable[..., Any], func: Callable[..., tuple[Any, Any]], loop_vars: Any, max_iterations: int
) -> tuple[Any, Any]:
    """While `cond(*loop_vars)` is true, but at most `max_iterations` times: `out, loop_vars = func(*loop_vars)`. Gives
    the outputs stacked and the last loop variables.

    The outputs have room for `max_iterations` steps; behind the last step that was done there are zeros. `cond` gives
    an array of one element. Loop variables keep their shapes and dtypes. Random numbers are set aside for
    `max_iterations` steps, however many are done.

    Shapes: out (...) -> outputs (max_iterations, ...).
    Raises: ValueError for a loop variable that comes out with another shape; TypeError if `cond` gives no array.

    >>> from gluonish import nd
    >>> step = lambda i, s: (s, (i + 1, s + i))
    >>> outputs, (i, s) = nd.while_loop(lambda i, s: s < 5, step, (nd.array(1), nd.array(0)), 6)
    >>> outputs.tolist(), i.item(), s.item()
    ([0, 1, 3, 0, 0, 0], 4, 6)
    """
    if max_iterations < 0:
        raise ValueError(f"while_loop: max_iterations must not be negative, got {max_iterations} ({user_line()})")
    single = isinstance(loop_vars, NDArray)
    states: list[NDArray] = []
    form = flatten((loop_vars,) if single else loop_vars, states)

    def asked(values: Sequence[NDArray]) -> NDArray:
        return _truth("while_loop: cond", cond(*unflatten(form, iter(values))))

    def step(_: Any, variables: Any) -> tuple[Any, Any]:
        out, new = _pair("while_loop", func(*variables))
        return out, (new,) if isinstance(new, NDArray) else new

    steps = Steps("while_loop", step, form, asked)
    outs, last = _loop(steps, [], states, max_iterations, True)
    final = unflatten(form, iter(last))
    return unflatten(steps.outputs, iter(outs)), final[0] if single else final


def cond(pred: Any, then_func: Callable[..., Any], else_func: Callable[..., Any], inputs: Any = ()) -> Any:
    """`then_func(*inputs)` if `pred` is true, else `else_func(*inputs)`; only the one that is chosen runs.

    pred: an array of one element, or a function of the inputs that gives one. Both functions must give the same
    structure of arrays with the same shapes and dtypes, and draw equally many random numbers.
    Raises: ValueError where they differ (seen when they are compiled; eagerly only one of them runs).

    >>> from gluonish import nd
    >>> x = nd.array([3.0, 4.0])
    >>> nd.cond(x.sum() > 5, lambda: x * 2, lambda: x - 1).tolist()
    [6.0, 8.0]
    """
    operands = (inputs,) if isinstance(inputs, NDArray) else tuple(inputs)
    asked = _truth("cond: pred", pred(*operands) if callable(pred) else pred)
    forms: list[Any] = []

    def choice(function: Callable[..., Any]) -> Callable[[], list[NDArray]]:
        def run() -> list[NDArray]:
            arrays: list[NDArray] = []
            forms.append(flatten(function(*operands), arrays))
            if forms[0] != forms[-1]:
                raise ValueError(
                    f"cond: both functions must give the same structure, got {text(forms[0])} and {text(forms[-1])} "
                    f"({user_line()})"
                )
            return arrays

        return run

    choices = (choice(then_func), choice(else_func))
    if state.trace is not None:
        found = state.trace.branch(asked, choices)
    else:
        found = choices[not asked]()
    return unflatten(forms[0], iter(found))


class Steps:
    """The body of a loop between flat lists of arrays: `steps(slices, states)` gives outputs and new states.

    It knows what structure both had, and that states stay what they are. Where there is a condition, the last state is
    its answer.
    """

    def __init__(
        self, name: str, body: Callable[[Any, Any], Any], states: Any, condition: Callable[[Any], NDArray] | None = None
    ) -> None:
        self.name = name
        self.body = body
        self.states = states
        self.condition = condition
        self.outputs: Any = None

    def __call__(self, data: Sequence[NDArray], states: Sequence[NDArray]) -> tuple[list[NDArray], list[NDArray]]:
        """One step."""
        given = unflatten(self.states, iter(states))
        out, new = _pair(self.name, self.body(data, given))
        new = _like(given, new)
        outputs: list[NDArray] = []
        form = flatten(out, outputs)
        if self.outputs is None:
            self.outputs = form
        if form != self.outputs:
            raise ValueError(
                f"{self.name}: every step must give the same structure of outputs, got {text(form)} after "
                f"{text(self.outputs)} ({user_line()})"
            )
        return outputs, self._checked(new, states)

    def _checked(self, new: Any, before: Sequence[NDArray]) -> list[NDArray]:
        arrays: list[NDArray] = []
        form = flatten(new, arrays)
        if form != self.states:
            raise ValueError(
                f"{self.name}: the body must give back the structure of states that it got, {text(self.states)}, not "
                f"{text(form)}; what changes from step to step must be an array ({user_line()})"
            )
        for number, (x, y) in enumerate(zip(before, arrays)):
            if x.dtype != y.dtype or x.shape != y.shape:  # sizes not known to be equal: asked, which is a guard
                raise ValueError(
                    f"{self.name}: states keep shape and dtype, but state {number} was {_spec_text(x)} and came out as "
                    f"{_spec_text(y)} ({user_line()})"
                )
        return arrays


def _loop(
    steps: Steps, data: list[NDArray], states: list[NDArray], length: SizeLike, while_true: bool
) -> tuple[list[NDArray], list[NDArray]]:
    trace = state.trace
    if trace is None or trace.computes:
        return _run(steps, data, states, int(length))
    if not while_true:
        return trace.loop(steps, data, states, length, False)
    assert steps.condition is not None
    condition, count = steps.condition, len(states)

    def step(slices: Sequence[NDArray], values: Sequence[NDArray]) -> tuple[list[NDArray], list[NDArray]]:
        outs, new = steps(slices, values[:count])
        return outs, [*new, condition(new)]

    drawn = trace.blocks
    flag = condition(states)
    if trace.blocks != drawn:
        raise ValueError(f"while_loop: the condition must not draw random numbers ({user_line()})")
    outs, last = trace.loop(step, data, [*states, flag], length, True)
    return outs, last[:count]


def _run(steps: Steps, data: list[NDArray], states: list[NDArray], length: int) -> tuple[list[NDArray], list[NDArray]]:
    """All steps, eagerly."""
    rows: list[list[NDArray]] = []
    drawn = 0
    while len(rows) < length and (steps.condition is None or bool(steps.condition(states))):
        before = random.default.position
        out, states = steps([x[len(rows)] for x in data], states)
        rows.append([_as_it_is(x) for x in out])
        states = [_as_it_is(x) for x in states]
        drawn = random.default.position - before
    if not rows:
        specs, drawn = _shapes(steps, data, states)
        stacked = [zeros((length, *shape), dtype=dtype) for shape, dtype in specs]
    else:
        stacked = [_padded(stack(list(column)), length) for column in zip(*rows)]
    if steps.condition is not None and drawn:
        random.default.reserve(drawn * (length - len(rows)))
    return stacked, list(states)


def _as_it_is(x: NDArray) -> NDArray:
    """The array as it is now: a later step may write to it, unless it is on the tape."""
    if x._entry is not None:
        return x
    return x * 1 if x._grad is not None and state.recording else NDArray(x._data.copy())


def _padded(x: NDArray, length: int) -> NDArray:
    missing = length - x.shape[0]
    return x if not missing else concat([x, zeros((missing, *x.shape[1:]), dtype=x.dtype)])


def _shapes(steps: Steps, data: Sequence[NDArray], states: Sequence[NDArray]) -> tuple[list[Spec], int]:
    """What a step would give, and how many random blocks it would draw: asked where no step is done."""
    trace = AbstractTrace()
    before = state.trace, state.recording
    state.trace, state.recording = trace, False
    try:
        slices = [NDArray(trace.data(x.shape[1:], x.dtype)) for x in data]
        outs, _ = steps(slices, [NDArray(trace.data(x.shape, x.dtype)) for x in states])
    finally:
        state.trace, state.recording = before
    return [x.spec for x in outs], int(trace.blocks)


def _truth(what: str, value: Any) -> NDArray:
    if not isinstance(value, NDArray) or product(value.shape) != 1:
        got = _spec_text(value) if isinstance(value, NDArray) else f"{value!r}"
        raise TypeError(f"{what} must be an array of one element, got {got} ({user_line()})")
    value = value.detach().reshape(())
    return value if value.dtype.kind == "b" else value != 0


def _pair(what: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{what}: the body must give two things, outputs and states, got {value!r:.60} ({user_line()})")
    return value[0], value[1]


def _like(form: Any, value: Any) -> Any:
    """A list as a tuple where a tuple is meant, and the other way round."""
    return type(form)(value) if isinstance(value, (list, tuple)) and type(form) in (list, tuple) else value


def _spec_text(x: NDArray) -> str:
    return f"{shape_text(x.shape)} {x.dtype}"
