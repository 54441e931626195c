"""Run a placed network on successive inputs: every device in a thread, each region when it can.

Inputs enter in order while fewer than a window of them are on their way; so every queue is bounded,
whatever way regions take between devices, and none of these can wait for another in a circle. A
device takes the oldest input's regions first. Results leave in the order of the inputs.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import PriorityQueue

from lepton.errors import InputError
from lepton.runtime.devices import Arrays, Clock, Prepared
from lepton.runtime.plan import Plan, Region, stream_schedule
from lepton.runtime.timeline import Timeline, timeline_of

__all__ = ["Stream", "default_window", "own_ns"]

_STOP = -1


def default_window(plan: Plan) -> int:
    """Return how many inputs keep all devices of a plan busy though their times vary."""
    return 4 * len({region.device for region in plan.regions})


@dataclass
class _Sample:
    """An input on its way."""

    values: Arrays
    waiting: set[int]
    left: int
    taken_ns: list[int]
    error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return not self.left or self.error is not None


@dataclass
class _Work:
    """What the devices' threads share."""

    plan: Plan
    regions: Sequence[Prepared]
    changed: threading.Condition = field(default_factory=threading.Condition)
    samples: dict[int, _Sample] = field(default_factory=dict[int, _Sample])
    is_stopped: bool = False
    threads: tuple[threading.Thread, ...] = ()

    def __post_init__(self) -> None:
        used = sorted({region.device for region in self.plan.regions})
        self.queues = {device: PriorityQueue[tuple[int, int]]() for device in used}

    def start(self) -> None:
        """Start the threads."""
        self.threads = tuple(
            threading.Thread(
                target=self._serve, args=(queue,), name=self.plan.devices[at].name, daemon=True
            )
            for at, queue in self.queues.items()
        )
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Forget what has not started, and wait for what has."""
        with self.changed:
            self.is_stopped = True
            self.samples.clear()
            self.changed.notify_all()
        for queue in self.queues.values():
            queue.put((_STOP, _STOP))
        for thread in self.threads:
            # garbage may be collected in any thread
            if thread is not threading.current_thread():
                thread.join()

    def submit_ready(self, number: int) -> None:
        """Queue an input's regions whose operands are there; the lock is held."""
        sample = self.samples[number]
        for at in [at for at in sample.waiting if _is_ready(self.plan.regions[at], sample.values)]:
            sample.waiting.remove(at)
            self.queues[self.plan.regions[at].device].put((number, at))

    def _serve(self, queue: PriorityQueue[tuple[int, int]]) -> None:
        """Run what comes for one device."""
        while True:
            number, at = queue.get()
            with self.changed:
                sample = self.samples.get(number)
            if self.is_stopped:
                return
            if sample is not None and sample.error is None:
                self._run(number, at, sample)

    def _run(self, number: int, at: int, sample: _Sample) -> None:
        """Run a region, and queue what waited for it."""
        try:
            operands = {name: sample.values[name] for name in self.plan.regions[at].inputs}
            ran = self.regions[at].run(operands)
        except BaseException as error:
            with self.changed:
                sample.error = error
                self.changed.notify_all()
            return
        with self.changed:
            sample.values.update(ran.outputs)
            sample.taken_ns[at] = ran.duration_ns
            sample.left -= 1
            if number in self.samples:
                self.submit_ready(number)
            self.changed.notify_all()


class Stream(Iterator[Arrays]):
    """The results of successive inputs, in their order; closing it forgets what is on its way.

    A region that fails raises its error in the place of its input's result, after the results of
    the inputs before, and ends the stream; so does the source of the inputs if it raises.

    Args:
        plan: the placement.
        regions: its regions, ready on their devices.
        inputs: sound inputs of the network by name; taken when there is room for one.
        window: how many may be on their way.

    Raises:
        InputError: the window is less than 1.
    """

    def __init__(
        self,
        plan: Plan,
        regions: Sequence[Prepared],
        inputs: Iterator[Arrays],
        window: int,
    ) -> None:
        if window < 1:
            raise InputError(f"window must be at least 1, not {window}")
        self.taken_ns: list[list[int]] = []
        """Of the results that were returned: by region, launches apart."""
        self._plan, self._inputs, self._window = plan, inputs, window
        self._work = _Work(plan, regions)
        self._entered = 0
        self._is_ended = False
        self._close = weakref.finalize(self, self._work.stop)
        self._work.start()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Arrays:
        if not self._close.alive:
            raise StopIteration
        try:
            return self._oldest()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget what is on its way; wait for the regions that run."""
        self._close()

    @property
    def timeline(self) -> Timeline:
        """When the regions of the results so far ran.

        Durations are by the clock of each device, starts by the model of
        `lepton.runtime.placement.pipelined`.
        """
        schedule = stream_schedule(self._plan, self.taken_ns, self._window)
        return timeline_of(self._plan, schedule)

    def _oldest(self) -> Arrays:
        """Return the next result."""
        work = self._work
        number = len(self.taken_ns)
        self._admit()
        with work.changed:
            if number not in work.samples:
                raise StopIteration
            sample = work.samples[number]
            work.changed.wait_for(lambda: sample.is_over)
            del work.samples[number]
        if sample.error is not None:
            raise sample.error
        own = [own_ns(self._plan, at, taken) for at, taken in enumerate(sample.taken_ns)]
        self.taken_ns.append(own)
        self._admit()
        return {name: sample.values[name] for name in self._plan.network.outputs}

    def _admit(self) -> None:
        """Let inputs in while there is room."""
        work = self._work
        count = len(self._plan.regions)
        while not self._is_ended and len(work.samples) < self._window:
            sample = _Sample({}, set(range(count)), count, [0] * count)
            try:
                sample.values.update(next(self._inputs))
            except StopIteration:
                self._is_ended = True
                return
            except Exception as error:
                sample.error, self._is_ended = error, True
            with work.changed:
                work.samples[self._entered] = sample
                if sample.error is None:
                    work.submit_ready(self._entered)
            self._entered += 1


def own_ns(plan: Plan, number: int, taken_ns: int) -> int:
    """Return a region's time without its launch, which a measured one holds and schedules add."""
    device = plan.devices[plan.regions[number].device]
    if device.clock is not Clock.MEASURED:
        return taken_ns
    return max(taken_ns - device.launch_ns(plan.network), 0)


def _is_ready(region: Region, values: Arrays) -> bool:
    return all(name in values for name in region.inputs)
