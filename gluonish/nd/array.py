"""NDArray: data, shape, dtype and device, and optionally a gradient.

While a Block is traced, an NDArray holds a graph node instead of data and still knows its shape. The operators and most
methods are ops; `nd/ops/` puts them on the class, so that this file knows no op.

Results of slicing and reshaping share memory with their source, as in NumPy; every write bumps the version that the
sharers have in common, which is how the tape and compiled programs notice changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.nd import dispatch
from gluonish.nd.device import Device, checked, cpu
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.size import product

GRAD_REQS = ("write", "add", "null")
_backward: Any = None  # that of `autograd`, which needs this module


def set_backward(function: Any) -> None:
    """Told once by `autograd.py`."""
    global _backward
    _backward = function


class Gradient:
    """The gradient of one array: how it is to be stored, and its value, always the same NDArray once there is one."""

    __slots__ = ("request", "value", "fresh")

    def __init__(self, request: str) -> None:
        self.request = request
        self.value: NDArray | None = None
        self.fresh = False

    def receive(self, value: NDArray) -> None:
        """Takes the value of a backward: `write` replaces what was there, `add` adds to it."""
        self.become(self.value + value if self.request == "add" and self.value is not None else value)
        self.fresh = True

    def become(self, value: NDArray) -> None:
        """Takes over the memory of a value that nobody else has."""
        if self.value is None:
            self.value = value
        else:
            self.value._data = value._data
            self.value._version[0] += 1

    def present(self, owner: NDArray) -> NDArray:
        """The value; zeros until there is one."""
        if self.value is None:
            self.value = NDArray(np.zeros(owner.shape, owner.dtype))
        return self.value


class NDArray:
    """An n-dimensional array. Make one with `nd.array`, `nd.zeros`, ... or as the result of an op."""

    if TYPE_CHECKING:  # operators and methods that are ops: put here by nd/methods.py

        def __getattr__(self, name: str) -> Any: ...

        __add__: Any
        __radd__: Any
        __sub__: Any
        __rsub__: Any
        __mul__: Any
        __rmul__: Any
        __truediv__: Any
        __rtruediv__: Any
        __pow__: Any
        __neg__: Any
        __and__: Any
        __or__: Any
        __invert__: Any
        __matmul__: Any
        __lt__: Any
        __le__: Any
        __gt__: Any
        __ge__: Any
        __getitem__: Any

        def __eq__(self, other: object) -> Any: ...
        def __ne__(self, other: object) -> Any: ...

    __slots__ = ("_data", "_grad", "_entry", "_version", "__weakref__")
    __array_ufunc__ = None  # so that `numpy_array + ndarray` comes to us

    def __init__(self, data: Any) -> None:
        self._data = data
        self._grad: Gradient | None = None
        self._entry: Any = None
        self._version = [0]

    # --- what it is ------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[Any, ...]:
        """The dimensions; symbolic sizes while tracing."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of an element."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._data.shape)

    @property
    def size(self) -> Any:
        """The number of elements."""
        return product(self._data.shape)

    @property
    def device(self) -> Device:
        """Where the data lives."""
        return cpu()

    ctx = context = device

    @property
    def spec(self) -> Any:
        """Shape and dtype together."""
        from gluonish.nd.op import Spec

        return Spec(self._data.shape, self._data.dtype)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"len() of an array without dimensions ({user_line()})")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[NDArray]:
        return (self[i] for i in range(len(self)))

    # --- values ------------------------------------------------------------------------------------------------------
    def _values(self, asked: str) -> np.ndarray:
        data = self._data
        if not isinstance(data, np.ndarray):
            raise data.no_value(asked)
        if dispatch.state.trace is not None:
            dispatch.state.trace.note_values(self)
        return data

    def asnumpy(self) -> np.ndarray:
        """A NumPy copy of the values."""
        return self._values("asnumpy()").copy()

    numpy = asnumpy

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = self._values("numpy.asarray()")
        if copy is False:
            raise ValueError(f"an array is copied to NumPy, never shared ({user_line()})")
        return data.astype(dtype) if dtype is not None and data.dtype != dtype else data.copy()

    def item(self) -> Any:
        """The only value of a one-element array, as a Python number.

        Raises: ValueError if there is not exactly one.
        """
        data = self._values("item()")
        if data.size != 1:
            raise ValueError(f"item() needs one element, got shape {shape_text(self.shape)} ({user_line()})")
        return data.item()

    asscalar = item

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return self._values("tolist()").tolist()

    def __bool__(self) -> bool:
        self._values("bool() or `if`")
        return bool(self.item())

    def __int__(self) -> int:
        self._values("int()")
        return int(self.item())

    def __float__(self) -> float:
        self._values("float()")
        return float(self.item())

    def __index__(self) -> int:
        data = self._values("an index")
        if data.dtype.kind not in "iu" or data.size != 1:
            raise TypeError(f"only an integer array of one element can be an index, got {self.spec} ({user_line()})")
        return int(data.item())

    def __contains__(self, value: Any) -> bool:
        return bool((self._values("`in`") == (value._data if isinstance(value, NDArray) else value)).any())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        data = self._data
        if not isinstance(data, np.ndarray):
            op, line = getattr(data, "op", None), getattr(data, "line", "")
            made = f", {op.name} at {line}" if op is not None and line else ""
            return f"<traced {shape_text(data.shape)} {data.dtype}{made}: no values while tracing, use gl.print>"
        text = np.array2string(data, separator=", ", threshold=200, prefix="array(")
        return f"array({text}, shape={data.shape}, dtype={data.dtype})"

    # --- gradients ---------------------------------------------------------------------------------------------------
    def attach_grad(self, grad_req: str = "write") -> None:
        """Asks `backward` for this array's gradient: "write" replaces it each time, "add" accumulates, "null" forgets.

        Cuts the array off from what it was computed from, as in Gluon.
        """
        if grad_req not in GRAD_REQS:
            raise ValueError(f"grad_req must be one of {GRAD_REQS}, got {grad_req!r} ({user_line()})")
        if grad_req != "null" and not is_float(self.dtype):
            raise TypeError(f"only floating-point arrays have gradients, this one is {self.dtype} ({user_line()})")
        self._entry = None
        if grad_req == "null":
            self._grad = None
        elif self._grad is None or dispatch.state.trace is not None:
            self._grad = Gradient(grad_req)
        else:
            self._grad.request = grad_req
            self.zero_grad()

    @property
    def grad(self) -> NDArray | None:
        """The gradient, always the same array: zeros until a backward has given one. None without `attach_grad`."""
        if self._grad is None:
            return None
        trace = dispatch.state.trace
        return self._grad.present(self) if trace is None else trace.gradient(self)

    @grad.setter
    def grad(self, value: NDArray) -> None:  # so that `x.grad *= 2` works
        if self._grad is None or not isinstance(value, NDArray) or value.spec != self.spec:
            got = value.spec if isinstance(value, NDArray) else type(value).__name__
            raise ValueError(f"the gradient of an array {self.spec} with attach_grad(), not {got} ({user_line()})")
        self._refuse_in_trace("assigning to .grad")
        if value is not self._grad.value:
            self._grad.become(NDArray(value._data.copy()))

    @property
    def grad_req(self) -> str:
        """How the gradient is stored: "write", "add" or "null"."""
        return "null" if self._grad is None else self._grad.request

    def zero_grad(self) -> None:
        """Sets the gradient to zero."""
        self._refuse_in_trace("zero_grad()")
        if self._grad is not None:
            if self._grad.value is not None:
                self._grad.become(NDArray(np.zeros(self.shape, self.dtype)))
            self._grad.fresh = False

    def _refuse_in_trace(self, what: str) -> None:
        trace = dispatch.state.trace
        if trace is not None:
            trace.refuse_change(self, what)

    def backward(self, out_grad: NDArray | None = None, retain_graph: bool = False, train_mode: bool = True) -> None:
        """`autograd.backward` from this array; ones are the head gradient if none is given."""
        _backward(self, out_grad, retain_graph)

    def detach(self) -> NDArray:
        """The same values, cut off from the tape."""
        trace = dispatch.state.trace  # which follows this array, not the memory it has now
        out = NDArray((self if trace is None else trace.capture(self))._data)
        out._version = self._version
        return out

    # --- writing -----------------------------------------------------------------------------------------------------
    def __setitem__(self, key: Any, value: Any) -> None:
        trace = dispatch.state.trace
        if trace is not None:
            trace.assign(self, key, value)
            return
        if self._entry is not None or (self._grad is not None and dispatch.state.recording):
            raise ValueError(
                f"cannot assign to an array that is on the tape (shape {shape_text(self.shape)}); use nd.where or "
                f"assign outside autograd.record() ({user_line()})"
            )
        if isinstance(value, NDArray):
            if dispatch.state.recording and (value._entry is not None or value._grad is not None):
                raise ValueError(
                    f"assigning a value that needs a gradient would lose it (shape {shape_text(value.shape)}); use "
                    f"nd.where or nd.concat, or assign value.detach() ({user_line()})"
                )
            value = value._values("assignment")
        try:
            self._data[_plain_key(key)] = value
        except dispatch.ERRORS as error:
            kind = next(k for k in dispatch.ERRORS if isinstance(error, k))
            raise kind(f"assignment: {error} ({user_line()})") from None
        self._version[0] += 1

    def copyto(self, other: NDArray) -> NDArray:
        """Writes the values into `other` and returns it."""
        other[:] = self
        return other

    def to_device(self, device: Device) -> NDArray:
        """The array on that device; itself if it is there already."""
        checked(device)
        return self

    as_in_context = as_in_ctx = to_device

    def wait_to_read(self) -> None:
        """Returns at once: eager results are ready when an op returns (kept for Gluon programs)."""

    def __reduce__(self) -> Any:
        raise TypeError("NDArrays are not pickled: use nd.save and nd.load, or asnumpy()")

    def __deepcopy__(self, memo: Any) -> NDArray:
        out = NDArray(self.asnumpy())
        if self._grad is not None:
            out.attach_grad(self._grad.request)
        return out


def _plain_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_plain_key(k) for k in key)
    return key._values("an index") if isinstance(key, NDArray) else key


dispatch.set_array_type(NDArray)
