"""Run the stages of requests on real devices: their values, and times by the devices' clocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lepton.runtime.devices import Arrays
from lepton.runtime.placed import PlacedModel
from lepton.runtime.serving.load import Request
from lepton.runtime.serving.policies import Start
from lepton.runtime.stream import own_ns

__all__ = ["Executor"]


class Executor:
    """Runs what a service starts.

    Args:
        models: of each tenant, by the numbers of its ways.
        inputs: returns the arrays of a request.
    """

    def __init__(
        self, models: Sequence[Sequence[PlacedModel]], inputs: Callable[[Request], Arrays]
    ) -> None:
        self._models, self._inputs = models, inputs
        self._values: dict[int, Arrays] = {}

    def __call__(self, start: Start) -> int:
        """Run a stage; return its time in nanoseconds, launch and transfers included."""
        request, stage = start.waiting.request, start.stage
        model = self._models[request.tenant][start.way.number]
        if request.number not in self._values:
            self._values[request.number] = dict(self._inputs(request))
        values = self._values[request.number]
        ran = model.regions[stage.region].run({name: values[name] for name in stage.inputs})
        values.update(ran.outputs)
        return own_ns(model.plan, stage.region, ran.duration_ns) + stage.around_ns

    def outputs(self, request: Request) -> Arrays:
        """Return the results of a completed request; they are handed out once."""
        values = self._values.pop(request.number)
        names = self._models[request.tenant][0].plan.network.outputs
        return {name: values[name] for name in names}
