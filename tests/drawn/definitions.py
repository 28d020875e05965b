"""Operations by their definition, on float64 NumPy arrays: loops and einsums that share nothing with what they judge.

Deliberately not here: what NumPy itself defines (sums, sorts, broadcasting): the tests call it there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Sizes = tuple[int, ...]


# --- windows ---------------------------------------------------------------------------------------------------------
def places(sizes: Sizes) -> Iterator[Sizes]:
    """All indices of an array of these sizes."""
    return itertools.product(*map(range, sizes))


def convolution(x: Array, w: Array, bias: Array, stride: Sizes, pad: Sizes, dilation: Sizes, groups: int) -> Array:
    """x (N, C, ...), w (O, C / groups, ...): every output is a sum over a window."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in pad)))
    taps = w.shape[2:]
    spans = [(x.shape[2 + i] - dilation[i] * (k - 1) - 1) // stride[i] + 1 for i, k in enumerate(taps)]
    inputs, outputs = x.shape[1] // groups, w.shape[0] // groups
    out = np.zeros((x.shape[0], w.shape[0], *spans))
    for tap in places(taps):
        here = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, spans, stride))
        part = x[(slice(None), slice(None), *here)]
        for g in range(groups):
            a, b = slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
            out[:, b] += np.einsum("nc...,oc->no...", part[:, a], w[(b, slice(None), *tap)])
    return out + bias.reshape((-1,) + (1,) * len(taps))


def convolution_transpose(
    x: Array, w: Array, bias: Array, stride: Sizes, pad: Sizes, more: Sizes, dilation: Sizes, groups: int
) -> Array:
    """x (N, C, ...), w (C, O / groups, ...): every input adds its multiple of the window."""
    taps = w.shape[2:]
    sizes = [(n - 1) * s + d * (k - 1) + 1 + m for n, s, d, k, m in zip(x.shape[2:], stride, dilation, taps, more)]
    inputs, outputs = x.shape[1] // groups, w.shape[1]
    out = np.zeros((x.shape[0], outputs * groups, *sizes))
    for tap in places(taps):
        spots = zip(tap, dilation, x.shape[2:], stride)
        here = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in spots)
        for g in range(groups):
            a, b = slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
            out[(slice(None), b, *here)] += np.einsum("nc...,co->no...", x[:, a], w[(a, slice(None), *tap)])
    inside = tuple(slice(p, size - p) for p, size in zip(pad, sizes))
    return out[(slice(None), slice(None), *inside)] + bias.reshape((-1,) + (1,) * len(taps))


def pool(x: Array, kernel: Sizes, stride: Sizes, pad: Sizes, ceil: bool, how: str) -> Array:
    """how: "max", "all" (a mean that counts the padding) or "inside"."""
    spans = []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, pad):
        count = (math.ceil if ceil else math.floor)((size + 2 * p - k) / s) + 1
        spans.append(count - 1 if ceil and (count - 1) * s >= size + p else count)
    out = np.zeros((*x.shape[:2], *spans))
    axes = tuple(range(2, x.ndim))
    for place in places(tuple(spans)):
        begins = [i * s - p for i, s, p in zip(place, stride, pad)]
        ends = [min(b + k, n + p) for b, k, n, p in zip(begins, kernel, x.shape[2:], pad)]
        window = x[(..., *(slice(max(b, 0), max(e, 0)) for b, e in zip(begins, ends)))]
        count = math.prod(e - b for b, e in zip(begins, ends)) if how == "all" else math.prod(window.shape[2:])
        out[(..., *place)] = window.max(axes) if how == "max" else window.sum(axes) / count
    return out


# --- attention, recurrent cells --------------------------------------------------------------------------------------
def attention(q: Array, k: Array, v: Array, bias: Array | None, causal: bool, scale: float | None) -> Array:
    """bias: added to the scores, -Inf where a query may not look."""
    scores = np.einsum("...td,...sd->...ts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        steps, keys = scores.shape[-2:]
        scores = np.where(np.arange(keys) <= np.arange(steps)[:, None] + keys - steps, scores, -np.inf)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    return np.einsum("...ts,...sd->...td", e / np.where(total == 0, 1, total), v)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def cell(kind: str, x: Array, h: Array, c: Array, wi: Array, wh: Array, bi: Array, bh: Array) -> tuple[Array, Array]:
    """One step for one row: the new h and c."""
    a, b = wi @ x + bi, wh @ h + bh
    if kind == "rnn":
        return np.tanh(a + b), c
    if kind == "gru":
        (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
        z = sigmoid(az + bz)
        return (1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * h, c
    i, f, g, o = np.split(a + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def recurrent(kind: str, x: Array, weights: list[Array], lengths: Array, reverse: bool) -> tuple[Array, Array]:
    """Row by row and step by step: outputs, and the last h."""
    units = weights[1].shape[1]
    out, last = np.zeros((*x.shape[:2], units)), np.zeros((x.shape[1], units))
    for row, length in enumerate(lengths):
        h = c = np.zeros(units)
        for t in range(length)[:: -1 if reverse else 1]:
            h, c = cell(kind, x[t, row], h, c, *weights)
            out[t, row] = h
        last[row] = h
    return out, last


# --- along an axis ---------------------------------------------------------------------------------------------------
def normalised(x: Array, axes: Sizes, epsilon: float) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over the axes."""
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def scan(x: Array, kind: str, axis: int, reverse: bool) -> Array:
    """A running sum, product, largest or smallest."""
    run = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[kind].accumulate
    return np.flip(run(np.flip(x, axis), axis), axis) if reverse else run(x, axis)


def linear_scan(factors: Array, terms: Array, axis: int, reverse: bool) -> Array:
    """y[i] = factors[i] y[i - 1] + terms[i]."""
    a, b = (np.moveaxis(z, axis, 0) for z in (factors, terms))
    out, y = np.zeros_like(b), np.zeros(b.shape[1:])
    for i in range(len(b))[:: -1 if reverse else 1]:
        out[i] = y = a[i] * y + b[i]
    return np.moveaxis(out, 0, axis)
