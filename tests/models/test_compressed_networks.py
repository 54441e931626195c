"""The compressed networks that ship: as good and as small as stated, and right on the NPU."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.compression import PAGE, cost, limits, shipped, table
from lepton.chip import load_chip
from lepton.errors import InputError
from lepton.models import model_path
from lepton.models.compression.files import layer_arrays
from lepton.models.compression.make import make_compressed
from lepton.models.compression.recipes import COMPRESSED, CompressedNetwork, classifier_of_pixels
from lepton.models.int8 import golden_session, run_each
from lepton.models.training.recipes import Split
from lepton.models.training.trainer import score_of
from lepton.models.zoo import Task
from lepton.runtime.evaluate import evaluate
from tests.conftest import data_path

SHIPPED = ("mnist_compressed", "lenet_compressed", "resnet8_compressed", "resnet8_student")
SAMPLED = 1_000
"""Test images that run on the simulator; the benchmark runs all of them."""


def recipe_file(name: str) -> dict[str, Any]:
    text = model_path(name).with_name(f"{name}_recipe.json").read_text(encoding="utf-8")
    return json.loads(text)


def samples(name: str) -> Split:
    return COMPRESSED[name].load(data_path("."))


def test_the_page_has_the_figures_that_ship() -> None:
    made = shipped()
    assert tuple(made) == SHIPPED
    assert table(made) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_limits_are_met(name: str) -> None:
    stated = recipe_file(name)
    assert all(limit.is_met for limit in limits(name, stated))
    worse = stated["means"] | {"test": stated["means"]["float_test"] - 0.03}
    assert not limits(name, stated | {"means": worse})[0].is_met


@pytest.mark.parametrize("name", SHIPPED)
def test_files_are_those_of_the_recipe(name: str) -> None:
    stated, row = recipe_file(name), COMPRESSED[name]
    assert stated["sha256"] == hashlib.sha256(model_path(name).read_bytes()).hexdigest()
    recipe = dataclasses.asdict(row.recipe)
    del recipe["seed"]
    assert stated["recipe"] == recipe
    assert [result["seed"] for result in stated["results"]] == list(row.seeds)
    for key, mean in stated["means"].items():
        assert mean == pytest.approx(np.mean([result[key] for result in stated["results"]]))
    assert stated["npu"]["samples"] == stated["npu"]["equal_bytes"] == stated["samples"]["test"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_stored_networks_score_as_stated(name: str) -> None:
    test = samples(name).test
    session = golden_session(model_path(name))
    made = run_each(session, {session.get_inputs()[0].name: test.batch(slice(None))[0]})
    stated = recipe_file(name)["results"][0]["test"]
    assert score_of(made, Task.CLASSES, test) == pytest.approx(stated, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_stored_networks_are_as_small_as_stated(name: str) -> None:
    stated = recipe_file(name)["results"][0]
    for key, found in cost(model_path(name)).items():
        assert found <= 1.01 * stated[key]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_simulator_gives_the_bytes_of_the_golden(name: str) -> None:
    test = samples(name).test
    chosen = np.random.default_rng(0).permutation(len(test))[:SAMPLED]
    (images,) = test.batch(chosen)
    report = evaluate(model_path(name), load_chip("edge"), images, test.labels[chosen])
    assert report.same_bytes == report.samples == min(SAMPLED, len(test))


def few_of(name: str, count: int) -> Callable[[Path], Split]:
    """Return what loads some of a recipe's samples, and all for the test."""

    def load(folder: Path) -> Split:
        train, validation, test = COMPRESSED[name].load(folder)
        return Split(train.take(slice(0, count)), validation.take(slice(0, 500)), test)

    return load


def made_shortly(row: CompressedNetwork, folder: Path) -> tuple[dict[str, Any], onnx.ModelProto]:
    """Return what a recipe's file says, and its network."""
    pytest.importorskip("torch", reason="the training extra is not installed")
    folders = (data_path("."), folder / "work", folder / "out")
    made = make_compressed("mine", row, folders, lambda path: {"bytes": path.stat().st_size})
    assert sorted(os.listdir(folder / "out")) == ["mine.onnx", "mine_recipe.json"]
    text = (folder / "out" / "mine_recipe.json").read_text(encoding="utf-8")
    assert json.loads(text) == made
    (result,) = made["results"]
    assert result["bytes"] == (folder / "out" / "mine.onnx").stat().st_size
    return made, onnx.load(str(folder / "out" / "mine.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8_compressed", "resnet8_student"])
def test_a_shortened_recipe_makes_the_files(name: str, tmp_path: Path) -> None:
    shipped = COMPRESSED[name]
    epochs = min(1, shipped.recipe.quantize_epochs or 0)
    recipe = dataclasses.replace(
        shipped.recipe, views=1, factorize_epochs=2, quantize_epochs=epochs
    )
    row = dataclasses.replace(shipped, load=few_of(name, 2_000), recipe=recipe, seeds=(4,))
    made, model = made_shortly(row, tmp_path)
    (result,) = made["results"]
    assert result["float_test"] == pytest.approx(0.881) and result["test"] > 0.8
    assert result["weights"] <= result["float_weights"] / 2
    codes = layer_arrays(model)
    assert sum(array.size for array in codes) == result["weights"]
    assert "large ResNet" in made["teacher"]
    assert ("mirror/mean" in {node.name for node in model.graph.node}) == recipe.mirrored
    if (wanted := recipe.entropy_bits) is not None:
        from lepton.models.quantization.torch_steps import entropy_bits

        bits = sum(entropy_bits(array) * array.size for array in codes)
        assert bits / sum(array.size for array in codes) == pytest.approx(wanted, abs=0.05)


def classifier(path: Path, last: str) -> Path:
    """Write a convolution and another node."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node(last, ["h"], ["y"]),
    ]
    shape = (1, 1, 2, 2)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    weights = numpy_helper.from_array(np.full((1, 1, 1, 1), 0.5, np.float32), "w")
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(path))
    return path


def test_pixels_are_scaled_and_the_softmax_goes(tmp_path: Path) -> None:
    made = classifier_of_pixels(classifier(tmp_path / "net.onnx", "Softmax"), 255)
    assert [node.op_type for node in made.graph.node] == ["Conv"]
    assert made.graph.output[0].name == "h"
    assert numpy_helper.to_array(made.graph.initializer[0]).item() == 127.5
    with pytest.raises(InputError, match="must begin with a Conv and end with a Softmax"):
        classifier_of_pixels(classifier(tmp_path / "net.onnx", "Relu"), 255)
