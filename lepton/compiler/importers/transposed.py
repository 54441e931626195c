"""Write a transposed convolution as a convolution whose channels are the phases of the result.

Output row y of a transposed convolution of stride s reads only rows y mod s, y mod s + s, ... of
the kernel, so that every phase is a convolution of stride 1 with a smaller kernel, and all phases
together are one with s times s times the channels, whose pixels then have to be interleaved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.utils import convert_to_expr

from lepton.compiler.importers.constants import array_of
from lepton.compiler.importers.names import inner_source, source_of
from lepton.compiler.importers.rewriting import (
    Rewriter,
    is_call,
    is_constant,
    rewrite,
    shape_of,
    with_source,
)

__all__ = ["split_phases"]

Array = NDArray[Any]
# TVM's annotations promise less than its functions take (numbers, plain shapes).
op: Any = relax.op


@dataclass(frozen=True)
class _Axis:
    """One image axis of a transposed convolution.

    Attributes:
        extent: of the input.
        result: extent of the output.
        before: padding before, which is cut off the result.
    """

    extent: int
    result: int
    kernel: int
    stride: int
    before: int

    @property
    def taps(self) -> int:
        """Kernel extent of a phase."""
        return -(-self.kernel // self.stride)

    @property
    def first(self) -> int:
        """First and, as `last`, last group of `stride` positions of the uncut result."""
        return self.before // self.stride

    @property
    def last(self) -> int:
        return (self.before + self.result - 1) // self.stride

    @property
    def padding(self) -> tuple[int, int]:
        """Padding of the convolution; where it needs less than none, more groups are made."""
        return self.taps - 1 - self.first, max(self.last - self.extent + 1, 0)

    @property
    def groups(self) -> int:
        return self.extent + sum(self.padding) - self.taps + 1

    @property
    def cut(self) -> int:
        """Positions to cut off before the result."""
        return self.before - self.first * self.stride


def split_phases(module: tvm.IRModule) -> tvm.IRModule:
    """Write quantized transposed convolutions of one image as convolutions.

    before: y = R.quantize(R.add(R.nn.conv2d_transpose(dq(x), dq(W), strides=[2, 2]), dq(B)))
    after:  c = R.quantize(R.add(R.nn.conv2d(dq(x), dq(phases of W)), dq(B four times)))
            y = c with the four phases of a pixel made a square of pixels
    """

    def rule(rewriter: Rewriter, variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.quantize") or array_of(value.args[1]).size != 1:
            return None
        chain: list[Any] = []
        expr = rewriter.value(value.args[0])
        while is_call(expr, "relax.nn.relu", "relax.clip", "relax.add"):
            chain.append(expr)
            expr = rewriter.value(expr.args[0])
        shape = shape_of(variable)
        if not is_call(expr, "relax.nn.conv2d_transpose") or shape is None:
            return None
        made = _Phases.read(rewriter, expr, shape)
        return None if made is None else made.rebuilt(rewriter, value, chain)

    return rewrite(module, rule)


@dataclass(frozen=True)
class _Phases:
    """A transposed convolution of NCHW tensors that can be split."""

    call: Any
    rows: _Axis
    columns: _Axis
    weights: Any

    @classmethod
    def read(cls, rewriter: Rewriter, call: Any, result: Sequence[int]) -> _Phases | None:
        """Return what a call's attributes say, None if it cannot be split."""
        attrs = call.attrs
        layout, kernels = str(attrs.data_layout), str(attrs.kernel_layout)
        weights = rewriter.call(call.args[1], "relax.dequantize")
        source, data = shape_of(call.args[0]), rewriter.call(call.args[0], "relax.dequantize")
        if weights is None or data is None or source is None or int(attrs.groups) != 1:
            return None
        if layout != "NCHW" or source[0] != 1 or not is_constant(weights.args[0]):
            return None
        if array_of(weights.args[2]).any() or any(int(step) != 1 for step in attrs.dilation):
            return None
        shape = array_of(weights.args[0]).shape
        axes = [
            _Axis(
                source[layout.index(letter)],
                result[layout.index(letter)],
                shape[kernels.index(letter)],
                int(attrs.strides[place]),
                int(attrs.padding[place]),
            )
            for place, letter in enumerate("HW")
        ]
        if any(axis.padding[0] < 0 for axis in axes):
            return None
        return cls(call, axes[0], axes[1], weights)

    @property
    def phases(self) -> int:
        return self.rows.stride * self.columns.stride

    def rebuilt(self, rewriter: Rewriter, quantize: Any, chain: list[Any]) -> Any:
        """Return the quantized result, with what lies between rebuilt around the convolution."""
        source = inner_source(source_of(quantize))
        data = rewriter.emit(self._convolution(rewriter), inner_source(source_of(self.call)))
        for step in reversed(chain):
            operands = [data, *step.args[1:]]
            if is_call(step, "relax.add"):
                bias = self._bias(rewriter, step.args[1])
                if bias is None:
                    return None
                operands[1] = bias
            made = tvm.ir.Call(step.op, operands, step.attrs, list(step.ty_args))
            data = rewriter.emit(made, inner_source(source_of(step)))
        kind = str(quantize.attrs.out_dtype)
        codes = op.quantize(data, *quantize.args[1:], axis=0, out_dtype=kind)
        return with_source(self._woven(rewriter, rewriter.emit(codes, source)), source_of(quantize))

    def _convolution(self, rewriter: Rewriter) -> Any:
        """Return the convolution of all phases."""
        order = [str(self.call.attrs.kernel_layout).index(letter) for letter in "OIHW"]
        raw = array_of(self.weights.args[0]).transpose(order)
        scale, point = (array_of(item) for item in self.weights.args[1:3])
        phases = _phase_kernels(raw, self.rows, self.columns)
        if scale.size > 1:
            scale, point = np.tile(scale, self.phases), np.tile(point, self.phases)
        weights = op.dequantize(
            relax.const(phases), relax.const(scale), relax.const(point), axis=0,
            out_dtype="float32",
        )  # fmt: skip
        (top, bottom), (left, right) = self.rows.padding, self.columns.padding
        return op.nn.conv2d(
            self.call.args[0], rewriter.emit(weights, inner_source(source_of(self.weights))),
            strides=[1, 1], padding=[top, left, bottom, right], out_dtype="float32",
        )  # fmt: skip

    def _bias(self, rewriter: Rewriter, operand: Any) -> Any:
        """Return a bias of every phase, None for another operand of an addition."""
        call = rewriter.call(operand, "relax.dequantize")
        if call is None or not is_constant(call.args[0]):
            return None
        values = array_of(call.args[0])
        channel = values.ndim - 3
        if channel < 0 or values.size != values.shape[channel]:
            return None
        tiled = np.concatenate([values] * self.phases, axis=channel)
        scale, point = (array_of(item) for item in call.args[1:3])
        if scale.size > 1:
            scale, point = np.tile(scale, self.phases), np.tile(point, self.phases)
        made = op.dequantize(
            relax.const(tiled), relax.const(scale), relax.const(point),
            axis=int(call.attrs.axis), out_dtype="float32",
        )  # fmt: skip
        return rewriter.emit(made, inner_source(source_of(call)))

    def _woven(self, rewriter: Rewriter, codes: Any) -> Any:
        """Return the phases of each pixel as a square of pixels, cut to the result's extent.

        Channels lie as (row phase, column phase, channel).
        """
        rows, columns = self.rows, self.columns
        source = inner_source(source_of(self.call))
        channels = int(codes.ty.shape.values[1]) // self.phases
        inner = columns.stride * channels
        split = (rows.stride, inner, rows.groups, columns.groups)
        woven = (1, rows.groups * rows.stride, columns.groups * columns.stride, channels)
        made = rewriter.emit(op.reshape(codes, split), source)
        made = rewriter.emit(op.permute_dims(made, [2, 0, 3, 1]), source)
        made = rewriter.emit(op.reshape(made, woven), source)
        turned = op.permute_dims(made, [0, 3, 1, 2])
        begin = [rows.cut, columns.cut]
        end = [rows.cut + rows.result, columns.cut + columns.result]
        if begin == [0, 0] and end == [woven[1], woven[2]]:
            return turned
        arguments = [convert_to_expr(items) for items in ([2, 3], begin, end, [1, 1])]
        return op.strided_slice(rewriter.emit(turned, source), *arguments)


def _phase_kernels(weights: Array, rows: _Axis, columns: _Axis) -> Array:
    """Return the kernels of all phases, `[phases * o, i, taps, taps]` of `[o, i, kh, kw]`.

    Row t of phase p is row p + (taps - 1 - t) stride of the kernel, 0 where it has none.
    """
    o, i = weights.shape[:2]
    made = np.zeros((rows.stride, columns.stride, o, i, rows.taps, columns.taps), weights.dtype)
    for p in range(rows.stride):
        for q in range(columns.stride):
            part = weights[:, :, p :: rows.stride, q :: columns.stride][:, :, ::-1, ::-1]
            top, left = rows.taps - part.shape[2], columns.taps - part.shape[3]
            made[p, q, :, :, top:, left:] = part
    return made.reshape(-1, i, rows.taps, columns.taps)
