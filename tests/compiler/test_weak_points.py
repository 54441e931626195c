"""What users of other compilers trip over: odd channel counts, linear layers, defaults, no room."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.chip import Chip, chip_from_table, chip_to_table, load_chip
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.errors import CompileError
from lepton.report.summary import Layer, Summary, summarize
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import onnx_session
from lepton.simulator import run_values, simulate_timing
from tests.compiler import importer_models as made

EDGE, NANO, SERVER = (load_chip(name) for name in ("edge", "nano", "server"))
SPATIAL = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def run(path: Path, content: bytes, chip: Chip) -> tuple[Summary, Layer]:
    """Return the run of a model of one convolution, and the convolution."""
    path.write_bytes(content)
    program = compile_model(path, chip)
    summary = summarize(program, simulate_timing(program))
    (layer,) = [layer for layer in summary.layers if layer.op in ("convolution", "depthwise")]
    return summary, layer


def convolution(size: tuple[int, ...], channels: tuple[int, int], kernel: int) -> bytes:
    """Return a TFLite convolution over an image of `size`."""
    weights = made.int8_weights(channels[1], kernel, kernel, channels[0])
    return _layer("CONV_2D", (1, *size, channels[0]), (1, *size, channels[1]), weights,
                  ("Conv2DOptions", SPATIAL))  # fmt: skip


def depthwise(size: tuple[int, ...], channels: int) -> bytes:
    """Return a TFLite depthwise convolution of 3 x 3 over an image of `size`."""
    shape = (1, *size, channels)
    options = SPATIAL | {"depthMultiplier": 1}
    weights = made.int8_weights(1, 3, 3, channels)
    return _layer("DEPTHWISE_CONV_2D", shape, shape, weights, ("DepthwiseConv2DOptions", options))


def linear(rows: int, channels: tuple[int, int]) -> bytes:
    """Return a TFLite fully connected layer over some rows."""
    weights = made.int8_weights(channels[1], channels[0])
    return _layer("FULLY_CONNECTED", (rows, channels[0]), (rows, channels[1]), weights,
                  ("FullyConnectedOptions", {}))  # fmt: skip


def _layer(
    kind: str, ifm: tuple[int, ...], ofm: tuple[int, ...], weights: Any, options: Any
) -> bytes:
    """Return a TFLite model of one layer with weights and a bias."""
    scale = np.float32(0.05) * np.float32(0.01)
    tensors = [
        made.activation("x", ifm),
        made.constant("w", weights, "int8", 0.01),
        made.constant("b", np.arange(ofm[-1]), "int32", scale),
        made.activation("y", ofm, 0.5, 4),
    ]
    return made.tflite_model(kind, tensors, [0, 1, 2], [3], options, 4)


# --- 17 channels -------------------------------------------------------------------------------


ODD: dict[str, Callable[[int], bytes]] = {
    "in": lambda count: convolution((32, 32), (count, 16), 3),
    "out": lambda count: convolution((32, 32), (16, count), 3),
    "both": lambda count: convolution((32, 32), (count, count), 1),
    "depthwise": lambda count: depthwise((32, 32), count),
}


@pytest.mark.parametrize("side", ODD)
@pytest.mark.parametrize("chip", [EDGE, SERVER], ids=lambda chip: chip.name)
def test_17_channels_cost_little_more_than_16(chip: Chip, side: str, tmp_path: Path) -> None:
    found: dict[int, Summary] = {}
    for count in (16, 17):
        found[count], _ = run(tmp_path / f"{count}.tflite", ODD[side](count), chip)
    assert chip.array.columns >= 17  # the array has room
    assert (found[17].cycles or 0) <= 1.1 * (found[16].cycles or 0)


@pytest.mark.parametrize("chip", [EDGE, NANO, SERVER], ids=lambda chip: chip.name)
def test_a_tensor_of_17_channels_takes_17_bytes_a_pixel(chip: Chip) -> None:
    # between two transposes the result stays in the scratchpad, whole, where nobody looks for a
    # division of the scratchpad that is faster
    sizes: list[int] = []
    plain = CompileOptions(effort=0)
    for count in (16, 17, 32):
        weights = (made.int8_weights(count, 16, 3, 3), np.full(count, 0.01), 0)
        model = made.qdq("Conv", [(1, 16, 32, 32)], [weights], scales=(0.05, 0.3), pads=[1] * 4)
        sizes.append(summarize(compile_model(model, chip, plain)).scratchpad_peak_bytes)
    assert sizes[1] - sizes[0] < 1.01 * (sizes[2] - sizes[0]) / 16


# --- linear layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("chip", [EDGE, NANO, SERVER], ids=lambda chip: chip.name)
@pytest.mark.parametrize(
    ("size", "channels"),
    [((8, 8), (256, 256)), ((1, 1), (512, 500)), ((1, 49), (128, 384))],
)
def test_a_linear_layer_costs_what_the_same_1x1_convolution_does(
    size: tuple[int, int], channels: tuple[int, int], chip: Chip, tmp_path: Path
) -> None:
    conv, one = run(tmp_path / "c.tflite", convolution(size, channels, 1), chip)
    dense, other = run(tmp_path / "l.tflite", linear(size[0] * size[1], channels), chip)
    assert dense.macs == conv.macs and one.weight_bytes == other.weight_bytes
    # rounded as LiteRT does it a convolution has 9 bytes of parameters per channel, a linear
    # layer 12, so that their tiles may be cut in another way
    assert dense.cycles == pytest.approx(conv.cycles, rel=0.1)


@pytest.mark.parametrize("chip", [EDGE, NANO], ids=lambda chip: chip.name)
def test_gemm_matmul_and_1x1_convolution_of_onnx_cost_the_same(chip: Chip) -> None:
    weights, scales = made.int8_weights(512, 256), np.full(512, 0.01)
    across = np.ascontiguousarray(weights.T)
    models = [
        made.qdq("Gemm", [(1, 256)], [(weights, scales, 0)], scales=(0.05, 0.5), transB=1),
        made.qdq("MatMul", [(1, 256)], [(across, scales, 1)], scales=(0.05, 0.5)),
        made.qdq(
            "Conv", [(1, 256, 1, 1)], [(weights.reshape(512, 256, 1, 1), scales, 0)],
            scales=(0.05, 0.5),
        ),
    ]  # fmt: skip
    assert len({simulate_timing(compile_model(model, chip)).cycles for model in models}) == 1


# --- defaults and names ------------------------------------------------------------------------

WEIGHTS = (made.int8_weights(8, 4, 3, 3), np.full(8, 0.01), 0)
IMAGE = (1, 4, 9, 9)
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "Conv": ([IMAGE], [WEIGHTS]),
    # ONNX Runtime adds it up in float: a scale that leaves no sum halfway between two codes
    "ConvTranspose": ([IMAGE], [(made.int8_weights(4, 8, 3, 3), np.float32(0.01371), 0)]),
    "Gemm": ([(1, 16)], [(made.int8_weights(16, 8), np.full(8, 0.01), 1)]),
    "MaxPool": ([IMAGE], [], {"kernel_shape": [3, 3]}),
    "AveragePool": ([IMAGE], [], {"kernel_shape": [3, 3]}),
    "Dropout": ([IMAGE], []),
    "Elu": ([IMAGE], []),
    "Flatten": ([IMAGE], []),
    "GlobalAveragePool": ([IMAGE], []),
    "HardSigmoid": ([IMAGE], []),
    "LeakyRelu": ([IMAGE], []),
    "ReduceMean": ([IMAGE], []),
    "Softmax": ([(1, 10)], []),
    "Squeeze": ([(1, 4, 1, 9)], []),
    "Transpose": ([IMAGE], []),
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_default_attributes_and_unnamed_nodes(kind: str) -> None:
    shapes, constants, *attributes = DEFAULTS[kind]
    model = made.qdq(kind, shapes, constants, scales=(0.05, 0.3), **(attributes or [{}])[0])
    for node in model.graph.node:
        node.ClearField("name")
    program = compile_model(model, NANO)
    assert all(operator.name for operator in program.operators)
    x = np.random.default_rng(1).standard_normal(shapes[0]).astype(np.float32)
    ours = run_values(program, {"x0": x}, HostRegions(program))["y0"]
    golden = onnx_session(model.SerializeToString()).run(None, {"x0": x})[0]
    np.testing.assert_array_equal(ours, golden)


def test_unnamed_nodes_are_told_apart() -> None:
    values = {"s": np.float32(0.05), "z": np.int8(0), "w": made.int8_weights(4, 4, 3, 3),
              "ws": np.float32(0.01)}  # fmt: skip
    nodes = [
        made.node("QuantizeLinear", ["x", "s", "z"], "q"),
        made.node("DequantizeLinear", ["q", "s", "z"], "d0"),
        made.node("DequantizeLinear", ["w", "ws", "z"], "dw"),
    ]
    for step in (0, 1):
        nodes += [
            made.node("Conv", [f"d{step}", "dw"], f"c{step}"),
            made.node("QuantizeLinear", [f"c{step}", "s", "z"], f"q{step}"),
            made.node("DequantizeLinear", [f"q{step}", "s", "z"], f"d{step + 1}"),
        ]
    for node in nodes:
        node.ClearField("name")
    model = made.onnx_model(nodes, values, [("x", 1, IMAGE)], [("d2", 1)])
    operators = compile_model(model, NANO).operators
    names = [operator.name for operator in operators if operator.kind == "convolution"]
    assert names == ["c0", "c1"]


# --- no room -----------------------------------------------------------------------------------

SHORT = re.compile(r"needs ([\d,]+) bytes of the (.*), and ([\d,]+) are free: ([\d,]+) short$")


def refused(chip: Chip, content: bytes, path: Path) -> tuple[str, str]:
    """Compile a model that cannot fit; return the message and the memory that it names."""
    path.write_bytes(content)
    with pytest.raises(CompileError) as error:
        compile_model(path, chip)
    text = str(error.value)
    found = SHORT.search(text)
    assert found is not None, text
    needed, free, short = (int(found[group].replace(",", "")) for group in (1, 3, 4))
    assert short == needed - free > 0
    return text, found[2]


def shrunk(**sizes: int) -> Chip:
    """Return nano with other sizes of buffers in KiB."""
    table: Any = chip_to_table(NANO)
    for part, size in sizes.items():
        table[part]["size_kib"] = size
    return chip_from_table(table, "tiny")


def window(kind: str, kernel: int, channels: int) -> bytes:
    """Return a TFLite model of one window over a whole image, per channel if depthwise."""
    options = SPATIAL | {"padding": 1}
    outputs = 1
    if kind == "DepthwiseConv2D":
        options, outputs = options | {"depthMultiplier": 1}, channels
    weights = made.int8_weights(1, kernel, kernel, channels)
    operator = "CONV_2D" if kind == "Conv2D" else "DEPTHWISE_CONV_2D"
    ifm, ofm = (1, kernel, kernel, channels), (1, 1, 1, outputs)
    return _layer(operator, ifm, ofm, weights, (f"{kind}Options", options))


@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_a_pixel_that_no_scratchpad_holds(kind: str, tmp_path: Path) -> None:
    text, memory = refused(shrunk(scratchpad=1), window(kind, 40, 16), tmp_path / "x.tflite")
    assert memory == "scratchpad of chip 'nano'" and text.startswith("one output pixel of 'y' ")


def test_a_pixel_whose_channels_come_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(window("Conv2D", 30, 2))
    assert {item.device for item in compile_model(path, shrunk(scratchpad=1)).operators} == {"npu"}


def test_weights_of_a_depthwise_channel_that_no_buffer_holds(tmp_path: Path) -> None:
    content = window("DepthwiseConv2D", 40, 16)
    text, memory = refused(shrunk(weight_buffer=1), content, tmp_path / "x.tflite")
    assert memory == "weight buffer of chip 'nano'" and text.startswith("'y' ")


def test_constants_that_no_memory_holds(tmp_path: Path) -> None:
    table: Any = chip_to_table(NANO)
    for memory in table["memory"]:
        memory["size_mib"] = 1
    content = convolution((1, 1), (2048, 1024), 1)
    text, memory = refused(chip_from_table(table, "x"), content, tmp_path / "x.tflite")
    assert memory.startswith("memory '") and "the program" in text


def test_an_activation_that_no_memory_holds(tmp_path: Path) -> None:
    table: Any = chip_to_table(NANO)
    for memory in table["memory"]:
        memory["size_mib"] = 1
    content = convolution((1024, 1100), (1, 1), 1)
    text, memory = refused(chip_from_table(table, "x"), content, tmp_path / "x.tflite")
    assert memory.startswith("memory '") and "tensor 'x'" in text
