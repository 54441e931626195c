"""Host regions: integer convolutions, MACs, and reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from lepton.chip import load_chip
from lepton.compiler import worker
from lepton.compiler.compile import compile_model
from lepton.errors import CompileError, InputError
from lepton.program import Operator
from lepton.report.summary import summarize
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import onnx_session
from lepton.simulator import check, run_values
from tests.compiler import importer_models as made
from tests.programs import hand_program

EDGE = load_chip("edge")


def integer_convolution(kind: str, weight_point: int, scale: float = 0.1) -> Any:
    """Return quantize -> ConvInteger -> cast, padded, with zero points, and a pooling behind."""
    rng = np.random.default_rng(0)
    limits = np.iinfo(kind)
    weights = rng.integers(limits.min, limits.max + 1, (4, 3, 3, 3)).astype(kind)
    constants = {
        "s": np.float32(scale),
        "z": np.array(7, kind),
        "w": weights,
        "wz": np.array(weight_point, kind),
    }
    nodes = [
        made.node("QuantizeLinear", ["x", "s", "z"], "q"),
        made.node("ConvInteger", ["q", "w", "z", "wz"], "i", pads=[1, 1, 1, 1], strides=[2, 2]),
        made.node("Cast", ["i"], "c", to=TensorProto.FLOAT),
        made.node("MaxPool", ["c"], "y", kernel_shape=[2, 2]),
    ]
    return made.onnx_model(nodes, constants, [("x", 1, (1, 3, 6, 6))], [("y", 1)])


@pytest.mark.parametrize(
    ("kind", "point"), [("uint8", 0), ("uint8", 131), ("uint8", 255), ("int8", 0)]
)
def test_integer_convolutions_run_on_the_host(kind: str, point: int) -> None:
    model = integer_convolution(kind, point)
    program = compile_model(model, EDGE)
    check(program)
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32) * 12
    ours = run_values(program, {"x": x}, HostRegions(program))["y"]
    golden = onnx_session(model.SerializeToString()).run(None, {"x": x})[0]
    assert np.array_equal(ours, golden)


def test_host_products_count_as_macs() -> None:
    program = compile_model(integer_convolution("uint8", 0), EDGE)
    assert sum(operator.macs for operator in program.operators) == 4 * 3 * 3 * 27
    assert summarize(program).macs_on_npu == 0.0
    nodes = [made.node("Gemm", ["x", "w", "b"], "m"), made.node("MatMul", ["m", "v"], "y")]
    rng = np.random.default_rng(2)
    sizes = {"w": (5, 7), "b": (7,), "v": (7, 2)}
    constants = {n: rng.standard_normal(size).astype(np.float32) for n, size in sizes.items()}
    program = compile_model(made.onnx_model(nodes, constants, [("x", 1, (3, 5))], [("y", 1)]), EDGE)
    assert sum(operator.macs for operator in program.operators) == 3 * 5 * 7 + 3 * 7 * 2


def test_a_rule_is_not_told_of_another_operator() -> None:
    nodes = [
        made.node("MaxPool", ["x"], "p", kernel_shape=[2, 2], name="pool"),
        made.node("Reshape", ["p", "shape"], "r"),
        made.node("QuantizeLinear", ["r", "s", "z"], "y"),  # moves before the reshape
    ]
    constants = {"shape": np.array([1, 75]), "s": np.float32(0.1), "z": np.array(7, "uint8")}
    model = made.onnx_model(nodes, constants, [("x", 1, (1, 3, 6, 6))], [("y", 2)])
    operators = compile_model(model, EDGE).operators
    reasons = {operator.kind: operator.reason for operator in operators if operator.name == "pool"}
    assert reasons == {
        "nn.max_pool2d": "nn.max_pool2d: Operands and result must be int8 or uint8.",
        "quantize": "its operands are not quantized to 8 bits",
    }


def test_tensors_that_no_program_holds() -> None:
    model = made.onnx_model(
        [made.node("Relu", ["x"], "y")], {}, [("x", 1, (1, 1 << 31))], [("y", 1)]
    )
    with pytest.raises(CompileError, match=r"tensor 'x' of shape \[1, 2147483648\] is too large"):
        compile_model(model, EDGE)


def test_float_tflite_is_not_told_to_calibrate() -> None:
    import dataclasses

    operators = (Operator("o", "nn.conv2d", "host", 9, 0, 0, ""),)
    program = dataclasses.replace(hand_program("halt"), operators=operators, golden="tflite")
    with pytest.raises(
        InputError, match=r"m\.tflite is a float model; export it with int8"
    ) as found:
        worker.refuse_float(program, "m.tflite")
    assert "DATA.npz" not in str(found.value)
