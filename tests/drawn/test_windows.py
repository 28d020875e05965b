"""Convolutions and pooling of signals, images and volumes, with every kind of window, against their definitions."""

from __future__ import annotations

from typing import Any

from drawn import definitions
from drawn.checking import check
from drawn.drawing import FLOATS, PRECISE, arrays, drawn
from hypothesis import assume
from hypothesis import strategies as st

from gluonish import nd

DATA = st.data()


def each(draw: Any, options: list[int], count: int) -> tuple[int, ...]:
    return tuple(draw(st.sampled_from(options)) for _ in range(count))


def channels_of(draw: Any) -> tuple[int, int, int]:
    """Groups, channels in, channels out; often depthwise."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 8, 16]))
    each_in, each_out = ((1, draw(st.sampled_from([1, 2]))) if draw(st.booleans()) else (2, 3)) if groups > 1 else (
        draw(st.sampled_from([1, 3, 4, 16, 17, 33])), draw(st.sampled_from([1, 5, 8, 16, 31])),
    )  # fmt: skip
    return groups, groups * each_in, groups * each_out


@drawn(data=DATA, moves=st.sampled_from([1, 2, 2, 3]), dtype=FLOATS)
def test_convolution(data: Any, moves: int, dtype: str) -> None:
    draw = data.draw
    groups, inputs, outputs = channels_of(draw)
    kernel = draw(st.sampled_from([(3, 3, 3), (1, 1, 1), (2, 3, 1), (5, 4, 2), (7, 7, 2)]))[:moves]
    stride, pad, dilation = each(draw, [1, 1, 2, 3], moves), each(draw, [0, 1, 2], moves), each(draw, [1, 1, 2], moves)
    sizes = tuple(draw(st.integers(1, 14 if moves < 3 else 5)) for _ in range(moves))
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(sizes, pad, dilation, kernel)))
    x = draw(arrays((draw(st.sampled_from([1, 2, 3, 0])), inputs, *sizes), dtype))
    w, b = draw(arrays((outputs, inputs // groups, *kernel), dtype)), draw(arrays((outputs,), dtype))
    attrs = (stride, pad, dilation, groups)
    check(
        ("convolution", attrs, inputs, outputs, kernel),
        lambda x, w, b: nd.convolution(x, w, b, *attrs),
        lambda x, w, b: definitions.convolution(x, w, b, *attrs),
        [x, w, b],
    )


@drawn(data=DATA, moves=st.sampled_from([1, 2]), dtype=FLOATS)
def test_convolution_transpose(data: Any, moves: int, dtype: str) -> None:
    draw = data.draw
    groups, inputs, outputs = channels_of(draw)
    kernel = draw(st.sampled_from([(3, 3), (1, 1), (2, 3), (4, 4), (5, 2)]))[:moves]
    stride, pad, dilation = each(draw, [1, 2, 3], moves), each(draw, [0, 1], moves), each(draw, [1, 1, 2], moves)
    more = tuple(draw(st.integers(0, s - 1)) for s in stride)
    sizes = tuple(draw(st.integers(1, 8)) for _ in range(moves))
    spans = zip(sizes, stride, pad, dilation, kernel, more)
    assume(all((n - 1) * s - 2 * p + d * (k - 1) + 1 + m > 0 for n, s, p, d, k, m in spans))
    x = draw(arrays((draw(st.sampled_from([1, 2, 0])), inputs, *sizes), dtype))
    w, b = draw(arrays((inputs, outputs // groups, *kernel), dtype)), draw(arrays((outputs,), dtype))
    attrs = (stride, pad, more, dilation, groups)
    check(
        ("convolution_transpose", attrs, inputs, outputs, kernel),
        lambda x, w, b: nd.convolution_transpose(x, w, b, *attrs),
        lambda x, w, b: definitions.convolution_transpose(x, w, b, *attrs),
        [x, w, b],
    )


@drawn(data=DATA, moves=st.sampled_from([1, 2, 2, 3]), dtype=PRECISE, how=st.sampled_from(["max", "all", "inside"]))
def test_pooling(data: Any, moves: int, dtype: str, how: str) -> None:
    draw = data.draw
    kernel, stride = each(draw, [1, 2, 3, 4], moves), each(draw, [1, 2, 3], moves)
    pad = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    sizes = tuple(draw(st.integers(1, 12 if moves < 3 else 5)) for _ in range(moves))
    assume(all(n + 2 * p >= k for n, p, k in zip(sizes, pad, kernel)))
    ceil = draw(st.booleans())
    x = draw(arrays((draw(st.sampled_from([1, 2, 0])), draw(st.sampled_from([1, 3, 16, 19])), *sizes), dtype))
    assume(x.layout != "spread" or how != "max")  # of equal ones the first has the gradient
    attrs = (kernel, stride, pad, ceil)

    def function(x: nd.NDArray) -> nd.NDArray:
        return nd.max_pool(x, *attrs) if how == "max" else nd.average_pool(x, *attrs, how == "all")

    check(("pool", how, attrs), function, lambda x: definitions.pool(x, *attrs, how), [x])
