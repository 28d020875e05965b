"""Random programs: what a compiler fuzzer feeds to `hybridize`, as data that can be printed, replayed and shrunk.

A program is a list of lines; line n computes value n from earlier values or is a leaf: an argument, or an array that
the function captures. Loops and branches have programs as attributes, whose arguments are the line's inputs. `draw`
makes a program from a random generator; `Program.function` is what a user would have written, `Program.leaves` are
random inputs for it. Attributes hold no sizes, so the same program runs on others.

Deliberately not here: what must be equal (`test_random_programs.py`, `test_passes.py`, `test_plan.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hybrid.random_lines import APPLY

from gluonish import nd
from gluonish.nd.dtypes import bfloat16, is_float

bfloat16()  # from here on NumPy knows its name
REFUSALS = (ValueError, TypeError, IndexError, OverflowError)
Shape = tuple[Any, ...]  # sizes, or letters that stand for them
SIZES = {"a": 5, "b": 3, "c": 7, "d": 4}
LETTERS = {size: letter for letter, size in SIZES.items()}
BODIES = ("body", "then", "otherwise")


@dataclass(frozen=True)
class Line:
    """`op` is a name in APPLY, or "argument" or "captured": a leaf has a shape, and a limit if it holds indices."""

    op: str
    inputs: tuple[int, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_leaf(self) -> bool:
        return self.op in ("argument", "captured")

    def bodies(self) -> dict[str, Program]:
        """The programs among the attributes. Their arguments are the last of the line's inputs."""
        return {k: v for k, v in self.attrs.items() if isinstance(v, Program)}


@dataclass(frozen=True)
class Program:
    """Lines, and which values are the results."""

    lines: tuple[Line, ...]
    results: tuple[int, ...]
    name: str = ""

    def __str__(self) -> str:
        rows = [f"# {self.name}"]
        for number, line in enumerate(self.lines):
            attrs = {k: v for k, v in line.attrs.items() if not isinstance(v, Program)}
            for name, body in line.bodies().items():
                first, *inner = body.text(f"{name}{number}").splitlines()
                rows += [first, *inner]
                attrs[name] = f"{name}{number}"
            parts = [f"v{i}" for i in line.inputs] + [f"{k}={v if k in BODIES else repr(v)}" for k, v in attrs.items()]
            rows.append(f"v{number} = {line.op}({', '.join(parts)})")
        return "\n".join([*rows, f"return {', '.join(f'v{i}' for i in self.results)}"])

    def text(self, name: str) -> str:
        """As a Python function; without comments."""
        arguments = ", ".join(f"v{i}" for i in self.places("argument"))
        rows = [row for row in str(self).splitlines()[1:] if " = argument(" not in row]
        return "\n".join([f"def {name}({arguments}):", *(f"    {row}" for row in rows)])

    def places(self, kind: str) -> list[int]:
        """The numbers of the lines of one op."""
        return [i for i, line in enumerate(self.lines) if line.op == kind]

    def states(self) -> set[int]:
        """The captured arrays that the program updates."""
        found = {self.lines[i].inputs[1] for op in ("state", "kept") for i in self.places(op)}
        for line in self.lines:
            for body in line.bodies().values():
                arguments = body.places("argument")
                found |= {line.inputs[len(line.inputs) - len(arguments) + arguments.index(i)] for i in body.states()}
        return found

    def leaves(self, seed: int, sizes: dict[str, int], dtype: str = "float32") -> dict[int, nd.NDArray]:
        """Arrays for the leaves: numbers between -1 and 1, or indices. A seed gives the same values in any dtype."""
        return {i: leaf_of(line, [seed, i], sizes, dtype) for i, line in enumerate(self.lines) if line.is_leaf}

    def function(self, leaves: dict[int, nd.NDArray]) -> Callable[..., tuple[nd.NDArray, ...]]:
        """The program as a function of its arguments; the captured arrays are those of `leaves`."""
        arguments = self.places("argument")

        def program(*xs: nd.NDArray) -> tuple[nd.NDArray, ...]:
            values: dict[int, nd.NDArray] = dict(zip(arguments, xs))
            for i, line in enumerate(self.lines):
                if line.op == "captured":
                    values[i] = leaves[i]
                elif line.op != "argument":
                    values[i] = APPLY[line.op](*[values[j] for j in line.inputs], **line.attrs)
            return tuple(values[i] for i in self.results)

        return program


