"""Float ONNX models quantized on the way: old opsets, dynamic shapes, samples that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.chip import load_chip
from lepton.compiler.calibrate import plain_samples, quantize_model
from lepton.compiler.compile import compile_model
from lepton.compiler.isolate import compile_file
from lepton.compiler.options import CompileOptions
from lepton.errors import ImportFailure, InputError
from lepton.models import digits_model_path
from lepton.runtime.golden import GoldenModel
from lepton.simulator import check, run_values

EDGE = load_chip("edge")
SAMPLES = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)


def write_model(path: Path, opset: int = 8, shape: Any = (1, 3, 8, 8)) -> Path:
    """Write conv -> relu -> fully connected with a row of biases, its constants also inputs."""
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.standard_normal((4, 3, 8, 8)).astype(np.float32),
        "shape": np.array([1, 4], np.int64),
        "v": rng.standard_normal((4, 10)).astype(np.float32),
        "b": rng.standard_normal((1, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[8, 8]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    inputs += [helper.make_tensor_value_info(i.name, i.data_type, i.dims) for i in initializers]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("opset", "extents"), [(8, (1, 3, 8, 8)), (11, (1, 3, "h", "w"))])
def test_the_copy_runs_as_its_golden(tmp_path: Path, opset: int, extents: Any) -> None:
    path = write_model(tmp_path / "float.onnx", opset, extents)
    copy = tmp_path / "copy.onnx"
    quantize_model(path, plain_samples(SAMPLES), copy, {"x": (1, 3, 8, 8)})
    program = compile_model(copy, EDGE)
    check(program)
    assert all(operator.device == "npu" for operator in program.operators if operator.macs)
    golden = GoldenModel(copy)
    for sample in SAMPLES[:, np.newaxis]:
        ours = run_values(program, {"x": sample}, host_of(program))["y"]
        assert ours.tobytes() == golden.run({"x": sample})["y"].tobytes()


def host_of(program: Any) -> Any:
    from lepton.runtime.execute import HostRegions

    return HostRegions(program)


@pytest.mark.slow
def test_a_file_is_calibrated_in_the_child(tmp_path: Path, capfd: Any) -> None:
    path = write_model(tmp_path / "float.onnx", 11, (1, 3, "h", "w"))
    options = CompileOptions(shapes={"x": (1, 3, 8, 8)}, calibration={"x": SAMPLES})
    program = compile_file(path, EDGE, options)
    assert program.source == "float"
    with pytest.raises(InputError, match=r"\[1, 3, 8, 8\], or .*, not \[6, 8, 8, 3\]"):
        compile_file(
            path, EDGE, CompileOptions(options.shapes, False, SAMPLES.transpose(0, 2, 3, 1))
        )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (SAMPLES.transpose(0, 2, 3, 1), r"\[1, 3, 8, 8\], or .*, not \[6, 8, 8, 3\]"),
        (SAMPLES[:0], "holds no samples"),
        ({"z": SAMPLES}, r"no samples of input 'x' \(it has 'z'\)"),
        ({"x": np.where(SAMPLES > 2, np.nan, SAMPLES)}, "of input 'x' holds NaN"),
        ({"x": np.array(["a"])}, "must be an array of numbers, not <U1"),
        (np.ma.array(SAMPLES), "masked array"),
        ([1, 2], "must be an array or arrays by input name, not list"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, samples: Any, text: str) -> None:
    path = write_model(tmp_path / "float.onnx")
    with pytest.raises(InputError, match=text):
        quantize_model(path, plain_samples(samples), tmp_path / "copy.onnx")


def test_what_cannot_be_calibrated(tmp_path: Path) -> None:
    samples, target = plain_samples(SAMPLES), tmp_path / "copy.onnx"
    with pytest.raises(InputError, match=r"digits\.onnx is quantized already"):
        quantize_model(digits_model_path(), samples, target)
    flat = tmp_path / "m.tflite"
    flat.write_bytes(b"")
    with pytest.raises(InputError, match=r"only a float \.onnx model can be"):
        quantize_model(flat, samples, target)
    dynamic = write_model(tmp_path / "d.onnx", 11, (1, 3, "h", "w"))
    with pytest.raises(ImportFailure, match="--shape x=1,3,h,w with your sizes in place of h, w"):
        quantize_model(dynamic, samples, target)


def test_identities_stay_whole_numbers() -> None:
    made = plain_samples({"ids": np.array([(1 << 24) + 1]), "image": np.array([7], np.uint8)})
    assert (made["ids"].dtype, made["ids"][0]) == (np.int64, (1 << 24) + 1)
    assert made["image"].dtype == np.float32
