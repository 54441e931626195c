"""The estimate against the simulation, and its parts against closed forms."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchmarks.estimate import Pair, agreement, compare
from lepton.chip import load_chip
from lepton.cost.columns import W_MEMORY, W_READS
from lepton.cost.estimate import estimate_program
from lepton.cost.service import memory_rows, service
from lepton.cost.work import work_of
from lepton.errors import CheckError
from lepton.isa.footprints import Space, ends, footprints
from lepton.program import Program
from lepton.report.estimated import estimated_layers
from lepton.simulator import simulate_timing
from tests.programs import hand_program
from tests.random_layers import random_program

SEEDS = range(60)
"""Every kind of layer on every preset, twice."""
MEDIAN, P95, RANK = 0.03, 0.10, 0.98


@cache
def pairs() -> tuple[Pair, ...]:
    return tuple(compare(str(seed), *random_program(seed)) for seed in SEEDS)


def test_the_estimate_is_as_close_as_promised() -> None:
    found = agreement(pairs())
    assert found.median <= MEDIAN
    assert found.p95 <= P95
    assert found.spearman >= RANK


def test_agreement_of_known_pairs() -> None:
    made = [Pair("", "", "", 1, s, e, 0, 0) for s, e in ((100, 100), (200, 210), (300, 205))]
    found = agreement(made)
    assert found.median == pytest.approx(0.05)
    assert found.largest == pytest.approx(95 / 300)
    assert found.spearman == pytest.approx(0.5)
    assert found.kendall == pytest.approx(1 / 3)


def reference_masks(program: Program) -> np.ndarray:
    """Return the banks' masks from the boxes that each instruction touches."""
    table, chip = program.table, program.chip
    boxes = footprints(table)
    masks = np.zeros((len(table), 4), np.int64)
    sizes = {Space.SCRATCHPAD: chip.scratchpad.bank_bytes}
    sizes[Space.ACCUMULATORS] = chip.accumulators.bank_elements
    for box, end in zip(boxes, ends(boxes), strict=True):
        if box[1] in sizes:
            size = sizes[Space(box[1])]
            low, high = box[3] // size, (end - 1) // size
            masks[box[0], 2 * box[1] + box[2]] |= (1 << (high + 1)) - (1 << low)
    return masks


@pytest.mark.parametrize("seed", [0, 8, 11, 14, 22, 23])
def test_bank_masks_are_those_of_the_footprints(seed: int) -> None:
    _, program = random_program(seed)
    masks = work_of(program.table, program.chip)[:, W_READS:W_MEMORY]
    np.testing.assert_array_equal(masks, reference_masks(program))


def test_layers_add_up_to_the_estimate() -> None:
    _, program = random_program(6)
    found = estimate_program(program)
    assert estimated_layers(program, found).sum() == found.cycles
    assert found.regions == ((0, found.cycles),)


def service_of(chip_name: str, *walk: int) -> tuple[float, float, float]:
    """Return requests, port cycles and service cycles of a transfer."""
    chip = load_chip(chip_name)
    out = np.zeros((1, 3))
    walks = np.array([[*walk, 0, 0, 0, 0]], np.int64)
    service(memory_rows(chip), chip.scratchpad.port_bytes, walks, out)
    return out[0, 0], out[0, 1], out[0, 2]


def test_a_stream_of_a_flat_memory_takes_bytes_per_bandwidth() -> None:
    # nano's SRAM: bursts of 32 bytes, 8 bytes per cycle, ports of 16 bytes
    assert service_of("nano", 0, 0, 4096, 1, 0, 1, 0) == (128, 256, 512)


def test_a_stream_of_a_dram_takes_bytes_per_bandwidth() -> None:
    # edge: 128 bytes in 8 cycles of 1.6 GHz are 5 of the NPU, ports of 32 bytes
    assert service_of("edge", 0, 0, 4096, 1, 0, 1, 0) == (32, 128, pytest.approx(160))


def test_runs_that_cross_bursts_take_two_requests() -> None:
    # 16 bytes at offset 24 of bursts of 32, again and again
    assert service_of("nano", 0, 24, 16, 10, 32, 1, 0) == (20, 20, 20)


def test_rows_of_one_bank_wait_for_each_other() -> None:
    # edge: 8 KiB rows of 8 banks, so 64 KiB lead to the same bank: tRAS + tRP = 97 cycles
    found = service_of("edge", 0, 0, 128, 16, 8 * 8192, 1, 0)
    assert found[2] == pytest.approx(16 * 97 / 1.6)


def test_one_long_load_is_exact_within_its_latency() -> None:
    text = "load memory=0 scratchpad=0x0 row_bytes=0x10000 rows=0x1 planes=0x1\nhalt"
    program = hand_program(text)
    simulated, found = simulate_timing(program).cycles, estimate_program(program).cycles
    assert abs(found - simulated) <= 40


def test_a_faster_memory_never_takes_longer() -> None:
    _, program = random_program(3)
    chip = program.chip
    quick = tuple(replace(memory, clock_mhz=2 * memory.clock_mhz) for memory in chip.memories)
    faster = replace(program, chip=replace(chip, memories=quick))
    assert estimate_program(faster).cycles <= estimate_program(program).cycles


def test_a_deadlock_is_an_error() -> None:
    program = hand_program("fill height=1 width=1 channels=1 wait=0x1\nhalt")
    with pytest.raises(CheckError, match="instruction 0: deadlock"):
        estimate_program(program)
