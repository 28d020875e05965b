"""Recurrent networks over whole sequences: one layer and direction of an LSTM, a GRU or a plain RNN.

The inputs of all steps are multiplied by their weight at once; what remains step by step is the op. Deliberately not
here: several layers and both directions (`gluonish.rnn`), the ops themselves (`nd/ops/recurrent.py`).
"""

from __future__ import annotations

from typing import Any

from gluonish.nd.array import NDArray
from gluonish.nd.create import arange, zeros
from gluonish.nd.dispatch import state
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.functions import concat, expand_dims, matmul
from gluonish.nd.indexing import strict
from gluonish.nd.ops.elementwise import where
from gluonish.nd.ops.gather import checked_index_op
from gluonish.nd.ops.move import index_op
from gluonish.nd.ops.recurrent import gru_op, lstm_op, rnn_op
from gluonish.nd.size import SizeLike


def lstm(
    x: NDArray,
    i2h_weight: NDArray,
    h2h_weight: NDArray,
    i2h_bias: NDArray,
    h2h_bias: NDArray,
    h: NDArray | None = None,
    c: NDArray | None = None,
    lengths: NDArray | None = None,
    reverse: bool = False,
) -> tuple[NDArray, NDArray, NDArray]:
    """Long short-term memory over a sequence; gives the outputs and the last h and c.

    i, f, g, o = the blocks of x_t Wi^T + bi + h Wh^T + bh;  c = sigmoid(f) c + sigmoid(i) tanh(g);
    h = sigmoid(o) tanh(c).

    h, c: begin states, zeros by default. lengths: steps of each row; behind them its outputs are zero and its states
    stay. reverse: from the last step to the first.

    Shapes: x (T, N, I), weights (4H, I) and (4H, H), biases (4H,), states (N, H), lengths (N,) -> (T, N, H), (N, H),
    (N, H).
    Raises: ValueError if they do not fit, IndexError for a length outside 0 .. T.
    """
    gates = _projected("lstm", x, i2h_weight, i2h_bias + h2h_bias)
    begin = [_begin(s, x, h2h_weight) for s in (h, c)]
    more, attrs = _run("lstm", lengths, x.shape[0], reverse)
    record = lstm_op(gates, h2h_weight, *begin, *more, keep=state.recording, **attrs)
    return _outputs(record, 0, more, reverse), _last(record, 0, reverse), _last(record, 1, reverse)


def gru(
    x: NDArray,
    i2h_weight: NDArray,
    h2h_weight: NDArray,
    i2h_bias: NDArray,
    h2h_bias: NDArray,
    h: NDArray | None = None,
    lengths: NDArray | None = None,
    reverse: bool = False,
) -> tuple[NDArray, NDArray]:
    """Gated recurrent units over a sequence; gives the outputs and the last h.

    r = sigmoid(x_t Wir^T + bir + h Whr^T + bhr), z likewise;  n = tanh(x_t Win^T + bin + r (h Whn^T + bhn));
    h = (1 - z) n + z h.

    The other arguments are those of `lstm`.

    Shapes: x (T, N, I), weights (3H, I) and (3H, H), biases (3H,), h (N, H), lengths (N,) -> (T, N, H), (N, H).
    Raises: ValueError if they do not fit.
    """
    units = h2h_weight.shape[-1]
    outer = concat([h2h_bias[: 2 * units], zeros((units,), h2h_bias.dtype)], 0)  # r scales the rest
    gates = _projected("gru", x, i2h_weight, i2h_bias + outer)
    more, attrs = _run("gru", lengths, x.shape[0], reverse)
    begin = _begin(h, x, h2h_weight)
    record = gru_op(gates, h2h_weight, h2h_bias[2 * units :], begin, *more, keep=state.recording, **attrs)
    return _outputs(record, 0, more, reverse), _last(record, 0, reverse)


def rnn(
    x: NDArray,
    i2h_weight: NDArray,
    h2h_weight: NDArray,
    i2h_bias: NDArray,
    h2h_bias: NDArray,
    h: NDArray | None = None,
    lengths: NDArray | None = None,
    reverse: bool = False,
    activation: str = "tanh",
) -> tuple[NDArray, NDArray]:
    """A plain recurrent network over a sequence, h = activation(x_t Wi^T + bi + h Wh^T + bh); gives outputs and last h.

    activation: "tanh" or "relu". The other arguments are those of `lstm`.

    Shapes: x (T, N, I), weights (H, I) and (H, H), biases (H,), h (N, H), lengths (N,) -> (T, N, H), (N, H).
    Raises: ValueError if they do not fit.
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f"rnn: activation must be 'tanh' or 'relu', got {activation!r} ({user_line()})")
    gates = _projected("rnn", x, i2h_weight, i2h_bias + h2h_bias)
    more, attrs = _run("rnn", lengths, x.shape[0], reverse)
    record = rnn_op(gates, h2h_weight, _begin(h, x, h2h_weight), *more, activation=activation, **attrs)
    return _outputs(record, 0, more, reverse), _last(record, 0, reverse)


def _projected(name: str, x: NDArray, weight: NDArray, bias: NDArray) -> NDArray:
    """x W^T + b of all steps at once."""
    if x.ndim != 3 or weight.ndim != 2 or x.shape[2] != weight.shape[1]:
        raise ValueError(
            f"{name} expects x (T, N, I) and an input weight (gates * H, I), got {shape_text(x.shape)} and "
            f"{shape_text(weight.shape)} ({user_line()})"
        )
    steps, rows, inputs = x.shape
    out = matmul(x.reshape((steps * rows, inputs)), weight.swapaxes(0, 1)) + bias
    return out.reshape((steps, rows, weight.shape[0]))


def _begin(given: NDArray | None, x: NDArray, weight: NDArray) -> NDArray:
    return zeros((x.shape[1], weight.shape[1]), x.dtype) if given is None else given


def _run(name: str, lengths: NDArray | None, steps: SizeLike, reverse: bool) -> tuple[list[NDArray], dict[str, Any]]:
    """The lengths, of which each must be a whole number in 0 .. steps, as a list; and how to go."""
    if lengths is None:
        return [], {"reverse": bool(reverse)}
    return [checked_index_op(strict(lengths), size=steps + 1, what=f"{name}: lengths")], {"reverse": bool(reverse)}


def _outputs(record: NDArray, plane: int, lengths: list[NDArray], reverse: bool) -> NDArray:
    """The states behind each step, zeros behind the end of a row."""
    steps = record.shape[1] - 1
    out = index_op(record, key=(plane, slice(0, steps) if reverse else slice(1, steps + 1)))
    if not lengths:
        return out
    live = expand_dims(arange(steps), 1) < lengths[0]  # (T, N)
    return where(expand_dims(live, 2), out, 0.0)


def _last(record: NDArray, plane: int, reverse: bool) -> NDArray:
    return index_op(record, key=(plane, 0 if reverse else record.shape[1] - 1))
