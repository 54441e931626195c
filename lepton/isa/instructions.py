"""The instruction set: one class per instruction.

Sizes are in elements unless a name says bytes; every address and pitch of the scratchpad is in
bytes, every address and pitch of the accumulators and of the weight buffer in elements.
"""

from enum import IntEnum

from lepton.isa.declaration import Instruction, Unit, bits, instruction

__all__ = [
    "Binary",
    "BinaryMode",
    "Copy",
    "Depthwise",
    "Fill",
    "Halt",
    "Load",
    "Lut",
    "Matmul",
    "Pool",
    "PoolMode",
    "Requantize",
    "RequantizeMode",
    "Resize",
    "ResizeMode",
    "Softmax",
    "SoftmaxMode",
    "Stationary",
    "Store",
    "WeightFormat",
    "Weights",
]


class Stationary(IntEnum):
    """Where the stationary operand of the array comes from."""

    BUFFER = 0
    SCRATCHPAD = 1
    SCRATCHPAD_TRANSPOSED = 2
    ONES = 3


class WeightFormat(IntEnum):
    """How a weight stream is stored; 5 to 15 are free."""

    RAW = 0
    GROUPED = 1
    PALETTE = 2
    ENTROPY = 3
    ENTROPY_PALETTE = 4


class RequantizeMode(IntEnum):
    """How an accumulator becomes 8 bits.

    Q31 multiplies by a 31-bit fraction and shifts, rounding twice; FLOAT32 and FLOAT64 multiply in
    that type, rounding half to even and half away from zero.
    """

    Q31 = 0
    FLOAT32 = 1
    FLOAT64 = 2


class BinaryMode(IntEnum):
    """The element-wise function of two operands."""

    MAXIMUM = 0
    MINIMUM = 1
    ADD_Q31 = 2
    SUB_Q31 = 3
    MUL_Q31 = 4
    SQUARED_DIFFERENCE_Q31 = 5
    ADD_RATIO = 6
    MUL_RATIO = 7
    ADD_FLOAT32 = 8
    SUB_FLOAT32 = 9
    MUL_FLOAT32 = 10
    DIV_FLOAT32 = 11
    MAXIMUM_FLOAT32 = 12
    MINIMUM_FLOAT32 = 13


class PoolMode(IntEnum):
    """The function of a pooling window."""

    MAXIMUM = 0
    AVERAGE_INTEGER = 1
    AVERAGE_FLOAT32 = 2
    MINIMUM = 3


class SoftmaxMode(IntEnum):
    """The arithmetic of a softmax: fixed-point exponentials, or a table of float32 ones."""

    Q31 = 0
    FLOAT32_TABLE = 1


class ResizeMode(IntEnum):
    """The interpolation of a resize."""

    NEAREST = 0
    LINEAR_Q10 = 1
    LINEAR_ROUNDED = 2
    LINEAR_CODES = 3
    LINEAR_FLOAT32 = 4


@instruction(0x01, Unit.CONTROL)
class Halt(Instruction):
    """End a core's stream; a region is over when every instruction of every core has retired."""


@instruction(0x10, Unit.LOAD)
class Load(Instruction):
    """Copy a 3-D block from a memory into the scratchpad.

    Row `j` of plane `k` is `row_bytes` contiguous bytes at `address + j * row_stride +
    k * plane_stride` and goes to `scratchpad + j * scratchpad_row_pitch +
    k * scratchpad_plane_pitch`.
    """

    channel: int = bits(3, "DMA channel, a queue of its own")
    memory: int = bits(3, "index of the memory in the chip's list")
    address: int = bits(40, "first byte in the memory")
    scratchpad: int = bits(28, "first byte in the scratchpad")
    row_bytes: int = bits(24, "contiguous bytes of a row")
    rows: int = bits(16, "rows of a plane")
    planes: int = bits(16, "planes")
    row_stride: int = bits(32, "bytes between rows in the memory")
    plane_stride: int = bits(32, "bytes between planes in the memory")
    scratchpad_row_pitch: int = bits(26, "bytes between rows in the scratchpad")
    scratchpad_plane_pitch: int = bits(26, "bytes between planes in the scratchpad")


