"""Measure what a module's loss and outputs do when its weights change."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.pruning.criteria import MEASURED, Slopes

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["Batches", "Loss", "loss_curvatures", "loss_slopes", "output_slopes", "slopes_for"]

Batches: TypeAlias = Sequence[tuple[Any, Any]]
"""Pairs of inputs `[n, …]` and targets `[n, …]`, arrays or tensors."""

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
"""The mean loss of a batch, of outputs and targets."""

Parameters: TypeAlias = "Mapping[str, torch.Tensor]"
_SAMPLES = 16
"""Samples that output sensitivities are averaged over: each costs one pass per output."""


def slopes_for(
    criterion: str,
    module: nn.Module,
    parameters: Parameters,
    data: Batches | None,
    loss: Loss | None,
) -> dict[str, Slopes]:
    """Return what a criterion needs of each parameter; nothing for those that read weights only.

    Raises:
        InputError: It needs data, and there are none.
    """
    if criterion not in MEASURED:
        return {name: Slopes() for name in parameters}
    if not data:
        raise InputError(f"the criterion {criterion!r} needs data to measure slopes on")
    if criterion == "sensitivity":
        inputs = np.concatenate([np.asarray(batch) for batch, _ in data])[:_SAMPLES]
        made = output_slopes(module, parameters, inputs)
        return {name: Slopes(outputs=made[name]) for name in parameters}
    if criterion == "curvature":
        made = loss_curvatures(module, parameters, data, loss)
        return {name: Slopes(curvature=made[name]) for name in parameters}
    made = loss_slopes(module, parameters, data, loss)
    return {name: Slopes(loss=made[name]) for name in parameters}


def loss_slopes(
    module: nn.Module, parameters: Parameters, data: Batches, loss: Loss | None = None
) -> dict[str, NDArray[Any]]:
    """Return dL/dw of each parameter, L the mean loss over all samples.

    Args:
        module: is run as for inference.
        parameters: of the module, by any names.
        data: at least one batch.
        loss: cross-entropy of logits and class numbers, if not given.
    """
    import torch

    measure = loss or torch.nn.functional.cross_entropy
    sums = {name: torch.zeros_like(item) for name, item in parameters.items()}
    count = sum(len(batch) for batch, _ in data)
    with _inference(module):
        for batch, target in data:
            made = measure(module(_tensor(batch)), _tensor(target))
            found = torch.autograd.grad(made, list(parameters.values()), materialize_grads=True)
            for name, slope in zip(parameters, found, strict=True):
                sums[name] += slope * (len(batch) / count)
    return {name: item.cpu().numpy() for name, item in sums.items()}


def loss_curvatures(
    module: nn.Module, parameters: Parameters, data: Batches, loss: Loss | None = None
) -> dict[str, NDArray[Any]]:
    """Return d2L/dw2 of each parameter by the Fisher information (`fisher_information`).

    Raises:
        InputError: the loss is not the cross-entropy of logits, which alone has it.
    """
    from lepton.models.fisher import fisher_information

    if loss is not None:
        raise InputError("the criterion 'curvature' is of cross-entropy: it takes no other loss")
    batches = [(_tensor(batch),) for batch, _ in data]
    found = fisher_information(module, parameters, batches)
    return {name: item.cpu().numpy() for name, item in found.items()}


def output_slopes(
    module: nn.Module, parameters: Parameters, inputs: Any
) -> dict[str, NDArray[Any]]:
    """Return the mean over samples of sum_k |dy_k/dw| of each parameter, y all outputs of one.

    Args:
        module: is run as for inference.
        parameters: of the module, by any names.
        inputs: `[n, …]`; each sample costs one backward pass per output.
    """
    import torch

    sums = {name: torch.zeros_like(item) for name, item in parameters.items()}
    samples = _tensor(inputs)
    with _inference(module):
        for at in range(len(samples)):
            outputs = module(samples[at : at + 1]).reshape(-1)
            for output in outputs:
                found = torch.autograd.grad(
                    output, list(parameters.values()), retain_graph=True, materialize_grads=True
                )
                for name, slope in zip(parameters, found, strict=True):
                    sums[name] += slope.abs() / len(samples)
    return {name: item.cpu().numpy() for name, item in sums.items()}


@contextmanager
def _inference(module: nn.Module) -> Generator[None]:
    """Run a module as for inference, then in the mode it was in."""
    was = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was)


def _tensor(values: Any) -> torch.Tensor:
    import torch

    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values))
