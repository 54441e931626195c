"""Actions of an instruction, counted one by one in plain loops from docs/energy.md section 2.

Written from the page; nothing here is shared with `lepton.cost.actions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lepton.chip import Chip
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from tests.naive_matrix import dealing, groups_of

__all__ = ["naive_actions"]

Counts = Counter[str]


def _blocks(size: int, step: int) -> Iterator[range]:
    for start in range(0, size, step):
        yield range(start, min(start + step, size))


def _taps(i: isa.Matmul) -> list[tuple[int, int]]:
    """Return the run and the offset from the pixel's address of each row of the reduction."""
    packed = i.ifm_pixel_pitch == i.channels and i.dilation_x == 1
    taps: list[tuple[int, int]] = []
    for ky in range(i.kernel_height):
        for kx in range(i.kernel_width):
            for c in range(i.channels):
                run = ky if packed else ky * i.kernel_width + kx
                at = ky * i.dilation_y * i.ifm_row_pitch + kx * i.dilation_x * i.ifm_pixel_pitch
                taps.append((run, at + c))
    return taps


def _matmul(i: isa.Matmul, chip: Chip, n: Counts) -> None:
    rows, taps = chip.array.rows, _taps(i)
    for columns in _blocks(i.columns, chip.columns):
        for number, block in enumerate(_blocks(len(taps), rows)):
            _load(i, chip, n, block, columns)
            _feed(i, chip, n, [taps[k] for k in block], block)
            for _ in range(i.ofm_height):
                for _ in range(i.ofm_width):
                    for _ in block:
                        n["LINE_BUFFER"] += 1
                        n["ROW_SUM"] += 1
                    _step(i, rows, n, len(block), len(columns), number)


