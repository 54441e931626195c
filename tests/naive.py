"""Brute-force references in plain loops, written from the documentation of the instructions.

`NaiveMachine` notes every unit that it reads and writes, so that footprints can be compared with
what really happens. Element arithmetic of the parameterized modes is that of `lepton.arith`, which
has tests against the golden libraries of its own; addresses, signs, windows and sums are redone.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np

from lepton.arith import onnx, onnx_elementwise, onnx_resize, tflite_binary, tflite_window
from lepton.arith.onnx_float import dequantize_value
from lepton.arith.onnx_pool import average_code
from lepton.arith.records import unpack, unpack_linear, unpack_softmax_table
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.isa.footprints import Space
from lepton.simulator.machine import Machine
from lepton.simulator.vector_kernels import AveragePair
from tests.naive_codec import expanded

SCRATCHPAD, ACCUMULATORS, WEIGHTS = Space.SCRATCHPAD, Space.ACCUMULATORS, Space.WEIGHT_BUFFER


class NaiveMachine:
    """The spaces of a machine, read and written a unit at a time."""

    def __init__(self, machine: Machine) -> None:
        spaces = [machine.scratchpad, machine.accumulators, machine.weight_buffer]
        self.spaces = [space.tolist() for space in (*spaces, *machine.memories)]
        self.reads: set[tuple[int, int]] = set()
        self.writes: set[tuple[int, int]] = set()
        self._pending: list[tuple[int, int, int]] = []

    def read(self, space: int, at: int) -> int:
        self.reads.add((space, at))
        return self.spaces[space][at]

    def code(self, space: int, at: int, is_unsigned: int) -> int:
        """Return the byte as int8 or uint8."""
        raw = self.read(space, at)
        return raw if is_unsigned or raw < 128 else raw - 256

    def write(self, space: int, at: int, value: int) -> None:
        """Write once the instruction has read all it reads."""
        self._pending.append((space, at, int(value)))

    def write_code(self, at: int, value: int) -> None:
        self.write(SCRATCHPAD, at, int(value) % 256)

    def content(self, start: int, size: int) -> np.ndarray:
        """Return bytes of the scratchpad, for parameters."""
        return np.array([self.read(SCRATCHPAD, start + k) for k in range(size)], np.uint8)

    def execute(self, instruction: Instruction) -> None:
        NAIVE[instruction.mnemonic](self, instruction)
        for space, at, value in self._pending:
            self.spaces[space][at] = value
            self.writes.add((space, at))
        self._pending.clear()


def _round_half_up(x: Fraction) -> int:
    return floor(x + Fraction(1, 2))


def _round_half_away(x: Fraction) -> int:
    return _round_half_up(x) if x >= 0 else -_round_half_up(-x)


def multiply_q31(value: int, multiplier: int, shift: int) -> int:
    """Return value * multiplier * 2**(shift - 31): up in int32, doubled high half, down again."""
    raised = (value * 2 ** max(shift, 0) + 2**31) % 2**32 - 2**31
    if raised == multiplier == -(2**31):
        high = 2**31 - 1
    else:
        high = _round_half_up(Fraction(raised * multiplier, 2**31))
    return _round_half_away(Fraction(high, 2 ** max(-shift, 0)))


def _clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


def _halt(m: NaiveMachine, i: isa.Halt) -> None:
    pass


def _transfer(m: NaiveMachine, i: Any) -> None:
    outside = Space.MEMORY + i.memory
    for k in range(i.planes):
        for j in range(i.rows):
            for byte in range(i.row_bytes):
                far = i.address + j * i.row_stride + k * i.plane_stride + byte
                near = (
                    i.scratchpad + j * i.scratchpad_row_pitch + k * i.scratchpad_plane_pitch + byte
                )
                if isinstance(i, isa.Load):
                    m.write(SCRATCHPAD, near, m.read(outside, far))
                else:
                    m.write(outside, far, m.read(SCRATCHPAD, near))


def _weights(m: NaiveMachine, i: isa.Weights) -> None:
    content = [m.read(Space.MEMORY + i.memory, i.address + k) for k in range(i.stream_bytes)]
    for k, value in enumerate(expanded(content, i.format, i.reduction * i.columns)):
        m.write(WEIGHTS, i.buffer + k, value)


def _taps(i: Any, y: int, x: int) -> list[tuple[int, int, int]]:
    """Return (tap, iy, ix) of the taps of output (y, x) that lie inside the tile."""
    found: list[tuple[int, int, int]] = []
    for ky in range(i.kernel_height):
        for kx in range(i.kernel_width):
            iy = y * i.stride_y - i.pad_top + ky * i.dilation_y
            ix = x * i.stride_x - i.pad_left + kx * i.dilation_x
            if 0 <= iy < i.ifm_height and 0 <= ix < i.ifm_width:
                found.append((ky * i.kernel_width + kx, iy, ix))
    return found


def _ifm_at(i: Any, iy: int, ix: int, c: int) -> int:
    return i.ifm + iy * i.ifm_row_pitch + ix * i.ifm_pixel_pitch + c


def _stationary(m: NaiveMachine, i: isa.Matmul, row: int, n: int) -> int:
    """Return one element of the stationary operand of `matmul`, less its zero point."""
    if i.stationary == isa.Stationary.ONES:
        return 1
    at, space = i.stationary_address, SCRATCHPAD
    if i.stationary == isa.Stationary.BUFFER:
        at, space = at + row * i.columns + n, WEIGHTS
    elif i.stationary == isa.Stationary.SCRATCHPAD:
        at += row * i.stationary_pitch + n
    else:
        at += n * i.stationary_pitch + row
    return m.code(space, at, i.weight_unsigned) - i.weight_zero_point


def _put(m: NaiveMachine, i: Any, pixel: int, n: int, total: int) -> None:
    at = i.accumulator + pixel * i.accumulator_pitch + n
    if i.accumulate:
        total += m.read(ACCUMULATORS, at)
    m.write(ACCUMULATORS, at, total)


def _matmul(m: NaiveMachine, i: isa.Matmul) -> None:
    for y in range(i.ofm_height):
        for x in range(i.ofm_width):
            for n in range(i.columns):
                total = 0
                for tap, iy, ix in _taps(i, y, x):
                    for c in range(i.channels):
                        value = m.code(SCRATCHPAD, _ifm_at(i, iy, ix, c), i.ifm_unsigned)
                        weight = _stationary(m, i, tap * i.channels + c, n)
                        total += (value - i.ifm_zero_point) * weight
                _put(m, i, y * i.ofm_width + x, n, total)


def _depthwise(m: NaiveMachine, i: isa.Depthwise) -> None:
    outputs = i.channels * i.multiplier
    for y in range(i.ofm_height):
        for x in range(i.ofm_width):
            for n in range(outputs):
                total = 0
                for tap, iy, ix in _taps(i, y, x):
                    at = _ifm_at(i, iy, ix, n // i.multiplier)
                    value = m.code(SCRATCHPAD, at, i.ifm_unsigned) - i.ifm_zero_point
                    weight = 1
                    if i.stationary == isa.Stationary.BUFFER:
                        place = i.stationary_address + tap * outputs + n
                        weight = m.code(WEIGHTS, place, i.weight_unsigned) - i.weight_zero_point
                    total += value * weight
                _put(m, i, y * i.ofm_width + x, n, total)


_MULTIPLIERS = {
    isa.RequantizeMode.Q31: np.int32,
    isa.RequantizeMode.FLOAT32: np.float32,
    isa.RequantizeMode.FLOAT64: np.float64,
}


def _requantize(m: NaiveMachine, i: isa.Requantize) -> None:
    n = i.channels
    bias = m.content(i.parameters, 4 * n).view(np.int32)
    kind = np.dtype(_MULTIPLIERS[isa.RequantizeMode(i.mode)])
    multiplier = m.content(i.parameters + 4 * n, kind.itemsize * n).view(kind)
    is_q31 = i.mode == isa.RequantizeMode.Q31
    shift = m.content(i.parameters + 8 * n, n).view(np.int8) if is_q31 else None
    for y in range(i.height):
        for x in range(i.width):
            for c in range(n):
                at = i.accumulator + (y * i.width + x) * i.accumulator_pitch + c
                total = m.read(ACCUMULATORS, at) + int(bias[c])
                if shift is not None:
                    scaled = multiply_q31(total, int(multiplier[c]), int(shift[c]))
                elif i.mode == isa.RequantizeMode.FLOAT32:
                    scaled = int(np.rint(np.float32(total) * multiplier[c]))
                else:
                    scaled = _round_half_away(Fraction(float(total) * float(multiplier[c])))
                code = _clamp(scaled + i.ofm_zero_point, i.minimum, i.maximum)
                m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, code)


_FLOAT_OPS = {
    isa.BinaryMode.ADD_FLOAT32: onnx_elementwise.FloatOp.ADD,
    isa.BinaryMode.SUB_FLOAT32: onnx_elementwise.FloatOp.SUB,
    isa.BinaryMode.MUL_FLOAT32: onnx_elementwise.FloatOp.MUL,
    isa.BinaryMode.DIV_FLOAT32: onnx_elementwise.FloatOp.DIV,
    isa.BinaryMode.MAXIMUM_FLOAT32: onnx_elementwise.FloatOp.MAX,
    isa.BinaryMode.MINIMUM_FLOAT32: onnx_elementwise.FloatOp.MIN,
}


def _combine(mode: int, a: int, b: int, content: np.ndarray) -> int:
    """Return the function of one pair of codes."""
    left, right = np.array([a], np.int32), np.array([b], np.int32)
    if mode == isa.BinaryMode.MUL_Q31:
        return tflite_binary.mul(unpack(tflite_binary.Multiplier, content), left, right)[0]
    if mode == isa.BinaryMode.ADD_RATIO:
        return onnx.add(left, right, unpack(onnx.AddParams, content))[0]
    if mode == isa.BinaryMode.MUL_RATIO:
        return onnx.mul(left, right, unpack(onnx.MulParams, content))[0]
    if mode in _FLOAT_OPS:
        params = unpack(onnx_elementwise.FloatBinaryParams, content)
        op = int(_FLOAT_OPS[isa.BinaryMode(mode)])
        return onnx_elementwise.float_binary(left, right, op, params)[0]
    kernels = {
        isa.BinaryMode.ADD_Q31: tflite_binary.add,
        isa.BinaryMode.SUB_Q31: tflite_binary.sub,
        isa.BinaryMode.SQUARED_DIFFERENCE_Q31: tflite_binary.squared_difference,
    }
    return kernels[isa.BinaryMode(mode)](unpack(tflite_binary.Adder, content), left, right)[0]


def _binary(m: NaiveMachine, i: isa.Binary) -> None:
    content = np.zeros(0, np.uint8)
    if i.mode not in (isa.BinaryMode.MAXIMUM, isa.BinaryMode.MINIMUM):
        content = m.content(i.parameters, 64)
    for y in range(i.height):
        for x in range(i.width):
            for c in range(i.channels):
                at_a = i.a + y * i.a_row_pitch + x * i.a_pixel_pitch + c * i.a_channel_pitch
                at_b = i.b + y * i.b_row_pitch + x * i.b_pixel_pitch + c * i.b_channel_pitch
                a = m.code(SCRATCHPAD, at_a, i.a_unsigned)
                b = m.code(SCRATCHPAD, at_b, i.b_unsigned)
                if i.mode == isa.BinaryMode.MAXIMUM:
                    code = max(a, b)
                elif i.mode == isa.BinaryMode.MINIMUM:
                    code = min(a, b)
                else:
                    code = _combine(i.mode, a, b, content)
                m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, code)


def _lut(m: NaiveMachine, i: isa.Lut) -> None:
    for y in range(i.height):
        for x in range(i.width):
            for c in range(i.channels):
                raw = m.read(SCRATCHPAD, i.ifm + y * i.ifm_row_pitch + x * i.ifm_pixel_pitch + c)
                entry = m.read(SCRATCHPAD, i.table + c * i.table_pitch + raw)
                m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, entry)


def _copy(m: NaiveMachine, i: isa.Copy) -> None:
    for y in range(i.height):
        for x in range(i.width):
            for c in range(i.channels):
                source = y * i.ifm_row_pitch + x * i.ifm_pixel_pitch + c * i.ifm_channel_pitch
                target = y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c * i.ofm_channel_pitch
                m.write_code(i.ofm + target, m.read(SCRATCHPAD, i.ifm + source))


def _fill(m: NaiveMachine, i: isa.Fill) -> None:
    for y in range(i.height):
        for x in range(i.width):
            for c in range(i.channels):
                m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, i.value)


def _pool(m: NaiveMachine, i: isa.Pool) -> None:
    content = np.zeros(0, np.uint8)
    if i.mode == isa.PoolMode.AVERAGE_FLOAT32:
        content = m.content(i.parameters, 32)
    for y in range(i.ofm_height):
        for x in range(i.ofm_width):
            for c in range(i.channels):
                values = [
                    m.code(SCRATCHPAD, _ifm_at(i, iy, ix, c), i.ifm_unsigned)
                    for _, iy, ix in _taps(i, y, x)
                ]
                code = _clamp(_reduce(i, values, content), i.minimum, i.maximum)
                m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, code)


def _reduce(i: isa.Pool, values: list[int], content: np.ndarray) -> int:
    """Return the function of a window's values."""
    if i.mode == isa.PoolMode.MAXIMUM:
        return max(values)
    if i.mode == isa.PoolMode.MINIMUM:
        return min(values)
    count = i.kernel_height * i.kernel_width if i.count_pad else len(values)
    if i.mode == isa.PoolMode.AVERAGE_INTEGER:
        return _round_half_away(Fraction(sum(values), count))
    pair = unpack(AveragePair, content)
    total = np.float32(0)
    for value in values:
        total += np.float32(dequantize_value(value, pair.ifm.scale, pair.ifm.zero_point))
    return int(average_code(total, count, pair.ofm))


