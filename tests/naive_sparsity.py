"""Arrays that skip zero weights, in plain loops: "Packed passes" of docs/timing.md written out.

What a stream holds is read bit by bit (`tests.naive_codec`), what is known of it byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from lepton.chip import Chip
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.program import Program
from tests.naive_codec import elements_with_bits, expanded
from tests.naive_matrix import Cost, Word, step_cycles
from tests.naive_memory import divide_up

__all__ = ["Block", "Known", "Pass", "known_weights", "packed_cost", "packed_passes"]

Block = list[list[int]]
"""Weights by row of the reduction and column."""

Numbered = tuple[int, Instruction]


@dataclass
class Known:
    """What a chip with `[sparsity]` knows of a program's weights, by number of the instruction."""

    elements: dict[int, int] = field(default_factory=dict[int, int])
    """Those that the decoder counts, of each `weights` whose stream is known."""
    blocks: dict[int, Block] = field(default_factory=dict[int, Block])
    """What each `matmul` reads that can be packed."""


def known_weights(program: Program) -> Known:
    """Return what is known when the program is loaded."""
    known = Known()
    if program.chip.sparsity is None:
        return known
    for stream in _streams(program):
        contents: dict[int, list[int]] = {}
        for at, (number, item) in enumerate(stream):
            before = stream[:at]
            if isinstance(item, isa.Weights):
                first = _source(program, item, [earlier for _, earlier in before])
                if first is not None:
                    contents[number] = program.constants[first:][: item.stream_bytes].tolist()
                    known.elements[number] = _counted(item, contents[number])
            if isinstance(item, isa.Matmul):
                block = _block_read(item, before, contents)
                if block is not None:
                    known.blocks[number] = block
    return known


def _streams(program: Program) -> Iterator[list[Numbered]]:
    """Yield the instructions of each core and region with their numbers."""
    stream: list[Numbered] = []
    for region in program.regions:
        for number in range(region.start, region.stop) if region.device == "npu" else ():
            stream.append((number, program.decoded[number]))
            if isinstance(program.decoded[number], isa.Halt):
                yield stream
                stream = []


def _source(program: Program, it: isa.Weights, before: Sequence[Instruction]) -> int | None:
    """Return where in the constant segment a stream lies or was copied from, if it is known."""
    segment = range(program.constants_address, program.constants_address + len(program.constants))
    addresses = range(it.address, it.address + it.stream_bytes)
    if it.memory == program.constants_memory and all(byte in segment for byte in addresses):
        return it.address - segment.start
    if it.format == isa.WeightFormat.RAW:
        return None
    first = None
    for number, byte in enumerate(addresses):
        source = _copied_from(program.constants_memory, it, byte, before)
        if source is None or source not in segment:
            return None
        if first is None:
            first = source
        if source != first + number:
            return None
    return None if first is None else first - segment.start


def _copied_from(
    constants: int, it: isa.Weights, byte: int, before: Sequence[Instruction]
) -> int | None:
    """Return the address from which a byte of a stream was copied."""
    for at in reversed(range(len(before))):
        store = before[at]
        if not (isinstance(store, isa.Store) and store.rows == store.planes == 1):
            continue
        row = range(store.address, store.address + store.row_bytes)
        if store.memory != it.memory or byte not in row:
            continue
        away = store.scratchpad - store.address
        mine = [b + away for b in range(it.address, it.address + it.stream_bytes) if b in row]
        for load in reversed(before[:at]):
            if not (isinstance(load, isa.Load) and load.rows == load.planes == 1):
                continue
            written = range(load.scratchpad, load.scratchpad + load.row_bytes)
            if load.memory == constants and all(place in written for place in mine):
                return load.address + byte + away - load.scratchpad
        return None
    return None


def _counted(it: isa.Weights, content: list[int]) -> int:
    """Return the elements that count for the decoder ("Decoder")."""
    size = it.reduction * it.columns
    if it.format not in (isa.WeightFormat.GROUPED, isa.WeightFormat.PALETTE):
        return size
    symbol_0 = content[1]
    if symbol_0 != 0:
        return size
    return max(elements_with_bits(content, it.format, size), divide_up(size, 8))


def _block_read(
    it: isa.Matmul, before: list[Numbered], contents: dict[int, list[int]]
) -> Block | None:
    """Return the block that a matmul reads, if it can be packed ("Which matmuls")."""
    if it.stationary != isa.Stationary.BUFFER or it.weight_unsigned or it.weight_zero_point:
        return None
    shape = it.kernel_height * it.kernel_width * it.channels, it.columns
    mine = _written(it.stationary_address, *shape)
    for number, item in reversed(before):
        if not isinstance(item, isa.Weights):
            continue
        if (item.buffer, item.reduction, item.columns) == (it.stationary_address, *shape):
            return _block(item, contents[number]) if number in contents else None
        if any(element in mine for element in _written(item.buffer, item.reduction, item.columns)):
            return None
    return None


def _written(buffer: int, rows: int, columns: int) -> range:
    return range(buffer, buffer + rows * columns)


