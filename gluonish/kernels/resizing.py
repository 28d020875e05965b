"""Kernels that resize one axis of an array, and the transpose of that (see `nd/ops/resize.py` for the positions).

An array is (outer, axis, inner). Where `inner` is more than 1, whole rows are moved or mixed. Where the axis is the
last one, positions are worked out once for a chunk of columns and used for many rows.

Deliberately not here: which axes, in which order.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from gluonish.kernels.kernel import Kernel, Plan
from gluonish.kernels.scalars import SCALARS
from gluonish.nd.ops.resize import steps

Shapes = list[tuple[int, ...]]
TILE = 16384
CHUNK = 1024  # columns whose positions are held, elements of a row that are added up at a time

_HEAD = """
def {name}(args, begin, end):
    x, out = load_i64(args, 0), load_i64(args, 1)
    s = args + 24
    outer, n, m, inner = load_i64(s, 0), load_i64(s, 1), load_i64(s, 2), load_i64(s, 3)
    start, step, bottom, rows = load_i64(s, 4), load_i64(s, 5), load_i64(s, 6), load_i64(s, 7)
    places, shares = local_numbers(), local_numbers()
"""
_TABLE = """
            columns = min({CHUNK}, m - chunk)
            for j in range(columns):
                top = max(start + (chunk + j) * step, 0)
                store_i64(places, j, min(top // bottom, n - 1))
                store_{code}(shares, j, cast_{code}(cast_f64(top % bottom) / cast_f64(bottom)))
"""
_FORWARD = """
    if inner == 1:
        for chunk in range(0, m, {CHUNK}):{table}
            for row in range(begin * rows, min(end * rows, outer)):
                source, target = x + row * n * {size}, out + (row * m + chunk) * {size}
                for j in range(columns):
                    k = load_i64(places, j){one}
        return
    for row in range(begin * rows, min(end * rows, outer * m)):
        top = max(start + row % m * step, 0)
        k = min(top // bottom, n - 1)
        low = x + (row // m * n + k) * inner * {size}
        high = x + (row // m * n + min(k + 1, n - 1)) * inner * {size}
        target = out + row * inner * {size}
        rest = top % bottom
        if {still}:
            for i in range(inner):
                store_{bits}(target, i, load_{bits}(low, i))
        else:{mix}
"""
_SPREAD = """
    if inner == 1:
        for chunk in range(0, m, {CHUNK}):{table}
            for row in range(begin * rows, min(end * rows, outer)):
                source, target = x + (row * m + chunk) * {size}, out + row * n * {size}
                if chunk == 0:
                    for i in range(n):
                        store_{code}(target, i, cast_{code}(0))
                for j in range(columns):
                    k = load_i64(places, j)
                    value, share = load_{code}(source, j), load_{code}(shares, j)
                    if share > cast_{code}(0):
                        after = min(k + 1, n - 1)
                        write_{code}(target, k, read_{code}(target, k) + value * (cast_{code}(1) - share))
                        write_{code}(target, after, read_{code}(target, after) + value * share)
                    else:
                        write_{code}(target, k, read_{code}(target, k) + value)
        return
    chunks = (inner + {CHUNK} - 1) // {CHUNK}
    for tile in range(begin, end):
        column = tile % chunks * {CHUNK}
        count = min({CHUNK}, inner - column)
        target = out + (tile // chunks * n * inner + column) * {size}
        for k in range(n):
            for i in range(count):
                store_{code}(target + k * inner * {size}, i, cast_{code}(0))
        for j in range(m):
            top = max(start + j * step, 0)
            k = min(top // bottom, n - 1)
            share = cast_{code}(cast_f64(top % bottom) / cast_f64(bottom))
            source = x + ((tile // chunks * m + j) * inner + column) * {size}
            low, high = target + k * inner * {size}, target + min(k + 1, n - 1) * inner * {size}
            if {still}:
                for i in range(count):
                    store_{code}(low, i, load_{code}(low, i) + load_{code}(source, i))
            else:
                left = cast_{code}(1) - share
                for i in range(count):
                    store_{code}(low, i, load_{code}(low, i) + load_{code}(source, i) * left)
                for i in range(count):
                    store_{code}(high, i, load_{code}(high, i) + load_{code}(source, i) * share)
"""
_ONE_NEAREST = "\n                    store_{bits}(target, j, load_{bits}(source, k))"
_ONE_MIXED = """
                    low, share = load_{code}(source, k), load_{code}(shares, j)
                    high = load_{code}(source, min(k + 1, n - 1))
                    mixed = low * (cast_{code}(1) - share) + high * share
                    store_{code}(target, j, where(equal(share, cast_{code}(0)), low, mixed))"""
_MIX = """
            share = cast_{code}(cast_f64(rest) / cast_f64(bottom))
            left = cast_{code}(1) - share
            for i in range(inner):
                store_{code}(target, i, load_{code}(low, i) * left + load_{code}(high, i) * share)"""


def resize_kernel(code: str, axis: int, linear: bool, grid: str) -> Kernel:
    """out = x with one axis resized. Shapes: x (..., n, ...), out (..., m, ...)."""
    size = SCALARS[code].size
    bits = code if linear else {1: "i8", 2: "i16", 4: "i32", 8: "i64"}[size]
    words = {"size": size, "bits": bits, "code": code if linear else "f32", "CHUNK": CHUNK, "name": "resize"}
    source = (_HEAD + _FORWARD).format(
        **words,
        table=_TABLE.format(**words),
        one=(_ONE_MIXED if linear else _ONE_NEAREST).format(**words),
        still="rest == 0" if linear else "True",
        mix=_MIX.format(**words) if linear else " pass",
    )
    return Kernel("resize", source, _LOCAL, _plan(axis, linear, grid, True))


def resize_spread_kernel(code: str, axis: int, linear: bool, grid: str) -> Kernel:
    """The transpose of resize. Shapes: g (..., m, ...), out (..., n, ...)."""
    words = {"size": SCALARS[code].size, "code": code, "CHUNK": CHUNK, "name": "resize_spread"}
    table = _TABLE.format(**words)
    if not linear:
        table = table.replace("top % bottom", "0")
    source = (_HEAD + _SPREAD).format(**words, table=table, still="top % bottom == 0" if linear else "True")
    return Kernel("resize_spread", source, _LOCAL, _plan(axis, linear, grid, False))


_LOCAL = (("local_numbers", "random:local", (8 * CHUNK,)),)


def _plan(axis: int, linear: bool, grid: str, forward: bool) -> Callable[[Shapes, Shapes], Plan]:
    def plan(ins: Shapes, outs: Shapes) -> Plan:
        given, made = ins[0], outs[0]
        outer, inner = prod(given[:axis]), prod(given[axis + 1 :])
        n, m = (given[axis], made[axis]) if forward else (made[axis], given[axis])
        start, step, bottom = steps(n, m, linear, grid)
        width = max(n, m) if inner == 1 else inner
        rows = max(1, TILE // max(1, width))
        if inner == 1:
            tiles = -(-outer // rows)
        else:
            tiles = -(-outer * m // rows) if forward else outer * -(-inner // CHUNK)
        return Plan((outer, n, m, inner, int(start), int(step), max(int(bottom), 1), rows), tiles if prod(made) else 0)

    return plan
