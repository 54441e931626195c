"""The command line as users and scripts rely on it: outputs, exit codes, one-line errors."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.chip import PRESETS
from lepton.cli.info import operators_page
from lepton.cli.loading import search_bar
from lepton.cli.main import main
from lepton.models import digits_model_path, load_digits_holdout
from lepton.program import Program, load_program
from lepton.trace import Trace

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = {
    "model", "chip", "cycles", "milliseconds", "host_milliseconds", "macs", "effective_macs",
    "mac_utilization", "macs_on_npu", "dram_read_bytes", "dram_write_bytes", "weight_bytes_raw",
    "weight_bytes_stored", "scratchpad_peak_bytes", "energy_joules", "instructions",
    "program_bytes", "bound_cycles", "roofline_cycles", "compile_seconds", "simulate_seconds",
    "layers",
}  # fmt: skip
LAYER = {"name", "op", "device", "cycles", "macs", "mac_utilization", "bound"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, compiled for nano."""
    path = tmp_path_factory.mktemp("cli") / "digits.lepton"
    assert main(["compile", str(digits_model_path()), "--chip", "nano", "-o", str(path)]) == 0
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """One held-out image as .npy."""
    path = tmp_path / "x.npy"
    np.save(path, load_digits_holdout()[0][:1])
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit code 2 and one line; return the line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lepton: ")
    assert "Traceback" not in captured.err
    return lines[0]


