"""The docstrings of gluonish.block: their examples run, layers and losses tell their shapes."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
from importlib import import_module

import pytest

import gluonish.block
from gluonish import loss, metric, nn

MODULES = [info.name for info in pkgutil.walk_packages(gluonish.block.__path__, "gluonish.block.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    assert module.__doc__
    failures, _ = doctest.testmod(module)
    assert not failures


@pytest.mark.parametrize("module", [nn, loss, metric], ids=lambda m: m.__name__)
def test_shapes_are_told(module: object) -> None:
    bases = {"Block", "HybridBlock", "SymbolBlock", "Loss", "EvalMetric", "CompositeEvalMetric"}
    for name, cls in vars(module).items():
        if (
            inspect.isclass(cls)
            and not name.startswith("_")
            and name not in bases
            and cls.__module__.startswith("gluonish.block")
        ):
            assert "Shapes:" in (cls.__doc__ or ""), name
