"""Lowering of gathers and scatters: each becomes one step that checks its indices."""

from __future__ import annotations

from collections.abc import Callable

from gluonish.hybrid.graph import Node
from gluonish.hybrid.lower_moves import simple
from gluonish.hybrid.step import Step
from gluonish.kernels import gather, scatter
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.scalars import CODES

Make = Callable[[str, str, Node], Kernel]


def _lookup(make: Make) -> Callable[[Node], list[Step]]:
    """A rule for an op whose second input, or only one, has the indices."""

    def rule(node: Node) -> list[Step]:
        assert node.op is not None
        index = node.inputs[min(1, len(node.inputs) - 1)]
        kernel = make(CODES[node.dtype.name], CODES[index.dtype.name], node)
        return [simple(kernel, list(node.parents), node, checks=node.op.name)]

    return rule


def _checked_index(node: Node) -> list[Step]:
    index = node.inputs[0]
    kernel = gather.checked_index_kernel(CODES[index.dtype.name])
    return [simple(kernel, [index], node, checks=node.attrs.get("what", "indexing"), extra=(node.attrs["size"],))]


def _slices(copy: bool, add: bool) -> Make:
    return lambda code, index, node: scatter.slices_kernel(code, index, node.attrs["axis"], copy, add)


RULES: dict[str, Callable[[Node], list[Step] | None]] = {
    "take": _lookup(lambda code, index, node: gather.take_kernel(code, index, node.attrs["axis"])),
    "pick": _lookup(lambda code, index, node: gather.pick_kernel(code, index)),
    "unpick": _lookup(lambda code, index, node: scatter.unpick_kernel(code, index)),
    "take_along_axis": _lookup(lambda code, index, node: gather.take_along_kernel(code, index, node.attrs["axis"])),
    "add_along_axis": _lookup(lambda code, index, node: scatter.along_kernel(code, index, node.attrs["axis"], False)),
    "put_along_axis": _lookup(lambda code, index, node: scatter.along_kernel(code, index, node.attrs["axis"], True)),
    "index_add": _lookup(_slices(copy=False, add=True)),
    "index_add_to": _lookup(_slices(copy=True, add=True)),
    "index_update": _lookup(_slices(copy=True, add=False)),
    "indexing": _checked_index,
}
