"""Several cores in time: random programs, and the sentences of docs/timing.md about them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lepton.chip import Chip, load_chip
from lepton.errors import ProgramError
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.isa.stream import unpack
from lepton.simulator import simulate_timing
from tests.naive_stream import stored_lengths
from tests.naive_timing import NaiveTiming
from tests.simulator.test_timing_oracle import DATA, PROGRAM, plain_chip
from tests.simulator.timing_cases import program_of, streams
from tests.simulator.timing_comparison import compare, cores_met, run_seed, timing_verdict

COMMON = 1 << 40
"""The first semaphore that cores have in common."""


@pytest.mark.slow
def test_random_programs_take_the_same_cycles() -> None:
    met = sum((run_seed(seed, 2 + seed % 3) for seed in range(210)), Counter[str]())
    assert not timing_verdict(met)
    assert met["signals of another core"] > 120
    assert met["idle cores"] > 20


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_cycles() -> None:
    from lepton.compiler.compile import CompileOptions, compile_model
    from lepton.models import digits_model_path

    # with more effort it is found that one core alone is faster
    chip = dataclasses.replace(load_chip("nano"), cores=2)
    program = compile_model(digits_model_path(), chip, CompileOptions(effort=0))
    timing = compare(program)
    assert isinstance(timing, NaiveTiming)
    assert cores_met(timing, program)["signals of another core"]


def _chip(cores: int = 2, **changed: dict[str, Any]) -> Chip:
    """Return `plain_chip` with so many cores, all of whose blocks of cycle 0 arrive in cycle 1."""
    program = {"ports": 4} | changed.pop("program", {})
    return dataclasses.replace(plain_chip(program=program, **changed), cores=cores)


def _timing(chip: Chip, *regions: Sequence[Sequence[Instruction]]) -> NaiveTiming:
    """Return the timing on which both simulators agree; a region is a stream for each core."""
    timing = compare(program_of(chip, [streams(*region) for region in regions]))
    assert isinstance(timing, NaiveTiming)
    return timing


def _load(size: int = 8, **fields: int) -> isa.Load:
    return isa.Load(**({"memory": DATA, "row_bytes": size, "rows": 1, "planes": 1} | fields))


def _fill(**fields: int) -> isa.Fill:
    """Return a fill of 5 cycles."""
    tile = {"height": 1, "width": 1, "channels": 16, "ofm_row_pitch": 16, "ofm_pixel_pitch": 16}
    return isa.Fill(**(tile | fields))


SLOW_PROGRAM: dict[str, Any] = {"program": {"bytes_per_cycle": Fraction(8), "ports": 1}}


def test_each_core_may_fetch_in_a_cycle_core_0_first() -> None:
    # 64 bytes take 8 cycles: in cycle 0 both ask for their first block, in cycle 1 for the second
    chip = _chip(**SLOW_PROGRAM, control={"fetch_bytes": 64, "fetch_outstanding": 2})
    records = _timing(chip, [[_fill()], [_fill()]]).records
    assert records["arrive"].tolist() == [8, 24, 16, 32]
    assert records["dispatch"].tolist() == [8, 24, 16, 32]


def test_the_blocks_of_a_core_begin_with_its_stream() -> None:
    # 192 bytes of core 0, then 128 of core 1, one block of it though address 256 cuts them
    chip = _chip(**SLOW_PROGRAM, control={"fetch_bytes": 128, "fetch_outstanding": 2})
    records = _timing(chip, [[_fill(), _fill()], [_fill()]]).records
    assert records["arrive"].tolist() == [16, 16, 40, 32, 32]


def test_the_fetches_of_all_cores_come_before_the_requests_of_queues() -> None:
    # in cycle 3 core 0's load asks for 640 bytes, and core 1, whose fill went in cycle 2, for 64
    program = {"bytes_per_cycle": Fraction(64), "ports": 1}
    control = {"fetch_bytes": 64, "fetch_outstanding": 1}
    chip = _chip(program=program, control=control, scratchpad={"port_bytes": 1024})
    records = _timing(chip, [[_load(640, memory=PROGRAM)], [_fill()]]).records
    assert records["dispatch"].tolist() == [1, 3, 2, 4]
    assert records["retire"][0] == 3 + 1 + 10


def test_queues_take_their_turns_core_by_core() -> None:
    # a later channel of core 0 is before the first one of core 1
    records = _timing(_chip(), [[_load(800, channel=1)], [_load(800, channel=0)]]).records
    assert records["start"].tolist()[::2] == [1, 1]
    assert records["retire"].tolist()[::2] == [103, 203]


@pytest.mark.parametrize("giver", [0, 1])
def test_a_signal_is_there_for_all_cores_in_the_cycle_in_which_it_fires(giver: int) -> None:
    cores: list[list[Instruction]] = [[_load(wait=COMMON)], [_load(wait=COMMON)]]
    cores[giver] = [_fill(signal=COMMON)]
    records = _timing(_chip(), cores).records
    fill, load = records[2 * giver], records[2 - 2 * giver]
    assert load["start"] == fill["retire"] == 6
    assert (load["cause"], load["cause_queue"]) == (2 * giver, fill["queue"])
    assert (load["stall_semaphore"], load["stall_fetch"]) == (5, 1)


def test_queues_are_numbered_core_by_core() -> None:
    trace = simulate_timing(program_of(_chip(3), [streams([], [_load()], [_fill()])]))
    assert len(trace.queues) == 3 * 6  # two channels of loads, one of stores, three units
    assert [trace.queues[number] for number in trace.records["queue"][[1, 3]]] == [
        "1.load0",
        "2.vector",
    ]
    assert trace.records["queue"][[0, 2, 4]].tolist() == [-1, -1, -1]


def test_units_and_banks_of_two_cores_do_not_meet() -> None:
    copy = isa.Copy(
        height=1, width=1, channels=64, ifm_row_pitch=64, ifm_pixel_pitch=64, ifm_channel_pitch=1,
        ofm_row_pitch=64, ofm_pixel_pitch=64, ofm_channel_pitch=1, ifm=0, ofm=1024,
    )  # fmt: skip
    store = isa.Store(memory=DATA, row_bytes=8, rows=1, planes=1)
    assert _timing(_chip(), [[copy, store], []]).records[1]["stall_bank"] == 1
    assert not _timing(_chip(), [[copy], [store]]).records["stall_bank"].any()


def test_a_private_semaphore_is_another_one_in_each_core() -> None:
    pair = [_fill(signal=1 << 39), _load(wait=1 << 39)]
    records = _timing(_chip(), [pair, pair]).records
    assert records["cause"].tolist() == [-1, 0, -1, -1, 3, -1]
    # signalled in core 0, awaited in core 1
    assert compare(program_of(_chip(), [streams(*[[item] for item in pair])])) == 2


def test_with_one_core_all_semaphores_are_its_own() -> None:
    items = [_fill(signal=COMMON), _load(wait=COMMON)]
    assert isinstance(compare(program_of(plain_chip(), [items])), NaiveTiming)


def test_of_equal_signals_the_highest_semaphore_is_the_cause_whichever_core_fired_it() -> None:
    waits = COMMON | 1
    for common, private in [(COMMON, 1), (1 << 55, 1 << 39)]:
        waits = common | private
        cores = [[_fill(signal=private), _load(wait=waits)], [_fill(signal=common)]]
        record = _timing(_chip(), cores).records[1]
        assert (record["cause"], record["cause_queue"]) == (3, 6 + 5)


def test_a_region_ends_when_all_cores_have_and_the_next_begins_for_all() -> None:
    timing = _timing(_chip(), [[_load(800)], []], [[_fill()], [_fill()]])
    (_, end), (begin, last) = timing.regions
    assert end == begin == 103
    later = timing.records[timing.records["instruction"] >= 3]
    assert later["dispatch"].tolist() == [end + 1, end + 2] * 2
    assert last == end + 6


def test_signals_of_common_semaphores_do_not_outlive_their_region() -> None:
    regions = [streams([_fill(signal=COMMON)], []), streams([], [_load(wait=COMMON)])]
    assert compare(program_of(_chip(), regions)) == 4


@pytest.mark.parametrize(
    ("cores", "stuck"),
    [
        ([[], [_load(wait=1)]], 1),
        ([[_load(wait=COMMON), _fill()], [_load(wait=1), _load(signal=COMMON)]], 0),
        ([[_fill(), _fill(wait=COMMON)], [_load(wait=2 * COMMON, signal=COMMON)]], 1),
        ([[_fill(signal=COMMON)], [_load(wait=COMMON), _load(wait=COMMON, channel=1)]], 3),
        ([[_fill()], [_load(wait=COMMON), *[_load()] * 9, _fill(signal=COMMON)]], 2),
    ],
    ids=["core 1", "both", "later in core 0", "second wait", "full queue"],
)
def test_a_deadlock_names_the_first_instruction_never_taken_core_0_first(
    cores: list[list[Instruction]], stuck: int
) -> None:
    # a load of 103 cycles before shows that cores which still work are waited for
    assert compare(program_of(_chip(), [streams(*cores)])) == stuck
    busy = [_load(800, channel=1)]
    assert compare(program_of(_chip(3), [streams(busy, *cores)])) == stuck + 2


def test_packing_begins_anew_with_each_core() -> None:
    chip = _chip(control={"packed": True})
    items = [_load(8), _load(9), _fill(), _fill(ofm=64)]
    program = program_of(chip, [streams(items, items)] * 2)
    lengths = stored_lengths(program)
    assert lengths == lengths[:5] * 4
    assert np.diff(program.stream_ends, prepend=0).tolist() == lengths
    assert unpack(program.stream) == program.instructions
    assert isinstance(compare(program), NaiveTiming)


@pytest.mark.parametrize("halts", [1, 3])
def test_a_region_without_a_stream_for_each_core_is_not_timed(halts: int) -> None:
    program = program_of(_chip(), [streams(*[[_fill()]] * halts)])
    with pytest.raises(ProgramError, match=f"{halts} streams.*2 cores"):
        simulate_timing(program)
