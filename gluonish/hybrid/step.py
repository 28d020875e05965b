"""Step: one kernel call of a program, with the nodes it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gluonish.hybrid.graph import Node
from gluonish.kernels.kernel import Kernel, Plan
from gluonish.nd.op import Spec
from gluonish.nd.size import SizeLike

Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Aside:
    """Another kernel with the same arguments and plan, for the sizes that suit it; compiled with the others."""

    kernel: Kernel
    suits: Callable[[Sequence[int]], bool]
    what: str  # which sizes, for people


@dataclass(eq=False)
class Step:
    """One call of a kernel, or, without a kernel, of an op's NumPy forward (slower; `explain` says so).

    plan: (shapes read, shapes written, values of `sizes`) -> Plan. The kernel's arguments are the addresses of what is
    read, then written, then scratch memory, then the plan's scalars, then `extra` sizes. in_place: a write may take the
    memory of a read of the same size that nobody reads later, of `over` only if there is one. checks: the kernel ends
    its writes with the program's error cell. indexed: the node that looks up indices, where that is not the step's only
    one. part: it writes a part of a value that no other step with this mark writes. aside: another kernel for some
    values of `sizes`. when: for which ones it is done at all; None: for all.
    """

    reads: list[Node]
    writes: list[Node]
    kernel: Kernel | None = None
    plan: Callable[[Shapes, Shapes, Sequence[int]], Plan] | None = None
    sizes: tuple[SizeLike, ...] = ()
    extra: tuple[SizeLike, ...] = ()
    work: Callable[[Shapes, Shapes, Plan], float] | None = None
    in_place: bool = False
    over: Node | None = None
    checks: str = ""
    fallback: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    indexed: Node | None = None
    part: bool = False
    control: Any = None  # a loop or branch, which runs programs of its own
    aside: Aside | None = None
    when: Callable[[Sequence[int]], bool] | None = None

    def asked(self, sizes: Sequence[int]) -> bool:
        """Whether it is done for these values of `sizes`."""
        return self.when is None or self.when(sizes)

    def chosen(self, sizes: Sequence[int]) -> Kernel | None:
        """The kernel for these values of `sizes`; None if it has none for them."""
        if not self.asked(sizes):
            return None
        return self.aside.kernel if self.aside is not None and self.aside.suits(sizes) else self.kernel

    @property
    def kernels(self) -> list[Kernel]:
        """Every kernel that it may call."""
        return [k for k in (self.kernel, self.aside.kernel if self.aside is not None else None) if k is not None]

    @property
    def name(self) -> str:
        """The kernel's name."""
        if self.control is not None:
            return str(self.control.name)
        return self.kernel.name if self.kernel is not None else f"numpy {self.fallback.op.name}"  # type: ignore[union-attr]

    @property
    def source(self) -> str:
        """The kernel's Python source, with the user's lines as comments."""
        lines = dict.fromkeys(f"# {n.op.name} at {n.line}" for n in self.nodes if n.op is not None and n.line)
        if self.control is not None:
            bodies = [step.source for program in self.control.programs for step in program.steps]
            return "\n".join([*lines, "# runs:", *bodies])
        body = self.kernel.source if self.kernel is not None else "# evaluated by NumPy"
        other = [f"# for {self.aside.what}: {self.aside.kernel.name}"] if self.aside is not None else []
        return "\n".join([*other, *(line for line in lines if line not in body), body.strip(), ""])

    @property
    def assembly(self) -> str:
        """The machine code as text."""
        if self.control is not None:
            return "\n".join(step.assembly for program in self.control.programs for step in program.steps)
        return self.kernel.assembly if self.kernel is not None else ""

    def __str__(self) -> str:
        return self.source

    def __repr__(self) -> str:
        return f"<step {self.name}: {len(self.reads)} in, {len(self.writes)} out>"


def worth_sharing(nanoseconds: float) -> bool:
    """Whether a step is long enough to call the other threads: handing out tiles costs about one microsecond."""
    return nanoseconds > 6000


def temp(
    like: Node,
    sizes: tuple[SizeLike, ...],
    shape: Callable[[Sequence[int]], tuple[int, ...]],
    dtype: np.dtype | None = None,
) -> Node:
    """A value that exists only between steps; its shape is known once `sizes` are numbers."""
    node = Node("temp", Spec((), dtype or like.dtype), line=like.line)
    node.attrs = {"sizes": sizes, "shape": shape}
    return node
