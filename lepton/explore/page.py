"""One self-contained interactive HTML page of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from lepton.explore.engine import Sweep
from lepton.explore.extras import needs
from lepton.explore.metrics import METRICS, feasible
from lepton.explore.pictures import numbered, unit_label
from lepton.report.style import OKABE_ITO

__all__ = ["sweep_page"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2em 0 0.4em; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 9px; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #e4e4e4; }
th { background: #f4f4f4; } .scroll { overflow-x: auto; max-height: 34em; overflow-y: auto; }
"""
_GROUPS = (("breaks a constraint", "#BBBBBB", 5), ("dominated", "#56B4E9", 6),
           ("front", "#D55E00", 9))  # fmt: skip
# a design is nobody else's business: no button sends a figure to plotly's cloud
_CONFIG = {
    "displaylogo": False, "responsive": True, "plotlyServerURL": "", "showSendToCloud": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud"],
}  # fmt: skip


def sweep_page(found: Sweep, shares: Mapping[str, Mapping[str, float]]) -> str:
    """Return the page: the front with axes to choose, parallel coordinates to brush, sensitivity.

    Args:
        found: the sweep.
        shares: as `lepton.explore.sensitivity.sensitivity` gives them.
    """
    offline = needs("plotly.offline")
    figures = [
        ("Front", "Choose the metrics of the axes. Hover a point for its parameters.",
         _scatter(found)),
        ("All points", "Drag along an axis to keep only the lines that pass there; "
         "drag an axis by its name to move it.", _parallel(found)),
        ("Sensitivity", "Share of the variance of a metric's logarithm that a parameter explains "
         "by itself (fANOVA).", _bars(shares)),
    ]  # fmt: skip
    parts = [f"<h1>Sweep of {escape(found.space.place)}</h1>", f"<p>{escape(_about(found))}</p>"]
    for number, (title, text, figure) in enumerate(figures):
        plot = figure.to_html(
            full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"figure{number}"
        )
        parts.append(f"<h2>{title}</h2><p>{escape(text)}</p>{plot}")
    parts.append(f"<h2>The front</h2>{_front_table(found)}")
    script = offline.get_plotlyjs()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(found.space.place)}</title>\n<style>{_STYLE}</style>\n"
        f"<script>{script}</script>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _about(found: Sweep) -> str:
    space = found.space
    kind = "simulated" if found.simulated is not None else "evaluated by closed forms"
    limits = ", ".join(str(item) for item in space.constraints) or "none"
    names = ", ".join(f"{item.name} (weight {item.weight:g})" for item in space.workloads)
    agreement = ", ".join(f"{k} {v:.3f}" for k, v in found.agreement().items())
    text = f"{space.size:,} points around chip {space.base.name}, {len(found.numbers):,} {kind}. "
    text += f"Workloads: {names}. Objectives: {', '.join(space.objectives)}. Constraints: {limits}."
    return text + (
        f" Rank agreement of closed forms and simulation: {agreement}." * bool(agreement)
    )


