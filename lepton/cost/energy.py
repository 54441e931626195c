"""Energy of each action on a chip; docs/energy.md sections 3 and 4 derive each formula."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram, Memory
from lepton.chip.technology import MemoryEnergy, Node, memory_energy, node
from lepton.cost.action_names import Action
from lepton.cost.area import (
    MULTIPLEXER,
    Cells,
    decoder_lane,
    element_mm2,
    entropy_lane,
    index_bits,
    operands_of,
    part_areas,
)

__all__ = [
    "COMPONENTS",
    "MEMORY_EVENTS",
    "action_energies",
    "memory_energies",
    "peak_tops_per_watt",
]

F64 = NDArray[np.float64]

COMPONENTS = (
    *("array", "accumulators", "weight_buffer", "scratchpad", "vector", "dma", "control"),
    *("leakage", "memory", "memory_standby"),
)
"""Where energy goes. `memory` is what external memories spend on activations, data and refreshes,
`memory_standby` what they draw otherwise."""

MEMORY_EVENTS = ("activate", "read", "write", "refresh", "cycle")
"""Events of a memory; a read or write is a column command of a DRAM, a byte of a flat memory; a
cycle is one of the NPU's clock."""


def _side_mm(technology: Node, kib: float) -> float:
    """Return the side of a square SRAM, which a word crosses on its way."""
    return sqrt(kib * technology.sram_mm2_per_kib)


def _array_energies(chip: Chip, t: Node) -> dict[Action, float]:
    """Return the actions of the array's elements and of what surrounds them."""
    pitch = sqrt(element_mm2(chip, t))
    shifted = t.register_bit_pj + t.wire_bit_mm_pj * pitch
    index = index_bits(chip)
    column_bus = t.wire_bit_mm_pj * pitch * chip.array.rows
    return {
        Action.MAC: t.multiply_int8_pj * 10 / 8 + t.add_int32_pj,
        Action.OPERAND_SHIFT: 10 * shifted,
        Action.SUM_SHIFT: 32 * shifted,
        Action.ROW_SUM: t.add_int32_pj + 32 * t.register_bit_pj,
        Action.ZERO_POINT: t.multiply_int8_pj * 18 * 9 / 64 + t.add_int32_pj,
        Action.WEIGHT_LATCH: (8 + index) * (2 * t.register_bit_pj + column_bus),
        Action.LINE_BUFFER: t.add_int8_pj + 10 * t.register_bit_pj,
        Action.OPERAND_SELECT: 10 * (operands_of(chip) - 1) * MULTIPLEXER * t.register_bit_pj,
        Action.REPLICA_SUM: t.add_int32_pj,
    }


def _accumulator_energies(chip: Chip, t: Node) -> dict[Action, float]:
    """Return a 32-bit access of a lane's bank, with the way through the rotator."""
    kib = chip.accumulators.size_kib / chip.columns / chip.accumulators.banks
    way = 32 * t.wire_bit_mm_pj * sqrt(element_mm2(chip, t)) * chip.columns / 2
    return {
        Action.ACCUMULATOR_READ: t.sram_read_pj(kib, 32) + way,
        Action.ACCUMULATOR_WRITE: t.sram_write_pj(kib, 32) + way,
    }


def _switched_pj(lane: Cells, t: Node) -> float:
    """Return the energy of a lane in which everything switches."""
    bits = lane.registers + lane.multiplexers * MULTIPLEXER
    logic = lane.adders * t.add_int8_pj + lane.multipliers * t.multiply_int8_pj
    return logic + bits * t.register_bit_pj


def _weight_buffer_energies(chip: Chip, t: Node) -> dict[Action, float]:
    """Return bytes of the weight buffer, in words of all columns from one of its two slices."""
    bits, width = 8 + index_bits(chip), chip.columns
    kib = chip.weight_buffer.size_kib * bits / 8
    way = bits * t.wire_bit_mm_pj * _side_mm(t, kib)
    return {
        Action.WEIGHT_SYMBOL: _switched_pj(decoder_lane(chip), t),
        Action.ENTROPY_SYMBOL: _switched_pj(entropy_lane(chip), t),
        Action.WEIGHT_BUFFER_READ: t.sram_read_pj(kib / 2, bits * width) / width + way,
        Action.WEIGHT_BUFFER_WRITE: t.sram_write_pj(kib / 2, bits * width) / width + way,
        Action.DECODER_BYTE: 16 * t.register_bit_pj,
    }


def _scratchpad_energies(chip: Chip, t: Node) -> dict[Action, float]:
    """Return accesses of the scratchpad: words of a slice, and bytes in whole words."""
    rows = chip.array.rows
    kib = chip.scratchpad.size_kib / chip.scratchpad.banks / (2 * chip.array.feed_words)
    way = 8 * t.wire_bit_mm_pj * _side_mm(t, chip.scratchpad.size_kib)
    word = t.sram_read_pj(kib, 8 * rows) + rows * way
    written = t.sram_write_pj(kib, 8 * rows) / rows + way
    return {
        Action.FEED_SLICE: word,
        Action.STATIONARY_SLICE: word,
        Action.VECTOR_READ: word / rows,
        Action.VECTOR_WRITE: written,
        Action.PARAMETER_READ: word / rows,
        Action.LOAD_BYTE: written,
        Action.STORE_BYTE: word / rows,
    }


