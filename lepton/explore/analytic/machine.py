"""A chip as one row of numbers, and prices of what it does, for many points at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.cost import cost_scalars
from lepton.cost.action_names import Action
from lepton.cost.area import part_areas
from lepton.cost.energy import COMPONENTS, action_energies
from lepton.cost.energy_estimate import prices
from lepton.cost.service import memory_rows
from lepton.explore.space import Space

__all__ = ["AREA_SECTIONS", "COUNT", "ENERGY_SECTIONS", "Machine", "Machines", "Role"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
T = TypeVar("T")


class Role(NamedTuple):
    """A memory as the transfers of one kind see it; times in NPU cycles, sizes in bytes."""

    unit: float
    """Read or written at once."""
    unit_cycles: float
    """Of the memory for a unit, where transfers follow each other."""
    burst: float
    reads: float
    """Requests in flight: what the memory takes and a DMA channel makes."""
    writes: float
    latency: float
    """From a read request to its answer."""


class Machine(NamedTuple):
    """What the evaluator takes of a chip, in the order of the columns."""

    rows: float
    columns: float
    all_columns: float
    dataflow: float
    overlap: float
    dealt: float
    feed_words: float
    issue_cycles: float
    cores: float
    lanes: float
    latency_cycles: float
    softmax_cycles_per_element: float
    port_bytes: float
    banks: float
    scratchpad: float
    decoder_bytes_per_cycle: float
    entropy_lanes: float
    weight_buffer: float
    accumulators: float
    """Elements."""
    load_channels: float
    setup_cycles: float
    instruction_bytes: float
    constants_unit: float
    constants_cycles: float
    constants_burst: float
    constants_reads: float
    constants_writes: float
    constants_latency: float
    tensors_unit: float
    tensors_cycles: float
    tensors_burst: float
    tensors_reads: float
    tensors_writes: float
    tensors_latency: float
    is_one_memory: float


class COUNT:
    """What the evaluator counts of a network on a chip, in columns."""

    (CYCLES, MACS, SUM_ROWS, SUMS, LATCHED, ENTERED, FED, STREAMED) = range(8)
    (REQUANTIZED, LANES, LOADED, STORED, INSTRUCTIONS) = range(8, 13)
    (CONSTANT_BYTES, READ_BYTES, WRITTEN_BYTES) = range(13, 16)
    ALL = 16


_ACTIONS: dict[int, tuple[Action, ...]] = {
    COUNT.MACS: (Action.MAC, Action.OPERAND_SHIFT),
    COUNT.SUM_ROWS: (Action.SUM_SHIFT,),
    COUNT.SUMS: (Action.ACCUMULATOR_READ, Action.ACCUMULATOR_WRITE),
    COUNT.LATCHED: (Action.WEIGHT_LATCH, Action.WEIGHT_BUFFER_READ),
    COUNT.ENTERED: (Action.ROW_SUM, Action.LINE_BUFFER),
    COUNT.FED: (Action.FEED_SLICE,),
    COUNT.STREAMED: (Action.DECODER_BYTE, Action.WEIGHT_BUFFER_WRITE),
    COUNT.REQUANTIZED: (Action.REQUANTIZE_Q31, Action.LANE_STEP, Action.VECTOR_WRITE),
    COUNT.LANES: (Action.LANE_STEP, Action.VECTOR_READ),
    COUNT.LOADED: (Action.LOAD_BYTE,),
    COUNT.STORED: (Action.STORE_BYTE,),
    COUNT.INSTRUCTIONS: (Action.INSTRUCTION,),
}
"""The actions of each count, by docs/energy.md, section 2."""

AREA_SECTIONS: dict[str, tuple[str, ...]] = {
    "array": ("array", "sparsity"),
    "accumulators": ("accumulators",),
    "weight_buffer": ("weight_buffer", "sparsity"),
    "scratchpad": ("scratchpad",),
    "vector": ("vector",),
    "dma": ("dma",),
    "control": ("control", "dma"),
}
"""Sections of a chip that each part's area depends on, beside technology and cores."""

ENERGY_SECTIONS: dict[str, tuple[str, ...]] = {
    "array": ("array", "sparsity"),
    "accumulators": ("accumulators", "array", "sparsity"),
    "weight_buffer": ("weight_buffer", "array", "sparsity"),
    "scratchpad": ("scratchpad", "array"),
    "vector": ("vector",),
    "dma": (),
    "control": ("scratchpad",),
}
"""The same of each component's energies but leakage, which is that of the areas."""


def _role(chip: Chip, name: str) -> Role:
    number = chip.memory_index(name)
    (burst, unit, unit_cycles, capacity, read_latency, _, reads, writes, channels) = memory_rows(
        chip
    )[number, :9].tolist()
    flying = chip.dma.outstanding
    return Role(
        unit, unit_cycles / (capacity * max(channels, 1.0)), min(burst, chip.dma.burst_bytes),
        min(reads, flying), min(writes, flying), read_latency + unit_cycles,
    )  # fmt: skip


def _array(chip: Chip) -> Sequence[float]:
    return *cost_scalars(chip)[:8], chip.cores


def _vector(chip: Chip) -> Sequence[float]:
    return cost_scalars(chip)[8:11]


def _scratchpad(chip: Chip) -> Sequence[float]:
    pad = chip.scratchpad
    return pad.port_bytes, pad.banks, pad.size_bytes


def _weights(chip: Chip) -> Sequence[float]:
    buffer = chip.weight_buffer
    return buffer.decoder_bytes_per_cycle, buffer.entropy_lanes, buffer.elements


def _sums(chip: Chip) -> Sequence[float]:
    return (chip.accumulators.elements,)


