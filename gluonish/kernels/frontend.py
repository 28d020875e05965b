"""Numba as a front end: the source of a kernel becomes LLVM text that nobody has optimised yet.

Numba types the Python function and lowers it; here its calling convention is hidden behind a plain C function, its
float arithmetic gets the flags of the kernel language, and its parallel loops get their marks. Deliberately not here:
Numba's own optimiser, code generator and runtime, which take no part.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from llvmlite import ir
from numba.core import compiler, cpu, typed_passes, types, untyped_passes
from numba.core.codegen import CodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target

from gluonish.kernels import loop_metadata
from gluonish.kernels.errors import KernelError
from gluonish.kernels.intrinsics import INTRINSICS, NAMES, intrinsic_of
from gluonish.kernels.kernel import Kernel

FLAGS = ("contract", "reassoc", "nsz", "arcp", "afn")  # never nnan or ninf: NaN and Inf are answers
_BUILTINS = {"range": range}
_ARITHMETIC = frozenset(("fadd", "fsub", "fmul", "fdiv"))
_I64 = ir.IntType(64)


def lower(kernel: Kernel, symbol: str) -> str:
    """LLVM text with one exported function, `symbol(int64 args, int64 begin, int64 end)`; see Kernel.

    Raises KernelError with the line of the source when the source is not in the kernel language.
    """
    function = _function_of(kernel)
    library = _Library(cpu_target.target_context.codegen(), kernel.name)
    try:
        with global_compiler_lock:
            result = compiler.compile_extra(
                _typing_context(),
                cpu_target.target_context,
                function,
                (types.int64,) * 3,
                types.int64 if kernel.gives else types.void,
                _flags(),
                {},
                library=library,
                pipeline_class=_Pipeline,
            )
    except NumbaError as error:
        raise KernelError(kernel, _message(error)) from None
    return _finished(kernel, library.modules, result.fndesc.llvm_func_name, symbol)


@functools.cache
def _typing_context() -> Any:
    """Numba's own context, but what a call of a function with some types means is asked once, not once a kernel: a
    third of the time of typing goes into finding out again what int64 + int64 is."""
    plain = cpu_target.typing_context
    found: dict[Any, Any] = {}

    class Remembering(type(plain)):  # type: ignore[misc]
        def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
            key = (func, args, tuple(sorted(kws.items())) if kws else ())
            signature = found.get(key)
            if signature is None:
                signature = super().resolve_function_type(func, args, kws)
                if signature is not None and isinstance(func, types.Function):
                    found[key] = signature
            return signature

    context = object.__new__(Remembering)
    context.__dict__ = plain.__dict__  # the same registries, and whatever is added to them later
    return context


def _flags() -> compiler.Flags:
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.enable_looplift = False
    flags.error_model = "numpy"
    flags.fastmath = cpu.FastMathOptions(False)  # set below, where the ops' own instructions can be left alone
    return flags


class _Pipeline(compiler.CompilerBase):
    """The passes that the kernel language needs, in half the time of all: no rewrites, no inlining, no closures."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("kernel")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.IRLegalization,
            typed_passes.NativeLowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


class _Library(CodeLibrary):
    """Collects modules where Numba would optimise and compile them."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.modules: list[ir.Module] = []

    def add_ir_module(self, ir_module: ir.Module) -> None:
        self.modules.append(ir_module)

    def add_linking_library(self, library: Any) -> None:
        """Numba's runtime, which kernels do not use."""

    def finalize(self) -> None:
        self._finalized = True

    def get_function(self, name: str) -> Any:
        raise NotImplementedError

    def get_llvm_str(self) -> str:
        return "\n".join(map(str, self.modules))

    def get_asm_str(self) -> str:
        raise NotImplementedError


def _function_of(kernel: Kernel) -> Any:
    space: dict[str, Any] = {}
    try:
        exec(compile(kernel.source, f"<kernel {kernel.name}>", "exec"), space)
    except SyntaxError as error:
        raise KernelError(kernel, f"line {error.lineno}: {error.msg}") from None
    function = space.get(kernel.name)
    if function is None or function.__code__.co_argcount != 3:
        raise KernelError(kernel, f"the source defines no function {kernel.name}(args, begin, end)")
    externals = {name: (path, parameters) for name, path, parameters in kernel.externals}
    for name in function.__code__.co_names:
        space[name] = _resolve(kernel, name, externals)
    return function


def _resolve(kernel: Kernel, name: str, externals: dict[str, Any]) -> Any:
    if name in externals:
        path, parameters = externals[name]
        module, _, factory = path.partition(":")
        return getattr(importlib.import_module(f"gluonish.kernels.{module}"), factory)(*parameters)
    for space in (INTRINSICS, NAMES, _BUILTINS):
        if name in space:
            return space[name]
    try:
        return intrinsic_of(name)
    except KeyError:
        raise KernelError(kernel, f"{name} is neither an intrinsic nor an external nor an elementwise op") from None


def _finished(kernel: Kernel, modules: list[ir.Module], inner: str, symbol: str) -> str:
    if len(modules) != 1:
        raise RuntimeError(f"Numba lowered a kernel to {len(modules)} modules where one was expected")
    module = modules[0]
    for item in module.global_values:
        if isinstance(item, ir.GlobalVariable) and item.linkage == "common":
            item.linkage = "internal"  # Numba's environment, which nothing refers to
            item.initializer = ir.Constant(item.value_type, None)
    for function in module.functions:
        _add_flags(kernel, function)
    _export(module, module.get_global(inner), symbol, kernel.gives)
    nodes = loop_metadata.mark_innermost_loops(module)
    return f"{module}\n{nodes}"


def _add_flags(kernel: Kernel, function: ir.Function) -> None:
    for block in function.blocks:
        for item in block.instructions:
            if item.opname == "frem":  # LLVM calls the C library for it
                raise KernelError(kernel, "there is no % of floats; use the op remainder")
            if item.opname in _ARITHMETIC and not item.flags and not hasattr(item, "as_written"):
                if not isinstance(item.type, ir.VectorType):  # Numba makes no vectors: this one is of an intrinsic
                    item.flags.extend(FLAGS)


def _export(module: ir.Module, inner: ir.Function, symbol: str, gives: bool) -> None:
    """Adds the C function around Numba's, which also takes places for a result and an exception."""
    inner.linkage = "internal"
    inner.attributes.add("alwaysinline")
    function = ir.Function(module, ir.FunctionType(_I64 if gives else ir.VoidType(), [_I64] * 3), symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    places = [builder.alloca(kind.pointee) for kind in inner.function_type.args[:2]]
    builder.call(inner, places + list(function.args))
    if gives:
        builder.ret(builder.load(places[0], typ=_I64))
    else:
        builder.ret_void()


def _message(error: NumbaError) -> str:
    """The reason inside Numba's report, with the line of the kernel."""
    text = str(error)
    line = re.search(r'<kernel [^>]*>"?(?: \(|, line )(\d+)', text)
    ours = re.search(r"TypingError: (.*)", text)
    call = re.search(r">>> (.*)", text)
    first = next((part for part in text.splitlines() if part and not part.startswith("Failed in")), text)
    reason = ours[1] if ours else f"there is no {call[1]}" if call else first
    return f"line {line[1]}: {reason}" if line else reason
