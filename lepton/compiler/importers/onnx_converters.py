"""What Lepton adds to TVM's ONNX importer: operators it lacks, or lowers to opaque loops.

TVM's own converter table is not touched: `OnnxImporter` looks here first. A converter takes the
block builder, the node's inputs (None where absent), its attributes and the opset, and returns a
Relax expression.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from lepton.compiler.importers.constants import array_of
from lepton.compiler.importers.onnx_inference import batch_norm, dropout, gather, hard_swish
from lepton.compiler.importers.rewriting import dtype_of, is_constant, scalar, shape_of
from lepton.errors import ImportFailure

# TVM's annotations promise less than its functions take (numbers, plain shapes).
op: Any = relax.op
Inputs = Sequence[Any]
# Read only: TVM's table has no public name, and it is never changed.
UPSTREAM: Any = onnx_frontend._get_convert_map  # pyright: ignore[reportPrivateUsage]
Converter = Callable[[Any, Inputs, dict[str, Any], int], Any]


def _input(inputs: Inputs, index: int) -> Any:
    """Return an input, None if the node has fewer."""
    return inputs[index] if index < len(inputs) else None


def _constant(expr: Any) -> Any:
    """Return the array of a constant input."""
    if not is_constant(expr):
        raise ValueError("it needs a constant where the model has a computed value")
    return array_of(expr)


def _dequantize(bb: Any, data: Any, scale: Any, zero_point: Any, axis: int = 0) -> Any:
    """Emit a dequantize; an absent zero point is 0."""
    if zero_point is None:
        zero_point = relax.const(np.zeros((), dtype_of(data)))
    return bb.normalize(op.dequantize(data, _flat(scale), _flat(zero_point), axis=axis))


def _quantize(bb: Any, data: Any, scale: Any, zero_point: Any, axis: int = 0) -> Any:
    """Emit a quantize to the zero point's type; an absent zero point is uint8 0."""
    if zero_point is None:
        zero_point = relax.const(np.zeros((), np.uint8))
    kind = dtype_of(zero_point)
    data = bb.normalize(data)
    return op.quantize(data, _flat(scale), _flat(zero_point), axis=axis, out_dtype=kind)


def _flat(parameter: Any) -> Any:
    """Return a quantization parameter of one element as a scalar, others as they are."""
    if is_constant(parameter) and array_of(parameter).size == 1:
        return relax.const(array_of(parameter).reshape(()))
    return parameter


