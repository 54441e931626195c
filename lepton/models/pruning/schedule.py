"""How fast to prune: rates step by step."""

from __future__ import annotations

from dataclasses import dataclass

from lepton.errors import InputError
from lepton.models.pruning.masks import pruned_count

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES = ("one-shot", "linear", "cubic")


@dataclass(frozen=True)
class Schedule:
    """Rates of n pruning steps, each followed by fine-tuning.

    `linear`: rate t / n. `cubic`: rate (1 - (1 - t / n)^3), fast while there is much to spare.
    `one-shot`: the whole rate at once. t is 1, …, n.

    Attributes:
        kind: one of `SCHEDULES`.
        steps: n; 1 for `one-shot`.
        epochs: of fine-tuning after each step.

    Source: Zhu and Gupta, "To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model
    Compression", 2017, for the cubic one, from an initial rate of 0.
    """

    kind: str = "one-shot"
    steps: int = 1
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise InputError(f"a pruning schedule is one of {known}, not {self.kind!r}")
        if self.steps < 1 or (self.kind == "one-shot" and self.steps != 1):
            raise InputError(f"a {self.kind} schedule cannot have {self.steps} steps")
        if self.epochs < 0:
            raise InputError(f"epochs of fine-tuning cannot be {self.epochs}")

    def rates(self, rate: float) -> list[float]:
        """Return the rate after each step; the last is `rate` itself.

        Raises:
            InputError: The rate is not from 0 to 1.
        """
        pruned_count(rate, 1)
        power = 3 if self.kind == "cubic" else 1
        made = [rate * (1 - (1 - t / self.steps) ** power) for t in range(1, self.steps)]
        return [*made, rate]
