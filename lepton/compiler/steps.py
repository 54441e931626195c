"""A model as steps to run in order: NPU graphs and host graphs, as the front half leaves it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lepton.chip import Chip
from lepton.compiler import graph as ir
from lepton.compiler.windows import pixels_fit

__all__ = [
    "Crossing",
    "FrontModel",
    "HostGraph",
    "HostOperator",
    "HostStep",
    "NpuStep",
    "Verdict",
]


@dataclass(frozen=True)
class HostGraph:
    """A host region: ONNX bytes, and the names of its inputs and outputs, in order."""

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Crossing:
    """A tensor that crosses the edge of a step."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class NpuStep:
    """A region of the NPU."""

    graph: ir.Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class HostOperator:
    """The report line of a host operator."""

    name: str
    kind: str
    macs: int
    reason: str
    """The rule that keeps it off the NPU."""


@dataclass(frozen=True)
class HostStep:
    """A region of the host."""

    graph: HostGraph
    operators: tuple[HostOperator, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether the window of a pool fits the scratchpad, in which a chip has a say."""

    pixels: int
    fits: bool

    def holds_for(self, chip: Chip) -> bool:
        """Return whether it is so for another chip."""
        return pixels_fit(self.pixels, chip) == self.fits


@dataclass(frozen=True)
class FrontModel:
    """The model as steps to run in order."""

    name: str
    golden: str
    steps: tuple[NpuStep | HostStep, ...]
    crossings: dict[str, Crossing]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    quantizations: dict[str, tuple[float, int]] = field(
        default_factory=dict[str, tuple[float, int]]
    )
    verdicts: tuple[Verdict, ...] = ()
    """What a chip had a say in."""

    def suits(self, chip: Chip) -> bool:
        """Return whether the model would be cut into the same steps for another chip."""
        return all(verdict.holds_for(chip) for verdict in self.verdicts)

    @property
    def npu_macs(self) -> int:
        """Multiply-accumulates of the NPU's regions."""
        regions = [step.graph for step in self.steps if isinstance(step, NpuStep)]
        return sum(node.macs for region in regions for node in region.nodes)

    @property
    def constant_bytes(self) -> int:
        """Of the weights and the host's models."""
        total = 0
        for step in self.steps:
            if isinstance(step, HostStep):
                total += len(step.graph.model)
                continue
            nodes = step.graph.nodes
            total += sum(n.weights.nbytes for n in nodes if isinstance(n, ir.Convolution))
        return total
