"""The steps of compression one after the other: what they leave, and going on after a kill."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lepton.cli.main import main
from lepton.errors import InputError
from lepton.models.compression import Compressed, CompressionRecipe, compress_model, pipeline
from lepton.models.datasets import generate_intents
from lepton.models.export import float_model
from lepton.models.int8 import golden_session, run_each
from lepton.models.onnx_module import from_onnx
from lepton.models.pruning import filter_graph
from lepton.models.quantization import AwareOptions
from lepton.models.training.named import named_split
from lepton.models.training.recipes import Split
from lepton.models.training.trainer import Hooks
from lepton.models.zoo import Task, network_named

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

from lepton.models.torch_distillation import distillation_loss  # noqa: E402 (it imports torch)

RECIPE = CompressionRecipe(prune=0.5, prune_steps=2, bits=5, epochs=1)


def few() -> Split:
    """Return few of the digits."""
    return Split(*(part.take(slice(0, 120)) for part in named_split("digits")))


def compressed(folder: Path, recipe: CompressionRecipe = RECIPE, **options: Any) -> Compressed:
    return compress_model(network_named("digits_cnn"), few(), recipe, folder, **options)


def codes_of(model: onnx.ModelProto) -> list[np.ndarray]:
    """Return the weights' codes: int8 constants of more than one axis."""
    arrays = [numpy_helper.to_array(item) for item in model.graph.initializer]
    return [array for array in arrays if array.dtype == np.int8 and array.ndim > 1]


def test_pruned_weights_stay_zero_and_codes_take_the_bits(tmp_path: Path) -> None:
    made = compressed(tmp_path / "steps")
    assert [stage.name for stage in made.stages] == ["float", "prune", "quantize"]
    codes = codes_of(made.model)
    total, zeros = (sum(f(array) for array in codes) for f in (np.size, lambda a: (a == 0).sum()))
    assert total == made.stages[0].weights and zeros >= total // 2
    assert max(np.abs(array).max() for array in codes) == 15
    assert made.stages[0].zeros == 0
    assert made.stages[2].zeros == zeros >= made.stages[1].zeros == total // 2


def test_shared_weights_have_so_many_codes(tmp_path: Path) -> None:
    recipe = CompressionRecipe(pattern="2:4", share=4, epochs=1, prune_steps=1)
    made = compressed(tmp_path / "steps", recipe)
    assert [stage.name for stage in made.stages] == ["float", "prune", "share"]
    assert {len(np.unique(array)) for array in codes_of(made.model)} <= {2, 3, 4}


def test_a_student_learns_from_a_teacher(tmp_path: Path) -> None:
    teacher = compressed(tmp_path / "first", replace(RECIPE, prune=None)).source
    made = compressed(tmp_path / "second", teacher=teacher)
    assert [stage.name for stage in made.stages] == ["float", "prune", "distil", "quantize"]
    # nothing that was pruned comes back
    assert made.stages[2].zeros == made.stages[1].zeros > 0


def test_every_training_learns_from_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = compressed(tmp_path / "first", replace(RECIPE, prune=None)).source
    trained = pipeline.train
    losses: list[Any] = []

    def noting(*arguments: Any, hooks: Hooks, **options: Any) -> Any:
        losses.append(hooks.loss)
        return trained(*arguments, hooks=hooks, **options)

    monkeypatch.setattr(pipeline, "train", noting)
    recipe = replace(RECIPE, distil_epochs=0, prune_epochs=1)
    made = compressed(tmp_path / "second", recipe, teacher=teacher)
    assert [stage.name for stage in made.stages] == ["float", "prune", "quantize"]
    assert len(losses) == 4 and None not in losses and len(set(losses)) == 1
    network = network_named("digits_cnn").build(1).eval()
    (images,) = few().train.batch(slice(0, 8))
    inputs, labels = (torch.from_numpy(images),), torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        logits = (from_onnx(teacher).eval()(*inputs), network(*inputs))
        expected = distillation_loss(logits, labels, recipe.temperature, 0.1)
        torch.testing.assert_close(losses[0](network, inputs, labels), expected)


def test_the_first_and_the_last_layer_may_have_more_bits(tmp_path: Path) -> None:
    recipe = CompressionRecipe(
        bits=2, edge_bits=5, learned_scales=True, rounds_activations=False, epochs=1
    )
    codes = codes_of(compressed(tmp_path / "steps", recipe).model)
    assert [np.abs(array).max() > 1 for array in codes] == [True, False, True]
    assert max(np.abs(array).max() for array in codes) <= 15
    assert recipe.aware(["a", "b", "c"]) == AwareOptions({"a": 5, "b": 2, "c": 5}, None, True)
    assert RECIPE.aware(["a"]) == AwareOptions({"a": 5}, 8, False)


