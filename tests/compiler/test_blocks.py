"""Blocks of the scratchpad: lives, lower bounds and places, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from lepton.chip import load_chip
from lepton.compiler.allocate import Block, Lifetime, Ring
from lepton.compiler.block_kernels import cut_lives, owners, place
from lepton.compiler.blocks import (
    Blocks,
    beside_bytes,
    most_alive,
    resident_blocks,
    together,
    union_bytes,
    with_copies_between,
)
from lepton.compiler.placement import search_places
from lepton.isa import records
from lepton.isa.instructions import Copy, Halt, Load, Store

CHIP = load_chip("like-u55-256")


def drawn(seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return sizes and lives of random blocks."""
    rng = np.random.default_rng(seed)
    first, start = np.sort(rng.integers(0, 30, count)), rng.integers(0, 300, count)
    stop, end = first + rng.integers(1, 9, count), start + rng.integers(1, 90, count)
    return rng.integers(1, 200, count), np.array([first, stop, start, end], np.float64).T


def are_together(lives: np.ndarray, one: int, other: int) -> bool:
    """Return whether neither life is over, by both reckonings, before the other begins."""

    def before(a: int, b: int) -> bool:
        return lives[a, 1] <= lives[b, 0] and lives[a, 3] <= lives[b, 2]

    return not before(one, other) and not before(other, one)


def test_a_ring_remembers_what_was_asked_for_and_when():
    now = [3]
    ring = Ring(100, 64, "ring", align=16, clock=lambda: now[0])
    first = ring.allocate(10)
    now[0] = 5
    edge = ring.allocate_at_edge(20)
    now[0] = 9
    ring.release(first)
    now[0] = 11
    assert ring.blocks == [Block(100, 10, 3, 9), Block(edge, 20, 5, 11)]
    assert edge == 132


def test_residents_live_from_their_first_to_their_last_instruction():
    steps = [0, 0, 1, 2, 2, 4]
    residents = [(Lifetime("a", 8, 0, 1), 64), (Lifetime("b", 9, 2, 4), 0)]
    residents.append((Lifetime("without instructions", 9, 3, 3), 0))
    assert resident_blocks(residents, steps, 10) == [Block(64, 8, 10, 13), Block(0, 9, 13, 16)]


def test_copies_between_take_two_places_and_shift_the_others():
    channel = CHIP.dma.load_channels - 1
    own, extra = Copy(), Load(channel=channel)
    stream = [own, extra, own, Store(channel=CHIP.dma.store_channels - 1), own]
    made = with_copies_between([Block(0, 4, 0, 2), Block(8, 4, 2, 3)], stream, 1000, CHIP)
    assert made[:2] == [Block(0, 4, 0, 3), Block(8, 4, 4, 5)]
    assert made[2:] == [Block(1000, 512, 1, 4), Block(1512, 512, 1, 4)]


@pytest.mark.parametrize("seed", range(10))
def test_bytes_alive_and_unions_are_those_of_plain_loops(seed: int):
    sizes, lives = drawn(seed)
    start, end = lives[:, 2], lives[:, 3]
    alive = [sum(sizes[(start <= time) & (time < end)]) for time in range(400)]
    assert most_alive(sizes, start, end) == max(alive)
    beside = [max(alive[int(a) : int(b)]) for a, b in zip(start, end, strict=True)]
    assert beside_bytes(sizes, start, end).tolist() == beside
    addresses = np.random.default_rng(seed).integers(0, 500, len(sizes))
    touched = {a + i for a, z in zip(addresses, sizes, strict=True) for i in range(z)}
    assert union_bytes(addresses, sizes) == len(touched)
    for block in range(len(sizes)):
        expected = [are_together(lives, block, other) for other in range(len(sizes))]
        assert together(lives, block).tolist() == expected


@pytest.mark.parametrize("seed", range(10))
def test_places_are_disjoint_where_blocks_live_together(seed: int):
    sizes, lives = drawn(seed, 20)
    floors = np.random.default_rng(seed).integers(0, 5, 20) * 16
    addresses = np.zeros(20, np.int64)
    last = place(np.argsort(-sizes), sizes, lives, floors, 16, addresses)
    assert last == (addresses + sizes).max()
    assert (addresses >= floors).all() and (addresses % 16 == 0).all()
    for one in range(20):
        for other in range(one):
            if are_together(lives, one, other):
                low, high = sorted((one, other), key=lambda block: addresses[block])
                assert addresses[low] + sizes[low] <= addresses[high]


