"""A network on devices: from units and their costs to regions and when they run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lepton.errors import InputError
from lepton.runtime.devices import Port, Progress, RuntimeDevice, silent
from lepton.runtime.placement import (
    Device,
    Goal,
    Link,
    Operation,
    Problem,
    Schedule,
    Solution,
    Tensor,
    greedy,
    pinned,
    pipelined,
    schedule,
    solve,
)
from lepton.runtime.split import Network

__all__ = ["Plan", "Region", "place_network", "region_schedule", "stream_schedule"]


@dataclass(frozen=True)
class Region:
    """Units that one device runs as a whole."""

    device: int
    units: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A placed network.

    Attributes:
        goal: what was minimized.
        cost_ns: of each unit on each device, None where it cannot run.
        reasons: per device, why it cannot run each unit, "" where it can.
        solution: of the problem whose operations are the units.
        placement: the device of each unit; not the solution's if another one is better by regions.
        regions: in an order in which they can run.
        schedule: of the regions, whose numbers are its operations' less one.
        others: what the goal minimizes where each device in turn claims all that it can run.
        notes: sentences about devices that are not there.
    """

    network: Network
    devices: tuple[RuntimeDevice, ...]
    goal: Goal
    cost_ns: tuple[tuple[int | None, ...], ...]
    reasons: tuple[tuple[str, ...], ...]
    solution: Solution
    placement: tuple[int, ...]
    regions: tuple[Region, ...]
    schedule: Schedule
    others: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def greedy_value(self) -> int:
        """What devices chosen by priority, in the order in which they are named, amount to."""
        return next(iter(self.others.values()))


def place_network(
    network: Network,
    devices: Sequence[RuntimeDevice],
    goal: Goal = Goal.LATENCY,
    pins: Mapping[str, str] | None = None,
    *,
    forbidden: Collection[tuple[int, int]] = (),
    progress: Progress = silent,
) -> Plan:
    """Place the units of a network.

    Args:
        network: what is placed.
        devices: what there is, in the order in which a greedy runtime would ask them.
        goal: what is minimized.
        pins: unit, or a node of it -> device, by names.
        forbidden: (unit, device) that have turned out impossible.
        progress: shows measurements.

    Raises:
        InputError: a pin names what there is not, or nothing runs a unit.
    """
    reasons = tuple(device.supports(network) for device in devices)
    found = [device.cost(network, progress) for device in devices]
    cost_ns = tuple(
        tuple(
            None if reasons[d][unit] or (unit, d) in forbidden else found[d][unit]
            for d in range(len(devices))
        )
        for unit in range(len(network.units))
    )
    _require_devices(network, cost_ns, reasons)
    builder = _Builder(network, tuple(devices), goal)
    problem = pinned(builder.units(cost_ns), _pins(network, devices, pins or {}))
    solution = solve(problem, goal)
    names = range(len(devices))
    ways = {
        devices[first].name: greedy(problem, [*_first(first, names), *builder.host_only])
        for first in names
    }
    values = {
        placement: builder.value(_units_of(placement), cost_ns)
        for placement in dict.fromkeys([solution.placement, *ways.values()])
    }
    best = min(values, key=lambda placement: values[placement])
    regions = _regions(network, _units_of(best))
    return Plan(
        network, tuple(devices), goal, cost_ns, reasons, solution, _units_of(best), regions,
        builder.schedule(regions, cost_ns), {name: values[way] for name, way in ways.items()},
    )  # fmt: skip


def _first(chosen: int, numbers: Sequence[int]) -> list[int]:
    """Return numbers with one in front."""
    return [chosen, *(number for number in numbers if number != chosen)]


def _units_of(placement: Sequence[int]) -> tuple[int, ...]:
    """Return the devices of the units, between those of the inputs and the outputs."""
    return tuple(placement[1:-1])