def test_filters_of_one_layer_go_by_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = float_model(
        network_named("digits_cnn").build(0), network_named("digits_cnn").inputs, "y"
    )
    monkeypatch.setattr(pipeline, "train", lambda module, *_, **__: module.eval())
    layer = filter_graph(source).filters[0].layer
    for criterion in ("gradient", "saliency", "sensitivity", "curvature"):
        recipe = CompressionRecipe(
            prune={layer: 0.5}, pattern="filters", criterion=criterion, scope="layer",
            prune_steps=1, epochs=1,
        )  # fmt: skip
        made = compress_model(source, few(), recipe, tmp_path / criterion)
        assert [array.shape[:2] for array in codes_of(made.model)] == [(8, 1), (32, 8), (10, 32)]


def test_codes_have_the_entropy_asked_for(tmp_path: Path) -> None:
    from lepton.models.quantization.torch_steps import entropy_bits

    recipe = CompressionRecipe(entropy_bits=2.5, rounds_activations=False, epochs=1)
    made = compressed(tmp_path / "steps", recipe)
    codes = codes_of(made.model)
    total = sum(entropy_bits(array) * array.size for array in codes)
    assert total / sum(array.size for array in codes) == pytest.approx(2.5, abs=0.1)
    assert max(np.abs(array).max() for array in codes) > 3
    with pytest.raises(InputError, match="entropy_bits needs a network that tells classes apart"):
        compress_model(made.source, few(), recipe, tmp_path / "other", task=Task.SCORE)


def test_a_convolution_becomes_two_and_weights_of_8_bits_need_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_named("digits_cnn")
    source = float_model(network.build(0), network.inputs, "y")
    (name,) = (item.name for item in source.graph.initializer if list(item.dims) == [32, 16, 3, 3])
    recipe = CompressionRecipe(factorize={name: 3}, factorize_epochs=2, quantize_epochs=0)
    trained: list[int] = []

    def noting(module: Any, _task: Task, _samples: Any, options: Any, **_: Any) -> None:
        trained.append(options.epochs)
        module.eval()

    monkeypatch.setattr(pipeline, "train", noting)
    made = compress_model(source, few(), recipe, tmp_path / "steps")
    assert [stage.name for stage in made.stages] == ["float", "factorize", "quantize"]
    assert trained == [2]
    whole, *fewer = (stage.weights for stage in made.stages)
    assert fewer == [whole - 32 * 16 * 9 + 3 * 16 * (9 + 32)] * 2
    shapes = {array.shape for array in codes_of(made.model)}
    assert (48, 1, 3, 3) in shapes and (32, 48, 1, 1) in shapes


def test_a_mirrored_network_answers_for_both_images(tmp_path: Path) -> None:
    recipe = CompressionRecipe(factorize={}, quantize_epochs=0, epochs=1)
    plain, both = (
        compressed(tmp_path / f"{mirrored}", replace(recipe, mirrored=mirrored))
        for mirrored in (False, True)
    )
    for one, other in zip(codes_of(plain.model), codes_of(both.model), strict=True):
        np.testing.assert_array_equal(one, other)
    (images,) = few().test.batch(slice(0, 8))
    (name,) = (item.name for item in both.model.graph.input)
    answers = [
        run_each(golden_session(made.model.SerializeToString()), {name: given})
        for made, given in ((both, images), (plain, images), (plain, images[..., ::-1].copy()))
    ]
    scale = np.abs(answers[1]).max() / 127
    np.testing.assert_allclose(answers[0], (answers[1] + answers[2]) / 2, atol=4 * scale)
    assert np.abs(answers[1] - answers[2]).max() > 16 * scale


