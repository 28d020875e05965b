"""The watch: which attribute reads are noted, and which changes are seen."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gluonish import nd
from gluonish.block import Block, Parameter, attributes, nn


@dataclass(frozen=True)
class Fixed:
    rate: float = 0.5


class Plain:
    def __init__(self) -> None:
        self.rate = 0.5


class Slotted:
    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 0.5


class Net(Block):
    level = 1

    def __init__(self, value: Any = None) -> None:
        self.value = value

    @property
    def twice(self) -> Any:
        return self.value * 2

    def method(self) -> Any:
        return self.value


def read(net: Any, name: str = "value") -> attributes.Reads:
    with attributes.watching() as reads:
        getattr(net, name, None)
    return reads


def test_nothing_is_noted_outside_and_nothing_stays_installed() -> None:
    net = Net(1)
    assert "__getattribute__" not in vars(Block) and not attributes.is_watching()
    reads = read(net)
    net.method()
    assert [name for _, name, _ in reads._seen.values()] == ["value"]
    assert "__getattribute__" not in vars(Block)


def test_a_failing_trace_takes_the_watch_off() -> None:
    with pytest.raises(ZeroDivisionError), attributes.watching():
        1 / 0
    assert "__getattribute__" not in vars(Block) and not attributes.is_watching()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.5, 0.1),
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("a", "b"),
        (None, 0),
        ((1, 2), (1, 3)),
        (np.float32(1), np.float64(1)),
        (Fixed(0.5), Fixed(0.4)),
        (np.dtype("float32"), np.dtype("float64")),
        (nd.relu, nd.tanh),
        (int, float),
        (functools.partial(max, 1), functools.partial(max, 2)),
        ([1], [1, 2]),
    ],
)
def test_another_value_is_seen(old: Any, new: Any) -> None:
    net = Net(old)
    reads = read(net)
    assert reads.hold() and reads.changed() == ""
    net.value = new
    assert not reads.hold()
    assert reads.changed().startswith("Net.value: ") and " -> " in reads.changed()
    net.value = old
    assert reads.hold()


def test_the_text_of_a_change() -> None:
    net = nn.Dropout(0.5)
    reads = read(net, "rate")
    net.rate = 0.1
    assert reads.changed() == "Dropout.rate: 0.5 -> 0.1"
    del net.rate
    assert reads.changed() == "Dropout.rate: 0.5 -> nothing" and not reads.hold()


@pytest.mark.parametrize(
    "value", [float("nan"), 3, "text", (1, (2, "x")), nd.ones((2,)), Fixed(), frozenset({1}), slice(1, 2)]
)
def test_an_equal_value_is_no_change_and_needs_no_look(value: Any) -> None:
    net = Net(value)
    reads = read(net)
    net.value = value
    assert reads.hold() and not reads.volatile


CHANGES: list[tuple[Any, Callable[[Any], Any]]] = [
    ([1, 2], lambda v: v.append(3)),
    ({"a": [1]}, lambda v: v["a"].append(2)),
    ({1, 2}, lambda v: v.add(3)),
    ((1, [2]), lambda v: v[1].append(3)),
    (np.zeros(3), lambda v: v.fill(1)),
    (Plain(), lambda v: setattr(v, "rate", 0.1)),
    (Slotted(), lambda v: setattr(v, "rate", 0.1)),
    (SimpleNamespace(inner=Plain()), lambda v: setattr(v.inner, "rate", 0.1)),
    (Fixed([1]), lambda v: v.rate.append(1)),  # type: ignore[arg-type]
    ([nn.Flatten()], lambda v: v.__setitem__(0, nn.Flatten())),
]


@pytest.mark.parametrize(("value", "change"), CHANGES, ids=lambda v: type(v).__name__)
def test_a_change_in_place_is_seen(value: Any, change: Callable[[Any], Any]) -> None:
    net = Net(value)
    reads = read(net)
    assert reads.volatile and reads.hold() and reads.hold()
    change(value)
    assert not reads.hold() and reads.changed().startswith("Net.value")


def test_cycles_and_large_things_end() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    plain = Plain()
    plain.rate = plain  # type: ignore[assignment]
    for value in (ring, plain, list(range(100_000)), threading.Lock()):
        assert read(Net(value)).hold()


def test_attributes_that_are_missing_or_come_later() -> None:
    net = Net()
    reads = read(net, "extra")
    assert reads.hold()
    net.extra = 1
    assert not reads.hold() and reads.changed() == "Net.extra: nothing -> 1"


def test_class_attributes_methods_and_properties() -> None:
    net = Net(3)
    for name, change, undo in (
        ("level", lambda: setattr(Net, "level", 2), lambda: setattr(Net, "level", 1)),
        ("method", lambda: setattr(Net, "method", lambda self: 0), None),
        ("twice", lambda: setattr(net, "value", 4), None),
        ("level", lambda: setattr(net, "level", 5), None),
    ):
        reads, before = read(net, name), attributes.changes()
        change()
        assert attributes.changes() != before and not reads.hold(), name
        if undo:
            undo()
            assert reads.hold()


def test_all_attributes_at_once() -> None:
    net = Net([1])
    with attributes.watching() as reads:
        vars(net)
    assert reads.hold()
    net.value.append(2)
    assert not reads.hold()
    net.value.pop()
    net.more = 1
    assert not reads.hold()


def test_what_the_trace_itself_assigns() -> None:
    net = Net(1)
    with attributes.watching() as reads:
        net.fresh = 2
        net.fresh
    net.fresh = 3
    assert reads.hold() and not reads.volatile
    with attributes.watching() as reads:
        net.value = net.value + 1  # every run would find another value
    assert reads.volatile and not reads.hold()


def test_parameters_count_their_changes() -> None:
    p = Parameter("w", shape=(2, 0))
    for change in (
        lambda: setattr(p, "lr_mult", 2),
        lambda: setattr(p, "grad_req", "null"),
        lambda: p.initialize(),
        lambda: p.resolve((2, 2)),
        lambda: p.cast("float64"),
    ):
        if change is not None:
            before = attributes.changes()
            change()
            if p.initialized or before != attributes.changes():
                assert attributes.changes() != before
    with attributes.watching() as reads:
        assert p.frozen
    p.grad_req = "write"
    assert not reads.hold()


def test_other_threads_are_not_watched() -> None:
    net = Net(1)
    seen = []
    with attributes.watching() as reads:
        thread = threading.Thread(target=lambda: seen.append((net.value, attributes.is_watching())))
        thread.start()
        thread.join()
    assert seen == [(1, False)] and not reads._seen


def test_watches_nest() -> None:
    net = Net(1)
    with attributes.watching() as outer:
        net.level
        with attributes.watching() as inner:
            net.value
        net.method
    assert [name for _, name, _ in outer._seen.values()] == ["level", "method"]
    assert [name for _, name, _ in inner._seen.values()] == ["value"]
