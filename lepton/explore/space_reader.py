"""Reads a TOML file of which every fault is named with its line before one error is raised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from lepton.chip.contradictions import shown
from lepton.errors import InputError
from lepton.explore.lines import key_lines

__all__ = ["Reader"]

_SHOWN = 20
"""Faults of a file that are named."""


def _plain(path: Sequence[str]) -> tuple[str, ...]:
    """Return a path in which a quoted key with dots is as good as one without quotes."""
    return tuple(".".join(path).split("."))


class Reader:
    """Reads one file and collects its faults."""

    def __init__(self, text: str, place: str) -> None:
        self.place = place
        self.lines = {_plain(path): line for path, line in key_lines(text).items()}
        self.bad: list[tuple[int, str]] = []

    def fault(self, path: Sequence[str], text: str) -> None:
        """Note a fault of a key or of the table that should have it."""
        keys = _plain(path)
        while keys and keys not in self.lines:
            keys = keys[:-1]
        self.bad.append((self.lines.get(keys, 1), text))

    def table(self, value: object, path: Sequence[str]) -> dict[str, object]:
        """Return what must be a table, an empty one if it is none."""
        if isinstance(value, dict):
            return cast(dict[str, object], value)
        self.fault(path, f"{'.'.join(path)} must be a table, not {shown(value)}")
        return {}

    def number(self, value: object, path: Sequence[str]) -> float | None:
        """Return what must be a finite number."""
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
        self.fault(path, f"{'.'.join(path)} must be a number, not {shown(value)}")
        return None

    def refuse(self) -> None:
        """Raise all faults as one sentence, in the order of their lines."""
        if not self.bad:
            return
        texts = [f"line {line}: {text}" for line, text in sorted(self.bad)[:_SHOWN]]
        raise InputError(f"{self.place}: {' '.join('; '.join(texts).split())}")
