"""A small `torch.nn.Sequential` as float ONNX, its weights under the names of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["run_onnx", "sequential_onnx"]


def sequential_onnx(network: Any, shape: Sequence[int]) -> onnx.ModelProto:
    """Return the model `x` `shape` -> `y`; tensor `h<i>` is what module i makes."""
    nodes, constants, tensor = [], [], "x"
    for name, module in network.named_children():
        made = f"h{name}"
        kind, attributes = _operator(module)
        inputs = [tensor]
        if hasattr(module, "weight"):
            for label in ("weight", "bias"):
                if getattr(module, label) is None:
                    continue
                array = getattr(module, label).detach().numpy().astype(np.float32)
                constants.append(numpy_helper.from_array(array, f"{name}.{label}"))
                inputs.append(f"{name}.{label}")
        nodes.append(helper.make_node(kind, inputs, [made], name=name, **attributes))
        tensor = made
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "sequential",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _operator(module: Any) -> tuple[str, dict[str, Any]]:
    kind = type(module).__name__
    if kind == "Conv2d":
        sizes = {"kernel_shape": list(module.kernel_size), "strides": list(module.stride)}
        return "Conv", {**sizes, "pads": [*module.padding] * 2, "group": module.groups}
    if kind == "MaxPool2d":
        size = [module.kernel_size] * 2
        return "MaxPool", {"kernel_shape": size, "strides": size}
    return {"Linear": ("Gemm", {"transB": 1}), "ReLU": ("Relu", {}), "Flatten": ("Flatten", {})}[
        kind
    ]


def run_onnx(model: onnx.ModelProto, samples: np.ndarray) -> np.ndarray:
    """Run samples one by one in the golden set-up; return the outputs `[n, ...]`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: sample[np.newaxis]})[0] for sample in samples]
    return np.concatenate([np.asarray(row) for row in rows])
