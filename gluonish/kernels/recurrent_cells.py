"""What a recurrent cell does with the sums of its recurrent product, forward and backward: emitters of intrinsics.

An intrinsic treats a block of rows (of the batch) and of units: it reads sums that the microkernel has just left in a
small buffer, and reads and writes the arrays where rows lie `row` bytes apart and planes (the blocks of gates, the
planes of a record) a given number of bytes. All addresses are those of the first row and unit of the block. What the
next step multiplies is put into `held` too, where vectors of the rows stand together (`recurrent_products.py`).

Deliberately not here: the walk through time and the products (`recurrent.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from gluonish.kernels import vector_math
from gluonish.kernels.lanes import I64, Lanes, i64, intrinsic_of, loop
from gluonish.kernels.value import Value, choose

FORWARD = (
    "sums", "gates", "gates_row", "gates_plane", "bias", "before", "after", "row", "plane", "rows", "units", "lengths",
    "time", "held", "held_step",
)  # fmt: skip
BACKWARD = (
    "sums", "given", "given_plane", "carried", "made", "made_row", "made_plane", "made_block", "before", "after", "row",
    "plane", "rows", "units", "lengths", "time", "held", "held_step", "held_plane",
)  # fmt: skip


class Kind(NamedTuple):
    """A cell; pure data, so that externals can have it.

    gates, states, planes (of a whole record): how many it has. biased: whether it has a recurrent bias. blocks: of
    gates in its gradient (the last one is that of the recurrent product). masked: whether rows have lengths.
    kept: forward, whether the planes for the gradient are written. given: backward, how many planes of gradients of
    the record there are. outputs: backward, whether instead there is that of the outputs.
    """

    name: str
    gates: int
    states: int
    planes: int
    biased: bool = False
    blocks: int = 1
    activation: str = ""
    masked: bool = False
    kept: bool = False
    given: int = 0
    outputs: bool = False


LSTM = Kind("lstm", 4, 2, 6)
GRU = Kind("gru", 3, 1, 5, True, 2)
RNN = Kind("rnn", 1, 1, 1)


def touches(kind: Kind, backward: bool) -> int:
    """How many vectors a cell touches for each vector of units, of arrays whose rows lie apart."""
    if backward:
        return (kind.given or kind.outputs) + max(1, kind.planes - 1) + 1 + kind.gates * kind.blocks
    return kind.gates + 1 + (kind.planes if kind.kept else kind.states)


def forward(dtype: str, lanes: int, width: int, kind: Kind) -> Any:
    """The intrinsic that makes the states behind a step; arguments: FORWARD. width: bytes of a row of sums."""
    return _intrinsic(FORWARD, _Forward, dtype, lanes, width, kind)


def backward(dtype: str, lanes: int, width: int, kind: Kind) -> Any:
    """The intrinsic that makes the gradients of a step's gates; arguments: BACKWARD. width: bytes of a row of sums."""
    return _intrinsic(BACKWARD, _Backward, dtype, lanes, width, kind)


def fetch_forward(dtype: str, lanes: int, width: int, kind: Kind) -> Any:
    """The intrinsic that lists the addresses that `forward` with the same arguments will touch, at `held`: the rows of
    a block are too many streams for the machine to foresee."""
    return _intrinsic(FORWARD, _Forward, dtype, lanes, width, kind, ahead=True)


def fetch_backward(dtype: str, lanes: int, width: int, kind: Kind) -> Any:
    """The same for `backward`."""
    return _intrinsic(BACKWARD, _Backward, dtype, lanes, width, kind, ahead=True)


