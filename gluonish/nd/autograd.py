"""Reverse-mode differentiation over the tape.

`record()` notes ops; `backward` walks the entries from the last to the first and applies each op's vjp rule, itself
written with ops: under `create_graph` the walk is recorded too, and while tracing it becomes part of the graph.
The undoing of broadcasting happens here, once for all ops.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from gluonish.nd.array import NDArray, set_backward
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.size import same_shape


class _mode:
    """Sets recording and training (None: as they are) and puts them back at the end."""

    __slots__ = ("recording", "training", "before")

    def __init__(self, recording: bool | None, training: bool | None) -> None:
        self.recording = recording
        self.training = training

    def __enter__(self) -> None:
        self.before = state.recording, state.training
        if self.recording is not None:
            state.recording = self.recording
        if self.training is not None:
            state.training = self.training

    def __exit__(self, *error: Any) -> None:
        state.recording, state.training = self.before


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

    The gradients are arrays of their own: changing one in place changes no other array.

    Raises: ValueError if a head was not computed under `record()`, if a head gradient has another shape, or if an
    array was changed in place after it was recorded.
    """
    walk = Walk()
    recording, state.recording = state.recording, False
    try:
        seeds = walk.start(heads, head_grads)
        leaves = walk.run()
        for array, value in leaves if walk.separate else _unshared(leaves, seeds):
            array._grad.receive(value)  # type: ignore[union-attr]  # leaves are arrays with attach_grad
    finally:
        state.recording = recording


