"""Errors: what was asked, which rule broke, what was received, and the line of the user's own code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from gluonish import autograd, nd
from gluonish.nd.errors import shape_text, user_line


def here() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


def test_the_line_is_the_users_not_the_librarys() -> None:
    with pytest.raises(ValueError) as caught:
        line = here() + 1
        nd.ones((2, 3)) + nd.ones((4, 3))
    assert str(caught.value) == (
        "add: shapes do not broadcast (dimensions must be equal or 1); got (2, 3) float32, (4, 3) float32 "
        f"(test_errors.py:{line})"
    )


def test_the_line_is_the_innermost_of_the_user() -> None:
    def model(x: nd.NDArray) -> nd.NDArray:
        return x.reshape(7)  # here

    wanted = inspect.getsourcelines(model)[1] + 1
    with pytest.raises(ValueError, match=rf"\(test_errors.py:{wanted}\)$"):
        model(nd.ones(3))


def test_nothing_of_numpy_remains_in_the_traceback_chain() -> None:
    with pytest.raises(ValueError) as caught:
        nd.ones((2, 3)) @ nd.ones((2, 3))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "broadcast": (lambda: nd.ones(2) * nd.ones(3), ValueError, r"multiply: .*\(2,\) float32, \(3,\) float32"),
    "compare": (lambda: nd.ones(2) < nd.ones(3), ValueError, r"less: .*\(2,\).*\(3,\)"),
    "where": (lambda: nd.where(nd.ones(2), nd.ones(3), 0.0), ValueError, r"where: .*\(2,\) bool, \(3,\) float32, 0.0"),
    "overflow": (lambda: nd.zeros(1, dtype="int8") + 1000, OverflowError, r"add: .*1000.*int8"),
    "full": (lambda: nd.full((2,), float("nan"), dtype="int32"), ValueError, "full: nan is not a whole number, as"),
    "take by floats": (lambda: nd.take(nd.ones(3), nd.ones(2)), TypeError, "take: indices must be integers, got float"),
    "take": (lambda: nd.take(nd.ones(3), nd.array([[0, 3]])), IndexError, r"take: index 3 at position \(0, 1\)"),
    "index": (lambda: nd.ones((2, 3))[0, 3], IndexError, r"index: 3 is out of range for axis 1 of shape \(2, 3\)"),
    "text": (lambda: nd.exp("a"), TypeError, "array: cannot make numbers of str 'a'"),
    "dtype": (lambda: nd.ones(2).astype("int15"), TypeError, "dtype 'int15' is not supported; use one of bool"),
    "backward": (lambda: nd.ones(2).backward(), ValueError, r"wrap the computation in `with autograd.record\(\):`"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_texts(case: str) -> None:
    attempt, kind, text = ERRORS[case]
    with pytest.raises(kind, match=text) as caught:
        attempt()
    assert type(caught.value) is kind
    assert str(caught.value).count("test_errors.py:") == 1 and "\n" not in str(caught.value)


def test_arrays_and_the_tape_survive_an_error() -> None:
    x = nd.ones((2, 3))
    x.attach_grad()
    with autograd.record():
        with pytest.raises(ValueError):
            x + nd.ones(5)
        assert autograd.is_recording()
        y = x * 2
    y.backward()
    assert x.grad.asnumpy().sum() == 12 and not autograd.is_recording()


def test_shapes_and_lines_as_text() -> None:
    assert shape_text(()) == "()" and shape_text((3,)) == "(3,)" and shape_text([2, 3]) == "(2, 3)"
    assert user_line() == f"test_errors.py:{here()}"
