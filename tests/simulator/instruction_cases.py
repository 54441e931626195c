"""Random legal instructions on a small machine, with parameters that mean something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith import onnx, onnx_elementwise, onnx_resize, tflite_binary, tflite_window
from lepton.arith.onnx_float import quantization
from lepton.arith.records import (
    RequantizeTable,
    pack,
    pack_linear,
    pack_requantize,
    pack_softmax_table,
)
from lepton.arith.tflite import Bounds
from lepton.arith.tflite import Quantization as TfliteQuantization
from lepton.codec import Decoder, encode_weights
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.simulator.machine import Machine
from lepton.simulator.vector_kernels import AveragePair

SCRATCHPAD, ACCUMULATORS, WEIGHTS, MEMORY = 12288, 2048, 4096, 4096
IFM, SECOND, OFM, PARAMETERS = 0, 3072, 6144, 9216
"""Areas of the scratchpad; instructions move inside them by a few bytes."""

I8 = Bounds(-128, 127)


class Case(NamedTuple):
    """An instruction and the parameters that must stand in the scratchpad before it.

    The stream is what must stand in the memory that it names.
    """

    instruction: Instruction
    parameters: NDArray[np.uint8]
    stream: NDArray[np.uint8] = np.zeros(0, np.uint8)


class Draw:
    """Random numbers with the names of what they are for."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, enum: Any) -> Any:
        return list(enum)[self(0, len(enum) - 1)]

    def scale(self) -> float:
        return float(self.rng.uniform(0.01, 0.2))

    def at(self, area: int) -> int:
        return area + self(0, 9)

    def pitches(self, name: str, width: int, channels: int) -> dict[str, int]:
        """Return row and pixel pitch of a tile that does not overlap itself."""
        pixel = channels + self(0, 1) * self(0, 3)
        row = width * pixel + self(0, 1) * self(0, 5)
        return {f"{name}_row_pitch": row, f"{name}_pixel_pitch": pixel}


def small_machine(seed: int) -> Machine:
    """Return a machine full of random bytes."""
    rng = np.random.default_rng(seed)

    def filled(size: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, size, dtype=np.uint8)

    sums = rng.integers(-(1 << 20), 1 << 20, ACCUMULATORS, dtype=np.int32)
    return Machine(filled(SCRATCHPAD), sums, filled(WEIGHTS), (filled(MEMORY), filled(MEMORY)))


def _transfer(cls: type[Any]) -> Callable[[Draw], Case]:
    def build(d: Draw) -> Case:
        rows, planes, size = d(1, 4), d(1, 3), d(1, 9)
        stride, pitch = size + d(0, 4), size + d(0, 4)
        return Case(
            cls(
                memory=d(0, 1),
                address=d(0, 99),
                scratchpad=d.at(IFM),
                row_bytes=size,
                rows=rows,
                planes=planes,
                row_stride=stride,
                plane_stride=rows * stride + d(0, 3),
                scratchpad_row_pitch=pitch,
                scratchpad_plane_pitch=rows * pitch + d(0, 3),
            ),
            np.zeros(0, np.uint8),
        )

    return build


def _block(d: Draw, size: int) -> NDArray[np.uint8]:
    """Return bytes of a narrow range or of few values, some of them zero."""
    values = d.rng.integers(0, 256, d(1, 9), dtype=np.uint8)
    wide = d.rng.integers(0, 1 << d(0, 8), size) + d(0, 255)
    drawn = d.rng.choice(values, size) if d(0, 1) else wide.astype(np.uint8)
    return np.where(d.rng.random(size) < d.rng.choice([0.0, 0.8]), values[0], drawn)


def _weights(d: Draw) -> Case:
    reduction, columns = d(1, 40), d(1, 12)
    stream = encode_weights(
        _block(d, reduction * columns), Decoder(1 << d(0, 9), d(0, 1) << d(0, 3))
    )
    made = isa.Weights(
        memory=d(0, 1), address=d(0, 99), stream_bytes=len(stream.content), buffer=d(0, 99),
        format=stream.format, reduction=reduction, columns=columns,
    )  # fmt: skip
    return Case(made, np.zeros(0, np.uint8), stream.content)


