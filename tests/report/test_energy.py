"""Energy of runs: sums, reconciliation, scaling, and what DRAM activations cost."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from lepton.chip import Chip, load_chip
from lepton.cost.action_names import Action
from lepton.cost.energy import COMPONENTS, MEMORY_EVENTS
from lepton.errors import LeptonError
from lepton.listing import parse_listing
from lepton.program import Program
from lepton.report.energy import Energy, apportion, energy_of, reconcile
from lepton.report.plot_energy import COMPONENT_COLOURS
from lepton.report.summary import summarize
from lepton.runtime.retarget import retarget
from lepton.simulator import simulate_timing
from lepton.trace import Trace

Run = tuple[Program, Trace]


def assembled(body: str, chip: str = "edge") -> Run:
    program = parse_listing(f".chip {chip}\n.operator 0\n{body}\nhalt\n")
    return program, simulate_timing(program)


def matmuls(count: int) -> str:
    one = (
        "matmul ifm_row_pitch=640 ifm_pixel_pitch=64 ifm_height=10 ifm_width=10 channels=64 "
        "kernel_height=1 kernel_width=1 stride_y=1 stride_x=1 dilation_y=1 dilation_x=1 "
        "ofm_height=10 ofm_width=10 columns=40 accumulator_pitch=40 stationary=ones"
    )
    return "\n".join([one] * count)


def loads(stride: int, count: int = 64) -> str:
    """Return loads of 128 bytes, `stride` apart."""
    return f"load row_bytes=128 rows={count} planes=1 row_stride={stride} scratchpad_row_pitch=128"


def test_layers_and_components_add_up_to_the_total(run: Run) -> None:
    made = summarize(*run)
    assert made.energy_joules is not None
    assert made.energy_joules > 0
    by_layer = sum(layer.energy_joules or 0.0 for layer in made.layers)
    assert by_layer == pytest.approx(made.energy_joules, rel=1e-12)
    assert sum(made.energy.values()) == pytest.approx(made.energy_joules, rel=1e-12)
    for name in COMPONENTS:
        parts = sum(layer.energy.get(name, 0.0) for layer in made.layers)
        assert parts == pytest.approx(made.energy[name], rel=1e-12, abs=1e-30)


def test_counts_add_up_to_the_trace_exactly(run: Run) -> None:
    program, trace = run
    energy = energy_of(program, trace)
    events = energy.memory_events.sum(axis=0)
    for index, memory in enumerate(trace.memories):
        found = dict(zip(MEMORY_EVENTS, events[index].tolist(), strict=True))
        assert found["activate"] == memory.activates
        assert found["refresh"] == memory.refreshes
        assert found["cycle"] == trace.cycles
        if memory.row_misses:
            assert found["write"] == memory.write_commands
            assert found["read"] + found["write"] == memory.row_hits + memory.row_misses
        else:
            assert (found["read"], found["write"]) == (memory.read_bytes, memory.write_bytes)
    assert energy.actions[:, Action.NPU_CYCLE].sum() == trace.cycles


def test_macs_of_the_array_are_those_of_the_model(digits: Run) -> None:
    program, trace = digits
    energy = energy_of(program, trace)
    for index, operator in enumerate(program.operators):
        if operator.device == "npu" and operator.macs:
            assert energy.actions[index, Action.MAC] == operator.macs


def test_api_and_summary_agree(digits: Run) -> None:
    from lepton.api import RunResult

    result = RunResult(digits[0], {}, digits[1])
    assert result.energy is not None
    assert result.energy.joules == summarize(*digits).energy_joules
    assert RunResult(digits[0], {}, None).energy is None


def test_without_a_trace_there_is_area_but_no_energy(digits: Run) -> None:
    made = summarize(digits[0])
    assert made.energy_joules is None
    assert made.area_mm2 > 0


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (Action.LOAD_BYTE, "scratchpad bytes written"),
        (Action.WEIGHT_BUFFER_WRITE, "weight buffer bytes written"),
        (Action.NPU_CYCLE, "cycles"),
        (Action.INSTRUCTION, "instructions"),
    ],
)
def test_a_missing_action_is_found(digits: Run, column: Action, text: str) -> None:
    energy = energy_of(*digits)
    actions = energy.actions.copy()
    actions[0, column] -= 1
    wrong = dataclasses.replace(energy, actions=actions)
    with pytest.raises(LeptonError, match=f"energy: {text}: .* counted, but the run has"):
        reconcile(*digits, wrong)


@pytest.mark.parametrize("field", ["read_bytes", "write_bytes", "activates", "refreshes"])
def test_counters_that_fit_no_program_are_refused(field: str) -> None:
    program, trace = assembled(loads(128))
    energy = energy_of(program, trace)
    (memory,) = trace.memories
    other = dataclasses.replace(memory, **{field: getattr(memory, field) + 1})
    with pytest.raises(LeptonError, match=re.escape("energy: dram ")):
        reconcile(program, dataclasses.replace(trace, memories=(other,)), energy)


def test_dynamic_energy_grows_with_work_in_proportion() -> None:
    once, twice = (energy_of(*assembled(matmuls(count))) for count in (2, 4))
    for name in ("array", "accumulators"):
        assert twice.components[name] == pytest.approx(2 * once.components[name], rel=1e-12)
    assert once.components["scratchpad"] == pytest.approx(twice.components["scratchpad"] / 2)


def test_leakage_grows_with_time_only() -> None:
    for body in (matmuls(1), loads(128), loads(1 << 16)):
        program, trace = assembled(body)
        energy = energy_of(program, trace)
        per_cycle = energy.components["leakage"] / trace.cycles
        assert per_cycle == pytest.approx(11.24e-12, rel=0.01)  # edge: 11.2 mW at 1 GHz


def test_scattered_rows_cost_more_than_a_stream() -> None:
    stream, scattered = (energy_of(*assembled(loads(stride))) for stride in (128, 1 << 16))
    counts = [int(e.memory_events[:, 0, 0].sum()) for e in (stream, scattered)]
    assert counts[1] > 8 * counts[0]
    difference = scattered.components["memory"] - stream.components["memory"]
    refreshes = scattered.memory_events[:, 0, 3].sum() - stream.memory_events[:, 0, 3].sum()
    activation = difference - refreshes * scattered.memory_pj[0, 3] * 1e-12
    expected = (counts[1] - counts[0]) * scattered.memory_pj[0, 0] * 1e-12
    assert activation == pytest.approx(expected, rel=1e-9)


def on_node(chip: Chip, node: str) -> Chip:
    return dataclasses.replace(chip, technology=dataclasses.replace(chip.technology, node=node))


def test_another_node_changes_energy_but_no_cycle(digits: Run) -> None:
    program, trace = digits
    smaller = retarget(program, on_node(program.chip, "7nm"))
    again = simulate_timing(smaller)
    assert np.array_equal(again.records, trace.records)
    before, after = energy_of(program, trace), energy_of(smaller, again)
    assert after.joules < before.joules
    assert np.array_equal(after.actions, before.actions)


def test_a_run_of_nothing_costs_nothing(assembly: Run) -> None:
    program, trace = assembly
    empty = dataclasses.replace(
        program, instructions=b"", operator_of=np.zeros(0, np.uint32), regions=()
    )
    names = ("read_bytes", "write_bytes", "row_hits", "row_misses", "activates", "refreshes")
    none = dict.fromkeys((*names, "write_commands"), 0)
    memories = tuple(dataclasses.replace(memory, **none) for memory in trace.memories)
    nothing = dataclasses.replace(
        trace, records=trace.records[:0], cycles=0, regions=(), memories=memories
    )
    assert energy_of(empty, nothing).joules == 0


def test_halt_belongs_to_the_operator_before_it() -> None:
    program, trace = assembled(matmuls(1))
    energy: Energy = energy_of(program, trace)
    assert energy.actions[0, Action.INSTRUCTION] == 2


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [(10, [1, 1, 2], [2, 3, 5]), (7, [0, 0], [0, 7]), (3, [5, 0, 5], [1, 0, 2]), (0, [1], [0])],
)
def test_apportion_by_hand(total: int, weights: list[int], shares: list[int]) -> None:
    assert apportion(total, np.array(weights)).tolist() == shares


def test_every_component_has_a_colour() -> None:
    assert tuple(COMPONENT_COLOURS) == COMPONENTS
    assert len(set(COMPONENT_COLOURS.values())) == len(COMPONENTS)


def test_command_line_shows_energy_and_area(capsys: pytest.CaptureFixture[str]) -> None:
    from lepton.cli.main import main

    assert main(["chips", "edge"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"peak [\d.]+ TOPS/W without external memory, at 16nm", printed)
    assert re.search(r"area [\d.]+ mm2: array", printed)


def test_node_of_the_default_chip_is_published() -> None:
    assert load_chip("server").technology.node == "7nm"
