"""One run that is to be done."""

from __future__ import annotations

from dataclasses import dataclass

from lepton.chip import Chip
from lepton.explore.space import Setting

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """A workload, by its number, on a chip."""

    key: str
    workload: int
    chip: Chip
    setting: Setting
