"""Constant: an array of a Block that is saved and never trained."""

from __future__ import annotations

from typing import Any

from gluonish.block.parameter import Parameter
from gluonish.nd import Device, array
from gluonish.nd.device import checked


class Constant(Parameter):
    """An array that is saved with the Block and never trained.

    >>> import gluonish as gl
    >>> gl.Constant([1.0, 2.0]).grad_req
    'null'
    """

    __slots__ = ()

    def __init__(self, value: Any, name: str = "constant") -> None:
        values = array(value)._data
        super().__init__(name, "null", values.shape, values.dtype, differentiable=False, wd_mult=0.0)
        self.take(values)

    def initialize(
        self, init: Any = None, device: Device | None = None, force_reinit: bool = False, ctx: Device | None = None
    ) -> None:
        """Does nothing: a constant has its values."""
        checked(device or ctx)
