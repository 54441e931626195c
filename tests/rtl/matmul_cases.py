"""Programs of random and of deliberately awkward matmuls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from lepton.isa import Instruction, encode_all
from lepton.isa.instructions import Halt, Load, Matmul, Stationary, Weights
from lepton.program import Program, load_program
from lepton.simulator import check
from tests.programs import CONSTANTS, raw_program
from tests.rtl.bench import Shape

FLASH = 1
TILE_LOADED, WEIGHTS_LOADED, LATER_LOADED, MATMUL_DONE = (1 << bit for bit in range(4))
LATER_BYTES = 64
"""Bytes at the end of the scratchpad that only the later loads write."""

__all__ = ["edge_fields", "placed", "program_of", "sequence"]

Fields = dict[str, int]


def _zero_point(rng: np.random.Generator, is_unsigned: int) -> int:
    """Return a zero point, often an extreme one, even one that no byte can have."""
    usual = rng.integers(0, 256) if is_unsigned else rng.integers(-128, 128)
    return int(rng.choice([-256, 255, -128, 127, 0, 128, 1, int(usual), int(usual), int(usual)]))


def _channels(rng: np.random.Generator, taps: int, rows: int) -> int:
    """Return channels such that the reduction is near, and often at, a multiple of the rows."""
    aim = rows * int(rng.integers(1, 5)) + int(rng.integers(-1, 2))
    return int(rng.choice([max(aim // taps, 1), 1, 3, rows, int(rng.integers(1, 2 * rows + 2))]))


def _pitches(rng: np.random.Generator, f: Fields, rows: int) -> None:
    """Choose pitches: packed, padded, or such that lines meet in one slice."""
    packed = rng.random() < 0.6
    f["ifm_pixel_pitch"] = f["channels"] + (0 if packed else int(rng.integers(1, 2 * rows)))
    line = f["ifm_width"] * f["ifm_pixel_pitch"]
    multiple = -(-line // (4 * rows)) * 4 * rows
    f["ifm_row_pitch"] = int(
        rng.choice(
            [line, line + int(rng.integers(0, 40)), multiple, multiple + 2 * rows, line // 2]
        )
    )


def random_fields(rng: np.random.Generator, shape: Shape) -> Fields:
    """Return a matmul's fields, but for its places."""
    kernels = [(1, 1), (1, 1), (3, 3), (3, 3), (1, 3), (3, 1), (2, 2), (5, 2), (7, 7)]
    kernel_height, kernel_width = kernels[rng.integers(len(kernels))]
    f: Fields = {"kernel_height": kernel_height, "kernel_width": kernel_width}
    f["channels"] = _channels(rng, kernel_height * kernel_width, shape.rows)
    f["columns"] = max(shape.all_columns * int(rng.integers(1, 4)) + int(rng.integers(-2, 3)), 1)
    if rng.random() < 0.3:
        f["columns"] = int(rng.integers(1, shape.all_columns + 1))
    for axis in ("y", "x"):
        f[f"stride_{axis}"] = int(rng.integers(1, 4))
        f[f"dilation_{axis}"] = int(rng.choice([1, 1, 1, 2, 3]))
    for side in ("pad_top", "pad_left"):
        f[side] = int(
            rng.choice([0, 0, 1, 1, 2, -1, -3, 5, -2048, 2047], p=[0.12] * 8 + [0.02] * 2)
        )
    for extent in ("ifm_height", "ifm_width"):
        f[extent] = int(rng.integers(1, 9))
    f["ofm_height"], f["ofm_width"] = (int(rng.choice([1, 1, 2, 3, 5, 7])) for _ in range(2))
    f["ifm_unsigned"], f["weight_unsigned"] = (int(bit) for bit in rng.integers(0, 2, 2))
    f["ifm_zero_point"] = _zero_point(rng, f["ifm_unsigned"])
    f["weight_zero_point"] = _zero_point(rng, f["weight_unsigned"])
    f["stationary"] = int(rng.choice([*Stationary, *[Stationary.BUFFER] * 6]))
    _pitches(rng, f, shape.rows)
    return f


