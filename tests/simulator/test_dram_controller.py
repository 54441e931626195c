"""The DRAM controller against the plain one of `naive_dram`, and against closed forms."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from lepton.chip import DRAM_STANDARDS, load_dram
from lepton.errors import ChipError
from lepton.simulator.dram_controller import (
    accept,
    advance,
    advance_until_room,
    flush,
    next_event,
)
from lepton.simulator.dram_replay import replay
from lepton.simulator.dram_state import DONE, MERGED, WRITES, controller_state
from lepton.simulator.dram_timing import FIELDS, Arbitration, DramTiming, controller_of, mapping
from tests.naive_dram import naive_replay

ORDERS = ("rochrababgco", "rochracobabg", "rorabacobgch", "chrarobabgco", "robgrachbaco")


def random_timing(draw: random.Random) -> DramTiming:
    """Return a small DRAM with short timings, so that a short trace meets every rule."""
    ranks, channels = draw.choice((1, 1, 2)), draw.choice((1, 1, 2))
    burst, cl = draw.choice((1, 2, 4)), draw.randint(3, 9)
    ccd, rrd, wtr = draw.randint(1, 4), draw.randint(1, 4), draw.randint(0, 4)
    rcd, rp = draw.randint(2, 8), draw.randint(2, 8)
    rfc, ras = draw.randint(10, 30), rcd + draw.randint(2, 10)
    return DramTiming(
        name="random", clock_mhz=Fraction(1000), channels=channels, ranks=ranks,
        bank_groups=draw.choice((1, 2, 4)), banks_per_group=draw.choice((1, 2)), rows=8,
        row_bytes=256, access_bytes=64, burst_cycles=burst, mapping=draw.choice(ORDERS),
        tCL=cl, tCWL=draw.randint(1, cl), tRCDRD=rcd, tRCDWR=rcd + draw.randint(-1, 1), tRP=rp,
        tRAS=ras, tWR=draw.randint(1, 8), tRTP=draw.randint(1, 6),
        tCCD_S=ccd, tCCD_L=ccd + draw.randint(0, 3), tRRD_S=rrd, tRRD_L=rrd + draw.randint(0, 3),
        tFAW=4 * rrd + draw.randint(0, 10), tWTR_S=wtr, tWTR_L=wtr + draw.randint(0, 4),
        tRFC=rfc, tREFI=ranks * (2 * (rfc + ras + rp) + draw.randint(0, 99)),
        tRTRS=draw.randint(0, 2), tPPD=draw.choice((0, 0, 2, 3)), dual_command=draw.random() < 0.3,
    )  # fmt: skip


def standard_timing(name: str) -> DramTiming:
    """Return the timing of a DRAM of a standard."""
    return controller_of(load_dram(name))[0]


def random_arbitration(draw: random.Random) -> Arbitration:
    queue = draw.choice((2, 4, 8))
    return Arbitration(
        kind=draw.choice(("two-level", "two-level", "single")),
        queue=queue,
        bank_queue=draw.choice((1, 2, 4)),
        drain_above=draw.randint(0, queue),
        row_hit_limit=draw.choice((1, 2, 4)),
    )


def random_requests(draw: random.Random) -> list[tuple[int, bool, int]]:
    """Return streams, hot spots and repeats, with pauses."""
    requests: list[tuple[int, bool, int]] = []
    writes, spread = draw.choice((0, 0.2, 0.5, 0.9)), draw.choice((4, 16, 64, 256))
    address, earliest = 0, 0
    for _ in range(draw.randint(10, 60)):
        if draw.random() < 0.6:
            address += 64
        else:
            address = draw.randrange(spread) * 64
        if draw.random() < 0.1:
            earliest += draw.randint(1, 100)
        requests.append((address, draw.random() < writes, earliest))
    return requests


def compare(
    timing: DramTiming, arbitration: Arbitration, requests: list[tuple[int, bool, int]]
) -> None:
    """Check that both controllers do the same with a trace."""
    accepted, done, channels = naive_replay(timing, arbitration, requests)
    address, is_write, earliest = (np.array(column) for column in zip(*requests, strict=True))
    found = replay(timing, arbitration, address, is_write, earliest)
    assert found.accepted.tolist() == accepted
    assert found.done.tolist() == done
    assert found.row_hits == sum(ch.hits for ch in channels)
    assert found.activates == sum(ch.activates for ch in channels)
    assert found.refreshes == sum(ch.refreshes for ch in channels)
    assert found.reads + found.writes == sum(ch.columns for ch in channels)


@pytest.mark.parametrize("seed", range(40))
def test_controller_equals_the_naive_one(seed: int) -> None:
    for number in range(10):
        draw = random.Random(10 * seed + number)
        compare(random_timing(draw), random_arbitration(draw), random_requests(draw))


@pytest.mark.parametrize("kind", ["two-level", "single"])
def test_controller_equals_the_naive_one_with_the_most_banks(kind: str) -> None:
    draw = random.Random(1)
    timing = replace(
        random_timing(draw), channels=1, ranks=4, bank_groups=4, banks_per_group=4, tREFI=2000
    )
    arbitration = replace(random_arbitration(draw), kind=kind, queue=24, bank_queue=2)
    requests = [(64 * draw.randrange(2048), draw.random() < 0.3, 0) for _ in range(150)]
    compare(timing, arbitration, requests)


@pytest.mark.parametrize("seed", range(10))
def test_pauses_of_millions_of_cycles_change_nothing(seed: int) -> None:
    """Without a refresh all gaps are over after a thousand cycles as after three million."""
    draw = random.Random(seed)
    timing = replace(random_timing(draw), tREFI=1 << 40)
    arbitration, requests = random_arbitration(draw), random_requests(draw) * 3
    address, is_write, _ = (np.array(column) for column in zip(*requests, strict=True))
    pauses = np.array([draw.random() < 0.2 for _ in requests]).cumsum()
    waits: list[list[int]] = []
    for pause in (1000, 3_000_000):
        found = replay(timing, arbitration, address, is_write, pauses * pause)
        waits.append([*(found.accepted - pauses * pause), *(found.done - found.accepted)])
    assert waits[0] == waits[1]


def run(
    timing: DramTiming, addresses: list[int], kind: str = "single", earliest: int = 0
) -> list[int]:
    """Read addresses, `earliest` cycles apart; return the cycles of completion."""
    address = np.array(addresses)
    times = np.arange(len(address)) * earliest
    arbitration = Arbitration(kind="single" if kind == "single" else "two-level")
    found = replay(timing, arbitration, address, np.zeros(len(address), bool), times)
    return found.done.tolist()


def at(timing: DramTiming, **place: int) -> int:
    """Return the address of a place, given by field."""
    bits = mapping(timing)
    return sum(value << bits.shifts[FIELDS.index(name)] for name, value in place.items())


def gaps(done: list[int]) -> list[int]:
    return [b - a for a, b in pairwise(done)]


@pytest.mark.parametrize("name", DRAM_STANDARDS)
class TestClosedForms:
    """Each standard against what its timings say, in cycles before the first refresh."""

    def test_idle_latency(self, name: str) -> None:
        t = standard_timing(name)
        idle = t.tRCDRD + t.tCL + t.burst_cycles
        assert run(t, [0]) == [idle]
        assert run(t, [0], "two-level") == [idle + 2]
        conflict = run(t, [0, at(t, ro=1)], earliest=200)
        assert conflict[1] - 200 == t.tRP + idle

    def test_same_bank_strides_cost_trc(self, name: str) -> None:
        t = standard_timing(name)
        rows = [at(t, ro=row) for row in range(12)]
        assert set(gaps(run(t, rows))) == {t.tRAS + t.tRP}

    def test_one_bank_group_takes_ccd_l(self, name: str) -> None:
        t = standard_timing(name)
        ccd = max(t.burst_cycles, t.tCCD_L if t.bank_groups > 1 else t.tCCD_S)
        assert set(gaps(run(t, [at(t, co=column) for column in range(24)]))) == {ccd}

    def test_interleaved_bank_groups_take_ccd_s(self, name: str) -> None:
        t = standard_timing(name)
        addresses = [at(t, co=i // t.bank_groups, bg=i % t.bank_groups) for i in range(96)]
        assert set(gaps(run(t, addresses)[32:])) == {max(t.burst_cycles, t.tCCD_S)}

    def test_activates_are_limited_by_faw(self, name: str) -> None:
        t = standard_timing(name)
        banks = t.bank_groups * t.banks_per_group
        order = [at(t, bg=i % t.bank_groups, ba=i // t.bank_groups) for i in range(banks)]
        done = run(t, order)
        window = max(t.tFAW, 4 * t.tRRD_S)
        shared_bus = 0 if t.dual_command else 1
        assert window <= done[4] - done[0] <= window + shared_bus
        assert all(done[i] - done[i - 4] >= window - shared_bus for i in range(4, banks))

    def test_a_read_after_a_read_of_another_row(self, name: str) -> None:
        """Waiting already, it precharges after tRAS, not after tRTP, which is over by then."""
        t = standard_timing(name)
        done = run(t, [0, at(t, ro=1)])
        assert t.tRCDRD + t.tRTP <= t.tRAS
        assert done[1] - done[0] == t.tRAS + t.tRP
        # many hits keep the row open longer; then tRTP counts, from the last of them
        hits = [at(t, co=column) for column in range(16)]
        done = run(t, [*hits, at(t, ro=1)])
        assert done[-1] - done[-2] == t.tRTP + t.tRP + t.tRCDRD

    def test_turnarounds_of_a_row(self, name: str) -> None:
        """A read, a write that waits for it, and a read that comes as the write has begun."""
        t = standard_timing(name)
        to_write = t.tCL + t.burst_cycles - t.tCWL + t.tRTRS
        to_read = t.tCWL + t.burst_cycles + (t.tWTR_L if t.bank_groups > 1 else t.tWTR_S)
        address = np.array([at(t, co=column) for column in range(3)])
        is_write, times = np.array([False, True, False]), np.array([0, 1, t.tRCDRD + to_write + 1])
        found = replay(t, Arbitration(kind="single"), address, is_write, times)
        assert found.done[2] - found.done[0] == to_write + to_read

    def test_a_refresh_in_the_way(self, name: str) -> None:
        """A read that comes as a refresh of closed banks begins waits tRFC for it."""
        t = standard_timing(name)
        due = t.refresh_interval - 1
        times = np.array([due])
        found = replay(t, Arbitration(kind="single"), np.zeros(1, int), times < 0, times)
        assert found.done[0] == due + t.tRFC + t.tRCDRD + t.tCL + t.burst_cycles
        assert found.refreshes == t.channels

    def test_stream_takes_bytes_over_bandwidth(self, name: str) -> None:
        t = standard_timing(name)
        count = 40000
        done = run(t, [n * t.access_bytes for n in range(count)], "two-level")
        ccd = max(t.burst_cycles, t.tCCD_S)
        refreshes = max(done) // t.refresh_interval
        best = count / t.channels * ccd + refreshes * (t.tRFC + t.tRP + t.tRCDRD)
        assert best * 0.99 <= max(done) <= best * 1.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": "rochrababgbg"}, "mapping must name each of"),
        ({"rows": 3}, "rows must be a power of two, got 3"),
        ({"banks_per_group": 32}, "at most 16 bank groups and 64 banks"),
        ({"tREFI": 600}, "tREFI / ranks must be at least"),
        ({"tFAW": 1 << 17}, "tFAW must be below 131,072 cycles, not 131,072"),
        ({"tRP": -1}, "tRP must not be negative"),
    ],
)
def test_bad_timings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ChipError, match=message):
        replace(standard_timing("ddr4-3200"), **change)  # pyright: ignore[reportArgumentType]


def test_bad_arbitrations_are_refused() -> None:
    with pytest.raises(ChipError, match="bank_queue must be 1 to 64"):
        Arbitration(bank_queue=65)
    with pytest.raises(ChipError, match="two-level or single"):
        Arbitration(kind="other")  # pyright: ignore[reportArgumentType]


def test_writes_left_over_leave_after_a_flush() -> None:
    timing = standard_timing("ddr4-3200")
    state = controller_state(timing, Arbitration(), 4)
    for number in range(4):
        assert accept(state, 0, 64 * number, 1, number)
    advance(state, 0, 1000)
    assert state.blocks[0, WRITES] == 0
    flush(state, 0)
    advance(state, 0, 2000)
    assert state.blocks[0, WRITES] == 4
    assert state.tickets[:, DONE].tolist() == [1] * 4


def test_a_read_may_overtake() -> None:
    """A row hit goes before an older conflict, and both before a third conflict is known."""
    t = standard_timing("ddr4-3200")
    state = controller_state(t, Arbitration(), 4)
    for number, address in enumerate((0, at(t, ro=1), 64)):
        assert accept(state, 0, address, 0, number)
    advance(state, 0, next_event(state, 0) + 10_000)
    first, conflict, hit = state.tickets[:3, DONE].tolist()
    assert first < hit < conflict


def test_a_full_queue_refuses() -> None:
    t = standard_timing("ddr4-3200")
    state = controller_state(t, Arbitration(queue=2), 4)
    assert accept(state, 0, 0, 0, 0)
    assert accept(state, 0, 64, 0, 1)
    assert not accept(state, 0, 128, 0, 2)
    assert advance_until_room(state, 0, 0, 128, 0) == 1
    assert accept(state, 0, 128, 0, 2)


def test_hundreds_queued_with_one_hash_are_still_found() -> None:
    timing = standard_timing("ddr4-3200")
    arbitration = Arbitration(queue=64, bank_queue=64)
    state = controller_state(timing, arbitration, 1024)
    # all fall into the same counter of the filter
    addresses = [64 * (k << 10 | (k >> 1) & 1023) for k in range(500)]
    for number, address in enumerate(addresses):
        advance_until_room(state, 0, 0, address, 0)
        waiting = np.flatnonzero(state.tickets[:number, DONE] < 0)
        if len(waiting) == 256:
            break
        assert accept(state, 0, address, 0, number)
    else:
        pytest.fail("never so many were queued")
    merged = state.blocks[0, MERGED]
    assert accept(state, 0, addresses[waiting[-1]], 0, 1000)
    assert state.blocks[0, MERGED] == merged + 1