@instruction(0x11, Unit.STORE)
class Store(Instruction):
    """Copy a 3-D block from the scratchpad into a memory; the fields are those of `load`."""

    channel: int = bits(3, "DMA channel, a queue of its own")
    memory: int = bits(3, "index of the memory in the chip's list")
    address: int = bits(40, "first byte in the memory")
    scratchpad: int = bits(28, "first byte in the scratchpad")
    row_bytes: int = bits(24, "contiguous bytes of a row")
    rows: int = bits(16, "rows of a plane")
    planes: int = bits(16, "planes")
    row_stride: int = bits(32, "bytes between rows in the memory")
    plane_stride: int = bits(32, "bytes between planes in the memory")
    scratchpad_row_pitch: int = bits(26, "bytes between rows in the scratchpad")
    scratchpad_plane_pitch: int = bits(26, "bytes between planes in the scratchpad")


@instruction(0x12, Unit.WEIGHTS)
class Weights(Instruction):
    """Read a stream of weights through the decoder into the weight buffer.

    The expanded block is `reduction` rows of `columns` bytes, row-major, at `buffer`.

    A `raw` stream is those bytes. In the other formats a byte is a *symbol*, and the stream is a
    header, the symbols, and zero bits up to the next byte; it is shorter than the block and lies in
    the constant segment, or was copied from there: each byte was last written by a `store` of one
    row, and those in the scratchpad by a `load` of one row of the constant segment.

    `grouped` and `palette` store groups of symbols with as many bits as the group needs. The
    header's first byte holds in bits 2:0 the size of a group: 8, 16, 32, 64, 128 or 256 elements
    (0 to 5).

    - `grouped`: bits 7:3 are zero, and a byte z follows. Symbol 2d is the byte z + d, symbol
      2d - 1 the byte z - d, modulo 256.
    - `palette`: bits 7:3 are the entries less 1, and the entries follow, all different. A symbol
      is the number of an entry.

    A group is the next elements in row-major order, the last perhaps fewer. Its fields follow
    each other without gaps, bits of a byte from the lowest on. First comes a code of 4 bits:

    - 0 to 8: each element has a symbol of so many bits.
    - 9 to 15: a bit for each element is 1 if its symbol is not 0. For each of those, its symbol
      less 1 follows, of the code less 7 bits.

    The decoder finds where two groups end in a cycle, so a group has at least half as many
    elements as `weight_buffer.decoder_bytes_per_cycle`.

    `entropy` and `entropy_palette` have the header and the symbols of `grouped` and `palette`, but
    bits 2:0 of its first byte are the binary logarithm of L, the lanes of the decoder
    (`weight_buffer.entropy_lanes`; a chip with 0 refuses these formats), and of `entropy`
    bits 7:4 are T - 1, the length of its *tail*. If bit 3 of `entropy` is set, a byte g of
    1 to 127, the *gap*, follows z: there are 256 - 2g symbols, and those beyond 0 stand for the
    bytes of the symbols 2g above them. Without bit 3 g is 0; T is 1 for `entropy_palette`. A symbol
    is the first of its *bucket* plus the value of the bucket's extra bits:

    | bucket | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 |
    | --- | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - |
    | first symbol | 0 | 1 | 3 | 5 | 7 | 9 | 13 | 17 | 25 | 33 | 49 | 65 | 97 | 129 | 193 |
    | extra bits | 0 | 1 | 1 | 1 | 1 | 2 | 2 | 3 | 3 | 4 | 4 | 5 | 5 | 6 | 6 |

    Fields follow the header without gaps, from the lowest bit on: the number m of a bucket, 4 bits;
    for each other bucket whose first symbol is below the number of symbols (256 - 2g, or the
    palette's entries), in order, its level, 4 bits; for each lane 12 bits; then the elements.
    Levels 0 to 15 are the counts 0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384 and 512;
    bucket m has what is left of 1,024, at least 1. The *start* of a bucket is the sum of the counts
    of those before it.

    Element i is lane i mod L's, whose state x is at first 4,096 plus its 12 bits. With s the lowest
    10 bits of x, its bucket is the one with start <= s < start + count, and x becomes
    count * (x >> 10) + s - start. Unless the element is one of the last T L of the block, n bits
    follow, n the least with x << n >= 4,096, and x becomes x << n plus them. The extra bits follow.

    Refused at load are a `raw` stream of other than `reduction` x `columns` bytes, and of the other
    formats a stream

    - neither in the constant segment nor copied from there, or not shorter than the block;
    - that ends inside its header or before its last element, or goes on behind that one with
      more than the zero bits up to the next byte;
    - whose header has a bit set that must be zero, a palette with a byte twice, or a size of a
      group that is none of the six or too small for the decoder;
    - with a symbol beyond the palette's entries, or beyond those that the gap leaves;
    - whose gap is not 1 to 127;
    - whose L is not the decoder's lanes, whose m names a bucket without symbols, or whose counts
      leave bucket m nothing.
    """

    memory: int = bits(3, "index of the memory in the chip's list")
    address: int = bits(40, "first byte of the stream")
    stream_bytes: int = bits(32, "bytes of the stream")
    format: int = bits(4, "how the stream is stored", choices=WeightFormat)
    buffer: int = bits(28, "first element in the weight buffer")
    reduction: int = bits(24, "rows of the block: kernel height x kernel width x channels")
    columns: int = bits(16, "columns of the block: output channels")


