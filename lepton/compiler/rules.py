"""The support rules: each a predicate on an operation whose docstring is the rule for the user.

`lepton ops` prints them, partitioning records the first one that fails as the reason.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

from lepton.compiler import windows
from lepton.compiler.operation import Operation, Value

__all__ = ["RULES", "SIXTEEN_BITS", "Rule", "first_failure", "is_not_of_16_bits", "rule_text"]

Rule = Callable[[Operation], bool]

_EIGHT_BITS = ("int8", "uint8")
SIXTEEN_BITS = ("int16", "uint16")


def _activations(operation: Operation) -> list[Value]:
    return [value for value in operation.inputs if value.constant is None]


def is_not_of_16_bits(operation: Operation) -> bool:
    """Operands and result of 16 bits are the host's: no instruction writes that many of a sum."""
    values = (*operation.inputs, operation.output)
    return all(value.dtype not in SIXTEEN_BITS for value in values)


def operands_are_8_bit(operation: Operation) -> bool:
    """Operands and result must be int8 or uint8."""
    values = (*operation.inputs, operation.output)
    return all(value.dtype in _EIGHT_BITS for value in values)


def rank_is_at_most_4(operation: Operation) -> bool:
    """Operands and result must have at most 4 dimensions."""
    return all(len(value.shape) <= 4 for value in (*operation.inputs, operation.output))


def is_per_tensor(operation: Operation) -> bool:
    """Activations must be quantized per tensor."""
    values = [*_activations(operation), operation.output]
    return all(v.quantization is None or v.quantization.is_per_tensor for v in values)


def zero_points_are_8_bit(operation: Operation) -> bool:
    """Zero points must lie in the range of their type."""
    for value in (*operation.inputs, operation.output):
        if value.quantization is None:
            continue
        low, high = (0, 255) if value.dtype == "uint8" else (-128, 127)
        points = value.quantization.zero_point
        if points.min() < low or points.max() > high:
            return False
    return True


def extents_fit(operation: Operation) -> bool:
    """No dimension may exceed 65535."""
    values = (*operation.inputs, operation.output)
    return all(extent <= 65535 for value in values for extent in value.shape)


def table_is_of_8_bits(operation: Operation) -> bool:
    """A table must be of an 8-bit tensor in which no dimension exceeds 65535."""
    values = (operation.inputs[1], operation.output)
    return all(v.dtype in _EIGHT_BITS and max(v.shape, default=1) <= 65535 for v in values)


def is_not_empty(operation: Operation) -> bool:
    """No dimension may be 0."""
    values = (*operation.inputs, operation.output)
    return all(extent > 0 for value in values for extent in value.shape)


def weight_zero_point_is_single(operation: Operation) -> bool:
    """All channels of the weights must have the same zero point."""
    quantization = operation.inputs[1].quantization
    return quantization is None or len(set(quantization.zero_point.tolist())) == 1


def weights_are_constant(operation: Operation) -> bool:
    """The weights of a convolution must be constant."""
    return operation.inputs[1].constant is not None


def bias_is_int32(operation: Operation) -> bool:
    """A bias must be constant int32."""
    return operation.bias is None or (
        operation.bias.constant is not None and operation.bias.dtype == "int32"
    )


def bias_is_per_channel(operation: Operation) -> bool:
    """A bias must have one value per output channel, or one for all."""
    if operation.bias is None:
        return True
    rank, shape = len(operation.output.shape), operation.bias.shape
    is_matmul = operation.op == "matmul"
    channel = rank - 1 if is_matmul else str(operation.call.attrs.data_layout).index("C")
    padded = (1,) * (rank - len(shape)) + shape
    others = padded[:channel] + padded[channel + 1 :]
    return len(padded) == rank and all(extent == 1 for extent in others)


def kernel_fits(operation: Operation) -> bool:
    """Kernel, stride and dilation must be between 1 and 255."""
    call = operation.call
    numbers = [*operation.integers("strides"), *operation.integers("dilation")]
    if hasattr(call.attrs, "pool_size"):
        numbers += operation.integers("pool_size")
    else:
        layout = str(call.attrs.kernel_layout)
        shape = operation.inputs[1].shape
        numbers += [shape[layout.index("H")], shape[layout.index("W")]]
    return all(1 <= number <= 255 for number in numbers)


def padding_fits(operation: Operation) -> bool:
    """Padding must be between 0 and 2047."""
    return all(0 <= pad <= 2047 for pad in operation.integers("padding"))


def accumulator_holds(operation: Operation) -> bool:
    """A reduction may have at most 65,536 multiply-accumulates per output."""
    weights = operation.inputs[1].shape
    if operation.op == "matmul":
        return operation.inputs[0].shape[-1] <= 65535
    layout = str(operation.call.attrs.kernel_layout)
    return math.prod(weights) // weights[layout.index("O")] <= 65536


def windows_meet_image(operation: Operation) -> bool:
    """No window of a pool may lie in the padding alone."""
    shapes = operation.inputs[0].shape, operation.output.shape
    return windows.windows_meet_image(operation.call.attrs, *shapes)


def is_undilated(operation: Operation) -> bool:
    """An average pool must not be dilated."""
    return all(number == 1 for number in operation.integers("dilation"))


