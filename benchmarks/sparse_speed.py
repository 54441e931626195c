"""Cycles of pruned and shared weights, beside the dense network's and beside Vela's.

    python -m benchmarks.sparse_speed [--write] [--vela VELA] [--effort N]

Needs the environment variable LEPTON_DATA, which names the folder of the models, and the package
`tflite`. Vela's cycles are live where VELA is the command of ethos-u-vela 5.2.0, else as that
version gave them. Prints tables; with `--write` it also replaces the figures of
docs/sparse_speed.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lepton
from benchmarks.edit_weights import EDITS, edited
from benchmarks.measure import ROOT
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    models_folder,
    origin,
    replace_part,
)
from benchmarks.vela import vela_cycles, vela_note, vela_parser
from lepton.chip import load_chip
from lepton.report.summary import Layer, Summary, summarize
from lepton.simulator.timing import simulate_timing

__all__ = ["CHIPS", "EDITED", "Row", "compute_bound", "layers_table", "limits", "table"]

PAGE = ROOT / "docs" / "sparse_speed.md"
HEADING = "## Figures"

CHIPS = {
    "like-u55-256": "like-u55-256",
    "like-u85-1024": "like-u85-1024",
    "like-u85-1024-sparse": "like-u85-1024",
}
"""Chips, and the system of Vela's that each is like."""
EDITED = ("dense", "2:4", "50 %", "75 %", "90 %", "32 clusters", "16 clusters")
RESNET = "mlperf_tiny/pretrainedResnet_large_int8"
MOBILENET = "mobilenet/tf2_mobilenet_v2_1.0_224_ptq"
SPARSE = "like-u85-1024-sparse"

VELA = {
    RESNET: {
        "like-u55-256": (734_848, 629_468, 622_872, 539_948, 517_880, 644_888, 598_572),
        "like-u85-1024": (166_570, 106_769, 166_570, 167_100, 166_648, 166_570, 166_570),
    },
    MOBILENET: {
        "like-u55-256": (
            *(5_909_811, 4_909_253, 4_830_051, 4_052_075, 3_584_651, 4_931_963, 4_520_763),
        ),
        "like-u85-1024": (
            *(2_345_297, 2_267_225, 2_285_919, 2_254_996, 2_243_615, 2_299_805, 2_274_425),
        ),
    },
}
"""Total cycles that ethos-u-vela 5.2.0 states, by network, system and edit."""

_BOUND_SHARE = 0.95
"""Of a layer's cycles in the dense network, in which the array works, to count as compute-bound."""


@dataclass(frozen=True)
class Row:
    """One edited network on one chip."""

    network: str
    edit: str
    chip: str
    summary: Summary
    vela: int

    @property
    def cycles(self) -> int:
        assert self.summary.cycles is not None
        return self.summary.cycles


def measured(path: Path, chip: str, effort: int) -> Summary:
    """Return the figures of a compiled and simulated network."""
    program = lepton.compile(path, chip, effort=effort)
    return summarize(program, simulate_timing(program))


