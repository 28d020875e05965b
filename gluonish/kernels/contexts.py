"""Numba's typing and lowering contexts for the kernel language, which knows numbers, ranges and intrinsics.

Numba's own contexts load all that Numba can do (arrays, lists, strings, random numbers, SciPy where it is installed)
before the first function is compiled, which took a quarter of a second, and look for more before each intrinsic. These
load what kernels use and remember what was asked before.

Deliberately not here: the passes and the calling convention (`frontend.py`), the intrinsics themselves.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cpu, types, typing
from numba.core.errors import TypingError
from numba.core.typing import templates

_INTRINSICS = templates.Registry()
_OF_INTEGERS = (operator.mod, operator.imod, operator.floordiv, operator.ifloordiv)
_POWERS = (operator.pow, operator.ipow)


class Intrinsic:
    """What a kernel calls by its name. part: see `lanes.intrinsic_of`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.part: Any = None


def intrinsic(define: Callable[..., Any]) -> Intrinsic:
    """The intrinsic that `define(typing context, *types of the arguments)` describes: it gives the signature and
    `emit(context, builder, signature, values)`, or raises TypingError."""
    made = Intrinsic(define.__name__)
    space = {"key": made, "define": staticmethod(define), "emitters": {}}
    template = type(f"Template_{made.name}", (_Template,), space)
    _INTRINSICS.register_global(made, types.Function(template))
    return made


class _Template(templates.AbstractTemplate):
    """How Numba types an intrinsic."""

    define: Callable[..., Any]
    emitters: dict[Any, Any]

    def generic(self, args: Any, kws: Any) -> Any:
        """The signature for these types; the emitter becomes known to the lowering context."""
        if kws:
            return None
        signature, emit = self.define(self.context, *args)
        if signature.args not in self.emitters:
            self.emitters[signature.args] = emit
            self.context.lowering.insert_func_defn([(emit, emit, signature.args)])
        return signature

    def get_impl_key(self, signature: Any) -> Any:
        """What the emitter is known by."""
        return self.emitters[signature.args]


class Typing(typing.Context):
    """What a call means is asked once, not once a kernel: a third of the time of typing went into finding out again
    what int64 + int64 is."""

    lowering: Lowering

    def init(self) -> None:
        """Called by Numba."""
        self.known: dict[Any, Any] = {}

    def load_additional_registries(self) -> None:
        """The intrinsics."""
        self.install_registry(_INTRINSICS)

    def _load_builtins(self) -> None:
        self.install_registry(_numbers())

    def resolve_value_type(self, val: Any) -> Any:
        """The type of a global: of most kinds Numba tries all it knows first, and imports what they need."""
        if type(val) is int and abs(val) < 2**63:
            return types.int64
        known = self._lookup_global(val) if isinstance(val, (Intrinsic, type)) else None
        return known if known is not None else super().resolve_value_type(val)

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of a call."""
        key = (func, args, tuple(sorted(kws.items())) if kws else ())
        signature = self.known.get(key)
        if signature is None:
            _check(getattr(func, "typing_key", None), args)
            signature = super().resolve_function_type(func, args, kws)
            if signature is not None and isinstance(func, types.Function):
                self.known[key] = signature
        return signature


def _check(operation: Any, operands: Any) -> None:
    """Refuses what Numba would call the C library for."""
    if operation in _POWERS:
        raise TypingError("** is not part of the kernel language; use the op power")
    if operation in _OF_INTEGERS and any(isinstance(kind, types.Float) for kind in operands):
        raise TypingError("there is no // and no % of floats; use the ops floor_divide and remainder")


@functools.cache
def _numbers() -> templates.Registry:
    """What Numba knows of numbers and ranges, without what other modules have added to the same registry."""
    from numba.core.typing import builtins

    def ours(template: Any) -> bool:
        return any(kind.__module__ == builtins.__name__ for kind in template.__mro__)

    every, chosen = templates.builtin_registry, templates.Registry()
    chosen.functions += filter(ours, every.functions)
    chosen.attributes += filter(ours, every.attributes)
    chosen.globals += [(value, kind) for value, kind in every.globals if all(map(ours, getattr(kind, "templates", ())))]
    return chosen


class Lowering(cpu.CPUContext):
    """The size of a type is asked of LLVM once, not for every variable."""

    sizes: dict[str, int] = {}

    def load_additional_registries(self) -> None:
        """Numbers, ranges, and tuples, which assignments of several values need."""
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401 - fill the registry

    def post_lowering(self, mod: ir.Module, library: Any) -> None:
        """Kernels do not use Numba's runtime, so it is not linked, nor made."""

    def get_abi_sizeof(self, ty: ir.Type) -> int:
        """Bytes of a type."""
        name = str(ty)
        if name not in self.sizes:
            self.sizes[name] = super().get_abi_sizeof(ty)
        return self.sizes[name]


@functools.cache
def contexts() -> tuple[Typing, Lowering]:
    """The two contexts of this process."""
    typed = Typing()
    typed.lowering = Lowering(typed)
    return typed, typed.lowering
