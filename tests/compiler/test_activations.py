"""How many bits activations have: what is measured, what is chosen, and what users are told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import lepton
from lepton.chip import load_chip
from lepton.cli.main import main
from lepton.compiler.activations import INT8, Activations, Fidelity, Precision
from lepton.compiler.calibrate import plain_samples, quantize_model
from lepton.compiler.compile import compile_model
from lepton.compiler.fidelity import Reference, Runner
from lepton.compiler.switches import activation_scales, switch_inputs, switchable
from lepton.errors import InputError
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import GoldenModel
from lepton.simulator import check, run_values
from tests.conftest import data_path

EDGE = load_chip("edge")
INT16 = Activations("int16")
Samples = NDArray[np.float32]


def network(seed: int, path: Path) -> Path:
    """Write conv -> relu -> conv + skip -> pool -> fully connected, one channel of it loud."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.standard_normal((6, 3, 3, 3)) * np.array([40, 1, 1, 1, 1, 1]).reshape(-1, 1, 1, 1),
        "b": rng.standard_normal(6),
        "v": rng.standard_normal((6, 6, 3, 3)) * np.array([0.01, 1, 1, 1, 1, 1])[:, None, None],
        "f": rng.standard_normal((54, 9)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "v"], ["d"], name="second", pads=[1] * 4),
        helper.make_node("Add", ["d", "r"], ["a"], name="skip"),
        helper.make_node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["l"], name="flat"),
        helper.make_node("MatMul", ["l", "f"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 9))],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


def samples(seed: int = 0) -> Samples:
    return np.random.default_rng(seed).standard_normal((12, 1, 3, 6, 6)).astype(np.float32)


def quantized(path: Path, folder: Path, asked: Activations) -> tuple[Path, Precision | None]:
    """Return a quantized copy of a model, and what was chosen."""
    folder.mkdir()
    target = folder / "copy.onnx"
    return target, quantize_model(path, plain_samples(samples()), target, None, asked)


def ratio(path: Path, floats: Path) -> float:
    """Return the signal-to-noise ratio of a model in dB, by definition."""
    made, wanted = (
        np.stack([GoldenModel(item).run({"x": x})["y"] for x in samples()]).astype(np.float64)
        for item in (path, floats)
    )
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((made - wanted) ** 2)))


def equal_golden(path: Path) -> list[Any]:
    """Compile a model, compare its results with the golden library's, return its operators."""
    program = compile_model(path, EDGE)
    check(program)
    golden, host = GoldenModel(path), HostRegions(program)
    for x in samples(1):
        ours = run_values(program, {"x": x}, host)["y"]
        assert ours.tobytes() == golden.run({"x": x})["y"].tobytes()
    return list(program.operators)


@pytest.mark.parametrize("seed", range(3))
def test_all_of_16_bits_run_on_the_host_as_the_golden(tmp_path: Path, seed: int) -> None:
    path = network(seed, tmp_path / "float.onnx")
    narrow, none = quantized(path, tmp_path / "8", INT8)
    wide, found = quantized(path, tmp_path / "16", INT16)
    assert none is None and found is not None
    assert len(found.wide) == found.tensors == 5
    assert found.layers == ("first", "second", "skip", "pool", "flat", "last")
    assert found.chosen.sqnr_db == pytest.approx(ratio(wide, path), abs=1e-6)
    assert ratio(wide, path) > ratio(narrow, path) + 1
    assert {operator.device for operator in equal_golden(wide)} == {"host"}


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_reaches_its_target_with_few_tensors(tmp_path: Path, seed: int) -> None:
    path = network(seed, tmp_path / "float.onnx")
    ends = [
        ratio(quantized(path, tmp_path / k, Activations(k))[0], path) for k in ("int8", "int16")
    ]
    asked = Activations("auto", sqnr_db=round(0.5 * sum(ends), 1))
    assert asked.sqnr_db is not None
    made, found = quantized(path, tmp_path / "auto", asked)
    assert found is not None and found.int8 is not None and found.int16 is not None
    assert [found.int8.sqnr_db, found.int16.sqnr_db] == pytest.approx(ends, abs=0.1)
    assert ratio(made, path) >= asked.sqnr_db
    assert 0 < len(found.wide) < found.tensors
    fewest = fewest_of_all(tmp_path / "auto", path, asked)
    assert len(found.wide) <= fewest + 1
    devices = {operator.device for operator in equal_golden(made) if operator.macs}
    assert devices == {"npu", "host"}


