"""Choose the activations that need 16 bits, by what 8 bits of each do to the outputs.

The sensitivity of a tensor is the noise at the outputs with it alone in 8 bits and all others in
16. From all in 8 bits on, that of the most sensitive ones is raised which then leaves least noise,
one after the other (sensitivities alone mislead: a softmax is far from linear, and noise from
different tensors may cancel), until the target is reached on the quantized model itself.

Source: Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602, section on
partial quantization, whose sensitivity analysis this is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lepton.compiler.activations import Activations, Fidelity, Precision
from lepton.compiler.fidelity import Reference, Runner
from lepton.compiler.switches import SCALE, activation_scales, switch_inputs, switchable
from lepton.errors import InputError

__all__ = ["choose_wide", "precision_of"]

_RUNS = 1024
"""Runs of the network that sensitivities are measured by; targets are measured on all samples."""

_FEWEST = 8
"""Samples that a sensitivity is measured on at least, if there are so many."""

_CANDIDATES = 16
"""The most sensitive tensors, of which the next one is chosen."""

Quantize = Callable[[Sequence[str] | None], Any]


def choose_wide(
    quantize: Quantize, reference: Reference, asked: Activations
) -> tuple[Any, Fidelity, Fidelity | None]:
    """Quantize a model with few activations of 16 bits, the worst ones, that reach a target.

    Args:
        quantize: tensors of 16 bits, None for all -> the quantized `onnx.ModelProto`.
        reference: the float model's outputs.
        asked: the target.

    Returns:
        The model, what it is with all of 8 bits, and with all of 16 bits (None if 8 are enough).

    Raises:
        InputError: not even all of 16 bits reach the target.
    """
    narrow = quantize(())
    int8 = reference.fidelity(Runner(narrow))
    if asked.reached(int8):
        return narrow, int8, None
    owners = activation_scales(narrow.graph)
    wide = quantize(None)
    int16 = reference.fidelity(Runner(wide))
    if not asked.reached(int16):
        raise InputError(
            f"all activations of 16 bits reach {int16.text()}, not the target of {asked.target()}: "
            "the rest is lost by the 8-bit weights; ask for less"
        )
    samples = max(_FEWEST, _RUNS // len(owners))
    search = _Search(Runner(switchable(wide, narrow)), reference, samples, owners)
    order = search.worst_first()
    while len(order) > 1:
        order.remove(search.next_one(order))
        if not asked.reached(reference.fidelity(search.network, switch_inputs(owners, order))):
            continue
        made = quantize([owner for owner in owners if owner not in order])
        if asked.reached(reference.fidelity(Runner(made))):
            return made, int8, int16
    return wide, int8, int16


class _Search(NamedTuple):
    """What sensitivities are measured with."""

    network: Runner
    reference: Reference
    samples: int
    owners: Sequence[str]

    def noise(self, narrow: Iterable[str]) -> float:
        """Return the noise with some tensors in 8 bits."""
        switches = switch_inputs(self.owners, narrow)
        return self.reference.noise(self.network, self.samples, switches)

    def worst_first(self) -> list[str]:
        """Return the tensors by their sensitivity, the greatest first."""
        noise = {owner: self.noise([owner]) for owner in self.owners}
        return sorted(self.owners, key=lambda owner: -noise[owner])

    def next_one(self, narrow: Sequence[str]) -> str:
        """Return which of the 8-bit tensors, the most sensitive first, is best raised next."""
        return min(
            narrow[:_CANDIDATES],
            key=lambda owner: self.noise(other for other in narrow if other != owner),
        )


def precision_of(
    model: Any,
    reference: Reference,
    asked: Activations,
    others: tuple[Fidelity | None, Fidelity | None] = (None, None),
) -> Precision:
    """Return what a quantized model is.

    Args:
        model: as the quantizer wrote it.
        reference: the float model's outputs.
        asked: what was asked for.
        others: what all of 8 and all of 16 bits are, if that was measured.
    """
    wide, layers = _wide(model.graph)
    fidelity = reference.fidelity(Runner(model))
    count = len(activation_scales(model.graph))
    return Precision(asked, count, tuple(wide), tuple(layers), fidelity, *others)


def _wide(graph: Any) -> tuple[list[str], list[str]]:
    """Return the tensors of 16 bits, and the nodes that read or write one."""
    from onnx import TensorProto

    kinds = {item.name: item.data_type for item in graph.initializer}
    scales = [
        node
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and len(node.input) > 2
        and kinds.get(node.input[2]) == TensorProto.INT16
    ]
    tensors = {name for node in scales for name in (node.input[0], node.output[0])}
    layers = [
        node.name
        for node in graph.node
        if node not in scales and tensors.intersection((*node.input, *node.output))
    ]
    owners = dict.fromkeys(node.input[1].removesuffix(SCALE) for node in scales)
    return [name for name in activation_scales(graph) if name in owners], layers