def _intrinsic(
    names: tuple[str, ...], body: type[_Block], dtype: str, lanes: int, width: int, kind: Kind, ahead: bool = False
) -> Any:
    def emit(builder: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        block = body(Lanes(builder, dtype, lanes), dict(zip(names, arguments, strict=True)), width, Kind(*kind))
        block.walk(block.fetch if ahead else block.vector)

    return intrinsic_of(len(names), emit)


class _Block:
    """The loop over a block's rows and vectors; `a` are the arguments by name."""

    def __init__(self, lanes: Lanes, arguments: dict[str, Any], width: int, kind: Kind) -> None:
        self.lanes, self.b, self.a, self.width, self.kind = lanes, lanes.builder, arguments, width, kind
        self.mask: Any = None
        self.live: Any = None
        self.offsets: dict[str, Any] = {}
        self.turn: Any = None  # number of the vector in the block
        self.sums = 1  # vectors for each vector of units

    def walk(self, treat: Callable[[], None]) -> None:
        """Emits the loops around what is done with one vector of units of one row."""
        b, a, lanes = self.b, self.a, self.lanes
        vectors = b.sdiv(b.add(a["units"], i64(lanes.count - 1)), i64(lanes.count))

        def row(r: ir.Value, held: list[Any]) -> list[Any]:
            if self.kind.masked:
                length = lanes.integer(lanes.at(lanes.pointer(a["lengths"]), b.mul(r, i64(8))))
                self.live = b.icmp_signed("<", a["time"], length)

            def vector(v: ir.Value, held: list[Any]) -> list[Any]:
                self.turn = b.add(b.mul(r, vectors), v)
                self.mask = lanes.below(b.sub(a["units"], b.mul(v, i64(lanes.count))))
                vector = lanes.count * lanes.size
                shift = b.mul(v, i64(vector))
                sums = b.add(b.mul(r, i64(self.width)), b.mul(v, i64(vector * self.sums)))
                held = b.add(b.mul(v, a["held_step"]), b.mul(r, i64(vector)))
                self.offsets = {"sums": sums, "bias": shift, "held": held}
                for name, step in self.steps().items():
                    self.offsets[name] = b.add(b.mul(r, a[step]), shift)
                treat()
                return []

            return loop(b, vectors, [], vector)

        loop(b, a["rows"], [], row)

    def steps(self) -> dict[str, str]:
        """For the arrays with rows, the arguments with their steps."""
        raise NotImplementedError

    def vector(self) -> None:
        """Emits the cell."""
        raise NotImplementedError

    def touched(self) -> list[tuple[str, Any]]:
        """What the cell touches: arrays and planes."""
        raise NotImplementedError

    def fetch(self) -> None:
        """Emits the listing of what the cell touches."""
        b, touched = self.b, self.touched()
        for number, (array, plane) in enumerate(touched):
            place = b.add(b.mul(self.turn, i64(8 * len(touched))), i64(8 * number))
            b.store(b.ptrtoint(self.place(array, plane), I64), self.lanes.at(self.lanes.pointer(self.a["held"]), place))

    def place(self, array: str, plane: Any = None) -> ir.Value:
        """Where an array has the vector; `plane` is bytes."""
        offset = self.offsets[array]
        offset = offset if plane is None else self.b.add(offset, plane)
        return self.lanes.at(self.lanes.pointer(self.a[array]), offset)

    def read(self, array: str, plane: Any = None) -> Value:
        """The vector of an array."""
        return Value(self.b, self.lanes.load(self.place(array, plane), self.mask))

    def write(self, array: str, value: Value, plane: Any = None) -> None:
        """Puts the vector."""
        self.lanes.store(value.value, self.place(array, plane), self.mask)

    def sum(self, gate: int = 0) -> Value:
        """The sums of a gate, which lie in whole vectors."""
        offset = gate * self.lanes.count * self.lanes.size
        return Value(self.b, self.lanes.load(self.lanes.at(self.place("sums"), offset)))

    def hold(self, value: Value, plane: Any = None) -> None:
        """Puts a whole vector where the next step's product reads it."""
        self.lanes.store(value.value, self.place("held", plane))

    def times(self, number: int, argument: str) -> ir.Value:
        """A multiple of an argument."""
        return self.b.mul(self.a[argument], i64(number))

    def if_live(self, x: Value, y: Value | None) -> Value:
        """x in a row that goes on at this time, else y (None: zeros)."""
        if not self.kind.masked:
            return x
        return choose(Value(self.b, self.live), x, x.constant(0) if y is None else y)


class _Forward(_Block):
    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.sums = self.kind.gates

    def steps(self) -> dict[str, str]:
        return {"gates": "gates_row", "before": "row", "after": "row"}

    def vector(self) -> None:
        made = getattr(self, self.kind.name)()
        for plane, value in enumerate(made):
            if plane < self.kind.states:
                before = self.read("before", self.times(plane, "plane")) if self.kind.masked else None
                value = self.if_live(value, before)
                self.write("after", value, self.times(plane, "plane"))
                if plane == 0:
                    self.hold(value)
            elif self.kind.kept:
                self.write("after", self.if_live(value, None), self.times(plane, "plane"))

    def touched(self) -> list[tuple[str, Any]]:
        kind, state = self.kind, self.times(self.kind.states - 1, "plane")  # c, or h, before
        made = range(kind.planes if kind.kept else kind.states)
        return [
            *(("gates", self.times(gate, "gates_plane")) for gate in range(kind.gates)),
            ("before", state),
            *(("after", self.times(plane, "plane")) for plane in made),
        ]

    def gate(self, number: int) -> Value:
        """Both products of a gate, added."""
        return self.sum(number) + self.read("gates", self.times(number, "gates_plane"))

    def lstm(self) -> list[Value]:
        """h, c and the gates."""
        m = vector_math
        i, f, g, o = m.sigmoid(self.gate(0)), m.sigmoid(self.gate(1)), m.tanh(self.gate(2)), m.sigmoid(self.gate(3))
        c = f * self.read("before", self.times(1, "plane")) + i * g
        return [o * m.tanh(c), c, i, f, g, o]

    def gru(self) -> list[Value]:
        """h, the gates and the recurrent part of the new gate."""
        m = vector_math
        r, z = m.sigmoid(self.gate(0)), m.sigmoid(self.gate(1))
        q = self.sum(2) + self.read("bias")
        n = m.tanh(self.read("gates", self.times(2, "gates_plane")) + r * q)
        return [n + z * (self.read("before") - n), r, z, n, q]

    def rnn(self) -> list[Value]:
        """h."""
        a = self.gate(0)
        return [vector_math.tanh(a) if self.kind.activation == "tanh" else vector_math.maximum(a, a.constant(0))]


class _Backward(_Block):
    """The gradients that arrive come from the next step's product (sums), past it (carried), and from outside."""

    def steps(self) -> dict[str, str]:
        return {"given": "row", "carried": "made_row", "made": "made_row", "before": "row", "after": "row"}

    def vector(self) -> None:
        arriving = [self.carry(state) for state in range(self.kind.states)]
        arriving[0] = arriving[0] + self.sum()
        for plane in range(min(self.kind.given, self.kind.states) or self.kind.outputs):
            arriving[plane] = arriving[plane] + self.outer(plane)
        made, direct = getattr(self, self.kind.name)(*arriving)
        for block, gates in enumerate(made):
            for gate, value in enumerate(gates):
                value = self.if_live(value, None)
                self.write("made", value, self.made(gate, block))
                if block == self.kind.blocks - 1:
                    self.hold(value, self.times(gate, "held_plane"))
        for state, (value, before) in enumerate(zip(direct, arriving, strict=True)):
            self.write("carried", self.if_live(value, before), self.times(state, "made_plane"))

    def touched(self) -> list[tuple[str, Any]]:
        kind, state = self.kind, self.times(self.kind.states - 1, "plane")
        return [
            *(("given", self.times(plane, "given_plane")) for plane in range(kind.given or kind.outputs)),
            *(("after", self.times(plane, "plane")) for plane in range(kind.planes > 1, kind.planes)),
            ("before", state),
            *(("made", self.made(gate, block)) for gate in range(kind.gates) for block in range(kind.blocks)),
        ]

    def made(self, gate: int, block: int) -> ir.Value:
        """Bytes from the first block's first gate to another."""
        return self.b.add(self.times(gate, "made_plane"), self.times(block, "made_block"))

    def carry(self, state: int) -> Value:
        return self.read("carried", self.times(state, "made_plane"))

    def outer(self, plane: int) -> Value:
        return self.read("given", self.times(plane, "given_plane"))

    def kept(self, number: int) -> Value:
        """A plane that the record has beside the states."""
        return self.read("after", self.times(self.kind.states + number, "plane"))

    def and_outer(self, value: Value, number: int) -> Value:
        """With the gradient from outside of a plane beside the states, if there is one."""
        return value + self.outer(self.kind.states + number) if self.kind.given > self.kind.states else value

    def lstm(self, dh: Value, dc: Value) -> tuple[list[list[Value]], list[Value]]:
        """The gradients of the gates, and what reaches the states before not through them."""
        i, f, g, o = (self.kept(n) for n in range(4))
        q = vector_math.tanh(self.read("after", self.times(1, "plane")))
        do = self.and_outer(dh * q, 3)
        dc = dc + dh * o * (1 - q * q)
        di, df = self.and_outer(dc * g, 0), self.and_outer(dc * self.read("before", self.times(1, "plane")), 1)
        dg = self.and_outer(dc * i, 2)
        gates = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]
        return [gates], [dh.constant(0), dc * f]

    def gru(self, dh: Value) -> tuple[list[list[Value]], list[Value]]:
        """The same, and the gradients of the recurrent product as a second block."""
        r, z, n, q = (self.kept(k) for k in range(4))
        dn = self.and_outer(dh * (1 - z), 2) * (1 - n * n)
        dz = self.and_outer(dh * (self.read("before") - n), 1) * z * (1 - z)
        dr, dq = self.and_outer(dn * q, 0) * r * (1 - r), self.and_outer(dn * r, 3)
        return [[dr, dz, dn], [dr, dz, dq]], [dh * z]

    def rnn(self, dh: Value) -> tuple[list[list[Value]], list[Value]]:
        """The same."""
        h, none = self.read("after"), dh.constant(0)
        return [[dh * (1 - h * h) if self.kind.activation == "tanh" else choose(h > 0, dh, none)]], [none]
