"""The LSTM language model: a step compiled as a whole, with a clipped gradient, does what the eager one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import nd


def trained(compiled: bool, rng: np.random.Generator) -> list[np.ndarray]:
    net = gl.zoo.get_model("lstm_lm", classes=11, units=7)
    net.initialize()
    for name, parameter in net.collect_params().items():
        parameter.set_data(
            np.sin(np.arange(parameter.size) + len(name)).astype(np.float32).reshape(parameter.shape) / 2
        )
    parameters = list(net.collect_params().values())
    trainer = gl.Trainer(parameters, "sgd", {"learning_rate": 1.0})
    criterion = gl.loss.SoftmaxCrossEntropyLoss()

    def step(words: Any, following: Any, states: Any) -> Any:
        with gl.autograd.record():
            scores, states = net(words, states)
            loss = criterion(scores.reshape((-1, 11)), following.reshape((-1,))).mean()
        loss.backward()
        length = gl.clip_global_norm([p.grad for p in parameters], 0.1)
        trainer.step(1)
        return loss, length, states

    run = gl.hybridize(step) if compiled else step
    states, out = net.begin_state(3), []
    for _ in range(3):
        words, following = (nd.array(rng.integers(0, 11, (4, 3))) for _ in range(2))
        loss, length, states = run(words, following, [s.detach() for s in states])
        grads = [p.grad.asnumpy().astype(np.float64) for p in parameters]
        assert length.item() > 0.1
        assert np.sqrt(sum((g * g).sum() for g in grads)) == pytest.approx(0.1, rel=1e-4)
        out += [loss.asnumpy(), *(p.asnumpy() for p in parameters)]
    return out


def test_a_compiled_step_with_clipping_is_the_eager_one() -> None:
    eager, hybrid = (trained(compiled, np.random.default_rng(7)) for compiled in (False, True))
    for a, b in zip(eager, hybrid, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_short_gradients_stay_as_they_are() -> None:
    arrays = [nd.array([3.0, 0.0]), nd.array([4.0])]
    assert gl.clip_global_norm(arrays, 6.0).item() == 5.0
    assert [a.tolist() for a in arrays] == [[3.0, 0.0], [4.0]]
    assert gl.clip_global_norm([arrays[0] * 0], 1.0).item() == 0
    with pytest.raises(ValueError, match="positive max_norm"):
        gl.clip_global_norm(arrays, 0)