def blocks_of(sizes: np.ndarray, lives: np.ndarray) -> Blocks:
    """Return blocks that no field points at."""
    none = np.zeros((0, 2), np.int64)
    placed = np.column_stack([np.zeros_like(sizes), sizes, lives[:, :2].astype(np.int64)])
    return Blocks(placed, none, np.zeros(0, np.int64))


@pytest.mark.parametrize("seed", range(20))
def test_no_placement_needs_less_than_the_bound(seed: int):
    sizes, lives = drawn(seed)
    blocks = blocks_of(sizes, lives)
    bound = blocks.bound_bytes(lives)
    addresses, taken = search_places(sizes, lives, np.zeros_like(sizes), (bound, 16))
    assert bound <= union_bytes(addresses, sizes) <= taken
    assert bound >= most_alive(sizes, lives[:, 2], lives[:, 3])


def test_the_bound_sees_blocks_that_two_reckonings_hold_apart():
    # both small blocks are alive beside the large one, one by instructions and one by cycles
    sizes = np.array([100, 30, 30])
    lives = np.array([[0, 5, 0, 50], [3, 4, 60, 90], [6, 8, 40, 70]], np.float64)
    assert most_alive(sizes, lives[:, 0], lives[:, 1]) == 130
    assert blocks_of(sizes, lives).bound_bytes(lives) == 160


def test_a_search_finds_what_large_blocks_first_does_not():
    sizes, lives = drawn(5, 24)
    blocks = blocks_of(sizes // 16 * 16 + 16, lives)
    sizes = blocks.sizes
    bound = blocks.bound_bytes(lives)
    addresses = np.zeros_like(sizes)
    order = np.lexsort((lives[:, 2], -sizes))
    once = place(order, sizes, lives, np.zeros_like(sizes), 16, addresses)
    assert search_places(sizes, lives, np.zeros_like(sizes), (bound, 16))[1] < once


def test_lives_end_where_a_later_block_takes_over_bytes():
    rng = np.random.default_rng(1)
    for _ in range(20):
        first = np.sort(rng.integers(0, 40, 10))
        extents = rng.integers(0, 60, 10), rng.integers(1, 30, 10)
        blocks = np.column_stack([*extents, first, first + rng.integers(1, 6, 10)])
        starts = rng.integers(0, 100, 10).astype(np.float64)
        ends = starts + rng.integers(1, 50, 10)
        cut_lives(blocks, starts, ends)
        for one in range(10):
            for later in range(one + 1, 10):
                shared = set(range(blocks[one, 0], sum(blocks[one, :2]))) & set(
                    range(blocks[later, 0], sum(blocks[later, :2]))
                )
                if shared and blocks[one, 3] <= blocks[later, 2]:
                    assert ends[one] <= starts[later]
        assert (starts <= ends).all()


def test_owners_are_the_blocks_taken_at_that_instruction():
    blocks = np.array([[0, 16, 0, 4], [16, 16, 0, 9], [0, 32, 4, 5], [0, 8, 6, 9]])
    numbers = np.array([0, 1, 3, 4, 5, 6, 8])
    addresses = np.array([0, 31, 15, 20, 0, 7, 16])
    # at 4 and 20 two blocks hold the address: the later one was not allowed to be taken there
    assert owners(numbers, addresses, blocks).tolist() == [0, 1, 0, 2, -1, 3, 1]


def test_moved_blocks_take_all_that_points_into_them_along():
    stream = [
        Load(scratchpad=0, row_bytes=32, rows=1, planes=1),
        Copy(height=1, width=1, channels=8, ifm=24, ofm=64),
        Store(scratchpad=64, row_bytes=8, rows=1, planes=1),
        Halt(),
    ]
    table = records(stream)
    blocks = Blocks.of(table, [Block(0, 32, 0, 2), Block(64, 8, 1, 3), Block(96, 8, 0, 3)])
    assert blocks.placed.tolist() == [[0, 32, 0, 2], [64, 8, 1, 3]]
    made, moved = blocks.moved(table, np.array([16, 0]))
    expected = [
        Load(scratchpad=16, row_bytes=32, rows=1, planes=1),
        Copy(height=1, width=1, channels=8, ifm=40, ofm=0),
        Store(scratchpad=0, row_bytes=8, rows=1, planes=1),
        Halt(),
    ]
    assert made.tolist() == records(expected).tolist()
    assert moved.peak_bytes == 40
