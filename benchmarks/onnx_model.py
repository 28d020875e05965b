"""A gluonish network as the operators of an ONNX model, for `onnx_session`: the same weights, in predict mode.

The graph is the one that gluonish traces, before any of its passes. gluonish computes convolutions on channels-last
arrays and permutes around them; ONNX wants channels first. So every value is remembered as an ONNX tensor and an order
of its dimensions, and permutations move no data. What depends on weights alone is computed here; onnxruntime folds the
factor and the shift that are left of a BatchNorm into the convolution before them.

Only what the networks of the benchmarks need: fixed sizes, float32, the ops that have a method below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.onnx_session import Operator

CHANNELS_LAST = (0, 2, 3, 1)


class Tensor(NamedTuple):
    """A value of the graph: the ONNX tensor of that name with its dimensions in the order `axes`."""

    name: str
    axes: tuple[int, ...]


def operators_of(net: Any, x: Any) -> tuple[list[Operator], dict[str, np.ndarray], str]:
    """Operators, constants and the name of the result of `net(x)`; the input is called "x".

    Raises: NotImplementedError for an op that no method here converts.
    """
    from gluonish import autograd
    from gluonish.hybrid.graph import ordered

    with autograd.predict_mode():
        graph = net.passes(x)[0][1]
    made = _Converter()
    made.values[id(graph.inputs[0])] = Tensor("x", tuple(range(x.ndim)))
    for node in ordered(graph.outputs):
        if node.kind == "captured":
            made.values[id(node)] = node.array.asnumpy()
        elif node.kind == "op":
            made.convert(node)
    out = graph.outputs[0]
    name = made.name_of(made.values[id(out)], tuple(range(len(out.shape))))
    return made.needed(name), made.constants, name


def _number(value: Any) -> Any:
    """A symbolic size as the number it is here."""
    if isinstance(value, (tuple, list)):
        return tuple(_number(v) for v in value)
    return getattr(value, "hint", value)


class _Converter:
    """One conversion. Each method has the name of an op and gets its node's inputs, attributes and the node."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}  # by id of the node: an array, or a Tensor
        self.sources: dict[str, tuple[str, list[Any], Any]] = {}  # of a tensor: op, inputs, node
        self.operators: list[Operator] = []
        self.constants: dict[str, np.ndarray] = {}

    def convert(self, node: Any) -> None:
        """Notes the node's value, and operators that compute it."""
        inputs = [self.values[id(x)] if hasattr(x, "kind") else _number(x) for x in node.inputs]
        attrs = {name: _number(value) for name, value in node.attrs.items()}
        if not any(isinstance(x, Tensor) for x in inputs):
            self.values[id(node)] = node.op.forward(*inputs, **attrs)
            return
        method = getattr(self, f"_{node.op.name}", None)
        if method is None:
            raise NotImplementedError(f"no ONNX operator for {node.op.name} ({node.line})")
        found = method(inputs, attrs)
        self.values[id(node)] = found
        self.sources.setdefault(found.name, (node.op.name, inputs, attrs))

    def needed(self, result: str) -> list[Operator]:
        """The operators that the result needs, in order."""
        wanted, kept = {result}, []
        for operator in reversed(self.operators):
            if operator[2] in wanted:
                wanted.update(operator[1])
                kept.append(operator)
        self.constants = {name: value for name, value in self.constants.items() if name in wanted}
        return kept[::-1]

    def emit(self, op: str, inputs: Sequence[str], axes: Sequence[int], **attributes: Any) -> Tensor:
        """A new operator's tensor."""
        name = f"v{len(self.operators)}"
        self.operators.append((op, list(inputs), name, attributes))
        return Tensor(name, tuple(axes))

    def constant(self, value: Any) -> str:
        """The name of a new constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def name_of(self, value: Any, axes: Sequence[int]) -> str:
        """The ONNX tensor whose dimensions in the order `axes` are the value."""
        back = [int(i) for i in np.argsort(axes)]
        if not isinstance(value, Tensor):
            value = np.asarray(value, np.float32)
            if value.ndim == 0 or list(axes) == sorted(axes):
                return self.constant(value)
            return self.constant(value.reshape((1,) * (len(axes) - value.ndim) + value.shape).transpose(back))
        if value.axes == tuple(axes):
            return value.name
        return self.emit("Transpose", [value.name], axes, perm=[value.axes[i] for i in back]).name

    # --- elementwise ---
    def _elementwise(self, op: str, inputs: list[Any]) -> Tensor:
        axes = next(x.axes for x in inputs if isinstance(x, Tensor))
        return self.emit(op, [self.name_of(x, axes) for x in inputs], axes)

    def _add(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Add", inputs)

    def _multiply(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Mul", inputs)

    def _relu(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Relu", inputs)

    def _maximum(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Max", inputs)

    def _minimum(self, inputs: list[Any], attrs: Any) -> Tensor:
        """The smaller of two; of a number and what is at least a number, limits."""
        op, (x, *rest), _ = self.sources.get(inputs[0].name, ("", [None], None))
        if op != "maximum" or not all(isinstance(v, (int, float)) for v in (*rest, *inputs[1:])):
            return self._elementwise("Min", inputs)
        limits = [self.constant(np.float32(v)) for v in (*rest, *inputs[1:])]
        return self.emit("Clip", [x.name, *limits], x.axes)

    def _divide(self, inputs: list[Any], attrs: Any) -> Tensor:
        """The ratio; of a sum over all places and their number, the mean."""
        op, (x, *_), how = self.sources.get(inputs[0].name, ("", [None], None))
        if op == "sum" and sorted(x.axes[a] for a in how["axes"]) == [2, 3] and how["keepdims"]:
            return self.emit("GlobalAveragePool", [x.name], inputs[0].axes)
        return self._elementwise("Div", inputs)

    # --- moves and sums ---
    def _permute_dims(self, inputs: list[Any], attrs: Any) -> Tensor:
        x = inputs[0]
        return Tensor(x.name, tuple(x.axes[i] for i in attrs["axes"]))

    def _reshape(self, inputs: list[Any], attrs: Any) -> Tensor:
        plain = self.name_of(inputs[0], range(len(inputs[0].axes)))
        shape = self.constant(np.array(attrs["shape"], np.int64))
        return self.emit("Reshape", [plain, shape], range(len(attrs["shape"])))

    def _concat(self, inputs: list[Any], attrs: Any) -> Tensor:
        axes = inputs[0].axes
        names = [self.name_of(x, axes) for x in inputs]
        return self.emit("Concat", names, axes, axis=axes[attrs["axis"]])

    def _sum(self, inputs: list[Any], attrs: Any) -> Tensor:
        x = inputs[0]
        over = self.constant(np.array([x.axes[a] for a in attrs["axes"]], np.int64))
        return self.emit("ReduceSum", [x.name, over], x.axes, keepdims=int(attrs["keepdims"]))

    # --- products and windows ---
    def _matmul(self, inputs: list[Any], attrs: Any) -> Tensor:
        names = [self.name_of(x, (0, 1)) for x in inputs]
        return self.emit("MatMul", names, (0, 1))

    def _convolution(self, inputs: list[Any], attrs: Any) -> Tensor:
        x, weight = inputs
        kernel = self.constant(weight.transpose(3, 2, 0, 1))
        options = {"strides": attrs["stride"], "dilations": attrs["dilation"], "group": attrs["groups"]}
        return self.emit("Conv", [self._image(x), kernel], CHANNELS_LAST, pads=attrs["pad"] * 2, **options)

    def _max_pool(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self.emit("MaxPool", [self._image(inputs[0])], CHANNELS_LAST, **_window(attrs))

    def _average_pool(self, inputs: list[Any], attrs: Any) -> Tensor:
        count = int(attrs["include_pad"])
        image = self._image(inputs[0])
        return self.emit("AveragePool", [image], CHANNELS_LAST, count_include_pad=count, **_window(attrs))

    def _image(self, x: Tensor) -> str:
        return self.name_of(x, CHANNELS_LAST)


def _window(attrs: dict[str, Any]) -> dict[str, Any]:
    return {
        "kernel_shape": attrs["kernel"],
        "strides": attrs["stride"],
        "pads": attrs["pad"] * 2,
        "ceil_mode": int(attrs["ceil"]),
    }
