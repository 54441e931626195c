"""Convolutions as two: one of every channel by itself, then one of all channels at each place.

A kernel `[o, c, h, w]` takes o c h w weights, its factors of rank r only r c (h w + o).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.onnx_module.reading import node_name, stored_array

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["Factors", "factors_of", "lost_part", "with_factors"]

_SWEEPS = 20
_DAMPING = 1e-6
"""Of a matrix's mean diagonal, added to the diagonal of what is solved for."""

Floats = NDArray[np.float64]


class Factors(NamedTuple):
    """Two convolutions, one after the other, in place of one.

    Attributes:
        depthwise: `[c r, 1, h, w]`, r filters of each input channel, one channel after the other.
        pointwise: `[o, c r, 1, 1]`.
    """

    depthwise: Floats
    pointwise: Floats

    @property
    def weights(self) -> int:
        """Their number."""
        return self.depthwise.size + self.pointwise.size

    def kernels(self, channels: int) -> Floats:
        """Return the kernels `[o, c, h, w]` of the convolution that both are, of c channels."""
        rows, columns = _by_channel(self, channels)
        made = np.einsum("ocr,crk->ock", columns, rows)
        return made.reshape(*made.shape[:2], *self.depthwise.shape[2:])


def factors_of(kernels: NDArray[Any], rank: int, products: NDArray[Any] | None = None) -> Factors:
    """Return the factors of a convolution of one group whose outputs are nearest to its own.

    Every channel's `[o, h w]` is a matrix of its own, W_c ~ P_c D_c, and a singular value
    decomposition cut off at the rank is the nearest in the sum of squares: what is lost is the sum
    of the squares of the singular values left out. With the products H = E x x^T of the inputs,
    the sweeps that follow lower tr((W - P D) H (W - P D)^T), the error of the outputs: P and D
    in turn are the least squares answer to the other, D being zero outside of its channels' blocks.
    Each filter and its column get the same norm.

    Source: Denton et al., Exploiting Linear Structure Within Convolutional Networks, NIPS 2014,
    section 3 (kernels by singular value decomposition); Guo et al., Network Decoupling, BMVC 2018,
    section 3 (into depthwise and pointwise convolutions); Zhang et al., Accelerating Very Deep
    Convolutional Networks for Classification and Detection, 2015, section 3 (the outputs' error).

    Args:
        kernels: `[o, c, h, w]`.
        rank: filters of each channel, at most the lesser of o and h w.
        products: `[c h w, c h w]` of what each row of the kernels is multiplied with, or None.

    Raises:
        InputError: there is no such rank.
    """
    outputs, channels, height, width = kernels.shape
    most = min(outputs, height * width)
    if not 1 <= rank <= most:
        raise InputError(f"kernels {list(kernels.shape)} have ranks 1 to {most}, not {rank}")
    rows = kernels.astype(np.float64).reshape(outputs, channels, -1)
    left, values, right = np.linalg.svd(rows.transpose(1, 0, 2), full_matrices=False)
    down = right[:, :rank]
    up = (left[:, :, :rank] * values[:, None, :rank]).transpose(1, 0, 2)
    if products is not None and rank < most:
        up, down = _swept(rows, (up, down), products.astype(np.float64))
    up, down = _balanced(up, down)
    return Factors(
        down.reshape(channels * rank, 1, height, width), up.reshape(outputs, channels * rank, 1, 1)
    )


def lost_part(kernels: NDArray[Any], factors: Factors, products: NDArray[Any]) -> float:
    """Return tr(E H E^T) / tr(W H W^T), E = W - P D: the error's part of the outputs' power."""
    whole = kernels.astype(np.float64)
    error = (whole - factors.kernels(kernels.shape[1])).reshape(len(whole), -1)
    rows = whole.reshape(len(whole), -1)
    return float(np.sum(error @ products * error) / np.sum(rows @ products * rows))


def with_factors(model: onnx.ModelProto, factors: Mapping[str, Factors]) -> onnx.ModelProto:
    """Return a float graph whose convolutions of some weights are two each.

    The first takes strides, dilations and padding, the second takes the bias.

    Args:
        model: float ONNX.
        factors: by the name of the weights.

    Raises:
        InputError: no convolution reads weights of that name and nothing else does.
    """
    made = type(model)()
    made.CopyFrom(model)
    graph, left = made.graph, dict(factors)
    kernel_readers(model, left)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        chosen = left.pop(node.input[1]) if len(node.input) > 1 and node.input[1] in left else None
        graph.node.extend([node] if chosen is None else _pair(graph, node, chosen))
    return made


