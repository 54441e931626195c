"""DRAMs from their standards: each timing with the standard's own figure it was rounded up from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lepton.simulator.dram_timing import DramTiming

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A DRAM with the source of its values."""

    timing: DramTiming
    standard: str
    sources: dict[str, str]
    """Source of each timing, by field, in the standard's units; nCK is a command clock cycle."""


def _preset(
    standard: str, organization: dict[str, int], mapping: str, clock_mhz: Fraction,
    values: dict[str, tuple[int, str]], *, dual_command: bool = False,
) -> Preset:  # fmt: skip
    timings = {name: cycles for name, (cycles, _) in values.items()}
    timing = DramTiming(
        name=standard.split(",")[0],
        clock_mhz=clock_mhz,
        mapping=mapping,
        dual_command=dual_command,
        **organization,
        **timings,
    )
    return Preset(timing, standard, {name: text for name, (_, text) in values.items()})


DDR4_3200 = _preset(
    "DDR4-3200, JEDEC JESD79-4, bin 3200AA, a 64-bit channel of 8 Gb x8 devices (1 KiB page), BL8",
    {
        "channels": 1, "ranks": 1, "bank_groups": 4, "banks_per_group": 4, "rows": 65536,
        "row_bytes": 8192, "access_bytes": 64, "burst_cycles": 4,
    },
    "rorabacobgch",
    Fraction(1600),
    {
        "tCL": (22, "CL 22 nCK (13.75 ns)"),
        "tCWL": (16, "CWL 16 nCK, write preamble of 1 nCK"),
        "tRCDRD": (22, "tRCD 13.75 ns"),
        "tRCDWR": (22, "tRCD 13.75 ns"),
        "tRP": (22, "tRP 13.75 ns"),
        "tRAS": (52, "tRAS 32 ns"),
        "tWR": (24, "tWR 15 ns"),
        "tRTP": (12, "tRTP max(4 nCK, 7.5 ns)"),
        "tCCD_S": (4, "tCCD_S 4 nCK"),
        "tCCD_L": (8, "tCCD_L max(4 nCK, 5 ns)"),
        "tRRD_S": (4, "tRRD_S max(4 nCK, 2.5 ns), 1 KiB page"),
        "tRRD_L": (8, "tRRD_L max(4 nCK, 4.9 ns), 1 KiB page"),
        "tFAW": (34, "tFAW max(20 nCK, 21 ns), 1 KiB page"),
        "tWTR_S": (4, "tWTR_S max(2 nCK, 2.5 ns)"),
        "tWTR_L": (12, "tWTR_L max(4 nCK, 7.5 ns)"),
        "tRFC": (560, "tRFC1 350 ns, 8 Gb"),
        "tREFI": (12480, "tREFI 7.8 us"),
        "tRTRS": (2, "read to write CL - CWL + BL/2 + 2 nCK, preambles of 1 nCK"),
    },
)  # fmt: skip

LPDDR4_3200 = _preset(
    "LPDDR4-3200, JEDEC JESD209-4, four 16-bit channels of 8 Gb, BL16",
    {
        "channels": 4, "ranks": 1, "bank_groups": 1, "banks_per_group": 8, "rows": 65536,
        "row_bytes": 2048, "access_bytes": 32, "burst_cycles": 8,
    },
    "rorababgcoch",
    Fraction(1600),
    {
        "tCL": (28, "RL 28 nCK, DBI off; tDQSCK is left out"),
        "tCWL": (14, "WL 14 nCK, set A"),
        "tRCDRD": (29, "tRCD 18 ns"),
        "tRCDWR": (29, "tRCD 18 ns"),
        "tRP": (29, "tRPpb 18 ns"),
        "tRAS": (68, "tRAS 42 ns"),
        "tWR": (30, "tWR 18 ns, and 1 nCK in the write-to-precharge rule"),
        "tRTP": (12, "tRTP 7.5 ns"),
        "tCCD_S": (8, "tCCD 8 nCK, BL16"),
        "tCCD_L": (8, "tCCD 8 nCK, BL16; no bank groups"),
        "tRRD_S": (16, "tRRD 10 ns"),
        "tRRD_L": (16, "tRRD 10 ns; no bank groups"),
        "tFAW": (64, "tFAW 40 ns"),
        "tWTR_S": (17, "tWTR 10 ns, and 1 nCK in the write-to-read rule"),
        "tWTR_L": (17, "tWTR 10 ns, and 1 nCK in the write-to-read rule; no bank groups"),
        "tRFC": (448, "tRFCab 280 ns, 8 Gb per channel"),
        "tREFI": (6246, "tREFI 3.904 us"),
        "tRTRS": (8, "read to write RL + 3.5 ns (tDQSCK) + BL/2 - WL + 2 nCK (tWPRE)"),
        "tPPD": (4, "tPPD 4 nCK"),
    },
)  # fmt: skip

