"""Energies of the external memories, by kind."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["MEMORY_KINDS", "MemoryEnergy", "Rail", "memory_energy"]

MEMORY_KINDS = {
    **dict.fromkeys(("lpddr4", "lpddr5", "ddr4", "hbm2"), "dram"),
    **dict.fromkeys(("dram", "flash", "sram"), "flat"),
}
"""Kinds, and the kind of `[[memory]]` that each is for."""


@dataclass(frozen=True)
class Rail:
    """Currents in mA that one DRAM device draws from one supply, in the states of JEDEC."""

    volts: float
    idd0: float
    idd2n: float
    idd3n: float
    idd4r: float
    idd4w: float
    idd5: float


@dataclass(frozen=True)
class MemoryEnergy:
    """The energies of a kind of memory; a DRAM's follow from `rails` unless stated."""

    kind: str
    source: str
    device_bits: int = 0
    """Data bits of one DRAM device's bus."""
    rails: tuple[Rail, ...] = ()
    activate_pj_per_row_byte: float | None = None
    data_pj_per_bit: float | None = None
    read_pj_per_byte: float = 0.0
    write_pj_per_byte: float = 0.0
    standby_mw: float = 0.0


@cache
def memory_energy(kind: str) -> MemoryEnergy:
    """Return the energies of a kind of `MEMORY_KINDS`."""
    file = resources.files("lepton.chip.technology") / "memories.toml"
    table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))[kind]
    rails = tuple(Rail(**rail) for rail in table.pop("rails", []))
    return MemoryEnergy(rails=rails, **table)
