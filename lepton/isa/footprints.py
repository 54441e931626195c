"""What each instruction reads and writes, as strided boxes; and which queue runs it.

A box is a row of `BOX` columns: `runs` of contiguous units repeated over three strided counts.
Units are bytes, except in the accumulators, where they are int32 elements.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC, FIRST_SHARED, MOST_MEMORIES, REGISTRY, Unit
from lepton.isa.declaration import SEMAPHORES as _SEMAPHORES
from lepton.isa.encoding import COLUMNS
from lepton.isa.instructions import BinaryMode, PoolMode, ResizeMode, Stationary

__all__ = ["BOX", "Space", "cores_of", "ends", "first_shared", "footprints", "queue_count"]
__all__ += ["queue_lanes", "queue_names", "queues", "space_of"]

Records = NDArray[np.int64]


class Space(IntEnum):
    """Address spaces of core 0, and the memories: memory m of the chip is `MEMORY + m`."""

    SCRATCHPAD = 0
    ACCUMULATORS = 1
    WEIGHT_BUFFER = 2
    MEMORY = 3


def space_of(core: int, space: Space) -> int:
    """Return the number of a space of a core; those of cores beyond 0 come behind the memories."""
    return space if core == 0 else MOST_MEMORIES + Space.MEMORY * core + space


BOX = ("instruction", "space", "write", "base", "run", "n0", "s0", "n1", "s1", "n2", "s2")
"""Columns of a box: unit u of run (i, j, k) is at base + i * s0 + j * s1 + k * s2 + u."""

SOFTMAX_PARAMETER_BYTES = 1056
BINARY_PARAMETER_BYTES = 64
POOL_PARAMETER_BYTES = 32
RESIZE_HEADER_BYTES = 32
REQUANTIZE_BYTES = (9, 8, 12)
"""Room of the parameter records in the scratchpad, as `lepton.arith.records` packs them."""


def _box(
    rows: Records,
    space: int | Records,
    write: int,
    base: Records,
    run: Records | int,
    *dims: tuple[Records | int, Records | int],
) -> Records:
    """Return boxes of one kind for all `rows`; absent dimensions count 1."""
    made = np.zeros((len(rows), len(BOX)), np.int64)
    made[:, 0] = rows[:, 0]
    made[:, 1], made[:, 2], made[:, 3], made[:, 4] = space, write, base, run
    made[:, 5:11:2] = 1
    for index, (count, stride) in enumerate(dims):
        made[:, 5 + 2 * index], made[:, 6 + 2 * index] = count, stride
    return made


def _get(rows: Records) -> Callable[[str], Records]:
    """Return a function from a field's name to its column in `rows`."""
    return lambda name: rows[:, COLUMNS[name]]


def _transfer(rows: Records, is_load: bool) -> list[Records]:
    """Boxes of `load` and `store`."""
    f = _get(rows)
    memory = _box(
        rows,
        Space.MEMORY + f("memory"),
        int(not is_load),
        f("address"),
        f("row_bytes"),
        (f("planes"), f("plane_stride")),
        (f("rows"), f("row_stride")),
    )
    inside = _box(
        rows,
        Space.SCRATCHPAD,
        int(is_load),
        f("scratchpad"),
        f("row_bytes"),
        (f("planes"), f("scratchpad_plane_pitch")),
        (f("rows"), f("scratchpad_row_pitch")),
    )
    return [memory, inside]


def _load(rows: Records) -> list[Records]:
    return _transfer(rows, True)


def _store(rows: Records) -> list[Records]:
    return _transfer(rows, False)


def _weights(rows: Records) -> list[Records]:
    f = _get(rows)
    return [
        _box(rows, Space.MEMORY + f("memory"), 0, f("address"), f("stream_bytes")),
        _box(rows, Space.WEIGHT_BUFFER, 1, f("buffer"), f("reduction") * f("columns")),
    ]


