"""What is done to a network, step by step."""

from __future__ import annotations

from dataclasses import dataclass

from lepton.errors import InputError

__all__ = ["CompressionRecipe"]


_EPOCHS, _STEPS = 3, 400
"""Of a training, at least."""


@dataclass(frozen=True)
class CompressionRecipe:
    """Which steps a network goes through, in the order of these fields, and how each trains.

    Attributes:
        prune: pruned / total; None for as much as an N:M `pattern` prunes, or nothing.
        pattern: of what is pruned (`lepton.models.pruning.prune_model`).
        criterion: by which it is chosen.
        scope: `layer` or `global`.
        prune_steps: of the cubic schedule.
        temperature: of distillation, where there is a teacher.
        share: levels of each weight, found by k-means and trained; not with `bits` below 8.
        bits: of the weights, 1 to 8, trained with the rounding.
        epochs: of training in each step, in pruning after each of its steps; None for 3, or on few
            samples as many as 400 steps of the optimizer take.
        learning_rate: at its peak.
        batch: samples of a training step.
        seed: of everything drawn.
    """

    prune: float | None = None
    pattern: str | None = None
    criterion: str = "layer share"
    scope: str = "global"
    prune_steps: int = 3
    temperature: float = 4.0
    share: int | None = None
    bits: int = 8
    epochs: int | None = None
    learning_rate: float = 5e-3
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.share is not None and self.bits != 8:
            raise InputError(
                f"weights are shared or rounded to {self.bits} bits, not both: a codebook of 2^n "
                "levels takes n bits"
            )
        if not 1 <= self.bits <= 8:
            raise InputError(f"weights have 1 to 8 bits, not {self.bits}")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"epochs must be at least 1, not {self.epochs}")

    def epochs_of(self, samples: int) -> int:
        """Return the epochs of a step that trains on so many samples."""
        steps = -(-samples // self.batch)
        return self.epochs or max(_EPOCHS, -(-_STEPS // steps))

    @property
    def prunes(self) -> bool:
        return self.prune is not None or self.pattern is not None
