"""Area of the chip's parts; docs/energy.md section 5 lists what each is made of."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from lepton.chip import Chip
from lepton.chip.technology import Node, node
from lepton.isa import REGISTRY, WORD_BYTES
from lepton.isa.entropy_format import BUCKETS, FIELD_BITS, SLOT_BITS, STATE_BITS
from lepton.isa.stream import REFERENCES

__all__ = [
    "MULTIPLEXER",
    "Cells",
    "PartArea",
    "decoder_lane",
    "element_mm2",
    "entropy_lane",
    "index_bits",
    "operands_of",
    "part_areas",
]

_MULTIPLIER = 10 / 8
"""A 10 x 8-bit multiplier in 8 x 8-bit ones."""
_ZERO_POINT = 18 * 9 / 64
"""An 18 x 9-bit multiplier in 8 x 8-bit ones."""

MULTIPLEXER = 0.41
"""A 2:1 multiplexer in register bits.

Source: Nangate 45 nm open cell library, MUX2_X1 1.862 um2 and DFF_X1 4.522 um2.
"""
_WINDOW_BITS = 9
"""Of a stream, per byte that it expands to: a mask's bit and 8 of a symbol."""
_PLACE_ADDERS = 3
"""From the number of a symbol to its first bit: times a width of 4 bits."""
_PALETTE = 32
_MASK_BITS = 256


@dataclass(frozen=True)
class PartArea:
    """Logic and SRAM of a part."""

    logic_mm2: float
    sram_kib: float
    sram_mm2: float

    @property
    def mm2(self) -> float:
        return self.logic_mm2 + self.sram_mm2

    def times(self, count: int) -> PartArea:
        """Return so many of it."""
        return PartArea(self.logic_mm2 * count, self.sram_kib * count, self.sram_mm2 * count)

    def leakage_mw(self, technology: Node) -> float:
        """Return what the part draws without doing anything."""
        logic = self.logic_mm2 * technology.logic_density * technology.logic_leakage_mw_per_mm2
        return logic + self.sram_kib * technology.sram_leakage_uw_per_kib / 1000


def _part(technology: Node, logic_um2: float, sram_kib: float) -> PartArea:
    """Return a part from the area of its cells and the size of its memories."""
    logic = logic_um2 / technology.logic_density / 1e6
    return PartArea(logic, sram_kib, sram_kib * technology.sram_mm2_per_kib)


def operands_of(chip: Chip) -> int:
    """Return the operands among which an element of the array chooses, 1 if it has its own."""
    return chip.sparsity.lanes * chip.sparsity.window if chip.sparsity is not None else 1


def index_bits(chip: Chip) -> int:
    """Return the bits beside a weight that name its operand."""
    return (operands_of(chip) - 1).bit_length()


def _window(chip: Chip) -> int:
    """Return the operands that a row of the array has at a time."""
    return chip.sparsity.window if chip.sparsity is not None else 1


def element_mm2(chip: Chip, technology: Node) -> float:
    """Return the area of an element of the array: multiplier, adder, 58 bits of registers.

    One that chooses its operand has a register for each of its row's, a multiplexer, and an index
    in use and in the shadow.
    """
    cells = technology.multiply_int8_um2 * _MULTIPLIER + technology.add_int32_um2
    bits = 58 + 10 * (_window(chip) - 1) + 2 * index_bits(chip)
    bits += 10 * (operands_of(chip) - 1) * MULTIPLEXER
    return (cells + bits * technology.register_bit_um2) / technology.logic_density / 1e6


def _array_um2(chip: Chip, t: Node) -> float:
    """Return the cells around the elements: row sums, zero points, skew, line buffer, window."""
    rows, columns, count = chip.array.rows, chip.array.columns, chip.array.count
    row_sums = rows * (t.add_int32_um2 + 42 * t.register_bit_um2)
    zero_points = columns * (t.multiply_int8_um2 * _ZERO_POINT + t.add_int32_um2)
    skew_bits = 10 * _window(chip) * rows * (rows - 1) // 2 + 32 * columns * (columns - 1) // 2
    window_bits = 8 * rows * columns
    bits = skew_bits + window_bits
    around = row_sums + zero_points + bits * t.register_bit_um2
    if chip.sparsity is not None:
        # sums of replicas; weights that the decoder has put into each group
        counters = rows // chip.sparsity.lanes * columns * chip.sparsity.lanes.bit_length()
        around += columns * t.add_int32_um2 + counters * t.register_bit_um2
    line_buffers = count if chip.array.deals_pixels else 1
    return count * around + line_buffers * 2 * 10 * _window(chip) * rows * t.register_bit_um2


