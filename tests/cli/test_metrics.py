"""Precision, recall, F1 and the confusion matrix in `lepton compress`; CIFAR-10 as its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lepton.cli.main import main
from lepton.cli.metrics import metrics_table
from lepton.errors import InputError
from lepton.models.datasets.cifar import CIFAR10_NAMES, load_cifar10
from lepton.models.int8 import golden_session, run_each
from lepton.models.training.metrics import scores
from lepton.models.training.named import named_split
from tests.cli.test_compress import arrays


def test_metrics_are_those_of_the_written_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    metrics: Any = pytest.importorskip("sklearn.metrics", reason="the training extra is missing")
    out, data = tmp_path / "small.onnx", arrays(tmp_path)
    text = f"compress digits_cnn --data {data} --epochs 1 -o {out} --chip nano --metrics"
    assert main([*text.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    test = named_split(data).test
    name = onnx.load(out).graph.input[0].name
    predicted = run_each(golden_session(out), {name: test.batch(slice(None))[0]}).argmax(axis=1)
    every: dict[str, Any] = {"labels": range(10), "average": None, "zero_division": 0}
    rows = metrics.precision_recall_fscore_support(test.labels, predicted, **every)
    for key, expected in zip(("precision", "recall", "f1"), rows, strict=False):
        np.testing.assert_allclose(found[key], expected)
    matrix = metrics.confusion_matrix(test.labels, predicted, labels=range(10))
    assert found["confusion"] == matrix.tolist() and len(found["classes"]) == 10
    assert main(text.split()) == 0
    table = capsys.readouterr().out
    assert "precision" in table and "predicted as" in table and f"{found['macro_f1']:.4f}" in table


def test_the_table_has_a_line_for_each_class() -> None:
    found = scores(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)
    assert metrics_table(found, ("cat", "dog")).splitlines() == [
        "class  precision   recall       F1   predicted as",
        "cat       1.0000   0.5000   0.6667   1   1   0",
        "dog       0.3333   1.0000   0.5000   0   1   0",
        "2         0.0000   0.0000   0.0000   0   1   0",
        "mean      0.4444   0.5000   0.3889",
    ]
    many = scores(np.arange(20), np.arange(20), 20)
    assert "predicted" not in metrics_table(many, ())


def test_a_network_without_classes_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    assert main(["compress", "autoencoder", "--data", "digits", "--metrics", "-o", "x.onnx"]) == 2
    assert "--metrics needs a network that tells classes apart" in capsys.readouterr().err


def write_cifar(folder: Path) -> dict[str, np.ndarray]:
    """Write six batches of the binary version, record by record; return all training pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    pixels: list[bytes] = []
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        content = b""
        for number in range(12):
            record = rng.integers(0, 256, 3072, dtype=np.uint8).tobytes()
            content += bytes([number % 10]) + record
            pixels += [record] if name.startswith("data") else []
        (folder / name).write_bytes(content)
    return {"train": np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, 3, 32, 32)}


def test_cifar10_is_read_where_its_download_leaves_it(tmp_path: Path) -> None:
    written = write_cifar(tmp_path / "data" / "cifar-10-batches-bin")
    for folder in (tmp_path / "data", tmp_path / "data" / "cifar-10-batches-bin"):
        split = named_split(f"cifar10:{folder}")
        assert [len(part) for part in split] == [50, 10, 12]
        assert split.test.classes == CIFAR10_NAMES
        both = np.concatenate([split.train.inputs[0], split.validation.inputs[0]])
        expected = sorted(image.tobytes() for image in written["train"])
        assert sorted(image.tobytes() for image in both) == expected
    with pytest.raises(InputError, match=r"data_batch_1\.bin"):
        named_split(f"cifar10:{tmp_path}")
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InputError, match="pickled batches are not read; fetch the binary version"):
        load_cifar10(tmp_path)
