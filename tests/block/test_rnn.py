"""Recurrent layers and cells: a layer is its cells unrolled; names, states, layouts, lengths, errors, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd, rnn

PAIRS: dict[str, Any] = {
    "RNN": (lambda *a, **k: rnn.RNN(*a, activation="tanh", **k), rnn.RNNCell),
    "RNN relu": (rnn.RNN, lambda *a, **k: rnn.RNNCell(*a, activation="relu", **k)),
    "LSTM": (rnn.LSTM, rnn.LSTMCell),
    "GRU": (rnn.GRU, rnn.GRUCell),
}
EVERY = pytest.mark.parametrize("kind", PAIRS)
HYBRID = pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybrid"])
PARTS = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")


def random(layer: Any, rng: np.random.Generator) -> Any:
    """The layer with random parameters, biases too."""
    layer.initialize()
    for p in layer.collect_params().values():
        p.set_data(0.4 * rng.standard_normal(p.shape))
    return layer


def cell_of(kind: str, layer: Any, prefix: str) -> Any:
    """The cell that has the parameters of one layer and direction."""
    inputs = getattr(layer, f"{prefix}_i2h_weight").shape[1]
    cell = PAIRS[kind][1](layer.hidden_size, input_size=inputs)
    cell.initialize()
    for part in PARTS:
        getattr(cell, part).set_data(getattr(layer, f"{prefix}_{part}"))
    return cell


def unrolled(kind: str, layer: Any, x: Any, states: list[Any], lengths: Any = None) -> tuple[Any, list[Any]]:
    """What a layer computes, by its cells: x (T, N, I), states (layers * directions, N, H)."""
    last: list[list[Any]] = []
    for number in range(layer.num_layers):
        outs = []
        for side in "lr" if layer.bidirectional else "l":
            cell, begin = cell_of(kind, layer, f"{side}{number}"), [s[len(last)] for s in states]
            given = x if side == "l" else backwards(x, lengths)
            out, ends = cell.unroll(int(x.shape[0]), given, begin, "TNC", valid_length=lengths)
            outs.append(out if side == "l" else backwards(out, lengths))
            last.append(ends)
        x = nd.concat(outs, 2)
    return x, [nd.stack(list(ends), 0) for ends in zip(*last)]


def backwards(x: Any, lengths: Any) -> Any:
    """Each row from its end to its beginning; what lies behind the end stays."""
    values = x.asnumpy().copy()
    for row in range(values.shape[1]):
        steps = len(values) if lengths is None else int(lengths.asnumpy()[row])
        values[:steps, row] = values[:steps, row][::-1]
    return nd.array(values)


def agree(found: list[Any], wanted: list[Any], room: float = 2e-5) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=room, atol=room)


@EVERY
@HYBRID
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
def test_a_layer_is_its_cells_unrolled(kind: str, hybrid: bool, bidirectional: bool, rng: np.random.Generator) -> None:
    layer = random(PAIRS[kind][0](5, num_layers=2, bidirectional=bidirectional, input_size=3), rng)
    if hybrid:
        layer.hybridize()
    for steps, rows in ((4, 3), (6, 2)):
        x = nd.array(rng.standard_normal((steps, rows, 3)).astype(np.float32))
        states = [nd.array(rng.standard_normal(i["shape"]).astype(np.float32)) for i in layer.state_info(rows)]
        out, last = layer(x, states)
        wanted = unrolled(kind, layer, x, states)
        agree([out, *last], [wanted[0], *wanted[1]])
        agree([layer(x)], [layer(x, layer.begin_state(rows))[0]])
        lengths = nd.array(rng.integers(0, steps + 1, rows))
        out, last = layer(x, states, lengths)
        wanted = unrolled(kind, layer, x, states, lengths)
        agree([out, *last], [wanted[0], *wanted[1]])


@EVERY
@HYBRID
def test_gradients_are_those_of_the_cells(kind: str, hybrid: bool, rng: np.random.Generator) -> None:
    layer = random(PAIRS[kind][0](5, input_size=3), rng)
    cell = cell_of(kind, layer, "l0")
    if hybrid:
        layer.hybridize()
    x, y = (nd.array(v) for v in [rng.standard_normal((4, 3, 3)).astype(np.float32)] * 2)
    x.attach_grad()
    y.attach_grad()
    head = nd.array(rng.standard_normal((4, 3, 5)).astype(np.float32))
    with autograd.record():
        out = layer(x)
        other, _ = cell.unroll(4, y, layout="TNC")
    out.backward(head)
    other.backward(head)
    agree([x.grad], [y.grad], 1e-4)
    agree([getattr(layer, f"l0_{p}").grad for p in PARTS], [getattr(cell, p).grad for p in PARTS], 1e-4)


def test_parameters_have_gluons_names_and_shapes() -> None:
    for layer, gates in ((rnn.LSTM(4, 2, bidirectional=True), 4), (rnn.GRU(4, 2, bidirectional=True), 3)):
        layer.initialize()
        layer(nd.ones((2, 1, 3)))
        shapes = {name: p.shape for name, p in layer.collect_params().items()}
        assert sorted(shapes) == sorted(f"{side}{k}_{part}" for side in "lr" for k in "01" for part in PARTS)
        assert shapes["l0_i2h_weight"] == shapes["r0_i2h_weight"] == (4 * gates, 3)
        assert shapes["l1_i2h_weight"] == (4 * gates, 8)
        assert shapes["r1_h2h_weight"] == (4 * gates, 4)
        assert shapes["l0_h2h_bias"] == (4 * gates,)
    assert sorted(rnn.LSTMCell(4).collect_params()) == sorted(PARTS)


@HYBRID
def test_rows_first(hybrid: bool, rng: np.random.Generator) -> None:
    layer = random(rnn.LSTM(4, input_size=3), rng)
    other = rnn.LSTM(4, layout="NTC", input_size=3)
    other.initialize()
    other.load_dict(layer.collect_params())
    if hybrid:
        other.hybridize()
    x = nd.array(rng.standard_normal((5, 2, 3)).astype(np.float32))
    agree([other(x.swapaxes(0, 1)).swapaxes(0, 1)], [layer(x)])


@HYBRID
def test_dropout_lies_between_layers_in_training(hybrid: bool, rng: np.random.Generator) -> None:
    layer = random(rnn.LSTM(16, 2, dropout=0.5, input_size=3), rng)
    if hybrid:
        layer.hybridize()
    x = nd.array(rng.standard_normal((5, 8, 3)).astype(np.float32))
    plain = layer(x).asnumpy()
    assert np.array_equal(plain, layer(x).asnumpy())
    with autograd.train_mode():
        assert not np.array_equal(plain, layer(x).asnumpy())
        single = random(rnn.LSTM(16, dropout=0.5, input_size=3), rng)
        assert np.array_equal(single(x).asnumpy(), single(x).asnumpy())


@EVERY
def test_cells_unroll_lists_and_both_layouts(kind: str, rng: np.random.Generator) -> None:
    cell = random(PAIRS[kind][1](4, input_size=3), rng)
    x = nd.array(rng.standard_normal((2, 5, 3)).astype(np.float32))
    out, last = cell.unroll(5, x)
    assert out.shape == (2, 5, 4)
    listed, ends = cell.unroll(5, [x[:, t] for t in range(5)])
    assert isinstance(listed, list)
    agree([nd.stack(listed, 1), *ends], [out, *last])
    apart, _ = cell.unroll(5, x, merge_outputs=False)
    agree(apart, listed)
    other, _ = cell.unroll(5, x.swapaxes(0, 1), layout="TNC")
    agree([other.swapaxes(0, 1)], [out])


def test_states_begin_as_asked() -> None:
    layer = rnn.LSTM(4, 3, bidirectional=True)
    assert [i["shape"] for i in layer.state_info(7)] == [(6, 7, 4)] * 2
    assert all(s.shape == (6, 7, 4) and not s.asnumpy().any() for s in layer.begin_state(7))
    assert all(s.asnumpy().all() for s in rnn.GRUCell(4).begin_state(2, func=nd.ones))
    assert rnn.GRU(4).begin_state(2, dtype="float64")[0].dtype == np.float64


def test_a_single_state_needs_no_list(rng: np.random.Generator) -> None:
    layer = random(rnn.GRU(4, input_size=3), rng)
    x, h = nd.ones((2, 5, 3)), nd.ones((1, 5, 4))
    agree([layer(x, h)[0], layer(x, h)[1][0]], [layer(x, [h])[0], layer(x, [h])[1][0]])
    cell = random(rnn.GRUCell(4, input_size=3), rng)
    agree([cell(x[0], h[0])[0]], [cell(x[0], [h[0]])[0]])


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    ("bad", "text"), [(6, "6 at position 1 is out of range"), (-1, "-1 at position 1 is"), (1.5, "1.5 .* whole number")]
)
def test_lengths_out_of_range(hybrid: bool, bad: float, text: str) -> None:
    layer = rnn.LSTM(4, layout="NTC", bidirectional=True)
    layer.initialize()
    layer.hybridize(hybrid)
    x = nd.ones((3, 5, 2))
    assert layer(x, sequence_length=nd.array([5.0, 0.0, 2.0])).shape == (3, 5, 8)
    for call in (lambda lengths: layer(x, None, lengths), lambda lengths: layer(x, sequence_length=lengths)):
        with pytest.raises(IndexError, match=f"LSTM: sequence_length {text}.* 0 .. 5 .test_rnn.py"):
            call(nd.array([5.0, bad, 2.0]))


def test_errors_say_what_was_expected() -> None:
    layer = rnn.LSTM(4, input_size=3)
    layer.initialize()
    with pytest.raises(ValueError, match=r"LSTM.*expects \(T, N, 3\) but got .*5.*test_rnn.py"):
        layer(nd.ones((2, 5)))
    with pytest.raises(ValueError, match=r"LSTM.*expects \(T, N, 3\)"):
        layer(nd.ones((2, 5, 4)))
    with pytest.raises(ValueError, match=r"expects 2 state\(s\) of shape \(1, 5, 4\)"):
        layer(nd.ones((2, 5, 3)), layer.begin_state(6))
    with pytest.raises(TypeError, match="LSTM.*float32 parameters but got float64"):
        layer(nd.ones((2, 5, 3), dtype="float64"))
    for make, text in (
        (lambda: rnn.GRU(0), "GRU: hidden_size must be"),
        (lambda: rnn.GRU(4, layout="NCT"), "GRU: layout must be"),
        (lambda: rnn.GRU(4, dropout=1), r"GRU: dropout must be in \[0, 1\)"),
        (lambda: rnn.RNN(4, activation="gelu"), "RNN: activation must be"),
        (lambda: rnn.RNNCell(4, activation="nonsense"), "unknown activation"),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    cell = rnn.LSTMCell(4)
    cell.initialize()
    with pytest.raises(ValueError, match=r"LSTMCell.*expects 2 state\(s\) of shape \(N, 4\)"):
        cell(nd.ones((2, 3)), [nd.ones((2, 4))])
    with pytest.raises(ValueError, match="unroll: 3 steps asked of inputs with 2"):
        cell.unroll(3, nd.ones((5, 2, 3)))


def test_saved_and_loaded(tmp_path: Any, rng: np.random.Generator) -> None:
    layer = random(rnn.LSTM(4, 2, bidirectional=True, input_size=3), rng)
    layer.save_parameters(tmp_path / "m.safetensors")
    other = rnn.LSTM(4, 2, bidirectional=True)
    other.load_parameters(tmp_path / "m.safetensors")
    x = nd.ones((2, 5, 3))
    agree([other(x)], [layer(x)])
    assert repr(other) == "LSTM(3 -> 4, TNC, 2 layers, bidirectional)"
