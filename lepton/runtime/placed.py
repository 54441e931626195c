"""Run a placed network: every device in a thread of its own, each region as soon as it can."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CompileError, InputError
from lepton.program import as_array, as_batch
from lepton.runtime.devices import Arrays, Prepared, Progress, Ran, silent
from lepton.runtime.plan import Plan, Region, place_network, region_schedule
from lepton.runtime.timeline import Timeline, timeline_of

__all__ = ["Execution", "PlacedModel", "prepare_plan"]

_MOST_PLANS = 5


@dataclass(frozen=True)
class Execution:
    """What a run of a placed network returned.

    Attributes:
        outputs: by name.
        timeline: when each region ran: durations by the clock of its device, starts by the model
            of `lepton.runtime.placement.schedule`.
    """

    outputs: Arrays
    timeline: Timeline


@dataclass(frozen=True)
class PlacedModel:
    """A network whose regions are ready on their devices."""

    plan: Plan
    regions: tuple[Prepared, ...]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Execution:
        """Run the network once.

        Args:
            inputs: by name, exactly the model's shapes and types.

        Raises:
            InputError: an input is missing, unknown, or of the wrong shape or type.
        """
        values = _checked(self.plan, inputs)
        ran = self._dispatched(values)
        taken = [ran[number].duration_ns for number in range(len(self.regions))]
        launches = [device.launch_ns(self.plan.network) for device in self.plan.devices]
        # a measured region holds its launch, which the schedule adds
        for number, region in enumerate(self.plan.regions):
            if self.plan.devices[region.device].clock == "measured":
                taken[number] = max(taken[number] - launches[region.device], 0)
        outputs = {name: values[name] for name in self.plan.network.outputs}
        return Execution(outputs, timeline_of(self.plan, region_schedule(self.plan, taken)))

    def _dispatched(self, values: Arrays) -> dict[int, Ran]:
        """Run all regions, each as soon as its operands are there; add their results to values."""
        ran: dict[int, Ran] = {}
        waiting = dict(enumerate(self.plan.regions))
        running: dict[Future[Ran], int] = {}
        with ExitStack() as stack:
            workers = {
                device: stack.enter_context(ThreadPoolExecutor(1))
                for device in {region.device for region in self.plan.regions}
            }
            while waiting or running:
                for number in [n for n, region in waiting.items() if _is_ready(region, values)]:
                    region = waiting.pop(number)
                    operands = {name: values[name] for name in region.inputs}
                    task = workers[region.device].submit(self.regions[number].run, operands)
                    running[task] = number
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for task in done:
                    number = running.pop(task)
                    ran[number] = task.result()
                    values.update(ran[number].outputs)
        return ran

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the first output for one input or a batch of them.

        Args:
            x: the model's input shape, or that with a leading batch, or with a batch in place of
                its leading 1.

        Raises:
            InputError: the model has not one input, or `x` does not fit it.
        """
        network = self.plan.network
        if len(network.inputs) != 1:
            raise InputError(f"the model has inputs {', '.join(network.inputs)}; use run")
        name = network.inputs[0]
        shape = network.tensors[name].shape
        array = as_array(x, f"input '{name}'")
        batch = as_batch(array, shape, f"input '{name}'")
        made = [self.run({name: item}).outputs[network.outputs[0]] for item in batch]
        if array.shape == shape:
            return made[0]
        return np.concatenate([np.atleast_1d(output) for output in made])


def _is_ready(region: Region, values: Arrays) -> bool:
    return all(name in values for name in region.inputs)


def _checked(plan: Plan, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return inputs that are those of the network."""
    network = plan.network
    for name in inputs:
        if name not in network.inputs:
            raise InputError(
                f"input '{name}' does not exist; the model takes {', '.join(network.inputs)}"
            )
    made: Arrays = {}
    for name in network.inputs:
        if name not in inputs:
            raise InputError(f"input '{name}' is missing")
        tensor, array = network.tensors[name], as_array(inputs[name], f"input '{name}'")
        if array.shape != tensor.shape or str(array.dtype) != tensor.dtype:
            raise InputError(
                f"input '{name}' must be {tensor.dtype} {list(tensor.shape)}, "
                f"not {array.dtype} {list(array.shape)}"
            )
        made[name] = array
    return made


def prepare_plan(
    plan: Plan, pins: Mapping[str, str] | None = None, progress: Progress = silent
) -> PlacedModel:
    """Make a plan's regions ready; what a device refuses when asked is placed anew without it.

    Raises:
        CompileError: devices refuse again and again.
    """
    forbidden: set[tuple[int, int]] = set()
    ready: dict[Region, Prepared] = {}
    for _ in range(_MOST_PLANS):
        try:
            for region in plan.regions:
                if region not in ready:
                    device = plan.devices[region.device]
                    ready[region] = device.prepare(plan.network, region.units)
        except CompileError:
            refused = next(region for region in plan.regions if region not in ready)
            forbidden |= {(unit, refused.device) for unit in _suspects(plan, refused)}
            plan = place_network(
                plan.network, plan.devices, plan.goal, pins, forbidden=forbidden, progress=progress
            )
            continue
        return PlacedModel(plan, tuple(ready[region] for region in plan.regions))
    raise CompileError(f"no placement of {plan.network.name} can be made ready")


def _suspects(plan: Plan, region: Region) -> list[int]:
    """Return the units for which a region may be refused: those at its edge in float, else all."""
    network = plan.network
    edge = {
        name
        for name in (*region.inputs, *region.outputs)
        if network.tensors[name].dtype not in ("int8", "uint8")
    }
    touching = [
        number
        for number in region.units
        if edge & {*network.units[number].inputs, *network.units[number].outputs}
    ]
    return touching or list(region.units)
