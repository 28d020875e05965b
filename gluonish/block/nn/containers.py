"""Containers: Blocks in a row, and plain functions as Blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, overload

from gluonish import nd
from gluonish.block.block import Block
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.tree import leaves
from gluonish.nd.errors import user_line


class _Row(Block):
    """Blocks that run one after the other."""

    _layers: tuple[Block, ...] = ()  # a tuple: replaced on every change, so that compiled variants see it at once

    def __init__(self, *layers: Block) -> None:
        self.add(*layers)

    def add(self, *layers: Block) -> None:
        """Appends Blocks. Raises: TypeError for anything else."""
        for layer in layers:
            if not isinstance(layer, Block):
                raise TypeError(
                    f"{type(self).__name__}.add takes Blocks, got {layer!r:.60}; nn.Lambda makes a Block of a function "
                    f"({user_line()})"
                )
        self._layers = (*self._layers, *layers)

    def forward(self, x: Any, *args: Any) -> Any:
        """Each Block gets what the one before it gave; of a tuple or list, the parts as several arguments."""
        for layer in self._layers:
            x = layer(x, *args)
            args = ()
            if isinstance(x, (tuple, list)):
                args, x = tuple(x[1:]), x[0]
        return (x, *args) if args else x

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in list(vars(self).items()):
            if name == "_layers":
                yield from ((str(index), layer) for index, layer in enumerate(value))
            else:
                yield from leaves(name, value)

    def __len__(self) -> int:
        return len(self._layers)

    def __bool__(self) -> bool:
        return True  # an empty row is a Block all the same

    def __iter__(self) -> Iterator[Block]:
        return iter(self._layers)

    @overload
    def __getitem__(self, key: int) -> Block: ...
    @overload
    def __getitem__(self, key: slice) -> _Row: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._of(*self._layers[key])  # shares its Blocks with this one
        try:
            return self._layers[key]
        except IndexError:
            raise IndexError(f"Block {key} of {len(self)} ({user_line()})") from None

    def _of(self, *layers: Block) -> _Row:
        """What a slice of this one is."""
        return (HybridSequential if isinstance(self, HybridBlock) else Sequential)(*layers)

    def __setitem__(self, key: int, layer: Block) -> None:
        if not isinstance(layer, Block):
            raise TypeError(f"only Blocks stand in a {type(self).__name__}, got {layer!r:.60} ({user_line()})")
        layers = list(self._layers)
        try:
            layers[key] = layer
        except IndexError:
            raise IndexError(f"Block {key} of {len(self)} ({user_line()})") from None
        self._layers = tuple(layers)


class Sequential(_Row):
    """Blocks in a row: `net = nn.Sequential(); net.add(a, b)`. Index, slice, len and iteration work as with a list.

    Shapes: those of its Blocks.
    """


class HybridSequential(_Row, HybridBlock):
    """Blocks in a row that are compiled together once hybridized. Index, slice, len and iteration work as with a list.

    Shapes: those of its Blocks.

    >>> from gluonish import nd, nn
    >>> net = nn.HybridSequential(nn.Dense(8, activation="relu"), nn.Dense(2)); net.initialize()
    >>> net(nd.ones((4, 3))).shape, len(net), net[1].weight.shape
    ((4, 2), 2, (2, 8))
    """


class Concatenate(_Row):
    """Blocks side by side: each gets the input, their results are joined along `axis`.

    Shapes: (N, C, ...) -> (N, sum of the Blocks' channels, ...) with axis 1.

    >>> from gluonish import nd, nn
    >>> nn.Concatenate(nn.Identity(), nn.Identity(), axis=1)(nd.ones((2, 3))).shape
    (2, 6)
    """

    def __init__(self, *layers: Block, axis: int = -1) -> None:
        self.axis = axis
        super().__init__(*layers)

    def forward(self, x: Any, *args: Any) -> Any:
        """See the class."""
        return nd.concat([layer(x, *args) for layer in self._layers], self.axis)

    def _of(self, *layers: Block) -> _Row:
        return (HybridConcatenate if isinstance(self, HybridBlock) else Concatenate)(*layers, axis=self.axis)

    def _describe(self) -> str:
        return f"axis={self.axis}"


class HybridConcatenate(Concatenate, HybridBlock):
    """Blocks side by side that are compiled together once hybridized, see Concatenate.

    Shapes: (N, C, ...) -> (N, sum of the Blocks' channels, ...) with axis 1.
    """


class Lambda(Block):
    """A function, or an op of `nd` by its name, as a Block. Shapes: those of the function."""

    def __init__(self, function: Callable[..., Any] | str) -> None:
        self.function = _function(function)

    def forward(self, *args: Any) -> Any:
        """See the class."""
        return self.function(*args)

    def _describe(self) -> str:
        return str(getattr(self.function, "__name__", None) or getattr(self.function, "name", "function"))


class HybridLambda(Lambda, HybridBlock):
    """A function, or an op of `nd` by its name, as a HybridBlock. Shapes: those of the function."""


class Identity(HybridBlock):
    """Its input. Shapes: any -> the same."""

    def forward(self, x: Any) -> Any:
        """See the class."""
        return x


def _function(function: Any) -> Callable[..., Any]:
    if isinstance(function, str):
        function = getattr(nd, function, None) or function
    if not callable(function):
        raise ValueError(f"Lambda takes a function or the name of one in nd, got {function!r} ({user_line()})")
    return function
