"""Hook: a function called around a Block's forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gluonish.block.block import Block


class Hook:
    """A hook that can be taken off again: `handle.detach()`, or leaving `with handle:`."""

    def __init__(self, block: Block, function: Callable[..., Any], before: bool) -> None:
        self.block, self.function, self.before = block, function, before

    def detach(self) -> None:
        """Takes the hook off."""
        self.block._hooks = tuple(hook for hook in self.block._hooks if hook is not self)

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()
