"""SymbolBlock: an exported model as a Block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gluonish.block.constant import Constant
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.parameter import Parameter
from gluonish.nd import NDArray

_STATISTICS = ("running_mean", "running_var")


class SymbolBlock(HybridBlock):
    """Runs what `HybridBlock.export` wrote, as it was in predict mode. Make one with `SymbolBlock.imports(path)`.

    Its Parameters have the names that they had in the exported Block.
    """

    def __init__(self, function: Any, parameters: dict[str, Parameter]) -> None:
        self._function = function
        self._parameters = parameters

    @staticmethod
    def imports(path: Any) -> SymbolBlock:
        """The model in `path.json` and `path.safetensors`, hybridized: `hybridize(False)` makes it eager.

        Raises: FileNotFoundError; FileError for damaged files.
        """
        from gluonish.hybrid import import_model

        parameters: dict[str, Parameter] = {}

        def make(name: str, array: NDArray) -> Parameter:
            if name not in parameters:
                parameters[name] = _parameter(name, array)
            return parameters[name]

        block = SymbolBlock(import_model(path, make), parameters)
        block.hybridize()
        return block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the imported program."""
        return self._function(*args, **kwargs)

    def _members(self) -> Iterator[tuple[str, Any]]:
        yield from self._parameters.items()

    def _describe(self) -> str:
        """The name of the exported Block."""
        return str(getattr(self._function, "name", ""))


def _parameter(name: str, array: NDArray) -> Parameter:
    if name.startswith("constant."):
        return Constant(array, name)
    trained = name.rpartition(".")[2] not in _STATISTICS
    out = Parameter(name, shape=array.shape, dtype=array.dtype, differentiable=trained)
    out.set_data(array)
    return out
