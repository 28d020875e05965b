"""What every layer does: the values NumPy gives, the gradients that differences give, the same compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from block.layer_cases import CASES, Case
from block.window_cases import WINDOW_CASES

from gluonish import autograd, nd
from gluonish.block import nn

EVERY = pytest.mark.parametrize("case", CASES + WINDOW_CASES, ids=lambda case: case.name)
Arrays = dict[str, np.ndarray]


def prepared(case: Case, rng: np.random.Generator, dtype: str = "float32") -> tuple[Any, np.ndarray]:
    """The layer with random parameters, and an input."""
    x = rng.standard_normal(case.shape).astype(dtype)
    layer = case.make()
    layer.initialize()
    layer.cast(dtype)
    layer.infer_shape(nd.array(x))
    for name, p in layer.collect_params().items():
        positive = name.endswith("running_var")
        p.set_data(rng.uniform(0.5, 1.5, p.shape) if positive else rng.standard_normal(p.shape))
    return layer, x


def values(layer: Any) -> Arrays:
    return {name: p.asnumpy().astype(np.float64) for name, p in layer.collect_params().items()}


def mode(case: Case) -> Any:
    return autograd.train_mode() if case.training else autograd.predict_mode()


@EVERY
def test_values_are_those_of_numpy(case: Case, rng: np.random.Generator) -> None:
    layer, x = prepared(case, rng)
    wanted = case.expected(x.astype(np.float64), values(layer))
    with mode(case):
        out = layer(nd.array(x))
    assert out.dtype == np.float32
    assert out.shape == wanted.shape
    np.testing.assert_allclose(out.asnumpy(), wanted, rtol=2e-4, atol=2e-5)


def moved(layer: Any, x: np.ndarray, head: np.ndarray, directions: Arrays, step: float, training: bool) -> float:
    """The weighted sum of outputs after every parameter and the input moved along their directions."""
    before = {name: p.asnumpy() for name, p in layer.collect_params().items()}
    for name, p in layer.collect_params().items():
        if name in directions:
            p.set_data(before[name] + step * directions[name])
    with autograd.train_mode() if training else autograd.predict_mode():
        out = (layer(nd.array(x + step * directions["x"])) * nd.array(head)).sum().item()
    for name, p in layer.collect_params().items():
        p.set_data(before[name])
    return float(out)


@EVERY
def test_gradients_are_those_of_differences(case: Case, rng: np.random.Generator) -> None:
    layer, x = prepared(case, rng, "float64")
    params = {name: p for name, p in layer.collect_params().items() if p.grad_req != "null"}
    array = nd.array(x)
    array.attach_grad()
    with autograd.record(train_mode=case.training):
        out = layer(array)
    head = rng.standard_normal(out.shape)
    out.backward(nd.array(head))
    directions = {name: rng.standard_normal(p.shape) for name, p in params.items()}
    directions["x"] = rng.standard_normal(x.shape)
    found = sum((p.grad.asnumpy() * directions[name]).sum() for name, p in params.items())
    found += (array.grad.asnumpy() * directions["x"]).sum()
    step = 1e-6
    up = moved(layer, x, head, directions, step, case.training)
    down = moved(layer, x, head, directions, -step, case.training)
    assert found == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-5)


@EVERY
def test_compiled_is_the_same(case: Case, rng: np.random.Generator) -> None:
    layer, x = prepared(case, rng)
    head = nd.array(rng.standard_normal(layer(nd.array(x)).shape).astype(np.float32))
    results = []
    for hybrid in (False, True):
        layer.hybridize(hybrid)
        statistics = {name: p.asnumpy() for name, p in layer.collect_params().items()}
        array = nd.array(x)
        array.attach_grad()
        with autograd.record(train_mode=case.training):
            out = layer(array)
        out.backward(head)
        grads = [p.grad.asnumpy() for p in layer.collect_params().values() if p.grad_req != "null"]
        results.append(
            [out.asnumpy(), array.grad.asnumpy(), *grads, *(p.asnumpy() for p in layer.collect_params().values())]
        )
        for name, p in layer.collect_params().items():
            p.set_data(statistics[name])
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-3, atol=1e-4)


@EVERY
def test_an_empty_batch_and_any_batch_size(case: Case, rng: np.random.Generator) -> None:
    layer, x = prepared(case, rng)
    one = layer(nd.array(x[:1])).asnumpy()
    assert layer(nd.zeros((0, *x.shape[1:]))).shape == (0, *one.shape[1:])
    np.testing.assert_allclose(layer(nd.array(x)).asnumpy()[:1], one, rtol=1e-5, atol=1e-6)


class Wrong(nn.HybridBlock):
    """Twice its input, with a fault in the values or in the gradient, or none."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def forward(self, x: Any) -> Any:
        if self.fault == "gradient":
            return x + x.detach()
        return x * (2.001 if self.fault == "values" else 2)


