"""Counts of actions against plain loops, and energies against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lepton.chip import Chip, load_chip
from lepton.cost.action_names import Action
from lepton.cost.actions import action_counts
from lepton.isa import Instruction, records
from lepton.isa.declaration import REGISTRY
from lepton.isa.instructions import Matmul, Stationary
from tests.naive_energy import naive_actions
from tests.simulator.instruction_cases import random_case


def small_chip(rows: int, columns: int, count: int) -> Chip:
    chip = load_chip("nano")
    return replace(chip, array=replace(chip.array, rows=rows, columns=columns, count=count))


def counted(instruction: Instruction, chip: Chip) -> dict[str, int]:
    counts = action_counts(records([instruction]), np.zeros(1, np.int64), 1, chip)[0]
    return {action.name: int(counts[action]) for action in Action if counts[action]}


@pytest.mark.parametrize("mnemonic", sorted(cls.mnemonic for cls in REGISTRY.values()))
def test_actions_are_those_of_plain_loops(mnemonic: str) -> None:
    for seed in range(25 if mnemonic != "halt" else 1):
        _, instruction = random_case(mnemonic, seed)
        chip = small_chip(2 + seed % 7, 1 + seed % 5, 1 + seed % 4)
        chip = replace(chip, array=replace(chip.array, deals_pixels=seed % 3 > 0))
        assert counted(instruction, chip) == naive_actions(instruction, chip), (seed, instruction)


@pytest.mark.parametrize("source", list(Stationary))
@pytest.mark.parametrize("channels", [3, 16, 19])
def test_matmuls_whose_words_straddle_slices(source: Stationary, channels: int) -> None:
    chip = small_chip(8, 6, 2)
    matmul = Matmul(
        ifm=5, channels=channels, ifm_pixel_pitch=channels + (channels == 16),
        ifm_row_pitch=7 * (channels + 1), kernel_height=3, kernel_width=2, stride_y=2, stride_x=1,
        dilation_y=2, dilation_x=1, pad_top=1, pad_left=2, ofm_height=3, ofm_width=4, columns=29,
        accumulate=1, stationary=source, stationary_address=13, stationary_pitch=133,
        weight_zero_point=3, ifm_height=9, ifm_width=7,
    )  # fmt: skip
    assert counted(matmul, chip) == naive_actions(matmul, chip)


@pytest.mark.parametrize(("channels", "width"), [(2, 9), (8, 9), (2, 1), (2, 2)])
def test_dealt_pixels(channels: int, width: int) -> None:
    chip = small_chip(8, 6, 4)
    dealt = replace(chip, array=replace(chip.array, deals_pixels=True))
    matmul = Matmul(
        ifm=5, channels=channels, ifm_pixel_pitch=channels, ifm_row_pitch=75, kernel_height=3,
        kernel_width=1, stride_y=2, stride_x=1, dilation_y=1, dilation_x=1, ofm_height=3,
        ofm_width=width, columns=6, accumulator_pitch=6, ifm_height=7, ifm_width=9,
    )  # fmt: skip
    found, plain = counted(matmul, dealt), counted(matmul, chip)
    assert found == naive_actions(matmul, dealt)
    assert found["WEIGHT_LATCH"] == min(width, 4) * plain["WEIGHT_LATCH"]
    assert (found["FEED_SLICE"] < plain["FEED_SLICE"]) == (channels == 2 and width > 1)
    assert {**found, "WEIGHT_LATCH": 0, "FEED_SLICE": 0} == {
        **plain, "WEIGHT_LATCH": 0, "FEED_SLICE": 0
    }  # fmt: skip


def test_aligned_words_take_one_slice_each() -> None:
    chip = load_chip("edge")
    matmul = Matmul(
        channels=64, ifm_pixel_pitch=64, ifm_row_pitch=640, kernel_height=1, kernel_width=1,
        stride_y=1, stride_x=1, dilation_y=1, dilation_x=1, ofm_height=10, ofm_width=10,
        columns=40, ifm_height=10, ifm_width=10,
    )  # fmt: skip
    found = counted(matmul, chip)
    assert found["FEED_SLICE"] == 2 * 100 * 2  # two words of each pixel, for two blocks of columns
    assert found["MAC"] == 100 * 64 * 40
    assert found["SUM_SHIFT"] == 100 * 2 * 32 * 40
