"""A dense convolution and the element-wise function behind it, computed tile by tile.

before: y = conv(x); z = y + other     after: z = conv(x) + other, and y is nowhere as a whole
The result of a tile is requantized where the sum belongs, and the other operand is added in place.
The array goes on with the next tile meanwhile, and y crosses to no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Binary, Convolution, Tensor
from lepton.compiler.lowering.vector import binary
from lepton.compiler.lowering.weighted import requantize

__all__ = ["PARAMETER_ROOM", "Addition", "Combination", "joined", "operands_of"]

PARAMETER_ROOM = 80
"""Bytes of the scratchpad for the parameters of an element-wise function, aligned."""


@dataclass(frozen=True, eq=False)
class Addition:
    """Two nodes of one region that follow each other and are computed together."""

    convolution: Convolution
    """Dense; nobody else reads its result."""
    combine: Binary
    """Of the result and another tensor of its shape."""

    @property
    def members(self) -> tuple[Convolution, Binary]:
        """Both nodes in order."""
        return self.convolution, self.combine


def joined(convolution: Convolution, combine: Binary | None) -> Convolution:
    """Return a convolution as plans see it: what it reads beside its input, and what it makes.

    Other operands are the inputs from the second on; of each a tile reads what it makes.
    """
    if combine is None:
        return convolution
    inputs = convolution.inputs[0], combine.beside(convolution.output)
    return replace(convolution, inputs=inputs, output=combine.output)


def operands_of(node: Convolution) -> tuple[Tensor, ...]:
    """Return the other operands of a convolution that `joined` made."""
    return node.inputs[1:]


class Combination:
    """The element-wise function behind a convolution while both are emitted."""

    def __init__(
        self, convolution: Convolution, combine: Binary, operator: int, emitter: Emitter
    ) -> None:
        """Bring the parameters, which belong to an operator of its own."""
        self._convolution, self._combine, self._emitter = convolution, combine, emitter
        self._other = combine.beside(convolution.output)
        self._operators = emitter.operator, operator
        self._parameters: Tile | None = None
        if combine.parameters.size:
            emitter.operator = operator
            self._parameters = emitter.load_constant(combine.parameters)
            emitter.operator = self._operators[0]

    def finish(self, where: tuple[int, Box], sums: tuple[int, int], parameters: int) -> None:
        """Emit what makes a tile of the result of a block of sums, and release the sums.

        Args:
            where: image and box of the output.
            sums: address and pitch.
            parameters: address of the requantization's.
        """
        n, box = where
        emitter, combine = self._emitter, self._combine
        held = 0 if self._parameters is None else self._parameters.address
        emitter.operator = self._operators[1]
        with (
            emitter.fetched(self._other, n, box) as other,
            emitter.produced(combine.output, n, box) as tile,
        ):
            emitter.operator = self._operators[0]
            emitter.emit(requantize(self._convolution, tile, sums, parameters))
            emitter.operator = self._operators[1]
            is_left = combine.inputs[0].name == self._convolution.output.name
            operands = (tile, other) if is_left else (other, tile)
            emitter.emit(binary(combine, operands, tile, held))
        emitter.operator = self._operators[0]
        emitter.sums.release(sums[0])

    def end(self) -> None:
        """Give the room of the parameters back."""
        if self._parameters is not None:
            self._emitter.release(self._parameters)
