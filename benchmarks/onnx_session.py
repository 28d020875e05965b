"""A small ONNX graph, written with onnx's own helper, in an onnxruntime session of the run's number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Operator = tuple[str, list[str], str, dict[str, Any]]  # op, names of inputs, name of the output, attributes
_OPSET, _IR = 20, 9


def session(
    operators: Sequence[Operator],
    inputs: dict[str, tuple[int, ...]],
    weights: dict[str, np.ndarray],
    output: str,
    integers: Sequence[str] = (),
) -> Callable[[dict[str, np.ndarray]], Any]:
    """A function from the named inputs to the output; all are float32, but for inputs among the int64 `integers`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = int(os.environ["OMP_NUM_THREADS"]), 1
    options.log_severity_level = 3
    model = _model(operators, inputs, weights, output, integers).SerializeToString()
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda values: made.run(None, values)[0]


def _model(
    operators: Sequence[Operator],
    inputs: dict[str, tuple[int, ...]],
    weights: dict[str, np.ndarray],
    output: str,
    integers: Sequence[str],
) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node(op, names, [result], **attributes) for op, names, result, attributes in operators]
    kinds = {name: TensorProto.INT64 if name in integers else TensorProto.FLOAT for name in inputs}
    values = [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in inputs.items()]
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "benchmark", values, [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