@instruction(0x20, Unit.MATRIX)
class Matmul(Instruction):
    """Convolve a tile: the address generator walks (kernel row, kernel column, channel).

    For every output pixel (y, x) and column n:
    `acc[accumulator + (y * ofm_width + x) * accumulator_pitch + n]` becomes, or with `accumulate`
    grows by, the sum over the taps inside the tile of (ifm - ifm_zero_point) *
    (weight - weight_zero_point). A tap outside [0, ifm_height) x [0, ifm_width) adds nothing.
    The stationary operand is [kernel_height * kernel_width * channels, columns].
    """

    ifm: int = bits(28, "first byte of the input tile in the scratchpad")
    ifm_row_pitch: int = bits(24, "bytes between rows of the input tile")
    ifm_pixel_pitch: int = bits(16, "bytes between pixels of the input tile")
    ifm_height: int = bits(16, "rows of the input tile")
    ifm_width: int = bits(16, "columns of the input tile")
    channels: int = bits(16, "channels of the reduction")
    kernel_height: int = bits(8, "kernel rows")
    kernel_width: int = bits(8, "kernel columns")
    stride_y: int = bits(8, "vertical stride")
    stride_x: int = bits(8, "horizontal stride")
    dilation_y: int = bits(8, "vertical dilation")
    dilation_x: int = bits(8, "horizontal dilation")
    pad_top: int = bits(12, "rows above the tile that count as zero point", signed=True)
    pad_left: int = bits(12, "columns left of the tile that count as zero point", signed=True)
    ofm_height: int = bits(16, "output rows")
    ofm_width: int = bits(16, "output columns")
    columns: int = bits(16, "output channels")
    accumulator: int = bits(24, "first accumulator")
    accumulator_pitch: int = bits(16, "accumulators between output pixels")
    accumulate: int = bits(1, "1 adds to what is there, 0 overwrites it")
    stationary: int = bits(2, "where the stationary operand is", choices=Stationary)
    stationary_address: int = bits(28, "its first element (weight buffer) or byte (scratchpad)")
    stationary_pitch: int = bits(24, "bytes between its rows, in the scratchpad only")
    ifm_unsigned: int = bits(1, "the input tile is uint8")
    ifm_zero_point: int = bits(9, "zero point of the input tile", signed=True)
    weight_unsigned: int = bits(1, "the stationary operand is uint8")
    weight_zero_point: int = bits(9, "zero point of the stationary operand", signed=True)


