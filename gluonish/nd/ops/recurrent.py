"""Recurrent cells over whole sequences: LSTM, GRU and plain RNN, each with the op that is its gradient.

The product of the inputs with their weights is no part of these ops: it is one large matrix product, and they take its
result, `gates`. An op gives the record of a run, planes of shape (T + 1, N, H): the states first, and with `keep` what
the gradient needs beside them. Step t reads the states at index t and writes those at t + 1; with `reverse`, where time
runs backwards, it reads at t + 1 and writes at t. `lengths`, if given, has a number of steps for each row: later steps
leave its states as they are.

The gradient ops run through time the other way; they give the gradients of the gates and, as one more step behind
the last, those of the begin states. Their own gradients are made by differentiating `_back`, what they are in
elementary ops, step by step.

Deliberately not here: what users call (`nd/recurrent.py`).
Source: S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997), with the forget gate of
F. Gers et al. (1999); K. Cho et al., Learning phrase representations using RNN encoder-decoder (2014), with the reset
gate behind the product, as in cuDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gluonish.nd import math
from gluonish.nd.dtypes import is_float
from gluonish.nd.op import INDEX, OPS, Op, Sample, Spec, quiet, refuse, register
from gluonish.nd.ops.contract import matmul_op
from gluonish.nd.ops.elementwise import tanh, where
from gluonish.nd.ops.move import concat_op, index_op


class Cell(NamedTuple):
    """What tells one kind of cell from another.

    gates: blocks of H numbers in its gates. states: how many states it has. kept: planes that it keeps beside them.
    biased: whether it takes a recurrent bias. blocks: shape of its gradient before (T + 1, N, gates * H).
    """

    name: str
    gates: int
    states: int
    kept: int
    biased: bool = False
    blocks: tuple[int, ...] = ()


LSTM = Cell("lstm", 4, 2, 4)
GRU = Cell("gru", 3, 1, 4, True, (2,))
RNN = Cell("rnn", 1, 1, 0)


# --- shapes -----------------------------------------------------------------------------------------------------------
def _rule(cell: Cell, gates: Spec, weight: Spec, *rest: Spec, reverse: bool, keep: bool = False) -> Spec:
    """rest: the recurrent bias if the cell has one, the begin states, perhaps lengths."""
    bias, rest = (rest[:1], rest[1:]) if cell.biased else ((), rest)
    states, lengths = rest[: cell.states], rest[cell.states :]
    if len(gates.shape) != 3 or len(weight.shape) != 2:
        raise refuse(cell.name, "needs gates (T, N, gates * H) and a weight (gates * H, H)", gates, weight)
    steps, rows, width = gates.shape
    units = weight.shape[1]
    if weight.shape[0] != cell.gates * units or width != cell.gates * units:
        raise refuse(cell.name, f"gates and weight must both have {cell.gates} blocks of units", gates, weight)
    for state in states:
        if len(state.shape) != 2 or state.shape[0] != rows or state.shape[1] != units:
            raise refuse(cell.name, "a begin state must have shape (N, H)", state, gates, weight)
    if bias and (len(bias[0].shape) != 1 or bias[0].shape[0] != units):
        raise refuse(cell.name, "the recurrent bias must have shape (H,)", bias[0], gates)
    _same_floats(cell.name, gates, weight, *bias, *states)
    _check_lengths(cell.name, lengths, rows)
    return Spec((cell.states + (cell.kept if keep else 0), steps + 1, rows, units), gates.dtype)


def _gradient_rule(cell: Cell, grad: Spec, record: Spec, weight: Spec, *lengths: Spec, reverse: bool) -> Spec:
    name = f"{cell.name}_gradient"
    planes = cell.states + cell.kept
    if len(record.shape) != 4 or len(weight.shape) != 2 or record.shape[0] != planes or record.shape[1] < 1:
        raise refuse(name, f"needs a record ({planes}, T + 1, N, H) and a weight (gates * H, H)", record, weight)
    _, steps, rows, units = record.shape
    if weight.shape[1] != units or weight.shape[0] != cell.gates * units:
        raise refuse(name, f"the weight must have shape ({cell.gates} * H, H)", weight, record)
    fits = len(grad.shape) == 4 and all(a == b for a, b in zip(grad.shape[1:], record.shape[1:]))
    if not fits or grad.shape[0] not in (cell.states, planes):
        raise refuse(name, "the gradient must have the shape of the record, or of its states", grad, record)
    _same_floats(name, grad, record, weight)
    _check_lengths(name, lengths, rows)
    return Spec((*cell.blocks, steps, rows, cell.gates * units), record.dtype)


def _same_floats(name: str, *specs: Spec) -> None:
    if not is_float(specs[0].dtype) or any(s.dtype != specs[0].dtype for s in specs):
        raise refuse(name, "all inputs but lengths must have one floating-point dtype", *specs)


def _check_lengths(name: str, lengths: tuple[Spec, ...], rows: Any) -> None:
    for spec in lengths:
        if spec.dtype != INDEX or len(spec.shape) != 1 or spec.shape[0] != rows:
            raise refuse(name, "lengths must be int64 of shape (N,)", spec)


# --- forward ----------------------------------------------------------------------------------------------------------
Step = Callable[..., tuple[Any, ...]]


def _lstm_step(a: np.ndarray, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    a = a + x
    i, f, g, o = np.split(a, 4, 1)
    i, f, g, o = math.sigmoid(i), math.sigmoid(f), np.tanh(g), math.sigmoid(o)
    c = f * c + i * g
    return o * np.tanh(c), c, i, f, g, o


def _gru_step(a: np.ndarray, x: np.ndarray, h: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
    (r, z, q), (xr, xz, xn) = np.split(a, 3, 1), np.split(x, 3, 1)
    r, z, q = math.sigmoid(r + xr), math.sigmoid(z + xz), q + bias
    n = np.tanh(xn + r * q)
    return n + z * (h - n), r, z, n, q


def _rnn_step(a: np.ndarray, x: np.ndarray, h: np.ndarray, activation: str) -> tuple[np.ndarray, ...]:
    return (np.tanh(a + x) if activation == "tanh" else math.maximum(a + x, 0),)


def _forward(cell: Cell, step: Step) -> Callable[..., np.ndarray]:
    def forward(
        gates: np.ndarray, weight: np.ndarray, *rest: Any, reverse: bool, keep: bool = False, **attrs: Any
    ) -> np.ndarray:
        shape = _rule(cell, gates, weight, *rest, reverse=reverse, keep=keep).shape  # type: ignore[arg-type]
        bias, rest = (rest[:1], rest[1:]) if cell.biased else ((), rest)
        out, steps = np.zeros(shape, gates.dtype), len(gates)
        lengths = rest[cell.states :]
        for plane, state in zip(out, rest[: cell.states]):
            plane[steps if reverse else 0] = state
        for t in range(steps)[:: -1 if reverse else 1]:
            before, after = (t + 1, t) if reverse else (t, t + 1)
            states = [plane[before] for plane in out[: cell.states]]
            made = step(states[0] @ weight.T, gates[t], *states, *bias, *attrs.values())
            if lengths:
                live = (t < lengths[0])[:, None]
                made = tuple(np.where(live, x, y) for x, y in zip(made, [*states, *[0] * cell.kept]))
            for plane, value in zip(out, made):
                plane[after] = value
        return out

    return quiet(forward)


# --- gradients --------------------------------------------------------------------------------------------------------
# Written for NumPy arrays and NDArrays alike: m has the functions that are no operators.
def _lstm_back(m: Any, dh: Any, dc: Any, more: list[Any], now: list[Any], before: list[Any]) -> Any:
    _, c, i, f, g, o = now
    q = m.tanh(c)
    di, df, dg, do = (0, 0, 0, 0) if not more else more
    do, dc = do + dh * q, dc + dh * o * (1 - q * q)
    di, df, dg = di + dc * g, df + dc * before[1], dg + dc * i
    return (m.join([di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)], 1),), (0, dc * f)


def _gru_back(m: Any, dh: Any, more: list[Any], now: list[Any], before: list[Any]) -> Any:
    _, r, z, n, q = now
    dr, dz, dn, dq = (0, 0, 0, 0) if not more else more
    dn, dz = dn + dh * (1 - z), dz + dh * (before[0] - n)
    dn = dn * (1 - n * n)
    dr, dq = (dr + dn * q) * r * (1 - r), dq + dn * r
    dz = dz * z * (1 - z)
    return (m.join([dr, dz, dn], 1), m.join([dr, dz, dq], 1)), (dh * z,)


def _rnn_back(m: Any, dh: Any, more: list[Any], now: list[Any], before: list[Any], activation: str) -> Any:
    h = now[0]
    return (dh * (1 - h * h) if activation == "tanh" else m.where(h > 0, dh, dh * 0),), (0,)


class _OnNumPy:
    tanh, where, join = np.tanh, np.where, np.concatenate


class _OnArrays:
    tanh, where = tanh, where

    @staticmethod
    def join(parts: list[Any], axis: int) -> Any:
        return concat_op(*parts, axis=axis)


def _back(cell: Cell, step: Step, m: Any, grad: Any, record: Any, weight: Any, *lengths: Any, **attrs: Any) -> Any:
    """The gradient, computed step by step; see the module's docstring for what it is."""
    reverse, attrs = attrs["reverse"], {k: v for k, v in attrs.items() if k != "reverse"}
    steps = int(record.shape[1]) - 1
    carried: list[Any] = [0] * cell.states
    rows: dict[int, tuple[Any, ...]] = {}
    for t in range(steps)[:: 1 if reverse else -1]:
        before, after = (t + 1, t) if reverse else (t, t + 1)
        given = [grad[p, after] for p in range(int(grad.shape[0]))]
        arriving = [g + c for g, c in zip(given, carried)]
        now, then = ([record[p, k] for p in range(int(record.shape[0]))] for k in (after, before))
        made, direct = step(m, *arriving, given[cell.states :], now, then, *attrs.values())
        leaving = [made[-1] @ weight + direct[0], *direct[1:]]
        if lengths:
            live = (lengths[0] > t)[:, None]
            made = [m.where(live, x, x * 0) for x in made]
            leaving = [m.where(live, x, y) for x, y in zip(leaving, arriving)]
        carried, rows[t] = leaving, tuple(made)
    begin = steps if reverse else 0
    last = [grad[p, begin] + carried[p] for p in range(cell.states)]
    last += [last[0] * 0] * (cell.gates - cell.states)
    rows[steps] = (m.join(last, 1), m.join([x * 0 for x in last], 1))[: max(1, len(cell.blocks) * 2)]
    blocks = [m.join([rows[t][b][None] for t in range(steps + 1)], 0) for b in range(len(rows[steps]))]
    return m.join([b[None] for b in blocks], 0) if cell.blocks else blocks[0]


