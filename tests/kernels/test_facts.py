"""Facts: what is compared is what the words in memory say, whatever address an object gets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import nd
from gluonish.kernels.facts import Facts


def array(*shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.zeros(shape, dtype))


def wanting(*shape: int) -> nd.NDArray:
    x = array(*shape)
    x.attach_grad()
    return x


OTHERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "another size": lambda: (array(3, 5), wanting(2)),
    "another rank": lambda: (array(3, 4, 1), wanting(2)),
    "another dtype": lambda: (array(3, 4, dtype="float64"), wanting(2)),
    "no gradient": lambda: (array(3, 4), array(2)),
    "a subclass": lambda: (gl.Parameter(shape=(3, 4)), wanting(2)),
    "no array": lambda: (np.zeros((3, 4), np.float32), wanting(2)),
    "a number": lambda: (2.5, wanting(2)),
    "too few": lambda: (array(3, 4),),
    "too many": lambda: (array(3, 4), wanting(2), wanting(2)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_arguments(what: str) -> None:
    facts = Facts()
    facts.argument(array(3, 4), None)
    facts.argument(array(2), True)
    like = facts.question()
    assert like(array(3, 4), wanting(2)) is True
    assert like(wanting(3, 4), wanting(2)) is True
    assert like(*OTHERS[what]()) is False


def test_slots_items_and_cells() -> None:
    x, cell, content = array(2), [1000], 5.0
    look = lambda: content  # noqa: E731
    assert look.__closure__ is not None
    facts = Facts()
    facts.slot(x, "_data")
    facts.slot(x, "_grad")
    facts.item(cell)
    facts.content(look.__closure__[0])
    same = facts.question()
    before, references = x._data, sys.getrefcount(True)
    assert all(same() for _ in range(1000))
    assert abs(sys.getrefcount(True) - references) < 500  # a reference is counted for each answer
    x._data = x._data.copy()
    assert not same()
    x._data = before
    assert same()
    x.attach_grad()
    assert not same()
    x._grad = None
    assert same()
    content = 6.0
    assert not same()


def test_numbers_at_addresses_used_before_are_other_numbers() -> None:
    """A new integer may get the address of one that is gone; the one in the table is not gone."""
    cell = [10_000]
    facts = Facts()
    facts.item(cell)
    same = facts.question()
    for _ in range(2000):
        cell[0] += 1
        assert not same()
    facts.renew([cell[0]])
    assert same()
    cell[0] += 1
    assert not same()
