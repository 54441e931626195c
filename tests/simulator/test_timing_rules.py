"""Sentences of docs/timing.md that two readers could take differently: a small program for each.

The expected cycles are worked out by hand from the page, in the docstrings; both simulators must
give them.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from lepton.chip import Chip
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.simulator.dram_controller import accept, advance, flush
from lepton.simulator.dram_replay import replay
from lepton.simulator.dram_state import WRITES, controller_state
from lepton.simulator.dram_timing import Arbitration, DramTiming
from tests.naive_dram import NaiveChannel, naive_replay
from tests.naive_timing import NaiveTiming
from tests.simulator.test_dram_controller import random_timing
from tests.simulator.test_timing_oracle import plain_chip
from tests.simulator.timing_cases import program_of
from tests.simulator.timing_comparison import compare

LATENCY = 4
"""Cycles of the vector unit of `plain_chip`: 16 lanes, 16 bytes per port, 4 banks of 1 KiB."""


def _records(items: list[Instruction], chip: Chip | None = None) -> Any:
    """Return the records on which both simulators agree; item i is dispatched in cycle 1 + i."""
    timing = compare(program_of(chip or plain_chip(), [items]))
    assert isinstance(timing, NaiveTiming)
    return timing.records


def _stream(item: Instruction, chip: Chip | None = None) -> int:
    """Return the cycles from the start to the end of an instruction alone."""
    record = _records([item], chip)[0]
    return int(record["end"] - record["start"])


# --- the vector unit -----------------------------------------------------------------------------


def _fill(height: int, width: int, channels: int, row: int, pixel: int) -> isa.Fill:
    return isa.Fill(
        height=height, width=width, channels=channels, ofm_row_pitch=row, ofm_pixel_pitch=pixel
    )


@pytest.mark.parametrize(
    ("shape", "pitches", "vectors"),
    [
        ((4, 1, 8), (64, 64), 4),
        ((4, 1, 8), (8, 99), 2),
        ((1, 4, 8), (0, 8), 2),
        ((2, 4, 4), (20, 4), 8),
        ((2, 4, 4), (16, 4), 2),
        ((2, 1, 24), (25, 24), 4),
    ],
    ids=["padded column", "column", "row", "padded rows", "rows", "long padded pixels"],
)
def test_packed_is_a_tile_of_consecutive_bytes(
    shape: tuple[int, int, int], pitches: tuple[int, int], vectors: int
) -> None:
    """A column of padded pixels is not packed, whatever its pixel pitch, which nothing uses.

    Not packed, each pixel begins a vector, even where the pixels of a row follow one another: two
    rows of 4 x 4 bytes are 2 vectors of 16 lanes if they follow one another, and 8 if they do not.
    """
    assert _stream(_fill(*shape, *pitches)) == LATENCY + vectors


def _binary(**fields: int) -> isa.Binary:
    """Return a maximum of four packed pixels of 8 channels, or what is made of it."""
    packed = {f"{name}_row_pitch": 32 for name in ("a", "b", "ofm")}
    packed |= {f"{name}_pixel_pitch": 8 for name in ("a", "b", "ofm")}
    packed |= {"a_channel_pitch": 1, "b_channel_pitch": 1, "a": 0, "b": 1024, "ofm": 2048}
    return isa.Binary(height=1, width=4, channels=8, parameters=3072, **(packed | fields))


def test_all_operands_of_a_binary_must_be_packed() -> None:
    """Packed, 32 elements are 2 vectors; one padded or repeated operand makes them 4."""
    assert _stream(_binary()) == LATENCY + 2
    for changed in ("a_pixel_pitch", "b_pixel_pitch", "ofm_pixel_pitch"):
        assert _stream(_binary(**{changed: 9})) == LATENCY + 4
    assert _stream(_binary(b_channel_pitch=0)) == LATENCY + 4
    assert _stream(_binary(b_pixel_pitch=0)) == LATENCY + 4


def test_the_accumulators_of_a_requantize_need_not_be_packed() -> None:
    """ceil(9 x 8 / 16) = 5 cycles of parameters and 32 elements in 2 vectors."""
    item = isa.Requantize(
        height=1, width=4, channels=8, accumulator_pitch=99, ofm_row_pitch=32, ofm_pixel_pitch=8,
        maximum=127,
    )  # fmt: skip
    assert _stream(item) == LATENCY + 5 + 2


def _pool(**fields: int) -> isa.Pool:
    """Return a pool of 2 x 2 over 3 x 3 pixels of 8 packed channels, to 2 x 2 pixels."""
    size = {"kernel_height": 2, "kernel_width": 2, "stride_y": 1, "stride_x": 1, "dilation_y": 1}
    size |= {"dilation_x": 1, "ifm_height": 3, "ifm_width": 3, "ofm_height": 2, "ofm_width": 2}
    size |= {"ifm_row_pitch": 24, "ifm_pixel_pitch": 8, "ofm_row_pitch": 16, "ofm_pixel_pitch": 8}
    return isa.Pool(**(size | {"channels": 8, "ofm": 1024, "maximum": 127} | fields))


def _resize(mode: isa.ResizeMode) -> isa.Resize:
    """Return a resize of 2 x 2 to 2 x 3 packed pixels of 8 channels."""
    return isa.Resize(
        mode=mode, ifm_height=2, ifm_width=2, channels=8, ofm_height=2, ofm_width=3, ofm=1024,
        ifm_row_pitch=16, ifm_pixel_pitch=8, ofm_row_pitch=24, ofm_pixel_pitch=8,
    )  # fmt: skip


def _softmax(rows: int, channels: int) -> isa.Softmax:
    return isa.Softmax(
        rows=rows, channels=channels, ifm_row_pitch=channels, ofm_row_pitch=channels, ofm=2048
    )


def test_a_pool_a_resize_and_a_softmax_begin_a_vector_for_each_pixel() -> None:
    """Of 8 or 20 packed channels on 16 lanes.

    Pool: 4 pixels of a vector and 4 taps. Resize: 6 pixels of a vector, 1 step and 4 x 5 bytes of
    parameters (2 cycles), or 4 steps and 32 + 16 x 5 bytes (7). Softmax: 3 rows of 2 vectors, 4
    steps each (`softmax_cycles_per_element`), 1,056 bytes (66).
    """
    assert _stream(_pool()) == LATENCY + 4 * 4
    assert _stream(_resize(isa.ResizeMode.NEAREST)) == LATENCY + 2 + 6
    assert _stream(_resize(isa.ResizeMode.LINEAR_Q10)) == LATENCY + 7 + 6 * 4
    assert _stream(_softmax(3, 20)) == LATENCY + 66 + 3 * 2 * 4


def test_a_tap_in_the_padding_takes_its_step() -> None:
    """Four pixels of 4 taps, though one pixel has 1 tap inside the tile and two have 2."""
    assert _stream(_pool(pad_top=1, pad_left=1)) == LATENCY + 4 * 4


def test_every_parameter_is_read_first() -> None:
    """64 bytes of a binary take 4 cycles, 32 of an average in float32 2, a table of 256 16."""
    assert _stream(_binary(mode=isa.BinaryMode.ADD_Q31)) == LATENCY + 4 + 2
    assert _stream(_binary(mode=isa.BinaryMode.MAXIMUM_FLOAT32)) == LATENCY + 4 + 2
    assert _stream(_pool(mode=isa.PoolMode.AVERAGE_FLOAT32)) == LATENCY + 2 + 4 * 4
    assert _stream(_pool(mode=isa.PoolMode.AVERAGE_INTEGER)) == LATENCY + 4 * 4
    lut = isa.Lut(height=1, width=1, channels=3, table=1024, ofm=512)
    assert _stream(lut) == LATENCY + 16 + 1
    assert _stream(dataclasses.replace(lut, table_pitch=256)) == LATENCY + 48 + 1


@pytest.mark.parametrize(("lanes", "cycles"), [(16, 2), (3, 2), (2, 3), (1, 6)])
def test_a_strided_copy_moves_an_element_per_bank_or_lane(lanes: int, cycles: int) -> None:
    """Six elements, whatever pixel they are of: ceil(6 / min(lanes, 4 banks))."""
    copy = isa.Copy(
        height=1, width=3, channels=2, ifm_pixel_pitch=2, ifm_channel_pitch=1, ofm=1024,
        ofm_pixel_pitch=1, ofm_channel_pitch=3,
    )  # fmt: skip
    assert _stream(copy, plain_chip(vector={"lanes": lanes})) == LATENCY + cycles


# --- the matrix unit: 4 x 4, 4 feed words, no issue cycles -------------------------------------


def _matmul(**fields: int) -> isa.Matmul:
    """Return a matmul of a tap, a column and a pixel, all sizes 1."""
    names = ("channels", "kernel_height", "kernel_width", "stride_y", "stride_x", "dilation_y")
    names += ("dilation_x", "columns", "accumulator_pitch", "ofm_height", "ifm_height")
    made = dict.fromkeys((*names, "ofm_width", "ifm_width", "ifm_pixel_pitch"), 1)
    return isa.Matmul(**(made | {"ifm_row_pitch": 64} | fields))


def test_ones_are_loaded_as_weights_are() -> None:
    """Taken in cycle 1, a pass of 3 rows begins in 4; one of 4 in 5, and its successor in 6."""
    record = _records([_matmul(channels=3, stationary=isa.Stationary.ONES)])[0]
    assert (record["taken"], record["start"], record["end"]) == (1, 4, 5)
    longer = _records([_matmul(channels=5, stationary=isa.Stationary.ONES)])[0]
    assert (longer["taken"], longer["start"], longer["end"]) == (1, 5, 7)


def test_what_is_lost_to_a_bank_comes_before_the_last_pass() -> None:
    """The copy streams in [1, 13), of 128 bytes; the matmul is taken in 2 and starts in 3.

    It reads the copy's bank: of 20 pixels it loses ceil((13 - 3) / 2) = 5 cycles and ends in 28.
    Its only pass begins in 28 - 20 = 8, and there the next is taken.
    """
    copy = isa.Copy(
        height=1, width=1, channels=128, ifm_channel_pitch=1, ofm_channel_pitch=1, ofm=1024
    )
    matmul = _matmul(ofm_width=20, ifm_width=20)
    _, first, second, _ = _records([copy, matmul, matmul])
    assert (first["start"], first["end"], first["stall_bank"]) == (3, 28, 5)
    assert (second["taken"], second["start"]) == (8, 28)


@pytest.mark.parametrize(
    ("stationary", "stream"),
    [(isa.Stationary.SCRATCHPAD, 4 * 2 + 1), (isa.Stationary.SCRATCHPAD_TRANSPOSED, 4 + 1)],
)
def test_a_row_in_the_scratchpad_is_fetched_for_all_columns(
    stationary: isa.Stationary, stream: int
) -> None:
    """A row of A = 32 bytes at F x R = 16 takes 2 cycles, though one column is used.

    Transposed, one column takes as long as the walk over its 4 rows. Then the pixel is fetched.
    """
    chip = plain_chip(array={"columns": 16, "count": 2})
    item = _matmul(channels=4, ifm_pixel_pitch=4, stationary=stationary, stationary_pitch=4)
    assert _stream(item, chip) == stream


def _depthwise(**fields: int) -> isa.Depthwise:
    """Return 3 x 3 ones over 6 channels, 2 x 3 pixels: 2 blocks of columns, 3 of taps (4, 4, 1)."""
    made = dict.fromkeys(("stride_y", "stride_x", "dilation_y", "dilation_x", "multiplier"), 1)
    made |= {"kernel_height": 3, "kernel_width": 3, "ifm_height": 6, "ifm_width": 8, "channels": 6}
    made |= {"ifm_row_pitch": 48, "ifm_pixel_pitch": 6, "ofm_height": 2, "ofm_width": 3}
    return isa.Depthwise(
        **(made | {"accumulator_pitch": 6, "stationary": isa.Stationary.ONES} | fields)
    )


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({}, 3 + 2 * 1),
        ({"stride_x": 2}, 3 + 2 * 2),
        ({"stride_x": 4}, 3 + 2 * 3),
        ({"dilation_y": 2}, 3 + 2 * 1),
        ({"dilation_x": 2}, 3 + 2 * 3),
        ({"dilation_x": 2, "stride_x": 2, "ofm_width": 2}, 3 + 1 * 3),
        ({"ifm_pixel_pitch": 32, "ifm_row_pitch": 256}, 3 + 2 * 1),
        ({"channels": 2, "multiplier": 3, "ifm_pixel_pitch": 2}, 3 + 2 * 1),
    ],
    ids=[
        "plain",
        "stride",
        "long stride",
        "dilation_y",
        "dilation_x",
        "both",
        "conflicts",
        "multiplier",
    ],
)
def test_a_depthwise_step_fetches_the_new_columns_of_its_window(
    fields: dict[str, int], row: int
) -> None:
    """A pixel is ceil(min(6, 4) / 4) = 1 word, in each of the 2 x 3 passes, with 4 words per cycle.

    The first step of a row fetches 9 words (3 cycles), the next ones 3 for each new column.
    """
    assert _stream(_depthwise(**fields)) == 6 * 2 * row


def test_a_wide_depthwise_pixel_is_a_word_for_every_array_row_of_channels() -> None:
    """With A = 16, 6 channels are 2 words and 1 block: rows of ceil(18 / 4) + 2 x ceil(6 / 4)."""
    assert _stream(_depthwise(), plain_chip(array={"columns": 16})) == 3 * 2 * (5 + 2 * 2)


def test_only_the_first_pass_of_a_depthwise_of_ones_has_no_load() -> None:
    """Of one pixel, a pass fetches 9 words in 3 cycles; the blocks have 4, 4 and 1 taps.

    P = 0, max(0 + 4, 3) = 4, max(4 + 1, 4 + 3) = 7, and it has streamed in 10. In the buffer the
    first pass begins 4 cycles after it was taken, and the stream is the same. It retires
    R + C - 2 = 6 cycles later.
    """
    for stationary, preload in ((isa.Stationary.ONES, 0), (isa.Stationary.BUFFER, 4)):
        item = _depthwise(channels=4, ofm_height=1, ofm_width=1, stationary=stationary)
        record = _records([item])[0]
        assert record["start"] - record["taken"] == preload
        assert record["end"] - record["start"] == 10
        assert record["retire"] - record["end"] == 6


@pytest.mark.parametrize(("accumulator", "lost"), [(2047, 2), (2048, 0)])
def test_a_kibibyte_is_256_accumulators(accumulator: int, lost: int) -> None:
    """32 KiB in 4 banks: 2,048 accumulators each.

    The requantize streams in [1, 1 + 4 + 1 + 1) and reads the first bank; the matmul, which reads
    what it accumulates, starts in 3 and loses ceil((7 - 3) / 2) cycles if that is there too.
    """
    requantize = isa.Requantize(
        height=1, width=1, channels=1, ofm=1024, parameters=2048, maximum=127
    )
    matmul = _matmul(
        accumulate=1, accumulator=accumulator, ofm_width=8, ifm_width=8, accumulator_pitch=0
    )
    assert _records([requantize, matmul])[1]["stall_bank"] == lost


# --- the DRAM controller -------------------------------------------------------------------------


def _timing(**changed: int) -> DramTiming:
    """Return a DRAM of one rank of 4 banks in which an idle read is done in cycle 13.

    It moves in cycle 0, the bank is activated in 1 and read in 5; tCL + burst + 1 = 8.
    """
    plain = random_timing(random.Random(0))
    made = {
        "channels": 1, "ranks": 1, "bank_groups": 1, "banks_per_group": 4, "burst_cycles": 2,
        "tCL": 5, "tCWL": 3, "tRCDRD": 4, "tRCDWR": 4, "tRP": 4, "tRAS": 9, "tWR": 3, "tRTP": 2,
        "tCCD_S": 2, "tRRD_S": 3, "tFAW": 12, "tWTR_S": 2, "tRFC": 20, "tREFI": 1000, "tPPD": 0,
    }  # fmt: skip
    return dataclasses.replace(
        plain, mapping="rorachbabgco", dual_command=False, **(made | changed)
    )


def _replayed(
    requests: list[tuple[int, bool]], arbitration: Arbitration
) -> tuple[list[int], list[int]]:
    """Return the cycles of acceptance and of completion, on which both controllers agree."""
    timing, times = _timing(), np.zeros(len(requests), np.int64)
    accepted, done, _ = naive_replay(timing, arbitration, [(*r, 0) for r in requests])
    address, is_write = (np.array(column) for column in zip(*requests, strict=True))
    found = replay(timing, arbitration, address, is_write, times)
    assert (found.accepted.tolist(), found.done.tolist()) == (accepted, done)
    return accepted, done


def test_a_transaction_leaves_its_place_as_it_moves_and_a_merged_one_needs_one_too() -> None:
    """One place in the queue and one in the bank's, whose row all three reads are of.

    The first moves in cycle 0, so that the second is accepted in 1. It moves in 5, as the first is
    read; the third, of its address, is accepted in 6 only. Both are read in 5 + tCCD_S = 7.
    """
    one = Arbitration(queue=1, bank_queue=1)
    accepted, done = _replayed([(0, False), (64, False), (64, False)], one)
    assert accepted == [0, 1, 6]
    assert done == [13, 7 + 8, 7 + 8]


def test_a_read_of_a_written_address_is_merged_into_the_write_before_the_read() -> None:
    """The write, accepted in 1, is queued behind a read of its address that is done in 13."""
    accepted, done = _replayed([(0, False), (0, True), (0, False)], Arbitration())
    assert accepted == [0, 1, 2]
    assert done == [13, 2, 3]


def test_a_flush_drains_what_no_request_in_a_bank_is_before() -> None:
    """Two writes fill their queue in cycle 1 and move in 1 and 2, to banks 0 and 1.

    The third, accepted in 3, for bank 2, waits though it is flushed: until bank 1, activated in
    2 + tRRD_S = 5, is written in 9. It moves then; activated in 10, it is written in 14.
    """
    timing, arbitration = _timing(), Arbitration(queue=2)
    addresses = [0, 256, 512]
    naive, state = NaiveChannel(timing, arbitration), controller_state(timing, arbitration, 3)
    for number, cycle in enumerate((0, 1, 3)):
        advance(state, 0, cycle)
        while naive.now < cycle:
            naive.step()
        assert accept(state, 0, addresses[number], 1, number)
        assert naive.accept(number, addresses[number], True)
    flush(state, 0)
    naive.flush = True
    written: list[int] = []
    for cycle in range(4, 20):
        advance(state, 0, cycle)
        while naive.now < cycle:
            naive.step()
        assert naive.columns == state.blocks[0, WRITES]
        written += [cycle - 1] * (naive.columns - len(written))
    assert written == [6, 9, 14]