def _memories(chip: Chip) -> Sequence[float]:
    place = chip.placement
    same = place.constants == place.activations[0]
    return (
        chip.dma.load_channels, chip.dma.setup_cycles, 10 if chip.control.packed else 64,
        *_role(chip, place.constants), *_role(chip, place.activations[0]), same,
    )  # fmt: skip


_COLUMNS: tuple[tuple[tuple[str, ...], Callable[[Chip], Sequence[float]]], ...] = (
    (("array", "cores"), _array),
    (("vector",), _vector),
    (("scratchpad",), _scratchpad),
    (("weight_buffer",), _weights),
    (("accumulators",), _sums),
    (("memory", "dma", "control", "placement", "array.clock_mhz"), _memories),
)
"""Columns of `Machine` in order, and the sections that they follow from."""


class Machines:
    """The chips of many points of a space."""

    def __init__(self, space: Space, points: I64) -> None:
        """Take points `[n, parameters]` whose chips are legal."""
        self._space, self._points = space, points

    def grouped(
        self, sections: Sequence[str], function: Callable[[Chip], T]
    ) -> tuple[list[T], I64]:
        """Return a function's results and which is each point's.

        It is called once for each combination of the fields of these sections. The clock belongs to
        the section `array` only where it is named by itself.
        """
        space = self._space
        paths = [*(item.path for item in space.parameters), *(item.path for item in space.follows)]
        own = {path for path in paths if _is_in(path, sections)}
        first, which = space.combinations(self._points, own)
        return [function(space.chip(self._points[n].tolist())) for n in first.tolist()], which

    def column(self, sections: Sequence[str], function: Callable[[Chip], object]) -> F64:
        """Return what a function of these sections gives for each point, `[n]` or `[n, m]`."""
        made, which = self.grouped(sections, function)
        return np.array(made, np.float64)[which]

    @cached_property
    def rows(self) -> F64:
        """`[n, len(Machine._fields)]`."""
        return np.concatenate([self.column(*item) for item in _COLUMNS], axis=1)

    @cached_property
    def areas(self) -> dict[str, F64]:
        """`[n, 3]` of each part: mm2, KiB of SRAM, mW of leakage, all cores together."""
        made: dict[str, F64] = {}
        for name, sections in AREA_SECTIONS.items():
            made[name] = self.column(
                (*sections, "technology", "cores"), lambda chip, name=name: _area(chip, name)
            )
        return made

    @cached_property
    def chip_metrics(self) -> dict[str, F64]:
        """The metrics of the chips alone, `[n]` each."""
        total = np.sum(list(self.areas.values()), axis=0)
        clock = self.column(("array.clock_mhz",), lambda chip: float(chip.array.clock_mhz))
        macs = self.column(("array", "cores"), lambda chip: chip.peak_macs_per_cycle)
        tops = 2 * (macs * clock * 1e6) / 1e12
        return {"area_mm2": total[:, 0], "sram_kib": total[:, 1], "peak_tops": tops}

    @cached_property
    def prices(self) -> F64:
        """`[n, COUNT.ALL]` pJ of each count."""
        actions = self._action_prices()
        made = np.zeros((len(self._points), COUNT.ALL))
        for count, parts in _ACTIONS.items():
            made[:, count] = actions[:, list(parts)].sum(axis=1)
        symbol = np.where(
            self.rows[:, Machine._fields.index("entropy_lanes")] > 0,
            actions[:, Action.ENTROPY_SYMBOL], actions[:, Action.WEIGHT_SYMBOL],
        )  # fmt: skip
        made[:, COUNT.STREAMED] += symbol
        clock = self.column(("array.clock_mhz",), lambda chip: float(chip.array.clock_mhz))
        leakage = np.sum([part[:, 2] for part in self.areas.values()], axis=0) * 1000 / clock
        memory = self.column(
            ("memory", "technology", "array.clock_mhz", "placement"), _memory_prices
        )
        made[:, COUNT.CYCLES] = leakage + memory[:, 0]
        made[:, COUNT.CONSTANT_BYTES : COUNT.ALL] = memory[:, 1:]
        return made

    def _action_prices(self) -> F64:
        """Return `[n, len(Action)]` pJ of each action but leakage, in all components."""
        total = np.zeros((len(self._points), len(Action)))
        for name, sections in ENERGY_SECTIONS.items():
            number = COMPONENTS.index(name)
            total += self.column(
                (*sections, "technology"), lambda chip, n=number: action_energies(chip)[n]
            )
        return total


def _is_in(path: str, sections: Sequence[str]) -> bool:
    """Return whether a path is a field of one of these sections, or one of these fields."""
    if path == "array.clock_mhz":
        return path in sections
    return any(f"{path}.".startswith(f"{name}.") for name in sections)


def _area(chip: Chip, name: str) -> tuple[float, float, float]:
    from lepton.chip.technology import node

    part = part_areas(chip)[name]
    return part.mm2, part.sram_kib, part.leakage_mw(node(chip.technology.node))


_LONG = 1 << 20
"""Bytes of a transfer whose price per byte stands for all."""


def _memory_prices(chip: Chip) -> tuple[float, float, float, float]:
    """Return pJ of a cycle of all memories, of a byte of constants, and of one read and written."""
    each = prices(chip)
    standing = each.cycle_pj - each.actions[Action.NPU_CYCLE]
    place = chip.placement
    constants, tensors = (
        chip.memory_index(name) for name in (place.constants, place.activations[0])
    )
    parts = ((constants, False), (tensors, False), (tensors, True))
    read, taken, written = (
        each.transfer_pj(m, _LONG, 1, 0, is_write=write) / _LONG for m, write in parts
    )
    return standing, read, taken, written
