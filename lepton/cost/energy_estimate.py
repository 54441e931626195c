"""Energy without a simulation: of a transfer, and of a program; docs/energy.md, section 11.

What instructions make the chip do is counted as for a run. What the memories do follows from the
shape of each transfer, so requests of different transfers neither share an access nor close each
other's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram
from lepton.cost.action_names import Action
from lepton.cost.elementwise import Number, choose, common_divisor, least, most
from lepton.cost.energy import MEMORY_EVENTS, action_energies, memory_energies
from lepton.cost.estimate import estimate_program
from lepton.cost.packed_actions import program_actions
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.program import Program

__all__ = ["Prices", "estimate_energy", "prices"]

I64 = NDArray[np.int64]

_ACTIVATE, _READ, _WRITE, _REFRESH, _CYCLE = range(len(MEMORY_EVENTS))
_SHAPE = ("memory", "row_bytes", "rows", "row_stride", "planes", "plane_stride")


@dataclass(frozen=True)
class Prices:
    """What a chip's work costs, in pJ."""

    chip: Chip
    actions: tuple[float, ...]
    """Of each `Action`, in all components."""
    events: tuple[tuple[float, ...], ...]
    """Of each of `MEMORY_EVENTS` of each memory."""
    standing_pj: float
    """Of every cycle: leakage, and the memories' standby."""
    refreshes: tuple[tuple[float, float], ...]
    """Of each DRAM: what a refresh of all its banks costs, and the cycles from one to the next."""

    @property
    def cycle_pj(self) -> float:
        """Of a cycle in which nothing happens, refreshes spread evenly."""
        return self.standing_pj + sum(energy / interval for energy, interval in self.refreshes)

    def transfer_pj(
        self, memory: int, run_bytes: Number, runs: Number, stride: Number, *, is_write: bool
    ) -> Number:
        """Return what a memory spends on runs of bytes, `stride` from one to the next."""
        device, events = self.chip.memories[memory], self.events[memory]
        each = events[_WRITE if is_write else _READ]
        if not isinstance(device, Dram):
            return runs * run_bytes * each
        access = device.access_bytes
        pieces = (run_bytes + access - common_divisor(stride, access)) / access
        accesses = most(pieces, -(-run_bytes // access))
        row = device.row_bytes
        opened = run_bytes / row + choose(stride > run_bytes, least(stride / row, 1.0), 0.0)
        return runs * (accesses * each + opened * events[_ACTIVATE])

    def moved_pj(
        self, memory: int, run_bytes: Number, runs: Number, stride: Number, *, is_write: bool
    ) -> Number:
        """Return `transfer_pj`, and what the scratchpad and its DMA channel spend on the bytes."""
        way = Action.STORE_BYTE if is_write else Action.LOAD_BYTE
        spent = self.transfer_pj(memory, run_bytes, runs, stride, is_write=is_write)
        return spent + run_bytes * runs * self.actions[way]


def prices(chip: Chip) -> Prices:
    """Return the prices of a chip; `chip.derived(prices)` reckons them once."""
    actions = action_energies(chip).sum(axis=0).tolist()
    kinds = zip(chip.memories, chip.technology.memories, strict=True)
    events = [tuple(memory_energies(chip, memory, kind).tolist()) for memory, kind in kinds]
    standing_pj = actions[Action.NPU_CYCLE]
    refreshes: list[tuple[float, float]] = []
    for number, (memory, each) in enumerate(zip(chip.memories, events, strict=True)):
        standing_pj += each[_CYCLE]
        if isinstance(memory, Dram):
            interval = memory.tREFI * chip.cycles_per_memory_cycle[number]
            refreshes.append((each[_REFRESH] * memory.channels * memory.ranks, interval))
    return Prices(chip, tuple(actions), tuple(events), standing_pj, tuple(refreshes))


def _transfers(program: Program) -> tuple[I64, I64]:
    """Return the different shapes of transfers, `_SHAPE` and whether they write, and how many."""
    table = program.table
    opcodes = [BY_MNEMONIC[name].opcode for name in ("load", "store", "weights")]
    load, store, weights = (table[:, 0] == opcode for opcode in opcodes)
    shapes = np.stack([*(table[:, COLUMNS[name]] for name in _SHAPE), store], axis=1)
    streams = table[weights]
    whole = np.zeros((len(streams), shapes.shape[1]), np.int64)
    whole[:, 0], whole[:, 1] = streams[:, COLUMNS["memory"]], streams[:, COLUMNS["stream_bytes"]]
    whole[:, 2] = whole[:, 4] = 1
    return np.unique(np.concatenate([shapes[load | store], whole]), axis=0, return_counts=True)


def estimate_energy(program: Program, cycles: int | None = None) -> float:
    """Return the estimated joules of one inference from a cold chip.

    Args:
        program: of a chip whose array is weight-stationary.
        cycles: of the run, estimated if not given.

    Raises:
        CheckError: the program deadlocks.
    """
    chip = program.chip
    each = chip.derived(prices)
    counts = program_actions(program, np.zeros(len(program.table), np.int64), 1)[0]
    spent = float(counts @ np.array(each.actions))
    for shape, count in zip(*(part.tolist() for part in _transfers(program)), strict=True):
        memory, run, rows, row_stride, planes, plane_stride, is_write = shape
        if row_stride == run:
            # rows that follow each other are one run
            run, rows = run * rows, 1
        stride = row_stride if rows > 1 else plane_stride
        runs = rows * planes
        spent += count * each.transfer_pj(memory, run, runs, stride, is_write=bool(is_write))
    fetched = len(program.stream)
    spent += each.transfer_pj(program.program_memory, fetched, 1, 0, is_write=False)
    taken = estimate_program(program).cycles if cycles is None else cycles
    spent += taken * each.standing_pj
    spent += sum(energy * (taken // interval) for energy, interval in each.refreshes)
    return spent * 1e-12