@instruction(0x21, Unit.MATRIX)
class Depthwise(Instruction):
    """Convolve each channel on its own; column n reads channel n // multiplier.

    Weights are [kernel_height * kernel_width, channels * multiplier]; all fields as in `matmul`.
    With stationary `ones` the window is summed without weights.
    """

    ifm: int = bits(28, "first byte of the input tile in the scratchpad")
    ifm_row_pitch: int = bits(24, "bytes between rows of the input tile")
    ifm_pixel_pitch: int = bits(16, "bytes between pixels of the input tile")
    ifm_height: int = bits(16, "rows of the input tile")
    ifm_width: int = bits(16, "columns of the input tile")
    channels: int = bits(16, "channels of the input tile")
    multiplier: int = bits(8, "output channels per input channel")
    kernel_height: int = bits(8, "kernel rows")
    kernel_width: int = bits(8, "kernel columns")
    stride_y: int = bits(8, "vertical stride")
    stride_x: int = bits(8, "horizontal stride")
    dilation_y: int = bits(8, "vertical dilation")
    dilation_x: int = bits(8, "horizontal dilation")
    pad_top: int = bits(12, "rows above the tile that count as zero point", signed=True)
    pad_left: int = bits(12, "columns left of the tile that count as zero point", signed=True)
    ofm_height: int = bits(16, "output rows")
    ofm_width: int = bits(16, "output columns")
    accumulator: int = bits(24, "first accumulator")
    accumulator_pitch: int = bits(16, "accumulators between output pixels")
    accumulate: int = bits(1, "1 adds to what is there, 0 overwrites it")
    stationary: int = bits(2, "weight buffer or ones", choices=Stationary)
    stationary_address: int = bits(28, "first element in the weight buffer")
    ifm_unsigned: int = bits(1, "the input tile is uint8")
    ifm_zero_point: int = bits(9, "zero point of the input tile", signed=True)
    weight_unsigned: int = bits(1, "the weights are uint8")
    weight_zero_point: int = bits(9, "zero point of the weights", signed=True)


@instruction(0x30, Unit.VECTOR)
class Requantize(Instruction):
    """Turn accumulators into 8-bit values in the scratchpad.

    The parameters of n channels are an int32 bias[n], then a multiplier[n] (int32 of Q31, float32
    or float64), then for Q31 an int8 shift[n].
    """

    accumulator: int = bits(24, "first accumulator")
    accumulator_pitch: int = bits(16, "accumulators between pixels")
    height: int = bits(16, "rows of the tile")
    width: int = bits(16, "columns of the tile")
    channels: int = bits(16, "channels")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between rows of the result")
    ofm_pixel_pitch: int = bits(24, "bytes between pixels of the result")
    parameters: int = bits(28, "first byte of the parameters in the scratchpad")
    mode: int = bits(4, "arithmetic", choices=RequantizeMode)
    ofm_zero_point: int = bits(9, "zero point of the result", signed=True)
    minimum: int = bits(9, "lower clamp", signed=True)
    maximum: int = bits(9, "upper clamp", signed=True)


@instruction(0x31, Unit.VECTOR)
class Binary(Instruction):
    """Combine two tiles element by element; a pitch of 0 repeats a row, pixel or channel.

    The parameters are the record that `lepton.arith.records` packs for the mode.
    """

    mode: int = bits(5, "function", choices=BinaryMode)
    height: int = bits(16, "rows")
    width: int = bits(16, "columns")
    channels: int = bits(16, "channels")
    a: int = bits(28, "first byte of the left operand")
    a_row_pitch: int = bits(24, "bytes between its rows")
    a_pixel_pitch: int = bits(24, "bytes between its pixels")
    a_channel_pitch: int = bits(1, "bytes between its channels, 0 or 1")
    b: int = bits(28, "first byte of the right operand")
    b_row_pitch: int = bits(24, "bytes between its rows")
    b_pixel_pitch: int = bits(24, "bytes between its pixels")
    b_channel_pitch: int = bits(1, "bytes between its channels, 0 or 1")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between its rows")
    ofm_pixel_pitch: int = bits(24, "bytes between its pixels")
    parameters: int = bits(28, "first byte of the parameters in the scratchpad")
    a_unsigned: int = bits(1, "the left operand is uint8")
    b_unsigned: int = bits(1, "the right operand is uint8")


@instruction(0x32, Unit.VECTOR)
class Lut(Instruction):
    """Replace every byte by the entry of a 256-byte table; a table per channel if so pitched."""

    height: int = bits(16, "rows")
    width: int = bits(16, "columns")
    channels: int = bits(16, "channels")
    ifm: int = bits(28, "first byte of the input")
    ifm_row_pitch: int = bits(24, "bytes between its rows")
    ifm_pixel_pitch: int = bits(24, "bytes between its pixels")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between its rows")
    ofm_pixel_pitch: int = bits(24, "bytes between its pixels")
    table: int = bits(28, "first byte of the table in the scratchpad, indexed by the raw byte")
    table_pitch: int = bits(9, "bytes between the tables of channels: 0 or 256")


