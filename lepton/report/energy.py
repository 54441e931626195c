"""Energy of a run: counted actions times the energy of each, per layer and per component.

Counts are whole numbers, split so that layers add up to the totals exactly (docs/energy.md section
6): what an instruction does belongs to its operator; a memory's commands are shared in proportion
to the bytes that operators move there, its refreshes, standby and the leakage to their cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Dram
from lepton.cost.action_names import Action
from lepton.cost.energy import COMPONENTS, MEMORY_EVENTS, action_energies, memory_energies
from lepton.cost.packed_actions import program_actions
from lepton.errors import LeptonError
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.footprints import BOX, Space, footprints
from lepton.program import Program
from lepton.report.attribution import attribute
from lepton.report.traffic import operator_traffic
from lepton.trace import MemoryCounters, Trace

__all__ = ["Energy", "apportion", "energy_of", "reconcile"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_MEMORY, _STANDBY = COMPONENTS.index("memory"), COMPONENTS.index("memory_standby")


@dataclass(frozen=True)
class Energy:
    """Counts and energy of a run.

    Attributes:
        actions: `[operators, len(Action)]` what the chip did for each operator.
        memory_events: `[operators, memories, len(MEMORY_EVENTS)]` what the memories did.
        action_pj: `[len(COMPONENTS), len(Action)]` energy of each action.
        memory_pj: `[memories, len(MEMORY_EVENTS)]` energy of each event.
    """

    actions: I64
    memory_events: I64
    action_pj: F64
    memory_pj: F64

    @cached_property
    def picojoules(self) -> F64:
        """Energy `[operators, len(COMPONENTS)]`."""
        made = self.actions @ self.action_pj.T
        events = self.memory_events * self.memory_pj
        made[:, _MEMORY] += events[:, :, :-1].sum(axis=(1, 2))
        made[:, _STANDBY] += events[:, :, -1].sum(axis=1)
        return made

    @property
    def joules(self) -> float:
        """Energy of the whole run."""
        return float(self.picojoules.sum()) * 1e-12

    @property
    def components(self) -> dict[str, float]:
        """Joules of each component."""
        return dict(zip(COMPONENTS, (self.picojoules.sum(axis=0) * 1e-12).tolist(), strict=True))

    def layer(self, operator: int) -> dict[str, float]:
        """Return the joules of an operator by component, without those that are 0."""
        row = (self.picojoules[operator] * 1e-12).tolist()
        return {name: spent for name, spent in zip(COMPONENTS, row, strict=True) if spent}


def apportion(total: int, weights: I64) -> I64:
    """Return whole shares of `total` in proportion to `weights`, which add up to it exactly.

    Share i is the difference of the rounded-down cumulative shares; without any weight the last
    has all.
    """
    reached = np.cumsum(weights).tolist()
    whole = reached[-1] if reached else 0
    if whole == 0:
        made = np.zeros(len(weights), np.int64)
        made[-1:] = total
        return made
    return np.diff(np.array([0, *(total * part // whole for part in reached)], np.int64))


def _owners(program: Program) -> I64:
    """Return the operator of each instruction; `halt` belongs to that of the one before it."""
    owners = program.operator_of.astype(np.int64)
    halts = program.table[:, 0] == BY_MNEMONIC["halt"].opcode
    index = np.arange(len(owners))
    before = np.maximum.accumulate(np.where(halts, 0, index))
    return owners[before]


def _moved(program: Program, owners: I64) -> I64:
    """Return the bytes `[operators, memories, 2]` read and written, instruction fetch included."""
    made = operator_traffic(program)
    fetched = np.diff(program.stream_ends, prepend=0)
    np.add.at(made[:, program.program_memory, 0], owners, fetched)
    return made


def _memory_events(counters: MemoryCounters, is_dram: bool, moved: I64, cycles: I64) -> I64:
    """Return the events `[operators, len(MEMORY_EVENTS)]` of one memory."""
    reads, writes = moved[:, 0], moved[:, 1]
    if is_dram:
        commands = counters.row_hits + counters.row_misses
        reads = apportion(commands - counters.write_commands, moved[:, 0])
        writes = apportion(counters.write_commands, moved[:, 1])
    activates = apportion(counters.activates, moved.sum(axis=1))
    refreshes = apportion(counters.refreshes, cycles)
    return np.stack([activates, reads, writes, refreshes, cycles], axis=1)


def energy_of(program: Program, trace: Trace, cycles: I64 | None = None) -> Energy:
    """Return the energy of a program's run.

    Args:
        program: what ran.
        trace: its run.
        cycles: `[operators]` cycles of each, adding up to the trace's, if known already.

    Raises:
        LeptonError: counts contradict each other, see `reconcile`.
    """
    chip = program.chip
    operators = len(program.operators)
    owners = _owners(program)
    spent = attribute(trace, operators).cycles if cycles is None else cycles
    actions = program_actions(program, owners, operators)
    actions[:, Action.NPU_CYCLE] = spent
    moved = _moved(program, owners)
    events = [
        _memory_events(counters, isinstance(memory, Dram), moved[:, index], spent)
        for index, (counters, memory) in enumerate(zip(trace.memories, chip.memories, strict=True))
    ]
    kinds = zip(chip.memories, chip.technology.memories, strict=True)
    made = Energy(
        actions,
        np.stack(events, axis=1) if events else np.zeros((operators, 0, 5), np.int64),
        action_energies(chip),
        np.stack([memory_energies(chip, memory, kind) for memory, kind in kinds]),
    )
    reconcile(program, trace, made)
    return made


def _units(boxes: I64, space: Space, write: int) -> int:
    """Return the units that boxes of a space read or write."""
    mine = boxes[(boxes[:, 1] == space) & (boxes[:, 2] == write)]
    sizes = [BOX.index(name) for name in ("run", "n0", "n1", "n2")]
    return int(mine[:, sizes].prod(axis=1).sum())


def reconcile(program: Program, trace: Trace, energy: Energy) -> None:
    """Check that no action is missing and none counted twice.

    Bytes of every memory, fetch included, are those that its counters saw; DRAM commands,
    activations and refreshes those of the trace; cycles the run's; bytes written into scratchpad
    and weight buffer those of the instructions' footprints.

    Raises:
        LeptonError: two counts differ, naming both.
    """
    total = energy.actions.sum(axis=0)
    moved = _moved(program, _owners(program)).sum(axis=0)
    events = energy.memory_events.sum(axis=0)
    boxes = footprints(program.table)
    written = total[[Action.LOAD_BYTE, Action.VECTOR_WRITE]].sum()
    pairs: list[tuple[str, int, int]] = [
        ("cycles", int(total[Action.NPU_CYCLE]), trace.cycles),
        ("scratchpad bytes written", int(written), _units(boxes, Space.SCRATCHPAD, 1)),
        (
            *("weight buffer bytes written", int(total[Action.WEIGHT_BUFFER_WRITE])),
            _units(boxes, Space.WEIGHT_BUFFER, 1),
        ),
        ("instructions", int(total[Action.INSTRUCTION]), len(trace.records)),
    ]
    for index, memory in enumerate(trace.memories):
        pairs += [
            (f"{memory.name} bytes read", int(moved[index, 0]), memory.read_bytes),
            (f"{memory.name} bytes written", int(moved[index, 1]), memory.write_bytes),
        ]
        pairs += _commands(memory, events[index], isinstance(program.chip.memories[index], Dram))
    for name, counted, expected in pairs:
        if counted != expected:
            raise LeptonError(f"energy: {name}: {counted} counted, but the run has {expected}")


def _commands(memory: MemoryCounters, events: I64, is_dram: bool) -> Sequence[tuple[str, int, int]]:
    """Return the pairs of counts of a memory's commands."""
    counted = dict(zip(MEMORY_EVENTS, events.tolist(), strict=True))
    moves = (
        memory.row_hits + memory.row_misses if is_dram else memory.read_bytes + memory.write_bytes
    )
    return [
        (f"{memory.name} activations", counted["activate"], memory.activates),
        (f"{memory.name} refreshes", counted["refresh"], memory.refreshes),
        (f"{memory.name} data commands", counted["read"] + counted["write"], moves),
    ]
