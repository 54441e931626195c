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
(CORE, LOCAL) = range(6, 8)
"""Its core, and its number among those of the core."""
QUEUE_COLUMNS = 8
# columns of a core's front end
(GROUP, DISPATCHED, SERVED_GROUP, STOP, STOP_GROUP) = range(5)
"""Next group to fetch, next instruction to dispatch, group being served; where instructions and
groups end."""
FRONT_COLUMNS = 5
# columns of its times
(FETCH_TIME, DISPATCH_TIME, NEXT_FETCH) = range(3)
# columns of a queue's times
(FREE, TAKES, LATEST, EVENT) = range(4)
"""When its unit is free, can take the next; latest retirement; its next step."""


class Scalars(NamedTuple):
    """Scalars of the chip and the region."""

    cores: int
    transfer_queues: int
    """Of a core."""
    queue_depth: int
    outstanding: int
    setup_cycles: int
    program_memory: int
    first_shared: int
    """The first semaphore that all cores have in common."""
    start: int
    stop: int
    base: float


class Run(NamedTuple):
    """Everything that the loop changes."""

    facts: I64
    times: F64
    needs: F64
    """[n, 3] of `lepton.cost.service.service`"""
    groups: I64
    """[groups, GROUP_COLUMNS] of `lepton.program.fetch`"""
    fetches: F64
    """[groups, 3] what fetches ask for, as `needs`"""
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
    """[cores, FRONT_COLUMNS]"""
    last: F64
    """[cores, 3] latest fetch, latest dispatch, next fetch"""
    clients: Clients