def _gradient_forward(cell: Cell, step: Step) -> Callable[..., np.ndarray]:
    def forward(grad: np.ndarray, record: np.ndarray, weight: np.ndarray, *lengths: Any, **attrs: Any) -> np.ndarray:
        _gradient_rule(cell, grad, record, weight, *lengths, reverse=attrs["reverse"])  # type: ignore[arg-type]
        return _back(cell, step, _OnNumPy, grad, record, weight, *lengths, **attrs)

    return quiet(forward)


def _gradient_vjp(cell: Cell, step: Step) -> Callable[..., Any]:
    def vjp(position: int, head: Any, out: Any, *inputs: Any, **attrs: Any) -> Any:
        """Differentiates the steps; a traced number of steps becomes a guard."""
        from gluonish.nd import autograd
        from gluonish.nd.array import Gradient, NDArray
        from gluonish.nd.dispatch import state

        again = state.recording  # then the result must depend on the very arrays that came
        given = list(inputs) if again else [NDArray(x._data) for x in inputs]
        if not again:
            given[position]._grad = Gradient("write")
        with autograd.record(state.training):
            value = _back(cell, step, _OnArrays, *given, **attrs)
        if value._entry is None:  # relu's gradient does not change with the record
            return None
        return autograd.grad(value, given[position], head, create_graph=again)

    return vjp


