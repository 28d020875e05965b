"""Symbolic sizes: what `x.shape` holds while a Block is traced.

A `Size` is a polynomial with integer coefficients over the sizes of the traced inputs; it also knows the value it had
in the trace (its hint). Arithmetic stays symbolic, so one trace serves every batch size. Whatever forces a size to be
a plain number (`range(n)`, `if n > 3:`) is answered from the hint and noted as a guard: the trace is then valid only
for sizes that give the same answer. A size of 1 is symbolic, too: only where something broadcasts because of it does
that become a guard. 0 always is a plain number.

Deliberately not here: solving or bounding (no answer is ever guessed beyond exact cancellation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from gluonish.nd.errors import user_line

Monomial = tuple[str, ...]
SizeLike = Union[int, "Size"]


@dataclass(frozen=True)
class Guard:
    """A fact about sizes that a trace relied on: `left <relation> right` was `holds`, asked at `line`."""

    left: SizeLike
    relation: str
    right: SizeLike
    holds: bool
    line: str

    def __str__(self) -> str:
        negation = "" if self.holds else "not "
        return f"{negation}{self.left} {self.relation} {self.right} ({self.line})"


@dataclass
class SizeScope:
    """The symbols of one trace and the guards collected on them."""

    hints: dict[str, int] = field(default_factory=dict)
    equal: dict[str, SizeLike] = field(default_factory=dict)  # atoms that a guard ties to another size
    zeros: list[Size] = field(default_factory=list)  # sums that a guard says are 0, without an atom to solve for
    guards: dict[tuple[str, str, str], Guard] = field(default_factory=dict)

    def symbol(self, hint: int) -> SizeLike:
        """A new symbol for an input dimension; 0 stays a plain number."""
        if hint == 0:
            return hint
        name = f"s{len(self.hints)}"
        self.hints[name] = hint
        return Size(self, {(name,): 1})

    def note(self, left: SizeLike, relation: str, right: SizeLike, holds: bool) -> None:
        """Adds a guard, unless it is known."""
        key = (str(left), relation, str(right))
        if key not in self.guards:
            self.guards[key] = Guard(left, relation, right, holds, user_line())
        if relation == "==" and holds:
            self._tie(tied(left - right))

    def _tie(self, nothing: SizeLike) -> None:
        """From now on an atom of a sum that is zero counts as what it must be: rather a late symbol than a quotient."""
        terms = nothing.terms if isinstance(nothing, Size) else {}
        atoms = [(m[0] in self.hints, m[0], factor) for m, factor in terms.items() if len(m) == 1]
        for _, name, factor in sorted(atoms, reverse=True):
            rest = nothing - factor * Size(self, {(name,): 1})
            if abs(factor) != 1:
                if isinstance(rest, int) and rest % factor == 0:  # 2 * s0 - 6 is zero
                    self.equal[name] = -rest // factor
                    return
                continue
            if not isinstance(rest, Size) or not any(name in atom for m in rest.terms for atom in m):
                self.equal[name] = rest * -factor
                return
        if isinstance(nothing, Size):  # s0*s1 - s2*s3
            self.zeros.append(nothing)

    def is_zero(self, difference: Size) -> bool:
        """Whether guards say that a tied sum of products is 0."""
        for known in map(tied, self.zeros):
            if isinstance(known, Size) and difference.terms in (known.terms, (known * -1).terms):
                return True
        return False


class Size:
    """One symbolic dimension; behaves like an int (see the module docstring)."""

    __slots__ = ("scope", "terms", "hint")

    def __init__(self, scope: SizeScope, terms: Mapping[Monomial, int]) -> None:
        self.scope = scope
        self.terms = dict(terms)
        self.hint = sum(c * _product(_atom_value(a, scope.hints) for a in m) for m, c in self.terms.items())

    # --- arithmetic -------------------------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented if not isinstance(other, float) else int(self) + other
        return _simplest(self.scope, _sum(self.terms, terms))

    def __mul__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented if not isinstance(other, float) else int(self) * other
        out: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            for n, d in terms.items():
                key = tuple(sorted(m + n))
                out[key] = out.get(key, 0) + c * d
        return _simplest(self.scope, out)

    def __neg__(self) -> SizeLike:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return int(self) - other if isinstance(other, float) else self + -1 * other

    def __rsub__(self, other: Any) -> Any:
        return -1 * self + other

    def __floordiv__(self, other: Any) -> Any:
        return _divide(self, other, "//")

    def __rfloordiv__(self, other: Any) -> Any:
        return _divide(other, self, "//")

    def __mod__(self, other: Any) -> Any:
        return _divide(self, other, "%")

    def __rmod__(self, other: Any) -> Any:
        return _divide(other, self, "%")

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, (int, float, Size)):
            return int(self) / int(other) if isinstance(other, Size) else int(self) / other
        return NotImplemented

    def __rtruediv__(self, other: Any) -> Any:
        return other / int(self) if isinstance(other, (int, float)) else NotImplemented

    def __pow__(self, other: Any) -> Any:
        return int(self) ** other

    def __abs__(self) -> SizeLike:
        return self if self >= 0 else -self

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    __radd__, __rmul__ = __add__, __mul__

    # --- as a plain number: rarer arithmetic, texts, NumPy -----------------------------------------------------------
    def __and__(self, other: Any) -> Any:
        return int(self) & other

    def __or__(self, other: Any) -> Any:
        return int(self) | other

    def __xor__(self, other: Any) -> Any:
        return int(self) ^ other

    def __lshift__(self, other: Any) -> Any:
        return int(self) << other

    def __rshift__(self, other: Any) -> Any:
        return int(self) >> other

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(int(self), dtype)

    __array_priority__ = 1000  # `numpy_number * size` comes to us

    # --- questions: answered from the hint and noted as guards -------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        return _compare(self, "==", other)

    def __ne__(self, other: object) -> bool:
        equal = _compare(self, "==", other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> bool:
        return _compare(self, "<", other)

    def __le__(self, other: Any) -> bool:
        return _compare(self, "<=", other)

    def __gt__(self, other: Any) -> bool:
        return _compare(other, "<", self)

    def __ge__(self, other: Any) -> bool:
        return _compare(other, "<=", self)

    def __bool__(self) -> bool:
        return not _ask(self, "==", 0)

    def __index__(self) -> int:
        _ask(self, "==", self.hint)
        return self.hint

    __int__ = __index__

    def __float__(self) -> float:
        return float(int(self))

    def __hash__(self) -> int:
        return hash(self.hint)

    def __repr__(self) -> str:
        parts = []
        for monomial, factor in sorted(self.terms.items(), reverse=True):
            names = list(monomial)
            parts.append("*".join(([str(factor)] if factor != 1 or not names else []) + names))
        text = " + ".join(parts)
        return f"({text})" if len(parts) > 1 else text


_WHOLE = (int, np.integer, Size)


def hint(size: SizeLike) -> int:
    """The number that a size had in its trace; never notes a guard."""
    return size.hint if isinstance(size, Size) else size


def product(sizes: Iterable[SizeLike]) -> SizeLike:
    """The product of dimensions, 1 for none."""
    out: SizeLike = 1
    for size in sizes:
        out = out * size
    return out


def same(left: SizeLike, right: SizeLike) -> bool:
    """Whether two sizes are equal for every input that passes the guards noted so far; notes none itself."""
    if isinstance(left, Size) and isinstance(right, Size) and left.terms == right.terms:
        return True  # the common case
    if not (isinstance(left, Size) or isinstance(right, Size)):
        return bool(left == right)
    scope = (left if isinstance(left, Size) else right).scope  # type: ignore[union-attr]
    if not scope.equal and not scope.zeros:
        return False
    difference = tied(left - right)
    return scope.is_zero(difference) if isinstance(difference, Size) else difference == 0


def tied(size: SizeLike) -> SizeLike:
    """The size with every symbol that a guard ties to another replaced by that."""
    while isinstance(size, Size):
        equal = size.scope.equal
        names = [name for name in equal if any(name in m for m in size.terms)]
        if not names:
            return size
        out: SizeLike = 0
        for monomial, factor in size.terms.items():
            part: SizeLike = factor
            for atom in monomial:
                part = part * (equal[atom] if atom in equal else Size(size.scope, {(atom,): 1}))
            out = out + part
        size = out
    return size


def stretches(size: SizeLike, other: SizeLike) -> bool:
    """Whether broadcasting gives a dimension of `size` the size `other`.

    A symbolic size does so where it must, being 1 beside another one: then that it is 1 becomes a guard.
    """
    if type(size) is int:
        return size == 1
    return same(size, 1) or (hint(size) == 1 != hint(other) and size == 1)


def same_shape(left: tuple[SizeLike, ...], right: tuple[SizeLike, ...]) -> bool:
    """`same` over whole shapes."""
    if len(left) != len(right):
        return False
    for a, b in zip(left, right):
        if type(a) is int and type(b) is int:  # the only case in eager mode
            if a != b:
                return False
        elif not same(a, b):
            return False
    return True


def evaluator(sizes: Iterable[SizeLike], symbols: Iterable[str]) -> Callable[..., tuple[int, ...]]:
    """A function of the symbols' values that computes all `sizes`, compiled once as Python code."""
    return eval(f"lambda {', '.join(symbols)}: ({''.join(f'{s}, ' for s in sizes)})")  # noqa: S307 - own text only


