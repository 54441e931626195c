"""What a chip's weight decoder reaches, as far as a stream's form depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lepton.chip import Chip
from lepton.isa.instructions import WeightFormat
from lepton.jit import njit

__all__ = ["Decoder", "decoder_cycles"]

_FIRST_ENTROPY = int(WeightFormat.ENTROPY)
_TABLE_CYCLES = 16
"""Cycles in which the counts of the buckets are added up, before the first element."""


@njit
def decoder_cycles(format: int, elements: int, bytes_per_cycle: int, entropy_lanes: int) -> int:
    """Return the cycles that a block takes in the decoder; docs/timing.md, 7.3."""
    if format < _FIRST_ENTROPY:
        return -(-elements // bytes_per_cycle)
    return -(-elements // max(entropy_lanes, 1)) + _TABLE_CYCLES


@dataclass(frozen=True)
class Decoder:
    """A weight decoder and the memory in front of it."""

    bytes_per_cycle: int
    """Elements that it expands in a cycle."""
    entropy_lanes: int = 0
    """Those of an entropy-coded stream; 0 if it has no lanes for them."""
    memory_bytes_per_cycle: Fraction = Fraction(1)
    skips_zeros: bool = False
    """Whether zeros that no symbol is stored for take no time."""

    @classmethod
    def of(cls, chip: Chip) -> Decoder:
        """Return the decoder of a chip, fed from the memory of its constants."""
        memory = chip.memories[chip.memory_index(chip.placement.constants)]
        buffer = chip.weight_buffer
        rate = chip.bytes_per_cycle(memory)
        skips = chip.sparsity is not None
        return cls(buffer.decoder_bytes_per_cycle, buffer.entropy_lanes, rate, skips)

    def cycles(self, format: WeightFormat, stored_bytes: int, elements: int) -> int:
        """Return the cycles of a stream: those of its memory or its own, whichever are more."""
        bytes_, cycles = self.memory_bytes_per_cycle.as_integer_ratio()
        own = decoder_cycles(int(format), elements, self.bytes_per_cycle, self.entropy_lanes)
        return max(-(-stored_bytes * cycles // bytes_), own)
