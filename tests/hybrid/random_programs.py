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

from gluonish import nd

Shape = tuple[Any, ...]  # sizes, or letters that stand for them
SIZES = {"a": 5, "b": 3, "c": 7, "d": 4}
LETTERS = {size: letter for letter, size in SIZES.items()}
BODIES = ("body", "then", "otherwise")
LARGE = 50.0  # what a value may reach
COUNT = 6000  # elements of one value


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
        found = {self.lines[i].inputs[1] for i in self.places("state")}
        for line in self.lines:
            for body in line.bodies().values():
                arguments = body.places("argument")
                found |= {line.inputs[len(line.inputs) - len(arguments) + arguments.index(i)] for i in body.states()}
        return found

    def leaves(self, seed: int, sizes: dict[str, int], dtype: str = "float32") -> dict[int, nd.NDArray]:
        """Arrays for the leaves: numbers between -1 and 1, or indices. A seed gives the same values in any dtype."""
        return {i: _leaf(line, [seed, i], sizes, dtype) for i, line in enumerate(self.lines) if line.is_leaf}

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


def _leaf(line: Line, seed: list[int], sizes: dict[str, int], dtype: str) -> nd.NDArray:
    rng = np.random.default_rng(seed)
    shape = tuple(sizes.get(s, s) for s in line.attrs["shape"])
    below = line.attrs["below"]
    if below is None:
        return nd.NDArray(np.asarray(rng.uniform(-1, 1, shape), dtype))
    return nd.NDArray(np.asarray(rng.integers(0, sizes.get(below, below), shape), "int64"))


# --- what lines do ---------------------------------------------------------------------------------------------------
def _merge(x: nd.NDArray, axis: int) -> nd.NDArray:
    s = x.shape
    return x.reshape((*s[:axis], s[axis] * s[axis + 1], *s[axis + 2 :]))


def _along(axis: int, *parts: Any) -> tuple[Any, ...]:
    return (slice(None),) * axis + parts


def _halves(x: nd.NDArray, axis: int) -> nd.NDArray:
    return nd.concat([x[_along(axis, slice(1, None))], x[_along(axis, slice(0, 1))]], axis)


def _centred(x: nd.NDArray) -> nd.NDArray:
    """Where x is square, the means of the rows are taken from the columns: so broadcasting has it."""
    return x - x.mean(-1) if x.ndim == 2 and x.shape[0] == x.shape[1] else x - x.mean()


def _symmetric(x: nd.NDArray) -> nd.NDArray:
    return x + x.swapaxes(-1, -2) if x.shape[-1] == x.shape[-2] else x


def _positions(x: nd.NDArray, axis: int) -> nd.NDArray:
    steps = nd.arange(x.shape[axis]).astype(x.dtype)
    return x * steps.reshape(tuple(-1 if i == axis else 1 for i in range(x.ndim)))


def _state(x: nd.NDArray, state: nd.NDArray) -> nd.NDArray:
    state[:] = state * 0.5 + x.detach().mean()
    return x * state.mean()


# --- control flow: what the bodies read beside slices and states are closures -----------------------------------------
def _settled(state: nd.NDArray, new: nd.NDArray) -> nd.NDArray:
    """A new state in the shape and dtype of the old one."""
    new = new.astype(state.dtype)
    if new.shape == state.shape:
        return nd.tanh(state * 0.5 + new)
    return state * 0.5 + nd.tanh(new.mean())


def _given(outputs: nd.NDArray, last: nd.NDArray, give: str) -> nd.NDArray:
    return {"outputs": outputs, "last": last, "both": outputs + nd.tanh(last.mean())}[give]


def _foreach(x: nd.NDArray, state: nd.NDArray, *others: nd.NDArray, body: Program, give: str) -> nd.NDArray:
    run = body.function({})

    def step(part: nd.NDArray, state: nd.NDArray) -> Any:
        out, new = run(part, state, *others)
        return out, _settled(state, new)

    return _given(*nd.foreach(step, x, state), give)


def _while(count: nd.NDArray, state: nd.NDArray, *others: nd.NDArray, body: Program, give: str) -> nd.NDArray:
    run = body.function({})

    def step(i: nd.NDArray, state: nd.NDArray) -> Any:
        out, new = run(state, *others)
        return out, (i + 1, _settled(state, new))

    outputs, (_, last) = nd.while_loop(lambda i, s: i < count, step, (count * 0, state), 3)
    return _given(outputs, last, give)


