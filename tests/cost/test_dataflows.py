"""A matmul's cycles in every dataflow: the plain walk of docs/timing.md, known formulas, and what
grows with what.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.chip import Chip, Dataflow, load_chip
from lepton.cost import cost_scalars, instruction_costs
from lepton.cost.dataflows import matmul_cycles
from lepton.isa import Instruction, records
from lepton.isa.instructions import Matmul, Stationary
from tests.naive_matrix import dealing, matmul_cost
from tests.simulator.timing_cases import random_chip, random_instruction

WS, OS, IS = Dataflow
BUFFER, SCRATCHPAD, TRANSPOSED, ONES = Stationary
Cost = tuple[int, int, int, int]


def chip_of(**array: Any) -> Chip:
    chip = load_chip("nano")
    plain = {"rows": 4, "columns": 4, "count": 1, "feed_words": 4, "issue_cycles": 0}
    return replace(chip, array=replace(chip.array, **(plain | array)))


def matmul(pixels: int, reduction: int, columns: int, stationary: int = BUFFER) -> Matmul:
    """Return a product whose reduction is one run: a step takes one cycle."""
    return Matmul(
        channels=reduction, ifm_pixel_pitch=reduction, kernel_height=1, kernel_width=1,
        ofm_height=1, ofm_width=pixels, columns=columns, dilation_y=1, dilation_x=1,
        stationary=stationary,
    )  # fmt: skip


def row(pixels: int, channels: int, columns: int, **fields: int) -> Matmul:
    """Return a 1 x 1 convolution of a row of packed pixels, whose sums are packed too."""
    packed = {"stride_x": 1, "accumulator_pitch": columns}
    return replace(matmul(pixels, channels, columns), **(packed | fields))


def cost(item: Instruction, chip: Chip) -> Cost:
    """Return preload, stream, last and drain."""
    preload, stream, last, drain = (int(c[0]) for c in instruction_costs(records([item]), chip))
    return preload, stream, last, drain


def alone(item: Instruction, chip: Chip) -> int:
    """Return the cycles from being taken by an idle unit to the last result."""
    preload, stream, _, drain = cost(item, chip)
    return preload + stream + drain


def test_random_matmuls_cost_what_the_page_says() -> None:
    r, met = random.Random(5), Counter[tuple[Dataflow, bool, int]]()
    for _ in range(1200):
        chip = random_chip(r, 0)
        item = random_instruction(r, chip, "matmul")
        assert isinstance(item, Matmul)
        assert cost(item, chip) == matmul_cost(item, chip), f"{item}\n{chip.array}"
        met[chip.array.dataflow, chip.array.overlap, item.stationary] += 1
    assert len(met) == 3 * 2 * 4
    assert min(met.values()) > 9


def test_random_dealt_matmuls_cost_what_the_page_says() -> None:
    r, met = random.Random(6), Counter[tuple[int, bool]]()
    for _ in range(400):
        plain = random_chip(r, 0)
        array = {"count": r.randint(2, 9), "dataflow": WS, "overlap": True, "deals_pixels": True}
        chip = replace(plain, array=replace(plain.array, **array))
        columns = r.randint(1, 2 * chip.array.columns)
        item = random_instruction(r, chip, "matmul")
        assert isinstance(item, Matmul)
        item = replace(
            item, columns=columns, accumulator_pitch=columns + r.choice((-1, 0, 0, 1)),
            ofm_width=r.randint(1, 12), stationary=r.choice((BUFFER, ONES)),
        )  # fmt: skip
        assert cost(item, chip) == matmul_cost(item, chip), f"{item}\n{chip.array}"
        taps = item.kernel_height * item.kernel_width * item.channels
        met[dealing(item, range(min(taps, chip.array.rows)), chip)[1:]] += 1
    assert min(met[step] for step in product((2, 4), (False, True))) > 4


@pytest.mark.parametrize(("pixels", "reduction", "columns"), [(1, 1, 1), (9, 11, 5), (40, 8, 4)])
@pytest.mark.parametrize("issue", [0, 4])
def test_passes_without_overlap_are_the_known_formulas(
    pixels: int, reduction: int, columns: int, issue: int
) -> None:
    known = {
        WS: (-(-reduction // 4) * -(-columns // 3), 2 * 4 + 3 + pixels - 2),
        OS: (-(-pixels // 4) * -(-columns // 3), 4 + 3 + reduction - 2),
        IS: (-(-reduction // 4) * -(-pixels // 3), 2 * 4 + 3 + columns - 2),
    }
    for dataflow, (passes, length) in known.items():
        chip = chip_of(dataflow=dataflow, overlap=False, columns=3, issue_cycles=issue)
        for stationary in (BUFFER, ONES):
            item = matmul(pixels, reduction, columns, stationary)
            assert cost(item, chip) == (0, passes * (length + issue), 0, 0)


def test_output_stationary_by_hand() -> None:
    chip = chip_of(dataflow=OS)
    # five pixels: a pass of four and one of a single pixel; the drain is that of the whole array
    assert cost(matmul(5, 7, 4), chip) == (0, 7 + 1 + 7, 7, 6)
    # the last pass fetches its fourth pixel three cycles after its only operand has entered
    assert cost(matmul(4, 1, 1), chip) == (0, 1 + 3, 1 + 3, 6 - 3)
    # a row of the second operand takes a cycle, or a column if transposed, before each block
    assert cost(matmul(4, 8, 4, SCRATCHPAD), chip) == (0, 8 + 8, 16, 6)
    assert cost(matmul(4, 8, 3, TRANSPOSED), chip) == (0, 2 * (3 + 4), 14, 6)
    # two words a step, one of them in a cycle: four pixels wait four cycles
    apart = replace(matmul(4, 2, 1), channels=1, kernel_height=2, ifm_row_pitch=99)
    assert cost(apart, chip_of(dataflow=OS, feed_words=1)) == (0, 2 + 4 + 2, 8, 6 - 2)


def test_input_stationary_by_hand() -> None:
    chip = chip_of(dataflow=IS)
    # four pixels load in four cycles, the fifth in one, each block of the reduction anew
    assert cost(matmul(5, 4, 9), chip) == (4, 9 + 9, 9, 6)
    assert cost(matmul(5, 4, 2), chip) == (4, 2 + 2, 2, 6)
    assert cost(matmul(8, 4, 2), chip) == (4, 4 + 2, 2, 6)
    # the columns take the feed's port: no load is hidden, and rows are turned before they stream
    assert cost(matmul(5, 4, 9, TRANSPOSED), chip) == (0, 4 + 9 + 1 + 9, 9, 6)
    assert cost(matmul(5, 4, 9, SCRATCHPAD), chip) == (0, 4 + 21 + 1 + 21, 9 + 3 * 4, 6)


def test_dealt_pixels_by_hand() -> None:
    chip = chip_of(count=4, deals_pixels=True)

    def streamed(item: Matmul, **array: Any) -> int:
        return cost(item, replace(chip, array=replace(chip.array, **array)))[1]

    # a word of four bytes each: four pixels in a cycle, the last step of two; loads stay as long
    assert cost(row(18, 4, 4), chip) == (4, 5, 5, 6)
    assert streamed(replace(row(18, 4, 4), ofm_height=3)) == 15
    assert streamed(row(18, 4, 4), deals_pixels=False) == 18
    # two arrays hold eight columns, and three leave one idle that is no power of two
    assert streamed(row(18, 4, 5)) == 9
    assert streamed(row(18, 4, 4), count=3) == 9
    assert streamed(row(18, 4, 9)) == 18
    # four words of a feed of two take two cycles, of one no fewer than pixel by pixel
    assert streamed(row(18, 4, 4), feed_words=2) == 9
    assert streamed(row(18, 4, 4), feed_words=1) == 18
    # a row of five takes three steps of two pixels, or two steps of two cycles
    assert streamed(row(6, 4, 4), feed_words=2) == 3
    # pixels one byte apart lie in one word
    assert streamed(row(18, 1, 4), feed_words=1) == 5
    # words of pixels that are a whole ring apart meet in one slice
    assert streamed(row(18, 4, 4, ifm_pixel_pitch=32)) == 18
    # sums that are apart do not fit the lanes; sums that overlap are not dealt
    assert streamed(row(18, 4, 4, accumulator_pitch=5)) == 9
    assert streamed(row(18, 4, 4, accumulator_pitch=3)) == 18
    # loads of an operand in the scratchpad take the feed's port
    for second in (SCRATCHPAD, TRANSPOSED):
        assert streamed(row(18, 4, 4, stationary=second)) == 4 + 18


def test_the_compiler_reckons_with_the_chips_dataflow() -> None:
    for dataflow, overlap in product(Dataflow, (True, False)):
        chip = chip_of(dataflow=dataflow, overlap=overlap)
        tile = matmul_cycles(cost_scalars(chip), (1, 30), 11, 9, 11, 0)
        assert tile == cost(matmul(30, 11, 9), chip)[1]
    chip, item = chip_of(count=4, deals_pixels=True), row(30, 4, 2)
    assert matmul_cycles(cost_scalars(chip), (1, 30), 4, 2, 4, 4) == cost(item, chip)[1]


# --- what grows with what: the sentences of "More work, more resources" ---------------------------

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
ARRAYS = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 9),
        "columns": st.integers(1, 9),
        "count": st.integers(1, 4),
        "feed_words": st.integers(1, 4),
        "issue_cycles": st.integers(0, 4),
        "dataflow": st.sampled_from(Dataflow),
        "overlap": st.booleans(),
        "deals_pixels": st.booleans(),
    }
)


def windows(seed: int) -> Matmul:
    """Return a random convolution: its words may meet in the slices."""
    item = random_instruction(random.Random(seed), chip_of(), "matmul")
    assert isinstance(item, Matmul)
    return item


@given(ARRAYS, SIZES, st.sampled_from(Stationary), st.integers(0, 2), st.integers(1, 9))
def test_more_work_is_never_quicker(
    array: dict[str, Any], sizes: tuple[int, int, int], second: int, which: int, more: int
) -> None:
    pixels, reduction, columns = (n + more * (place == which) for place, n in enumerate(sizes))
    chip = chip_of(**array)
    grown = matmul(pixels, reduction, columns, second)
    assert alone(grown, chip) >= alone(matmul(*sizes, second), chip)


@given(ARRAYS, st.integers(0, 10**6), st.sampled_from(["ofm_height", "ofm_width", "columns"]))
def test_more_pixels_or_columns_of_a_window_are_never_quicker(
    array: dict[str, Any], seed: int, field: str
) -> None:
    chip, item = chip_of(**array), windows(seed)
    more = replace(item, **{field: getattr(item, field) + 1})
    assert alone(more, chip) >= alone(item, chip)


@given(ARRAYS, SIZES, st.integers(0, 60), st.integers(1, 9))
def test_more_channels_at_one_pitch_are_never_quicker(
    array: dict[str, Any], sizes: tuple[int, int, int], pitch: int, more: int
) -> None:
    chip, (pixels, channels, columns) = chip_of(**array), sizes
    few = row(pixels, channels, columns, ifm_pixel_pitch=pitch)
    assert alone(replace(few, channels=channels + more), chip) >= alone(few, chip)


@given(ARRAYS, st.integers(0, 10**6))
def test_dealing_pixels_is_never_slower(array: dict[str, Any], seed: int) -> None:
    item = windows(seed)
    dealt, plain = (chip_of(**array | {"deals_pixels": on}) for on in (True, False))
    assert alone(item, dealt) <= alone(item, plain)


@given(ARRAYS, st.integers(0, 10**6), st.integers(2, 3))
def test_a_multiple_of_the_feed_is_never_slower(
    array: dict[str, Any], seed: int, times: int
) -> None:
    chip, item = chip_of(**array), windows(seed)
    wide = chip_of(**array | {"feed_words": array["feed_words"] * times})
    assert alone(item, wide) <= alone(item, chip)


@given(ARRAYS, st.integers(0, 10**6), st.integers(2, 3), st.sampled_from([BUFFER, ONES]))
def test_a_multiple_of_the_arrays_is_never_slower(
    array: dict[str, Any], seed: int, times: int, second: int
) -> None:
    item = replace(windows(seed), stationary=second)
    more = chip_of(**array | {"count": array["count"] * times})
    assert alone(item, more) <= alone(item, chip_of(**array))


@given(ARRAYS, st.integers(0, 10**6))
def test_overlap_and_a_shorter_pipeline_are_never_slower(array: dict[str, Any], seed: int) -> None:
    item = windows(seed)
    assert alone(item, chip_of(**array | {"overlap": True})) <= alone(item, chip_of(**array))
    assert alone(item, chip_of(**array | {"issue_cycles": 0})) <= alone(item, chip_of(**array))


@given(ARRAYS, st.integers(0, 10**6))
def test_no_matmul_beats_the_multipliers(array: dict[str, Any], seed: int) -> None:
    chip, item = chip_of(**array), windows(seed)
    taps = item.kernel_height * item.kernel_width * item.channels
    macs = item.ofm_height * item.ofm_width * item.columns * taps
    assert cost(item, chip)[1] * chip.peak_macs_per_cycle >= macs


@given(
    st.integers(0, 10**6),
    st.sampled_from(["requantize", "binary", "lut", "copy", "fill", "pool", "softmax", "resize"]),
    st.integers(1, 16),
    st.integers(1, 9),
)
def test_more_lanes_or_wider_ports_are_never_slower(
    seed: int, name: str, lanes: int, more: int
) -> None:
    chip = chip_of()
    item = random_instruction(random.Random(seed), chip, name)
    few = replace(chip, vector=replace(chip.vector, lanes=lanes))
    many = replace(chip, vector=replace(chip.vector, lanes=lanes + more))
    assert alone(item, many) <= alone(item, few)
    wide = replace(few, scratchpad=replace(chip.scratchpad, port_bytes=16 + more))
    assert alone(item, wide) <= alone(item, few)


def test_what_can_be_slower_with_more() -> None:
    # a taller array takes longer to fill and to leave
    assert alone(matmul(1, 1, 1), chip_of(rows=8)) > alone(matmul(1, 1, 1), chip_of(rows=4))
    # blocks of 19 and 1 pixels hide less than two of 10
    item, many = matmul(20, 4, 10), {"dataflow": IS, "rows": 4, "count": 1}
    wide, narrow = chip_of(columns=19, **many), chip_of(columns=10, **many)
    assert alone(item, wide) > alone(item, narrow)
    # an operand in the scratchpad is fetched for all columns, used or not
    item, narrow = matmul(4, 4, 1, SCRATCHPAD), chip_of(feed_words=1)
    assert alone(item, chip_of(feed_words=1, count=4)) > alone(item, narrow)
