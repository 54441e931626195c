"""The presets are pinned: a change to one needs a note in docs/results.md."""

from __future__ import annotations

import dataclasses
import os
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest

from lepton.chip import PRESETS, Chip, Dram, Flat, chip_from_table, chip_to_table, load_chip
from lepton.chip.description import Sparsity
from lepton.errors import ChipError


class Pinned(NamedTuple):
    """What the brief says of a preset; sizes in KiB, bandwidths in bytes per NPU cycle."""

    macs: int
    clock_mhz: int
    array: tuple[int, int, int]
    lanes: int
    scratchpad: int
    accumulators: int
    weight_buffer: int
    bandwidth: dict[str, Fraction]
    entropy_lanes: int


PINNED = {
    "nano": Pinned(
        256, 500, (16, 16, 1), 16, 256, 32, 32, {"sram": Fraction(8), "flash": Fraction(1)}, 8
    ),
    "edge": Pinned(1024, 1000, (32, 32, 1), 64, 1024, 128, 128, {"dram": Fraction(256, 10)}, 32),
    "server": Pinned(16384, 1000, (64, 64, 4), 256, 32768, 2048, 4096, {"dram": Fraction(256)}, 0),
    "like-u55-256": Pinned(
        256, 500, (16, 16, 1), 16, 24, 12, 12, {"sram": Fraction(8), "flash": Fraction(1)}, 8
    ),
    "like-u85-1024": Pinned(
        1024, 1000, (32, 16, 2), 32, 128, 64, 64, {"sram": Fraction(32), "dram": Fraction(12)}, 32
    ),
}


PINNED |= {f"{name}-sparse": PINNED[name] for name in ("edge", "server", "like-u85-1024")}
"""The same, with the options of `test_sparse_presets_differ_in_what_they_skip`."""

TIMINGS = [name for name in Dram.__annotations__ if name.startswith("t")]
PINNED_TIMINGS = {
    "edge": (28, 14, 29, 29, 68, 30, 12, 8, 8, 16, 16, 64, 17, 17, 448, 6246, 8, 4),
    "server": (14, 4, 14, 14, 34, 16, 6, 2, 4, 4, 6, 16, 6, 8, 350, 3900, 2, 0),
}


@pytest.fixture(params=PRESETS)
def chip(request: pytest.FixtureRequest) -> Chip:
    """Each preset in turn."""
    return load_chip(request.param)


def test_every_preset_is_pinned() -> None:
    assert set(PRESETS) == set(PINNED)


def test_figures(chip: Chip) -> None:
    found = Pinned(
        chip.peak_macs_per_cycle,
        int(chip.array.clock_mhz),
        (chip.array.rows, chip.array.columns, chip.array.count),
        chip.vector.lanes,
        chip.scratchpad.size_kib,
        chip.accumulators.size_kib,
        chip.weight_buffer.size_kib,
        {memory.name: chip.bytes_per_cycle(memory) for memory in chip.memories},
        chip.weight_buffer.entropy_lanes,
    )
    assert found == PINNED[chip.name]


def test_several_arrays_deal_pixels(chip: Chip) -> None:
    assert chip.array.deals_pixels == (chip.array.count > 1)
    assert chip.array.deals_pixels == chip.name.startswith(("server", "like-u85-1024"))


@pytest.mark.parametrize("name", ["edge", "server", "like-u85-1024"])
def test_sparse_presets_differ_in_what_they_skip(name: str) -> None:
    plain, sparse = load_chip(name), load_chip(f"{name}-sparse")
    assert plain.sparsity is None
    window, words = (12, 12) if name == "like-u85-1024" else (6, 8)
    assert sparse.sparsity == Sparsity(lanes=8, window=window, zero_blocks=True, feed_words=words)
    names = {"name": plain.name, "description": plain.description}
    sources = {key: text for key, text in sparse.sources.items() if key != "sparsity"}
    same = dataclasses.replace(sparse, **names, sources=sources, sparsity=None)
    assert same == plain
    assert "sparsity" not in chip_to_table(plain)