def test_run_prints_the_contract_and_nothing_else(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["run", str(program), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary) >= CONTRACT
    assert summary["chip"] == "nano"
    assert summary["bound_cycles"] <= summary["cycles"]
    assert 0 < summary["mac_utilization"] <= 1
    assert summary["macs_on_npu"] == 1
    assert all(set(layer) >= LAYER for layer in summary["layers"])
    npu = [layer["cycles"] for layer in summary["layers"] if layer["device"] == "npu"]
    assert sum(npu) == summary["cycles"]


def test_cycles_are_the_same_with_and_without_values(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cycles: list[int] = []
    for extra in ([], ["--no-values"], ["--seed", "7"]):
        capsys.readouterr()
        assert main(["run", str(program), "--json", *extra]) == 0
        cycles.append(json.loads(capsys.readouterr().out)["cycles"])
    assert len(set(cycles)) == 1


def test_run_writes_outputs_trace_and_report(program: Path, image: Path, tmp_path: Path) -> None:
    output, trace, page = tmp_path / "y.npz", tmp_path / "t.json", tmp_path / "r.html"
    saved = tmp_path / "t.trace"
    arguments = ["run", program, "--input", image, "--output", output, "--trace", trace]
    arguments += ["--report", page, "--save-trace", saved]
    assert main([str(argument) for argument in arguments]) == 0
    logits = np.load(output)["logits"]
    assert logits.shape == (1, 10)
    assert logits.argmax() == load_digits_holdout()[1][0]
    assert json.loads(trace.read_text())["traceEvents"]
    assert page.read_text().startswith("<!doctype html>")
    png = tmp_path / "png"
    assert main(["report", str(saved), "--png", str(png), "-o", str(tmp_path / "s.html")]) == 0
    assert len(list(png.glob("*.png"))) >= 4


def test_disassembly_assembles_to_the_same_file(program: Path, tmp_path: Path) -> None:
    text, again = tmp_path / "p.s", tmp_path / "again.lepton"
    assert main(["disasm", str(program), "-o", str(text)]) == 0
    assert main(["asm", str(text), "-o", str(again)]) == 0
    assert again.read_bytes() == program.read_bytes()


def test_hand_written_assembly_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, made = tmp_path / "a.s", tmp_path / "a.lepton"
    source.write_text(".chip nano\nfill height=1 width=1 channels=16 ofm=0x40 value=7\nhalt\n")
    assert main(["asm", str(source), "-o", str(made)]) == 0
    assert main(["check", str(made)]) == 0
    assert main(["run", str(made), "--no-values"]) == 0
    assert "no undefined behaviour" in capsys.readouterr().out


def test_why_names_the_device_of_every_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = tmp_path / "d.lepton"
    assert main(["compile", str(digits_model_path()), "--why", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "npu   convolution" in text
    assert "host  quantize" in text
    assert "runner-up " in text


def test_why_in_json_is_in_the_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    command = ["compile", str(digits_model_path()), "-o", str(tmp_path / "d.lepton"), "--json"]
    assert main([*command, "--why"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    # a reshape in place needs no instruction, so nothing decides
    assert all(layer["why"]["decided_by"] for layer in layers if layer["op"] != "reshape")
    assert any(layer["why"]["schedule"] for layer in layers)
    assert main(command) == 0
    assert not any("why" in layer for layer in json.loads(capsys.readouterr().out)["layers"])


@pytest.mark.parametrize("command", ["compile", "run", "estimate"])
def test_what_was_minimized_is_told(
    command: str, program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [str(digits_model_path()), "--chip", "nano", "--optimize", "size"]
    out = ["-o", str(tmp_path / "d.lepton")] if command == "compile" else []
    capsys.readouterr()
    assert main([command, *model, *out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objective"] == "size"
    assert main([command, *model, *out]) == 0
    assert "optimized for size" in capsys.readouterr().out
    if command != "compile":
        text = fails(capsys, command, program, "--optimize", "size")
        assert "--optimize is for models" in text


def test_why_has_costs_in_the_unit_of_the_objective(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compile", str(digits_model_path()), "-o", str(tmp_path / "d.lepton"), "--why"]
    capsys.readouterr()
    assert main([*command, "--optimize", "energy"]) == 0
    text = capsys.readouterr().out
    assert "optimized for energy: plans are compared by pJ" in text and " pJ, cheapest" in text


def test_from_effort_2_on_the_simulator_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lepton.simulator

    simulated: list[int] = []
    plain = lepton.simulator.simulate_timing

    def counted(program: Program) -> Trace:
        trace = plain(program)
        simulated.append(trace.cycles)
        return trace

    monkeypatch.setattr(lepton.simulator, "simulate_timing", counted)
    out = tmp_path / "d.lepton"
    command = ["compile", str(digits_model_path()), "--chip", "nano", "-o", str(out), "--effort"]
    assert main([*command, "1"]) == 0 and not simulated
    assert main([*command, "2"]) == 0 and len(simulated) > 1
    assert plain(load_program(out)).cycles == min(simulated)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_search_is_shown_on_a_terminal_only(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    with search_bar("m.onnx", seconds=0) as show:
        assert (show is not None) == is_terminal
        if show is not None:
            show(0.5)
            time.sleep(0.2)
            show(0.75)
    assert ("m.onnx: search  75%" in stream.getvalue()) == is_terminal


def test_dump_is_for_models_and_makes_its_folder(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "forms"
    command = ["run", str(digits_model_path()), "--no-values", "--chip", "nano"]
    assert main([*command, "--dump", str(folder)]) == 0
    assert (folder / "00-imported.txt").exists()
    assert "--dump is for models" in fails(capsys, "run", program, "--dump", folder)
    assert "is not a folder" in fails(capsys, *command, "--dump", program)


def test_help_has_examples_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("compile", "run", "check", "verify", "eval", "report", "disasm", "asm"):
        assert command in text
    for command in ("isa", "chips", "ops", "doctor", "demo"):
        assert command in text
    assert "examples:" in text


def test_chips_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chips"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PRESETS)
    assert main(["chips", "edge"]) == 0
    assert "JESD209-4" in capsys.readouterr().out


def test_supported_operators_page_is_what_ops_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops"]) == 0
    assert capsys.readouterr().out == operators_page()
    assert (ROOT / "docs" / "supported.md").read_text() == operators_page()


def test_doctor_finds_a_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "kernel cache" in text
    assert "FAIL" not in text


# --- bad input ---------------------------------------------------------------------------------


def test_missing_empty_and_foreign_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, text = tmp_path / "empty.onnx", tmp_path / "text.tflite"
    empty.write_bytes(b"")
    text.write_text("this is not a model")
    assert "cannot be read" in fails(capsys, "compile", tmp_path / "none.onnx")
    fails(capsys, "compile", empty, "-o", tmp_path / "o.lepton")
    fails(capsys, "compile", text, "-o", tmp_path / "o.lepton")
    fails(capsys, "compile", tmp_path, "-o", tmp_path / "o.lepton")
    assert not (tmp_path / "o.lepton").exists()


def test_unknown_chips_and_devices(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be one of nano" in fails(capsys, "run", program, "--chip", "huge")
    assert "device 'tpu'" in fails(capsys, "run", program, "--device", "npu,tpu")
    assert "needs the CPU" in fails(capsys, "run", program, "--device", "npu")
    assert "array.rows" in fails(capsys, "run", program, "--chip", "edge")


def test_wrong_inputs(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def given(array: object, name: str = "x.npy") -> Path:
        path = tmp_path / name
        np.save(path, np.asarray(array))
        return path

    wrong_shape = given(np.zeros((1, 8, 8), np.float32))
    assert "shape [1, 1, 8, 8]" in fails(capsys, "run", program, "--input", wrong_shape)
    wrong_type = given(np.zeros((1, 1, 8, 8), np.float64))
    assert "must be float32, not float64" in fails(capsys, "run", program, "--input", wrong_type)
    nan = given(np.full((1, 1, 8, 8), np.nan, np.float32))
    assert "NaN" in fails(capsys, "run", program, "--input", nan)
    named = tmp_path / "x.npz"
    np.savez(named, wrong=np.zeros(1))
    assert "input 'wrong' does not exist" in fails(capsys, "run", program, "--input", named)
    objects = tmp_path / "o.npy"
    np.save(objects, np.array([{"a": 1}], object), allow_pickle=True)
    assert "not a .npy or .npz" in fails(capsys, "run", program, "--input", objects)
    assert "cannot be read" in fails(capsys, "run", program, "--input", tmp_path / "none.npy")


def test_unwritable_outputs_leave_nothing(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "missing" / "y.npz"
    assert "cannot be written" in fails(capsys, "run", program, "--output", target)
    assert "cannot be written" in fails(capsys, "disasm", program, "-o", target)
    assert not target.parent.exists()


def test_damaged_programs(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "d.lepton"
    damaged.write_bytes(content)
    assert "damaged" in fails(capsys, "check", damaged)
    damaged.write_bytes(content[: len(content) // 3])
    fails(capsys, "run", damaged)


def test_assembly_errors_name_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "bad.s"
    source.write_text("halt\nmatmul rows=3\n")
    line = fails(capsys, "asm", source, "-o", tmp_path / "o.lepton")
    assert "line 2" in line
    assert "no field 'rows=3'" in line


def float_model(path: Path, shape: Sequence[str | int]) -> None:
    """Write a float convolution."""
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_float_models_ask_for_calibration_and_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "float.onnx", tmp_path / "f.lepton"
    float_model(path, [1, 3, 8, 8])
    assert "--calibrate" in fails(capsys, "compile", path, "-o", out)
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32))
    assert main(["compile", str(path), "--calibrate", str(samples), "-o", str(out)]) == 0
    assert out.exists()


def test_dynamic_shapes_ask_for_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dynamic.onnx"
    float_model(path, ["batch", 3, 8, 8])
    assert "--shape" in fails(capsys, "compile", path, "-o", tmp_path / "o.lepton")
    assert "--shape must look like" in fails(capsys, "compile", path, "--shape", "x=a,b")


def test_interrupt_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "o.lepton"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lepton", "compile", str(digits_model_path()), "-o", str(out)],
        stderr=subprocess.PIPE, env=environment, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    time.sleep(0.8)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"Traceback" not in errors
    assert errors.decode().strip().startswith("lepton: interrupted")
    assert list(tmp_path.iterdir()) == []
