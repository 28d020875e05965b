"""Metrics: running figures over many batches. Eager NumPy, no gradients.

`metric.update(labels, preds)` takes an array or a list of arrays each; `metric.get()` gives (name, value), NaN before
the first update. Averages are over samples (elements for MAE and MSE), so a short last batch counts less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gluonish.nd import NDArray
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line


class EvalMetric:
    """Base: a sum and how many things it is over; a subclass writes `measure`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self.total, self.count = 0.0, 0

    def update(self, labels: Any, preds: Any) -> None:
        """Takes in a batch. Raises: ValueError if labels and predictions do not fit together."""
        for label, pred in _pairs(self.name, labels, preds):
            total, count = self.measure(label, pred)
            self.total += float(total)
            self.count += int(count)

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[Any, int]:
        """The sum over one pair of arrays, and how many things it is over."""
        raise NotImplementedError(f"{type(self).__name__} has no measure")

    def get(self) -> tuple[Any, Any]:
        """(name, value)."""
        return self.name, self.total / self.count if self.count else math.nan

    def get_name_value(self) -> list[tuple[str, float]]:
        """[(name, value)]."""
        name, value = self.get()
        return list(zip(name, value)) if isinstance(name, list) else [(name, value)]

    def __repr__(self) -> str:
        return ", ".join(f"{name}: {value:.6g}" for name, value in self.get_name_value())


class Accuracy(EvalMetric):
    """The share of right predictions; scores are turned into classes by their largest along `axis`.

    Shapes: labels (N, ...), preds the same or with a dimension of classes more.

    >>> from gluonish import nd, metric
    >>> accuracy = metric.Accuracy(); accuracy.update(nd.array([0, 1]), nd.array([[0.9, 0.1], [0.8, 0.2]]))
    >>> accuracy.get()
    ('accuracy', 0.5)
    """

    def __init__(self, axis: int = 1, name: str = "accuracy") -> None:
        super().__init__(name)
        self.axis = axis

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[Any, int]:
        """See the class."""
        if pred.size != label.size:
            if not pred.ndim > self.axis:
                raise _misfit(self.name, label, pred)
            pred = pred.argmax(self.axis)
        elif is_float(pred.dtype) and (pred != np.trunc(pred)).any():
            raise ValueError(
                f"{self.name}: one score for each label is no class; give classes, or scores with a dimension of "
                f"classes ({user_line()})"
            )
        label = _same(self.name, label, pred)
        return (pred.astype(np.int64) == label.astype(np.int64)).sum(), label.size


class TopKAccuracy(EvalMetric):
    """The share of samples whose label is among the top_k highest scores. Shapes: labels (N,), preds (N, K)."""

    def __init__(self, top_k: int = 1, name: str = "top_k_accuracy") -> None:
        super().__init__(f"{name}_{top_k}")
        if top_k < 1:
            raise ValueError(f"TopKAccuracy: top_k must be at least 1, got {top_k!r} ({user_line()})")
        self.top_k = top_k

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[Any, int]:
        """See the class."""
        _classes(self.name, label, pred)
        best = np.argsort(-pred, 1, kind="stable")[:, : self.top_k]
        return (best == label.reshape(-1, 1).astype(np.int64)).any(1).sum(), len(pred)


class CrossEntropy(EvalMetric):
    """The mean of -log of the probability given to the label. Shapes: labels (N,), preds (N, K) probabilities.

    Raises: IndexError for a label that is no class.
    """

    def __init__(self, eps: float = 1e-12, name: str = "cross-entropy") -> None:
        super().__init__(name)
        self.eps = eps

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[Any, int]:
        """See the class."""
        _classes(self.name, label, pred)
        places = label.ravel().astype(np.int64)
        bad = (places < 0) | (places >= pred.shape[1])
        if bad.any():
            at = int(bad.argmax())
            raise IndexError(
                f"{self.name}: label {places[at]} at position {at} must be in 0 .. {pred.shape[1] - 1} ({user_line()})"
            )
        return -np.log(pred[np.arange(len(pred)), places] + self.eps).sum(), len(pred)


class MAE(EvalMetric):
    """The mean absolute error. Shapes: labels and preds the same."""

    def __init__(self, name: str = "mae") -> None:
        super().__init__(name)

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[Any, int]:
        """See the class."""
        return np.abs(_same(self.name, label, pred) - pred).sum(), pred.size