def _require_devices(
    network: Network,
    cost_ns: Sequence[Sequence[int | None]],
    reasons: Sequence[Sequence[str]],
) -> None:
    for number, costs in enumerate(cost_ns):
        if all(cost is None for cost in costs):
            reason = next((each[number] for each in reasons if each[number]), "")
            raise InputError(
                f"'{network.units[number].name}' runs on none of the devices: {reason}"
            )


def _pins(
    network: Network, devices: Sequence[RuntimeDevice], pins: Mapping[str, str]
) -> dict[int, int]:
    """Return pins by the numbers of operations and devices."""
    device_of = {device.name: number for number, device in enumerate(devices)}
    unit_of = {n: at for at, unit in enumerate(network.units) for n in (*unit.names, unit.name)}
    made: dict[int, int] = {}
    for layer, device in pins.items():
        if layer not in unit_of:
            raise InputError(f"{network.name} has no layer '{layer}' to place")
        if device not in device_of:
            known = ", ".join(device_of)
            raise InputError(f"'{layer}' cannot be placed on '{device}', only on {known}")
        made[unit_of[layer] + 1] = device_of[device]
    return made


def _regions(network: Network, placement: Sequence[int]) -> tuple[Region, ...]:
    """Return the regions of a placement.

    The depth of a unit is how often the way to it has changed the device. Units of one device and
    depth that exchange tensors are a region: no way leads out of it and back.
    """
    maker = {name: number for number, unit in enumerate(network.units) for name in unit.outputs}
    depth = [0] * len(placement)
    home = list(range(len(placement)))

    def root(number: int) -> int:
        while home[number] != number:
            number = home[number]
        return number

    for number, unit in enumerate(network.units):
        sources = [maker[name] for name in unit.inputs if name in maker]
        steps = [depth[s] + (placement[s] != placement[number]) for s in sources]
        depth[number] = max(steps, default=0)
        for source in sources:
            if placement[source] == placement[number] and depth[source] == depth[number]:
                home[root(number)] = root(source)
    members: dict[int, list[int]] = {}
    for number in range(len(placement)):
        members.setdefault(root(number), []).append(number)
    groups = sorted(members.values(), key=lambda units: (depth[units[0]], units[0]))
    return tuple(
        Region(placement[units[0]], tuple(units), *network.edges(units)) for units in groups
    )


