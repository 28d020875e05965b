"""What `Block.inspect` gives: the results of Blocks inside another, from an eager run or a compiled program."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gluonish.block import tree
from gluonish.nd import autograd, random
from gluonish.nd.dispatch import state
from gluonish.nd.errors import user_line

if TYPE_CHECKING:
    from gluonish.block.block import Block


def inspect(block: Block, inputs: tuple[Any, ...], wanted: str | Sequence[str]) -> Any:
    """See `Block.inspect`."""
    paths = [wanted] if isinstance(wanted, str) else list(wanted)
    found = dict(tree.walk(block))
    for path in paths:
        if not isinstance(path, str) or path not in found:
            near = difflib.get_close_matches(str(path), found, 3, 0.3) or [name for name in found if name][:3]
            raise ValueError(
                f"inspect: {type(block).__name__} has no Block {path!r}; the last argument is the path of one, such as "
                f"{', '.join(map(repr, near)) or repr('')} ({user_line()})"
            )
    blocks = [found[path] for path in paths]
    run = _compiled(block, blocks) if getattr(block, "_active", False) else _eagerly(block, blocks)
    position = random.default.position
    try:
        with autograd.pause(state.training):
            results = run(*inputs)
    finally:
        random.default.position = position
    for path, values in zip(paths, results):
        if not values:
            raise ValueError(f"inspect: {path!r} did not run ({user_line()})")
    values = [each[0] if len(each) == 1 else each for each in results]
    return values[0] if isinstance(wanted, str) else values


def _results(block: Block, blocks: Sequence[Block], args: Any, kwargs: Any) -> list[list[Any]]:
    """Runs a Block inside the trace under way, and notes what some Blocks give."""
    trace = state.trace
    assert trace is not None
    noted: dict[int, list[Any]] = {id(each): [] for each in blocks}
    before, trace.wanted = trace.wanted, noted
    try:
        block._traced(trace, args, kwargs)
    finally:
        trace.wanted = before
    return [noted[id(each)] for each in blocks]


def _eagerly(block: Block, blocks: Sequence[Block]) -> Any:
    from gluonish.hybrid.eager import EagerLog

    def run(*args: Any) -> Any:
        log = EagerLog(keep=False)
        before, state.trace = state.trace, log
        try:
            return _results(block, blocks, args, {})
        finally:
            state.trace = before
            log.undo()

    return run


def _compiled(block: Any, blocks: Sequence[Block]) -> Any:
    """The compiled function that gives what the Blocks give, kept beside that of the Block itself."""
    from gluonish.hybrid import compile_function

    kept = block._compile().inspections
    key = tuple(map(id, blocks))
    if key not in kept:
        name = f"inspection of {type(block).__name__}"
        kept[key] = compile_function(lambda *args: _results(block, blocks, args, {}), name)

    def run(*args: Any) -> Any:
        updated = kept[key].variant_for(*args).program.updated
        before = [a._data.copy() for a in updated]
        try:
            return kept[key](*args)
        finally:
            for array, values in zip(updated, before):
                array._data[...] = values
                array._version[0] += 1

    return run
