"""Technology nodes and energies of memories: sources, interpolation, closed forms, errors."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from lepton.chip import PRESETS, chip_from_table, chip_to_table, load_chip
from lepton.chip.technology import MEMORY_KINDS, Node, memory_energy, node
from lepton.cost.action_names import Action
from lepton.cost.area import part_areas
from lepton.cost.energy import action_energies, memory_energies, peak_tops_per_watt
from lepton.errors import ChipError

PUBLISHED = ("45nm", "7nm")


def changed(**technology: object) -> dict[str, object]:
    table = chip_to_table(load_chip("edge"))
    section = table["technology"]
    assert isinstance(section, dict)
    return table | {"technology": section | technology}


@pytest.mark.parametrize("name", [*PUBLISHED, "16nm"])
def test_every_constant_of_a_node_has_a_source(name: str) -> None:
    fields = {item.name for item in dataclasses.fields(Node)} - {"sources", "nanometres"}
    assert set(node(name).sources) == fields


@pytest.mark.parametrize("kind", list(MEMORY_KINDS))
def test_every_kind_of_memory_has_a_source(kind: str) -> None:
    energy = memory_energy(kind)
    assert energy.kind == MEMORY_KINDS[kind]
    assert len(energy.source) > 20


def test_published_points() -> None:
    large, small = node("45nm"), node("7nm")
    assert (large.multiply_int8_pj, small.multiply_int8_pj) == (0.2, 0.07)
    for kib, before, after in ((8, 10.0, 7.5), (32, 20.0, 8.5), (1024, 100.0, 14.0)):
        assert large.sram_read_pj(kib, 64) == pytest.approx(before)
        assert small.sram_read_pj(kib, 64) == pytest.approx(after)


@pytest.mark.parametrize("name", [*PUBLISHED, "22nm"])
def test_sram_costs_more_the_larger_and_the_wider(name: str) -> None:
    sizes = [0.25, 1, 4, 8, 16, 32, 256, 1024, 4096]
    reads = [node(name).sram_read_pj(size, 64) for size in sizes]
    assert reads == sorted(reads)
    assert node(name).sram_read_pj(8, 256) < 4 * node(name).sram_read_pj(8, 64)


def test_nodes_between_lie_between() -> None:
    names = ["45nm", "32nm", "28nm", "16nm", "10nm", "7nm"]
    for field in ("multiply_int8_pj", "register_bit_pj", "sram_mm2_per_kib", "add_int32_um2"):
        values = [getattr(node(name), field) for name in names]
        assert values == sorted(values, reverse=True)
    # 7 * (45 / 7) ** 0.5 is half-way on a logarithmic scale; the nearest whole node is 18
    half = (0.2 * 0.07) ** 0.5
    assert node("18nm").multiply_int8_pj == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize("name", ["5nm", "46nm", "7", "07nm", "7 nm", "", "\u0667nm"])
def test_unknown_node_is_an_error(name: str) -> None:
    with pytest.raises(ChipError, match="must be one of 7nm to 45nm, not"):
        node(name)


@pytest.mark.parametrize(
    ("technology", "text"),
    [
        ({"node": "3nm"}, "technology.node must be one of 7nm to 45nm, not '3nm'"),
        ({"memories": ["sram"]}, "technology.memories must be lpddr4, lpddr5, ddr4, hbm2 for"),
        ({"memories": ["lpddr4", "sram"]}, "must name a kind for each [[memory]]"),
        ({"voltage": 1}, "technology.voltage is not a known key"),
    ],
)
def test_bad_technology_is_an_error(technology: dict[str, object], text: str) -> None:
    with pytest.raises(ChipError, match=re.escape(text)):
        chip_from_table(changed(**technology), "chip.toml")


def test_technology_may_be_left_out() -> None:
    table = changed()
    del table["technology"]
    chip = chip_from_table(table, "chip.toml")
    assert (chip.technology.node, chip.technology.memories) == ("7nm", ("lpddr4",))


def test_lpddr4_events_follow_from_its_currents() -> None:
    chip = load_chip("edge")
    activate, read, write, refresh, cycle = memory_energies(chip, chip.memories[0], "lpddr4")
    # four x16 devices; two supplies of 1.1 V and one of 1.8 V; tCK 0.625 ns
    assert read == pytest.approx(4 * 1.1 * (275 - 30 + 150 - 0.75) * 5)
    assert write == pytest.approx(4 * 1.1 * (210 - 30 + 55 - 0.75) * 5)
    core = 1.1 * (45 * 97 - 30 * 68 - 27 * 29) + 1.8 * (3.5 * 97 - 2.25 * 68 - 2 * 29)
    assert activate == pytest.approx(4 * 0.625 * core)
    assert refresh == pytest.approx(4 * 280 * (1.1 * 60 + 1.8 * 7.75))
    assert cycle == pytest.approx(4 * (1.1 * 30.75 + 1.8 * 2.25))


def test_hbm2_moves_a_bit_for_the_published_energy() -> None:
    chip = load_chip("server")
    events = memory_energies(chip, chip.memories[0], "hbm2")
    assert events[1] == pytest.approx(3.48 * 64 * 8)
    assert events[0] == pytest.approx(2 * 909, rel=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_part_and_action_costs_something(name: str) -> None:
    chip = load_chip(name)
    assert all(part.mm2 > 0 for part in part_areas(chip).values())
    energies = action_energies(chip).sum(axis=0)
    if chip.sparsity is None:
        # nothing to choose from
        assert energies[Action.OPERAND_SELECT] == 0
        energies = np.delete(energies, Action.OPERAND_SELECT)
    assert (energies > 0).all()
    assert 0.5 < peak_tops_per_watt(chip) < 20


def test_area_grows_with_the_array() -> None:
    chip = load_chip("edge")
    double = dataclasses.replace(chip, array=dataclasses.replace(chip.array, count=2))
    ratio = part_areas(double)["array"].mm2 / part_areas(chip)["array"].mm2
    assert ratio == pytest.approx(2, rel=0.01)


def test_the_decoder_grows_with_its_entropy_lanes() -> None:
    chip = load_chip("edge")
    areas: list[float] = []
    for lanes in (0, 1, 2, 16):
        buffer = dataclasses.replace(chip.weight_buffer, entropy_lanes=lanes)
        made = dataclasses.replace(chip, weight_buffer=buffer)
        areas.append(part_areas(made)["weight_buffer"].mm2)
    assert areas == sorted(areas)
    assert areas[3] - areas[0] > 8 * (areas[2] - areas[1])


def test_every_array_that_is_dealt_pixels_has_a_line_buffer() -> None:
    chip = load_chip("server")
    plain = dataclasses.replace(chip, array=dataclasses.replace(chip.array, deals_pixels=False))
    more, t = part_areas(chip)["array"].mm2 - part_areas(plain)["array"].mm2, node("7nm")
    assert more == pytest.approx(3 * 20 * 64 * t.register_bit_um2 / t.logic_density / 1e6)


def test_a_smaller_node_takes_less() -> None:
    chip = load_chip("edge")
    at = {
        name: dataclasses.replace(chip, technology=dataclasses.replace(chip.technology, node=name))
        for name in PUBLISHED
    }
    assert peak_tops_per_watt(at["7nm"]) > 1.5 * peak_tops_per_watt(at["45nm"])
    areas = [sum(part.mm2 for part in part_areas(at[name]).values()) for name in PUBLISHED]
    assert areas[0] > 5 * areas[1]
