"""One step of a random ONNX graph while it is being built: its nodes, constants and results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith.onnx_float import quantization
from tests.onnx_builder import Quantized

Array = NDArray[Any]
Shape = tuple[int, ...]
Formula = Callable[[Sequence[Array]], Array]
MICROSOFT = "com.microsoft"
TYPES = ("int8", "uint8")


class Value(NamedTuple):
    """A quantized tensor of the graph."""

    name: str
    shape: Shape
    tensor: Quantized

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def real(self) -> float:
        """Return about the deviation of its real values."""
        return 74.0 * float(self.tensor.params.scale)


def prod(shape: Sequence[int]) -> int:
    """Return the number of elements."""
    return int(np.prod(shape, dtype=np.int64))


class Piece:
    """What one step adds to the graph.

    Attributes:
        formula: the written integer formula, where ONNX Runtime leaves the step in float although
            its kernel for it is an integer one; maps the inputs' codes to the result's.
        tolerant: whether elements may differ by 1: its float order of operations is not matched.
        has_bias_scale: whether it is a convolution whose bias has a scale of its own, which is
            rounded to another one if the input's scale is merged.
        on_host: a text of the rule that sends the step to the host, "" if it runs on the NPU.
    """

    def __init__(self, kind: str, prefix: str, seed: int, is_qoperator: bool) -> None:
        self.kind = kind
        self.rng = np.random.default_rng(seed)
        self.is_qoperator = is_qoperator
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.formula: Formula | None = None
        self.tolerant = False
        self.has_bias_scale = False
        self.on_host = ""
        self._prefix = prefix
        self._count = 0

    # --- draws ---------------------------------------------------------------------------------

    def integer(self, low: int, high: int) -> int:
        """Return a whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def often(self, probability: float) -> bool:
        """Return True that often."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[Any]) -> Any:
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def target(self, real: float, like: str, own_type: float = 0.0) -> Quantized:
        """Return the quantization of a result whose real values deviate by about `real`.

        Args:
            like: the type of the inputs.
            own_type: how often the result has another type.
        """
        dtype = TYPES[1 - TYPES.index(like)] if self.often(own_type) else like
        scale = max(real, 1e-20) / 74.0 * 2.0 ** self.rng.uniform(-1.0, 1.0)
        if self.often(0.5):
            scale = float(f"{scale:.0e}")
        limits = np.iinfo(dtype)
        middle = (limits.min + limits.max + 1) // 2
        random = self.integer(limits.min, limits.max)
        point = self.pick([limits.min, limits.max, middle, middle, random, random])
        return Quantized(dtype, quantization(scale, int(point), dtype))

    # --- nodes ---------------------------------------------------------------------------------

    def name(self) -> str:
        """Return a fresh name."""
        self._count += 1
        return f"{self._prefix}_{self._count}"

    def read(self, value: Value) -> str:
        """Note a value as an input and return its name."""
        if all(value.name != known.name for known in self.inputs):
            self.inputs.append(value)
        return value.name

    def constant(self, array: Any) -> str:
        """Add an initializer."""
        from onnx import numpy_helper

        name = self.name()
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], domain: str = "", /, **attributes: Any) -> str:
        """Add a node of one output."""
        return self.nodes_of(op, inputs, 1, domain, **attributes)[0]

    def nodes_of(
        self, op: str, inputs: Sequence[str], count: int, domain: str = "", /, **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs."""
        from onnx import helper

        names = [self.name() for _ in range(count)]
        made = helper.make_node(
            op, list(inputs), names, name=f"{op}_{names[0]}", domain=domain, **attributes
        )
        self.nodes.append(made)
        return names

    def params(self, tensor: Quantized) -> list[str]:
        """Add scale and zero point as initializers."""
        return [self.constant(tensor.scale), self.constant(tensor.zero_point)]

    def triple(self, value: Value) -> list[str]:
        """Return value, scale and zero point: an operand of a QOperator node."""
        return [self.read(value), *self.params(value.tensor)]

    def dequantize(self, value: Value) -> str:
        """Add a DequantizeLinear of a value."""
        return self.node("DequantizeLinear", self.triple(value))

    def constant_triple(self, raw: Array, tensor: Quantized) -> list[str]:
        """Add a quantized constant: its codes, scale and zero point."""
        return [self.constant(raw), *self.params(tensor)]

    def give(self, name: str, shape: Sequence[int], tensor: Quantized) -> bool:
        """Make a node's result a value of the graph."""
        self.outputs.append(Value(name, tuple(int(extent) for extent in shape), tensor))
        return True

    def quantize(self, real: str, shape: Sequence[int], tensor: Quantized) -> bool:
        """Add a QuantizeLinear and make it a value of the graph."""
        name = self.node("QuantizeLinear", [real, *self.params(tensor)])
        return self.give(name, shape, tensor)


class Finish(NamedTuple):
    """How integer sums become codes: the last lines of the written formula."""

    scale: Array
    tensor: Quantized
    low: float
    high: float

    def __call__(self, sums: Array) -> Array:
        """Return the codes of int32 sums whose last axis is the channel."""
        params = self.tensor.params
        low, high = params.lo, params.hi
        bounds = (self.low, self.high)
        codes = [_code(bound, self.tensor) for bound in bounds]
        low, high = max(low, codes[0]), min(high, codes[1])
        scaled = sums.astype(np.float32) * self.scale
        result = np.rint(scaled).astype(np.float64) + params.zero_point
        return np.clip(result, low, high).astype(self.tensor.dtype)


def _code(real: float, tensor: Quantized) -> int:
    """Return a real bound as a code."""
    params = tensor.params
    with np.errstate(over="ignore"):
        code = np.rint(np.float32(real) / params.scale) + params.zero_point
    return int(np.clip(code, params.lo, params.hi))


def centred(codes: Array, tensor: Quantized) -> Array:
    """Return codes less their zero point, int64."""
    return codes.astype(np.int64) - tensor.params.zero_point


class Window(NamedTuple):
    """Kernel, stride, dilation and padding (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]

    def out(self, extent: int, axis: int) -> int:
        """Return the output extent."""
        reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        padded = extent + self.padding[axis] + self.padding[axis + 2]
        return (padded - reach) // self.stride[axis] + 1

    def attributes(self) -> dict[str, list[int]]:
        """Return the attributes of an ONNX node."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "pads": list(self.padding),
        }


def convolve(x: Array, weights: Array, window: Window, groups: int) -> Array:
    """Return the sums `[n, oh, ow, oc]` of centred `x [n, c, h, w]` and `weights [o, c/g, kh, kw]`.

    Sums of at most 2**24 products of 8 bits each are exact in float64.
    """
    top, left, bottom, right = window.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(np.float64)
    oh, ow = window.out(x.shape[2], 0), window.out(x.shape[3], 1)
    oc, depth = weights.shape[:2]
    sums = np.zeros((x.shape[0], oh, ow, oc))
    per_group = oc // groups
    for ky, kx in np.ndindex(*window.kernel):
        y0, x0 = ky * window.dilation[0], kx * window.dilation[1]
        rows = slice(y0, y0 + (oh - 1) * window.stride[0] + 1, window.stride[0])
        columns = slice(x0, x0 + (ow - 1) * window.stride[1] + 1, window.stride[1])
        taps = padded[:, :, rows, columns]
        for group in range(groups):
            out = slice(group * per_group, (group + 1) * per_group)
            part = taps[:, group * depth : (group + 1) * depth]
            tap = weights[out, :, ky, kx].astype(np.float64)
            sums[..., out] += np.einsum("nchw,oc->nhwo", part, tap, optimize=True)
    return sums
