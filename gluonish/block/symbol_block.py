"""SymbolBlock: an exported model as a Block."""

from __future__ import annotations

from typing import Any

from gluonish.block.hybrid_block import HybridBlock


class SymbolBlock(HybridBlock):
    """Runs what `HybridBlock.export` wrote. Make one with `SymbolBlock.imports(path)`."""

    def __init__(self, function: Any) -> None:
        self._function = function

    @staticmethod
    def imports(path: Any) -> SymbolBlock:
        """The model in `path.json` and `path.safetensors`.

        Raises: FileNotFoundError; FileError for damaged files.
        """
        from gluonish.hybrid import import_model

        return SymbolBlock(import_model(path))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the imported program."""
        return self._function(*args, **kwargs)
