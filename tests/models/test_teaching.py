"""The losses of a network that learns from a teacher while it is compressed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton.errors import InputError
from lepton.models.compression import CompressionRecipe, compress_model, pipeline
from lepton.models.export import float_model
from lepton.models.onnx_module import from_onnx
from lepton.models.training.named import named_split
from lepton.models.training.recipes import Split
from lepton.models.zoo import Task, network_named

torch: Any = pytest.importorskip("torch", reason="the training extra is not installed")

from lepton.models.compression.teaching import loss_of_pairs  # noqa: E402 (it imports torch)
from lepton.models.torch_distillation import distillation_loss  # noqa: E402 (it imports torch)


def split() -> Split:
    return Split(*(part.take(slice(0, 40)) for part in named_split("digits")))


def test_pairs_learn_the_mean_of_both_answers() -> None:
    torch.manual_seed(0)
    teacher, student = (
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(40, 3)) for _ in range(2)
    )
    images, labels = torch.randn(5, 2, 4, 5), torch.arange(5) % 3
    made = loss_of_pairs(teacher, 3.0)(student, (images,), labels)
    losses: list[Any] = []
    for image, label in zip(images, labels, strict=True):
        views = [image[None], torch.from_numpy(image.numpy()[None, :, :, ::-1].copy())]
        wanted = (teacher(views[0]) + teacher(views[1])).detach() / 2
        losses += [distillation_loss((wanted, student(v)), label[None], 3.0, 0.1) for v in views]
    torch.testing.assert_close(made, torch.stack(losses).mean())


def test_a_compression_learns_from_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_named("digits_cnn")
    model = float_model(network.build(0), network.inputs, "y")
    seen: list[Any] = []
    monkeypatch.setattr(pipeline, "train", lambda *_, hooks, **__: seen.append(hooks.loss))
    recipe = CompressionRecipe(mirror_pairs=True, bits=4, epochs=1, rounds_activations=False)
    compress_model(model, split(), recipe, tmp_path / "steps", teacher=model)
    assert len(seen) == 2  # distillation, and the training with rounded weights
    (images,), student = split().train.batch(slice(0, 8)), network.build(1).eval()
    batch = ((torch.from_numpy(images),), torch.from_numpy(split().train.labels[:8]))
    expected = loss_of_pairs(from_onnx(model).eval(), recipe.temperature)(student, *batch)
    torch.testing.assert_close(seen[0](student, *batch), expected)


def test_pairs_need_images(tmp_path: Path) -> None:
    network = network_named("digits_cnn")
    model = float_model(network.build(0), network.inputs, "y")
    flat = Split(*(replace(part, inputs=(part.inputs[0].reshape(40, -1),)) for part in split()))
    recipe = CompressionRecipe(mirror_pairs=True, epochs=1)
    run = pipeline._Run(Task.CLASSES, flat, recipe, model, tmp_path)  # pyright: ignore[reportPrivateUsage] (scoring would refuse them first)
    with pytest.raises(InputError, match="mirror_pairs needs samples that are one image"):
        _ = run._lessons  # pyright: ignore[reportPrivateUsage] (as above)
