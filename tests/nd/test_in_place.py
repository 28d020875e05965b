"""Changing arrays: in place, through views, under record; and the tape that notices."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd

IN_PLACE = [getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")]


@pytest.mark.parametrize("operation", IN_PLACE, ids=lambda f: f.__name__)
def test_in_place_operators_change_the_array_and_its_views(
    operation: Callable[[Any, Any], Any], rng: np.random.Generator
) -> None:
    a, b = rng.uniform(0.5, 3, (3, 4)).astype("f4"), rng.uniform(0.5, 3, 4).astype("f4")
    x = nd.array(a)
    view, same = x[1], x
    same = operation(same, nd.array(b))
    assert same is x
    assert np.allclose(x.asnumpy(), operation(a.copy(), b), rtol=1e-6)
    assert np.array_equal(view.asnumpy(), x.asnumpy()[1])


def test_in_place_on_a_view_changes_the_source() -> None:
    x = nd.zeros((2, 3))
    x[0] += 1
    x.reshape(-1)[5] = 7
    x.T[0] -= 2
    assert x.tolist() == [[-1.0, 1.0, 1.0], [-2.0, 0.0, 7.0]]


def test_in_place_keeps_shape_and_dtype_or_refuses() -> None:
    x = nd.zeros(3)
    x += np.ones(3)  # float64 into float32, as NumPy
    assert x.dtype == np.float32 and x.tolist() == [1, 1, 1]
    whole = nd.array([1, 2])
    for attempt in (
        lambda: operator.iadd(whole, 0.5),
        lambda: operator.itruediv(whole, 2),
        lambda: operator.iadd(nd.array([1], dtype="uint8"), nd.array([1], dtype="int8")),
        lambda: operator.iadd(nd.array([True]), 1),
        lambda: operator.iadd(x, nd.ones((2, 3))),
        lambda: operator.iadd(nd.ones(1), nd.ones(2)),
    ):
        with pytest.raises(ValueError, match=r"in-place .*does not fit the array.*test_in_place.py"):
            attempt()
    assert whole.tolist() == [1, 2]


def tracked(*values: float) -> nd.NDArray:
    x = nd.array(list(values))
    x.attach_grad()
    return x


def test_on_the_tape_in_place_makes_a_new_array_under_the_old_name() -> None:
    x = tracked(3.0)
    with autograd.record():
        y = x * 2
        before = y
        y *= x
        total = nd.zeros(1)
        total += y
    assert y is not before and before.tolist() == [6.0]
    total.backward()
    assert x.grad.tolist() == [12.0]


def test_constants_really_change_in_place_under_record() -> None:
    x, count = tracked(1.0), nd.zeros(1)
    alias = count
    with autograd.record():
        y = x * 2
        count += 1
    assert alias.tolist() == [1.0]
    y.backward()
    assert x.grad.tolist() == [2.0]


def test_parameters_do_not_change_under_record() -> None:
    x = tracked(1.0)
    with autograd.record():
        with pytest.raises(ValueError, match=r"cannot be changed in place under record\(\).*test_in_place.py"):
            x += 1
        with pytest.raises(ValueError, match="on the tape"):
            x[0] = 5
    x += 1  # outside it may, as optimizers do
    assert x.tolist() == [2.0] and x.grad_req == "write"


def test_recorded_arrays_cannot_be_assigned_to() -> None:
    x = tracked(1.0, 2.0)
    with autograd.record():
        y = x * 2
    for attempt in (lambda: operator.setitem(y, 0, 5.0), lambda: operator.iadd(y, 1)):
        with pytest.raises(ValueError, match=r"on the tape .*nd.where.*test_in_place.py"):
            attempt()
    y.detach()[:] = 0  # possible, and noticed:
    with pytest.raises(ValueError, match="changed in place after it was recorded"):
        y.backward()


def test_assigning_a_value_that_needs_a_gradient_does_not_lose_it_silently() -> None:
    x, buffer = tracked(1.0), nd.zeros(2)
    with autograd.record():
        with pytest.raises(ValueError, match=r"would lose it.*detach\(\).*test_in_place.py"):
            buffer[:1] = x * 2
        buffer[1:] = (x * 2).detach()
        with autograd.pause():
            buffer[:1] = x * 3
    assert buffer.tolist() == [3.0, 2.0]


CHANGES: dict[str, Callable[[nd.NDArray], Any]] = {
    "assignment": lambda a: operator.setitem(a, 0, 9.0),
    "in place": lambda a: operator.iadd(a, 1.0),
    "through a slice": lambda a: operator.setitem(a[1:], 0, 9.0),
    "through a reshape": lambda a: operator.setitem(a.reshape(1, 2), (0, 1), 9.0),
    "through detach": lambda a: operator.setitem(a.detach(), 0, 9.0),
    "through copyto": lambda a: nd.ones(2).copyto(a),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", ["variable", "constant", "intermediate"])
def test_changes_after_recording_raise_in_backward(change: str, which: str) -> None:
    x, constant = tracked(1.0, 2.0), nd.array([3.0, 4.0])
    with autograd.record():
        middle = x * constant
        out = (middle * middle[:]).exp()
    CHANGES[change]({"variable": x, "constant": constant, "intermediate": middle.detach()}[which])
    with pytest.raises(ValueError, match=r"changed in place after it was recorded.*test_in_place.py"):
        out.backward()


def test_unrelated_changes_do_not_raise() -> None:
    x = tracked(1.0, 2.0)
    with autograd.record():
        y = x * 2
        copied = y.copy()
    copied.detach()[0] = 50
    nd.array(x)[0] = 7
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0]
