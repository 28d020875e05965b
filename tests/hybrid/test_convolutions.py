"""Which kernel a convolution of a network gets, and that it computes what eager mode does, gradients too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import hybridize

CASES = [
    ("depthwise", {"kernel_size": 3, "padding": 1, "groups": 24}, 24),
    ("depthwise", {"kernel_size": 3, "strides": 2, "padding": 1, "groups": 24}, 24),
    ("depthwise", {"kernel_size": (5, 3), "padding": 2, "dilation": 2, "groups": 24}, 24),
    ("convolution", {"kernel_size": 3, "padding": 1, "groups": 24}, 48),
    ("convolution", {"kernel_size": 3, "padding": 1, "groups": 4}, 24),
    ("convolution", {"kernel_size": 1}, 24),
    ("winograd", {"kernel_size": 3, "padding": 1}, 40),
    ("winograd", {"kernel_size": 3}, 33),
]


def gradients(net: Any, x: nd.NDArray) -> list[np.ndarray]:
    with autograd.record():
        loss = (net(x) * net(x)).sum()
    loss.backward()
    return [x.grad.asnumpy(), *(p.grad.asnumpy() for p in net.collect_params().values() if p.grad_req != "null")]


@pytest.mark.parametrize(("kernel", "options", "channels"), CASES)
def test_as_in_eager_mode(kernel: str, options: dict[str, Any], channels: int, rng: np.random.Generator) -> None:
    net = nn.HybridSequential(
        nn.Conv2D(channels, in_channels=24, use_bias=False, **options), nn.BatchNorm(), nn.Activation("relu")
    )
    net.initialize("xavier")
    x = nd.NDArray(rng.standard_normal((6, 24, 17, 19)).astype("f"))
    x.attach_grad()
    net(x)  # gives the batch norm its shapes
    found = []
    for active in (False, True):
        net.hybridize(active)
        net[1].running_mean[:] = 0
        net[1].running_var[:] = 1
        found.append([*gradients(net, x), net(x).asnumpy()])
    names = [step.name for step in net.kernels(x)]
    assert kernel in names and "numpy" not in " ".join(names)
    for a, b in zip(*found, strict=True):
        assert np.abs(a - b).max() <= 2e-4 * max(np.abs(a).max(), 1)


def test_a_head_gradient_from_outside_has_the_sizes_it_has(rng: np.random.Generator) -> None:
    """Its sizes and those that the window gives are equal numbers, which the trace takes as a guard."""
    weight = nd.NDArray(rng.standard_normal((5, 3, 3, 3)).astype("f"))
    weight.attach_grad()

    def gradient(x: Any, head: Any) -> Any:
        with autograd.record():
            out = nd.convolution(x, weight, stride=2, pad=1)
        return autograd.grad(out, [weight], head)[0]

    compiled = hybridize(gradient)
    for size in (6, 7, 10):
        x = nd.NDArray(rng.standard_normal((2, 3, size, size)).astype("f"))
        head = nd.NDArray(rng.standard_normal((2, 5, (size + 1) // 2, (size + 1) // 2)).astype("f"))
        np.testing.assert_allclose(compiled(x, head).asnumpy(), gradient(x, head).asnumpy(), 1e-4, 1e-4)
    with pytest.raises(ValueError, match="head gradient"):
        compiled(x, nd.ones((2, 5, 3, 3)))


def test_each_convolution_of_a_residual_net_is_computed_once(rng: np.random.Generator) -> None:
    """Also where its result is read by the next layer and by the end of the net: fusion must not repeat it."""

    class Residual(gl.HybridBlock):
        def __init__(self, stride: int) -> None:
            super().__init__()
            self.body = nn.HybridSequential(nn.Conv2D(8, 3, stride, 1), nn.BatchNorm(), nn.Activation("relu"))
            self.down = nn.HybridSequential(nn.Conv2D(8, 1, stride), nn.BatchNorm()) if stride > 1 else None

        def forward(self, x: Any) -> Any:
            return (self.body(x) + (x if self.down is None else self.down(x))).relu()

    net = nn.HybridSequential(nn.Conv2D(8, 3, padding=1), Residual(2), Residual(1), Residual(1), nn.GlobalAvgPool2D())
    net.initialize("xavier")
    x = nd.NDArray(rng.standard_normal((2, 3, 12, 12)).astype("f"))
    eager = net(x).asnumpy()
    net.hybridize()
    np.testing.assert_allclose(net(x).asnumpy(), eager, 1e-4, 1e-4)
    assert [step.name for step in net.kernels(x)].count("convolution") == 5


def test_an_image_that_no_window_sees_has_a_gradient_of_zeros(rng: np.random.Generator) -> None:
    x, weight = (nd.array(rng.standard_normal(shape).astype(np.float32)) for shape in ((2, 8, 1, 1), (3, 8, 1, 1)))
    x.attach_grad()
    compiled = hybridize(lambda x: nd.convolution(x, weight, stride=2, pad=1))  # windows at -1 and 1: only padding
    with autograd.record():
        y = compiled(x)
    y.backward()
    assert y.shape == (2, 3, 2, 2) and not y.asnumpy().any() and not x.grad.asnumpy().any()
