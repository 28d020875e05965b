"""Losses: values (also those that MXNet 1.9.1 gave), gradients, weights, labels that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, loss, nd

PRED = np.array([[0.1, 0.5, -2.0], [1.0, 0.0, 3.0]], np.float32)
LABEL = np.array([[0.0, 1.0, 0.5], [1.0, 0.2, 0.0]], np.float32)
MEASURED = [  # MXNet 1.9.1 on PRED and LABEL
    (loss.L2Loss(), [1.085, 1.5066667]),
    (loss.L1Loss(), [1.0333333, 1.0666667]),
    (loss.SigmoidBinaryCrossEntropyLoss(), [0.78180057, 1.3516655]),
    (loss.KLDivLoss(from_logits=False), [1.7449088, 2.481926]),
    (loss.HuberLoss(rho=0.7), [0.7785714, 0.89285713]),
    (loss.SoftmaxCrossEntropyLoss(sparse_label=False), [2.0914824, 2.8038135]),
]


@pytest.mark.parametrize(("criterion", "wanted"), MEASURED, ids=lambda v: type(v).__name__)
def test_values_of_mxnet_eager_and_compiled(criterion: Any, wanted: list[float]) -> None:
    for hybrid in (False, True):
        criterion.hybridize(hybrid)
        out = criterion(nd.array(PRED), nd.array(LABEL))
        assert out.shape == (2,) and out.dtype == np.float32
        np.testing.assert_allclose(out.asnumpy(), wanted, rtol=1e-5)
    criterion.weight = 3.0
    tripled = criterion(nd.array(PRED), nd.array(LABEL))
    criterion.weight = None
    np.testing.assert_allclose(tripled.asnumpy(), 3 * np.array(wanted), rtol=1e-5)


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float32", "float64"])
def test_softmax_cross_entropy_of_class_numbers(rng: np.random.Generator, dtype: str) -> None:
    pred = rng.standard_normal((6, 5)).astype(np.float32)
    label = rng.integers(0, 5, 6)
    wanted = -log_softmax(pred)[np.arange(6), label]
    criterion = loss.SoftmaxCrossEntropyLoss()
    for hybrid in (False, True):
        criterion.hybridize(hybrid)
        out = criterion(nd.array(pred), nd.array(label.astype(dtype)))
        np.testing.assert_allclose(out.asnumpy(), wanted, rtol=1e-5)
        out = criterion(nd.array(pred), nd.array(label.astype(dtype).reshape(6, 1)))
        np.testing.assert_allclose(out.asnumpy(), wanted, rtol=1e-5)
    logits = loss.SoftmaxCELoss(from_logits=True)(nd.array(log_softmax(pred)), nd.array(label))
    np.testing.assert_allclose(logits.asnumpy(), wanted, rtol=1e-5)


def test_softmax_cross_entropy_over_an_inner_axis(rng: np.random.Generator) -> None:
    pred = rng.standard_normal((2, 4, 3)).astype(np.float32)
    label = rng.integers(0, 4, (2, 3))
    wanted = -np.take_along_axis(log_softmax(pred, 1), label[:, None], 1)[:, 0].mean(1)
    out = loss.SoftmaxCrossEntropyLoss(axis=1)(nd.array(pred), nd.array(label))
    np.testing.assert_allclose(out.asnumpy(), wanted, rtol=1e-5)


def test_softmax_cross_entropy_does_not_overflow() -> None:
    pred = nd.array([[1e4, -1e4], [3e38, 0.0]])
    assert loss.SoftmaxCrossEntropyLoss()(pred, nd.array([1, 0])).tolist() == [2e4, 0]
    with_nan = loss.SoftmaxCrossEntropyLoss()(nd.array([[float("nan"), 0.0]]), nd.array([0]))
    assert np.isnan(with_nan.item())


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(("bad", "shown"), [(3, "3"), (-1, "-1"), (7, "7"), (float("nan"), "nan"), (1.5, "1.5")])
def test_labels_out_of_range(hybrid: bool, bad: Any, shown: str) -> None:
    criterion = loss.SoftmaxCrossEntropyLoss()
    criterion.hybridize(hybrid)
    pred = nd.zeros((4, 3))
    assert criterion(pred, nd.array([0.0, 1.0, 2.0, 0.0])).shape == (4,)
    with pytest.raises(
        IndexError, match=f"SoftmaxCrossEntropyLoss: label {shown} at position 2 .* 0 .. 2 .test_loss.py"
    ):
        criterion(pred, nd.array([0.0, 1.0, bad, 5.0]))


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    ("criterion", "shape", "text"),
    [
        (loss.SoftmaxCrossEntropyLoss(), (3,), r"wants labels of shape \(4,\); got label \(3,\) for pred \(4, 5\)"),
        (loss.SoftmaxCrossEntropyLoss(), (4, 5), "need sparse_label=False"),
        (loss.SoftmaxCrossEntropyLoss(sparse_label=False), (4,), "wants labels of the shape of pred"),
        (loss.L2Loss(), (5, 4), r"L2Loss wants labels of the shape of pred; got label \(5, 4\) for pred \(4, 5\)"),
        (loss.L1Loss(), (4,), "wants labels"),
        (loss.HuberLoss(), (4, 1), "wants labels"),
        (loss.KLDivLoss(), (20,), "wants labels"),
        (loss.SigmoidBCELoss(), (5,), "wants labels"),
    ],
)
def test_labels_of_another_shape(hybrid: bool, criterion: Any, shape: tuple[int, ...], text: str) -> None:
    criterion.hybridize(hybrid)
    with pytest.raises(ValueError, match=f"{text}.*test_loss.py"):
        criterion(nd.zeros((4, 5)), nd.zeros(shape))


def test_a_column_and_a_vector_are_the_same_labels() -> None:
    out = loss.L2Loss()(nd.array([[1.0], [2.0]]), nd.array([1, 4]))
    assert out.tolist() == [0, 2] and out.dtype == np.float32
    assert loss.L2Loss()(nd.array([1.0, 2.0]), nd.array([[1.0], [4.0]])).tolist() == [0, 2]


def test_sample_weights_and_batch_axis() -> None:
    pred, label = nd.array(PRED), nd.array(LABEL)
    plain = loss.L1Loss()(pred, label).asnumpy()
    for weight in (nd.array([0.0, 2.0]), nd.array([[0.0], [2.0]])):
        np.testing.assert_allclose(loss.L1Loss()(pred, label, weight).asnumpy(), plain * [0, 2], rtol=1e-6)
    out = loss.L1Loss(batch_axis=1)(pred, label).asnumpy()
    np.testing.assert_allclose(out, np.abs(PRED - LABEL).mean(0), rtol=1e-6)
    ce = loss.SoftmaxCrossEntropyLoss()(pred, nd.array([0, 2]), nd.array([1.0, 0.0]))
    assert ce.asnumpy()[1] == 0 and ce.shape == (2,)


def test_binary_cross_entropy_variants() -> None:
    pred, label = nd.array(PRED), nd.array(LABEL)
    np.testing.assert_allclose(
        loss.SigmoidBCELoss()(pred, label, None, nd.array([2.0, 2.0, 2.0])).asnumpy(), [1.2943143, 1.5022959], rtol=1e-5
    )  # MXNet 1.9.1
    from_sigmoid = loss.SigmoidBCELoss(from_sigmoid=True)(nd.sigmoid(pred), label)
    np.testing.assert_allclose(from_sigmoid.asnumpy(), [0.78180057, 1.3516655], rtol=1e-4)
    assert loss.SigmoidBCELoss()(nd.array([[1e4], [-1e4]]), nd.array([[0.0], [1.0]])).tolist() == [1e4, 1e4]


@pytest.mark.parametrize(
    "criterion",
    [
        loss.L2Loss(),
        loss.HuberLoss(0.8),
        loss.SoftmaxCrossEntropyLoss(),
        loss.SoftmaxCrossEntropyLoss(sparse_label=False),
        loss.SigmoidBCELoss(),
        loss.KLDivLoss(from_logits=False),
    ],
    ids=lambda c: type(c).__name__,
)
def test_gradients(criterion: Any, rng: np.random.Generator) -> None:
    x, direction = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    sparse = getattr(criterion, "sparse_label", False)
    label = nd.array(rng.integers(0, 5, 4)) if sparse else nd.array(rng.uniform(0.1, 0.9, (4, 5)))
    pred = nd.array(x)
    pred.attach_grad()
    with autograd.record():
        value = criterion(pred, label).sum()
    value.backward()
    up, down = (criterion(nd.array(x + s * direction), label).sum().item() for s in (1e-6, -1e-6))
    assert (pred.grad.asnumpy() * direction).sum() == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-7)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="rho must be positive"):
        loss.HuberLoss(0)
