"""Weights of a slow memory wait in a fast one: they are copied there while the slow one is idle.

Where constants lie in a flash of a byte per cycle, layers that are bound by it come after layers
that leave it idle. The weight buffer is too small to load far ahead; the memory of the activations
has room. So blocks of weights are brought there piece by piece, through the scratchpad, by channels
that do nothing else, and the layer that needs them reads them at the fast memory's rate.

Which layers gain, and when there is time, is taken from the estimate of the program as it is. What
reads and writes what is ordered by semaphores like everything else: a wrong guess costs but cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Flat
from lepton.codec.decoder import decoder_cycles
from lepton.compiler.copies import PIECE_BYTES, Copy, Staging, is_copy
from lepton.compiler.lowering.traffic import PACKED_BYTES, Traffic
from lepton.cost.estimate import Estimate, estimate_program
from lepton.cost.schedule_state import DISPATCH, END, START
from lepton.errors import CompileError
from lepton.isa.declaration import WORD_BYTES, Instruction
from lepton.isa.instructions import Load, Matmul, Weights
from lepton.program import Program

__all__ = ["can_stage", "staged"]

F64 = NDArray[np.float64]

_ROUNDS = 5
"""Times that copies are chosen at most, each by the times of the program with those before."""
_LEAST_ROUND = 0.005
"""Share of the cycles that a round must win for another to follow."""

_STEP = 2048
"""Cycles of a step of the reckoning."""
_SHARE = 0.9
"""Of the slow memory's idle time, that copies count on."""
_AHEAD = 2
"""Steps by which a block is there before it is needed."""
_LEAST_GAIN = 0.1
"""Cycles that a layer must gain by a byte."""


@dataclass(frozen=True)
class _Times:
    """Estimated cycles of each instruction of a program, `[n]`."""

    dispatch: F64
    start: F64
    end: F64


def can_stage(chip: Chip) -> bool:
    """Return whether constants lie in a memory of their own, with channels to spare."""
    constants = chip.memories[chip.memory_index(chip.placement.constants)]
    return (
        chip.placement.constants not in chip.placement.activations
        and isinstance(constants, Flat)
        and chip.dma.load_channels > 1
        and chip.dma.store_channels > 1
    )


def staged(program: Program, build: Callable[[Staging], Program]) -> Program:
    """Return a program with weights copied ahead if that makes it faster, or the program as it is.

    Args:
        program: of one region, for a chip for which `can_stage` holds.
        build: emits the same model with copies.
    """
    best, fewest = program, estimate_program(program).cycles
    try:
        plain = build(Staging())
    except CompileError:
        # without the places for pieces some layer does not fit
        return program
    layers = _Layers(plain.decoded, plain.operator_of.tolist(), program.chip)
    times, copied = _without_copies(plain, estimate_program(plain))
    order = _worth_copying(layers, times)
    for _ in range(_ROUNDS):
        copies = _choose(layers, times, order, copied)
        if not copies:
            break
        trial = build(Staging(tuple(copies), times.dispatch))
        found = estimate_program(trial)
        worth = fewest - found.cycles > _LEAST_ROUND * fewest
        if found.cycles < fewest:
            best, fewest = trial, found.cycles
        if not worth:
            break
        times, copied = _without_copies(trial, found)
    return best


def _without_copies(program: Program, found: Estimate) -> tuple[_Times, frozenset[int]]:
    """Return the times of the instructions that are not copies, and which of them read copies."""
    chip = program.chip
    constants = chip.memory_index(chip.placement.constants)
    is_own = np.array([not is_copy(item, chip) for item in program.decoded])
    times = _Times(*(found.times[is_own, column] for column in (DISPATCH, START, END)))
    copied = frozenset(
        number
        for number, index in enumerate(np.flatnonzero(is_own).tolist())
        if isinstance(item := program.decoded[index], Weights) and item.memory != constants
    )
    return times, copied


class _Layers(NamedTuple):
    """A program that reads all its weights where they are stored."""

    instructions: Sequence[Instruction]
    operator_of: Sequence[int]
    chip: Chip


@dataclass(frozen=True)
class _Block:
    """A block of weights and the instructions that read it."""

    size: int
    """Bytes of its stream."""
    uses: tuple[int, ...]
    need: int
    """The step in which it is needed first."""
    rank: int
    """Among the operators that gain by a copy."""


def _choose(
    layers: _Layers, times: _Times, order: Sequence[int], copied: frozenset[int]
) -> list[Copy]:
    """Return the blocks of weights to copy in the order of their first use.

    Args:
        layers: the program.
        times: when its instructions run.
        order: operators whose weights may be copied, those that gain most first.
        copied: instructions that read copies while they run at these times.
    """
    idle = _SHARE * _idle(layers, times, copied)
    left = np.cumsum(idle)
    chosen: list[_Block] = []
    blocks = _blocks(layers, times, order)
    for operator in order:
        for block in reversed(blocks.get(operator, ())):
            need = block.need - _AHEAD
            if need > 0 and left[need - 1 :].min() >= block.size:
                left[need - 1 :] -= block.size
                chosen.append(block)
    chosen.sort(key=lambda block: block.uses[0])
    return list(_timed(chosen, idle))


