"""Random programs: what a compiler fuzzer feeds to `hybridize`, as data that can be printed, replayed and shrunk.

A program is a list of lines; line n computes value n from earlier values or is a leaf: an argument, or an array that the
function captures. `draw` makes one from a random generator and sizes; `Program.function` is what a user would have
written, `Program.leaves` are random inputs for it. Attributes never hold sizes, so the same program runs on others.
Deliberately not here: what must be equal (`test_random_programs.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gluonish import nd

Shape = tuple[int, ...]
SIZES = {"a": 5, "b": 3, "c": 7, "d": 4}  # dimensions have letters, so that other sizes fit the same program
LARGE = 50.0


@dataclass(frozen=True)
class Line:
    """`op` is a name in APPLY, or "argument" or "captured"; a leaf knows the letters of its dimensions and its dtype."""

    op: str
    inputs: tuple[int, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_leaf(self) -> bool:
        return self.op in ("argument", "captured")


@dataclass(frozen=True)
class Program:
    """Lines, and which values are the results."""

    lines: tuple[Line, ...]
    results: tuple[int, ...]
    name: str = ""

    def __str__(self) -> str:
        rows = [f"# {self.name}"]
        for number, line in enumerate(self.lines):
            parts = [f"v{i}" for i in line.inputs] + [f"{k}={v!r}" for k, v in line.attrs.items()]
            rows.append(f"v{number} = {line.op}({', '.join(parts)})")
        return "\n".join([*rows, f"return {', '.join(f'v{i}' for i in self.results)}"])

    def places(self, kind: str) -> list[int]:
        """The numbers of the lines that are arguments or captured arrays."""
        return [i for i, line in enumerate(self.lines) if line.op == kind]

    def leaves(self, seed: int, sizes: dict[str, int], dtype: str = "float32") -> dict[int, nd.NDArray]:
        """Arrays for the leaves: values between -1 and 1, or small indices. The same seed gives the same in any dtype."""
        out = {}
        for i, line in enumerate(self.lines):
            if line.is_leaf:
                rng = np.random.default_rng([seed, i])
                shape = tuple(sizes.get(s, s) for s in line.attrs["shape"])
                limit = line.attrs["below"]
                values = rng.uniform(-1, 1, shape) if limit is None else rng.integers(0, sizes.get(limit, limit), shape)
                out[i] = nd.NDArray(np.asarray(values, dtype if limit is None else "int64"))
        return out

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

    def call(self, leaves: dict[int, nd.NDArray], wrapper: Any = None) -> tuple[nd.NDArray, ...]:
        """The results; `wrapper` compiles the function first."""
        function = self.function(leaves)
        compiled = function if wrapper is None else wrapper(function)
        return compiled(*[leaves[i] for i in self.places("argument")])


# --- what lines do ----------------------------------------------------------------------------------------------------
def _conv(x: nd.NDArray, w: nd.NDArray, **a: Any) -> nd.NDArray:
    return nd.convolution(x, w, **a)


def _axis(x: nd.NDArray, axis: int) -> int:
    return axis % x.ndim


def _merge(x: nd.NDArray, axis: int) -> nd.NDArray:
    s = x.shape
    return x.reshape((*s[:axis], s[axis] * s[axis + 1], *s[axis + 2 :]))


def _swapped_sum(x: nd.NDArray) -> nd.NDArray:
    return x + x.swapaxes(-1, -2) if x.shape[-1] == x.shape[-2] else x


def _state(x: nd.NDArray, state: nd.NDArray) -> nd.NDArray:
    state[:] = state * 0.5 + x.detach().mean()
    return x * state.mean()


APPLY: dict[str, Callable[..., nd.NDArray]] = {
    **{name: getattr(nd, name) for name in (
        "tanh", "sigmoid", "relu", "abs", "square", "negative", "erf", "gelu", "silu", "softplus", "sin", "cos", "add",
        "subtract", "multiply", "maximum", "minimum", "matmul", "softmax", "log_softmax", "expand_dims", "flip", "concat",
        "sum", "mean", "max", "min", "var", "argmax", "take", "pick", "max_pool", "average_pool", "leaky_relu",
    ) if name != "concat"},
    "exp": lambda x: nd.exp(nd.minimum(x, 2.0)),
    "sqrt": lambda x: nd.sqrt(nd.abs(x) + 0.5),
    "log": lambda x: nd.log(nd.abs(x) + 0.5),
    "rsqrt": lambda x: nd.rsqrt(nd.square(x) + 0.5),
    "divide": lambda x, y: x / (nd.abs(y) + 0.5),
    "number": lambda x, sign, number: {"+": x + number, "-": number - x, "*": x * number, "/": x / number}[sign],
    "by_size": lambda x, axis: x / x.shape[axis],
    "power": lambda x, exponent: nd.power(nd.abs(x) + 0.5, exponent),
    "clip": lambda x: nd.clip(x, -0.5, 0.75),
    "choose": lambda x, y: nd.where(x > y, x * 2, y),
    "mask": lambda x: nd.where((x > 0.25) | (x < -0.5), x, 0.0),
    "as_number": lambda x: (x > 0.1).astype(x.dtype) * 0.5,
    "floored": lambda x: nd.floor(x * 3).astype("int32").astype(x.dtype),
    "normal": lambda x, axis: (x - x.mean(axis, keepdims=True)) * nd.rsqrt(x.var(axis, keepdims=True) + 0.1),
    "centred": lambda x: x - x.mean(-1) if x.ndim == 2 and x.shape[0] == x.shape[1] else x - x.mean(),
    "row_ratio": lambda x: x.sum(-1) / (nd.abs(x).sum(-1) + 1.0),
    "permute": lambda x, axes: nd.permute_dims(x, axes),
    "merge": _merge,
    "flatten": lambda x: x.reshape((-1,)),
    "halves": lambda x, axis: nd.concat([x[(slice(None),) * axis + (slice(1, None),)],
                                         x[(slice(None),) * axis + (slice(0, 1),)]], axis),
    "slice": lambda x, axis, start, step: x[(slice(None),) * axis + (slice(start, None, step),)],
    "backwards": lambda x, axis, step: x[(slice(None),) * axis + (slice(None, None, step),)],
    "at": lambda x, axis, index: x[(slice(None),) * axis + (index,)],
    "last": lambda x, axis: x[(slice(None),) * axis + (x.shape[axis] - 1,)],
    "joined": lambda x, y, axis: nd.concat([x, y], axis),
    "stacked": lambda x, y, axis: nd.stack([x, y], axis),
    "padded": lambda x, width, value: nd.pad(x, [width] * x.ndim, value),
    "tiled": lambda x, reps: nd.tile(x, reps),
    "repeated": lambda x, axis: nd.repeat(x, 2, axis),
    "spread": lambda x: nd.broadcast_to(x, (2, *x.shape)),
    "gram": lambda x: nd.matmul(x, x.swapaxes(-1, -2)),
    "transposed_product": lambda x, y: nd.matmul(x.swapaxes(-1, -2), y),
    "symmetric": _swapped_sum,
    "convolution": _conv,
    "one_hot": lambda i, depth: nd.one_hot(i, depth),
    "positions": lambda x, axis: x * nd.arange(x.shape[axis]).astype(x.dtype).reshape(
        tuple(-1 if i == axis else 1 for i in range(x.ndim))),
    "dropout": lambda x, rate: nd.dropout(x, rate),
    "state": _state,
}  # fmt: skip


# --- drawing ----------------------------------------------------------------------------------------------------------
class Drawer:
    """Draws one program; runs it eagerly while it grows, to know shapes and keep values small."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.lines: list[Line] = []
        self.values: list[nd.NDArray] = []
        self.letters: list[tuple[Any, ...] | None] = []  # of leaves

    def draw(self, length: int) -> tuple[Line, ...]:
        image = self.rng.random() < 0.25
        self.leaf(("a", "b", 6, 5) if image else self.shape())
        if self.rng.random() < 0.7:
            self.leaf(self.lines[0].attrs["shape"] if self.rng.random() < 0.6 else self.shape())
        attempts = 0
        while sum(not line.is_leaf for line in self.lines) < length and attempts < 20 * length:
            attempts += 1
            kind = self.pick([self.unary, self.unary, self.binary, self.binary, self.reduce, self.move, self.contract,
                              self.lookup, self.special])  # fmt: skip
            kind()
        return tuple(self.lines)

    # --- small choices ------------------------------------------------------------------------------------------------
    def pick(self, options: Any) -> Any:
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def shape(self) -> tuple[Any, ...]:
        dims = ["a", "b", "c", "d", 1, 2] + [0] * (self.rng.random() < 0.05)
        return tuple(self.pick(dims) for _ in range(self.pick([0, 1, 2, 2, 2, 3, 3, 4])))

    def some(self, rank: int | None = None) -> int:
        """A float value, rather a late one."""
        found = [i for i, v in enumerate(self.values) if v.dtype.kind == "f" and (rank is None or v.ndim >= rank)]
        if not found:
            return self.leaf(("a", "b", "c", "d")[: rank or 1])
        return found[-1 - min(int(self.rng.geometric(0.45)) - 1, len(found) - 1)]

    # --- growing ------------------------------------------------------------------------------------------------------
    def leaf(self, shape: tuple[Any, ...], below: Any = None) -> int:
        """A new leaf; adds it to the program even if nothing uses it."""
        self.lines.append(Line(self.pick(["argument", "argument", "captured"]), (), {"shape": shape, "below": below}))
        self.values.append(Program(tuple(self.lines), ()).leaves(1, SIZES)[len(self.lines) - 1])
        return len(self.lines) - 1

    def add(self, op: str, *inputs: int, **attrs: Any) -> bool:
        """Adds a line if it runs and its values stay finite and small."""
        copies = [nd.NDArray(self.values[i].asnumpy()) for i in inputs]
        try:
            out = APPLY[op](*copies, **attrs)
        except (ValueError, TypeError, IndexError):
            return False
        data = out.asnumpy()
        if data.size > 6000 or not np.isfinite(data).all() or (data.dtype.kind == "f" and np.abs(data).max(initial=0) > LARGE):
            return False
        self.lines.append(Line(op, inputs, attrs))
        self.values.append(out)
        return True

    def unary(self) -> None:
        op = self.pick(["tanh", "sigmoid", "relu", "abs", "square", "negative", "erf", "gelu", "silu", "softplus", "sin", "cos",
                        "exp", "sqrt", "log", "rsqrt", "clip", "mask", "as_number", "floored", "leaky_relu", "number",
                        "power", "centred", "symmetric"])  # fmt: skip
        attrs: dict[str, Any] = {}
        if op == "number":
            attrs = {"sign": self.pick("+-*/"), "number": self.pick([2, 0.5, -1.25, 1, 3])}
        if op == "power":
            attrs = {"exponent": self.pick([2, 3, 0.5, -1, 1.5])}
        self.add(op, self.some(), **attrs)

    def binary(self) -> None:
        x = self.some()
        op = self.pick(["add", "subtract", "multiply", "maximum", "minimum", "divide", "choose"])
        y = self.some()
        if self.rng.random() < 0.5 or not self.add(op, x, y):
            self.add(op, *self.pick([(x, self.like(x)), (self.like(x), x)]))

    def like(self, x: int) -> int:
        """A new leaf that broadcasts with value x: some of its dimensions are 1, leading ones may be missing."""
        shape = self.values[x].shape
        letters = {v: k for k, v in SIZES.items()}
        dims = [1 if self.rng.random() < 0.3 else letters.get(s, s) for s in shape]
        return self.leaf(tuple(dims[self.pick([0, 0, 0, len(dims) // 2, len(dims)]) :]))

    def reduce(self) -> None:
        x = self.some()
        rank = self.values[x].ndim
        axes = [a for a in range(rank) if self.rng.random() < 0.5]
        axis: Any = self.pick([None, tuple(axes), -1, 0]) if rank else None
        self.add(self.pick(["sum", "mean", "mean", "max", "min", "var"]), x, axis=axis, keepdims=bool(self.rng.random() < 0.4))

    def move(self) -> None:
        x = self.some()
        rank = self.values[x].ndim
        axis = int(self.rng.integers(max(1, rank)))
        options: list[tuple[str, dict[str, Any]]] = [
            ("permute", {"axes": tuple(int(i) for i in self.rng.permutation(rank))}),
            ("permute", {"axes": tuple(int(i) for i in self.rng.permutation(rank))}),
            ("merge", {"axis": axis}),
            ("flatten", {}),
            ("expand_dims", {"axis": axis}),
            ("flip", {"axis": axis}),
            ("halves", {"axis": axis}),
            ("slice", {"axis": axis, "start": self.pick([None, 1, -2]), "step": self.pick([None, 2])}),
            ("backwards", {"axis": axis, "step": self.pick([-1, -2, 2])}),
            ("at", {"axis": axis, "index": self.pick([0, 1, -1])}),
            ("last", {"axis": axis}),
            ("padded", {"width": self.pick([(1, 0), (0, 2), (1, 1)]), "value": self.pick([0.0, 0.0, 1.5])}),
            ("tiled", {"reps": self.pick([2, (2, 1), (1, 2)])}),
            ("repeated", {"axis": axis}),
            ("spread", {}),
            ("by_size", {"axis": axis}),
            ("positions", {"axis": axis}),
        ]
        op, attrs = self.pick(options)
        if self.rng.random() < 0.25:
            self.add(self.pick(["joined", "stacked"]), x, self.some(), axis=axis)
        else:
            self.add(op, x, **attrs)

    def contract(self) -> None:
        x = self.some(2)
        shape = self.values[x].shape
        letters = {v: k for k, v in SIZES.items()}
        what = self.pick(["matmul", "matmul", "batched", "gram", "transposed", "conv", "pool"])
        if what in ("conv", "pool"):
            x = next((i for i in reversed(range(len(self.values))) if self.values[i].ndim == 4), x)
            if self.values[x].ndim != 4:
                return
            if what == "pool":
                window = {"kernel": self.pick([2, 3, (2, 1)]), "stride": self.pick([None, 1, 2]), "pad": self.pick([0, 0, 1])}
                self.add(self.pick(["max_pool", "average_pool"]), x, **window, ceil_mode=bool(self.rng.random() < 0.3))
                return
            channels = self.values[x].shape[1]
            groups = self.pick([1, 1, channels])
            kernel = self.pick([(1, 1), (3, 3), (2, 3)])
            weight = self.leaf((self.pick([channels, 2 * channels]), letters.get(channels // groups, channels // groups), *kernel))
            attrs = {"stride": self.pick([1, 1, 2]), "pad": self.pick([0, 1]), "dilation": self.pick([1, 1, 2]), "groups": groups}
            self.add("convolution", x, weight, **attrs)
        elif what == "gram":
            self.add("gram", x)
        elif what == "transposed":
            self.add("transposed_product", x, self.some(2))
        else:
            inner = letters.get(shape[-1], shape[-1])
            lead = () if what == "matmul" or len(shape) < 3 else tuple(letters.get(s, s) for s in shape[:-2])
            self.add("matmul", x, self.leaf((*lead, inner, self.pick(["a", "b", "c", "d", 1, 20]))))

    def lookup(self) -> None:
        x = self.some(1)
        shape = self.values[x].shape
        axis = int(self.rng.integers(len(shape)))
        letters = {v: k for k, v in SIZES.items()}
        limit = letters.get(shape[axis], shape[axis])
        if shape[axis] == 0:
            return
        what = self.pick(["take", "take", "pick", "argmax", "one_hot"])
        if what == "take":
            self.add("take", x, self.leaf(self.pick([("b",), ("a", 2), ()]), below=limit), axis=axis)
        elif what == "pick" and shape[-1]:
            lead = tuple(letters.get(s, s) for s in shape[:-1])
            self.add("pick", x, self.leaf(lead, below=letters.get(shape[-1], shape[-1])))
        elif what == "one_hot":
            self.add("one_hot", self.leaf(("a",), below=3), depth=4)
        else:
            self.add("argmax", x, axis=axis)

    def special(self) -> None:
        x = self.some(1)
        axis = int(self.rng.integers(self.values[x].ndim))
        op = self.pick(["softmax", "log_softmax", "normal", "row_ratio", "dropout", "state"])
        if op in ("softmax", "log_softmax", "normal"):
            self.add(op, x, axis=axis)
        elif op == "dropout":
            self.add(op, x, rate=0.3)
        elif op == "state":
            state = self.leaf(("b",))
            self.lines[state] = replace(self.lines[state], op="captured")
            self.add(op, x, state)
        else:
            self.add(op, x)


def draw(rng: np.random.Generator, length: int = 8, name: str = "") -> Program:
    """A random program with one to three results, all values that no other line reads among the choices."""
    lines = Drawer(rng).draw(length)
    used = {j for line in lines for j in line.inputs}
    ends = [i for i, line in enumerate(lines) if i not in used and not line.is_leaf] or [len(lines) - 1]
    others = [i for i, line in enumerate(lines) if i in used and not line.is_leaf]
    results = ends[-2:] + ([others[int(rng.integers(len(others)))]] if others and rng.random() < 0.3 else [])
    return pruned(Program(lines, tuple(results), name))


# --- shrinking --------------------------------------------------------------------------------------------------------
def pruned(program: Program) -> Program:
    """Without the lines that the results do not need; argument order stays."""
    needed = set(program.results)
    for i in reversed(range(len(program.lines))):
        if i in needed:
            needed.update(program.lines[i].inputs)
    number = {old: new for new, old in enumerate(sorted(needed))}
    lines = tuple(replace(program.lines[i], inputs=tuple(number[j] for j in program.lines[i].inputs)) for i in sorted(needed))
    return Program(lines, tuple(number[i] for i in program.results), program.name)


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A smaller program that fails too: fewer results, lines replaced by leaves of the same shape, inputs by each other."""
    improved = True
    while improved:
        improved = False
        for candidate in _smaller(program):
            if len(candidate.lines) <= len(program.lines) and candidate != program and fails(candidate):
                program, improved = candidate, True
                break
    return program


def _smaller(program: Program) -> Any:
    for result in dict.fromkeys((*program.results, *(i for i, line in enumerate(program.lines) if not line.is_leaf))):
        if program.results != (result,):
            yield pruned(replace(program, results=(result,)))
    values = _shapes(program)
    for i, line in reversed(list(enumerate(program.lines))):
        shape, kind = values.get(i, ((), "f"))
        if not line.is_leaf and kind == "f" and i not in program.results:
            leaf = Line("argument", (), {"shape": shape, "below": None})
            yield pruned(replace(program, lines=(*program.lines[:i], leaf, *program.lines[i + 1 :])))
        if not line.is_leaf and len(line.inputs) == 1 and i not in program.results:
            yield pruned(_redirected(program, i, line.inputs[0]))


def _redirected(program: Program, old: int, new: int) -> Program:
    lines = tuple(replace(line, inputs=tuple(new if j == old else j for j in line.inputs)) for line in program.lines)
    return replace(program, lines=lines)


def _shapes(program: Program) -> dict[int, tuple[Shape, str]]:
    everything = replace(program, results=tuple(range(len(program.lines))))
    try:
        return {i: (v.shape, v.dtype.kind) for i, v in enumerate(everything.call(everything.leaves(1, SIZES)))}
    except (ValueError, TypeError, IndexError):
        return {}
