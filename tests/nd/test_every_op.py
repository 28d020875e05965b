"""Every law over every op: one test for each pair, so that a failure names both."""

from __future__ import annotations

import numpy as np
import pytest
from laws import LAWS, every_op

from gluonish.nd.op import Op


@pytest.mark.parametrize("op", every_op(), ids=lambda op: op.name)
@pytest.mark.parametrize("name", LAWS)
def test_op_obeys(name: str, op: Op, rng: np.random.Generator) -> None:
    LAWS[name](op, rng)