def leaf_of(line: Line, seed: list[int], sizes: dict[str, int], dtype: str) -> nd.NDArray:
    rng = np.random.default_rng(seed)
    shape = tuple(sizes.get(s, s) for s in line.attrs["shape"])
    below = line.attrs["below"]
    if below is None:
        return nd.NDArray(np.asarray(rng.uniform(-1, 1, shape), dtype))
    return nd.NDArray(np.asarray(rng.integers(0, sizes.get(below, below), shape), "int64"))


# --- shrinking -------------------------------------------------------------------------------------------------------
def pruned(program: Program) -> Program:
    """Without the lines that the results do not need."""
    needed = set(program.results)
    for i in reversed(range(len(program.lines))):
        if i in needed:
            needed.update(program.lines[i].inputs)
    number = {old: new for new, old in enumerate(sorted(needed))}
    kept = [program.lines[i] for i in sorted(needed)]
    lines = tuple(replace(line, inputs=tuple(number[j] for j in line.inputs)) for line in kept)
    return Program(lines, tuple(number[i] for i in program.results), program.name)


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A smaller program that fails too: fewer results, lines replaced by leaves of their shape or by their input."""
    improved = True
    while improved:
        improved = False
        for candidate in _smaller(program):
            if len(candidate.lines) <= len(program.lines) and candidate != program and fails(candidate):
                program, improved = candidate, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    computed = [i for i, line in enumerate(program.lines) if not line.is_leaf]
    for result in dict.fromkeys((*program.results, *computed)):
        if program.results != (result,):
            yield pruned(replace(program, results=(result,)))
    values = _values(program)
    for i in reversed(computed):
        line = program.lines[i]
        if i in program.results:
            continue
        if i in values and is_float(values[i].dtype):
            leaf = Line("argument", (), {"shape": values[i].shape, "below": None})
            yield pruned(replace(program, lines=(*program.lines[:i], leaf, *program.lines[i + 1 :])))
        if len(line.inputs) == 1:
            yield pruned(_redirected(program, i, line.inputs[0]))
    for i in computed:
        line = program.lines[i]
        for name, body in line.bodies().items():
            for smaller in _smaller_bodies(body):
                changed = replace(line, attrs={**line.attrs, name: smaller})
                yield replace(program, lines=(*program.lines[:i], changed, *program.lines[i + 1 :]))


def _smaller_bodies(body: Program) -> Iterator[Program]:
    """With a result from earlier on, or a line left out; the arguments stay."""
    for position, result in enumerate(body.results):
        for earlier in range(result):
            yield swept(replace(body, results=(*body.results[:position], earlier, *body.results[position + 1 :])))
    for i, line in enumerate(body.lines):
        if line.inputs and i not in body.results:
            yield swept(_redirected(body, i, line.inputs[0]))
        for name, inner in line.bodies().items():
            for smaller in _smaller_bodies(inner):
                changed = replace(line, attrs={**line.attrs, name: smaller})
                yield replace(body, lines=(*body.lines[:i], changed, *body.lines[i + 1 :]))


def swept(body: Program) -> Program:
    """Without lines that nothing needs; all arguments stay."""
    arguments = tuple(body.places("argument"))
    swept = pruned(replace(body, results=(*body.results, *arguments)))
    return replace(swept, results=swept.results[: len(body.results)])


def _redirected(program: Program, old: int, new: int) -> Program:
    lines = [replace(line, inputs=tuple(new if j == old else j for j in line.inputs)) for line in program.lines]
    return replace(program, lines=tuple(lines))


def _values(program: Program) -> dict[int, nd.NDArray]:
    """All values of a program; none if it does not run."""
    everything = replace(program, results=tuple(range(len(program.lines))))
    leaves = program.leaves(1, SIZES)
    try:
        return dict(enumerate(everything.function(leaves)(*[leaves[i] for i in program.places("argument")])))
    except REFUSALS:
        return {}
