"""Convolutions, pooling and normalization on torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from lepton.models.onnx_module.step import Step

if TYPE_CHECKING:
    from lepton.models.onnx_module.step import Operator

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["WINDOWS", "pads_of", "torch_padding"]

Values = Sequence[torch.Tensor | None]
_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAX_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


def pads_of(step: Step, extents: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the padding of a window, all starts before all ends.

    Args:
        step: a convolution or a pooling.
        extents: of the spatial axes.
        kernel: as many.
    """
    rank = len(kernel)
    mode = step.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return list(step.get("pads", [0] * 2 * rank))
    if mode == "VALID":
        return [0] * 2 * rank
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    sums = [
        max((-(-extent // stride) - 1) * stride + (size - 1) * dilation + 1 - extent, 0)
        for extent, size, stride, dilation in zip(extents, kernel, strides, dilations, strict=True)
    ]
    less, more = [item // 2 for item in sums], [item - item // 2 for item in sums]
    return less + more if mode == "SAME_UPPER" else more + less


def torch_padding(pads: Sequence[int]) -> list[int]:
    """Return ONNX padding in the order of `torch.nn.functional.pad`: the last axis first."""
    rank = len(pads) // 2
    return [side for axis in reversed(range(rank)) for side in (pads[axis], pads[axis + rank])]


def _padded(step: Step, tensor: torch.Tensor, kernel: Sequence[int], value: float) -> torch.Tensor:
    return F.pad(tensor, torch_padding(pads_of(step, tensor.shape[2:], kernel)), value=value)


def _conv(step: Step, values: Values) -> torch.Tensor:
    tensor, weights = cast("Sequence[torch.Tensor]", values[:2])
    kernel = weights.shape[2:]
    rank = len(kernel)
    bias = values[2] if len(values) > 2 else None
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    padded, group = _padded(step, tensor, kernel, 0.0), step.get("group", 1)
    return _CONVOLUTIONS[rank - 1](padded, weights, bias, strides, 0, dilations, group)


def _conv_transpose(step: Step, values: Values) -> torch.Tensor:
    if step.get("output_shape") or step.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ValueError("only explicit padding is supported")
    tensor, weights = cast("Sequence[torch.Tensor]", values[:2])
    rank = weights.ndim - 2
    bias = values[2] if len(values) > 2 else None
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    extra, group = step.get("output_padding", [0] * rank), step.get("group", 1)
    whole = _TRANSPOSED[rank - 1](tensor, weights, bias, strides, 0, 0, group, dilations)
    cut = pads_of(step, tensor.shape[2:], weights.shape[2:])
    # the extra elements are part of the whole where the kernel reaches, and bias where it does not
    ends = [end - more for end, more in zip(cut[rank:], extra, strict=True)]
    if any(item < 0 for item in ends):
        raise ValueError("output padding beyond the padding is not supported")
    return F.pad(whole, [-item for item in torch_padding([*cut[:rank], *ends])])


def _gemm(step: Step, values: Values) -> torch.Tensor:
    left, right = cast("Sequence[torch.Tensor]", values[:2])
    left = left.T if step.get("transA", 0) else left
    right = right.T if step.get("transB", 0) else right
    product = step.get("alpha", 1.0) * (left @ right)
    bias = values[2] if len(values) > 2 else None
    return product if bias is None else product + step.get("beta", 1.0) * bias


def _ceil_pads(
    step: Step, extents: Sequence[int], kernel: Sequence[int], pads: Sequence[int]
) -> list[int]:
    """Return the elements after the padding that a last, partial window reaches into."""
    rank = len(kernel)
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    missing: list[int] = []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        padded = extents[axis] + pads[axis] + pads[axis + rank]
        count = -(-(padded - reach) // strides[axis]) + 1
        # a window that starts in the padding at the end does not count
        count -= (count - 1) * strides[axis] >= extents[axis] + pads[axis]
        missing.append(max((count - 1) * strides[axis] + reach - padded, 0))
    return missing


def _pooled(step: Step, tensor: torch.Tensor) -> tuple[list[int], list[int]]:
    """Return a pooling's padding, and what `ceil_mode` adds at the ends."""
    kernel = step.attributes["kernel_shape"]
    pads = pads_of(step, tensor.shape[2:], kernel)
    added = [0] * len(kernel)
    if step.get("ceil_mode", 0):
        added = _ceil_pads(step, tensor.shape[2:], kernel, pads)
    return pads, added


def _max_pool(step: Step, values: Values) -> torch.Tensor:
    tensor = cast("torch.Tensor", values[0])
    kernel = step.attributes["kernel_shape"]
    rank = len(kernel)
    pads, added = _pooled(step, tensor)
    ends = [end + more for end, more in zip(pads[rank:], added, strict=True)]
    padded = F.pad(tensor, torch_padding([*pads[:rank], *ends]), value=-torch.inf)
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    return _MAX_POOLS[rank - 1](padded, kernel, strides, 0, dilations)


def _average_pool(step: Step, values: Values) -> torch.Tensor:
    """Average over each window: sums over counts, so that every kind of padding is one case."""
    tensor = cast("torch.Tensor", values[0])
    kernel = step.attributes["kernel_shape"]
    rank = len(kernel)
    pads, added = _pooled(step, tensor)
    counted = torch.ones_like(tensor[:1, :1])
    edge = float(step.get("count_include_pad", 0))
    counted = F.pad(counted, torch_padding(pads), value=edge)
    past = torch_padding([0] * rank + added)
    whole = F.pad(F.pad(tensor, torch_padding(pads)), past)
    return _window_sums(step, whole) / _window_sums(step, F.pad(counted, past))


def _window_sums(step: Step, tensor: torch.Tensor) -> torch.Tensor:
    kernel = step.attributes["kernel_shape"]
    rank = len(kernel)
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    merged = tensor.reshape(-1, 1, *tensor.shape[2:])
    ones = torch.ones(1, 1, *kernel, dtype=tensor.dtype, device=tensor.device)
    sums = _CONVOLUTIONS[rank - 1](merged, ones, None, strides, 0, dilations)
    return sums.reshape(*tensor.shape[:2], *sums.shape[2:])


def _global(function: Callable[..., torch.Tensor]) -> Operator:
    def run(step: Step, values: Values) -> torch.Tensor:
        tensor = cast("torch.Tensor", values[0])
        return function(tensor, tuple(range(2, tensor.ndim)), True)

    return run


def _batch_norm(step: Step, values: Values) -> torch.Tensor:
    tensor, scale, bias, mean, variance = cast("Sequence[torch.Tensor]", values)
    return F.batch_norm(tensor, mean, variance, scale, bias, eps=step.get("epsilon", 1e-5))


def _instance_norm(step: Step, values: Values) -> torch.Tensor:
    tensor, scale, bias = cast("Sequence[torch.Tensor]", values)
    return F.instance_norm(tensor, weight=scale, bias=bias, eps=step.get("epsilon", 1e-5))


def _layer_norm(step: Step, values: Values) -> torch.Tensor:
    tensor, scale = cast("Sequence[torch.Tensor]", values[:2])
    axes = tuple(range(step.get("axis", -1) % tensor.ndim, tensor.ndim))
    centred = tensor - tensor.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    made = centred * torch.rsqrt(variance + step.get("epsilon", 1e-5)) * scale
    bias = values[2] if len(values) > 2 else None
    return made if bias is None else made + bias


def _local_response(step: Step, values: Values) -> torch.Tensor:
    tensor, size = cast("torch.Tensor", values[0]), step.attributes["size"]
    squares = tensor.square().flatten(2).unsqueeze(1)
    padded = F.pad(squares, (0, 0, (size - 1) // 2, size // 2))
    sums = F.avg_pool2d(padded, (size, 1), 1).squeeze(1).reshape(tensor.shape)
    factor = step.get("bias", 1.0) + step.get("alpha", 1e-4) * sums
    return tensor / factor ** step.get("beta", 0.75)


WINDOWS: Mapping[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
}
"""Operator -> its function."""
