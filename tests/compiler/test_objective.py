"""What a compilation minimizes, and who measures it."""

from __future__ import annotations

import dataclasses
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import lepton
from lepton.chip import Dataflow, load_chip
from lepton.codec import Decoder, decode_weights, encode_weights
from lepton.compiler.compile import compile_explained, compile_model
from lepton.compiler.conversation import Listening
from lepton.compiler.isolate import compile_file
from lepton.compiler.options import CompileOptions
from lepton.compiler.stored import coding_preference
from lepton.cost.energy import MEMORY_EVENTS
from lepton.cost.energy_estimate import estimate_energy
from lepton.cost.estimate import estimate_program
from lepton.errors import CompileError, InputError
from lepton.isa import COLUMNS
from lepton.isa.addresses import scratchpad_fields
from lepton.models import digits_model_path
from lepton.program import Objective, Program, load_program
from lepton.report.energy import energy_of
from lepton.report.summary import summarize
from lepton.runtime.execute import simulate
from lepton.runtime.golden import random_inputs
from lepton.simulator import check, simulate_timing
from tests.conftest import data_path

DIGITS = digits_model_path()
NANO = load_chip("nano")
OBJECTIVES = tuple(Objective)
MODELS = {
    "kws": "mlperf_tiny/kws_ref_model.tflite",
    "resnet8": "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mobilenet_v2": "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
}


@cache
def compiled(path: Path, chip: str, objective: Objective, effort: int = 1) -> Program:
    """Return a program, saved and loaded."""
    options = CompileOptions(optimize=objective, effort=effort)
    made = compile_model(path, load_chip(chip), options)
    return load_program(made.to_bytes())


def joules(program: Program) -> float:
    """Return the energy of a simulated run."""
    return energy_of(program, simulate_timing(program)).joules


def stored_bytes(program: Program) -> int:
    """Return the bytes that the chip's memory holds: instructions and constants."""
    return len(program.stream) + len(program.constants)


def compare(path: Path, chip: str, effort: int = 1) -> None:
    """Check that each program is the best by what it was made for, and that all compute alike."""
    programs = {each: compiled(path, chip, each, effort) for each in OBJECTIVES}
    fastest, thriftiest, smallest = programs.values()
    assert joules(thriftiest) <= joules(fastest)
    sizes = [stored_bytes(program) for program in programs.values()]
    assert sizes[2] <= min(sizes)
    assert estimate_program(fastest).cycles <= estimate_program(smallest).cycles
    inputs = random_inputs(fastest, 3)
    expected = simulate(fastest, inputs, timing=False).outputs
    for program in (thriftiest, smallest):
        check(program)
        found = simulate(program, inputs, timing=False, checked=True).outputs
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("chip", ["edge", "nano", "server"])
def test_the_digits_network_is_best_by_what_is_minimized(chip: str) -> None:
    compare(DIGITS, chip)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["edge", "like-u55-256"])
@pytest.mark.parametrize("name", MODELS)
def test_real_networks_are_best_by_what_is_minimized(name: str, chip: str) -> None:
    # with copies of weights MobileNetV2 takes a minute on like-u55-256: benchmarks/objectives.py
    effort = 0 if (name, chip) == ("mobilenet_v2", "like-u55-256") else 1
    compare(data_path(MODELS[name]), chip, effort)


def test_each_objective_makes_another_program_and_says_so() -> None:
    programs = [compiled(DIGITS, "edge", each) for each in OBJECTIVES]
    assert [program.objective for program in programs] == list(OBJECTIVES)
    assert len({program.instructions for program in programs}) == 3
    assert summarize(programs[1]).to_json()["objective"] == "energy"
    assert programs[0].to_bytes() == compiled.__wrapped__(DIGITS, "edge", OBJECTIVES[0]).to_bytes()


@pytest.mark.parametrize("name", ["edge", "like-u85-1024"])
def test_several_cores_are_best_by_what_is_minimized(name: str) -> None:
    chip = dataclasses.replace(load_chip(name), cores=2)
    programs = [compile_model(DIGITS, chip, CompileOptions(optimize=each)) for each in OBJECTIVES]
    inputs = random_inputs(programs[0], 3)
    for program in programs:
        check(program)
        found = simulate(program, inputs, timing=False).outputs
        for key, value in simulate(compiled(DIGITS, name, OBJECTIVES[0]), inputs).outputs.items():
            np.testing.assert_array_equal(found[key], value)
        assert estimate_energy(program) == pytest.approx(joules(program), rel=0.05)
    assert joules(programs[1]) < joules(programs[0])
    assert stored_bytes(programs[2]) < stored_bytes(programs[0])


def test_costs_of_plans_are_in_the_objectives_unit() -> None:
    units: list[set[str]] = []
    for each in OBJECTIVES:
        made = compile_explained(DIGITS, NANO, CompileOptions(optimize=each, explain=True))
        units.append({item.unit for item in made.schedules})
    assert units == [{"cycles"}, {"pJ"}, {"bytes"}]


def test_an_objective_that_does_not_exist() -> None:
    with pytest.raises(
        InputError, match=r"^optimize must be one of latency, energy, size, not 'speed'$"
    ):
        lepton.compile(DIGITS, "nano", optimize="speed")


def test_a_chip_without_an_energy_table_for_its_array() -> None:
    array = dataclasses.replace(NANO.array, dataflow=Dataflow.OUTPUT_STATIONARY)
    chip = dataclasses.replace(NANO, name="turned", array=array)
    with pytest.raises(CompileError, match=r"^chip 'turned' has no energy table for its array: "):
        lepton.compile(DIGITS, chip, optimize="energy")
    assert lepton.compile(DIGITS, chip, optimize="size").objective == Objective.SIZE