@instruction(0x33, Unit.VECTOR)
class Copy(Instruction):
    """Move bytes inside the scratchpad through any three strides: pad, concat, transpose."""

    height: int = bits(16, "outer count")
    width: int = bits(16, "middle count")
    channels: int = bits(16, "inner count")
    ifm: int = bits(28, "first byte of the source")
    ifm_row_pitch: int = bits(26, "bytes between outer steps of the source")
    ifm_pixel_pitch: int = bits(26, "bytes between middle steps of the source")
    ifm_channel_pitch: int = bits(26, "bytes between inner steps of the source")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(26, "bytes between outer steps of the result")
    ofm_pixel_pitch: int = bits(26, "bytes between middle steps of the result")
    ofm_channel_pitch: int = bits(26, "bytes between inner steps of the result")


@instruction(0x34, Unit.VECTOR)
class Fill(Instruction):
    """Write one byte value all over a tile."""

    height: int = bits(16, "rows")
    width: int = bits(16, "columns")
    channels: int = bits(16, "channels")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between its rows")
    ofm_pixel_pitch: int = bits(24, "bytes between its pixels")
    value: int = bits(8, "the byte")


@instruction(0x35, Unit.VECTOR)
class Pool(Instruction):
    """Reduce a window of each channel to one value; taps outside the tile do not take part.

    The parameters are the record that `lepton.arith.records` packs for the mode.
    """

    mode: int = bits(4, "function", choices=PoolMode)
    ifm: int = bits(28, "first byte of the input tile")
    ifm_row_pitch: int = bits(24, "bytes between its rows")
    ifm_pixel_pitch: int = bits(16, "bytes between its pixels")
    ifm_height: int = bits(16, "rows of the input tile")
    ifm_width: int = bits(16, "columns of the input tile")
    channels: int = bits(16, "channels")
    kernel_height: int = bits(8, "window rows")
    kernel_width: int = bits(8, "window columns")
    stride_y: int = bits(8, "vertical stride")
    stride_x: int = bits(8, "horizontal stride")
    dilation_y: int = bits(8, "vertical dilation")
    dilation_x: int = bits(8, "horizontal dilation")
    pad_top: int = bits(12, "rows above the tile", signed=True)
    pad_left: int = bits(12, "columns left of the tile", signed=True)
    count_pad: int = bits(1, "1 divides an average by the whole window, padding included")
    ofm_height: int = bits(16, "output rows")
    ofm_width: int = bits(16, "output columns")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between its rows")
    ofm_pixel_pitch: int = bits(16, "bytes between its pixels")
    parameters: int = bits(28, "first byte of the parameters in the scratchpad")
    ifm_unsigned: int = bits(1, "the input tile is uint8")
    minimum: int = bits(9, "lower clamp", signed=True)
    maximum: int = bits(9, "upper clamp", signed=True)


@instruction(0x36, Unit.VECTOR)
class Softmax(Instruction):
    """Normalize rows of `channels` values; the parameters belong to the mode."""

    mode: int = bits(4, "arithmetic", choices=SoftmaxMode)
    rows: int = bits(24, "rows")
    channels: int = bits(16, "values of a row")
    ifm: int = bits(28, "first byte of the input")
    ifm_row_pitch: int = bits(24, "bytes between its rows")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between its rows")
    parameters: int = bits(28, "first byte of the parameters in the scratchpad")
    ifm_unsigned: int = bits(1, "the input is uint8")


@instruction(0x37, Unit.VECTOR)
class Resize(Instruction):
    """Resample a tile; the parameters hold, per output row and column, sources and weights."""

    mode: int = bits(4, "interpolation", choices=ResizeMode)
    ifm: int = bits(28, "first byte of the input tile")
    ifm_row_pitch: int = bits(24, "bytes between its rows")
    ifm_pixel_pitch: int = bits(16, "bytes between its pixels")
    ifm_height: int = bits(16, "rows of the input tile")
    ifm_width: int = bits(16, "columns of the input tile")
    channels: int = bits(16, "channels")
    ofm_height: int = bits(16, "output rows")
    ofm_width: int = bits(16, "output columns")
    ofm: int = bits(28, "first byte of the result")
    ofm_row_pitch: int = bits(24, "bytes between its rows")
    ofm_pixel_pitch: int = bits(16, "bytes between its pixels")
    parameters: int = bits(28, "first byte of the parameters in the scratchpad")
    ifm_unsigned: int = bits(1, "the input tile is uint8")
