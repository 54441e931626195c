"""The matrix unit's closed forms against known formulas and loops written here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.chip import load_chip
from lepton.cost import CostScalars, cost_scalars, instruction_costs
from lepton.cost.closed_forms import Pixels, Walk, step_cycles
from lepton.cost.dataflows import Product, matmul_cost
from lepton.isa import records
from lepton.isa.instructions import Matmul


def scalars(rows: int, feed_words: int, columns: int = 4) -> CostScalars:
    return cost_scalars(load_chip("nano"))._replace(
        rows=rows, columns=columns, all_columns=columns, feed_words=feed_words
    )


def naive_words(walk: Walk, start: int, stop: int, pixels: Pixels) -> list[list[int]]:
    """Return the bytes of each word of a step."""
    one: list[list[int]] = []
    for k in range(start, stop):
        run, byte = divmod(k, walk.run)
        line, tap = divmod(run, walk.runs_per_line)
        at = line * walk.line_pitch + tap * walk.run_pitch + byte
        if not one or byte == 0:
            one.append([])
        one[-1].append(at)
    for word in one:
        word += range(word[-1] + 1, word[-1] + 1 + pixels.added)
    shifts = [pixel * pixels.distance for pixel in range(pixels.fetches)]
    return [[at + shift for at in word] for shift in shifts for word in one]


def naive_step(p: CostScalars, words: list[list[int]]) -> int:
    """Fetch at every place a pixel can have; a group of words is legal if it is at all of them."""

    def together(group: list[list[int]]) -> bool:
        for place in range(2 * p.feed_words * p.rows):
            lines: dict[int, int] = {}
            for word in group:
                for at in word:
                    line, slice_ = divmod((at + place) // p.rows, 2 * p.feed_words)
                    if lines.setdefault(slice_, line) != line:
                        return False
        return True

    cycles = 0
    while words:
        taken = 1
        while taken < min(p.feed_words, len(words)) and together(words[: taken + 1]):
            taken += 1
        words = words[taken:]
        cycles += 1
    return cycles


@given(
    st.sampled_from([2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.tuples(*(st.integers(low, high) for low, high in ((1, 9), (1, 4), (0, 80), (0, 300)))),
    st.integers(0, 30),
    st.integers(1, 8),
    st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 80), st.integers(0, 3)),
)
def test_step_is_what_slices_can_read(
    rows: int,
    feed_words: int,
    walk: tuple[int, int, int, int],
    start: int,
    length: int,
    pixels: tuple[int, int, int],
) -> None:
    p, dealt = scalars(rows, feed_words), Pixels(*pixels)
    length = min(length, rows)
    dealt = dealt._replace(added=min(dealt.added, rows - length))
    found = step_cycles(p, Walk(*walk), (start, start + length), dealt)
    assert found == naive_step(p, naive_words(Walk(*walk), start, start + length, dealt))


@pytest.mark.parametrize("pixels", [1, 3, 100])
@pytest.mark.parametrize("reduction", [1, 16])
def test_a_pass_alone_is_the_known_formula(pixels: int, reduction: int) -> None:
    chip = load_chip("nano")
    chip = replace(chip, array=replace(chip.array, issue_cycles=0))
    matmul = Matmul(
        channels=reduction, ifm_pixel_pitch=reduction, kernel_height=1, kernel_width=1,
        ofm_height=1, ofm_width=pixels, columns=1, dilation_y=1, dilation_x=1,
    )  # fmt: skip
    cost = instruction_costs(records([matmul]), chip)
    rows, columns = chip.array.rows, chip.array.columns
    total = int(cost.preload[0] + cost.stream[0] + cost.drain[0])
    assert total == reduction + rows + columns + pixels - 2
    if reduction == rows:
        assert total == 2 * rows + columns + pixels - 2


def test_a_pass_waits_for_the_load_of_its_successor_only() -> None:
    p = scalars(rows=8, feed_words=4)._replace(issue_cycles=0)
    one_pixel = Walk(19, 1, 0, 19)

    def stream_and_last(columns: int, pixels: int) -> tuple[int, int]:
        return matmul_cost(p, Product(19, columns, 1, pixels, one_pixel, 19, columns, 0))[1:3]

    assert stream_and_last(4, 1) == (8 + 3 + 1, 1)
    assert stream_and_last(5, 1) == (8 + 3 + 8 + 8 + 3 + 1, 1)
    assert stream_and_last(4, 6) == (8 + 6 + 6, 6)