def _blocks(layers: _Layers, times: _Times, order: Sequence[int]) -> dict[int, list[_Block]]:
    """Return the blocks of each of these operators in the order of their first use."""
    ranks = {operator: rank for rank, operator in enumerate(order)}
    uses: dict[tuple[int, int], list[int]] = {}
    for number, item in enumerate(layers.instructions):
        if isinstance(item, Weights) and layers.operator_of[number] in ranks:
            uses.setdefault((layers.operator_of[number], item.address), []).append(number)
    found: dict[int, list[_Block]] = {}
    for (operator, _), numbers in uses.items():
        first = layers.instructions[numbers[0]]
        assert isinstance(first, Weights)
        need = int(times.start[numbers[0]]) // _STEP
        block = _Block(first.stream_bytes, tuple(numbers), need, ranks[operator])
        found.setdefault(operator, []).append(block)
    return found


def _idle(layers: _Layers, times: _Times, copied: frozenset[int]) -> F64:
    """Return the bytes that the memory of the constants could give besides, per step."""
    chip = layers.chip
    memory = chip.memory_index(chip.placement.constants)
    rate = float(chip.bytes_per_cycle(chip.memories[memory]))
    idle = np.full(int(times.end.max()) // _STEP + 2, _STEP * rate)
    word = PACKED_BYTES if chip.control.packed else WORD_BYTES
    fetched = chip.memory_index(chip.placement.program) == memory
    for number, item in enumerate(layers.instructions):
        first, last = int(times.start[number]) // _STEP, int(times.end[number]) // _STEP
        if isinstance(item, Weights) and number not in copied:
            idle[first : last + 1] -= item.stream_bytes / (last + 1 - first)
        elif isinstance(item, Load) and item.memory == memory:
            idle[first : last + 1] -= item.row_bytes * item.rows * item.planes / (last + 1 - first)
        idle[int(times.dispatch[number]) // _STEP] -= word * fetched
    return np.maximum(idle, 0.0)


def _worth_copying(layers: _Layers, times: _Times) -> list[int]:
    """Return the operators that gain by copies of their weights, the most per byte first."""
    chip = layers.chip
    operators = np.asarray(layers.operator_of)
    traffic = Traffic(chip)
    traffic.read(chip.memory_index(chip.placement.activations[0]), 1 << 20)
    each = traffic.cycles / (1 << 20)
    rates = chip.weight_buffer.decoder_bytes_per_cycle, chip.weight_buffer.entropy_lanes
    gains: dict[int, float] = {}
    done = 0.0
    for together in _interleaved(operators):
        members = np.flatnonzero(np.isin(operators, together)).tolist()
        end = float(times.end[members].max())
        weights = moved = decoded = 0
        matrix = 0.0
        weighted: set[int] = set()
        for number in members:
            item = layers.instructions[number]
            if isinstance(item, Weights):
                weights += item.stream_bytes
                elements = item.reduction * item.columns
                decoded += decoder_cycles(int(item.format), elements, *rates)
                weighted.add(layers.operator_of[number])
            elif isinstance(item, Load):
                moved += item.row_bytes * item.rows * item.planes
            elif isinstance(item, Matmul):
                matrix += float(times.end[number] - times.start[number])
        if weights:
            gain = float(end - done - max((weights + moved) * each, matrix, decoded))
            gains |= dict.fromkeys(sorted(weighted), gain / weights)
        done = max(done, end)
    return [o for o in sorted(gains, key=lambda o: -gains[o]) if gains[o] > _LEAST_GAIN]


def _interleaved(operators: NDArray[np.int64]) -> list[list[int]]:
    """Return the operators in order, those together whose instructions alternate."""
    groups: list[list[int]] = []
    end = -1
    for operator in np.unique(operators).tolist():
        members = np.flatnonzero(operators == operator)
        if members[0] > end:
            groups.append([])
        groups[-1].append(operator)
        end = max(end, int(members[-1]))
    return groups


def _timed(blocks: Sequence[_Block], idle: F64) -> Iterator[Copy]:
    """Yield the blocks with the times of their pieces, as early as the memory is idle."""
    step, left = 0, float(idle[0])
    for block in blocks:
        times: list[float] = []
        for at in range(0, block.size, PIECE_BYTES):
            size = min(PIECE_BYTES, block.size - at)
            while left < size and step + 1 < len(idle):
                step += 1
                left += float(idle[step])
            # the pieces of a step are spread over it
            times.append((step + 1 - min(left / max(float(idle[step]), 1.0), 1.0)) * _STEP)
            left -= size
        yield Copy(block.uses, block.size, tuple(times), block.rank)
