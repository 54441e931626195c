"""Random chips that skip zero weights, and random programs for them.

Streams are as the manual wants them, in the constant segment or copied from it; what else a program
does with the weight buffer and with copies may be refused at load, and takes its time all the same.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from lepton.chip import Chip, Dataflow
from lepton.chip.description import Sparsity
from lepton.codec import Decoder, encode_weights
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.program import Program
from tests.simulator.timing_cases import (
    Placed,
    join_program,
    random_chip,
    random_instruction,
    random_pitches,
    random_window,
)

__all__ = ["grouped", "random_sparse_chip", "random_sparse_program", "random_weights"]

Values = list[list[int]]
"""Bytes of a block by row and column."""

CONSTANTS, COPIES = 1 << 16, 1 << 15
"""Addresses of the constants and of what is copied, where no other instruction reaches."""

STAGE, MARGIN = 12 << 10, 16
"""Bytes of the scratchpad before those of copies, and between these."""

PLACES = (0, 0, 0, 1, 64, 200)
"""Elements of the weight buffer where blocks begin; most meet others."""


def random_sparse_chip(r: random.Random, drams: float) -> Chip:
    """Return a random chip with `[sparsity]`."""
    chip = random_chip(r, drams)
    lanes, groups = r.choice((1, 2, 2, 3, 4, 4, 8)), r.choice((1, 1, 2, 2, 3, 5))
    array = dataclasses.replace(
        chip.array, rows=max(lanes * groups, 2), columns=r.randint(2, 8), overlap=True,
        dataflow=Dataflow.WEIGHT_STATIONARY, deals_pixels=r.random() < 0.4,
    )  # fmt: skip
    sparsity = Sparsity(
        lanes=lanes if array.rows % lanes == 0 else 1, window=r.choice((1, 2, 2, 3, 4, 6)),
        zero_blocks=r.random() < 0.6, feed_words=array.feed_words * r.choice((1, 1, 2, 3)),
    )  # fmt: skip
    scratchpad = dataclasses.replace(chip.scratchpad, size_kib=96)
    if sparsity.window == 1:
        sparsity = dataclasses.replace(sparsity, zero_blocks=True)
    return dataclasses.replace(chip, array=array, sparsity=sparsity, scratchpad=scratchpad)


def _byte(r: random.Random) -> int:
    return r.choice((1, 255, 2, r.randint(1, 255)))


def random_weights(r: random.Random, rows: int, columns: int, chip: Chip) -> Values:
    """Return a block: dense, pruned, N:M or with blocks of zeros."""
    style = r.choice(("dense", "pruned", "pruned", "n:m", "n:m", "blocks", "both", "zeros"))
    keep = r.choice((0.1, 0.3, 0.5, 0.7))
    kept, of = r.choice(((1, 2), (2, 4), (1, 4), (3, 6)))
    values = [[_byte(r) for _ in range(columns)] for _ in range(rows)]
    for column in range(columns):
        for row in range(rows):
            if style in ("pruned", "both") and r.random() > keep:
                values[row][column] = 0
        for first in range(0, rows, of) if style == "n:m" else ():
            for row in r.sample(range(first, first + of), of - kept):
                if row < rows:
                    values[row][column] = 0
    if style in ("blocks", "both"):
        _clear_blocks(r, values, chip)
    if style == "zeros":
        values = [[0] * columns for _ in range(rows)]
        if r.random() < 0.5:
            values[r.randrange(rows)][r.randrange(columns)] = 1
    return values


def _clear_blocks(r: random.Random, values: Values, chip: Chip) -> None:
    """Set some strips of some blocks of columns to 0."""
    share = r.choice((0.3, 0.5, 0.8))
    for first in range(0, len(values), chip.array.rows):
        for left in range(0, len(values[0]), chip.columns):
            if r.random() < share:
                for row in values[first : first + chip.array.rows]:
                    row[left : left + chip.columns] = [0] * len(row[left : left + chip.columns])


def grouped(r: random.Random, values: Values, level: int, palette: list[int]) -> bytes:
    """Return a stream of groups of 8 << level elements whose codes need not be the shortest.

    Its format is `palette` with these entries, or with none `grouped` around a random byte.
    """
    flat = [value for row in values for value in row]
    if palette:
        header = [level | (len(palette) - 1) << 3, *palette]
        symbols = [palette.index(value) for value in flat]
    else:
        middle = r.choice((0, 0, 0, 1, 255))
        header = [level, middle]
        away = [(value - middle + 128) % 256 - 128 for value in flat]
        symbols = [2 * d if d >= 0 else -2 * d - 1 for d in away]
        symbols = [255 if d == -128 else s for d, s in zip(away, symbols, strict=True)]
    bits = [byte >> k & 1 for byte in header for k in range(8)]
    for first in range(0, len(flat), 8 << level):
        bits += _group(r, symbols[first : first + (8 << level)])
    bits += [0] * (-len(bits) % 8)
    return bytes(sum(bits[at + k] << k for k in range(8)) for at in range(0, len(bits), 8))


def _group(r: random.Random, symbols: list[int]) -> list[int]:
    """Return the bits of a group, with one of the codes that can hold it."""
    codes = [code for code in range(9) if max(symbols) < 1 << code][:2]
    codes += [code for code in range(9, 16) if max(symbols) <= 1 << (code - 7)][:2]
    code = r.choice(codes)
    bits = [code >> k & 1 for k in range(4)]
    if code <= 8:
        return bits + [symbol >> k & 1 for symbol in symbols for k in range(code)]
    bits += [int(symbol > 0) for symbol in symbols]
    coded = [symbol - 1 for symbol in symbols if symbol]
    return bits + [symbol >> k & 1 for symbol in coded for k in range(code - 7)]


def _stored(r: random.Random, values: Values, chip: Chip) -> tuple[isa.WeightFormat, bytes]:
    """Return a stream of a block; one that is not shorter is raw."""
    raw = bytes(value for row in values for value in row)
    block = np.frombuffer(raw, np.uint8).reshape(len(values), -1)
    way = r.choice(("raw", "grouped", "palette", "codec"))
    format, content = isa.WeightFormat.RAW, raw
    level = next(n for n in range(6) if 16 << n >= chip.weight_buffer.decoder_bytes_per_cycle)
    level = r.randint(level, min(level + 2, 5))
    entries = sorted(set(raw), key=lambda value: (value != 0, value))
    if way == "codec":
        wanted = r.choice(list(isa.WeightFormat))
        stream = encode_weights(block, Decoder.of(chip), lambda f, size, _: (f != wanted, size))
        return stream.format, stream.content.tobytes()
    if way == "grouped":
        format, content = isa.WeightFormat.GROUPED, grouped(r, values, level, [])
    if way == "palette" and len(entries) <= 32:
        if r.random() < 0.2:
            r.shuffle(entries)
        format, content = isa.WeightFormat.PALETTE, grouped(r, values, level, entries)
    return (format, content) if len(content) < len(raw) else (isa.WeightFormat.RAW, raw)


@dataclass
class _Writer:
    """A program in the making: placed instructions and their constants."""

    r: random.Random
    chip: Chip
    constants: bytearray = field(default_factory=bytearray)
    copies: int = 0
    staged: int = STAGE
    """Where in the scratchpad the next copy goes; no two meet."""

    def block(self) -> list[Instruction]:
        """Return the `weights` of a block and the matmuls that read it, or nearly so."""
        r = self.r
        window, channels = random_window(r), r.choice((1, 3, 4, 8, 16, r.randint(1, 24)))
        if r.random() < 0.4:
            window |= {"kernel_height": 1, "kernel_width": 1}
            channels *= r.choice((1, 4, 6))
        columns, buffer = r.randint(1, 2 * self.chip.columns + 2), r.choice(PLACES)
        rows = window["kernel_height"] * window["kernel_width"] * channels
        fields = window | {"channels": channels, "columns": columns, "stationary_address": buffer}
        made = self.weights(random_weights(r, rows, columns, self.chip), buffer)
        if r.random() < 0.15:
            made += self.weights(random_weights(r, r.randint(1, 9), 2, self.chip), r.choice(PLACES))
        for _ in range(r.choice((1, 1, 2))):
            made.append(self.matmul(fields))
        return made

    def matmul(self, fields: dict[str, int]) -> Instruction:
        """Return a matmul with these fields, of which now and then one is another."""
        r, fields = self.r, dict(fields)
        if r.random() < 0.15:
            name, value = r.choice((
                ("columns", fields["columns"] + 1), ("channels", fields["channels"] + 1),
                ("stationary_address", fields["stationary_address"] + 1),
                ("weight_unsigned", 1), ("weight_zero_point", 3), ("kernel_height", 1),
                ("stationary", isa.Stationary.ONES), ("stationary", isa.Stationary.SCRATCHPAD),
            ))  # fmt: skip
            fields[name] = value
        plain = random_instruction(r, self.chip, "matmul")
        return dataclasses.replace(
            plain, **({"stationary": isa.Stationary.BUFFER} | fields),
            accumulator_pitch=fields["columns"] + r.choice((0, 0, 3)), stationary_pitch=64,
            **random_pitches(r, "ifm", fields["ifm_width"], fields["channels"]),
        )  # fmt: skip

    def weights(self, values: Values, buffer: int) -> list[Instruction]:
        """Return the `weights` of a block, behind what copies its stream, if so drawn."""
        r = self.r
        format, content = _stored(r, values, self.chip)
        at = self._constant(content)
        made = isa.Weights(
            memory=self.chip.memory_index(self.chip.placement.constants), address=CONSTANTS + at,
            stream_bytes=len(content), format=format, buffer=buffer, reduction=len(values),
            columns=len(values[0]),
        )  # fmt: skip
        return self._copied(made) if r.random() < 0.4 else [made]

    def _constant(self, content: bytes) -> int:
        """Return where in the segment these bytes are put."""
        self.constants += bytes(self.r.choice((0, 0, 1, 5)))
        at = len(self.constants)
        self.constants += content
        return at

    def _copied(self, it: isa.Weights) -> list[Instruction]:
        """Return a `weights` of a copy of this stream, made in one piece or several."""
        r = self.r
        it = dataclasses.replace(
            it, memory=r.randrange(len(self.chip.memories)), address=COPIES + self.copies
        )
        constants = self.chip.memory_index(self.chip.placement.constants)
        first = CONSTANTS + len(self.constants) - it.stream_bytes
        cuts = sorted({0, it.stream_bytes, *(r.randrange(it.stream_bytes) for _ in range(2))})
        if r.random() < 0.5:
            cuts = [0, it.stream_bytes]
        made: list[Instruction] = []
        for begin, end in pairwise(cuts):
            before, behind = (r.choice((0, 0, 4)) for _ in range(2))
            size, inside = end - begin, self.staged + MARGIN
            self.staged = inside + size
            loaded = isa.Load(
                channel=r.randrange(self.chip.dma.load_channels), memory=constants,
                address=first + begin - before, scratchpad=inside - before,
                row_bytes=before + size + behind, rows=1, planes=1,
            )  # fmt: skip
            stored = isa.Store(
                channel=r.randrange(self.chip.dma.store_channels), memory=it.memory,
                address=it.address + begin, scratchpad=inside, row_bytes=size, rows=1, planes=1,
            )  # fmt: skip
            made += [loaded, *self._disturbance(loaded), stored, *self._disturbance(stored)]
        self.copies += it.stream_bytes + r.choice((0, 3))
        if r.random() < 0.1:
            r.shuffle(made)
        return [*made, it]

    def _disturbance(self, it: Any) -> list[Instruction]:
        """Return now and then a transfer that writes some of what this one has written."""
        r = self.r
        if r.random() > 0.2:
            return []
        by, size = r.choice((0, 1, 8)), r.randint(1, max(it.row_bytes // 3, 1))
        changed: dict[str, int] = r.choice((
            {"rows": 2, "address": it.address + by}, {"planes": 2, "scratchpad": it.scratchpad + 1},
            {"row_bytes": size}, {"row_bytes": size, "address": it.address + 1},
            {"memory": r.randrange(len(self.chip.memories))},
            {"address": it.address + by, "scratchpad": it.scratchpad + by},
        ))  # fmt: skip
        return [dataclasses.replace(it, **changed)]


def random_sparse_program(seed: int, drams: float = 0.0, cores: int = 1) -> Program:
    """Return a random program of blocks of weights and what reads them."""
    r = random.Random(seed)
    chip = dataclasses.replace(random_sparse_chip(r, drams), cores=cores)
    writer, items = _Writer(r, chip), list[Placed]()
    others = ("load", "store", "weights", "matmul", "depthwise", "requantize", "fill")
    for _ in range(r.randint(1, 6)):
        core = r.randrange(cores)
        items += [(core, item) for item in writer.block()]
        for _ in range(r.choice((0, 0, 1, 3))):
            items.append((core, random_instruction(r, chip, r.choice(others))))
    program = join_program(r, chip, items, r.choice((1, 1, 1, 2)))
    constants = np.frombuffer(bytes(writer.constants), np.uint8)
    return dataclasses.replace(program, constants=constants, constants_address=CONSTANTS)
