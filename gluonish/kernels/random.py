"""The counter-based generator inside kernels: the same bits as `nd/ops/random.py` gives, element by element, or four at
a time, as it makes them.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from gluonish.kernels import target
from gluonish.kernels.contexts import intrinsic
from gluonish.kernels.lanes import I32, I64, PTR, Lanes, i64, intrinsic_of, loop
from gluonish.kernels.loop_metadata import promise
from gluonish.nd.ops.random import MULTIPLIERS, ROUNDS, UNIT, WEYL

VECTOR = 8  # blocks of a vector at most
SIDE = 4  # vectors that are made side by side
_LOW = 0xFFFFFFFF


def _word(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def uniform() -> Any:
    """The Numba intrinsic `uniform(seed, offset, index)`: element `index` of a float32 draw in [0, 1)."""

    def typed(typing: Any, seed: Any, offset: Any, index: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return _uniform(builder, *args)

        return types.float32(types.int64, types.int64, types.int64), emit

    return intrinsic(typed)


def uniform_blocks() -> Any:
    """The Numba intrinsic `uniform_blocks(seed, block, place, count)`: stores the elements of so many blocks of a draw,
    four each; of up to VECTOR * SIDE - 1 more where the count is not a multiple."""

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> None:
        seed, first, place, count = arguments
        lanes = min(VECTOR, target.current().vector_bytes // 8)
        kind = ir.VectorType(I64, lanes)
        tools = Lanes(b, "float64", lanes)
        # blocks in such an order that pairs of words interleave within 128 bits
        order = ir.Constant(kind, [n // 2 + n % 2 * (lanes // 2) for n in range(lanes)])
        start, seeds = b.add(tools.splat(first, kind), order), tools.splat(seed, kind)

        def body(turn: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            begun = [b.add(b.mul(turn, i64(SIDE * lanes)), i64(side * lanes)) for side in range(SIDE)]
            draws = _philox(b, seeds, [b.add(start, tools.splat(n, kind)) for n in begun])
            numbers = [x for words in draws for x in _interleaved(b, words, lanes)]
            at = b.add(place, b.mul(turn, i64(16 * SIDE * lanes)))
            for part, x in enumerate(numbers):
                promise(b.store(x, b.inttoptr(b.add(at, i64(8 * lanes * part)), PTR), align=4))
            return []

        turns = b.sdiv(b.add(count, i64(SIDE * lanes - 1)), i64(SIDE * lanes))
        loop(b, turns, [], body)

    return intrinsic_of(4, emit)


def _interleaved(b: ir.IRBuilder, words: list[ir.Value], lanes: int) -> list[ir.Value]:
    """Four vectors of words, as two vectors of numbers in the order of memory."""
    whole = ir.VectorType(I32, 2 * lanes)

    def shuffled(x: ir.Value, y: ir.Value, picks: list[int]) -> ir.Value:
        return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(picks)), picks))

    evens = [lane + odd * 2 * lanes for lane in range(0, 2 * lanes, 2) for odd in (0, 1)]
    pairs = [
        b.bitcast(shuffled(b.bitcast(x, whole), b.bitcast(y, whole), evens), words[0].type)
        for x, y in (words[:2], words[2:])
    ]
    numbers = []
    for odd in (0, 1):
        picks = [lane + odd + other * lanes for lane in range(0, lanes, 2) for other in (0, 1)]
        numbers.append(_unit(b, b.bitcast(shuffled(pairs[0], pairs[1], picks), whole)))
    return numbers


def local(size: int) -> Any:
    """The Numba intrinsic `local_numbers()`: the address of that many bytes on the stack."""

    def typed(typing: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            with builder.goto_entry_block():
                place = builder.alloca(ir.ArrayType(ir.IntType(8), size))
                place.align = 64
            return builder.ptrtoint(place, I64)

        return types.int64(), emit

    return intrinsic(typed)


def _uniform(b: ir.IRBuilder, seed: ir.Value, offset: ir.Value, index: ir.Value) -> ir.Value:
    counter = b.add(offset, b.lshr(index, _word(2)))
    [words] = _philox(b, seed, [counter])
    lane = b.and_(index, _word(3))
    pick = words[0]
    for number in (1, 2, 3):
        pick = b.select(b.icmp_unsigned("==", lane, _word(number)), words[number], pick)
    return _unit(b, b.trunc(pick, I32))


def _unit(b: ir.IRBuilder, word: ir.Value) -> ir.Value:
    """The upper 24 of 32 bits as a number in [0, 1); so for every word of a vector."""
    floats = ir.VectorType(ir.FloatType(), word.type.count) if isinstance(word.type, ir.VectorType) else ir.FloatType()
    upper = b.lshr(word, _constant(word.type, 8))
    return b.fmul(b.sitofp(upper, floats), _constant(floats, UNIT))


def _constant(kind: ir.Type, value: float) -> ir.Constant:
    """A number, or a vector of it."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _philox(b: ir.IRBuilder, seed: ir.Value, counters: list[ir.Value]) -> list[list[ir.Value]]:
    """The four words of each block, or of each vector of blocks, every word in the lower half of 64 bits.

    A round of all of them comes before the next round: each has to wait for its own results.
    """

    def word(value: int) -> ir.Constant:
        return _constant(seed.type, value)

    low, shift = word(_LOW), word(32)
    states = [[b.and_(x, low), b.lshr(x, shift), word(0), word(0)] for x in counters]
    keys = [b.and_(seed, low), b.lshr(seed, shift)]
    for step in range(ROUNDS):
        round_keys = [b.and_(b.add(k, word(w * step & _LOW)), low) for k, w in zip(keys, WEYL)]
        for state in states:
            left, right = b.mul(state[0], word(MULTIPLIERS[0])), b.mul(state[2], word(MULTIPLIERS[1]))
            state[:] = [
                b.xor(b.xor(b.lshr(right, shift), state[1]), round_keys[0]),
                b.and_(right, low),
                b.xor(b.xor(b.lshr(left, shift), state[3]), round_keys[1]),
                b.and_(left, low),
            ]
    return states
