"""Losses. Each gives one value a sample: the mean over all axes but the batch's (KLDivLoss: the sum).

All are HybridBlocks called as `loss(pred, label, sample_weight=None)`. sample_weight multiplies the elements before the
mean and broadcasts: (N, 1, ...) weighs samples, 0 leaves some out.
"""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.indices import index_error
from gluonish.block.tree import title
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.indexing import strict


class Loss(HybridBlock):
    """Base of losses. weight: a factor on everything. batch_axis: the axis of samples."""

    def __init__(self, weight: float | None = None, batch_axis: int = 0) -> None:
        self.weight = weight
        self.batch_axis = batch_axis

    def finished(self, loss: NDArray, sample_weight: NDArray | None, reduce: Any = nd.mean) -> NDArray:
        """The elements weighted, and averaged (or otherwise reduced) to one value a sample."""
        if sample_weight is not None:
            if sample_weight.ndim == 1 and loss.ndim > 1:  # (N,) weighs samples, whatever follows
                sample_weight = sample_weight.reshape((-1,) + (1,) * (loss.ndim - 1))
            loss = loss * sample_weight.astype(loss.dtype)
        if self.weight is not None and self.weight != 1:
            loss = loss * self.weight
        batch = self.batch_axis % loss.ndim if loss.ndim else 0
        others = tuple(i for i in range(loss.ndim) if i != batch)
        return reduce(loss, others) if others else loss

    def fitting(self, label: NDArray, pred: NDArray) -> NDArray:
        """The label in the dtype and shape of pred; only dimensions of size 1 may differ.

        Raises: ValueError for other shapes.
        """
        label = label.astype(pred.dtype)
        if label.shape == pred.shape:
            return label
        if _without_ones(label.shape) != _without_ones(pred.shape):
            raise self.misfit(label, pred, "the shape of pred")
        return label.reshape(pred.shape)

    def misfit(self, label: NDArray, pred: NDArray, wanted: str) -> ValueError:
        """The error for a label of another shape than `wanted`."""
        return ValueError(
            f"{title(self)} wants labels of {wanted}; got label {shape_text(label.shape)} for pred "
            f"{shape_text(pred.shape)} ({user_line()})"
        )

    def _describe(self) -> str:
        return f"batch_axis={self.batch_axis}, weight={self.weight}"


