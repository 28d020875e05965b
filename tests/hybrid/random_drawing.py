"""Drawing random programs: `draw` makes one from a random generator.

A program grows line by line and runs while it grows, so its drawer knows shapes and keeps values small.

Deliberately not here: what lines do (`random_lines.py`), programs as data (`random_programs.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from conftest import SEED
from hybrid.random_lines import APPLY, BINARY, RARER, RARER_PAIRS, UNARY
from hybrid.random_programs import LETTERS, REFUSALS, SIZES, Line, Program, Shape, leaf_of, pruned, swept

from gluonish import autograd, nd
from gluonish.hybrid import compile_function
from gluonish.hybrid.variant import Variant

LARGE = 50.0  # what a value may reach
COUNT = 6000  # elements of one value


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
            rarer = [self.compose, self.whole, self.scan, self.order, self.scatter, self.attend, self.recurrent]
            self.pick([*kinds, *kinds, *rarer, *([self.control] * 2 if self.depth < 2 else [])])()

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
        self.values.append(leaf_of(line, [1, len(self.lines)], SIZES, "float32"))
        return len(self.lines) - 1

    def add(self, op: str, *inputs: int, **attrs: Any) -> bool:
        """Adds a line if it runs, and its values stay few, finite and small."""
        try:
            out = APPLY[op](*[self.values[i].copy() for i in inputs], **attrs)
        except REFUSALS:
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
        elif self.chance(0.4):
            self.add(self.pick(RARER), self.some())
        else:
            self.add(self.pick(UNARY), self.some())

    def binary(self) -> None:
        op, x, y = self.pick(RARER_PAIRS if self.chance(0.25) else BINARY), self.some(), self.some()
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
        if self.chance(0.15):
            op = self.pick(["truths", "length", "log_sum"])
            self.add(op, x, axis=axis, **({"every": self.chance(0.5)} if op == "truths" else {}))
            return
        op = self.pick(["sum", "mean", "mean", "max", "min", "var", "std", "prod"])
        self.add(op, x, axis=axis, keepdims=self.chance(0.4))

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
            ("parted", {"axis": axis}),
            ("squeezed", {}),
            ("reflected", {}),
            ("roll", {"shift": self.pick([1, -2]), "axis": axis}),
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
        what = self.pick(["matmul", "matmul", "batched", "gram", "transposed_product", "vector", "signal"])
        if what == "gram":
            self.add(what, x)
        elif what == "vector":
            self.add("matmul", x, self.leaf(shape[-1:]))
        elif what == "signal":
            self.signal(x)
        elif what == "transposed_product":
            self.add(what, x, self.some(2))
        else:
            lead = shape[:-2] if what == "batched" else ()
            self.add("matmul", x, self.leaf((*lead, shape[-1], self.pick(["a", "b", "c", "d", 1, 20]))))

    def signal(self, x: int) -> None:
        """Convolution and pooling along one direction, and over volumes."""
        shape = self.values[x].shape
        if len(shape) == 4:
            weight = self.leaf((4, shape[1], 2, self.pick([1, 2, 3]), 2))
            self.add("volume", x, weight, pad=self.pick([0, 1]))
        elif len(shape) == 3 and self.chance(0.3):
            self.add(self.pick(["max_pool", "average_pool"]), x, kernel=2, stride=self.pick([1, 2]), pad=0)
        elif len(shape) == 3:
            weight = self.leaf((self.pick([4, "c"]), shape[1], self.pick([1, 2, 3])))
            self.add("convolution", x, weight, stride=self.pick([1, 2]), pad=self.pick([0, 1]))

    def window(self, x: int) -> None:
        if self.chance(0.15):
            self.add("resize", x, scale=self.pick([2, 0.5, 1.5]), mode=self.pick(["bilinear", "nearest"]))
            return
        if self.chance(0.2):
            weight = self.leaf((self.values[x].shape[1], self.pick([1, 3]), *self.pick([(2, 2), (3, 3), (1, 2)])))
            self.add("convolution_transpose", x, weight, stride=self.pick([1, 2]), pad=self.pick([0, 1]))
            return
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
        bias = [self.leaf((outputs,))] if self.chance(0.3) else []
        self.add("convolution", x, weight, *bias, groups=groups, **attrs)

    def lookup(self) -> None:
        x = self.some(1)
        shape, axis = self.values[x].shape, self.axis(x)
        limits = tuple(LETTERS.get(s, s) for s in shape)
        what = self.pick(["take", "take", "take_back", "pick", "argmax", "argmin", "one_hot", "along", "points"])
        if what in ("take", "take_back") and shape[axis]:
            self.add(what, x, self.leaf(self.pick([("b",), ("a", 2), ()]), below=limits[axis]), axis=axis)
        elif what == "along" and shape[axis]:
            places = self.leaf((*shape[:axis], self.pick([1, 2, "c"]), *shape[axis + 1 :]), below=limits[axis])
            self.add("take_along_axis", x, places, axis=axis)
        elif what == "points" and len(shape) > 1 and 0 not in shape[:2]:
            self.add(what, x, self.leaf(("a",), below=limits[0]), self.leaf(("a",), below=limits[1]))
        elif what == "pick" and shape[-1]:
            self.add(what, x, self.leaf(shape[:-1], below=limits[-1]))
        elif what in ("argmax", "argmin"):
            self.add(what, x, axis=axis)
        elif what == "one_hot":
            self.add(what, self.leaf(("a",), below=3), depth=4)

    def whole(self) -> None:
        """Integers, and floats of other widths."""
        found = [i for i, v in enumerate(self.values) if v.dtype.kind in "iu" and not self.lines[i].is_leaf]
        if not found or self.chance(0.3):
            op = self.pick(["whole", "whole", "whole", "byte", "double", "narrow"])
            dtypes = {"whole": ["int32", "int64"], "byte": ["int8", "uint8"], "narrow": ["float16", "bfloat16"]}
            self.add(op, self.some(), **({"dtype": self.pick(dtypes[op])} if op in dtypes else {}))
            return
        i = self.pick(found)
        self.pick([
            lambda: self.add("weighted", i, self.some()),
            lambda: self.add("whole_number", i, sign=self.pick("+ * // % -".split()), number=self.pick([2, 3, -5])),
            lambda: self.add("whole_pair", i, self.pick(found), sign=self.pick("+ - min max // where < ==".split())),
            lambda: self.add("whole_product", i),
            lambda: self.add(self.pick(["sum", "max", "min"]), i, axis=self.pick([None, 0, -1]), keepdims=True),
        ])()  # fmt: skip

    def scan(self) -> None:
        x = self.some(1)
        attrs = {"axis": self.axis(x), "reverse": self.chance(0.3)}
        if self.chance(0.3):
            self.add("recurrence", x, self.leaf(self.values[x].shape), **attrs)
        else:
            self.add("cumulative", x, kind=self.pick(["sum", "sum", "prod", "max", "min"]), **attrs)

    def order(self) -> None:
        x = self.some(1)
        what, axis = self.pick(["sort", "ranked", "top", "top_places", "placed"]), self.axis(x)
        if what == "sort":
            self.add(what, x, axis=axis, descending=self.chance(0.4))
        elif what == "top":
            self.add(what, x, k=self.pick([1, 2, 3]), axis=axis, largest=self.chance(0.6))
        elif what == "placed":
            self.add(what, x, self.leaf(("c",)))
        else:
            self.add(what, x, axis=axis)

    def scatter(self) -> None:
        x = self.some(1)
        shape, axis = self.values[x].shape, self.axis(x)
        below = LETTERS.get(shape[axis], shape[axis])
        what = self.pick(["index_add", "index_update", "put_along_axis", "scatter_add", "kept"])
        if what == "kept" and len(shape) > 1:
            cache = self.leaf((*shape[:-2], 30, shape[-1]), op="captured")
            self.add(what, x, cache, self.leaf((), below=3))
        elif what in ("index_add", "index_update") and shape[axis]:
            values = self.leaf((*shape[:axis], "b", *shape[axis + 1 :]))
            self.add(what, x, self.leaf(("b",), below=below), values, axis=axis)
        elif what != "kept" and shape[axis]:
            places = (*shape[:axis], self.pick([1, 2, "c"]), *shape[axis + 1 :])
            self.add(what, x, self.leaf(places, below=below), self.leaf(places), axis=axis)

    def attend(self) -> None:
        x = self.some(2)
        *lead, length, depth = self.values[x].shape
        what, causal = self.pick(["attend", "attend", "attend_masked", "attend_self"]), self.chance(0.4)
        if what == "attend_self":
            self.add(what, x, causal=causal)
            return
        keys = self.pick(["b", "c", length])
        lead = lead if self.chance(0.6) else []
        key, value = self.leaf((*lead, keys, depth)), self.leaf((*lead, keys, self.pick([depth, "d"])))
        mask = [self.leaf((length, keys))] if what == "attend_masked" else []
        self.add(what, x, key, value, *mask, causal=causal)

    def recurrent(self) -> None:
        found = [i for i, v in enumerate(self.values) if v.ndim == 3 and v.dtype.kind == "f"]
        if not found and self.chance(0.8):
            return
        x = found[-1] if found else self.leaf(("a", "b", "c"))
        steps, rows, inputs = self.values[x].shape
        kind, units = self.pick(["lstm", "gru", "rnn"]), self.pick([1, 3, 9])
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[kind] * units
        leaves = [self.leaf(shape) for shape in ((gates, inputs), (gates, units), (gates,), (gates,))]
        lengths = [self.leaf((rows,), below=LETTERS.get(steps, steps))] if self.chance(0.4) and steps else []
        self.add("recurrent", x, *leaves, *lengths, kind=kind, reverse=self.chance(0.4))

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
            then = Body(self, [self.values[x]], ("dropout", "noise"))  # of which both must draw equally many
            then.grow(1 + self.pick(range(2)))
            other = Body(self, [self.values[x], *(self.values[i] for i in then.outer)], ("dropout", "noise"))
            other.grow(1 + self.pick(range(2)))
            inputs = (x, *then.outer, *other.outer)
            own = [Line("argument", (), {"shape": (), "below": None}) for _ in other.outer]
            first = then.program(1)  # it takes what the other reads too
            first = replace(first, lines=(*first.lines, *own))
            self.add(what, choice, *inputs, then=first, otherwise=other.program(1))

    def compose(self) -> None:
        x = self.some(1)
        op = self.pick(
            ["softmax", "log_softmax", "normal", "row_ratio", "dropout", "state", "batch_norm", "affine", "loss"]
        )
        if op in ("softmax", "log_softmax", "normal"):
            self.add(op, x, axis=self.axis(x))
        elif op == "dropout":
            self.add(op, x, rate=0.3)
        elif op == "state":
            self.add(op, x, self.leaf(("b",), op="captured"))
        elif op == "affine":
            self.add(op, x, *[self.leaf(self.values[x].shape[-1:], op="captured") for _ in range(2)])
        elif op == "loss":
            shape = self.values[x].shape
            if shape[-1]:
                self.add("cross_entropy", x, self.leaf(shape[:-1], below=LETTERS.get(shape[-1], shape[-1])))
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
        return swept(Program(tuple(self.lines), tuple(self.some() for _ in range(results))))


def traced(number: int, count: int) -> Iterator[tuple[Program, Variant, list[nd.NDArray]]]:
    """Random programs with the variants that their arguments get, most of them recorded."""
    for s in range(count):
        program = draw(np.random.default_rng([number, SEED, s]), 5 + s % 12, f"draw([{number}, {SEED}, {s}])")
        leaves = program.leaves(s, SIZES)
        for i, x in leaves.items():
            if x.dtype.kind == "f" and i not in program.states():
                x.attach_grad()
        arguments = [leaves[i] for i in program.places("argument")]
        with autograd.record() if s % 3 else autograd.pause():
            variant = compile_function(program.function(leaves)).variant_for(*arguments)
        yield program, variant, arguments


def draw(rng: np.random.Generator, length: int = 8, name: str = "") -> Program:
    """A random program; its results are one or two last values, sometimes with one from the middle."""
    lines = Drawer(rng).draw(length)
    used = {j for line in lines for j in line.inputs}
    others = [i for i, line in enumerate(lines) if not line.is_leaf]
    ends = [i for i in others if i not in used] or [len(lines) - 1]
    middle = [others[int(rng.integers(len(others)))]] if others and rng.random() < 0.3 else []
    return pruned(Program(lines, (*ends[-2:], *middle), name))