def _vjp(cell: Cell) -> Callable[..., Any]:
    """The rule of the forward op; what it does not keep it makes again."""

    def vjp(position: int, g: Any, y: Any, *inputs: Any, reverse: bool, keep: bool = False, **attrs: Any) -> Any:
        gates, weight, *rest = inputs
        states = 3 if cell.biased else 2  # position of the first
        lengths = rest[states - 2 + cell.states :]
        if position >= states + cell.states:
            return None
        record = y if keep or not cell.kept else OPS[cell.name](*inputs, reverse=reverse, keep=True)
        back = OPS[f"{cell.name}_gradient"](g, record, weight, *lengths, reverse=reverse, **attrs)
        steps, units = gates.shape[0], weight.shape[1]
        first, second = ((0,), (1,)) if cell.blocks else ((), ())
        if position == 0:
            return index_op(back, key=(*first, slice(0, steps)))
        if position >= states:
            block = slice((position - states) * units, (position - states + 1) * units)
            return index_op(back, key=(*first, steps, slice(None), block))
        hidden = index_op(back, key=(*second, slice(0, steps)))
        if position == states - 1 and cell.biased:
            return hidden[:, :, 2 * units :].sum((0, 1))
        before = index_op(record, key=(0, slice(1, steps + 1) if reverse else slice(0, steps)))
        flat = (steps * gates.shape[1], weight.shape[0]), (steps * gates.shape[1], units)
        return matmul_op(hidden.reshape(flat[0]).swapaxes(0, 1), before.reshape(flat[1]))

    return vjp


