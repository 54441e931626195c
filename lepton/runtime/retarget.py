"""Another chip under a compiled program: only timing and energy may differ."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from lepton.chip import Chip
from lepton.errors import InputError
from lepton.program import Program

__all__ = ["retarget"]

_TIMING = {
    "clock_mhz",
    "bytes_per_cycle",
    "read_latency_cycles",
    "write_latency_cycles",
    "reads_in_flight",
    "writes_in_flight",
}
_DESCRIPTIVE = {"name", "description", "sources", "technology"}
"""Top-level keys that change neither values nor cycles."""


def _is_timing(key: str) -> bool:
    """Return whether a key of a chip may differ: clocks, memory latencies and bandwidths."""
    return key in _TIMING or (key[0] == "t" and key[1:2].isupper())


def _difference(old: Any, new: Any, prefix: str) -> str:
    """Return the first key in which two values differ and may not, "" if there is none."""
    if type(old) is not type(new):
        return prefix
    if isinstance(old, tuple):
        if len(old) != len(new):
            return prefix
        pairs = [(str(index), a, b) for index, (a, b) in enumerate(zip(old, new, strict=True))]
    elif dataclasses.is_dataclass(old):
        pairs = [
            (f.name, getattr(old, f.name), getattr(new, f.name)) for f in dataclasses.fields(old)
        ]
    else:
        return prefix if old != new else ""
    for name, a, b in pairs:
        if _is_timing(name) or (name in _DESCRIPTIVE and not prefix):
            continue
        found = _difference(a, b, f"{prefix}.{name}" if prefix else name)
        if found:
            return found
    return ""


def retarget(program: Program, chip: Chip) -> Program:
    """Return the program with another chip's timing and energy.

    Raises:
        InputError: the chips differ in more, naming the key.
    """
    key = _difference(program.chip, chip, "")
    if key:
        raise InputError(
            f"the program was compiled for chip '{program.chip.name}', which differs from "
            f"'{chip.name}' in {key}; compile it again, --chip may change only timing and energy"
        )
    return replace(program, chip=chip)
