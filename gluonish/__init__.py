"""gluonish: a Gluon-style deep-learning library.

Eager arrays with automatic differentiation, Blocks written like plain Python, and `hybridize()`, which compiles them.
Subpackages load at first use: `import gluonish` costs little more than NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "nd": "gluonish.nd",
    "autograd": "gluonish.nd.autograd",
    "random": "gluonish.nd.random",
    "data": "gluonish.data",
    "draw": "gluonish.draw",
    "nn": "gluonish.block.nn",
    "rnn": "gluonish.block.rnn",
    "loss": "gluonish.block.loss",
    "init": "gluonish.block.initializer",
    "optimizer": "gluonish.block.optimizer",
    "metric": "gluonish.block.metric",
    "lr_scheduler": "gluonish.block.lr_scheduler",
    "zoo": "gluonish.zoo",
}
_NAMES = {
    "NDArray": "gluonish.nd",
    "Device": "gluonish.nd",
    "cpu": "gluonish.nd",
    "gpu": "gluonish.nd",
    "Block": "gluonish.block",
    "HybridBlock": "gluonish.block",
    "SymbolBlock": "gluonish.block",
    "Parameter": "gluonish.block",
    "Constant": "gluonish.block",
    "Trainer": "gluonish.block",
    "clip_global_norm": "gluonish.block.clipping",
    "hybridize": "gluonish.hybrid",
    "precision": "gluonish.hybrid",
    "print": "gluonish.nd.printing",
    "set_num_threads": "gluonish.kernels.pool",
    "get_num_threads": "gluonish.kernels.pool",
    "num_threads": "gluonish.kernels.pool",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'gluonish' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})
