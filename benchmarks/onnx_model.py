"""A gluonish network as the operators of an ONNX model, for `onnx_session`: the same weights, in predict mode.

The graph is the one that gluonish traces, before any of its passes. gluonish computes convolutions on channels-last
arrays and permutes around them; ONNX wants channels first. So every value is remembered as an ONNX tensor and an order
of its dimensions, and permutations move no data. What depends on weights alone is computed here; onnxruntime folds the
factor and the shift that are left of a BatchNorm into the convolution before them. What has an ONNX operator of its
own, a layer norm say, becomes that. Indices are not checked there.

Only what the networks of the benchmarks need: fixed sizes, float32 and int64 indices, the ops that have a
method below.
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
    if isinstance(value, slice):
        return slice(_number(value.start), _number(value.stop), _number(value.step))
    return getattr(value, "hint", value)


class _Converter:
    """One conversion. Each method has the name of an op and gets its node's inputs, attributes and the node."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}  # by id of the node: an array, or a Tensor
        self.sources: dict[str, tuple[str, list[Any], Any]] = {}  # of a tensor: op, inputs, node
        self.depths: dict[str, int] = {}  # the last dimension of a tensor
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
        self.depths.setdefault(found.name, _number(node.shape[-1:] or (1,))[0])
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
        self.constants[name] = np.asarray(value, order="C")
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
        found = layer_norm_of(self.sources, inputs)
        if found is None:
            return self._elementwise("Add", inputs)
        x, gamma, beta, epsilon = found
        names = [x.name, *(self.constant(np.float32(v).ravel()) for v in (gamma, beta))]
        return self.emit("LayerNormalization", names, x.axes, axis=-1, epsilon=epsilon)

    def _subtract(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Sub", inputs)

    def _gelu(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Gelu", inputs)

    def _gelu_tanh(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self.emit("Gelu", [inputs[0].name], inputs[0].axes, approximate="tanh")

    def _tanh(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Tanh", inputs)

    def _rsqrt(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self.emit("Reciprocal", [self._elementwise("Sqrt", inputs).name], inputs[0].axes)

    def _variance(self, inputs: list[Any], attrs: Any) -> Tensor:
        x = inputs[0]
        over = self.constant(np.array([x.axes[a] for a in attrs["axes"]], np.int64))
        distance = self.emit("Sub", [x.name, self.emit("ReduceMean", [x.name, over], x.axes).name], x.axes).name
        square = self.emit("Mul", [distance, distance], x.axes)
        return self.emit("ReduceMean", [square.name, over], x.axes, keepdims=int(attrs["keepdims"]))

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
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        axes = tensors[0].axes if len(tensors) == len(inputs) else range(len(tensors[0].axes))  # tokens, not images
        names = [self.name_of(x, axes) for x in inputs]
        return self.emit("Concat", names, axes, axis=axes[attrs["axis"]])

    def _sum(self, inputs: list[Any], attrs: Any) -> Tensor:
        x = inputs[0]
        over = self.constant(np.array([x.axes[a] for a in attrs["axes"]], np.int64))
        return self.emit("ReduceSum", [x.name, over], x.axes, keepdims=int(attrs["keepdims"]))

    def _take(self, inputs: list[Any], attrs: Any) -> Tensor:
        table, places = inputs
        rank = len(places.axes) + table.ndim - 1
        return self.emit("Gather", [self.constant(table), places.name], range(rank), axis=attrs["axis"])

    def _where(self, inputs: list[Any], attrs: Any) -> Tensor:
        """Only what moves negative indices out of range: the indices themselves."""
        op, (_, least), _ = self.sources.get(inputs[0].name, ("", (None, None), None))
        if op != "less" or least != 0:
            raise NotImplementedError("no ONNX operator for where")
        return inputs[2]

    def _less(self, inputs: list[Any], attrs: Any) -> Tensor:
        return self._elementwise("Less", inputs)

    def _index(self, inputs: list[Any], attrs: Any) -> Tensor:
        x, key = inputs[0], attrs["key"]
        names = [i for i, k in enumerate(key) if k != slice(None)]
        if len(names) != 1 or not isinstance(key[names[0]], int):
            raise NotImplementedError("no ONNX operator for this index")
        plain = self.name_of(x, range(len(x.axes)))
        place = self.constant(np.int64(key[names[0]]))
        return self.emit("Gather", [plain, place], range(len(x.axes) - 1), axis=names[0])

    # --- products and windows ---
    def _matmul(self, inputs: list[Any], attrs: Any) -> Tensor:
        axes = range(max(len(getattr(x, "axes", ())) for x in inputs))
        names = [self.name_of(x, axes if isinstance(x, Tensor) else range(x.ndim)) for x in inputs]
        return self.emit("MatMul", names, axes)

    def _attention(self, inputs: list[Any], attrs: Any) -> Tensor:
        query, key, value = inputs
        if attrs["causal"] or len(query.axes) != 4:
            raise NotImplementedError("no ONNX operators for this kind of attention")
        turned = Tensor(key.name, (*key.axes[:2], key.axes[3], key.axes[2]))
        q, k, v = (self.name_of(x, range(4)) for x in (query, turned, value))
        scale = self.constant(np.float32(attrs["scale"] or self.depths[query.name] ** -0.5))
        scores = self.emit("Mul", [self.emit("MatMul", [q, k], range(4)).name, scale], range(4))
        weights = self.emit("Softmax", [scores.name], range(4), axis=-1)
        return self.emit("MatMul", [weights.name, v], range(4))

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


def layer_norm_of(sources: dict[str, Any], inputs: list[Any]) -> tuple[Tensor, Any, Any, float] | None:
    """What is normalised, gamma, beta and epsilon, if this sum is the end of a norm of rows."""

    def source(x: Any, op: str) -> Any:
        found = sources.get(x.name) if isinstance(x, Tensor) else None
        return found if found is not None and found[0] == op else None

    scaled = source(inputs[0], "multiply")
    normal = scaled and source(scaled[1][0], "multiply")
    root = normal and source(normal[1][1], "rsqrt")
    shifted = root and source(root[1][0], "add")
    spread = shifted and source(shifted[1][0], "variance")
    if not spread or isinstance(inputs[1], Tensor) or isinstance(scaled[1][1], Tensor):
        return None
    x = spread[1][0]
    if spread[2]["axes"] != (len(x.axes) - 1,) or list(x.axes) != sorted(x.axes):
        return None
    return x, scaled[1][1], inputs[1], shifted[1][1]


def _window(attrs: dict[str, Any]) -> dict[str, Any]:
    return {
        "kernel_shape": attrs["kernel"],
        "strides": attrs["stride"],
        "pads": attrs["pad"] * 2,
        "ceil_mode": int(attrs["ceil"]),
    }
