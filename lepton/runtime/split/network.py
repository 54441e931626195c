"""A network of units, whatever its file format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

__all__ = ["Network", "PieceWriter", "Unit", "UnitTensor"]


@dataclass(frozen=True)
class UnitTensor:
    """A tensor that crosses the edge of a unit."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Unit:
    """What is placed as a whole: nodes of the file that its library would compute as one.

    Attributes:
        name: of its main node.
        kind: the operator of that node, as the file has it.
        nodes: numbers of its nodes in the file.
        names: of its nodes, as reports call them.
        inputs: tensors of other units, or of the network.
        outputs: tensors that others, or the network's user, read.
        signature: equal for units that take equally long: operators, shapes and types.
    """

    name: str
    kind: str
    nodes: tuple[int, ...]
    names: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int
    weight_bytes: int
    is_integer: bool
    signature: str


class PieceWriter(Protocol):
    """Writes a file of some nodes."""

    def __call__(
        self, nodes: Sequence[int], inputs: Sequence[str], outputs: Sequence[str]
    ) -> bytes:
        """Return a model of the format of the network."""
        ...


@dataclass(frozen=True)
class Network:
    """A model file in units.

    Attributes:
        format: of the file and its pieces.
        units: in an order in which they can run.
        tensors: those that cross, by name.
    """

    name: str
    format: Literal["onnx", "tflite"]
    units: tuple[Unit, ...]
    tensors: Mapping[str, UnitTensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    write: PieceWriter = field(repr=False)

    def edges(self, units: Iterable[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the tensors that some units read from elsewhere, and that are read elsewhere."""
        inside = sorted(set(units))
        chosen = [self.units[number] for number in inside]
        made = {name for unit in chosen for name in unit.outputs}
        wanted = set(self.outputs)
        for number, unit in enumerate(self.units):
            if number not in inside:
                wanted.update(unit.inputs)
        inputs = dict.fromkeys(n for unit in chosen for n in unit.inputs if n not in made)
        outputs = dict.fromkeys(n for unit in chosen for n in unit.outputs if n in wanted)
        return tuple(inputs), tuple(outputs)

    def piece(self, units: Sequence[int]) -> bytes:
        """Return a model file of some units."""
        inputs, outputs = self.edges(units)
        nodes = sorted({node for number in units for node in self.units[number].nodes})
        return self.write(nodes, inputs, outputs)