def _softmax(m: NaiveMachine, i: isa.Softmax) -> None:
    content = m.content(i.parameters, 1056)
    for row in range(i.rows):
        start = i.ifm + row * i.ifm_row_pitch
        codes = [m.code(SCRATCHPAD, start + c, i.ifm_unsigned) for c in range(i.channels)]
        values = np.array([codes], np.int32)
        if i.mode == isa.SoftmaxMode.Q31:
            result = tflite_window.softmax(unpack(tflite_window.Softmax, content), values)
        else:
            result = onnx.softmax(values, unpack_softmax_table(content))
        for c in range(i.channels):
            m.write_code(i.ofm + row * i.ofm_row_pitch + c, int(result[0, c]))


def _resize(m: NaiveMachine, i: isa.Resize) -> None:
    height, width = i.ofm_height, i.ofm_width
    if i.mode == isa.ResizeMode.NEAREST:
        index = m.content(i.parameters, 4 * (height + width)).view(np.int32).tolist()
        for y in range(height):
            for x in range(width):
                for c in range(i.channels):
                    raw = m.read(SCRATCHPAD, _ifm_at(i, index[y], index[height + x], c))
                    m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, raw)
        return
    is_float = i.mode != isa.ResizeMode.LINEAR_Q10
    content = m.content(i.parameters, 32 + 16 * (height + width))
    pair, rows, columns = unpack_linear(content, height, width, is_float)
    ifm = np.zeros((i.ifm_height, i.ifm_width, i.channels), np.int32)
    for y, x, c in np.ndindex(*ifm.shape):
        ifm[y, x, c] = m.code(SCRATCHPAD, _ifm_at(i, y, x, c), i.ifm_unsigned)
    ofm = _interpolate(i.mode, ifm, rows, columns, pair)
    for y, x, c in np.ndindex(*ofm.shape):
        m.write_code(i.ofm + y * i.ofm_row_pitch + x * i.ofm_pixel_pitch + c, int(ofm[y, x, c]))


def _interpolate(mode: int, ifm: np.ndarray, rows: Any, columns: Any, pair: Any) -> np.ndarray:
    """Return the resized tile."""
    axes = [tflite_window.Interpolation(taps[0], taps[1], taps[3]) for taps in (rows, columns)]
    if mode == isa.ResizeMode.LINEAR_Q10:
        return tflite_window.resize_bilinear(ifm[None], *axes)[0]
    if mode == isa.ResizeMode.LINEAR_ROUNDED:
        return tflite_window.resize_bilinear_uint8(ifm[None], *axes)[0]
    taps = onnx_resize.LinearTaps(*rows), onnx_resize.LinearTaps(*columns)
    if mode == isa.ResizeMode.LINEAR_CODES:
        return onnx_resize.resize_linear_codes(ifm, *taps)
    return onnx_resize.resize_linear(ifm, *taps, pair)


NAIVE: dict[str, Callable[[NaiveMachine, Any], None]] = {
    "halt": _halt,
    "load": _transfer,
    "store": _transfer,
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