def _feed(i: isa.Matmul, chip: Chip, n: Counts, taps: list[tuple[int, int]], block: range) -> None:
    """Fetch the words of a pass: of every pixel, or of all pixels of a step at once."""
    _, together, is_shared = dealing(i, block, chip)
    shared = together if is_shared else 1
    step = i.stride_x * i.ifm_pixel_pitch
    for y in range(i.ofm_height):
        line = i.ifm + (y * i.stride_y - i.pad_top) * i.ifm_row_pitch
        for x in range(0, i.ofm_width, shared):
            pixel = line + x * step - i.pad_left * i.ifm_pixel_pitch
            held: set[tuple[int, int]] = set()
            for run in {run for run, _ in taps}:
                first = pixel + min(at for r, at in taps if r == run)
                last = pixel + max(at for r, at in taps if r == run) + (shared - 1) * step
                held |= {(run, at // chip.array.rows) for at in range(first, last + 1)}
            n["FEED_SLICE"] += len(held)


def _load(i: isa.Matmul, chip: Chip, n: Counts, block: range, columns: range) -> None:
    """Load the weights of a pass."""
    rows = chip.array.rows
    for _ in block:
        for _ in columns:
            n["WEIGHT_LATCH"] += min(groups_of(i, chip), i.ofm_width)
            n["WEIGHT_BUFFER_READ"] += i.stationary == isa.Stationary.BUFFER
    base, pitch = i.stationary_address, i.stationary_pitch
    if i.stationary == isa.Stationary.SCRATCHPAD:
        for k in block:
            n["STATIONARY_SLICE"] += len({(base + k * pitch + c) // rows for c in columns})
    if i.stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED:
        for c in columns:
            n["STATIONARY_SLICE"] += len({(base + c * pitch + k) // rows for k in block})


def _step(
    i: isa.Matmul | isa.Depthwise, rows: int, n: Counts, used: int, columns: int, number: int
) -> None:
    """Stream one pixel through a pass: all rows pass its sums on, those of the block multiply."""
    for _ in range(columns):
        n["MAC"] += used
        n["OPERAND_SHIFT"] += used
        n["SUM_SHIFT"] += rows
        n["ZERO_POINT"] += i.weight_zero_point != 0
        n["ACCUMULATOR_WRITE"] += 1
        n["ACCUMULATOR_READ"] += number > 0 or i.accumulate == 1


def _depthwise(i: isa.Depthwise, chip: Chip, n: Counts) -> None:
    rows, outputs = chip.array.rows, i.channels * i.multiplier
    words = -(-min(outputs, chip.columns) // rows)
    fresh = i.kernel_width if i.dilation_x > 1 else min(i.stride_x, i.kernel_width)
    for columns in _blocks(outputs, chip.columns):
        for number, block in enumerate(_blocks(i.kernel_height * i.kernel_width, rows)):
            for _ in columns:
                n["WEIGHT_LATCH"] += len(block)
                n["WEIGHT_BUFFER_READ"] += len(block) * (i.stationary == isa.Stationary.BUFFER)
            for _ in range(i.ofm_height):
                for x in range(i.ofm_width):
                    width = i.kernel_width if x == 0 else fresh
                    n["FEED_SLICE"] += i.kernel_height * width * words
                    n["LINE_BUFFER"] += len(block) * len(columns)
                    n["ROW_SUM"] += len(block) * len(columns)
                    _step(i, rows, n, len(block), len(columns), number)


def _requantize(i: isa.Requantize, n: Counts) -> None:
    mode = isa.RequantizeMode(i.mode)
    for _ in range(i.height * i.width * i.channels):
        n["ACCUMULATOR_READ"] += 1
        n[f"REQUANTIZE_{mode.name}"] += 1
        n["LANE_STEP"] += 1
        n["VECTOR_WRITE"] += 1
    for _ in range(i.channels):
        n["PARAMETER_READ"] += {"Q31": 9, "FLOAT32": 8, "FLOAT64": 12}[mode.name]


def _binary(i: isa.Binary, n: Counts) -> None:
    is_plain = i.mode in (isa.BinaryMode.MAXIMUM, isa.BinaryMode.MINIMUM)
    kind = "BINARY_Q31" if isa.BinaryMode(i.mode).name.endswith("Q31") else "BINARY_FLOAT"
    for _ in range(i.height * i.width * i.channels):
        n["VECTOR_READ"] += 2
        n["COMPARE" if is_plain else kind] += 1
        n["LANE_STEP"] += 1
        n["VECTOR_WRITE"] += 1
    n["PARAMETER_READ"] += 0 if is_plain else 64


def _pool(i: isa.Pool, n: Counts) -> None:
    is_order = i.mode in (isa.PoolMode.MAXIMUM, isa.PoolMode.MINIMUM)
    is_float = i.mode == isa.PoolMode.AVERAGE_FLOAT32
    for y in range(i.ofm_height):
        for x in range(i.ofm_width):
            for ky in range(i.kernel_height):
                for kx in range(i.kernel_width):
                    row = y * i.stride_y + ky * i.dilation_y - i.pad_top
                    column = x * i.stride_x + kx * i.dilation_x - i.pad_left
                    if 0 <= row < i.ifm_height and 0 <= column < i.ifm_width:
                        n["VECTOR_READ"] += i.channels
                        n["LANE_STEP"] += i.channels
                        n["COMPARE" if is_order else "POOL_ADD"] += i.channels
            n["VECTOR_WRITE"] += i.channels
            if not is_order:
                n["REQUANTIZE_FLOAT32" if is_float else "REQUANTIZE_Q31"] += i.channels
    n["PARAMETER_READ"] += 32 if is_float else 0


def _resize(i: isa.Resize, n: Counts) -> None:
    is_linear = i.mode != isa.ResizeMode.NEAREST
    for _ in range(i.ofm_height * i.ofm_width * i.channels):
        for _ in range(4 if is_linear else 1):
            n["VECTOR_READ"] += 1
            n["LANE_STEP"] += 1
            n["INTERPOLATE"] += is_linear
        n["VECTOR_WRITE"] += 1
    sides = i.ofm_height + i.ofm_width
    n["PARAMETER_READ"] += 32 + 16 * sides if is_linear else 4 * sides


def _other(i: Instruction, n: Counts) -> None:
    """Count the instructions whose elements are all alike."""
    if isinstance(i, isa.Softmax):
        for _ in range(i.rows * i.channels):
            n.update(VECTOR_READ=3, LANE_STEP=3, SOFTMAX=1, VECTOR_WRITE=1)
        n["PARAMETER_READ"] += 1056
    elif isinstance(i, isa.Lut):
        for _ in range(i.height * i.width * i.channels):
            n.update(VECTOR_READ=1, LANE_STEP=1, LOOK_UP=1, VECTOR_WRITE=1)
        n["PARAMETER_READ"] += 256 * (i.channels if i.table_pitch else 1)
    elif isinstance(i, isa.Copy):
        for _ in range(i.height * i.width * i.channels):
            n.update(VECTOR_READ=1, LANE_STEP=1, VECTOR_WRITE=1)
    elif isinstance(i, isa.Fill):
        for _ in range(i.height * i.width * i.channels):
            n.update(LANE_STEP=1, VECTOR_WRITE=1)
    else:
        _transfer(i, n)


def _transfer(i: Instruction, n: Counts) -> None:
    if isinstance(i, isa.Load | isa.Store):
        name = "LOAD_BYTE" if isinstance(i, isa.Load) else "STORE_BYTE"
        for _ in range(i.planes * i.rows):
            n[name] += i.row_bytes
    elif isinstance(i, isa.Weights):
        for _ in range(i.reduction * i.columns):
            n.update(WEIGHT_BUFFER_WRITE=1, DECODER_BYTE=1)
            if i.format in (isa.WeightFormat.GROUPED, isa.WeightFormat.PALETTE):
                n["WEIGHT_SYMBOL"] += 1
            elif i.format != isa.WeightFormat.RAW:
                n["ENTROPY_SYMBOL"] += 1


def naive_actions(i: Instruction, chip: Chip) -> Counts:
    """Return how often an instruction does each action, by name, without those it never does."""
    n: Counts = Counter()
    n["INSTRUCTION"] = 1
    if isinstance(i, isa.Matmul):
        _matmul(i, chip, n)
    elif isinstance(i, isa.Depthwise):
        _depthwise(i, chip, n)
    elif isinstance(i, isa.Requantize):
        _requantize(i, n)
    elif isinstance(i, isa.Binary):
        _binary(i, n)
    elif isinstance(i, isa.Pool):
        _pool(i, n)
    elif isinstance(i, isa.Resize):
        _resize(i, n)
    else:
        _other(i, n)
    return +n
