"""Distillation: a student learns from a teacher's probabilities and features."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lepton.errors import InputError
from lepton.models.checkpoint import Checkpoint
from lepton.models.extras import require

if TYPE_CHECKING:
    import torch

    from lepton.models.torch_distillation import FeatureMatch

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["Batches", "DistilOptions", "distil"]

Batches: TypeAlias = "Callable[[int], Iterable[tuple[Any, torch.Tensor | None]]]"
"""Epoch number -> its batches: inputs (a tensor or a tuple of them), and labels `[n]` or None."""


@dataclass(frozen=True)
class DistilOptions:
    """How the student learns.

    Attributes:
        temperature: T of both softmaxes.
        hard_share: part of the labels' own cross-entropy in the loss, 0 to 1.
        features: path of a teacher's module -> of the student's module to match.
        feature_share: factor of the features' squared error in the loss.
        epochs: passes over the batches.
        learning_rate: of AdamW at the start; it falls to zero along a cosine.
        weight_decay: of AdamW.
        seed: of whatever is random in an epoch, and of the projections.
    """

    temperature: float = 4.0
    hard_share: float = 0.1
    features: Mapping[str, str] = field(default_factory=dict[str, str])
    feature_share: float = 1.0
    epochs: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("feature_share", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.hard_share <= 1:
            raise InputError(f"hard_share must be 0 to 1, not {self.hard_share}")
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1, not {self.epochs}")


def distil(
    teacher: torch.nn.Module,
    student: torch.nn.Module,
    batches: Batches,
    options: DistilOptions | None = None,
    *,
    checkpoint: Path | None = None,
) -> list[float]:
    """Train a student, in place, to give a teacher's probabilities.

    Args:
        teacher: any module that makes logits `[n, classes]`; it stays as it is.
        student: any module that takes the same inputs.
        batches: gives the batches of an epoch.
        options: of the losses and the training.
        checkpoint: file of the training's state, written after each epoch; where it exists the
            training goes on from it, to the same end.

    Returns:
        The mean loss of each epoch.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: a damaged checkpoint or one of another training, a module that is not there, an
            epoch without batches, logits of two shapes, labels that are no classes of theirs, or a
            loss that is no number.
    """
    require("torch")
    import torch

    options = options or DistilOptions()
    was_training = teacher.training
    teacher.eval()
    student.eval()
    torch.manual_seed(options.seed)
    match = _feature_match((teacher, student), batches, options)
    try:
        run = _Run(student, match, options)
        kept = None if checkpoint is None else Checkpoint(checkpoint, run.known)
        losses = [] if kept is None else run.restored(kept.load())
        for epoch in range(len(losses), options.epochs):
            losses.append(_train_epoch((teacher, student), batches, run, epoch))
            if kept is not None:
                kept.save(run.state(losses))
    finally:
        teacher.train(was_training)
        if match is not None:
            match.detach()
    student.eval()
    return losses


class _Run:
    """A training's state: what a checkpoint holds."""

    def __init__(
        self, student: torch.nn.Module, match: FeatureMatch | None, options: DistilOptions
    ) -> None:
        import torch

        self.match, self.options = match, options
        modules = [student] if match is None else [student, match]
        self._parts: dict[str, Any] = dict(zip(("student", "match"), modules, strict=False))
        parameters = [item for module in modules for item in module.parameters()]
        self.optimizer = torch.optim.AdamW(
            parameters, options.learning_rate, weight_decay=options.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, options.epochs)
        self._parts |= {"optimizer": self.optimizer, "schedule": self.schedule}
        tensors = {name: list(value.shape) for name, value in student.state_dict().items()}
        self.known = json.dumps([asdict(options), tensors], sort_keys=True)
        """What tells this training from others."""

    def state(self, losses: list[float]) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {"losses": losses, "parts": parts}

    def restored(self, state: dict[str, Any] | None) -> list[float]:
        """Take over a state; return the losses of its epochs."""
        if state is None:
            return []
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        return list(state["losses"])


def _train_epoch(
    networks: tuple[torch.nn.Module, torch.nn.Module], batches: Batches, run: _Run, epoch: int
) -> float:
    """Train the student for an epoch; return the mean loss."""
    import torch
    from tqdm import tqdm

    torch.manual_seed(run.options.seed + epoch)
    networks[1].train()
    losses: list[float] = []
    for inputs, labels in tqdm(
        batches(epoch), f"epoch {epoch + 1} of {run.options.epochs}", disable=None, leave=False
    ):
        run.optimizer.zero_grad()
        loss = _loss(networks, inputs, labels, run)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise InputError(
                f"the loss is {losses[-1]} in epoch {epoch + 1}: choose a lower learning rate, and "
                "samples that are finite"
            )
        loss.backward()
        run.optimizer.step()
    if not losses:
        raise InputError(f"epoch {epoch} has no batches")
    run.schedule.step()
    return sum(losses) / len(losses)


def _loss(
    networks: tuple[torch.nn.Module, torch.nn.Module],
    inputs: Any,
    labels: torch.Tensor | None,
    run: _Run,
) -> torch.Tensor:
    """Return the loss of a batch."""
    import torch

    from lepton.models.torch_distillation import distillation_loss

    given = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        wanted = networks[0](*given)
    logits = (wanted, networks[1](*given))
    options = run.options
    loss = distillation_loss(logits, labels, options.temperature, options.hard_share)
    return loss if run.match is None else loss + options.feature_share * run.match()


def _feature_match(
    networks: tuple[torch.nn.Module, torch.nn.Module], batches: Batches, options: DistilOptions
) -> FeatureMatch | None:
    """Return the comparison of features; the first batch says how many channels they have."""
    if not options.features:
        return None
    import torch

    from lepton.models.torch_distillation import FeatureMatch, same_size

    for network, paths in zip(networks, (options.features, options.features.values()), strict=True):
        known = {path for path, _ in network.named_modules()}
        unknown = next((path for path in paths if path not in known), None)
        if unknown is not None:
            raise InputError(f"the {type(network).__name__} has no module '{unknown}' to match")
    inputs = next(iter(batches(0)))[0]
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    seen: list[Any] = []

    def note(_module: object, _inputs: object, made: Any) -> None:
        seen.append(made[0] if isinstance(made, tuple) else made)

    channels: list[tuple[int, int]] = []
    for pair in options.features.items():
        seen.clear()
        for network, path in zip(networks, pair, strict=True):
            handle = network.get_submodule(path).register_forward_hook(note)
            with torch.no_grad():
                network(*given)
            handle.remove()
        sizes = [int(feature.shape[-1]) for feature in same_size(*seen)]
        channels.append((sizes[0], sizes[1]))
    return FeatureMatch(networks, options.features, channels)