def _without_ones(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(size for size in shape if size != 1)


class L2Loss(Loss):
    """Half the mean square: mean((pred - label)^2) / 2 * weight.

    Shapes: pred (N, ...), label the same -> (N,).

    >>> from gluonish import nd, loss
    >>> loss.L2Loss()(nd.array([[1.0, 3.0]]), nd.array([[1.0, 1.0]])).tolist()
    [1.0]
    """

    def __init__(self, weight: float = 1.0, batch_axis: int = 0) -> None:
        super().__init__(weight, batch_axis)

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """See the class."""
        return self.finished(nd.square(pred - self.fitting(label, pred)) * 0.5, sample_weight)


class L1Loss(Loss):
    """The mean of |pred - label|. Shapes: pred (N, ...), label the same -> (N,)."""

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """See the class."""
        return self.finished(nd.abs(pred - self.fitting(label, pred)), sample_weight)


class HuberLoss(Loss):
    """|d| - rho / 2 where |d| > rho, else d^2 / (2 rho), for d = pred - label; the mean of it.

    Shapes: pred (N, ...), label the same -> (N,).
    """

    def __init__(self, rho: float = 1.0, weight: float | None = None, batch_axis: int = 0) -> None:
        super().__init__(weight, batch_axis)
        if not rho > 0:
            raise ValueError(f"HuberLoss: rho must be positive, got {rho!r} ({user_line()})")
        self.rho = rho

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """See the class."""
        size = nd.abs(pred - self.fitting(label, pred))
        loss = nd.where(size > self.rho, size - 0.5 * self.rho, nd.square(size) * (0.5 / self.rho))
        return self.finished(loss, sample_weight)


class SoftmaxCrossEntropyLoss(Loss):
    """-log of the probability that softmax(pred) gives to the label.

    axis: the classes. sparse_label: labels are class numbers (int, or float as Gluon has them); else distributions with
    the shape of pred. from_logits: pred holds log-probabilities already.

    Shapes: pred (N, ..., K), label (N, ...) or with sparse_label=False (N, ..., K) -> (N,).

    >>> from gluonish import nd, loss
    >>> value = loss.SoftmaxCrossEntropyLoss()(nd.zeros((2, 4)), nd.array([0, 3]))
    >>> [round(v, 4) for v in value.tolist()]
    [1.3863, 1.3863]

    Raises: IndexError naming position and value of a label outside 0 .. K-1; ValueError for labels of another shape.
    """

    def __init__(
        self,
        axis: int = -1,
        sparse_label: bool = True,
        from_logits: bool = False,
        weight: float | None = None,
        batch_axis: int = 0,
    ) -> None:
        super().__init__(weight, batch_axis)
        self.axis, self.sparse_label, self.from_logits = axis, sparse_label, from_logits

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """See the class."""
        label = self._class_numbers(label, pred) if self.sparse_label else self.fitting(label, pred)
        if not self.from_logits:
            pred = nd.log_softmax(pred, self.axis)
        if not self.sparse_label:
            return self.finished(-nd.sum(pred * label, self.axis, True), sample_weight)
        return self.finished(-nd.pick(pred, strict(label), self.axis, True), sample_weight)

    def reworded(self, error: Exception, args: tuple[Any, ...]) -> Exception:
        """Names the label that is no class."""
        if not isinstance(error, IndexError) or len(args) < 2:
            return error
        return index_error(error, title(self), "label", self._class_numbers(args[1], args[0]), args[0].shape[self.axis])

    def _class_numbers(self, label: NDArray, pred: NDArray) -> NDArray:
        axis = self.axis % pred.ndim
        wanted = tuple(size for i, size in enumerate(pred.shape) if i != axis)
        if label.ndim == pred.ndim and label.shape[axis] == 1:
            label = nd.squeeze(label, axis)
        if label.shape != wanted:
            hint = "; rows of probabilities need sparse_label=False" if label.shape == pred.shape else ""
            raise self.misfit(label, pred, f"shape {shape_text(wanted)}{hint}")
        return label


class SigmoidBinaryCrossEntropyLoss(Loss):
    """-(label log p + (1 - label) log(1 - p)) with p = sigmoid(pred), without overflow; the mean of it.

    from_sigmoid: pred holds p already. pos_weight multiplies the first term.

    Shapes: pred (N, ...), label the same -> (N,); pos_weight broadcasts with pred.
    """

    def __init__(self, from_sigmoid: bool = False, weight: float | None = None, batch_axis: int = 0) -> None:
        super().__init__(weight, batch_axis)
        self.from_sigmoid = from_sigmoid

    def forward(
        self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None, pos_weight: NDArray | None = None
    ) -> NDArray:
        """See the class."""
        label = self.fitting(label, pred)
        if self.from_sigmoid:
            yes, no = -nd.log(pred + _TINY), -nd.log(1 - pred + _TINY)
        else:
            yes, no = nd.softplus(-pred), nd.softplus(pred)
        if pos_weight is not None:
            yes = yes * pos_weight
        return self.finished(label * yes + (1 - label) * no, sample_weight)


class KLDivLoss(Loss):
    """The sum of label * (log(label) - pred) over a sample.

    pred holds log-probabilities, or scores with from_logits=False. A sum, unlike the other losses: the divergence of
    two distributions, and what MXNet 1.9 computes.

    Shapes: pred (N, ...), label the same -> (N,).
    """

    def __init__(
        self, from_logits: bool = True, axis: int = -1, weight: float | None = None, batch_axis: int = 0
    ) -> None:
        super().__init__(weight, batch_axis)
        self.from_logits, self.axis = from_logits, axis

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """See the class."""
        label = self.fitting(label, pred)
        if not self.from_logits:
            pred = nd.log_softmax(pred, self.axis)
        return self.finished(label * (nd.log(label + _TINY) - pred), sample_weight, nd.sum)


_TINY = 1e-12  # keeps log away from 0

SoftmaxCELoss = SoftmaxCrossEntropyLoss
SigmoidBCELoss = SigmoidBinaryCrossEntropyLoss
