"""Batches of real networks: every item is what the golden library makes of it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import numpy_helper

import lepton
from benchmarks.roofline import with_batch
from lepton.cli.main import main
from lepton.program import Program, load_program
from lepton.runtime.golden import GoldenModel, random_inputs
from lepton.simulator import check
from tests.conftest import data_path

Array = NDArray[Any]
Shapes = Mapping[str, Sequence[int]]


def compare(program: Program, single: Path) -> None:
    """Check a program of several items beside the golden library of a model of one."""
    program = load_program(program.to_bytes())
    check(program)
    inputs = random_inputs(program, 7)
    (name,) = inputs
    golden = GoldenModel(single)
    items = [golden.run({name: item[None]}) for item in inputs[name]]
    for output, value in lepton.simulate(program, inputs, timing=False).outputs.items():
        expected = np.concatenate([item[output] for item in items])
        np.testing.assert_array_equal(value, expected)


def flat_with_batch(content: bytes, batch: int) -> bytes:
    """Return a TFLite model of one item for `batch` of them; reshapes to `[1, ...]` follow."""
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if (data is None or not len(data)) and len(tensor.shape) and tensor.shape[0] == 1:
            tensor.shape = [batch, *tensor.shape[1:]]
            tensor.shapeSignature = None
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.RESHAPE:
            continue
        if len(operator.inputs) > 1:
            buffer = model.buffers[graph.tensors[operator.inputs[1]].buffer]
            buffer.data = np.frombuffer(_enlarged(bytes(buffer.data), batch), np.uint8)
        options = operator.builtinOptions
        if options is not None and options.newShape is not None:
            shape = np.asarray(options.newShape, np.int32).tobytes()
            options.newShape = np.frombuffer(_enlarged(shape, batch), np.int32)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _enlarged(shape: bytes, batch: int) -> bytes:
    """Return an int32 shape of one item for a batch."""
    extents = np.frombuffer(shape, np.int32).copy()
    extents[0] = batch if extents[0] == 1 else extents[0]
    return extents.tobytes()


def with_unknown_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of one item for any number of them."""
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    constants = {item.name for item in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants:
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    for index, item in enumerate(model.graph.initializer):
        if item.name in shapes:
            extents = numpy_helper.to_array(item).copy()
            if extents[0] == 1:
                extents[0] = 0 if -1 in extents else -1
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(extents, item.name))
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize(
    ("name", "batch", "chip"),
    [
        ("mlperf_tiny/kws_ref_model", 8, "edge"),
        ("mlperf_tiny/kws_ref_model", 3, "like-u55-256"),
        ("mlperf_tiny/pretrainedResnet_quant", 4, "nano"),
        ("mlperf_tiny/ad01_int8", 5, "server"),
        ("mlperf_tiny/vww_96_int8", 2, "edge"),
        pytest.param(
            "mobilenet/tf2_mobilenet_v2_1.0_224_ptq", 2, "edge", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_tflite(name: str, batch: int, chip: str, tmp_path: Path) -> None:
    single = data_path(f"{name}.tflite")
    path = tmp_path / "batch.tflite"
    path.write_bytes(flat_with_batch(single.read_bytes(), batch))
    compare(lepton.compile(path, chip), single)


ONNX = {"kws_ref_model": 8, "resnet": 3, "deep_autoencoder": 2, "mobilenet_v1": 2}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_with_a_fixed_batch(name: str, tmp_path: Path) -> None:
    single = data_path(f"mlperf_tiny_onnx/{name}.onnx")
    path = tmp_path / "batch.onnx"
    onnx.save(with_batch(onnx.load(single), ONNX[name]), path)
    compare(lepton.compile(path, "edge"), single)


def test_onnx_whose_batch_is_given_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = data_path("mlperf_tiny_onnx/kws_ref_model.onnx")
    path, out = tmp_path / "any.onnx", tmp_path / "six.lepton"
    onnx.save(with_unknown_batch(onnx.load(single)), path)
    command = ["compile", str(path), "--chip", "nano", "-o", str(out)]
    assert main(command) == 2
    assert "--shape" in capsys.readouterr().err
    assert main([*command, "--shape", "input_1=6,490"]) == 0
    program = load_program(out)
    assert program.tensor_by_name["input_1"].shape == (6, 490)
    compare(program, single)


def test_initializers_among_the_inputs(tmp_path: Path) -> None:
    """ONNX files of IR version 3 list them there."""
    single = data_path("mnist_onnx/mnist_quantized_conr.onnx")
    assert len(onnx.load(single).graph.input) > 1
    path = tmp_path / "batch.onnx"
    onnx.save(with_batch(onnx.load(single), 4), path)
    program = lepton.compile(path, "nano", float_on_host=True)
    assert program.inputs == ("Input3",)
    compare(program, single)
