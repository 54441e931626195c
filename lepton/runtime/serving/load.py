"""What is asked of the devices: tenants, their requests, and what goes wrong meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lepton.errors import InputError

__all__ = ["Fault", "Request", "Stage", "Tenant", "Way", "arrivals"]


@dataclass(frozen=True)
class Stage:
    """A region of a network on a device.

    Attributes:
        device: its number among those that serve.
        region_ns: predicted time of the region.
        inputs: tensors that it reads.
        outputs: tensors that it makes.
        around_ns: its launch, and the transfers of its operands and of results to the host.
        region: its number in the plan of its way.
    """

    device: int
    region_ns: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    around_ns: int = 0
    region: int = 0

    @property
    def work_ns(self) -> int:
        """What it takes of its device's time."""
        return self.region_ns + self.around_ns


@dataclass(frozen=True)
class Way:
    """One of the ways to run a network, stage after stage.

    Attributes:
        results: tensors that the request is for.
        number: of this way among its tenant's.
    """

    stages: tuple[Stage, ...]
    results: tuple[str, ...]
    number: int = 0

    @cached_property
    def latency_ns(self) -> int:
        """What it takes on idle devices."""
        return sum(stage.work_ns for stage in self.stages)

    def left(self, known: AbstractSet[str]) -> tuple[Stage, ...]:
        """Return the stages that are still needed if some tensors are known."""
        wanted = set(self.results)
        made: list[Stage] = []
        for stage in reversed(self.stages):
            if any(name in wanted and name not in known for name in stage.outputs):
                made.append(stage)
                wanted.update(stage.inputs)
        return tuple(reversed(made))


@dataclass(frozen=True)
class Tenant:
    """A network that is asked for.

    Attributes:
        ways: at least one.
        rate_hz: mean requests per second.
        priority: the highest goes first.
        deadline_ns: after its arrival a request is late; None is never.
        variation: standard deviation over mean of the times between requests: 0 is regular, 1
            independent requests (Poisson), more comes in bursts.
    """

    name: str
    ways: tuple[Way, ...]
    rate_hz: float
    priority: int = 0
    deadline_ns: int | None = None
    variation: float = 1.0


@dataclass(frozen=True)
class Request:
    """One inference that somebody waits for."""

    number: int
    tenant: int
    arrival_ns: int


@dataclass(frozen=True)
class Fault:
    """A device that is slow, or fails, for a while.

    Attributes:
        end_ns: when it is well again; None is never.
        slowdown: how many times as long stages take that start meanwhile; None is a failure, in
            which the stage that runs is lost too.
    """

    device: int
    start_ns: int
    end_ns: int | None = None
    slowdown: float | None = None


def arrivals(tenants: Sequence[Tenant], count: int, seed: int) -> list[Request]:
    """Return the first `count` requests of all tenants, in order of arrival.

    Times between the requests of a tenant are drawn from a gamma distribution.

    Raises:
        InputError: a rate is not positive, or a variation is negative.
    """
    drawn: list[tuple[int, int]] = []
    for number, tenant in enumerate(tenants):
        if not tenant.rate_hz > 0 or not tenant.variation >= 0:
            raise InputError(
                f"{tenant.name}: the rate must be positive and the variation not negative, "
                f"not {tenant.rate_hz} and {tenant.variation}"
            )
        rng = np.random.default_rng([seed, number])
        mean = 1e9 / tenant.rate_hz
        spread = tenant.variation**2
        gaps = rng.gamma(1 / spread, mean * spread, count) if spread else np.full(count, mean)
        drawn += [(int(at), number) for at in np.cumsum(gaps).round()]
    return [Request(n, tenant, at) for n, (at, tenant) in enumerate(sorted(drawn)[:count])]
