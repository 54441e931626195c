"""Lepton: compile quantized networks to an NPU's instructions and simulate it, values and cycles.

The names here are all that most users need; nothing heavy is imported before one is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lepton.api import (
        Model,
        check,
        compile,
        estimate,
        load_model,
        load_program,
        place,
        simulate,
    )
    from lepton.chip import Chip, load_chip
    from lepton.errors import LeptonError
    from lepton.explore.bits import bits_for_chip
    from lepton.explore.engine import sweep
    from lepton.models.distillation import distil
    from lepton.models.pruning import prune_model
    from lepton.models.quantization import quantize_model
    from lepton.models.sharing import share_weights
    from lepton.program import Program
    from lepton.runtime.photo import preprocess_image

__all__ = [
    "Chip",
    "LeptonError",
    "Model",
    "Program",
    "bits_for_chip",
    "check",
    "compile",
    "distil",
    "estimate",
    "load_chip",
    "load_model",
    "load_program",
    "place",
    "preprocess_image",
    "prune_model",
    "quantize_model",
    "share_weights",
    "simulate",
    "sweep",
]

_HOMES = {
    "Chip": "lepton.chip",
    "load_chip": "lepton.chip",
    "LeptonError": "lepton.errors",
    "Program": "lepton.program",
    "bits_for_chip": "lepton.explore.bits",
    "distil": "lepton.models.distillation",
    "preprocess_image": "lepton.runtime.photo",
    "prune_model": "lepton.models.pruning",
    "quantize_model": "lepton.models.quantization",
    "share_weights": "lepton.models.sharing",
    "sweep": "lepton.explore.engine",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'lepton' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "lepton.api")), name)
