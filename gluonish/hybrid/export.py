"""Models as files: `NAME.json` holds the graph, `NAME.safetensors` the arrays it captured.

The graph is the traced one, before any pass: ops by name, attributes, symbolic sizes as text. So a file does not depend
on the machine, its kernels or the version of the passes. Reading one gives a function that applies the same ops; it
runs eagerly, differentiates, and compiles like any other function. Nothing in a file is executed: sizes are parsed as
arithmetic over whole numbers, everything else is data that is checked.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.graph import Graph, Node, ordered
from gluonish.hybrid.variant import trace_variant
from gluonish.nd import autograd, random
from gluonish.nd.array import NDArray
from gluonish.nd.create import as_dtype
from gluonish.nd.dispatch import bind, state
from gluonish.nd.errors import shape_text, user_line
from gluonish.nd.files import FileError, load, replacing, save
from gluonish.nd.op import OPS, Spec
from gluonish.nd.size import Size, hint
from gluonish.nd.tree import LEAF, call_text, flatten, unflatten

if TYPE_CHECKING:
    from gluonish.hybrid.function import CompiledFunction

FORMAT = "gluonish-model"
VERSION = 1
# what reading a file that is not as it was written may raise
_DAMAGE = (
    KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, SyntaxError, RecursionError,
    MemoryError,
)  # fmt: skip


def export_model(
    compiled: CompiledFunction, path: Any, parameters: Mapping[str, NDArray], *args: Any, **kwargs: Any
) -> tuple[Path, Path]:
    """Writes a function as it is in predict mode; gives the two paths.

    Its arguments are like those of its last call, or like `args`, with any sizes where the trace allows them.
    Raises: ValueError if there was no call yet and no arguments are given; OSError if the files cannot be written.
    """
    structure, arrays = _example(compiled, args, kwargs)
    with autograd.predict_mode(), autograd.pause():
        variant = trace_variant(compiled, (structure, False, False), structure, arrays)
    graph = variant.traced
    names = _names(graph, parameters)
    table, saved = Path(f"{path}.json"), Path(f"{path}.safetensors")
    text = json.dumps(_document(variant, graph, structure, names), indent=1)
    save(saved, {names[id(n)]: NDArray(n.array._data) for n in _captured(graph)})
    with replacing(table) as file:
        file.write(text.encode())
    return table, saved


def _example(compiled: CompiledFunction, args: Any, kwargs: Any) -> tuple[Any, list[NDArray]]:
    if args or kwargs:
        arrays: list[NDArray] = []
        return flatten((args, kwargs), arrays), arrays
    if not compiled.variants:
        raise ValueError(
            f"export: call the model once after hybridize(), or pass example inputs: export(path, x) ({user_line()})"
        )
    last = compiled.variants[0]
    return last.mode[0], [NDArray(np.zeros([hint(s) for s in a.shape], a.dtype)) for a in last.arguments]


def _names(graph: Graph, parameters: Mapping[str, NDArray]) -> dict[int, str]:
    known = {id(p): name for name, p in parameters.items()}
    out: dict[int, str] = {}
    for number, leaf in enumerate(_captured(graph)):
        out[id(leaf)] = known.get(id(leaf.array), f"constant.{number}")
    return out


def _captured(graph: Graph) -> list[Node]:
    """The arrays that the graph reads or updates."""
    leaves = dict.fromkeys([*graph.leaves(), *(leaf for leaf, _ in graph.updates)])
    return [n for n in leaves if n.kind == "captured"]


# --- writing ----------------------------------------------------------------------------------------------------------
def _document(variant: Any, graph: Graph, structure: Any, names: dict[int, str]) -> dict[str, Any]:
    place: dict[int, int] = {}
    nodes: list[dict[str, Any]] = []
    for node in dict.fromkeys([*graph.inputs, *_captured(graph), *ordered(graph.results())]):
        place[id(node)] = len(nodes)
        nodes.append(_entry(node, place, names))
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "arguments": _structure(structure),
        "results": _structure(variant.structure),
        "inputs": [place[id(n)] for n in graph.inputs],
        "outputs": [place[id(n)] for n in graph.outputs],
        "updates": [[place[id(leaf)], place[id(value)]] for leaf, value in graph.updates],
        "sizes": dict(variant.scope.hints),
        "guards": [[str(g.left), g.relation, str(g.right), g.holds] for g in variant.guards],
        "random": str(variant.blocks),
        "nodes": nodes,
    }


def _entry(node: Node, place: dict[int, int], names: dict[int, str]) -> dict[str, Any]:
    if node.is_op("loop", "branch"):
        raise ValueError(
            f"export: foreach, while_loop and cond cannot be written to a model file yet ({node.line}); write the "
            f"steps out, or use nd.where"
        )
    if node.kind != "op":
        out = {"kind": node.kind, "shape": [str(s) for s in node.shape], "dtype": node.dtype.name}
        return {**out, "name": names[id(node)]} if node.kind == "captured" else out
    assert node.op is not None
    inputs = [place[id(x)] if isinstance(x, Node) else {"number": _encoded(x)} for x in node.inputs]
    attrs = {k: _encoded(v) for k, v in node.attrs.items()}
    return {"op": node.op.name, "inputs": inputs, **({"attrs": attrs} if attrs else {}), "line": node.line}


def _encoded(value: Any) -> Any:
    if isinstance(value, Size):
        return {"size": str(value)}
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, slice):
        return {"slice": [_encoded(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, (tuple, list)):
        return {"tuple": [_encoded(v) for v in value]}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, np.generic):
        return _encoded(value.item())
    return value


def _structure(structure: Any) -> Any:
    if not isinstance(structure, tuple):
        return "*"
    kind = structure[0]
    if kind == "value":
        return {"value": _encoded(structure[2])}
    if kind is dict:
        return {"dict": [[k, _structure(v)] for k, v in structure[1]]}
    if hasattr(kind, "_fields"):
        kind = tuple  # the class of a named tuple is Python code; its values are kept
    return {kind.__name__: [_structure(v) for v in structure[1]]}


# --- reading ----------------------------------------------------------------------------------------------------------
def import_model(path: Any, make: Callable[[str, NDArray], NDArray] | None = None) -> ImportedModel:
    """The function in `path.json` with the arrays in `path.safetensors`.

    make: (name, array) -> the array to capture in its place (a Parameter, say).
    Raises: FileNotFoundError; FileError for files that are damaged or do not belong together.
    """
    table = Path(f"{path}.json")
    try:
        document = json.loads(table.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {table} ({user_line()})") from None
    except (ValueError, RecursionError):
        raise FileError(f"{table} is not JSON; export the model again ({user_line()})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise FileError(f"{table} is not a gluonish model of version {VERSION} ({user_line()})")
    arrays = load(f"{path}.safetensors")
    try:
        return ImportedModel(document, arrays, make)
    except FileError:
        raise
    except _DAMAGE as error:
        raise FileError(f"{table} is damaged: {error}; export the model again ({user_line()})") from None


class ImportedModel:
    """An exported function: applies the ops of its graph to arrays. `arrays` are those it captured, by name."""

    def __init__(self, document: dict[str, Any], arrays: dict[str, NDArray], make: Any = None) -> None:
        self.name = str(document["name"])
        self.nodes = list(document["nodes"])
        self.inputs = [self._place(i) for i in document["inputs"]]
        self.outputs = [self._place(i) for i in document["outputs"]]
        self.updates = [(self._place(a), self._place(b)) for a, b in document["updates"]]
        self.guards = [(_parsed(a), _RELATIONS[r], r, _parsed(b), bool(h)) for a, r, b, h in document["guards"]]
        self.blocks = _parsed(document["random"])
        self.arguments, wanted = _restored(document["arguments"])
        self.form = call_text(self.arguments)
        self.results, given = _restored(document["results"])
        self.arrays: dict[str, NDArray] = {}
        self.recipes = [self._recipe(number, node, arrays, make) for number, node in enumerate(self.nodes)]
        if wanted != len(self.inputs) or given != len(self.outputs):
            raise ValueError("arguments or results are not as many as its inputs and outputs")
        self._try_rules({str(k): int(v) for k, v in document["sizes"].items()})

    def _place(self, number: Any) -> int:
        if type(number) is not int or not 0 <= number < len(self.nodes):
            raise ValueError(f"there is no node {number!r}")
        return number

    def _try_rules(self, sizes: dict[str, int]) -> None:
        """Applies every op's rule once, for the sizes that the model was exported with."""
        specs: list[Spec] = []
        for number, (node, recipe) in enumerate(zip(self.nodes, self.recipes)):
            if "kind" in node:
                if (node["kind"] == "input") != (number in self.inputs):
                    raise ValueError(f"node {number} is not the input it should be")
                shape, dtype = recipe if node["kind"] != "captured" else recipe.spec
                specs.append(Spec(tuple(_sized(s, sizes) for s in shape), dtype))
            else:
                op, inputs, numbers, attrs = recipe
                operands = [_sized(x, sizes) if n else specs[x] for x, n in zip(inputs, numbers)]
                specs.append(op.rule(*operands, **{k: _sized(v, sizes) for k, v in attrs.items()}))
        for left, holds, _, right, wanted in self.guards:
            if holds(_sized(left, sizes), _sized(right, sizes)) != wanted:
                raise ValueError("a guard does not hold for the sizes that it was exported with")
        if any(self.nodes[a].get("kind") not in ("captured", "input") or specs[a] != specs[b] for a, b in self.updates):
            raise ValueError("it updates what is neither its own nor an argument, or by values of another shape")
        _sized(self.blocks, sizes)

    def _recipe(self, number: int, node: dict[str, Any], arrays: dict[str, NDArray], make: Any) -> Any:
        if node.get("kind") == "captured":
            name = node["name"]
            if name not in arrays:
                raise ValueError(f"its array {name!r} is missing from the file beside it")
            found = arrays[name]
            if [str(s) for s in found.shape] != node["shape"] or found.dtype.name != node["dtype"]:
                raise ValueError(f"its array {name!r} is {found.spec}, not {node['shape']} {node['dtype']}")
            self.arrays[name] = found if make is None else make(name, found)
            return self.arrays[name]
        if "kind" in node:
            if node["kind"] not in ("input", "key"):
                raise ValueError(f"node {number} is of the unknown kind {node['kind']!r}")
            return [_parsed(s) for s in node["shape"]], as_dtype(node["dtype"])
        op = OPS[node["op"]]
        inputs = [_decoded(x["number"]) if isinstance(x, dict) else self._place(x) for x in node["inputs"]]
        numbers = [isinstance(x, dict) for x in node["inputs"]]
        if any(x >= number for x, is_number in zip(inputs, numbers) if not is_number):
            raise ValueError(f"node {number} reads a node that does not stand before it")
        if any(not isinstance(x, (bool, int, float, Formula)) for x, is_number in zip(inputs, numbers) if is_number):
            raise ValueError(f"node {number} has an operand that is no number")
        return op, inputs, numbers, {k: _decoded(v) for k, v in node.get("attrs", {}).items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the ops of the graph. Raises: TypeError or ValueError for arguments it was not exported for."""
        arrays: list[NDArray] = []
        given = flatten((args, kwargs), arrays)
        if given != self.arguments:
            raise TypeError(
                f"{self.name} was exported for arguments {self.form}, got {call_text(given)} ({user_line()})"
            )
        symbols = self._symbols(arrays)
        values: list[Any] = []
        count = iter(arrays)
        for node, recipe in zip(self.nodes, self.recipes):
            if node.get("kind") == "input":
                values.append(next(count))
            elif node.get("kind") == "key":
                values.append(_key(_sized(self.blocks, symbols)))
            elif "kind" in node:
                values.append(recipe)
            else:
                op, inputs, numbers, attrs = recipe
                operands = tuple(_sized(x, symbols) if n else values[x] for x, n in zip(inputs, numbers))
                values.append(bind(op, operands, {k: _sized(v, symbols) for k, v in attrs.items()}))
        outputs = [values[i] for i in self.outputs]
        if self.updates:  # none of what was computed may be a view of what changes now
            outputs = [x.copy() for x in outputs]
            for place, value in [(place, values[i].detach().copy()) for place, i in self.updates]:
                values[place][:] = value
        return unflatten(self.results, iter(outputs))

    def _symbols(self, arrays: list[NDArray]) -> dict[str, Any]:
        symbols: dict[str, Any] = {}
        for array, place in zip(arrays, self.inputs):
            shape, dtype = self.recipes[place]
            if len(shape) != array.ndim or dtype != array.dtype:
                raise ValueError(
                    f"{self.name} was exported for {len(shape)} dimensions of {dtype}, got {array.spec} ({user_line()})"
                )
            for wanted, size in zip(shape, array.shape):
                if isinstance(wanted, Formula) and wanted.symbol is not None:
                    symbols[wanted.symbol] = size
                elif _sized(wanted, symbols) != size:
                    raise ValueError(
                        f"{self.name} was exported for size {wanted}, got shape {array.shape} ({user_line()})"
                    )
        for left, holds, relation, right, wanted in self.guards:
            if holds(_sized(left, symbols), _sized(right, symbols)) != wanted:
                what = f"{'' if wanted else 'not '}{left} {relation} {right}"
                raise ValueError(
                    f"{self.name} was exported for sizes with {what}, {self._legend(what)}; got "
                    f"{', '.join(shape_text(array.shape) for array in arrays)} ({user_line()})"
                )
        return symbols

    def _legend(self, condition: str) -> str:
        """Which dimensions the names of sizes in a condition stand for: `s1 is dimension 1 of array 0`."""
        places: dict[str, str] = {}
        for number, place in enumerate(self.inputs):
            for axis, size in enumerate(self.recipes[place][0]):
                places.setdefault(str(size), f"{size} is dimension {axis} of array {number}")
        return ", ".join(places[name] for name in sorted(set(re.findall(r"\bs\d+\b", condition))) if name in places)


def _key(blocks: Any) -> NDArray:
    trace = state.trace
    return NDArray(random.default.reserve(blocks)) if trace is None else trace.random_key(blocks)


class Formula:
    """A size as arithmetic over symbols: parsed text, never evaluated as Python."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text, mode="eval").body
        self.symbol = self.tree.id if isinstance(self.tree, ast.Name) else None
        self._check(self.tree)

    def _check(self, tree: ast.AST) -> None:
        if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
            self._check(tree.left)
            self._check(tree.right)
        elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            self._check(tree.operand)
        elif not isinstance(tree, ast.Name) and not (isinstance(tree, ast.Constant) and type(tree.value) is int):
            raise ValueError(f"{self.text!r} is not a size")

    def value(self, symbols: dict[str, Any], tree: Any = None) -> Any:
        """The size for these symbols."""
        tree = self.tree if tree is None else tree
        if isinstance(tree, ast.BinOp):
            return _OPERATORS[type(tree.op)](self.value(symbols, tree.left), self.value(symbols, tree.right))
        if isinstance(tree, ast.UnaryOp):
            return -self.value(symbols, tree.operand)
        return symbols[tree.id] if isinstance(tree, ast.Name) else tree.value

    def __str__(self) -> str:
        return self.text


_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, "<": operator.lt, "<=": operator.le}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _parsed(text: str) -> Any:
    formula = Formula(text)
    return formula.tree.value if isinstance(formula.tree, ast.Constant) else formula


