"""The files of a sweep beside its table: pictures and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lepton.explore.engine import Sweep
from lepton.explore.page import sweep_page
from lepton.explore.pictures import pictures
from lepton.explore.plot_migration import migration
from lepton.explore.sensitivity import sensitivity
from lepton.program import atomic_write
from lepton.report.plots import png_bytes, svg_bytes

__all__ = ["write_report"]


def write_report(found: Sweep, folder: Path) -> list[Path]:
    """Write `report.html`, and each picture as PNG and SVG; return the paths.

    Sensitivities are those of points drawn evenly from the whole space, by the analytic tier where
    a search has simulated what is near its front only.
    """
    sample = found.sample
    shares = sensitivity(found.space, sample.numbers, sample.metrics, found.space.objectives)
    varied = [p.path for p in found.space.parameters if len(p.values) > 1]
    shares = {name: {path: own[path] for path in varied} for name, own in shares.items()}
    contents: dict[str, bytes] = {}
    if len(found.numbers) and not np.isnan(found.metrics["latency_ms"]).all():
        simulated = [migration(found)] if found.simulated is not None else []
        for made in pictures(found, shares) + simulated:
            contents[f"{made.name}.png"] = png_bytes(made)
            contents[f"{made.name}.svg"] = svg_bytes(made)
        contents["report.html"] = sweep_page(found, shares).encode()
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return [folder / name for name in contents]