# --- the records ------------------------------------------------------------------------------------------------------
def _inputs(cell: Cell, rng: np.random.Generator, steps: int, rows: int, units: int, *lengths: int) -> tuple[Any, ...]:
    def draw(*shape: int, scale: float = 0.4) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    wide = cell.gates * units
    bias = [draw(units)] if cell.biased else []
    states = [draw(rows, units) for _ in range(cell.states)]
    more = [np.array(lengths)] if lengths else []
    weight = draw(wide, units, scale=0.1)  # small: over more steps and units rounding must not grow into errors
    return draw(steps, rows, wide), weight, *bias, *states, *more


def _samples(cell: Cell, attrs: Sequence[dict[str, Any]]) -> Callable[[np.random.Generator], list[Sample]]:
    def sample(rng: np.random.Generator) -> list[Sample]:
        plain, masked = _inputs(cell, rng, 3, 2, 5), _inputs(cell, rng, 4, 3, 2, 2, 4, 0)
        keeps = [{"keep": True}, {"keep": False}] if cell.kept else [{}, {}]
        return [
            Sample(x, {"reverse": reverse, **keep, **a})
            for a in attrs
            for x, reverse, keep in ((plain, False, keeps[0]), (masked, True, keeps[1]), (masked, False, keeps[0]))
        ]

    return sample


def _gradient_samples(cell: Cell, attrs: Sequence[dict[str, Any]]) -> Callable[[np.random.Generator], list[Sample]]:
    def sample(rng: np.random.Generator) -> list[Sample]:
        out = []
        for x, given in _samples(cell, attrs)(rng):
            kept = {**given, "keep": True} if cell.kept else given
            record = OPS[cell.name].forward(*x, **kept)
            planes = cell.states if given.get("keep") else len(record)
            grad = rng.standard_normal((planes, *record.shape[1:])).astype(np.float32)
            record = np.where(record == 0, np.float32(-0.5), record)  # where relu has no kink
            lengths = x[2 + cell.biased + cell.states :]
            out.append(Sample((grad, record, x[1], *lengths), {k: v for k, v in given.items() if k != "keep"}))
        return out

    return sample