def placed(rng: np.random.Generator, f: Fields, shape: Shape) -> Matmul | None:
    """Return the matmul somewhere in the memories, or None if it does not fit."""
    tile_room = shape.scratchpad_kib * 1024 - LATER_BYTES
    tile = (f["ifm_height"] - 1) * f["ifm_row_pitch"] + f["channels"]
    tile += (f["ifm_width"] - 1) * f["ifm_pixel_pitch"]
    reduction, columns = f["kernel_height"] * f["kernel_width"] * f["channels"], f["columns"]
    places = {
        Stationary.BUFFER: (shape.weights_kib * 1024, columns, columns, reduction),
        Stationary.ONES: (0, 0, 0, 1),
        Stationary.SCRATCHPAD: (tile_room, columns + 3, columns, reduction),
        Stationary.SCRATCHPAD_TRANSPOSED: (tile_room, reduction + 5, reduction, columns),
    }
    room_bytes, stationary_pitch, run, runs = places[Stationary(f.get("stationary", 0))]
    pitch = f.get("accumulator_pitch", f["columns"] + int(rng.choice([0, 0, 1, 5])))
    sums = (f["ofm_height"] * f["ofm_width"] - 1) * pitch + f["columns"]
    room = (
        tile_room - tile,
        room_bytes - (runs - 1) * stationary_pitch - run,
        shape.accumulators_kib * 256 - sums,
    )
    if min(room) < 0:
        return None
    ifm, stationary, accumulator = (int(rng.integers(0, left + 1)) for left in room)
    return Matmul(
        **{"ifm": ifm, "stationary_address": stationary, "accumulator": accumulator}
        | f
        | {"accumulator_pitch": pitch, "stationary_pitch": stationary_pitch}
    )


def sequence(rng: np.random.Generator, shape: Shape, count: int) -> list[Matmul]:
    """Return random matmuls; some add to what the one before them wrote."""
    made: list[Matmul] = []
    while len(made) < count:
        f = random_fields(rng, shape)
        if made and rng.random() < 0.35:
            before = made[-1]
            for name in ("ofm_height", "ofm_width", "columns", "accumulator", "accumulator_pitch"):
                f[name] = getattr(before, name)
            f["accumulate"] = 1
        item = placed(rng, f, shape)
        if item is not None:
            made.append(item)
    return made


def program_of(rng: np.random.Generator, items: list[Matmul], shape: Shape) -> Program:
    """Return the checked program that fills the memories and runs the matmuls, by its file.

    Some matmuls wait for a load that itself waits for the matmul before, so that queues run dry.
    """
    tile, weights = shape.scratchpad_kib * 1024 - LATER_BYTES, shape.weights_kib * 1024
    content = rng.integers(0, 256, tile + weights, dtype=np.uint8)
    stream: list[Instruction] = [
        Load(memory=FLASH, address=CONSTANTS, row_bytes=tile, rows=1, planes=1, signal=TILE_LOADED),
        Weights(
            memory=FLASH, address=CONSTANTS + tile, stream_bytes=weights, reduction=weights // 16,
            columns=16, signal=WEIGHTS_LOADED,
        ),
    ]  # fmt: skip
    wait = TILE_LOADED | WEIGHTS_LOADED
    for item in items:
        pauses = item is not items[-1] and rng.random() < 0.25
        fields = {field.name: getattr(item, field.name) for field in item.fields}
        stream.append(Matmul(**fields | {"wait": wait, "signal": MATMUL_DONE if pauses else 0}))
        wait = 0
        if pauses:
            stream.append(
                Load(
                    memory=FLASH, address=CONSTANTS, scratchpad=tile, rows=1, planes=1,
                    row_bytes=int(rng.integers(1, LATER_BYTES)), wait=MATMUL_DONE,
                    signal=LATER_LOADED,
                )
            )  # fmt: skip
            wait = LATER_LOADED
    made = raw_program(encode_all([*stream, Halt()]), content, (), (), shape.chip())
    program = load_program(made.to_bytes())
    check(program)
    return program


