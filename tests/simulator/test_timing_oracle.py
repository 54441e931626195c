"""The timing kernel against the plain simulator of docs/timing.md: every figure of every record.

1,400 random programs, and directed ones for the sentences of the page that two readers could take
differently; `make campaign` runs more.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from importlib import resources
from typing import Any

import numpy as np
import pytest

from lepton.chip import Chip, Flat, load_chip
from lepton.errors import CheckError
from lepton.isa import Instruction, Unit, records
from lepton.isa import instructions as isa
from lepton.isa.footprints import Space, ends, footprints, queue_count
from lepton.simulator import simulate_timing
from lepton.simulator.kernel import ACTOR_BITS
from lepton.simulator.memories import cold_memories
from tests.naive_banks import ACCUMULATORS, SCRATCHPAD, Span, spans
from tests.naive_memory import FlatMemory, Request
from tests.naive_timing import NaiveTiming, naive_timing
from tests.simulator.timing_cases import program_of, random_program
from tests.simulator.timing_comparison import (
    compare,
    describe,
    difference,
    run_seed,
    timing_verdict,
)

PROGRAM, DATA = 0, 1
"""Memories of `plain_chip`."""


def test_a_difference_is_shown_with_chip_and_program() -> None:
    program = program_of(plain_chip(), [[_fill(), _load()]])
    naive, trace = naive_timing(program), simulate_timing(program)
    trace.records["end"][1] += 1
    found = difference(naive, trace)
    assert found == "instruction 1: end 6 (kernel 7)"
    text = describe(program, found)
    assert "1 load " in text
    assert "queue_depth=8" in text


@pytest.mark.slow
def test_random_programs_take_the_same_cycles() -> None:
    assert not timing_verdict(sum((run_seed(seed) for seed in range(1400)), Counter[str]()))


def test_the_operands_of_the_page_are_the_footprints() -> None:
    spaces = {Space.SCRATCHPAD: SCRATCHPAD, Space.ACCUMULATORS: ACCUMULATORS}
    for seed in range(100):
        decoded = random_program(seed).decoded
        expected: list[set[Span]] = [set() for _ in decoded]
        boxes = footprints(records(decoded))
        for box, end in zip(boxes.tolist(), ends(boxes).tolist(), strict=True):
            if box[1] in spaces:
                expected[box[0]].add((spaces[Space(box[1])], bool(box[2]), box[3], end - box[3]))
        for item, boxed in zip(decoded, expected, strict=True):
            if item.unit in (Unit.MATRIX, Unit.VECTOR):
                assert {span for span in spans(item) if span[3]} == boxed, item


class _LateMemory(FlatMemory):
    """A flat memory that decides a request only when time has gone on, as a DRAM does."""

    def __init__(self, memory: Flat, chip: Chip) -> None:
        super().__init__(memory, chip)
        self._waiting: list[tuple[Request, int, int, bool]] = []

    def request(self, tick: int, address: int, size: int, is_write: bool) -> Request:
        self._waiting.append((Request(), tick, size, is_write))
        return self._waiting[-1][0]

    def advance(self, tick: int) -> None:
        while self._waiting and self._waiting[0][1] < tick:
            waiting, arrived, size, is_write = self._waiting.pop(0)
            waiting.finish = super().request(arrived, 0, size, is_write).finish


def test_the_oracle_needs_no_answer_before_its_time() -> None:
    for seed in range(30):
        program = random_program(seed)
        if not isinstance(compare(program), int):
            chip = program.chip
            late = [_LateMemory(m, chip) for m in chip.memories if isinstance(m, Flat)]
            assert not difference(naive_timing(program, [*late]), simulate_timing(program))


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_cycles() -> None:
    from lepton.compiler.compile import compile_model

    model = resources.files("lepton.models") / "pretrained" / "digits.onnx"
    with resources.as_file(model) as path:
        compare(compile_model(path, load_chip("nano")))


# --- directed programs: a sentence of the page each ----------------------------------------------


def _flat(name: str, **changed: Any) -> Flat:
    wide = {"read_latency_cycles": 0, "write_latency_cycles": 0, "burst_bytes": 1024}
    memory = load_chip("nano").memories[0]
    assert isinstance(memory, Flat)
    flights = {"reads_in_flight": 64, "writes_in_flight": 64}
    return dataclasses.replace(memory, name=name, **(flights | wide | changed))


def plain_chip(**changed: dict[str, Any]) -> Chip:
    """Return a chip that has fetched 16 instructions by cycle 1, with some sections changed.

    Its data memory reads 8 bytes per cycle without latency; a vector instruction takes 4 cycles
    and a cycle for every 16 elements.
    """
    sections: dict[str, dict[str, Any]] = {
        "control": {"fetch_bytes": 1024, "queue_depth": 8, "packed": False},
        "dma": {"burst_bytes": 1024, "setup_cycles": 2, "load_channels": 2, "outstanding": 4},
        "vector": {"latency_cycles": 4, "lanes": 16},
        "scratchpad": {"size_kib": 4, "banks": 4, "port_bytes": 16},
        "array": {"rows": 4, "columns": 4, "issue_cycles": 0, "feed_words": 4},
        "program": {"bytes_per_cycle": Fraction(1024)},
        "data": {"bytes_per_cycle": Fraction(8)},
    }
    for section, fields in changed.items():
        sections[section] |= fields
    memories = (_flat("program", **sections.pop("program")), _flat("data", **sections.pop("data")))
    chip = load_chip("nano")
    parts = {
        name: dataclasses.replace(getattr(chip, name), **fields)
        for name, fields in sections.items()
    }
    placement = dataclasses.replace(
        chip.placement, program="program", constants="data", activations=("data",)
    )
    return dataclasses.replace(chip, memories=memories, placement=placement, **parts)


def _timing(chip: Chip, *regions: Sequence[Instruction], address: int = 0) -> list[dict[str, int]]:
    """Return the records of a program on which both simulators agree."""
    timing = compare(program_of(chip, regions, address))
    assert isinstance(timing, NaiveTiming)
    names = timing.records.dtype.names
    assert names is not None
    return [dict(zip(names, map(int, row), strict=True)) for row in timing.records]


def _load(size: int = 8, **fields: int) -> isa.Load:
    return isa.Load(**({"memory": DATA, "row_bytes": size, "rows": 1, "planes": 1} | fields))


def _fill(size: int = 16, **fields: int) -> isa.Fill:
    """Return a fill of 4 cycles and one for every 16 bytes."""
    pitches = {"ofm_row_pitch": size, "ofm_pixel_pitch": size}
    return isa.Fill(height=1, width=1, channels=size, **(pitches | fields))


def _matmul(**fields: int) -> isa.Matmul:
    """Return a matmul of one pass, a row of weights and so many output pixels as it is wide."""
    ones = ("channels", "kernel_height", "kernel_width", "stride_y", "stride_x", "dilation_y")
    ones += ("dilation_x", "columns", "accumulator_pitch", "ofm_height", "ifm_height", "ofm_width")
    made = dict.fromkeys((*ones, "ifm_width", "ifm_pixel_pitch"), 1) | {"ifm_row_pitch": 64}
    return isa.Matmul(**(made | {"stationary": isa.Stationary.ONES} | fields))


def test_a_group_arrives_with_the_slowest_of_its_requests() -> None:
    # 128 bytes at 32 are cut into 96 and 32, which the second port brings first
    program = {"bytes_per_cycle": Fraction(8), "ports": 2}
    chip = plain_chip(program=program, dma={"burst_bytes": 128}, control={"fetch_bytes": 128})
    assert _timing(chip, [_fill()], address=32)[0]["dispatch"] == 12


def test_a_later_group_may_arrive_first() -> None:
    # 256 bytes on one port until cycle 32, 128 on the other from cycle 1 to 17
    program = {"bytes_per_cycle": Fraction(8), "ports": 2}
    chip = plain_chip(program=program, control={"fetch_bytes": 256, "fetch_outstanding": 2})
    row = _timing(chip, [*[_load(8)] * 4, _fill()])[4]
    assert row["dispatch"] == row["start"] == 36
    assert (row["stall_fetch"], row["stall_dispatch"]) == (17, 19)


@pytest.mark.parametrize(
    ("setup", "lost"), [(2, 0), (3, 1), (6, 1), (7, 0)], ids=["start", "next", "last", "end"]
)
def test_a_bank_is_busy_from_the_cycle_after_the_start_up_to_the_end(setup: int, lost: int) -> None:
    # taken in cycles 1, 2 and 3, the fill streams in [3, 8); a unit has its turn after the DMA
    chip = plain_chip(dma={"setup_cycles": setup}, vector={"latency_cycles": 4})
    items = [_load(), isa.Weights(memory=DATA, stream_bytes=1, reduction=1, columns=1), _fill()]
    records = _timing(chip, items)
    assert (records[2]["start"], records[2]["end"]) == (3, 8)
    assert records[0]["stall_bank"] == lost
    assert records[0]["end"] == 1 + setup + 1 + lost


def test_a_load_meets_writes_and_a_store_meets_reads() -> None:
    copy = isa.Copy(
        height=1, width=1, channels=64, ifm_row_pitch=64, ifm_pixel_pitch=64, ifm_channel_pitch=1,
        ofm_row_pitch=64, ofm_pixel_pitch=64, ofm_channel_pitch=1, ifm=0, ofm=1024,
    )  # fmt: skip
    transfer = {"memory": DATA, "row_bytes": 8, "rows": 1, "planes": 1}
    for cls, bank, lost in [
        (isa.Load, 0, 0), (isa.Load, 1, 1), (isa.Store, 0, 1), (isa.Store, 1, 0),
    ]:  # fmt: skip
        items = [copy, cls(scratchpad=bank * 1024, **transfer)]
        assert _timing(plain_chip(), items)[1]["stall_bank"] == lost


@pytest.mark.parametrize("ofm", [1008, 1009])
def test_a_box_ends_with_the_bank_of_its_last_byte(ofm: int) -> None:
    records = _timing(plain_chip(), [_fill(ofm=ofm), _load(scratchpad=1024)])
    assert records[1]["stall_bank"] == ofm - 1008


def test_an_input_tile_counts_whole_whatever_the_window_reads_of_it() -> None:
    # one output pixel, at the tile's first byte; its second row is in bank 1
    matmul = _matmul(ifm_height=2, ifm_row_pitch=1024, ofm_height=8)
    store = isa.Store(memory=DATA, row_bytes=8, rows=1, planes=1, scratchpad=1024)
    assert _timing(plain_chip(), [matmul, store])[1]["stall_bank"] == 1


def test_of_two_units_that_start_together_the_vector_unit_is_slowed() -> None:
    # the matmul, taken in cycle 1, loads a row of weights; the copy is taken in cycle 2
    copy = isa.Copy(
        height=1, width=1, channels=16, ifm_row_pitch=16, ifm_pixel_pitch=16, ifm_channel_pitch=1,
        ofm=1024, ofm_row_pitch=16, ofm_pixel_pitch=16, ofm_channel_pitch=1,
    )  # fmt: skip
    matmul = _matmul(ofm_width=7, ifm_width=7, stationary=isa.Stationary.BUFFER)
    records = _timing(plain_chip(), [matmul, copy])
    assert [row["start"] for row in records[:2]] == [2, 2]
    assert [row["stall_bank"] for row in records[:2]] == [0, 4]
    assert records[0]["stall_preload"] == 1


@pytest.mark.parametrize(("first", "second"), [(5, 2), (2, 5)])
def test_the_cause_is_the_last_signal_and_the_highest_semaphore_of_equals(
    first: int, second: int
) -> None:
    # both loads begin at the same edge of a slow memory, on ports of their own
    slow = {"clock_mhz": Fraction(125, 2), "ports": 2}
    loads = [_load(channel=0, signal=1 << first), _load(channel=1, signal=1 << second)]
    records = _timing(plain_chip(data=slow), [*loads, _fill(wait=1 << first | 1 << second)])
    assert records[0]["retire"] == records[1]["retire"]
    assert records[2]["cause"] == records[2]["cause_queue"] == int(second > first)
    assert records[2]["stall_semaphore"] > 0


def test_the_cause_is_noted_though_nothing_was_lost_on_it() -> None:
    long = _load(800)
    records = _timing(plain_chip(), [_fill(signal=1), long, _load(wait=1)])
    assert records[2]["start"] == records[1]["end"] > records[0]["retire"]
    assert (records[2]["cause"], records[2]["stall_semaphore"]) == (0, 0)
    assert (records[1]["cause"], records[1]["cause_queue"]) == (-1, -1)


def test_a_halt_has_no_queue_and_no_stalls() -> None:
    halt = _timing(plain_chip(), [_load(800)])[1]
    times = dict.fromkeys(("dispatch", "taken", "start", "end", "retire"), 2) | {"arrive": 1}
    absent = dict.fromkeys(("queue", "cause", "cause_queue"), -1)
    assert halt == dict.fromkeys(halt, 0) | {"instruction": 1} | times | absent


@pytest.mark.parametrize(
    ("items", "stuck"),
    [
        ([_load(wait=1)], 0),
        ([_matmul(), _fill(wait=1), _load(wait=2)], 1),
        ([_fill(), _load(wait=1, channel=1), _fill(wait=2), _fill()], 1),
        ([_load(wait=1), *[_load()] * 9, _fill(signal=1)], 0),
    ],
    ids=["alone", "not the lowest queue", "not the first queue head", "full queue"],
)
def test_a_deadlock_names_the_first_instruction_never_taken(
    items: list[Instruction], stuck: int
) -> None:
    assert compare(program_of(plain_chip(), [items])) == stuck
    assert compare(program_of(plain_chip(), [[_load()], items])) == stuck + 2


def test_a_program_beyond_the_last_tick_is_refused() -> None:
    # 1 MHz beside 1.000001 MHz: an NPU cycle has 1,000,001 ticks. A fill takes 2^32 cycles, and the
    # third one cannot begin
    chip = plain_chip(
        array={"clock_mhz": Fraction(1)},
        program={"clock_mhz": Fraction(1)},
        data={"clock_mhz": Fraction(1000001, 1000000)},
    )
    side = 65535
    fill = isa.Fill(
        height=side, width=side, channels=16, ofm_row_pitch=16 * side, ofm_pixel_pitch=16
    )
    limit = (1 << 52) // 1000001
    with pytest.raises(CheckError, match=f"no more than {limit} cycles can be timed"):
        simulate_timing(program_of(chip, [[fill, fill, fill]]))
    trace = simulate_timing(program_of(chip, [[fill]]))
    assert side * side < trace.cycles < side * side + 100


def test_a_run_leaves_nothing_to_the_next() -> None:
    program = random_program(7, drams=1.0)
    cold = program.chip.derived(cold_memories)
    before = [array.copy() for array in cold[:-1]]
    first, second = simulate_timing(program), simulate_timing(program)
    assert first.records.tobytes() == second.records.tobytes()
    assert [memory.profile.tolist() for memory in first.memories] == [
        memory.profile.tolist() for memory in second.memories
    ]
    assert sum(memory.row_misses for memory in first.memories) > 0
    assert all(np.array_equal(old, new) for old, new in zip(before, cold[:-1], strict=True))


def test_every_actor_of_the_largest_chip_has_a_number() -> None:
    most_cores, most_memories, most_channels = 4, 8, 64
    actors = most_cores * (2 + queue_count(8, 8)) + most_memories * most_channels
    assert actors <= 1 << ACTOR_BITS


def test_signals_do_not_outlive_their_region() -> None:
    assert compare(program_of(plain_chip(), [[_fill(signal=1)], [_load(wait=1)]])) == 2


def test_a_flat_memory_begins_at_its_own_edges() -> None:
    # ticks of 1.5 GHz: an NPU cycle has 3, a memory cycle 5; 9 bytes hold the port ceil(9 x 5 / 7)
    slow = {"clock_mhz": Fraction(300), "bytes_per_cycle": Fraction(7), "read_latency_cycles": 2}
    records = _timing(plain_chip(data=slow), [_load(9), _load(9, channel=1)])
    assert records[0]["start"] == 1
    first = 10  # requested in cycle 3, at tick 9
    second = 20  # the port is free at tick 17
    assert records[0]["retire"] == -(-(first + 7 + 10) // 3)
    assert records[1]["retire"] == -(-(second + 7 + 10) // 3)


def test_the_limit_of_a_flat_memory_is_shared_by_all_who_read_it() -> None:
    both = {"reads_in_flight": 1, "ports": 4, "read_latency_cycles": 50}
    chip = plain_chip(program=both, control={"fetch_bytes": 128, "fetch_outstanding": 2})
    items = [_load(memory=PROGRAM), _fill(), _fill()]
    # the second group is read in cycles 51 to 102, the load, requested in 54, behind it
    assert _timing(chip, items)[0]["retire"] == 153


def test_rows_join_only_where_both_sides_continue() -> None:
    """A request ends at a run's end: the number of requests shows in the port cycles."""
    shape = {"row_bytes": 4, "rows": 4, "planes": 2}
    joined = {"row_stride": 4, "scratchpad_row_pitch": 4}
    for changed, requests in [
        (joined | {"plane_stride": 16, "scratchpad_plane_pitch": 16}, 1),
        (joined | {"plane_stride": 16, "scratchpad_plane_pitch": 20}, 2),
        (joined | {"row_stride": 5, "plane_stride": 20, "scratchpad_plane_pitch": 16}, 8),
        (joined | {"rows": 1, "row_stride": 9, "plane_stride": 4, "scratchpad_plane_pitch": 4}, 1),
    ]:
        chip = plain_chip(scratchpad={"port_bytes": 64}, dma={"outstanding": 64})
        row = _timing(chip, [_load(**(shape | changed))])[0]
        assert row["end"] - row["start"] - 2 == requests


def test_a_unit_starts_one_instruction_and_takes_the_next_in_one_cycle() -> None:
    # a pass of 6 pixels: issue 0, so its last pass begins as it starts
    matmul = _matmul(ofm_width=6, ifm_width=6, stationary=isa.Stationary.BUFFER)
    records = _timing(plain_chip(), [matmul, matmul, matmul])
    assert [row["start"] for row in records[:3]] == [2, 8, 14]
    assert [row["stall_preload"] for row in records[:3]] == [1, 0, 0]
