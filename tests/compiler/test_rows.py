"""Input rows that windows share, and where their buffer lies."""

from __future__ import annotations

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.compiler.allocate import Ring
from lepton.compiler.choices import Choices
from lepton.compiler.emit import Box, Emitter, Location
from lepton.compiler.graph import Tensor, Window
from lepton.compiler.lowering.rows import RowBuffer, rows_of
from lepton.isa.instructions import Load

WIDTH, CHANNELS = 8, 4
SHAPE = (1, 20, WIDTH, CHANNELS)


def emitter_of(tensor: Tensor) -> Emitter:
    chip = load_chip("nano")
    return Emitter(chip, {tensor.name: Location(0, 0)}, Choices(chip))


def fetched(size: int, boxes: list[Box]) -> tuple[list[int], list[int]]:
    """Return the rows that each window brings, checking that it finds all of its bytes."""
    tensor = Tensor("x", SHAPE, False, 1.0, 0)
    emitter = emitter_of(tensor)
    buffer = RowBuffer(emitter, tensor, size)
    image = np.arange(20 * WIDTH * CHANNELS, dtype=np.int64)
    scratchpad = np.full(emitter.tiles.size, -1, np.int64)
    brought: list[int] = []
    places: list[int] = []
    for box in boxes:
        before = len(emitter.instructions)
        tile = buffer.fetch(0, box)
        for load in emitter.instructions[before:]:
            assert isinstance(load, Load)
            for row in range(load.rows):
                source = load.address + row * load.row_stride
                target = load.scratchpad + row * load.scratchpad_row_pitch
                scratchpad[target : target + load.row_bytes] = image[
                    source : source + load.row_bytes
                ]
        loads = emitter.instructions[before:]
        moved = sum(load.row_bytes * load.rows for load in loads if isinstance(load, Load))
        brought.append(moved // (box.width * CHANNELS))
        places.append(tile.address)
        for y in range(box.height):
            at = tile.address + y * tile.row_pitch
            begin = ((box.y0 + y) * WIDTH + box.x0) * CHANNELS
            length = box.width * CHANNELS
            assert (scratchpad[at : at + length] == image[begin : begin + length]).all()
    buffer.release()
    assert emitter.tiles.in_use == 0
    return brought, places


def windows(count: int, rows: int, advance: int, x0: int = 0, x1: int = WIDTH) -> list[Box]:
    return [Box(n * advance, n * advance + rows, x0, x1, 0, CHANNELS) for n in range(count)]


def test_a_window_brings_only_its_new_rows():
    pitch = WIDTH * CHANNELS
    assert fetched(20 * pitch, windows(5, 3, 1))[0] == [3, 1, 1, 1, 1]
    assert fetched(20 * pitch, windows(5, 3, 2))[0] == [3, 2, 2, 2, 2]


def test_rows_that_no_longer_fit_begin_anew_with_the_whole_window():
    pitch = WIDTH * CHANNELS
    assert fetched(5 * pitch, windows(6, 3, 1))[0] == [3, 1, 1, 3, 1, 1]


def test_another_stripe_begins_behind_the_last():
    stripes = windows(2, 3, 1, 0, 4) + windows(2, 3, 1, 4, 8)
    brought, places = fetched(20 * WIDTH * CHANNELS, stripes)
    assert brought == [3, 1, 3, 1]
    assert len(set(places)) == 4


@pytest.mark.parametrize("rows", [4, 5, 7, 20])
def test_the_planner_counts_what_is_brought(rows: int):
    plan = rows_of(Window((3, 3), (1, 1), (1, 1), (0, 0, 0, 0)), (1, WIDTH - 2), (20, WIDTH), 4)
    size = rows * plan.pitch + 16
    assert plan.brought(size, 18) == sum(fetched(size - 16, windows(18, 3, 1))[0])


def test_a_buffer_takes_an_edge_of_the_ring():
    ring = Ring(0, 160, "scratchpad", align=16)
    assert ring.allocate_at_edge(40) == 112
    first = ring.allocate(16)
    assert first == 0
    assert ring.allocate_at_edge(90) == 16
