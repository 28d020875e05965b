"""LLVM's part: from the text of a module to an object file for a target, in several threads at once.

llvmlite puts one lock around every call of LLVM, for its modules share a context. Here each module has a context of its
own, and each thread its own description of the machine, which is all that LLVM asks for; so the two calls that take
long, the optimiser and the code generator, are made past that lock.

Deliberately not here: what makes the text (`frontend.py`), which threads there are (`compile.py`).
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from typing import TYPE_CHECKING, Any

from gluonish.kernels import target, vector_variants
from gluonish.kernels.errors import KernelError
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.target import Target

if TYPE_CHECKING:
    import llvmlite.binding as llvm

_ALLOWED = frozenset(("memcpy", "memset", "memmove"))
_DEFINE = re.compile(r"^(define .*)\n\{", re.MULTILINE)
_own = threading.local()


def object_of(kernel: Kernel, text: str, machine: Target) -> bytes:
    """The object file of a kernel's text."""
    return _emitted(optimised(kernel, text, machine), machine)


def assembly_of(kernel: Kernel, text: str, machine: Target) -> str:
    """The assembly of a kernel's text."""
    return str(_machine(machine).emit_assembly(optimised(kernel, text, machine)))


def optimised(kernel: Kernel, text: str, machine: Target) -> llvm.ModuleRef:
    """The module as it is when code is made from it.

    Raises KernelError where it needs what is not part of the kernel language.
    """
    import llvmlite.binding as llvm

    text = _with_attributes(text, machine)
    apart = vector_variants.announced(text, _attributes(machine))
    module = llvm.parse_assembly(text if apart is None else apart, llvm.create_context())
    module.verify()
    _optimise(module, machine)
    if apart is not None:  # now that loops are vector code
        module = llvm.parse_assembly(vector_variants.joined(str(module)), llvm.create_context())
        _optimise(module, machine, again=True)
    foreign = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if not _ALLOWED.issuperset(foreign):
        reason = f"it needs {', '.join(foreign)}, which is not part of the kernel language (see intrinsics.py)"
        raise KernelError(kernel, reason)
    return module


def new_machine(machine: Target) -> Any:
    """LLVM's description of a target; not to be used by two threads at once."""
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


def _machine(machine: Target) -> Any:
    known = _own.__dict__.setdefault("machines", {})
    if machine not in known:
        known[machine] = new_machine(machine)
    return known[machine]


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
    passes = builder.getModulePassManager()
    _library().LLVMPY_RunNewModulePassManager(passes, module, builder)


def _emitted(module: llvm.ModuleRef, machine: Target) -> bytes:
    library, error = _library(), ctypes.c_char_p()
    buffer = library.LLVMPY_TargetMachineEmitToMemory(_machine(machine), module, 1, ctypes.byref(error))
    if not buffer:
        raise RuntimeError(f"LLVM made no object file: {(error.value or b'').decode()}")
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)


@functools.cache
def _library() -> Any:
    """llvmlite's own library, without the lock around its functions."""
    from llvmlite.binding import ffi

    library = ctypes.CDLL(ffi.lib._name, handle=ffi.lib._handle)
    place = ctypes.c_void_p
    for name, result, *arguments in (
        ("RunNewModulePassManager", None, place, place, place),
        ("TargetMachineEmitToMemory", place, place, place, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
        ("GetBufferStart", place, place),
        ("GetBufferSize", ctypes.c_size_t, place),
        ("DisposeMemoryBuffer", None, place),
    ):
        function = getattr(library, f"LLVMPY_{name}")
        function.restype, function.argtypes = result, arguments
    return library
