"""The DRAMs of `lepton/chip/drams` against what other published models take for them.

docs/timing.md, section 14, says which figure each of them confirms.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import NamedTuple

import pytest

from lepton.chip import DRAM_STANDARDS, Dram, load_dram
from lepton.chip.standards import dram_standard


class Published(NamedTuple):
    """What a published model takes for a DRAM, in its cycles or, rounded up here, in ns."""

    standard: str
    cycles: dict[str, int]
    ns: Mapping[str, str] = MappingProxyType({})


PUBLISHED = {
    "DRAMsim3, configs/DDR4_8Gb_x8_3200.ini": Published(
        "ddr4-3200",
        {
            "tCL": 22, "tCWL": 16, "tRCD": 22, "tRP": 22, "tRAS": 52, "tWR": 24, "tRTP": 12,
            "tCCD_S": 4, "tCCD_L": 8, "tRRD_S": 4, "tRRD_L": 8, "tFAW": 34, "tWTR_S": 4,
            "tWTR_L": 12, "tRFC": 560, "tREFI": 12480, "bank_groups": 4, "banks_per_group": 4,
        },
    ),
    "Ramulator 2, src/dram/impl/DDR4.cpp, DDR4_3200AA": Published(
        "ddr4-3200",
        {
            "tCL": 22, "tCWL": 16, "tRCD": 22, "tRP": 22, "tRAS": 52, "tWR": 24, "tRTP": 12,
            "tCCD_S": 4, "tCCD_L": 8, "tRRD_S": 4, "tRRD_L": 8, "tFAW": 34, "tWTR_S": 4,
            "tWTR_L": 12, "tREFI": 12480, "burst_cycles": 4,
        },
    ),
    "DRAMSys, configs/memspec/JEDEC_8Gb_LPDDR4-3200_16bit.json": Published(
        "lpddr4-3200",
        {
            "tCL": 28, "tCWL": 14, "tRCD": 29, "tRP": 29, "tRAS": 68, "tWR": 29 + 1, "tRTP": 12,
            "tCCD_S": 8, "tRRD_S": 16, "tFAW": 64, "tWTR_S": 16 + 1, "tRFC": 448, "tREFI": 6246,
            "tRTRS": 6 + 2, "tPPD": 4, "bank_groups": 1, "banks_per_group": 8,
        },
    ),
    "gem5, src/mem/DRAMInterface.py, LPDDR5_6400_1x16_BG_BL16": Published(
        "lpddr5-6400",
        {"tPPD": 2, "bank_groups": 4, "banks_per_group": 4, "row_bytes": 2048},
        {
            "tCL": "21.25", "tRCD": "18", "tRP": "18", "tRAS": "42", "tCCD_S": "2.5",
            "tCCD_L": "5", "tRRD_S": "5", "tRRD_L": "5", "tFAW": "20", "tWTR_S": "6.25",
            "tRFC": "210",
        },
    ),
    "Ramulator 2, python/ramulator/dram/lpddr5.py, LPDDR5_6400": Published(
        "lpddr5-6400",
        {
            "tCL": 17, "tCWL": 9, "tRCD": 15, "tRP": 15, "tRAS": 34, "tWR": 28 + 1, "tCCD_S": 2,
            "tCCD_L": 4, "tRRD_S": 4, "tRRD_L": 4, "tFAW": 16, "tWTR_S": 5, "tWTR_L": 10 + 2,
            "tRFC": 168, "tREFI": 3125, "tPPD": 2, "burst_cycles": 2,
        },
    ),
    "DRAMsim3, configs/HBM2_8Gb_x128.ini": Published(
        "hbm2",
        {
            "tCL": 14, "tCWL": 4, "tRCD": 14, "tRP": 14, "tRAS": 34, "tWR": 16, "tRTP": 6,
            "tRRD_S": 4, "tRRD_L": 6, "tWTR_S": 6, "tWTR_L": 8, "tREFI": 3900,
        },
    ),
    "Ramulator 2, python/ramulator/dram/hbm2.py, HBM2_2000Mbps": Published(
        "hbm2",
        {
            "tCL": 14, "tRCD": 14, "tRP": 14, "tRAS": 34, "tWR": 16, "tCCD_S": 2, "tCCD_L": 4,
            "tRRD_S": 4, "tWTR_S": 6, "tWTR_L": 8, "tREFI": 3900, "burst_cycles": 2,
        },
    ),
    "gem5, src/mem/DRAMInterface.py, HBM_2000_4H_1x64": Published(
        "hbm2",
        {"bank_groups": 4},
        {"tRP": "14", "tRRD_S": "4", "tRRD_L": "6", "tFAW": "16", "tREFI": "3900"},
    ),
}  # fmt: skip

READ_TO_WRITE = {
    "ddr4-3200": 22 - 16 + 4 + 2,
    "lpddr4-3200": 28 + 6 + 8 - 14 + 2,
    "lpddr5-6400": 17 + 4 + 2 - 9,
    "hbm2": 14 + 2 - 4 + 2,
}
"""RL + BL/n + the preambles or the data's delay - WL."""


@pytest.mark.parametrize("source", PUBLISHED)
def test_figures_are_those_of_other_models(source: str) -> None:
    published = PUBLISHED[source]
    dram = load_dram(published.standard)
    wanted = published.cycles | {
        name: ceil(Fraction(ns) * dram.clock_mhz / 1000) for name, ns in published.ns.items()
    }
    assert {name: getattr(dram, name) for name in wanted} == wanted


def test_hbm2_refreshes_8_gb_per_channel() -> None:
    """tRFC by density per channel: 160, 260, 350 ns for 2, 4, 8 Gb (Ramulator 2, HBM2.cpp)."""
    dram = load_dram("hbm2")
    assert dram.size_bytes * 8 // dram.channels == 8 << 30
    assert dram.tRFC == {2: 160, 4: 260, 8: 350}[8] * dram.clock_mhz / 1000


def test_lpddr5_reads_before_a_precharge() -> None:
    """BL/n_min 2 nCK and tRBTP, max(7.5 ns, 2 nCK) less 2 nCK (gem5, LPDDR5_5500_1x16_BG_BL32)."""
    dram = load_dram("lpddr5-6400")
    assert dram.tRTP == dram.burst_cycles + ceil(Fraction("7.5") * dram.clock_mhz / 1000) - 2


@pytest.mark.parametrize("name", DRAM_STANDARDS)
def test_reads_before_writes(name: str) -> None:
    dram = load_dram(name)
    assert dram.tCL + dram.burst_cycles - dram.tCWL + dram.tRTRS == READ_TO_WRITE[name]


@pytest.mark.parametrize("name", DRAM_STANDARDS)
def test_every_timing_is_sourced(name: str) -> None:
    timings = {key for key in Dram.__annotations__ if key.startswith("t")}
    sources = dram_standard(name).sources
    assert timings | {"queue", "mapping"} <= set(sources)
    assert all(sources.values())


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("ddr4-3200", "25.6"), ("lpddr4-3200", "25.6"), ("lpddr5-6400", "51.2"), ("hbm2", "256")],
)
def test_bandwidths(name: str, gigabytes: str) -> None:
    assert load_dram(name).bytes_per_second == Fraction(gigabytes) * 10**9
