"""The trained networks: found by name, as their recipes say, and right on the NPU."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton
from benchmarks.compression import shipped
from lepton.cli.main import main
from lepton.errors import InputError
from lepton.models import digits_model_path, model_path, trained_networks
from lepton.models.int8 import golden_session, run_each
from lepton.models.training import TrainingOptions
from lepton.models.training.make import main as make_main
from lepton.models.training.make import make, named_inputs
from lepton.models.training.recipes import RECIPES, Split
from lepton.models.training.trainer import score_of
from lepton.models.zoo import network_named
from tests.conftest import data_path


def recipe_file(name: str) -> dict[str, Any]:
    text = model_path(name).with_name(f"{name}_recipe.json").read_text(encoding="utf-8")
    return json.loads(text)


def samples(name: str) -> Split:
    recipe = RECIPES[name]
    return recipe.load(data_path("mnist") if recipe.needs_files else None)


def test_names() -> None:
    assert set(trained_networks()) == {"digits", *RECIPES, *shipped()}
    folder = digits_model_path().parent
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1.75e6


@pytest.mark.parametrize("name", RECIPES)
def test_files_are_those_of_the_recipe(name: str) -> None:
    stated, recipe = recipe_file(name), RECIPES[name]
    digest = hashlib.sha256(model_path(name).read_bytes()).hexdigest()
    assert stated["sha256"] == digest
    assert [row["seed"] for row in stated["results"]] == list(recipe.seeds)
    options = dataclasses.asdict(recipe.options)
    del options["seed"]
    assert stated["options"] == options
    assert stated["network"] == recipe.network
    assert stated["calibration_samples"] == recipe.calibration
    mean = np.mean([row["test"] for row in stated["results"]])
    assert stated["mean_test"] == pytest.approx(float(mean))


@pytest.mark.parametrize(
    ("name", "minimum"),
    [("mnist", 0.991), ("lenet", 0.985), ("intents", 0.99), ("next_item", 0.8), ("clicks", 0.78)],
)
def test_accuracies_of_all_seeds(name: str, minimum: float) -> None:
    for row in recipe_file(name)["results"]:
        assert min(row["test"], row["int8_test"]) >= minimum


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_stored_networks_score_as_stated(name: str) -> None:
    network, test = network_named(RECIPES[name].network), samples(name).test
    made = run_each(golden_session(model_path(name)), named_inputs(network, test))
    stated = recipe_file(name)["results"][0]["int8_test"]
    assert score_of(made, network.task, test) == pytest.approx(stated, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_npu_computes_what_the_golden_does(name: str) -> None:
    few = samples(name).test.take(slice(0, 3))
    inputs = named_inputs(network_named(RECIPES[name].network), few)
    expected = run_each(golden_session(model_path(name)), inputs)
    program = lepton.load_model(name, chip="nano").program
    for number in range(3):
        feeds = {key: value[number : number + 1] for key, value in inputs.items()}
        made = lepton.simulate(program, feeds, timing=False)
        np.testing.assert_array_equal(made.outputs[program.outputs[0]], expected[number][None])


def test_a_name_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path("digits") == digits_model_path()
    for other in (Path("digits.onnx"), Path("./sub/digits"), tmp_path / "digits"):
        assert model_path(other) == other
    with pytest.raises(InputError, match="no trained network either: those are clicks, digits"):
        model_path("digit")
    with pytest.raises(InputError, match="no such file"):
        lepton.load_model("digit")
    Path("digits").write_bytes(b"a file of that name")
    assert model_path("digits") == Path("digits")


def test_commands_take_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "digits", "--chip", "nano"]) == 0
    assert os.listdir(tmp_path) == ["digits.lepton"]
    capsys.readouterr()
    assert main(["compile", "digit"]) == 2
    assert "digit: no such file, and no trained network either" in capsys.readouterr().err


def test_a_recipe_makes_the_files(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    whole = RECIPES["next_item"].load(None)
    tiny = Split(whole.train.take(slice(0, 64)), *(part.take(slice(0, 32)) for part in whole[1:]))
    recipe = dataclasses.replace(
        RECIPES["next_item"],
        load=lambda _: tiny,
        options=TrainingOptions(epochs=1, batch=32),
        calibration=2,
        seeds=(4, 5),
    )
    made = make("mine", recipe, tmp_path / "out", work=tmp_path / "work")
    names = ["mine.onnx", "mine_recipe.json"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    assert json.loads((tmp_path / "out" / names[1]).read_text(encoding="utf-8")) == made
    assert [row["seed"] for row in made["results"]] == [4, 5]
    assert "mine_5.onnx" in os.listdir(tmp_path / "work")
    # from the checkpoints, and again from nothing: the same bytes
    for work in (tmp_path / "work", None):
        assert make("mine", recipe, tmp_path / "again", work=work) == made


def test_missing_data_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    assert make_main(["mnist"]) == 2
    assert "name the folder of its files with --data" in capsys.readouterr().err
