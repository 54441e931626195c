"""Reports of runs on several cores: what must not be taken for that of one."""

from __future__ import annotations

import dataclasses

import pytest

from lepton.chip import Chip, load_chip
from lepton.errors import ProgramError
from lepton.listing import parse_listing
from lepton.program import Program
from lepton.report.attribution import attribute
from lepton.report.critical_path import critical_path
from lepton.report.occupancy import occupancy, touched_bytes
from lepton.report.plot_scratchpad import scratchpad
from lepton.report.summary import summarize
from lepton.report.trace_file import load_trace, trace_bytes
from lepton.simulator import check, simulate_timing

FILL = "fill height={0} width=1 channels=16 ofm_row_pitch=16 ofm_pixel_pitch=16"
SUM = (
    "depthwise ifm_height=8 ifm_width=8 channels=8 ifm_pixel_pitch=8 ifm_row_pitch=64 "
    "kernel_height=3 kernel_width=3 stride_y=1 stride_x=1 dilation_y=1 dilation_x=1 ofm_height=6 "
    "ofm_width=6 multiplier=1 accumulator_pitch=8 stationary=ones"
)


def _chip(cores: int) -> Chip:
    return dataclasses.replace(load_chip("nano"), cores=cores)


def _program(*cores: str) -> Program:
    """Return the program of a stream for each core, checked."""
    text = "".join(f".operator {k}\n{stream}\nhalt\n" for k, stream in enumerate(cores))
    program = parse_listing(text, _chip(len(cores)))
    check(program)
    return program


def test_the_scratchpad_is_that_of_the_core_that_needs_most() -> None:
    program = _program(FILL.format(2), FILL.format(9), FILL.format(3))
    trace = simulate_timing(program)
    summary = summarize(program, trace)
    assert touched_bytes(program) == summary.scratchpad_peak_bytes == 9 * 16
    assert summary.scratchpad_live_bytes == 9 * 16
    assert [occupancy(program, trace, core).peak_bytes for core in range(3)] == [32, 144, 48]
    made = scratchpad(program, trace)
    assert made.title.startswith("Scratchpad of core 1:")
    assert "0.1 KiB live at once" in made.caption


def test_layers_of_cores_that_compute_at_a_time_share_the_cycles() -> None:
    # each core a layer of its own; two have an array at work, all three a vector unit
    ordered = f"{FILL.format(32)} signal=1\n{SUM} wait=1"
    program = _program(ordered, ordered, FILL.format(60))
    trace = simulate_timing(program)
    spent = attribute(trace, len(program.operators))
    assert spent.table.sum() == trace.cycles
    shared = [dict(zip(spent.causes, row, strict=True)) for row in spent.table.tolist()]
    begin, end = trace.records["start"], trace.records["end"]
    both = min(end[1], end[4]) - max(begin[1], begin[4])
    assert both > 0
    assert sum(row["matrix"] for row in shared) == sum((end - begin)[[1, 4]]) - both
    assert abs(shared[0]["matrix"] - shared[1]["matrix"]) <= abs(begin[1] - begin[4])
    for causes in trace.attribution().values():
        assert sum(causes.values()) == trace.cycles


def test_what_bounds_next_is_another_unit_than_the_same_one_of_another_core() -> None:
    layer = f"{FILL.format(200)} signal=1\n{SUM} wait=1"
    text = f".operator 0\n{layer}\nhalt\n{layer}\nhalt\n"
    program = parse_listing(text, _chip(2))
    (made,) = summarize(program, simulate_timing(program)).layers
    path = made.critical_path
    assert max(path, key=lambda cause: path[cause]) in ("0.vector", "1.vector")
    assert made.next_bound in ("0.matrix", "1.matrix")


def test_a_trace_of_a_region_without_all_streams_is_refused() -> None:
    program = _program(FILL.format(1), FILL.format(1))
    trace = simulate_timing(program)
    one = dataclasses.replace(program, chip=_chip(3))
    with pytest.raises(ProgramError, match=r"2 streams .* of 3 cores"):
        critical_path(one, trace)
    queues = tuple(f"{core}.{name[2:]}" for core in range(3) for name in trace.queues[:5])
    with pytest.raises(ProgramError, match="2 streams"):
        load_trace(trace_bytes(one, dataclasses.replace(trace, queues=queues)))