@pytest.mark.parametrize("fault", ["values", "gradient"])
def test_the_checks_can_fail(fault: str, rng: np.random.Generator) -> None:
    case = Case("wrong", lambda: Wrong(fault), (3, 4), lambda x, p: 2 * x)
    check = {"values": test_values_are_those_of_numpy, "gradient": test_gradients_are_those_of_differences}
    with pytest.raises(AssertionError):
        check[fault](case, rng)
    for each in check.values():
        each(Case("right", lambda: Wrong(""), (3, 4), lambda x, p: 2 * x), rng)


# --- single layers ---
def test_batch_norm_moves_its_statistics_in_train_mode_only(rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 3, 2, 2)).astype(np.float32)
    layer = nn.BatchNorm(momentum=0.8)
    layer.initialize()
    layer(nd.array(x))
    assert layer.running_mean.asnumpy().tolist() == [0, 0, 0]
    with autograd.record():
        layer(nd.array(x))
    np.testing.assert_allclose(layer.running_mean.asnumpy(), 0.2 * x.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var.asnumpy(), 0.8 + 0.2 * x.var((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_frozen_batch_norm_uses_and_keeps_its_statistics(rng: np.random.Generator, hybrid: bool) -> None:
    x = nd.array(rng.standard_normal((6, 3)).astype(np.float32))
    net = nn.HybridSequential(nn.BatchNorm(scale=False), nn.Dense(2))
    net.initialize()
    net.hybridize(hybrid)
    wanted = net(x).asnumpy()
    net[0].setattr("grad_req", "null")
    with autograd.record():
        out = net(x)
    np.testing.assert_allclose(out.asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    assert net[0].frozen and net[0].running_mean.asnumpy().tolist() == [0, 0, 0]
    net[0].setattr("grad_req", "write")
    with autograd.record():
        net(x)
    assert not net[0].frozen and (net[0].running_mean.asnumpy() != 0).all()
    assert net[0].running_mean.grad_req == net[0].gamma.grad_req == "null" and net[0].beta.grad_req == "write"


def test_freezing_only_what_a_batch_norm_trains_freezes_it() -> None:
    layer = nn.BatchNorm(in_channels=2)
    layer.initialize()
    layer.gamma.grad_req = "null"
    assert not layer.frozen  # beta still trains
    layer.beta.grad_req = "null"
    assert layer.frozen


def test_dropout_keeps_the_mean_and_drops_only_in_train_mode() -> None:
    layer = nn.Dropout(0.25)
    x = nd.ones((200, 200))
    assert (layer(x) == 1).all()
    with autograd.train_mode():
        out = layer(x).asnumpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert out.mean() == pytest.approx(1, abs=0.03)


def test_dropout_axes_share_their_fate() -> None:
    with autograd.train_mode():
        out = nn.Dropout(0.5, axes=(1, -1))(nd.ones((40, 3, 2, 5))).asnumpy()
    assert (out == out[:, :1, :, :1]).all() and 0 < out[:, 0, :, 0].mean() < 2


def test_dropout_follows_the_seed_and_its_gradient_its_mask() -> None:
    layer, x = nn.Dropout(0.5), nd.ones((50,))
    x.attach_grad()
    outs = []
    for _ in range(2):
        nd.random.seed(3)
        with autograd.record():
            out = layer(x)
        out.backward()
        outs.append(out.asnumpy())
        assert (x.grad.asnumpy() == out.asnumpy()).all()
    assert (outs[0] == outs[1]).all()


def test_embedding_takes_rows_and_refuses_what_it_lacks() -> None:
    layer = nn.Embedding(4, 3)
    layer.initialize()
    table = layer.weight.asnumpy()
    tokens = np.array([[0, 3], [3, 1]])
    assert (layer(nd.array(tokens)).asnumpy() == table[tokens]).all()
    assert (layer(nd.array(tokens.astype(np.float32))).asnumpy() == table[tokens]).all()
    with autograd.record():
        out = layer(nd.array(tokens))
    out.backward()
    assert layer.weight.grad.asnumpy()[:, 0].tolist() == [1, 1, 0, 2]
    for bad in (4, -1):
        with pytest.raises(IndexError, match=rf"Embedding: index {bad} at position \(1, 0\).*0 \.\. 3.*test_layers.py"):
            layer(nd.array([[0, 1], [bad, 2]]))


def test_lambda_blocks() -> None:
    assert nn.HybridLambda("relu")(nd.array([-1.0, 1.0])).tolist() == [0, 1]
    assert nn.Lambda(lambda x, y: x - y)(nd.array([3.0]), nd.array([1.0])).tolist() == [2]
    with pytest.raises(ValueError, match="no_such"):
        nn.Lambda("no_such")


# --- what a user gets for a mistake ---
def test_errors_name_layer_shapes_and_line(rng: np.random.Generator) -> None:
    class Net(nn.HybridBlock):
        def __init__(self) -> None:
            self.features = nn.HybridSequential(nn.Conv2D(4, 3), nn.Flatten(), nn.Dense(7))

        def forward(self, x: Any) -> Any:
            return self.features(x)

    net = Net()
    net.initialize()
    for hybrid in (False, True):
        net.hybridize(hybrid)
        net(nd.zeros((2, 1, 5, 5)))
        with pytest.raises(
            ValueError,
            match=r"Dense 'features.2' expects last dimension 36 \(weight 7x36\) but got \(2, 48\) "
            r"from Flatten 'features.1' \(test_layers.py:",
        ):
            net(nd.zeros((2, 1, 5, 6)))
        with pytest.raises(
            ValueError, match=r"Conv2D 'features.0' expects images \(N, 1, H, W\), 1 channels .*\(2, 3, 5, 5\)"
        ):
            net(nd.zeros((2, 3, 5, 5)))
        with pytest.raises(ValueError, match=r"Conv2D 'features.0' expects images .* but got \(2, 5\)"):
            net(nd.zeros((2, 5)))
        with pytest.raises(TypeError, match=r"Conv2D 'features.0' has float32 parameters but got float64.*astype"):
            net(nd.zeros((2, 1, 5, 5), dtype="float64"))


def test_an_error_without_a_name_gets_the_path_as_a_note() -> None:
    class Net(nn.Block):
        def __init__(self) -> None:
            self.inner = nn.HybridSequential(nn.Lambda(lambda x: nd.matmul(x, nd.zeros((9, 9)))))

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    with pytest.raises(ValueError, match="matmul") as caught:
        Net()(nd.zeros((2, 3)))
    assert caught.value.__notes__ == ["in the forward of Lambda 'inner.0'"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Dense(0), "units must be a whole number"),
        (lambda: nn.Dense(2.5), "units must be a whole number"),
        (lambda: nn.Dense(3, activation="rellu"), "unknown activation 'rellu'; there are: .*relu"),
        (lambda: nn.Dense(3, weight_initializer="xaver"), "unknown initializer 'xaver'; there are: .*xavier"),
        (lambda: nn.Conv2D(3, 3, layout="NHWC"), "layout must be 'NCHW', got 'NHWC'"),
        (lambda: nn.MaxPool2D(layout="NHWC"), "MaxPool2D: layout must be 'NCHW'"),
        (lambda: nn.Conv2D(3, 3, groups=2), "groups 2 must divide channels 3"),
        (lambda: nn.Conv2D(3, (3, 3, 3)), "kernel_size must be an int or a pair"),
        (lambda: nn.Conv1D(3, (3, 3)), "kernel_size must be an int or a tuple of one int"),
        (lambda: nn.Conv3D(3, (3, 3)), "kernel_size must be an int or 3 ints"),
        (lambda: nn.Conv1D(3, 3, layout="NWC"), "Conv1D: layout must be 'NCW', got 'NWC'"),
        (lambda: nn.Conv2DTranspose(3, 3, 2, output_padding=2), r"less than strides \(2, 2\), got \(2, 2\)"),
        (lambda: nn.AvgPool3D(layout="NDHWC"), "AvgPool3D: layout must be 'NCDHW'"),
        (lambda: nn.GroupNorm(2, in_channels=3), "num_groups 2 must divide in_channels 3"),
        (lambda: nn.InstanceNorm(epsilon=-1.0), "epsilon must not be negative"),
        (lambda: nn.Conv2D(3, 3, strides=0), "must be positive"),
        (lambda: nn.MaxPool2D(0), "must be positive"),
        (lambda: nn.Dropout(1.0), r"rate must be in \[0, 1\)"),
        (lambda: nn.BatchNorm(momentum=2), "momentum must be in"),
        (lambda: nn.LeakyReLU(-1), "alpha must not be negative"),
        (lambda: nn.GELU("fast"), "'erf' or 'tanh'"),
        (lambda: nn.HybridSequential(nn.Dense), "takes Blocks"),
    ],
)
def test_wrong_arguments(make: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{text}.*test_layers.py"):
        make()


def test_unknown_keyword() -> None:
    with pytest.raises(TypeError, match="unit"):
        nn.Dense(unit=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (nn.MaxPool2D(), (2, 3), r"MaxPool2D expects images \(N, C, H, W\) but got \(2, 3\)"),
        (nn.GlobalAvgPool2D(), (2, 3), "GlobalAvgPool2D expects images"),
        (nn.MaxPool2D(5), (1, 1, 3, 3), "larger than the image"),
        (nn.BatchNorm(in_channels=3), (2, 4), r"BatchNorm expects 3 channels in dimension 1 but got \(2, 4\)"),
        (nn.BatchNorm(axis=2, in_channels=3), (2, 4), "BatchNorm expects 3 channels in dimension 2"),
        (nn.LayerNorm(in_channels=3), (2, 4), "LayerNorm expects size 3 in dimension -1"),
        (nn.Conv2D(4, 3, groups=2), (1, 3, 5, 5), "a multiple of 2"),
        (nn.RMSNorm(in_channels=3), (2, 4), "RMSNorm expects size 3 in dimension -1"),
        (nn.Dense(4, flatten=False), (3,), "at least 2 dimensions"),
        (nn.Conv1D(4, 3), (1, 3, 5, 5), r"Conv1D expects signals \(N, C, L\) but got \(1, 3, 5, 5\)"),
        (nn.Conv3D(4, 3), (1, 3, 2, 5, 5), "no window of depth 3 with stride 1, padding 0 and dilation 1 fits"),
        (nn.Conv3D(4, 3, in_channels=2), (1, 3, 5, 5, 5), r"volumes \(N, 2, D, H, W\), 2 channels .weight 4x2x3x3x3"),
        (nn.Conv2DTranspose(4, 3, in_channels=2), (1, 3, 5, 5), r"images \(N, 2, H, W\), 2 channels .weight 2x4x3x3"),
        (nn.Conv1DTranspose(4, 2, padding=1), (1, 3, 1), "padding .* leaves nothing of"),
        (nn.MaxPool3D(), (1, 1, 3, 3), r"MaxPool3D expects volumes \(N, C, D, H, W\)"),
        (nn.GroupNorm(2), (2, 3, 4), r"C \(a multiple of 2\) channels in dimension 1"),
        (nn.GroupNorm(2, in_channels=4), (2, 6, 4), "GroupNorm expects 4 channels in dimension 1"),
        (nn.InstanceNorm(), (2, 3), "at least 3 dimensions"),
    ],
)
def test_wrong_inputs(layer: Any, shape: tuple[int, ...], text: str) -> None:
    layer.initialize() if layer.collect_params() else None
    with pytest.raises(ValueError, match=f"{text}.*test_layers.py"):
        layer(nd.zeros(shape))


@pytest.mark.parametrize("hybrid", [False, True])
def test_what_is_no_array_is_named(hybrid: bool) -> None:
    """A layer given something else names the argument, what came and the line; nothing leaks out from inside."""
    from gluonish import loss, rnn

    entropy, layers = loss.SoftmaxCrossEntropyLoss(), nn.HybridSequential(nn.Dense(2), nn.Dense(2))
    cases: list[tuple[Any, tuple[Any, ...], str]] = [
        (nn.Dense(2), ("abc",), r"Dense wants an array as x, got str 'abc' \(test_layers.py:\d+\)"),
        (layers, (None,), r"Dense '0' wants an array as x, got None \(test_layers"),
        (nn.Conv2D(2, 3), ([[1.0]],), r"Conv2D wants an array as x, got list \[\[1.0\]\]; use nd.array\(x\)"),
        (nn.BatchNorm(), ({"a": 1},), r"BatchNorm wants an array as x, got dict"),
        (nn.Flatten(), (3.5,), r"Flatten wants an array as x, got float 3.5; use nd.array"),
        (nn.MaxPool2D(), ("abc",), r"MaxPool2D wants an array as x, got str"),
        (nn.Embedding(5, 2), ("abc",), r"Embedding wants an array as x, got str"),
        (rnn.LSTM(2), (None,), r"LSTM wants an array as inputs, got None"),
        (
            entropy,
            (nd.ones((2, 3)), [0, 1]),
            r"SoftmaxCrossEntropyLoss wants an array as label, got list \[0, 1\]; use",
        ),
        (loss.L2Loss(), (nd.ones((2, 3)), "a"), r"L2Loss wants an array as label, got str 'a'"),
    ]
    for layer, args, text in cases:
        layer.initialize()
        layer.hybridize(hybrid)
        with pytest.raises(TypeError, match=text):
            layer(*args)
    entropy.hybridize(hybrid)
    with pytest.raises(TypeError, match="wants an array as label, got None"):
        entropy(nd.ones((2, 3)), label=None)


def test_a_forward_of_ones_own_keeps_its_error() -> None:
    """Where the user's own line asks a string for a shape, Python's error stands, with the path as a note."""

    class Own(nn.HybridSequential):
        def forward(self, x: Any) -> Any:
            return x.shape

    with pytest.raises(AttributeError, match="'str' object has no attribute 'shape'"):
        Own()("abc")
