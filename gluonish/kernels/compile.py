"""From a Kernel to the address of its machine code: memo, then the cache on disk, then the compiler.

The compiler is Numba's front end (`frontend.py`), LLVM's own optimiser at its highest level with our target machine,
and the object file it emits; that file is what the cache keeps. One engine holds all loaded objects for the life of the
process. numba is imported only when a kernel is compiled, llvmlite when the first one is loaded.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gluonish.kernels import cache, target
from gluonish.kernels.errors import KernelError
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.target import Target

if TYPE_CHECKING:
    import llvmlite.binding as llvm

_addresses: dict[tuple[Kernel, Target], int] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # no thread may be inside the compiler while the process forks
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_ALLOWED = frozenset(("memcpy", "memset", "memmove"))
_DEFINE = re.compile(r"^(define .*)\n\{", re.MULTILINE)


def address(kernel: Kernel) -> int:
    """Address of `void name(int64 args, int64 begin, int64 end)` for the current target.

    Raises KernelError when the source is not in the kernel language.
    """
    machine = target.current()
    found = _addresses.get((kernel, machine))
    return found if found is not None else _load(kernel, machine)


def compile_many(kernels: Sequence[Kernel], done: Callable[[int], None] = lambda count: None) -> None:
    """Brings kernels to memory, as `address` would one by one, in less time: while LLVM works at one, which lets the
    GIL go, Numba's front end makes the text of the next. `done` is told now and then how many are ready."""
    machine = target.current()
    with _lock:
        entries = {k: cache.key(k, machine) for k in dict.fromkeys(kernels) if (k, machine) not in _addresses}
        found = {k: cache.read(entry) for k, entry in entries.items()}
        missing = [k for k, code in found.items() if code is None]
        if missing and machine.arm64 == target.host().arm64:
            from gluonish.kernels import frontend

            with ThreadPoolExecutor(1) as llvm_thread, target.use(machine):
                objects: list[tuple[Kernel, Future[bytes]]] = []
                for k in missing:
                    objects.append((k, llvm_thread.submit(_object, k, frontend.lower(k, k.name), machine)))
                    done(len(kernels) - len(missing) + sum(future.done() for _, future in objects))
                for number, (k, future) in enumerate(objects, 1):
                    found[k] = future.result()
                    cache.write(entries[k], found[k])  # type: ignore[arg-type]
                    done(len(kernels) - len(missing) + number)
        for k, code in found.items():
            if code is None:
                _load(k, machine)  # which says what is wrong
            else:
                _addresses[k, machine] = _engine().load(code, k.name)


def llvm_text(kernel: Kernel) -> str:
    """The optimised LLVM text for the current target."""
    machine = target.current()
    with _lock:
        return str(_optimised(kernel, machine, kernel.name))


def assembly_text(kernel: Kernel) -> str:
    """The assembly for the current target."""
    machine = target.current()
    with _lock:
        return str(_machine(machine).emit_assembly(_optimised(kernel, machine, kernel.name)))


def object_code(kernel: Kernel, machine: Target, symbol: str) -> bytes:
    """An object file that exports the kernel as `symbol`."""
    with _lock:
        return bytes(_machine(machine).emit_object(_optimised(kernel, machine, symbol)))


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


def _optimised(kernel: Kernel, machine: Target, symbol: str) -> llvm.ModuleRef:
    from gluonish.kernels import frontend

    with target.use(machine):
        text = frontend.lower(kernel, symbol)
    return _optimised_text(kernel, text, machine)


def _object(kernel: Kernel, text: str, machine: Target) -> bytes:
    return bytes(_machine(machine).emit_object(_optimised_text(kernel, text, machine)))


def _optimised_text(kernel: Kernel, text: str, machine: Target) -> llvm.ModuleRef:
    import llvmlite.binding as llvm

    from gluonish.kernels import vector_variants

    text = _with_attributes(text, machine)
    apart = vector_variants.announced(text, _attributes(machine))
    module = llvm.parse_assembly(text if apart is None else apart)
    module.verify()
    _optimise(module, machine)
    if apart is not None:  # now that loops are vector code
        module = llvm.parse_assembly(vector_variants.joined(str(module)))
        _optimise(module, machine, again=True)
    foreign = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if not _ALLOWED.issuperset(foreign):
        reason = f"it needs {', '.join(foreign)}, which is not part of the kernel language (see intrinsics.py)"
        raise KernelError(kernel, reason)
    return module


def _with_attributes(text: str, machine: Target) -> str:
    """Sets triple and layout, and the attributes on every function: the optimiser asks functions for the machine."""
    text = re.sub(r"^target (triple|datalayout) = .*$", "", text, flags=re.MULTILINE)
    attributes = f"attributes #0 = {{ nounwind {_attributes(machine)} }}"
    head = f'target triple = "{machine.triple}"\ntarget datalayout = "{_machine(machine).target_data}"\n'
    return head + _DEFINE.sub(r"\1 #0\n{", text) + "\n" + attributes + "\n"


def _attributes(machine: Target) -> str:
    width = machine.vector_bytes * 8
    return (
        f'"target-cpu"="{machine.cpu}" "target-features"="{machine.features}" '
        f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}"'
    )


def _optimise(module: llvm.ModuleRef, machine: Target, again: bool = False) -> None:
    import llvmlite.binding as llvm

    tuning = llvm.create_pipeline_tuning_options(speed_level=1 if again else 3)
    tuning.loop_vectorization = tuning.slp_vectorization = not again
    tuning.loop_interleaving = tuning.loop_unrolling = not again
    builder = llvm.create_pass_builder(_machine(machine), tuning)
    builder.getModulePassManager().run(module, builder)


@functools.cache
def _machine(machine: Target) -> Any:
    return _new_machine(machine)


def _new_machine(machine: Target) -> Any:
    import llvmlite.binding as llvm

    if machine.arm64 == target.host().arm64:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    chosen = llvm.Target.from_triple(machine.triple)
    # position independent and small: constants are read relative to the code, as operands of instructions
    return chosen.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, reloc="pic", codemodel="small", jit=True
    )


class _Engine:
    """Holds loaded object files, each a library of its own.

    LLVM's JITLink puts all sections of an object next to each other. (MCJIT does not: in a process with gigabytes of
    arrays a kernel's constants may lie too far from its code for the small code model, and the offset is cut off.)
    """

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        self._llvm = llvm
        self._linker = llvm.create_lljit_compiler(_new_machine(target.host()), use_jit_link=True, suppress_errors=True)
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
