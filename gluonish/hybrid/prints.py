"""Prints: what `gl.print` leaves in a trace. The arrays become results of the program, printed after each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gluonish.nd.array import NDArray
from gluonish.nd.size import Size, evaluator


class Print:
    """One call of `gl.print`: its values, with traced arrays and symbolic sizes inside, and how to print them.

    arrays: the traced arrays, in their order.
    """

    def __init__(self, values: tuple[Any, ...], options: dict[str, Any], capture: Callable[[NDArray], NDArray]) -> None:
        self.values, self.options = values, options
        self.arrays: list[NDArray] = []
        self.sizes: list[Size] = []

        def note(leaf: Any) -> Any:
            if isinstance(leaf, NDArray):
                self.arrays.append(capture(leaf))
            elif isinstance(leaf, Size):
                self.sizes.append(leaf)
            return leaf

        replaced(values, note)

    def show(self, arrays: Iterator[NDArray], symbols: Mapping[str, int]) -> None:
        """Prints with the values of one run."""
        sizes = iter(evaluator(self.sizes, symbols)(*symbols.values()))

        def present(leaf: Any) -> Any:
            return next(arrays) if isinstance(leaf, NDArray) else next(sizes) if isinstance(leaf, Size) else leaf

        print(*replaced(self.values, present), **self.options)


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """Lists, tuples and dicts with `change` done to all that is in them."""
    if isinstance(value, dict):
        return {key: replaced(part, change) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(replaced(part, change) for part in value)
    return change(value)