def broadcast_is_simple(operation: Operation) -> bool:
    """Each dimension of an operand must be that of the result, or 1."""
    out = operation.output.shape
    for value in operation.inputs:
        shape = (1,) * (len(out) - len(value.shape)) + value.shape
        if len(shape) != len(out):
            return False
        if any(a not in (1, b) for a, b in zip(shape, out, strict=True)):
            return False
    return True


def raw_extremes_are_comparable(operation: Operation) -> bool:
    """Without dequantize, a maximum or minimum needs operands of the same type."""
    if operation.output.quantization is not None:
        return True
    return len({value.dtype for value in operation.inputs}) == 1


def batches_match(operation: Operation) -> bool:
    """The batch dimensions of two activations must be equal, or 1 on the right."""
    left, right = (value.shape for value in operation.inputs)
    if operation.inputs[1].constant is not None:
        return len(right) == 2 or math.prod(right[:-2]) == 1
    if len(left) < 2 or len(right) < 2 or len(right) > len(left):
        return False
    batch = (1,) * (len(left) - len(right)) + right[:-2]
    return all(b in (1, a) for a, b in zip(left[:-2], batch, strict=True))


def result_keeps_scale(operation: Operation) -> bool:
    """A clip behind data movement is not supported."""
    return operation.activation.low is None and operation.activation.high is None


def axis_is_last(operation: Operation) -> bool:
    """A softmax must be over one axis of at most 65535 values."""
    return operation.output.shape[int(operation.call.attrs.axis)] <= 65535


def is_2d_resize(operation: Operation) -> bool:
    """A resize must be of height and width, nearest or linear."""
    method = str(operation.call.attrs.method)
    return len(operation.output.shape) == 4 and method in ("nearest_neighbor", "linear")


def reduction_fits(operation: Operation) -> bool:
    """A reduction may be over at most 65,535 values."""
    count = math.prod(operation.inputs[0].shape) // max(math.prod(operation.output.shape), 1)
    return count <= 65535


def pad_is_constant(operation: Operation) -> bool:
    """Padding must be with a constant."""
    return str(operation.call.attrs.pad_mode) == "constant"


def slice_steps_forward(operation: Operation) -> bool:
    """A slice must have positive constant steps."""
    try:
        arguments = [argument.fields for argument in operation.call.args[1:]]
    except AttributeError:
        return False
    return len(arguments) < 4 or all(int(step.value) > 0 for step in arguments[3])


_ALWAYS: tuple[Rule, ...] = (
    is_not_of_16_bits,
    operands_are_8_bit,
    rank_is_at_most_4,
    is_not_empty,
    extents_fit,
    is_per_tensor,
    zero_points_are_8_bit,
)
_BINARY: tuple[Rule, ...] = (broadcast_is_simple,)

RULES: dict[str, tuple[Rule, ...]] = {
    "nn.conv2d": (
        *_ALWAYS, weights_are_constant, bias_is_int32, bias_is_per_channel, kernel_fits,
        padding_fits, weight_zero_point_is_single, accumulator_holds,
    ),
    "matmul": (
        *_ALWAYS, bias_is_int32, bias_is_per_channel, batches_match, weight_zero_point_is_single,
        accumulator_holds,
    ),
    "add": (*_ALWAYS, *_BINARY),
    "subtract": (*_ALWAYS, *_BINARY),
    "multiply": (*_ALWAYS, *_BINARY),
    "divide": (*_ALWAYS, *_BINARY),
    "squared_difference": (*_ALWAYS, *_BINARY),
    "maximum": (*_ALWAYS, *_BINARY, raw_extremes_are_comparable),
    "minimum": (*_ALWAYS, *_BINARY, raw_extremes_are_comparable),
    "nn.avg_pool2d": (
        *_ALWAYS, kernel_fits, padding_fits, is_undilated,
        windows_meet_image,
    ),
    "nn.max_pool2d": (*_ALWAYS, kernel_fits, padding_fits, windows_meet_image),
    "mean": (*_ALWAYS, reduction_fits),
    "sum": (*_ALWAYS, reduction_fits),
    "max": (*_ALWAYS, reduction_fits),
    "min": (*_ALWAYS, reduction_fits),
    "nn.softmax": (*_ALWAYS, axis_is_last),
    "image.resize2d": (*_ALWAYS, is_2d_resize),
    "concat": (*_ALWAYS, result_keeps_scale),
    "reshape": (*_ALWAYS, result_keeps_scale),
    "permute_dims": (*_ALWAYS, result_keeps_scale),
    "strided_slice": (*_ALWAYS, result_keeps_scale, slice_steps_forward),
    "nn.pad": (*_ALWAYS, result_keeps_scale, pad_is_constant),
    "take": (rank_is_at_most_4, is_not_empty, table_is_of_8_bits),
    "requantize": _ALWAYS,
}  # fmt: skip
"""Rules of each Relax operator, checked in order."""


def rule_text(rule: Callable[..., bool]) -> str:
    """Return a rule as the user reads it."""
    return " ".join((inspect.getdoc(rule) or "").split())


def first_failure(operation: Operation) -> str:
    """Return the text of the first rule that an operation breaks, "" if it keeps all."""
    rules = RULES.get(operation.op)
    if rules is None:
        return "no NPU instruction computes it"
    for rule in rules:
        if not rule(operation):
            return rule_text(rule)
    return ""
