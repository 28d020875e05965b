"""The most floating-point operations this machine can do: multiply-adds on registers, and nothing else.

Each tile of the loop keeps as many independent accumulators as the registers hold and reads no memory inside. It is
written in LLVM directly, for the target that gluonish compiles for (GLUONISH_CPU restricts both), and its tiles are
shared among threads by gluonish's own pool. Without fused multiply-add, a multiplication and an addition replace it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TILES = 64
SPARED = 4  # vector registers that are no accumulators: the factor, the addend, and some room


def peak_loop(turns: int) -> tuple[Callable[[], None], float, np.ndarray]:
    """A function that does so many turns in each of TILES tiles, its floating-point operations, and its results."""
    from gluonish.kernels.entry import entry
    from gluonish.kernels.target import current

    target = current()
    lanes, accumulators = target.vector_bytes // 4, target.registers - SPARED
    engine, address = _compiled(target, _source(lanes, accumulators, target.fma))
    values = np.array([0.5, 1.0], np.float32)
    results = np.zeros((TILES, lanes), np.float32)
    arguments = np.array([values.ctypes.data, results.ctypes.data, turns], np.int64)
    table = np.array([address, arguments.ctypes.data, TILES, 1], np.int64)
    run = entry(table.ctypes.data, 1)

    def loop(held: Any = (engine, values, results, arguments, table)) -> None:  # what must live as long
        run()

    return loop, 2.0 * lanes * accumulators * turns * TILES, results


def _source(lanes: int, accumulators: int, fused: bool) -> str:
    """`peak(args, begin, end)`; args: addresses of [factor, addend] and of the results, and the turns."""
    vector = f"<{lanes} x float>"
    names = range(accumulators)
    phis = [f"%s{i} = phi {vector} [ %start{i}, %tile ], [ %n{i}, %turn ]" for i in names]
    starts = [f"%start{i} = fmul {vector} %b, {_splat(lanes, 1.0 + i / 32)}" for i in names]
    steps = [_step(vector, i, fused) for i in names]
    sums = [f"%t{i} = fadd {vector} {'%n0' if i == 1 else f'%t{i - 1}'}, %n{i}" for i in names if i]
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})

define void @peak(i64 %args, i64 %begin, i64 %end) {{
entry:
  %table = inttoptr i64 %args to ptr
  %values = load ptr, ptr %table
  %second = getelementptr i64, ptr %table, i64 1
  %results = load ptr, ptr %second
  %third = getelementptr i64, ptr %table, i64 2
  %turns = load i64, ptr %third
  %factor = load float, ptr %values
  %next = getelementptr float, ptr %values, i64 1
  %addend = load float, ptr %next
  %f = insertelement {vector} undef, float %factor, i32 0
  %a = shufflevector {vector} %f, {vector} undef, <{lanes} x i32> zeroinitializer
  %g = insertelement {vector} undef, float %addend, i32 0
  %b = shufflevector {vector} %g, {vector} undef, <{lanes} x i32> zeroinitializer
  br label %tile
tile:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %end.tile ]
  {_lines(starts)}
  br label %turn
turn:
  %k = phi i64 [ 0, %tile ], [ %k.next, %turn ]
  {_lines(phis)}
  {_lines(steps)}
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %turns
  br i1 %more, label %turn, label %end.tile
end.tile:
  {_lines(sums)}
  %place = getelementptr {vector}, ptr %results, i64 %i
  store {vector} %t{accumulators - 1}, ptr %place, align 4
  %i.next = add i64 %i, 1
  %again = icmp slt i64 %i.next, %end
  br i1 %again, label %tile, label %done
done:
  ret void
}}
"""


def _step(vector: str, i: int, fused: bool) -> str:
    if fused:
        lanes = vector[1:].split()[0]
        return f"%n{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %s{i}, {vector} %a, {vector} %b)"
    return f"%m{i} = fmul {vector} %s{i}, %a\n  %n{i} = fadd {vector} %m{i}, %b"


def _splat(lanes: int, value: float) -> str:
    return "<" + ", ".join([f"float {value:.6e}"] * lanes) + ">"


def _lines(lines: list[str]) -> str:
    return "\n  ".join(lines)


def _compiled(target: Any, source: str) -> tuple[Any, int]:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(f'target triple = "{target.triple}"\n{source}')
    module.verify()
    made = llvm.Target.from_triple(target.triple).create_target_machine(target.cpu, target.features, 3, jit=True)
    engine = llvm.create_mcjit_compiler(module, made)
    engine.finalize_object()
    return engine, engine.get_function_address("peak")
