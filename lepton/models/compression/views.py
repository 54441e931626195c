"""Images changed at random, for which a teacher answers once: a long training goes round them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap

from lepton.errors import InputError
from lepton.models.datasets import Dataset
from lepton.models.training.augmentation import shifted
from lepton.models.training.trainer import Loss

if TYPE_CHECKING:
    import torch

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = [
    "VIEW_FILES",
    "ViewOptions",
    "changed_images",
    "loss_of_views",
    "teacher_views",
]

VIEW_FILES = ("views.npy", "answers.npy")
"""In the folder of a run."""

_BATCH, _ANSWERED = 125, 32
"""Images changed at once, and answered for at once: with their mirror images these are 64, each of
which took a teacher like ResNet-8 0.6 of its time among 250."""
_ROUND_SEEDS = 1_000_003
"""A round's seed is that of the options times this plus its number."""
_TURNED, _RELIT, _MIXED = 0.35, 0.3, 0.5
"""Parts of the images that are turned and scaled, get another light, and are mixed with others."""
_SCALES, _STRETCH, _TURN, _MOVE = (0.8, 1.15), 0.12, 0.2, 0.2
"""Of what is turned: times larger, difference of the axes in log, radians, half sides."""
_CONTRAST, _LIGHT = 0.25, 0.15
"""Of what gets another light: contrast from 1 - 0.25 to 1 + 0.25, brightness by +-0.15."""


@dataclass(frozen=True)
class ViewOptions:
    """How many views there are, and how they differ from the images.

    Attributes:
        rounds: views of each image.
        shift: images that are not turned move by up to so many pixels, their edges repeated.
        seed: of everything drawn.
    """

    rounds: int
    shift: int = 0
    seed: int = 0


def teacher_views(
    teacher: torch.nn.Module, samples: Dataset, options: ViewOptions, folder: Path
) -> tuple[Dataset, torch.Tensor]:
    """Return changed images, labelled by their numbers, and a teacher's answer for each number.

    Args:
        teacher: takes images 0 to 1, makes logits `[n, classes]`.
        samples: images `[n, c, h, w] uint8`.
        options: of the views.
        folder: keeps them, one byte for each value, and answers; those that are there are taken.

    Returns:
        The views `[rounds * n, c, h, w] uint8`, read from the file as they are needed, and the
        answers `[rounds * n, classes]` (`mirror_mean`).

    Raises:
        InputError: the samples are no images of bytes.
    """
    import torch

    if [(array.ndim, array.dtype) for array in samples.inputs] != [(4, np.dtype(np.uint8))]:
        raise InputError("views need samples that are one image [c, h, w] of bytes each")
    images, answers = (folder / name for name in VIEW_FILES)
    if not answers.exists():
        _write(teacher, samples, options, (images, answers))
    views: Any = np.load(images, mmap_mode="r")
    return Dataset((views,), np.arange(len(views))), torch.from_numpy(np.load(answers))


def _write(
    teacher: torch.nn.Module, samples: Dataset, options: ViewOptions, files: tuple[Path, Path]
) -> None:
    """Write the views, and then, as the sign that all are there, the answers."""
    import torch
    from tqdm import tqdm

    from lepton.models.torch_mirroring import mirror_mean

    count, size = len(samples), options.rounds * len(samples)
    views = open_memmap(files[0], "w+", np.uint8, (size, *samples.inputs[0].shape[1:]))
    rows: list[Any] = []
    for number in tqdm(range(options.rounds), desc="views", unit="round", disable=None):
        generator = torch.Generator().manual_seed(options.seed * _ROUND_SEEDS + number)
        order = torch.randperm(count, generator=generator).numpy()
        for start in range(0, count, _BATCH):
            (given,) = samples.batch(order[start : start + _BATCH])
            made = changed_images(torch.from_numpy(given), options.shift, generator)
            stored = (made * 255).round().to(torch.uint8)
            place = number * count + start
            views[place : place + len(stored)] = stored.numpy()
            with torch.no_grad():
                rows += [mirror_mean(teacher, part) for part in (stored / 255).split(_ANSWERED)]
    views.flush()
    part = files[1].with_suffix(".part.npy")
    np.save(part, torch.cat(rows).numpy())
    os.replace(part, files[1])


def loss_of_views(answers: torch.Tensor, temperature: float) -> Loss:
    """Return the loss of a network that learns the answers `[views, classes]`, labels the numbers.

    Source: Beyer et al., Knowledge distillation: A good teacher is patient and consistent, CVPR
    2022, section 3 (one changed image for both, mixed with others, no labels, and patience);
    Hinton et al., arXiv:1503.02531 (the loss).
    """
    from lepton.models.torch_distillation import soft_cross_entropy

    def loss(network: Any, inputs: Any, labels: Any) -> Any:
        return soft_cross_entropy(answers[labels], network(*inputs), temperature)

    return loss


def changed_images(images: torch.Tensor, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Return images `[n, c, h, w]` of values 0 to 1, changed at random.

    Each is moved, or else turned, scaled and stretched; some get another light; half of them are
    mixed, at a coefficient drawn from 0 to 1, with the image before.
    """
    import torch

    count = len(images)

    def chosen(part: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) < part)[:, None, None, None]

    made = shifted(images, shift, generator, repeat_edges=True) if shift else images
    made = torch.where(chosen(_TURNED), _turned(images, generator), made)
    made = torch.where(chosen(_RELIT), _relit(made, generator), made)
    share = torch.rand((count, 1, 1, 1), generator=generator)
    return torch.where(chosen(_MIXED), share * made + (1 - share) * made.roll(1, 0), made)


def _between(low: float, high: float, count: int, generator: torch.Generator) -> torch.Tensor:
    import torch

    return low + (high - low) * torch.rand(count, generator=generator)


def _turned(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images turned about their centres, scaled, stretched and moved."""
    import torch
    from torch.nn import functional

    count = len(images)
    scale = _between(math.log(_SCALES[0]), math.log(_SCALES[1]), count, generator).exp()
    stretch = _between(-_STRETCH, _STRETCH, count, generator).exp()
    angle = _between(-_TURN, _TURN, count, generator)
    moves = [_between(-_MOVE, _MOVE, count, generator) for _ in range(2)]
    rows = [
        [scale * stretch * angle.cos(), -scale * angle.sin(), moves[0]],
        [scale * angle.sin(), scale / stretch * angle.cos(), moves[1]],
    ]
    maps = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _relit(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images with another contrast about their mean and another brightness."""
    count = len(images)
    contrast = _between(1 - _CONTRAST, 1 + _CONTRAST, count, generator)[:, None, None, None]
    light = _between(-_LIGHT, _LIGHT, count, generator)[:, None, None, None]
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + light).clamp(0, 1)
