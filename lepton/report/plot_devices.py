"""The timeline of a placed network's devices and links; whose clock a bar is on is its hatch."""

from __future__ import annotations

from lepton.report.style import Picture, clean, layer_colour, picture, plain
from lepton.runtime.timeline import MODELLED, Timeline

__all__ = ["devices_picture"]

_HATCHES = {"measured": "", "simulated": "////", "described": "xxxx", MODELLED: "...."}
_HEIGHT = 0.36


def devices_picture(timeline: Timeline, title: str) -> Picture:
    """Return a row per device and link.

    Colours tell successive inputs apart or, of a single one, the regions in their order.

    Args:
        timeline: of a plan, a run or a stream.
        title: of the picture.
    """
    rows = sorted({bar.row for bar in timeline.bars}, key=lambda name: ("->" in name, name))
    clocks = {bar.row: bar.clock for bar in timeline.bars}
    is_stream = any(bar.sample for bar in timeline.bars)
    caption = (
        f"Colours are {'successive inputs' if is_stream else 'regions in their order'}. Solid bars "
        "are measured on this machine, hatched ones simulated by the chip's clock, dotted ones "
        f"modelled. {timeline.latency_ns / 1e6:,.3f} ms in all."
    )
    made = picture("devices", title, caption, 0.9 + _HEIGHT * len(rows))
    axes = made.figure.subplots()
    for number, bar in enumerate(timeline.bars):
        axes.broken_barh(
            [(bar.start_ns / 1e6, (bar.end_ns - bar.start_ns) / 1e6)],
            (rows.index(bar.row) - 0.4, 0.8),
            facecolors=layer_colour(bar.sample if is_stream else number),
            hatch=_HATCHES[bar.clock], edgecolor="white", linewidth=0.3,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [plain(f"{row} ({clocks[row]})") for row in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlim(0, max(timeline.latency_ns, 1) / 1e6)
    clean(axes, x="time [ms]")
    return made
