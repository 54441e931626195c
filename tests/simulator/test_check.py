"""Undefined behaviour: each rule of the checker, provoked by a small program that breaks it."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton.chip import chip_from_table, chip_to_table, load_chip
from lepton.chip.description import Sparsity
from lepton.codec import Decoder, encode_weights
from lepton.errors import CheckError
from lepton.isa.instructions import WeightFormat
from lepton.program import Program, ProgramTensor, Region
from lepton.simulator import check, run_values, simulate_program
from lepton.simulator import check_kernels as kernels
from lepton.simulator.check_fields import box_fault
from tests.programs import hand_program, raw_program, tensor

LOAD = "load memory=0 row_bytes=16 rows=1 planes=1"
STORE = "store memory=0 address=0x100 row_bytes=16 rows=1 planes=1"
FILL = "fill height=1 width=1 channels=16 value=1"
MATMUL = (
    "matmul ifm_height=1 ifm_width=1 channels=4 ifm_pixel_pitch=4 ifm_row_pitch=4 kernel_height=1 "
    "kernel_width=1 stride_y=1 stride_x=1 dilation_y=1 dilation_x=1 ofm_height=1 ofm_width=1 "
    "columns=4 accumulator_pitch=4"
)
POOL = MATMUL.replace("matmul", "pool").replace("columns=4 accumulator_pitch=4", "ofm=0x40")


def whole(text: str, constants: bytes | NDArray[np.uint8] = b"") -> Program:
    """Return the program of `text` and a halt, with an input that fills all of the SRAM."""
    return hand_program(f"{text}\nhalt", constants=constants, inputs=(tensor("x", (2 << 20,), 0),))


def fault(text: str, constants: bytes = b"") -> str:
    """Return the text of the CheckError that checking the program raises."""
    with pytest.raises(CheckError) as caught:
        check(whole(text, constants))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def accepted(text: str) -> None:
    check(whole(text))


def test_legal_programs_are_accepted() -> None:
    accepted("")
    accepted(f"{LOAD} signal=1\n{STORE} wait=1")
    accepted(f"{FILL} signal=1\n{MATMUL} stationary=ones wait=1")


def test_a_race_of_write_and_read() -> None:
    assert fault(f"{LOAD} scratchpad=0x40\n{STORE} scratchpad=0x4f") == (
        "instruction 1 (store, operator 'net/op'): races with instruction 0 for the scratchpad at "
        "0x4f; no semaphore orders them"
    )
    # side by side they do not meet, but the store reads what nothing wrote
    assert "nothing has written" in fault(f"{LOAD} scratchpad=0x40\n{STORE} scratchpad=0x50")


def test_a_race_of_two_writes() -> None:
    assert "races with instruction 0" in fault(f"{LOAD}\n{FILL}")
    accepted(f"{LOAD} signal=1\n{FILL} wait=1")


def test_a_race_of_a_later_write_with_an_earlier_read() -> None:
    ordered = f"{LOAD} signal=1\n{STORE} wait=1"
    assert "instruction 2 (fill" in fault(f"{ordered}\n{FILL}")
    assert "races with instruction 1" in fault(
        f"{ordered} signal=0\n{FILL} wait=2\n{LOAD} signal=2"
    )
    accepted(f"{ordered} signal=2\n{FILL} wait=2")


def test_a_chip_that_skips_zeros_takes_weights_in_the_order_of_the_program() -> None:
    read = "weights memory=1 address=0x1000 stream_bytes=16 reduction=4 columns=4"
    behind = f"{LOAD} signal=1\n{MATMUL} wait=3\n{read} signal=2"
    before = f"{LOAD} signal=1\n{read} signal=2\n{MATMUL} wait=3"
    twice = f"{LOAD} signal=1\n{read}\n{MATMUL} wait=3\n{read} signal=2"
    again = f"{LOAD} signal=1\n{read} signal=2\n{MATMUL} wait=3 signal=4\n{read} wait=4"
    skipping = dataclasses.replace(load_chip("nano"), sparsity=Sparsity(2, 2, True, 4))
    for text, is_legal in ((behind, True), (before, True), (twice, False), (again, True)):
        program = whole(text, bytes(16))
        check(program)
        program = dataclasses.replace(program, chip=skipping)
        if is_legal:
            check(program)
            continue
        with pytest.raises(CheckError, match=r"instruction 2 \(matmul.*weights that come behind"):
            check(program)


def test_a_race_in_a_memory_is_one_too() -> None:
    text = f"{FILL} signal=1\n{STORE} wait=1\n{LOAD} scratchpad=0x40 address=0x100"
    assert "races with instruction 1 for memory 'sram' at 0x100" in fault(text)


def test_order_goes_through_a_third_queue() -> None:
    accepted(f"{LOAD} signal=1\n{FILL} ofm=0x40 wait=1 signal=2\n{STORE} wait=2")


def test_boxes_between_each_other_do_not_race() -> None:
    every_second = "fill height=1 width=8 channels=1 ofm_pixel_pitch=2"
    strided = "load memory=0 row_bytes=1 rows=8 planes=1 row_stride=1 scratchpad_row_pitch=2"
    accepted(f"{every_second}\n{strided} scratchpad=1")
    assert "races" in fault(f"{every_second}\n{strided} scratchpad=2")


def test_the_nth_wait_takes_the_nth_signal() -> None:
    first, second = f"{LOAD} signal=1", f"{LOAD} scratchpad=0x40 signal=1"
    accepted(f"{first}\n{second}\n{FILL} wait=1\n{FILL} ofm=0x40 wait=1")
    assert "races with instruction 1" in fault(f"{first}\n{second}\n{FILL} ofm=0x40 wait=1")


@pytest.mark.parametrize(
    ("text", "at", "space"),
    [
        (f"{STORE} scratchpad=0x80", 0x80, "the scratchpad"),
        (f"{FILL}\nlut height=1 width=1 channels=17 table=0 ofm=0x400", 0x10, "the scratchpad"),
        (
            f"{FILL}\nrequantize height=1 width=1 channels=1 accumulator=0x7 ofm=0x80",
            0x7,
            "the accumulators",
        ),
        (f"{FILL} signal=1\n{MATMUL} wait=1 stationary_address=0x9", 0x9, "the weight buffer"),
        (
            f"{FILL} signal=1\n{MATMUL} wait=1 stationary=ones accumulate=1 accumulator=0x5",
            0x5,
            "the accumulators",
        ),
    ],
)
def test_an_uninitialized_read(text: str, at: int, space: str) -> None:
    last = len(text.splitlines()) - 1
    message = fault(text)
    assert message.startswith(f"instruction {last} (")
    assert message.endswith(f"reads {at:#x} of {space}, which nothing has written")


def test_a_region_starts_from_a_cold_chip() -> None:
    made = hand_program(f"{FILL}\nhalt\nlut height=1 width=1 channels=16 ofm=0x400\nhalt")
    check_regions = [Region("npu", 0, 2, (), (), -1), Region("npu", 2, 4, (), (), -1)]
    with pytest.raises(CheckError, match="which nothing has written"):
        check(dataclasses.replace(made, regions=tuple(check_regions)))


def test_a_deadlock() -> None:
    message = "deadlock, it waits for a signal that never comes"
    assert fault(f"{FILL} wait=1").endswith(message)
    # each waits for the other
    text = f"{LOAD} wait=2 signal=1\n{FILL} ofm=0x40 wait=1 signal=2"
    assert fault(text) == f"instruction 0 (load, operator 'net/op'): {message}"
    # the signal stands behind the wait in the same queue
    assert fault(f"{FILL} wait=1\n{FILL} signal=1").startswith("instruction 0 (fill")
    # more waits than signals
    assert fault(f"{LOAD} signal=1\n{FILL} wait=1\n{FILL} wait=1").startswith("instruction 2 (fill")


def test_a_full_queue_that_blocks_dispatch_is_a_deadlock() -> None:
    depth = load_chip("nano").control.queue_depth
    waiting = f"{FILL} wait=1\n" + f"{FILL}\n" * (depth - 1)
    load = f"{LOAD} scratchpad=0x40 signal=1"
    accepted(waiting + load)
    assert fault(waiting + f"{FILL}\n" + load).startswith("instruction 0 (fill")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LOAD} scratchpad=0x3fff1", "reaches 0x40001 in the scratchpad, which has 0x40000"),
        (f"{LOAD} address=0x1ffff1", "reaches 0x200001 in memory 'sram', which has 0x200000"),
        (
            "store memory=1 address=0x3fffff1 row_bytes=16 rows=1 planes=1",
            "reaches 0x4000001 in memory 'flash'",
        ),
        (
            "weights memory=0 stream_bytes=16 buffer=0x7ff1 reduction=4 columns=4",
            "reaches 0x8001 in the weight buffer, which has 0x8000",
        ),
        (
            f"{MATMUL} stationary=ones accumulator=0x1ffd",
            "reaches 0x2001 in the accumulators, which has 0x2000",
        ),
        (
            "load memory=0 row_bytes=1 rows=3 planes=2 row_stride=1 plane_stride=3 "
            "scratchpad_row_pitch=0x10000 scratchpad_plane_pitch=0x20000",
            "reaches 0x40001 in the scratchpad",
        ),
    ],
)
def test_out_of_bounds(text: str, message: str) -> None:
    assert message in fault(text)


def test_the_last_byte_is_inside() -> None:
    accepted(f"{LOAD} scratchpad=0x3fff0 address=0x1ffff0")


def test_a_store_into_the_constants() -> None:
    into = "store memory=1 row_bytes=16 rows=1 planes=1 wait=1 address="
    text = f"{FILL} signal=1\n{into}"
    assert fault(text + "0x1003", bytes(4)) == (
        "instruction 1 (store, operator 'net/op'): stores into the constant segment"
    )
    assert "constant segment" in fault(text + "0xff1", bytes(4))
    check(whole(text + "0x1004", constants=bytes(4)))
    check(whole(text + "0xff0", constants=bytes(4)))


def test_a_store_into_the_program() -> None:
    text = f"{FILL} signal=1\nstore memory=1 row_bytes=16 rows=1 planes=1 wait=1 address="
    end = 0x100000 + len(whole(text + "0x100020").stream)
    assert "stores into the program segment" in fault(text + hex(end - 1))
    accepted(text + hex(end))


def test_a_semaphore_with_two_signalling_queues() -> None:
    assert fault(f"{LOAD} scratchpad=0x40 signal=4\n{FILL} signal=4") == (
        "instruction 1 (fill, operator 'net/op'): semaphore 2 is signalled by vector and, at "
        "instruction 0, by load0; it may be signalled by one queue only"
    )


def test_a_semaphore_with_two_waiting_queues() -> None:
    text = f"{FILL} signal=1\n{FILL} signal=1\n{LOAD} wait=1\n{STORE} wait=1"
    assert "semaphore 0 is awaited by store0 and, at instruction 2, by load0" in fault(text)


@pytest.mark.parametrize("verb", ["wait", "signal"])
def test_control_has_no_semaphores(verb: str) -> None:
    with pytest.raises(CheckError, match="a control instruction has no queue to wait or signal"):
        check(hand_program(f"halt {verb}=1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LOAD} channel=1", "the chip has no such DMA channel"),
        (f"{STORE} channel=7", "the chip has no such DMA channel"),
        ("load memory=2", "memory 2 does not exist"),
        ("store memory=7", "memory 7 does not exist"),
        ("weights memory=3", "memory 3 does not exist"),
        (
            "weights reduction=4 columns=4 stream_bytes=15",
            "a raw stream must have reduction x columns bytes",
        ),
        (
            "weights reduction=4 columns=4 stream_bytes=16 format=grouped",
            "an encoded stream must be shorter than its 16 elements",
        ),
        (
            "weights reduction=4 columns=4 stream_bytes=9 format=palette",
            "an encoded stream must lie in the constant segment",
        ),
        ("lut table_pitch=255", "table_pitch must be 0 or 256, not 255"),
        (MATMUL.replace("stride_y=1", ""), "strides and dilations must be at least 1"),
        (MATMUL.replace("dilation_x=1", ""), "strides and dilations must be at least 1"),
        (POOL.replace("stride_x=1", ""), "strides and dilations must be at least 1"),
        (MATMUL.replace("kernel_height=1", ""), "the kernel must be at least 1 x 1"),
        (POOL.replace("kernel_width=1", ""), "the kernel must be at least 1 x 1"),
        (
            MATMUL.replace("matmul", "depthwise").replace("columns=4", "stationary=scratchpad"),
            "depthwise weights must be in the weight buffer, or ones",
        ),
        (
            MATMUL.replace("matmul", "depthwise").replace("columns=4", ""),
            "the channel multiplier must be at least 1",
        ),
        ("resize mode=linear_q10 ofm_height=1 ofm_width=1 channels=1", "a resize needs a source"),
    ],
)
def test_fields_that_mean_nothing_together(text: str, message: str) -> None:
    assert fault(text).startswith("instruction 0 (")
    assert message in fault(text)


STREAM = "weights memory=1 address=0x1000 stream_bytes={} format=grouped reduction=10 columns=10"


def test_weight_streams() -> None:
    block = np.tile(np.arange(10, dtype=np.uint8), 10)
    content = encode_weights(block, Decoder(16)).content.tobytes()
    text = STREAM.format(len(content))
    check(whole(text, content))
    assert fault(text, content[:-1] + b"\xff") == (
        "instruction 0 (weights, operator 'net/op'): the weight stream goes on behind its 100 "
        "elements"
    )
    assert "ends before its 100" in fault(STREAM.format(len(content) - 1), content)
    assert "must lie in the constant segment" in fault(text, content[:-1])
    assert "must lie in the constant segment" in fault(text.replace("0x1000", "0xfff"), content)
    twice = f"{text}\n{text.replace('columns=10', 'columns=11')}"
    assert fault(twice, content).startswith("instruction 1 (weights")


def copied(content: bytes, extra: str = "") -> str:
    """Return a program that reads a stream from a copy of two pieces in memory 0."""
    size = len(content)
    pieces = [(0, 7), (7, size - 7)]
    lines = []
    for number, (at, count) in enumerate(pieces):
        waits = "wait=4 " if number else ""
        lines.append(
            f"load {waits}signal=1 memory=1 address={0x1000 + at} scratchpad=64 "
            f"row_bytes={count} rows=1 planes=1"
        )
        lines.append(
            f"store wait=1 signal={2 if number else 4} memory=0 address={0x200 + at} "
            f"scratchpad=64 row_bytes={count} rows=1 planes=1"
        )
    text = STREAM.format(size).replace("memory=1 address=0x1000", "wait=2 memory=0 address=0x200")
    return "\n".join([*lines, *filter(None, [extra]), text])


def test_streams_copied_from_the_constants() -> None:
    block = np.tile(np.arange(10, dtype=np.uint8), 10)
    content = encode_weights(block, Decoder(16)).content.tobytes()
    check(whole(copied(content), content))
    damaged = content[:-1] + b"\xff"
    assert "goes on behind its 100" in fault(copied(damaged), damaged)
    elsewhere = copied(content).replace(f"address={0x207}", f"address={0x206}")
    assert "be copied from there" in fault(elsewhere, content)
    beyond = copied(content).replace(f"address={0x1007}", f"address={0x1008}")
    assert "be copied from there" in fault(beyond, content)


def test_a_chip_that_skips_zeros_takes_copies_in_the_order_of_the_program() -> None:
    digits = np.arange(10, dtype=np.uint8)
    streams = [encode_weights(np.tile(d, 10), Decoder(16)).content for d in (digits, digits[::-1])]
    constants = np.concatenate(streams)
    size, half = len(streams[0]), 30
    load, store = "load memory=1 rows=1 planes=1", "store memory=0 rows=1 planes=1"
    read = STREAM.format(size).replace("memory=1 address=0x1000", "wait=2 memory=0 address=0x200")
    # the second half of another stream comes in the place of the first one's
    whole_one = f"{load} address=0x1000 scratchpad=64 row_bytes={size}"
    other_half = f"{load} address={0x1000 + size + half} scratchpad={64 + half} " + (
        f"row_bytes={size - half} signal=1"
    )
    copy = f"{store} wait=1 signal=2 address=0x200 scratchpad=64 row_bytes={size}"
    program = whole("\n".join([whole_one, other_half, copy, read]), constants)
    check(program)
    skipping = dataclasses.replace(load_chip("nano"), sparsity=Sparsity(2, 2, True, 4))
    with pytest.raises(CheckError, match="reads a copy of other constants than those at byte 0,"):
        check(dataclasses.replace(program, chip=skipping))
    in_order = "\n".join([f"{whole_one} signal=1", copy, read])
    check(dataclasses.replace(whole(in_order, constants), chip=skipping))


def test_a_stream_of_groups_too_small_for_the_decoder() -> None:
    content = bytes([0, 0, 0, 0])
    text = "weights memory=1 address=0x1000 stream_bytes=4 format=grouped reduction=32 columns=1"
    check(whole(text, content))
    program = whole(text, content)
    buffer = dataclasses.replace(program.chip.weight_buffer, decoder_bytes_per_cycle=32)
    faster = dataclasses.replace(program.chip, weight_buffer=buffer)
    with pytest.raises(CheckError, match="32 bytes per cycle needs groups of at least 16 elem"):
        check(dataclasses.replace(program, chip=faster))


def test_a_stream_for_other_lanes_than_the_decoders() -> None:
    block = np.random.default_rng(0).binomial(20, 0.5, 500).astype(np.uint8)
    stream = encode_weights(block, Decoder(16, 8))
    assert stream.format == WeightFormat.ENTROPY
    content = stream.content.tobytes()
    text = (
        f"weights memory=1 address=0x1000 stream_bytes={len(content)} format=entropy "
        "reduction=500 columns=1"
    )
    check(whole(text, content))
    program = whole(text, content)
    for lanes in (0, 4, 16):
        buffer = dataclasses.replace(program.chip.weight_buffer, entropy_lanes=lanes)
        other = dataclasses.replace(program.chip, weight_buffer=buffer)
        with pytest.raises(CheckError, match=f"is for 8 lanes, the decoder has {lanes}$"):
            check(dataclasses.replace(program, chip=other))


def overflowing(times: int) -> Program:
    """Return a program that adds 16 * 255 * 255 * 4 into one accumulator `times` times."""
    matmul = MATMUL.replace("channels=4", "channels=16320").replace("ifm_pixel_pitch=4", "")
    matmul = matmul.replace("columns=4", "columns=1").replace("accumulator_pitch=4", "")
    text = (
        "fill height=1 width=1 channels=16320 value=255 signal=1\n"
        f"weights memory=1 address=0x1000 stream_bytes=16320 reduction=16320 columns=1 signal=2\n"
        f"{matmul} ifm_unsigned=1 weight_unsigned=1 wait=3\n"
    )
    more = f"{matmul} ifm_unsigned=1 weight_unsigned=1 accumulate=1\n" * (times - 1)
    return hand_program(f"{text}{more}halt", constants=np.full(16320, 255, np.uint8))


def test_an_accumulator_overflow() -> None:
    one = 16320 * 255 * 255
    assert 2 * one < 2**31 - 1 < 3 * one
    check(overflowing(3))
    run_values(overflowing(2), {})
    with pytest.raises(CheckError) as caught:
        run_values(overflowing(3), {})
    assert str(caught.value) == (
        f"instruction 4 (matmul, operator 'net/op'): matmul: an accumulator overflows int32 with "
        f"{3 * one}"
    )


def test_a_bias_that_overflows() -> None:
    bias = np.array([2**31 - 1, 1 << 30], np.int32).tobytes() + b"\0"
    text = (
        "load memory=1 address=0x1000 row_bytes=9 rows=1 planes=1 scratchpad=0x40 signal=1\n"
        "fill height=1 width=1 channels=4 value=1 signal=2\n"
        f"{MATMUL.replace('columns=4', 'columns=1')} stationary=ones wait=2 signal=4\n"
        "requantize height=1 width=1 channels=1 parameters=0x40 ofm=0x80 wait=5\nhalt\n"
    )
    program = hand_program(text, constants=bias)
    check(program)
    with pytest.raises(CheckError, match="an accumulator and its bias overflow int32"):
        run_values(program, {})


def test_a_resize_source_outside_of_the_tile() -> None:
    index = np.array([0, 3], np.int32).tobytes()
    text = (
        "load memory=1 address=0x1000 row_bytes=8 rows=1 planes=1 scratchpad=0x40 signal=1\n"
        "fill height=1 width=3 channels=1 ofm_pixel_pitch=1 value=1\n"
        "resize ifm_height=1 ifm_width=3 ifm_pixel_pitch=1 channels=1 ofm_height=1 ofm_width=1 "
        "ofm=0x80 parameters=0x40 wait=1\n"
    )
    with pytest.raises(CheckError, match="a source index lies outside of the tile's 3"):
        run_values(hand_program(text, constants=index), {})


def test_simulating_checks_first_unless_told() -> None:
    program = hand_program(f"{FILL} wait=1\nhalt")
    with pytest.raises(CheckError, match="deadlock"):
        simulate_program(program, None)


def test_outputs_that_nothing_stores_are_refused() -> None:
    program = hand_program("halt", outputs=(tensor("y", (4,), 0x100),))
    with pytest.raises(CheckError, match="the program returns tensor 'y', which nothing has writt"):
        check(program)


def test_memory_is_read_only_where_something_was_written() -> None:
    text = "load memory=0 address=0x100 row_bytes=16 rows=1 planes=1\nhalt"
    check(hand_program(text, inputs=(tensor("x", (16,), 0x100),)))
    with pytest.raises(CheckError, match="reads 0x10f of memory 'sram', which nothing has written"):
        check(hand_program(text, inputs=(tensor("x", (15,), 0x100),)))
    flash = text.replace("memory=0 address=0x100", "memory=1 address=0x1000")
    check(hand_program(flash, constants=bytes(16)))
    with pytest.raises(CheckError, match="reads 0x100f of memory 'flash'"):
        check(hand_program(flash, constants=bytes(15)))
    # what an earlier region stored is there for a later one
    two = f"{FILL} signal=1\n{STORE} wait=1\nhalt\n{text}"
    regions = (Region("npu", 0, 3, (), (), -1), Region("npu", 3, 5, (), (), -1))
    check(dataclasses.replace(hand_program(two), regions=regions))
    with pytest.raises(CheckError, match="ends its region without a halt"):
        check(hand_program(two.replace("\nhalt", "", 2)))


def test_host_regions_read_what_was_written() -> None:
    z = ProgramTensor("z", (4,), "int8", None, 0, -1, 0)
    y = tensor("y", (16,), 0x100)
    made = hand_program(f"{FILL} signal=1\n{STORE} wait=1\nhalt", outputs=(y,))
    host = Region("host", 0, 0, ("y",), ("z",), 0)
    made = dataclasses.replace(made, tensors=(y, z), outputs=("z",), host_models=(b"",))
    check(dataclasses.replace(made, regions=(*made.regions, host)))
    with pytest.raises(CheckError, match="host region 0 reads tensor 'y', which nothing has"):
        check(dataclasses.replace(made, regions=(host, *made.regions)))
    with pytest.raises(CheckError, match="the program returns tensor 'z', which nothing has"):
        check(made)


def test_a_region_ends_at_its_only_halt() -> None:
    with pytest.raises(CheckError, match=r"instruction 0 \(fill.*ends its region without a halt"):
        check(hand_program(FILL))
    assert "instruction 0 (halt, operator 'net/op'): halts before the end" in fault("halt")


def test_a_program_that_reaches_too_far_is_refused_before_memory_is_taken() -> None:
    table = chip_to_table(load_chip("edge"))
    memory = cast("list[dict[str, object]]", table["memory"])[0]
    chip = chip_from_table(table | {"memory": [memory | {"size_mib": 1 << 20}]}, "x")
    text = (
        f"{FILL} signal=1\nstore wait=1 memory=0 address=0xff00000000 row_bytes=1 rows=1 planes=1"
    )
    with pytest.raises(CheckError, match="bytes of memory, more than the 8589934592 that can be"):
        check(hand_program(f"{text}\nhalt", chip=chip))


def test_boxes_too_scattered_to_decide_count_as_overlapping() -> None:
    evens = np.array([0, 0, 1, 0, 1, 300, 601, 300, 2, 1, 0], np.int64)
    odds = evens.copy()
    odds[3] = 1
    budget = np.array([1 << 30], np.int64)
    assert kernels.boxes_overlap(evens, evens, budget)
    assert not kernels.boxes_overlap(evens, odds, budget)
    assert budget[0] > 0
    assert kernels.boxes_overlap(evens, odds, np.array([10], np.int64))


BOXES = st.lists(st.integers(0, 5), min_size=8, max_size=8)


@given(BOXES, BOXES)
def test_overlap_equals_plain_loops(first: list[int], second: list[int]) -> None:
    def box(numbers: list[int]) -> NDArray[np.int64]:
        base, run, n0, s0, n1, s1, n2, s2 = numbers
        return np.array([0, 0, 1, base, run + 1, n0 + 1, s0, n1 + 1, s1, n2 + 1, s2], np.int64)

    def runs(made: NDArray[np.int64]) -> list[list[int]]:
        _, _, _, base, run, n0, s0, n1, s1, n2, s2 = made.tolist()
        starts = [
            base + i * s0 + j * s1 + k * s2 for i in range(n0) for j in range(n1) for k in range(n2)
        ]
        return [list(range(at, at + run)) for at in starts]

    a, b = box(first), box(second)
    units = [{unit for run in runs(made) for unit in run} for made in (a, b)]
    assert kernels.boxes_overlap(a, b, np.array([1 << 40])) is bool(units[0] & units[1])
    flat = [unit for run in runs(a) for unit in run]
    assert bool(box_fault(a)) is (len(flat) != len(set(flat)))


def test_an_empty_stream_has_no_regions() -> None:
    check(raw_program(b"", b"", (), (), load_chip("nano")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fill height=1 width=1 channels=1100\nsoftmax rows=1 ofm=0x2000", "channels must be at"),
        ("fill height=0 width=1 channels=4", "height must be at least 1"),
        (
            "load memory=0 row_bytes=4 rows=2 planes=1 row_stride=4 scratchpad_row_pitch=1",
            "writes the same place twice",
        ),
        ("fill height=2 width=1 channels=4 ofm_row_pitch=3", "writes the same place twice"),
        ("fill height=3 width=2 channels=1 ofm_row_pitch=2 ofm_pixel_pitch=4", "the same place"),
        (
            "fill height=65535 width=65535 channels=1",
            "touches 4294836225 runs of 1, more than an instruction may",
        ),
        (f"{POOL} minimum=1", "minimum must not exceed maximum, which 1 and 0 do"),
        (f"{POOL} minimum=-129", "must be 8-bit values of one type, not -129 and 0"),
        (f"{POOL} minimum=-1 maximum=128", "must be 8-bit values of one type, not -1 and 128"),
        (f"{POOL} maximum=127 pad_left=1", "the window of output column 0 has no tap inside"),
        (f"{POOL} maximum=127 pad_top=-1", "the window of output row 0 has no tap inside"),
        (
            MATMUL.replace("ofm_height=1 ofm_width=1", "ofm_height=65535 ofm_width=65535"),
            "needs 17179344900 operands at a time, more than 268435456",
        ),
        (
            POOL.replace("ofm_height=1 ofm_width=1", "ofm_height=65535 ofm_width=65535"),
            "asks for 17179344900 operations, more than 4294967296",
        ),
    ],
)
def test_instructions_without_a_defined_result(text: str, message: str) -> None:
    assert message in fault(text)


IN_PLACE = "height=2 width=3 channels=4 ofm=0x100 ofm_row_pitch=12 ofm_pixel_pitch=4"
READ_A = "a=0x100 a_row_pitch=12 a_pixel_pitch=4 a_channel_pitch=1"
READ_B = "b=0x200 b_row_pitch=12 b_pixel_pitch=4 b_channel_pitch=1"


def written(text: str) -> str:
    """Return a program that fills what the instruction reads."""
    fill = "fill height=1 width=1 channels=4096 value=1 ofm="
    return f"{fill}0 signal=1\n{text} wait=1"


@pytest.mark.parametrize(
    "text",
    [
        f"binary mode=maximum {IN_PLACE} {READ_A} {READ_B}",
        f"binary mode=maximum {IN_PLACE} {READ_B.replace('b', 'a', 1).replace('b_', 'a_')} "
        f"{READ_A.replace('a', 'b', 1).replace('a_', 'b_')}",
        f"lut {IN_PLACE} ifm=0x100 ifm_row_pitch=12 ifm_pixel_pitch=4 table=0x300",
    ],
)
def test_a_result_may_lie_exactly_on_an_operand(text: str) -> None:
    accepted(written(text))


@pytest.mark.parametrize(
    "text",
    [
        f"binary mode=maximum {IN_PLACE} {READ_A.replace('0x100', '0x101')} {READ_B}",
        f"binary mode=maximum {IN_PLACE} {READ_A.replace('row_pitch=12', 'row_pitch=0')} {READ_B}",
        f"binary mode=maximum {IN_PLACE} {READ_A.replace('channel_pitch=1', 'channel_pitch=0')} "
        f"{READ_B}",
        f"lut {IN_PLACE} ifm=0x100 ifm_row_pitch=12 ifm_pixel_pitch=4 table=0x110",
        f"lut {IN_PLACE} ifm=0x0ff ifm_row_pitch=12 ifm_pixel_pitch=4 table=0x300",
        f"{POOL.replace('ofm=0x40', 'ofm=0x80')} ifm=0x80 maximum=127",
    ],
)
def test_a_result_that_lies_on_what_is_still_to_be_read(text: str) -> None:
    assert "where it reads from" in fault(written(text))


def test_interleaved_writes_that_do_not_meet_are_legal() -> None:
    accepted("fill height=2 width=3 channels=1 ofm_row_pitch=3 ofm_pixel_pitch=2")
    accepted("fill height=4 width=2 channels=2 ofm_row_pitch=2 ofm_pixel_pitch=100")
    assert "same place" in fault(
        "fill height=3 width=4 channels=1 ofm_row_pitch=3 ofm_pixel_pitch=2"
    )


@pytest.mark.parametrize("shift", [-128, -32, 32, 127])
def test_a_shift_that_no_shifter_has(shift: int) -> None:
    record = np.array([0, 1 << 30], np.int32).tobytes() + np.int8(shift).tobytes()
    text = (
        "load memory=1 address=0x1000 row_bytes=9 rows=1 planes=1 scratchpad=0x40 signal=1\n"
        "fill height=1 width=1 channels=4 value=1 signal=2\n"
        f"{MATMUL.replace('columns=4', 'columns=1')} stationary=ones wait=2 signal=4\n"
        "requantize height=1 width=1 channels=1 parameters=0x40 ofm=0x80 wait=5\nhalt\n"
    )
    program = hand_program(text, constants=record)
    check(program)
    with pytest.raises(CheckError, match=f"a shift must be -31 to 31, not {shift}"):
        run_values(program, {})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_factor_that_is_no_number(value: float) -> None:
    record = np.zeros(1, np.int32).tobytes() + np.float32(value).tobytes()
    text = (
        "load memory=1 address=0x1000 row_bytes=8 rows=1 planes=1 scratchpad=0x40 signal=1\n"
        "fill height=1 width=1 channels=4 value=1 signal=2\n"
        f"{MATMUL.replace('columns=4', 'columns=1')} stationary=ones wait=2 signal=4\n"
        "requantize height=1 width=1 channels=1 parameters=0x40 ofm=0x80 wait=5 mode=float32\nhalt"
    )
    with pytest.raises(CheckError, match="a parameter is NaN or infinite"):
        run_values(hand_program(text, constants=record), {})


def test_records_of_the_vector_unit_are_checked() -> None:
    fill = "fill height=1 width=1 channels=1100 value=0xff\n"
    softmax = "softmax rows=1 channels=4 ofm=0x2000 mode=q31\nhalt"
    check(hand_program(fill + softmax))
    run_values(hand_program(fill.replace("0xff", "0") + softmax), {})
    with pytest.raises(CheckError, match="parameter left_shift must not be negative, not -1"):
        run_values(hand_program(fill + softmax), {})
    with pytest.raises(CheckError, match="softmax: a parameter is NaN or infinite"):
        run_values(hand_program(fill + softmax.replace("q31", "float32_table")), {})
