"""Prune networks: criteria, patterns, schedules with fine-tuning, and filters that really leave.

`prune_model` does all of it in one call. `layer_sensitivity` says which layers bear how much.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lepton.models.pruning.criteria import CRITERIA
    from lepton.models.pruning.gradual import FineTuning, Measured, prune_gradually, select
    from lepton.models.pruning.granularity import GRANULARITIES
    from lepton.models.pruning.holding import apply_masks, hold
    from lepton.models.pruning.model import Pruned, prune_model
    from lepton.models.pruning.report import LayerReport, PruningReport
    from lepton.models.pruning.schedule import SCHEDULES, Schedule
    from lepton.models.pruning.selection import Selection
    from lepton.models.pruning.sensitivity import (
        SensitivityRow,
        layer_sensitivity,
        sensitivity_table,
    )
    from lepton.models.pruning.surgery import FilterGraph, filter_graph

__all__ = [
    "CRITERIA",
    "GRANULARITIES",
    "SCHEDULES",
    "FilterGraph",
    "FineTuning",
    "LayerReport",
    "Measured",
    "Pruned",
    "PruningReport",
    "Schedule",
    "Selection",
    "SensitivityRow",
    "apply_masks",
    "filter_graph",
    "hold",
    "layer_sensitivity",
    "prune_gradually",
    "prune_model",
    "select",
    "sensitivity_table",
]

_HOMES = {
    "criteria": ("CRITERIA",),
    "gradual": ("FineTuning", "Measured", "prune_gradually", "select"),
    "granularity": ("GRANULARITIES",),
    "holding": ("apply_masks", "hold"),
    "model": ("Pruned", "prune_model"),
    "report": ("LayerReport", "PruningReport"),
    "schedule": ("SCHEDULES", "Schedule"),
    "selection": ("Selection",),
    "sensitivity": ("SensitivityRow", "layer_sensitivity", "sensitivity_table"),
    "surgery": ("FilterGraph", "filter_graph"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
