"""How two partial results of a fold become one, where that may be done faster than the op of the same name does it.

An extreme of many numbers is NaN if one of them is. Which of 0 and -0 is the larger is left open, as in NumPy; deciding
it would double the work. Deliberately not here: sums and products, which are plain operators (`loops.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from gluonish.kernels import lanes
from gluonish.kernels.contexts import intrinsic
from gluonish.kernels.lanes import intrinsic_of
from gluonish.kernels.value import declare


def prefetch() -> Any:
    """The Numba intrinsic `prefetch(address)`: asks for memory that is read soon; any address will do."""
    return intrinsic_of(1, lambda b, arguments: lanes.prefetch(b, b.inttoptr(arguments[0], lanes.PTR)))


def extreme(name: str) -> Any:
    """The Numba intrinsic `(a, b)` of two floats of a type; name: "maximum" or "minimum"."""

    def typed(typing: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            kind = args[0].type
            bits = 32 if isinstance(kind, ir.FloatType) else 64
            function = declare(builder, f"llvm.{name}.f{bits}", kind, [kind, kind])
            return builder.call(function, args, fastmath=("nsz",))

        return (a if a == b and a in (types.float32, types.float64) else types.none)(a, b), emit

    return intrinsic(typed)
