"""Packed passes against plain loops, and what the options promise; docs/timing.md, section 10."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton.chip import Chip, load_chip
from lepton.chip.description import Sparsity
from lepton.codec import Decoder, decode_weights, decoded_elements, encode_weights
from lepton.cost import instruction_costs
from lepton.cost.action_names import Action
from lepton.cost.area import part_areas
from lepton.cost.closed_forms import Walk
from lepton.cost.estimate import estimate_program
from lepton.cost.instructions import matmul_walk
from lepton.cost.packed_actions import program_actions
from lepton.cost.packed_work import Cut, block_cut, issued_macs, packed_work
from lepton.cost.packing import P_COLUMNS, P_REPLICAS, P_ROWS, P_STEP
from lepton.isa import records
from lepton.isa.instructions import Load, Matmul, Store, WeightFormat, Weights
from lepton.program import Program, load_program
from lepton.simulator import simulate_timing
from tests.naive_sparsity import packed_cost, packed_passes
from tests.simulator.timing_cases import program_of

CONSTANTS = 1 << 18
ARRAYS = st.sampled_from([(4, 3), (8, 8), (6, 5)])


def chip_of(size: tuple[int, int], sparsity: Sparsity | None, feed_words: int = 1) -> Chip:
    chip = load_chip("nano")
    array = replace(chip.array, rows=size[0], columns=size[1], count=1, feed_words=feed_words)
    sources = chip.sources | {"sparsity": "none, a test"}
    return replace(chip, array=array, sparsity=sparsity, sources=sources)


def matmul(channels: int, columns: int, pixels: int = 20, **fields: Any) -> Matmul:
    plain: dict[str, Any] = {
        "channels": channels, "kernel_height": 1, "kernel_width": 1, "ofm_height": 1,
        "ofm_width": pixels, "ifm_height": 1, "ifm_width": pixels, "ifm_pixel_pitch": channels,
        "ifm_row_pitch": channels * pixels, "columns": columns, "accumulator_pitch": columns,
        "stride_y": 1, "stride_x": 1, "dilation_y": 1, "dilation_x": 1,
    }  # fmt: skip
    return Matmul(**(plain | fields))


def cut_of(item: Matmul, weights: np.ndarray, chip: Chip) -> Cut:
    (record,) = records([item])
    return block_cut(chip, weights.astype(np.int8).view(np.uint8), Walk(*matmul_walk(record)))


def with_constants(items: list[Any], chip: Chip, constants: np.ndarray) -> Program:
    program = program_of(chip, [items])
    return replace(program, constants=constants, constants_address=CONSTANTS)


def program_with(chip: Chip, item: Matmul, weights: np.ndarray, **fields: int) -> Program:
    """Return a program that reads a stream of the constants and multiplies by it."""
    block = weights.astype(np.int8).view(np.uint8)
    stream = encode_weights(block, Decoder.of(chip))
    memory = chip.memory_index(chip.placement.constants)
    read = Weights(
        memory=memory, address=CONSTANTS,
        stream_bytes=stream.content.size, format=stream.format, reduction=block.shape[0],
        columns=block.shape[1], **fields,
    )  # fmt: skip
    return with_constants([read, item], chip, stream.content)


def dense_stream(item: Matmul, chip: Chip) -> int:
    return int(instruction_costs(records([item]), chip).stream[0])


def random_case(seed: int, size: tuple[int, int]) -> tuple[Matmul, np.ndarray, Chip]:
    """Return a convolution whose words may meet, weights of any density, and options."""
    rng = random.Random(seed)
    lanes = rng.choice([n for n in range(1, size[0] + 1) if size[0] % n == 0])
    feed = rng.randint(1, 3)
    sparsity = Sparsity(lanes, rng.randint(1, 4), rng.random() < 0.7, feed * rng.randint(1, 3))
    if sparsity.window == 1:
        sparsity = replace(sparsity, zero_blocks=True)
    channels, kernel = rng.randint(1, 9), (rng.randint(1, 2), rng.randint(1, 3))
    item = matmul(
        channels, rng.randint(1, 2 * size[1]), rng.randint(1, 12), kernel_height=kernel[0],
        kernel_width=kernel[1], ifm_pixel_pitch=channels + rng.randint(0, 1),
        ifm_row_pitch=rng.randint(1, 90), dilation_x=rng.randint(1, 2),
    )  # fmt: skip
    weights = np.random.default_rng(seed).integers(1, 9, (channels * kernel[0] * kernel[1], 30))
    weights = weights[:, : item.columns]
    zero = np.random.default_rng(seed + 1).random(weights.shape) < rng.choice([0, 0.5, 0.8, 1])
    return item, np.where(zero, 0, weights), chip_of(size, sparsity, feed)


@given(st.integers(0, 10**6), ARRAYS)
@settings(max_examples=60, deadline=None)
def test_passes_are_those_of_plain_loops(seed: int, size: tuple[int, int]) -> None:
    item, weights, chip = random_case(seed, size)
    cut, expected = cut_of(item, weights, chip), packed_passes(item, weights.tolist(), chip)
    found = cut.passes[:, [P_STEP, P_ROWS, P_COLUMNS, P_REPLICAS]].tolist()
    lanes = chip.sparsity.lanes if chip.sparsity else 1
    assert found == [
        [p.step, p.rows, len(p.columns), max(-(-p.fullest // lanes), 1)] for p in expected
    ]
    program = program_with(chip, item, weights)
    packed, cost = packed_work(program), packed_cost(item, weights.tolist(), chip)
    assert packed.matmuls.tolist() == ([1] if cost[1] < dense_stream(item, chip) else [])
    assert packed.costs.tolist() == [list(cost[:3]) for _ in packed.matmuls]


@given(st.integers(0, 10**6), ARRAYS)
@settings(max_examples=100, deadline=None)
def test_packing_is_never_slower_and_issues_no_more(seed: int, size: tuple[int, int]) -> None:
    item, weights, chip = random_case(seed, size)
    preload, stream, _, _ = packed_cost(item, weights.tolist(), chip)
    dense = instruction_costs(records([item]), chip)
    assert stream <= dense.stream[0]
    assert preload + stream <= dense.preload[0] + dense.stream[0]
    issued = cut_of(item, weights, chip).issued
    assert np.count_nonzero(weights) <= issued or not weights.any()
    assert issued <= weights.size
    assert stream * size[0] * size[1] >= issued * item.ofm_width


def two_of_four(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    order = np.random.default_rng(seed).random((rows // 4, 4, columns)).argsort(axis=1)
    return (order < 2).reshape(rows, columns) * 3


@pytest.mark.parametrize(("lanes", "window"), [(2, 2), (8, 2), (8, 4), (4, 6)])
def test_2_4_takes_half_the_passes(lanes: int, window: int) -> None:
    chip = chip_of((8, 8), Sparsity(lanes, window, True, 4), 1)
    item = matmul(80, 16)
    cut = cut_of(item, two_of_four(80, 16), chip)
    assert cut.passes[:, P_STEP].tolist() == [1] * 10
    assert cut.issued == 40 * 16


def test_blocks_of_zeros_are_not_issued() -> None:
    weights = np.ones((32, 16), np.int64)
    weights[8:24, :8] = 0
    chip = chip_of((8, 8), Sparsity(1, 1, True, 1))
    assert len(cut_of(matmul(32, 16), weights, chip).passes) == 2 + 4
    assert len(cut_of(matmul(32, 16), 0 * weights, chip).passes) == 1 + 1
    kept = chip_of((8, 8), Sparsity(8, 2, False, 2))
    assert len(cut_of(matmul(32, 16), 0 * weights, kept).passes) == 2 + 2


def test_idle_columns_hold_replicas_of_dense_weights() -> None:
    chip = chip_of((8, 8), Sparsity(8, 4, True, 4), 1)
    cut = cut_of(matmul(64, 10), np.ones((64, 10), np.int64), chip)
    assert cut.passes[:, P_COLUMNS].tolist() == [8] * 8 + [2] * 2
    assert cut.passes[:, P_REPLICAS].tolist() == [1] * 8 + [4] * 2


def test_the_fullest_column_decides() -> None:
    weights = np.zeros((16, 8), np.int64)
    weights[:8, 3] = 1
    weights[8, 3] = 1
    weights[8, 1] = 1
    chip = chip_of((8, 8), Sparsity(8, 2, True, 4), 1)
    assert len(cut_of(matmul(16, 8), weights, chip).passes) == 2
    weights[7, 3] = 0
    assert len(cut_of(matmul(16, 8), weights, chip).passes) == 1


SPARSE = Sparsity(8, 4, True, 4)


def test_only_known_signed_weights_are_packed() -> None:
    chip = chip_of((8, 8), SPARSE)
    item, weights = matmul(64, 8), two_of_four(64, 8)
    assert len(packed_work(program_with(chip, item, weights)).matmuls) == 1
    for fields in ({"weight_unsigned": 1}, {"weight_zero_point": 1}, {"stationary_address": 8}):
        other = replace(item, **fields)
        assert not len(packed_work(program_with(chip, other, weights)).matmuls)
    assert not len(packed_work(program_with(chip, item, weights, buffer=8)).matmuls)
    assert not len(packed_work(program_with(replace(chip, sparsity=None), item, weights)).matmuls)


def test_weights_that_were_overwritten_are_not_known() -> None:
    chip = chip_of((8, 8), SPARSE)
    item = matmul(64, 8)
    program = program_with(chip, item, two_of_four(64, 8))
    read = program.decoded[0]
    assert isinstance(read, Weights)
    over = replace(read, buffer=511)
    for items, count in (([read, over, item], 0), ([over, read, item], 1), ([read, item], 1)):
        made = with_constants(list(items), chip, program.constants)
        assert len(packed_work(made).matmuls) == count


def test_copied_streams_are_traced() -> None:
    chip = chip_of((8, 8), SPARSE)
    item = matmul(64, 8)
    plain = program_with(chip, item, two_of_four(64, 8))
    read = plain.decoded[0]
    assert isinstance(read, Weights)
    assert read.format != WeightFormat.RAW
    other = 1 - plain.constants_memory
    size, half = read.stream_bytes, read.stream_bytes // 2
    load = Load(memory=read.memory, address=read.address, row_bytes=size, rows=1, planes=1)
    store = Store(memory=other, address=0x900, row_bytes=size, rows=1, planes=1)
    parts = [
        replace(store, row_bytes=half),
        replace(store, address=0x900 + half, scratchpad=half, row_bytes=size - half),
    ]
    moved = replace(read, memory=other, address=0x900)

    def packs(*items: Any) -> bool:
        program = with_constants([*items, moved, item], chip, plain.constants)
        return packed_work(program).costs.tolist() == packed_work(plain).costs.tolist()

    assert packs(load, store)
    assert packs(load, *parts)
    assert not packs(load, parts[0])
    assert not packs(store)
    assert not packs(load, replace(store, scratchpad=1))


def test_timing_and_estimate_use_the_packed_passes_and_files_keep_them() -> None:
    chip = chip_of((8, 8), SPARSE)
    item, weights = matmul(64, 8, 100), two_of_four(64, 8)
    program = program_with(chip, item, weights)
    again = load_program(program.to_bytes())
    cost = packed_cost(item, weights.tolist(), chip)
    dense = replace(program, chip=replace(chip, sparsity=None))
    for made in (program, again):
        trace = simulate_timing(made)
        assert trace.records[1]["end"] - trace.records[1]["start"] == cost[1]
        assert estimate_program(made).cycles < estimate_program(dense).cycles
    assert simulate_timing(dense).records[1]["end"] > simulate_timing(program).records[1]["end"]
    every, issued = issued_macs(program)
    assert (every[0], issued[0]) == (100 * 64 * 8, 100 * 32 * 8)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.sampled_from([0, 7]))
@settings(max_examples=40, deadline=None)
def test_the_decoder_is_busy_with_what_is_stored(seed: int, zeros: float, frequent: int) -> None:
    rng = np.random.default_rng(seed)
    block = rng.integers(-40, 40, 700).astype(np.int8)
    block[rng.random(700) < zeros] = frequent
    raw = block.view(np.uint8)
    stream = encode_weights(raw, Decoder(4, 0, skips_zeros=True), lambda _, size, __: (size,))
    busy = decoded_elements(stream, 700)
    assert max(np.count_nonzero(raw) if frequent == 0 else 0, 88) <= busy <= 700
    assert (decode_weights(stream, 700) == raw).all()
    if stream.format != WeightFormat.RAW and frequent and zeros >= 0.9:
        assert busy == 700
    if zeros == 1.0 and frequent == 0:
        assert busy == 88


def test_a_stream_is_chosen_by_what_its_decoder_does_with_zeros() -> None:
    rng = np.random.default_rng(0)
    block = (rng.integers(1, 100, 4096) * (rng.random(4096) < 0.1)).astype(np.int8).view(np.uint8)
    memory = Fraction(12)
    plain = encode_weights(block, Decoder(32, 4, memory_bytes_per_cycle=memory))
    skipping = encode_weights(
        block, Decoder(32, 4, memory_bytes_per_cycle=memory, skips_zeros=True)
    )
    assert plain.format == skipping.format == WeightFormat.GROUPED
    assert decoded_elements(skipping, 4096) == 512


def test_skipped_macs_cost_nothing() -> None:
    chip = chip_of((8, 8), SPARSE)
    item = matmul(64, 8)
    sparse, dense = (
        program_actions(program_with(chip, item, weights), np.zeros(3, np.int64), 1)[0]
        for weights in (two_of_four(64, 8), np.ones((64, 8), np.int64))
    )
    assert dense[Action.MAC] == dense[Action.OPERAND_SELECT] == 20 * 64 * 8
    assert sparse[Action.MAC] == sparse[Action.OPERAND_SELECT] == 20 * 32 * 8
    assert sparse[Action.SUM_SHIFT] * 2 == dense[Action.SUM_SHIFT]
    assert sparse[Action.ACCUMULATOR_WRITE] * 2 == dense[Action.ACCUMULATOR_WRITE]
    assert sparse[Action.WEIGHT_LATCH] * 2 == dense[Action.WEIGHT_LATCH]
    assert sparse[Action.OPERAND_SHIFT] == dense[Action.OPERAND_SHIFT]
    # 64 channels are eight aligned words of a pixel, however many of them a pass takes
    assert sparse[Action.FEED_SLICE] == dense[Action.FEED_SLICE] == 20 * 8


def test_replicas_are_counted() -> None:
    chip = chip_of((8, 8), SPARSE)
    program = program_with(chip, matmul(64, 2), np.ones((64, 2), np.int64))
    actions = program_actions(program, np.zeros(3, np.int64), 1)[0]
    assert actions[Action.MAC] == 20 * 64 * 2
    assert actions[Action.REPLICA_SUM] == 20 * 2 * 2 * 3


def test_the_options_take_area() -> None:
    areas = [
        part_areas(chip_of((8, 8), sparsity))
        for sparsity in (None, Sparsity(2, 2, True, 1), Sparsity(8, 4, True, 1))
    ]
    for part in ("array", "weight_buffer"):
        assert areas[0][part].mm2 < areas[1][part].mm2 < areas[2][part].mm2
    assert areas[0]["vector"] == areas[2]["vector"]
