"""From the matched operations of a region to the NPU graph: layouts, exact parameters, nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.compiler import graph as ir
from lepton.compiler.golden import BinaryForm, Golden, limits, tensor_scale, tensor_zero_point
from lepton.compiler.layout import (
    IDENTITY,
    NCHW,
    Builder,
    Layout,
    Placed,
    four,
    physical,
    regrouped,
)
from lepton.compiler.operation import Operation, Value
from lepton.isa.instructions import BinaryMode, PoolMode

__all__ = ["RegionBuilder"]

Axes = tuple[int, ...]


class RegionBuilder:
    """Builds the graph of one region, operation by operation."""

    def __init__(self, golden: Golden, prefix: str) -> None:
        self._golden = golden
        self._builder = Builder(prefix)
        self._placed: dict[Any, Placed] = {}
        self._inputs: list[ir.Tensor] = []

    # --- edges ---------------------------------------------------------------------------------

    def bind_input(self, variable: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Make a parameter of the region known; it lies row-major in its memory."""
        tensor = ir.Tensor(name, four(shape), dtype == "uint8", 0.0, 0)
        self._inputs.append(tensor)
        self._placed[variable] = Placed(tensor, four(shape), IDENTITY)

    def alias(self, variable: Any, source: Any) -> None:
        """Make a variable another name of a value."""
        self._placed[variable] = self._placed[source]

    def finish(self, results: list[Any], names: list[str]) -> ir.Graph:
        """Return the graph whose outputs are `results`, row-major, called `names`."""
        outputs: list[ir.Tensor] = []
        for variable, name in zip(results, names, strict=True):
            placed = self._placed[variable]
            tensor = self._builder.require(placed, IDENTITY, name)
            outputs.append(self._rename(tensor, name, outputs))
        return ir.Graph(
            tuple(self._builder.nodes), tuple(self._inputs), tuple(outputs), self._builder.names
        )

    def _rename(self, tensor: ir.Tensor, name: str, taken: list[ir.Tensor]) -> ir.Tensor:
        """Give a result its name; what has one already, or is no node's result, is copied."""
        nodes = self._builder.nodes
        made = any(node.output.name == tensor.name for node in nodes)
        if not made or any(other.name == tensor.name for other in taken):
            output = replace(tensor, name=name, constant=None)
            nodes.append(ir.Reshape(name=name, inputs=(tensor,), output=output))
            return output
        renamed = replace(tensor, name=name)
        for index, node in enumerate(nodes):
            inputs = tuple(
                replace(item, name=name) if item.name == tensor.name else item
                for item in node.inputs
            )
            output = renamed if node.output.name == tensor.name else node.output
            nodes[index] = replace(node, inputs=inputs, output=output)
        for variable, placed in list(self._placed.items()):
            if placed.tensor.name == tensor.name:
                self._placed[variable] = replace(placed, tensor=renamed)
        if tensor.name in self._builder.names:
            self._builder.names[name] = self._builder.names.pop(tensor.name)
        return renamed

    # --- operands ------------------------------------------------------------------------------

    def add(self, variable: Any, operation: Operation) -> None:
        """Add the nodes of one operation, whose result is `variable`."""
        begin = len(self._builder.nodes)
        placed = _BUILDERS[operation.op](self, operation)
        self._placed[variable] = placed
        nodes = self._builder.nodes
        for index in range(begin, len(nodes)):
            if not nodes[index].name:
                nodes[index] = replace(nodes[index], name=operation.name)
        if operation.tensor:
            self._builder.names[placed.tensor.name] = operation.tensor

    def _operand(self, value: Value) -> Placed:
        """Return an operand with the quantization that its reader gives it."""
        if value.constant is not None:
            raw = np.ascontiguousarray(value.constant).view(np.uint8).reshape(four(value.shape))
            tensor = ir.Tensor(
                self._builder.fresh(), four(value.shape), value.dtype == "uint8", 0.0, 0, raw
            )
            placed = Placed(tensor, four(value.shape), IDENTITY)
        else:
            placed = self._placed[value.variable]
        if value.quantization is None:
            return placed
        tensor = replace(
            placed.tensor,
            scale=float(tensor_scale(value)),
            zero_point=tensor_zero_point(value),
            unsigned=value.dtype == "uint8",
        )
        return replace(placed, tensor=tensor)

    def _result(self, operation: Operation, layout: Layout) -> Placed:
        """Return a new tensor for an operation's result."""
        value = operation.output
        logical = four(value.shape)
        known = value.quantization is not None
        tensor = ir.Tensor(
            self._builder.fresh(),
            physical(logical, layout),
            value.dtype == "uint8",
            float(tensor_scale(value)) if known else 0.0,
            tensor_zero_point(value) if known else 0,
        )
        return Placed(tensor, logical, layout)

    def _append(self, node: ir.Node) -> None:
        self._builder.nodes.append(node)

    # --- products ------------------------------------------------------------------------------

    def convolution(self, operation: Operation) -> Placed:
        """Build a convolution of any kind."""
        attrs = operation.call.attrs
        layout = NCHW if str(attrs.data_layout) == "NCHW" else IDENTITY
        source = self._operand(operation.inputs[0])
        ifm = self._builder.require(source, layout, operation.name)
        groups = int(attrs.groups)
        weights, scale, zero_point = _weights(operation.inputs[1], str(attrs.kernel_layout), groups)
        top, left, bottom, right = operation.integers("padding")
        window = ir.Window(
            (weights.shape[0], weights.shape[1]),
            _pair(operation.integers("strides")),
            _pair(operation.integers("dilation")),
            (top, left, bottom, right),
        )
        result = self._result(operation, layout)
        oc = result.tensor.shape[3]
        form = self._golden.weighted(operation, scale, _bias(operation, oc))
        kh, kw, ic, _ = weights.shape
        self._append(
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

    def product(self, operation: Operation) -> Placed:
        """Build a matrix product: with a constant as a 1 x 1 convolution, else as it is."""
        if operation.inputs[1].constant is None:
            return self._product_of_activations(operation)
        left, right = operation.inputs
        constant = right.constant
        assert constant is not None and right.quantization is not None
        k, n = constant.shape[-2:]
        rows = math.prod(left.shape) // k
        source = self._builder.require(self._operand(left), IDENTITY, operation.name)
        ifm = self._builder.reshape(source, (1, 1, rows, k), operation.name)
        result = self._result(operation, IDENTITY)
        flat = self._builder.like(result.tensor, (1, 1, rows, n))
        form = self._golden.weighted(
            operation, np.broadcast_to(right.quantization.scale, n), _bias(operation, n)
        )
        self._append(
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
        shaped = self._builder.reshape(flat, result.tensor.shape, operation.name)
        return Placed(shaped, result.logical, IDENTITY)

    def _product_of_activations(self, operation: Operation) -> Placed:
        """Build a product of two activations; a transposed right operand is read as it lies."""
        left_value, right_value = operation.inputs
        left = self._builder.require(self._operand(left_value), IDENTITY, operation.name)
        placed = self._operand(right_value)
        transposed = placed.layout == (0, 1, 3, 2)
        layout: Layout = (0, 1, 3, 2) if transposed else IDENTITY
        right = self._builder.require(placed, layout, operation.name)
        result = self._result(operation, IDENTITY)
        n = result.tensor.shape[3]
        assert right_value.quantization is not None
        scale = np.broadcast_to(right_value.quantization.scale, n)
        form = self._golden.weighted(operation, scale, _bias(operation, n))
        self._append(
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

    # --- element-wise --------------------------------------------------------------------------

    def binary(self, operation: Operation) -> Placed:
        """Build a function of two operands in the layout of the larger one."""
        form = (
            self._golden.binary(operation)
            if operation.output.quantization is not None
            else _raw_extreme(operation)
        )
        placed = [self._operand(value) for value in operation.inputs]
        leader = max(placed, key=lambda item: (math.prod(item.logical), item.layout == NCHW))
        tensors = [self._builder.require(item, leader.layout, operation.name) for item in placed]
        if form.exchanged:
            tensors.reverse()
        result = self._result(operation, leader.layout)
        self._append(
            ir.Binary(
                name="",
                inputs=(tensors[0], tensors[1]),
                output=result.tensor,
                mode=form.mode,
                parameters=form.parameters,
            )
        )
        return result

    def table(self, operation: Operation) -> Placed:
        """Build a look-up: `take(table, astype(x) + offsets)`, a table per channel or one."""
        content, source, offsets = operation.inputs
        assert content.constant is not None and offsets.constant is not None
        placed = self._operand(source)
        low = limits(source.dtype)[0]
        raw = np.ascontiguousarray(content.constant).view(np.uint8).reshape(-1, 256)
        tables = np.ascontiguousarray(np.roll(raw, low, axis=1))
        if len(tables) == 1:
            tables = tables[0]
        else:
            spread = four(offsets.constant.shape)
            layout = _with_last(placed.layout, spread.index(max(spread)))
            tensor = self._builder.require(placed, layout, operation.name)
            placed = Placed(tensor, placed.logical, layout)
        result = self._result(operation, placed.layout)
        self._append(ir.Lut(name="", inputs=(placed.tensor,), output=result.tensor, tables=tables))
        return result

    def requantize(self, operation: Operation) -> Placed:
        """Build a change of scale as a look-up."""
        table = self._golden.requantize(operation.inputs[0], operation.output)
        low, high = limits(operation.output.dtype)
        if operation.activation.low is not None or operation.activation.high is not None:
            kind = np.uint8 if operation.output.dtype == "uint8" else np.int8
            low = operation.activation.low if operation.activation.low is not None else low
            high = operation.activation.high if operation.activation.high is not None else high
            table = np.clip(table.view(kind), low, high).astype(kind).view(np.uint8)
        placed = self._operand(operation.inputs[0])
        result = self._result(operation, placed.layout)
        self._append(ir.Lut(name="", inputs=(placed.tensor,), output=result.tensor, tables=table))
        return result

    # --- windows -------------------------------------------------------------------------------

    def pool(self, operation: Operation) -> Placed:
        """Build max or average pooling; an average over a whole image is a mean."""
        attrs = operation.call.attrs
        layout = NCHW if str(attrs.layout) == "NCHW" else IDENTITY
        ifm = self._builder.require(self._operand(operation.inputs[0]), layout, operation.name)
        pads = operation.integers("padding")
        kernel = _pair(operation.integers("pool_size"))
        window = ir.Window(
            kernel,
            _pair(operation.integers("strides")),
            _pair(operation.integers("dilation")),
            (pads[0], pads[1], pads[2], pads[3]),
        )
        result = self._result(operation, layout)
        parameters = np.zeros(0, np.uint8)
        if operation.op == "nn.max_pool2d":
            low, high = limits(operation.output.dtype)
            mode, bounds = PoolMode.MAXIMUM, _clipped(operation, ir.Bounds(0, low, high))
        else:
            if self._golden.mean_is_whole_image(operation, kernel, ifm.shape[1:3], pads):
                return self._sum(operation, ifm, result, "hw")
            mode, parameters, bounds = self._golden.average_pool(operation)
        self._append(
            ir.Pool(
                name="",
                inputs=(ifm,),
                output=result.tensor,
                window=window,
                mode=mode,
                count_pad=bool(getattr(attrs, "count_include_pad", False)),
                parameters=parameters,
                bounds=bounds,
            )
        )
        return result

    def softmax(self, operation: Operation) -> Placed:
        """Build a softmax; its axis comes last."""
        placed = self._operand(operation.inputs[0])
        rank = len(operation.output.shape)
        axis = 4 - rank + int(operation.call.attrs.axis) % rank
        layout = _with_last(placed.layout, axis)
        ifm = self._builder.require(placed, layout, operation.name)
        result = self._result(operation, layout)
        mode, parameters = self._golden.softmax(operation)
        self._append(
            ir.Softmax(
                name="", inputs=(ifm,), output=result.tensor, mode=mode, parameters=parameters
            )
        )
        return result

    def resize(self, operation: Operation) -> Placed:
        """Build a resampling of height and width."""
        layout = NCHW if str(operation.call.attrs.layout) == "NCHW" else IDENTITY
        ifm = self._builder.require(self._operand(operation.inputs[0]), layout, operation.name)
        result = self._result(operation, layout)
        sizes = (
            (ifm.shape[1], result.tensor.shape[1]),
            (ifm.shape[2], result.tensor.shape[2]),
        )
        mode, rows, columns, header = self._golden.resize(operation, sizes)
        self._append(
            ir.Resize(
                name="", inputs=(ifm,), output=result.tensor, mode=mode, rows=rows,
                columns=columns, header=header,
            )
        )  # fmt: skip
        return result

    # --- reductions ----------------------------------------------------------------------------

    def reduce(self, operation: Operation) -> Placed:
        """Build a mean, sum, maximum or minimum over any axes."""
        placed = self._operand(operation.inputs[0])
        rank = len(operation.inputs[0].shape)
        axes = _reduced_axes(operation, rank)
        is_extreme = operation.op in ("max", "min")
        kept = [axis for axis in range(4) if axis not in axes]
        at = {placed.axis(axis) for axis in axes if placed.logical[axis] > 1}
        if at <= {1, 2} and _keeps_order(placed, axes):
            ifm = placed.tensor
            shape = (ifm.shape[0], 1, 1, ifm.shape[3])
            over = "hw"
        else:
            layout = (*kept, *axes)
            moved = self._builder.require(placed, _layout(layout), operation.name)
            outer = math.prod(placed.logical[axis] for axis in kept)
            inner = math.prod(placed.logical[axis] for axis in axes)
            ifm, shape, over = self._flattened(operation, moved, (outer, inner), is_extreme)
        result = self._result(operation, IDENTITY)
        if is_extreme:
            reduced = self._extreme(operation, ifm, shape)
        else:
            reduced = self._builder.like(result.tensor, shape)
            self._sum(operation, ifm, Placed(reduced, shape, IDENTITY), over)
        shaped = self._builder.reshape(reduced, result.tensor.shape, operation.name)
        return Placed(shaped, result.logical, IDENTITY)

    def _flattened(
        self, operation: Operation, moved: ir.Tensor, extents: tuple[int, int], is_extreme: bool
    ) -> tuple[ir.Tensor, tuple[int, int, int, int], str]:
        """Return a row-major [outer, inner] operand so shaped that its inner part is reduced."""
        outer, inner = extents
        if not is_extreme:
            flat = self._builder.reshape(moved, (1, 1, outer, inner), operation.name)
            return flat, (1, 1, outer, 1), "c"
        # a maximum runs over pixels: [1, inner, 1, outer], columns become channels
        flat = self._builder.reshape(moved, (1, 1, outer, inner), operation.name)
        turned = self._builder.like(flat, (1, 1, inner, outer))
        self._append(ir.Transpose(name="", inputs=(flat,), output=turned, order=(0, 1, 3, 2)))
        return turned, (1, 1, 1, outer), "hw"

    def _sum(self, operation: Operation, ifm: ir.Tensor, result: Placed, over: str) -> Placed:
        """Append a mean or sum over all pixels or all channels of `ifm`."""
        count = ifm.shape[1] * ifm.shape[2] if over == "hw" else ifm.shape[3]
        form = self._golden.reduce(operation, count)
        channels = result.tensor.shape[3]
        table = form.table._replace(
            bias=np.repeat(form.table.bias, channels),
            multiplier=np.repeat(form.table.multiplier, channels),
            shift=np.repeat(form.table.shift, channels),
        )
        self._append(
            ir.Reduce(
                name="", inputs=(ifm,), output=result.tensor, over=over, table=table,
                mode=form.mode, bounds=form.bounds,
            )
        )  # fmt: skip
        return result

    def _extreme(self, operation: Operation, ifm: ir.Tensor, shape: ir.Shape4) -> ir.Tensor:
        """Append maxima or minima over all pixels, in poolings of at most 255 values.

        The last window may hang over the edge, as padding is never chosen. They are chosen among
        the input's codes; a table brings those to the result's scale.
        """
        _, h, w, _ = ifm.shape
        mode = PoolMode.MAXIMUM if operation.op == "max" else PoolMode.MINIMUM
        bounds = ir.Bounds(0, *limits(operation.inputs[0].dtype))
        while (h, w) != (1, 1):
            kernel = (min(h, 255), min(w, max(255 // h, 1)))
            over = (-h % kernel[0], -w % kernel[1])
            h, w = (h + over[0]) // kernel[0], (w + over[1]) // kernel[1]
            target = self._builder.like(ifm, (ifm.shape[0], h, w, ifm.shape[3]))
            self._append(
                ir.Pool(
                    name="", inputs=(ifm,), output=target,
                    window=ir.Window(kernel, kernel, (1, 1), (0, 0, *over)), mode=mode,
                    count_pad=False, parameters=np.zeros(0, np.uint8), bounds=bounds,
                )
            )  # fmt: skip
            ifm = target
        chosen = self._builder.reshape(ifm, shape, operation.name)
        source, target = operation.inputs[0], operation.output
        if source.quantization is None or target.quantization is None:
            return chosen
        table = self._golden.requantize(source, target)
        if source.dtype == target.dtype and np.array_equal(table, np.arange(256)):
            return chosen
        result = self._builder.like(chosen, shape)
        result = replace(
            result, unsigned=target.dtype == "uint8", scale=float(tensor_scale(target)),
            zero_point=tensor_zero_point(target),
        )  # fmt: skip
        self._append(ir.Lut(name="", inputs=(chosen,), output=result, tables=table))
        return result

    # --- movement ------------------------------------------------------------------------------

    def reshape(self, operation: Operation) -> Placed:
        """Build a reshape, of groups of dimensions where they lie or else of row-major bytes."""
        placed = self._operand(operation.inputs[0])
        before, after = regrouped(placed, four(operation.output.shape)) or (IDENTITY, IDENTITY)
        source = self._builder.require(placed, before, operation.name)
        result = self._result(operation, after)
        output = replace(result.tensor, unsigned=source.unsigned)
        self._append(ir.Reshape(name="", inputs=(source,), output=output))
        return replace(result, tensor=output)

    def transpose(self, operation: Operation) -> Placed:
        """Rename the dimensions; no byte moves."""
        placed = self._operand(operation.inputs[0])
        rank = len(operation.output.shape)
        axes = operation.call.attrs.axes
        order = [int(axis) for axis in axes] if axes is not None else list(range(rank))[::-1]
        full = [*range(4 - rank), *(4 - rank + axis for axis in order)]
        layout = _layout(tuple(full.index(axis) for axis in placed.layout))
        return Placed(placed.tensor, four(operation.output.shape), layout)

    def concat(self, operation: Operation) -> Placed:
        """Build a concatenation in the layout of its first operand."""
        placed = [self._operand(value) for value in operation.inputs]
        layout = placed[0].layout
        tensors = tuple(self._builder.require(item, layout, operation.name) for item in placed)
        rank = len(operation.output.shape)
        axis = 4 - rank + int(operation.call.attrs.axis) % rank
        result = self._result(operation, layout)
        tables: list[NDArray[np.uint8] | None] = [None] * len(tensors)
        if operation.output.quantization is not None:
            identity = np.arange(256, dtype=np.uint8)
            for index, value in enumerate(operation.inputs):
                table = self._golden.concat(value, operation.output)
                tables[index] = None if np.array_equal(table, identity) else table
        self._append(
            ir.Concat(
                name="", inputs=tensors, output=result.tensor, axis=layout.index(axis),
                tables=tuple(tables),
            )
        )  # fmt: skip
        return result

    def slice(self, operation: Operation) -> Placed:
        """Build a strided slice."""
        placed = self._operand(operation.inputs[0])
        begin, step = [0] * 4, [1] * 4
        rank = len(operation.output.shape)
        arguments = [
            [int(item.value) for item in argument.fields] for argument in operation.call.args[1:]
        ]
        for position, axis in enumerate(arguments[0]):
            extent = operation.inputs[0].shape[axis % rank]
            start = arguments[1][position]
            full = 4 - rank + axis % rank
            begin[full] = min(max(start + extent if start < 0 else start, 0), extent)
            if len(arguments) > 3:
                step[full] = arguments[3][position]
        result = self._result(operation, placed.layout)
        self._append(
            ir.Slice(
                name="",
                inputs=(placed.tensor,),
                output=replace(result.tensor, unsigned=placed.tensor.unsigned),
                begin=physical(four(begin), placed.layout),
                step=physical(four(step), placed.layout),
            )
        )
        return replace(result, tensor=self._builder.nodes[-1].output)

    def pad(self, operation: Operation) -> Placed:
        """Build a padding with a constant."""
        placed = self._operand(operation.inputs[0])
        widths = operation.integers("pad_width")
        rank = len(operation.output.shape)
        before = four([0] * (4 - rank) + [widths[2 * axis] for axis in range(rank)])
        result = self._result(operation, placed.layout)
        self._append(
            ir.Pad(
                name="",
                inputs=(placed.tensor,),
                output=result.tensor,
                before=physical(before, placed.layout),
                value=int(operation.call.attrs.pad_value),
            )
        )
        return result


_BUILDERS: dict[str, Callable[[RegionBuilder, Operation], Placed]] = {
    "nn.conv2d": RegionBuilder.convolution,
    "matmul": RegionBuilder.product,
    "add": RegionBuilder.binary,
    "subtract": RegionBuilder.binary,
    "multiply": RegionBuilder.binary,
    "divide": RegionBuilder.binary,
    "squared_difference": RegionBuilder.binary,
    "maximum": RegionBuilder.binary,
    "minimum": RegionBuilder.binary,
    "take": RegionBuilder.table,
    "requantize": RegionBuilder.requantize,
    "nn.max_pool2d": RegionBuilder.pool,
    "nn.avg_pool2d": RegionBuilder.pool,
    "nn.softmax": RegionBuilder.softmax,
    "image.resize2d": RegionBuilder.resize,
    "mean": RegionBuilder.reduce,
    "sum": RegionBuilder.reduce,
    "max": RegionBuilder.reduce,
    "min": RegionBuilder.reduce,
    "reshape": RegionBuilder.reshape,
    "permute_dims": RegionBuilder.transpose,
    "concat": RegionBuilder.concat,
    "strided_slice": RegionBuilder.slice,
    "nn.pad": RegionBuilder.pad,
}


def _pair(values: Axes) -> tuple[int, int]:
    return values[0], values[-1]


def _layout(axes: tuple[int, ...]) -> Layout:
    return axes[0], axes[1], axes[2], axes[3]


def _with_last(layout: Layout, axis: int) -> Layout:
    """Return a layout with a logical axis last; the given one if it has it there."""
    if layout[3] == axis:
        return layout
    return _layout((*(item for item in layout if item != axis), axis))


def _keeps_order(placed: Placed, axes: Axes) -> bool:
    """Return whether the dimensions left after a reduction lie in logical order."""
    kept = [a for a in placed.layout if a not in axes and placed.logical[a] > 1]
    ends = {placed.layout[0], placed.layout[3]}
    return kept == sorted(kept) and all(axis in ends for axis in kept)


def _reduced_axes(operation: Operation, rank: int) -> Axes:
    """Return the reduced logical axes in 4 dimensions."""
    axes = operation.call.attrs.axis
    if axes is None:
        return tuple(range(4 - rank, 4))
    return tuple(sorted(4 - rank + int(axis) % rank for axis in axes))


def _bias(operation: Operation, channels: int) -> NDArray[np.int32]:
    """Return the bias of every output channel."""
    if operation.bias is None or operation.bias.constant is None:
        return np.zeros(channels, np.int32)
    flat = operation.bias.constant.reshape(-1).astype(np.int32)
    return np.ascontiguousarray(np.broadcast_to(flat, channels))


def _clipped(operation: Operation, bounds: ir.Bounds) -> ir.Bounds:
    """Return bounds narrowed by the clip behind an operation."""
    low, high = operation.activation.low, operation.activation.high
    return ir.Bounds(
        bounds.zero_point,
        bounds.minimum if low is None else max(low, bounds.minimum),
        bounds.maximum if high is None else min(high, bounds.maximum),
    )


def _raw_extreme(operation: Operation) -> BinaryForm:
    """Return the maximum or minimum of raw values."""
    mode = BinaryMode.MAXIMUM if operation.op == "maximum" else BinaryMode.MINIMUM
    return BinaryForm(mode, np.zeros(0, np.uint8))


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
