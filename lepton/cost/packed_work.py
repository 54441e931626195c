"""What skipping zero weights changes of a program's work; docs/timing.md, 7.3 and section 10."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.codec import WeightStream, decode_weights, decoded_elements
from lepton.codec.decoder import decoder_cycles
from lepton.cost.closed_forms import Walk
from lepton.cost.columns import W_DECODER, W_LAST, W_PRELOAD, W_STREAM
from lepton.cost.instructions import matmul_walk
from lepton.cost.packing import (
    P_COLUMNS,
    P_REPLICAS,
    P_ROWS,
    Packer,
    count_units,
    packed_passes,
    packed_stream,
)
from lepton.cost.scalars import cost_scalars
from lepton.cost.weight_sources import stream_places, weights_of
from lepton.cost.work import fill_work, work_of
from lepton.errors import CheckError
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.instructions import WeightFormat
from lepton.program import Program

__all__ = ["NO_PACKED_WORK", "Cut", "PackedWork", "block_cut", "fill_program_work"]
__all__ += ["issued_macs", "packed_work", "repacked_work"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_MATMUL = BY_MNEMONIC["matmul"].opcode
_ADDRESS, _BYTES, _FORMAT = COLUMNS["address"], COLUMNS["stream_bytes"], COLUMNS["format"]
_REDUCTION, _COLUMNS = COLUMNS["reduction"], COLUMNS["columns"]
_KERNEL_H, _KERNEL_W = COLUMNS["kernel_height"], COLUMNS["kernel_width"]
_CHANNELS = COLUMNS["channels"]
_OFM_H, _OFM_W = COLUMNS["ofm_height"], COLUMNS["ofm_width"]
_MOST_KNOWN = 1 << 15


@dataclass(frozen=True)
class Cut:
    """The passes of a block of weights: `[n, len(PASS)]`, and `[blocks, strips]` their order."""

    rows: int
    """Of the array."""
    passes: I64
    orders: I64

    @cached_property
    def issued(self) -> int:
        """The multiplications of a pixel: of no pass more than it has weights."""
        p = self.passes
        rows = np.minimum(self.loads * p[:, P_REPLICAS], p[:, P_ROWS])
        return int((rows * p[:, P_COLUMNS]).sum())

    @property
    def loads(self) -> I64:
        """`[n]` cycles in which the weights of each pass are loaded."""
        return np.minimum(self.passes[:, P_ROWS], self.rows)


@dataclass(frozen=True)
class PackedWork:
    """The instructions of a program that are quicker for its zero weights."""

    matmuls: I64
    """`[m]` numbers of those that take packed passes."""
    costs: I64
    """`[m, 3]` preload, stream and last."""
    cuts: tuple[Cut, ...]
    """Of each of them."""
    weights: I64
    """`[w]` numbers of those whose streams are known."""
    decoder: I64
    """`[w]` their cycles in the decoder."""

    def with_decoder(self, cycles: Mapping[int, int]) -> PackedWork:
        """Return it with other cycles in the decoder of some streams, by instruction."""
        known = zip(self.weights.tolist(), self.decoder.tolist(), strict=True)
        decoder = [cycles.get(index, own) for index, own in known]
        return replace(self, decoder=np.array(decoder, np.int64))

    def apply(self, work: I64) -> None:
        """Put the cycles in place of those of `lepton.cost.work`."""
        work[self.matmuls[:, None], [W_PRELOAD, W_STREAM, W_LAST]] = self.costs
        work[self.weights, W_DECODER] = self.decoder


_NOTHING = np.zeros(0, np.int64)
NO_PACKED_WORK = PackedWork(_NOTHING, np.zeros((0, 3), np.int64), (), _NOTHING, _NOTHING)
"""Of a program whose chip does not skip zeros."""


class _Known:
    """What is known of streams, by their content."""

    def __init__(self) -> None:
        self.elements: dict[tuple[bytes, int, int], int] = {}
        """That keep the decoder busy, -1 of a stream that no decoder expands."""
        self.cuts: dict[tuple[bytes, int, tuple[int, int], Walk], Cut] = {}

    def trim(self) -> None:
        """Forget everything when there is too much."""
        if len(self.elements) + len(self.cuts) > _MOST_KNOWN:
            self.elements.clear()
            self.cuts.clear()


def _known(chip: Chip) -> _Known:
    return _Known()


def _packer(chip: Chip) -> Packer:
    sparsity = chip.sparsity
    assert sparsity is not None
    return Packer(sparsity.lanes, sparsity.window, sparsity.zero_blocks, sparsity.feed_words)


def block_cut(chip: Chip, weights: U8, walk: Walk) -> Cut:
    """Return the passes of a block `[rows, columns]` of bytes on a chip that skips zeros."""
    packer, p = chip.derived(_packer), chip.derived(cost_scalars)
    counts = np.zeros((-(-len(weights) // packer.lanes), weights.shape[1]), np.uint16)
    count_units(weights, packer.lanes, counts)
    return Cut(p.rows, *packed_passes(p, packer, counts, len(weights), walk))


@dataclass(frozen=True)
class _Stream:
    """A stream of the constant segment, by the instruction that reads it."""

    content: U8
    digest: bytes
    format: int
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def stream(self) -> WeightStream:
        return WeightStream(WeightFormat(self.format), self.content)

    def elements(self, known: _Known) -> int:
        """Return the elements that keep the decoder busy, -1 of a damaged stream."""
        key = self.digest, self.format, self.size
        if key not in known.elements:
            try:
                known.elements[key] = decoded_elements(self.stream, self.size)
            except CheckError:
                known.elements[key] = -1
        return known.elements[key]

    def cut(
        self, chip: Chip, known: _Known, walk: Walk, change: Callable[[U8], U8] | None = None
    ) -> Cut:
        """Return the passes of its block, or of what it is changed to."""
        if change is not None:
            block = decode_weights(self.stream, self.size).reshape(self.shape)
            return block_cut(chip, change(block.view(np.uint8)), walk)
        key = self.digest, self.format, self.shape, walk
        if key not in known.cuts:
            block = decode_weights(self.stream, self.size).reshape(self.shape)
            known.cuts[key] = block_cut(chip, block, walk)
        return known.cuts[key]


def _streams(program: Program) -> dict[int, _Stream]:
    """Return the streams of the constant segment by the instructions that read them."""
    table, places = program.table, stream_places(program)
    made: dict[tuple[int, int, int, tuple[int, int]], _Stream] = {}
    found: dict[int, _Stream] = {}
    for index in np.flatnonzero(places >= 0).tolist():
        r = table[index]
        place, size, format = int(places[index]), int(r[_BYTES]), int(r[_FORMAT])
        shape = int(r[_REDUCTION]), int(r[_COLUMNS])
        key = place, size, format, shape
        if key not in made:
            content = program.constants[place : place + size]
            digest = hashlib.sha256(content.data).digest()
            made[key] = _Stream(content, digest, format, shape)
        found[index] = made[key]
    return found


def fill_program_work(program: Program, out: I64, packed: PackedWork | None = None) -> None:
    """Fill the columns of `WORK` as `lepton.cost.work.fill_work` does, and skip zeros.

    Args:
        program: whose work.
        out: the result, zeros.
        packed: what the zeros save, if it is not what the program's own constants say.
    """
    fill_work(program.table, program.chip, out)
    if program.chip.sparsity is not None:
        (packed or packed_work(program)).apply(out)


def packed_work(program: Program) -> PackedWork:
    """Return what the zeros of a program's constants save; it does not depend on inputs."""
    return program.derived(_packed_work)


