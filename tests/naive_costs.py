"""The cycles of an instruction on its unit, counted: sections 10 and 11 of docs/timing.md.

A pass is stepped through pixel by pixel, a step word by word, a tile element by element.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from lepton.chip import Chip
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from tests.naive_banks import parameter_bytes, table_bytes

__all__ = ["Cost", "cost_of"]


class Cost(NamedTuple):
    """Cycles, as the page names them."""

    preload: int = 0
    stream: int = 0
    last: int = 0
    drain: int = 0


def cost_of(it: Instruction, chip: Chip) -> Cost:
    """Return the cycles of an instruction; those of a transfer or a halt are 0."""
    if isinstance(it, isa.Matmul):
        return _matmul(it, chip)
    if isinstance(it, isa.Depthwise):
        return _depthwise(it, chip)
    stream = _vector(it, chip)
    return Cost(stream=stream)


# --- the matrix unit (10) ----------------------------------------------------------------------


@dataclass
class _Pass:
    """A pass: the cycles of its load, and those in which its pixels are fetched."""

    load: int
    fetch: int


def _blocks(count: int, size: int) -> Iterator[range]:
    """Yield the blocks of a dimension, the last perhaps shorter."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _sequence(passes: list[_Pass], chip: Chip) -> Cost:
    """Return the cost of passes whose loads are hidden, of an instruction taken at cycle 0."""
    load_begins, fetched = 0, 0
    begins: list[int] = []
    for item in passes:
        begin = max(load_begins + item.load, fetched)
        fetched = begin + item.fetch
        load_begins = begin
        begins.append(begin)
    return _cost(begins[0], begins[0], begins[-1], fetched, chip)


def _serial(passes: list[_Pass], chip: Chip) -> Cost:
    """Return the cost of passes whose loads take the feed's port."""
    cycle = begin = 0
    for item in passes:
        begin = cycle + item.load
        cycle = begin + item.fetch
    return _cost(0, 0, begin, cycle, chip)


def _cost(preload: int, start: int, last: int, fetched: int, chip: Chip) -> Cost:
    """Return the cost of what starts, begins its last pass and has fetched in these cycles."""
    end = fetched + chip.array.issue_cycles
    return Cost(preload, end - start, end - last, chip.array.rows + chip.array.columns - 2)


def _matmul(it: isa.Matmul, chip: Chip) -> Cost:
    reduction = it.kernel_height * it.kernel_width * it.channels
    is_resident = it.stationary in (isa.Stationary.BUFFER, isa.Stationary.ONES)
    passes: list[_Pass] = []
    for columns in _blocks(it.columns, chip.columns):
        for rows in _blocks(reduction, chip.array.rows):
            step, fetch = _step_cycles(it, rows, chip), 0
            for _ in range(it.ofm_height * it.ofm_width):
                fetch += step
            passes.append(_Pass(_load_cycles(it, rows, columns, chip), fetch))
    return _sequence(passes, chip) if is_resident else _serial(passes, chip)


def _load_cycles(it: isa.Matmul, rows: range, columns: range, chip: Chip) -> int:
    if it.stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED:
        return max(len(rows), len(columns))
    if it.stationary == isa.Stationary.SCRATCHPAD:
        return sum(_fetches(chip.columns, _feed_bytes(chip)) for _ in rows)
    return len(rows)


def _feed_bytes(chip: Chip) -> int:
    return chip.array.feed_words * chip.array.rows


def _fetches(count: int, at_once: int) -> int:
    """Return the cycles in which `count` are fetched."""
    cycles = 0
    while count > 0:
        count -= at_once
        cycles += 1
    return cycles


def _words(it: isa.Matmul, rows: range) -> list[tuple[int, int]]:
    """Return offset and bytes of the words of a block of the reduction, walked row by row."""
    are_taps_joined = it.ifm_pixel_pitch == it.channels and it.dilation_x == 1
    words: list[tuple[int, int]] = []
    before = None
    for row in rows:
        tap, channel = divmod(row, it.channels)
        y, x = divmod(tap, it.kernel_width)
        run = y if are_taps_joined else tap
        if run == before:
            offset, size = words.pop()
            words.append((offset, size + 1))
        else:
            line = y * it.dilation_y * it.ifm_row_pitch
            words.append((line + x * it.dilation_x * it.ifm_pixel_pitch + channel, 1))
        before = run
    return words


