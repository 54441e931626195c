"""Chips that skip zero weights in time: random programs, and sentences of "Packed passes"."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

from lepton.chip import Chip
from lepton.chip.description import Sparsity
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.program import Program
from tests.naive_sparsity import known_weights
from tests.naive_timing import NaiveTiming, instruction_cost
from tests.simulator.sparse_cases import CONSTANTS, COPIES, random_sparse_program
from tests.simulator.test_timing_oracle import DATA, PROGRAM, plain_chip
from tests.simulator.timing_cases import program_of
from tests.simulator.timing_comparison import compare, cores_met

PROGRAMS = 250


def run_seed(seed: int) -> Counter[str]:
    """Compare both on a random program, some with DRAMs or several cores; return what it met."""
    cores = 1 if seed % 4 else 2 + seed % 3
    program = random_sparse_program(seed, 0.8 if seed % 10 >= 8 else 0.0, cores)
    try:
        timing = compare(program)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    met = _streams_met(program) + _matmuls_met(program)
    met["timed"] = int(isinstance(timing, NaiveTiming))
    return met if isinstance(timing, int) else met + cores_met(timing, program)


def _streams_met(program: Program) -> Counter[str]:
    """Return how many streams were known, and which the decoder passes over zeros of."""
    known, met = known_weights(program).elements, Counter[str]()
    for number, item in enumerate(program.decoded):
        if isinstance(item, isa.Weights) and item.address >= COPIES:
            kind = "copied" if item.address < CONSTANTS else "stored"
            met[f"{kind}, {'known' if number in known else 'unknown'}"] += 1
            size = item.reduction * item.columns
            met["zeros passed over"] += known.get(number, size) < size
    return met


def _matmuls_met(program: Program) -> Counter[str]:
    """Return how many matmuls were packed, and why others were not."""
    known, met = known_weights(program).blocks, Counter[str]()
    for number, item in enumerate(program.decoded):
        if not isinstance(item, isa.Matmul) or item.stationary != isa.Stationary.BUFFER:
            continue
        block = known.get(number)
        plain, best = (instruction_cost(item, program.chip, b) for b in (None, block))
        kind = "unknown" if block is None else "packed" if best != plain else "not packed"
        met[f"matmul, {kind}"] += 1
    return met


@pytest.mark.slow
def test_random_programs_take_the_same_cycles() -> None:
    met = sum((run_seed(seed) for seed in range(PROGRAMS)), Counter[str]())
    kinds = ["stored, known", "copied, known", "copied, unknown", "zeros passed over", "timed"]
    kinds += ["matmul, unknown", "matmul, packed", "matmul, not packed"]
    rare = {kind: met[kind] for kind in kinds if met[kind] < PROGRAMS // 3}
    assert not rare, met


# --- directed programs: a sentence of the page each ----------------------------------------------

R, WIDE = 8, 4
"""Rows and columns of the array of `_chip`."""


def _chip(lanes: int = 4, window: int = 3, words: int = 8, **changed: Any) -> Chip:
    """Return a chip that takes a pass of 8 rows in a cycle per pixel, or two of them together."""
    array = {"rows": R, "columns": WIDE, "count": 1, "feed_words": 1} | changed
    chip = plain_chip(array=array)
    zero_blocks = True
    return dataclasses.replace(chip, sparsity=Sparsity(lanes, window, zero_blocks, words))


def _matmul(rows: int, columns: int = WIDE, pixels: int = 20, **fields: int) -> isa.Matmul:
    ones = ("kernel_height", "kernel_width", "stride_y", "stride_x", "dilation_y", "dilation_x")
    return isa.Matmul(
        **(dict.fromkeys((*ones, "ifm_height", "ofm_height"), 1)
        | {"channels": rows, "columns": columns, "accumulator_pitch": columns, "ifm_width": pixels,
           "ofm_width": pixels, "ifm_pixel_pitch": rows, "ifm_row_pitch": rows * pixels}
        | fields)
    )  # fmt: skip


def _weights(rows: int, columns: int, content: bytes, **fields: int) -> isa.Weights:
    return isa.Weights(
        **({"memory": DATA, "address": CONSTANTS, "stream_bytes": len(content), "reduction": rows,
            "columns": columns} | fields)
    )  # fmt: skip


def _run(chip: Chip, items: list[Instruction], constants: bytes) -> list[dict[str, int]]:
    """Return the records on which both simulators agree, of a program with constants."""
    program = dataclasses.replace(
        program_of(chip, [items]),
        constants=np.frombuffer(constants, np.uint8), constants_address=CONSTANTS,
    )  # fmt: skip
    timing = compare(program)
    assert isinstance(timing, NaiveTiming)
    names = timing.records.dtype.names or ()
    return [dict(zip(names, map(int, row), strict=True)) for row in timing.records]


def _cycles(chip: Chip, values: list[list[int]], pixels: int = 20) -> int:
    """Return how long a matmul by these weights streams."""
    content = bytes(value for row in values for value in row)
    rows, columns = len(values), len(values[0])
    read = _weights(rows, columns, content, signal=1)
    items: list[Instruction] = [read, _matmul(rows, columns, pixels, wait=1)]
    record = _run(chip, items, content)[1]
    return record["end"] - record["start"]


def _dense(*strips: int, columns: int = WIDE) -> list[list[int]]:
    """Return strips of the array's rows, all of the value given."""
    return [[value] * columns for value in strips for _ in range(R)]


