"""What a compilation minimizes: `--optimize latency|energy|size`."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Objective"]


class Objective(StrEnum):
    """What a program was made to be least of."""

    LATENCY = "latency"
    """Cycles of one inference."""
    ENERGY = "energy"
    """Picojoules of one inference, memories included."""
    SIZE = "size"
    """Bytes of the instructions and the stored constants; of programs that are equal, cycles."""

    @property
    def unit(self) -> str:
        """What costs are in."""
        return {"latency": "cycles", "energy": "pJ", "size": "bytes"}[self.value]
