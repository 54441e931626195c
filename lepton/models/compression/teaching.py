"""What a network learns from its teacher while it is compressed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.errors import InputError
from lepton.models.compression.recipe import CompressionRecipe
from lepton.models.compression.views import (
    ViewOptions,
    loss_of_views,
    teacher_views,
)
from lepton.models.datasets import Dataset
from lepton.models.training.trainer import Loss

if TYPE_CHECKING:
    import torch

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["Lessons", "lessons_of", "loss_of_pairs", "loss_of_teacher"]

_HARD_SHARE = 0.1
"""Of the labels' own cross-entropy in the loss of a distillation."""


@dataclass(frozen=True)
class Lessons:
    """What trainings learn from: samples, and a loss in place of the task's own."""

    samples: Dataset
    loss: Loss | None


def lessons_of(
    teacher: torch.nn.Module | None, samples: Dataset, recipe: CompressionRecipe, folder: Path
) -> Lessons:
    """Return what the trainings of a recipe learn from.

    Args:
        teacher: in eval mode; None for the labels.
        samples: to train on.
        recipe: says how its answers are taken.
        folder: keeps the views, if there are any.

    Raises:
        InputError: the samples are none that a teacher can be shown in that way.
    """
    if teacher is None:
        return Lessons(samples, None)
    if recipe.views:
        options = ViewOptions(recipe.views, recipe.shift, recipe.seed)
        views, answers = teacher_views(teacher, samples, options, folder)
        return Lessons(views, loss_of_views(answers, recipe.temperature))
    if not recipe.mirror_pairs:
        return Lessons(samples, loss_of_teacher(teacher, recipe.temperature))
    if [array.ndim for array in samples.inputs] != [4]:
        raise InputError("mirror_pairs needs samples that are one image [c, h, w] each")
    return Lessons(samples, loss_of_pairs(teacher, recipe.temperature))


def loss_of_teacher(teacher: torch.nn.Module, temperature: float) -> Loss:
    """Return the loss of a network that learns what a teacher answers for the same inputs."""
    from lepton.models.torch_distillation import distillation_loss

    def loss(network: Any, inputs: Any, labels: Any) -> Any:
        import torch

        with torch.no_grad():
            wanted = teacher(*inputs)
        return distillation_loss((wanted, network(*inputs)), labels, temperature, _HARD_SHARE)

    return loss


def loss_of_pairs(teacher: torch.nn.Module, temperature: float) -> Loss:
    """Return the loss of a network that learns images `[n, c, h, w]` and their mirror images.

    For both it learns the mean of the teacher's two answers, which is right more often than either.

    Source: Hinton et al., arXiv:1503.02531 (the loss); `mirror_mean`.
    """
    from lepton.models.torch_distillation import distillation_loss
    from lepton.models.torch_mirroring import mirror_mean

    def loss(network: Any, inputs: Any, labels: Any) -> Any:
        import torch

        (images,) = inputs
        with torch.no_grad():
            wanted = mirror_mean(teacher, images).repeat(2, 1)
        logits = (wanted, network(torch.cat([images, images.flip(3)])))
        return distillation_loss(logits, labels.repeat(2), temperature, _HARD_SHARE)

    return loss