_PLAIN = {
    "kernel_height": 1, "kernel_width": 1, "stride_y": 1, "stride_x": 1, "dilation_y": 1,
    "dilation_x": 1, "ifm_height": 4, "ifm_width": 4, "ofm_height": 4, "ofm_width": 4,
    "ifm_zero_point": -3, "weight_zero_point": 5,
}  # fmt: skip
_WINDOW = _PLAIN | {"kernel_height": 3, "kernel_width": 3}


def edge_fields(shape: Shape) -> Iterator[Fields]:
    """Yield matmuls at the edges of the array's shape, of the feed and of the fields."""
    yield from _block_edges(shape)
    yield from _window_edges(shape)
    yield from _slice_edges(shape)
    yield from _stationary_edges(shape)
    yield from _zero_point_edges(shape)


def _block_edges(shape: Shape) -> Iterator[Fields]:
    """Yield products one below, at and one above whole blocks, of one pixel and of many."""
    rows, columns = shape.rows, shape.all_columns
    reductions = (1, rows - 1, rows, rows + 1, 2 * rows, 3 * rows + 1)
    outputs = (1, columns - 1, columns, columns + 1, 2 * columns)
    for channels, count, side in product(reductions, outputs, (1, 4)):
        yield _PLAIN | {
            "channels": channels, "columns": count, "ofm_height": side, "ofm_width": side,
            "ifm_pixel_pitch": channels, "ifm_row_pitch": 4 * channels,
        }  # fmt: skip


def _window_edges(shape: Shape) -> Iterator[Fields]:
    """Yield 3 x 3 windows of 3 channels: packed, padded and slice upon slice."""
    walks = ((1, 1, 1), (2, 1, 1), (2, 2, 0), (3, 1, -1), (1, 3, 3))
    for (stride, dilation, pad), pitch in product(walks, (3, 4, shape.rows)):
        for line in (4 * pitch, 2 * shape.rows * shape.feed_words, 3 * shape.rows):
            yield _WINDOW | {
                "channels": 3, "columns": shape.all_columns, "stride_y": stride,
                "stride_x": stride, "dilation_y": dilation, "dilation_x": dilation,
                "pad_top": pad, "pad_left": pad, "ifm_pixel_pitch": pitch, "ifm_row_pitch": line,
            }  # fmt: skip


def _slice_edges(shape: Shape) -> Iterator[Fields]:
    """Yield two words of 3 bytes as far apart as just does and just does not fit."""
    ring, run = 2 * shape.rows * shape.feed_words, 3
    distances = (shape.rows - 1 + run, ring - shape.rows + 1 - run)
    reach = ring - shape.rows + 1 - run
    lines = (*(ring + distance for distance in distances), reach)
    for line, beside in product(lines, (-1, 0, 1)):
        yield _WINDOW | {
            "channels": 1, "columns": shape.all_columns, "kernel_height": 2, "ifm_height": 3,
            "ifm_pixel_pitch": 1, "ifm_row_pitch": max(line + beside, 0),
        }  # fmt: skip


def _stationary_edges(shape: Shape) -> Iterator[Fields]:
    """Yield products of two operands in the scratchpad."""
    rows, columns = shape.rows, shape.all_columns
    sources = (Stationary.SCRATCHPAD, Stationary.SCRATCHPAD_TRANSPOSED)
    blocks = ((1, 1), (rows + 1, columns), (rows, columns + 1), (3, 3 * columns))
    for source, (channels, outputs) in product(sources, blocks):
        yield _PLAIN | {
            "stationary": int(source), "channels": channels, "columns": outputs,
            "ifm_pixel_pitch": channels, "ifm_row_pitch": 4 * channels, "weight_unsigned": 1,
        }  # fmt: skip


def _zero_point_edges(shape: Shape) -> Iterator[Fields]:
    """Yield windows with padding and zero points that no byte can have."""
    pairs = ((-256, 255), (255, -256), (-128, -128), (127, 128))
    for unsigned, (ifm, weight) in product((0, 1), pairs):
        yield _WINDOW | {
            "channels": 2, "columns": shape.all_columns, "pad_top": 1, "pad_left": 1,
            "ifm_pixel_pitch": 2, "ifm_row_pitch": 8, "ifm_unsigned": unsigned,
            "weight_unsigned": unsigned, "ifm_zero_point": ifm, "weight_zero_point": weight,
        }  # fmt: skip
