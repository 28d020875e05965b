"""The linear transforms of Winograd's algorithm for 3 taps, in one dimension, on anything that adds and multiplies.

F(m, 3) gives m outputs from m + 2 inputs with m + 2 products instead of 3 m:

    output(weight(w) * input(x))[i] = sum over t of w[t] * x[i + t]

In two dimensions each is applied to columns, then to rows: `both`. F(2, 3) uses the points 0, 1, -1 and infinity, and
F(4, 3) 2 and -2 too; the more points, the fewer products and the more rounding.

Source: S. Winograd, Arithmetic complexity of computations, 1980; for neural networks A. Lavin and S. Gray, Fast
algorithms for convolutional neural networks, 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Vector = list[Any]
Transform = Callable[[Sequence[Any]], Vector]


def input_2(x: Sequence[Any]) -> Vector:
    """F(2, 3): 4 inputs."""
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def weight_2(w: Sequence[Any]) -> Vector:
    """F(2, 3): 3 taps."""
    ends = (w[0] + w[2]) * 0.5
    return [w[0], ends + w[1] * 0.5, ends - w[1] * 0.5, w[2]]


def output_2(y: Sequence[Any]) -> Vector:
    """F(2, 3): 4 products."""
    return [y[0] + y[1] + y[2], y[1] - y[2] - y[3]]


def input_4(x: Sequence[Any]) -> Vector:
    """F(4, 3): 6 inputs."""
    even, odd = x[4] - x[2] * 4.0, x[3] - x[1] * 4.0
    near, far = x[4] - x[2], (x[3] - x[1]) * 2.0
    first = x[0] * 4.0 - x[2] * 5.0 + x[4]
    return [first, even + odd, even - odd, near + far, near - far, x[1] * 4.0 - x[3] * 5.0 + x[5]]


def weight_4(w: Sequence[Any]) -> Vector:
    """F(4, 3): 3 taps."""
    ends, middle = (w[0] + w[2]) * (-1 / 6), w[1] * (-1 / 6)
    far, half = w[0] * (1 / 24) + w[2] * (1 / 6), w[1] * (1 / 12)
    return [w[0] * 0.25, ends + middle, ends - middle, far + half, far - half, w[2]]


def output_4(y: Sequence[Any]) -> Vector:
    """F(4, 3): 6 products."""
    even, odd, far_even, far_odd = y[1] + y[2], y[1] - y[2], y[3] + y[4], y[3] - y[4]
    return [y[0] + even + far_even, odd + far_odd * 2.0, even + far_even * 4.0, odd + far_odd * 8.0 + y[5]]


INPUT: dict[int, Transform] = {2: input_2, 4: input_4}
WEIGHT: dict[int, Transform] = {2: weight_2, 4: weight_4}
OUTPUT: dict[int, Transform] = {2: output_2, 4: output_4}


def both(transform: Transform, values: Sequence[Any], size: int) -> Vector:
    """The transform in two dimensions of `size` x `size` values, row after row."""
    columns = [transform(values[j::size]) for j in range(size)]
    return [value for i in range(len(columns[0])) for value in transform([column[i] for column in columns])]