class MSE(EvalMetric):
    """The mean square error. Shapes: labels and preds the same."""

    def __init__(self, name: str = "mse") -> None:
        super().__init__(name)

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[Any, int]:
        """See the class."""
        return np.square(_same(self.name, label, pred) - pred).sum(), pred.size


class RMSE(MSE):
    """The square root of the mean square error. Shapes: labels and preds the same."""

    def __init__(self, name: str = "rmse") -> None:
        super().__init__(name)

    def get(self) -> tuple[Any, Any]:
        """(name, value)."""
        name, value = super().get()
        return name, math.sqrt(value)


class Loss(EvalMetric):
    """The mean of what a loss gave: `metric.update(None, loss)`. Shapes: any."""

    def __init__(self, name: str = "loss") -> None:
        super().__init__(name)

    def update(self, labels: Any, preds: Any) -> None:
        """Takes in the losses of a batch; labels are not looked at."""
        for pred in preds if isinstance(preds, (list, tuple)) else [preds]:
            values = _values(self.name, pred)
            self.total += float(values.sum())
            self.count += values.size


class CompositeEvalMetric(EvalMetric):
    """Several metrics together: `get` gives a list of names and a list of values."""

    def __init__(self, metrics: Any = (), name: str = "composite") -> None:
        self.metrics = [create(m) for m in metrics]
        super().__init__(name)

    def add(self, metric: Any) -> None:
        """Adds a metric, or one by its name."""
        self.metrics.append(create(metric))

    def reset(self) -> None:
        """Starts all anew."""
        for each in self.metrics:
            each.reset()

    def update(self, labels: Any, preds: Any) -> None:
        """Takes in a batch."""
        for each in self.metrics:
            each.update(labels, preds)

    def get(self) -> tuple[Any, Any]:
        """(names, values)."""
        pairs = [pair for each in self.metrics for pair in each.get_name_value()]
        return [name for name, _ in pairs], [value for _, value in pairs]


_NAMES: dict[str, Any] = {
    "acc": Accuracy,
    "accuracy": Accuracy,
    "top_k_accuracy": TopKAccuracy,
    "ce": CrossEntropy,
    "cross-entropy": CrossEntropy,
    "mae": MAE,
    "mse": MSE,
    "rmse": RMSE,
    "loss": Loss,
}


def create(metric: Any, **options: Any) -> EvalMetric:
    """A metric by its name, itself, or a list of these. Raises: ValueError for an unknown name."""
    if isinstance(metric, EvalMetric):
        return metric
    if isinstance(metric, (list, tuple)):
        return CompositeEvalMetric(metric)
    if not isinstance(metric, str) or metric.lower() not in _NAMES:
        raise ValueError(f"unknown metric {metric!r}; there are: {', '.join(sorted(_NAMES))} ({user_line()})")
    return _NAMES[metric.lower()](**options)


def _values(name: str, array: Any) -> np.ndarray:
    return array._values(f"the metric {name}") if isinstance(array, NDArray) else np.asarray(array)


def _pairs(name: str, labels: Any, preds: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    labels = labels if isinstance(labels, (list, tuple)) else [labels]
    preds = preds if isinstance(preds, (list, tuple)) else [preds]
    if len(labels) != len(preds):
        raise ValueError(f"{name}: {len(labels)} arrays of labels for {len(preds)} of predictions ({user_line()})")
    return ((_values(name, label), _values(name, pred)) for label, pred in zip(labels, preds))


def _same(name: str, label: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """The label in the shape of pred; dimensions of size 1 may be more or less."""
    if [s for s in label.shape if s != 1] != [s for s in pred.shape if s != 1]:
        raise _misfit(name, label, pred)
    return label.reshape(pred.shape)


def _misfit(name: str, label: np.ndarray, pred: np.ndarray) -> ValueError:
    return ValueError(
        f"{name}: labels {shape_text(label.shape)} do not fit predictions {shape_text(pred.shape)} ({user_line()})"
    )


def _classes(name: str, label: np.ndarray, pred: np.ndarray) -> None:
    if pred.ndim != 2 or label.size != len(pred):
        raise ValueError(
            f"{name}: wants predictions (N, K) and labels (N,), got {shape_text(pred.shape)} and "
            f"{shape_text(label.shape)} ({user_line()})"
        )
