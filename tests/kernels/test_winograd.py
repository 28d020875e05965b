"""Winograd's algorithm against direct sums in float64: the transforms, the kernel, its weights, its choice."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.planned import run, sizes

import gluonish.nd.ops  # noqa: F401  (registers the ops of epilogues)
from gluonish.kernels import target, winograd
from gluonish.kernels.epilogue import bias_epilogue
from gluonish.kernels.winograd_transforms import INPUT, OUTPUT, WEIGHT, both

Rng = np.random.Generator
Shape = tuple[int, ...]
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
EACH_SIZE = pytest.mark.parametrize("squares", [2, 4])
BOUND = {2: 3e-6, 4: 5e-5}  # of the largest output


@EACH_SIZE
def test_transforms_give_the_correlation(squares: int, rng: Rng) -> None:
    x, w = rng.standard_normal(squares + 2), rng.standard_normal(3)
    products = [a * b for a, b in zip(INPUT[squares](x), WEIGHT[squares](w), strict=True)]
    np.testing.assert_allclose(OUTPUT[squares](products), np.correlate(x, w), atol=1e-12)


@EACH_SIZE
def test_transforms_in_two_dimensions(squares: int, rng: Rng) -> None:
    span = squares + 2
    x, w = rng.standard_normal((span, span)), rng.standard_normal((3, 3))
    moved, weights = both(INPUT[squares], list(x.ravel()), span), both(WEIGHT[squares], list(w.ravel()), 3)
    found = both(OUTPUT[squares], [a * b for a, b in zip(moved, weights, strict=True)], span)
    wanted = [(x[i : i + 3, j : j + 3] * w).sum() for i in range(squares) for j in range(squares)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def convolved(image: np.ndarray, weight: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    around = ((0, 0), *((p, p) for p in padding), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image.astype(float), around), (3, 3), (1, 2))
    return np.einsum("nyxcij,ijco->nyxo", windows, weight.astype(float))


def packed(weight: np.ndarray, squares: int, gradient: bool = False) -> np.ndarray:
    size = winograd.packed_winograd_size(weight.shape, squares, gradient)
    return run(winograd.pack_winograd_kernel(squares, gradient), [weight], (size,))


def close(found: np.ndarray, wanted: np.ndarray, squares: int) -> None:
    assert found.shape == wanted.shape
    if wanted.size:
        assert np.abs(found - wanted).max() <= BOUND[squares] * max(np.abs(wanted).max(), 1)


def check(image: Shape, cout: int, padding: tuple[int, int], squares: int, rng: Rng) -> None:
    x = rng.standard_normal(image).astype("f")
    w = (rng.standard_normal((3, 3, image[3], cout)) / np.sqrt(9 * max(image[3], 1))).astype("f")
    wanted = convolved(x, w, padding)
    found = run(winograd.winograd_kernel(squares, padding), [x, packed(w, squares)], wanted.shape)
    close(found, wanted, squares)
    flow = rng.standard_normal(wanted.shape).astype("f")
    back = (2 - padding[0], 2 - padding[1])
    found = run(winograd.winograd_kernel(squares, back), [flow, packed(w, squares, True)], image)
    turned = np.swapaxes(w[::-1, ::-1], 2, 3)
    wide = np.pad(flow, ((0, 0), *((max(b, 0),) * 2 for b in back), (0, 0)))
    cut = [max(-b, 0) for b in back]
    wide = wide[:, cut[0] : wide.shape[1] - cut[0], cut[1] : wide.shape[2] - cut[1]]
    close(found, convolved(wide, turned, (0, 0)), squares)


@EACH_LEVEL
@EACH_SIZE
def test_random_images(level: str, squares: int, rng: Rng) -> None:
    with target.use(target.named(level)):
        for _ in range(6):
            images, height, width, cin, cout = sizes(rng, 3, 20, 20, 70, 150)
            padding = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
            check((images, max(height, 3), max(width, 3), cin), cout, padding, squares, rng)


@EACH_SIZE
@pytest.mark.parametrize(
    ("image", "cout"), [((40, 4, 4, 64), 64), ((1, 7, 7, 600), 130), ((2, 33, 50, 16), 17), ((0, 8, 8, 16), 16)]
)
def test_chosen_images(image: Shape, cout: int, squares: int, rng: Rng) -> None:
    check(image, cout, (1, 1), squares, rng)


@EACH_LEVEL
@EACH_SIZE
def test_epilogue(level: str, squares: int, rng: Rng) -> None:
    x, w = rng.standard_normal((2, 9, 7, 20)).astype("f"), rng.standard_normal((3, 3, 20, 38)).astype("f")
    bias, residual = rng.standard_normal(38).astype("f"), rng.standard_normal((2, 9, 7, 38)).astype("f")
    plain = convolved(x, w, (1, 1)) + bias
    with target.use(target.named(level)):
        weight = packed(w, squares)
        kernel = winograd.winograd_kernel(squares, (1, 1), bias_epilogue("relu"))
        close(run(kernel, [x, weight, bias], plain.shape), np.maximum(plain, 0), squares)
        steps = (("full", "column", "scalar"), (("add", (0, 2)), ("add", (4, 1)), ("multiply", (5, 3))))
        half = np.array([0.5], "f")
        kernel = winograd.winograd_kernel(squares, (1, 1), steps)
        close(run(kernel, [x, weight, residual, bias, half], plain.shape), (plain + residual) / 2, squares)


@EACH_SIZE
def test_number_of_threads_changes_no_bit(squares: int, rng: Rng) -> None:
    x, w = rng.standard_normal((5, 19, 17, 40)).astype("f"), rng.standard_normal((3, 3, 40, 70)).astype("f")
    kernel, inputs = winograd.winograd_kernel(squares, (1, 1)), [x, packed(w, squares)]
    once = run(kernel, inputs, (5, 19, 17, 70))
    for threads in (2, 3, 8):
        assert run(kernel, inputs, (5, 19, 17, 70), threads).tobytes() == once.tobytes()


@EACH_SIZE
def test_nan_reaches_every_output_that_depends_on_it(squares: int, rng: Rng) -> None:
    x, w = rng.standard_normal((1, 11, 11, 16)).astype("f"), rng.standard_normal((3, 3, 16, 20)).astype("f")
    x[0, 4, 5, 1] = np.nan
    found = run(winograd.winograd_kernel(squares, (1, 1)), [x, packed(w, squares)], (1, 11, 11, 20))
    assert np.isnan(found[0, 3:6, 4:7]).all() and np.isfinite(found[0, 8:]).all()


def test_the_choice() -> None:
    assert winograd.fastest((1, 56, 56), 64, 64, steady=True) == 4
    assert winograd.fastest((1, 7, 7), 512, 512, steady=True) in (0, 2)
    assert winograd.fastest((64, 7, 7), 512, 512, steady=True) == 4
    assert winograd.fastest((1, 7, 7), 512, 512, steady=False) == 0  # transforming the weights costs more
    assert winograd.fastest((8, 112, 112), 3, 64, steady=True) == 0
    assert winograd.fastest((8, 28, 28), 4096, 64, steady=True) == 0  # more channels than zeros
