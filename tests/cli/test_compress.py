"""`lepton compress`: the table, the file and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.cli.main import main
from lepton.models.checkpoint import Checkpoint
from tests.tflite_builder import TfliteBuilder

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")


def arrays(tmp_path: Path) -> str:
    """Write a few images that their brightness tells apart; return how to name them."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 10
    x = (rng.integers(0, 40, (60, 8, 8, 1)) + 20 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "few.npz", x=x, y=y)
    return str(tmp_path / "few.npz")


def test_a_network_becomes_smaller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.onnx"
    text = f"compress digits_cnn --data {arrays(tmp_path)} --prune 0.9 --bits 4 --epochs 1 -o {out}"
    assert main([*text.split(), "--chip", "nano", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in printed["stages"]] == ["float", "prune", "quantize"]
    plain, small = printed["costs"].values()
    assert small["stored_bytes"] < plain["stored_bytes"] / 3
    # streams alone: a stream is never above its weights
    assert plain["stored_bytes"] <= plain["weight_bytes"] == small["weight_bytes"]
    assert small["cycles"] <= plain["cycles"]
    assert out.exists() and (tmp_path / "small.steps" / "run.json").exists()
    assert main([*text.split(), "--chip", "nano"]) == 0
    table = capsys.readouterr().out
    assert "prune" in table and f"{small['stored_bytes']:,}" in table and "validation" in table


def classifier(path: Path, seed: int) -> Path:
    """Write a float TFLite classifier of 10 kinds of 8 x 8 images."""
    rng = np.random.default_rng(seed)
    b = TfliteBuilder()
    x = b.input("x", [1, 8, 8, 1], "float32")
    w = b.constant("w", rng.standard_normal((4, 3, 3, 1)).astype(np.float32))
    h = b.tensor("h", [1, 4, 4, 4], "float32")
    window: dict[str, Any] = {"padding": "SAME", "stride_h": 2, "stride_w": 2}
    zeros = b.constant("zeros", np.zeros(4, np.float32))
    b.operator("CONV_2D", [x, w, zeros], [h], fused_activation_function="RELU", **window)
    m = b.constant("m", rng.standard_normal((10, 64)).astype(np.float32))
    flat = b.tensor("flat", [1, 64], "float32")
    shape = b.constant("shape", np.array([1, 64], np.int32))
    b.operator("RESHAPE", [h, shape], [flat], new_shape=[1, 64])
    y = b.tensor("y", [1, 10], "float32")
    b.operator("FULLY_CONNECTED", [flat, m, None], [y])
    path.write_bytes(b.build([x], [y]))
    return path


def test_tflite_files_are_models_and_teachers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, teacher = classifier(tmp_path / "m.tflite", 0), classifier(tmp_path / "t.tflite", 1)
    out = tmp_path / "small.onnx"
    text = f"compress {model} --data {arrays(tmp_path)} --distil {teacher} --epochs 1 -o {out}"
    assert main([*text.split(), "--chip", "nano", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in printed["stages"]] == ["float", "distil", "quantize"]
    assert out.exists()
    teacher.write_bytes(teacher.read_bytes()[:400])
    assert main([*text.split(), "--chip", "nano", "--work", str(tmp_path / "again")]) == 2
    error = capsys.readouterr().err
    assert "t.tflite is no sound TFLite model" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nothing.onnx --data digits -o x.onnx", "nothing.onnx"),
        ("digits_cnn --data nowhere -o x.onnx", "data 'nowhere': no such samples"),
        ("digits_cnn --data digits -o x.txt", "the result is an .onnx file"),
        (
            "digits_cnn --data nowhere --work steps -o none/x.onnx",
            "none/x.onnx: cannot be written: there is no folder none",
        ),
        ("digits_cnn --data nowhere -o d.onnx", "d.onnx: cannot be written: it is a folder"),
        ("digits_cnn --data digits --bits 9 -o x.onnx", "1 to 8 bits, not 9"),
        ("digits_cnn --data digits --prune 2 -o x.onnx", "2"),
    ],
)
def test_what_is_refused(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.onnx").mkdir()
    assert main(["compress", *arguments.split(), "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x.onnx").exists()


def test_files_of_arrays(tmp_path: Path) -> None:
    from lepton.errors import InputError
    from lepton.models.training.named import named_split

    split = named_split(arrays(tmp_path))
    assert [len(part) for part in split] == [40, 10, 10]
    assert split.train.inputs[0].shape == (40, 1, 8, 8)
    both = named_split(f"{arrays(tmp_path)},{arrays(tmp_path)}")
    assert [len(part) for part in both] == [50, 10, 60]
    np.savez(tmp_path / "bad.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="must hold the arrays x and y"):
        named_split(str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "bad.npz", x=np.zeros(3), y=np.array([0, -1, 1]))
    with pytest.raises(InputError, match="y must be class numbers"):
        named_split(str(tmp_path / "bad.npz"))


def test_a_shipped_network_is_model_and_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton.models.compression import CompressionRecipe, pipeline

    recipes: list[CompressionRecipe] = []
    lessons = pipeline.lessons_of

    def noting(teacher: Any, samples: Any, recipe: CompressionRecipe, folder: Path) -> Any:
        recipes.append(recipe)
        return lessons(teacher, samples.take(slice(0, 128)), recipe, folder)

    monkeypatch.setattr(pipeline, "lessons_of", noting)
    out = tmp_path / "small.onnx"
    text = f"compress digits --distil digits --data digits --prune 0.5 --epochs 1 -o {out}"
    assert main([*text.split(), "--chip", "nano", "--json"]) == 0
    printed = capsys.readouterr()
    stages = json.loads(printed.out)["stages"]
    assert [stage["name"] for stage in stages] == ["float", "prune", "distil", "quantize"]
    # it is the trained network, and no longer one of 8 bits
    assert stages[0]["test"] >= 0.98 and stages[-1]["test"] >= 0.9
    assert recipes[0].learning_rate == 1e-3 and recipes[0].counts_start
    assert "lepton:" not in printed.err


def test_a_ruined_network_and_one_at_chance_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.onnx"
    text = f"compress digits --data digits --prune 0.99 --epochs 1 --learning-rate 1e-9 -o {out}"
    assert main([*text.split(), "--chip", "nano"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lepton: step 'prune' loses ") and "--learning-rate" in line
    model = classifier(tmp_path / "m.tflite", 0)
    text = f"compress {model} --data {arrays(tmp_path)} --epochs 1 -o {tmp_path / 'b.onnx'}"
    assert main([*text.split(), "--chip", "nano"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("lepton: the float network has ") and "bytes become 0 to 1" in first


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 2, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_while_pruned_weights_are_rounded(
    number: signal.Signals, code: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = Checkpoint.save

    def cut(run: Checkpoint, state: Any) -> None:
        saved(run, state)
        if run.path.stem == "quantize":
            os.kill(os.getpid(), number)

    text = f"digits_cnn --data {arrays(tmp_path)} --prune 0.5 --bits 4 --epochs 2 --chip nano"
    command = ["compress", *text.split(), "-o", str(tmp_path / "small.onnx")]
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", cut)
        assert main(command) == code
    error = capsys.readouterr().err
    assert error.endswith(f"lepton: {word}; no file was left half-written\n")
    kept = tmp_path / "small.steps" / "quantize.checkpoint"
    state = kept.read_bytes()
    kept.write_bytes(state[:200])
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"lepton: {kept}: not a checkpoint, or a damaged one\n")
    kept.write_bytes(state)
    assert main(command) == 0