@pytest.mark.parametrize("options", [{"bits": 4}, {"share": 8}])
def test_a_mirrored_network_learns_the_mean_of_both(
    options: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    images = torch.from_numpy(few().train.batch(slice(0, 4))[0])

    def noting(module: Any, *_: Any, **__: Any) -> None:
        module.eval()
        with torch.no_grad():
            trained.append((module(images), module(images.flip(3))))

    monkeypatch.setattr(pipeline, "train", noting)
    recipe = CompressionRecipe(mirrored=True, epochs=1, rounds_activations=False, **options)  # pyright: ignore[reportArgumentType] (drawn names)
    compressed(tmp_path / "steps", recipe)
    (plain, mirrored), (both, again) = trained
    torch.testing.assert_close(both, again)
    assert (plain - mirrored).abs().max() > 1e-3


def test_images_with_channels_last_are_trained_as_they_are_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = float_model(
        network_named("digits_cnn").build(0), network_named("digits_cnn").inputs, "y"
    )
    name = source.graph.input[0].name
    for node in source.graph.node:
        node.input[:] = ["turned" if read == name else read for read in node.input]
    turn = onnx.helper.make_node("Transpose", [name], ["turned"], perm=[0, 3, 1, 2])
    source.graph.node.insert(0, turn)
    dims = source.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 8, 8, 1), strict=True):
        dim.dim_value = size
    parts = [
        replace(part, inputs=(part.batch(slice(None))[0].transpose(0, 2, 3, 1).copy(),))
        for part in few()
    ]
    trained: list[Any] = []
    images = torch.from_numpy(parts[0].inputs[0][:4])

    def noting(module: Any, *_: Any, **__: Any) -> None:
        module.eval()
        with torch.no_grad():
            trained.append((module(images), module(images.flip(2))))

    monkeypatch.setattr(pipeline, "train", noting)
    recipe = CompressionRecipe(mirrored=True, bits=4, epochs=1, rounds_activations=False)
    compress_model(source, Split(*parts), recipe, tmp_path / "steps")
    ((both, again),) = trained
    torch.testing.assert_close(both, again)


def test_only_classifiers_of_images_are_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "train", lambda *_, **__: pytest.fail("trains"))
    recipe = replace(RECIPE, mirrored=True)
    with pytest.raises(InputError, match="a mirrored answer needs a network of one image"):
        words = Split(*(generate_intents(24, seed) for seed in range(3)))
        compress_model(network_named("intent_transformer"), words, recipe, tmp_path / "text")
    network = network_named("digits_cnn")
    source = float_model(network.build(0), network.inputs, "y")
    with pytest.raises(InputError, match="mirrored needs a network that tells classes apart"):
        compress_model(source, few(), recipe, tmp_path / "score", task=Task.SCORE)
    assert not any(tmp_path.iterdir())


def test_the_training_with_rounded_weights_may_have_a_rate_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def noting(module: Any, _task: Task, _samples: Any, options: Any, **_: Any) -> None:
        rates.append(options.learning_rate)
        module.eval()

    monkeypatch.setattr(pipeline, "train", noting)
    compressed(tmp_path / "steps", replace(RECIPE, prune_steps=1, quantize_rate=1e-4))
    assert rates == [RECIPE.learning_rate] * 2 + [1e-4]


def test_a_wrong_rate_is_refused_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "train", lambda *_, **__: pytest.fail("trains"))
    output = tmp_path / "small.onnx"
    command = ["compress", "digits_cnn", "--data", "digits", "--prune", "2", "-o", str(output)]
    assert main(command) == 2
    assert "a pruning rate is from 0 to 1, not 2.0" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"bits": 6}, {"share": 12}])
