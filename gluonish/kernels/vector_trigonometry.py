"""`sin`, `cos` and `tan`, by the number of quarter turns and the angle that is left.

Angles of millions of turns take a path of their own (`vector_variants.py`): there the product with 2/pi is formed
from pieces of 26 bits, each product exact, and whole turns are dropped as soon as they appear.
Source: M. H. Payne, R. N. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18 (1983).

Deliberately not here: how the rare path is kept out of the others' way (`vector_variants.py`).
"""

from __future__ import annotations

import math

from llvmlite import ir

from gluonish.kernels.lanes import loop
from gluonish.kernels.value import Value, choose
from gluonish.kernels.vector_arithmetic import abs, round  # noqa: A004
from gluonish.kernels.vector_steps import F32, F64, Format, enter, exact_product, floating, fma, format_of, polynomial
from gluonish.kernels.vector_variants import apart, rare_function, rarely

# pi/2 in parts whose products with the number of quarter turns are exact: up to 2^29 turns, and up to 2^20
_HALF_PI_24 = (1.5707962512969971, 7.549789415861596e-08, 5.390302858158119e-15)
_HALF_PI_33 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)

_FAR = (8e8, 1.6e6)  # the limits of float32 and float64 from which there are more turns than that
_PIECES = (8, 46)  # of 2/pi, that the largest number of a type needs
_SCALE = 512  # the last pieces would be too small for float64
_HALF_PI_LOW = 6.123233995736766e-17

# (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4 by r^2 for |r| <= pi/4: to 2^-37, for a tangent in float32
_SIN_SHORT = (-0.16666666640797764, 0.008333329304868724, -0.00019839312265777125, 2.718121521156447e-06)
_COS_SHORT = (0.041666666619491415, -0.0013888883500073224, 2.4799460152581868e-05, -2.7205753969949895e-07)


def sin(x: Value) -> Value:
    """The sine of x radians; NaN of Inf."""
    return apart("sin", _sin, floating("sin", x)).relaxed(x)


def cos(x: Value) -> Value:
    """The cosine of x radians; NaN of Inf."""
    return apart("cos", _cos, floating("cos", x)).relaxed(x)


def tan(x: Value) -> Value:
    """The tangent of x radians, sine by cosine in float64; NaN of Inf."""
    return apart("tan", _tan, floating("tan", x)).relaxed(x)


def sine_and_cosine(x: Value) -> tuple[Value, Value]:
    """Both of an angle of a few turns."""
    f, inner = enter("sine_and_cosine", x)
    quarter, r, low = _narrowed(f, inner, _quarter_turns_64(f, inner))
    sine, cosine = _sine_or_cosine(f, quarter, r, low), _sine_or_cosine(f, quarter + 1, r, low)
    return choose(inner == 0, inner, sine).relaxed(x), cosine.relaxed(x)


def _sin(x: Value) -> Value:
    f = format_of(x)
    quarter, r, low = _narrowed(f, x, _all_quarter_turns(f, x))
    return choose(x == 0, x, _sine_or_cosine(f, quarter, r, low))  # keeps the sign of a zero


def _cos(x: Value) -> Value:
    f = format_of(x)
    quarter, r, low = _narrowed(f, x, _all_quarter_turns(f, x))
    return _sine_or_cosine(f, quarter + 1, r, low)


def _tan(x: Value) -> Value:
    f, inner = format_of(x), x
    quarter, r, low = _all_quarter_turns(f, inner)
    z = r * r
    sine_tail = fma(z * r, polynomial(z, _SIN_SHORT if f is F32 else F64.sin), low)
    sine = r + sine_tail
    straight = 1 - z * 0.5
    cosine_tail = fma(z * z, polynomial(z, _COS_SHORT if f is F32 else F64.cos), fma(-r, low, (1 - straight) - z * 0.5))
    cosine = straight + cosine_tail
    odd = (quarter & 1) == 1
    top, below = choose(odd, -cosine, sine), choose(odd, sine, cosine)
    result = top / below
    if f is not F32:  # what rounding sine and cosine has cost
        sine_low, cosine_low = sine_tail - (sine - r), cosine_tail - (cosine - straight)
        top_low, below_low = choose(odd, -cosine_low, sine_low), choose(odd, sine_low, cosine_low)
        result = result + (top_low - result * below_low) / below
    return choose(inner == 0, inner, result.astype(x.code))


Turns = tuple[Value, Value, Value]  # the number of quarter turns, the angle that is left, and what its rounding lost


def _narrowed(f: Format, x: Value, turns: Turns) -> Turns:
    quarter, left, low = turns
    return quarter.astype("i32" if f is F32 else "i64"), left.astype(x.code), low.astype(x.code)