def _vector_energies(chip: Chip, t: Node) -> dict[Action, float]:
    """Return the operations of the vector unit's lanes."""
    add, multiply = t.add_int32_pj, t.multiply_int32_pj
    clamp = 2 * t.add_int8_pj
    exponential = t.sram_read_pj(1, 32)
    return {
        Action.PARAMETER_READ: 8 * t.register_bit_pj,
        Action.LANE_STEP: 32 * chip.vector.latency_cycles * t.register_bit_pj,
        Action.REQUANTIZE_Q31: multiply + 4 * add + clamp,
        Action.REQUANTIZE_FLOAT32: t.multiply_float32_pj + 2 * t.add_float32_pj + 2 * add + clamp,
        Action.REQUANTIZE_FLOAT64: (
            5 * t.multiply_float32_pj + 4 * t.add_float32_pj + 2 * add + clamp
        ),
        Action.COMPARE: t.add_int8_pj,
        Action.BINARY_Q31: 3 * multiply + 5 * add + clamp,
        Action.BINARY_FLOAT: 3 * t.multiply_float32_pj + 3 * t.add_float32_pj + clamp,
        Action.LOOK_UP: t.sram_read_pj(0.25, 8),
        Action.POOL_ADD: add,
        Action.SOFTMAX: t.add_int8_pj + exponential + 2 * multiply + 2 * add,
        Action.INTERPOLATE: multiply + add,
    }


def _control_energies(chip: Chip, t: Node) -> dict[Action, float]:
    """Return an instruction's way: fetch buffer, queue, unit, over the side of the scratchpad."""
    side = _side_mm(t, chip.scratchpad.size_kib)
    return {Action.INSTRUCTION: 512 * (3 * t.register_bit_pj + t.wire_bit_mm_pj * side)}


def action_energies(chip: Chip) -> F64:
    """Return the energy in pJ `[len(COMPONENTS), len(Action)]` of each action in each component.

    Raises:
        ChipError: no such technology node.
    """
    t = node(chip.technology.node)
    leakage_mw = sum(part.leakage_mw(t) for part in part_areas(chip).values())
    fifo = {action: 16 * t.register_bit_pj for action in (Action.LOAD_BYTE, Action.STORE_BYTE)}
    parts: dict[str, dict[Action, float]] = {
        "array": _array_energies(chip, t),
        "accumulators": _accumulator_energies(chip, t),
        "weight_buffer": _weight_buffer_energies(chip, t),
        "scratchpad": _scratchpad_energies(chip, t),
        "vector": _vector_energies(chip, t),
        "dma": fifo,
        "control": _control_energies(chip, t),
        "leakage": {Action.NPU_CYCLE: leakage_mw * 1000 / float(chip.array.clock_mhz)},
    }
    made = np.zeros((len(COMPONENTS), len(Action)))
    for component, energies in parts.items():
        for action, energy in energies.items():
            made[COMPONENTS.index(component), action] = energy
    return made


def _dram_energies(chip: Chip, memory: Dram, energy: MemoryEnergy) -> F64:
    """Return a DRAM's events: currents above standby x time, and the standby itself."""
    ns = 1000 / float(memory.clock_mhz)
    bus_bits = memory.access_bytes * 8 / (2 * memory.burst_cycles)
    devices = bus_bits / energy.device_bits
    precharged, open_ns, refreshing = memory.tRP * ns, memory.tRAS * ns, memory.tRFC * ns
    moving = memory.burst_cycles * ns
    activate = read = write = refresh = standby_mw = 0.0
    for rail in energy.rails:
        volts = rail.volts * devices
        cycle = rail.idd0 * (open_ns + precharged)
        activate += volts * (cycle - rail.idd3n * open_ns - rail.idd2n * precharged)
        read += volts * (rail.idd4r - rail.idd3n) * moving
        write += volts * (rail.idd4w - rail.idd3n) * moving
        refresh += volts * (rail.idd5 - rail.idd3n) * refreshing
        standby_mw += volts * rail.idd3n * memory.channels * memory.ranks
    if energy.activate_pj_per_row_byte is not None:
        activate = energy.activate_pj_per_row_byte * memory.row_bytes
    if energy.data_pj_per_bit is not None:
        read = write = energy.data_pj_per_bit * memory.access_bytes * 8
    cycle_pj = standby_mw * 1000 / float(chip.array.clock_mhz)
    return np.array([activate, read, write, refresh, cycle_pj])


def memory_energies(chip: Chip, memory: Memory, kind: str) -> F64:
    """Return the energy in pJ of each of `MEMORY_EVENTS` of a memory of a kind."""
    energy = memory_energy(kind)
    if isinstance(memory, Dram):
        return _dram_energies(chip, memory, energy)
    read, write, standby_mw = energy.read_pj_per_byte, energy.write_pj_per_byte, energy.standby_mw
    if kind == "sram":
        t = node(chip.technology.node)
        kib = memory.size_bytes / 1024
        way = 8 * t.wire_bit_mm_pj * _side_mm(t, kib)
        read, write = t.sram_read_pj(kib, 64) / 8 + way, t.sram_write_pj(kib, 64) / 8 + way
        standby_mw = kib * t.sram_leakage_uw_per_kib / 1000
    return np.array([0.0, read, write, 0.0, standby_mw * 1000 / float(chip.array.clock_mhz)])


def peak_tops_per_watt(chip: Chip) -> float:
    """Return 10^12 operations (a MAC is two) per joule of a dense matmul that fills the array.

    A pixel per cycle, its weights loaded long before; without external memory.
    """
    rows, columns = chip.array.rows, chip.columns
    macs = rows * columns
    counts = np.zeros(len(Action))
    for action in (Action.MAC, Action.OPERAND_SHIFT, Action.SUM_SHIFT):
        counts[action] = macs
    for action in (Action.ACCUMULATOR_READ, Action.ACCUMULATOR_WRITE):
        counts[action] = columns
    for action in (Action.ROW_SUM, Action.LINE_BUFFER):
        counts[action] = rows
    counts[Action.FEED_SLICE] = counts[Action.NPU_CYCLE] = 1
    return 2 * macs / float((action_energies(chip) @ counts).sum())
