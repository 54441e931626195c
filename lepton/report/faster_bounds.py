"""What a layer asks of each resource as a function of the share of its weights that are 0.

s is that share, N the weights that the layer's `weights` instructions expand. The zeros lie evenly,
and the other weights keep the distribution that they have: nothing depends on how many zeros the
layer has now. H is the entropy of the values that are not 0, in bits, and
h(s) = -s log2(s) - (1 - s) log2(1 - s).

* `compute` = dense cycles of its matmuls x max(1 - s, 1 / window) + those of its depthwise
  instructions; 1 for the factor where the chip skips no zeros. A window of 1 leaves out blocks that
  are all 0, of which evenly spread zeros make none.
* `weight bandwidth` = N bits(s) / 8 / bytes per cycle of the memory. Bits of a weight, by format:
  8 raw; entropy-coded h(s) + (1 - s) H, the entropy of a source in two parts; grouped
  4 / G + min(w(s), 1 - s^G + (1 - s) m(s)), for the best size of a group G: w(s) is the mean width
  of the widest symbol of a group, m(s) that under a mask, of groups with a weight that is not 0:
  the others have no mask.
* `decode` = N / bytes per cycle of the decoder, entropy-coded N / its lanes and 16 a stream
  (docs/timing.md, 7.3). Of masked groups the decoder of a chip that skips takes (1 - s) N elements,
  but at least N / 8.
* `activation bandwidth`, `vector`: as they are.

Of the formats that the chip reads, the one counts whose larger of memory and decoder is smallest.
Pipelines filled, requests on their way and waits for other layers are in none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.codec.decoder import Decoder, decoder_cycles
from lepton.codec.kernels import CODE_BITS, GROUP_SIZES, LEAST_GROUP
from lepton.codec.symbols import MOST_ENTRIES, by_distance
from lepton.isa.instructions import WeightFormat

__all__ = ["LayerLoads", "NonZeros", "Turn"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_STEPS = 1000
"""Shares at which the largest is looked for; between two of them a turn is found by halving."""
_HALVINGS = 30
_LEAST_MASKED = 2
"""Bits of a symbol under a mask, at least."""
_MASKED = 1
"""Row of the widths of symbols under a mask."""


@dataclass(frozen=True)
class Turn:
    """A share of zeros at which another resource becomes the largest."""

    share: float
    before: str
    after: str


@dataclass(frozen=True)
class NonZeros:
    """The values of a layer's weights that are not 0: `[256]` how often each byte occurs."""

    counts: I64

    @cached_property
    def shares(self) -> F64:
        """`[256]` of the values that are not 0."""
        counts = self.counts.astype(np.float64)
        counts[0] = 0
        return counts / max(counts.sum(), 1.0)

    @cached_property
    def entropy_bits(self) -> float:
        """H."""
        found = self.shares[self.shares > 0]
        return float(-(found * np.log2(found)).sum())

    @cached_property
    def widths(self) -> tuple[F64, ...]:
        """For each kind of symbol, `[2, 9]`: the share whose width is at most so many bits.

        Symbols are distances from 0, and numbers of a palette if the values fit one; a row for
        plain symbols, and one for those under a mask.
        """
        kinds = [by_distance(0).symbol_of.astype(np.int64)]
        if np.count_nonzero(self.shares) < MOST_ENTRIES:
            numbers = np.zeros(256, np.int64)
            numbers[np.argsort(-self.shares, kind="stable")] = np.arange(1, 257)
            kinds.append(numbers)
        return tuple(self._at_most(symbols) for symbols in kinds)

    def _at_most(self, symbols: I64) -> F64:
        """Return the rows of `widths` for symbols."""
        made = np.zeros((2, 9))
        for row, values in enumerate((symbols, np.maximum(symbols - 1, 0))):
            bits = np.frexp(values)[1]
            bits = np.maximum(bits, _LEAST_MASKED) if row == _MASKED else bits
            made[row] = [self.shares[bits <= width].sum() for width in range(9)]
        return made


