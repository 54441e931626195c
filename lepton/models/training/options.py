"""What decides the result of a training, and the learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from lepton.errors import InputError

__all__ = ["Optimizer", "Schedule", "TrainingOptions", "rate_at"]

WARM_UP = 0.2
"""Part of the steps in which the rate rises."""


class Optimizer(StrEnum):
    """How a step follows from the slopes."""

    ADAMW = "adamw"
    """Source: I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019."""
    MUON = "muon"
    """Orthogonalized for the kernels of hidden layers, Adam for the rest: `torch_muon.Muon`."""


class Schedule(StrEnum):
    """How the learning rate goes over a training of s steps; t = step / s in 0..1."""

    CONSTANT = "constant"
    """Always the given rate."""
    COSINE = "cosine"
    """rate (1 + cos(pi t)) / 2. Source: I. Loshchilov, F. Hutter, SGDR, 2017, equation 5."""
    WARM_UP_COSINE = "warm-up-cosine"
    """A straight line from 0 during the first fifth, the cosine over the rest."""


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides the result beside network and data.

    Attributes:
        seed: of the order of samples, augmentation and dropout.
        epochs: passes over the training samples.
        batch: samples of a step.
        optimizer: of the steps.
        learning_rate: of AdamW, or of Muon's matrices, at its peak.
        weight_decay: of AdamW; Muon has none.
        schedule: of the learning rate.
        label_smoothing: for classes, 0..1.
        shift: images move by up to so many pixels on both axes.
        repeat_edges: what moves in repeats the edge of the image, and is not zeros.
        flip: half of the images are mirrored left to right.
    """

    seed: int = 0
    epochs: int = 10
    batch: int = 128
    optimizer: Optimizer = Optimizer.ADAMW
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    schedule: Schedule = Schedule.WARM_UP_COSINE
    label_smoothing: float = 0.0
    shift: int = 0
    repeat_edges: bool = False
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must be in 0..1, not {self.label_smoothing}")
        for name in ("shift", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must not be negative, not {getattr(self, name)}")


def rate_at(options: TrainingOptions, step: int, steps: int) -> float:
    """Return the learning rate of one of a training's steps, counted from 0."""
    if options.schedule is Schedule.CONSTANT:
        return options.learning_rate
    warm_up = 0 if options.schedule is Schedule.COSINE else int(WARM_UP * steps)
    if step < warm_up:
        return options.learning_rate * (step + 1) / (warm_up + 1)
    progress = (step - warm_up) / (steps - warm_up)
    return options.learning_rate * (1 + math.cos(math.pi * progress)) / 2