def _sized(value: Any, symbols: dict[str, Any]) -> Any:
    if isinstance(value, Formula):
        return value.value(symbols)
    if isinstance(value, tuple):
        return tuple(_sized(v, symbols) for v in value)
    if isinstance(value, slice):
        return slice(*(_sized(v, symbols) for v in (value.start, value.stop, value.step)))
    return value


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "size":
        return _parsed(content)
    if kind == "dtype":
        return as_dtype(content)
    if kind == "slice":
        return slice(*(_decoded(v) for v in content))
    if kind == "tuple":
        return tuple(_decoded(v) for v in content)
    if kind == "float":
        return float(content)
    raise ValueError(f"an attribute of the unknown kind {kind!r}")


def _restored(content: Any) -> tuple[Any, int]:
    """A structure as `flatten` gives it, and its number of arrays."""
    if content == "*":
        return LEAF, 1
    (kind, parts), *_ = content.items()
    if kind == "value":
        return flatten(_decoded(parts), []), 0
    values = [_restored(part[1] if kind == "dict" else part) for part in parts]
    count = sum(n for _, n in values)
    if kind == "dict":
        return (dict, tuple((part[0], s) for part, (s, _) in zip(parts, values))), count
    return ({"tuple": tuple, "list": list}[kind], tuple(s for s, _ in values)), count
