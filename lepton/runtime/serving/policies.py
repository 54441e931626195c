"""Which waiting request starts on which device.

Both policies let requests go by priority, then by deadline, then by arrival. They differ in where:

* `Static` gives each tenant one way for good, chosen so that the busiest device is least so.
* `Dynamic` decides when a device is free, for each request anew after every stage: the way that is
  predicted to end first, behind what runs and what earlier requests will need. A device that
  fails has no ways through it, one that is slow has longer ones. A request whose best way is busy
  waits for it, and later requests take what it leaves idle.
  Source: minimum completion time, Maheswaran et al., "Dynamic mapping of a class of independent
  tasks onto heterogeneous computing systems", JPDC 59 (1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lepton.runtime.serving.load import Request, Stage, Tenant, Way

__all__ = ["Dynamic", "Policy", "Start", "Static", "View", "Waiting"]


@dataclass
class Waiting:
    """A request that waits for its next stage.

    Attributes:
        known: tensors that its stages have made.
        moved: how often a device failed under it.
    """

    request: Request
    known: set[str] = field(default_factory=set[str])
    moved: int = 0


@dataclass(frozen=True)
class View:
    """What a policy sees.

    Attributes:
        waiting: in the order in which they go.
        free_ns: when each device is expected to be free; None if it has failed.
        pace: how many times as long as predicted stages take on each device, as observed.
    """

    now_ns: int
    waiting: Sequence[Waiting]
    free_ns: tuple[int | None, ...]
    pace: tuple[float, ...]

    def idle(self) -> set[int]:
        """Return the devices that can start something now."""
        return {
            n for n, free in enumerate(self.free_ns) if free is not None and free <= self.now_ns
        }


class Start(NamedTuple):
    """A stage that starts now."""

    waiting: Waiting
    way: Way
    stage: Stage


class Policy(Protocol):
    """Chooses what starts."""

    def choose(self, view: View) -> list[Start]:
        """Return at most one start per device that is free."""
        ...


class Static:
    """One way per tenant.

    Args:
        tenants: with their rates.
        devices: how many there are.

    Attributes:
        ways: of the tenants.
        load: share of the time in which the busiest device would work.
    """

    def __init__(self, tenants: Sequence[Tenant], devices: int) -> None:
        self.ways = _assigned(tenants, devices)
        self.load = max(_loads(tenants, self.ways, devices)) / 1e9

    def choose(self, view: View) -> list[Start]:
        """Return what starts."""
        idle = view.idle()
        made: list[Start] = []
        for waiting in view.waiting:
            if not idle:
                break
            way = self.ways[waiting.request.tenant]
            stage = way.left(waiting.known)[0]
            if stage.device in idle:
                idle.remove(stage.device)
                made.append(Start(waiting, way, stage))
        return made


def _assigned(tenants: Sequence[Tenant], devices: int) -> list[Way]:
    """Return ways such that no single change lowers the load of the busiest device, then of all."""

    def worth(ways: Sequence[Way]) -> tuple[float, float]:
        load = _loads(tenants, ways, devices)
        return max(load), sum(load)

    chosen = [min(tenant.ways, key=lambda way: way.latency_ns) for tenant in tenants]
    best = worth(chosen)
    while True:
        steps = [
            [*chosen[:at], way, *chosen[at + 1 :]]
            for at, tenant in enumerate(tenants)
            for way in tenant.ways
        ]
        step = min(steps, key=worth)
        if worth(step) >= best:
            return chosen
        chosen, best = step, worth(step)


def _loads(tenants: Sequence[Tenant], ways: Sequence[Way], devices: int) -> list[float]:
    """Return the nanoseconds of work per second of each device."""
    load = [0.0] * devices
    for tenant, way in zip(tenants, ways, strict=True):
        for stage in way.stages:
            load[stage.device] += tenant.rate_hz * stage.work_ns
    return load


class Dynamic:
    """The way that is predicted to end first.

    Args:
        tenants: with their ways.
    """

    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self._tenants = tenants

    def choose(self, view: View) -> list[Start]:
        """Return what starts."""
        free, idle = list(view.free_ns), view.idle()
        made: list[Start] = []
        for waiting in view.waiting:
            if not idle:
                break
            found = self._best(waiting, view, free)
            if found is None:
                continue
            way, ends = found
            stage = way.left(waiting.known)[0]
            if stage.device in idle:
                idle.remove(stage.device)
                made.append(Start(waiting, way, stage))
            for device, end in ends.items():
                free[device] = end
        return made

    def _best(
        self, waiting: Waiting, view: View, free: Sequence[int | None]
    ) -> tuple[Way, dict[int, int]] | None:
        """Return the way that ends first, and when it leaves each of its devices."""
        best: tuple[int, Way, dict[int, int]] | None = None
        for way in self._tenants[waiting.request.tenant].ways:
            at = view.now_ns
            ends: dict[int, int] = {}
            for stage in way.left(waiting.known):
                ready = ends.get(stage.device, free[stage.device])
                if ready is None:
                    break
                at = max(at, ready) + round(stage.work_ns * view.pace[stage.device])
                ends[stage.device] = at
            else:
                if best is None or at < best[0]:
                    best = at, way, ends
        return None if best is None else best[1:]