def _tile(rows: Records, write: int, name: str, dims: tuple[str, str, str]) -> Records:
    """Box of a [height, width, channels] tile called `name`, whose extents are `dims`."""
    f = _get(rows)
    height, width, channels = (f(dim) for dim in dims)
    return _box(
        rows,
        Space.SCRATCHPAD,
        write,
        f(name),
        channels,
        (height, f(f"{name}_row_pitch")),
        (width, f(f"{name}_pixel_pitch")),
    )


def _accumulators(rows: Records, write: int, dims: tuple[str, str], channels: Records) -> Records:
    f = _get(rows)
    pixels = f(dims[0]) * f(dims[1])
    return _box(
        rows,
        Space.ACCUMULATORS,
        write,
        f("accumulator"),
        channels,
        (pixels, f("accumulator_pitch")),
    )


_IFM_TILE = ("ifm_height", "ifm_width", "channels")
_OFM_TILE = ("ofm_height", "ofm_width", "channels")
_TILE = ("height", "width", "channels")


def _matmul(rows: Records) -> list[Records]:
    f = _get(rows)
    reduction = f("kernel_height") * f("kernel_width") * f("channels")
    boxes = [
        _tile(rows, 0, "ifm", _IFM_TILE),
        _accumulators(rows, 1, ("ofm_height", "ofm_width"), f("columns")),
    ]
    adding = rows[f("accumulate") == 1]
    if len(adding):
        columns = adding[:, COLUMNS["columns"]]
        boxes.append(_accumulators(adding, 0, ("ofm_height", "ofm_width"), columns))
    source = f("stationary")
    address = f("stationary_address")
    buffered = source == Stationary.BUFFER
    boxes.append(_box(rows, Space.WEIGHT_BUFFER, 0, address, reduction * f("columns"))[buffered])
    plain, turned = source == Stationary.SCRATCHPAD, source == Stationary.SCRATCHPAD_TRANSPOSED
    pitch = f("stationary_pitch")
    boxes.append(_box(rows, Space.SCRATCHPAD, 0, address, f("columns"), (reduction, pitch))[plain])
    boxes.append(_box(rows, Space.SCRATCHPAD, 0, address, reduction, (f("columns"), pitch))[turned])
    return boxes


def _depthwise(rows: Records) -> list[Records]:
    f = _get(rows)
    outputs = f("channels") * f("multiplier")
    boxes = [
        _tile(rows, 0, "ifm", _IFM_TILE),
        _accumulators(rows, 1, ("ofm_height", "ofm_width"), outputs),
    ]
    adding = rows[f("accumulate") == 1]
    if len(adding):
        columns = adding[:, COLUMNS["channels"]] * adding[:, COLUMNS["multiplier"]]
        boxes.append(_accumulators(adding, 0, ("ofm_height", "ofm_width"), columns))
    weights = f("kernel_height") * f("kernel_width") * outputs
    buffered = f("stationary") == Stationary.BUFFER
    boxes.append(_box(rows, Space.WEIGHT_BUFFER, 0, f("stationary_address"), weights)[buffered])
    return boxes


def _requantize(rows: Records) -> list[Records]:
    f = _get(rows)
    per_channel = np.array(REQUANTIZE_BYTES)[f("mode")]
    return [
        _accumulators(rows, 0, ("height", "width"), f("channels")),
        _box(rows, Space.SCRATCHPAD, 0, f("parameters"), f("channels") * per_channel),
        _tile(rows, 1, "ofm", _TILE),
    ]


def _broadcast_tile(rows: Records, name: str) -> Records:
    """Box of an operand of `binary`: a dimension of pitch 0 is touched once."""
    f = _get(rows)
    row, pixel, channel = (f(f"{name}_{part}_pitch") for part in ("row", "pixel", "channel"))
    return _box(
        rows,
        Space.SCRATCHPAD,
        0,
        f(name),
        np.where(channel == 0, 1, f("channels")),
        (np.where(row == 0, 1, f("height")), row),
        (np.where(pixel == 0, 1, f("width")), pixel),
    )