def test_no_step_ends_below_its_start(
    options: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = compressed(tmp_path / "first", CompressionRecipe(epochs=12)).source
    trained, results = pipeline.train, list[Any]()

    def noting(*arguments: Any, **given: Any) -> Any:
        results.append(trained(*arguments, **given))
        return results[-1]

    monkeypatch.setattr(pipeline, "train", noting)
    recipe = CompressionRecipe(
        prune=0.2, prune_steps=1, epochs=2, learning_rate=1.0, counts_start=True
    )
    recipe = replace(recipe, **options)  # pyright: ignore[reportArgumentType] (drawn names)
    made = compress_model(source, few(), recipe, tmp_path / "second")
    scores = [stage.validation for stage in made.stages]
    # a rate of 1 ruins any network: what pruning and rounding left is what stays
    assert [result.best for result in results] == [-1, -1]
    assert [result.start for result in results] == pytest.approx(scores[1:], abs=0.05)
    assert min(scores[1:]) > scores[0] - 0.2 > 0.4
    again = replace(recipe, counts_start=False)
    ruined = compress_model(source, few(), again, tmp_path / "third").stages[-1]
    assert ruined.validation < 0.3


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compressed(tmp_path / "whole")
    trained = pipeline.train
    calls: list[int] = []

    def cut(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return trained(*arguments, **options)

    monkeypatch.setattr(pipeline, "train", cut)
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        compressed(folder)
    assert (folder / "float.onnx").exists() and not (folder / "prune.onnx").exists()
    assert compressed(folder).model == whole.model
    monkeypatch.setattr(pipeline, "train", lambda *_, **__: pytest.fail("trains again"))
    assert compressed(folder) == whole


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    compressed(tmp_path / "steps")
    with pytest.raises(InputError, match="holds the steps of another compression"):
        compressed(tmp_path / "steps", replace(RECIPE, bits=4))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="no folder of a compression, and not empty"):
        compressed(tmp_path / "own")
    assert (tmp_path / "own" / "letter.txt").read_text() == "mine"
    damaged = tmp_path / "steps" / "prune.onnx"
    for content in (
        damaged.read_bytes()[:100],
        b"",
        onnx.ModelProto(ir_version=8).SerializeToString(),
    ):
        damaged.write_bytes(content)
        with pytest.raises(InputError, match=r"prune\.onnx: damaged; remove it"):
            compressed(tmp_path / "steps")
    (tmp_path / "steps" / "run.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="holds the steps of another compression"):
        compressed(tmp_path / "steps")


def test_a_run_that_was_killed_as_it_claimed_its_folder_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(given: Any, _: Any) -> None:
        copy(given, tmp_path)
        raise KeyboardInterrupt

    folder = tmp_path / "steps"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        compressed(folder)
    (left,) = tmp_path.glob(".lepton-*")
    left.rename(folder / left.name)
    assert [stage.name for stage in compressed(folder).stages] == ["float", "prune", "quantize"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 4, "bits": 5}, "shared or rounded to 5 bits, not both"),
        ({"bits": 9}, "1 to 8 bits, not 9"),
        ({"edge_bits": 9}, "1 to 8 bits, not 9"),
        ({"entropy_bits": 8.0}, "entropy_bits must be above 0 and below 8, not 8.0"),
        ({"entropy_bits": 2.0, "bits": 3}, "takes the place of bits, edge_bits and share"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"prune_epochs": 0}, "prune_epochs must be at least 1, not 0"),
        ({"factorize_epochs": 0}, "factorize_epochs must be at least 1, not 0"),
        ({"quantize_epochs": 0, "bits": 5}, "quantize_epochs is 0 with weights of 8 bits or"),
        ({"quantize_rate": 0.0}, "quantize_rate must be above 0, not 0.0"),
        ({"distil_epochs": -1}, "distil_epochs must be at least 0, not -1"),
        ({"prune": 2.0}, "a pruning rate is from 0 to 1, not 2.0"),
        ({"prune": 0.3, "pattern": "2:4"}, "2:4 prunes 0.5: the rate cannot be 0.3"),
        ({"pattern": "filters"}, "give a pruning rate"),
        ({"prune": 0.5, "criterion": "size"}, "a pruning criterion is one of .*, not 'size'"),
        ({"prune": 0.5, "scope": "all"}, "a scope is 'layer' or 'global', not 'all'"),
    ],
)
def test_recipes_that_contradict_themselves(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CompressionRecipe(**options)  # pyright: ignore[reportArgumentType] (drawn names)


def test_few_samples_take_more_epochs() -> None:
    recipe = CompressionRecipe(batch=64)
    assert (recipe.epochs_of(64), recipe.epochs_of(55_000)) == (400, 3)
    assert replace(recipe, epochs=2).epochs_of(64) == 2


def test_a_last_softmax_is_left_out(tmp_path: Path) -> None:
    from lepton.models.compression.sources import float_source, without_softmax

    network = network_named("digits_cnn")
    plain = float_model(network.build(0), network.inputs, "y")
    sure = onnx.ModelProto()
    sure.CopyFrom(plain)
    sure.graph.node.append(onnx.helper.make_node("Softmax", ["y"], ["p"], name="p", axis=1))
    sure.graph.output[0].name = "p"
    assert float_source(sure, Task.CLASSES) == plain == without_softmax(plain)
    assert float_source(sure, Task.SCORE) == sure
    onnx.save(sure, str(tmp_path / "sure.onnx"))
    recipe = CompressionRecipe(epochs=1, quantize_epochs=0)
    made = compress_model(tmp_path / "sure.onnx", few(), recipe, tmp_path / "a")
    assert [item.name for item in made.model.graph.output] == ["y"]
    assert made.source == plain


@pytest.mark.parametrize(
    ("scores", "chance", "part"),
    [
        ([0.19], 0.1, "the float network has 19.0% of the validation samples right"),
        ([0.2], 0.1, None),
        ([0.9, 0.84], 0.1, "step 's1' loses 6.0 points on the validation samples"),
        ([0.9, 0.86, 0.82], 0.1, None),
        ([0.9, 0.1], None, None),
    ],
)
def test_remarks(scores: list[float], chance: float | None, part: str | None) -> None:
    from lepton.models.compression.remarks import chance_of, remark_on

    names = ["float", "s1", "s2"]
    stages = [
        pipeline.Stage(name, score, 0.0, 1, 0) for name, score in zip(names, scores, strict=False)
    ]
    said = remark_on(stages, chance)
    assert said is None if part is None else part in (said or "")
    assert chance_of(Task.RECONSTRUCTION, few().test) is None
    labels = few().test.labels.tolist()
    assert chance_of(Task.CLASSES, few().test) == max(map(labels.count, labels)) / len(labels)
