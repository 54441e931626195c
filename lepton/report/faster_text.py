"""Why zeros do not make a network faster, as text of the figures of `lepton.report.faster`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lepton.program import one_line
from lepton.report.faster import Gain, Gains
from lepton.report.names import shorten, tidy_names

__all__ = ["EXPLANATION", "HEADS", "gain_rows", "gains_text", "reason_of"]
__all__ += ["reasons_of"]

HEADS = (
    "#", "layer", "cycles", "zeros %", "needed", "unbalanced", "unfilled", "waiting", "bound",
    "compute bounds up to",
)  # fmt: skip
EXPLANATION = (
    "cycles = needed (MACs whose weight is not 0, at peak) + unbalanced (zeros that are issued)",
    "+ unfilled (blocks of weights narrower or shorter than the array, operands that arrive too",
    "slowly, weights that load longer than pixels stream) + waiting (the array does nothing)",
)
"""Lines that say what the columns are."""
_WIDTHS = (4, 28, 9, 8, 9, 11, 9, 9, 21, 21)
_NAME, _BOUND = 1, 8
_LEAST_PERCENT = 10
"""Of zeros that a layer must have to be explained: dense int8 weights have a few."""


def _turn_text(gain: Gain) -> str:
    """Return up to which share of zeros compute bounds the layer."""
    return "-" if gain.turn is None else f"{100 * gain.turn:.0f} % zeros"


def gain_rows(gains: Gains) -> list[tuple[str, ...]]:
    """Return the cells of each layer under `HEADS`."""
    names = tidy_names([gain.name for gain in gains.layers])
    return [
        (
            f"L{g.index}", one_line(name), f"{g.cycles:,}", f"{100 * g.share_of_zeros:.1f}",
            f"{g.needed:,}", f"{g.unbalanced:,}", f"{g.unfilled:,}", f"{g.waiting:,}", g.bound,
            _turn_text(g),
        )
        for g, name in zip(gains.layers, names, strict=True)
    ]  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    """Return the cells under each other's heads: names to the left, numbers to the right."""
    made = [
        shorten(cell, width).ljust(width) if at in (_NAME, _BOUND) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return "  ".join(made).rstrip()


def _choices(title: str, cycles: Mapping[str, int], base: int) -> list[str]:
    """Return the estimated cycles of the program with each choice, beside the base's."""
    if not cycles:
        return []
    lines = [title]
    for name, count in cycles.items():
        change = f"{base / count:.2f}x" if count else "-"
        lines.append(f"  {name:16} {count:>12,} {change:>8}")
    return [*lines, ""]


def reason_of(gain: Gain, *, skips: bool) -> str:
    """Return why a layer gains less than its zeros would allow, "" if it gains that or has few.

    Args:
        gain: of the layer.
        skips: whether its chip skips zeros.
    """
    dense, ideal = gain.options["no skipping"], 1 / max(1 - gain.share_of_zeros, 1e-9)
    now = gain.options["as it is"]
    reached = dense / now if now else 1.0
    if 100 * gain.share_of_zeros < _LEAST_PERCENT or reached >= ideal:
        return ""
    begin = f"{100 * gain.share_of_zeros:.0f} % zeros allow {ideal:.1f}x, it has {reached:.2f}x: "
    if not skips:
        return f"{begin}the chip issues MACs whose weight is 0"
    losses = {
        "zeros lie where skipping them shortens no pass": gain.unbalanced,
        "the array works but is not filled": gain.unfilled,
        f"the array waits (bound: {gain.bound})": gain.waiting,
    }
    most = sorted(losses, key=lambda text: -losses[text])[:2]
    return begin + "; ".join(f"{losses[text]:,} cycles, {text}" for text in most if losses[text])


def _best(cycles: Mapping[str, int], now: int) -> str:
    """Return the choice that takes the fewest cycles, if it takes fewer than now."""
    name = min(cycles, key=lambda name: cycles[name], default="")
    return f"{name} {cycles[name]:,}" if name and cycles[name] < now else ""


def _hints(gain: Gain) -> str:
    """Return what would help a layer most."""
    now = gain.options["as it is"]
    found = {"option": _best(gain.options, now), "place of the zeros": _best(gain.patterns, now)}
    hints = ", ".join(f"best {what} {hint}" for what, hint in found.items() if hint)
    return f"; {hints} of {now:,} now (estimated)" if hints else ""


def reasons_of(gains: Gains) -> list[str]:
    """Return a line for each layer that gains less than its zeros allow: why, and what would."""
    names = tidy_names([gain.name for gain in gains.layers])
    made: list[str] = []
    for gain, name in zip(gains.layers, names, strict=True):
        reason = reason_of(gain, skips=gains.skips)
        if reason:
            made.append(f"L{gain.index} {one_line(name)}: {reason}{_hints(gain)}")
    return made


def gains_text(gains: Gains) -> str:
    """Return the report as text."""
    needed = sum(gain.needed for gain in gains.layers)
    base = gains.options["as it is"]
    lines = [
        f"{one_line(gains.model)} on {one_line(gains.chip)}: {gains.cycles:,} cycles; MACs whose "
        f"weight is not 0 take {needed:,} of them",
        *EXPLANATION,
        "",
        _line(HEADS),
        *(_line(row) for row in gain_rows(gains)),
        "",
        *_choices("this program with other chip options, estimated", gains.options, base),
        *_choices("this chip with as many zeros in other places, estimated", gains.patterns, base),
        *reasons_of(gains),
    ]
    return "\n".join(lines).rstrip()
