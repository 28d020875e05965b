"""The LSTM language model: a training step on a piece of text, with states that go on, and a clipped gradient.

All sides have the same weights and words. Losses are compared: the mean of a step, for the first STEPS steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.row import BUSY, Bar, Row, Side, Sizes, classes, numbers

STEPS = 3  # whose losses are compared
RATE, LONGEST = 1.0, 0.25  # of learning; of the gradient of the mean loss
PARTS = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")


def _flops(s: Sizes) -> float:
    """Products of the layers and of the output; the gradients of both operands cost as much again each."""
    places = s["steps"] * s["rows"]
    return 3.0 * 2 * places * (s["layers"] * 4 * s["units"] * 2 * s["units"] + s["units"] * s["words"])


ROW = Row(
    "lstm-lm-step",
    "LSTM language model, 2 x 200, 10,000 words, 35 steps of batch 20, training step with SGD and clipping",
    {"layers": 2, "units": 200, "words": 10000, "steps": 35, "rows": 20},
    {"units": 7, "words": 11, "steps": 4, "rows": 3},
    (Bar("torch", 0.5), BUSY),
    _flops,
    group="models",
)


def _texts(s: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Words and the words behind them."""
    text = classes(60, (s["steps"] + 1) * s["rows"], s["words"]).reshape(s["steps"] + 1, s["rows"])
    return text[:-1].copy(), text[1:].copy()


def _weights(s: Sizes) -> tuple[np.ndarray, list[list[np.ndarray]], np.ndarray, np.ndarray]:
    """Of the embedding, each layer, and the output, whose bias comes last."""
    units, wide, scale = s["units"], 4 * s["units"], s["units"] ** -0.5
    shapes = ((wide, units), (wide, units), (wide,), (wide,))
    layers = [[numbers(62 + 4 * n + i, *shape, scale=scale) for i, shape in enumerate(shapes)]
              for n in range(s["layers"])]  # fmt: skip
    output = numbers(80, s["words"], units, scale=scale), numbers(81, s["words"], scale=0.1)
    return numbers(61, s["words"], units, scale=0.5), layers, *output


def _trained(make_step: Callable[[], Callable[[], Any]]) -> Side:
    def results() -> list[Any]:
        step = make_step()
        return [step() for _ in range(STEPS)]

    return Side(make_step(), results)


@ROW.side("gluonish")
def _gluonish(sizes: Sizes) -> Side:
    import gluonish as gl

    words, following = (gl.nd.array(x) for x in _texts(sizes))

    def make_step() -> Callable[[], Any]:
        net = gl.zoo.get_model("lstm_lm", classes=sizes["words"], units=sizes["units"], layers=sizes["layers"])
        net.initialize("zeros")
        embedding, layers, weight, bias = _weights(sizes)
        net.embedding.weight.set_data(embedding)
        for n, values in enumerate(layers):
            for part, value in zip(PARTS, values):
                getattr(net.lstm, f"l{n}_{part}").set_data(value)
        net.output.weight.set_data(weight)
        net.output.bias.set_data(bias)
        criterion = gl.loss.SoftmaxCrossEntropyLoss()
        parameters = list(net.collect_params().values())
        trainer = gl.Trainer(parameters, "sgd", {"learning_rate": RATE})

        @gl.hybridize  # type: ignore[untyped-decorator]
        def step(words: Any, following: Any, states: Any) -> Any:
            with gl.autograd.record():
                scores, states = net(words, states)
                loss = criterion(scores.reshape((-1, sizes["words"])), following.reshape((-1,))).mean()
            loss.backward()
            gl.clip_global_norm([p.grad for p in parameters], LONGEST)
            trainer.step(1)
            return loss, states

        held = [net.begin_state(sizes["rows"])]

        def run() -> Any:
            loss, held[0] = step(words, following, [s.detach() for s in held[0]])
            return loss

        return run

    return _trained(make_step)


@ROW.side("torch")
def _torch(sizes: Sizes) -> Side:
    import torch

    words, following = (torch.from_numpy(x) for x in _texts(sizes))

    def make_step() -> Callable[[], Any]:
        embedding, layers, weight, bias = _weights(sizes)
        units = sizes["units"]
        table = torch.nn.Embedding(sizes["words"], units)
        lstm, output = torch.nn.LSTM(units, units, sizes["layers"]), torch.nn.Linear(units, sizes["words"])
        given = [(table.weight, embedding), (output.weight, weight), (output.bias, bias)]
        for n, values in enumerate(layers):
            names = (f"{part}_l{n}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            given += [(getattr(lstm, name), value) for name, value in zip(names, values)]
        with torch.no_grad():
            for parameter, value in given:
                parameter.copy_(torch.from_numpy(value))
        parameters = [parameter for parameter, _ in given]
        optimizer = torch.optim.SGD(parameters, RATE)
        criterion = torch.nn.CrossEntropyLoss()
        zeros = torch.zeros(sizes["layers"], sizes["rows"], units)
        held = [(zeros, zeros)]

        def step() -> Any:
            optimizer.zero_grad()
            outputs, states = lstm(table(words), held[0])
            held[0] = tuple(s.detach() for s in states)
            loss = criterion(output(outputs).flatten(0, 1), following.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, LONGEST)
            optimizer.step()
            return loss.detach()

        return step

    return _trained(make_step)
