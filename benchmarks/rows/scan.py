"""Scans, sorting and the k largest. Scans and top-k against a copy of the bytes that must move, as in `memory.py`.

A radix sort goes over its words once for each byte of a key, which a copy cannot tell: sorts have only torch beside
them.
"""

from __future__ import annotations

from typing import Any

from benchmarks.row import ROWS, Bar, Row, Side, Sizes, numbers
from benchmarks.rows.memory import SQUARE, pair

ONE_ROW, VOCABULARY = (1, 1 << 24), (64, 50257)


def _ours(name: str, axis: int) -> Any:
    return lambda gl, sizes: gl.hybridize(lambda x: getattr(gl.nd, name)(x, axis))


def _theirs(name: str, axis: int) -> Any:
    def build(torch: Any, sizes: Sizes) -> Any:
        function = getattr(torch, name)
        return (lambda x: function(x, axis)) if name == "cumsum" else (lambda x: function(x, axis).values)

    return build


pair("scan-rows", "running sum along rows of 4096", 2, 4, SQUARE, _ours("cumsum", 1), _theirs("cumsum", 1))
pair("scan-one-row", "running sum of one row of 16M", 2, 0, ONE_ROW, _ours("cumsum", 1), _theirs("cumsum", 1))
pair("scan-columns", "running sum down 4096 columns", 2, 0, SQUARE, _ours("cumsum", 0), _theirs("cumsum", 0))
pair("scan-max", "running maximum along rows", 2, 0, SQUARE, _ours("cumulative_max", 1), _theirs("cummax", 1))


def _top(k: int) -> tuple[Any, Any]:
    """Only the values: torch gives any of the places of equal numbers."""

    def ours(gl: Any, sizes: Sizes) -> Any:
        return gl.hybridize(lambda x: gl.nd.topk(x, min(k, sizes["shape"][1])).values)

    return ours, lambda torch, sizes: lambda x: torch.topk(x, min(k, sizes["shape"][1])).values


pair("topk-5", "the 5 largest of each of 64 rows of 50257", 1, 0, VOCABULARY, *_top(5))
pair("topk-50", "the 50 largest of each of 64 rows of 50257", 1, 0, VOCABULARY, *_top(50))
ROWS["topk-50"].bars = (Bar("torch", 0.5),)  # a vocabulary of random numbers makes 400 changes in each row's best
for _name in ("scan-columns", "topk-5"):
    ROWS[_name].example = True


def _sort(name: str, about: str, op: str, shape: tuple[int, ...]) -> None:
    row = Row(
        name,
        about,
        {"shape": shape},
        {"shape": (3, 130)},
        (Bar("torch", 0.5),),
        group="memory",
        example=name == "argsort",
    )

    @row.side("gluonish")
    def _gluonish(sizes: Sizes) -> Side:
        import gluonish as gl

        x = gl.nd.array(numbers(3, *sizes["shape"]))
        function = gl.hybridize(lambda x: getattr(gl.nd, op)(x))
        return Side(lambda: function(x))

    @row.side("torch")
    def _torch(sizes: Sizes) -> Side:
        import torch

        x = torch.from_numpy(numbers(3, *sizes["shape"]))
        if op == "sort":
            return Side(lambda: torch.sort(x, stable=True).values)
        return Side(lambda: torch.argsort(x, stable=True))

    @row.side("numpy")
    def _numpy(sizes: Sizes) -> Side:
        import numpy as np

        x = numbers(3, *sizes["shape"])
        return Side(lambda: getattr(np, op)(x, kind="stable"))


_sort("sort", "one row of 1M float32 sorted", "sort", (1, 1 << 20))
_sort("argsort", "the order of one row of 1M float32", "argsort", (1, 1 << 20))
_sort("argsort-rows", "the order of 64 rows of 50257 float32", "argsort", VOCABULARY)
_sort("argsort-short", "the order of 65536 rows of 32 float32", "argsort", (1 << 16, 32))
