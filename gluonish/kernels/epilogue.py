"""Epilogues: elementwise steps on the sums of a contraction while they are still in registers.

An epilogue is pure data, `(kinds, steps)`, or `()` for none. `kinds` are the further operands: "column" (one number per
output column, as a bias), "full" (an array like the output, as a residual), "scalar" (one number); "full:bfloat16" says
that it lies in memory in another dtype than the sums; half-width floats are float32 in registers. Values are numbered:
0 is the sum, then the operands, then the result of each step; the last step's result is stored. A step is
`(op name, operands)` or `(op name, operands, attributes)`: an operand is a value's number, or a Python number in a
tuple of one, `(0.5,)`; attributes are (name, value) pairs. The op's body comes from its record in `nd`; ("cast", (0,),
(("dtype", "bfloat16"),)) rounds.

    ADD_BIAS_RELU = (("column",), (("add", (0, 1)), ("relu", (2,))))

Deliberately not here: which ops get fused into a contraction; hybrid's fusion pass decides that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gluonish.kernels.dots import narrowed, widened
from gluonish.kernels.scalars import HALVES, code_of

Epilogue = tuple[Any, ...]
KINDS = ("column", "full", "scalar")


def bias_epilogue(*ops: str) -> Epilogue:
    """Adds a bias per column, then applies elementwise ops of one operand in order."""
    steps: list[tuple[str, tuple[int, ...]]] = [("add", (0, 1))]
    steps += [(op, (2 + i,)) for i, op in enumerate(ops)]
    return (("column",), tuple(steps))


def checked(epilogue: Epilogue) -> Epilogue:
    """The epilogue itself; ValueError if an operand's kind is unknown or a step reads what does not stand before it."""
    if not epilogue:
        return ()
    kinds, steps = epilogue
    for kind in kinds:
        if kind.partition(":")[0] not in KINDS:
            raise ValueError(f"epilogue: operand kind {kind!r} is unknown; kinds are {', '.join(KINDS)}")
    for i, step in enumerate(steps):
        known = 1 + len(kinds) + i
        for operand in step[1]:
            if not isinstance(operand, tuple) and not 0 <= operand < known:
                raise ValueError(f"epilogue: step {i} ({step[0]}) reads value {operand} of the {known} before it")
    return (tuple(kinds), tuple(steps))


def operand_count(epilogue: Epilogue) -> int:
    """How many further inputs the epilogue reads."""
    return len(epilogue[0]) if epilogue else 0


def result_of(epilogue: Epilogue, builder: Any, values: Sequence[Any]) -> Any:
    """Emits the steps on LLVM values (the sum, then the operands) and returns the LLVM value to store."""
    from gluonish.kernels import vector_math
    from gluonish.nd.op import OPS

    if not epilogue:
        return values[0]
    held = [vector_math.Value(builder, value) for value in values]
    for name, operands, *rest in epilogue[1]:
        if name == "cast":
            held.append(_cast(held[operands[0]], dict(rest[0])["dtype"]))
            continue
        body = OPS[name].body
        if body is None:
            raise ValueError(f"epilogue: op {name} is not elementwise")
        picked = [operand[0] if isinstance(operand, tuple) else held[operand] for operand in operands]
        held.append(body(vector_math, *picked, **dict(rest[0] if rest else ())))
    return held[-1].value


def _cast(value: Any, dtype: str) -> Any:
    """The value as a register holds a dtype: halves are float32 there, rounded."""
    if dtype not in HALVES:
        return value.astype(code_of(dtype))
    single = value.astype("f32")
    return single.of(widened(single.builder, narrowed(single.builder, single.value, dtype), dtype))
