"""Metrics against plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gluonish import metric, nd

SCORES = np.array([[0.1, 0.3, 0.6], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]], np.float32)
LABELS = np.array([1, 1, 0, 2])


def value(m: metric.EvalMetric, labels: Any, preds: Any) -> float:
    m.update(labels, preds)
    return float(m.get()[1])


def test_accuracy() -> None:
    m = metric.Accuracy()
    assert math.isnan(m.get()[1])
    assert value(m, nd.array(LABELS), nd.array(SCORES)) == 0.5
    assert value(m, [nd.array([1.0]), nd.array([2])], [nd.array(SCORES[:1]), nd.array(SCORES[:1])]) == 0.5
    assert value(m, LABELS, LABELS) == 0.7
    m.reset()
    assert m.count == 0 and repr(m) == "accuracy: nan"
    assert value(m, nd.array([[1], [0]]), nd.array([[1], [1]])) == 0.5
    assert value(metric.Accuracy(axis=-1), LABELS.reshape(2, 2), SCORES.reshape(2, 2, 3)) == 0.5


def test_top_k() -> None:
    m = metric.TopKAccuracy(2)
    assert value(m, LABELS, SCORES) == 1.0 and m.get()[0] == "top_k_accuracy_2"
    assert value(metric.TopKAccuracy(1), nd.array(LABELS), SCORES) == 0.5


def test_cross_entropy() -> None:
    wanted = -np.log(SCORES[np.arange(4), LABELS]).mean()
    assert value(metric.CrossEntropy(), nd.array(LABELS.astype(np.float32)), nd.array(SCORES)) == pytest.approx(wanted)


def test_errors_are_averaged_over_elements() -> None:
    a, b = np.array([1.0, 0.0]), np.array([1.5, 0.3])
    c, d = np.array([1.0, 0.0, 3.0]), np.array([[1.5], [0.3], [9.0]])
    for m, f in ((metric.MSE(), np.square), (metric.MAE(), np.abs)):
        m.update(nd.array(a), nd.array(b))
        m.update(nd.array(c), nd.array(d))
        assert m.get()[1] == pytest.approx(f(np.array([0.5, 0.3, 0.5, 0.3, 6])).mean())
    assert value(metric.RMSE(), a, b) == pytest.approx(math.sqrt(0.17))
    assert math.isnan(metric.RMSE().get()[1])


def test_loss_and_composite() -> None:
    m = metric.create(["acc", "loss", metric.MAE()])
    assert m.get() == (["accuracy", "loss", "mae"], [m.get()[1][0]] * 3) or all(math.isnan(v) for v in m.get()[1])
    m = metric.CompositeEvalMetric(["acc"])
    m.add("rmse")
    m.update(LABELS, LABELS)
    assert m.get() == (["accuracy", "rmse"], [1, 0]) and m.get_name_value() == [("accuracy", 1), ("rmse", 0)]
    m.reset()
    assert all(math.isnan(v) for v in m.get()[1])
    assert value(metric.Loss(), None, [nd.array([1.0, 2.0]), nd.array([6.0])]) == 3


@pytest.mark.parametrize(
    ("m", "labels", "preds", "text"),
    [
        (metric.Accuracy(), [1, 2], np.ones((3, 4)), r"accuracy: 1 arrays of labels|do not fit|2 arrays"),
        (metric.Accuracy(), np.ones(2), np.ones((3, 4)), r"accuracy: labels \(2,\) do not fit predictions \(3,\)"),
        (metric.Accuracy(), np.ones(3), np.full(3, 0.7), "one score for each label is no class"),
        (metric.Accuracy(), np.ones(6), np.ones(3), "do not fit"),
        (metric.MSE(), np.ones(3), np.ones(4), "mse: labels"),
        (metric.TopKAccuracy(2), np.ones(3), np.ones((4, 5)), r"wants predictions \(N, K\)"),
        (metric.Accuracy(), [np.ones(1)] * 2, [np.ones(1)], "2 arrays of labels for 1 of predictions"),
    ],
)
def test_what_does_not_fit(m: Any, labels: Any, preds: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"{text}"):
        m.update(labels, preds)


def test_other_mistakes() -> None:
    with pytest.raises(IndexError, match="label 3 at position 1 must be in 0 .. 2"):
        metric.CrossEntropy().update(np.array([0, 3]), SCORES[:2])
    with pytest.raises(ValueError, match="unknown metric 'f2'; there are: acc"):
        metric.create("f2")
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        metric.TopKAccuracy(0)
