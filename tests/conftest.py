"""Fresh random inputs in every run, and the seed to get them again.

Each test draws from its own stream, made of the run's seed and the test's name, so a test replays alone:
`GLUONISH_TEST_SEED=123 pytest tests/nd/test_indexing.py`. The seed stands in the header and under every failure.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

SEED = int(os.environ.get("GLUONISH_TEST_SEED") or int.from_bytes(os.urandom(4), "little"))
os.environ["GLUONISH_TEST_SEED"] = str(SEED)  # the processes that share the tests draw from the same one
# how many cases are drawn for the laws of tests/drawn
settings.register_profile("default", max_examples=10)
settings.register_profile("slow", max_examples=200)
if settings.get_current_profile_name() == "default":  # with as many examples as hypothesis itself has by default
    settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    # Kernels compiled in tests belong to the tests, not to the user's cache; kept, so that a second run is quick.
    cache = getattr(config, "cache", None)
    if "GLUONISH_CACHE" not in os.environ and cache is not None:
        os.environ["GLUONISH_CACHE"] = str(cache.mkdir("kernels"))


def pytest_report_header() -> str:
    return f"random inputs: GLUONISH_TEST_SEED={SEED} gives them again"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.failed:
        report.sections.append(("random inputs", f"replay with GLUONISH_TEST_SEED={SEED}"))
    return report


def _stream(name: str) -> int:
    return zlib.crc32(name.encode())


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """The test's own random numbers."""
    return np.random.default_rng([SEED, _stream(request.node.nodeid)])


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """gluonish draws follow from the run's seed too."""
    from gluonish.nd import random

    random.seed((SEED << 32) + _stream(request.node.nodeid))