def _window(d: Draw, dilated: bool = True) -> dict[str, int]:
    """Return a window whose every output has a tap inside the tile."""
    kernel = d(1, 3), d(1, 3)
    stride = d(1, 2), d(1, 2)
    dilation = (d(1, 2), d(1, 2)) if dilated else (1, 1)
    pad = d(-1, kernel[0] - 1), d(-1, kernel[1] - 1)
    ifm = d(4, 7), d(4, 7)
    return {
        "kernel_height": kernel[0], "kernel_width": kernel[1], "stride_y": stride[0],
        "stride_x": stride[1], "dilation_y": dilation[0], "dilation_x": dilation[1],
        "pad_top": pad[0], "pad_left": pad[1], "ifm_height": ifm[0], "ifm_width": ifm[1],
        "ofm_height": d(1, 2), "ofm_width": d(1, 2),
    }  # fmt: skip


def _signs(d: Draw) -> dict[str, int]:
    return {
        "ifm_unsigned": d(0, 1), "ifm_zero_point": d(-128, 255),
        "weight_unsigned": d(0, 1), "weight_zero_point": d(-128, 255), "accumulate": d(0, 1),
    }  # fmt: skip


def _matmul(d: Draw) -> Case:
    window, channels, columns = _window(d), d(1, 5), d(1, 6)
    stationary = d.pick(isa.Stationary)
    reduction = window["kernel_height"] * window["kernel_width"] * channels
    run = reduction if stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED else columns
    made = isa.Matmul(
        ifm=d.at(IFM), channels=channels, columns=columns, accumulator=d(0, 99),
        accumulator_pitch=columns + d(0, 3), stationary=stationary,
        stationary_address=d.at(0 if stationary == isa.Stationary.BUFFER else SECOND),
        stationary_pitch=run + d(0, 3), **window, **_signs(d),
        **d.pitches("ifm", window["ifm_width"], channels),
    )  # fmt: skip
    return Case(made, np.zeros(0, np.uint8))


def _depthwise(d: Draw) -> Case:
    window, channels, multiplier = _window(d), d(1, 5), d(1, 3)
    made = isa.Depthwise(
        ifm=d.at(IFM), channels=channels, multiplier=multiplier, accumulator=d(0, 99),
        accumulator_pitch=channels * multiplier + d(0, 3),
        stationary=d.rng.choice([isa.Stationary.BUFFER, isa.Stationary.ONES]),
        stationary_address=d(0, 99), **window, **_signs(d),
        **d.pitches("ifm", window["ifm_width"], channels),
    )  # fmt: skip
    return Case(made, np.zeros(0, np.uint8))


def _requantize(d: Draw) -> Case:
    channels, width, mode = d(1, 6), d(1, 4), d.pick(isa.RequantizeMode)
    bias = d.rng.integers(-5000, 5000, channels, dtype=np.int32)
    if mode != isa.RequantizeMode.Q31:
        kind = np.float32 if mode == isa.RequantizeMode.FLOAT32 else np.float64
        factors: Any = d.rng.uniform(1e-6, 1e-3, channels).astype(kind)
        table = RequantizeTable(bias, factors, np.zeros(0, np.int8))
    else:
        multiplier = d.rng.integers(1 << 30, (1 << 31) - 1, channels, dtype=np.int32)
        table = RequantizeTable(bias, multiplier, d.rng.integers(-20, 3, channels, dtype=np.int8))
    low = d(-128, 0)
    made = isa.Requantize(
        accumulator=d(0, 99), accumulator_pitch=channels + d(0, 3), height=d(1, 3), width=width,
        channels=channels, ofm=d.at(OFM), parameters=PARAMETERS, mode=mode,
        ofm_zero_point=d(-128, 127), minimum=low, maximum=low + d(0, 127),
        **d.pitches("ofm", width, channels),
    )  # fmt: skip
    return Case(made, pack_requantize(table))


def _binary_parameters(d: Draw, mode: isa.BinaryMode) -> tuple[Any, ...]:
    """Return the record of a mode."""
    parts = [(d.scale(), d(-20, 20)) for _ in range(3)]
    lite = [TfliteQuantization(np.float32(scale), point) for scale, point in parts]
    codes = [quantization(scale, point, "int8") for scale, point in parts]
    if mode in (isa.BinaryMode.ADD_Q31, isa.BinaryMode.SUB_Q31):
        return tflite_binary.prepare_add(lite[0], lite[1], lite[2], I8)
    if mode == isa.BinaryMode.SQUARED_DIFFERENCE_Q31:
        return tflite_binary.prepare_squared_difference(lite[0], lite[1], lite[2], I8)
    if mode == isa.BinaryMode.MUL_Q31:
        return tflite_binary.prepare_mul(lite[0], lite[1], lite[2], I8)
    if mode == isa.BinaryMode.ADD_RATIO:
        return onnx.prepare_add(codes[0], codes[1], codes[2])
    if mode == isa.BinaryMode.MUL_RATIO:
        return onnx.prepare_mul(codes[0], codes[1], codes[2])
    return onnx_elementwise.prepare_float_binary(codes[0], codes[1], codes[2])


