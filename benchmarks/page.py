"""Measured figures as Markdown: tables, limits, and the part of a page that a program writes."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton.jit import sources_hash

__all__ = ["Limit", "figure", "limits_table", "markdown_table", "models_folder", "origin"]
__all__ += ["page_parser", "replace_part", "replace_section"]


@dataclass(frozen=True)
class Limit:
    """A measured figure and what it must not exceed or, with `is_least`, not fall short of."""

    name: str
    limit: float
    measured: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        if self.is_least:
            return self.measured >= self.limit
        return self.measured <= self.limit


def figure(value: float) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str | float]], texts: int) -> str:
    """Return a table whose first `texts` columns are text; numbers are written by `figure`."""
    lines = [head, ["---"] * texts + ["---:"] * (len(head) - texts)]
    lines += [[cell if isinstance(cell, str) else figure(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def limits_table(limits: Sequence[Limit]) -> str:
    """Return limits beside what was measured."""
    rows = [
        (
            item.name,
            f"{'>=' if item.is_least else '<='} {item.limit:,}",
            figure(item.measured),
            "yes" if item.is_met else "**no**",
        )
        for item in limits
    ]
    return markdown_table(("figure", "limit", "measured", "met"), rows, 1)


def origin() -> str:
    """Return when, of which sources and on which machine figures are measured."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return f"on {datetime.date.today()}, sources `{sources_hash()}`,\non a machine of {machine}"


def page_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments of a benchmark that fills a page, described by its first line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the figures of the page")
    return parser


def models_folder(parser: argparse.ArgumentParser) -> Path:
    """Return the folder of the models and data sets; without one the parser says so and ends."""
    folder = os.environ.get("LEPTON_DATA")
    if folder is None:
        parser.error("LEPTON_DATA must name the folder of the models and data sets")
    return Path(folder)


def replace_part(page: Path, heading: str, text: str) -> None:
    """Replace what follows a heading of a page, which is its last part."""
    before, found, _ = page.read_text(encoding="utf-8").partition(f"{heading}\n")
    if not found:
        raise ValueError(f"{page} has no line '{heading}'")
    page.write_text(f"{before}{heading}\n\n{text}\n", encoding="utf-8")


def replace_section(page: Path, heading: str, text: str) -> None:
    """Replace what follows a heading of a page, up to the next heading of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    before, found, after = page.read_text(encoding="utf-8").partition(f"{heading}\n")
    if not found:
        raise ValueError(f"{page} has no line '{heading}'")
    following = re.search(rf"^#{{1,{level}}} ", after, re.MULTILINE)
    rest = f"\n{after[following.start() :]}" if following else ""
    page.write_text(f"{before}{heading}\n\n{text}\n{rest}", encoding="utf-8")