def _quantize_linear(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """QuantizeLinear with a per-tensor or per-axis scale; the axis may be negative."""
    if attributes.get("block_size", 0):
        raise ValueError("blocked quantization is not supported; use per-tensor or per-channel")
    zero_point = _input(inputs, 2)
    kind = attributes.get("output_dtype", 0)
    if zero_point is None and kind:
        zero_point = relax.const(np.zeros((), onnx_frontend.get_type(kind)))
    axis = _parameter_axis(inputs[0], inputs[1], attributes)
    return _quantize(bb, inputs[0], inputs[1], zero_point, axis)


def _dequantize_linear(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """DequantizeLinear with a per-tensor or per-axis scale; the axis may be negative."""
    if attributes.get("block_size", 0):
        raise ValueError("blocked quantization is not supported; use per-tensor or per-channel")
    axis = _parameter_axis(inputs[0], inputs[1], attributes)
    return _dequantize(bb, inputs[0], inputs[1], _input(inputs, 2), axis)


def _parameter_axis(data: Any, scale: Any, attributes: Mapping[str, Any]) -> int:
    """Return the non-negative channel axis, 0 for a per-tensor scale."""
    if is_constant(scale) and array_of(scale).size == 1:
        return 0
    return int(attributes.get("axis", 1)) % max(1, len(shape_of(data) or (1,)))


def _bias(bb: Any, bias: Any, data_scale: Any, weight_scale: Any) -> Any:
    """Dequantize an int32 bias by sx * sw, formed in float32."""
    scale = (_constant(data_scale) * _constant(weight_scale)).astype(np.float32).reshape(-1)
    zero_point = np.zeros(scale.shape, np.int32)
    return _dequantize(bb, bias, relax.const(scale), relax.const(zero_point), 0)


def _explicit_padding(data: Any, kernel: Sequence[int], attributes: dict[str, Any]) -> None:
    """Replace `auto_pad` by `pads`, computed from the static input shape.

    Source: the ONNX operator specification of Conv and MaxPool.
    """
    mode = attributes.pop("auto_pad", b"NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        if mode == "VALID":
            attributes["pads"] = [0] * (2 * len(kernel))
        return
    shape = shape_of(data)
    if shape is None:
        raise ValueError("auto_pad needs a static input shape")
    rank = len(kernel)
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    before: list[int] = []
    after: list[int] = []
    for extent, size, stride, step in zip(shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-extent // stride) - 1) * stride + (size - 1) * step + 1 - extent)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    attributes["pads"] = [*before, *after]


def _conv(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Conv with its automatic padding made explicit (TVM emits an opaque pad loop)."""
    kernel = attributes.get("kernel_shape") or (shape_of(inputs[1]) or ())[2:]
    _explicit_padding(inputs[0], list(kernel), attributes)
    return _upstream("Conv", bb, inputs, attributes, opset)


def _pool(name: str, bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """MaxPool or AveragePool with its automatic padding made explicit."""
    if attributes.get("ceil_mode", 0) not in (0, 1):
        raise ImportFailure(f"{name}: ceil_mode must be 0 or 1, not {attributes['ceil_mode']}")
    if name == "AveragePool" and set(attributes.get("dilations", ())) - {1}:
        raise ValueError("an average of dilated windows is not expressed")
    _explicit_padding(inputs[0], list(attributes["kernel_shape"]), attributes)
    return _upstream(name, bb, inputs, attributes, opset)


def _upstream(name: str, bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Call TVM's own converter."""
    converter = UPSTREAM()[name].get_converter(opset)
    attributes.setdefault("tvm_custom", {"name": "", "num_outputs": 1})
    return converter(bb, onnx_frontend.onnx_input(inputs), attributes, [{}, {}])


def _qlinear_conv(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """QLinearConv as dequantize, Conv, quantize."""
    data = _dequantize(bb, *inputs[0:3])
    weights = _dequantize(bb, *inputs[3:6])
    bias = _input(inputs, 8)
    parts = [data, weights]
    if bias is not None:
        parts.append(_bias(bb, bias, inputs[1], inputs[4]))
    result = _conv(bb, parts, attributes, opset)
    return _quantize(bb, result, inputs[6], inputs[7])


def _qgemm(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """com.microsoft QGemm; without an output scale its result is float."""
    data = _dequantize(bb, *inputs[0:3])
    transposed = bool(attributes.get("transB", 0))
    weights = _dequantize(bb, *inputs[3:6], axis=0 if transposed else 1)
    if attributes.get("transA", 0):
        data = op.permute_dims(data)
    result = bb.normalize(op.matmul(data, op.permute_dims(weights) if transposed else weights))
    alpha = float(attributes.get("alpha", 1.0))
    if alpha != 1.0:
        raise ValueError(f"alpha must be 1, not {alpha}")
    if _input(inputs, 6) is not None:
        result = op.add(result, _bias(bb, inputs[6], inputs[1], inputs[4]))
    if _input(inputs, 7) is None:
        return result
    return _quantize(bb, result, inputs[7], _input(inputs, 8))


def _qlinear_matmul(bb: Any, inputs: Inputs, _attributes: dict[str, Any], _opset: int) -> Any:
    """QLinearMatMul; a per-column weight scale is on the last axis."""
    last = len(shape_of(inputs[3]) or (1, 1)) - 1
    left = _dequantize(bb, *inputs[0:3])
    right = _dequantize(bb, *inputs[3:6], axis=last)
    return _quantize(bb, op.matmul(left, right), inputs[6], inputs[7])


def _qlinear_binary(
    function: Callable[[Any, Any], Any], bb: Any, inputs: Inputs, _a: dict[str, Any], _o: int
) -> Any:
    """com.microsoft QLinearAdd and QLinearMul."""
    left, right = _dequantize(bb, *inputs[0:3]), _dequantize(bb, *inputs[3:6])
    return _quantize(bb, function(left, right), inputs[6], _input(inputs, 7))


def _qlinear_unary(
    function: Callable[[Any, Mapping[str, Any]], Any],
    bb: Any,
    inputs: Inputs,
    attributes: dict[str, Any],
    _opset: int,
) -> Any:
    """com.microsoft operators of one quantized input."""
    data = _dequantize(bb, *inputs[0:3])
    return _quantize(bb, function(data, attributes), inputs[3], _input(inputs, 4))


def _qlinear_pool(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """com.microsoft QLinearAveragePool."""
    _reject_channels_last(attributes)
    data = _dequantize(bb, *inputs[0:3])
    result = _pool("AveragePool", bb, [data], attributes, opset)
    return _quantize(bb, result, inputs[3], _input(inputs, 4))


def _qlinear_reduce_mean(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """com.microsoft QLinearReduceMean."""
    axes = [int(axis) for axis in attributes["axes"]] if "axes" in attributes else None
    data = _dequantize(bb, *inputs[0:3])
    result = op.mean(data, axis=axes, keepdims=bool(attributes.get("keepdims", 1)))
    return _quantize(bb, result, inputs[3], _input(inputs, 4))


def _qlinear_concat(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """com.microsoft QLinearConcat: output scale and zero point, then triples."""
    count = (len(inputs) - 2) // 3
    triples = [inputs[2 + 3 * part : 5 + 3 * part] for part in range(count)]
    parts = [_dequantize(bb, *triple) for triple in triples]
    result = bb.normalize(op.concat(parts, axis=int(attributes["axis"])))
    return _quantize(bb, result, inputs[0], inputs[1])


def _global_average(data: Any, attributes: Mapping[str, Any]) -> Any:
    """Mean over the spatial axes."""
    _reject_channels_last(attributes)
    return op.mean(data, axis=list(range(2, len(shape_of(data) or ()))), keepdims=True)


def _reject_channels_last(attributes: Mapping[str, Any]) -> None:
    """Raise for the channels-last variant of com.microsoft's operators."""
    if attributes.get("channels_last", 0):
        raise ValueError("channels_last must be 0; export the model with NCHW tensors")


def _quantized_softmax(data: Any, attributes: Mapping[str, Any]) -> Any:
    """Softmax over one axis (opset 13 and later)."""
    return op.nn.softmax(data, axis=int(attributes.get("axis", -1)))


def _conv_integer(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """ConvInteger: int32 convolution of operands with their zero points taken out."""
    parts: list[Any] = []
    if not all(item is None or is_constant(item) for item in inputs[1:]):
        raise ValueError("its weights and zero points must be constants")
    for data, zero_point in ((inputs[0], _input(inputs, 2)), (inputs[1], _input(inputs, 3))):
        wide = bb.normalize(op.astype(data, "int32"))
        if zero_point is not None:
            point = bb.normalize(op.astype(zero_point, "int32"))
            if len(shape_of(point) or ()) == 1:
                point = bb.normalize(op.reshape(point, (-1, 1, 1, 1)))
            wide = bb.normalize(op.subtract(wide, point))
        parts.append(wide)
    return _conv(bb, parts, attributes, opset)


def _clip(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Clip with constant bounds as one operator, [0, inf) as a relu."""
    low, high = _input(inputs, 1), _input(inputs, 2)
    bounds = (
        low if low is not None else attributes.get("min"),
        high if high is not None else attributes.get("max"),
    )
    values: list[float] = []
    for bound, default in zip(bounds, (-np.inf, np.inf), strict=True):
        if bound is None:
            values.append(default)
        elif isinstance(bound, int | float):
            values.append(float(bound))
        elif is_constant(bound):
            values.append(float(array_of(bound).reshape(())))
        else:
            return _upstream("Clip", bb, inputs, attributes, opset)
    values = [d if np.isnan(v) else v for v, d in zip(values, (-np.inf, np.inf), strict=True)]
    if values == [0.0, np.inf]:
        return op.nn.relu(inputs[0])
    return op.clip(inputs[0], *values)


def _fold(
    function: Callable[[Any, Any], Any], bb: Any, inputs: Inputs, _a: dict[str, Any], _o: int
) -> Any:
    """Variadic Max, Min, Sum and Mean as a chain of binary operators."""
    return functools.reduce(lambda left, right: bb.normalize(function(left, right)), inputs)


def _mean(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Variadic Mean."""
    total = _fold(op.add, bb, inputs, attributes, opset)
    return op.divide(total, scalar(len(inputs)))


def _pad(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Pad as one operator (TVM emits an opaque loop)."""
    mode = attributes.get("mode", b"constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    names = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    pads = attributes.get("pads") or _constant(inputs[1]).tolist()
    value = attributes.get("value", 0.0)
    if _input(inputs, 2) is not None:
        value = float(_constant(inputs[2]).reshape(()))
    rank = len(shape_of(inputs[0]) or ())
    axes = list(range(rank))
    if _input(inputs, 3) is not None:
        axes = [int(axis) % rank for axis in _constant(inputs[3])]
    if mode not in names or any(pad < 0 for pad in pads):
        return _upstream("Pad", bb, inputs, attributes, opset)
    widths = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        widths[2 * axis] = int(pads[position])
        widths[2 * axis + 1] = int(pads[position + len(axes)])
    return op.nn.pad(inputs[0], widths, names[mode], float(value))


def _resize(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Resize to sizes; a scale that is not the ratio of two whole sizes moves the coordinates."""
    scales = _input(inputs, 1 if opset < 11 else 2)
    mode = attributes.get("coordinate_transformation_mode", b"half_pixel")
    if scales is not None and _constant(scales).size and mode != b"align_corners":
        for extent, scale in zip(shape_of(inputs[0]) or (), _constant(scales), strict=True):
            made = np.floor(np.float32(extent) * scale)
            if np.float32(made) / np.float32(extent) != scale:
                raise ValueError(f"scale {scale} gives no whole size of {extent}; give it sizes")
    return _upstream("Resize", bb, inputs, attributes, opset)


def _tile(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """Tile as one operator."""
    if not is_constant(inputs[1]):
        return _upstream("Tile", bb, inputs, attributes, opset)
    return op.tile(inputs[0], [int(count) for count in array_of(inputs[1])])


def _gemm(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """Gemm, with factors of 1 left out."""
    left, right, bias = inputs[0], inputs[1], _input(inputs, 2)
    if attributes.get("transA", 0):
        left = bb.normalize(op.permute_dims(left))
    if attributes.get("transB", 0):
        right = bb.normalize(op.permute_dims(right))
    result = bb.normalize(op.matmul(left, right))
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    if alpha != 1.0:
        result = bb.normalize(op.multiply(result, scalar(alpha)))
    if bias is None or beta == 0.0:
        return result
    if beta != 1.0:
        bias = bb.normalize(op.multiply(bias, scalar(beta)))
    return op.add(result, bias)


CONVERTERS: Mapping[str, Converter] = {
    "AveragePool": functools.partial(_pool, "AveragePool"),
    "BatchNormalization": batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize_linear,
    "Dropout": dropout,
    "Gather": gather,
    "Gemm": _gemm,
    "HardSwish": hard_swish,
    "Max": functools.partial(_fold, op.maximum),
    "MaxPool": functools.partial(_pool, "MaxPool"),
    "Mean": _mean,
    "Min": functools.partial(_fold, op.minimum),
    "Pad": _pad,
    "QGemm": _qgemm,
    "QLinearAdd": functools.partial(_qlinear_binary, op.add),
    "QLinearAveragePool": _qlinear_pool,
    "QLinearConcat": _qlinear_concat,
    "QLinearConv": _qlinear_conv,
    "QLinearGlobalAveragePool": functools.partial(_qlinear_unary, _global_average),
    "QLinearLeakyRelu": functools.partial(
        _qlinear_unary, lambda data, a: op.nn.leakyrelu(data, float(a.get("alpha", 0.01)))
    ),
    "QLinearMatMul": _qlinear_matmul,
    "QLinearMul": functools.partial(_qlinear_binary, op.multiply),
    "QLinearReduceMean": _qlinear_reduce_mean,
    "QLinearSigmoid": functools.partial(_qlinear_unary, lambda data, _a: op.sigmoid(data)),
    "QLinearSoftmax": functools.partial(_qlinear_unary, _quantized_softmax),
    "QuantizeLinear": _quantize_linear,
    "Resize": _resize,
    "Sum": functools.partial(_fold, op.add),
    "Tile": _tile,
}
