"""Recurrent cells: one step at a time, for networks whose next input depends on the last output.

The Parameters are those of the layers' (`layers.py`) without a prefix, and so is what they compute.
"""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.nn.activations import activate, activation_name
from gluonish.block.nn.layer import Layer, positive
from gluonish.block.parameter import Parameter
from gluonish.block.tree import title
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line


class RecurrentCell(Layer):
    """Base of cells: `cell(x, states)` gives (output, new states).

    Shapes: x (N, I), states (N, H) -> (N, H).
    """

    gates, states = 1, 1  # blocks of hidden units in a weight, and how many states it has

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        dtype: Any = "float32",
    ) -> None:
        name = type(self).__name__
        self.hidden_size = positive(name, "hidden_size", hidden_size)
        wide, inputs = self.gates * hidden_size, positive(name, "input_size", input_size, 0)
        self.i2h_weight = Parameter("i2h_weight", shape=(wide, inputs), dtype=dtype, init=i2h_weight_initializer)
        self.h2h_weight = Parameter("h2h_weight", shape=(wide, hidden_size), dtype=dtype, init=h2h_weight_initializer)
        bias: dict[str, Any] = {"shape": (wide,), "dtype": dtype, "wd_mult": 0.0}
        self.i2h_bias = Parameter("i2h_bias", init=i2h_bias_initializer, **bias)
        self.h2h_bias = Parameter("h2h_bias", init=h2h_bias_initializer, **bias)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        return [{"shape": (batch_size, self.hidden_size), "__layout__": "NC"} for _ in range(self.states)]

    def begin_state(self, batch_size: int = 0, func: Any = nd.zeros, **kwargs: Any) -> list[NDArray]:
        """States to begin with, zeros unless `func` makes something else of a shape."""
        return [func(info["shape"], **kwargs) for info in self.state_info(batch_size)]

    def reset(self) -> None:
        """Nothing to do: a cell remembers nothing between calls."""

    def forward(self, x: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """See the class."""
        if x.ndim != 2:
            raise self.misfit(x)
        given = [states] if isinstance(states, NDArray) else list(states)
        if len(given) != self.states or any(s.shape != (x.shape[0], self.hidden_size) for s in given):
            raise ValueError(
                f"{title(self)} expects {self.states} state(s) of shape (N, {self.hidden_size}) beside "
                f"{shape_text(x.shape)} but got {', '.join(shape_text(s.shape) for s in given)} ({user_line()})"
            )
        wide = self.gates * self.hidden_size
        weights = (self.i2h_weight, (wide, x.shape[1])), (self.h2h_weight, (wide, self.hidden_size))
        biases = (self.i2h_bias, (wide,)), (self.h2h_bias, (wide,))
        wx, wh, bx, bh = (self.fitted(p, shape, x) for p, shape in (*weights, *biases))
        made = self._step(nd.matmul(x, wx.swapaxes(0, 1)) + bx, nd.matmul(given[0], wh.swapaxes(0, 1)) + bh, given)
        return made[0], made

    def _step(self, gates: NDArray, recurrent: NDArray, states: list[NDArray]) -> list[NDArray]:
        """The new states from both products; the first is the output."""
        raise NotImplementedError

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
        valid_length: NDArray | None = None,
    ) -> tuple[Any, list[NDArray]]:
        """Runs `length` steps; gives the outputs and the last states.

        inputs: one array in the layout, or a list of (N, I). merge_outputs: whether outputs come as one array (True) or
        as a list (False); None: as the inputs come. valid_length: steps of each row; behind its end outputs are zero
        and states stay.

        Raises: ValueError if there are not `length` steps.
        """
        axis = layout.find("T")
        if layout not in ("NTC", "TNC"):
            raise ValueError(f"unroll: layout must be 'NTC' or 'TNC', got {layout!r} ({user_line()})")
        merged = isinstance(inputs, NDArray)
        steps = [x.squeeze(axis) for x in nd.split(inputs, int(inputs.shape[axis]), axis)] if merged else list(inputs)
        if len(steps) != length or not steps:
            raise ValueError(f"unroll: {length} steps asked of inputs with {len(steps)} ({user_line()})")
        states = self.begin_state(steps[0].shape[0], dtype=steps[0].dtype) if begin_state is None else begin_state
        states = [states] if isinstance(states, NDArray) else list(states)
        outputs = []
        for t, x in enumerate(steps):
            out, new = self(x, states)
            if valid_length is not None:
                live = nd.expand_dims(valid_length > t, 1)
                new = [nd.where(live, a, b) for a, b in zip(new, states)]
                out = nd.where(live, out, 0.0)
            outputs.append(out)
            states = new
        together = merged if merge_outputs is None else merge_outputs
        return (nd.stack(outputs, axis) if together else outputs), states

    def _expects(self) -> str:
        return f"(N, {self.i2h_weight.shape[1] or 'C'})"

    def _describe(self) -> str:
        return f"{self.i2h_weight.shape[1] or '?'} -> {self.hidden_size}"


class RNNCell(RecurrentCell):
    """h = activation(x Wi^T + bi + h Wh^T + bh).

    Shapes: x (N, I), state (N, H) -> (N, H).

    >>> from gluonish import nd, rnn
    >>> cell = rnn.RNNCell(4); cell.initialize()
    >>> out, states = cell(nd.ones((2, 3)), cell.begin_state(2)); out.shape
    (2, 4)
    """

    def __init__(self, hidden_size: int, activation: str = "tanh", **more: Any) -> None:
        super().__init__(hidden_size, **more)
        self.activation = activation_name(activation)

    def _step(self, gates: NDArray, recurrent: NDArray, states: list[NDArray]) -> list[NDArray]:
        return [activate(gates + recurrent, self.activation)]


class LSTMCell(RecurrentCell):
    """One step of an `LSTM`. States: h and c.

    Shapes: x (N, I), states (N, H) -> (N, H).
    """

    gates, states = 4, 2

    def _step(self, gates: NDArray, recurrent: NDArray, states: list[NDArray]) -> list[NDArray]:
        i, f, g, o = nd.split(gates + recurrent, 4, 1)
        c = nd.sigmoid(f) * states[1] + nd.sigmoid(i) * nd.tanh(g)
        return [nd.sigmoid(o) * nd.tanh(c), c]


class GRUCell(RecurrentCell):
    """One step of a `GRU`.

    Shapes: x (N, I), state (N, H) -> (N, H).
    """

    gates = 3

    def _step(self, gates: NDArray, recurrent: NDArray, states: list[NDArray]) -> list[NDArray]:
        (xr, xz, xn), (hr, hz, hn) = nd.split(gates, 3, 1), nd.split(recurrent, 3, 1)
        r, z = nd.sigmoid(xr + hr), nd.sigmoid(xz + hz)
        n = nd.tanh(xn + r * hn)
        return [n + z * (states[0] - n)]
