"""Numba as a front end: the source of a kernel becomes LLVM text that nobody has optimised yet.

Numba types the Python function and lowers it; here its calling convention is hidden behind a plain C function, its
float arithmetic gets the flags of the kernel language, and its parallel loops get their marks. Externals that say so
(`lanes.Part`) become LLVM functions beside it, so that convolutions that differ in their epilogue only pass Numba once:
most of the time to the first result of a network went into that. Deliberately not here:
Numba's own optimiser, code generator and runtime, which take no part.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from llvmlite import ir
from numba.core import compiler, cpu, typed_passes, types, untyped_passes
from numba.core.codegen import CodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.errors import NumbaError
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.lowering import Lower

from gluonish.kernels import lanes, loop_metadata, target
from gluonish.kernels.contexts import contexts
from gluonish.kernels.errors import KernelError
from gluonish.kernels.intrinsics import INTRINSICS, NAMES, intrinsic_of
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.lanes import Part

FLAGS = ("contract", "reassoc", "nsz", "arcp", "afn")  # never nnan or ninf: NaN and Inf are answers
_BUILTINS = {"range": range}
_ARITHMETIC = frozenset(("fadd", "fsub", "fmul", "fdiv"))
_I64 = ir.IntType(64)
_DECLARED_PART = re.compile(r'^declare [^\n]*@"part\.[^\n]*\n', re.MULTILINE)
_NODE, _PART_NODES = re.compile(r"!(\d+)\b"), 500000  # nodes of metadata; those of parts begin here
_walks: dict[Any, str] = {}  # what kernels with the same source share, the latest last; under the lock of `compile.py`
WALKS = 8


def lower(kernel: Kernel, symbol: str) -> str:
    """LLVM text with one exported function, `symbol(int64 args, int64 begin, int64 end)`; see Kernel.

    Raises KernelError with the line of the source when the source is not in the kernel language.
    """
    externals = {name: _external(path, parameters) for name, path, parameters in kernel.externals}
    parts = {name: made.part for name, made in externals.items() if getattr(made, "part", None)}
    if not parts:
        return _lowered(kernel, symbol, externals)
    # What differs between the kernels of a source are parts of few operations; the rest takes Numba long: made once.
    fixed = tuple(external for external in kernel.externals if external[0] not in parts)
    called = tuple((name, part.arity, part.gives) for name, part in parts.items())
    key = (kernel.name, kernel.source, kernel.gives, symbol, fixed, called, target.current())
    text = _walks.pop(key, None)
    if text is None:
        text = _lowered(kernel, symbol, externals | {name: _call_of(name, part) for name, part in parts.items()})
    _walks[key] = text
    while len(_walks) > WALKS:
        del _walks[next(iter(_walks))]
    return _with_parts(kernel, text, parts)


def _call_of(name: str, part: Part) -> Any:
    """The intrinsic that calls a part by its name."""

    def emit(builder: ir.IRBuilder, arguments: list[ir.Value]) -> ir.Value:
        return builder.call(part.function(builder.module, f"part.{name}"), arguments)

    return lanes.intrinsic_of(part.arity, emit, part.gives)


def _with_parts(kernel: Kernel, text: str, parts: dict[str, Part]) -> str:
    """The text with the functions of the parts in the place of their declarations."""
    module = ir.Module("parts")
    for name, part in parts.items():
        part.define(module, f"part.{name}")
    for function in module.functions:
        _add_flags(kernel, function)
    known = {line for line in text.splitlines() if line.startswith(("declare ", "@"))}
    made = "\n".join(line for line in str(module).splitlines() if line not in known)
    made = _NODE.sub(lambda node: f"!{_PART_NODES + int(node[1])}", made)  # both modules count theirs from 0
    return _DECLARED_PART.sub("", text) + made


def _lowered(kernel: Kernel, symbol: str, externals: dict[str, Any]) -> str:
    function = _function_of(kernel, externals)
    typing, lowering = contexts()
    library = _Library(lowering.codegen(), kernel.name)
    try:
        with global_compiler_lock:
            result = compiler.compile_extra(
                typing,
                lowering,
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
    except NotImplementedError as error:  # Numba knows its type, but not how to compute it
        raise KernelError(kernel, f"it needs what is not part of the kernel language: {error}") from None
    return _finished(kernel, library.modules, result.fndesc.llvm_func_name, symbol)


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


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(LoweringPass):
    """Numba's lowering without its statistics, for which it asks LLVM too."""

    _name = "kernel_lowering"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        with typed_passes.fallback_context(state, f"Function {state.func_id.func_name} failed at lowering"):
            description = PythonFunctionDescriptor.from_specialized_function(
                state.func_ir,
                state.typemap,
                state.return_type,
                state.calltypes,
                mangler=state.targetctx.mangler,
                inline=state.flags.forceinline,
                noalias=state.flags.noalias,
                abi_tags=[state.flags.get_mangle_string()],
            )
            with state.targetctx.push_code_library(state.library):
                lowering = Lower(state.targetctx, state.library, description, state.func_ir, metadata=state.metadata)
                lowering.lower()
        result = compiler._LowerResult(description, lowering.call_helper, cfunc=None, env=lowering.env)
        state["cr"] = result
        return True


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
            _Lowering,
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

    def create_ir_module(self, name: str) -> ir.Module:
        """Without triple and layout: `compile.py` sets those of the target."""
        return ir.Module(name)

    def add_ir_module(self, ir_module: ir.Module) -> None:
        self.modules.append(ir_module)

    def add_linking_library(self, library: Any) -> None:
        raise NotImplementedError

    def finalize(self) -> None:
        self._finalized = True

    def get_function(self, name: str) -> Any:
        raise NotImplementedError

    def get_llvm_str(self) -> str:
        return "\n".join(map(str, self.modules))

    def get_asm_str(self) -> str:
        raise NotImplementedError


def _function_of(kernel: Kernel, externals: dict[str, Any]) -> Any:
    space: dict[str, Any] = {}
    try:
        exec(compile(kernel.source, f"<kernel {kernel.name}>", "exec"), space)
    except SyntaxError as error:
        raise KernelError(kernel, f"line {error.lineno}: {error.msg}") from None
    function = space.get(kernel.name)
    if function is None or function.__code__.co_argcount != 3:
        raise KernelError(kernel, f"the source defines no function {kernel.name}(args, begin, end)")
    for name in function.__code__.co_names:
        space[name] = _resolve(kernel, name, externals)
    return function


def _external(path: str, parameters: tuple[object, ...]) -> Any:
    module, _, factory = path.partition(":")
    return getattr(importlib.import_module(f"gluonish.kernels.{module}"), factory)(*parameters)


def _resolve(kernel: Kernel, name: str, externals: dict[str, Any]) -> Any:
    if name in externals:
        return externals[name]
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
