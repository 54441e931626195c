"""Why zeros do not make a network faster, as text of the figures of `lepton.report.faster`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lepton.program import one_line
from lepton.report.faster import LEAST_SHARE, Gain, Gains
from lepton.report.names import shorten, tidy_names

__all__ = ["EXPLANATION", "HEADS", "dense_line", "gain_rows", "gains_text", "reason_of"]
__all__ += ["reasons_of"]

HEADS = (
    "#", "layer", "dense", "cycles", "zeros %", "needed", "unbalanced", "unfilled", "waiting",
    "bound", "bound changes at",
)  # fmt: skip
EXPLANATION = (
    "cycles = needed (MACs whose weight is not 0, at peak) + unbalanced (zeros that are issued)",
    "+ unfilled (blocks of weights narrower or shorter than the array, operands that arrive too",
    "slowly, weights that load longer than pixels stream) + waiting (the array does nothing);",
    "bound changes: at which share of zeros another resource is busy longest, whatever it is now",
)
"""Lines that say what the columns are."""
_WIDTHS = (4, 28, 9, 9, 8, 9, 11, 9, 9, 21)
_NAME, _BOUND, _TURNS = 1, 9, 10
_MOST_LOSSES = 3
_LOSSES = {
    "wait_weights": "waiting for weights",
    "wait_load": "waiting for loads",
    "wait_store": "waiting for stores",
    "wait_matrix": "waiting for the array's results",
    "wait_vector": "waiting for the vector unit",
    "wait_start": "waiting for no queue",
    "vector": "the vector unit working alone",
    "transfer": "copies",
    "fetch": "waiting for instructions",
    "write_back": "the last results on their way",
    "bank": "conflicts of scratchpad banks",
    "memory": "the array waiting for memory",
}
"""Causes of a layer's cycles as text; the array's own depend on the layer."""


def _turns_text(gain: Gain) -> str:
    """Return the shares of zeros at which the layer's bound changes."""
    return ", ".join(f"{t.before} -> {t.after} at {_percent(t.share)}" for t in gain.turns) or "-"


def _percent(share: float) -> str:
    """Return a share, with a decimal where it would read 0 or 100 %."""
    whole = f"{100 * share:.0f}"
    return f"{whole if whole not in ('0', '100') else f'{100 * share:.1f}'} %"


def gain_rows(gains: Gains) -> list[tuple[str, ...]]:
    """Return the cells of each layer under `HEADS`."""
    names = tidy_names([gain.name for gain in gains.layers])
    return [
        (
            f"L{g.index}", one_line(name), f"{g.dense:,}", f"{g.cycles:,}",
            f"{100 * g.share_of_zeros:.1f}", f"{g.needed:,}", f"{g.unbalanced:,}",
            f"{g.unfilled:,}", f"{g.waiting:,}", g.bound, _turns_text(g),
        )
        for g, name in zip(gains.layers, names, strict=True)
    ]  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    """Return the cells under each other's heads: names to the left, numbers to the right."""
    made = [
        shorten(cell, width).ljust(width) if at in (_NAME, _BOUND) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells[:_TURNS], _WIDTHS, strict=True))
    ]
    made.append(cells[_TURNS])
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


def _loss_text(gain: Gain, cause: str, *, skips: bool) -> str:
    """Return what takes the cycles of one of a layer's losses."""
    if cause == "unbalanced":
        if skips:
            return "zeros that lie where skipping them shortens no pass"
        return "MACs whose weight is 0, which the chip issues"
    if cause == "unfilled":
        if gain.short:
            return "weights loading into the array longer than their pixels stream"
        return "the array working without being filled"
    if cause == "wait_weights" and gain.bound != "latency":
        memory, decode = gain.uses["weight bandwidth"], gain.uses["decode"]
        return f"{_LOSSES[cause]} from the {'decoder' if decode > memory else 'memory'}"
    return _LOSSES[cause]


