"""The table that `Block.summary` prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gluonish.block import tree
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.parameter import Parameter
from gluonish.nd import NDArray, autograd

if TYPE_CHECKING:
    from gluonish.block.block import Block


def summary_text(block: Block, inputs: tuple[Any, ...]) -> str:
    """Runs the Block once without its compiled program, noting what every Block in it gives."""
    rows: list[tuple[str, str, str, int]] = []
    paths: dict[int, str] = {}
    for path, each in tree.walk(block):
        paths.setdefault(id(each), path)

    def note(each: Block, args: Any, out: Any) -> None:
        own = {id(part): part for _, part in each._members() if isinstance(part, Parameter)}
        rows.append((paths[id(each)], type(each).__name__, _shapes(out), sum(map(_size, own.values()))))

    hybrid = [each for _, each in tree.walk(block) if isinstance(each, HybridBlock) and each._active]
    hooks = [each.register_forward_hook(note) for each in {id(e): e for _, e in tree.walk(block)}.values()]
    try:
        for each in hybrid:
            each._active = False
        with autograd.pause(), autograd.predict_mode():
            block(*inputs)
    finally:
        for hook in hooks:
            hook.detach()
        for each in hybrid:
            each._active = True
    return _table(rows, inputs, block)


def _size(parameter: Parameter) -> int:
    return math.prod(parameter.shape or (0,))


def _shapes(out: Any) -> str:
    if isinstance(out, NDArray):
        return str(tuple(out.shape))
    parts = out.values() if isinstance(out, dict) else out if isinstance(out, (list, tuple)) else ()
    return ", ".join(_shapes(part) for part in parts)


def _table(rows: list[tuple[str, str, str, int]], inputs: tuple[Any, ...], block: Block) -> str:
    lines = [("input", "", _shapes(inputs), "")]
    lines += [(path or "(all)", kind, shape, f"{n:,}") for path, kind, shape, n in rows]
    head = ("Path", "Layer", "Output shape", "Parameters")
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(4)]

    def text(line: tuple[str, ...]) -> str:
        return "  ".join([*(part.ljust(w) for part, w in zip(line[:3], widths)), line[3].rjust(widths[3])]).rstrip()

    everything = block.collect_params()
    once = everything.unique().values()
    total = sum(map(_size, once))
    trained = sum(_size(p) for p in once if p.grad_req != "null")
    rule = "-" * (sum(widths) + 6)
    foot = f"{total:,} parameters: {trained:,} trained, {total - trained:,} not"
    shared = len(everything) - len(once)
    foot += f"; {shared} shared under a second name" if shared else ""
    return "\n".join([text(head), rule, *map(text, lines), rule, foot])
