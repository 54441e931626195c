"""The per-layer table of the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from lepton.program import one_line
from lepton.report.names import (
    arena_text,
    joules_text,
    optimized_text,
    shorten,
    size_text,
    tidy_names,
)
from lepton.report.summary import Layer, Summary

__all__ = ["layer_table", "summary_lines"]

_HEADS = (
    ("#", "", ">"), ("layer", "", "<"), ("op", "", "<"), ("device", "", "<"),
    ("time", "cycles", ">"), ("share", "%", ">"), ("work", "kMAC", ">"), ("array", "%", ">"),
    ("memory", "KiB", ">"), ("bound", "", "<"), ("main stall", "cycles", "<"),
)  # fmt: skip
_NAME = 1
_LEAST_NAME = 16
_FIRST_TO_GO = (3, 8, 6, 5)
"""Columns that a narrow terminal loses: device, memory, work, share."""


def _row(layer: Layer, name: str, total: int | None) -> list[str]:
    """Return the cells of a layer."""
    has_time = layer.cycles is not None and layer.device == "npu"
    stall = layer.main_stall
    share = f"{100 * layer.cycles / total:.1f}" if layer.cycles is not None and total else "-"
    used = f"{100 * layer.mac_utilization:.1f}" if layer.mac_utilization and has_time else "-"
    return [
        f"L{layer.index}",
        name,
        layer.op,
        layer.device,
        f"{layer.cycles:,}" if has_time else "-",
        share if has_time else "-",
        f"{layer.macs / 1000:,.1f}" if layer.macs else "-",
        used,
        f"{sum(layer.dram_bytes) / 1024:,.1f}" if any(layer.dram_bytes) else "-",
        layer.bound if layer.bound not in (None, "none", "host") else "-",
        f"{stall} {layer.stalls[stall]:,}" if stall else "-",
    ]


def _totals(summary: Summary) -> list[str]:
    """Return the cells of the last line."""
    stalls: dict[str, int] = {}
    for layer in summary.layers:
        for cause, cycles in layer.stalls.items():
            stalls[cause] = stalls.get(cause, 0) + cycles
    main = max(stalls, key=lambda cause: stalls[cause], default="")
    used = summary.mac_utilization
    moved = sum(sum(layer.dram_bytes) for layer in summary.layers)
    return [
        "",
        f"{len(summary.layers)} layers",
        "",
        "",
        "-" if summary.cycles is None else f"{summary.cycles:,}",
        "-" if summary.cycles is None else "100.0",
        f"{summary.macs / 1000:,.1f}",
        "-" if used is None else f"{100 * used:.1f}",
        f"{moved / 1024:,.1f}",
        "",
        f"{main} {stalls[main]:,}" if main else "-",
    ]


def _line(cells: Sequence[str], widths: Sequence[int], kept: Sequence[int]) -> str:
    """Return a line of the padded cells of the columns `kept`."""
    parts = [f"{cells[column]:{_HEADS[column][2]}{widths[column]}}" for column in kept]
    return "  ".join(parts).rstrip()


def _main_energy(summary: Summary) -> str:
    """Return the three components that spent most, with their shares."""
    whole = sum(summary.energy.values())
    ranked = sorted(summary.energy.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name.replace('_', ' ')} {100 * j / whole:.0f} %" for name, j in ranked)


def _issued_text(summary: Summary) -> str:
    """Return how many MACs are issued, or nothing if all are."""
    if summary.effective_macs == summary.macs:
        return ""
    return f", {100 * summary.effective_macs / summary.macs:.1f} % of all issued"


def summary_lines(summary: Summary) -> list[str]:
    """Return the figures of the whole run as lines of text."""
    s = summary
    lines = [
        f"{one_line(s.model)} on {one_line(s.chip)}, {s.clock_hz / 1e6:,.0f} MHz, "
        f"{s.peak_macs_per_cycle:,} MAC/cycle{optimized_text(s.objective)}"
    ]
    if s.cycles is not None and s.milliseconds is not None:
        lines.append(
            f"{s.cycles:,} cycles, {s.milliseconds:,.3f} ms; {s.macs / 1e6:,.3f} MMAC, "
            f"{100 * (s.mac_utilization or 0):.1f} % of the array's peak, "
            f"{100 * s.macs_on_npu:.1f} % of the MACs on the NPU{_issued_text(s)}"
        )
        if s.estimated_cycles is not None:
            off = 100 * (s.estimated_cycles / s.cycles - 1) if s.cycles else 0.0
            lines.append(
                f"estimated {s.estimated_cycles:,} cycles, {off:+.1f} % of those simulated"
            )
        lines.append(
            f"external memory: {size_text(s.dram_read_bytes or 0)} read, "
            f"{size_text(s.dram_write_bytes or 0)} written, program fetch included"
        )
    if s.energy_joules is not None and s.milliseconds:
        watts = s.energy_joules / s.milliseconds * 1000
        lines.append(
            f"energy {joules_text(s.energy_joules)}, {watts:,.3g} W, "
            f"{s.tops_per_watt or 0:,.3g} TOPS/W; {_main_energy(s)}; NPU {s.area_mm2:,.3g} mm2"
        )
    lines.append(
        f"weights {size_text(s.weight_bytes_stored)} stored of {size_text(s.weight_bytes_raw)}; "
        f"program {s.instructions:,} instructions, {size_text(s.program_bytes)}; "
        f"scratchpad {size_text(s.scratchpad_peak_bytes)}"
    )
    if s.arenas:
        lines.append("activations: " + "; ".join(arena_text(arena) for arena in s.arenas))
    lines.append(
        f"nothing is faster than {s.bound_cycles:,} cycles; "
        f"sum of the layers' rooflines {s.roofline_cycles:,} cycles"
    )
    return lines


def layer_table(summary: Summary, width: int | None = None) -> str:
    """Return the table as text.

    Args:
        summary: the run, or a program that has not run.
        width: columns of the terminal, found out if not given; names give way, then columns.
    """
    if width is None:
        width = shutil.get_terminal_size((110, 24)).columns
    names = tidy_names([layer.name for layer in summary.layers])
    rows = [_row(r, n, summary.cycles) for r, n in zip(summary.layers, names, strict=True)]
    heads = [[head for head, _, _ in _HEADS], [unit for _, unit, _ in _HEADS]]
    rows.append(_totals(summary))
    widths = [max(len(row[column]) for row in (*heads, *rows)) for column in range(len(_HEADS))]
    kept = _fitting(widths, width)
    for row in rows:
        row[_NAME] = shorten(row[_NAME], widths[_NAME])
    rule = "-" * (sum(widths[column] for column in kept) + 2 * (len(kept) - 1))
    body = [_line(row, widths, kept) for row in rows]
    table = [*(_line(head, widths, kept) for head in heads), rule, *body[:-1], rule, body[-1]]
    return "\n".join([*summary_lines(summary), "", *table])


def _fitting(widths: list[int], width: int) -> list[int]:
    """Return the columns that fit into `width`, and give the names what is left, in place."""
    kept = list(range(len(widths)))
    droppable = list(_FIRST_TO_GO)
    least = min(widths[_NAME], _LEAST_NAME)
    while True:
        others = sum(widths[column] for column in kept if column != _NAME) + 2 * (len(kept) - 1)
        if others + least <= width or not droppable:
            break
        kept.remove(droppable.pop(0))
    widths[_NAME] = max(min(widths[_NAME], width - others), least)
    return kept
