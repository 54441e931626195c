"""A placed network, ready to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CompileError, InputError
from lepton.program import as_array, as_batch
from lepton.runtime.devices import Arrays, Prepared, Progress, silent
from lepton.runtime.plan import Plan, Region, place_network, region_schedule
from lepton.runtime.stream import Stream, default_window
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
        with self.stream([inputs], window=1) as stream:
            outputs = next(stream)
        schedule = region_schedule(self.plan, stream.taken_ns[0])
        return Execution(outputs, timeline_of(self.plan, schedule))

    def stream(
        self, inputs: Iterable[Mapping[str, NDArray[Any]]], window: int | None = None
    ) -> Stream:
        """Run the network on successive inputs, the devices side by side.

        Args:
            inputs: by name, exactly the model's shapes and types; each is taken when there is room.
            window: how many may be on their way; by default four per device.

        Returns:
            what yields the outputs by name, in the order of the inputs, and has a `timeline`. It
            raises InputError for an input that is missing, unknown, or of the wrong shape or type.

        Raises:
            InputError: the window is less than 1.
        """
        sound = (_checked(self.plan, arrays) for arrays in inputs)
        chosen = default_window(self.plan) if window is None else window
        return Stream(self.plan, self.regions, sound, chosen)

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
        with self.stream({name: item} for item in batch) as stream:
            made = [outputs[network.outputs[0]] for outputs in stream]
        if array.shape == shape:
            return made[0]
        return np.concatenate([np.atleast_1d(output) for output in made])


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