def _binary(d: Draw) -> Case:
    height, width, channels, mode = d(1, 3), d(1, 4), d(1, 6), d.pick(isa.BinaryMode)
    operands: dict[str, int] = {}
    for name in ("a", "b"):
        pitches = d.pitches(name, width, channels) | {f"{name}_channel_pitch": 1}
        operands |= {key: value * d(0, 1) for key, value in pitches.items()}
    made = isa.Binary(
        mode=mode, height=height, width=width, channels=channels, a=d.at(IFM), b=d.at(SECOND),
        ofm=d.at(OFM), parameters=PARAMETERS, a_unsigned=d(0, 1), b_unsigned=d(0, 1), **operands,
        **d.pitches("ofm", width, channels),
    )  # fmt: skip
    if mode in (isa.BinaryMode.MAXIMUM, isa.BinaryMode.MINIMUM):
        return Case(made, np.zeros(0, np.uint8))
    return Case(made, pack(_binary_parameters(d, mode), 64))


def _tile_case(d: Draw, cls: type[Any], **extra: int) -> Case:
    """Return an instruction from a tile to a tile, sometimes in place."""
    width, channels = d(1, 4), d(1, 6)
    ifm = d.pitches("ifm", width, channels)
    ofm, start = d.pitches("ofm", width, channels), d.at(OFM)
    if d(0, 3) == 0:
        ofm, start = {key.replace("ifm", "ofm"): value for key, value in ifm.items()}, IFM
    made = cls(
        height=d(1, 3), width=width, channels=channels, ifm=IFM, ofm=start, **ifm, **ofm, **extra
    )
    return Case(made, np.zeros(0, np.uint8))


def _lut(d: Draw) -> Case:
    return _tile_case(d, isa.Lut, table=PARAMETERS + d(0, 9), table_pitch=256 * d(0, 1))


def _copy(d: Draw) -> Case:
    counts = d(1, 4), d(1, 4), d(1, 5)
    order = d.rng.permutation(3)
    pitches, step = [0, 0, 0], 1 + d(0, 2)
    for axis in order:
        pitches[axis] = step
        step = step * counts[axis] + d(0, 2)
    row, pixel, channel = (d(0, 40), d(0, 9), d(0, 3)) if d(0, 1) else (20, 5, 1)
    made = isa.Copy(
        height=counts[0], width=counts[1], channels=counts[2], ifm=d.at(IFM), ifm_row_pitch=row,
        ifm_pixel_pitch=pixel, ifm_channel_pitch=channel, ofm=d.at(OFM if d(0, 3) else IFM),
        ofm_row_pitch=pitches[0], ofm_pixel_pitch=pitches[1], ofm_channel_pitch=pitches[2],
    )  # fmt: skip
    return Case(made, np.zeros(0, np.uint8))


def _fill(d: Draw) -> Case:
    width, channels = d(1, 4), d(1, 6)
    made = isa.Fill(
        height=d(1, 3), width=width, channels=channels, ofm=d.at(OFM), value=d(0, 255),
        **d.pitches("ofm", width, channels),
    )  # fmt: skip
    return Case(made, np.zeros(0, np.uint8))


def _pool(d: Draw) -> Case:
    mode, channels = d.pick(isa.PoolMode), d(1, 5)
    is_average = mode in (isa.PoolMode.AVERAGE_FLOAT32, isa.PoolMode.AVERAGE_INTEGER)
    window = _window(d, dilated=not is_average)
    window |= {"pad_top": max(window["pad_top"], 0), "pad_left": max(window["pad_left"], 0)}
    low, high = d(-128, 0), d(0, 127)
    if mode == isa.PoolMode.AVERAGE_FLOAT32:
        low, high = -128, 127
    made = isa.Pool(
        mode=mode, ifm=d.at(IFM), channels=channels, ofm=d.at(OFM), parameters=PARAMETERS,
        ifm_unsigned=d(0, 1), minimum=low, maximum=high,
        count_pad=d(0, 1) if mode == isa.PoolMode.AVERAGE_FLOAT32 else 0, **window,
        **d.pitches("ifm", window["ifm_width"], channels),
        **d.pitches("ofm", window["ofm_width"], channels),
    )  # fmt: skip
    pair = AveragePair(
        quantization(d.scale(), d(-9, 9), "int8"), quantization(d.scale(), d(-9, 9), "int8")
    )
    return Case(made, pack(pair, 32))


