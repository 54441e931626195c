"""One self-contained HTML page: pictures as data URIs, and the numbers under every picture."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from lepton.cost.estimate import estimate_program
from lepton.program import Program, atomic_write
from lepton.report.faster import gains_of, has_zeros
from lepton.report.faster_text import EXPLANATION, HEADS, dense_line, gain_rows, reasons_of
from lepton.report.names import arena_text, joules_text, size_text, tidy_names
from lepton.report.occupancy import fullest_core, occupancy
from lepton.report.plot_roofline import roofline_points
from lepton.report.plots import pictures, png_bytes
from lepton.report.style import Picture
from lepton.report.summary import Layer, Summary, summarize
from lepton.trace import Trace

__all__ = ["html_page", "write_html"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2.2em 0 0.4em; }
img { width: 100%; max-width: 900px; height: auto; display: block; }
.scroll { overflow-x: auto; max-height: 32em; overflow-y: auto; margin: 0.6em 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 9px; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #e4e4e4; }
th { position: sticky; top: 0; background: #f4f4f4; } td.text, th.text { text-align: left; }
td.name { max-width: 24em; overflow: hidden; text-overflow: ellipsis; }
tr.total td { font-weight: bold; border-top: 1px solid #888; }
details { margin: 0.6em 0; } summary { cursor: pointer; }
"""
_HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "img-src data:; style-src 'unsafe-inline'\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
)
_MOST_RECTANGLES = 30

Cell = str | int | float | None


def _text(value: Cell) -> str:
    """Return the text of a cell."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else escape(" ".join(value.split()))


def _table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], total: bool = False) -> str:
    """Return a table; texts stand left, numbers right; `total` marks the last row."""
    lines = [list(row) for row in rows]
    texts = [
        any(isinstance(row[column], str) and row[column] for row in lines)
        for column in range(len(heads))
    ]

    def cells(tag: str, row: Sequence[Cell]) -> str:
        made: list[str] = []
        for value, is_text in zip(row, texts, strict=True):
            kind = ' class="text name"' if is_text else ""
            title = f' title="{_text(value)}"' if is_text and len(str(value)) > 40 else ""
            made.append(f"<{tag}{kind}{title}>{_text(value)}</{tag}>")
        return "".join(made)

    body = [f"<tr>{cells('td', row)}</tr>" for row in lines]
    if total and body:
        body[-1] = body[-1].replace("<tr>", '<tr class="total">', 1)
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>"
    joined = "\n".join(body)
    return f'<div class="scroll"><table>{head}<tbody>\n{joined}\n</tbody></table></div>'


def _off(r: Layer | Summary) -> float | None:
    """Return by how many percent of the simulated cycles an estimate differs from them."""
    if r.estimated_cycles is None or not r.cycles:
        return None
    return 100.0 * (r.estimated_cycles / r.cycles - 1)


def _figures(summary: Summary) -> str:
    """Return the table of the whole run's figures."""
    s = summary
    pairs: list[tuple[str, str]] = [
        ("cycles", _text(s.cycles)),
        ("cycles, estimated", f"{_text(s.estimated_cycles)}, {_off(s) or 0:+.1f} %"),
        ("time", "-" if s.milliseconds is None else f"{s.milliseconds:,.4f} ms"),
        ("MACs", f"{_text(s.macs)}, {100 * s.macs_on_npu:.1f} % on the NPU"),
        ("MACs issued", _text(s.effective_macs)),
        ("use of the array's peak", f"{100 * (s.mac_utilization or 0):.2f} %"),
        ("nothing is faster than", f"{s.bound_cycles:,} cycles"),
        ("sum of the layers' rooflines", f"{s.roofline_cycles:,} cycles"),
        ("external memory read", size_text(s.dram_read_bytes or 0)),
        ("external memory written", size_text(s.dram_write_bytes or 0)),
        ("weights, raw", size_text(s.weight_bytes_raw)),
        ("weights, stored", size_text(s.weight_bytes_stored)),
        ("scratchpad touched", size_text(s.scratchpad_peak_bytes)),
        ("scratchpad live at once", size_text(s.scratchpad_live_bytes or 0)),
        *((f"activations in {arena.memory}", arena_text(arena)) for arena in s.arenas),
        ("program", f"{s.instructions:,} instructions, {size_text(s.program_bytes)}"),
        ("energy", "-" if s.energy_joules is None else joules_text(s.energy_joules)),
        ("operations per joule", f"{s.tops_per_watt or 0:,.3g} TOPS/W"),
        ("area of the NPU", f"{s.area_mm2:,.3g} mm²"),
    ]
    return _table(("figure", "value"), pairs)


