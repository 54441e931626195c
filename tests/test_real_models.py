"""The quantized reference networks, end to end: saved, loaded and run beside their golden library.

Every program here has gone through the bytes of its file before anything runs.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import PRESETS, load_chip
from lepton.compiler.compile import compile_model
from lepton.isa import assemble, disassemble, encode_all
from lepton.listing import listing, parse_listing
from lepton.program import Program, load_program
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import GoldenModel
from lepton.runtime.verify import verify
from lepton.simulator import check, run_values, simulate_program, simulate_timing
from tests.conftest import data_path

Array = NDArray[Any]
MOST_DIFFERING = 1e-6
"""Relative difference allowed of a final float output, which host regions compute."""


# --- inputs: one array [samples, ...] per network, each sample of the input's shape --------------


def _kws_codes() -> Array:
    """Return the 1,000 int8 MFCC blocks of the keyword benchmark."""
    return np.load(data_path("mlperf_tiny/kws01_inputs.npz"))["x"]


def _kws_features(path: Path) -> Array:
    """Return the same blocks as float features, rounded to the grid of the int8 TFLite input."""
    del path
    scale, zero_point = np.float32(0.5847029089927673), 83
    return ((_kws_codes().astype(np.float32) - zero_point) * scale).reshape(-1, 490)


def _cifar() -> Array:
    return np.load(data_path("cifar10/test_first1000.npz"))["x"]


def _seeded(shape: tuple[int, ...], dtype: str, count: int, seed: int) -> Array:
    """Return random inputs, whole range of an integer type or normal floats."""
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.standard_normal((count, *shape)).astype(np.float32)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max + 1, (count, *shape)).astype(dtype)


def _photos(size: int) -> Array:
    """Return the three photographs, resized, then five seeded random images: uint8 NHWC."""
    image = pytest.importorskip("PIL.Image", reason="photographs are resized by pillow")
    names = ("cat", "grace_hopper", "sunflower")
    resized = [
        np.asarray(image.open(data_path(f"photos/{n}.bmp")).convert("RGB").resize((size, size)))
        for n in names
    ]
    return np.concatenate([np.stack(resized), _seeded((size, size, 3), "uint8", 5, size)])


def _photos_as_floats(_path: Path) -> Array:
    """Return the photographs as float NCHW in 0..1, as the person detector takes them."""
    scaled = _photos(96).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Network:
    """A model file, its inputs, how many of them are compared here, and its labels' file."""

    path: str
    samples: Callable[[Path], Array]
    count: int
    labels: str = ""
    right: int = 0
    """Samples that its golden library classifies rightly, of the first `count`."""


NETWORKS = {
    "kws": Network(
        "mlperf_tiny/kws_ref_model.tflite",
        lambda _: _kws_codes(),
        1000,
        "mlperf_tiny/kws01_inputs.npz",
        901,
    ),
    "resnet": Network(
        "mlperf_tiny/pretrainedResnet_quant.tflite",
        lambda _: (_cifar().astype(np.int16) - 128).astype(np.int8),
        1000,
        "cifar10/test_first1000.npz",
        880,
    ),
    "vww": Network(
        "mlperf_tiny/vww_96_int8.tflite", lambda _: _seeded((96, 96, 3), "int8", 50, 1), 50
    ),
    "ad": Network("mlperf_tiny/ad01_int8.tflite", lambda _: _seeded((640,), "int8", 50, 2), 50),
    "resnet_large": Network(
        "mlperf_tiny/pretrainedResnet_large_int8.tflite",
        lambda _: (_cifar().astype(np.int16) - 128).astype(np.int8),
        40,
    ),
    "mobilenet_v1": Network(
        "mobilenet/mobilenet_v1_0.25_128_quant.tflite", lambda _: _photos(128), 8
    ),
    "mobilenet_v2": Network(
        "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite", lambda _: _photos(224), 8
    ),
    "kws_onnx": Network(
        "mlperf_tiny_onnx/kws_ref_model.onnx",
        _kws_features,
        1000,
        "mlperf_tiny/kws01_inputs.npz",
        902,
    ),
    "resnet_onnx": Network(
        "mlperf_tiny_onnx/resnet.onnx",
        lambda _: _cifar().astype(np.float32),
        1000,
        "cifar10/test_first1000.npz",
        878,
    ),
    "vww_onnx": Network("mlperf_tiny_onnx/mobilenet_v1.onnx", _photos_as_floats, 8),
    "ad_onnx": Network(
        "mlperf_tiny_onnx/deep_autoencoder.onnx",
        lambda _: _seeded((640,), "float32", 50, 3) * np.float32(40),
        50,
    ),
}
ONNX = tuple(name for name, network in NETWORKS.items() if network.path.endswith(".onnx"))