def _fields(cell: Cell, step: Step, *attrs: dict[str, Any]) -> dict[str, Any]:
    """What of a cell's record follows from its description."""

    def rule(*specs: Any, activation: str = "", **a: Any) -> Spec:
        return _rule(cell, *specs, **a)

    fields = {"forward": _forward(cell, step), "rule": rule, "vjp": _vjp(cell)}
    return {**fields, "promote": False, "sample": _samples(cell, attrs or ({},))}


def _gradient_fields(cell: Cell, step: Step, *attrs: dict[str, Any]) -> dict[str, Any]:
    """What of the record of a cell's gradient follows from its description."""

    def rule(*specs: Any, activation: str = "", **a: Any) -> Spec:
        return _gradient_rule(cell, *specs, **a)

    fields = {"forward": _gradient_forward(cell, step), "rule": rule, "vjp": _gradient_vjp(cell, step)}
    return {**fields, "promote": False, "sample": _gradient_samples(cell, attrs or ({},))}


_ACTIVATIONS = {"activation": "tanh"}, {"activation": "relu"}

lstm_op = register(
    Op(
        "lstm",
        "scan",
        **_fields(LSTM, _lstm_step),
        doc="Long short-term memory. Shapes: gates (T, N, 4H) in the order in, forget, cell, out; weight (4H, H); "
        "begin states (N, H); lengths (N,) -> states (2, T + 1, N, H), h then c; with `keep` the activated gates too.",
    )
)
lstm_gradient_op = register(
    Op(
        "lstm_gradient",
        "scan",
        **_gradient_fields(LSTM, _lstm_back),
        doc="The gradients of lstm's gates and, behind the last step, of h and c at the beginning. Shapes: gradient of "
        "the states or of all planes, record (6, T + 1, N, H), weight (4H, H), lengths (N,) -> (T + 1, N, 4H).",
    )
)
gru_op = register(
    Op(
        "gru",
        "scan",
        **_fields(GRU, _gru_step),
        doc="Gated recurrent unit. Shapes: gates (T, N, 3H) in the order reset, update, new; weight (3H, H); bias (H,) "
        "of the new gate's recurrent product; begin state (N, H); lengths (N,) -> states (1, T + 1, N, H); with `keep` "
        "the activated gates and the new gate's recurrent product too.",
    )
)
gru_gradient_op = register(
    Op(
        "gru_gradient",
        "scan",
        **_gradient_fields(GRU, _gru_back),
        doc="The gradients of gru's gates, then those of the recurrent product; behind the last step of the former "
        "that of the begin state. Shapes: gradient of the state or of all planes, record (5, T + 1, N, H), weight "
        "(3H, H), lengths (N,) -> (2, T + 1, N, 3H).",
    )
)
rnn_op = register(
    Op(
        "rnn",
        "scan",
        **_fields(RNN, _rnn_step, *_ACTIVATIONS),
        doc="Plain recurrence, h = activation(gates + h W^T). Shapes: gates (T, N, H); weight (H, H); begin state "
        "(N, H); lengths (N,) -> states (1, T + 1, N, H).",
    )
)
rnn_gradient_op = register(
    Op(
        "rnn_gradient",
        "scan",
        **_gradient_fields(RNN, _rnn_back, *_ACTIVATIONS),
        doc="The gradient of rnn's gates and, behind the last step, of the begin state. Shapes: gradient (1, T + 1, N, "
        "H), record (1, T + 1, N, H), weight (H, H), lengths (N,) -> (T + 1, N, H).",
    )
)
