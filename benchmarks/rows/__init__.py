"""The rows, by theme; the order of these imports is the order of the table."""

from __future__ import annotations

from benchmarks.rows import eager  # isort: skip
from benchmarks.rows import elementwise  # isort: skip
from benchmarks.rows import memory  # isort: skip
from benchmarks.rows import moves  # isort: skip
from benchmarks.rows import scan  # isort: skip
from benchmarks.rows import gather  # isort: skip
from benchmarks.rows import reductions  # isort: skip
from benchmarks.rows import mlp  # isort: skip
from benchmarks.rows import towers  # isort: skip
from benchmarks.rows import contractions  # isort: skip
from benchmarks.rows import products  # isort: skip
from benchmarks.rows import attention  # isort: skip
from benchmarks.rows import cnn  # isort: skip
from benchmarks.rows import convolution_layers  # isort: skip
from benchmarks.rows import recurrent  # isort: skip
from benchmarks.rows import models  # isort: skip
from benchmarks.rows import models_transformers  # isort: skip
from benchmarks.rows import language  # isort: skip
from benchmarks.rows import startup  # isort: skip

__all__ = [
    "attention",
    "cnn",
    "contractions",
    "convolution_layers",
    "eager",
    "elementwise",
    "gather",
    "language",
    "memory",
    "mlp",
    "models",
    "models_transformers",
    "moves",
    "products",
    "recurrent",
    "scan",
    "reductions",
    "startup",
    "towers",
]
