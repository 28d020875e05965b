"""Operators and methods of NDArray that are ops: put on the class here, so that `array.py` knows no op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.nd import dispatch, functions, indexing, sequences
from gluonish.nd.array import NDArray
from gluonish.nd.create import as_dtype
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.op import BOOL, FLOAT, Op
from gluonish.nd.ops import elementwise as e

_bind = dispatch.bind
_bind_pair = dispatch.bind_pair
_NUMBERS = (bool, int, float)


def _operand(value: Any) -> bool:
    return isinstance(value, (NDArray, np.ndarray, np.generic, *_NUMBERS)) or hasattr(value, "hint")


def _binary(op: Op, reverse: bool = False) -> Callable[[Any, Any], Any]:
    def forwards(self: NDArray, other: Any) -> Any:
        try:
            if self._data.dtype is FLOAT and other._data.dtype is FLOAT:  # the common case: nothing to convert
                return _bind_pair(op, self, other)
        except AttributeError:
            if not _operand(other):
                return NotImplemented
        return op(self, other)

    def backwards(self: NDArray, other: Any) -> Any:
        return op(other, self) if _operand(other) else NotImplemented

    return backwards if reverse else forwards


def _logical(op: Op, sign: str, reverse: bool = False) -> Callable[[Any, Any], Any]:
    def operator(self: NDArray, other: Any) -> Any:
        if not _operand(other):
            return NotImplemented
        other = dispatch.as_array(other)
        if self.dtype != BOOL or other.dtype != BOOL:
            raise TypeError(
                f"`{sign}` is for bool arrays, got {self.dtype} and {other.dtype}; use nd.{op.name} to ask whether "
                f"numbers are nonzero ({user_line()})"
            )
        return op(other, self) if reverse else op(self, other)

    return operator


def _invert(self: NDArray) -> NDArray:
    if self.dtype != BOOL:
        raise TypeError(f"`~` is for bool arrays, got {self.dtype}; use nd.logical_not ({user_line()})")
    return e.logical_not(self)


def _in_place(op: Op) -> Callable[[NDArray, Any], NDArray]:
    def update(self: NDArray, other: Any) -> NDArray:
        if not _operand(other):
            return NotImplemented
        if self._grad is not None and dispatch.state.recording:
            raise ValueError(
                f"an array with attach_grad() cannot be changed in place under record(), shape "
                f"{shape_text(self.shape)}; write `x = x + ...` for a new array ({user_line()})"
            )
        result = op(self, other)
        if result._entry is not None:
            return result  # on the tape: a new array under the old name
        if result.shape != self.shape or not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise ValueError(
                f"in-place {op.name}: the result {result.spec} does not fit the array {self.spec} ({user_line()})"
            )
        self[:] = result
        return self

    return update


_OPERATORS = {
    "add": e.add,
    "sub": e.subtract,
    "mul": e.multiply,
    "truediv": e.divide,
    "floordiv": e.floor_divide,
    "mod": e.remainder,
    "pow": e.power,
}
_LOGICAL = {"and": (e.logical_and, "&"), "or": (e.logical_or, "|"), "xor": (e.logical_xor, "^")}
_COMPARISONS = {
    "eq": e.equal,
    "ne": e.not_equal,
    "lt": e.less,
    "le": e.less_equal,
    "gt": e.greater,
    "ge": e.greater_equal,
}


def _attach() -> None:
    for name, op in _OPERATORS.items():
        setattr(NDArray, f"__{name}__", _binary(op))
        setattr(NDArray, f"__r{name}__", _binary(op, reverse=True))
        setattr(NDArray, f"__i{name}__", _in_place(op))
    for name, (op, sign) in _LOGICAL.items():
        setattr(NDArray, f"__{name}__", _logical(op, sign))
        setattr(NDArray, f"__r{name}__", _logical(op, sign, reverse=True))
    for name, op in _COMPARISONS.items():
        setattr(NDArray, f"__{name}__", _binary(op))
    for name in _METHODS:
        setattr(NDArray, name, getattr(functions, name))
    for name in ("exp", "log", "sqrt", "abs", "relu", "sigmoid", "tanh", "square", "round", "floor", "ceil", "sign"):
        setattr(NDArray, name, _method(e.__dict__[name]))
    for name, value in _OTHERS.items():
        setattr(NDArray, name, value)


def _method(op: Op) -> Callable[[NDArray], NDArray]:
    def method(self: NDArray) -> NDArray:
        return op(self)

    method.__name__ = op.name
    method.__doc__ = op.doc
    return method


_METHODS = (
    "reshape",
    "flatten",
    "swapaxes",
    "expand_dims",
    "squeeze",
    "broadcast_to",
    "flip",
    "split",
    "repeat",
    "tile",
    "sum",
    "prod",
    "max",
    "min",
    "mean",
    "var",
    "std",
    "any",
    "all",
    "argmax",
    "argmin",
    "sum_to",
    "dot",
    "clip",
    "softmax",
    "log_softmax",
    "norm",
)


def astype(x: NDArray, dtype: Any, copy: bool = False) -> NDArray:
    """The same values in another dtype; x itself if it has that dtype already (unless `copy`)."""
    target = as_dtype(dtype)
    return _bind(e.cast, (x,), {"dtype": target}) if copy or target != x.dtype else x


def copy(x: NDArray) -> NDArray:
    """An array of its own with the same values; a gradient flows through."""
    return _bind(e.cast, (x,), {"dtype": x.dtype})


_OTHERS: dict[str, Any] = {
    "__neg__": lambda self: e.negative(self),
    "__pos__": lambda self: self,
    "__abs__": lambda self: e.abs(self),
    "__invert__": _invert,
    "__matmul__": lambda self, other: functions.matmul(self, other) if _operand(other) else NotImplemented,
    "__rmatmul__": lambda self, other: functions.matmul(other, self) if _operand(other) else NotImplemented,
    "__getitem__": indexing.getitem,
    "__hash__": object.__hash__,
    "transpose": functions.permute_dims,
    "T": property(functions.permute_dims),
    "astype": astype,
    "copy": copy,
    "take": indexing.take,
    "pick": indexing.pick,
    "nonzero": indexing.nonzero,
    "cumsum": sequences.cumulative_sum,
    "cumprod": sequences.cumulative_prod,
    "sort": sequences.sort,
    "argsort": sequences.argsort,
    "topk": sequences.topk,
    "roll": sequences.roll,
}

_attach()
