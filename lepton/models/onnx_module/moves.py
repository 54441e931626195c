"""Operators that move elements: shapes, slices, concatenations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F

from lepton.models.onnx_module.step import Step

if TYPE_CHECKING:
    from lepton.models.onnx_module.step import Operator

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["MOVES", "reshape_target"]

Values = Sequence[torch.Tensor | None]
_MOST_ELEMENTS = 1 << 28
"""What an operator may make out of nothing: a file of a few bytes must not fill the memory."""


def reshape_target(target: Sequence[int], extents: Sequence[int], keeps_zero: bool) -> list[int]:
    """Return a Reshape's target with each 0 replaced by the extent that it copies."""
    if keeps_zero:
        return list(target)
    return [extents[axis] if size == 0 else size for axis, size in enumerate(target)]


def _tensor(values: Values, position: int = 0) -> torch.Tensor:
    return cast("torch.Tensor", values[position])


def _whole(step: Step, values: Values, name: str, position: int) -> list[int] | None:
    """Return whole numbers that are an attribute in old opsets and an input in new ones."""
    if len(values) > position and values[position] is not None:
        return [int(item) for item in _tensor(values, position).reshape(-1).tolist()]
    given = step.get(name)
    return None if given is None else list(given)


def _reshape(step: Step, values: Values) -> torch.Tensor:
    tensor = _tensor(values)
    target = _whole(step, values, "shape", 1) or []
    return tensor.reshape(reshape_target(target, tensor.shape, bool(step.get("allowzero", 0))))


