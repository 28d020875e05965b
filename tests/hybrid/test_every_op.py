"""Every law of hybridizing over every op: one test for each pair, so that a failure names both."""

from __future__ import annotations

import numpy as np
import pytest
from compiled_laws import COMPILED_LAWS
from laws import every_op

from gluonish.nd.op import Op


@pytest.mark.parametrize("op", every_op(), ids=lambda op: op.name)
@pytest.mark.parametrize("name", COMPILED_LAWS)
def test_op_obeys(name: str, op: Op, rng: np.random.Generator) -> None:
    COMPILED_LAWS[name](op, rng)