def _cond(choice: nd.NDArray, *others: nd.NDArray, then: Program, otherwise: Program) -> nd.NDArray:
    first, second = then.function({}), otherwise.function({})
    x = others[0]
    return nd.cond(choice > 0, lambda: _settled(x, first(*others)[0]), lambda: _settled(x, second(*others)[0]))


UNARY = (
    "tanh sigmoid relu abs square negative erf gelu silu softplus sin cos leaky_relu exp sqrt log rsqrt clip mask "
    "as_number floored counted centred symmetric"
).split()
BINARY = "add subtract multiply maximum minimum divide choose".split()
NAMED = (
    "tanh sigmoid relu abs square negative erf gelu silu softplus sin cos leaky_relu add subtract multiply maximum "
    "minimum matmul softmax log_softmax expand_dims flip sum mean max min var argmax take pick one_hot max_pool "
    "average_pool convolution dropout tile pad"
).split()
APPLY: dict[str, Callable[..., nd.NDArray]] = {
    **{name: getattr(nd, name) for name in NAMED},
    # elementwise, kept away from poles
    "exp": lambda x: nd.exp(nd.minimum(x, 2.0)),
    "sqrt": lambda x: nd.sqrt(nd.abs(x) + 0.5),
    "log": lambda x: nd.log(nd.abs(x) + 0.5),
    "rsqrt": lambda x: nd.rsqrt(nd.square(x) + 0.5),
    "divide": lambda x, y: x / (nd.abs(y) + 0.5),
    "power": lambda x, exponent: nd.power(nd.abs(x) + 0.5, exponent),
    "number": lambda x, sign, number: {"+": x + number, "-": number - x, "*": x * number, "/": x / number}[sign],
    "by_size": lambda x, axis: x / x.shape[axis],
    "clip": lambda x: nd.clip(x, -0.5, 0.75),
    "choose": lambda x, y: nd.where(x > y, x * 2, y),
    "mask": lambda x: nd.where((x > 0.25) | (x < -0.5), x, 0.0),
    "as_number": lambda x: (x > 0.1).astype(x.dtype) * 0.5,
    "floored": lambda x: nd.floor(x * 3).astype("int32").astype(x.dtype),
    "counted": lambda x: ((x * 5).astype("int64") % 3 + 1 // 2).astype(x.dtype) * x,
    # other dtypes
    "whole": lambda x, dtype: nd.floor(x * 4 + 0.37).astype(dtype),
    "double": lambda x: x.astype("float64") * 1.25,
    "weighted": lambda i, x: i.astype(x.dtype) * x * 0.125,
    "whole_number": lambda i, sign, number: {
        "+": i + number,
        "*": i * number,
        "//": i // number,
        "%": i % number,
        "-": number - i,
    }[sign],
    "whole_pair": lambda i, j, sign: {
        "+": i + j,
        "-": i - j,
        "min": nd.minimum(i, j),
        "max": nd.maximum(i, j),
        "//": i // (abs(j) + 1),
        "where": nd.where((i > j) & (i != 3), i, j),
        "<": (i < j).astype(i.dtype),
        "==": (i == j).astype("int64"),
    }[sign],
    # compositions
    "normal": lambda x, axis: (x - x.mean(axis, keepdims=True)) * nd.rsqrt(x.var(axis, keepdims=True) + 0.1),
    "centred": _centred,
    "row_ratio": lambda x: x.sum(-1) / (nd.abs(x).sum(-1) + 1.0),
    "symmetric": _symmetric,
    "positions": _positions,
    "state": _state,
    "batch_norm": lambda x, mean, var, gamma: (x - mean) * (nd.rsqrt(nd.abs(var) + 0.1) * gamma) + mean,
    # moves
    "permute": lambda x, axes: nd.permute_dims(x, axes),
    "merge": _merge,
    "flatten": lambda x: x.reshape((-1,)),
    "halves": _halves,
    "slice": lambda x, axis, start, step: x[_along(axis, slice(start, None, step))],
    "backwards": lambda x, axis, step: x[_along(axis, slice(None, None, step))],
    "at": lambda x, axis, index: x[_along(axis, index)],
    "last": lambda x, axis: x[_along(axis, x.shape[axis] - 1)],
    "half": lambda x, axis: x[_along(axis, slice(x.shape[axis] // 2, None))],
    "joined": lambda x, y, axis: nd.concat([x, y], axis),
    "stacked": lambda x, y, axis: nd.stack([x, y], axis),
    "padded": lambda x, width, value: nd.pad(x, [width] * x.ndim, value),
    "repeated": lambda x, axis: nd.repeat(x, 2, axis),
    "spread": lambda x: nd.broadcast_to(x, (2, *x.shape)),
    # control flow
    "foreach": _foreach,
    "while_loop": _while,
    "cond": _cond,
    # products
    "gram": lambda x: nd.matmul(x, x.swapaxes(-1, -2)),
    "transposed_product": lambda x, y: nd.matmul(x.swapaxes(-1, -2), y),
}


# --- drawing ---------------------------------------------------------------------------------------------------------
class Drawer:
    """Draws one program; runs it eagerly while it grows, to know shapes and to keep values small."""

    depth = 0  # of loops and branches around it
    without: tuple[str, ...] = ()  # ops that may not be drawn

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.lines: list[Line] = []
        self.values: list[nd.NDArray] = []

    def draw(self, length: int) -> tuple[Line, ...]:
        """Leaves and `length` other lines, or fewer where nothing fits any more."""
        self.leaf(("a", "b", 6, 5) if self.chance(0.25) else self.shape())
        if self.chance(0.7):
            self.leaf(self.lines[0].attrs["shape"] if self.chance(0.6) else self.shape())
        self.grow(length)
        return tuple(self.lines)

    def grow(self, length: int) -> None:
        """Adds lines until there are `length` beside the leaves, or nothing fits any more."""
        kinds = [self.unary, self.unary, self.binary, self.binary, self.reduce, self.move, self.contract, self.lookup]
        for _ in range(20 * length):
            if sum(not line.is_leaf for line in self.lines) >= length:
                break
            self.pick([*kinds, self.compose, self.whole, *([self.control] if self.depth < 2 else [])])()

    # --- small choices -----------------------------------------------------------------------------------------------
    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, options: Any) -> Any:
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def shape(self) -> Shape:
        dims = ["a", "b", "c", "d", 1, 2, *([0] if self.chance(0.05) else [])]
        return tuple(self.pick(dims) for _ in range(self.pick([0, 1, 2, 2, 2, 3, 3, 4])))

    def some(self, rank: int = 0) -> int:
        """A float value of that rank at least, rather a late one; a new leaf where there is none."""
        found = [i for i, v in enumerate(self.values) if v.dtype.kind == "f" and v.ndim >= rank]
        if not found:
            return self.leaf(("a", "b", "c", "d")[:rank])
        return int(found[-1 - min(int(self.rng.geometric(0.45)) - 1, len(found) - 1)])

    def axis(self, x: int) -> int:
        return int(self.rng.integers(max(1, self.values[x].ndim)))

    # --- growing -----------------------------------------------------------------------------------------------------
    def leaf(self, shape: Shape, below: Any = None, op: str = "") -> int:
        """A new leaf; where a size is one of SIZES, it is meant."""
        shape = tuple(LETTERS.get(s, s) for s in shape)
        line = Line(op or self.pick(["argument", "argument", "captured"]), (), {"shape": shape, "below": below})
        self.lines.append(line)
        self.values.append(_leaf(line, [1, len(self.lines)], SIZES, "float32"))
        return len(self.lines) - 1

    def add(self, op: str, *inputs: int, **attrs: Any) -> bool:
        """Adds a line if it runs, and its values stay few, finite and small."""
        try:
            out = APPLY[op](*[self.values[i].copy() for i in inputs], **attrs)
        except (ValueError, TypeError, IndexError):
            return False
        data = out.asnumpy()
        if data.size > COUNT or (data.dtype.kind in "fi" and not np.all(np.abs(data) < LARGE)):
            return False
        self.lines.append(Line(op, inputs, attrs))
        self.values.append(out)
        return True

    def unary(self) -> None:
        if self.chance(0.2):
            self.add("number", self.some(), sign=self.pick("+-*/"), number=self.pick([2, 0.5, -1.25, 1, 3]))
        elif self.chance(0.1):
            self.add("power", self.some(), exponent=self.pick([2, 3, 0.5, -1, 1.5]))
        else:
            self.add(self.pick(UNARY), self.some())

    def binary(self) -> None:
        op, x, y = self.pick(BINARY), self.some(), self.some()
        if self.chance(0.5) or not self.add(op, x, y):
            other = self.like(x)
            self.add(op, *self.pick([(x, other), (other, x)]))

    def like(self, x: int) -> int:
        """A new leaf that broadcasts with value x: some of its dimensions are 1, leading ones may be missing."""
        dims = [1 if self.chance(0.3) else s for s in self.values[x].shape]
        return self.leaf(tuple(dims[self.pick([0, 0, 0, len(dims) // 2, len(dims)]) :]))

    def reduce(self) -> None:
        x = self.some()
        rank = self.values[x].ndim
        axes = tuple(a for a in range(rank) if self.chance(0.5))
        axis: Any = self.pick([None, axes, -1, 0]) if rank else None
        self.add(self.pick(["sum", "mean", "mean", "max", "min", "var"]), x, axis=axis, keepdims=self.chance(0.4))

    def move(self) -> None:
        x = self.some()
        axis = self.axis(x)
        if self.chance(0.2):
            self.add(self.pick(["joined", "stacked"]), x, self.some(), axis=axis)
            return
        order = tuple(int(i) for i in self.rng.permutation(self.values[x].ndim))
        options: list[tuple[str, dict[str, Any]]] = [
            ("permute", {"axes": order}),
            ("permute", {"axes": order}),
            *(
                (op, {"axis": axis})
                for op in "merge expand_dims flip halves last half repeated by_size positions".split()
            ),
            ("slice", {"axis": axis, "start": self.pick([None, 1, -2]), "step": self.pick([None, 2])}),
            ("backwards", {"axis": axis, "step": self.pick([-1, -2, 2])}),
            ("at", {"axis": axis, "index": self.pick([0, 1, -1])}),
            ("padded", {"width": self.pick([(1, 0), (0, 2), (1, 1)]), "value": self.pick([0.0, 0.0, 1.5])}),
            ("tile", {"reps": self.pick([2, (2, 1), (1, 2)])}),
            ("flatten", {}),
            ("spread", {}),
        ]
        op, attrs = self.pick(options)
        self.add(op, x, **attrs)

    def contract(self) -> None:
        images = [i for i, v in enumerate(self.values) if v.ndim == 4 and v.dtype.kind == "f"]
        if images and self.chance(0.5):
            self.window(images[-1])
            return
        x = self.some(2)
        shape = self.values[x].shape
        what = self.pick(["matmul", "matmul", "batched", "gram", "transposed_product"])
        if what == "gram":
            self.add(what, x)
        elif what == "transposed_product":
            self.add(what, x, self.some(2))
        else:
            lead = shape[:-2] if what == "batched" else ()
            self.add("matmul", x, self.leaf((*lead, shape[-1], self.pick(["a", "b", "c", "d", 1, 20]))))

    def window(self, x: int) -> None:
        if self.chance(0.4):
            kernel, stride, pad = self.pick([2, 3, (2, 1)]), self.pick([None, 1, 2]), self.pick([0, 0, 1])
            op = self.pick(["max_pool", "average_pool"])
            self.add(op, x, kernel=kernel, stride=stride, pad=pad, ceil_mode=self.chance(0.3))
            return
        channels = max(1, self.values[x].shape[1])
        groups = self.pick([1, 1, channels])
        outputs = self.pick([channels, 2 * channels, 4])
        weight = self.leaf((outputs, channels // groups, *self.pick([(1, 1), (3, 3), (2, 3)])))
        attrs = {"stride": self.pick([1, 1, 2]), "pad": self.pick([0, 1]), "dilation": self.pick([1, 1, 2])}
        self.add("convolution", x, weight, groups=groups, **attrs)

    def lookup(self) -> None:
        x = self.some(1)
        shape, axis = self.values[x].shape, self.axis(x)
        limits = tuple(LETTERS.get(s, s) for s in shape)
        what = self.pick(["take", "take", "pick", "argmax", "one_hot"])
        if what == "take" and shape[axis]:
            self.add(what, x, self.leaf(self.pick([("b",), ("a", 2), ()]), below=limits[axis]), axis=axis)
        elif what == "pick" and shape[-1]:
            self.add(what, x, self.leaf(shape[:-1], below=limits[-1]))
        elif what == "argmax":
            self.add(what, x, axis=axis)
        elif what == "one_hot":
            self.add(what, self.leaf(("a",), below=3), depth=4)

    def whole(self) -> None:
        """Integers, and floats of other widths."""
        found = [i for i, v in enumerate(self.values) if v.dtype.kind == "i" and not self.lines[i].is_leaf]
        if not found or self.chance(0.3):
            op = self.pick(["whole", "whole", "whole", "double"])
            self.add(op, self.some(), **({"dtype": self.pick(["int32", "int64"])} if op == "whole" else {}))
            return
        i = self.pick(found)
        self.pick([
            lambda: self.add("weighted", i, self.some()),
            lambda: self.add("whole_number", i, sign=self.pick("+ * // % -".split()), number=self.pick([2, 3, -5])),
            lambda: self.add("whole_pair", i, self.pick(found), sign=self.pick("+ - min max // where < ==".split())),
            lambda: self.add(self.pick(["sum", "max", "min"]), i, axis=self.pick([None, 0, -1]), keepdims=True),
        ])()  # fmt: skip

    def control(self) -> None:
        """A loop or a branch whose bodies are programs of their own."""
        what, x = self.pick(["foreach", "foreach", "while_loop", "cond"]), self.some()
        give = self.pick(["outputs", "last", "both"])
        if what == "foreach":
            along = self.some(1)
            if self.values[along].ndim == 0:
                return
            slices = self.values[along]
            body = Body(self, [slices[0] if slices.shape[0] else nd.zeros(slices.shape[1:]), self.values[x]])
            body.grow(1 + self.pick(range(3)))
            self.add(what, along, x, *body.outer, body=body.program(2), give=give)
        elif what == "while_loop":
            count = self.leaf((), below=4)
            body = Body(self, [self.values[x]])
            body.grow(1 + self.pick(range(3)))
            self.add(what, count, x, *body.outer, body=body.program(2), give=give)
        else:
            choice = self.leaf((), below=2)
            then = Body(self, [self.values[x]], ("dropout",))  # of which both must draw equally many
            then.grow(1 + self.pick(range(2)))
            other = Body(self, [self.values[x], *(self.values[i] for i in then.outer)], ("dropout",))
            other.grow(1 + self.pick(range(2)))
            inputs = (x, *then.outer, *other.outer)
            own = [Line("argument", (), {"shape": (), "below": None}) for _ in other.outer]
            first = then.program(1)  # it takes what the other reads too
            first = replace(first, lines=(*first.lines, *own))
            self.add(what, choice, *inputs, then=first, otherwise=other.program(1))

    def compose(self) -> None:
        x = self.some(1)
        op = self.pick(["softmax", "log_softmax", "normal", "row_ratio", "dropout", "state", "batch_norm"])
        if op in ("softmax", "log_softmax", "normal"):
            self.add(op, x, axis=self.axis(x))
        elif op == "dropout":
            self.add(op, x, rate=0.3)
        elif op == "state":
            self.add(op, x, self.leaf(("b",), op="captured"))
        elif op == "batch_norm":
            channels = (self.values[x].shape[-1],) if self.values[x].ndim < 4 else (self.values[x].shape[1], 1, 1)
            self.add(op, x, *[self.leaf(channels, op="captured") for _ in range(3)])
        else:
            self.add(op, x)


class Body(Drawer):
    """Draws the body of a loop or branch; the leaves that it wants become leaves outside, and inputs of its line."""

    def __init__(self, around: Drawer, values: list[nd.NDArray], without: tuple[str, ...] = ()) -> None:
        super().__init__(around.rng)
        self.around = around
        self.depth = around.depth + 1
        self.outer: list[int] = []
        self.without = around.without + without
        for value in values:
            self.lines.append(Line("argument", (), {"shape": value.shape, "below": None}))
            self.values.append(value)

    def leaf(self, shape: Shape, below: Any = None, op: str = "") -> int:
        self.outer.append(self.around.leaf(shape, below, op))
        self.lines.append(Line("argument", (), {"shape": shape, "below": below}))
        self.values.append(self.around.values[self.outer[-1]])
        return len(self.lines) - 1

    def add(self, op: str, *inputs: int, **attrs: Any) -> bool:
        return op not in self.without and super().add(op, *inputs, **attrs)

    def program(self, results: int) -> Program:
        """The program; its results are float values, rather late ones."""
        return _swept(Program(tuple(self.lines), tuple(self.some() for _ in range(results))))


def draw(rng: np.random.Generator, length: int = 8, name: str = "") -> Program:
    """A random program; its results are one or two last values, sometimes with one from the middle."""
    lines = Drawer(rng).draw(length)
    used = {j for line in lines for j in line.inputs}
    others = [i for i, line in enumerate(lines) if not line.is_leaf]
    ends = [i for i in others if i not in used] or [len(lines) - 1]
    middle = [others[int(rng.integers(len(others)))]] if others and rng.random() < 0.3 else []
    return pruned(Program(lines, (*ends[-2:], *middle), name))


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
        if i in values and values[i].dtype.kind == "f":
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
            yield _swept(replace(body, results=(*body.results[:position], earlier, *body.results[position + 1 :])))
    for i, line in enumerate(body.lines):
        if line.inputs and i not in body.results:
            yield _swept(_redirected(body, i, line.inputs[0]))
        for name, inner in line.bodies().items():
            for smaller in _smaller_bodies(inner):
                changed = replace(line, attrs={**line.attrs, name: smaller})
                yield replace(body, lines=(*body.lines[:i], changed, *body.lines[i + 1 :]))


def _swept(body: Program) -> Program:
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
    except (ValueError, TypeError, IndexError):
        return {}
