"""The counter-based generator inside kernels: the same bits as `nd/ops/random.py` gives, element by element, or four at
a time, as it makes them.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gluonish.kernels.intrinsics import store_element
from gluonish.nd.ops.random import MULTIPLIERS, ROUNDS, UNIT, WEYL

I64 = ir.IntType(64)
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


def uniform_block() -> Any:
    """The Numba intrinsic `uniform_block(seed, block, place, at)`: stores the four elements of a block of a draw."""

    def typed(typing: Any, seed: Any, block: Any, place: Any, at: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            for number, word in enumerate(_philox(builder, args[0], args[1])):
                index = builder.add(args[3], _word(number))
                store_element(builder, "f32", args[2], index, _unit(builder, word), True)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), emit

    return intrinsic(typed)


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
    words = _philox(b, seed, counter)
    lane = b.and_(index, _word(3))
    pick = words[0]
    for number in (1, 2, 3):
        pick = b.select(b.icmp_unsigned("==", lane, _word(number)), words[number], pick)
    return _unit(b, pick)


def _unit(b: ir.IRBuilder, word: ir.Value) -> ir.Value:
    """The upper 24 of 32 bits as a number in [0, 1)."""
    upper = b.trunc(b.lshr(word, _word(8)), ir.IntType(32))
    return b.fmul(b.sitofp(upper, ir.FloatType()), ir.Constant(ir.FloatType(), UNIT))


def _philox(b: ir.IRBuilder, seed: ir.Value, counter: ir.Value) -> list[ir.Value]:
    low, shift = _word(_LOW), _word(32)
    state = [b.and_(counter, low), b.lshr(counter, shift), _word(0), _word(0)]
    keys = [b.and_(seed, low), b.lshr(seed, shift)]
    for step in range(ROUNDS):
        left, right = b.mul(state[0], _word(MULTIPLIERS[0])), b.mul(state[2], _word(MULTIPLIERS[1]))
        round_keys = [b.and_(b.add(k, _word(w * step & _LOW)), low) for k, w in zip(keys, WEYL)]
        state = [
            b.xor(b.xor(b.lshr(right, shift), state[1]), round_keys[0]),
            b.and_(right, low),
            b.xor(b.xor(b.lshr(left, shift), state[3]), round_keys[1]),
            b.and_(left, low),
        ]
    return state