def _units(program: Program, trace: Trace, summary: Summary) -> str:
    """Return instructions and occupied time of every unit."""
    rows: list[tuple[Cell, ...]] = []
    for number, name in enumerate(trace.queues):
        mine = trace.records[trace.records["queue"] == number]
        occupied = int((mine["end"] - mine["start"]).sum())
        first = int(mine["start"].min()) if len(mine) else None
        last = int(mine["retire"].max()) if len(mine) else None
        share = 100.0 * occupied / trace.cycles if trace.cycles else 0.0
        rows.append((name, len(mine), first, last, occupied, share))
    heads = ("unit", "instructions", "first start", "last retirement", "cycles occupied", "%")
    return _table(heads, rows)


def _unit_stalls(program: Program, trace: Trace, summary: Summary) -> str:
    """Return the attribution of every unit; each row adds up to the total."""
    table = trace.attribution()
    causes = list(dict.fromkeys(cause for row in table.values() for cause in row))
    rows = [
        (name, *(row.get(cause, 0) for cause in causes), sum(row.values()))
        for name, row in table.items()
    ]
    return _table(("cycles of", *causes, "total"), rows)


def _parts(causes: dict[str, int]) -> str:
    return ", ".join(f"{cause} {cycles:,}" for cause, cycles in causes.items())


def _layer_row(layer: Layer, name: str, total: int) -> tuple[Cell, ...]:
    """Return the cells of a layer."""
    share = 100.0 * (layer.cycles or 0) / total if total else 0.0
    used = 100.0 * (layer.mac_utilization or 0.0)
    return (
        f"L{layer.index}", name, layer.op, layer.device, layer.cycles, share,
        layer.estimated_cycles, _off(layer), layer.macs, used, layer.roofline_cycles,
        sum(layer.dram_bytes), layer.bound or "-", _parts(layer.busy) or "-",
        _parts(layer.stalls) or "-", layer.reason or "-",
    )  # fmt: skip


def _layers(program: Program, trace: Trace, summary: Summary) -> str:
    """Return every layer; the cycles add up to the total."""
    names = tidy_names([layer.name for layer in summary.layers])
    total = summary.cycles or 0
    rows = [_layer_row(r, n, total) for r, n in zip(summary.layers, names, strict=True)]
    cycles = sum(layer.cycles or 0 for layer in summary.layers)
    moved = sum(sum(layer.dram_bytes) for layer in summary.layers)
    used = 100.0 * (summary.mac_utilization or 0.0)
    both = (cycles, 100.0, summary.estimated_cycles, _off(summary))
    totals = (*both, summary.macs, used, summary.roofline_cycles, moved)
    rows.append(("total", "", "", "", *totals, "", "", "", ""))
    heads = (
        "#",
        "layer",
        "operator",
        "device",
        "cycles",
        "%",
        "estimated",
        "off by %",
        "MACs",
        "array %",
        "roofline cycles",
    )
    heads += ("bytes moved", "bound", "work [cycles]", "stalls [cycles]", "why")
    return _table(heads, rows, total=True)


def _critical_path(summary: Summary) -> str:
    """Return the critical path by layer; the cycles add up to the total."""
    causes = list(dict.fromkeys(cause for r in summary.layers for cause in r.critical_path))
    names = tidy_names([layer.name for layer in summary.layers])
    rows: list[tuple[Cell, ...]] = []
    for layer, name in zip(summary.layers, names, strict=True):
        if layer.critical_path:
            path = [layer.critical_path.get(cause, 0) for cause in causes]
            ahead = f"{layer.next_bound} {layer.next_bound_cycles:,}" if layer.next_bound else "-"
            rows.append((f"L{layer.index}", name, layer.op, sum(path), *path, ahead))
    sums = [sum(r.critical_path.get(cause, 0) for r in summary.layers) for cause in causes]
    rows.append(("total", "", "", sum(sums), *sums, ""))
    heads = ("#", "layer", "operator", "cycles on the path", *causes, "next bound [cycles]")
    text = (
        "The chain of instructions that made the run as long as it was. A unit's name is time that "
        "it worked or waited for its memory; <i>next bound</i> is the unit that would bound the "
        "layer if what its path spends most on cost nothing."
    )
    table = _table(heads, rows, total=True)
    return f"<section>\n<h2>Critical path</h2>\n<p>{text}</p>\n{table}\n</section>\n"


def _roofline(program: Program, trace: Trace, summary: Summary) -> str:
    """Return the points of the roofline."""
    points = roofline_points(program, summary.layers)
    rows = [
        (
            f"L{p.layer.index}", p.layer.op, p.layer.macs, p.layer.cycles,
            program.chip.memories[p.memory].name, p.layer.dram_bytes[p.memory],
            p.intensity, p.performance,
        )
        for p in points
    ]  # fmt: skip
    heads = ("#", "operator", "MACs", "cycles", "memory", "bytes", "MAC/byte", "MAC/cycle")
    return _table(heads, rows)