def _lane_um2(chip: Chip, t: Node) -> float:
    """Return the cells of a vector lane."""
    integer = t.multiply_int32_um2 + 4 * t.add_int32_um2 + 2 * t.add_int8_um2
    pipeline = 32 * chip.vector.latency_cycles * t.register_bit_um2
    return integer + t.multiply_float32_um2 + t.add_float32_um2 + pipeline


@dataclass(frozen=True)
class Cells:
    """What a lane is made of: 8-bit adders and multipliers, 2:1 multiplexers, register bits."""

    adders: float
    multipliers: float
    multiplexers: float
    registers: float

    def um2(self, t: Node) -> float:
        bits = self.registers + self.multiplexers * MULTIPLEXER
        logic = self.adders * t.add_int8_um2 + self.multipliers * t.multiply_int8_um2
        return logic + bits * t.register_bit_um2


def decoder_lane(chip: Chip) -> Cells:
    """Return the lane of a byte of the weight decoder's width."""
    lanes = chip.weight_buffer.decoder_bytes_per_cycle
    window = _WINDOW_BITS * lanes
    adders = ceil(log2(lanes)) / 2 + _PLACE_ADDERS
    multiplexers = window / 2 + 8 * ceil(log2(window)) + 8 * (_PALETTE - 1)
    return Cells(adders, 0, multiplexers, 0)


def entropy_lane(chip: Chip) -> Cells:
    """Return a lane of the decoder of entropy-coded streams, the only one of a chip without."""
    window = FIELD_BITS * max(chip.weight_buffer.entropy_lanes, 1)
    compared, state = (BUCKETS - 1) * SLOT_BITS, STATE_BITS + 1
    # the bucket; its start taken off and the product added; the field's place; distance or entry
    sums = compared + 2 * state + FIELD_BITS * ceil(log2(window)) / 4 + 2 * 8
    chosen = 2 * compared + state * ceil(log2(SLOT_BITS + 1))
    taken = window / 2 + FIELD_BITS * ceil(log2(window)) + 8 * (_PALETTE - 1)
    product = SLOT_BITS * (STATE_BITS - SLOT_BITS + 1) / 64
    return Cells(sums / 8, product, chosen + taken, STATE_BITS + FIELD_BITS)


def _decoder_um2(chip: Chip, t: Node) -> float:
    """Return the cells of the weight decoder."""
    buffer = chip.weight_buffer
    lanes = buffer.decoder_bytes_per_cycle
    shared = 16 * lanes + 8 * _PALETTE + _MASK_BITS
    cells = lanes * decoder_lane(chip).um2(t)
    if buffer.entropy_lanes:
        shared += 2 * BUCKETS * SLOT_BITS
        cells += buffer.entropy_lanes * entropy_lane(chip).um2(t)
    return shared * t.register_bit_um2 + cells


def part_areas(chip: Chip) -> dict[str, PartArea]:
    """Return the area of every part of the NPU; memories, their controllers and pins are outside.

    Raises:
        ChipError: no such technology node.
    """
    t = node(chip.technology.node)
    macs = chip.peak_macs_per_cycle // chip.cores
    elements = macs * element_mm2(chip, t) * t.logic_density * 1e6
    dma, control = chip.dma, chip.control
    channels = dma.load_channels + dma.store_channels + 1
    queued = (channels + 2) * control.queue_depth * 64
    fetched = control.fetch_outstanding * control.fetch_bytes
    if control.packed:
        fetched += REFERENCES * len(REGISTRY) * WORD_BYTES
    buffer_kib = chip.weight_buffer.size_kib * (8 + index_bits(chip)) / 8
    one = {
        "array": _part(t, elements + _array_um2(chip, t), 0),
        "accumulators": _part(t, 0, chip.accumulators.size_kib),
        "weight_buffer": _part(t, _decoder_um2(chip, t), buffer_kib),
        "scratchpad": _part(t, 0, chip.scratchpad.size_kib),
        "vector": _part(t, chip.vector.lanes * _lane_um2(chip, t), chip.vector.lanes / 4),
        "dma": _part(t, 0, channels * dma.outstanding * dma.burst_bytes / 1024),
        "control": _part(t, 0, (queued + fetched) / 1024),
    }
    return {name: part.times(chip.cores) for name, part in one.items()}
