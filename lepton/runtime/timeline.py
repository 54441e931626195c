"""One timeline for all devices, on which every bar says whose clock it is on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lepton.runtime.placement import Schedule
from lepton.runtime.plan import Plan

__all__ = ["Timeline", "TimelineBar", "timeline_of"]

_WIDTH = 60
MODELLED = "modelled"
"""Clock of transfers and launches, which nothing measures or simulates."""


@dataclass(frozen=True)
class TimelineBar:
    """A stretch of a row.

    Attributes:
        row: a device, or two with an arrow between them.
        name: of the first unit of a region, or of a tensor.
        clock: `measured`, `simulated`, `described` or `modelled`.
        sample: which of successive inputs it belongs to.
    """

    row: str
    name: str
    start_ns: int
    end_ns: int
    clock: str
    sample: int = 0


@dataclass(frozen=True)
class Timeline:
    """When each region ran and each tensor moved."""

    bars: tuple[TimelineBar, ...]
    latency_ns: int

    def text(self) -> str:
        """Return one line per device and link that ever works.

        Successive inputs are drawn by the last digits of their numbers.
        """
        is_stream = any(bar.sample for bar in self.bars)
        rows = list(dict.fromkeys(bar.row for bar in self.bars))
        clock = {bar.row: bar.clock for bar in self.bars}
        scale = _WIDTH / max(self.latency_ns, 1)
        lines: list[str] = []
        for row in sorted(rows, key=lambda name: ("->" in name, name)):
            cells = [" "] * _WIDTH
            busy = 0
            for bar in self.bars:
                if bar.row == row and bar.end_ns > bar.start_ns:
                    busy += bar.end_ns - bar.start_ns
                    first = min(int(bar.start_ns * scale), _WIDTH - 1)
                    for at in range(first, max(int(bar.end_ns * scale), first + 1)):
                        mark = str(bar.sample % 10) if is_stream else "#"
                        cells[at] = mark if cells[at] == " " else cells[at]
            lines.append(f"{row:12} {clock[row]:9} |{''.join(cells)}| {busy / 1e6:.3f} ms busy")
        return "\n".join([*lines, f"{'':22}0{self.latency_ns / 1e6:>{_WIDTH}.3f} ms"])

    def to_json(self) -> list[dict[str, object]]:
        """Return the bars as JSON types."""
        return [dict(vars(bar)) for bar in self.bars]


def timeline_of(plan: Plan, schedule: Schedule, clocks: Sequence[str] | None = None) -> Timeline:
    """Return the timeline of a plan's regions.

    Args:
        plan: whose regions and tensors.
        schedule: of them.
        clocks: of the devices; by default their own.
    """
    names = [device.name for device in plan.devices]
    kinds = clocks or [str(device.clock) for device in plan.devices]
    made = [plan.network.inputs, *(region.outputs for region in plan.regions)]
    tensors = [name for group in made for name in group]
    bars: list[TimelineBar] = []
    for bar in schedule.bars:
        if bar.target is not None:
            ends = [names[at] if at < len(names) else "host" for at in (bar.device, bar.target)]
            row, name, clock = "->".join(ends), tensors[bar.item], MODELLED
        elif 1 <= bar.item <= len(plan.regions):
            region = plan.regions[bar.item - 1]
            row, clock = names[bar.device], kinds[bar.device]
            name = plan.network.units[region.units[0]].name
        else:
            continue
        if bar.end_ns > bar.start_ns:
            bars.append(TimelineBar(row, name, bar.start_ns, bar.end_ns, clock, bar.sample))
    return Timeline(tuple(bars), schedule.latency_ns)
