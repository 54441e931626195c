"""Several cores: what is undefined between them, and the values of small programs for two."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lepton.chip import Chip, load_chip
from lepton.errors import CheckError
from lepton.listing import listing, parse_listing
from lepton.program import Program, load_program
from lepton.simulator import check, run_values, simulate_program
from tests.programs import hand_program, tensor
from tests.simulator.test_functional import CONVOLUTION, convolution

LOAD = "load memory=0 row_bytes=16 rows=1 planes=1"
STORE = "store memory=0 row_bytes=16 rows=1 planes=1"
FILL = "fill height=1 width=1 channels=16 value=1"
SUM = (
    "depthwise ifm_height=1 ifm_width=1 channels=4 ifm_pixel_pitch=4 ifm_row_pitch=4 "
    "kernel_height=1 kernel_width=1 stride_y=1 stride_x=1 dilation_y=1 dilation_x=1 ofm_height=1 "
    "ofm_width=1 multiplier=1 accumulator_pitch=4"
)
COMMON = 1 << 40


def _chip(cores: int = 2) -> Chip:
    return dataclasses.replace(load_chip("nano"), cores=cores)


def _program(*cores: str, chip: Chip | None = None) -> Program:
    """Return the program of a stream for each core, with an input that fills all of the SRAM."""
    text = "\n".join(f"{stream}\nhalt" for stream in cores)
    chip = chip or _chip(len(cores))
    return hand_program(text, inputs=(tensor("x", (2 << 20,), 0),), chip=chip)


def _fault(*cores: str) -> str:
    """Return the error that checking raises."""
    with pytest.raises(CheckError) as caught:
        check(_program(*cores))
    return str(caught.value)


# --- streams and halts ---------------------------------------------------------------------------


def test_a_stream_may_be_empty() -> None:
    check(_program("", ""))
    check(_program("", FILL, "", chip=_chip(3)))


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ((FILL,), r"instruction 1 \(halt.*ends its region, which halts for 1 of 2 cores"),
        ((FILL, FILL, FILL), r"instruction 3 \(halt.*halts before the end of its region"),
    ],
    ids=["too few", "too many"],
)
def test_a_region_has_a_halt_for_each_core(streams: tuple[str, ...], message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check(_program(*streams, chip=_chip(2)))


def test_the_last_core_ends_with_its_halt_too() -> None:
    program = hand_program(f"{FILL}\nhalt\n{FILL}", chip=_chip())
    with pytest.raises(CheckError, match=r"instruction 2 \(fill.*ends its region without a halt"):
        check(program)


# --- semaphores ----------------------------------------------------------------------------------


def test_cores_may_use_the_same_private_semaphore_for_other_queues() -> None:
    bit = f"{1 << 39:#x}"
    check(
        _program(
            f"{LOAD} signal={bit}\n{FILL} wait={bit}", f"{FILL} signal={bit}\n{LOAD} wait={bit}"
        )
    )


def test_a_private_semaphore_does_not_reach_another_core() -> None:
    message = _fault(f"{FILL} signal=1", f"{LOAD} wait=1")
    assert message.startswith("instruction 2 (load, operator 'net/op'): deadlock")


def test_a_common_semaphore_has_one_pair_of_queues_over_all_cores() -> None:
    pair = f"{FILL} signal={COMMON:#x}", f"{LOAD} wait={COMMON:#x}"
    check(_program(*pair))
    assert _fault("\n".join(pair), "\n".join(pair)) == (
        "instruction 3 (fill, operator 'net/op'): semaphore 40 is signalled by 1.vector and, at "
        "instruction 0, by 0.vector; it may be signalled by one queue only"
    )
    waits = f"{LOAD} wait={COMMON:#x}"
    assert "awaited by 2.load0 and, at instruction 3, by 1.load0" in _fault(
        f"{FILL} signal={COMMON:#x}\n{FILL} signal={COMMON:#x}", waits, waits
    )


def test_a_deadlock_across_cores_names_the_first_instruction_of_the_first_core() -> None:
    wait, signal = f"wait={COMMON:#x}", f"signal={2 * COMMON:#x}"
    back = f"wait={2 * COMMON:#x} signal={COMMON:#x}"
    assert _fault(f"{FILL}\n{FILL} {wait} {signal}", f"{LOAD}\n{LOAD} {back}").startswith(
        "instruction 1 (fill, operator 'net/op'): deadlock"
    )
    assert _fault(f"{FILL}", f"{LOAD}\n{LOAD} {wait}").startswith("instruction 3 (load")


# --- races and reads of nothing ------------------------------------------------------------------


def test_cores_race_in_a_memory_that_they_share() -> None:
    store = f"{FILL} signal=1\n{STORE} wait=1 address=0x100"
    assert _fault(store, f"{LOAD} address=0x10f") == (
        "instruction 3 (load, operator 'net/op'): races with instruction 1 for memory 'sram' at "
        "0x10f; no semaphore orders them"
    )
    check(_program(store, f"{LOAD} address=0x110"))
    check(_program(f"{store} signal={COMMON:#x}", f"{LOAD} address=0x100 wait={COMMON:#x}"))
    assert "instruction 4 (store" in _fault(store, store)


def test_the_order_of_one_core_does_not_order_another() -> None:
    # core 1 waits for core 0's first store, and reads what the second one writes
    stores = f"{FILL} signal=1\n{STORE} wait=1 signal={COMMON:#x}\n{STORE} address=0x100"
    assert "races with instruction 2" in _fault(stores, f"{LOAD} wait={COMMON:#x} address=0x100")
    check(_program(stores, f"{LOAD} wait={COMMON:#x}"))


def test_order_goes_through_a_third_core() -> None:
    store = f"{FILL} signal=1\n{STORE} wait=1 signal={COMMON:#x}"
    relay = f"{FILL} wait={COMMON:#x} signal={2 * COMMON:#x}"
    check(_program(store, relay, f"{LOAD} wait={2 * COMMON:#x}"))
    assert "races with instruction 1" in _fault(store, f"{FILL} wait={COMMON:#x}", LOAD)


def test_the_same_address_of_two_scratchpads_is_no_race() -> None:
    check(_program(f"{LOAD} scratchpad=0x40", f"{FILL} ofm=0x40"))
    assert "races with instruction 2 for the scratchpad of core 1 at 0x40" in _fault(
        "", f"{LOAD}\n{LOAD} scratchpad=0x40\n{FILL} ofm=0x40"
    )


REQUANTIZE = (
    "load memory=0 row_bytes=64 rows=1 planes=1 scratchpad=0x40 signal=1\n"
    "requantize height=1 width=1 channels=4 accumulator_pitch=4 ofm_row_pitch=4 "
    "ofm_pixel_pitch=4 maximum=1 ofm=0x100 parameters=0x40 wait=1"
)


@pytest.mark.parametrize(
    ("core_0", "core_1", "space"),
    [
        (
            f"{LOAD} signal={COMMON:#x}",
            f"{STORE} address=0x100 wait={COMMON:#x}",
            "scratchpad",
        ),
        (
            "weights memory=0 stream_bytes=16 reduction=4 columns=4",
            f"{LOAD} signal=1\n{SUM} wait=1",
            "weight buffer",
        ),
        (f"{LOAD} signal=1\n{SUM} wait=1 stationary=ones", REQUANTIZE, "accumulators"),
    ],
)
def test_what_one_core_wrote_the_other_has_not(core_0: str, core_1: str, space: str) -> None:
    message = f"reads 0x0 of the {space} of core 1, which nothing has written"
    assert message in _fault(core_0, core_1)


def test_the_bounds_of_each_core_are_its_own() -> None:
    size = load_chip("nano").scratchpad.size_bytes
    check(_program("", f"{LOAD} scratchpad={size - 16:#x}"))
    message = _fault("", f"{LOAD} scratchpad={size - 15:#x}")
    assert f"reaches {size + 1:#x} in the scratchpad of core 1, which has {size:#x}" in message


# --- values --------------------------------------------------------------------------------------


def test_what_core_0_stores_core_1_loads() -> None:
    text = f"""
    {LOAD} signal=1
    {STORE} wait=1 address=0x100 signal={COMMON:#x}
    halt
    {LOAD} wait={COMMON:#x} address=0x100 scratchpad=0x20 signal=1
    {STORE} wait=1 scratchpad=0x20 address=0x200
    halt
    """
    inputs, outputs = (tensor("x", (16,), 0),), (tensor("y", (16,), 0x200),)
    program = hand_program(text, inputs=inputs, outputs=outputs, chip=_chip())
    program = load_program(program.to_bytes())
    x = np.arange(16, dtype=np.int8)
    result = simulate_program(program, {"x": x})
    assert result.outputs["y"].tolist() == x.tolist()
    assert result.trace is not None
    assert (result.trace.records["start"][3] >= result.trace.records["retire"][1]).all()


def _both(seed: int, other: int) -> Program:
    """Return two convolutions at the same addresses of two cores, with constants of their own."""
    (first, *_), (second, *_) = convolution(seed), convolution(other)
    size = len(first.constants)
    moved = CONVOLUTION
    for old, address in ((0x1000, 0x1000), (0x106C, 0x106C), (0x200, 0x400 - size)):
        moved = moved.replace(f"address={old:#x} ", f"address={address + size:#x} ")
    return hand_program(
        CONVOLUTION + moved,
        constants=np.concatenate([first.constants, second.constants]),
        inputs=(first.tensor_by_name["x"],),
        outputs=(
            first.tensor_by_name["y"],
            dataclasses.replace(first.tensor_by_name["y"], name="z", address=0x400),
        ),
        chip=_chip(),
    )


def test_scratchpad_weights_and_accumulators_are_each_cores_own() -> None:
    program = load_program(_both(1, 2).to_bytes())
    check(program)
    x = np.random.default_rng(3).integers(-128, 128, (1, 5, 6, 3), dtype=np.int8)
    found = run_values(program, {"x": x})
    for name, seed in (("y", 1), ("z", 2)):
        alone = run_values(convolution(seed)[0], {"x": x})["y"]
        assert np.array_equal(found[name], alone)
    assert not np.array_equal(found["y"], found["z"])


# --- text and files ------------------------------------------------------------------------------


def test_listing_and_file_come_back() -> None:
    program = _both(1, 2)
    assert load_program(program.to_bytes()).to_bytes() == program.to_bytes()
    text = listing(program)
    assert parse_listing(text).to_bytes() == program.to_bytes()
    assert text.count("\nhalt") == 2
    by_hand = parse_listing("halt\nfill height=1 width=1 channels=1 ofm_row_pitch=1\nhalt", _chip())
    check(by_hand)
    assert by_hand.chip.cores == 2
