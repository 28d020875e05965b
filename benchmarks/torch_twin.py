"""A network of gluonish's zoo as modules of torch, as torch's users write them, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def twin(block: Any) -> Any:
    """The module that computes what the Block does.

    Raises: NotImplementedError for a Block that has no counterpart here.
    """
    kind = next((name for name in (c.__name__ for c in type(block).__mro__) if name in _MAKERS), None)
    if kind is None:
        raise NotImplementedError(f"no module of torch for {type(block).__name__}")
    return _MAKERS[kind](block)


def _loaded(module: Any, **values: Any) -> Any:
    import torch

    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(module, name).copy_(torch.from_numpy(value.asnumpy()))
    return module


def _row(block: Any) -> Any:
    from torch import nn

    return nn.Sequential(*map(twin, block))


def _network(block: Any) -> Any:
    from torch import nn

    return nn.Sequential(twin(block.features), twin(block.output))


def _convolution(block: Any) -> Any:
    from torch import nn

    channels, window = block.weight.shape[1] * block.groups, (block.strides, block.padding, block.dilation)
    bias = block.bias is not None
    made = nn.Conv2d(channels, block.channels, block.kernel_size, *window, block.groups, bias)
    return _loaded(made, weight=block.weight, bias=block.bias)


def _dense(block: Any) -> Any:
    from torch import nn

    return _loaded(nn.Linear(*block.weight.shape[::-1]), weight=block.weight, bias=block.bias)


def _norm(block: Any) -> Any:
    from torch import nn

    made = nn.BatchNorm2d(block.gamma.shape[0], block.epsilon, 1 - block.momentum)
    statistics = {"running_mean": block.running_mean, "running_var": block.running_var}
    return _loaded(made, weight=block.gamma, bias=block.beta, **statistics)


def _max_pool(block: Any) -> Any:
    from torch import nn

    return nn.MaxPool2d(block.pool_size, block.strides, block.padding, ceil_mode=block.ceil_mode)


def _average_pool(block: Any) -> Any:
    from torch import nn

    return nn.AvgPool2d(block.pool_size, block.strides, block.padding, block.ceil_mode, block.count_include_pad)


def _simple(name: str, *arguments: Any) -> Callable[[Any], Any]:
    def make(block: Any) -> Any:
        from torch import nn

        return getattr(nn, name)(*arguments)

    return make


def _combined(block: Any, **parts: Any) -> Any:
    """A module of these parts whose forward combines them as the Block's does."""
    import torch
    from torch import nn

    kind, shortcut = type(block).__name__, getattr(block, "use_shortcut", False)

    class Combined(nn.Module):
        def forward(self, x: Any) -> Any:
            if kind == "HybridConcatenate":
                return torch.cat([branch(x) for branch in self.branches], 1)
            if kind == "LinearBottleneck":
                return x + self.out(x) if shortcut else self.out(x)
            return torch.relu((x if self.downsample is None else self.downsample(x)) + self.body(x))

    made = Combined()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def _residual(block: Any) -> Any:
    downsample = None if block.downsample is None else twin(block.downsample)
    return _combined(block, body=twin(block.body), downsample=downsample)


def _concatenate(block: Any) -> Any:
    from torch import nn

    return _combined(block, branches=nn.ModuleList(map(twin, block)))


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "Network": _network,
    "HybridConcatenate": _concatenate,
    "HybridSequential": _row,
    "_Residual": _residual,
    "LinearBottleneck": lambda block: _combined(block, out=twin(block.out)),
    "Conv2D": _convolution,
    "Dense": _dense,
    "BatchNorm": _norm,
    "Activation": _simple("ReLU", True),
    "ReLU6": _simple("ReLU6", True),
    "MaxPool2D": _max_pool,
    "AvgPool2D": _average_pool,
    "GlobalAvgPool2D": _simple("AdaptiveAvgPool2d", 1),
    "Flatten": _simple("Flatten"),
    "Dropout": _simple("Dropout", 0.5),
}
