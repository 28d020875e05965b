"""Kernel: the readable source of one compiled loop. Plan: the arguments of one call of it.

A kernel is the source of one Python function `name(args, begin, end)`, all three int64, where `args` is the address of
an int64 array: pointers to the inputs, to the outputs, to scratch memory, then integers. It processes the tiles
begin..end-1 and touches memory only through intrinsics (see `intrinsics.py`). Deliberately not here: compiling
(`compile.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

External = tuple[str, str, tuple[object, ...]]


@dataclass(frozen=True)
class Plan:
    """What the sizes of one call come to.

    scalars: the integers after the pointers in `args`. tiles: how many tiles there are. scratch: bytes of working
    memory for the whole call.
    """

    scalars: tuple[int, ...]
    tiles: int
    scratch: int = 0


@dataclass(frozen=True)
class Kernel:
    """One function in the kernel language; what is equal compiles to the same code.

    name: the function defined by `source`. externals: intrinsics the source calls beside the built-in ones, as
    (name in the source, "module:factory", parameters): when it is compiled,
    `gluonish.kernels.<module>.<factory>(*parameters)` gives the intrinsic. plan: (shapes of inputs, shapes of outputs)
    -> Plan; not part of the identity. gives: the function returns an int64 (kernels of a program do not).
    """

    name: str
    source: str
    externals: tuple[External, ...] = ()
    plan: Callable[[list[tuple[int, ...]], list[tuple[int, ...]]], Plan] | None = field(default=None, compare=False)
    gives: bool = False

    @property
    def address(self) -> int:
        """Address of the machine code for the current target: `void name(int64 args, int64 begin, int64 end)`."""
        from gluonish.kernels.compile import address

        return address(self)

    @property
    def llvm(self) -> str:
        """The optimised LLVM text for the current target, to look at."""
        from gluonish.kernels.compile import llvm_text

        return llvm_text(self)

    @property
    def assembly(self) -> str:
        """The machine code for the current target as assembly text, to look at."""
        from gluonish.kernels.compile import assembly_text

        return assembly_text(self)
