"""Parameter: a named NDArray that a Block trains; its shape may be unknown until the first batch.

A Parameter is an array everywhere an array is expected. Until it has values, whatever asks for them gets the
NotInitialized error with the Parameter's name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.block import attributes
from gluonish.block.abstract import AbstractTrace
from gluonish.block.first_values import FirstValues
from gluonish.block.initializer import create
from gluonish.nd import Device, NDArray
from gluonish.nd.array import GRAD_REQS, Gradient
from gluonish.nd.create import as_dtype
from gluonish.nd.device import checked
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line


class NotInitialized(RuntimeError):
    """A Parameter was used before it had values."""


class Parameter(NDArray):
    """A trainable array of a Block. Assign it to an attribute: `self.weight = gl.Parameter("weight", shape=(10, 0))`.

    name: a name for errors until the Block's `collect_params` gives the attribute path.
    grad_req: "write", "add" or "null" (frozen: no gradient, no update).
    shape: dimensions; 0, -1 and None are unknown until `resolve` tells them.
    lr_mult, wd_mult: factors on the Trainer's learning rate and weight decay.
    init: its own initializer (object or name); without one, that of `initialize`.
    differentiable: False for an array that is saved with the Block but never trained (running statistics).

    >>> import gluonish as gl
    >>> p = gl.Parameter("weight", shape=(2, 3)); p.initialize("ones"); p.sum().item()
    6.0
    """

    __slots__ = (
        "_name", "_shape", "_dtype", "_ready", "_pending", "_request", "init", "lr_mult", "wd_mult", "differentiable",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "weight",
        grad_req: str = "write",
        shape: Any = None,
        dtype: Any = "float32",
        lr_mult: float = 1.0,
        wd_mult: float = 1.0,
        init: Any = None,
        allow_deferred_init: bool = True,
        differentiable: bool = True,
    ) -> None:
        self._grad = self._entry = None
        self._version = [0]
        self._name = name
        self._shape = _known(shape)
        self._dtype = as_dtype(dtype)
        self._ready = False
        self._pending: FirstValues | None = None
        self.init = create(init) if init is not None else None
        self.lr_mult, self.wd_mult = lr_mult, wd_mult
        self.differentiable = differentiable
        self.grad_req = grad_req

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name[0] != "_":
            attributes.wrote(self, name)

    def __getattr__(self, name: str) -> Any:
        if name != "_data":  # only `_data` is ever missing: it stays unset until there are values
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if isinstance(state.trace, AbstractTrace) and self._is_known():
            return state.trace.data(self._shape, self._dtype)
        raise self._not_initialized()

    def _not_initialized(self) -> NotInitialized:
        if self._is_known() or (self._pending is None and not isinstance(state.trace, AbstractTrace)):
            what = "has no values yet: call net.initialize() or net.load_parameters(path) first"
        else:
            what = (
                f"is waiting for its shape, known so far: {_shape_text(self._shape)}; run the net on a batch, or give "
                f"the layer its input size (in a forward of your own, call the Parameter's resolve(shape) first)"
            )
        return NotInitialized(f"Parameter {self.name!r} {what} ({user_line()})")

    # --- what it is ------------------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """The attribute path in the Block whose parameters were last collected, such as `features.0.weight`."""
        return self._name

    @property
    def shape(self) -> Any:
        """The dimensions, 0 where still unknown; None if even their number is unknown."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of an element."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions. Raises: NotInitialized while it is unknown."""
        if self._shape is None:
            raise self._not_initialized()
        return len(self._shape)

    def rename(self, path: str) -> None:
        """Takes the name that a Block collected it under, unless it has one from further up the tree."""
        if path.count(".") >= self._name.count("."):
            self._name = path

    @property
    def initialized(self) -> bool:
        """Whether it has values."""
        return self._ready

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self._name} (shape={_shape_text(self._shape)}, dtype={self._dtype})"

    # --- gradients -------------------------------------------------------------------------------------------------
    @property
    def grad_req(self) -> str:
        """A backward replaces the gradient ("write") or adds to it ("add"); "null": frozen, no gradient, no update."""
        attributes.note(self, "_request")
        return self._request if self.differentiable and is_float(self._dtype) else "null"

    @grad_req.setter
    def grad_req(self, request: str) -> None:
        if request not in GRAD_REQS:
            raise ValueError(f"grad_req of {self._name!r} must be one of {GRAD_REQS}, got {request!r} ({user_line()})")
        self._request = request
        if self._ready:
            self._attach()

    @property
    def frozen(self) -> bool:
        """Whether grad_req was set to "null", also for a Parameter that never has a gradient."""
        attributes.note(self, "_request")
        return self._request == "null"

    def attach_grad(self, grad_req: str = "write") -> None:
        """The same as setting `grad_req`."""
        self.grad_req = grad_req

    def _attach(self) -> None:
        request = self.grad_req
        if request == "null":
            self._grad = None
        elif self._grad is None:
            self._grad = Gradient(request)
        else:
            self._grad.request = request

    # --- values ----------------------------------------------------------------------------------------------------
    def initialize(
        self, init: Any = None, device: Device | None = None, force_reinit: bool = False, ctx: Device | None = None
    ) -> None:
        """Gives it values: by `init`, else its own initializer, else Uniform(0.07); once its shape is known.

        Does nothing if it has values already, unless `force_reinit`.
        Raises: ValueError for an unknown initializer, TypeError or ValueError for a device that is not there.
        """
        checked(device or ctx)
        if self._ready and not force_reinit:
            return
        own = self.init if self.init is not None else "uniform"
        self._pending = FirstValues(create(own if init is None else init))
        if self._is_known():
            self._make()

    def resolve(self, shape: tuple[Any, ...]) -> Parameter:
        """Itself, after its unknown dimensions were taken from `shape`: for use in `forward`.

        `weight = self.weight.resolve((self.units, x.shape[-1]))`. Sizes of traced arrays become plain numbers here.
        Raises: ValueError if a known dimension differs; NotInitialized before `initialize`.
        """
        if self._ready and shape == self._shape:
            return self
        if not self.fits(shape):
            raise ValueError(
                f"Parameter {self._name!r} has shape {_shape_text(self._shape)}, which does not fit "
                f"{shape_text(shape)} ({user_line()})"
            )
        if not self._ready:
            if self._pending is None and not isinstance(state.trace, AbstractTrace):
                raise self._not_initialized()
            self._shape = tuple(int(s) for s in shape)
            if not isinstance(state.trace, AbstractTrace):
                self._make()
        return self

    def settle(self) -> None:
        """Runs a waiting initializer if the shape is known by now."""
        if self._pending is not None and self._is_known():
            self._make()

    def fits(self, shape: tuple[Any, ...]) -> bool:
        """Whether every known dimension equals that of `shape`."""
        own = self._shape
        if self._ready:
            return own == tuple(shape)
        return own is None or (len(own) == len(shape) and all(s == 0 or s == t for s, t in zip(own, shape)))

    def _is_known(self) -> bool:
        return self._shape is not None and 0 not in self._shape

    def _make(self) -> None:
        """Takes the values that waited for the shape."""
        assert self._pending is not None and self._shape is not None
        self.take(self._pending.make(self._name, self._shape, self._dtype))

    def take(self, values: np.ndarray) -> None:
        """Takes values that fit: into the memory it has if possible, so that whoever holds that sees them."""
        if self._ready and self._shape == values.shape and self._dtype == values.dtype:
            np.copyto(self._data, values)
        else:
            self._data = np.ascontiguousarray(values).reshape(values.shape)
            self._shape, self._dtype = values.shape, values.dtype
            self._ready = True
            self._attach()
        self._pending = None
        self._version[0] += 1
        attributes.changed()

    def data(self, device: Device | None = None, ctx: Device | None = None) -> Parameter:
        """Itself, for Gluon programs. Raises: NotInitialized."""
        checked(device or ctx)
        if not self._ready and not isinstance(state.trace, AbstractTrace):
            raise self._not_initialized()
        return self

    def set_data(self, data: Any) -> None:
        """Replaces the values; a Parameter without values takes them as its own.

        Raises: ValueError if the shape does not fit.
        """
        if state.trace is not None:
            self[:] = data
            return
        values = data.asnumpy() if isinstance(data, NDArray) else np.array(data)
        if not self.fits(values.shape):
            raise ValueError(
                f"set_data: Parameter {self._name!r} has shape {_shape_text(self._shape)}, got "
                f"{shape_text(values.shape)} ({user_line()})"
            )
        self.take(values.astype(self._dtype, copy=False))

    def cast(self, dtype: Any) -> None:
        """Changes the dtype, of values and gradient; the gradient starts at zero."""
        self._dtype, before = as_dtype(dtype), self._dtype
        if self._ready and before != self._dtype:
            self._data = self._data.astype(self._dtype)
            self._grad = None
            self._attach()
            self._version[0] += 1
        attributes.changed()

    def __deepcopy__(self, memo: Any) -> Parameter:
        out = type(self).__new__(type(self))
        NDArray.__init__(out, None)
        del out._data
        for slot in Parameter.__slots__:
            object.__setattr__(out, slot, getattr(self, slot))
        if self._ready:
            out._data = self._data.copy()
            out._attach()
        memo[id(self)] = out
        return out


def _known(shape: Any) -> tuple[int, ...] | None:
    """The shape with 0 for unknown dimensions; None if even their number is unknown."""
    if shape is None:
        return None
    out = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for size in out:
        if size is not None and (not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < -1):
            raise ValueError(f"a parameter's shape holds integers, 0 where unknown; got {shape!r} ({user_line()})")
    return tuple(0 if size is None or size == -1 else int(size) for size in out)


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "unknown" if shape is None else "(" + ", ".join(str(s) if s else "?" for s in shape) + ")"
