"""Depthwise convolutions against sums over taps in float64, forward and as data gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.planned import close, run, sizes
from kernels.test_conv import EACH_DTYPE, EACH_LEVEL, Rng, Shape, convolved, data_gradient

import gluonish.nd.ops  # noqa: F401  (registers the ops of epilogues)
from gluonish.kernels import depthwise, depthwise_rows, target
from gluonish.kernels.conv import Geometry
from gluonish.kernels.epilogue import bias_epilogue


def out_size(g: Geometry, image: Shape) -> Shape:
    reach = [d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation, strict=True)]
    return tuple((s + 2 * p - r) // t + 1 for s, p, r, t in zip(image[1:3], g.padding, reach, g.stride, strict=True))


def check(g: Geometry, image: Shape, dtype: str, rng: Rng) -> None:
    channels = image[3]
    x, w = rng.standard_normal(image).astype(dtype), rng.standard_normal((*g.kernel, 1, channels)).astype(dtype)
    out = (image[0], *out_size(g, image), channels)
    scale = 4.0 * g.kernel[0] * g.kernel[1]
    makes = [depthwise.depthwise_kernel]
    if depthwise_rows.serves(g, channels, dtype):
        makes.append(depthwise_rows.depthwise_rows_kernel)
    for make in makes:
        close(run(make(dtype, g), [x, w], out), convolved(x, w, g, out), scale)
        if g.stride == (1, 1):
            flow = rng.standard_normal(out).astype(dtype)
            found = run(make(dtype, g, turned=True), [flow, w], image)
            close(found, data_gradient(flow, w, g, image), scale)


@EACH_LEVEL
@EACH_DTYPE
def test_random_geometry(level: str, dtype: str, rng: Rng) -> None:
    with target.use(target.named(level)):
        done = 0
        while done < 10:
            kernel, stride, dilation = sizes(rng, 5, 5), sizes(rng, 3, 3), sizes(rng, 3, 3)
            (images, height, width, channels) = sizes(rng, 3, 20, 40, 150)
            padding = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
            g = Geometry(kernel, stride, padding, dilation, channels)
            image = (images, height, width, channels)
            if min(out_size(g, image)) > 0:
                check(g, image, dtype, rng)
                done += 1


@EACH_DTYPE
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 14, 30])
@pytest.mark.parametrize("stride", [1, 2])
def test_usual_windows(width: int, stride: int, dtype: str, rng: Rng) -> None:
    for channels in (1, 16, 33, 64):
        check(Geometry((3, 3), (stride, stride), (1, 1), (1, 1), channels), (2, 5, width, channels), dtype, rng)


@EACH_LEVEL
def test_rows_of_wide_windows(level: str, rng: Rng) -> None:
    """What random geometry seldom has: windows that the kernel for rows serves, with its longest steps and columns."""
    with target.use(target.named(level)):
        for columns, stride, pad in ((7, 1, 3), (5, 2, 2), (3, 3, 1), (1, 1, 0), (2, 2, 4), (7, 5, 6)):
            g = Geometry((3, columns), (2 if stride > 1 else 1, stride), (2, pad), (2, 1), 37)
            check(g, (2, 9, 19, 37), "float32", rng)


BOTH = pytest.mark.parametrize("make", [depthwise.depthwise_kernel, depthwise_rows.depthwise_rows_kernel])


@BOTH
@EACH_DTYPE
def test_epilogue(dtype: str, make: Any, rng: Rng) -> None:
    g, shape = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 38), (2, 7, 21, 38)
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal((3, 3, 1, 38)).astype(dtype)
    bias, residual = rng.standard_normal(38).astype(dtype), rng.standard_normal(shape).astype(dtype)
    plain = convolved(x, w, g, shape) + bias
    found = run(make(dtype, g, bias_epilogue("relu")), [x, w, bias], shape)
    close(found, np.maximum(plain, 0), 50)
    steps = (("full", "column", "scalar"), (("add", (0, 2)), ("add", (4, 1)), ("multiply", (5, 3))))
    half = np.array([0.5], dtype)
    close(
        run(make(dtype, g, steps), [x, w, residual, bias, half], shape),
        (plain + residual) / 2,
        50,
    )


@pytest.mark.parametrize("image", [(0, 8, 8, 16), (2, 1, 1, 5), (1, 2, 60, 3), (1, 30, 20, 50), (1, 3, 45, 165)])
def test_images_of_all_forms(image: Shape, rng: Rng) -> None:
    check(Geometry((3, 3), (1, 1), (1, 1), (1, 1), image[3]), image, "float32", rng)


@BOTH
def test_number_of_threads_changes_no_bit_and_nan_its_windows_only(make: Any, rng: Rng) -> None:
    shape = (2, 19, 17, 40)
    x, w = rng.standard_normal(shape).astype("f"), rng.standard_normal((3, 3, 1, 40)).astype("f")
    x[1, 4, 5, 7] = np.nan
    kernel = make("float32", Geometry((3, 3), (1, 1), (1, 1), (1, 1), 40))
    once = run(kernel, [x, w], shape)
    for threads in (2, 3, 8):
        assert run(kernel, [x, w], shape, threads).tobytes() == once.tobytes()
    wanted = np.zeros(shape, bool)
    wanted[1, 3:6, 4:7, 7] = True
    np.testing.assert_array_equal(np.isnan(once), wanted)
