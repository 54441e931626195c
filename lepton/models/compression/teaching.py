"""What a network learns from its teacher while it is compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton.models.training.trainer import Loss

if TYPE_CHECKING:
    import torch

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["loss_of_pairs", "loss_of_teacher"]

_HARD_SHARE = 0.1
"""Of the labels' own cross-entropy in the loss of a distillation."""


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

    Source: Radosavovic et al., Data Distillation, CVPR 2018, section 3 (a teacher's answers for
    several transformed inputs, averaged); Hinton et al., arXiv:1503.02531 (the loss).
    """
    from lepton.models.torch_distillation import distillation_loss

    def loss(network: Any, inputs: Any, labels: Any) -> Any:
        import torch

        (images,) = inputs
        pairs = torch.cat([images, images.flip(3)])
        with torch.no_grad():
            wanted = torch.stack(teacher(pairs).chunk(2)).mean(0).repeat(2, 1)
        logits = (wanted, network(pairs))
        return distillation_loss(logits, labels.repeat(2), temperature, _HARD_SHARE)

    return loss
