"""What a teacher answers for several views of an image, and the loss that compares with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.compression import CompressionRecipe, compress_model, pipeline
from lepton.models.datasets import Dataset
from lepton.models.export import float_model
from lepton.models.training.named import named_split
from lepton.models.training.recipes import Split
from lepton.models.zoo import network_named

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

from lepton.models.compression.teaching import (  # noqa: E402 (it imports torch)
    loss_of_answers,
    loss_of_teacher,
    mean_answers,
    numbered,
)


def images() -> Dataset:
    """Return few images that are not symmetric."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 2, 4, 5)).astype(np.uint8)
    return Dataset((pixels,), np.arange(7) % 3, ("a", "b", "c"))


def teacher() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(40, 3))


def test_answers_are_the_mean_of_ten_views() -> None:
    expected: list[Any] = []
    for image in images().batch(slice(None))[0]:
        rows: list[Any] = []
        for down, right in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            moved = np.empty_like(image)
            for y in range(4):
                for x in range(5):
                    moved[:, y, x] = image[:, min(max(y + down, 0), 3), min(max(x + right, 0), 4)]
            for view in (moved, moved[:, :, ::-1].copy()):
                rows.append(teacher()(torch.from_numpy(view[None])).detach().numpy()[0])
        expected.append(np.mean(rows, axis=0))
    np.testing.assert_allclose(mean_answers(teacher(), images()), expected, rtol=1e-4, atol=1e-6)
    flat = Dataset((np.zeros((2, 3), np.float32),), np.zeros(2, np.int64))
    with pytest.raises(InputError, match="teacher_views needs samples that are one image"):
        mean_answers(teacher(), flat)


def test_both_losses_agree_on_the_same_answers() -> None:
    samples, student = images(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(40, 3))
    with torch.no_grad():
        answers = teacher()(torch.from_numpy(samples.batch(slice(None))[0]))
    chosen = np.array([5, 0, 3])
    inputs = (torch.from_numpy(samples.batch(chosen)[0]),)
    numbers = torch.from_numpy(numbered(samples).labels[chosen])
    assert numbers.tolist() == [5, 0, 3]
    found = loss_of_answers(answers, samples, 3.0)(student, inputs, numbers)
    labels = torch.from_numpy(samples.labels[chosen])
    torch.testing.assert_close(found, loss_of_teacher(teacher(), 3.0)(student, inputs, labels))


def test_a_compression_learns_from_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_named("digits_cnn")
    model = float_model(network.build(0), network.inputs, "y")
    split = Split(*(part.take(slice(0, 40)) for part in named_split("digits")))
    seen: list[Any] = []

    def noting(_module: Any, _task: Any, samples: Any, *_: Any, hooks: Any, **__: Any) -> None:
        seen.append((samples, hooks.loss))

    monkeypatch.setattr(pipeline, "train", noting)
    recipe = CompressionRecipe(teacher_views=True, bits=4, epochs=1, rounds_activations=False)
    compress_model(model, split, recipe, tmp_path / "steps", teacher=model)
    assert len(seen) == 2  # distillation, and the training with rounded weights
    for (train, validation), loss in seen:
        assert train.labels.tolist() == list(range(40)) and validation is split.validation
        inputs = (torch.from_numpy(split.train.batch(slice(0, 8))[0]),)
        assert float(loss(network.build(1), inputs, torch.arange(8)).detach()) > 0
