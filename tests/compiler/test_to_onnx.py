"""Imported models written as ONNX: for the quantizer, and as the golden of a program."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lepton
from lepton.compiler.importers import import_model
from lepton.compiler.to_onnx import onnx_bytes, write_onnx
from lepton.errors import InputError
from lepton.models import digits_model_path, load_digits_holdout
from lepton.runtime.golden import GoldenModel


def test_a_written_model_is_the_model(tmp_path: Path) -> None:
    path = tmp_path / "written.onnx"
    write_onnx(import_model(digits_model_path()).module, path)
    golden, written = GoldenModel(digits_model_path()), GoldenModel(path)
    for image in load_digits_holdout()[0][:10]:
        (expected,) = golden.run({"image": image[None]}).values()
        (made,) = written.run({"image": image[None]}).values()
        np.testing.assert_array_equal(made, expected)


def test_nodes_are_named_and_biases_joined() -> None:
    imported = import_model(digits_model_path())
    graph = onnx.load_from_string(onnx_bytes(imported)).graph
    names = [node.name for node in graph.node if node.name]
    assert len(set(names)) == len(names)
    products = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(products) == 7 and all(len(node.input) == 3 for node in products)
    assert {"stem", "block2_shortcut", "logits"} <= {name.partition("/")[0] for name in names}


def convolution(name: str = "y") -> onnx.ModelProto:
    """Return a float convolution with a bias and an activation."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((4, 3, 3, 3)), "b": rng.standard_normal(4)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("Relu", ["c"], [name]),
    ]
    graph = helper.make_graph(
        nodes, "float", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 6, 6])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), key)
         for key, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", ["proto", "relax"])
def test_a_float_object_is_quantized_on_the_way(kind: str) -> None:
    proto = convolution()
    model: Any = proto if kind == "proto" else import_model(proto).module
    samples = np.random.default_rng(1).standard_normal((4, 1, 3, 8, 8)).astype(np.float32)
    program = lepton.compile(model, "nano", calibration=samples)
    assert all(item.device == "npu" for item in program.operators if item.macs)
    (made,) = lepton.simulate(program, samples[0]).outputs.values()
    (real,) = lepton.simulate(lepton.compile(proto, "nano"), samples[0]).outputs.values()
    assert 0 < np.abs(made - real).max() < 0.05 * np.abs(real).max()


def test_a_shape_that_is_not_fixed_is_refused() -> None:
    tvm: Any = import_module("tvm")
    relax = tvm.relax
    builder: Any = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((tvm.tirx.Var("n", "int64"), 2), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(x, x))
        builder.emit_func_output(result)
    with pytest.raises(InputError, match="input 'x' of 'module' has a shape that is not fixed"):
        onnx_bytes(import_model(builder.get()))
