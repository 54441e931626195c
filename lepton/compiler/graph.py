"""The NPU graph: what a region computes, in physical layout, every parameter an exact integer.

Tensors are `[n, h, w, c]`, row-major, 8-bit. The whole IR is on this page; each node names the
operator of the source model that it came from. Lowering turns a node into instructions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton.arith.records import RequantizeTable
from lepton.isa.instructions import BinaryMode, PoolMode, RequantizeMode, ResizeMode, SoftmaxMode

__all__ = [
    "Binary",
    "Bounds",
    "Concat",
    "Convolution",
    "Graph",
    "Lut",
    "Node",
    "Pad",
    "Pool",
    "Product",
    "Reduce",
    "Reshape",
    "Resize",
    "Slice",
    "Softmax",
    "Tensor",
    "Transpose",
    "Window",
]

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Tensor:
    """An activation, or a constant of the model if `constant` is given.

    Attributes:
        name: unique in its graph.
        shape: physical `[n, h, w, c]`.
        unsigned: uint8 rather than int8.
        constant: `shape` uint8, the raw bytes.
    """

    name: str
    shape: Shape4
    unsigned: bool
    scale: float
    zero_point: int
    constant: NDArray[np.uint8] | None = None

    @property
    def size_bytes(self) -> int:
        n, h, w, c = self.shape
        return n * h * w * c


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation and padding (top, left, bottom, right) of a sliding window."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class Bounds:
    """Zero point and clamp of a result."""

    zero_point: int
    minimum: int
    maximum: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """Base of all nodes."""

    name: str
    """Source operator."""
    inputs: tuple[Tensor, ...]
    output: Tensor
    macs: int = 0
    """Multiply-accumulates of the source operator, padding taps counted."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Node):
    """Convolution, depthwise convolution, fully connected layer, or product with a constant."""

    window: Window
    groups: int
    weights: NDArray[np.uint8]
    """`[kh, kw, ic / groups, oc]` raw bytes."""
    weight_unsigned: bool
    weight_zero_point: int
    table: RequantizeTable
    mode: RequantizeMode
    bounds: Bounds


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Node):
    """Matrix product of two activations: `[b, h, m, k] x [b, h, k, n]`, n x k if transposed."""

    transposed: bool
    table: RequantizeTable
    mode: RequantizeMode
    bounds: Bounds


@dataclass(frozen=True, eq=False, kw_only=True)
class Binary(Node):
    """Element-wise function of two operands; a dimension of 1 is repeated."""

    mode: BinaryMode
    parameters: NDArray[np.uint8]

    def beside(self, operand: Tensor) -> Tensor:
        """Return the other operand."""
        left, right = self.inputs
        return right if left.name == operand.name else left


@dataclass(frozen=True, eq=False, kw_only=True)
class Lut(Node):
    """Every byte through a table: `[256]`, or one per channel `[c, 256]`, indexed by raw byte."""

    tables: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Node):
    """Max, min or average pooling."""

    window: Window
    mode: PoolMode
    count_pad: bool
    parameters: NDArray[np.uint8]
    bounds: Bounds


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduce(Node):
    """Sum over all of h and w (`over` "hw") or over c, then requantize: mean and sum."""

    over: str
    table: RequantizeTable
    mode: RequantizeMode
    bounds: Bounds


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Node):
    """Softmax over the channels."""

    mode: SoftmaxMode
    parameters: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Resize(Node):
    """Resampling of h and w.

    `rows` and `columns` are, per output step, the source index (nearest) or lower and upper index
    and weight.
    """

    mode: ResizeMode
    rows: tuple[NDArray[np.int32] | NDArray[np.float32], ...]
    columns: tuple[NDArray[np.int32] | NDArray[np.float32], ...]
    header: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Node):
    """The same bytes under another shape."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Transpose(Node):
    """Output dimension i is input dimension `order[i]`."""

    order: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """Inputs one behind the other along `axis`; `tables[i]` rescales input i if not None."""

    axis: int
    tables: tuple[NDArray[np.uint8] | None, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Node):
    """`begin` and `step` per dimension; the output's shape says how many."""

    begin: Shape4
    step: Shape4


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Node):
    """Bytes of `value` around the input; `before` per dimension."""

    before: Shape4
    value: int


@dataclass(frozen=True)
class Graph:
    """The nodes of a region in topological order."""

    nodes: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    names: dict[str, str] = field(default_factory=dict[str, str])
    """Tensor name -> tensor of the source model, where it is one."""
