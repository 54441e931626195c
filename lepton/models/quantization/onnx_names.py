"""Weights of an ONNX graph by the names that the PyTorch module it came from has for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from lepton.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["bits_by_initializer"]

_FUSED = "/MatMulAddFusion"
"""What ONNX Runtime appends to the name of a product that it fuses with the bias behind it."""


def bits_by_initializer(
    graph: onnx.GraphProto, bits: Mapping[str, int], weights: Collection[str]
) -> dict[str, int]:
    """Return bits by the names that a graph has for its weights.

    An exporter keeps a parameter's name, unless it folded or transposed it; the node that reads it
    is named by the path of its layer then: `/3/body/body.0/Conv` for `3.body.0.weight`.

    Args:
        graph: its nodes named as PyTorch's exporter does.
        bits: by initializer or by parameter.
        weights: names of the graph's weights.

    Raises:
        InputError: no weights have that name.
    """
    paths: dict[str, set[str]] = {}
    for node in graph.node:
        read = {name for name in node.input if name in weights}
        paths.setdefault(_layer_path(node.name), set()).update(read)
    made = {name: count for name, count in bits.items() if name in weights}
    for name, count in bits.items():
        if name in weights:
            continue
        layer, _, label = name.rpartition(".")
        found = paths.get(layer) if label == "weight" else None
        if not found:
            known = ", ".join(f"'{each}'" for each in weights) or "none"
            raise InputError(f"the model has no weights '{name}' (it has {known})")
        made |= dict.fromkeys(found, count)
    return made


def _layer_path(node: str) -> str:
    """Return the path of the layer that a node came from, `3.body.0` for `/3/body/body.0/Conv`."""
    path: list[str] = []
    for part in node.removesuffix(_FUSED).split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)
