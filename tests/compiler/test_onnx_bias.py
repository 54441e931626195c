"""Biases whose scale or zero point is not that of the sums, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")
pytest.importorskip("tvm")

from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.runtime.execute import simulate
from lepton.runtime.golden import onnx_session
from tests.compiler import importer_models as made

Array = NDArray[Any]
SUMS = float(np.float32(0.02) * np.float32(0.01))
"""Scale of the sums in every case here."""
CHANNELS = 6


def codes(*shape: int) -> Array:
    """Return a random bias."""
    return np.random.default_rng(2).integers(-3000, 3000, shape).astype(np.int32)


def model(
    op: str,
    shape: tuple[int, ...],
    bias: Array,
    parameters: tuple[float, int],
    dtypes: tuple[str, str] = ("int8", "int8"),
    activation: str = "",
) -> Any:
    """Return a model of `op`, or of MatMul and Add, with a bias of its own scale and zero point."""
    from onnx import TensorProto

    weights = made.int8_weights(*((CHANNELS, 4, 3, 3) if op == "Conv" else (shape[-1], CHANNELS)))
    constants: dict[str, Any] = {"xs": np.float32(0.02), "xz": np.array(3, dtypes[0])}
    constants |= {"w": weights, "ws": np.float32(0.01), "wz": np.int8(0)}
    constants |= {"b": bias, "bs": np.float32(parameters[0]), "bz": np.int32(parameters[1])}
    constants |= {"ys": np.float32(0.1), "yz": np.array(7, dtypes[1])}
    nodes = [
        made.node("DequantizeLinear", [name, f"{name}s", f"{name}z"], f"{name}d") for name in "xwb"
    ]
    if op == "MatMul":
        nodes.append(made.node("MatMul", ["xd", "wd"], "m"))
        nodes.append(made.node("Add", ["m", "bd"], "r"))
    else:
        nodes.append(made.node(op, ["xd", "wd", "bd"], "r"))
    if activation:
        nodes.append(made.node(activation, ["r"], "a"))
    nodes.append(made.node("QuantizeLinear", ["a" if activation else "r", "ys", "yz"], "y"))
    kinds = [TensorProto.INT8 if kind == "int8" else TensorProto.UINT8 for kind in dtypes]
    return made.onnx_model(nodes, constants, [("x", kinds[0], shape)], [("y", kinds[1])])


def compared(proto: Any) -> tuple[int, set[str]]:
    """Return how many elements differ from the golden's, by 1 at most, and the devices."""
    program = compile_model(proto, load_chip("nano"))
    tensor = program.tensor_by_name["x"]
    limits = np.iinfo(tensor.dtype)
    drawn = np.random.default_rng(3).integers(limits.min, limits.max + 1, tensor.shape)
    feeds = {"x": drawn.astype(tensor.dtype)}
    ours = np.asarray(simulate(program, feeds).outputs["y"]).astype(int)
    (golden,) = onnx_session(proto.SerializeToString()).run(None, feeds)
    assert np.abs(ours - golden).max() <= 1
    devices = {item.device for item in program.operators if item.kind != "halt"}
    return int(np.count_nonzero(ours != golden)), devices


@pytest.mark.parametrize("parameters", [(SUMS * 2, 0), (SUMS * 0.37, 100), (SUMS, 100)])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_integer_gemm_adds_the_codes_of_any_bias(op: str, parameters: tuple[float, int]) -> None:
    assert compared(model(op, (5, 12), codes(CHANNELS), parameters)) == (0, {"npu"})
    if op == "MatMul":
        assert compared(model(op, (2, 5, 12), codes(CHANNELS), parameters)) == (0, {"npu"})


@pytest.mark.parametrize("parameters", [(SUMS * 2, 100), (SUMS * 0.5, 100), (SUMS, 100)])
@pytest.mark.parametrize(
    ("dtypes", "activation"), [(("int8", "uint8"), ""), (("int8", "int8"), "Relu")]
)
def test_gemm_in_float_adds_the_real_bias(
    parameters: tuple[float, int], dtypes: tuple[str, str], activation: str
) -> None:
    proto = model("Gemm", (5, 12), codes(CHANNELS), parameters, dtypes, activation)
    different, _ = compared(proto)
    assert different == 0


@pytest.mark.parametrize("shape", [(CHANNELS, 1), (CHANNELS, CHANNELS), (1, 1), (1, CHANNELS)])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_a_bias_may_have_any_shape(op: str, shape: tuple[int, ...]) -> None:
    proto = model(op, (CHANNELS, 12), codes(*shape), (SUMS, 0))
    assert compared(proto) == (0, {"npu" if shape[0] == 1 else "host"})


@pytest.mark.parametrize("parameters", [(SUMS, 0), (SUMS * 1.009, 0), (SUMS * 0.991, 0)])
def test_convolution_adds_the_codes_of_a_bias_of_about_its_scale(
    parameters: tuple[float, int],
) -> None:
    assert compared(model("Conv", (1, 4, 9, 9), codes(CHANNELS), parameters)) == (0, {"npu"})


@pytest.mark.parametrize("parameters", [(SUMS, 100), (SUMS * 2, 0), (SUMS * 3, 5)])
def test_convolution_adds_the_real_bias_of_another_scale(parameters: tuple[float, int]) -> None:
    assert compared(model("Conv", (1, 4, 9, 9), codes(CHANNELS), parameters)) == (0, {"npu"})


def test_a_bias_that_rounding_moves_a_little_runs_on_the_npu() -> None:
    different, devices = compared(model("Conv", (1, 4, 40, 40), codes(CHANNELS), (SUMS * 1.37, 0)))
    assert devices == {"npu"}
    assert different <= 1e-3 * CHANNELS * 38 * 38


def test_a_bias_that_rounding_moves_too_far_runs_on_the_host() -> None:
    small = model("Conv", (1, 4, 9, 9), codes(CHANNELS), (SUMS * 1.37, 0))
    for item in small.graph.initializer:
        if item.name == "ys":
            item.CopyFrom(type(item)(name="ys", data_type=1, float_data=[0.001]))
    assert compared(small) == (0, {"host"})
