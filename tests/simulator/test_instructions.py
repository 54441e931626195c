"""Every instruction against plain loops, and its footprint against the bytes it really touches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton.chip import load_chip
from lepton.cost import instruction_costs
from lepton.isa import BY_MNEMONIC, Instruction, Unit, records
from lepton.isa import instructions as isa
from lepton.isa.footprints import footprints
from lepton.simulator.functional import SEMANTICS, execute
from lepton.simulator.machine import Machine
from tests.naive import NAIVE, NaiveMachine
from tests.simulator.instruction_cases import CASES, random_case, small_machine

SEEDS = st.integers(0, 2**32 - 1)
each_mnemonic = pytest.mark.parametrize("mnemonic", sorted(BY_MNEMONIC))


def spaces_of(machine: Machine) -> list[NDArray[np.generic]]:
    return [machine.scratchpad, machine.accumulators, machine.weight_buffer, *machine.memories]


def boxed(instruction: Instruction, write: int) -> set[tuple[int, int]]:
    """Return every (space, unit) in the read or write boxes of an instruction."""
    units: set[tuple[int, int]] = set()
    for _, space, is_write, base, run, n0, s0, n1, s1, n2, s2 in footprints(records([instruction])):
        if is_write != write:
            continue
        for i in range(n0):
            for j in range(n1):
                for k in range(n2):
                    at = int(base + i * s0 + j * s1 + k * s2)
                    units.update((int(space), at + unit) for unit in range(run))
    return units


def masks(machine: Machine, units: set[tuple[int, int]]) -> list[NDArray[np.bool_]]:
    found = [np.zeros(space.shape, bool) for space in spaces_of(machine)]
    for space, at in units:
        found[space][at] = True
    return found


def test_declarations_semantics_and_references_have_the_same_names() -> None:
    assert set(SEMANTICS) == set(BY_MNEMONIC) == set(NAIVE) == set(CASES)


@each_mnemonic
def test_every_instruction_has_a_cost(mnemonic: str) -> None:
    _, instruction = random_case(mnemonic, 1)
    costs = instruction_costs(records([instruction]), load_chip("nano"))
    works = instruction.unit in (Unit.MATRIX, Unit.VECTOR)
    assert (int(costs.stream[0]) > 0) is works
    assert all(int(part[0]) >= 0 for part in costs)


@each_mnemonic
@given(seed=SEEDS)
def test_values_equal_plain_loops(mnemonic: str, seed: int) -> None:
    machine, instruction = random_case(mnemonic, seed)
    naive = NaiveMachine(machine)
    naive.execute(instruction)
    execute(machine, instruction)
    for ours, expected in zip(spaces_of(machine), naive.spaces, strict=True):
        np.testing.assert_array_equal(ours, expected)


@each_mnemonic
@given(seed=SEEDS)
def test_footprints_hold_what_plain_loops_touch(mnemonic: str, seed: int) -> None:
    machine, instruction = random_case(mnemonic, seed)
    naive = NaiveMachine(machine)
    naive.execute(instruction)
    assert naive.writes == boxed(instruction, write=1)
    assert naive.reads <= boxed(instruction, write=0)


@each_mnemonic
@given(seed=SEEDS)
def test_bytes_outside_of_the_read_boxes_have_no_effect(mnemonic: str, seed: int) -> None:
    machine, instruction = random_case(mnemonic, seed)
    reads = masks(machine, boxed(instruction, write=0))
    writes = masks(machine, boxed(instruction, write=1))
    other, noise = copy.deepcopy(machine), small_machine(seed ^ 1)
    for space, read, fresh in zip(spaces_of(other), reads, spaces_of(noise), strict=True):
        space[~read] = fresh[~read]
    before = copy.deepcopy(other)
    execute(machine, instruction)
    execute(other, instruction)
    for one, two, old, write in zip(
        spaces_of(machine), spaces_of(other), spaces_of(before), writes, strict=True
    ):
        np.testing.assert_array_equal(one[write], two[write])
        np.testing.assert_array_equal(two[~write], old[~write])


EXTENTS = {"height", "width", "channels", "rows", "planes", "row_bytes", "columns", "ofm_height"}


@each_mnemonic
@given(seed=SEEDS)
def test_an_empty_tile_touches_nothing(mnemonic: str, seed: int) -> None:
    machine, instruction = random_case(mnemonic, seed)
    before = copy.deepcopy(machine)
    for name in EXTENTS & {field.name for field in instruction.fields}:
        values = {field.name: getattr(instruction, field.name) for field in instruction.fields}
        empty = type(instruction)(**(values | {name: 0}))
        if isinstance(empty, isa.Matmul) and name == "channels":
            continue  # an empty reduction is a sum of nothing: it writes zeros
        assert not boxed(empty, write=1)
        if isinstance(empty, isa.Weights):
            continue  # its stream must have as many bytes, which the checker sees to
        if isinstance(empty, isa.Resize) and name == "ofm_height":
            continue  # where the parameters lie follows from the height
        if isinstance(empty, isa.Softmax) and name == "channels":
            continue  # a softmax of no values is refused by the checker
        execute(machine, empty)
        for now, old in zip(spaces_of(machine), spaces_of(before), strict=True):
            np.testing.assert_array_equal(now, old)


AVERAGES = [isa.PoolMode.AVERAGE_INTEGER, isa.PoolMode.AVERAGE_FLOAT32]


def _average(**fields: int) -> tuple[Machine, isa.Pool]:
    """Return a 3 x 3 average with a padding of 1 and these fields."""
    machine, made = random_case("pool", 5)
    values = {field.name: getattr(made, field.name) for field in made.fields}
    values |= {"kernel_height": 3, "kernel_width": 3, "pad_top": 1, "pad_left": 1, "count_pad": 0}
    values |= {"stride_y": 1, "stride_x": 1, "dilation_y": 1, "dilation_x": 1, "ifm_unsigned": 0}
    return machine, isa.Pool(**(values | {"minimum": -128, "maximum": 127} | fields))


_INTEGER, _FLOAT32 = AVERAGES


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        (_INTEGER, {}),
        (_FLOAT32, {}),
        (_FLOAT32, {"count_pad": 1}),
        (_INTEGER, {"minimum": 3, "maximum": 5}),
        (_INTEGER, {"dilation_x": 2}),
        (_INTEGER, {"dilation_y": 2}),
        (_FLOAT32, {"dilation_x": 2}),
        (_FLOAT32, {"dilation_y": 2}),
        (_INTEGER, {"count_pad": 1}),
        (_FLOAT32, {"minimum": 3, "maximum": 5}),
    ],
    ids=str,
)
def test_every_field_of_an_average_counts(mode: isa.PoolMode, fields: dict[str, int]) -> None:
    machine, instruction = _average(mode=mode, **fields)
    naive = NaiveMachine(machine)
    naive.execute(instruction)
    execute(machine, instruction)
    np.testing.assert_array_equal(machine.scratchpad, naive.spaces[0])