def repacked_work(program: Program, change: Callable[[U8], U8]) -> PackedWork:
    """Return what would be saved by other zeros in the same streams.

    Args:
        program: whose chip skips zeros.
        change: from a block of weights `[rows, columns]` to one with the other zeros.
    """
    return _packed_work(program, change)


def _decoder_cycles(chip: Chip, streams: dict[int, _Stream], known: _Known) -> dict[int, int]:
    """Return the cycles in the decoder of the streams that one expands."""
    rates = chip.weight_buffer.decoder_bytes_per_cycle, chip.weight_buffer.entropy_lanes
    busy = {index: stream.elements(known) for index, stream in streams.items()}
    return {
        index: decoder_cycles(streams[index].format, elements, *rates)
        for index, elements in busy.items()
        if elements >= 0
    }


def _packed_work(program: Program, change: Callable[[U8], U8] | None = None) -> PackedWork:
    """Return `packed_work` of a program, whose blocks of weights may be changed first."""
    if program.chip.sparsity is None:
        return NO_PACKED_WORK
    chip, table = program.chip, program.table
    known = chip.derived(_known)
    known.trim()
    streams = _streams(program)
    decoder = _decoder_cycles(chip, streams, known)
    readers = weights_of(table)
    matmuls: list[int] = []
    costs: list[tuple[int, int, int]] = []
    cuts: list[Cut] = []
    p = chip.derived(cost_scalars)
    alone = work_of(table, chip)[:, W_STREAM].tolist()
    for index in np.flatnonzero(readers >= 0).tolist():
        stream = streams.get(int(readers[index]))
        if stream is None or stream.elements(known) < 0:
            continue
        r = table[index]
        cut = stream.cut(chip, known, Walk(*map(int, matmul_walk(r))), change)
        cost = packed_stream(p, cut.passes, int(r[_OFM_H] * r[_OFM_W]))
        if cost[1] < alone[index]:
            matmuls.append(index)
            costs.append(cost)
            cuts.append(cut)
    return PackedWork(
        np.array(matmuls, np.int64),
        np.array(costs, np.int64).reshape(-1, 3),
        tuple(cuts),
        np.array(list(decoder), np.int64),
        np.array(list(decoder.values()), np.int64),
    )


def issued_macs(program: Program) -> tuple[list[int], list[int]]:
    """Return the MACs of each operator's matmuls, and how many of them are issued."""
    table, packed = program.table, packed_work(program)
    every = np.zeros(len(program.operators), np.int64)
    skipped = every.copy()
    matmuls = table[:, 0] == _MATMUL
    r = table[matmuls]
    macs = np.prod(r[:, [_OFM_H, _OFM_W, _KERNEL_H, _KERNEL_W, _CHANNELS, _COLUMNS]], axis=1)
    np.add.at(every, program.operator_of[matmuls], macs)
    r = table[packed.matmuls]
    issued = np.array([cut.issued for cut in packed.cuts], np.int64)
    dense = np.prod(r[:, [_KERNEL_H, _KERNEL_W, _CHANNELS, _COLUMNS]], axis=1)
    np.add.at(
        skipped,
        program.operator_of[packed.matmuls],
        r[:, _OFM_H] * r[:, _OFM_W] * (dense - issued),
    )
    return every.tolist(), (every - skipped).tolist()
