"""Kernels to read and to replace: what `net.kernels(x)` gives.

`replace(source)` puts a kernel of the user's own in the place of a generated one, after both have computed the same
from random inputs. The kernel language is described in `gluonish/kernels/kernel.py` and `intrinsics.py`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.hybrid.bound import ROW
from gluonish.hybrid.fuse import root_of
from gluonish.hybrid.step import Step
from gluonish.hybrid.step_run import StepRun
from gluonish.hybrid.timing import example
from gluonish.hybrid.verify import distance
from gluonish.kernels.kernel import Kernel
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import user_line

if TYPE_CHECKING:
    from gluonish.hybrid.variant import Variant

CLOSE = 1e-5
TRIES = 3


class KernelCall:
    """One step of a program: its name, its Python source with the model's lines as comments, its machine code."""

    def __init__(self, variant: Variant, step: Step) -> None:
        self.variant = variant
        self.step = step

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.step.name

    @property
    def source(self) -> str:
        """The kernel's Python source, with the user's lines as comments."""
        return self.step.source

    @property
    def assembly(self) -> str:
        """The machine code as text; empty for what runs through NumPy."""
        return self.step.assembly

    @property
    def llvm(self) -> str:
        """The optimised LLVM text; empty for what runs through NumPy."""
        return self.step.kernel.llvm if self.step.kernel is not None else ""

    def replace(self, source: str) -> None:
        """Runs `source`, an edited `self.source`, in place of the kernel from now on.

        It is compiled and compared with the kernel it replaces on random inputs first; if it does not compile, or
        computes anything else, nothing changes.
        Raises: KernelError if it does not compile, ValueError if results differ.
        """
        old = self.step.kernel
        if old is None:
            raise ValueError(f"replace: {self.name} runs through NumPy, there is no kernel to replace ({user_line()})")
        new = dataclasses.replace(old, source=source)
        if new.address != old.address:
            self._compare(new)
        self.step.kernel, self.step.aside = new, None
        self.variant.program.rebind()

    def _compare(self, new: Kernel) -> None:
        program = self.variant.program
        prepared = any(self.step is s for s in program.prepared.steps)
        arrays = example(self.variant)
        sizes = () if prepared else self.variant.match(arrays)
        key = np.array([3, 5], np.int64) if self.variant.draws else None
        updated = [(a, a._data.copy()) for a in program.updated]
        draw = np.random.default_rng()
        try:
            for _ in range(TRIES):
                data = [
                    draw.standard_normal(x.shape).astype(x.dtype) if is_float(x.dtype) else x._data.copy()
                    for x in arrays
                ]
                run = StepRun(program, [] if prepared else data, sizes, key, prepared=prepared)
                self._compare_once(run, new)
        finally:
            for array, values in updated:
                array._data[...] = values

    def _compare_once(self, run: StepRun, new: Kernel) -> None:
        number = next(i for i, s in enumerate(run.bound.steps) if s is self.step)
        row = sum(s.kernel is not None for s in run.bound.steps[:number])
        for step, work in run.run():
            if step is not self.step:
                work()
                continue
            nodes = {id(root_of(n)): root_of(n) for n in (*step.reads, *step.writes)}
            before = {i: run.value(n).copy() for i, n in nodes.items()}
            work()
            wanted = [run.value(root_of(w)).copy() for w in step.writes]
            for i, n in nodes.items():
                if n.kind not in ("input", "captured", "key"):
                    run.value(n)[...] = before[i]
            for w in step.writes:  # what the new kernel leaves out must not look right
                if all(root_of(r) is not root_of(w) for r in step.reads) and not self._shares(run, w):
                    run.value(root_of(w)).view(np.uint8).fill(0xA5)
            table = run.bound.table.reshape(-1, ROW)
            kernel = run.bound.kernels[number]
            assert kernel is not None and table[row + 1, 0] == kernel.address
            table[row + 1, 0] = new.address
            work()
            for w, right in zip(step.writes, wanted):
                _check(self.name, w, run.value(root_of(w)), right)

    def _shares(self, run: StepRun, write: Any) -> bool:
        """Whether a result is written over an operand, or over a part that another step wrote."""
        place = run.place(write)
        others = [r for s in run.bound.steps for r in s.writes if s is not self.step and root_of(r) is root_of(write)]
        return bool(others) or any(run.place(r) == place for r in self.step.reads)

    def __str__(self) -> str:
        return self.source

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {len(self.step.reads)} in, {len(self.step.writes)} out>"


def _check(name: str, node: Any, found: np.ndarray, wanted: np.ndarray) -> None:
    apart = distance(found, wanted)
    if not apart > CLOSE:
        return
    with np.errstate(all="ignore"):
        where = np.argmax(np.nan_to_num(np.abs(found.astype(np.float64) - wanted.astype(np.float64)), nan=np.inf))
    place = tuple(int(i) for i in np.unravel_index(int(where), found.shape))
    what = node.op.name if node.op is not None else "a part of the result"
    raise ValueError(
        f"replace: the new source of {name} computes something else: {what} at {place} is {found[place]}, was "
        f"{wanted[place]} (random inputs, shape {found.shape}); the kernel is left as it was ({user_line()})"
    )
