"""The memories of the estimate: streams of service that share each memory's capacity.

A client is a transfer queue, or fetch. What its transfers ask of the memory lies behind one
another on one axis of service, of which the client has so far got `served`; between two events
each client gets it at a constant rate. docs/estimate.md derives the rates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.service import (
    CAPACITY,
    CHANNELS,
    READ_LATENCY,
    READS,
    WRITE_LATENCY,
    WRITES,
)
from lepton.jit import njit

__all__ = ["CLIENT_COLUMNS", "Clients", "share_memories"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# columns of a client: service got, service asked for, cycles of service per cycle
(SERVED, ASKED, RATE) = range(3)
"""The rest describe the transfer being served."""
(SERVICE, PORT, WINDOW, IS_WRITE, IDLE_FROM) = range(3, 8)
"""Service and port cycles per request, requests in flight at most, 1 for a store; when the client
last ran out of work."""
(WHOLE, CREDIT) = range(8, 10)
"""Requests of the transfer; how many can be in flight beyond the steady window at its start."""
(BARRIER, OPENS) = range(10, 12)
"""Where on the axis the requests wait for those of the transfer before, and until when."""
CLIENT_COLUMNS = 12


class Clients(NamedTuple):
    """All clients of all memories."""

    state: F64
    """[clients, CLIENT_COLUMNS]"""
    memory: I64
    """[clients] that each is served by, -1 while it asks for nothing, -2 - memory while it waits"""
    busy: I64
    """[clients] 1 if a bank that the transfer uses is in use by a unit"""
    memories: F64
    """[memories, MEMORY_COLUMNS]"""
    caps: F64
    """[clients] the most requests per cycle that each can make by itself"""


@njit(allocates=False, error_model="numpy", inlined=True)
def _own_limit(s: Clients, k: int, latency: float, in_flight: float) -> float:
    """Return the requests per cycle that a client alone in its memory would have done.

    It makes a window of requests at the pace of its port; from then on, one for each that returns.
    """
    x = s.state[k]
    pace = max(x[PORT] * (2 if s.busy[k] else 1), 1.0)
    window = min(x[WINDOW], in_flight)
    turn = max((latency + x[SERVICE]) / window, pace)
    free = min(x[CREDIT], x[WHOLE])
    return x[WHOLE] / ((x[WHOLE] - free) * turn + free * pace)


@njit(allocates=False, error_model="numpy", inlined=True)
def _place(x: F64, c: F64) -> float:
    """Return a client's weight in a memory that is short: requests that wait, or equal service.

    A flat memory serves in order of arrival, a DRAM's banks take turns. At least one request waits.
    """
    if c[CHANNELS] > 0:
        return 1 / x[SERVICE]
    return min(x[WINDOW], max((x[ASKED] - x[SERVED]) / x[SERVICE], 1.0))


@njit(allocates=False, error_model="numpy", inlined=True)
def _level(s: Clients, m: int, reads: int, capacity: float, latency: float) -> float:
    """Return requests per cycle and place in flight at which clients use up a capacity.

    Those that their own limits keep below it get what they can use, the others alike. Capacity is
    service if `reads` is -1, else reads (1) or writes (0) in flight.
    """
    level = 0.0
    for _ in range(len(s.memory)):
        left, places = capacity, 0.0
        for k in range(len(s.memory)):
            x = s.state[k]
            if s.memory[k] != m or x[IS_WRITE] == reads:
                continue
            weight = x[SERVICE] + latency
            place = _place(x, s.memories[m])
            if s.caps[k] <= level * place:
                left -= s.caps[k] * weight
            else:
                places += place * weight
        if places == 0:
            return 1e18
        found = left / places
        if found <= level * (1 + 1e-9):
            return found
        level = found
    return level


@njit(allocates=False, error_model="numpy")
def _open(s: Clients, now: float) -> None:
    """Let clients go on whose time has come; stop those that have come to their barrier."""
    for k in range(len(s.memory)):
        x = s.state[k]
        if s.memory[k] >= 0 and x[OPENS] > now and x[SERVED] >= x[BARRIER]:
            s.memory[k] = -2 - s.memory[k]
            x[RATE] = 0.0
        elif s.memory[k] < -1 and x[OPENS] <= now:
            s.memory[k] = -2 - s.memory[k]


@njit(allocates=False, error_model="numpy", inlined=True)
def _share(s: Clients, m: int) -> None:
    """Set the rates of a memory's clients."""
    c = s.memories[m]
    count = 0
    for k in range(len(s.memory)):
        if s.memory[k] == m:
            is_write = s.state[k, IS_WRITE] > 0
            latency = c[WRITE_LATENCY] if is_write else c[READ_LATENCY]
            s.caps[k] = _own_limit(s, k, latency, c[WRITES] if is_write else c[READS])
            count += 1
    if count == 0:
        return
    level = _level(s, m, -1, c[CAPACITY], 0.0)
    if count > 1 and c[CHANNELS] == 0:
        level = min(level, _level(s, m, 1, c[READS], c[READ_LATENCY]))
        level = min(level, _level(s, m, 0, c[WRITES], c[WRITE_LATENCY]))
    for k in range(len(s.memory)):
        if s.memory[k] == m:
            x = s.state[k]
            x[RATE] = min(s.caps[k], level * _place(x, c)) * x[SERVICE]


@njit(allocates=False, error_model="numpy", inlined=True)
def share_memories(s: Clients, now: float) -> None:
    """Set the rate of every client."""
    _open(s, now)
    for m in range(len(s.memories)):
        _share(s, m)
