"""Give quantized biases the scale with which the golden library adds them.

before: Gemm(DequantizeLinear(x, sx), DequantizeLinear(W, sw), DequantizeLinear(b, sb, zb))
after:  Gemm(DequantizeLinear(x, sx), DequantizeLinear(W, sw), DequantizeLinear(b, sx * sw, 0))

The library's integer kernels add the codes of a bias to their sums. For Gemm it takes them
whatever their scale and zero point; for Conv only if the zero point is 0 and the scale is about
that of the sums, and leaves the convolution in float otherwise. A bias that is added in float
keeps its parameters.

Source: ONNX Runtime 1.31 (MIT), what its optimizer makes of such graphs (docs/onnx_golden.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.importers.onnx_pairs import NodeIndex, Parameters

__all__ = ["adopt_bias_scales"]

_ABSOLUTE, _RELATIVE = 1e-6, 0.01
"""How far from the sums' scale that of a convolution's bias may be."""


class _Product(NamedTuple):
    """A convolution or product: its operands, the node that adds the bias, and which input it is.

    Attributes:
        parameters: of the data.
        weights: the node that dequantizes the weights.
        adder: the node that adds the bias: the product itself, or an Add behind it.
    """

    parameters: Parameters
    weights: Any
    bias: Any
    adder: Any
    position: int


def adopt_bias_scales(graph: Any) -> None:
    """Rewrite every such bias of an ONNX graph in place."""
    index = NodeIndex(graph)
    for node in list(graph.node):
        product = _product(index, node)
        if product is not None:
            _adopt(index, product)


def _product(index: NodeIndex, node: Any) -> _Product | None:
    """Return the product at whose heart a node is, None if there is none with a bias."""
    adder, position = node, 2
    if node.op_type == "MatMul":
        adder = index.only_reader(node, "Add")
        if adder is None:
            return None
        position = int(adder.input[0] == node.output[0])
    elif node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
        return None
    if any(item.name in ("alpha", "beta") and item.f != 1.0 for item in node.attribute):
        return None
    names = (node.input[0], node.input[1], adder.input[position])
    makers = [index.maker.get(name) for name in names]
    if any(maker is None or maker.op_type != "DequantizeLinear" for maker in makers):
        return None
    data, weights, bias = makers
    parameters = index.parameters(data)
    return None if parameters is None else _Product(parameters, weights, bias, adder, position)


def _adopt(index: NodeIndex, product: _Product) -> None:
    """Give a bias the scale of the sums, if an integer kernel adds it to them."""
    codes = index.constant(product.bias.input[0])
    own, weights = (index.constant(node.input[1]) for node in (product.bias, product.weights))
    if codes is None or own is None or weights is None or codes.dtype != np.int32:
        return
    if not _is_integer(index, product) or not _is_bias_of_kernel(index, product, codes):
        return
    scale = np.asarray(product.parameters.scale * weights.astype(np.float32), np.float32)
    if scale.size == 1:
        scale = scale.reshape(())
    elif codes.shape[-1:] != scale.shape:
        return
    point = index.constant(product.bias.input[2]) if len(product.bias.input) > 2 else None
    is_zero = point is None or not point.any()
    if product.adder.op_type == "Conv" and not (is_zero and _is_near(own, scale)):
        return
    if not is_zero or own.shape != scale.shape or np.any(own != scale):
        _replace(index, product, scale, codes.ndim - 1)


def _is_near(own: NDArray[Any], scale: NDArray[np.float32]) -> bool:
    """Return whether a convolution's kernel accepts the scale of a bias."""
    if own.size not in (1, scale.size) and scale.size != 1:
        return False
    limit = _ABSOLUTE + _RELATIVE * np.abs(scale.astype(np.float64))
    return bool(np.all(np.abs(own.astype(np.float64) - scale) <= limit))


def _replace(index: NodeIndex, product: _Product, scale: NDArray[np.float32], axis: int) -> None:
    """Give a product a dequantize of its own for its bias."""
    made = type(product.bias)()
    made.CopyFrom(product.bias)
    made.output[0] = f"{product.adder.output[0]}/bias"
    del made.attribute[:]
    if scale.ndim:
        made.attribute.add(name="axis", i=axis, type=2)
    del made.input[1:]
    made.input.extend(["", ""])
    index.set_parameters(made, scale, np.zeros(scale.shape, np.int32))
    place = next(i for i, node in enumerate(index.graph.node) if node is product.adder)
    product.adder.input[product.position] = made.output[0]
    index.graph.node.insert(place, made)


def _is_bias_of_kernel(index: NodeIndex, product: _Product, codes: NDArray[Any]) -> bool:
    """Return whether the library takes what is added to a product for the bias of a Gemm."""
    if product.adder.op_type != "Add":
        return True
    weights = index.constant(product.weights.input[0])
    if weights is None or codes.ndim == 0 or codes.shape[-1] != weights.shape[-1]:
        return False
    return codes.ndim == 1 or (codes.ndim == 2 and index.rank(product.adder.output[0]) == 2)


def _is_integer(index: NodeIndex, product: _Product) -> bool:
    """Return whether the library runs a product as an integer kernel."""
    weights = index.constant(product.weights.input[0])
    if weights is None or (product.parameters.dtype, weights.dtype.name) == ("int8", "uint8"):
        return False
    result = product.adder
    after = [index.only_reader(result, kind) for kind in ("Relu", "Clip")]
    activation = next((node for node in after if node is not None), None)
    last = index.only_reader(activation or result, "QuantizeLinear")
    if last is None:
        return activation is None and result.op_type != "Conv"
    parameters = index.parameters(last)
    if parameters is None or parameters.dtype != product.parameters.dtype:
        return False
    return activation is None or _is_idle(index, activation, parameters)


def _is_idle(index: NodeIndex, activation: Any, parameters: Parameters) -> bool:
    """Return whether an activation changes nothing that the range of the result does not."""
    limits = np.iinfo(parameters.dtype)
    low, high = (
        float(parameters.scale) * (end - parameters.zero_point) for end in (limits.min, limits.max)
    )
    bounds: list[float] = [-np.inf, np.inf]
    for position, name in enumerate(activation.input[1:3]):
        bound = index.constant(name)
        if name and bound is None:
            return False
        if bound is not None:
            bounds[position] = float(bound.item())
    if activation.op_type == "Relu":
        bounds[0] = 0.0
    return bounds[0] <= low and bounds[1] >= high