def fewest_of_all(folder: Path, path: Path, asked: Activations) -> int:
    """Return the fewest tensors of 16 bits that reach a target, of all choices."""
    both = [
        onnx.load(str(quantized(path, folder / kind, item)[0]))
        for kind, item in (("a", INT16), ("b", Activations("auto", sqnr_db=1.0)))
    ]
    owners = activation_scales(both[1].graph)
    runner = Runner(switchable(*both))
    reference = Reference(onnx.load(str(path)), {"x": samples()})
    for count in range(len(owners) + 1):
        for wide in combinations(owners, count):
            rest = [owner for owner in owners if owner not in wide]
            if asked.reached(reference.fidelity(runner, switch_inputs(owners, rest))):
                return count
    raise AssertionError("not even all of them reach it")


def test_the_network_with_switches_is_both_models(tmp_path: Path) -> None:
    path = network(4, tmp_path / "float.onnx")
    wide = onnx.load(str(quantized(path, tmp_path / "a", INT16)[0]))
    narrow = onnx.load(str(quantized(path, tmp_path / "b", Activations("auto", 1.0))[0]))
    owners = activation_scales(wide.graph)
    runner = Runner(switchable(wide, narrow))
    for x in samples(2):
        all_wide = runner.run({"x": x, **switch_inputs(owners, [])})[0]
        assert np.array_equal(all_wide, Runner(wide).run({"x": x})[0])
        step = max(
            float(numpy_helper.to_array(item))
            for item in narrow.graph.initializer
            if item.name == "y_scale"
        )
        all_narrow = runner.run({"x": x, **switch_inputs(owners, owners)})[0]
        assert np.abs(all_narrow - Runner(narrow).run({"x": x})[0]).max() <= 2 * step


def test_fidelity_by_hand() -> None:
    def model(offset: float) -> Any:
        nodes = [helper.make_node("Add", ["x", "o"], ["y"])]
        infos = [helper.make_tensor_value_info(name, 1, (1, 2)) for name in "xy"]
        offsets = [numpy_helper.from_array(np.array([[offset, 0]], np.float32), "o")]
        graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], offsets)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    x = np.array([[[1.0, 2.0]], [[4.0, 3.0]], [[0.0, 1.0]]], np.float32)
    reference = Reference(model(0.0), {"x": x})
    assert reference.fidelity(Runner(model(0.0))) == Fidelity(None, 1.0)
    found = reference.fidelity(Runner(model(1.5)))  # the first class of [1, 2] and [0, 1] turns
    assert found.agreement == pytest.approx(1 / 3)
    assert found.sqnr_db == pytest.approx(10 * math.log10(31 / (3 * 1.5**2)))
    assert reference.noise(Runner(model(1.5)), 1, {}) == pytest.approx(1.5**2 / 5)


def test_8_bits_are_kept_where_they_are_enough(tmp_path: Path) -> None:
    path = network(0, tmp_path / "float.onnx")
    made, found = quantized(path, tmp_path / "a", Activations("auto", agreement=0.5))
    assert found is not None and (found.wide, found.layers, found.int16) == ((), (), None)
    plain, _ = quantized(path, tmp_path / "b", INT8)
    for x in samples(3):
        left, right = (GoldenModel(item).run({"x": x})["y"] for item in (made, plain))
        assert left.tobytes() == right.tobytes()


