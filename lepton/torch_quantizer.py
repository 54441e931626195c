"""A PT2E quantizer whose graphs run on the NPU as a whole.

Quantizers of other targets leave values in float where their kernels fuse operators, a sum behind
a convolution for example; on the NPU each result between operators has 8 bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

# torch is an extra, and typed in part only:
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["LeptonQuantizer"]

_KEY = "quantization_annotation"
_WEIGHTED = frozenset(("conv2d.default", "linear.default"))
_ACTIVATIONS = frozenset(("relu.default", "relu_.default", "hardtanh.default", "hardtanh_.default"))
_COMPUTING = frozenset(
    (
        "add.Tensor", "add_.Tensor", "sub.Tensor", "mul.Tensor", "mul_.Tensor", "div.Tensor",
        "mean.dim", "avg_pool2d.default", "adaptive_avg_pool2d.default", "matmul.default",
        "bmm.default", "softmax.int", "sigmoid.default", "tanh.default", "gelu.default",
        "silu.default", "silu_.default", "hardswish.default", "hardswish_.default",
        "hardsigmoid.default", "leaky_relu.default", "cat.default",
    )
)  # fmt: skip
_MOVING = frozenset(
    (
        "max_pool2d.default", "flatten.using_ints", "view.default", "reshape.default",
        "permute.default", "transpose.int", "slice.Tensor", "squeeze.dim", "unsqueeze.default",
        "dropout.default", "pad.default", *_ACTIVATIONS,
    )
)  # fmt: skip


class LeptonQuantizer(Quantizer):
    """Annotates an exported graph for `prepare_pt2e`.

    Activations have 8 bits with one scale and zero point for each tensor, weights 8 bits with a
    scale for each output channel. A ReLU or ReLU6 belongs to the operator before it; what moves
    data keeps the parameters of its operand. Other operators stay in float, on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self._activation = QuantizationSpec(
            torch.int8,
            HistogramObserver.with_args(eps=2**-12),
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )
        self._weights = QuantizationSpec(
            torch.int8,
            PerChannelMinMaxObserver.with_args(eps=2**-12),
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Say of each node how its operands and its result are quantized."""
        for node in model.graph.nodes:
            if _KEY in node.meta:
                continue
            name = _name(node)
            if name in _WEIGHTED:
                self._annotate(node, {node.args[1]: self._weights})
            elif name in _COMPUTING:
                self._annotate(node, {})
            elif name in _MOVING:
                self._share(node)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Accept every graph: what is not annotated stays in float."""

    def _annotate(self, node: torch.fx.Node, inputs: dict[torch.fx.Node, Any]) -> None:
        """Quantize a node's operands and the result of the activation behind it."""
        operands = [node.args[0]] if _name(node) in _WEIGHTED else node.all_input_nodes
        for operand in operands:
            if isinstance(operand, torch.fx.Node) and _is_float(operand):
                inputs[operand] = self._activation
        last = _activation_behind(node)
        output = self._activation
        if last is not node:
            last.meta[_KEY] = QuantizationAnnotation(output_qspec=output, _annotated=True)
        node.meta[_KEY] = QuantizationAnnotation(
            inputs, output if last is node else None, _annotated=True
        )

    def _share(self, node: torch.fx.Node) -> None:
        """Give a result the parameters of the operand."""
        operand = node.all_input_nodes[0]
        if not _is_float(operand):
            return
        shared = SharedQuantizationSpec((operand, node))
        node.meta[_KEY] = QuantizationAnnotation(
            {operand: self._activation}, shared, _annotated=True
        )


def _name(node: torch.fx.Node) -> str:
    """Return the name of an ATen operator with its overload, "" of another node."""
    text = str(node.target)
    return text.removeprefix("aten.") if text.startswith("aten.") else ""


def _is_float(node: torch.fx.Node) -> bool:
    """Return whether a node's value is a float tensor of more than one element."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.numel() > 1


def _activation_behind(node: torch.fx.Node) -> torch.fx.Node:
    """Return the activation that is all that reads a node, or the node itself."""
    readers = list(node.users)
    is_alone = len(readers) == 1 and _name(readers[0]) in _ACTIVATIONS
    return readers[0] if is_alone else node