def _binary(rows: Records) -> list[Records]:
    f = _get(rows)
    parameters = _box(rows, Space.SCRATCHPAD, 0, f("parameters"), BINARY_PARAMETER_BYTES)
    plain = (f("mode") == BinaryMode.MAXIMUM) | (f("mode") == BinaryMode.MINIMUM)
    return [
        _broadcast_tile(rows, "a"),
        _broadcast_tile(rows, "b"),
        parameters[~plain],
        _tile(rows, 1, "ofm", _TILE),
    ]


def _lut(rows: Records) -> list[Records]:
    f = _get(rows)
    tables = np.where(f("table_pitch") == 0, 1, f("channels"))
    return [
        _tile(rows, 0, "ifm", _TILE),
        _box(rows, Space.SCRATCHPAD, 0, f("table"), 256, (tables, f("table_pitch"))),
        _tile(rows, 1, "ofm", _TILE),
    ]


def _copy(rows: Records) -> list[Records]:
    f = _get(rows)

    def side(name: str, write: int) -> Records:
        return _box(
            rows,
            Space.SCRATCHPAD,
            write,
            f(name),
            1,
            (f("height"), f(f"{name}_row_pitch")),
            (f("width"), f(f"{name}_pixel_pitch")),
            (f("channels"), f(f"{name}_channel_pitch")),
        )

    return [side("ifm", 0), side("ofm", 1)]


def _fill(rows: Records) -> list[Records]:
    return [_tile(rows, 1, "ofm", _TILE)]


def _pool(rows: Records) -> list[Records]:
    f = _get(rows)
    parameters = _box(rows, Space.SCRATCHPAD, 0, f("parameters"), POOL_PARAMETER_BYTES)
    return [
        _tile(rows, 0, "ifm", _IFM_TILE),
        parameters[f("mode") == PoolMode.AVERAGE_FLOAT32],
        _tile(rows, 1, "ofm", _OFM_TILE),
    ]


def _softmax(rows: Records) -> list[Records]:
    f = _get(rows)
    count = (f("rows"), f("ifm_row_pitch"))
    return [
        _box(rows, Space.SCRATCHPAD, 0, f("ifm"), f("channels"), count),
        _box(rows, Space.SCRATCHPAD, 0, f("parameters"), SOFTMAX_PARAMETER_BYTES),
        _box(rows, Space.SCRATCHPAD, 1, f("ofm"), f("channels"), (f("rows"), f("ofm_row_pitch"))),
    ]


def _resize(rows: Records) -> list[Records]:
    f = _get(rows)
    steps = f("ofm_height") + f("ofm_width")
    size = np.where(f("mode") == ResizeMode.NEAREST, steps * 4, RESIZE_HEADER_BYTES + steps * 16)
    return [
        _tile(rows, 0, "ifm", _IFM_TILE),
        _box(rows, Space.SCRATCHPAD, 0, f("parameters"), size),
        _tile(rows, 1, "ofm", _OFM_TILE),
    ]


_FOOTPRINTS: dict[str, Callable[[Records], list[Records]]] = {
    "load": _load,
    "store": _store,
    "weights": _weights,
    "matmul": _matmul,
    "depthwise": _depthwise,
    "requantize": _requantize,
    "binary": _binary,
    "lut": _lut,
    "copy": _copy,
    "fill": _fill,
    "pool": _pool,
    "softmax": _softmax,
    "resize": _resize,
    "halt": lambda _: [],
}


def cores_of(table: Records, cores: int) -> Records:
    """Return the core of each instruction: a region is a stream for each, ended by its `halt`."""
    halts = table[:, 0] == BY_MNEMONIC["halt"].opcode
    return (np.cumsum(halts) - halts) % cores


def first_shared(cores: int) -> int:
    """Return the first semaphore that all cores of a chip have in common."""
    return _SEMAPHORES if cores == 1 else FIRST_SHARED


