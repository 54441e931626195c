"""Prune a torch module step by step, fine-tuning in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lepton.errors import InputError
from lepton.models.checkpoint import Checkpoint
from lepton.models.pruning.holding import apply_masks, hold, layer_weights
from lepton.models.pruning.schedule import Schedule
from lepton.models.pruning.selection import Masks, Selection, masks_for
from lepton.models.pruning.slopes import Batches, Loss, slopes_for

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch and tqdm are typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportMissingModuleSource=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["FineTuning", "Measured", "Train", "load_step", "prune_gradually", "save_step", "select"]

Train: TypeAlias = "Callable[[nn.Module, int], None]"
"""Trains a module for so many epochs."""

_MASK = "pruning mask of "


@dataclass(frozen=True)
class FineTuning:
    """What happens between pruning steps.

    Attributes:
        train: trains the module for so many epochs; None prunes without fine-tuning.
        schedule: the steps.
        checkpoint: a file to save each step to, and to go on from if it exists.
    """

    train: Train | None = None
    schedule: Schedule = field(default_factory=Schedule)
    checkpoint: Path | None = None

    def file(self, tensors: Mapping[str, torch.Tensor], settings: object) -> Checkpoint | None:
        """Return the checkpoint of a pruning that begins with some tensors, if there is one."""
        import torch

        if self.checkpoint is None:
            return None
        digest = hashlib.sha256(repr((settings, self.schedule)).encode())
        for name, tensor in tensors.items():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
        return Checkpoint(self.checkpoint, digest.hexdigest())


@dataclass(frozen=True)
class Measured:
    """Samples for criteria that measure slopes.

    Attributes:
        data: batches of inputs and targets.
        loss: cross-entropy of logits and class numbers, if None.
    """

    data: Batches | None = None
    loss: Loss | None = None


def save_step(checkpoint: Checkpoint, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Keep the tensors after `step` finished steps, and torch's random state."""
    import torch

    checkpoint.save({"step": step, "tensors": dict(tensors), "random": torch.get_rng_state()})


def load_step(checkpoint: Checkpoint) -> tuple[int, dict[str, torch.Tensor]]:
    """Return the finished steps and their tensors, and set torch's random state; 0 if none."""
    import torch

    state = checkpoint.load()
    if state is None:
        return 0, {}
    torch.set_rng_state(state["random"])
    return state["step"], state["tensors"]


def select(
    module: nn.Module,
    rate: float,
    selection: Selection,
    measured: Measured | None = None,
    held: Masks | None = None,
) -> Masks:
    """Return the masks of a module's layers, which does not change.

    Args:
        module: its layers are those of `holding.layer_weights`.
        rate: pruned / total.
        selection: what to prune.
        measured: for criteria that measure slopes.
        held: masks of before; what they prune stays pruned and counts.

    Raises:
        InputError: The criterion needs data, or a name or a rate is wrong.
    """
    weights = layer_weights(module)
    if not weights:
        raise InputError("the module has no layer with weights to prune")
    parameters = {name: item.parameter for name, item in weights.items()}
    samples = measured or Measured()
    slopes = slopes_for(selection.criterion, module, parameters, samples.data, samples.loss)
    turned = {name: item.oriented_by(weights[name].oriented) for name, item in slopes.items()}
    arrays = {name: item.array() for name, item in weights.items()}
    return masks_for(arrays, selection, rate, turned, held)


def prune_gradually(
    module: nn.Module,
    rate: float,
    selection: Selection,
    tuning: FineTuning,
    measured: Measured | None = None,
) -> Masks:
    """Prune a module in the steps of a schedule; return its masks.

    The module is changed: pruned weights are exactly 0, in training too. What a step has pruned
    stays pruned.

    Args:
        module: is changed.
        rate: pruned / total after the last step.
        selection: what to prune; its own rates and threshold grow with the schedule as well.
        tuning: the schedule, what trains, and where to save.
        measured: for criteria that measure slopes.

    Raises:
        InputError: The criterion needs data, a name or a rate is wrong, or a checkpoint is
            damaged or another run's.
    """
    from tqdm import tqdm

    parts = tuning.schedule.rates(1.0)
    checkpoint = tuning.file(module.state_dict(), (rate, selection))
    done, masks = (0, {}) if checkpoint is None else _resumed(module, checkpoint)
    # disable=None shows the bar on a terminal only
    for step in tqdm(range(done, len(parts)), desc="pruning", unit="step", disable=None):
        part = parts[step]
        masks = select(module, rate * part, selection.scaled(part), measured, masks or None)
        with hold(module, masks):
            if tuning.train is not None and tuning.schedule.epochs:
                tuning.train(module, tuning.schedule.epochs)
        if checkpoint is not None:
            save_step(checkpoint, step + 1, _state(module, masks))
    apply_masks(module, masks)
    return masks


def _state(module: nn.Module, masks: Masks) -> dict[str, torch.Tensor]:
    import torch

    held = {f"{_MASK}{name}": torch.from_numpy(mask) for name, mask in masks.items()}
    return {**module.state_dict(), **held}


def _resumed(module: nn.Module, checkpoint: Checkpoint) -> tuple[int, Masks]:
    step, tensors = load_step(checkpoint)
    if not step:
        return 0, {}
    masks = _masks_of(tensors)
    state = {name: value for name, value in tensors.items() if not name.startswith(_MASK)}
    module.load_state_dict(state)
    return step, masks


def _masks_of(tensors: Mapping[str, torch.Tensor]) -> Masks:
    return {
        name.removeprefix(_MASK): value.numpy()
        for name, value in tensors.items()
        if name.startswith(_MASK)
    }
