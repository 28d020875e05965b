"""Initializers: the distributions they promise, seeds, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import init, nd
from gluonish.block import Parameter, nn


def drawn(initializer: Any, shape: tuple[int, ...] = (200, 100)) -> np.ndarray:
    p = Parameter("w", shape=shape)
    p.initialize(initializer)
    return p.asnumpy()


def test_constants() -> None:
    assert (drawn("zeros") == 0).all() and (drawn("ones") == 1).all() and (drawn(init.Constant(2.5)) == 2.5).all()
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert (drawn(init.Constant(table), (2, 3)) == table).all()
    assert (drawn(init.Constant(nd.array(table)), (2, 3)) == table).all()
    assert (drawn(0.5) == 0.5).all()
    with pytest.raises(ValueError, match=r"(?s)initializing Parameter 'w' with Constant.*could not broadcast"):
        drawn(init.Constant(table), (4, 4))


def uniform(values: np.ndarray, scale: float) -> None:
    assert np.abs(values).max() <= scale and np.abs(values).max() > 0.99 * scale
    assert abs(values.mean()) < 0.03 * scale and values.std() == pytest.approx(scale / np.sqrt(3), rel=0.03)


def normal(values: np.ndarray, sigma: float) -> None:
    assert abs(values.mean()) < 0.05 * sigma and values.std() == pytest.approx(sigma, rel=0.03)
    assert 2.5 * sigma < np.abs(values).max() < 6 * sigma


def test_distributions() -> None:
    uniform(drawn(None), 0.07)
    uniform(drawn(init.Uniform(0.5)), 0.5)
    normal(drawn(init.Normal(2.0)), 2.0)
    uniform(drawn("xavier"), np.sqrt(3 / 150))
    uniform(drawn(init.Xavier(factor_type="in", magnitude=2)), np.sqrt(2 / 100))
    normal(drawn(init.Xavier("gaussian", "out", 2)), np.sqrt(2 / 200))
    uniform(drawn(init.Xavier(), (40, 20, 5, 5)), np.sqrt(3 / (30 * 25)))
    normal(drawn(init.MSRAPrelu(slope=0.5)), np.sqrt(2 / 1.25 / 150))


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (3, 2, 2)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = drawn(init.Orthogonal(2.0), shape).reshape(shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_seeds_fix_values_and_parameters_differ() -> None:
    found = []
    for seed in (1, 1, 2):
        nd.random.seed(seed)
        net = nn.HybridSequential(nn.Dense(5, in_units=5), nn.Dense(5, in_units=5))
        net.initialize()
        found.append([net[0].weight.tolist(), net[1].weight.tolist()])
    assert found[0] == found[1] != found[2] and found[0][0] != found[0][1]


def test_own_initializers() -> None:
    @init.register
    class Seven(init.Initializer):
        def _init_weight(self, name: str, array: Any) -> None:
            assert name == "w"
            array[:] = 7

    assert (drawn("seven") == 7).all() and (drawn(Seven()) == 7).all()

    def eight(name: str, array: Any) -> None:
        array[:] = 8

    assert (drawn(eight) == 8).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: init.create("xaver"),
            "unknown initializer 'xaver'; there are: constant, gaussian, .*test_initializer.py",
        ),
        (lambda: init.create(init.Xavier), "an initializer is a name or an object"),
        (lambda: init.create([1]), "an initializer is a name or an object"),
        (lambda: init.Xavier("normal"), "rnd_type must be one of uniform, gaussian, got 'normal'"),
        (lambda: init.Xavier(factor_type="mean"), "factor_type must be one of"),
        (lambda: drawn("xavier", (5,)), "Parameter 'w' with Xavier.*at least 2 dimensions"),
    ],
)
def test_mistakes(make: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        make()


def test_printing() -> None:
    assert (
        repr(init.MSRAPrelu())
        == "MSRAPrelu(rnd_type='gaussian', factor_type='avg', magnitude=1.8823529411764706, slope=0.25)"
    )
