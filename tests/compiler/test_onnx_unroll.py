"""Unrolled recurrences, beside ONNX Runtime on the recurrence itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.compiler.importers.onnx import read_onnx
from lepton.compiler.importers.onnx_unroll import unrolled
from lepton.errors import ImportFailure

STEPS = 5
X = np.random.default_rng(0).standard_normal((3, STEPS, 2)).astype(np.float32)


def value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def body() -> Any:
    """Return h, n, x -> h' = tanh(x + factor h), n + 1, -h', h' + outer; it names n itself."""
    nodes = [
        helper.make_node("Mul", ["h", "factor"], ["m"]),
        helper.make_node("Add", ["x", "m"], ["a"]),
        helper.make_node("Tanh", ["a"], ["t"]),
        helper.make_node("Add", ["n", "one"], ["n1"]),
        helper.make_node("Neg", ["t"], ["minus"]),
        helper.make_node("Add", ["t", "outer"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "factor"),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
    ]
    inputs = [value("h", (3, 2)), value("n", (), TensorProto.INT64), value("x", (3, 2))]
    outputs = [
        value("t", (3, 2)),
        value("n1", (), TensorProto.INT64),
        value("minus", (3, 2)),
        value("y", (3, 2)),
    ]
    return helper.make_graph(nodes, "body", inputs, outputs, constants)


def recurrence(extent: int | str = STEPS, opset: int = 14, **attributes: Any) -> onnx.ModelProto:
    """Return a model whose Scan gives two states and two rows of results."""
    outputs = ["last", "count", "rows", "columns"]
    scan = helper.make_node(
        "Scan", ["h0", "n0", "input"], outputs, body=body(), num_scan_inputs=1, **attributes
    )
    constants = [
        numpy_helper.from_array(np.full((3, 2), 0.25, np.float32), "h0"),
        numpy_helper.from_array(np.array(0, np.int64), "n0"),
        numpy_helper.from_array(np.array([1, -1], np.float32), "outer"),
    ]
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [scan],
        "recurrence",
        [value("input", (3, extent, 2))],
        [value(name, None, kind) for name, kind in zip(outputs, kinds, strict=True)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def results(model: onnx.ModelProto) -> list[Any]:
    import onnxruntime as ort

    return list(ort.InferenceSession(model.SerializeToString()).run(None, {"input": X}))


@pytest.mark.parametrize("opset", [14, 18])
@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("axes", [(0, 0), (1, 2)])
def test_steps_compute_what_the_scan_does(opset: int, backward: int, axes: tuple[int, int]) -> None:
    model = recurrence(
        opset=opset,
        scan_input_axes=[1],
        scan_input_directions=[backward],
        scan_output_axes=axes,
        scan_output_directions=[backward, 1 - backward],
    )
    made = unrolled(model)
    onnx.checker.check_model(made, full_check=True)
    assert "Scan" not in {node.op_type for node in made.graph.node}
    for ours, theirs in zip(results(made), results(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_nothing_reads_is_left_out() -> None:
    model = recurrence(scan_input_axes=[1])
    del model.graph.output[1:]
    made = unrolled(model)
    assert {node.op_type for node in made.graph.node} == {
        *("Split", "Squeeze", "Mul", "Add", "Tanh", "Identity")
    }
    assert {item.name for item in made.graph.initializer}.isdisjoint({"n0", "outer"})


def test_given_sizes_say_how_many_steps_there_are() -> None:
    model = recurrence("time", scan_input_axes=[1])
    made, _ = read_onnx(model, "recurrence", {"input": (3, STEPS, 2)})
    assert sum(node.op_type == "Tanh" for node in made.graph.node) == STEPS
    with pytest.raises(ImportFailure, match="number of steps is not known; fix the model's dyn"):
        unrolled(model)


def test_too_long_a_recurrence_is_refused() -> None:
    model = recurrence(100_000, scan_input_axes=[1])
    with pytest.raises(ImportFailure, match="its 100000 steps of 6 operators are more than 50000"):
        unrolled(model)


def test_a_model_without_recurrence_is_itself() -> None:
    model = unrolled(recurrence(scan_input_axes=[1]))
    assert unrolled(model) is model