@cache
def program(name: str, chip: str = "edge") -> Program:
    """Return the program of a network, through the bytes of its file, checked."""
    made = compile_model(data_path(NETWORKS[name].path), load_chip(chip))
    loaded = load_program(made.to_bytes())
    check(loaded)
    return loaded


@cache
def samples(name: str) -> Array:
    network = NETWORKS[name]
    return network.samples(data_path(network.path))[: network.count]


def inputs_of(made: Program, sample: Array) -> dict[str, Array]:
    """Return a sample as the program's only input."""
    (name,) = made.inputs
    return {name: sample.reshape(made.tensor_by_name[name].shape)}


def run_both(name: str) -> tuple[Array, Array]:
    """Return our outputs and the golden library's, `[samples, ...]` each."""
    made, golden = program(name), GoldenModel(data_path(NETWORKS[name].path))
    host = HostRegions(made)
    ours: list[Array] = []
    theirs: list[Array] = []
    for sample in samples(name):
        inputs = inputs_of(made, sample)
        ours.append(run_values(made, inputs, host)[made.outputs[0]])
        theirs.append(golden.run(inputs)[made.outputs[0]])
    return np.stack(ours), np.stack(theirs)


def assert_equal(ours: Array, theirs: Array) -> None:
    """Assert equal bytes; a float output may differ by `MOST_DIFFERING`, relatively."""
    assert ours.dtype == theirs.dtype
    if ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=MOST_DIFFERING, atol=0)
    else:
        np.testing.assert_array_equal(ours, theirs)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_golden_library_s(name: str) -> None:
    network = NETWORKS[name]
    ours, theirs = run_both(name)
    assert len(ours) == network.count
    assert_equal(ours, theirs)
    assert len({output.tobytes() for output in theirs}) > network.count // 10
    if not network.labels:
        return
    labels = np.load(data_path(network.labels))["y"].reshape(-1)[: network.count]
    top = [values.reshape(len(values), -1).argmax(axis=1) for values in (ours, theirs)]
    np.testing.assert_array_equal(*top)
    assert int((top[0] == labels).sum()) == network.right