def test_strips_of_zeros_are_not_issued_but_for_the_first_of_all() -> None:
    assert _cycles(_chip(), _dense(1, 0, 1)) == 2 * 20
    assert _cycles(_chip(), _dense(0, 0, 0)) == 20
    assert _cycles(dataclasses.replace(_chip(), sparsity=None), _dense(0, 0, 0)) == 3 * 20


HALF = [[1] + [0] * (WIDE - 1)] + [[0] * WIDE] * (R - 1)
"""A strip with one weight: any two fit."""


def test_no_word_goes_on_over_a_strip_that_is_not_issued() -> None:
    # words of 8 at 0 and 8 are fetched together; those at 0 and 32 meet in the 4 slices
    chip = _chip(words=2)
    assert _cycles(chip, [*HALF, *HALF, *_dense(0, 0, 0)]) == 20
    assert _cycles(chip, [*HALF, *_dense(0, 0, 0), *HALF]) == 2 * 20


def test_a_group_takes_a_stretch_of_its_own_of_the_rows_of_all_strips() -> None:
    # two strips are four stretches of 4 rows, two for each group: one column has 4 in the first
    rows = [0, 1, 2, 3]
    values = [[int(row in rows)] * WIDE for row in range(2 * R)]
    assert _cycles(_chip(), values) == 20
    # a fifth among the first 8 rows, which are both stretches of group 0
    values[7][2] = 1
    values[9][2] = 1
    assert _cycles(_chip(), values) == 2 * 20


def test_idle_columns_take_what_the_block_leaves() -> None:
    # a column of 4 has 3 replicas, which is enough for three strips (the window) of dense weights
    assert _cycles(_chip(), _dense(1, 1, 1, columns=1)) == 20
    assert _cycles(_chip(), _dense(1, 1, 1, columns=2)) == 2 * 20
    assert _cycles(_chip(), _dense(1, 1, 1, columns=3)) == 3 * 20


def test_of_equal_steps_the_first_pass_takes_most_strips() -> None:
    # of 8, 8 and 1 rows the last loads in the time of a pixel, 9 in the other cut would take 8
    assert _cycles(_chip(window=2), [*HALF, *HALF, [1] * WIDE], pixels=1) == 2