def grad(
    heads: NDArray | Sequence[NDArray],
    variables: NDArray | Sequence[NDArray],
    head_grads: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """The gradients of the heads with respect to `variables`, returned instead of stored.

    Variables are arrays with `attach_grad()` or computed from such under `record()`; the gradient of one that the heads
    do not depend on is zero. With `create_graph` the gradients are recorded, so that they can be differentiated again.

    Raises: ValueError for a variable that no gradient can reach, and what `backward` raises.
    """
    wanted = [variables] if isinstance(variables, NDArray) else list(variables)
    if state.trace is not None:
        wanted = [state.trace.capture(v) for v in wanted]
    for v in wanted:
        if v._entry is None and v._grad is None:
            raise ValueError(
                f"grad: the variable of shape {shape_text(v.shape)} has no attach_grad() and was not computed under "
                f"autograd.record() from an array that has it ({user_line()})"
            )
    walk = Walk({v._entry[0] for v in wanted if v._entry is not None})
    with _mode(create_graph, state.training):
        seeds = walk.start(heads, head_grads)
        walk.run()
        found = _unshared([(v, walk.found(v)) for v in wanted], seeds)
        out = [_zeros_like(v) if value is None else value for v, value in found]
    return out[0] if isinstance(variables, NDArray) else out


def _unshared(pairs: list[tuple[NDArray, Any]], seeds: Sequence[Any]) -> list[tuple[NDArray, Any]]:
    """Copies gradients that share memory with one another or with a head gradient, or that cannot be written.

    Not under `create_graph`: there a copy would not be the head gradient that a further walk may start from.
    """
    if state.recording:
        return pairs
    taken = {id(seed._version) for seed in seeds if seed is not None}
    out = []
    for array, value in pairs:
        if value is not None and isinstance(value._data, np.ndarray):
            if id(value._version) in taken or not value._data.flags.writeable:
                value = NDArray(value._data.copy())
            taken.add(id(value._version))
        out.append((array, value))
    return out


class Walk:
    """One walk over the tape, from the heads down to the leaves."""

    def __init__(self, kept: Container[int] = ()) -> None:
        self.pending: dict[int, tuple[Any, dict[int, NDArray]]] = {}  # order -> entry, gradients by output index
        self.queue: list[int] = []
        self.leaves: dict[int, tuple[NDArray, NDArray]] = {}
        self.kept = kept  # orders of the entries whose gradients are wanted too
        self.visited: dict[int, dict[int, NDArray]] = {}
        self.separate = True  # every gradient has memory of its own: what compiled calls give always has

    def start(self, heads: NDArray | Sequence[NDArray], head_grads: Any) -> Sequence[Any]:
        """Gives the heads their gradients, ones where there is none; returns the head gradients given."""
        heads = (heads,) if isinstance(heads, NDArray) else list(heads)
        if state.trace is not None and not self.kept:  # what is asked for by name must stay on the tape
            state.trace.before_backward(list(heads))
        if head_grads is None or isinstance(head_grads, NDArray):
            head_grads = [head_grads] * len(heads)
        if len(head_grads) != len(heads):
            raise ValueError(f"backward: {len(heads)} heads but {len(head_grads)} head gradients ({user_line()})")
        for head, seed in zip(heads, head_grads):
            _check_head(head, seed)
            if head._entry is None:
                self.separate = False  # the head gradient is the gradient itself
            if seed is None:
                self.add(head, _ones_like(head))
            else:
                self.give(head, seed)
        return head_grads

    def found(self, array: NDArray) -> NDArray | None:
        """The gradient of an array after the walk; None if the heads do not depend on it."""
        if array._entry is not None:
            return self.visited.get(array._entry[0], {}).get(array._entry[6])
        leaf = self.leaves.get(id(array))
        return None if leaf is None else leaf[1]

    def give(self, array: NDArray, value: NDArray) -> None:
        """Adds `value` to the gradient of `array`."""
        data, other = value._data, array._data
        eager = type(data) is np.ndarray and type(other) is np.ndarray
        if data.shape != other.shape if eager else not same_shape(data.shape, other.shape):
            value = value.sum_to(other.shape)
        if data.dtype is not other.dtype and data.dtype != other.dtype:
            value = value.astype(other.dtype)
        self.add(array, value)

    def add(self, array: NDArray, value: NDArray) -> None:
        """`give` for a value that has the array's shape and dtype."""
        entry = array._entry
        if entry is None:
            if array._grad is not None:
                seen = self.leaves.get(id(array))
                self.leaves[id(array)] = (array, value if seen is None else seen[1] + value)
            return
        waiting = self.pending.get(entry[0])
        if waiting is None:
            self.pending[entry[0]] = entry, {entry[6]: value}
            heappush(self.queue, -entry[0])
        else:
            grads, index = waiting[1], entry[6]
            grads[index] = grads[index] + value if index in grads else value

    def run(self) -> list[tuple[NDArray, NDArray]]:
        """Visits every entry once, latest first; gives the leaves with their gradients."""
        while self.queue:
            entry, grads = self.pending.pop(-heappop(self.queue))
            if entry[0] in self.kept:
                self.visited[entry[0]] = grads
            self._visit(entry, grads)
        return list(self.leaves.values())

    def _visit(self, entry: Any, grads: dict[int, NDArray]) -> None:
        _, op, inputs, attrs, saved, versions, index = entry
        now = 0
        if saved is None:  # a compiled function: several outputs, all inputs' gradients at once
            for x in inputs:
                now += x._version[0]
            if now != versions:
                raise _changed(op)
            for x, value in op.gradients(grads, inputs):
                self.add(x, value)
            return
        self.separate = False
        for x in inputs:
            if isinstance(x, NDArray):
                now += x._version[0]
        if now + saved[1][0] != versions:
            raise _changed(op)
        wanted = [isinstance(x, NDArray) and (x._entry is not None or x._grad is not None) for x in inputs]
        out = NDArray(saved[0])
        out._version, out._entry = saved[1], entry
        trace = state.trace
        if trace is not None:
            trace.cause = out
        for position, x in enumerate(inputs):
            if wanted[position]:
                value = op.gradient(position, grads[index], out, inputs, attrs)
                if value is not None:
                    self.give(x, value)
        if trace is not None:
            trace.cause = None


def _changed(op: Any) -> ValueError:
    return ValueError(
        f"backward: an input or the output of {op.name} was changed in place after it was recorded, so its gradient "
        f"would be wrong; copy it first, or change it after backward() ({user_line()})"
    )


def _check_head(head: NDArray, seed: Any) -> None:
    if head._entry is None and head._grad is None:
        raise ValueError(
            f"backward: this array of shape {shape_text(head.shape)} was not computed under autograd.record() "
            f"from an array with attach_grad(); wrap the computation in `with autograd.record():` ({user_line()})"
        )
    if not is_float(head._data.dtype):
        raise TypeError(f"backward: the head is {head.dtype}, only floating-point have gradients ({user_line()})")
    if seed is not None and tuple(seed.shape) != tuple(head.shape):  # in a trace this may become a guard
        raise ValueError(
            f"backward: the head gradient has shape {shape_text(seed.shape)}, the head {shape_text(head.shape)} "
            f"({user_line()})"
        )


_ones: dict[Any, np.ndarray] = {}  # small head gradients, used again


def _ones_like(array: NDArray) -> NDArray:
    if state.trace is None:
        shape, dtype = array._data.shape, array._data.dtype
        found = _ones.get((shape, dtype))
        if found is None:
            found = np.ones(shape, dtype)
            found.flags.writeable = False  # never written: gradients that share it are copied
            if found.size <= 4096 and len(_ones) < 64:
                _ones[shape, dtype] = found
        return NDArray(found)
    from gluonish.nd.create import ones

    return ones(array.shape, dtype=array.dtype)


def _zeros_like(array: NDArray) -> NDArray:
    from gluonish.nd.create import zeros

    return zeros(array.shape, dtype=array.dtype)


set_backward(backward)
