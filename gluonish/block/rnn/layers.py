"""RNN, LSTM and GRU: several layers, one or both directions, over whole sequences.

Deliberately not here: what one layer and direction computes (`nd/recurrent.py`), single steps (`cells.py`).
"""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.indices import index_error
from gluonish.block.nn.layer import Layer, positive
from gluonish.block.parameter import Parameter
from gluonish.block.tree import title
from gluonish.nd import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.errors import shape_text, user_line


class _Recurrent(Layer):
    """What the three have in common: the Parameters, the layers and directions, layouts and states."""

    gates, states = 1, 1  # blocks of hidden units in a weight, and how many states a cell has

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0,
        bidirectional: bool = False,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        dtype: Any = "float32",
        use_sequence_length: bool = False,
    ) -> None:
        name = type(self).__name__
        self.hidden_size = positive(name, "hidden_size", hidden_size)
        self.num_layers = positive(name, "num_layers", num_layers)
        if layout not in ("TNC", "NTC"):
            raise ValueError(f"{name}: layout must be 'TNC' or 'NTC', got {layout!r} ({user_line()})")
        if not 0 <= dropout < 1:
            raise ValueError(f"{name}: dropout must be in [0, 1), got {dropout!r} ({user_line()})")
        self.layout, self.dropout, self.bidirectional = layout, dropout, bool(bidirectional)
        self.use_sequence_length = bool(use_sequence_length)
        inputs, wide = positive(name, "input_size", input_size, 0), self.gates * hidden_size
        for layer in range(num_layers):
            weights = {"i2h_weight": inputs, "h2h_weight": hidden_size}
            for side in self._sides():
                for part, init in (("i2h_weight", i2h_weight_initializer), ("h2h_weight", h2h_weight_initializer)):
                    self._add(f"{side}{layer}_{part}", (wide, weights[part]), init, dtype, 1.0)
                for part, init in (("i2h_bias", i2h_bias_initializer), ("h2h_bias", h2h_bias_initializer)):
                    self._add(f"{side}{layer}_{part}", (wide,), init, dtype, 0.0)
            inputs = hidden_size * len(self._sides())

    def _add(self, name: str, shape: tuple[int, ...], init: Any, dtype: Any, decay: float) -> None:
        setattr(self, name, Parameter(name, shape=shape, dtype=dtype, init=init, wd_mult=decay))

    def _sides(self) -> tuple[str, ...]:
        return ("l", "r") if self.bidirectional else ("l",)

    def state_info(self, batch_size: int = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        shape = (self.num_layers * len(self._sides()), batch_size, self.hidden_size)
        return [{"shape": shape, "__layout__": "LNC"} for _ in range(self.states)]

    def begin_state(self, batch_size: int = 0, func: Any = nd.zeros, **kwargs: Any) -> list[NDArray]:
        """States to begin with, zeros unless `func` makes something else of a shape.

        Shapes: (layers * directions, batch_size, hidden_size) each.
        """
        return [func(info["shape"], **kwargs) for info in self.state_info(batch_size)]

    def forward(self, inputs: NDArray, states: Any = None, sequence_length: NDArray | None = None) -> Any:
        """See the class."""
        if inputs.ndim != 3:
            raise self.misfit(inputs)
        x = inputs.swapaxes(0, 1) if self.layout == "NTC" else inputs
        begin = self._begin(states, x.shape[1])
        last: list[list[NDArray]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and state.training:
                x = nd.dropout(x, self.dropout)
            outs = []
            for side in self._sides():
                own = [s[len(last)] for s in begin] or [None] * self.states
                weights = self._weights(f"{side}{layer}", x, inputs)
                out, *ends = self._run(x, [*weights, *own, sequence_length, side == "r"])
                outs.append(out)
                last.append(ends)
            x = outs[0] if len(outs) == 1 else nd.concat(outs, 2)
        x = x.swapaxes(0, 1) if self.layout == "NTC" else x
        return x if states is None else (x, [nd.stack(list(ends), 0) for ends in zip(*last)])

    def reworded(self, error: Exception, args: tuple[Any, ...]) -> Exception:
        """Names the length that no row can have."""
        if not isinstance(error, IndexError) or len(args) < 3 or not isinstance(args[2], NDArray):
            return error
        steps = args[0].shape[self.layout.index("T")]
        return index_error(error, title(self), "sequence_length", args[2], steps + 1)

    def _run(self, x: NDArray, rest: list[Any]) -> tuple[Any, ...]:
        """One layer and direction: the outputs and the last states."""
        raise NotImplementedError

    def _weights(self, prefix: str, x: NDArray, inputs: NDArray) -> list[Any]:
        wide = self.gates * self.hidden_size
        shapes = {"i2h_weight": (wide, x.shape[2]), "h2h_weight": (wide, self.hidden_size)}
        parts = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
        return [self.fitted(getattr(self, f"{prefix}_{p}"), shapes.get(p, (wide,)), inputs) for p in parts]

    def _begin(self, states: Any, rows: Any) -> list[NDArray]:
        """The states as a list, none if none were given."""
        if states is None:
            return []
        given = [states] if isinstance(states, NDArray) else list(states)
        wanted = self.state_info(rows)
        if len(given) != len(wanted) or any(s.shape != info["shape"] for s, info in zip(given, wanted)):
            raise ValueError(
                f"{title(self)} expects {len(wanted)} state(s) of shape {shape_text(wanted[0]['shape'])} (layers * "
                f"directions, N, hidden_size) but got {', '.join(shape_text(s.shape) for s in given)} ({user_line()})"
            )
        return given

    def _expects(self) -> str:
        size = self.l0_i2h_weight.shape[1] or "C"  # type: ignore[attr-defined]  # set by name
        return f"(T, N, {size})" if self.layout == "TNC" else f"(N, T, {size})"

    def _describe(self) -> str:
        size = self.l0_i2h_weight.shape[1] or "?"  # type: ignore[attr-defined]  # set by name
        rest = f", {self.num_layers} layers" if self.num_layers > 1 else ""
        rest += ", bidirectional" if self.bidirectional else ""
        return f"{size} -> {self.hidden_size}, {self.layout}{rest}" + (f", p={self.dropout}" if self.dropout else "")


class LSTM(_Recurrent):
    """Long short-term memory: i, f, g, o from x Wi^T + bi + h Wh^T + bh; c = sigmoid(f) c + sigmoid(i) tanh(g);
    h = sigmoid(o) tanh(c).

    hidden_size: units H. num_layers: each reads the outputs of the one before. layout: "TNC" or "NTC". dropout: share
    of a layer's outputs that the next one does not see in train mode. bidirectional: a second direction reads from the
    end; outputs are joined. input_size: found from the first input if 0. Biases have no weight decay.

    Called with the inputs it gives the outputs; with states, `layer(x, [h, c])`, it gives (outputs, [h, c]). With
    `sequence_length` (N,) the outputs behind a row's end are zero and its states are those at its end; IndexError for
    a length outside 0 .. T. (Gluon's `use_sequence_length` is taken and not needed.)

    Parameters: for layer k and direction l (r for the second) `lk_i2h_weight` (4H, I), `lk_h2h_weight` (4H, H),
    `lk_i2h_bias` and `lk_h2h_bias` (4H,), in the order in, forget, cell, out.

    Shapes: (T, N, I) -> (T, N, H * directions); states (layers * directions, N, H).

    >>> from gluonish import nd, rnn
    >>> layer = rnn.LSTM(8, num_layers=2); layer.initialize(); layer(nd.ones((5, 3, 4))).shape
    (5, 3, 8)
    >>> out, (h, c) = layer(nd.ones((5, 3, 4)), layer.begin_state(3)); h.shape
    (2, 3, 8)

    Raises: ValueError for an input or states of another shape, TypeError for another dtype.
    Source: Hochreiter, Schmidhuber, "Long short-term memory", 1997; the forget gate of Gers et al., 1999.
    """

    gates, states = 4, 2

    def _run(self, x: NDArray, rest: list[Any]) -> tuple[Any, ...]:
        return nd.lstm(x, *rest)


class GRU(_Recurrent):
    """Gated recurrent units: r = sigmoid(x Wir^T + bir + h Whr^T + bhr), z likewise;
    n = tanh(x Win^T + bin + r (h Whn^T + bhn)); h = (1 - z) n + z h.

    Arguments and calls are those of `LSTM`, with one state. Parameters are named alike, with three blocks in the order
    reset, update, new.

    Shapes: (T, N, I) -> (T, N, H * directions); state (layers * directions, N, H).

    >>> from gluonish import nd, rnn
    >>> layer = rnn.GRU(8, bidirectional=True); layer.initialize(); layer(nd.ones((5, 3, 4))).shape
    (5, 3, 16)

    Raises: ValueError for an input or a state of another shape, TypeError for another dtype.
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, with the reset gate behind
    the product, as in cuDNN.
    """

    gates = 3

    def _run(self, x: NDArray, rest: list[Any]) -> tuple[Any, ...]:
        return nd.gru(x, *rest)


class RNN(_Recurrent):
    """A plain recurrent network: h = activation(x Wi^T + bi + h Wh^T + bh).

    activation: "relu" or "tanh". The other arguments and calls are those of `LSTM`, with one state.

    Shapes: (T, N, I) -> (T, N, H * directions); state (layers * directions, N, H).

    Raises: ValueError for another activation, an input or a state of another shape, TypeError for another dtype.
    Source: Elman, "Finding structure in time", 1990.
    """

    def __init__(
        self, hidden_size: int, num_layers: int = 1, activation: str = "relu", layout: str = "TNC", **more: Any
    ) -> None:
        super().__init__(hidden_size, num_layers, layout, **more)
        if activation not in ("relu", "tanh"):
            raise ValueError(f"RNN: activation must be 'relu' or 'tanh', got {activation!r} ({user_line()})")
        self.activation = activation

    def _run(self, x: NDArray, rest: list[Any]) -> tuple[Any, ...]:
        return nd.rnn(x, *[*rest, self.activation])