def checker(guards: Iterable[Guard], symbols: Iterable[str]) -> Callable[..., bool]:
    """A function of the symbols' values that tells whether all guards hold, compiled once as Python code."""
    tests = [f"{'' if g.holds else 'not '}({g.left} {g.relation} {g.right})" for g in guards]
    return eval(f"lambda {', '.join(symbols)}: {' and '.join(tests) or 'True'}")  # noqa: S307 - own text only


# --- the polynomial underneath ---------------------------------------------------------------------------------------
# An atom is the name of a symbol, or the text of a quotient or remainder that does not cancel: "(s0 // 2)".


def _terms(value: Any) -> Mapping[Monomial, int] | None:
    if isinstance(value, Size):
        return value.terms
    return {(): int(value)} if isinstance(value, (int, np.integer)) else None  # not for arrays: they know what to do


def _sum(left: Mapping[Monomial, int], right: Mapping[Monomial, int]) -> dict[Monomial, int]:
    out = dict(left)
    for monomial, factor in right.items():
        out[monomial] = out.get(monomial, 0) + factor
    return out


def _simplest(scope: SizeScope, terms: Mapping[Monomial, int]) -> SizeLike:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if kept.keys() == {()}:
        return kept[()]
    return Size(scope, kept)


def _atom_value(atom: str, hints: Mapping[str, int]) -> int:
    value = hints.get(atom)
    return value if value is not None else int(eval(atom, {}, dict(hints)))  # noqa: S307 - own text only