LPDDR5_6400 = _preset(
    "LPDDR5-6400, JEDEC JESD209-5, four 16-bit channels of 8 Gb, bank groups, BL16, WCK:CK 4:1",
    {
        "channels": 4, "ranks": 1, "bank_groups": 4, "banks_per_group": 4, "rows": 32768,
        "row_bytes": 2048, "access_bytes": 32, "burst_cycles": 2,
    },
    "rorabacobgch",
    Fraction(800),
    {
        "tCL": (17, "RL 17 nCK, set 0; tWCK2DQO is left out"),
        "tCWL": (9, "WL 9 nCK, set A"),
        "tRCDRD": (15, "tRCD 18 ns"),
        "tRCDWR": (15, "tRCD 18 ns"),
        "tRP": (15, "tRPpb 18 ns"),
        "tRAS": (34, "tRAS 42 ns"),
        "tWR": (29, "tWR 34 ns, and 1 nCK in the write-to-precharge rule"),
        "tRTP": (8, "BL/n_min 2 nCK + tRBTP 7.5 ns"),
        "tCCD_S": (2, "BL/n_min 2 nCK"),
        "tCCD_L": (4, "BL/n_max 4 nCK"),
        "tRRD_S": (4, "tRRD_S max(5 ns, 2 nCK)"),
        "tRRD_L": (4, "tRRD_L max(5 ns, 2 nCK)"),
        "tFAW": (16, "tFAW 20 ns"),
        "tWTR_S": (5, "tWTR_S 6.25 ns"),
        "tWTR_L": (12, "tWTR_L 12 ns, and BL/n_max - BL/n_min 2 nCK in the write-to-read rule"),
        "tRFC": (168, "tRFCab 210 ns, 8 Gb per channel"),
        "tREFI": (3125, "tREFI 3.906 us"),
        "tRTRS": (4, "read to write RL + BL/n_max + tWCK2DQO 2 nCK - WL"),
        "tPPD": (2, "tPPD 2 nCK"),
    },
)  # fmt: skip

HBM2 = _preset(
    "HBM2, JEDEC JESD235, eight 128-bit channels at 2 Gb/s, 8 Gb per channel, BL4",
    {
        "channels": 8, "ranks": 1, "bank_groups": 4, "banks_per_group": 4, "rows": 32768,
        "row_bytes": 2048, "access_bytes": 64, "burst_cycles": 2,
    },
    "rorabacobgch",
    Fraction(1000),
    {
        "tCL": (14, "RL 14 ns"),
        "tCWL": (4, "WL 4 nCK"),
        "tRCDRD": (14, "tRCDRD 14 ns"),
        "tRCDWR": (14, "tRCDWR 14 ns"),
        "tRP": (14, "tRP 14 ns"),
        "tRAS": (34, "tRAS 34 ns"),
        "tWR": (16, "tWR 16 ns"),
        "tRTP": (6, "tRTP_L 6 nCK"),
        "tCCD_S": (2, "tCCD_S 2 nCK, BL4"),
        "tCCD_L": (4, "tCCD_L 4 nCK, BL4"),
        "tRRD_S": (4, "tRRD_S 4 nCK"),
        "tRRD_L": (6, "tRRD_L 6 nCK"),
        "tFAW": (16, "tFAW 16 ns"),
        "tWTR_S": (6, "tWTR_S 6 nCK"),
        "tWTR_L": (8, "tWTR_L 8 nCK"),
        "tRFC": (260, "tRFC 260 ns, 8 Gb per channel"),
        "tREFI": (3900, "tREFI 3.9 us"),
        "tRTRS": (2, "read to write RL + BL/2 - WL + 2 nCK"),
    },
    dual_command=True,
)  # fmt: skip

PRESETS = {
    "ddr4-3200": DDR4_3200,
    "lpddr4-3200": LPDDR4_3200,
    "lpddr5-6400": LPDDR5_6400,
    "hbm2": HBM2,
}
