"""Products with constants and of activations as nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.compiler import graph as ir
from lepton.compiler.layout import IDENTITY, NCHW, Layout, Placed
from lepton.compiler.nodes.region import Region, pair
from lepton.compiler.operation import Operation, Value

__all__ = ["convolution", "product"]


def convolution(region: Region, operation: Operation) -> Placed:
    """Build a convolution of any kind."""
    attrs = operation.call.attrs
    layout = NCHW if str(attrs.data_layout) == "NCHW" else IDENTITY
    source = region.operand(operation.inputs[0])
    ifm = region.builder.require(source, layout, operation.name)
    groups = int(attrs.groups)
    weights, scale, zero_point = _weights(operation.inputs[1], str(attrs.kernel_layout), groups)
    top, left, bottom, right = operation.integers("padding")
    window = ir.Window(
        (weights.shape[0], weights.shape[1]),
        pair(operation.integers("strides")),
        pair(operation.integers("dilation")),
        (top, left, bottom, right),
    )
    result = region.result(operation, layout)
    oc = result.tensor.shape[3]
    form = region.golden.weighted(operation, scale, _bias(operation, oc))
    kh, kw, ic, _ = weights.shape
    region.append(
        ir.Convolution(
            name="",
            inputs=(ifm,),
            output=result.tensor,
            macs=math.prod(result.tensor.shape) * kh * kw * ic,
            window=window,
            groups=groups,
            weights=weights.view(np.uint8),
            weight_unsigned=operation.inputs[1].dtype == "uint8",
            weight_zero_point=zero_point,
            table=form.table,
            mode=form.mode,
            bounds=form.bounds,
        )
    )
    return result


def product(region: Region, operation: Operation) -> Placed:
    """Build a matrix product: with a constant as a 1 x 1 convolution, else as it is."""
    if operation.inputs[1].constant is None:
        return _product_of_activations(region, operation)
    left, right = operation.inputs
    constant = right.constant
    assert constant is not None and right.quantization is not None
    k, n = constant.shape[-2:]
    rows = math.prod(left.shape) // k
    source = region.builder.require(region.operand(left), IDENTITY, operation.name)
    ifm = region.builder.reshape(source, (1, 1, rows, k), operation.name)
    result = region.result(operation, IDENTITY)
    flat = region.builder.like(result.tensor, (1, 1, rows, n))
    form = region.golden.weighted(
        operation, np.broadcast_to(right.quantization.scale, n), _bias(operation, n)
    )
    region.append(
        ir.Convolution(
            name="",
            inputs=(ifm,),
            output=flat,
            macs=rows * k * n,
            window=ir.Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
            groups=1,
            weights=np.ascontiguousarray(constant).view(np.uint8).reshape(1, 1, k, n),
            weight_unsigned=right.dtype == "uint8",
            weight_zero_point=int(right.quantization.zero_point[0]),
            table=form.table,
            mode=form.mode,
            bounds=form.bounds,
        )
    )
    shaped = region.builder.reshape(flat, result.tensor.shape, operation.name)
    return Placed(shaped, result.logical, IDENTITY)


def _product_of_activations(region: Region, operation: Operation) -> Placed:
    """Build a product of two activations; a transposed right operand is read as it lies."""
    left_value, right_value = operation.inputs
    left = region.builder.require(region.operand(left_value), IDENTITY, operation.name)
    placed = region.operand(right_value)
    transposed = placed.layout == (0, 1, 3, 2)
    layout: Layout = (0, 1, 3, 2) if transposed else IDENTITY
    right = region.builder.require(placed, layout, operation.name)
    result = region.result(operation, IDENTITY)
    n = result.tensor.shape[3]
    assert right_value.quantization is not None
    scale = np.broadcast_to(right_value.quantization.scale, n)
    form = region.golden.weighted(operation, scale, _bias(operation, n))
    region.append(
        ir.Product(
            name="",
            inputs=(left, right),
            output=result.tensor,
            macs=math.prod(result.tensor.shape) * left.shape[3],
            transposed=transposed,
            table=form.table,
            mode=form.mode,
            bounds=form.bounds,
        )
    )
    return result


def _bias(operation: Operation, channels: int) -> NDArray[np.int32]:
    """Return the bias of every output channel."""
    if operation.bias is None or operation.bias.constant is None:
        return np.zeros(channels, np.int32)
    flat = operation.bias.constant.reshape(-1).astype(np.int32)
    return np.ascontiguousarray(np.broadcast_to(flat, channels))


def _weights(
    value: Value, layout: str, groups: int
) -> tuple[NDArray[Any], NDArray[np.float32], int]:
    """Return weights as `[kh, kw, ic / groups, oc]`, the scale of each channel, the zero point."""
    constant, quantization = value.constant, value.quantization
    assert constant is not None and quantization is not None
    shape = [1] * constant.ndim
    if not quantization.is_per_tensor:
        shape[quantization.axis] = -1
    spread = np.broadcast_to(quantization.scale.reshape(shape), constant.shape)
    order = [layout.index(letter) for letter in "HWIO"]
    arranged = [array.transpose(order) for array in (constant, spread)]
    if layout == "HWOI" and groups > 1:
        # channels x multiplier, flattened in that order
        kh, kw = constant.shape[:2]
        arranged = [array.reshape(kh, kw, 1, -1) for array in (constant, spread)]
    weights, scales = (np.ascontiguousarray(array) for array in arranged)
    return weights, scales[0, 0, 0, :].astype(np.float32), int(quantization.zero_point[0])
