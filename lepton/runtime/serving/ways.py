"""The ways to run a network: its placements on all combinations of the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from lepton.errors import InputError
from lepton.runtime.devices import Progress, RuntimeDevice, silent
from lepton.runtime.plan import Plan, place_network
from lepton.runtime.serving.load import Stage, Way
from lepton.runtime.split import Network

__all__ = ["plans_of", "ways_of"]


def plans_of(
    network: Network, devices: Sequence[RuntimeDevice], progress: Progress = silent
) -> list[Plan]:
    """Return a network's best placements on combinations of devices that can run it.

    Raises:
        InputError: not even all devices together can.
    """
    made: list[Plan] = []
    for count in range(len(devices), 0, -1):
        for some in combinations(devices, count):
            try:
                made.append(place_network(network, some, progress=progress))
            except InputError:
                if count == len(devices):
                    raise
    return made


def ways_of(plans: Sequence[Plan], devices: Sequence[RuntimeDevice]) -> tuple[Way, ...]:
    """Return the ways of a network's plans, each with the number of its plan, none twice.

    Regions follow each other as in the plan's schedule; what it overlaps is not overlapped.
    """
    numbers = {device.name: number for number, device in enumerate(devices)}
    made: dict[Way, Way] = {}
    for number, plan in enumerate(plans):
        way = Way(_stages(plan, numbers), plan.network.outputs)
        made.setdefault(way, replace(way, number=number))
    return tuple(made.values())


def _stages(plan: Plan, numbers: dict[str, int]) -> tuple[Stage, ...]:
    """Return the regions of a plan, in the order in which they start."""
    network, regions = plan.network, plan.regions
    tensors = [*network.inputs, *(name for region in regions for name in region.outputs)]
    taken, start = [0] * len(regions), [0] * len(regions)
    for bar in plan.schedule.bars:
        if bar.target is None:
            at = bar.item - 1
            if not 0 <= at < len(regions):
                continue
            start[at] = bar.start_ns
        else:
            at = _payer(plan, tensors[bar.item], bar.target)
        taken[at] += bar.end_ns - bar.start_ns
    made: list[Stage] = []
    for at in sorted(range(len(regions)), key=lambda at: (start[at], at)):
        region = regions[at]
        own = sum(plan.cost_ns[unit][region.device] or 0 for unit in region.units)
        device = numbers[plan.devices[region.device].name]
        around = taken[at] - own
        made.append(Stage(device, own, region.inputs, region.outputs, around, at))
    return tuple(made)


def _payer(plan: Plan, tensor: str, target: int) -> int:
    """Return the region whose time a transfer is: the first that reads it there, else its maker."""
    for at, region in enumerate(plan.regions):
        if region.device == target and tensor in region.inputs:
            return at
    return next(at for at, region in enumerate(plan.regions) if tensor in region.outputs)