def _block(it: isa.Weights, content: list[int]) -> Block:
    values = expanded(content, it.format, it.reduction * it.columns)
    return [values[row * it.columns :][: it.columns] for row in range(it.reduction)]


@dataclass(frozen=True)
class Pass:
    """A pass of a block of columns."""

    strips: tuple[range, ...]
    """Their rows of the reduction."""
    columns: range
    step: int
    fullest: int
    """Weights other than 0 of the stretch and column that has most of them."""

    @property
    def rows(self) -> int:
        return sum(len(strip) for strip in self.strips)


def packed_cost(it: isa.Matmul, block: Block, chip: Chip) -> Cost:
    """Return preload, stream, last and drain of a matmul that takes packed passes ("Time")."""
    array, pixels = chip.array, it.ofm_height * it.ofm_width
    begins, fetched, load_begins = list[int](), 0, 0
    for item in packed_passes(it, block, chip):
        begins.append(max(load_begins + min(item.rows, array.rows), fetched))
        fetched = begins[-1] + pixels * item.step
        load_begins = begins[-1]
    end = fetched + array.issue_cycles
    return begins[0], end - begins[0], end - begins[-1], array.rows + array.columns - 2


def packed_passes(it: isa.Matmul, block: Block, chip: Chip) -> list[Pass]:
    """Return the packed passes of a matmul, one block of columns after the other."""
    made: list[Pass] = []
    for first in range(0, it.columns, chip.columns):
        columns = range(first, min(first + chip.columns, it.columns))
        made += _Columns(it, block, columns, chip).passes()
    return made


class _Columns:
    """A block of columns and its strips."""

    def __init__(self, it: isa.Matmul, block: Block, columns: range, chip: Chip) -> None:
        assert chip.sparsity is not None
        self._it, self._block, self._columns = it, block, columns
        self._sparsity, self._rows = chip.sparsity, chip.array.rows
        replicas = chip.columns // len(columns)
        self._most = replicas * chip.sparsity.lanes
        """Weights other than 0 that a stretch may have in a column."""
        starts = range(0, len(block), self._rows)
        strips = [range(start, min(start + self._rows, len(block))) for start in starts]
        self._strips = [strip for strip in strips if self._is_issued(strip)] or strips[:1]

    def _is_issued(self, strip: range) -> bool:
        values = [self._block[row][column] for row in strip for column in self._columns]
        return any(values) or not self._sparsity.zero_blocks

    def passes(self) -> list[Pass]:
        """Return the passes into which the strips are cut ("Cut")."""

        @cache
        def best(start: int) -> tuple[int, tuple[int, ...], tuple[Pass, ...]]:
            """Return the least steps of the strips from here on, less strips of each, passes."""
            if start == len(self._strips):
                return 0, (), ()
            ways: list[tuple[int, tuple[int, ...], tuple[Pass, ...]]] = []
            for stop in range(start + 1, len(self._strips) + 1)[: self._sparsity.window]:
                item = self._pass(self._strips[start:stop])
                if item.fullest <= self._most or len(item.strips) == 1:
                    steps, less, others = best(stop)
                    ways.append((item.step + steps, (start - stop, *less), (item, *others)))
            return min(ways, key=lambda way: way[:2])

        return list(best(0)[2])

    def _pass(self, strips: list[range]) -> Pass:
        fullest = max(
            sum(self._block[row][column] != 0 for row in stretch)
            for stretch in self._groups(strips)
            for column in self._columns
        )
        words = [word for stretch in self._stretches(strips) for word in self._cut(stretch)]
        step = step_cycles(words, self._rows, self._sparsity.feed_words)
        return Pass(tuple(strips), self._columns, step, fullest)

    def _groups(self, strips: list[range]) -> Iterator[list[int]]:
        """Yield the rows of each stretch of weights, which belongs to a group ("Strips")."""
        rows = [row for strip in strips for row in strip]
        size = len(strips) * self._sparsity.lanes
        for group in range(self._rows // self._sparsity.lanes):
            yield rows[group * size : (group + 1) * size]

    def _stretches(self, strips: list[range]) -> Iterator[Word]:
        """Yield offset and bytes of what follows each other in a run, row by row."""
        it = self._it
        is_packed = it.ifm_pixel_pitch == it.channels and it.dilation_x == 1
        offset, size, last = 0, 0, (-1, -1)
        for row in (row for strip in strips for row in strip):
            tap, channel = divmod(row, it.channels)
            y, x = divmod(tap, it.kernel_width)
            run = y if is_packed else tap
            if size and last == (run, row - 1):
                size += 1
            else:
                if size:
                    yield offset, size
                line = y * it.dilation_y * it.ifm_row_pitch
                offset, size = line + x * it.dilation_x * it.ifm_pixel_pitch + channel, 1
            last = run, row
        yield offset, size

    def _cut(self, stretch: Word) -> Iterator[Word]:
        offset, size = stretch
        while size > 0:
            yield offset, min(size, self._rows)
            offset, size = offset + self._rows, size - self._rows
