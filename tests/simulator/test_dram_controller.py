"""The DRAM controller against the plain one of `naive_dram`, and against closed forms."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from lepton.simulator.dram_replay import replay
from lepton.simulator.dram_timing import Arbitration, DramTiming
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
        tRFC=rfc, tREFI=ranks * (2 * (rfc + ras + rp) + draw.randint(0, 99)), tRTRS=draw.randint(0, 2),
        tPPD=draw.choice((0, 0, 2, 3)), dual_command=draw.random() < 0.3,
    )  # fmt: skip


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


@pytest.mark.parametrize("seed", range(20))
def test_controller_equals_the_naive_one(seed: int) -> None:
    for number in range(20):
        draw = random.Random(100 * seed + number)
        timing, arbitration = random_timing(draw), random_arbitration(draw)
        requests = random_requests(draw)
        accepted, done, channels = naive_replay(timing, arbitration, requests)
        address, is_write, earliest = (np.array(column) for column in zip(*requests, strict=True))
        found = replay(timing, arbitration, address, is_write, earliest)
        where = f"seed {100 * seed + number}: {timing} {arbitration}"
        assert found.accepted.tolist() == accepted, where
        assert found.done.tolist() == done, where
        assert found.row_hits == sum(ch.hits for ch in channels), where
        assert found.activates == sum(ch.activates for ch in channels), where
        assert found.refreshes == sum(ch.refreshes for ch in channels), where
        assert found.reads + found.writes == sum(ch.columns for ch in channels), where