def _all_quarter_turns(f: Format, x: Value) -> Turns:
    """For any x, in float64."""
    near = _quarter_turns_64(f, x)
    wide = x.astype("f64")
    quarter, left, low = rarely(abs(wide) > _FAR[f is F64], near, lambda: _far_quarter_turns(f, wide))
    return quarter, left, low


def _far_quarter_turns(f: Format, x: Value) -> Turns:
    count = _PIECES[f is F64]
    turns, part, rest = rare_function(f"turns_{count}", lambda b, v: _part_of_a_turn(b, v, count), x, 3)
    left, lost = exact_product(part, part.constant(math.pi / 2))
    low = lost + (part * _HALF_PI_LOW + rest * (math.pi / 2))
    total = left + low
    return (turns + F64.shift).bits(), total, (left - total) + low


def _part_of_a_turn(builder: ir.IRBuilder, x: Value, count: int) -> tuple[Value, Value, Value]:
    """x 2/pi less a multiple of 4 as an integer and a sum of two numbers, at most about 1/2."""
    module = builder.module
    kind = ir.ArrayType(ir.DoubleType(), count)
    table = module.globals.get(f"two_over_pi_{count}")
    if table is None:
        table = ir.GlobalVariable(module, kind, f"two_over_pi_{count}")
        table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(kind, _pieces(count))
    scaled = x * 2.0**-_SCALE
    high = (scaled.bits() & -(1 << 26)).from_bits()  # 27 bits, so that products with pieces are exact
    halves = (high, scaled - high)

    def step(turn: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
        piece = builder.load(builder.gep(table, [turn], source_etype=ir.DoubleType()), typ=ir.DoubleType())
        factor = _splat(x, piece)
        turns, part, rest = (x.of(value) for value in held)
        for half in halves:
            product = half * factor
            product = product - round(product * 0.25) * 4  # exact
            total = part + product
            back = total - part
            rest = rest + ((part - (total - back)) + (product - back))
            whole = round(total)
            turns, part = turns + whole, total - whole
        return [turns.value, part.value, rest.value]

    zero = x.constant(0).value
    results = loop(builder, ir.Constant(ir.IntType(64), count), [zero, zero, zero], step)
    turns, part, rest = (x.of(value) for value in results)
    total = part + rest
    return turns, total, (part - total) + rest


def _splat(like: Value, number: ir.Value) -> Value:
    kind = like.value.type
    if not isinstance(kind, ir.VectorType):
        return like.of(number)
    empty = ir.Constant(kind, ir.Undefined)
    first = like.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return like.of(like.builder.shuffle_vector(first, empty, mask))


def _pieces(count: int) -> list[float]:
    """The bits of 2/pi by 26, times 2^_SCALE."""
    digits = 26 * count
    bits = 2 ** (2 * digits + 65) // _pi_times(digits + 64)
    return [math.ldexp((bits >> (digits - 26 * (k + 1))) & (2**26 - 1), _SCALE - 26 * (k + 1)) for k in range(count)]


def _pi_times(digits: int) -> int:
    """pi 2^digits, by Machin's formula 16 atan(1/5) - 4 atan(1/239)."""
    one = 1 << (digits + 16)

    def arc(of: int) -> int:
        total, power, n = 0, one // of, 1
        while power:
            total += power // n if n % 4 == 1 else -(power // n)
            power //= of * of
            n += 2
        return total

    return (16 * arc(5) - 4 * arc(239)) >> 16


def _quarter_turns_64(f: Format, x: Value) -> Turns:
    """For |x| up to `_FAR`, in float64."""
    wide = x.astype("f64")
    shifted = fma(wide, wide.constant(2 / math.pi), wide.constant(F64.shift))
    turns = shifted - F64.shift
    parts = _HALF_PI_24 if f is F32 else _HALF_PI_33
    r = fma(turns, wide.constant(-parts[0]), wide)
    least = turns * parts[2]
    if f is F32:
        r = fma(turns, wide.constant(-parts[1]), r)
    else:  # the second product is exact, but the difference is not
        second = turns * parts[1]
        before, r = r, r - second
        least = least - ((before - r) - second)
    left = r - least
    return shifted.bits(), left, (r - left) - least


def _sine_or_cosine(f: Format, quarter: Value, r: Value, low: Value) -> Value:
    z = r * r
    sine = r + fma(z * r, polynomial(z, f.sin), low)
    cosine = fma(z * z, polynomial(z, f.cos), fma(-r, low, z * -0.5)) + 1
    result = choose((quarter & 1) == 1, cosine, sine)
    return choose((quarter & 2) == 2, -result, result)
