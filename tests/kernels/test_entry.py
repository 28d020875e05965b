"""Entries: program tables as built-in functions."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.pointers import RESOLVE, address_of

NOTE = Kernel(
    "note",
    """
def note(args, begin, end):
    for tile in range(begin, end):
        store_i64(load_i64(args, 0), 0, load_i64(args, 1) + tile)
""",
)
WAIT = Kernel(
    "wait",
    """
def wait(args, begin, end):
    turns = 0
    while atomic_load(load_i64(args, 0)) == 0 and turns < load_i64(args, 1):
        turns += 1
        spin_pause()
    store_i64(load_i64(args, 0), 1, turns)
""",
)


def test_runs_its_rows_and_gives_none() -> None:
    found = np.zeros(1, np.int64)
    args = np.array([address_of(found), 40], np.int64)
    table = np.array([[NOTE.address, args.ctypes.data, 3, 0]] * 2, np.int64)
    references = sys.getrefcount(None)
    run = entry(address_of(table), 2)
    assert all(run() is None for _ in range(1000))
    assert found[0] == 42
    assert abs(sys.getrefcount(None) - references) < 500  # a reference is counted for each None that is given away


def test_arguments_are_found_by_their_objects() -> None:
    first, second = np.arange(5.0), np.arange(12.0).reshape(3, 4)[1:]
    objects, words = np.zeros(3, np.int64), np.zeros(2, np.int64)
    entries = np.array([(1, address_of(words), -1), (0, address_of(words) + 8, -1)], np.int64)
    args = np.array([address_of(objects), address_of(entries), 2], np.int64)
    table = np.array([[RESOLVE.address, address_of(args), 1, 0]], np.int64)
    entry(address_of(table), 1, address_of(objects))(first, second)
    assert list(words) == [address_of(second), address_of(first)]
    assert list(objects) == [id(first), id(second), 0]


def test_lives_as_long_as_it_is_needed() -> None:
    found = np.zeros(1, np.int64)
    args = np.array([address_of(found), 1], np.int64)
    table = np.array([[NOTE.address, address_of(args), 1, 0]], np.int64)
    runs = [entry(address_of(table), 1) for _ in range(100)]
    gc.collect()
    for run in runs:
        found[0] = 0
        run()
        assert found[0] == 1


@pytest.mark.parametrize("release", [True, False])
def test_the_gil_is_kept_or_let_go(release: bool) -> None:
    """While the kernel waits for a flag, another Python thread can set it only if the GIL is free."""
    cell = np.zeros(2, np.int64)
    args = np.array([address_of(cell), 2_000_000 if release else 20_000], np.int64)
    table = np.array([[WAIT.address, address_of(args), 1, 0]], np.int64)
    run = entry(address_of(table), 1, release=release)
    begin = threading.Event()

    def set_flag() -> None:
        begin.wait()
        cell[0] = 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(10.0)  # nobody is made to give it away
    thread = threading.Thread(target=set_flag)
    try:
        thread.start()
        begin.set()
        run()
        ended_early = cell[1] < args[1]
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert ended_early == release
