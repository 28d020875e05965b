"""Reverse-mode differentiation over the tape.

`record()` notes ops; `backward` walks the entries from the last to the first and applies each op's vjp rule, itself
written with ops: under `create_graph` the walk is recorded too, and while tracing it becomes part of the graph.
The undoing of broadcasting happens here, once for all ops.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.size import same_shape


@contextmanager
def _mode(recording: bool | None, training: bool | None) -> Iterator[None]:
    before = state.recording, state.training
    state.recording = before[0] if recording is None else recording
    state.training = before[1] if training is None else training
    try:
        yield
    finally:
        state.recording, state.training = before


def record(train_mode: bool = True) -> Any:
    """Within it ops on arrays that need gradients go on the tape, and layers are in train mode unless told otherwise.

    >>> from gluonish import nd, autograd
    >>> x = nd.array([1.0, 2.0]); x.attach_grad()
    >>> with autograd.record():
    ...     y = (x * x).sum()
    >>> y.backward(); x.grad.tolist()
    [2.0, 4.0]
    """
    return _mode(True, train_mode)


def pause(train_mode: bool = False) -> Any:
    """Within it nothing is recorded."""
    return _mode(False, train_mode)


def train_mode() -> Any:
    """Within it layers behave as in training (dropout drops, batch norm uses the batch); recording is left as it is."""
    return _mode(None, True)


def predict_mode() -> Any:
    """Within it layers behave as in prediction; recording is left as it is."""
    return _mode(None, False)


def is_recording() -> bool:
    """Whether ops go on the tape now."""
    return state.recording


def is_training() -> bool:
    """Whether layers are in train mode now."""
    return state.training


def backward(heads: NDArray | Sequence[NDArray], head_grads: Any = None, retain_graph: bool = False) -> None:
    """Puts into `x.grad` the gradient of the heads (each weighted by its head gradient, ones by default) for every
    array with `attach_grad()` that they were computed from.

    Raises: ValueError if a head was not computed under `record()`, if a head gradient has another shape, or if an
    array was changed in place after it was recorded.
    """
    heads = [heads] if isinstance(heads, NDArray) else list(heads)
    if head_grads is None or isinstance(head_grads, NDArray):
        head_grads = [head_grads] * len(heads)
    with pause(state.training):
        for array, value in _leaf_gradients(heads, head_grads):
            array._grad.receive(value)


def grad(
    heads: NDArray | Sequence[NDArray],
    variables: NDArray | Sequence[NDArray],
    head_grads: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """The gradients of the heads with respect to `variables`, returned instead of stored.

    With `create_graph` they are recorded, so that they can be differentiated again. Variables need `attach_grad()`.
    """
    single = isinstance(variables, NDArray)
    wanted = [variables] if isinstance(variables, NDArray) else list(variables)
    heads = [heads] if isinstance(heads, NDArray) else list(heads)
    if head_grads is None or isinstance(head_grads, NDArray):
        head_grads = [head_grads] * len(heads)
    with _mode(create_graph, state.training):
        found = {id(array): value for array, value in _leaf_gradients(heads, head_grads)}
        out = [found[id(v)] if id(v) in found else _zeros_like(v) for v in wanted]
    return out[0] if single else out


def _leaf_gradients(heads: Sequence[NDArray], head_grads: Sequence[Any]) -> list[tuple[NDArray, NDArray]]:
    walk = Walk()
    for head, seed in zip(heads, head_grads, strict=True):
        if head._entry is None and head._grad is None:
            raise ValueError(
                f"backward: this array of shape {shape_text(head.shape)} was not computed under autograd.record() "
                f"from an array with attach_grad(); wrap the computation in `with autograd.record():` ({user_line()})"
            )
        if seed is not None and not same_shape(seed.shape, head.shape):
            raise ValueError(
                f"backward: the head gradient has shape {shape_text(seed.shape)}, the head {shape_text(head.shape)} "
                f"({user_line()})"
            )
        walk.give(head, _ones_like(head) if seed is None else seed)
    return walk.run()


class Walk:
    """One walk over the tape, from the heads down to the leaves."""

    def __init__(self) -> None:
        self.pending: dict[int, tuple[Any, dict[int, NDArray]]] = {}  # order -> entry, gradients by output index
        self.queue: list[int] = []
        self.leaves: dict[int, tuple[NDArray, NDArray]] = {}

    def give(self, array: NDArray, value: NDArray) -> None:
        """Adds `value` to the gradient of `array`."""
        if not same_shape(value.shape, array.shape):
            value = value.sum_to(array.shape)
        if value.dtype != array.dtype:
            value = value.astype(array.dtype)
        if array._entry is None:
            if array._grad is not None:
                seen = self.leaves.get(id(array))
                self.leaves[id(array)] = (array, value if seen is None else seen[1] + value)
            return
        number, index = array._entry[0], array._entry[6]
        if number not in self.pending:
            self.pending[number] = (array._entry, {})
            heapq.heappush(self.queue, -number)
        grads = self.pending[number][1]
        grads[index] = grads[index] + value if index in grads else value

    def run(self) -> list[tuple[NDArray, NDArray]]:
        """Visits every entry once, latest first; gives the leaves with their gradients."""
        while self.queue:
            entry, grads = self.pending.pop(-heapq.heappop(self.queue))
            self._visit(entry, grads)
        return list(self.leaves.values())

    def _visit(self, entry: Any, grads: dict[int, NDArray]) -> None:
        _, op, inputs, attrs, data, versions, index = entry
        if sum(x._version[0] for x in inputs if isinstance(x, NDArray)) != versions:
            raise ValueError(
                f"backward: an input of {op.name} was changed in place after it was recorded, so its gradient would "
                f"be wrong; copy it first, or change it after backward() ({user_line()})"
            )
        wanted = [isinstance(x, NDArray) and (x._entry is not None or x._grad is not None) for x in inputs]
        if hasattr(op, "gradients"):  # a compiled function: several outputs, all inputs' gradients at once
            for x, value in zip(inputs, op.gradients(grads, inputs, attrs, wanted)):
                if value is not None:
                    self.give(x, value)
            return
        out = NDArray(data)
        out._entry = entry
        for position, x in enumerate(inputs):
            if wanted[position]:
                value = op.gradient(position, grads[index], out, inputs, attrs)
                if value is not None:
                    self.give(x, value)


def _ones_like(array: NDArray) -> NDArray:
    from gluonish.nd.create import ones

    return ones(array.shape, dtype=array.dtype)


def _zeros_like(array: NDArray) -> NDArray:
    from gluonish.nd.create import zeros

    return zeros(array.shape, dtype=array.dtype)
