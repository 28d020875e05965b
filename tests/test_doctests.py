"""The examples in docstrings, run. (Those of the README run through pytest's own --doctest-glob.)"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import gluonish

MODULES = [
    m.name
    for m in pkgutil.walk_packages([str(Path(gluonish.__file__).parent)], "gluonish.")
    if not m.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["gluonish", *MODULES])
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed == 0