def test_clock_is_exact(chip: Chip) -> None:
    assert chip.cycles_per_second == chip.array.clock_mhz * 1_000_000
    for clock in (chip.array.clock_mhz, *(memory.clock_mhz for memory in chip.memories)):
        assert chip.ticks(clock) * clock * 1_000_000 == chip.ticks_per_second


def test_every_constant_is_sourced(chip: Chip) -> None:
    for section in dataclasses.fields(chip):
        if section.name in ("name", "description", "memories", "sources", "cores"):
            continue
        if getattr(chip, section.name) is None:
            continue
        for item in dataclasses.fields(getattr(chip, section.name)):
            key = f"{section.name}.{item.name}"
            assert any(key == s or key.startswith(s + ".") for s in chip.sources), key
    for memory in chip.memories:
        assert len(chip.sources[f"memory.{memory.name}"]) > 20


def test_table_round_trip(chip: Chip) -> None:
    assert chip_from_table(chip_to_table(chip), "again") == chip


def test_what_is_derived_of_a_chip_is_reckoned_once_for_each() -> None:
    asked: list[str] = []

    def name_of(chip: Chip) -> str:
        asked.append(chip.name)
        return chip.name

    chip = load_chip("nano")
    assert [chip.derived(name_of), chip.derived(name_of)] == ["nano", "nano"]
    changed = dataclasses.replace(chip, name="other")
    assert changed.derived(name_of) == "other"
    assert chip.derived(lambda of: of.array) is chip.array
    assert asked == ["nano", "other"]


def test_internal_buffers_of_the_u55_add_up_to_48_kib() -> None:
    chip = load_chip("like-u55-256")
    parts = (chip.scratchpad, chip.accumulators, chip.weight_buffer)
    assert sum(part.size_kib for part in parts) == 48


def test_memories_of_the_u55_and_nano() -> None:
    for name in ("nano", "like-u55-256"):
        sram, flash = load_chip(name).memories
        assert isinstance(sram, Flat)
        assert isinstance(flash, Flat)
        assert sram.size_bytes == 2 << 20
        assert (sram.burst_bytes, sram.read_latency_cycles) == (32, 32)
        assert (sram.reads_in_flight, sram.writes_in_flight) == (4, 4)
        assert flash.bytes_per_second == 500_000_000
        assert (flash.burst_bytes, flash.read_latency_cycles) == (128, 64)
        assert flash.reads_in_flight == 2


def test_memories_of_the_u85() -> None:
    sram, dram = load_chip("like-u85-1024").memories
    assert isinstance(sram, Flat)
    assert isinstance(dram, Flat)
    assert (sram.size_bytes, sram.ports, sram.bytes_per_cycle) == (384 << 10, 2, 16)
    assert (sram.burst_bytes, sram.read_latency_cycles) == (64, 32)
    assert (sram.reads_in_flight, sram.writes_in_flight) == (8, 8)
    assert dram.bytes_per_second == 12_000_000_000
    assert (dram.burst_bytes, dram.read_latency_cycles, dram.write_latency_cycles) == (
        128,
        500,
        250,
    )
    assert (dram.reads_in_flight, dram.writes_in_flight) == (64, 32)


def test_drams() -> None:
    (lpddr4,) = load_chip("edge").memories
    (hbm2,) = load_chip("server").memories
    assert isinstance(lpddr4, Dram)
    assert isinstance(hbm2, Dram)
    assert lpddr4.bytes_per_second == 25_600_000_000
    assert hbm2.bytes_per_second == 256_000_000_000
    assert tuple(getattr(lpddr4, name) for name in TIMINGS) == PINNED_TIMINGS["edge"]
    assert tuple(getattr(hbm2, name) for name in TIMINGS) == PINNED_TIMINGS["server"]
    for dram in (lpddr4, hbm2):
        assert dram.tRAS >= dram.tRCD
        assert dram.tCCD_L >= dram.tCCD_S
        assert dram.tFAW >= dram.tRRD_S
        # a closed loop of bursts can fill the data bus
        assert dram.burst_cycles >= dram.tCCD_S


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.toml"
    os.mkfifo(pipe)
    with pytest.raises(ChipError, match="no regular file"):
        load_chip(pipe)
