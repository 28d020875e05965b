"""Stepwise: what `hybridize(fallback=True)` runs where a function cannot be traced: its Python code, op by op.

The Blocks that it calls are compiled by themselves, so the graph is split where the values are needed. It holds as long
as what the failed trace had read stays the same; after a change the function is traced again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from gluonish.hybrid.graph import TraceError
from gluonish.hybrid.guards import Argument
from gluonish.nd import dispatch
from gluonish.nd.array import NDArray
from gluonish.nd.errors import user_line
from gluonish.nd.tree import unflatten

if TYPE_CHECKING:
    from gluonish.hybrid.function import CompiledFunction


class Stepwise:
    """Stands among the variants of a function for calls that run step by step."""

    def __init__(self, owner: CompiledFunction, mode: Any, arrays: Sequence[NDArray], error: TraceError) -> None:
        self.owner = owner
        self.mode = mode
        self.error = str(error)
        self.reason = ""
        self.arguments = [Argument(x.shape, x.dtype, None) for x in arrays]
        self.reads, self.names = error.relied
        watch = dispatch.watch()
        self.changes = watch.changes if watch is not None else lambda: 0
        self.seen_changes = -1

    def fits(self, arrays: Sequence[NDArray]) -> Any:
        """No sizes if such a call runs step by step, else None."""
        for x, argument in zip(arrays, self.arguments):
            if x.ndim != len(argument.shape) or x.dtype != argument.dtype:
                return None
        if self.names is not None and not self.names.hold():
            return None
        now = self.changes()
        if self.reads is not None and (now != self.seen_changes or self.reads.volatile):
            if not self.reads.hold():
                return None
            self.seen_changes = now
        return ()

    match = fits

    def misfit(self, arrays: Sequence[NDArray]) -> str:
        """Why it does not fit, in words."""
        what = (self.names.changed() if self.names is not None else "") or (
            self.reads.changed() if self.reads is not None else ""
        )
        return f"changed: {what}" if what else "other arguments"

    def call(self, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> Any:
        """Runs the function itself."""
        args, kwargs = unflatten(self.mode[0], iter(arrays))
        return self.owner.function(*args, **kwargs)

    def explain(self) -> list[str]:
        """That it is slower, and why."""
        return [f"slower: runs step by step, only Blocks inside it are compiled, since {self.error}"]

    def _refuse(self) -> NoReturn:
        raise TraceError(f"this call has no program, it runs step by step, since {self.error} ({user_line()})")

    @property
    def program(self) -> Any:
        """Raises: TraceError; nor is there a graph."""
        self._refuse()

    traced = optimised = program