def kernel_readers(model: onnx.ModelProto, names: Mapping[str, object]) -> None:
    """Refuse names that are not the weights of one convolution of one group with two dimensions.

    Raises:
        InputError: as said.
    """
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    for name in names:
        readers = [node for node in model.graph.node if name in node.input]
        groups = [item.i for node in readers for item in node.attribute if item.name == "group"]
        is_plain = [node.op_type for node in readers] == ["Conv"] and not any(
            group != 1 for group in groups
        )
        if not is_plain or readers[0].input[1] != name or len(shapes.get(name, ())) != 4:
            raise InputError(
                f"'{name}' is not the weight [o, c, h, w] of one convolution of one group: "
                "only those are factorized"
            )


def _pair(graph: Any, node: Any, factors: Factors) -> list[Any]:
    """Return the two convolutions in place of a node, their constants in the graph."""
    from onnx import helper, numpy_helper

    name, weights = node_name(node), node.input[1]
    kept = next(item for item in graph.initializer if item.name == weights)
    kind = stored_array(kept, weights).dtype
    graph.initializer.remove(kept)
    for item in [item for item in graph.input if item.name == weights]:
        graph.input.remove(item)
    inner, parts = f"{weights}.inner", (f"{weights}.depthwise", f"{weights}.pointwise")
    for part, array in zip(parts, factors, strict=True):
        graph.initializer.append(numpy_helper.from_array(array.astype(kind), part))
    first = helper.make_node("Conv", [node.input[0], parts[0]], [inner], f"{name}.depthwise")
    channels = kept.dims[1]
    first.attribute.extend(item for item in node.attribute if item.name != "group")
    first.attribute.append(helper.make_attribute("group", channels))
    second = helper.make_node(
        "Conv", [inner, parts[1], *node.input[2:]], list(node.output), name, kernel_shape=[1, 1]
    )
    return [first, second]


def _by_channel(factors: Factors, channels: int) -> tuple[Floats, Floats]:
    """Return filters `[c, r, h w]` and columns `[o, c, r]`."""
    rows = factors.depthwise.reshape(channels, -1, np.prod(factors.depthwise.shape[2:]))
    return rows, factors.pointwise.reshape(len(factors.pointwise), channels, -1)


def _swept(rows: Floats, start: tuple[Floats, Floats], products: Floats) -> tuple[Floats, Floats]:
    """Return columns `[o, c, r]` and filters `[c, r, k]` after the sweeps; rows are `[o, c, k]`."""
    up, down = start
    outputs, channels, taps = rows.shape
    rank = down.shape[1]
    wanted = rows.reshape(outputs, -1) @ products
    blocks = products.reshape(channels, taps, channels, taps)
    for _ in range(_SWEEPS):
        columns = up.reshape(outputs, -1)
        # (P^T P) times H, filter by filter: the normal equations of all filters at once
        inner = (columns.T @ columns).reshape(channels, rank, channels, rank)
        normal = np.einsum("arbs,akbl->arkbsl", inner, blocks, optimize=True)
        target = np.einsum("ocr,ock->crk", up, wanted.reshape(rows.shape), optimize=True)
        size = channels * rank * taps
        down = _solved(normal.reshape(size, size), target.reshape(size, 1))
        down = down.reshape(channels, rank, taps)
        spread = np.zeros((channels, rank, channels, taps))
        spread[np.arange(channels), :, np.arange(channels)] = down
        spread = spread.reshape(channels * rank, -1)
        columns = _solved(spread @ products @ spread.T, spread @ wanted.T).T
        up = columns.reshape(outputs, channels, rank)
    return up, down


def _solved(matrix: Floats, target: Floats) -> Floats:
    """Return the solution of a symmetric system that may be singular, about."""
    damping = max(_DAMPING * float(np.diag(matrix).mean()), np.finfo(np.float64).tiny)
    damped = matrix + damping * np.eye(len(matrix))
    return np.linalg.solve(damped, target).astype(np.float64)


def _balanced(up: Floats, down: Floats) -> tuple[Floats, Floats]:
    """Return columns `[o, c, r]` and filters `[c, r, k]`, each pair of one norm."""
    above, below = np.linalg.norm(up, axis=0), np.linalg.norm(down, axis=2)
    scale = np.sqrt(np.divide(above, below, out=np.ones_like(above), where=(above * below) > 0))
    return up / scale, down * scale[..., None]
