"""Recorded chips: what is read of them is noted, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lepton.chip import Chip, Dram, Flat, load_chip
from lepton.chip.reading import recorded, value_at

U55 = load_chip("like-u55-256")


def test_a_field_is_noted_with_its_value() -> None:
    view, reads = recorded(U55)
    assert view.array.rows == U55.array.rows
    assert reads["array", "rows"] == U55.array.rows
    assert ("array", "columns") not in reads


def test_a_property_counts_by_the_fields_that_it_takes() -> None:
    view, reads = recorded(U55)
    assert view.columns == U55.columns
    assert {("array", "columns"), ("array", "count")} <= reads.keys()
    assert ("array", "rows") not in reads


def test_what_a_chip_works_out_once_counts_as_well() -> None:
    view, reads = recorded(U55)
    assert view.memory_bytes_per_cycle == U55.memory_bytes_per_cycle
    assert ("memories", 0, "bytes_per_cycle") in reads
    assert ("memories", 0, "read_latency_cycles") not in reads
    assert view.derived(lambda chip: chip.vector.lanes) == U55.vector.lanes
    assert ("vector", "lanes") in reads


def test_the_kind_and_the_number_of_memories_are_noted() -> None:
    view, reads = recorded(U55)
    assert [isinstance(memory, Flat) for memory in view.memories] == [True] * len(U55.memories)
    assert not isinstance(view.memories[0], Dram)
    assert reads["memories", "__len__"] == len(U55.memories)
    assert reads["memories", 0, "__class__"] is Flat


def test_methods_see_what_they_read() -> None:
    view, reads = recorded(U55)
    name = U55.memories[1].name
    assert view.memory_index(name) == 1
    assert reads["memories", 1, "name"] == name


@pytest.mark.parametrize("other", ["edge", "nano"])
def test_values_are_those_of_another_chip(other: str) -> None:
    chip: Chip = load_chip(other)
    assert value_at(chip, ("vector", "lanes")) == chip.vector.lanes
    assert value_at(chip, ("memories", "__len__")) == len(chip.memories)
    assert value_at(chip, ("memories", 0, "__class__")) is type(chip.memories[0])
    assert value_at(chip, ("memories", 7, "name")) is None


def test_another_chip_is_told_by_what_was_read() -> None:
    view, reads = recorded(U55)
    assert view.weight_buffer.elements
    wider = replace(U55, array=replace(U55.array, rows=99))
    larger = replace(U55, weight_buffer=replace(U55.weight_buffer, size_kib=99))
    assert all(value_at(wider, path) == value for path, value in reads.items())
    assert any(value_at(larger, path) != value for path, value in reads.items())
