"""What a chip may not be: the contradictions between the values of a chip file."""

from __future__ import annotations

from lepton.chip import description as d
from lepton.chip.technology import MEMORY_KINDS, NODE_RANGE, is_node

__all__ = ["contradictions", "shown"]

_MOST_ACCESSES = 1 << 14
"""Accesses of a DRAM that one channel of the DMA may have in flight."""

_MOST_OPERANDS = 256
"""Among which an element of the array may choose."""

_MOST_TICKS = 1 << 24


def shown(value: object) -> str:
    """Return a value as an error shows it, not longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _technology_contradictions(chip: d.Chip) -> list[str]:
    """Return what is wrong with the technology."""
    bad: list[str] = []
    technology = chip.technology
    if not is_node(technology.node):
        bad.append(f"technology.node must be one of {NODE_RANGE}, not {shown(technology.node)}")
    if len(technology.memories) != len(chip.memories):
        bad.append("technology.memories must name a kind for each [[memory]]")
        return bad
    for memory, kind in zip(chip.memories, technology.memories, strict=True):
        wanted = "dram" if isinstance(memory, d.Dram) else "flat"
        if MEMORY_KINDS.get(kind) != wanted:
            kinds = ", ".join(name for name, of in MEMORY_KINDS.items() if of == wanted)
            bad.append(f"technology.memories must be {kinds} for '{memory.name}', not '{kind}'")
    return bad


def contradictions(chip: d.Chip) -> list[str]:
    """Return what is wrong between the parts of a chip."""
    bad = _technology_contradictions(chip)
    names = [memory.name for memory in chip.memories]
    if len(set(names)) != len(names):
        bad.append("memory names must differ")
    place = chip.placement
    for key, name in [("program", place.program), ("constants", place.constants)]:
        if name not in names:
            bad.append(f"placement.{key} must name a memory ({', '.join(names)}), not '{name}'")
    bad += [
        f"placement.activations must name memories ({', '.join(names)}), not '{name}'"
        for name in place.activations
        if name not in names
    ]
    if chip.scratchpad.size_bytes % chip.scratchpad.banks:
        bad.append("scratchpad.banks must divide scratchpad.size_kib x 1024")
    if chip.accumulators.elements % chip.accumulators.banks:
        bad.append("accumulators.banks must divide accumulators.size_kib x 256")
    if chip.scratchpad.size_bytes > 1 << 28 or chip.weight_buffer.elements > 1 << 28:
        bad.append("scratchpad and weight buffer must not exceed 256 MiB, the address range")
    if chip.accumulators.elements > 1 << 24:
        bad.append("accumulators.size_kib must not exceed 65536, the address range")
    if chip.dma.load_channels > 8 or chip.dma.store_channels > 8:
        bad.append("dma channels must not exceed 8 of a kind")
    lanes = chip.weight_buffer.entropy_lanes
    if lanes & (lanes - 1) or lanes > chip.weight_buffer.decoder_bytes_per_cycle:
        bad.append(
            "weight_buffer.entropy_lanes must be 0 or a power of two up to "
            f"decoder_bytes_per_cycle, not {lanes}"
        )
    bad += _memory_contradictions(chip) + _sparsity_contradictions(chip)
    return bad + _size_contradictions(chip)


def _memory_contradictions(chip: d.Chip) -> list[str]:
    """Return what is wrong inside the memories."""
    bad: list[str] = []
    for index, memory in enumerate(chip.memories):
        prefix = f"memory.{index}"
        if memory.size_bytes > 1 << 40:
            bad.append(f"{prefix}.size_mib must not exceed 1048576, the address range")
        if isinstance(memory, d.Flat) and (memory.size_mib * (1 << 20)).denominator != 1:
            bad.append(f"{prefix}.size_mib must be a whole number of bytes")
        if isinstance(memory, d.Dram):
            bad += _dram_contradictions(memory, prefix)
            accesses = -(-chip.dma.burst_bytes // memory.access_bytes) + 1
            if accesses * chip.dma.outstanding > _MOST_ACCESSES:
                bad.append(
                    f"dma.outstanding bursts must not exceed {_MOST_ACCESSES} accesses of {prefix}"
                )
    return bad


def _dram_contradictions(memory: d.Dram, prefix: str) -> list[str]:
    """Return what is wrong inside a DRAM."""
    bad: list[str] = []
    parts = [memory.mapping[start : start + 2] for start in range(0, len(memory.mapping), 2)]
    if sorted(parts) != ["ba", "bg", "ch", "co", "ra", "ro"]:
        bad.append(f"{prefix}.mapping must order ro, ra, ba, bg, co and ch, not '{memory.mapping}'")
    keys = ("size_mib", "channels", "ranks", "bank_groups", "banks_per_group", "row_bytes")
    for key in (*keys, "access_bytes"):
        value = getattr(memory, key)
        if value & (value - 1):
            bad.append(f"{prefix}.{key} must be a power of two, not {value}")
    if memory.row_bytes % memory.access_bytes:
        bad.append(f"{prefix}.row_bytes must be a multiple of access_bytes")
    groups = memory.ranks * memory.bank_groups
    if groups > 16 or groups * memory.banks_per_group > 64:
        bad.append(f"{prefix} must not have more than 16 bank groups and 64 banks in a channel")
    elif memory.channels * groups * memory.banks_per_group * memory.row_bytes > memory.size_bytes:
        bad.append(f"{prefix}.size_mib must hold a row of every bank")
    if memory.tREFI // memory.ranks < 2 * (memory.tRFC + memory.tRAS + memory.tRP):
        bad.append(f"{prefix}.tREFI / ranks must be at least 2 (tRFC + tRAS + tRP)")
    if memory.commands_per_cycle > 2:
        bad.append(f"{prefix}.commands_per_cycle must be 1 or 2, not {memory.commands_per_cycle}")
    return bad


def _sparsity_contradictions(chip: d.Chip) -> list[str]:
    """Return what the options for sparse weights contradict."""
    sparsity = chip.sparsity
    if sparsity is None:
        return []
    bad: list[str] = []
    if not chip.array.is_pipelined:
        bad.append("sparsity must be left out unless weight-stationary passes overlap")
    if chip.array.rows % sparsity.lanes:
        bad.append(f"sparsity.lanes must divide array.rows, not {sparsity.lanes}")
    if sparsity.lanes * sparsity.window > _MOST_OPERANDS:
        bad.append(f"sparsity.lanes x window must not exceed {_MOST_OPERANDS} operands")
    if sparsity.feed_words % chip.array.feed_words:
        bad.append("sparsity.feed_words must be a multiple of array.feed_words")
    if sparsity.window == 1 and not sparsity.zero_blocks:
        bad.append("sparsity.window must be above 1 unless zero_blocks is true")
    return bad


def _size_contradictions(chip: d.Chip) -> list[str]:
    """Return sizes too small to hold one step of work."""
    bad: list[str] = []
    if chip.accumulators.elements < chip.columns:
        bad.append("accumulators.size_kib must hold a row of the array")
    if chip.weight_buffer.elements < chip.array.rows * chip.columns:
        bad.append("weight_buffer.size_kib must hold one array of weights")
    if chip.array.rows * chip.array.columns * chip.array.count > 1 << 20:
        bad.append("the array must not exceed 1048576 MACs")
    if chip.array.deals_pixels and not chip.array.is_pipelined:
        bad.append("array.deals_pixels must be false unless weight-stationary passes overlap")
    clocks = [chip.array.clock_mhz, *(memory.clock_mhz for memory in chip.memories)]
    if chip.ticks_per_second > 1 << 50 or max(chip.ticks(c) for c in clocks) > _MOST_TICKS:
        bad.append("the clocks must have a common base tick above 1 fs: choose rounder clock_mhz")
    return bad
