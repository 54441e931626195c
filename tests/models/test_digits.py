"""The default network: its files, its golden accuracy, and the script that makes it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.models import digits_model_path, load_digits_holdout


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The recipe that ships beside the network."""
    text = digits_model_path().with_name("digits_recipe.json").read_text(encoding="utf-8")
    return json.loads(text)


def golden(model: Path, optimized: Path) -> Any:
    """Open the model on the golden: integer kernels, one thread."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the golden is ONNX Runtime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_artefacts_are_those_of_the_recipe(recipe: dict[str, Any]) -> None:
    folder = digits_model_path().parent
    assert set(recipe["sha256"]) == {"digits.onnx", "digits_holdout.npz"}
    for name, digest in recipe["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_recipe_names_licence_and_citation(recipe: dict[str, Any]) -> None:
    assert "CC BY 4.0" in recipe["data"]["licence"]
    assert "Alpaydin" in recipe["data"]["citation"]


def test_holdout_shapes_and_range() -> None:
    x, y = load_digits_holdout()
    assert (x.shape, x.dtype) == ((360, 1, 8, 8), np.float32)
    assert (y.shape, y.dtype) == ((360,), np.int64)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert np.array_equal(x * 16, np.rint(x * 16))
    # stratified: the data set has 174 to 183 images of each digit, and a fifth of them is here
    assert np.bincount(y).min() >= 34
    assert np.bincount(y).max() <= 37


def test_importing_the_package_stays_light() -> None:
    heavy = "{'numpy', 'torch', 'onnx', 'onnxruntime', 'sklearn', 'tvm'}"
    code = f"import sys, lepton.models; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_holdout_is_disjoint_from_the_training_images(recipe: dict[str, Any]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn holds the data set")
    from lepton.models.train_digits import images, load_split

    split = load_split(recipe["settings"]["seed"])
    x, y = load_digits_holdout()
    assert np.array_equal(images(split.holdout_pixels), x)
    assert np.array_equal(split.holdout_labels, y)
    train = {pixels.tobytes() for pixels in split.train_pixels}
    assert len(split.train_pixels) == 1797 - 360
    assert not train & {pixels.tobytes() for pixels in split.holdout_pixels}


def test_golden_runs_on_integers_with_the_recipe_accuracy(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="the optimized graph is read with onnx")
    session = golden(digits_model_path(), tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert not kinds.keys() & {"Conv", "Add", "Relu", "GlobalAveragePool", "Gemm", "MatMul"}
    assert (kinds["QLinearConv"], kinds["QLinearAdd"], kinds["QGemm"]) == (6, 2, 1)
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (1, 1)
    x, y = load_digits_holdout()
    rows = [session.run(["logits"], {"image": image[np.newaxis]})[0] for image in x]
    accuracy = float(np.mean(np.concatenate(rows).argmax(axis=1) == y))
    assert accuracy == recipe["int8_accuracy"]
    assert accuracy >= 0.97


def test_one_epoch_makes_all_three_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("torch", "sklearn", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"training needs {package} (the extra 'train')")
    from lepton.models import train_digits

    folder = tmp_path / "made"
    made = train_digits.build(folder, train_digits.Settings(epochs=1, minimum_accuracy=0.0))
    names = ["digits.onnx", "digits_holdout.npz", "digits_recipe.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert json.loads((folder / "digits_recipe.json").read_text(encoding="utf-8")) == made
    # the arrays are the same; the bytes of a .npz file depend on NumPy's version
    shipped = np.load(digits_model_path().with_name("digits_holdout.npz"))
    written = np.load(folder / "digits_holdout.npz")
    assert shipped.files == written.files
    for name in shipped.files:
        assert shipped[name].dtype == written[name].dtype
        np.testing.assert_array_equal(shipped[name], written[name])
    assert train_digits.main(["--output", str(tmp_path / "refused"), "--epochs", "1"]) == 2
    assert "int8 accuracy must be at least 0.97, not" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