def _bound_text(gain: Gain, *, skips: bool) -> str:
    """Return what bounds a layer, and why that does not fall with its zeros."""
    cycles = gain.uses.get(gain.bound, 0)
    places = ", as the places of zeros take bits too" if gain.stream * gain.ideal > 1 else ""
    zeros = "zeros included"
    if skips:
        zeros = "eight zeros of grouped streams in the time of one weight, none of entropy-coded"
    texts = {
        "compute": f"the array is at work for {cycles:,} cycles",
        "weight bandwidth": f"its weights take the memory {cycles:,} cycles, "
        f"{gain.stream:.2f} of the dense ones' bytes{places}",
        "activation bandwidth": f"what is not weights takes the memory {cycles:,} cycles, "
        "however many of them are 0",
        "decode": f"the decoder takes {cycles:,} cycles, {zeros}",
        "vector": f"the vector unit takes {cycles:,} cycles, however many weights are 0",
        "latency": "no resource is busy for half of its cycles, the rest is fixed costs: requests "
        "on their way, pipelines filled and drained, waits for other layers",
    }
    hidden = ", part of them while other layers run" if cycles > gain.cycles else ""
    return f"bound: {gain.bound} ({texts[gain.bound]}{hidden})"


def _saving(gain: Gain) -> str:
    """Return what skipping would save on a chip that does not skip."""
    now, others = gain.options["as it is"], gain.options.keys() - {"as it is", "no skipping"}
    if not others:
        return "its array cannot skip zeros"
    saved = max(now - min(gain.options[name] for name in others), 0)
    share = 100 * saved / now if now else 0.0
    return f"a chip that skips zeros would save {saved:,} cycles ({share:.1f} %, estimated)"


def reason_of(gain: Gain, *, skips: bool) -> str:
    """Return why a layer gains less than its zeros would allow, "" if it gains that or has few.

    Args:
        gain: of the layer.
        skips: whether its chip skips zeros.
    """
    is_ideal = gain.compared * gain.weights <= gain.dense * (gain.weights - gain.zeros)
    if gain.share_of_zeros < LEAST_SHARE or is_ideal:
        return ""
    ideal = f"{gain.ideal:.2f}x" if gain.zeros < gain.weights else "any multiple"
    losses = sorted(gain.losses, key=lambda cause: -gain.losses[cause])[:_MOST_LOSSES]
    shown = "; ".join(
        f"{gain.losses[cause]:,} cycles, {_loss_text(gain, cause, skips=skips)}"
        for cause in losses
        if gain.losses[cause] > 0
    )
    parts = [shown, _bound_text(gain, skips=skips), "" if skips else _saving(gain)]
    more = gain.compared - gain.dense / gain.ideal
    return (
        f"{100 * gain.share_of_zeros:.0f} % zeros allow {ideal} of dense, it has "
        f"{gain.reached:.2f}x, {more:,.0f} cycles too many: {'; '.join(p for p in parts if p)}"
    )


def _best(cycles: Mapping[str, int], now: int) -> str:
    """Return the choice that takes the fewest cycles, if it takes fewer than now."""
    name = min(cycles, key=lambda name: cycles[name], default="")
    return f"{name} {cycles[name]:,}" if name and cycles[name] < now else ""


def _hints(gain: Gain, *, skips: bool) -> str:
    """Return what would help a layer most."""
    now = gain.options["as it is"]
    option = _best(gain.options, now) if skips else ""
    found = {"option": option, "place of the zeros": _best(gain.patterns, now)}
    hints = ", ".join(f"best {what} {hint}" for what, hint in found.items() if hint)
    return f"; {hints} of {now:,} now (estimated)" if hints else ""


def reasons_of(gains: Gains) -> list[str]:
    """Return a line for each layer that gains less than its zeros allow: why, and what would."""
    names = tidy_names([gain.name for gain in gains.layers])
    made: list[str] = []
    for gain, name in zip(gains.layers, names, strict=True):
        reason = reason_of(gain, skips=gains.skips)
        if reason:
            made.append(
                f"L{gain.index} {one_line(name)}: {reason}{_hints(gain, skips=gains.skips)}"
            )
    return made


def dense_line(gains: Gains) -> str:
    """Return what the network is compared with, and how much faster it is."""
    times = f"{gains.dense / gains.compared:.2f}x" if gains.compared else "-"
    return f"dense: {gains.dense:,} cycles, {times} ({gains.origin})"


def gains_text(gains: Gains) -> str:
    """Return the report as text."""
    needed = sum(gain.needed for gain in gains.layers)
    base = gains.options["as it is"]
    lines = [
        f"{one_line(gains.model)} on {one_line(gains.chip)}: {gains.cycles:,} cycles; MACs whose "
        f"weight is not 0 take {needed:,} of them",
        dense_line(gains),
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