def _group(found: Sweep) -> Sequence[np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the rows of each of `_GROUPS`."""
    sound = ~np.isnan(found.metrics["latency_ms"])
    within = feasible(found.space.constraints, found.metrics)
    front = np.isin(found.numbers, found.front)
    masks = sound & ~within, sound & within & ~front, front
    return [np.flatnonzero(mask).astype(np.int64) for mask in masks]


def _text(found: Sweep, row: int) -> str:
    """Return what a point says when it is hovered."""
    space = found.space
    values = space.values(space.points(found.numbers[row : row + 1])[0].tolist())
    lines = [f"{path}: {value}" for path, value in values.items()]
    lines += [f"<b>{name}: {found.metrics[name][row]:.4g}</b>" for name in METRICS]
    return "<br>".join(lines)


def _scatter(found: Sweep) -> Any:
    """Return the scatter plot with a menu for each axis."""
    go = needs("plotly.graph_objects")
    names = list(METRICS)
    first = list(found.space.objectives)
    across, up = first[0], first[1] if len(first) > 1 else "area_mm2"
    groups = _group(found)
    figure = go.Figure()
    for (label, colour, size), rows in zip(_GROUPS, groups, strict=True):
        figure.add_trace(
            go.Scattergl(
                x=found.metrics[across][rows].tolist(), y=found.metrics[up][rows].tolist(),
                mode="markers", name=label, marker={"color": colour, "size": size},
                text=[_text(found, row) for row in rows.tolist()], hoverinfo="text",
            )
        )  # fmt: skip
    menus = [_menu(found, groups, names, axis) for axis in ("x", "y")]
    for menu, active, place in zip(menus, (across, up), (0.0, 0.42), strict=True):
        menu |= {"active": names.index(active), "x": place, "xanchor": "left", "y": 1.16}
    figure.update_layout(
        template="plotly_white", height=560, updatemenus=menus, margin={"t": 90},
        xaxis={"title": unit_label(across), "type": "log"},
        yaxis={"title": unit_label(up), "type": "log"},
        legend={"orientation": "h", "y": -0.18},
    )  # fmt: skip
    return figure


def _menu(found: Sweep, groups: Sequence[Any], names: Sequence[str], axis: str) -> dict[str, Any]:
    """Return the menu that chooses the metric of an axis."""
    buttons = [
        {
            "label": f"{axis}: {unit_label(name)}",
            "method": "update",
            "args": [
                {axis: [found.metrics[name][rows].tolist() for rows in groups]},
                {f"{axis}axis.title.text": unit_label(name)},
            ],
        }
        for name in names
    ]
    return {"buttons": buttons, "direction": "down", "showactive": True}


def _parallel(found: Sweep) -> Any:
    """Return parallel coordinates of parameters and objectives; metrics by their logarithm."""
    go = needs("plotly.graph_objects")
    space = found.space
    sound = np.flatnonzero(~np.isnan(found.metrics["latency_ms"]))
    points = space.points(found.numbers[sound])
    axes: list[dict[str, Any]] = []
    for number, parameter in enumerate(space.parameters):
        if len(parameter.values) > 1:
            axes.append(
                {
                    "label": parameter.path, "values": points[:, number].tolist(),
                    "tickvals": list(range(len(parameter.values)))[:40],
                    "ticktext": [str(value) for value in parameter.values][:40],
                }
            )  # fmt: skip
    for name in space.objectives:
        logs = np.log10(np.maximum(found.metrics[name][sound], 1e-300))
        ticks = np.linspace(logs.min(), logs.max(), 6) if len(logs) else np.zeros(0)
        axes.append(
            {
                "label": unit_label(name), "values": logs.tolist(), "tickvals": ticks.tolist(),
                "ticktext": [f"{10**tick:.3g}" for tick in ticks.tolist()],
            }
        )  # fmt: skip
    front = np.isin(found.numbers[sound], found.front).astype(float)
    line = {"color": front.tolist(), "colorscale": [[0, "#CCCCCC"], [1, "#D55E00"]], "cmin": 0,
            "cmax": 1}  # fmt: skip
    figure = go.Figure(go.Parcoords(line=line, dimensions=axes, labelangle=-12))
    figure.update_layout(height=460, margin={"l": 90, "r": 60, "t": 90})
    return figure


def _bars(shares: Mapping[str, Mapping[str, float]]) -> Any:
    """Return the bars of the sensitivities."""
    go = needs("plotly.graph_objects")
    figure = go.Figure()
    for number, (name, parts) in enumerate(shares.items()):
        figure.add_trace(
            go.Bar(
                y=list(parts), x=[100 * share for share in parts.values()], orientation="h",
                name=name, marker={"color": OKABE_ITO[number % len(OKABE_ITO)]},
            )
        )  # fmt: skip
    count = max((len(parts) for parts in shares.values()), default=1)
    figure.update_layout(
        template="plotly_white", barmode="group", height=160 + 26 * count * max(len(shares), 1),
        xaxis={"title": "share of variance [%]", "range": [0, 100]},
        yaxis={"autorange": "reversed", "automargin": True},
    )  # fmt: skip
    return figure


def _front_table(found: Sweep) -> str:
    """Return the table of the front, by the first objective; numbers are those of front.png."""
    space = found.space
    numbers = {row: str(number) for number, row in enumerate(numbered(found), 1)}
    rows = np.flatnonzero(np.isin(found.numbers, found.front))
    order = rows[np.argsort(found.metrics[space.objectives[0]][rows], kind="stable")]
    paths = [p.path for p in space.parameters if len(p.values) > 1]
    heads = ["", "point", *paths, *METRICS]
    lines = ["".join(f"<th>{escape(head)}</th>" for head in heads)]
    for row in order.tolist():
        values = space.values(space.points(found.numbers[row : row + 1])[0].tolist())
        cells = [numbers.get(row, ""), str(found.numbers[row])]
        cells += [escape(str(values[path])) for path in paths]
        cells += [f"{found.metrics[name][row]:.4g}" for name in METRICS]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'
