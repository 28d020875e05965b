"""Pooling and its gradients against a loop over windows, on every target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from kernels.planned import run, sizes

from gluonish.kernels import pooling, target
from gluonish.kernels.pooling import Window

Rng = np.random.Generator
Shape = tuple[int, ...]
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
EACH_DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])


def windows(w: Window, image: Shape, out: Shape) -> Iterator[tuple[int, int, slice, slice, int]]:
    """(row, column, rows in the image, columns in the image, divisor of an average) of each window."""
    for y in range(out[1]):
        for x in range(out[2]):
            top, left = y * w.stride[0] - w.padding[0], x * w.stride[1] - w.padding[1]
            bottom, right = top + w.kernel[0], left + w.kernel[1]
            rows, columns = slice(max(top, 0), min(bottom, image[1])), slice(max(left, 0), min(right, image[2]))
            whole = (min(bottom, image[1] + w.padding[0]) - top) * (min(right, image[2] + w.padding[1]) - left)
            inside = (rows.stop - rows.start) * (columns.stop - columns.start)
            yield y, x, rows, columns, whole if w.count_include_pad else inside


def first_greatest(part: np.ndarray) -> np.ndarray:
    """Number of the first NaN, else of the first maximum, for parts (N, rows, columns, C) as (N, C)."""
    flat = part.reshape(part.shape[0], -1, part.shape[3])
    return np.where(np.isnan(flat).any(1), np.isnan(flat).argmax(1), np.nan_to_num(flat, nan=-np.inf).argmax(1))


def drawn(rng: Rng) -> tuple[Window, Shape, Shape]:
    while True:
        kernel, stride = sizes(rng, 4, 4), sizes(rng, 4, 4)
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        images, height, width, channels = sizes(rng, 3, 40, 20, 200)
        ceil = rng.random() < 0.5
        out = []
        for size, k, s, p in zip((height, width), kernel, stride, padding, strict=True):
            count = (size + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
            out.append(count - 1 if (count - 1) * s >= size + p else count)  # the last window begins in the image
        if min(out) > 0:
            w = Window(kernel, stride, padding, bool(rng.random() < 0.5))  # type: ignore[arg-type]
            return w, (images, height, width, channels), (images, *out, channels)


@EACH_LEVEL
@EACH_DTYPE
def test_max(level: str, dtype: str, rng: Rng) -> None:
    """With many equal numbers, some NaN and some -Inf."""
    with target.use(target.named(level)):
        for _ in range(10):
            w, image, out = drawn(rng)
            x = rng.integers(-2, 3, image).astype(dtype)
            x[rng.random(image) < 0.1] = np.nan
            x[rng.random(image) < 0.3] = -np.inf
            flow = rng.integers(-8, 9, out).astype(dtype)
            wanted, gradient = np.empty(out, dtype), np.zeros(image, dtype)
            n, c = np.ogrid[: image[0], : image[3]]
            for i, j, rows, columns, _ in windows(w, image, out):
                part = x[:, rows, columns]
                found = first_greatest(part)
                y, z = np.divmod(found, part.shape[2])
                wanted[:, i, j] = part[n, y, z, c]
                gradient[n, rows.start + y, columns.start + z, c] += flow[:, i, j]
            np.testing.assert_array_equal(run(pooling.max_pool2d_kernel(dtype, w), [x], out), wanted)
            np.testing.assert_array_equal(run(pooling.max_pool2d_gradient_kernel(dtype, w), [x, flow], image), gradient)


@EACH_LEVEL
@EACH_DTYPE
def test_average(level: str, dtype: str, rng: Rng) -> None:
    with target.use(target.named(level)):
        for _ in range(10):
            w, image, out = drawn(rng)
            x, flow = rng.standard_normal(image).astype(dtype), rng.standard_normal(out).astype(dtype)
            wanted, gradient = np.empty(out), np.zeros(image)
            for i, j, rows, columns, divisor in windows(w, image, out):
                wanted[:, i, j] = x[:, rows, columns].astype(float).sum((1, 2)) / divisor
                gradient[:, rows, columns] += flow[:, i, j].astype(float)[:, None, None] / divisor
            tolerance = 64 * np.finfo(dtype).eps
            got = run(pooling.avg_pool2d_kernel(dtype, w), [x], out)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)
            got = run(pooling.avg_pool2d_gradient_kernel(dtype, w), [flow], image)
            np.testing.assert_allclose(got, gradient, rtol=0, atol=tolerance)


def kernels(w: Window) -> list:
    """(kernel, whether it reads the image, whether it reads the gradient and gives the image's)."""
    return [
        (pooling.max_pool2d_kernel("float32", w), True, False),
        (pooling.avg_pool2d_kernel("float32", w), True, False),
        (pooling.max_pool2d_gradient_kernel("float32", w), True, True),
        (pooling.avg_pool2d_gradient_kernel("float32", w), False, True),
    ]


def test_number_of_threads_changes_no_bit(rng: Rng) -> None:
    w, image, out = Window((3, 3), (2, 2), (1, 1)), (3, 90, 40, 70), (3, 45, 20, 70)
    x, flow = rng.standard_normal(image).astype("f"), rng.standard_normal(out).astype("f")
    for kernel, reads, backward in kernels(w):
        inputs = [x] * reads + [flow] * backward
        once = run(kernel, inputs, image if backward else out)
        for threads in (2, 8):
            np.testing.assert_array_equal(run(kernel, inputs, image if backward else out, threads), once)


@pytest.mark.parametrize("image", [(0, 4, 4, 3), (2, 4, 4, 0)])
def test_zero_sizes(image: Shape) -> None:
    out = (image[0], 2, 2, image[3])
    for kernel, reads, backward in kernels(Window((2, 2), (2, 2))):
        inputs = [np.empty(image, "f")] * reads + [np.empty(out, "f")] * backward
        assert run(kernel, inputs, image if backward else out).size == 0


def test_window_in_the_padding_only() -> None:
    """Nothing to choose from: -Inf, or 0 for a mean; and no gradient goes anywhere."""
    w, image, out = Window((1, 1), (1, 1), (1, 1)), (1, 1, 1, 3), (1, 3, 3, 3)
    x, flow = np.full(image, 5, "f"), np.ones(out, "f")
    wanted = [np.full(out, -np.inf), np.zeros(out), np.ones(image), np.ones(image)]
    for (kernel, reads, backward), result in zip(kernels(w), wanted, strict=True):
        got = run(kernel, [x] * reads + [flow] * backward, image if backward else out)
        if not backward:
            result[:, 1, 1] = 5
        np.testing.assert_array_equal(got, result)
