"""Hybridized bfloat16, float16 and int8: the eager results, in kernels, with as few of them as float32 has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, init, loss, nd, nn
from gluonish.hybrid import compile_function
from gluonish.nd.ops.contract import integer_matmul_op

Rng = np.random.Generator
ROOM = {"bfloat16": 2.0**-7, "float16": 2.0**-10}  # one step of the last place


def draw(rng: Rng, *shape: int, dtype: str = "bfloat16") -> Any:
    return nd.array(rng.standard_normal(shape)).astype(dtype)


def agree(function: Callable[..., Any], *arrays: Any) -> list[str]:
    """The names of the kernels, once the results are alike and none of them is NumPy's."""
    compiled = compile_function(function)
    eager, hybrid = function(*arrays), compiled(*arrays)
    assert hybrid.dtype == eager.dtype
    a, b = (x.asnumpy().astype(np.float64) for x in (eager, hybrid))
    room = ROOM.get(eager.dtype.name, 2e-6)
    np.testing.assert_allclose(b, a, rtol=room, atol=room * np.abs(a).max(initial=0))
    calls = compiled.kernels(*arrays)
    assert all(call.step.kernel is not None for call in calls), compiled.explain()
    return [call.name for call in calls]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products(dtype: str, rng: Rng) -> None:
    """Odd depths, both transposes, batches, a shared right operand, nothing to add up."""
    for m, k, n in ((5, 33, 70), (17, 64, 9), (3, 0, 4), (1, 1, 1)):
        a, b = draw(rng, m, k, dtype=dtype), draw(rng, k, n, dtype=dtype)
        agree(nd.matmul, a, b)
        agree(lambda x, y: x.T @ y, draw(rng, k, m, dtype=dtype), b)
        agree(lambda x, y: x @ y.T, a, draw(rng, n, k, dtype=dtype))
        agree(nd.matmul, draw(rng, 3, m, k, dtype=dtype), draw(rng, 3, k, n, dtype=dtype))
        agree(nd.matmul, draw(rng, 3, m, k, dtype=dtype), b)
        agree(lambda x, y: nd.matmul(x, y, dtype="float32"), a, b)


def test_an_epilogue_takes_in_the_rounding(rng: Rng) -> None:
    """Bias, activation, residual and scale in bfloat16 are one kernel, beside the packing of the weight."""
    weight, bias = draw(rng, 40, 40), draw(rng, 40)

    def block(x: Any) -> Any:
        h = x @ weight
        return nd.relu(h @ weight + bias) * 0.5 + h

    names = agree(block, draw(rng, 10, 40))
    assert names.count("matmul") == 2 and all(name.startswith(("pack", "matmul")) for name in names), names


def test_dequantization_is_part_of_the_product(rng: Rng) -> None:
    weight = nd.array(rng.integers(-128, 128, (64, 40)).astype(np.int8))
    scale, bias = (nd.array(rng.standard_normal(40).astype("f")) for _ in range(2))
    x = nd.array(rng.integers(-128, 128, (10, 64)).astype(np.int8))
    names = agree(lambda x: nd.relu(nd.matmul(x, weight, dtype="int32").astype("float32") * scale + bias), x)
    assert sorted(names) == ["group_rows", "matmul", "pack_groups"]


def test_integer_products_are_exact(rng: Rng) -> None:
    for m, k, n in ((17, 65, 33), (3, 5000, 7), (3, 0, 4)):
        a, b = (nd.array(rng.integers(-128, 128, s).astype(np.int8)) for s in ((m, k), (k, n)))
        wanted = a.asnumpy().astype(np.int32) @ b.asnumpy().astype(np.int32)
        for function in (integer_matmul_op, compile_function(integer_matmul_op)):
            np.testing.assert_array_equal(function(a, b).asnumpy(), wanted)
    with pytest.raises(ValueError, match=r"integer_matmul: both inputs must be int8.*test_half_floats.py"):
        nd.matmul(nd.ones((2, 2), "int32"), nd.ones((2, 2), "int8"), dtype="int32")
    with pytest.raises(TypeError, match=r"a float dtype, or int32 for int8 arrays, not int64"):
        nd.matmul(nd.ones((2, 2), "int8"), nd.ones((2, 2), "int8"), dtype="int64")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_casts_are_numpys(dtype: str) -> None:
    """All bit patterns of the half-width type, ties, NaN, infinities and denormals, both ways."""
    halves = nd.NDArray(np.arange(1 << 16).astype(np.uint16).view(nd.zeros((), dtype).dtype))
    compiled = compile_function(lambda x: x.astype("float32"))
    np.testing.assert_array_equal(compiled(halves).asnumpy(), halves.asnumpy().astype(np.float32))
    steps = halves.asnumpy().astype(np.float32)
    steps = steps[np.isfinite(steps)]
    ties = np.concatenate([np.nextafter(steps, s) for s in (-np.inf, np.inf)] + [steps[1:] / 2 + steps[:-1] / 2])
    extra = np.array([np.nan, np.inf, -np.inf, 1e-42, -1e-44, 3.4e38, 65519.0, 65520.0], np.float32)
    singles = np.concatenate([steps, ties, extra])
    found = compile_function(lambda x: x.astype(dtype))(nd.array(singles)).asnumpy()
    with np.errstate(over="ignore"):
        wanted = singles.astype(found.dtype)
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))


@pytest.mark.parametrize("hybridized", [False, True])
def test_a_net_in_bfloat16_learns(hybridized: bool, rng: Rng) -> None:
    net = nn.HybridSequential()
    net.add(nn.Dense(32, activation="relu"), nn.LayerNorm(), nn.Dense(3))
    net.initialize(init.Xavier())
    x = rng.standard_normal((64, 10)).astype("f")
    net(nd.array(x))
    net.cast("bfloat16")
    if hybridized:
        net.hybridize()
    labels = nd.array((x[:, :3] * 2).argmax(1))
    from gluonish import Trainer

    trainer, criterion, losses = (
        Trainer(net.collect_params(), "adam", {"learning_rate": 0.02}),
        loss.SoftmaxCELoss(),
        [],
    )
    for _ in range(30):
        with autograd.record():
            value = criterion(net(nd.array(x).astype("bfloat16")), labels)
        value.backward()
        trainer.step(64)
        losses.append(float(value.astype("float32").mean()))
    assert value.dtype.name == "bfloat16" and losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_loops_and_branches(dtype: str, rng: Rng) -> None:
    """Slices, states and results of bodies are half-width numbers, and are taken for such."""
    x, s = draw(rng, 3, 4, dtype=dtype), draw(rng, 4, dtype=dtype)
    for function in (
        lambda x, s: nd.foreach(lambda part, s: (part, s * 0.5 + part), x, s)[1],
        lambda x, s: nd.foreach(lambda part, s: (nd.tanh(part + s), s), x, s)[0],
        lambda x, s: nd.cond(s.sum() > 100.0, lambda: s, lambda: x[0] + s),
    ):
        eager, hybrid = function(x, s), compile_function(function)(x, s)
        assert hybrid.dtype == eager.dtype
        room = ROOM[dtype] * 4
        np.testing.assert_allclose(*(a.asnumpy().astype("f") for a in (hybrid, eager)), rtol=room, atol=room)
