"""The placement problem: operations, tensors, devices and the links between these.

All times are whole nanoseconds, so that equal sums are equal whatever order they are formed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError

__all__ = ["NEVER", "Device", "Goal", "I64", "Link", "Operation", "Problem", "Tensor", "pinned"]

I64 = NDArray[np.int64]

NEVER = 1 << 50
"""Cost of what a device cannot do; no sum of real costs reaches it."""


class Goal(StrEnum):
    """What a placement minimizes."""

    LATENCY = "latency"
    """Nanoseconds from the first operation's start to the last one's end."""
    ENERGY = "energy"
    """Picojoules of operations, launches and transfers; waiting costs nothing."""
    THROUGHPUT = "throughput"
    """Nanoseconds of the busiest device or link per inference, all being pipelined."""


@dataclass(frozen=True)
class Device:
    """A device as placement sees it.

    Attributes:
        launch_ns: what it takes to start a region, whose operands come from elsewhere.
        power_mw: what it draws while it works; pJ per ns are mW.
        memory_bytes: what the weights of its operations may take; None is no limit.
    """

    name: str
    launch_ns: int = 0
    power_mw: int = 0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Link:
    """The way from one device to another, for one tensor at a time.

    Attributes:
        conversion_ns_per_byte: what a change of layout or type on the way costs.
    """

    latency_ns: int
    bytes_per_ns: float
    conversion_ns_per_byte: float = 0.0
    energy_pj_per_byte: float = 0.0

    def transfer_ns(self, size_bytes: int) -> int:
        """Return the time of a tensor."""
        each = 1 / self.bytes_per_ns + self.conversion_ns_per_byte
        return self.latency_ns + round(size_bytes * each)


@dataclass(frozen=True)
class Operation:
    """What runs on one device as a whole.

    Attributes:
        cost_ns: per device, None where it cannot run.
        operands: numbers of the tensors that it reads.
        weight_bytes: what it keeps in its device's memory.
        is_boundary: it stands for the network's inputs or outputs.
    """

    name: str
    cost_ns: tuple[int | None, ...]
    operands: tuple[int, ...] = ()
    weight_bytes: int = 0
    is_boundary: bool = False


@dataclass(frozen=True)
class Tensor:
    """What an operation makes and others read."""

    source: int
    size_bytes: int


@dataclass(frozen=True)
class Problem:
    """Operations in an order in which they can run, what they exchange, and where they may run.

    Attributes:
        links: by the numbers of two devices; two devices without one exchange nothing.
    """

    devices: tuple[Device, ...]
    operations: tuple[Operation, ...]
    tensors: tuple[Tensor, ...]
    links: Mapping[tuple[int, int], Link]

    def __post_init__(self) -> None:
        for number, operation in enumerate(self.operations):
            if len(operation.cost_ns) != len(self.devices):
                raise InputError(f"operation '{operation.name}' must have a cost per device")
            if all(cost is None for cost in operation.cost_ns):
                raise InputError(f"operation '{operation.name}' runs on none of the devices")
            for tensor in operation.operands:
                if self.tensors[tensor].source >= number:
                    raise InputError(f"operation '{operation.name}' reads what is not made yet")

    @cached_property
    def cost(self) -> I64:
        """`[operations, devices]` ns, `NEVER` where an operation cannot run."""
        rows = [
            [NEVER if c is None else c for c in operation.cost_ns] for operation in self.operations
        ]
        return np.array(rows, np.int64).reshape(-1, len(self.devices))

    @cached_property
    def transfer(self) -> I64:
        """`[tensors, devices, devices]` ns from one device to another."""
        made = np.full((len(self.tensors),) + (len(self.devices),) * 2, NEVER, np.int64)
        for number, tensor in enumerate(self.tensors):
            np.fill_diagonal(made[number], 0)
            for (source, target), link in self.links.items():
                made[number, source, target] = link.transfer_ns(tensor.size_bytes)
        return made

    @cached_property
    def transfer_pj(self) -> I64:
        """`[tensors, devices, devices]` pJ from one device to another."""
        made = np.zeros_like(self.transfer)
        for number, tensor in enumerate(self.tensors):
            for (source, target), link in self.links.items():
                spent = round(tensor.size_bytes * link.energy_pj_per_byte)
                made[number, source, target] = spent
        return made

    @cached_property
    def launch(self) -> I64:
        """`[devices]` ns."""
        return np.array([device.launch_ns for device in self.devices], np.int64)

    @cached_property
    def opens(self) -> tuple[bool, ...]:
        """Whether an operation opens a region wherever it runs: it reads nothing but inputs."""
        return tuple(
            bool(operation.operands)
            and not operation.is_boundary
            and all(self.operations[self.tensors[t].source].is_boundary for t in operation.operands)
            for operation in self.operations
        )

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """Devices that can run each operation."""
        return tuple(tuple(np.flatnonzero(row < NEVER).tolist()) for row in self.cost)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The order in which devices take operations: by falling rank, as HEFT has it.

        The rank of an operation is its mean cost over the devices that can run it, and the largest
        sum of a reader's rank and the mean time of the tensor between them.

        Source: Topcuoglu, Hariri and Wu, "Performance-effective and low-complexity task scheduling
        for heterogeneous computing", IEEE TPDS 13 (2002).
        """
        rank = [0] * len(self.operations)
        for number in range(len(self.operations) - 1, -1, -1):
            costs = [cost for cost in self.operations[number].cost_ns if cost is not None]
            rank[number] += sum(costs) // len(costs)
            for tensor in set(self.operations[number].operands):
                source = self.tensors[tensor].source
                rank[source] = max(rank[source], rank[number] + self._mean_transfer(tensor))
        return tuple(sorted(range(len(rank)), key=lambda number: (-rank[number], number)))

    def _mean_transfer(self, tensor: int) -> int:
        """Return the mean time of a tensor over all links."""
        size = self.tensors[tensor].size_bytes
        times = [link.transfer_ns(size) for link in self.links.values()]
        return sum(times) // len(times) if times else 0


def pinned(problem: Problem, pins: Mapping[int, int]) -> Problem:
    """Return a problem in which some operations have one device to choose from.

    Args:
        problem: the problem without.
        pins: operation -> device.

    Raises:
        InputError: a device cannot run what is pinned to it.
    """
    operations = list(problem.operations)
    for number, device in pins.items():
        operation, cost = operations[number], operations[number].cost_ns[device]
        if cost is None:
            raise InputError(
                f"'{operation.name}' cannot be placed on {problem.devices[device].name}, "
                "which does not support it"
            )
        only = tuple(cost if other == device else None for other in range(len(problem.devices)))
        operations[number] = replace(operation, cost_ns=only)
    return replace(problem, operations=tuple(operations))