def rows_of(folder: Path, network: str, edit: str, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of an edited network."""
    content = (folder / f"{network}.tflite").read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{Path(network).name}.tflite"
        path.write_bytes(edited(content, EDITS[edit])[0])
        live: dict[str, int] = {}
        for chip, system in CHIPS.items():
            vela = VELA[network][system][EDITED.index(edit)]
            if options.vela is not None:
                if system not in live:
                    live[system] = vela_cycles(options.vela, path, system)
                vela = live[system]
            yield Row(network, edit, chip, measured(path, chip, options.effort), vela)


def _found(rows: list[Row], network: str, edit: str, chip: str) -> Row:
    return next(r for r in rows if (r.network, r.edit, r.chip) == (network, edit, chip))


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        dense = _found(rows, row.network, "dense", row.chip).cycles
        bound = row.summary.bound_cycles
        lines.append(
            (
                Path(row.network).name,
                row.edit,
                row.chip,
                f"{row.cycles:,}",
                f"{dense / row.cycles:.2f}",
                f"{row.summary.effective_macs / row.summary.macs:.3f}",
                f"{bound:,}",
                f"{row.cycles / bound:.2f}",
                f"{row.vela:,}",
                f"{row.vela / row.cycles:.2f}",
            )
        )
    head = (
        *("network", "weights", "chip", "cycles", "dense / cycles", "MACs issued", "bound_cycles"),
        *("cycles / bound", "Vela", "Vela / cycles"),
    )
    return markdown_table(head, lines, 3)


def compute_bound(dense: Summary, sparse: Summary) -> list[tuple[Layer, Layer]]:
    """Return the layers, dense and sparse, in which the array works nearly all the dense time.

    Left out are those whose sparse bytes take a memory longer than the array: no pattern of zeros
    makes them so much faster.
    """
    rates = load_chip(SPARSE).memory_bytes_per_cycle
    pairs = zip(dense.layers, sparse.layers, strict=True)
    return [
        (before, after)
        for before, after in pairs
        if before.macs
        and before.busy.get("matrix", 0) >= _BOUND_SHARE * (before.cycles or 1)
        and after.busy.get("matrix", 0)
        >= max(size / rate for size, rate in zip(after.dram_bytes, rates, strict=True))
    ]


def layers_table(rows: list[Row], edit: str) -> str:
    """Return each layer of the residual network on the sparse chip, dense and edited."""
    dense = _found(rows, RESNET, "dense", SPARSE).summary
    sparse = _found(rows, RESNET, edit, SPARSE).summary
    peak = sparse.peak_macs_per_cycle
    lines: list[tuple[str | float, ...]] = []
    for before, after in zip(dense.layers, sparse.layers, strict=True):
        if not before.macs or not before.cycles or not after.cycles:
            continue
        issued = after.effective_macs / peak
        waits = sum(after.stalls.values())
        lines.append(
            (
                str(after.index),
                f"{before.cycles:,}",
                f"{after.cycles:,}",
                f"{before.cycles / after.cycles:.2f}",
                f"{after.effective_macs / after.macs:.2f}",
                f"{issued:,.0f}",
                f"{after.busy.get('matrix', 0):,}",
                f"{waits:,}",
                after.main_stall or "-",
            )
        )
    head = (
        *("layer", "dense", edit, "dense / it", "MACs issued", "those at peak"),
        *("array works", "waits", "most for"),
    )
    return markdown_table(head, lines, 1)


def limits(rows: list[Row]) -> list[Limit]:
    """Return what is aimed at beside what was measured."""
    dense, half, tenth = (_found(rows, RESNET, edit, SPARSE) for edit in ("dense", "2:4", "90 %"))
    layers = compute_bound(dense.summary, half.summary)
    least = min((before.cycles or 0) / (after.cycles or 1) for before, after in layers)
    whole = [sum(layer.cycles or 0 for layer in side) for side in zip(*layers, strict=True)]
    mobile = [_found(rows, MOBILENET, edit, "like-u55-256").cycles for edit in ("dense", "90 %")]
    vela = min(row.vela / row.cycles for row in rows)
    return [
        Limit("ResNet-large, 2:4: dense / cycles", 1.6, dense.cycles / half.cycles, True),
        Limit("the same of the compute-bound layers together", 1.8, whole[0] / whole[1], True),
        Limit("the same of each of them, the least", 1.8, least, True),
        Limit("ResNet-large, 90 %: cycles", 66_659, tenth.cycles),
        Limit("the same over bound_cycles", 1.25, tenth.cycles / tenth.summary.bound_cycles),
        Limit("MobileNetV2, 90 %, like-u55-256: dense / cycles", 1.5, mobile[0] / mobile[1], True),
        Limit("Vela / cycles, the least of all rows", 1, vela, True),
    ]


def page(rows: list[Row]) -> str:
    """Return all tables."""
    parts = [limits_table(limits(rows)), table(rows)]
    for edit in ("2:4", "90 %"):
        parts += [f"ResNet-large on {SPARSE}, layer by layer:", layers_table(rows, edit)]
    return "\n\n".join(parts)


def main() -> None:
    """Measure and print; write the page's figures if asked to."""
    parser = vela_parser(__doc__)
    parser.add_argument("--effort", type=int, default=1, choices=range(4), help="default 1")
    options = parser.parse_args()
    folder = models_folder(parser)
    rows: list[Row] = []
    for network in (RESNET, MOBILENET):
        for edit in EDITED:
            for row in rows_of(folder, network, edit, options):
                rows.append(row)
                print(Path(network).name, edit, row.chip, f"{row.cycles:,}", flush=True)
    text = page(rows)
    print(text)
    if options.write:
        how = f"with `--effort {options.effort}`; {vela_note(options, 'cycles')}"
        replace_part(PAGE, HEADING, f"Measured {origin()},\n{how}.\n\n{text}")


if __name__ == "__main__":
    main()
