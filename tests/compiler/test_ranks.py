"""Transposes of more than four dimensions, as a channel shuffle has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.simulator import check, run_values
from tests.compiler import importer_models as made

CODES = np.arange(1 * 12 * 3 * 5, dtype=np.int8).reshape(1, 12, 3, 5)


def moved(split: list[int], order: list[int], target: list[int]) -> Any:
    """Return reshape, transpose, reshape of a dequantized tensor, quantized again."""
    constants = {
        "s": np.array(0.5, np.float32),
        "z": np.array(3, np.int8),
        "split": np.array(split, np.int64),
        "target": np.array(target, np.int64),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["d"]),
        helper.make_node("Reshape", ["d", "split"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=order),
        helper.make_node("Reshape", ["t", "target"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "moved",
        [helper.make_tensor_value_info("x", TensorProto.INT8, CODES.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, target)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("split", "order", "target"),
    [
        ([1, 3, 4, 3, 5], [0, 2, 1, 3, 4], [1, 12, 3, 5]),
        ([1, 3, 4, 3, 5], [0, 3, 4, 2, 1], [15, 12]),
        ([2, 6, 3, 1, 5, 1], [5, 2, 4, 0, 1, 3], [1, 15, 12]),
        ([1, 1, 1, 1, 180], [0, 1, 2, 3, 4], [12, 15]),
    ],
)
def test_dimensions_that_stay_together_are_one(
    split: list[int], order: list[int], target: list[int]
) -> None:
    program = compile_model(moved(split, order, target), load_chip("nano"))
    check(program)
    assert {operator.device for operator in program.operators} == {"npu"}
    found = run_values(program, {"x": CODES})["y"]
    wanted = CODES.reshape(split).transpose(order).reshape(target)
    np.testing.assert_array_equal(found, wanted)


def test_five_dimensions_that_all_part_run_on_the_host() -> None:
    program = compile_model(moved([2, 6, 3, 5, 1], [2, 0, 3, 1, 4], [180]), load_chip("nano"))
    assert {operator.device for operator in program.operators if operator.kind != "halt"} == {"npu"}
    program = compile_model(moved([2, 2, 3, 3, 5], [4, 2, 0, 3, 1], [180]), load_chip("nano"))
    hosted = [operator for operator in program.operators if operator.device == "host"]
    assert any("at most 4 dimensions" in operator.reason for operator in hosted)


@pytest.mark.parametrize(("shape", "host"), [((1, 3, 4, 5), False), ((2, 3, 4, 5), True)])
def test_a_broadcast_to_the_same_shape_is_nothing(shape: tuple[int, ...], host: bool) -> None:
    model = made.qdq("Expand", [(1, 3, 4, 5)], [np.array(shape, np.int64)])
    operators = compile_model(model, load_chip("nano")).operators
    assert ("broadcast_to" in {operator.kind for operator in operators}) == host
