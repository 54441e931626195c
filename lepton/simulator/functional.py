"""What each instruction does to the bytes: one short function per mnemonic.

Source: the arithmetic is that of `lepton.arith`, which follows LiteRT's reference kernels and ONNX
Runtime's integer kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.arith import onnx, onnx_elementwise, onnx_resize, tflite_binary, tflite_window
from lepton.arith.elementwise import combine
from lepton.arith.records import (
    unpack,
    unpack_linear,
    unpack_requantize,
    unpack_softmax_table,
)
from lepton.codec import WeightStream, decode_weights
from lepton.errors import CheckError
from lepton.isa import footprints as sizes
from lepton.isa import instructions as isa
from lepton.isa.declaration import Instruction
from lepton.simulator import matrix_kernels as matrix
from lepton.simulator import vector_kernels as vector
from lepton.simulator.machine import Machine

__all__ = ["SEMANTICS", "execute"]

Bytes = NDArray[np.uint8]


_RESULT: dict[str, tuple[str, ...]] = {
    "halt": (),
    "load": ("row_bytes", "rows", "planes"),
    "store": ("row_bytes", "rows", "planes"),
    "weights": ("reduction", "columns"),
    "matmul": ("ofm_height", "ofm_width", "columns"),
    "depthwise": ("ofm_height", "ofm_width", "channels", "multiplier"),
    "pool": ("ofm_height", "ofm_width", "channels"),
    "resize": ("ofm_height", "ofm_width", "channels"),
    "softmax": ("rows", "channels"),
}
"""Fields whose product is the size of an instruction's result."""


def execute(machine: Machine, instruction: Instruction) -> None:
    """Apply one instruction to the machine; without results it does nothing.

    Raises:
        CheckError: an overflow, or parameters in the scratchpad that mean nothing.
    """
    extents = _RESULT.get(instruction.mnemonic, ("height", "width", "channels"))
    if 0 not in [getattr(instruction, name) for name in extents]:
        SEMANTICS[instruction.mnemonic](machine, instruction)


def _sane(record: tuple[Any, ...], mnemonic: str) -> Any:
    """Return a parameter record after checking its shifts and its floats.

    Raises:
        CheckError: a shift that no 32-bit shifter has, or a factor that is not finite.
    """
    for name, value in zip(getattr(record, "_fields", ()), record, strict=False):
        if isinstance(value, tuple):
            _sane(cast(tuple[Any, ...], value), mnemonic)
        elif "shift" in name and not -31 <= int(value) <= 31:
            raise CheckError(f"{mnemonic}: parameter {name} must be -31 to 31, not {int(value)}")
        elif name == "left_shift" and value < 0:
            raise CheckError(f"{mnemonic}: parameter {name} must not be negative, not {int(value)}")
        elif isinstance(value, float | np.floating | np.ndarray):
            is_bound = name in ("lower", "upper") and bool(np.isinf(value))
            _finite(np.zeros(1) if is_bound else np.asarray(value), mnemonic)
    return record


