"""The tree of Blocks: children and Parameters are found by looking at attributes; names are attribute paths.

Blocks and Parameters in lists, tuples and dicts count too: `self.layers = [a, b]` gives `layers.0` and `layers.1`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from gluonish.block.parameter import Parameter

if TYPE_CHECKING:
    from gluonish.block.block import Block

_block_class: Any = None
_calls: set[CodeType] = set()


def set_block_class(cls: type) -> None:
    """Told once by `block.py` (importing it here would be a circle)."""
    global _block_class
    _block_class = cls


def marks_calls(function: Any) -> Any:
    """Decorator for the `__call__` methods of Blocks: frames of these tell which Block was called from outside."""
    _calls.add(function.__code__)
    return function


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The Blocks and Parameters in an attribute's value, with their paths."""
    if isinstance(value, (_block_class, Parameter)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from leaves(f"{name}.{index}", part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(f"{name}.{key}", part)


def walk(block: Block, path: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Block]]:
    """The Block and everything below it, each before its children; a shared one once under each of its names."""
    yield path, block
    above = (*above, id(block))
    for name, child in block.named_children():
        if id(child) not in above:  # a child that points back to its parent
            yield from walk(child, f"{path}.{name}" if path else name, above)


def located(block: Block) -> tuple[str, Block]:
    """The path of a running Block in the outermost running Block, and that Block."""
    root = block
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _calls:
            root = frame.f_locals["self"]
        frame = frame.f_back
    return next((path for path, each in walk(root) if each is block), ""), root


def title(block: Block) -> str:
    """How errors name a running Block: `Dense 'features.0'`."""
    path, _ = located(block)
    return f"{type(block).__name__} {path!r}" if path else type(block).__name__


def source(block: Block) -> str:
    """` from Flatten 'features.1'` if the Block stands behind another one in a Sequential, else nothing."""
    path, root = located(block)
    parent, _, last = path.rpartition(".")
    if not last.isdigit() or last == "0":
        return ""
    before = f"{parent}.{int(last) - 1}" if parent else str(int(last) - 1)
    return next((f" from {type(each).__name__} {name!r}" for name, each in walk(root) if name == before), "")
