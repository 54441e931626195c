"""The state of the estimate's event loop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.fluid import Clients

__all__ = ["FACTS", "NEVER", "QUEUE_COLUMNS", "TIMES", "Run", "Scalars"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
NEVER = 1e18

# columns of an instruction's facts
(QUEUE, MEMORY_OF, PRELOAD, STREAM, LAST, DRAIN, EXPAND, IS_STORE) = range(8)
(READ_BANKS, WRITE_BANKS, READ_SUMS, WRITE_SUMS, FIRST_EDGE, NEXT, OPEN) = range(8, 15)
FACTS = 15

# columns of an instruction's times
(ARRIVE, DISPATCH, READY, START, END, RETIRE, DONE, UNTIL, FETCHED) = range(9)
"""`DONE` is -1 until known; `UNTIL` is where its service ends on its client's axis,
`FETCHED` where that of the group does which begins with it."""
TIMES = 9

# columns of a queue
(HEAD, TO_RETIRE, SERVING, ACTIVE, WAITING, STREAMING) = range(6)
"""Instructions or -1: next to be taken, next to retire, oldest whose service has not ended, the one
whose requests are not all made, the one that waits to stream, the last that streamed."""
QUEUE_COLUMNS = 6
# columns of a queue's times
(FREE, TAKES, LATEST, EVENT) = range(4)
"""When its unit is free, can take the next; latest retirement; its next step."""


class Scalars(NamedTuple):
    """Scalars of the chip and the region."""

    transfer_queues: int
    queue_depth: int
    outstanding: int
    setup_cycles: int
    group: int
    fetch_outstanding: int
    program_memory: int
    start: int
    stop: int
    base: float


class Run(NamedTuple):
    """Everything that the loop changes."""

    facts: I64
    times: F64
    needs: F64
    """[n, 3] of `lepton.cost.service.service`"""
    fetches: F64
    """[groups, 3] the same of fetches"""
    edges: I64
    q: I64
    at: F64
    """[queues, 4]"""
    held: F64
    """[queues, queue_depth] when the places of the latest instructions were left"""
    dispatched: I64
    """[queues] instructions dispatched"""
    taken: I64
    """[queues] instructions taken"""
    front: I64
    """[3] instructions fetched, dispatched, group being served"""
    last: F64
    """[3] latest fetch, latest dispatch, next fetch"""
    clients: Clients
