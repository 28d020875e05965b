"""The error of a kernel that cannot be compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gluonish.kernels.kernel import Kernel


class KernelError(Exception):
    """A kernel's source is not in the kernel language, or the compiler could not treat it; shows the source."""

    def __init__(self, kernel: Kernel, reason: str) -> None:
        lines = "\n".join(f"{i:4d}  {line}" for i, line in enumerate(kernel.source.splitlines(), 1))
        super().__init__(f"kernel {kernel.name} does not compile: {reason}\n{lines}")
