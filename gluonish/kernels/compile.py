"""From a Kernel to the address of its machine code: memo, then the cache on disk, then the compiler.

The compiler is Numba's front end (`frontend.py`), LLVM's own optimiser at its highest level with our target machine,
and the object file it emits; that file is what the cache keeps. One engine holds all loaded objects for the life of the
process. numba is imported only when a kernel is compiled, llvmlite when the first one is loaded.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gluonish.kernels import cache, target
from gluonish.kernels.errors import KernelError
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.processors import usable_processors
from gluonish.kernels.target import Target
from gluonish.nd import collector

_addresses: dict[tuple[Kernel, Target], int] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # no thread may be inside the compiler while the process forks
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def address(kernel: Kernel) -> int:
    """Address of `void name(int64 args, int64 begin, int64 end)` for the current target.

    Raises KernelError when the source is not in the kernel language.
    """
    machine = target.current()
    found = _addresses.get((kernel, machine))
    return found if found is not None else _load(kernel, machine)


def compile_many(kernels: Sequence[Kernel], done: Callable[[int], None] = lambda count: None) -> None:
    """Brings kernels to memory, as `address` would one by one, in less time: while LLVM works at some, which lets the
    GIL go, Numba's front end makes the text of the next. `done` is told now and then how many are ready."""
    machine = target.current()
    with _lock:
        entries = {k: cache.key(k, machine) for k in dict.fromkeys(kernels) if (k, machine) not in _addresses}
        found: dict[Kernel, bytes | None] = {k: cache.read(entry) for k, entry in entries.items()}
        missing = [k for k, code in found.items() if code is None]
        if missing and machine.arm64 == target.host().arm64:
            before = len(kernels) - len(missing)
            for k, code in _objects(missing, machine, lambda count: done(before + count)):
                found[k] = code
                cache.write(entries[k], code)
        for k, kept in found.items():
            if kept is None:
                _load(k, machine)  # which says what is wrong
            else:
                _addresses[k, machine] = _engine().load(kept, k.name)


def _objects(kernels: list[Kernel], machine: Target, done: Callable[[int], None]) -> Iterator[tuple[Kernel, bytes]]:
    """Kernels with their object files. This thread is the one for Numba, and in the end one more for LLVM."""
    from gluonish.kernels import frontend, optimiser

    threads = ThreadPoolExecutor(max(1, usable_processors() - 1))
    jobs: list[tuple[Kernel, str, Future[bytes]]] = []
    try:
        with target.use(machine), collector.at_rest():
            for k in kernels:
                text = frontend.lower(k, k.name)
                jobs.append((k, text, threads.submit(optimiser.object_of, k, text, machine)))
                done(sum(future.done() for *_, future in jobs))
        for number, (k, text, future) in enumerate(reversed(jobs), 1):  # the other threads come from the front
            mine = future.cancel()
            yield k, optimiser.object_of(k, text, machine) if mine else future.result()
            done(number)
    finally:
        threads.shutdown(cancel_futures=True)


def llvm_text(kernel: Kernel) -> str:
    """The optimised LLVM text for the current target."""
    from gluonish.kernels import optimiser

    machine = target.current()
    with _lock:
        return str(optimiser.optimised(kernel, _text(kernel, machine, kernel.name), machine))


def assembly_text(kernel: Kernel) -> str:
    """The assembly for the current target."""
    from gluonish.kernels import optimiser

    machine = target.current()
    with _lock:
        return optimiser.assembly_of(kernel, _text(kernel, machine, kernel.name), machine)


def object_code(kernel: Kernel, machine: Target, symbol: str) -> bytes:
    """An object file that exports the kernel as `symbol`."""
    from gluonish.kernels import optimiser

    with _lock:
        return optimiser.object_of(kernel, _text(kernel, machine, symbol), machine)


def _load(kernel: Kernel, machine: Target) -> int:
    if machine.arm64 != target.host().arm64:
        raise KernelError(
            kernel, f"code for {machine.triple} cannot be called on this machine ({target.host().triple})"
        )
    with _lock:
        if (kernel, machine) in _addresses:
            return _addresses[kernel, machine]
        key = cache.key(kernel, machine)
        code = cache.read(key)
        if code is None:
            code = object_code(kernel, machine, kernel.name)
            cache.write(key, code)
        place = _engine().load(code, kernel.name)
        _addresses[kernel, machine] = place
        return place


def _text(kernel: Kernel, machine: Target, symbol: str) -> str:
    from gluonish.kernels import frontend

    with target.use(machine):
        return frontend.lower(kernel, symbol)


class _Engine:
    """Holds loaded object files, each a library of its own.

    LLVM's JITLink puts all sections of an object next to each other. (MCJIT does not: in a process with gigabytes of
    arrays a kernel's constants may lie too far from its code for the small code model, and the offset is cut off.)
    """

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        from gluonish.kernels import optimiser

        self._llvm = llvm
        self._linker = llvm.create_lljit_compiler(
            optimiser.new_machine(target.host()), use_jit_link=True, suppress_errors=True
        )
        self._libraries: list[Any] = []

    def load(self, code: bytes, symbol: str) -> int:
        """Address of a symbol of an object file."""
        builder = self._llvm.JITLibraryBuilder()
        builder.add_object_img(code).add_current_process().export_symbol(symbol)
        loaded = builder.link(self._linker, f"kernel {len(self._libraries)}")
        self._libraries.append(loaded)
        return int(loaded[symbol])


@functools.cache
def _engine() -> _Engine:
    return _Engine()