def _scratchpad(program: Program, trace: Trace, summary: Summary) -> str:
    """Return the rectangles that hold most bytes for longest."""
    held = occupancy(program, trace, fullest_core(program))
    area = (held.high - held.low) * (held.end - held.start)
    names = tidy_names([operator.name for operator in program.operators])
    rows = [
        (
            f"L{held.operator[k]}", names[int(held.operator[k])], f"{int(held.low[k]):#x}",
            int(held.high[k] - held.low[k]), int(held.start[k]), int(held.end[k]),
        )
        for k in np.argsort(-area, kind="stable")[:_MOST_RECTANGLES].tolist()
    ]  # fmt: skip
    table = _table(("#", "written by", "address", "bytes", "from cycle", "to cycle"), rows)
    return f"<p>The {len(rows)} largest of {len(area):,} (bytes x cycles).</p>{table}"


def _memories(program: Program, trace: Trace, summary: Summary) -> str:
    """Return the counters of every memory."""
    rows: list[tuple[Cell, ...]] = []
    for memory, described in zip(trace.memories, program.chip.memories, strict=True):
        peak = float(program.chip.bytes_per_cycle(described))
        average = (memory.read_bytes + memory.write_bytes) / max(trace.cycles, 1)
        accesses = memory.row_hits + memory.row_misses
        hits = 100.0 * memory.row_hits / accesses if accesses else None
        rates = (memory.read_bytes, memory.write_bytes, average, peak, hits)
        counts = (memory.row_hits, memory.row_misses, memory.activates, memory.refreshes)
        rows.append((memory.name, *rates, *counts))
    heads = ("memory", "bytes read", "bytes written", "bytes/cycle", "peak bytes/cycle")
    heads += ("row hits %", "row hits", "row misses", "activations", "refreshes")
    return _table(heads, rows)


def _energy(program: Program, trace: Trace, summary: Summary) -> str:
    """Return the energy of every layer by component, in microjoules."""
    names = tidy_names([layer.name for layer in summary.layers])
    rows: list[tuple[Cell, ...]] = []
    for layer, name in zip(summary.layers, names, strict=True):
        spent = [1e6 * layer.energy.get(component, 0.0) for component in summary.energy]
        rows.append((f"L{layer.index}", name, *spent, 1e6 * (layer.energy_joules or 0.0)))
    whole = [1e6 * joules for joules in summary.energy.values()]
    rows.append(("", "all layers", *whole, 1e6 * (summary.energy_joules or 0.0)))
    parts = (f"{component.replace('_', ' ')} µJ" for component in summary.energy)
    return _table(("#", "layer", *parts, "total µJ"), rows, total=True)


_NUMBERS: dict[str, Callable[[Program, Trace, Summary], str]] = {
    "timeline": _units,
    "roofline": _roofline,
    "stalls_units": _unit_stalls,
    "stalls_layers": _layers,
    "energy": _energy,
    "scratchpad": _scratchpad,
    "bandwidth": _memories,
}


def _zeros(program: Program, trace: Trace) -> str:
    """Return what the zeros of the weights bring, nothing if no layer has any to speak of."""
    if not has_zeros(program):
        return ""
    gains = gains_of(program, trace)
    reasons = [escape(line) for line in reasons_of(gains)]
    if not reasons:
        return ""
    text = escape(" ".join((*EXPLANATION, "-", dense_line(gains))))
    table = _table(HEADS, gain_rows(gains))
    listed = "".join(f"<li>{reason}</li>\n" for reason in reasons)
    return (
        "<section>\n<h2>Why the zeros do not make it faster</h2>\n"
        f"<p>{text}</p>\n{table}\n<ul>\n{listed}</ul>\n</section>\n"
    )


def _section(made: Picture, numbers: str) -> str:
    """Return a picture with its numbers."""
    content = base64.b64encode(png_bytes(made)).decode()
    title, caption = escape(made.title), escape(made.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{content}">'
    return f"<section>\n<h2>{title}</h2>\n{image}\n{numbers}\n</section>\n"


def html_page(program: Program, trace: Trace) -> str:
    """Return the report of a run as one page without any external request."""
    summary = summarize(program, trace, estimate_program(program))
    title = escape(f"{summary.model} on {summary.chip}")
    sections = [
        _section(made, _NUMBERS[made.name](program, trace, summary))
        for made in pictures(program, trace)
    ]
    body = f"<h1>{title}</h1>\n{_figures(summary)}\n{''.join(sections)}"
    body += _critical_path(summary) + _zeros(program, trace)
    return (
        f"{_HEAD}<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def write_html(program: Program, trace: Trace, path: str | Path) -> None:
    """Write the page; a partial file never stands under the final name.

    Raises:
        ProgramError: the file cannot be written.
    """
    atomic_write(Path(path), html_page(program, trace).encode())
