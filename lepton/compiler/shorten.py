"""Streams get shorter where nobody waits for them.

A block takes the format that its decoder has expanded soonest. Where its layer is bound by
something else, a later one is as good, and the shortest saves bytes of the file and of its memory.
Which layers wait, the estimate of the whole program says. It also says whether streams may lie
without padding between them, which takes some more requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lepton.codec.decoder import decoder_cycles
from lepton.compiler.stored import LEAST_ALIGN, StoredWeights
from lepton.cost.estimate import estimate_program
from lepton.cost.packed_work import packed_work
from lepton.isa import COLUMNS, encode_table
from lepton.isa.instructions import Weights
from lepton.program import Program

__all__ = ["Limit", "shortened"]

_SLOWER = 0.0001
"""Share of the estimated cycles that shorter streams may cost whatever they save."""
_PRICE = 0.025
"""Share of the estimated cycles that they may cost for all of the stored bytes, and so of parts."""
_SLOWEST = 0.002
"""Share of the estimated cycles that they may cost at most."""
_LEAST_SAVED = 0.002
"""Share of the stored bytes that is worth another program."""
_LEAST_PADDING = 0.01
"""Share of the stored bytes that padding takes where a program without it is tried."""
_TRIALS = 48
"""Estimates at most."""


@dataclass(frozen=True)
class _Layer:
    """The streams of an operator that could be shorter."""

    digests: tuple[bytes, ...]
    """Of their blocks."""
    rows: NDArray[np.int64]
    """`[uses, 4]`: the instructions that read them, and of the shorter stream format, bytes and
    elements decoded."""
    saved_bytes: int


@dataclass(frozen=True)
class Limit:
    """What a program may take for shorter streams."""

    cycles: float
    """Estimated cycles as it is."""
    stored: int
    """Bytes of its streams."""

    def allows(self, cycles: float, saved: int) -> bool:
        """Whether so many cycles may be taken where so many bytes are saved."""
        worth = min(max(_PRICE * saved / max(self.stored, 1), _SLOWER), _SLOWEST)
        return cycles <= self.cycles * (1 + worth)


def shortened(program: Program, streams: StoredWeights, build: Callable[[], Program]) -> Program:
    """Return a program with shorter streams that is about as fast, or the program as it is.

    Args:
        program: what `build` emits.
        streams: those of the program, which note the blocks that become shorter, and the padding.
        build: emits the same schedule again.
    """
    stored = sum(item.stream_bytes for item, _ in _readers(program))
    limit = Limit(estimate_program(program).cycles, stored)
    shorter = _recoded(program, streams, build, limit)
    padding = sum(-item.stream_bytes % streams.align for item, _ in _readers(shorter))
    if padding < _LEAST_PADDING * stored:
        return shorter
    align, streams.align = streams.align, LEAST_ALIGN
    made = build()
    saved = len(program.constants) - len(made.constants)
    if limit.allows(estimate_program(made).cycles, saved):
        return made
    streams.align = align
    return shorter


def _recoded(
    program: Program, streams: StoredWeights, build: Callable[[], Program], limit: Limit
) -> Program:
    """Return a program in which some blocks have the shortest format, or the program as it is."""
    layers = _layers(program, _readers(program), streams)
    least = _LEAST_SAVED * limit.stored
    if not layers or _saved(layers) < least:
        return program
    chosen = _chosen(program, layers, limit)
    while _saved(chosen) >= least:
        streams.shorten(digest for layer in chosen for digest in layer.digests)
        made = build()
        if limit.allows(estimate_program(made).cycles, _saved(chosen)):
            return made
        # what follows lies elsewhere than it did in the trials: those that save most remain
        chosen = chosen[: len(chosen) // 2]
    streams.shorten(())
    return program


def _saved(layers: Sequence[_Layer]) -> int:
    return sum(layer.saved_bytes for layer in layers)


def _readers(program: Program) -> list[tuple[Weights, list[int]]]:
    """Return each stream that is read from the constant segment, and the instructions that do."""
    found: dict[int, tuple[Weights, list[int]]] = {}
    for index, item in enumerate(program.decoded):
        if isinstance(item, Weights) and item.memory == program.constants_memory:
            found.setdefault(item.address, (item, []))[1].append(index)
    return list(found.values())


def _layers(
    program: Program, readers: Sequence[tuple[Weights, list[int]]], streams: StoredWeights
) -> list[_Layer]:
    """Return the operators with streams that could be shorter, those that save most first."""
    digests = streams.digests()
    found: dict[int, list[tuple[bytes, list[tuple[int, ...]], int]]] = {}
    for item, uses in readers:
        start = item.address - program.constants_address
        content = program.constants[start : start + item.stream_bytes]
        digest = digests.get((item.format, content.tobytes()))
        if digest is None:
            continue
        format, size, elements = streams.shortest(digest)
        saved = item.stream_bytes - size
        if saved > 0:
            rows = [(use, int(format), size, elements) for use in uses]
            found.setdefault(int(program.operator_of[uses[0]]), []).append((digest, rows, saved))
    layers = [
        _Layer(
            tuple(digest for digest, _, _ in streams_of),
            np.array([row for _, rows, _ in streams_of for row in rows], np.int64),
            sum(saved for _, _, saved in streams_of),
        )
        for streams_of in found.values()
    ]
    return sorted(layers, key=lambda layer: -layer.saved_bytes)


def _chosen(program: Program, layers: Sequence[_Layer], limit: Limit) -> list[_Layer]:
    """Return layers whose shorter streams are worth their cycles, found by halving."""
    chosen: list[_Layer] = []
    pending = [list(layers)]
    for _ in range(_TRIALS):
        if not pending:
            break
        part = pending.pop()
        tried = [*chosen, *part]
        if limit.allows(_cycles(program, tried), _saved(tried)):
            chosen = tried
        elif len(part) > 1:
            middle = len(part) // 2
            pending += [part[middle:], part[:middle]]
    return chosen


def _cycles(program: Program, layers: Sequence[_Layer]) -> float:
    """Return the estimated cycles of a program if these layers had their shorter streams."""
    table, chip = program.table.copy(), program.chip
    rates = chip.weight_buffer.decoder_bytes_per_cycle, chip.weight_buffer.entropy_lanes
    decoder: dict[int, int] = {}
    for layer in layers:
        uses = layer.rows[:, 0]
        table[uses, COLUMNS["format"]] = layer.rows[:, 1]
        table[uses, COLUMNS["stream_bytes"]] = layer.rows[:, 2]
        for use, format, _, elements in layer.rows.tolist():
            decoder[use] = decoder_cycles(format, elements, *rates)
    made = replace(program, instructions=encode_table(table))
    return estimate_program(made, packed_work(program).with_decoder(decoder)).cycles