# --- the stored form of weights ------------------------------------------------------------------


def block() -> np.ndarray:
    """Return weights of which nine in ten are 0."""
    rng = np.random.default_rng(5)
    drawn = np.where(rng.random((64, 64)) < 0.1, rng.integers(-127, 128, (64, 64)), 0)
    return drawn.astype(np.int8).view(np.uint8)


def test_the_smallest_form_is_stored_even_if_it_comes_later() -> None:
    # a decoder with one slow lane behind a memory that gives a raw byte sooner
    buffer = dataclasses.replace(NANO.weight_buffer, entropy_lanes=1)
    chip = dataclasses.replace(load_chip("edge"), weight_buffer=buffer)
    decoder = Decoder.of(chip)
    sizes: dict[Objective, int] = {}
    for each in OBJECTIVES:
        stream = encode_weights(block(), decoder, coding_preference(chip, each))
        sizes[each] = stream.content.size
        np.testing.assert_array_equal(decode_weights(stream, block().size), block().reshape(-1))
    assert sizes[Objective.SIZE] < sizes[Objective.LATENCY]
    assert sizes[Objective.SIZE] <= sizes[Objective.ENERGY] <= sizes[Objective.LATENCY]


# --- energy without a simulation -----------------------------------------------------------------


@pytest.mark.parametrize("chip", ["edge", "nano", "server", "like-u55-256", "like-u85-1024"])
def test_estimated_energy_is_close_to_the_simulated(chip: str) -> None:
    program = compiled(DIGITS, chip, Objective.LATENCY)
    trace = simulate_timing(program)
    simulated = energy_of(program, trace).joules
    assert estimate_energy(program) == pytest.approx(simulated, rel=0.05)
    if not any(hasattr(memory, "banks_per_group") for memory in program.chip.memories):
        # the bytes of flat memories are exact
        assert estimate_energy(program, trace.cycles) == pytest.approx(simulated, rel=1e-9)


def test_energy_grows_with_idle_cycles_by_what_leaks() -> None:
    program = compiled(DIGITS, "edge", Objective.LATENCY)
    once, later = (estimate_energy(program, cycles) for cycles in (1000, 3000))
    energy = energy_of(program, simulate_timing(program))
    idle = energy.components["leakage"] + energy.components["memory_standby"]
    assert (later - once) / 2000 == pytest.approx(idle / simulate_timing(program).cycles)
    # every 3.9 us a refresh
    before, after = (estimate_energy(program, cycles) for cycles in (3000, 5000))
    refresh_pj = energy.memory_pj[0, MEMORY_EVENTS.index("refresh")]
    assert after - before - (later - once) == pytest.approx(refresh_pj * 1e-12)


# --- measured by the caller ----------------------------------------------------------------------


class Measured:
    """Counts the programs that it is asked about."""

    def __init__(self) -> None:
        self.cycles: list[int] = []

    def __call__(self, program: Program) -> float:
        self.cycles.append(simulate_timing(program).cycles)
        return self.cycles[-1]


@pytest.mark.parametrize("in_child", [False, True])
def test_finalists_are_measured_by_the_caller(in_child: bool) -> None:
    measured, shares = Measured(), list[float]()
    options = CompileOptions(effort=1, evaluate=measured, progress=shares.append)
    program = (compile_file if in_child else compile_model)(DIGITS, NANO, options)
    assert len(measured.cycles) > 1
    assert simulate_timing(program).cycles == min(measured.cycles) <= measured.cycles[0]
    assert shares == sorted(shares) and 0.0 <= shares[0] < shares[-1] <= 1.0


def test_the_measure_decides_not_the_estimate() -> None:
    plain = compile_model(DIGITS, NANO, CompileOptions(effort=0))
    # what was compiled first is the best there is, says the caller
    first: list[int] = []

    def evaluate(program: Program) -> float:
        first.append(len(first))
        return float(first[-1])

    made = compile_model(DIGITS, NANO, CompileOptions(effort=1, evaluate=evaluate))
    assert _without_places(made).tolist() == _without_places(plain).tolist() and len(first) > 1


def _without_places(program: Program) -> NDArray[np.int64]:
    """Return a program's instructions without addresses in the scratchpad and semaphores."""
    table = program.table.copy()
    number, column = scratchpad_fields(table).T
    table[number, column] = 0
    table[:, [COLUMNS["wait"], COLUMNS["signal"]]] = 0
    return table


def test_a_measure_that_fails_ends_the_compilation() -> None:
    def evaluate(program: Program) -> float:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        lepton.compile(DIGITS, "nano", evaluate=evaluate)


def test_the_measure_of_energy_is_in_joules() -> None:
    found = lepton.compile(DIGITS, "nano", optimize="energy", evaluate=joules)
    assert joules(found) <= joules(compiled(DIGITS, "nano", Objective.LATENCY))


def test_what_is_no_message_ends_the_conversation(tmp_path: Path) -> None:
    with Listening(CompileOptions(), tmp_path) as listening:
        os.write(listening.pipes[0], b"[1]\n")
        with pytest.raises(CompileError, match="sends what is no message"):
            listening.until_closed(5.0)


def test_a_child_that_says_nothing_has_its_time(tmp_path: Path) -> None:
    shares: list[float] = []
    with Listening(CompileOptions(progress=shares.append), tmp_path) as listening:
        os.write(listening.pipes[0], b'{"progress": 0.25}\n{"progress": 7}\n{"half')
        assert listening.until_closed(0.05) <= 0.0
        listening.began()
        assert listening.until_closed(5.0) > 4.0
    assert shares == [0.25, 1.0]
