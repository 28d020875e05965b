"""Matrix products: square ones, the layers of MiniLM, ViT and GPT-2, transposes, narrow dtypes, single rows.

The right operand is a fixed weight unless the row says otherwise, so libraries may prepare it once. The side "peak" is
the float32 register loop: narrow dtypes pass 100 % of it, for one of their instructions multiplies two or four times as
many numbers. Their results are compared in the dtype they come in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.row import Bar, Row, Side, Sizes, numbers
from benchmarks.rows.contractions import peak

SQUARE, LAYER, NARROW = 0.88, 0.75, 1 / 1.6  # of the peak; of float32's time
LAYERS = {  # rows, sums, columns; batch 1
    "minilm-attention": (128, 384, 384),
    "minilm-up": (128, 384, 1536),
    "minilm-down": (128, 1536, 384),
    "vit-qkv": (197, 768, 2304),
    "vit-up": (197, 768, 3072),
    "vit-down": (197, 3072, 768),
    "gpt2-qkv": (1024, 768, 2304),
    "gpt2-up": (1024, 768, 3072),
    "gpt2-down": (1024, 3072, 768),
}


def _flops(sizes: Sizes) -> float:
    return 2.0 * sizes["m"] * sizes["k"] * sizes["n"]


def _declare(name: str, about: str, shape: tuple[int, int, int], bars: tuple[Bar, ...], **more: Any) -> Row:
    m, k, n = shape
    row = Row(
        f"product-{name}", f"{about}, ({m} x {k}) @ ({k} x {n})", {"m": m, "k": k, "n": n}, {"m": 5, "k": 7, "n": 9},
        bars, _flops, group="kernels", **more,
    )  # fmt: skip
    row.side("peak", peer="gluonish")(peak)
    return row


def _operands(sizes: Sizes, dtype: str, transposed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    shape = (sizes["k"], sizes["m"]) if transposed else (sizes["m"], sizes["k"])
    a, b = numbers(31, *shape), numbers(32, sizes["k"], sizes["n"])
    if dtype == "int8":
        return tuple(np.floor(x * 127).astype(np.int8) for x in (a, b))  # type: ignore[return-value]
    return a, b


def _gluonish(dtype: str, transposed: bool = False, fixed: bool = True) -> Callable[[Sizes], Side]:
    def build(sizes: Sizes) -> Side:
        import gluonish as gl
        from gluonish import nd

        a, b = map(nd.array, _operands(sizes, dtype, transposed))
        if dtype == "bfloat16":
            a, b = a.astype(dtype), b.astype(dtype)
        gives = {"dtype": "int32"} if dtype == "int8" else {}
        product = gl.hybridize(lambda a, *b_given: nd.matmul(a.T if transposed else a, *(b_given or (b,)), **gives))
        given = (a,) if fixed else (a, b)
        return Side(lambda: product(*given), lambda: product(*given).astype("float32"))

    return build


def _torch(dtype: str, transposed: bool = False) -> Callable[[Sizes], Side]:
    def build(sizes: Sizes) -> Side:
        import torch

        a, b = map(torch.from_numpy, _operands(sizes, dtype, transposed))
        a = a.T if transposed else a
        if dtype == "int8":
            return Side(lambda: torch._int_mm(a, b), lambda: torch._int_mm(a, b).float())
        a, b = a.to(getattr(torch, dtype)), b.to(getattr(torch, dtype))
        return Side(lambda: a @ b, lambda: (a @ b).float(), scope=torch.inference_mode)

    return build


for _n in (512, 1024, 2048, 4096):
    _row = _declare(f"{_n}", "square", (_n, _n, _n), (Bar("peak", SQUARE, "rate"),), example=_n == 512)
    _row.side("gluonish")(_gluonish("float32"))
    _row.side("torch")(_torch("float32"))
for _name, _shape in LAYERS.items():
    _row = _declare(_name, "a layer at batch 1", _shape, (Bar("peak", LAYER, "rate"),), example=False)
    _row.side("gluonish")(_gluonish("float32"))
    _row.side("torch")(_torch("float32"))
for _dtype, _tolerance in (("bfloat16", 1e-2), ("int8", 0.0)):
    for _name, _shape in (("1024", (1024, 1024, 1024)), *((n, LAYERS[n]) for n in ("vit-up", "gpt2-down"))):
        _row = _declare(
            f"{_dtype}-{_name}", _dtype, _shape, (Bar("gluonish float32", NARROW),), tolerance=_tolerance or 1e-6,
            example=_name == "1024",
        )  # fmt: skip
        _row.side("gluonish")(_gluonish(_dtype))
        _row.side("gluonish float32", peer="gluonish")(
            lambda sizes: Side(_gluonish("float32")(sizes).call, list)  # whose results are other numbers
        )
        _row.side("torch")(_torch(_dtype))
for _name, _shape in (("weight-gradient", (768, 4096, 768)), ("small-weight-gradient", (64, 8192, 64))):
    _row = _declare(_name, "left operand transposed, nothing fixed", _shape, (), example=_name[0] == "s")
    _row.side("gluonish")(_gluonish("float32", transposed=True, fixed=False))
    _row.side("torch")(_torch("float32", transposed=True))
_row = _declare("split-depth", "small output of long sums, nothing fixed", (64, 8192, 64), (), example=False)
_row.side("gluonish")(_gluonish("float32", fixed=False))
_row.side("torch")(_torch("float32"))
_row = _declare("one-row", "one row: as fast as memory gives the weight", (1, 4096, 4096), (), example=False)
_row.side("gluonish")(_gluonish("float32"))
_row.side("torch")(_torch("float32"))