def _softmax(d: Draw) -> Case:
    mode, channels = d.pick(isa.SoftmaxMode), d(1, 12)
    if mode == isa.SoftmaxMode.Q31:
        content = pack(
            tflite_window.prepare_softmax(np.float32(d.scale()), np.float32(1), I8), 1056
        )
    else:
        pair = quantization(d.scale(), 3, "int8"), quantization(1 / 256, -128, "int8")
        content = pack_softmax_table(onnx.prepare_softmax(*pair, channels), 1056)
    made = isa.Softmax(
        mode=mode, rows=d(1, 4), channels=channels, ifm=d.at(IFM), ofm=d.at(OFM),
        ifm_row_pitch=channels + d(0, 4), ofm_row_pitch=channels + d(0, 4),
        parameters=PARAMETERS, ifm_unsigned=0,
    )  # fmt: skip
    return Case(made, content)


def _resize_parameters(
    mode: isa.ResizeMode, sizes: list[tuple[int, int]], d: Draw
) -> NDArray[np.uint8]:
    """Return the parameters of a resize of `(input, output)` sizes of both axes."""
    if mode == isa.ResizeMode.NEAREST:
        index = [d.rng.integers(0, source, count, dtype=np.int32) for source, count in sizes]
        return np.concatenate(index).view(np.uint8)
    if mode in (isa.ResizeMode.LINEAR_Q10, isa.ResizeMode.LINEAR_ROUNDED):
        is_q10 = mode == isa.ResizeMode.LINEAR_Q10
        prepare = (
            tflite_window.prepare_resize_bilinear
            if is_q10
            else tflite_window.prepare_resize_bilinear_uint8
        )
        axes = [prepare(*size, False, True) for size in sizes]
        taps: list[Any] = [(a.lower, a.upper, a.fraction, a.fraction) for a in axes]
        return pack_linear(None, taps[0], taps[1])
    pair = quantization(d.scale(), 3, "int8"), quantization(d.scale(), -3, "int8")
    linear: list[Any] = [
        tuple(onnx_resize.linear_taps(onnx_resize.resize_axis(*size, "half_pixel")))
        for size in sizes
    ]
    return pack_linear(pair, linear[0], linear[1])


def _resize(d: Draw) -> Case:
    mode, channels = d.pick(isa.ResizeMode), d(1, 4)
    sizes = [(d(1, 5), d(1, 5)), (d(1, 5), d(1, 5))]
    made = isa.Resize(
        mode=mode, ifm=d.at(IFM), ifm_height=sizes[0][0], ifm_width=sizes[1][0], channels=channels,
        ofm_height=sizes[0][1], ofm_width=sizes[1][1], ofm=d.at(OFM), parameters=PARAMETERS,
        ifm_unsigned=int(mode == isa.ResizeMode.LINEAR_ROUNDED),
        **d.pitches("ifm", sizes[1][0], channels), **d.pitches("ofm", sizes[1][1], channels),
    )  # fmt: skip
    return Case(made, _resize_parameters(mode, sizes, d))


CASES: dict[str, Callable[[Draw], Case]] = {
    "halt": lambda _: Case(isa.Halt(), np.zeros(0, np.uint8)),
    "load": _transfer(isa.Load),
    "store": _transfer(isa.Store),
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
"""A random case of each mnemonic."""


def random_case(mnemonic: str, seed: int) -> tuple[Machine, Instruction]:
    """Return a machine ready for a random instruction, and the instruction."""
    machine = small_machine(seed)
    case = CASES[mnemonic](Draw(seed))
    machine.scratchpad[PARAMETERS : PARAMETERS + len(case.parameters)] = case.parameters
    if isinstance(case.instruction, isa.Weights):
        machine.write(case.instruction.memory, case.instruction.address, case.stream)
    return machine, case.instruction