def _finite(values: NDArray[Any], mnemonic: str) -> None:
    """Raise unless every value is a number."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise CheckError(f"{mnemonic}: a parameter is NaN or infinite")


def _view(memory: Bytes, base: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Bytes:
    """Return a strided view of bytes."""
    return np.ndarray(shape, np.uint8, memory, base, strides)


def _halt(machine: Machine, i: isa.Halt) -> None:
    del machine, i


def _planes(i: isa.Load | isa.Store, machine: Machine) -> tuple[Bytes, Bytes]:
    """Return the views of a transfer: in the memory, and in the scratchpad."""
    shape = (i.planes, i.rows, i.row_bytes)
    outside = _view(machine.memories[i.memory], i.address, shape, (i.plane_stride, i.row_stride, 1))
    pitches = (i.scratchpad_plane_pitch, i.scratchpad_row_pitch, 1)
    return outside, _view(machine.scratchpad, i.scratchpad, shape, pitches)


def _load(machine: Machine, i: isa.Load) -> None:
    outside, inside = _planes(i, machine)
    inside[:] = outside


def _store(machine: Machine, i: isa.Store) -> None:
    outside, inside = _planes(i, machine)
    outside[:] = inside


def _weights(machine: Machine, i: isa.Weights) -> None:
    stream = machine.memories[i.memory][i.address : i.address + i.stream_bytes]
    stored = WeightStream(isa.WeightFormat(i.format), stream)
    machine.write_weights(i.buffer, decode_weights(stored, i.reduction * i.columns))


def _window(i: isa.Matmul | isa.Depthwise) -> matrix.Window:
    return matrix.Window(
        i.ifm, i.ifm_row_pitch, i.ifm_pixel_pitch, i.ifm_height, i.ifm_width, i.channels,
        i.kernel_height, i.kernel_width, i.stride_y, i.stride_x, i.dilation_y, i.dilation_x,
        i.pad_top, i.pad_left, i.ofm_height, i.ofm_width,
    )  # fmt: skip


def _operand(i: isa.Matmul | isa.Depthwise) -> matrix.Operand:
    """Return how a byte of the input tile is read."""
    flip = 0 if i.ifm_unsigned else 128
    return matrix.Operand(flip, i.ifm_zero_point + flip)


def _stationary(
    machine: Machine, i: isa.Matmul | isa.Depthwise, reduction: int, columns: int
) -> Bytes:
    """Return the bytes of the stationary operand, `[reduction, columns]`."""
    start = i.stationary_address
    if i.stationary == isa.Stationary.ONES:
        return np.ones((reduction, columns), np.uint8)
    if i.stationary == isa.Stationary.BUFFER:
        raw = machine.weight_buffer[start : start + reduction * columns]
        return raw.reshape(reduction, columns)
    pitch = i.stationary_pitch if isinstance(i, isa.Matmul) else columns
    turned = i.stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED
    strides = (1, pitch) if turned else (pitch, 1)
    return np.ascontiguousarray(_view(machine.scratchpad, start, (reduction, columns), strides))


def _weight_values(i: isa.Matmul | isa.Depthwise, raw: Bytes) -> NDArray[np.int32]:
    """Return the stationary operand less its zero point."""
    if i.stationary == isa.Stationary.ONES:
        return raw.astype(np.int32)
    return _values(raw, i.weight_unsigned) - np.int32(i.weight_zero_point)


def _packed(machine: Machine, i: isa.Matmul, reduction: int, flip: int) -> matrix.Packed:
    """Return the packed stationary operand."""
    if i.stationary != isa.Stationary.BUFFER:
        return matrix.pack(_stationary(machine, i, reduction, i.columns), flip)
    key = (i.stationary_address, reduction, i.columns, flip)
    if key not in machine.packed:
        machine.packed[key] = matrix.pack(_stationary(machine, i, reduction, i.columns), flip)
    return machine.packed[key]


def _accumulators(machine: Machine, i: isa.Matmul | isa.Depthwise) -> matrix.Accumulators:
    return matrix.Accumulators(
        machine.accumulators, i.accumulator, i.accumulator_pitch, i.accumulate
    )


def _check_overflow(worst: int, mnemonic: str) -> None:
    """Raise for a total that left int32."""
    if worst:
        raise CheckError(f"{mnemonic}: an accumulator overflows int32 with {worst}")


def _matmul(machine: Machine, i: isa.Matmul) -> None:
    reduction = i.kernel_height * i.kernel_width * i.channels
    x, window, target = _operand(i), _window(i), _accumulators(machine, i)
    is_ones = i.stationary == isa.Stationary.ONES
    flip = 128 if i.weight_unsigned and not is_ones else 0
    zero_point = 0 if is_ones else i.weight_zero_point - flip
    if matrix.can_multiply(reduction, x, zero_point):
        packed = _packed(machine, i, reduction, flip)
        stationary = (i.columns, zero_point)
        worst = matrix.multiply(machine.scratchpad, x, window, packed, stationary, target)
    else:
        weights = _weight_values(i, _stationary(machine, i, reduction, i.columns))
        worst = matrix.multiply_wide(machine.scratchpad, x, window, weights, target)
    _check_overflow(worst, i.mnemonic)


def _depthwise(machine: Machine, i: isa.Depthwise) -> None:
    taps, outputs = i.kernel_height * i.kernel_width, i.channels * i.multiplier
    weights = _weight_values(i, _stationary(machine, i, taps, outputs))
    x = _operand(i)
    largest = int(np.abs(weights).max(initial=0))
    fits = taps * x.largest * largest < matrix.INT32_END
    row = np.empty(outputs, np.int32 if fits else np.int64)
    worst = matrix.accumulate_depthwise(
        machine.scratchpad, x, _window(i), weights, row, _accumulators(machine, i)
    )
    _check_overflow(worst, i.mnemonic)


_REQUANTIZE: dict[int, Any] = {
    isa.RequantizeMode.Q31: vector.requantize_q31,
    isa.RequantizeMode.FLOAT32: vector.requantize_float32,
    isa.RequantizeMode.FLOAT64: vector.requantize_float64,
}


def _requantize(machine: Machine, i: isa.Requantize) -> None:
    size = i.channels * sizes.REQUANTIZE_BYTES[i.mode]
    content = machine.scratchpad[i.parameters : i.parameters + size]
    table = unpack_requantize(content, i.channels, i.mode)
    pixels = i.height * i.width
    sums: NDArray[np.int32] = np.ndarray(
        (pixels, i.channels), np.int32, machine.accumulators, 4 * i.accumulator,
        (4 * i.accumulator_pitch, 4),
    )  # fmt: skip
    bounds = (i.ofm_zero_point, i.minimum, i.maximum)
    result = np.empty((pixels, i.channels), np.uint8)
    if table.shift.size and (table.shift.min() < -31 or table.shift.max() > 31):
        worst = int(table.shift[np.abs(table.shift.astype(np.int32)).argmax()])
        raise CheckError(f"requantize: a shift must be -31 to 31, not {worst}")
    _finite(table.multiplier, "requantize")
    overflow = _REQUANTIZE[i.mode](sums, table, bounds, result)
    if overflow:
        raise CheckError("requantize: an accumulator and its bias overflow int32")
    _tile(machine, i, "ofm", (i.height, i.width, i.channels))[:] = result.reshape(
        i.height, i.width, i.channels
    )


def _tile(machine: Machine, i: Any, name: str, shape: tuple[int, int, int]) -> Bytes:
    """Return the view of a tile whose channels are contiguous."""
    strides = (getattr(i, f"{name}_row_pitch"), getattr(i, f"{name}_pixel_pitch"), 1)
    return _view(machine.scratchpad, getattr(i, name), shape, strides)


def _values(raw: Bytes, is_unsigned: int) -> NDArray[np.int32]:
    """Return raw bytes as sign- or zero-extended int32, contiguous."""
    widened = raw.astype(np.int32)
    return widened if is_unsigned else ((widened ^ 128) - 128)


def _parameters(machine: Machine, start: int, size: int) -> Bytes:
    return machine.scratchpad[start : start + size]


_BINARY_RECORDS: dict[int, type[Any]] = {
    isa.BinaryMode.ADD_Q31: tflite_binary.Adder,
    isa.BinaryMode.SUB_Q31: tflite_binary.Adder,
    isa.BinaryMode.SQUARED_DIFFERENCE_Q31: tflite_binary.Adder,
    isa.BinaryMode.MUL_Q31: tflite_binary.Multiplier,
    isa.BinaryMode.ADD_RATIO: onnx.AddParams,
    isa.BinaryMode.MUL_RATIO: onnx.MulParams,
}
"""Parameters by mode; the float32 modes share one record, maximum and minimum have none."""


def _binary(machine: Machine, i: isa.Binary) -> None:
    shape = (i.height, i.width, i.channels)

    def operand(name: str, is_unsigned: int) -> NDArray[np.int32]:
        pitches = tuple(getattr(i, f"{name}_{part}_pitch") for part in ("row", "pixel", "channel"))
        raw = _view(machine.scratchpad, getattr(i, name), shape, pitches)
        return _values(raw, is_unsigned).ravel()

    a, b = operand("a", i.a_unsigned), operand("b", i.b_unsigned)
    content = _parameters(machine, i.parameters, sizes.BINARY_PARAMETER_BYTES)
    if i.mode not in (isa.BinaryMode.MAXIMUM, isa.BinaryMode.MINIMUM):
        kind = _BINARY_RECORDS.get(i.mode, onnx_elementwise.FloatBinaryParams)
        _sane(unpack(kind, content), "binary")
    _tile(machine, i, "ofm", shape)[:] = combine(i.mode, a, b, content).reshape(shape)


def _lut(machine: Machine, i: isa.Lut) -> None:
    shape = (i.height, i.width, i.channels)
    ifm, ofm = _tile(machine, i, "ifm", shape), _tile(machine, i, "ofm", shape)
    if i.table_pitch == 0:
        ofm[:] = machine.scratchpad[i.table : i.table + 256][ifm]
    else:
        tables = _view(machine.scratchpad, i.table, (i.channels, 256), (i.table_pitch, 1))
        ofm[:] = tables[np.arange(i.channels), ifm]


def _copy(machine: Machine, i: isa.Copy) -> None:
    shape = (i.height, i.width, i.channels)

    def side(name: str) -> Bytes:
        pitches = tuple(getattr(i, f"{name}_{part}_pitch") for part in ("row", "pixel", "channel"))
        return _view(machine.scratchpad, getattr(i, name), shape, pitches)

    side("ofm")[:] = side("ifm").copy()


def _fill(machine: Machine, i: isa.Fill) -> None:
    _tile(machine, i, "ofm", (i.height, i.width, i.channels))[:] = i.value


def _pool(machine: Machine, i: isa.Pool) -> None:
    shape = (i.ifm_height, i.ifm_width, i.channels)
    ifm = _values(_tile(machine, i, "ifm", shape), i.ifm_unsigned)
    window = vector.PoolWindow(
        i.kernel_height, i.kernel_width, i.stride_y, i.stride_x, i.dilation_y, i.dilation_x,
        i.pad_top, i.pad_left, i.ofm_height, i.ofm_width, i.count_pad, i.minimum, i.maximum,
    )  # fmt: skip
    if i.mode == isa.PoolMode.AVERAGE_FLOAT32:
        content = _parameters(machine, i.parameters, sizes.POOL_PARAMETER_BYTES)
        result = vector.average_float32(
            ifm, window, _sane(unpack(vector.AveragePair, content), "pool")
        )
    elif i.mode == isa.PoolMode.AVERAGE_INTEGER:
        result = vector.average_integer(ifm, window)
    else:
        result = vector.extreme(ifm, window, 1 if i.mode == isa.PoolMode.MAXIMUM else -1)
    _tile(machine, i, "ofm", (i.ofm_height, i.ofm_width, i.channels))[:] = result


def _softmax(machine: Machine, i: isa.Softmax) -> None:
    shape = (i.rows, i.channels)
    raw = _view(machine.scratchpad, i.ifm, shape, (i.ifm_row_pitch, 1))
    ifm = _values(raw, i.ifm_unsigned)
    content = _parameters(machine, i.parameters, sizes.SOFTMAX_PARAMETER_BYTES)
    if i.mode == isa.SoftmaxMode.Q31:
        record = _sane(unpack(tflite_window.Softmax, content), "softmax")
        result = tflite_window.softmax(record, ifm)
    else:
        result = onnx.softmax(ifm, _sane(unpack_softmax_table(content), "softmax"))
    _view(machine.scratchpad, i.ofm, shape, (i.ofm_row_pitch, 1))[:] = result


def _check_sources(index: NDArray[Any], extent: int) -> None:
    """Raise unless every source index of a resize lies inside the tile."""
    if index.size and (index.min() < 0 or index.max() >= extent):
        raise CheckError(f"resize: a source index lies outside of the tile's {extent}")


def _resize(machine: Machine, i: isa.Resize) -> None:
    shape = (i.ifm_height, i.ifm_width, i.channels)
    ifm = _values(_tile(machine, i, "ifm", shape), i.ifm_unsigned)
    ofm = _tile(machine, i, "ofm", (i.ofm_height, i.ofm_width, i.channels))
    steps = i.ofm_height + i.ofm_width
    if i.mode == isa.ResizeMode.NEAREST:
        index = _parameters(machine, i.parameters, 4 * steps).copy().view(np.int32)
        _check_sources(index[: i.ofm_height], i.ifm_height)
        _check_sources(index[i.ofm_height :], i.ifm_width)
        ofm[:] = ifm[index[: i.ofm_height]][:, index[i.ofm_height :]]
        return
    content = _parameters(machine, i.parameters, sizes.RESIZE_HEADER_BYTES + 16 * steps)
    is_float = i.mode != isa.ResizeMode.LINEAR_Q10
    pair, rows, columns = unpack_linear(content, i.ofm_height, i.ofm_width, is_float)
    for taps, extent in ((rows, i.ifm_height), (columns, i.ifm_width)):
        _check_sources(taps[0], extent)
        _check_sources(taps[1], extent)
        _finite(taps[2], "resize")
        _finite(taps[3], "resize")
    if i.mode in (isa.ResizeMode.LINEAR_Q10, isa.ResizeMode.LINEAR_ROUNDED):
        axes = [tflite_window.Interpolation(taps[0], taps[1], taps[3]) for taps in (rows, columns)]
        kernel: Callable[..., Any] = (
            tflite_window.resize_bilinear_uint8 if is_float else tflite_window.resize_bilinear
        )
        ofm[:] = kernel(ifm[None], *axes)[0]
        return
    taps = (onnx_resize.LinearTaps(*rows), onnx_resize.LinearTaps(*columns))
    if i.mode == isa.ResizeMode.LINEAR_CODES:
        ofm[:] = onnx_resize.resize_linear_codes(ifm, *taps)
    else:
        ofm[:] = onnx_resize.resize_linear(ifm, *taps, _sane(pair, "resize"))


SEMANTICS: dict[str, Callable[[Machine, Any], None]] = {
    "halt": _halt,
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
}
"""What each mnemonic does."""