def _flatten(step: Step, values: Values) -> torch.Tensor:
    tensor, axis = _tensor(values), step.get("axis", 1)
    axis = axis + tensor.ndim if axis < 0 else axis
    rows = 1
    for extent in tensor.shape[:axis]:
        rows *= extent
    return tensor.reshape(rows, tensor.numel() // rows if rows else 0)


def _transpose(step: Step, values: Values) -> torch.Tensor:
    tensor = _tensor(values)
    return tensor.permute(*step.get("perm", range(tensor.ndim - 1, -1, -1)))


def _squeeze(step: Step, values: Values) -> torch.Tensor:
    tensor, axes = _tensor(values), _whole(step, values, "axes", 1)
    return tensor.squeeze() if axes is None else tensor.squeeze(tuple(axes))


def _unsqueeze(step: Step, values: Values) -> torch.Tensor:
    tensor, axes = _tensor(values), _whole(step, values, "axes", 1) or []
    rank = tensor.ndim + len(axes)
    for axis in sorted(item % rank for item in axes):
        tensor = tensor.unsqueeze(axis)
    return tensor


def _concat(step: Step, values: Values) -> torch.Tensor:
    return torch.cat([item for item in values if item is not None], step.attributes["axis"])


def _split(step: Step, values: Values) -> tuple[torch.Tensor, ...]:
    tensor, axis = _tensor(values), step.get("axis", 0)
    sizes = _whole(step, values, "split", 1)
    if sizes is None:
        parts = len(step.outputs)
        each = -(-tensor.shape[axis] // parts)
        ends = [min(each * part, tensor.shape[axis]) for part in range(parts + 1)]
        sizes = [end - start for start, end in pairwise(ends)]
    return tensor.split(sizes, axis)


def _slice(step: Step, values: Values) -> torch.Tensor:
    tensor = _tensor(values)
    starts, ends = (
        _whole(step, values, name, at) or [] for at, name in ((1, "starts"), (2, "ends"))
    )
    axes = _whole(step, values, "axes", 3) or list(range(len(starts)))
    steps = _whole(step, values, "steps", 4) or [1] * len(starts)
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        chosen = range(tensor.shape[axis])[
            slice(start, _end(end, stride, tensor.shape[axis]), stride)
        ]
        tensor = tensor.index_select(axis, torch.tensor(chosen, device=tensor.device).long())
    return tensor


def _end(end: int, stride: int, extent: int) -> int | None:
    """Return a slice's end for Python, where None is what comes before the first element."""
    return None if stride < 0 and end < -extent else end


def _gather(step: Step, values: Values) -> torch.Tensor:
    tensor, axis = _tensor(values), step.get("axis", 0)
    index = _tensor(values, 1).to(tensor.device).long()
    axis %= tensor.ndim
    index = torch.where(index < 0, index + tensor.shape[axis], index)
    taken = tensor.index_select(axis, index.reshape(-1))
    return taken.reshape(*tensor.shape[:axis], *index.shape, *tensor.shape[axis + 1 :])


def _pad(step: Step, values: Values) -> torch.Tensor:
    tensor, pads = _tensor(values), _whole(step, values, "pads", 1) or []
    given = values[2] if len(values) > 2 else None
    value = step.get("value", 0.0) if given is None else float(given)
    axes = _whole(step, values, "axes", 3) or list(range(tensor.ndim))
    both = [(0, 0)] * tensor.ndim
    for position, axis in enumerate(axes):
        both[axis] = (pads[position], pads[position + len(axes)])
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[
        step.get("mode", "constant")
    ]
    if mode == "constant":
        return F.pad(tensor, [size for pair in reversed(both) for size in pair], value=value)
    return F.pad(tensor, [size for pair in reversed(both[2:]) for size in pair], mode=mode)


def _shape(step: Step, values: Values) -> torch.Tensor:
    whole = list(_tensor(values).shape)
    return torch.tensor(whole[step.get("start", 0) : step.get("end")], dtype=torch.int64)


def _constant_of_shape(step: Step, values: Values) -> torch.Tensor:
    from onnx import numpy_helper

    shape = [int(item) for item in _tensor(values).tolist()]
    _refuse_flood(shape)
    given = step.get("value")
    if given is None:
        return torch.zeros(shape)
    return torch.from_numpy(numpy_helper.to_array(given).copy()).expand(shape).clone()


def _expand(step: Step, values: Values) -> torch.Tensor:
    tensor, target = _tensor(values), _whole(step, values, "shape", 1) or []
    shape = torch.broadcast_shapes(tensor.shape, tuple(target))
    _refuse_flood(shape)
    return tensor.expand(shape)


def _refuse_flood(shape: Sequence[int]) -> None:
    count = 1
    for extent in shape:
        count *= extent
    if count > _MOST_ELEMENTS:
        raise ValueError(f"would make {count} elements")


def _depth_to_space(step: Step, values: Values) -> torch.Tensor:
    tensor, block = _tensor(values), step.attributes["blocksize"]
    if step.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(tensor, block)
    n, c, h, w = tensor.shape
    split = tensor.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return split.reshape(n, c // block**2, h * block, w * block)


def _resize(step: Step, values: Values) -> torch.Tensor:
    """Enlarge by whole factors to the nearest neighbour, which all coordinate modes agree on."""
    tensor = _tensor(values)
    given = values[3] if len(values) > 3 else None
    position = 2 if step.kind == "Resize" and step.opset >= 11 else 1
    if given is not None:
        target = [int(item) for item in given.tolist()]
        factors = [size / extent for size, extent in zip(target, tensor.shape, strict=True)]
    else:
        scales = values[position] if len(values) > position else None
        factors = list(step.get("scales", [])) if scales is None else scales.tolist()
    if step.get("mode", "nearest") != "nearest" or any(f != int(f) or f < 1 for f in factors):
        raise ValueError("only enlarging by whole factors to the nearest neighbour is supported")
    for axis, factor in enumerate(factors):
        tensor = tensor.repeat_interleave(int(factor), axis) if factor != 1 else tensor
    return tensor


def _identity(step: Step, values: Values) -> torch.Tensor:
    return _tensor(values)


MOVES: Mapping[str, Operator] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToDepth": lambda step, values: _space_to_depth(_tensor(values), step),
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
"""Operator -> its function."""


def _space_to_depth(tensor: torch.Tensor, step: Step) -> torch.Tensor:
    n, c, h, w = tensor.shape
    block: Any = step.attributes["blocksize"]
    split = tensor.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return split.reshape(n, c * block**2, h // block, w // block)