class _Builder:
    """Placement problems of a network on devices."""

    def __init__(self, network: Network, devices: tuple[RuntimeDevice, ...], goal: Goal) -> None:
        self._network, self._goal = network, goal
        made = [self._device(device, network) for device in devices]
        ports = [device.port for device in devices]
        # tensors lie in the host's memory, which is the CPU's own
        hosts = [at for at, device in enumerate(devices) if device.port == Port()]
        self._host = hosts[0] if hosts else len(made)
        self.host_only = [] if hosts else [self._host]
        if not hosts:
            made.append(Device("host"))
        self._devices = tuple(made)
        ends = [(port.latency_ns, 1 / port.bytes_per_ns) for port in ports]
        ends += [(0, 0.0)] * len(self.host_only)
        self._links: dict[tuple[int, int], Link] = {}
        for source, (latency, each) in enumerate(ends):
            for target, (other, more) in enumerate(ends):
                if source != target:
                    rate = 1 / (each + more) if each + more else float("inf")
                    self._links[source, target] = Link(latency + other, rate)

    def _device(self, device: RuntimeDevice, network: Network) -> Device:
        power = device.power_mw(network)
        if power is None and self._goal is Goal.ENERGY:
            raise InputError(
                f"the objective energy needs what {device.name} draws; give --watts {device.name}=W"
            )
        return Device(device.name, device.launch_ns(network), power or 0, device.memory_bytes)

    def _problem(self, items: Sequence[Operation], reads: Sequence[Sequence[str]],
                 makes: Sequence[Sequence[str]]) -> Problem:  # fmt: skip
        """Return the problem of operations between the network's inputs and outputs."""
        network = self._network
        is_host = [None] * len(self._devices)
        ends = tuple(0 if at == self._host else cost for at, cost in enumerate(is_host))
        made = [network.inputs, *makes]
        tensors = [
            Tensor(source, network.tensors[name].size_bytes)
            for source, names in enumerate(made)
            for name in names
        ]
        number = {name: at for at, name in enumerate(name for names in made for name in names)}
        operations = [Operation("(inputs)", ends, is_boundary=True)]
        for item, names in zip(items, reads, strict=True):
            costs = (*item.cost_ns, *(None for _ in self.host_only))
            operands = tuple(number[name] for name in names)
            operations.append(Operation(item.name, costs, operands, item.weight_bytes))
        operands = tuple(number[name] for name in network.outputs)
        operations.append(Operation("(outputs)", ends, operands, is_boundary=True))
        return Problem(self._devices, tuple(operations), tuple(tensors), self._links)

    def units(self, cost_ns: Sequence[tuple[int | None, ...]]) -> Problem:
        """Return the problem of the units."""
        units = self._network.units
        items = [
            Operation(unit.name, costs, weight_bytes=unit.weight_bytes)
            for unit, costs in zip(units, cost_ns, strict=True)
        ]
        return self._problem(items, [u.inputs for u in units], [u.outputs for u in units])

    def regions(self, regions: Sequence[Region], taken: Sequence[int]) -> Problem:
        """Return the problem of regions that have their devices and take so many nanoseconds."""
        count = len(self._devices) - len(self.host_only)
        items = [
            Operation(
                self._network.units[region.units[0]].name,
                tuple(cost if at == region.device else None for at in range(count)),
            )
            for region, cost in zip(regions, taken, strict=True)
        ]
        return self._problem(items, [r.inputs for r in regions], [r.outputs for r in regions])

    def schedule(
        self, regions: Sequence[Region], cost_ns: Sequence[Sequence[int | None]]
    ) -> Schedule:
        """Return the predicted schedule of regions."""
        taken = [
            sum(cost_ns[unit][region.device] or 0 for unit in region.units) for region in regions
        ]
        return self.timed(regions, taken)

    def timed(self, regions: Sequence[Region], taken: Sequence[int]) -> Schedule:
        """Return the schedule of regions that take so many nanoseconds, launches apart."""
        return schedule(self.regions(regions, taken), self._placed(regions))

    def streamed(
        self, regions: Sequence[Region], taken: Sequence[Sequence[int]], window: int
    ) -> Schedule:
        """Return the schedule of successive inputs."""
        means = [sum(times) // max(len(taken), 1) for times in zip(*taken, strict=True)]
        problem = self.regions(regions, means or [0] * len(regions))
        # between the network's inputs and outputs, which take no time
        every = [[0, *times, 0] for times in taken]
        return pipelined(problem, self._placed(regions), every, window)

    def _placed(self, regions: Sequence[Region]) -> list[int]:
        """Return the devices of the operations of `regions`."""
        return [self._host, *(region.device for region in regions), self._host]

    def value(self, placement: Sequence[int], cost_ns: Sequence[Sequence[int | None]]) -> int:
        """Return what the goal minimizes, of the regions of a placement."""
        return self.schedule(_regions(self._network, placement), cost_ns).value(self._goal)


def region_schedule(plan: Plan, taken: Sequence[int]) -> Schedule:
    """Return a plan's schedule if its regions take so many nanoseconds, launches apart."""
    return _Builder(plan.network, plan.devices, Goal.LATENCY).timed(plan.regions, taken)


def stream_schedule(plan: Plan, taken: Sequence[Sequence[int]], window: int) -> Schedule:
    """Return the schedule of successive inputs, of which a window is on its way.

    Args:
        plan: the placement.
        taken: `[inputs, regions]` ns, launches apart.
        window: how many inputs may be on their way.
    """
    builder = _Builder(plan.network, plan.devices, Goal.LATENCY)
    return builder.streamed(plan.regions, taken, window)
