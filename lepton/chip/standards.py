"""DRAMs from their standards: `drams/*.toml` state each figure once, with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["DRAM_STANDARDS", "DramStandard", "dram_standard"]

DRAM_STANDARDS = ("ddr4-3200", "hbm2", "lpddr4-3200", "lpddr5-6400")


@dataclass(frozen=True)
class DramStandard:
    """A DRAM that a chip file may name as the `standard` of a memory."""

    title: str
    """Standard, speed and organization."""
    fields: Mapping[str, object]
    """The keys of a `[[memory]]` table, without its name."""
    sources: Mapping[str, str]
    """Source of each figure, by key, in the standard's units; nCK is a command clock cycle."""

    def source(self, changed: Collection[str] = ()) -> str:
        """Return in one text the sources of all figures but the `changed` ones."""
        figures = [f"{key}: {text}" for key, text in self.sources.items() if key not in changed]
        return "; ".join([self.title, *figures])


@cache
def dram_standard(name: str) -> DramStandard:
    """Return one of `DRAM_STANDARDS`."""
    file = resources.files("lepton.chip") / "drams" / f"{name}.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return DramStandard(table["title"], table["memory"], table["sources"])