def footprints(table: Records, cores: int = 1) -> Records:
    """Return the boxes of all instructions of `records`, `[m, len(BOX)]`, in their order.

    A box of no units (a count or run of 0) is left out. The table begins with a region's first
    instruction where there are several `cores`.
    """
    parts: list[Records] = []
    for mnemonic, function in _FOOTPRINTS.items():
        index = np.flatnonzero(table[:, 0] == BY_MNEMONIC[mnemonic].opcode)
        if not len(index):
            continue
        rows = table[index]
        rows[:, 0] = index  # the opcode is known; its column now carries the number
        parts.extend(function(rows))
    if not parts:
        return np.zeros((0, len(BOX)), np.int64)
    boxes = _merge(np.concatenate(parts))
    boxes = boxes[(boxes[:, 4] > 0) & (boxes[:, 5] > 0) & (boxes[:, 7] > 0) & (boxes[:, 9] > 0)]
    if cores > 1:
        core = cores_of(table, cores)[boxes[:, 0]]
        is_elsewhere = (core > 0) & (boxes[:, 1] < Space.MEMORY)
        boxes[:, 1] += np.where(is_elsewhere, MOST_MEMORIES + Space.MEMORY * core, 0)
    return boxes[np.argsort(boxes[:, 0], kind="stable")]


def ends(boxes: Records) -> Records:
    """Return one past the last unit of each box."""
    last = boxes[:, 3] + boxes[:, 4]
    for low in (5, 7, 9):
        last = last + (boxes[:, low] - 1) * boxes[:, low + 1]
    return last


def _merge(boxes: Records) -> Records:
    """Fold a dimension into the run wherever it continues it, so that packed tiles are one run.

    A read that repeats (stride 0) counts once; a write that does is a fault and stays visible.
    """
    made = boxes.copy()
    reads = made[:, 2] == 0
    for low, stride in ((9, 10), (7, 8), (5, 6)):
        repeats = reads & (made[:, stride] == 0) & (made[:, low] > 0)
        made[:, low] = np.where(repeats, 1, made[:, low])
    for low, stride in ((9, 10), (7, 8), (5, 6)):
        inner_done = np.ones(len(made), bool)
        for other in (9, 7):
            if other > low:
                inner_done &= made[:, other] == 1
        fold = inner_done & ((made[:, low] == 1) | (made[:, stride] == made[:, 4]))
        made[:, 4] = np.where(fold, made[:, 4] * made[:, low], made[:, 4])
        made[:, low] = np.where(fold, 1, made[:, low])
    return made


def queue_names(load_channels: int, store_channels: int, cores: int = 1) -> list[str]:
    """Return the names of a chip's queues in the order of their numbers, core by core."""
    loads = [f"load{channel}" for channel in range(load_channels)]
    stores = [f"store{channel}" for channel in range(store_channels)]
    names = [*loads, *stores, "weights", "matrix", "vector"]
    return names if cores == 1 else [f"{core}.{name}" for core in range(cores) for name in names]


def queue_count(load_channels: int, store_channels: int) -> int:
    """Return the queues of a core."""
    return load_channels + store_channels + 3


@cache
def queue_lanes(load_channels: int, store_channels: int) -> Records:
    """Return `[2, opcodes]`: the queue of each one's channel 0, -1 for control; its channels."""
    fixed = load_channels + store_channels
    first = {Unit.CONTROL: -1, Unit.LOAD: 0, Unit.STORE: load_channels, Unit.WEIGHTS: fixed}
    first |= {Unit.MATRIX: fixed + 1, Unit.VECTOR: fixed + 2}
    count = {Unit.LOAD: load_channels, Unit.STORE: store_channels}
    lanes = np.full((2, 256), -1, np.int64)
    lanes[1] = 1
    for opcode, cls in REGISTRY.items():
        lanes[:, opcode] = first[cls.unit], count.get(cls.unit, 1)
    return lanes


def queues(
    table: Records, load_channels: int, store_channels: int, cores: int = 1
) -> NDArray[np.int64]:
    """Return the queue number of each instruction, -1 for control, -2 for a missing channel.

    The table begins with a region's first instruction where there are several `cores`.
    """
    first, count = queue_lanes(load_channels, store_channels)
    opcode, channel = table[:, 0], table[:, COLUMNS["channel"]]
    local = np.where(channel < count[opcode], first[opcode] + channel, -2)
    if cores == 1:
        return local
    begin = cores_of(table, cores) * queue_count(load_channels, store_channels)
    return np.where(local < 0, local, local + begin)
