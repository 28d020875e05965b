"""Symbolic sizes: their arithmetic is that of integers, and guards are noted when needed and only then."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

from gluonish import nd
from gluonish.nd import size as sizes
from gluonish.nd.size import Size, SizeScope, checker, evaluator, same, same_shape, stretches

OPERATIONS = [operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod]


def expression(rng: np.random.Generator, symbols: list[Any], numbers: dict[str, list[int]], depth: int) -> Any:
    """A random expression over symbols, its value for each of several choices of numbers; None for a division by 0."""
    if depth == 0 or rng.random() < 0.2:
        if rng.random() < 0.5:
            constant = int(rng.integers(-4, 9))
            return constant, [constant] * len(numbers["s0"])
        symbol = symbols[rng.integers(len(symbols))]
        return symbol, numbers[str(symbol)]
    operation = OPERATIONS[rng.integers(len(OPERATIONS))]
    (left, a), (right, b) = (expression(rng, symbols, numbers, depth - 1) for _ in range(2))
    if a is None or b is None or (operation in OPERATIONS[3:] and 0 in b):
        return None, None
    return operation(left, right), [operation(x, y) for x, y in zip(a, b)]


def test_arithmetic_is_integer_arithmetic(rng: np.random.Generator) -> None:
    tried = 0
    while tried < 400:
        scope = SizeScope()
        symbols = [scope.symbol(int(h)) for h in rng.integers(2, 30, 3)]
        numbers = {n: [scope.hints[n], *rng.integers(2, 40, 6).tolist()] for n in scope.hints}
        found, wanted = expression(rng, symbols, numbers, 4)
        if wanted is None:
            continue
        tried += 1
        assert sizes.hint(found) == wanted[0]
        evaluate = evaluator([found], scope.hints)
        for choice in range(7):
            assert evaluate(*[numbers[n][choice] for n in scope.hints]) == (wanted[choice],), str(found)
        assert not scope.guards  # arithmetic alone asks nothing


def test_guards_let_through_exactly_the_same_answers(rng: np.random.Generator) -> None:
    comparisons = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
    for _ in range(200):
        scope = SizeScope()
        symbols = [scope.symbol(int(h)) for h in rng.integers(2, 9, 2)]
        numbers = {n: [scope.hints[n], *rng.integers(2, 9, 8).tolist()] for n in scope.hints}
        (left, a), (right, b) = (expression(rng, symbols, numbers, 2) for _ in range(2))
        if a is None or b is None:
            continue
        asked = comparisons[rng.integers(6)]
        answer = asked(left, right)
        assert answer == asked(a[0], b[0])
        holds = checker(scope.guards.values(), scope.hints)
        for choice in range(9):
            if holds(*[numbers[n][choice] for n in scope.hints]):
                assert asked(a[choice], b[choice]) == answer, (str(left), str(right))


def scope_of(*hints: int) -> tuple[SizeScope, list[Any]]:
    scope = SizeScope()
    return scope, [scope.symbol(h) for h in hints]


def test_no_guard_for_what_is_true_of_all_sizes() -> None:
    scope, (n, m) = scope_of(6, 4)
    assert n == n and n + 0 == n and 2 * n - n == n and n + 1 > n and n - 1 < n and n * m == m * n
    assert (n * m) // m == n and (n * 6) % 3 == 0 and (2 * n) // 2 == n and n - n == 0 and n // n == 1 and n % n == 0
    assert same(n + m, m + n) and not same(n, m) and same_shape((n, 3), (n, 3)) and not same_shape((n,), (n, 1))
    assert not scope.guards


def test_zero_is_a_number_and_one_a_size() -> None:
    scope, (nothing, one, two) = scope_of(0, 1, 2)
    assert type(nothing) is int and isinstance(one, Size) and isinstance(two, Size)
    assert not scope.guards and stretches(1, two) and not stretches(two, 1) and not stretches(two, one)
    assert not scope.guards and stretches(one, two) and [str(g.right) for g in scope.guards.values()] == ["1"]
    assert stretches(one, 5) and len(scope.guards) == 1


def test_questions_are_noted_with_the_users_line() -> None:
    scope, (n, m) = scope_of(6, 4)
    assert n > m and not n == m
    lines = [str(g) for g in scope.guards.values()]
    assert len(lines) == 2 and all("test_sizes.py:" in line for line in lines)
    assert list(range(m)) == [0, 1, 2, 3] and [1] * m == [1] * 4
    assert any(g.relation == "==" and g.right == 4 for g in scope.guards.values())


def test_answers_stay_true_once_given() -> None:
    """A size that was said to equal another counts as it from then on; nothing is asked twice."""
    scope, (n, m) = scope_of(5, 5)
    assert n == m
    count = len(scope.guards)
    assert n == m and m == n and n + 1 == m + 1 and same(n, m)
    assert len(scope.guards) == count
    holds = checker(scope.guards.values(), scope.hints)
    assert holds(7, 7) and not holds(7, 8)


def test_numbers_of_other_kinds() -> None:
    scope, (n,) = scope_of(6)
    assert sizes.hint(n + np.int64(2)) == 8 and sizes.hint(np.int64(2) * n) == 12 and not scope.guards
    assert n // np.int32(4) == 1 and n == np.int64(6) and n != np.int64(7)
    assert n * 0.5 == 3.0 and 1.0 / n == 1 / 6 and n / 4 == 1.5 and n**2 == 36 and float(n) == 6.0 and 0.5 + n == 6.5
    assert n > 2.5 and not n < 5.9 and n == 6.0 and n != 6.5
    assert not checker(scope.guards.values(), scope.hints)(7)  # those answers were for 6 alone
    assert (n == "6") is False and (n == None) is False  # noqa: E711
    with pytest.raises(TypeError):
        operator.lt(n, "6")
    with pytest.raises(ZeroDivisionError):
        n // 0


def test_an_array_is_not_a_size() -> None:
    """`n * x` is an array computation, also where x has one integer and could be an index."""
    scope, (n,) = scope_of(6)
    x = nd.array([2])
    for operation in (operator.add, operator.sub, operator.mul):
        with pytest.raises(TypeError):
            operation(n, object())
        assert operation(n, x) is not NotImplemented and isinstance(operation(n, x), nd.NDArray)


@pytest.mark.parametrize("text", ["n // (2 * m)", "n % (3 * m)", "(n + m) // (2 * m)", "n - n // 4 * 4"])
def test_quotients_print_as_code_that_means_them(text: str) -> None:
    scope, (n, m) = scope_of(23, 3)
    code = eval(f"lambda n, m: {text}")  # noqa: S307 - the text above
    found = code(n, m)
    evaluate = evaluator([found], scope.hints)
    for values in ((23, 3), (50, 7), (9, 2), (2, 2)):
        assert evaluate(*values) == (code(*values),), str(found)
