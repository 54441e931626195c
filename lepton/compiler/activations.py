"""How many bits the activations of a calibrated model have, and what that left of its results.

Plain values: they cross from the process that quantizes to the one that reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lepton.errors import InputError
from lepton.program import one_line

__all__ = ["ACTIVATIONS", "INT8", "Activations", "Fidelity", "Precision"]

ACTIVATIONS = ("int8", "int16", "auto")

_SHOWN = 6
"""Layers that are named in the text."""


@dataclass(frozen=True)
class Activations:
    """What is asked for.

    Attributes:
        kind: `int8`, `int16`, or `auto`: int8 but for the fewest tensors that reach the target.
        sqnr_db: target of `auto`, see `Fidelity`.
        agreement: target of `auto`, 0 to 1, see `Fidelity`.
    """

    kind: str = "int8"
    sqnr_db: float | None = None
    agreement: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InputError(f"activations must be one of {known}, not {self.kind!r}")
        targets = (self.sqnr_db, self.agreement)
        if self.kind != "auto":
            if targets != (None, None):
                raise InputError(
                    f"sqnr and agreement are targets of the activations auto, not of {self.kind}"
                )
            return
        if targets == (None, None):
            raise InputError(
                "activations auto need a target: the signal-to-noise ratio of the outputs in dB "
                "(--sqnr 25), or the share of equal first classes (--agreement 0.99)"
            )
        self._refuse_targets()

    def _refuse_targets(self) -> None:
        """Raise InputError for targets that are out of range."""
        if self.sqnr_db is not None and not 0 < _number(self.sqnr_db) < math.inf:
            raise InputError(f"sqnr must be a positive number of dB, not {self.sqnr_db!r}")
        if self.agreement is not None and not 0 < _number(self.agreement) <= 1:
            raise InputError(
                f"agreement must be a share above 0, at most 1, not {self.agreement!r}"
            )

    def reached(self, fidelity: Fidelity) -> bool:
        """Return whether results are as good as asked for."""
        is_quiet = self.sqnr_db is None or fidelity.decibels >= self.sqnr_db
        return is_quiet and (self.agreement is None or fidelity.agreement >= self.agreement)

    def target(self) -> str:
        """Return the target as the user reads it."""
        parts = [] if self.sqnr_db is None else [f"{self.sqnr_db:g} dB"]
        parts += [] if self.agreement is None else [f"{100 * self.agreement:g} % agreement"]
        return " and ".join(parts)


def _number(value: object) -> float:
    """Return a number, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


INT8 = Activations()
"""What calibrated models have unless something else is asked for."""


@dataclass(frozen=True)
class Fidelity:
    """A quantized model's float outputs beside the float model's, on the calibration samples.

    Attributes:
        sqnr_db: power of the float outputs over that of the differences, in dB, of the output
            where it is least; None if nothing differs.
        agreement: share of the rows of the first output (its last axis) whose largest element is
            at the same place, 0 to 1.
    """

    sqnr_db: float | None
    agreement: float

    @property
    def decibels(self) -> float:
        """The ratio as a number."""
        return math.inf if self.sqnr_db is None else self.sqnr_db

    def text(self) -> str:
        """Return both as the user reads them."""
        ratio = "no noise" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        return f"{ratio}, {100 * self.agreement:.1f} % agreement"


@dataclass(frozen=True)
class Precision:
    """What was chosen.

    Attributes:
        asked: what was asked for.
        tensors: the activations that have a scale of their own.
        wide: those of 16 bits, in the order of the graph.
        layers: the nodes that read or write one of 16 bits, in the order of the graph.
        chosen: of the model as it was quantized.
        int8: of the same model all in 8 bits; None unless the choice was automatic.
        int16: all in 16 bits; None unless the choice was automatic and asked for it.
    """

    asked: Activations
    tensors: int
    wide: tuple[str, ...]
    layers: tuple[str, ...]
    chosen: Fidelity
    int8: Fidelity | None = None
    int16: Fidelity | None = None

    @staticmethod
    def from_json(table: Mapping[str, Any]) -> Precision:
        """Return what `to_json` gave."""
        parts = {
            name: None if table[name] is None else Fidelity(**table[name])
            for name in ("chosen", "int8", "int16")
        }
        plain = {name: tuple(table[name]) for name in ("wide", "layers")}
        return Precision(
            **{**table, **parts, **plain, "asked": Activations(**table["asked"])}  # pyright: ignore[reportArgumentType]
        )

    def to_json(self) -> dict[str, object]:
        """Return the choice as JSON types."""
        return asdict(self)

    def text(self) -> str:
        """Return the choice as lines for the user."""
        lines = [
            f"16-bit activations: {len(self.wide)} of {self.tensors} tensors; layers with them, on "
            f"the host: {len(self.layers)}; beside the float model: {self.chosen.text()}"
        ]
        if self.asked.kind != "auto":
            return lines[0]
        if self.layers:
            more = len(self.layers) - _SHOWN
            rest = f" and {more} more" if more > 0 else ""
            lines.append(f"  layers: {', '.join(map(one_line, self.layers[:_SHOWN]))}{rest}")
        known = [("int8", self.int8), ("int16", self.int16)]
        others = [f"all {name} {found.text()}" for name, found in known if found is not None]
        lines.append(f"  target {self.asked.target()}; {'; '.join(others)}")
        return "\n".join(lines)