@pytest.mark.slow
@pytest.mark.parametrize("chip", [name for name in PRESETS if name != "edge"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_preset_computes_the_same_bytes(name: str, chip: str) -> None:
    made, sample = program(name, chip), samples(name)[0]
    ours = run_values(made, inputs_of(made, sample), HostRegions(made))
    theirs = GoldenModel(data_path(NETWORKS[name].path)).run(inputs_of(made, sample))
    for output in made.outputs:
        assert_equal(ours[output], theirs[output])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_inner_tensor_is_the_golden_library_s(name: str) -> None:
    made = program(name)
    inputs = inputs_of(made, samples(name)[0])
    report = verify(data_path(NETWORKS[name].path), load_chip("edge"), inputs)
    assert report.is_equal, report.text()
    assert report.skipped == ()
    layers = {operator.name for operator in made.operators if operator.macs}
    assert layers <= {operator for operator, _, _ in report.compared}


# --- the golden graph ---------------------------------------------------------------------------


def _golden_kinds(path: Path, target: Path) -> list[str]:
    """Return the operators of the graph that ONNX Runtime executes."""
    import onnx
    import onnxruntime as ort

    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(target).graph.node]


@pytest.mark.parametrize("name", ONNX)
def test_golden_graph_computes_in_integers(name: str, tmp_path: Path) -> None:
    path = data_path(NETWORKS[name].path)
    kinds = _golden_kinds(path, tmp_path / "optimized.onnx")
    floats = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Add"}
    assert not floats & set(kinds)
    assert {"QLinearConv", "QGemm", "QLinearMatMul"} & set(kinds)


# --- the program ---------------------------------------------------------------------------------


def _tflite_macs(content: bytes) -> int:
    """Count the multiply-accumulates of a `.tflite` file's layers, padding taps included."""
    import tflite

    graph: Any = tflite.Model.GetRootAsModel(content, 0)
    codes = [graph.OperatorCodes(i).BuiltinCode() for i in range(graph.OperatorCodesLength())]
    subgraph, total = graph.Subgraphs(0), 0
    kinds = tflite.BuiltinOperator
    for position in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(position)
        kind = codes[operator.OpcodeIndex()]
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
            continue
        weights = [int(n) for n in subgraph.Tensors(operator.Inputs(1)).ShapeAsNumpy()]
        taps = weights[1:3] if kind == kinds.DEPTHWISE_CONV_2D else weights[1:]
        out = subgraph.Tensors(operator.Outputs(0)).ShapeAsNumpy()
        total += int(np.prod(out)) * int(np.prod(taps))
    return total


def _onnx_macs(path: Path) -> int:
    """Count the multiply-accumulates of an ONNX file's layers, padding taps included."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    known: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        known[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    total = 0
    for node in graph.node:
        weights = list(known.get(node.input[1], [])) if len(node.input) > 1 else []
        if node.op_type == "Conv":
            total += int(np.prod(known[node.output[0]])) * int(np.prod(weights[1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            flags = {attribute.name: attribute.i for attribute in node.attribute}
            depth = weights[1] if flags.get("transB") else weights[-2]
            total += int(np.prod(known[node.output[0]])) * int(depth)
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_npu_does_the_work(name: str) -> None:
    path = data_path(NETWORKS[name].path)
    macs = _onnx_macs(path) if name in ONNX else _tflite_macs(path.read_bytes())
    operators = program(name).operators
    on_npu = sum(operator.macs for operator in operators if operator.device == "npu")
    assert 0.99 * macs <= on_npu <= macs
    host = {operator.kind for operator in operators if operator.device == "host"}
    assert not host & {"nn.conv2d", "matmul", "add", "multiply", "nn.avg_pool2d", "nn.max_pool2d"}


@pytest.mark.parametrize("name", NETWORKS)
def test_assembly_round_trip(name: str) -> None:
    made = program(name)
    assert encode_all(assemble(disassemble(made.decoded))) == made.instructions
    assert parse_listing(listing(made)).to_bytes() == made.to_bytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_cycles_do_not_depend_on_values(name: str) -> None:
    made, sample = program(name), samples(name)[0]
    both = simulate_program(made, inputs_of(made, sample), HostRegions(made), checked=True)
    alone = simulate_program(made, None, checked=True)
    assert both.trace is not None and alone.trace is not None
    assert both.trace.cycles == alone.trace.cycles > 0
    np.testing.assert_array_equal(both.trace.records, alone.trace.records)
    values = run_values(made, inputs_of(made, sample), HostRegions(made))
    for output in made.outputs:
        assert values[output].tobytes() == both.outputs[output].tobytes()


_OTHER_PROCESS = """
import hashlib, json, sys
import numpy as np
from lepton.program import load_program
from lepton.runtime.execute import simulate
found = {}
for name in sys.argv[2:]:
    program = load_program(f"{sys.argv[1]}/{name}.lepton")
    sample = np.load(f"{sys.argv[1]}/{name}.npy")
    result = simulate(program, {program.inputs[0]: sample})
    content = b"".join(result.outputs[output].tobytes() for output in program.outputs)
    found[name] = [result.trace.cycles, hashlib.sha256(content).hexdigest()]
heavy = [name for name in ("tvm", "torch") if name in sys.modules]
print(json.dumps([found, heavy]))
"""


@pytest.mark.slow
def test_saved_programs_run_alike_in_another_process(tmp_path: Path) -> None:
    wanted: dict[str, list[object]] = {}
    for name in NETWORKS:
        made = program(name)
        inputs = inputs_of(made, samples(name)[0])
        made.save(tmp_path / f"{name}.lepton")
        np.save(tmp_path / f"{name}.npy", inputs[made.inputs[0]])
        outputs = run_values(made, inputs, HostRegions(made))
        content = b"".join(outputs[output].tobytes() for output in made.outputs)
        wanted[name] = [simulate_timing(made).cycles, hashlib.sha256(content).hexdigest()]
    command = [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path), *NETWORKS]
    root = Path(__file__).parents[1]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found, heavy = json.loads(ended.stdout)
    assert found == wanted
    assert heavy == []
