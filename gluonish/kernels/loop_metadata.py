"""Marks for LLVM: which memory accesses keep the promise of `load` and `store`, and which loops consist of them.

An access is put in the one access group of the module, and the back edges of each innermost loop get
`llvm.loop.parallel_accesses` for that group. LLVM then vectorises a loop whose accesses are all in the group without
looking for dependences between iterations, and still keeps the order of accesses within an iteration. (`noalias` would
not: it lets a load slip behind the store of an output that shares the input's memory.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

_GROUP, _PARALLEL, _FIRST = 900000, 900001, 900002


class _Reference:
    """A metadata node written by `text`, as llvmlite can refer to it (it cannot make a node that refers to itself)."""

    def __init__(self, number: int) -> None:
        self.number = number

    def get_reference(self) -> str:
        return f"!{self.number}"


def promise(access: Any) -> None:
    """Puts a load or a store in the group."""
    access.set_metadata("llvm.access.group", _Reference(_GROUP))


def mark_innermost_loops(module: ir.Module) -> str:
    """Marks the back edges of the innermost loops of all functions; gives the text of the nodes they refer to."""
    nodes = [
        f"!{_GROUP} = distinct !{{}}",
        f'!{_PARALLEL} = !{{!"llvm.loop.parallel_accesses", !{_GROUP}}}',
    ]
    number = _FIRST
    for function in module.functions:
        for branches in _innermost_back_edges(list(function.blocks)):
            for branch in branches:
                branch.set_metadata("llvm.loop", _Reference(number))
            nodes.append(f"!{number} = distinct !{{!{number}, !{_PARALLEL}}}")
            number += 1
    return "\n".join(nodes) + "\n"


def _innermost_back_edges(blocks: list[Any]) -> list[list[Any]]:
    if not blocks:
        return []
    position = {block: i for i, block in enumerate(blocks)}
    after = [[position[b] for b in _targets(block.terminator)] for block in blocks]
    above = _dominators(after)
    headers: dict[int, list[int]] = {}
    for i, targets in enumerate(after):
        for header in targets:
            if i in above and header in above[i]:
                headers.setdefault(header, []).append(i)
    bodies = {header: _body(header, tails, after) for header, tails in headers.items()}
    inner = [h for h in headers if not any(other != h and other in bodies[h] for other in headers)]
    return [[blocks[tail].terminator for tail in headers[h]] for h in inner]


def _targets(terminator: Any) -> list[Any]:
    if terminator is None:
        return []
    cases = [block for _, block in getattr(terminator, "cases", ())]  # of a switch: not among its operands
    return [operand for operand in terminator.operands if isinstance(operand, ir.Block)] + cases


def _dominators(after: list[list[int]]) -> dict[int, set[int]]:
    # by iteration to the fixed point: kernels have tens of blocks
    order = _reachable(after)
    everything = set(order)
    before: dict[int, list[int]] = {i: [] for i in order}
    for i in order:
        for j in after[i]:
            before[j].append(i)
    above = dict.fromkeys(order, everything)
    above[0] = {0}
    changed = True
    while changed:
        changed = False
        for i in order[1:]:
            new = set.intersection(*[above[p] for p in before[i]]) | {i}
            if new != above[i]:
                above[i], changed = new, True
    return above


def _reachable(after: list[list[int]]) -> list[int]:
    order, seen, waiting = [], {0}, [0]
    while waiting:
        i = waiting.pop()
        order.append(i)
        for j in after[i]:
            if j not in seen:
                seen.add(j)
                waiting.append(j)
    return order


def _body(header: int, tails: list[int], after: list[list[int]]) -> set[int]:
    before: dict[int, list[int]] = {}
    for i, targets in enumerate(after):
        for j in targets:
            before.setdefault(j, []).append(i)
    body, waiting = {header}, list(tails)
    while waiting:
        i = waiting.pop()
        if i not in body:
            body.add(i)
            waiting.extend(before.get(i, ()))
    return body
