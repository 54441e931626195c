"""The chip: frozen dataclasses read from TOML, and the presets shipped with the package."""

from lepton.chip.description import Chip, Dataflow, Dram, Flat, Memory
from lepton.chip.standards import DRAM_STANDARDS
from lepton.chip.toml import (
    PRESETS,
    chip_from_table,
    chip_to_table,
    load_chip,
    load_dram,
    parse_chip,
)

__all__ = [
    "DRAM_STANDARDS",
    "PRESETS",
    "Chip",
    "Dataflow",
    "Dram",
    "Flat",
    "Memory",
    "chip_from_table",
    "chip_to_table",
    "load_chip",
    "load_dram",
    "parse_chip",
]
