"""What cannot be compressed because network, teacher and samples do not fit one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.cli.main import main
from lepton.errors import InputError
from lepton.models.compression import CompressionRecipe, compress_model, pipeline
from lepton.models.datasets import Dataset
from lepton.models.mirroring import mirrored_model
from lepton.models.training.recipes import Split
from lepton.models.zoo import Task, network_named

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

RECIPE = CompressionRecipe(prune=0.5, prune_steps=1, epochs=1)
IMAGE = (3, 8, 8)


def network(
    classes: int = 4,
    *,
    batch: int | str = 1,
    ends: Sequence[str] = ("y",),
    is_flat: bool = True,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a convolution of images and a mean, as one row [1, classes] or [1, classes, 1, 1]."""
    weights = np.random.default_rng(0).standard_normal((classes, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten" if is_flat else "Relu", ["p"], ["y"]),
    ]
    if kind == TensorProto.FLOAT:
        del nodes[0]
        nodes[0].input[0] = "x"
    given = helper.make_tensor_value_info("x", kind, (batch, *IMAGE))
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ends]
    stored = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "net", [given], made, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def declared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network whose output is declared as a row of numbers."""
    row = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))
    model.graph.output[0].CopyFrom(row)
    return model


def part(
    shape: tuple[int, ...] = IMAGE, dtype: type = np.float32, classes: int = 4, count: int = 12
) -> Dataset:
    x = np.random.default_rng(1).integers(0, 3, (count, *shape)).astype(dtype)
    return Dataset((x,), np.arange(count) % classes)


def split(*arguments: Any, **options: Any) -> Split:
    return Split(*(part(*arguments, **options) for _ in range(3)))


def spoilt(value: float) -> Dataset:
    one = part()
    one.inputs[0][3, 0, 0, 0] = value
    return one


CASES: list[tuple[Any, Split, Any, str]] = [
    (network(), split((3, 8, 7)), None,
     r"^input 'x' of the network takes float32 \[3, 8, 8\], and the samples are "
     r"float32 \[3, 8, 7\]$"),
    (network(), split((72,)), None, r"takes float32 \[3, 8, 8\], .* are float32 \[72\]$"),
    (network(), split(dtype=np.int64), None, r"takes float32 .* samples are int64 \[3, 8, 8\]$"),
    (network(kind=TensorProto.INT32), split(), None, r"takes int32 .* are float32 \[3, 8, 8\]$"),
    (network(), split(classes=9), None,
     "^the training samples have labels from 0 to 8, and the network tells the classes 0 to 3 "
     "apart$"),
    (network(), split()._replace(test=part(classes=5)), None, "the test samples have labels"),
    (network(), split()._replace(test=part((3, 8, 7))), None,
     r"^the test samples are float32 \[3, 8, 7\], and those to train on float32 \[3, 8, 8\]$"),
    (network(), split()._replace(validation=part(dtype=np.uint8)), None,
     r"^the validation samples are uint8 \[3, 8, 8\], and those to train on float32"),
    (network(), split()._replace(validation=spoilt(np.nan)), None,
     "^the validation samples hold NaN or numbers that are not finite$"),
    (network(), split()._replace(train=spoilt(-np.inf)), None, "^the training samples hold NaN"),
    (network(), split()._replace(test=part(count=0)), None, "^there are no test samples$"),
    (network(batch=4), split(), None, "^the network takes 4 samples at once: export it for one"),
    (network(ends=("y", "h")), split(), None, "^the network has 2 outputs: it must have one$"),
    (network(is_flat=False), split(), None,
     r"^the network gives \[3, 4, 1, 1\] for 3 samples: it must give \[3, classes\]$"),
    (declared(mirrored_model(declared(network()))), split(), None,
     r"^the network gives \[1, 4\] for 3 samples"),
    (network(), split(), network(is_flat=False), r"^the teacher gives \[3, 4, 1, 1\] for 3 sampl"),
    (network(), split(), declared(mirrored_model(declared(network()))),
     r"^the teacher gives \[1, 4\] for 3 samples: it must give \[3, classes\]$"),
    (network(), split(), network(7),
     r"^the teacher gives \[3, 7\] for 3 samples, and the network \[3, 4\]"),
    (network_named("digits_cnn"), split((1, 8, 8)), network(),
     r"^input 'x' of the teacher takes float32 \[3, 8, 8\], and the samples are float32 \[1, 8, 8"),
    (network_named("photo_cnn"), split((3, 64, 64), classes=3), None, "labels from 0 to 2"),
    (network_named("autoencoder"), split((1, 28, 28), np.uint8), None,
     r"takes float32 \[784\], and the samples are uint8 \[1, 28, 28\]"),
    (network_named("gru_recommender"), split((12,), np.int64), network(),
     r"the teacher takes float32 \[3, 8, 8\], and the samples are int64 \[12\]"),
    (network_named("wide_and_deep"), split(), None, "the network has 2 inputs, and a sample 1$"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "samples", "teacher", "reason"), CASES)
def test_what_does_not_fit_is_refused_before_anything_trains(
    model: Any, samples: Split, teacher: Any, reason: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pipeline, "train", lambda *_, **__: pytest.fail("trains"))
    with pytest.raises(InputError, match=reason):
        compress_model(model, samples, RECIPE, tmp_path / "steps", teacher=teacher)
    assert not any(tmp_path.iterdir())


def test_numbers_of_words_are_within_the_vocabulary(tmp_path: Path) -> None:
    model, samples = network_named("gru_recommender"), split((12,), np.int64)
    for value in (-1, 64):
        bad = part((12,), np.int64)
        bad.inputs[0][5, 7] = value
        reason = f"'history' of the network takes numbers from 0 to 63, .* {min(value, 0)} to "
        with pytest.raises(InputError, match=reason):
            compress_model(model, samples._replace(test=bad), RECIPE, tmp_path / "steps")
    from lepton.models.export import float_model

    source = float_model(model.build(0), model.inputs, "y")
    bad.inputs[0][5, 7] = 64  # found by no shape, but by the sample with the greatest number
    with pytest.raises(InputError, match=r"the network does not take samples of int64 \[12\]: "):
        compress_model(source, samples._replace(test=bad), RECIPE, tmp_path / "steps")


@pytest.mark.parametrize(
    ("task", "labels", "reason"),
    [
        (Task.SCORE, 2, r"gives \[3, 4\] for 3 samples: it must give \[3, 1\]$"),
        (Task.RECONSTRUCTION, 2, r"it must give the samples' own \[3, 3, 8, 8\]$"),
    ],
)
def test_other_tasks_have_outputs_of_their_own(
    task: Task, labels: int, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        compress_model(network(), split(classes=labels), RECIPE, tmp_path / "steps", task=task)


def test_labels_of_a_score_are_no_or_yes(tmp_path: Path) -> None:
    samples = split(classes=3)
    with pytest.raises(InputError, match=r"labels from 0 to 2, and .* classes 0 to 1 apart"):
        compress_model(network(1), samples, RECIPE, tmp_path / "steps", task=Task.SCORE)
    floats = [replace(one, labels=one.labels / 2) for one in samples]
    with pytest.raises(InputError, match=r"must be integers \[n\], not float64 \[12\]"):
        compress_model(network(), Split(*floats), RECIPE, tmp_path / "steps")


def test_what_fits_in_an_open_batch_is_compressed(tmp_path: Path) -> None:
    model, teacher = network(batch="n"), network(batch=4)
    made = compress_model(model, split(), RECIPE, tmp_path / "steps", teacher=teacher)
    assert [stage.name for stage in made.stages] == ["float", "prune", "distil", "quantize"]


def test_a_network_of_an_open_batch_is_measured_on_the_chip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs: list[Any] = []
    np.savez(tmp_path / "few.npz", x=part(count=60).inputs[0], y=np.arange(60) % 4)
    for batch in ("n", 1):
        onnx.save(network(batch=batch), tmp_path / f"{batch}.onnx")
        text = f"{tmp_path}/{batch}.onnx --data {tmp_path}/few.npz --epochs 1 --chip nano --json"
        assert main(["compress", *text.split(), "-o", str(tmp_path / f"small{batch}.onnx")]) == 0
        costs.append(json.loads(capsys.readouterr().out)["costs"])
    assert costs[0] == costs[1] and costs[0]["quantize"]["cycles"] > 0


def test_the_command_says_it_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "few.npz", x=part(count=60).inputs[0], y=np.arange(60) % 4)
    onnx.save(network(), tmp_path / "net.onnx")
    onnx.save(network(7), tmp_path / "teacher.onnx")
    text = f"{tmp_path}/net.onnx --data {tmp_path}/few.npz --distil {tmp_path}/teacher.onnx"
    assert main(["compress", *text.split(), "-o", str(tmp_path / "small.onnx")]) == 2
    error = capsys.readouterr().err
    assert "the teacher gives [3, 7] for 3 samples" in error and error.count("\n") == 1