@dataclass(frozen=True)
class LayerLoads:
    """What a layer asks for; see above.

    Attributes:
        matmul_cycles: dense cycles of its matmuls, a core's.
        depthwise_cycles: of its depthwise instructions, a core's.
        byte_cycles: cycles in which its memory delivers a byte for each of its weights.
        elements: weights that a core's decoder expands.
        streams: `weights` instructions of a core.
        activation_cycles: `activation bandwidth`.
        vector_cycles: `vector`.
        values: of its weights.
    """

    matmul_cycles: float
    depthwise_cycles: float
    byte_cycles: float
    elements: float
    streams: float
    activation_cycles: float
    vector_cycles: float
    values: NonZeros

    def at(self, chip: Chip, share: F64) -> dict[str, F64]:
        """Return the cycles for which it keeps each resource busy.

        Args:
            chip: on which.
            share: `[n]` of zeros, each 0 to 1.

        Returns:
            `[n]` by resource.
        """
        issued = np.ones_like(share)
        if chip.sparsity is not None:
            issued = np.maximum(1 - share, 1 / chip.sparsity.window)
        memory, decode = self._weights(chip, share)
        same = np.ones_like(share)
        return {
            "compute": self.matmul_cycles * issued + self.depthwise_cycles,
            "weight bandwidth": memory,
            "activation bandwidth": self.activation_cycles * same,
            "decode": decode,
            "vector": self.vector_cycles * same,
        }

    def turns(self, chip: Chip) -> tuple[Turn, ...]:
        """Return where the largest changes between no zeros and zeros alone, in order."""
        shares = np.arange(_STEPS + 1) / _STEPS
        uses = self.at(chip, shares)
        names, largest = list(uses), np.argmax(list(uses.values()), axis=0)
        made: list[Turn] = []
        for step in np.flatnonzero(np.diff(largest)).tolist():
            first, last = shares[step : step + 2].tolist()
            before, after = names[int(largest[step])], names[int(largest[step + 1])]
            for _ in range(_HALVINGS):
                middle = (first + last) / 2
                found = self.at(chip, np.array([middle]))
                if max(found, key=lambda name: float(found[name][0])) == before:
                    first = middle
                else:
                    last = middle
            made.append(Turn(last, before, after))
        return tuple(made)

    def _weights(self, chip: Chip, share: F64) -> tuple[F64, F64]:
        """Return the cycles of the memory and of the decoder, in the format that comes soonest."""
        best: tuple[F64, F64] | None = None
        for bits, decode in self._formats(Decoder.of(chip), share):
            memory = self.byte_cycles * np.minimum(bits, 8.0) / 8
            if best is None:
                best = memory, decode
                continue
            now, own = np.maximum(*best), np.maximum(memory, decode)
            sooner = (own < now) | ((own == now) & (memory < best[0]))
            best = np.where(sooner, memory, best[0]), np.where(sooner, decode, best[1])
        assert best is not None
        return best

    def _formats(self, decoder: Decoder, share: F64) -> list[tuple[F64, F64]]:
        """Return bits of a weight and cycles in the decoder, raw first."""
        every = np.full_like(share, self.elements / decoder.bytes_per_cycle)
        made = [(np.full_like(share, 8.0), every)]
        if decoder.entropy_lanes:
            lanes = decoder.entropy_lanes
            tables = decoder_cycles(int(WeightFormat.ENTROPY), 0, 1, lanes) * self.streams
            bits = _two_parts(share) + (1 - share) * self.values.entropy_bits
            made.append((bits, np.full_like(share, self.elements / lanes + tables)))
        for widths in self.values.widths:
            bits, is_masked = _grouped(widths, decoder.bytes_per_cycle, share)
            busy = every
            if decoder.skips_zeros:
                busy = every * np.where(is_masked, np.maximum(1 - share, 1 / 8), 1.0)
            made.append((bits, busy))
        return made


def _two_parts(share: F64) -> F64:
    """Return h(s)."""
    inside = np.clip(share, 1e-12, 1 - 1e-12)
    return -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside)


def _grouped(widths: F64, rate: int, share: F64) -> tuple[F64, NDArray[np.bool_]]:
    """Return the bits of a weight in groups of the best size, and whether they have a mask.

    Args:
        widths: a kind of `NonZeros.widths`.
        rate: of the decoder, elements per cycle; twice a group keeps up with it.
        share: `[n]` of zeros.
    """
    best, is_masked = np.full_like(share, np.inf), np.zeros(share.shape, np.bool_)
    for group in (LEAST_GROUP << level for level in range(GROUP_SIZES)):
        if 2 * group < rate:
            continue
        # the mean of the widest is the sum over widths of the chance that it is wider
        plain, masked = (
            (1 - (share[:, None] + (1 - share[:, None]) * row[None, :8]) ** group).sum(axis=1)
            for row in widths
        )
        filled = 1 - share**group
        masked = filled + (1 - share) * masked / np.maximum(filled, 1e-12)
        bits = CODE_BITS / group + np.minimum(plain, masked)
        is_masked = np.where(bits < best, masked < plain, is_masked)
        best = np.minimum(bits, best)
    return best, is_masked
