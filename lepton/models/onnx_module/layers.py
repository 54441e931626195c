"""Which operators become torch layers, and with which constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from lepton.models.onnx_module.constants import Constant
from lepton.models.onnx_module.step import Step
from lepton.models.onnx_module.windows import pads_of, torch_padding

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["Layer", "layer_of", "trainable_positions"]

# their constructors differ in the lengths of tuples only
_CONVOLUTIONS: Sequence[Callable[..., nn.Module]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Sequence[Callable[..., nn.Module]] = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_TRAINED: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "Gather": (0,),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
}


@dataclass(frozen=True)
class Layer:
    """A torch module of one input, and the constant that each of its parameters holds."""

    module: nn.Module
    held: Mapping[str, Constant]


Constants: TypeAlias = Sequence[Constant | None]


def layer_of(step: Step, inputs: Constants, rank: int | None) -> Layer | None:
    """Return the layer that an operator becomes; None if it has no torch layer.

    Args:
        step: the operator.
        inputs: its constants; None where an input is none.
        rank: of its first input, if known.
    """
    if step.kind == "Dropout":
        return _dropout(step, inputs)
    make = _LAYERS.get(step.kind)
    if make is None or any(
        name and (item is None or not item.is_float)
        for name, item in zip(step.inputs[1:], inputs[1:], strict=True)
    ):
        return _embedding(step, inputs) if step.kind == "Gather" else None
    return make(step, [item for item in inputs[1:]], rank)


def trainable_positions(step: Step, inputs: Constants) -> list[int]:
    """Return which constants an operator without a layer trains.

    Of sums and products: vectors, which are biases and scales. Tables (positions, masks) and
    numbers stay as they are.
    """
    positions = _TRAINED.get(step.kind, ())
    if step.kind in ("Add", "Sub", "Mul"):
        positions = tuple(at for at, item in enumerate(inputs) if item and _is_vector(item.value))
    return [at for at in positions if at < len(inputs) and (item := inputs[at]) and item.is_float]


def _is_vector(value: torch.Tensor) -> bool:
    return sum(extent > 1 for extent in value.shape) == 1


def _held(layer: nn.Module, prefix: str, inputs: Constants) -> Layer:
    names = ("weight", "bias")
    held = {
        f"{prefix}{name}": item
        for name, item in zip(names, inputs, strict=False)
        if item is not None
    }
    return Layer(layer, held)


def _has_bias(inputs: Constants) -> bool:
    return len(inputs) > 1 and inputs[1] is not None


def _convolution(step: Step, inputs: Constants, rank: int | None) -> Layer | None:
    weights = inputs[0]
    if weights is None or not 3 <= weights.value.ndim <= 5:
        return None
    kernel = tuple(weights.value.shape[2:])
    spatial, group = len(kernel), step.get("group", 1)
    pads = list(step.get("pads", [0] * 2 * spatial))
    is_even = step.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    is_even = is_even and pads[:spatial] == pads[spatial:]
    layer = _CONVOLUTIONS[spatial - 1](
        weights.value.shape[1] * group,
        weights.value.shape[0],
        kernel,
        step.get("strides", 1),
        tuple(pads[:spatial]) if is_even else 0,
        step.get("dilations", 1),
        group,
        _has_bias(inputs),
    )
    if is_even:
        return _held(layer, "", inputs)
    return _held(nn.Sequential(_Padding(step, kernel), layer), "1.", inputs)


class _Padding(nn.Module):
    """Zeros around the spatial axes: more on one side, or as many as the extents call for."""

    def __init__(self, step: Step, kernel: Sequence[int]) -> None:
        super().__init__()
        self._step = step
        self._kernel = tuple(kernel)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Pad `[n, c, …]`."""
        pads = pads_of(self._step, tensor.shape[2:], self._kernel)
        return nn.functional.pad(tensor, torch_padding(pads))


def _transposed(step: Step, inputs: Constants, rank: int | None) -> Layer | None:
    weights = inputs[0]
    if weights is None or not 3 <= weights.value.ndim <= 5:
        return None
    kernel = tuple(weights.value.shape[2:])
    spatial, group = len(kernel), step.get("group", 1)
    is_plain = step.get("auto_pad", "NOTSET") == "NOTSET" and not step.get("output_shape")
    pads = list(step.get("pads", [0] * 2 * spatial))
    if not is_plain or pads[:spatial] != pads[spatial:]:
        return None
    layer = _TRANSPOSED[spatial - 1](
        weights.value.shape[0],
        weights.value.shape[1] * group,
        kernel,
        tuple(step.get("strides", [1] * spatial)),
        tuple(pads[:spatial]),
        tuple(step.get("output_padding", [0] * spatial)),
        group,
        _has_bias(inputs),
        tuple(step.get("dilations", [1] * spatial)),
    )
    return _held(layer, "", inputs)


def _gemm(step: Step, inputs: Constants, rank: int | None) -> Layer | None:
    weights = inputs[0]
    is_plain = step.get("alpha", 1.0) == step.get("beta", 1.0) == 1.0 and not step.get("transA", 0)
    if weights is None or not is_plain or weights.value.ndim != 2:
        return None
    weights = weights if step.get("transB", 0) else weights.turned(1, 0)
    rows, columns = weights.value.shape
    bias = inputs[1] if len(inputs) > 1 else None
    if bias is not None and bias.value.shape[-1:].numel() == bias.value.numel() == rows:
        bias = bias.flat()
    elif bias is not None:
        return None
    return _held(nn.Linear(columns, rows, bias is not None), "", [weights, bias])


def _matmul(step: Step, inputs: Constants, rank: int | None) -> Layer | None:
    weights = inputs[0]
    if weights is None or weights.value.ndim != 2:
        return None
    turned = weights.turned(1, 0)
    rows, columns = turned.value.shape
    return _held(nn.Linear(columns, rows, False), "", [turned])


def _batch_norm(step: Step, inputs: Constants, rank: int | None) -> Layer | None:
    if len(inputs) != 4 or any(item is None for item in inputs) or len(step.outputs) > 1:
        return None
    scale = inputs[0]
    kind = _BATCH_NORMS.get(4 if rank is None else rank)
    if scale is None or kind is None:
        return None
    layer = kind(len(scale.value), step.get("epsilon", 1e-5), 1 - step.get("momentum", 0.9))
    names = ("weight", "bias", "running_mean", "running_var")
    return Layer(layer, {name: item for name, item in zip(names, inputs, strict=True) if item})


def _embedding(step: Step, inputs: Constants) -> Layer | None:
    table = inputs[0]
    if table is None or not table.is_float or table.value.ndim != 2 or step.get("axis", 0):
        return None
    return Layer(_Embedding(table.value.shape[0], table.value.shape[1]), {"weight": table})


class _Embedding(nn.Embedding):
    """An embedding whose negative indices count from the end, as ONNX has them."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look up `[…]` whole numbers; `[…, width]`."""
        index = input.long()
        return super().forward(torch.where(index < 0, index + self.num_embeddings, index))


def _dropout(step: Step, inputs: Constants) -> Layer:
    ratio = inputs[1] if len(inputs) > 1 else None
    return Layer(nn.Dropout(step.get("ratio", 0.5) if ratio is None else float(ratio.value)), {})


_LAYERS: Mapping[str, Callable[[Step, Constants, int | None], Layer | None]] = {
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
