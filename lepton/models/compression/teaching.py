"""What a network learns from its teacher while it is compressed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton.errors import InputError
from lepton.models.datasets import Dataset
from lepton.models.training.trainer import Loss

if TYPE_CHECKING:
    import torch

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["loss_of_answers", "loss_of_teacher", "mean_answers", "numbered"]

_HARD_SHARE = 0.1
"""Of the labels' own cross-entropy in the loss of a distillation."""
_BATCH = 250


def loss_of_teacher(teacher: torch.nn.Module, temperature: float) -> Loss:
    """Return the loss of a network whose teacher answers for the same inputs."""
    from lepton.models.torch_distillation import distillation_loss

    def loss(network: Any, inputs: Any, labels: Any) -> Any:
        import torch

        with torch.no_grad():
            wanted = teacher(*inputs)
        return distillation_loss((wanted, network(*inputs)), labels, temperature, _HARD_SHARE)

    return loss


def loss_of_answers(answers: torch.Tensor, samples: Dataset, temperature: float) -> Loss:
    """Return the loss of a network whose teacher has answered; labels are samples' numbers.

    Args:
        answers: the teacher's logits `[n, classes]`.
        samples: with the labels that count beside them.
        temperature: of both softmaxes.
    """
    import torch

    from lepton.models.torch_distillation import distillation_loss

    labels = torch.from_numpy(samples.labels)

    def loss(network: Any, inputs: Any, numbers: Any) -> Any:
        logits = (answers[numbers], network(*inputs))
        return distillation_loss(logits, labels[numbers], temperature, _HARD_SHARE)

    return loss


def numbered(samples: Dataset) -> Dataset:
    """Return samples whose labels are their numbers, for `loss_of_answers`."""
    return replace(samples, labels=np.arange(len(samples)), classes=())


def mean_answers(teacher: torch.nn.Module, samples: Dataset) -> torch.Tensor:
    """Return a teacher's logits `[n, classes]`, the mean of ten views of each image.

    They are the image, and the image moved by one pixel to each side with its edge repeated, each
    as it is and mirrored left to right.

    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks,
    2012, section 4.1, whose ten views are five crops and their mirror images.

    Raises:
        InputError: the samples are no images.
    """
    import torch

    first = samples.inputs[0]
    if len(samples.inputs) > 1 or first.ndim != 4:
        raise InputError("teacher_views needs samples that are one image [c, h, w] each")
    rows: list[torch.Tensor] = []
    with torch.no_grad():
        for start in range(0, len(samples), _BATCH):
            (images,) = samples.batch(slice(start, start + _BATCH))
            made = [teacher(view) for view in _views(torch.from_numpy(images))]
            rows.append(torch.stack(made).mean(0))
    return torch.cat(rows)


def _views(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield images `[n, c, h, w]` in each of the ten ways."""
    import torch

    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, [1] * 4, mode="replicate")
    for down, right in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)):
        moved = padded[:, :, down : down + height, right : right + width]
        for view in (moved, moved.flip(3)):
            yield view.contiguous(memory_format=torch.channels_last)
