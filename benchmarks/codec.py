"""Stored weights beside their entropy and beside Vela's, on the same edited networks.

    python -m benchmarks.codec [--write] [--vela VELA]

Needs the environment variable LEPTON_DATA, which names the folder of the models, and the package
`tflite`. Vela's bytes are live where VELA is the command of ethos-u-vela 5.2.0, else as that
version gave them. Prints a table; with `--write` it also replaces the figures of docs/codec.md.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import lepton
from benchmarks.edit_weights import EDITS, edited, zero_order_bytes
from benchmarks.measure import ROOT
from benchmarks.page import markdown_table, models_folder, origin, replace_part
from benchmarks.vela import SYSTEMS, vela_note, vela_parser, vela_summary
from lepton.report.traffic import weight_stream_spans

__all__ = ["NETWORKS", "OBJECTIVES", "VELA", "Row", "Stored", "limit_bytes", "measured", "table"]

PAGE = ROOT / "docs" / "codec.md"
HEADING = "## Figures"
CHIPS = ("edge", *SYSTEMS)
OBJECTIVES = ("latency", "size")

VELA = {
    "mobilenet/tf2_mobilenet_v2_1.0_224_ptq": (
        (3_276_672, 2_216_784, 2_138_272, 1_293_328, 643_104, 2_246_096, 1_801_424, 1_966_496),
        (3_383_872, 2_256_240, 2_170_528, 1_310_368, 653_712, 2_448_640, 1_890_816, 2_023_696),
    ),
    "mlperf_tiny/pretrainedResnet_quant": (
        (74_608, 49_280, 47_536, 27_904, 13_072, 50_688, 40_576, 44_656),
        (84_400, 51_856, 49_872, 29_936, 14_400, 58_768, 47_872, 48_288),
    ),
    "mlperf_tiny/pretrainedResnet_large_int8": (
        (440_912, 292_544, 283_248, 168_400, 77_904, 321_152, 253_744, 253_200),
        (451_168, 296_320, 289_504, 170_976, 79_472, 330_800, 263_472, 262_560),
    ),
}
"""Bytes of weights that ethos-u-vela 5.2.0 states (`total_npu_encoded_weights`), depthwise weights
with them, by network, system (of `SYSTEMS` in turn) and edit."""
NETWORKS = tuple(VELA)

_PADDED, _PACKED = 64, 4
"""Bytes at whose multiples streams begin, one of them: what lies between two of them is counted."""


@dataclass(frozen=True)
class Stored:
    """Stored bytes of a network's weights, padding between streams included."""

    dense: int
    """Of convolutions and fully connected layers."""
    every: int
    """And of depthwise ones."""


@dataclass(frozen=True)
class Row:
    """One edited network on one chip."""

    network: str
    edit: str
    chip: str
    raw: int
    limit: float
    stored: dict[str, Stored]
    """By objective."""
    vela: int | None

    @property
    def is_met(self) -> dict[str, bool]:
        """Whether the limits hold, by objective."""
        most = min(self.limit, self.raw)
        return {
            objective: stored.dense <= most and (self.vela is None or stored.every < self.vela)
            for objective, stored in self.stored.items()
        }


def limit_bytes(weights: list[np.ndarray]) -> float:
    """Return 1.05 times the zero-order entropy of each tensor, and 96 bytes for each."""
    return 1.05 * sum(map(zero_order_bytes, weights)) + 96 * len(weights)


def measured(path: Path, chip: str, objective: str) -> Stored:
    """Return the bytes that a compiled network stores."""
    program = lepton.compile(path, chip, optimize=objective)
    spans = sorted(weight_stream_spans(program))
    is_padded = objective != "size" and not any(start % _PADDED for start, _, _ in spans)
    align = _PADDED if is_padded else _PACKED
    dense = every = reached = 0
    for start, stop, operator in spans:
        padded = -(-stop // align) * align
        size = max(padded - max(start, reached), 0)
        reached = max(reached, padded)
        every += size
        dense += size * (program.operators[operator].kind != "depthwise")
    return Stored(dense, every)


def vela_bytes(command: str, path: Path, chip: str) -> int:
    """Return the bytes of weights that Vela stores."""
    return round(float(vela_summary(command, path, chip)["total_npu_encoded_weights"]))


def rows_of(folder: Path, network: str, edit: str, command: str | None) -> list[Row]:
    """Return the rows of an edited network."""
    content = (folder / f"{network}.tflite").read_bytes()
    made, weights = edited(content, EDITS[edit])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{Path(network).name}.tflite"
        path.write_bytes(made)
        for chip in CHIPS:
            vela = None
            if chip in SYSTEMS:
                stated = VELA[network][list(SYSTEMS).index(chip)][list(EDITS).index(edit)]
                vela = stated if command is None else vela_bytes(command, path, chip)
            stored = {objective: measured(path, chip, objective) for objective in OBJECTIVES}
            raw = sum(each.size for each in weights)
            name = Path(network).name
            rows.append(Row(name, edit, chip, raw, limit_bytes(weights), stored, vela))
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown, in bytes."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        cells = [row.network, row.edit, row.chip, f"{row.raw:,}", f"{row.limit:,.0f}"]
        for objective in OBJECTIVES:
            stored = row.stored[objective]
            cells += [f"{stored.dense:,}", f"{stored.dense / row.limit:.3f}", f"{stored.every:,}"]
            cells.append("yes" if row.is_met[objective] else "**no**")
        lines.append((*cells, "" if row.vela is None else f"{row.vela:,}"))
    head = ["network", "weights", "chip", "raw", "limit"]
    for objective in OBJECTIVES:
        head += [objective, "of the limit", "with depthwise", "met"]
    return markdown_table((*head, "Vela"), lines, 3)


def main() -> None:
    """Measure and print; write the page's figures if asked to."""
    parser = vela_parser(__doc__)
    options = parser.parse_args()
    folder = models_folder(parser)
    rows: list[Row] = []
    for network in NETWORKS:
        for edit in EDITS:
            rows += rows_of(folder, network, edit, options.vela)
            print(table(rows[-len(CHIPS) :]).split("\n", 2)[2], flush=True)
    if options.write:
        note = f"Measured {origin()}; {vela_note(options, 'bytes')}."
        replace_part(PAGE, HEADING, f"{note}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
