"""Functions of one number with a path that few numbers take, kept apart until loops have become vector code.

A branch in a loop's body would keep LLVM from widening the loop. So such a function stays a call until then, and LLVM
is told which functions of whole vectors do the same for several numbers (its vector function ABI). Those ask once
whether any of their numbers is of the rare kind. Afterwards all calls are inlined, but for those of the rare path.

Deliberately not here: the functions (`vector_trigonometry.py`), the optimiser (`compile.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from gluonish.kernels import target
from gluonish.kernels.value import Value, choose, declare, suffix

_PREFIX, _RARE = "gluonish_apart_", "gluonish_rare_"
_DEFINED = re.compile(rf'^define internal (<?[^@]*>?) @"({_PREFIX}\w+?)(_x(\d+))?"', re.MULTILINE)
_CALL = re.compile(rf'^(.*= call .* @"({_PREFIX}\w+?)(_x\d+)?"\(.*\))$', re.MULTILINE)
_BODY = re.compile(rf'^(define internal .* @"({_PREFIX}|{_RARE})\w+"\(.*\))\n?\s*#0', re.MULTILINE)
_OPTIMISED = re.compile(rf"^(define internal .* @{_PREFIX}\w+\(.*)#(\d+)", re.MULTILINE)
_INLINE = 99  # what the numbers of their attributes begin with once they are to be inlined


def apart(name: str, body: Callable[[Value], Value], x: Value) -> Value:
    """body(x) as a call of a function of its own, in which `rarely` may branch."""
    function = _function(f"{_PREFIX}{name}_{x.code}", body, x)
    if not isinstance(x.value.type, ir.VectorType):
        for lanes in _widths(x):
            vector = Value(x.builder, ir.Constant(ir.VectorType(x.value.type, lanes), ir.Undefined), x.code)
            _function(f"{_PREFIX}{name}_{x.code}", body, vector)
    return x.of(x.builder.call(function, [x.value]))


def rarely(condition: Value, usual: Sequence[Value], otherwise: Callable[[], Sequence[Value]]) -> list[Value]:
    """`otherwise()` where the condition holds, else `usual`; computed only if it holds anywhere. For use in `apart`."""
    builder, flag = condition.builder, condition.value
    vector = isinstance(flag.type, ir.VectorType)
    if vector:
        name = f"llvm.vector.reduce.or.{suffix(flag.type)}"
        flag = builder.call(declare(builder, name, ir.IntType(1), [flag.type]), [flag])
    before, rare, after = builder.block, builder.append_basic_block("rare"), builder.append_basic_block("usual")
    branch = builder.cbranch(flag, rare, after)
    branch.set_weights([1, 1 << 16])
    builder.position_at_end(rare)
    values = list(otherwise())
    if vector:
        values = [choose(condition, new, old) for new, old in zip(values, usual, strict=True)]
    end = builder.block
    builder.branch(after)
    builder.position_at_end(after)
    results = []
    for new, old in zip(values, usual, strict=True):
        phi = builder.phi(old.value.type)
        phi.add_incoming(new.value, end)
        phi.add_incoming(old.value, before)
        results.append(old.of(phi))
    return results


def rare_function(
    name: str, body: Callable[[ir.IRBuilder, Value], Sequence[Value]], x: Value, results: int
) -> list[Value]:
    """The results, of the type of x, of a function that stays a call: for the rare path itself."""
    kind = x.value.type
    full = f"{_RARE}{name}_{suffix(kind)}"
    known = x.builder.module.globals.get(full)
    if known is None:
        known = ir.Function(x.builder.module, ir.FunctionType(ir.LiteralStructType([kind] * results), [kind]), full)
        known.linkage = "internal"
        builder = ir.IRBuilder(known.append_basic_block("entry"))
        made = body(builder, Value(builder, known.args[0], x.code, exact=True))
        whole: Any = ir.Constant(known.function_type.return_type, ir.Undefined)
        for place, value in enumerate(made):
            whole = builder.insert_value(whole, value.value, place)
        builder.ret(whole)
    packed = x.builder.call(known, [x.value])
    return [x.of(x.builder.extract_value(packed, place)) for place in range(results)]


def _widths(x: Value) -> list[int]:
    """The vectors that loops are made of: whole registers of this type, and of float64 beside it."""
    register = target.current().vector_bytes
    return sorted({max(2, register // (x.scalar.size)), max(2, register // 8)})


def _function(name: str, body: Callable[[Value], Value], x: Value) -> ir.Function:
    kind = x.value.type
    full = f"{name}_x{kind.count}" if isinstance(kind, ir.VectorType) else name
    known = x.builder.module.globals.get(full)
    if known is not None:
        return known
    function = ir.Function(x.builder.module, ir.FunctionType(kind, [kind]), full)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    builder.ret(body(Value(builder, function.args[0], x.code, exact=True)).value)
    return function


# --- the two steps around the optimiser -------------------------------------------------------------------------------


def announced(text: str, attributes: str) -> str | None:
    """LLVM text in which the functions stay apart and their vector variants are known; None if there are none.

    attributes: those of every function, as text.
    """
    variants: dict[str, list[tuple[str, int]]] = {}
    for _, name, tail, lanes in _DEFINED.findall(text):
        variants.setdefault(name, [])
        if tail:
            variants[name].append((name + tail, int(lanes)))
    if not variants:
        return None
    numbers = {name: number for number, name in enumerate(variants, 2)}
    text = _CALL.sub(lambda m: f"{m[1]} #{numbers[m[2]]}" if not m[3] else m[1], text)
    text = _BODY.sub(r"\1 #1", text)
    kept = [vector for found in variants.values() for vector, _ in found]
    if kept:
        listed = ", ".join(f'ptr @"{name}"' for name in kept)
        text += f'\n@llvm.compiler.used = appending global [{len(kept)} x ptr] [{listed}], section "llvm.metadata"\n'
    pure = "nounwind willreturn memory(none)"
    text += f"\nattributes #1 = {{ noinline {pure} {attributes} }}\n"
    for name, found in variants.items():
        listed = ",".join(f"_ZGV_LLVM_N{lanes}v_{name}({vector})" for vector, lanes in found)
        abi = f'"vector-function-abi-variant"="{listed}"' if found else ""
        text += f"attributes #{numbers[name]} = {{ {pure} {abi} }}\n"
    return text


def joined(text: str) -> str:
    """Optimised LLVM text in which the functions are to be inlined, and those nobody calls are free to go."""
    text = re.sub(r"^@llvm\.compiler\.used = .*$", "", text, flags=re.MULTILINE)
    text, count = _OPTIMISED.subn(rf"\1#{_INLINE}\2", text)
    for number, words in re.findall(r"^attributes #(\d+) = \{(.*)\}$", text, flags=re.MULTILINE) if count else ():
        text += f"\nattributes #{_INLINE}{number} = {{{words.replace('noinline', 'alwaysinline')}}}"
    return text + "\n"