def test_a_matmul_is_packed_only_if_it_streams_less() -> None:
    # dealt to two groups 20 pixels take 10 steps for each of two strips, packed 20 for one
    chip = _chip(columns=2, count=2, deals_pixels=True, feed_words=4)
    values = [[0, 0]] * R + [[1, 1]]
    assert instruction_cost(_matmul(9, 2), chip, values) == (8, 20, 10, R + 2 - 2)
    assert instruction_cost(_matmul(9, 2, 19), chip, values) == (1, 19, 19, R + 2 - 2)
    assert [_cycles(chip, values, pixels=pixels) for pixels in (19, 20)] == [19, 20]


def _packed_bits(bits: str) -> bytes:
    """Return bytes of these bits, each byte's lowest first."""
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


NONE, ALL, TWO = "0000", "1000" + "10" * 4, "1001" + "11000000" + "0000"
"""Groups of 8 elements: code 0, code 1 and code 9 with a mask of two."""


@pytest.mark.parametrize(
    ("entries", "groups", "elements"),
    [
        ([0, 1], [NONE] * 13 + [ALL, TWO, NONE], 16),
        ([0, 1], [NONE] * 12 + [ALL] * 3 + [TWO], 26),
        ([1, 0], [NONE] * 12 + [ALL] * 3 + [TWO], 128),
    ],
    ids=["at least an eighth", "those with bits", "symbol 0 is no zero"],
)
def test_the_decoder_counts_elements_with_a_symbol_of_a_bit(
    entries: list[int], groups: list[str], elements: int
) -> None:
    chip = _chip()
    buffer = dataclasses.replace(chip.weight_buffer, decoder_bytes_per_cycle=1)
    bits = "".join(groups)
    content = bytes([8, *entries]) + _packed_bits(bits + "0" * (-len(bits) % 8))
    item = _weights(128, 1, content, format=isa.WeightFormat.PALETTE)
    record = _run(dataclasses.replace(chip, weight_buffer=buffer), [item], content)[0]
    assert record["end"] - record["start"] == elements


def _known(items: list[Instruction], constants: bytes) -> bool:
    """Return whether the last of these instructions is known to read constants, as both say."""
    with_zeros = _run(_chip(), items, constants)[len(items) - 1]
    chip = dataclasses.replace(_chip(), sparsity=None)
    without = _run(chip, items, constants)[len(items) - 1]
    return with_zeros["end"] - with_zeros["start"] < without["end"] - without["start"]


def test_a_copy_is_what_transfers_of_one_row_make() -> None:
    content = bytes([9, 0, 1]) + _packed_bits("0000" * 64)
    size, half = len(content), 20
    constants = content + bytes(size)
    load = isa.Load(memory=DATA, address=CONSTANTS, row_bytes=size, rows=1, planes=1, scratchpad=64)
    store = isa.Store(memory=PROGRAM, address=COPIES, row_bytes=size, rows=1, planes=1)
    store = dataclasses.replace(store, scratchpad=64)
    read = _weights(
        1024, 1, content, memory=PROGRAM, address=COPIES, format=isa.WeightFormat.PALETTE
    )
    other = dataclasses.replace(load, address=CONSTANTS + size)
    first = dataclasses.replace(load, row_bytes=half)
    away = {"scratchpad": 256, "row_bytes": size - half}
    second = dataclasses.replace(load, address=CONSTANTS + half, **away)
    behind = dataclasses.replace(store, address=COPIES + half, **away)
    assert _known([load, store, read], constants)
    assert not _known([store, load, read], constants)
    # of several rows, and what writes but some of the bytes: passed over
    assert _known([load, dataclasses.replace(other, rows=2), store, read], constants)
    assert _known([load, store, dataclasses.replace(store, scratchpad=0, rows=2), read], constants)
    assert _known([load, dataclasses.replace(other, row_bytes=half), store, read], constants)
    # the load is that of the whole stored row, though the rest of it is stored again
    assert _known([load, first, store, second, behind, read], constants)
    assert not _known([other, first, store, second, behind, read], constants)
