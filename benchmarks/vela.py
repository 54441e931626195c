"""Compare compiled programs with Vela's: the same .tflite files on the same systems.

    python -m benchmarks.vela [--write] [--vela VELA] [--effort N]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Lepton's cycles
are simulated end to end from a cold chip; Vela's are its own estimate, live where VELA is the
command of ethos-u-vela 5.2.0, else as that version gave them. Prints a table; with `--write` it
also replaces the figures of docs/vela.md.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import lepton
from benchmarks.measure import ROOT
from benchmarks.page import (
    markdown_table,
    models_folder,
    origin,
    page_parser,
    replace_part,
)
from lepton.simulator.timing import simulate_timing

__all__ = ["FACTOR", "MODELS", "Row", "table", "vela_summary"]

PAGE = ROOT / "docs" / "vela.md"
HEADING = "## Figures"
FACTOR = 1.25
"""Vela's cycles over ours that are aimed at."""

SYSTEMS = {
    "like-u55-256": ("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "like-u85-1024": ("ethos-u85-1024", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}
"""Vela's accelerator, system and memory mode that a preset is like."""

MODELS = {
    "mlperf_tiny/kws_ref_model": (58_340, 32_588),
    "mlperf_tiny/ad01_int8": (201_184, 44_765),
    "mlperf_tiny/pretrainedResnet_quant": (141_933, 34_710),
    "mlperf_tiny/vww_96_int8": (161_459, 131_615),
    "mlperf_tiny/pretrainedResnet_large_int8": (734_848, 166_570),
    "mobilenet/mobilenet_v1_0.25_128_quant": (608_084, 217_864),
    "mobilenet/tf2_mobilenet_v2_1.0_224_ptq": (5_909_811, 2_345_297),
}
"""Total cycles that ethos-u-vela 5.2.0 states on the systems in turn."""


@dataclass(frozen=True)
class Row:
    """One model on one system."""

    model: str
    chip: str
    cycles: int
    utilization: float
    vela: int

    @property
    def ratio(self) -> float:
        return self.vela / self.cycles


def measured(path: Path, chip: str, effort: int, vela: int) -> Row:
    """Return our cycles beside Vela's."""
    program = lepton.compile(path, chip, effort=effort)
    cycles = simulate_timing(program).cycles
    macs = sum(operator.macs for operator in program.operators)
    utilization = macs / (cycles * program.chip.peak_macs_per_cycle)
    return Row(path.stem, chip, cycles, utilization, vela)


def vela_summary(command: str, path: Path, chip: str) -> dict[str, str]:
    """Return Vela's summary of a network on the system that a chip is like, by column.

    Raises:
        subprocess.CalledProcessError: Vela fails.
    """
    accelerator, system, memory = SYSTEMS[chip]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                command, str(path), "--config", "Arm/vela.ini", "--accelerator-config", accelerator,
                "--system-config", system, "--memory-mode", memory, "--output-dir", folder,
            ],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        (summary,) = Path(folder).glob("*_summary_*.csv")
        with summary.open(newline="", encoding="utf-8") as file:
            return next(csv.DictReader(file))


def vela_cycles(command: str, path: Path, chip: str) -> int:
    """Return the total cycles that Vela estimates."""
    return round(float(vela_summary(command, path, chip)["cycles_total"]))


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        (
            row.model,
            row.chip,
            f"{row.cycles:,}",
            f"{row.vela:,}",
            f"{row.ratio:.2f}",
            "yes" if row.ratio >= FACTOR else "**no**",
            f"{100 * row.utilization:.1f} %",
        )
        for row in rows
    ]
    head = ("model", "system", "Lepton", "Vela", "Vela / Lepton", f">= {FACTOR}", "MAC utilization")
    return markdown_table(head, lines, 2)


def vela_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments of a benchmark that stands beside Vela."""
    parser = page_parser(description)
    parser.add_argument("--vela", metavar="VELA", help="command of ethos-u-vela, to run it live")
    return parser


def vela_note(options: argparse.Namespace, figures: str) -> str:
    """Return where Vela's figures of a kind come from."""
    how = "run beside it" if options.vela is not None else "as that version gave them"
    return f"Vela's {figures} {how}"


def main() -> None:
    """Measure and print; write the page's figures if asked to."""
    parser = vela_parser(__doc__)
    parser.add_argument("--effort", type=int, default=2, choices=range(4), help="default 2")
    options = parser.parse_args()
    folder = models_folder(parser)
    rows: list[Row] = []
    for chip_number, chip in enumerate(SYSTEMS):
        for model, stated in MODELS.items():
            path = folder / f"{model}.tflite"
            vela = stated[chip_number]
            if options.vela is not None:
                vela = vela_cycles(options.vela, path, chip)
            rows.append(measured(path, chip, options.effort, vela))
    text = table(rows)
    print(text)
    if options.write:
        how = f"with `--effort {options.effort}`; {vela_note(options, 'cycles')}"
        replace_part(PAGE, HEADING, f"Measured {origin()},\n{how}.\n\n{text}")


if __name__ == "__main__":
    main()