def _product(numbers: Iterable[int]) -> int:
    out = 1
    for number in numbers:
        out *= number
    return out


def _divide(left: Any, right: Any, sign: str) -> Any:
    if not isinstance(left, _WHOLE) or not isinstance(right, _WHOLE):
        return NotImplemented
    left, right = _plain(left), _plain(right)
    scope = left.scope if isinstance(left, Size) else right.scope
    quotient = _exact_quotient(scope, left, right)
    if quotient is not None:
        return quotient if sign == "//" else 0
    if hint(right) == 0:
        raise ZeroDivisionError(f"{left} {sign} {right}: the divisor is 0")
    divisor = f"({right})" if "*" in str(right) else str(right)  # a // 2*b would mean (a // 2) * b
    return _simplest(scope, {(f"({left} {sign} {divisor})",): 1})


def _exact_quotient(scope: SizeScope, left: SizeLike, right: SizeLike) -> SizeLike | None:
    divisor = _terms(right) or {}
    if len(divisor) != 1:
        return 1 if isinstance(left, Size) and isinstance(right, Size) and left.terms == right.terms else None
    (atoms, factor), *_ = divisor.items()
    out: dict[Monomial, int] = {}
    for monomial, coefficient in (_terms(left) or {}).items():
        rest = list(monomial)
        for atom in atoms:
            if atom not in rest:
                return None
            rest.remove(atom)
        if factor == 0 or coefficient % factor:
            return None
        out[tuple(rest)] = coefficient // factor
    return _simplest(scope, out)


def _compare(left: Any, relation: str, right: Any) -> Any:
    if isinstance(left, float) or isinstance(right, float):  # answered for this one size
        a, b = float(left), float(right)
        return a == b if relation == "==" else a < b if relation == "<" else a <= b
    if not isinstance(left, _WHOLE) or not isinstance(right, _WHOLE):
        return NotImplemented
    return _ask(_plain(left), relation, _plain(right))


def _plain(value: Any) -> SizeLike:
    return value if isinstance(value, Size) else int(value)


def _ask(left: SizeLike, relation: str, right: SizeLike) -> bool:
    difference = tied(left - right)
    if isinstance(difference, Size) and difference.scope.is_zero(difference):
        difference = 0
    if isinstance(difference, int):
        return {"==": difference == 0, "<": difference < 0, "<=": difference <= 0}[relation]
    a, b = hint(left), hint(right)
    holds = {"==": a == b, "<": a < b, "<=": a <= b}[relation]
    difference.scope.note(left, relation, right, holds)
    return holds
