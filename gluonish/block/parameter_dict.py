"""ParameterDict: what `collect_params` gives, a dict from names to Parameters that can act on all of them."""

from __future__ import annotations

from typing import Any

from gluonish.block.initializer import create
from gluonish.block.parameter import Parameter
from gluonish.nd import Device
from gluonish.nd.device import checked
from gluonish.nd.errors import user_line


class ParameterDict(dict[str, Parameter]):
    """Parameters by attribute path. A Parameter shared by several Blocks stands under each of its names.

    `net.collect_params("features.*").setattr("grad_req", "null")` freezes what the pattern matches.
    """

    selected_by: str | None = None  # the pattern, for the error when it matched nothing

    def unique(self) -> dict[str, Parameter]:
        """Each Parameter once, under its first name."""
        return {name: p for name, p in self.items() if self._first(p) == name}

    def _first(self, parameter: Parameter) -> str:
        if not hasattr(self, "_names"):
            self._names: dict[int, str] = {}
            for name, p in self.items():
                self._names.setdefault(id(p), name)
        return self._names[id(parameter)]

    def initialize(
        self,
        init: Any = None,
        device: Device | None = None,
        verbose: bool = False,
        force_reinit: bool = False,
        ctx: Device | None = None,
    ) -> None:
        """Gives every Parameter without values its first ones (see `Parameter.initialize`)."""
        checked(device or ctx)
        default = create(init if init is not None else "uniform")
        for name, p in self.unique().items():
            own = p.init if p.init is not None else default
            if verbose and (force_reinit or not p.initialized):
                print(f"{name}: {own!r}")
            p.initialize(own, force_reinit=force_reinit)

    def setattr(self, name: str, value: Any) -> None:
        """Sets an attribute of every Parameter: `setattr("lr_mult", 0.1)`.

        Raises: AttributeError if Parameters have no such attribute; ValueError if no Parameter was selected.
        """
        if not self and self.selected_by is not None:
            raise ValueError(f"no parameter matches {self.selected_by!r}, so nothing would be set ({user_line()})")
        for p in self.values():
            if not hasattr(type(p), name):
                raise AttributeError(f"parameters have no attribute {name!r} ({user_line()})")
            setattr(p, name, value)

    def zero_grad(self) -> None:
        """Sets all gradients to zero."""
        for p in self.values():
            p.zero_grad()

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {tuple(p.shape or ())} {p.dtype}" for name, p in self.items()) or "no parameters"
