"""Compression under the budget of a chip: the program is within it, and a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from lepton.cli.main import main
from lepton.errors import InputError
from lepton.models.compression import CompressionRecipe
from lepton.models.compression.budget import Budgeted
from lepton.models.quantization.chip_budget import Chosen
from tests.cli.test_compress import arrays

pytest.importorskip("torch", reason="the training extra is not installed")


def test_the_program_is_within_its_budget_and_a_killed_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton.explore import bits

    out = tmp_path / "small.onnx"
    text = f"compress digits_cnn --data {arrays(tmp_path)} --epochs 1 -o {out} --chip nano --json"
    asked: list[int] = []
    cost = bits.ChipBudget.cost

    def killed(self: bits.ChipBudget, model: onnx.ModelProto) -> int:
        if len(asked) == 5:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(cost(self, model))
        return asked[-1]

    monkeypatch.setattr(bits.ChipBudget, "cost", killed)
    assert main([*text.split(), "--budget-bytes", "2900"]) != 0
    assert len(asked) == 6 and not out.exists()
    assert len(json.loads((tmp_path / "small.steps" / "costs.json").read_text())) == 5
    monkeypatch.setattr(bits.ChipBudget, "cost", cost)
    capsys.readouterr()
    assert main([*text.split(), "--budget-bytes", "2900"]) == 0
    printed = json.loads(capsys.readouterr().out)
    plain, small = printed["costs"].values()
    assert 2000 < small["stored_bytes"] <= 2900 < plain["stored_bytes"] <= plain["weight_bytes"]
    assert main([*text.split(), "--budget-bytes", "2800"]) == 2
    assert "holds the steps of another compression" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--budget-bytes 100", "a budget of 100 bytes on nano cannot be met: the least that was"),
        ("--budget-bytes 9 --budget-cycles 9", "give one of --budget-bytes and --budget-cycles"),
        ("--budget-bytes 0", "a budget must be at least 1, not 0"),
        (
            "--budget-bytes 2900 --bits 4",
            "bits come from a budget or from bits, edge_bits or share",
        ),
        ("--budget-bytes 2900 --mirrored", "a budget is not evaluated with mirrored answers"),
    ],
)
def test_budgets_that_are_refused(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"compress digits_cnn --data {arrays(tmp_path)} --epochs 1 -o {tmp_path / 'x.onnx'}"
    assert main([*text.split(), "--chip", "nano", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]  # after what is said of the network
    assert not (tmp_path / "x.onnx").exists()


def tagged(tag: str) -> onnx.ModelProto:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], tag, [], [])
    return onnx.helper.make_model(graph, producer_name=tag)


def test_what_training_adds_comes_off_the_next_limit(tmp_path: Path) -> None:
    limits: list[int] = []
    trained: list[str] = []

    def choose(_model: object, _samples: object, limit: int, _folder: Path) -> Chosen:
        limits.append(limit)
        if limit < 60:
            raise InputError("too little")
        return Chosen({"w": limit // 10}, limit // 10 * 10, 0.0, 1)

    def train(bits: Mapping[str, int], name: str) -> onnx.ModelProto:
        trained.append(name)
        return tagged(str(bits["w"] * 10 + 7))

    def cost(model: Any) -> int:
        return int(model.producer_name)

    budget = Budgeted("key", 101, "bytes on nano", choose, cost)
    made = budget.fitted(tagged("0"), {}, tmp_path, train)
    assert cost(made) == 97 and limits == [101, 95] and trained == ["quantize1", "quantize2"]
    assert budget.fitted(tagged("0"), {}, tmp_path, train) == made and len(trained) == 2
    tight = Budgeted("key", 62, "bytes on nano", choose, cost)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"62 bytes on nano cannot be met: .* trained .* is 67"):
        tight.fitted(tagged("0"), {}, tmp_path / "none", train)
    with pytest.raises(InputError, match="too little"):
        Budgeted("key", 9, "bytes", choose, cost).fitted(tagged("0"), {}, tmp_path, train)


def test_bits_that_a_recipe_chooses_itself_are_refused() -> None:
    budget = Budgeted("key", 9, "bytes", lambda *_: Chosen({}, 0, 0.0, 0), lambda _: 0)
    budget.check(CompressionRecipe())
    for recipe in (CompressionRecipe(share=4), CompressionRecipe(entropy_bits=2.0)):
        with pytest.raises(InputError, match="bits come from a budget or from bits"):
            budget.check(recipe)
    with pytest.raises(InputError, match="quantize_epochs must be at least 1"):
        budget.check(CompressionRecipe(quantize_epochs=0))