def _fit(one: tuple[int, int], other: tuple[int, int], chip: Chip) -> bool:
    (a, la), (b, lb) = one, other
    r, ring = chip.array.rows, 2 * _feed_bytes(chip)
    if max(a + la, b + lb) - min(a, b) <= ring - r + 1:
        return True
    return r - 1 + la <= (b - a) % ring <= ring - (r - 1 + lb)


def _step_cycles(it: isa.Matmul, rows: range, chip: Chip) -> int:
    """Return the cycles in which the words of a step are fetched ("Feed")."""
    words, cycles = _words(it, rows), 0
    while words:
        taken = [words.pop(0)]
        while words and len(taken) < chip.array.feed_words:
            if not all(_fit(word, words[0], chip) for word in taken):
                break
            taken.append(words.pop(0))
        cycles += 1
    return cycles


def _depthwise(it: isa.Depthwise, chip: Chip) -> Cost:
    taps, columns = it.kernel_height * it.kernel_width, it.channels * it.multiplier
    passes = [
        _Pass(len(rows), _window_cycles(it, chip))
        for _ in _blocks(columns, chip.columns)
        for rows in _blocks(taps, chip.array.rows)
    ]
    if it.stationary == isa.Stationary.ONES:
        passes[0].load = 0
    return _sequence(passes, chip)


def _window_cycles(it: isa.Depthwise, chip: Chip) -> int:
    """Return the cycles in which the windows of all pixels are fetched ("Depthwise")."""
    wide = min(it.channels * it.multiplier, chip.columns)
    cycles = 0
    for _ in range(it.ofm_height):
        held: set[int] = set()
        for x in range(it.ofm_width):
            window = {x * it.stride_x + k * it.dilation_x for k in range(it.kernel_width)}
            new = window - held if it.dilation_x == 1 else window
            words = 0
            for _ in range(it.kernel_height * len(new)):
                words += _fetches(wide, chip.array.rows)
            cycles += _fetches(words, chip.array.feed_words)
            held = window
    return cycles


# --- the vector unit (11) ----------------------------------------------------------------------


def _vector(it: Instruction, chip: Chip) -> int:
    """Return the cycles of a vector instruction."""
    lanes = chip.vector.lanes
    match it:
        case isa.Requantize() | isa.Fill():
            cycles = _tile_cycles(it, ("ofm",), lanes)
        case isa.Binary():
            cycles = _tile_cycles(it, ("a", "b", "ofm"), lanes)
        case isa.Copy() if (it.ifm_channel_pitch, it.ofm_channel_pitch) != (1, 1):
            elements = it.height * it.width * it.channels
            cycles = _fetches(elements, min(lanes, chip.scratchpad.banks))
        case isa.Lut() | isa.Copy():
            cycles = _tile_cycles(it, ("ifm", "ofm"), lanes)
        case isa.Pool():
            taps = it.kernel_height * it.kernel_width
            cycles = taps * _vectors(it.ofm_height * it.ofm_width, it.channels, lanes, False)
        case isa.Resize():
            steps = 1 if it.mode == isa.ResizeMode.NEAREST else 4
            cycles = steps * _vectors(it.ofm_height * it.ofm_width, it.channels, lanes, False)
        case isa.Softmax():
            steps = chip.vector.softmax_cycles_per_element
            cycles = steps * _vectors(it.rows, it.channels, lanes, False)
        case _:
            return 0
    read = _fetches(parameter_bytes(it) + table_bytes(it), chip.scratchpad.port_bytes)
    return chip.vector.latency_cycles + read + cycles


def _vectors(pixels: int, channels: int, lanes: int, is_stream: bool) -> int:
    """Return the vectors of a tile, filled element by element."""
    count = room = 0
    for _ in range(pixels):
        if not is_stream:
            room = 0
        for _ in range(channels):
            if not room:
                count, room = count + 1, lanes
            room -= 1
    return count


def _tile_cycles(it: Any, operands: tuple[str, ...], lanes: int) -> int:
    """Return the vectors of an element-wise instruction."""
    packed = all(_is_packed(it, name) for name in operands)
    return _vectors(it.height * it.width, it.channels, lanes, packed)


def _is_packed(it: Any, name: str) -> bool:
    """Whether an operand's bytes have consecutive addresses."""
    row, pixel = getattr(it, f"{name}_row_pitch"), getattr(it, f"{name}_pixel_pitch")
    channel = getattr(it, f"{name}_channel_pitch", 1)
    addresses = (
        y * row + x * pixel + c * channel
        for y in range(it.height)
        for x in range(it.width)
        for c in range(it.channels)
    )
    return all(address == number for number, address in enumerate(addresses))
