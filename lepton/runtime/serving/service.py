"""Serve requests on devices, on the clock of the model: the events, and what the policy sees.

Time goes from event to event: a request arrives, a stage ends, a device fails or is well again.
After all events of an instant the policy says what starts. A stage that a failure interrupts is
done again, wherever the policy says, from the tensors that its request's other stages have made: no
request is ever given up.

What is known of a device's pace: half of the last stage's time over its prediction, half of what
was known before; and it is forgotten by half in the time of ten such stages, so that a device that
was slow is tried again. A stage that is overdue is expected to take as long again as it is late.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

from lepton.runtime.serving.load import Fault, Request, Stage, Tenant
from lepton.runtime.serving.policies import Policy, Start, View, Waiting

__all__ = ["Completed", "Execute", "Served", "serve"]

Execute = Callable[[Start], int]
"""Runs a stage and returns what it took in nanoseconds, faults apart."""

_FORGETTING = 10


@dataclass(frozen=True)
class Completed:
    """A request that has got its result.

    Attributes:
        moved: how often a device failed under it.
    """

    request: Request
    end_ns: int
    moved: int

    @property
    def latency_ns(self) -> int:
        return self.end_ns - self.request.arrival_ns


@dataclass(frozen=True)
class Served:
    """What became of the requests.

    Attributes:
        completed: in the order of their ends.
        waiting: those that never ended, because a device that they need has failed for good.
        busy_ns: of each device.
        end_ns: of the last event.
    """

    completed: tuple[Completed, ...]
    waiting: tuple[Request, ...]
    busy_ns: tuple[int, ...]
    end_ns: int


@dataclass
class _Device:
    """A device in service."""

    factors: list[float | None] = field(default_factory=list[float | None])
    start: Start | None = None
    start_ns: int = 0
    expected_ns: int = 0
    ticket: int = 0
    busy_ns: int = 0
    pace: float = 1.0
    pace_ns: int = 0
    memory_ns: int = 1

    @property
    def has_failed(self) -> bool:
        return None in self.factors

    @property
    def slowdown(self) -> float:
        """How many times as long stages take that start now."""
        made = 1.0
        for factor in self.factors:
            made *= factor or 1.0
        return made

    def pace_at(self, now: int) -> float:
        """Return what is left of the observed pace."""
        return 1 + (self.pace - 1) * 0.5 ** ((now - self.pace_ns) / self.memory_ns)

    def observe(self, stage: Stage, now: int) -> None:
        """Learn from a stage that ends."""
        taken, predicted = now - self.start_ns, max(stage.work_ns, 1)
        self.pace = (self.pace_at(now) + taken / predicted) / 2
        self.pace_ns, self.memory_ns = now, max(_FORGETTING * taken, 1)

    def free_ns(self, now: int) -> int | None:
        """Return when it is expected to be free."""
        if self.has_failed:
            return None
        if self.start is None:
            return now
        return max(self.expected_ns, 2 * now - self.expected_ns, now + 1)


def serve(
    tenants: Sequence[Tenant],
    devices: int,
    policy: Policy,
    requests: Sequence[Request],
    *,
    faults: Sequence[Fault] = (),
    execute: Execute | None = None,
) -> Served:
    """Serve requests.

    Args:
        tenants: whose requests they are.
        devices: how many there are.
        policy: says what starts.
        requests: in any order.
        faults: of devices.
        execute: runs stages; without it they take as long as predicted.
    """
    service = _Service(tenants, devices, policy, execute)
    for request in requests:
        service.at(request.arrival_ns, service.arrive, request)
    for fault in faults:
        service.at(fault.start_ns, service.begin, fault)
        if fault.end_ns is not None:
            service.at(fault.end_ns, service.recover, fault)
    return service.run()


def _as_predicted(start: Start) -> int:
    return start.stage.work_ns


class _Service:
    """The state of a service."""

    def __init__(
        self, tenants: Sequence[Tenant], devices: int, policy: Policy, execute: Execute | None
    ) -> None:
        self._tenants, self._policy = tenants, policy
        self._execute = execute or _as_predicted
        self._devices = [_Device() for _ in range(devices)]
        self._events: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._waiting: list[Waiting] = []
        self._completed: list[Completed] = []
        self._now = self._count = 0

    def at(self, when: int, action: Callable[[Any], None], subject: object) -> None:
        """Let something happen."""
        self._count += 1
        heappush(self._events, (when, self._count, action, subject))

    def run(self) -> Served:
        """Let everything happen."""
        heapify(self._events)
        while self._events:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] == self._now:
                _, _, action, subject = heappop(self._events)
                action(subject)
            self._start()
        busy = tuple(device.busy_ns for device in self._devices)
        left = tuple(waiting.request for waiting in self._waiting)
        return Served(tuple(self._completed), left, busy, self._now)

    def arrive(self, request: Request) -> None:
        """Let a request wait."""
        self._wait(Waiting(request))

    def _wait(self, waiting: Waiting) -> None:
        insort(self._waiting, waiting, key=self._order)

    def _order(self, waiting: Waiting) -> tuple[int, float, int, int]:
        """Return by what requests go: the least first."""
        request = waiting.request
        tenant = self._tenants[request.tenant]
        limit = tenant.deadline_ns
        deadline = float("inf") if limit is None else request.arrival_ns + limit
        return -tenant.priority, deadline, request.arrival_ns, request.number

    def begin(self, fault: Fault) -> None:
        """Make a device slow, or stop it."""
        device = self._devices[fault.device]
        device.factors.append(fault.slowdown)
        if device.has_failed and device.start is not None:
            device.busy_ns += self._now - device.start_ns
            device.start.waiting.moved += 1
            self._wait(device.start.waiting)
            device.start, device.ticket = None, device.ticket + 1

    def recover(self, fault: Fault) -> None:
        """End a fault."""
        self._devices[fault.device].factors.remove(fault.slowdown)

    def _start(self) -> None:
        """Start what the policy says."""
        if not self._waiting:
            return
        free = tuple(device.free_ns(self._now) for device in self._devices)
        pace = tuple(device.pace_at(self._now) for device in self._devices)
        for start in self._policy.choose(View(self._now, self._waiting, free, pace)):
            number = start.stage.device
            device = self._devices[number]
            self._waiting.remove(start.waiting)
            taken = max(round(self._execute(start) * device.slowdown), 1)
            device.start, device.start_ns = start, self._now
            device.expected_ns = self._now + round(start.stage.work_ns * pace[number])
            device.ticket += 1
            self.at(self._now + taken, self.end, (number, device.ticket))

    def end(self, subject: tuple[int, int]) -> None:
        """End a stage, unless a failure has ended it."""
        number, ticket = subject
        device = self._devices[number]
        if device.ticket != ticket or device.start is None:
            return
        (waiting, way, stage), device.start = device.start, None
        device.busy_ns += self._now - device.start_ns
        device.observe(stage, self._now)
        waiting.known.update(stage.outputs)
        if way.left(waiting.known):
            self._wait(waiting)
        else:
            self._completed.append(Completed(waiting.request, self._now, waiting.moved))
