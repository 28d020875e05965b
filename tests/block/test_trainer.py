"""The Trainer and its optimizers: formulas, counts, freezing, stale gradients, state files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, init, lr_scheduler, nd, nn, optimizer
from gluonish.block import Parameter
from gluonish.nd import FileError

SLOPE = np.array([1.0, 2.0, -3.0])


def parameter(name: str = "w", dtype: str = "float32", **more: Any) -> Parameter:
    p = Parameter(name, shape=(3,), dtype=dtype, **more)
    p.initialize("ones")
    return p


def pull(*parameters: Parameter, factor: float = 1.0) -> None:
    """One backward that gives each parameter the gradient SLOPE * factor."""
    with autograd.record():
        heads = [(p * nd.array((SLOPE * factor).astype(p.dtype))).sum() for p in parameters]
    autograd.backward(heads)


def reference(name: str, options: dict[str, Any], steps: int) -> np.ndarray:
    """The same three formulas in float64 NumPy."""
    lr, wd = options.get("learning_rate", 0.1), options.get("wd", 0.0)
    w, m, v = np.ones(3), np.zeros(3), np.zeros(3)
    for t in range(1, steps + 1):
        g = SLOPE * t / 2
        if "clip_gradient" in options:
            g = np.clip(g, -options["clip_gradient"], options["clip_gradient"])
        if name in ("sgd", "nag"):
            mu = options.get("momentum", 0.0)
            change = lr * (g + wd * w)
            m = mu * m - change
            w = w + (mu * m - change if name == "nag" or options.get("nesterov") else m)
            continue
        b1, b2 = options.get("beta1", 0.9), options.get("beta2", 0.999)
        g = g + wd * w if name == "adam" else g
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        before = w
        w = w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + options.get("epsilon", 1e-8))
        w = w - lr * wd * before if name == "adamw" else w
    return w


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {}),
        ("sgd", {"momentum": 0.9, "wd": 0.1, "clip_gradient": 0.5}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("nag", {"momentum": 0.9, "wd": 0.1}),
        ("adam", {}),
        ("adam", {"wd": 0.1, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3}),
        ("adamw", {"wd": 0.1}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_formulas(name: str, options: dict[str, Any], dtype: str) -> None:
    p = parameter(dtype=dtype)
    trainer = gl.Trainer([p], name, {"learning_rate": 0.1, **options})
    for t in range(1, 5):
        pull(p, factor=t)
        trainer.step(2)
    tolerance = {"float32": 1e-5, "float64": 1e-6, "float16": 5e-3}[dtype]
    np.testing.assert_allclose(p.asnumpy(), reference(name, options, 4), rtol=tolerance, atol=tolerance)
    assert p.dtype == dtype and trainer.counts == [4] and trainer.optimizer.num_update == 4


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("sgd", {"momentum": 0.9, "wd": 0.1, "clip_gradient": 0.5}, [0.666274, 0.666274, 1.222484]),
        ("sgd", {"wd": 0.1}, [0.672294, 0.374289, 1.864314]),
        ("adam", {"wd": 0.1, "beta1": 0.8}, [0.700797, 0.701454, 1.297245]),
    ],
)
def test_what_mxnet_gave(name: str, options: dict[str, Any], wanted: list[float]) -> None:
    p = parameter()
    trainer = gl.Trainer([p], name, {"learning_rate": 0.1, **options})
    for t in range(1, 4):
        pull(p, factor=t)
        trainer.step(2)
    np.testing.assert_allclose(p.asnumpy(), wanted, rtol=1e-4)


def test_biases_and_norms_do_not_decay_unless_asked() -> None:
    net = nn.HybridSequential(nn.Dense(2, in_units=2), nn.BatchNorm(in_channels=2))
    net.initialize("ones")
    for p in net.collect_params().values():
        if p.grad_req != "null":
            p.set_data(nd.ones(p.shape))
    trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": 1.0, "wd": 0.5})
    for p, wanted in ((net[0].weight, 0.5), (net[0].bias, 1), (net[1].gamma, 1), (net[1].beta, 1)):
        with autograd.record():
            y = (p * 0).sum()
        y.backward()
        trainer.step(1, ignore_stale_grad=True)
        assert p.asnumpy().ravel()[0] == wanted
    net[0].bias.wd_mult = 1
    with autograd.record():
        y = (net[0].bias * 0).sum()
    y.backward()
    trainer.step(1, ignore_stale_grad=True)
    assert net[0].bias.tolist() == [0.5, 0.5]


def test_settings_may_change_between_steps() -> None:
    p, q = parameter("p"), parameter("q")
    trainer = gl.Trainer([p, q], optimizer.SGD(learning_rate=1.0))
    moves = []
    for change in (
        lambda: None,
        lambda: trainer.set_learning_rate(0.5),
        lambda: setattr(p, "lr_mult", 0.1),
        lambda: setattr(trainer.optimizer, "rescale_grad", 2.0),
        lambda: setattr(trainer.optimizer, "clip_gradient", 0.25),
        lambda: setattr(trainer.optimizer, "clip_gradient", None),
        lambda: setattr(q, "grad_req", "null"),
        lambda: setattr(q, "grad_req", "write"),
    ):
        before = p.asnumpy(), q.asnumpy()
        change()
        pull(p, *([q] if q.grad_req != "null" else []))
        trainer.step(1)
        moves.append([float((a - x.asnumpy())[0]) for a, x in zip(before, (p, q), strict=True)])
    wanted = [[1, 1], [0.5, 0.5], [0.05, 0.5], [0.1, 1], [0.0125, 0.125], [0.1, 1], [0.1, 0], [0.1, 1]]
    np.testing.assert_allclose(moves, wanted, rtol=1e-4)
    assert trainer.learning_rate == 0.5


def test_momentum_turned_on_later() -> None:
    p = parameter()
    trainer = gl.Trainer([p], "sgd", {"learning_rate": 1.0})
    for momentum, wanted in ((0.0, 0), (0.5, -1), (0.5, -2.5)):
        trainer.optimizer.momentum = momentum
        pull(p)
        trainer.step(1)
        assert p.asnumpy()[0] == wanted


def test_new_learning_rates_and_batch_sizes_compile_nothing() -> None:
    p = parameter()
    trainer = gl.Trainer([p], "adam")
    for i in range(1, 6):
        trainer.set_learning_rate(0.1 / i)
        pull(p)
        trainer.step(i)
    (plan,) = trainer._plans.values()
    assert len(plan.run.variants) == 1


def test_a_scheduler_decides_the_rate() -> None:
    p = parameter()
    trainer = gl.Trainer([p], "sgd", {"lr_scheduler": lr_scheduler.FactorScheduler(2, 0.5), "learning_rate": 8.0})
    rates = []
    for _ in range(5):
        before = p.asnumpy()[0]
        pull(p)
        trainer.step(1)
        rates.append(float(before - p.asnumpy()[0]))
    np.testing.assert_allclose(rates, [8, 8, 4, 4, 2], rtol=1e-6)
    assert trainer.learning_rate == 2
    with pytest.raises(ValueError, match="decided by FactorScheduler"):
        trainer.set_learning_rate(1)


def test_a_stale_gradient_warns_by_name_and_updates_nothing() -> None:
    p, q = parameter("p"), parameter("q")
    trainer = gl.Trainer({"net.p": p, "net.q": q}, "adam", {"learning_rate": 0.1})
    pull(p)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="no backward has given 'net.q' a new gradient.*test_trainer.py"):
            trainer.step(1)
    assert p.asnumpy()[0] == 1  # the warning comes before anything is changed
    with pytest.warns(UserWarning, match="'net.q'") as caught:
        trainer.step(1)
    assert caught[0].filename == __file__
    assert p.asnumpy()[0] < 1 and q.asnumpy()[0] == 1 and trainer.counts == [1, 0]
    with pytest.warns(UserWarning, match="'net.p', 'net.q'"):
        trainer.step(1)  # used up by the last step
    pull(q)
    trainer.step(1, ignore_stale_grad=True)
    assert trainer.counts == [1, 1]


def test_each_parameter_counts_its_own_updates() -> None:
    p, q = parameter("p"), parameter("q")
    trainer = gl.Trainer([p, q], "adam", {"learning_rate": 0.1})
    for _ in range(3):
        pull(p)
        trainer.step(2, ignore_stale_grad=True)
    for _ in range(2):
        pull(p, q)
        trainer.step(2)
    alone = parameter()
    other = gl.Trainer([alone], "adam", {"learning_rate": 0.1})
    for _ in range(2):
        pull(alone)
        other.step(2)
    np.testing.assert_allclose(q.asnumpy(), alone.asnumpy(), rtol=1e-6)
    assert trainer.counts == [5, 2] and trainer.optimizer.num_update == 5


def test_frozen_parameters_stay_and_cause_no_warning() -> None:
    p, q = parameter("p"), parameter("q")
    q.grad_req = "null"
    trainer = gl.Trainer([p, q], "sgd", {"learning_rate": 1.0})
    pull(p)
    trainer.step(1)
    assert q.tolist() == [1, 1, 1] and p.tolist() == [0, -1, 4]


def test_accumulated_gradients() -> None:
    p = parameter()
    p.grad_req = "add"
    trainer = gl.Trainer([p], "sgd", {"learning_rate": 1.0})
    pull(p)
    pull(p)
    trainer.step(2)
    assert p.tolist() == [0, -1, 4]
    p.zero_grad()
    assert p.grad.tolist() == [0, 0, 0]


def test_shared_parameters_are_updated_once() -> None:
    one, two = nn.Dense(2, in_units=2), nn.Dense(2, in_units=2)
    two.weight = one.weight
    net = nn.HybridSequential(one, two)
    net.initialize()
    trainer = gl.Trainer(net.collect_params(), "sgd")
    assert trainer.names == ["0.weight", "0.bias", "1.bias"]


def test_a_step_inside_record_is_not_recorded() -> None:
    p = parameter()
    trainer = gl.Trainer([p], "sgd", {"learning_rate": 1.0})
    with autograd.record():
        y = (p * nd.array([1.0, 2.0, -3.0])).sum()
        y.backward()
        trainer.step(1)
    assert p.tolist() == [0, -1, 4]


def test_a_step_is_not_traced_alone() -> None:
    p = parameter()
    trainer = gl.Trainer([p], "adam")
    step = gl.hybridize(lambda x: trainer.step(1) or x)
    with pytest.raises(TypeError, match=r"needs the backward\(\) inside"):
        step(nd.ones((2,)))


def test_a_layer_that_never_ran_is_named() -> None:
    net = nn.HybridSequential(nn.Dense(2, in_units=2), nn.Dense(2))
    net.initialize()
    trainer = gl.Trainer(net.collect_params(), "sgd")
    with autograd.record():
        y = net[0](nd.ones((1, 2)))
    y.backward()
    with pytest.warns(UserWarning, match="'1.weight', '1.bias'"):
        trainer.step(1)


# --- files ---
def trained(seed: int, steps: int, name: str = "adam") -> tuple[Any, gl.Trainer]:
    nd.random.seed(seed)
    net = nn.HybridSequential(nn.Dense(4, in_units=3), nn.Dense(2, in_units=4))
    net.initialize(init.Normal(1.0))
    trainer = gl.Trainer(net.collect_params(), name, {"learning_rate": 0.1})
    go_on(net, trainer, steps)
    return net, trainer


def go_on(net: Any, trainer: gl.Trainer, steps: int) -> None:
    for _ in range(steps):
        with autograd.record():
            y = (net(nd.ones((2, 3))) ** 2).sum()
        y.backward()
        trainer.step(2)


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    net, trainer = trained(1, 3)
    trainer.save_states(tmp_path / "t")
    net.save_parameters(tmp_path / "p")
    go_on(net, trainer, 2)
    for steps in (0, 1):
        other, resumed = trained(2, steps)
        other.load_parameters(tmp_path / "p")
        resumed.load_states(tmp_path / "t")
        assert resumed.counts == [3] * 4 and resumed.optimizer.num_update == 3
        go_on(other, resumed, 2)
        for a, b in zip(net.collect_params().values(), other.collect_params().values(), strict=True):
            assert (a.asnumpy() == b.asnumpy()).all()


def test_loaded_counts_may_differ_between_parameters(tmp_path: Path) -> None:
    results = []
    for resume in (False, True):
        p, q = parameter("p"), parameter("q")
        trainer = gl.Trainer([p, q], "adam", {"learning_rate": 0.1})
        for _ in range(2):
            pull(p)
            trainer.step(1, ignore_stale_grad=True)
        if resume:
            trainer.save_states(tmp_path / "t")
            values = p.asnumpy()
            pull(p, q)
            trainer.step(1)
            trainer.load_states(tmp_path / "t")
            p.set_data(values)
            q.set_data(np.ones(3))
        for _ in range(2):
            pull(p, q)
            trainer.step(1)
        results.append((p.tolist(), q.tolist(), trainer.counts))
    assert results[0] == results[1]


def test_states_that_do_not_belong_change_nothing(tmp_path: Path) -> None:
    _, trainer = trained(1, 2)
    trainer.save_states(tmp_path / "t")
    whole = (tmp_path / "t").read_bytes()
    _, sgd = trained(1, 1, "sgd")
    with pytest.raises(ValueError, match="is of the optimizer Adam, this Trainer has SGD"):
        sgd.load_states(tmp_path / "t")
    _, other = trained(1, 1)
    states = [s.asnumpy() for s in other.states_of(0)]
    (tmp_path / "t").write_bytes(whole[:-9])
    with pytest.raises(FileError):
        other.load_states(tmp_path / "t")
    nd.save(tmp_path / "plain", {"x": nd.ones((1,))})
    with pytest.raises(FileError, match="holds no Trainer states"):
        other.load_states(tmp_path / "plain")
    wide = nn.HybridSequential(nn.Dense(5, in_units=3), nn.Dense(2, in_units=5))
    wide.initialize()
    third = gl.Trainer(wide.collect_params(), "adam")
    (tmp_path / "t").write_bytes(whole)
    with pytest.raises(ValueError, match=r"'0.weight/mean' has shape \(4, 3\), the parameter \(5, 3\)"):
        third.load_states(tmp_path / "t")
    with pytest.raises(ValueError, match="has states of '0.weight', .* which this Trainer does not train"):
        gl.Trainer([parameter()], "adam").load_states(tmp_path / "t")
    assert other.counts == [1] * 4 and all(
        (a == s.asnumpy()).all() for a, s in zip(states, other.states_of(0), strict=True)
    )


# --- mistakes ---
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: gl.Trainer([p], "adamm"), "unknown optimizer 'adamm'; there are: adam, adamw"),
        (lambda p: gl.Trainer([p], "sgd", {"beta1": 0.9}), "sgd has no hyperparameter 'beta1'; it has: .*momentum"),
        (lambda p: gl.Trainer([p], optimizer.SGD(), {"wd": 1}), "already has its hyperparameters"),
        (lambda p: gl.Trainer([], "sgd"), "got no Parameters"),
        (lambda p: gl.Trainer([nd.ones((2,))], "sgd"), "takes Parameters, got NDArray"),
        (lambda p: gl.Trainer(5, "sgd"), "takes net.collect_params"),
        (lambda p: gl.Trainer([p], "sgd", kvstore="dist_sync"), "kvstore must be"),
        (lambda p: gl.Trainer([p], "sgd", {"momentum": 1.5}), "momentum must be in"),
        (lambda p: gl.Trainer([p], "adam", {"wd": -1}), "wd must not be negative"),
        (lambda p: gl.Trainer([p], "sgd").step(0), "batch_size must be positive"),
    ],
)
def test_mistakes(make: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{text}.*test_trainer.py"):
        make(parameter())


def test_the_printed_optimizer() -> None:
    assert repr(optimizer.create("adam", wd=0.1)).startswith("Adam(")
