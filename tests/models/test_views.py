"""Changed images and what a teacher answers for them in advance."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.checkpoint import Checkpoint
from lepton.models.compression import CompressionRecipe, compress_model, pipeline
from lepton.models.datasets.dataset import Dataset, image_dataset
from lepton.models.export import float_model
from lepton.models.training import Optimizer
from lepton.models.training.recipes import Split
from lepton.models.zoo import network_named
from tests.models.training.test_trainer import Cut

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

from lepton.models.compression import views  # noqa: E402 (it imports torch)
from lepton.models.compression.views import (  # noqa: E402 (it imports torch)
    ViewOptions,
    changed_images,
    loss_of_views,
    teacher_views,
)


def images(count: int, size: int = 8) -> Dataset:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 256, (count, 1, size, size), np.uint8)
    return image_dataset(values, rng.integers(0, 10, count), "0123456789")


def seeded(seed: int) -> Any:
    return torch.Generator().manual_seed(seed)


def test_answers_are_the_means_for_the_views_that_are_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    samples, options = images(130), ViewOptions(3, 2, 7)
    made, answers = teacher_views(teacher, samples, options, tmp_path)
    assert made.inputs[0].shape == (390, 1, 8, 8) and made.inputs[0].dtype == np.uint8
    np.testing.assert_array_equal(made.labels, np.arange(390))
    weight, bias = (item.detach().double().numpy() for item in teacher[1].parameters())
    for number in (0, 124, 125, 389):
        image = np.asarray(made.inputs[0][number, 0], np.float64) / 255
        both = [weight @ view.reshape(-1) + bias for view in (image, image[:, ::-1])]
        np.testing.assert_allclose(answers[number], np.mean(both, 0), rtol=1e-4, atol=1e-5)
    # each round draws anew, and the files are taken as they are
    assert len({made.inputs[0][at : at + 130].tobytes() for at in (0, 130, 260)}) == 3
    (tmp_path / "marked").mkdir()
    again, _ = teacher_views(teacher, samples, options, tmp_path / "marked")
    np.testing.assert_array_equal(again.inputs[0], made.inputs[0])
    kept, same = teacher_views(torch.nn.Identity(), samples, options, tmp_path)
    assert torch.equal(same, answers) and len(kept) == 390


def test_images_of_one_value_stay_so_and_mix_with_the_one_before() -> None:
    values = torch.tensor([0.4, 0.6, 0.5, 0.45])
    same = light = mixed = 0
    for seed in range(50):
        made = changed_images(values.reshape(4, 1, 1, 1).expand(4, 2, 6, 6), 2, seeded(seed))
        assert made.shape == (4, 2, 6, 6)
        flat = made.reshape(4, -1)
        torch.testing.assert_close(flat, flat[:, :1].expand(4, 72))
        for at, found in enumerate(flat[:, 0]):
            low, high = sorted((float(values[at]), float(values[at - 1])))
            assert low - 0.15 - 1e-5 <= found <= high + 0.15 + 1e-5
            same += abs(found - values[at]) < 1e-5
            mixed += low + 1e-5 < found < high - 1e-5
            light += not low - 1e-5 <= found <= high + 1e-5
    # half are not mixed and 0.7 of them not lit anew: 70 of 200 expected
    assert 50 < same < 100 and mixed > 40 and light > 10


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (math.pi / 2, 1.0), (0.3, 0.8)])
def test_turned_images_are_those_of_loops(
    monkeypatch: pytest.MonkeyPatch, angle: float, scale: float
) -> None:
    drawn = iter([torch.full((2,), value) for value in (math.log(scale), 0.0, angle, 0.1, -0.2)])
    monkeypatch.setattr(views, "_between", lambda *_: next(drawn))
    given = torch.rand(2, 1, 5, 5, generator=seeded(0))
    found = views._turned(given, seeded(0))  # pyright: ignore[reportPrivateUsage] (one part)
    for (number, row, column), value in np.ndenumerate(found[:, 0].numpy()):
        # a pixel's centre, from -1 to 1, goes where the map says; the edges repeat outside
        x, y = ((2 * at + 1) / 5 - 1 for at in (column, row))
        across = scale * (math.cos(angle) * x - math.sin(angle) * y) + 0.1
        down = scale * (math.sin(angle) * x + math.cos(angle) * y) - 0.2
        places = [min(max(((at + 1) * 5 - 1) / 2, 0), 4) for at in (down, across)]
        total = 0.0
        for top in range(5):
            for left in range(5):
                shares = [max(0, 1 - abs(p - q)) for p, q in zip(places, (top, left), strict=True)]
                total += shares[0] * shares[1] * float(given[number, 0, top, left])
        assert value == pytest.approx(total, abs=1e-5)


def test_the_loss_is_of_the_answer_with_the_label() -> None:
    answers, logits = torch.randn(6, 4), torch.randn(2, 4)
    made = loss_of_views(answers, 2.0)(torch.nn.Identity(), (logits,), torch.tensor([5, 1]))
    rows = zip(answers[[5, 1]].double().numpy(), logits.double().numpy(), strict=True)
    total = 0.0
    for wanted, found in rows:
        p, q = (np.exp(item / 2) / np.exp(item / 2).sum() for item in (wanted, found))
        total -= 4 * float((p * np.log(q)).sum())
    assert float(made) == pytest.approx(total / 2, rel=1e-5)


def test_views_need_images_of_bytes(tmp_path: Path) -> None:
    flat = Dataset((np.zeros((3, 4), np.uint8),), np.zeros(3, np.int64))
    halves = Dataset((np.zeros((3, 1, 4, 4), np.float32),), np.zeros(3, np.int64))
    for samples in (flat, halves):
        with pytest.raises(InputError, match=r"views need samples that are one image \[c, h, w\]"):
            teacher_views(torch.nn.Identity(), samples, ViewOptions(1), tmp_path)


def small_model() -> tuple[Any, Split]:
    network = network_named("digits_cnn")
    model = float_model(network.build(0), network.inputs, "y")
    return model, Split(images(60), images(20), images(20))


RECIPE = CompressionRecipe(
    views=2, shift=1, flip=True, optimizer=Optimizer.MUON, quantize_epochs=0, distil_epochs=2,
    rounds_activations=False, learning_rate=1e-2, batch=24, keeps_last=True,
)  # fmt: skip


def test_a_compression_that_was_cut_off_goes_on_with_its_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = small_model()
    whole = compress_model(model, split, RECIPE, tmp_path / "whole", teacher=model)
    folder, seen = tmp_path / "cut", list[int]()
    save = Checkpoint.save

    def stop(kept: Checkpoint, state: dict[str, Any]) -> None:
        save(kept, state)
        seen.append(len(state["epochs"]))
        if len(seen) == 1:
            raise Cut

    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(Cut):
        compress_model(model, split, RECIPE, folder, teacher=model)
    assert len(np.load(folder / "views.npy")) == len(np.load(folder / "answers.npy")) == 120
    written = (folder / "views.npy").stat().st_mtime_ns
    monkeypatch.setattr(Checkpoint, "load", _checked(folder / "views.npy", written))
    made = compress_model(model, split, RECIPE, folder, teacher=model)
    assert seen == [1, 2]
    assert made.model.SerializeToString() == whole.model.SerializeToString()
    kept = {file.name for file in folder.iterdir()}
    assert kept == {"run.json", "distil.checkpoint", "distil.onnx", "quantize.onnx"}


def _checked(views: Path, written: int) -> Any:
    """Return `Checkpoint.load` that sees that the views are those of before."""
    load = Checkpoint.load

    def loaded(kept: Checkpoint) -> Any:
        assert views.stat().st_mtime_ns == written
        return load(kept)

    return loaded


def test_an_epoch_goes_over_all_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = small_model()
    seen: list[Any] = []
    monkeypatch.setattr(pipeline, "train", lambda *given, **_: seen.append(given))
    recipe = replace(RECIPE, distil_epochs=None)
    compress_model(model, split, recipe, tmp_path / "steps", teacher=model)
    ((_, _, (samples, validation), options),) = seen
    assert len(samples) == 120 and validation is split.validation
    # 400 steps at least, of 120 views in batches of 24
    assert (options.epochs, options.shift, options.flip) == (80, 0, True)
    assert options.optimizer is Optimizer.MUON


@pytest.mark.parametrize("recipe", [RECIPE, CompressionRecipe(mirror_pairs=True)])
def test_views_and_pairs_need_a_teacher(recipe: CompressionRecipe, tmp_path: Path) -> None:
    model, split = small_model()
    with pytest.raises(InputError, match="are what a teacher answers for: name one"):
        compress_model(model, split, recipe, tmp_path / "steps")
    assert not (tmp_path / "steps").exists()


@pytest.mark.parametrize(("views", "mirror_pairs"), [(-1, False), (2, True)])
def test_views_are_not_beside_pairs(views: int, mirror_pairs: bool) -> None:
    with pytest.raises(InputError, match="views are 0 or more, and never beside mirror_pairs"):
        CompressionRecipe(views=views, mirror_pairs=mirror_pairs)
