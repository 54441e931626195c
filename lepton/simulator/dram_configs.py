"""DRAM configurations in DRAMsim3's terms, so that its results can be compared with ours."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

from lepton.errors import ChipError
from lepton.simulator.dram_timing import Arbitration, DramTiming

__all__ = ["from_dramsim3"]

Section = Mapping[str, float | str]

DEFAULTS = {"tRTP": 5, "tRTRS": 2, "tPPD": 0}
"""What DRAMsim3 takes, silently, for timings that a file lacks."""


def _number(section: Section, name: str) -> int:
    """Return an integer; raise `ChipError` if it is missing."""
    if name not in section:
        raise ChipError(f"DRAM configuration: {name} is missing")
    return int(float(section[name]))


def from_dramsim3(
    name: str, configuration: Mapping[str, Section]
) -> tuple[DramTiming, Arbitration]:
    """Return the DRAM and controller of a configuration: its three sections, as in the INI file."""
    structure, system = configuration["dram_structure"], configuration["system"]
    times: Section = {**DEFAULTS, **configuration["timing"]}
    is_hbm = cast("str", structure["protocol"]).startswith("HBM")
    device_bits, bus_bits = _number(structure, "device_width"), _number(system, "bus_width")
    beats, rows = _number(structure, "BL"), _number(structure, "rows")
    groups, per_group = _number(structure, "bankgroups"), _number(structure, "banks_per_group")
    # an HBM column is two beats wide
    columns = _number(structure, "columns") * (2 if is_hbm else 1)
    row_bytes = columns * bus_bits // 8
    rank_mib = row_bytes * rows * groups * per_group >> 20
    plain = ("tRP", "tRAS", "tWR", "tRTP", "tCCD_S", "tCCD_L", "tRRD_S", "tRRD_L", "tFAW")
    plain += ("tWTR_S", "tWTR_L", "tRFC", "tREFI", "tRTRS", "tPPD")
    if bus_bits % device_bits:
        raise ChipError(f"DRAM configuration {name}: bus_width must be a multiple of device_width")
    timing = DramTiming(
        name=name,
        clock_mhz=1000 / Fraction(str(times["tCK"])),
        channels=_number(system, "channels"),
        ranks=max(1, _number(system, "channel_size") // rank_mib),
        bank_groups=groups,
        banks_per_group=per_group,
        rows=rows,
        row_bytes=row_bytes,
        access_bytes=bus_bits // 8 * beats,
        burst_cycles=beats // 2,
        mapping=cast("str", system["address_mapping"]),
        tCL=_number(times, "CL"),
        tCWL=_number(times, "CWL"),
        tRCDRD=_number(times, "tRCDRD" if is_hbm else "tRCD"),
        tRCDWR=_number(times, "tRCDWR" if is_hbm else "tRCD"),
        dual_command=is_hbm,
        **{field: _number(times, field) for field in plain},
    )
    queue, bank_queue = _number(system, "trans_queue_size"), _number(system, "cmd_queue_size")
    return timing, Arbitration(queue=queue, bank_queue=bank_queue)
