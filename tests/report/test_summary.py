"""The figures of the JSON contract, their sums, and the terminal's table."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from lepton.chip import load_chip
from lepton.errors import CheckError
from lepton.listing import parse_listing
from lepton.program import Program
from lepton.report.names import shorten, size_text, tidy_names
from lepton.report.occupancy import occupancy, touched_bytes
from lepton.report.summary import summarize
from lepton.report.table import layer_table
from lepton.trace import Trace

Run = tuple[Program, Trace]

CONTRACT = {
    "model", "chip", "cycles", "milliseconds", "host_milliseconds", "macs", "effective_macs",
    "mac_utilization", "macs_on_npu", "dram_read_bytes", "dram_write_bytes", "weight_bytes_raw",
    "weight_bytes_stored", "scratchpad_peak_bytes", "energy_joules", "instructions",
    "program_bytes", "bound_cycles", "roofline_cycles", "compile_seconds", "simulate_seconds",
    "layers",
}  # fmt: skip
LAYER_CONTRACT = {
    "name", "op", "device", "cycles", "macs", "mac_utilization", "bound", "stalls",
}  # fmt: skip


def test_json_has_the_contract_and_plain_types(run: Run) -> None:
    made = json.loads(json.dumps(summarize(*run, compile_seconds=1.5).to_json()))
    assert set(made) >= CONTRACT
    assert made["compile_seconds"] == 1.5
    assert made["layers"]
    for layer in made["layers"]:
        assert set(layer) >= LAYER_CONTRACT


def test_json_without_a_trace_has_the_same_keys(digits: Run) -> None:
    without = summarize(digits[0]).to_json()
    assert set(without) == set(summarize(*digits).to_json())
    assert without["cycles"] is None
    assert without["bound_cycles"] == summarize(*digits).bound_cycles


def test_layers_add_up(run: Run) -> None:
    program, trace = run
    made = summarize(program, trace)
    assert sum(layer.cycles or 0 for layer in made.layers) == trace.cycles == made.cycles
    for layer in made.layers:
        causes = [*layer.stalls.values(), *layer.busy.values()]
        assert layer.cycles == sum(causes)
        assert all(count > 0 for count in causes)
        assert layer.mac_utilization is not None
        assert 0 <= layer.mac_utilization <= 1
    assert made.roofline_cycles == sum(layer.roofline_cycles for layer in made.layers)


def test_layers_and_program_move_what_the_memories_counted(run: Run) -> None:
    made = summarize(*run)
    assert made.dram_read_bytes is not None
    assert made.dram_write_bytes is not None
    moved = sum(sum(layer.dram_bytes) for layer in made.layers)
    assert moved + made.program_bytes == made.dram_read_bytes + made.dram_write_bytes


def test_stored_weights_of_the_layers_add_up(run: Run) -> None:
    made = summarize(*run)
    assert sum(layer.stored_bytes for layer in made.layers) == made.weight_bytes_stored


def test_nothing_is_faster_than_the_bound(run: Run) -> None:
    made = summarize(*run)
    assert made.cycles is not None
    assert 0 < made.bound_cycles <= made.cycles


def test_figures_of_a_network_with_host_regions(digits: Run) -> None:
    program, trace = digits
    made = summarize(program, trace)
    assert made.macs == sum(operator.macs for operator in program.operators)
    assert made.macs_on_npu == 1.0
    assert made.host_milliseconds is None
    assert summarize(program, trace, host_milliseconds=0.5).host_milliseconds == 0.5
    assert 0.9 * made.weight_bytes_raw < made.weight_bytes_stored < made.weight_bytes_raw
    assert [layer.bound for layer in made.layers if layer.device == "host"] == ["host", "host"]
    assert made.milliseconds == pytest.approx(trace.cycles / 500_000)
    # flash holds constants and program: 1 byte per cycle
    stored = sum(operator.stored_bytes for operator in program.operators)
    assert made.bound_cycles == stored + len(program.stream)


def test_hand_written_program(assembly: Run) -> None:
    made = summarize(*assembly)
    assert made.host_milliseconds == 0.0
    assert made.scratchpad_peak_bytes == 256 + 1024
    assert "transfer" in made.layers[0].busy


def test_occupancy_by_hand(assembly: Run) -> None:
    program, trace = assembly
    held = occupancy(program, trace)
    rows = trace.records
    assert touched_bytes(program) == 1280
    assert sorted(zip(held.low.tolist(), held.high.tolist(), strict=True)) == [
        (0, 256),
        (0x4000, 0x4400),
    ]
    first = held.low.tolist().index(0)
    assert held.start[first] == rows["start"][0]
    assert held.end[first] == rows["retire"][1]
    assert held.live_bytes()[1][-1] == 0


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_touched_bytes_are_those_of_plain_loops(rows: int) -> None:
    text = f"fill height={rows} width=5 channels=3 ofm=0x40 ofm_row_pitch=31 ofm_pixel_pitch=4\n"
    text += "fill height=2 width=2 channels=2 ofm=0x42 ofm_row_pitch=7 ofm_pixel_pitch=3\nhalt"
    touched = {0x40 + 31 * y + 4 * x + c for y in range(rows) for x in range(5) for c in range(3)}
    touched |= {0x42 + 7 * y + 3 * x + c for y in range(2) for x in range(2) for c in range(2)}
    assert touched_bytes(parse_listing(text, load_chip("edge"))) == len(touched)


def test_touched_bytes_take_no_more_room_than_the_scratchpad() -> None:
    program = parse_listing("fill height=1 width=1 channels=1\nhalt", load_chip("server"))
    tracemalloc.start()
    assert touched_bytes(program) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * program.chip.scratchpad.size_bytes


def test_bytes_beyond_the_scratchpad_are_refused() -> None:
    chip = load_chip("edge")
    at = chip.scratchpad.size_bytes - 1
    text = "fill height=1 width=1 channels={} ofm={}\nhalt"
    assert touched_bytes(parse_listing(text.format(1, at), chip)) == 1
    with pytest.raises(CheckError, match="reaches beyond the scratchpad"):
        touched_bytes(parse_listing(text.format(2, at), chip))


def test_live_bytes_never_exceed_what_is_touched(digits: Run) -> None:
    held = occupancy(*digits)
    assert 0 < held.peak_bytes <= touched_bytes(digits[0])
    assert (held.high > held.low).all()
    assert (held.end >= held.start).all()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_table_keeps_its_width_and_totals(digits: Run, width: int) -> None:
    lines = layer_table(summarize(*digits), width).splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith("#"))
    body = lines[start:]
    assert max(len(line) for line in body) <= width
    assert "cycles" in body[1]
    assert f"{digits[1].cycles:,}" in body[-1]
    assert len(body) == 5 + len(summarize(*digits).layers)


def test_table_without_a_trace(digits: Run) -> None:
    assert "15 layers" in layer_table(summarize(digits[0]), 120)


@pytest.mark.parametrize(
    ("name", "width", "made"),
    [
        ("block/conv", 20, "block/conv"),
        ("expanded_conv_1/project/batch_norm/FusedBatchNormV3", 26, "expanded_conv_1/project"),
        ("expanded_conv_12/depthwise", 12, "…2/depthwise"),
    ],
)
def test_shorten(name: str, width: int, made: str) -> None:
    assert shorten(name, width) == made


def test_tidy_names_drop_the_common_root_and_fused_tails() -> None:
    assert tidy_names(["net/a/Relu;net/a/conv", "net/b", "out"]) == ["a/Relu", "b", "out"]
    assert tidy_names(["a\nb"]) == ["a b"]


def test_size_text() -> None:
    assert size_text(12) == "12 B"
    assert size_text(2048) == "2.0 KiB"
