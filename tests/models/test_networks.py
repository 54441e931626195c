"""The networks with seeded weights, quantized: everything that multiplies runs on the NPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.compiler.calibrate import plain_samples, quantize_model
from lepton.compiler.compile import compile_model
from lepton.models.light import LIGHT_NETWORKS, light_network, light_samples
from lepton.models.vision import detector_head, encoder_decoder, images
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import GoldenModel
from lepton.simulator import check, run_values
from tests.conftest import data_path


def compare(model: Any, samples: Any, folder: Path, chip: str = "nano") -> Any:
    """Return the program of a quantized copy, whose outputs must be its golden's."""
    source, copy = folder / "float.onnx", folder / "copy.onnx"
    source.write_bytes(model.SerializeToString())
    quantize_model(source, plain_samples(samples), copy)
    program = compile_model(copy, load_chip(chip))
    check(program)
    host, golden = HostRegions(program), GoldenModel(copy)
    (name,) = program.inputs
    for sample in samples[:2]:
        ours, theirs = run_values(program, {name: sample}, host), golden.run({name: sample})
        for output in program.outputs:
            assert len(np.unique(theirs[output])) > 20
            assert ours[output].tobytes() == theirs[output].tobytes()
    return program


def host_kinds(program: Any) -> set[str]:
    kinds = {operator.kind for operator in program.operators if operator.device == "host"}
    return kinds - {"quantize", "dequantize"}


def test_encoder_decoder_runs_on_the_npu(tmp_path: Path) -> None:
    program = compare(encoder_decoder(16, 4), images(16, 3), tmp_path)
    assert host_kinds(program) == set()


def test_detector_head_runs_on_the_npu(tmp_path: Path) -> None:
    program = compare(detector_head(32, 2), images(32, 3), tmp_path)
    assert host_kinds(program) == set()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "host"), [("squeezenet", {"nn.softmax", "reshape"})])
def test_light_network_runs_on_the_npu(name: str, host: set[str], tmp_path: Path) -> None:
    program = compare(light_network(name), light_samples(3), tmp_path, "edge")
    assert host_kinds(program) == host


@pytest.mark.slow
def test_channel_shuffles_run_on_the_npu(tmp_path: Path) -> None:
    program = compare(light_network("shufflenet"), light_samples(3), tmp_path, "edge")
    assert host_kinds(program) == {"nn.softmax"}
    assert sum(operator.kind == "transpose" for operator in program.operators) <= 17


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GRU_S", "LSTM_S"])
def test_keyword_spotters_with_a_recurrence_run_on_the_npu(name: str, tmp_path: Path) -> None:
    with np.load(data_path(f"kws_onnx/{name}_io.npz")) as arrays:
        samples = np.stack([arrays[f"x{index}"] for index in range(24)])[:, np.newaxis]
        wanted = arrays["y"]
    copy = tmp_path / "copy.onnx"
    source = data_path(f"kws_onnx/{name}.onnx")
    quantize_model(source, plain_samples(samples[:12]), copy, {"Mfcc:0": (1, 25, 10)})
    program = compile_model(copy, load_chip("edge"))
    check(program)
    assert all(operator.device == "npu" for operator in program.operators if operator.macs)
    host, golden = HostRegions(program), GoldenModel(copy)
    chosen: list[int] = []
    for sample in samples:
        (ours,) = run_values(program, {"Mfcc:0": sample}, host).values()
        (theirs,) = golden.run({"Mfcc:0": sample}).values()
        assert ours.tobytes() == theirs.tobytes()
        chosen.append(int(ours.argmax()))
    assert np.mean(np.array(chosen) == wanted.argmax(axis=1)) >= 0.9


def test_light_networks_tell_images_apart() -> None:
    import onnxruntime as ort

    model = light_network("squeezenet")
    assert {item.name for item in model.graph.input} == {"data_0"}
    session = ort.InferenceSession(model.SerializeToString())
    results = [np.asarray(session.run(None, {"data_0": x})[0]) for x in light_samples(4, 9)]
    assert len({int(result.argmax()) for result in results}) > 1


def test_light_networks_are_those_of_the_onnx_package() -> None:
    import onnx

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    files = {path.stem for path in folder.glob("light_*.onnx")}
    assert {f"light_{name}" for name in LIGHT_NETWORKS.values()} == files
