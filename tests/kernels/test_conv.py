"""Convolutions and their gradients against sums over taps in float64, on every target, with random geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kernels.planned import close, run, sizes

import gluonish.nd.ops  # noqa: F401  (registers the ops of epilogues)
from gluonish.kernels import conv, target
from gluonish.kernels.conv import Geometry
from gluonish.kernels.epilogue import bias_epilogue
from gluonish.kernels.packing import pack_convolution_kernel, packed_convolution_size

Rng = np.random.Generator
Shape = tuple[int, ...]
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
EACH_DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])
NARROW = Geometry((3, 3), (1, 1), (1, 1))


# --- the oracle: each tap sees a strided view of the padded image ---
def taps(image: np.ndarray, g: Geometry, out: Shape) -> list[tuple[int, int, np.ndarray]]:
    """(row, column, view of `image` that the tap meets), for an image that already has its padding."""
    return [
        (i, j, image[:, i * g.dilation[0] :, j * g.dilation[1] :][:, : out[1] * g.stride[0] : g.stride[0]][
            :, :, : out[2] * g.stride[1] : g.stride[1]
        ])
        for i, j in g.taps()
    ]  # fmt: skip


def padded(image: np.ndarray, g: Geometry, extra: int = 0) -> np.ndarray:
    around = [(p, p + s + extra) for p, s in zip(g.padding, g.stride, strict=True)]
    return np.pad(image.astype(float), ((0, 0), *around, (0, 0)))


def grouped(x: np.ndarray, groups: int) -> np.ndarray:
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def convolved(image: np.ndarray, weight: np.ndarray, g: Geometry, out: Shape) -> np.ndarray:
    w, result = grouped(weight.astype(float), g.groups), np.zeros((*out[:3], g.groups, out[3] // g.groups))
    for i, j, view in taps(padded(image, g), g, out):
        result += np.einsum("nyxgc,cgo->nyxgo", grouped(view, g.groups), w[i, j])
    return result.reshape(out)


def data_gradient(gradient: np.ndarray, weight: np.ndarray, g: Geometry, image: Shape) -> np.ndarray:
    w, flow = grouped(weight.astype(float), g.groups), grouped(gradient.astype(float), g.groups)
    result = padded(np.zeros(image), g)
    for i, j, view in taps(result, g, gradient.shape):
        view += np.einsum("nyxgo,cgo->nyxgc", flow, w[i, j]).reshape(view.shape)
    return result[:, g.padding[0] :, g.padding[1] :][:, : image[1], : image[2]]


def weight_gradient(image: np.ndarray, gradient: np.ndarray, g: Geometry) -> np.ndarray:
    flow = grouped(gradient.astype(float), g.groups)
    views = [grouped(view, g.groups) for _, _, view in taps(padded(image, g), g, flow.shape)]
    parts = [np.einsum("nyxgc,nyxgo->cgo", view, flow) for view in views]
    return np.stack(parts).reshape(*g.kernel, image.shape[3] // g.groups, gradient.shape[3])


# --- the kernels ---
def pack(weight: np.ndarray, g: Geometry, gradient: bool) -> np.ndarray:
    size = packed_convolution_size(weight.shape, weight.dtype.name, g.groups, gradient)
    return run(pack_convolution_kernel(weight.dtype.name, g.groups, gradient), [weight], (size,))


def check(g: Geometry, image: Shape, weight: Shape, out: Shape, dtype: str, rng: Rng) -> None:
    """All three kernels on random numbers."""
    x, w, flow = (rng.standard_normal(s).astype(dtype) for s in (image, weight, out))
    scale = 4.0 * max(math.prod(weight[:3]), g.kernel[0] * g.kernel[1] * weight[3], math.prod(out[:3]), 1)
    got = run(conv.conv2d_kernel(dtype, g), [x, pack(w, g, False)], out)
    close(got, convolved(x, w, g, out), scale)
    got = run(conv.conv2d_data_gradient_kernel(dtype, g), [flow, pack(w, g, True)], image)
    close(got, data_gradient(flow, w, g, image), scale)
    got = run(conv.conv2d_weight_gradient_kernel(dtype, g), [x, flow], weight)
    close(got, weight_gradient(x, flow, g), scale)


def drawn(rng: Rng) -> tuple[Geometry, Shape, Shape, Shape]:
    """A geometry, and shapes of image, weight and output."""
    while True:
        kernel, stride, dilation = sizes(rng, 5, 5), sizes(rng, 3, 3), sizes(rng, 2, 2)
        padding = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        (images, height, width), (cin, cout) = sizes(rng, 3, 20, 20), sizes(rng, 24, 90)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        out = [(s + 2 * p - r) // t + 1 for s, p, r, t in zip((height, width), padding, reach, stride, strict=True)]
        if min(out) > 0:
            g = Geometry(kernel, stride, padding, dilation, groups)
            image, weight = (images, height, width, cin * groups), (*kernel, cin, cout * groups)
            return g, image, weight, (images, *out, cout * groups)


@EACH_LEVEL
@EACH_DTYPE
def test_random_geometry(level: str, dtype: str, rng: Rng) -> None:
    with target.use(target.named(level)):
        for _ in range(12):
            check(*drawn(rng), dtype, rng)


@EACH_DTYPE
@pytest.mark.parametrize(
    ("g", "image", "columns"),
    [
        (Geometry((7, 7), (2, 2), (3, 3)), (1, 23, 30, 3), 64),  # a first layer
        (NARROW, (5, 8, 8, 1), 32),
        (Geometry((3, 3), (1, 1), (1, 1), (2, 2)), (2, 9, 9, 2), 10),  # few channels, but no rows of taps
        (Geometry((1, 1), (2, 2)), (2, 7, 7, 20), 30),  # input pixels that no window meets
        (Geometry((3, 3), (1, 1), (1, 1), (1, 1), 12), (2, 9, 9, 12), 12),  # depthwise
        (Geometry((3, 3), (2, 2), (1, 1), (1, 1), 5), (1, 9, 8, 5), 10),  # depthwise, two outputs for each input
        (NARROW, (1, 5, 5, 1500), 70),  # blocks of channels
        (Geometry((9, 9), (1, 1), (4, 4)), (1, 6, 6, 40), 70),  # blocks of taps
        (Geometry((5, 1), (3, 1), (2, 0)), (1, 1, 40, 9), 17),  # images of one line
        (Geometry((12, 70), (1, 1), (6, 35)), (1, 8, 20, 7), 10),  # rows of taps as long as they may be
        (Geometry((1, 90), (1, 1), (0, 45)), (1, 2, 60, 7), 10),  # and longer
        (NARROW, (0, 8, 8, 16), 8),
        (NARROW, (2, 4, 4, 0), 8),
        (NARROW, (2, 4, 4, 8), 0),
    ],
)
def test_chosen_geometry(g: Geometry, image: Shape, columns: int, dtype: str, rng: Rng) -> None:
    reach = [d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation, strict=True)]
    out = [(s + 2 * p - r) // t + 1 for s, p, r, t in zip(image[1:3], g.padding, reach, g.stride, strict=True)]
    check(g, image, (*g.kernel, image[3] // g.groups, columns), (image[0], *out, columns), dtype, rng)


@EACH_LEVEL
@EACH_DTYPE
def test_epilogue(level: str, dtype: str, rng: Rng) -> None:
    """relu(convolution + bias), and a residual, with groups and columns that end within a vector."""
    g = Geometry((3, 3), (1, 1), (1, 1), groups=2)
    x, w = rng.standard_normal((2, 7, 9, 10)).astype(dtype), rng.standard_normal((3, 3, 5, 38)).astype(dtype)
    bias, shape = rng.standard_normal(38).astype(dtype), (2, 7, 9, 38)
    residual = rng.standard_normal(shape).astype(dtype)
    plain = convolved(x, w, g, shape) + bias
    with target.use(target.named(level)):
        weight = pack(w, g, False)
        got = run(conv.conv2d_kernel(dtype, g, bias_epilogue("relu")), [x, weight, bias], shape)
        close(got, np.maximum(plain, 0), 200)
        epilogue = (("full", "column"), (("add", (0, 2)), ("add", (3, 1))))
        got = run(conv.conv2d_kernel(dtype, g, epilogue), [x, weight, residual, bias], shape)
        close(got, plain + residual, 200)


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_number_of_threads_changes_no_bit(channels: int, rng: Rng) -> None:
    shape, weight, out = (4, 19, 17, channels), (3, 3, channels, 70), (4, 19, 17, 70)
    x, w, flow = (rng.standard_normal(s).astype("f") for s in (shape, weight, out))
    calls = [
        (conv.conv2d_kernel("float32", NARROW), [x, pack(w, NARROW, False)], out),
        (conv.conv2d_data_gradient_kernel("float32", NARROW), [flow, pack(w, NARROW, True)], shape),
        (conv.conv2d_weight_gradient_kernel("float32", NARROW), [x, flow], weight),
    ]
    for kernel, inputs, result in calls:
        once = run(kernel, inputs, result)
        for threads in (2, 3, 8):
            np.testing.assert_array_equal(run(kernel, inputs, result, threads).view(np.uint8), once.view(np.uint8))


@pytest.mark.parametrize("channels", [2, 16])
def test_nan_reaches_its_windows_only(channels: int, rng: Rng) -> None:
    x, w = rng.standard_normal((1, 9, 9, channels)).astype("f"), rng.standard_normal((3, 3, channels, 20)).astype("f")
    x[0, 4, 5, 1] = np.nan
    got = run(conv.conv2d_kernel("float32", NARROW), [x, pack(w, NARROW, False)], (1, 9, 9, 20))
    meets = np.zeros((9, 9), bool)
    meets[3:6, 4:7] = True
    np.testing.assert_array_equal(np.isnan(got[0]).all(-1), meets)
    np.testing.assert_array_equal(np.isnan(got[0]).any(-1), meets)


def test_one_compiled_kernel_serves_every_geometry() -> None:
    one = conv.conv2d_kernel("float32", NARROW)
    other = conv.conv2d_data_gradient_kernel("float32", Geometry((5, 5), (2, 1), (0, 2), (1, 2), 4))
    assert one == other and one.address == other.address
