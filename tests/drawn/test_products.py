"""Matrix products, attention and recurrent networks against their definitions, for odd sizes and any strides."""

from __future__ import annotations

from typing import Any

import numpy as np
from drawn import definitions
from drawn.checking import check, refuses
from drawn.drawing import FLOATS, PRECISE, SIZE, SMALL, arrays, broadcasting, drawn, whole
from hypothesis import strategies as st

from gluonish import nd

DATA = st.data()


@drawn(data=DATA, dtype=FLOATS, sizes=st.tuples(SIZE, SIZE, SIZE))
def test_matmul(data: Any, dtype: str, sizes: tuple[int, int, int]) -> None:
    rows, depth, columns = sizes
    kind = data.draw(st.sampled_from(["matrices", "batches", "vector", "turned"]))
    leads: list[tuple[int, ...]] = [(), ()]
    if kind == "batches":
        leads = [lead[-2:] for lead in data.draw(broadcasting(2))]
        rows, depth, columns = (min(s, 17) for s in sizes)
    a = data.draw(arrays((*leads[0], *((depth, rows) if kind == "turned" else (rows, depth))), dtype))
    b = data.draw(arrays((*leads[1], depth, columns)[: 1 if kind == "vector" else None], dtype))

    def product(a: Any, b: Any) -> Any:
        return (a.swapaxes(-1, -2) if kind == "turned" else a) @ b

    check(("matmul", kind, len(leads[0]), len(leads[1])), product, product, [a, b])


@drawn(data=DATA, dtype=st.sampled_from(["float32", "float32", "float64", "bfloat16"]), causal=st.booleans())
def test_attention(data: Any, dtype: str, causal: bool) -> None:
    draw = data.draw
    size = st.sampled_from([1, 2, 3, 5, 8, 16, 17, 33, 65])
    steps, keys, depth, wide = draw(size), draw(size), draw(size), draw(size)
    leads = [lead[-2:] for lead in draw(broadcasting(3))]
    given = [(steps, depth), (keys, depth), (keys, wide)]
    inputs = [draw(arrays((*lead, *shape), dtype)) for lead, shape in zip(leads, given)]
    masked = draw(st.sampled_from(["no", "bool", "float"]))
    scale = draw(st.sampled_from([None, 0.3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.standard_normal((steps, keys))
    bias = {"no": None, "bool": np.where(mask > 0.3, 0.0, -np.inf), "float": mask}[masked]
    more = {"no": None, "bool": nd.NDArray(mask > 0.3), "float": nd.NDArray(mask.astype("float32"))}[masked]
    if masked == "float" and more is not None:
        more = more.astype(dtype)
        bias = more.asnumpy().astype("float64")
    check(
        ("attention", causal, scale, *map(len, leads), mask.tobytes() if masked != "no" else masked),  # it is captured
        lambda q, k, v: nd.attention(q, k, v, more, causal, scale),
        lambda q, k, v: definitions.attention(q, k, v, bias, causal, scale),
        inputs,
        room=4.0,
    )


@drawn(data=DATA, kind=st.sampled_from(["lstm", "gru", "rnn"]), dtype=PRECISE, reverse=st.booleans())
def test_recurrent(data: Any, kind: str, dtype: str, reverse: bool) -> None:
    draw = data.draw
    steps, rows = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 3, 5, 9]))
    inputs, units = draw(SMALL), draw(st.sampled_from([1, 2, 5, 8, 17]))
    wide = {"lstm": 4, "gru": 3, "rnn": 1}[kind] * units
    x = draw(arrays((steps, rows, inputs), dtype))
    weights = [draw(arrays(s, dtype, -0.7, 0.7)) for s in ((wide, inputs), (wide, units), (wide,), (wide,))]
    lengths = draw(whole((rows,), 0, steps + 1))
    given = draw(st.booleans())

    def function(x: nd.NDArray, lengths: nd.NDArray, *weights: nd.NDArray) -> nd.NDArray:
        found = getattr(nd, kind)(x, *weights, lengths=lengths if given else None, reverse=reverse)
        return found[0] + found[1] * 0.5

    def definition(x: np.ndarray, lengths: np.ndarray, *weights: np.ndarray) -> np.ndarray:
        number = lengths if given else np.full(rows, steps)
        out, last = definitions.recurrent(kind, x, list(weights), number.astype(int), reverse)
        return out + last * 0.5

    check((kind, given, reverse), function, definition, [x, lengths, *weights])


@drawn(bad=st.sampled_from([-1, 4, 100]), kind=st.sampled_from(["lstm", "gru", "rnn"]))
def test_a_length_outside_raises(bad: int, kind: str) -> None:
    wide = {"lstm": 4, "gru": 3, "rnn": 1}[kind] * 2
    x, weights = nd.ones((3, 2, 2)), [nd.ones(s) for s in ((wide, 2), (wide, 2), (wide,), (wide,))]
    refuses(lambda x, lengths: getattr(nd, kind)(x, *weights, lengths=lengths)[0], x, nd.array([1, bad]))