def test_a_target_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    path = network(0, tmp_path / "float.onnx")
    with pytest.raises(InputError, match=r"16 bits reach [0-9.]+ dB, .*the target of 200 dB: the"):
        quantized(path, tmp_path / "a", Activations("auto", sqnr_db=200.0))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": "int4"}, "activations must be one of int8, int16, auto, not 'int4'"),
        ({"kind": "auto"}, "activations auto need a target: .*--sqnr 25.*--agreement 0.99"),
        ({"kind": "int16", "sqnr_db": 20.0}, "are targets of the activations auto, not of int16"),
        ({"kind": "auto", "sqnr_db": -1.0}, "sqnr must be a positive number of dB, not -1.0"),
        ({"kind": "auto", "sqnr_db": math.nan}, "sqnr must be a positive number of dB, not nan"),
        ({"kind": "auto", "sqnr_db": "25"}, "sqnr must be a positive number of dB, not '25'"),
        ({"kind": "auto", "agreement": True}, "agreement must be a share above 0, .*, not True"),
        ({"kind": "auto", "agreement": 1.5}, "agreement must be a share above 0, .*, not 1.5"),
    ],
)
def test_what_cannot_be_asked_for(fields: Mapping[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Activations(**fields)


def test_a_choice_crosses_processes() -> None:
    found = Precision(
        Activations("auto", agreement=0.9), 3, ("a",), ("conv",), Fidelity(31.25, 0.95),
        Fidelity(20.0, 0.5), Fidelity(None, 1.0),
    )  # fmt: skip
    assert Precision.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.text().splitlines() == [
        "16-bit activations: 1 of 3 tensors; layers with them, on the host: 1; beside the float "
        "model: 31.2 dB, 95.0 % agreement",
        "  layers: conv",
        "  target 90 % agreement; all int8 20.0 dB, 50.0 % agreement; all int16 no noise, "
        "100.0 % agreement",
    ]


@pytest.mark.slow
def test_the_command_says_what_was_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = network(1, tmp_path / "float.onnx"), tmp_path / "o.lepton"
    data, forms = tmp_path / "x.npz", tmp_path / "forms"
    np.savez(data, x=samples())
    command = ["compile", str(path), "--calibrate", str(data), "-o", str(out)]
    assert main([*command, "--activations", "int16", "--json", "--dump", str(forms)]) == 0
    precision = json.loads(capsys.readouterr().out)["precision"]
    assert precision["wide"] == ["x", "r", "d", "a", "y"] and precision["asked"]["kind"] == "int16"
    assert main(["verify", str(forms / "quantized.onnx")]) == 0
    assert "equal ONNX Runtime" in capsys.readouterr().out
    assert main([*command, "--activations", "auto", "--agreement", "0.9"]) == 0
    assert "target 90 % agreement; all int8 " in capsys.readouterr().out
    for extra, text in (
        (["--activations", "auto"], "activations auto need a target"),
        (["--sqnr", "20"], "are targets of the activations auto"),
    ):
        assert main([*command, *extra]) == 2
        assert text in capsys.readouterr().err
    assert main(["compile", str(path), "--activations", "int16", "-o", str(out)]) == 2
    assert "are for float models that are calibrated (--calibrate" in capsys.readouterr().err
    assert main(["run", str(out), "--activations", "int16"]) == 2
    assert "--activations is for models that are calibrated" in capsys.readouterr().err


@pytest.mark.slow
def test_a_keyword_spotter_gains(tmp_path: Path) -> None:
    model = data_path("kws_onnx/DS_CNN_S.onnx")
    stored = np.load(data_path("kws_onnx/DS_CNN_S_io.npz"))
    x = np.stack([stored[f"x{index}"] for index in range(24)])[:, None]
    made = lepton.compile(
        model, calibration=x, shapes={"Mfcc:0": (1, 49, 10)}, activations="auto", sqnr_db=22.0
    )
    macs = {device: 0 for device in ("npu", "host")}
    for operator in made.operators:
        macs[operator.device] += operator.macs
    assert macs["npu"] > 0.85 * sum(macs.values()) > 0
    result = [lepton.simulate(made, item, timing=False).outputs for item in x[:4]]
    for index, outputs in enumerate(result):
        (y,) = outputs.values()
        assert int(y.argmax()) == int(stored["y"][index].argmax())
