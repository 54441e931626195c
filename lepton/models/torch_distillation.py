"""The losses of distillation, and the modules that compare features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lepton.errors import InputError

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["FeatureMatch", "distillation_loss", "soft_cross_entropy"]


def soft_cross_entropy(
    teacher: torch.Tensor, student: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return -T^2 sum_k p_k log q_k, averaged over rows; p, q are softmax(logits / T).

    T^2 keeps the gradients' size as T grows.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531.

    Args:
        teacher: logits `[n, classes]`, p.
        student: logits `[n, classes]`, q.
        temperature: T.

    Raises:
        InputError: the logits differ in shape, or are no rows of numbers.
    """
    shapes = [list(getattr(part, "shape", ())) for part in (teacher, student)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2:
        raise InputError(
            "the logits of teacher and student must both be [n, classes], not "
            f"{shapes[0]} and {shapes[1]}"
        )
    target = functional.softmax(teacher / temperature, dim=-1)
    found = functional.log_softmax(student / temperature, dim=-1)
    return -(target * found).sum(-1).mean() * temperature**2


def distillation_loss(
    logits: tuple[torch.Tensor, torch.Tensor],
    labels: torch.Tensor | None,
    temperature: float,
    hard_share: float,
) -> torch.Tensor:
    """Return (1 - h) soft_cross_entropy + h cross_entropy(labels); without labels the first alone.

    Args:
        logits: of the teacher and of the student.
        labels: `[n]`.
        temperature: T.
        hard_share: h.

    Raises:
        InputError: the logits differ in shape, or the labels are none of their classes.
    """
    soft = soft_cross_entropy(*logits, temperature)
    if labels is None or hard_share == 0:
        return soft
    _check_labels(labels, *logits[1].shape)
    return (1 - hard_share) * soft + hard_share * functional.cross_entropy(logits[1], labels)


def _check_labels(labels: torch.Tensor, count: int, classes: int) -> None:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise InputError(
            f"the labels of {count} samples must be int64 [{count}], not "
            f"{str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}"
        )
    low, high = (int(extreme) for extreme in labels.aminmax()) if count else (0, 0)
    if low < 0 or high >= classes:
        raise InputError(f"labels must be 0 to {classes - 1}, not {low} to {high}")


class FeatureMatch(nn.Module):
    """Compares what modules of two networks make: mean (teacher - projection(student))^2.

    A projection is a linear map of channels, trained with the student: channels are the second
    dimension of images `[n, c, h, w]` and the last of anything else. Images are averaged down to
    the smaller of the two sizes.

    Source: Romero et al., FitNets, ICLR 2015, section 2.2, where the projection is a convolution.

    Args:
        teacher, student: the networks.
        pairs: path of a teacher's module -> path of a student's.
        channels: of each pair, the teacher's and the student's.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        pairs: Mapping[str, str],
        channels: list[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Linear(student, teacher, bias=False) for teacher, student in channels
        )
        self._pairs = list(pairs.items())
        self._made: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
        paths = (list(pairs), list(pairs.values()))
        self._handles = [
            networks[side]
            .get_submodule(path)
            .register_forward_hook(_keeping(self._made[side], path))
            for side in (0, 1)
            for path in paths[side]
        ]

    def forward(self) -> torch.Tensor:
        """Return the sum over the pairs, of the networks' last runs."""
        losses: list[torch.Tensor] = []
        for (teacher, student), projection in zip(self._pairs, self.projections, strict=True):
            wanted, found = self._made[0][teacher].detach(), self._made[1][student]
            wanted, found = same_size(wanted, found)
            losses.append((wanted - projection(found)).square().mean())
        return torch.stack(losses).sum()

    def detach(self) -> None:
        """Let the networks be as they were."""
        for handle in self._handles:
            handle.remove()


def _keeping(kept: dict[str, torch.Tensor], path: str) -> Any:
    def hook(_module: nn.Module, _inputs: object, made: Any) -> None:
        kept[path] = made[0] if isinstance(made, tuple) else made

    return hook


def same_size(*features: torch.Tensor) -> list[torch.Tensor]:
    """Return features with their channels last, images at the smallest of their sizes."""
    if any(feature.ndim != 4 for feature in features):
        return list(features)
    size = [min(feature.shape[axis] for feature in features) for axis in (2, 3)]
    pooled = [functional.adaptive_avg_pool2d(feature, (size[0], size[1])) for feature in features]
    return [feature.permute(0, 2, 3, 1) for feature in pooled]
